// SPDX-License-Identifier: MIT
// What the tasks of a CPU count, against numbers by hand, for routings that the rows of x choose: a
// row that is 1 at place e goes to expert e.
//
// A layer of d_model 32, d_ff 48 and d_out 20 has experts of 2 x 3 panels of 32 steps and 2 of 48;
// a panel has 16 columns of 4 bytes: 6 x 2048 + 2 x 3072 = 18432 bytes in 8 panels.
#include "check.h"

#include "api/api.h"
#include "base/bits.h"
#include "cpu/cpu.h"
#include "fixture.h"

#include <stdlib.h>
#include <vkmoe/bench.h>

enum { N_EXPERTS = 4, D_MODEL = 32, D_FF = 48, D_OUT = 20, MAX_TOKENS = 100 };
enum { EXPERT_SIZE = 18432, EXPERT_PANELS = 8 };

struct scene {
    struct layer_data data;
    float router[N_EXPERTS * D_MODEL];
    float x[MAX_TOKENS * D_MODEL], y[MAX_TOKENS * D_OUT];
    vkmoe_io io;
    struct stack stack;
};

static void open_scene(struct scene *s, const vkmoe_layer_desc *layer, const char *isa,
                       uint32_t n_threads)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    memset(s, 0, sizeof *s);
    layer_data_init(&s->data, layer, 1);
    for (uint32_t e = 0; e < N_EXPERTS; e++)
        s->router[e * D_MODEL + e] = 1;
    s->data.router.weight = (vkmoe_tensor){.data = s->router, .type = VKMOE_F32};
    desc.device = "cpu", desc.cpu_isa = isa, desc.n_threads = n_threads;
    plan.max_tokens = MAX_TOKENS, plan.counters = true;
    check_ok(stack_create_plan(&s->stack, &desc, &s->data, &plan));
    s->io = vkmoe_io_init();
    s->io.x = s->x, s->io.y = s->y;
}

static void close_scene(struct scene *s)
{
    stack_destroy(&s->stack);
    layer_data_finish(&s->data);
}

// Runs tokens that go to the experts of `digits`, over and over.
static vkmoe_counters count(struct scene *s, uint32_t n_tokens, const char *digits)
{
    vkmoe_counters counters;
    memset(s->x, 0, sizeof s->x);
    for (uint32_t t = 0; t < n_tokens; t++)
        s->x[t * D_MODEL + (uint32_t) (digits[t % strlen(digits)] - '0')] = 1;
    check_ok(vkmoe_run(s->stack.bind, n_tokens, &s->io));
    check_ok(vkmoe_bind_get_counters(s->stack.bind, &counters));
    assert_int_equal(counters.padded_columns, 0);
    assert_int_equal(counters.idle_workgroups, 0);
    const struct cpu_device *cpu = (const struct cpu_device *) s->stack.context->device;
    const bool gathers = cpu->kernels.even_rows[CPU_OPERAND_F32] && n_tokens >= CPU_GATHER_TOKENS;
    assert_int_equal(counters.dispatches, gathers ? 6 : 5);
    return counters;
}

static vkmoe_layer_desc plain_layer(void)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = N_EXPERTS, layer.top_k = 1;
    layer.d_model = D_MODEL, layer.d_ff = D_FF, layer.d_out = D_OUT;
    layer.gated = true, layer.act = VKMOE_ACT_SILU;
    return layer;
}

static void check_counters(const char *isa, uint32_t n_threads)
{
    struct scene s;
    vkmoe_counters c;
    vkmoe_plan_kernels kernels;
    vkmoe_layer_desc layer = plain_layer();
    open_scene(&s, &layer, isa, n_threads);
    check_ok(vkmoe_plan_get_kernels(s.stack.plan, &kernels));
    assert_int_equal(kernels.weights_size, EXPERT_SIZE);
    assert_string_equal(kernels.name, isa);
    c = count(&s, 5, "2"); // one expert, all of it one task a phase
    assert_int_equal(c.weight_loads, EXPERT_SIZE);
    assert_int_equal(c.router_loads, D_MODEL * 16 * 4);
    assert_int_equal(c.live_columns, 5 * EXPERT_PANELS);
    assert_int_equal(c.workgroups, 5);
    c = count(&s, 5, "00130"); // three
    assert_int_equal(c.weight_loads, 3 * EXPERT_SIZE);
    assert_int_equal(c.live_columns, 5 * EXPERT_PANELS);
    c = count(&s, MAX_TOKENS, "1"); // three tiles of rows each read it all
    assert_int_equal(c.weight_loads, 3 * EXPERT_SIZE);
    assert_int_equal(c.live_columns, MAX_TOKENS * EXPERT_PANELS);
    assert_int_equal(c.router_loads, 3 * D_MODEL * 16 * 4);
    c = count(&s, 1, "3"); // and nothing is left from before
    assert_int_equal(c.weight_loads, EXPERT_SIZE);
    assert_int_equal(c.live_columns, EXPERT_PANELS);
    close_scene(&s);

    layer.d_shared_ff = 16; // 2 panels of 32 steps, 2 of 16
    layer.top_k = 2;
    layer.in_type = VKMOE_BF16; // halves the panels of 32 steps
    open_scene(&s, &layer, isa, n_threads);
    c = count(&s, 1, "3");
    assert_int_equal(c.weight_loads, 2 * (6 * 1024 + 2 * 3072) + 2 * 1024 + 2 * 1024);
    assert_int_equal(c.live_columns, 2 * EXPERT_PANELS + 4);
    close_scene(&s);
}

static void test_counters(void **state)
{
    (void) state;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    static const char *const levels[] = {"scalar", "avx2", "avx512_vnni", "i8mm"};
    desc.device = "cpu";
    for (uint32_t i = 0; i < MOE_COUNT(levels); i++) {
        vkmoe_context *context;
        desc.cpu_isa = levels[i];
        if (vkmoe_context_create(&desc, &context) != VKMOE_OK)
            continue;
        vkmoe_context_destroy(context);
        check_counters(levels[i], 1);
        check_counters(levels[i], 2);
    }
}

// Counting changes no result.
static void test_results_are_the_same(void **state)
{
    (void) state;
    struct scene s;
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    vkmoe_plan *plan;
    vkmoe_bind *bind;
    float y[sizeof s.y / sizeof *s.y];
    vkmoe_layer_desc layer = plain_layer();
    open_scene(&s, &layer, "scalar", 2);
    fill_random(s.x, MAX_TOKENS * D_MODEL, 4);
    check_ok(vkmoe_run(s.stack.bind, MAX_TOKENS, &s.io));
    memcpy(y, s.y, sizeof y);
    memset(s.y, 0xff, sizeof s.y);
    desc.layer = &s.data.layer, desc.max_tokens = MAX_TOKENS;
    check_ok(vkmoe_plan_create(s.stack.context, &desc, &plan));
    check_ok(vkmoe_bind_create(plan, s.stack.weights, NULL, &bind));
    check_ok(vkmoe_run(bind, MAX_TOKENS, &s.io));
    assert_memory_equal(y, s.y, sizeof y);
    vkmoe_bind_destroy(bind);
    vkmoe_plan_destroy(plan);
    close_scene(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counters),
        cmocka_unit_test(test_results_are_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
