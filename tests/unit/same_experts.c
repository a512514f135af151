// SPDX-License-Identifier: MIT
// The reference keeps one copy of experts that are made of the same memory, and computes what it
// does with copies of their own.
#include "check.h"
#include "fixture.h"

#include <stdlib.h>

enum { N_TOKENS = 8, D_MODEL = 6, D_OUT = 3 };

static void *sum_alloc(void *user, size_t size, size_t align)
{
    void *memory = NULL;
    *(uint64_t *) user += size;
    return posix_memalign(&memory, align, size) == 0 ? memory : NULL;
}

static void just_free(void *user, void *memory)
{
    (void) user;
    free(memory);
}

// Bytes that weights of `data` take on the reference, and y of a run with them.
static uint64_t weights_size(const struct layer_data *data, float *y)
{
    uint64_t n_bytes = 0, before;
    float x[N_TOKENS * D_MODEL];
    vkmoe_host host = vkmoe_host_init();
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    vkmoe_io io = vkmoe_io_init();
    struct stack stack;
    host.user = &n_bytes, host.alloc = sum_alloc, host.free = just_free;
    desc.host = &host, desc.device = "reference";
    plan.layer = &data->layer, plan.max_tokens = N_TOKENS;
    io.x = x, io.y = y;
    fill_random(x, N_TOKENS * D_MODEL, 3);

    check_ok(vkmoe_context_create(&desc, &stack.context));
    before = n_bytes;
    check_ok(vkmoe_weights_create(stack.context, &data->desc, &stack.weights));
    uint64_t size = n_bytes - before;
    check_ok(vkmoe_plan_create(stack.context, &plan, &stack.plan));
    check_ok(vkmoe_bind_create(stack.plan, stack.weights, NULL, &stack.bind));
    check_ok(vkmoe_run(stack.bind, N_TOKENS, &io));
    stack_destroy(&stack);
    return size;
}

static uint64_t expert_size(const vkmoe_layer_desc *layer)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_context *context;
    vkmoe_weights_layout layout;
    desc.device = "reference";
    check_ok(vkmoe_context_create(&desc, &context));
    check_ok(vkmoe_weights_get_layout(context, layer, &layout));
    vkmoe_context_destroy(context);
    return layout.expert_size;
}

static vkmoe_tensor copy_of(vkmoe_tensor tensor, float *to, size_t n)
{
    memcpy(to, tensor.data, n * sizeof *to);
    tensor.data = to;
    return tensor;
}

// Every expert has what expert 0 has: first its memory, then one tensor of each in other memory.
static void test_same_memory_is_kept_once(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = full_layer();
    struct layer_data data;
    float many[N_TOKENS * D_OUT], one[N_TOKENS * D_OUT], own[N_TOKENS * D_OUT];
    layer_data_init(&data, &layer, 1);
    const uint32_t n = data.layer.n_experts, d_ff = data.layer.d_ff;
    const uint64_t size = expert_size(&data.layer);
    const uint64_t all = weights_size(&data, many);
    for (uint32_t e = 1; e < n; e++)
        data.experts[e] = data.experts[0];
    assert_int_equal(weights_size(&data, one), all - (n - 1) * size);
    assert_memory_not_equal(one, many, sizeof one);

    float *memory = calloc(n, (d_ff + d_ff * D_OUT) * sizeof *memory), *next = memory;
    assert_non_null(memory);
    for (uint32_t e = 1; e < n; e++) { // an odd one has a bias of its own, an even one its `down`
        if (e % 2 != 0)
            data.experts[e].up_bias = memcpy(next, data.experts[e].up_bias, d_ff * sizeof *next);
        else
            data.experts[e].down = copy_of(data.experts[e].down, next, (size_t) d_ff * D_OUT);
        next += d_ff + d_ff * D_OUT;
    }
    assert_int_equal(weights_size(&data, own), all);
    assert_memory_equal(one, own, sizeof one);
    free(memory);
    layer_data_finish(&data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_memory_is_kept_once)};
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
