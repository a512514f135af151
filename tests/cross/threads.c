// SPDX-License-Identifier: MIT
// The CPU's results do not depend on how its work is done: the same bits for any number of threads,
// for a caller's job system that runs tasks one by one from the last to the first, and for any way
// of cutting the rows into runs.
#include "cases.h"
#include "check.h"

#include <stdlib.h>

static const char *isa; // the level under test
static bool few;         // cases, for an emulated processor

static void reversed_for(void *user, uint32_t n, void (*task)(void *arg, uint32_t i), void *arg)
{
    uint32_t *n_phases = user;
    ++*n_phases;
    while (n-- > 0)
        task(arg, n);
}

// What a layer's plans compute.
struct kind {
    const char *name; // of the layer
    enum vkmoe_dtype x_type;
    enum vkmoe_precision precision;
};

static void create(struct stack *stack, const struct layer_data *data, const struct kind *kind,
                   uint32_t n_threads, const vkmoe_host *host)
{
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.max_tokens = MAX_TOKENS;
    plan.scores = true;
    plan.x_type = kind->x_type;
    plan.precision = kind->precision;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "cpu";
    desc.cpu_isa = isa;
    desc.n_threads = n_threads;
    desc.host = host;
    check_ok(stack_create_plan(stack, &desc, data, &plan));
}

// Are `part`'s rows those of `all` from `first` on, bit by bit?
static bool same_bits(const struct outputs *part, const struct outputs *all, uint32_t first)
{
    const size_t n = part->n_tokens, slot = (size_t) first * all->top_k, size = sizeof(float);
    const size_t y_row = all->d_out * all->element_size;
    return memcmp(part->y, all->y + first * y_row, n * y_row) == 0 &&
           memcmp(part->ids, all->ids + slot, n * all->top_k * size) == 0 &&
           memcmp(part->gates, all->gates + slot, n * all->top_k * size) == 0 &&
           memcmp(part->scores, all->scores + (size_t) first * all->n_experts,
                  n * all->n_experts * size) == 0;
}

// Runs rows [first, first + n) and compares.
static bool rows_same(const struct stack *stack, const struct layer_data *data, const float *x,
                      uint32_t first, uint32_t n, const struct outputs *all)
{
    struct outputs part;
    outputs_init(&part, &data->layer, all->x_type, n);
    run_rows(stack, &data->layer, x, first, &part);
    bool same = same_bits(&part, all, first);
    outputs_finish(&part);
    return same;
}

// One way of running, for one layer.
struct setting {
    const char *name;
    uint32_t n_threads;
    bool reversed; // through reversed_for
};

static void check_setting(const struct setting *setting, const struct kind *kind,
                          const struct layer_data *data, const float *x, const struct outputs *all)
{
    static const struct {
        uint32_t first, n;
    } parts[] = {{0, 0},  {0, 1},  {0, 2},   {1, 7},     {8, 8},         {16, 9},
                 {0, 33}, {3, 64}, {0, 150}, {150, 150}, {0, MAX_TOKENS}};
    uint32_t n_phases = 0;
    struct stack stack;
    vkmoe_host host = vkmoe_host_init();
    host.user = &n_phases;
    host.parallel_for = reversed_for;
    create(&stack, data, kind, setting->n_threads, setting->reversed ? &host : NULL);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!rows_same(&stack, data, x, parts[i].first, parts[i].n, all))
            fail_msg("%s, %s, %s, %s, %s: other bits when rows [%u, +%u) are run apart", isa,
                     kind->name, vkmoe_dtype_name(kind->x_type),
                     vkmoe_precision_name(kind->precision), setting->name, parts[i].first,
                     parts[i].n);
    assert_int_equal(n_phases > 0, setting->reversed);
    stack_destroy(&stack);
}

static void check_case(const struct layer_case *c, enum vkmoe_dtype x_type,
                       enum vkmoe_precision precision, uint32_t seed)
{
    static const struct setting settings[] = {
        {"1 thread", 1, false},  {"2 threads", 2, false}, {"3 threads", 3, false},
        {"7 threads", 7, false}, {"reversed", 0, true},
    };
    const struct kind kind = {c->name, x_type, precision};
    struct layer_data data;
    struct stack stack;
    struct outputs all;
    float *x = malloc(sizeof *x * MAX_TOKENS * c->layer.d_model);
    fill_random(x, (size_t) MAX_TOKENS * c->layer.d_model, seed);
    case_weights(&data, &c->layer, seed);
    create(&stack, &data, &kind, 1, NULL);
    outputs_init(&all, &data.layer, x_type, MAX_TOKENS);
    run_rows(&stack, &data.layer, x, 0, &all);
    stack_destroy(&stack);
    for (size_t i = few ? 2 : 0; i < sizeof settings / sizeof *settings; i += few ? 2 : 1)
        check_setting(&settings[i], &kind, &data, x, &all);

    spoil_weights(&data);
    create(&stack, &data, &kind, 1, NULL);
    if (rows_same(&stack, &data, x, 0, MAX_TOKENS, &all))
        fail_msg("%s, %s: the check does not see other weights", isa, c->name);
    stack_destroy(&stack);
    outputs_finish(&all);
    layer_data_finish(&data);
    free(x);
}

static void bits_do_not_depend_on_scheduling(void **state)
{
    (void) state;
    static struct layer_case cases[MAX_CASES];
    const uint32_t n = list_cases(cases);
    for (uint32_t i = 0; i < n; i += few ? 4 : 1) {
        if (!few)
            check_case(&cases[i], VKMOE_F32, VKMOE_PRECISION_EXACT, i + 1);
        check_case(&cases[i], i % 2 ? VKMOE_F16 : VKMOE_BF16, VKMOE_PRECISION_EXACT, i + 1);
    }
}

// Where operands are of 16 and 8 bits, or some of a layer's are.
static void bits_of_other_operands(void **state)
{
    (void) state;
    static const struct {
        enum vkmoe_precision precision;
        enum vkmoe_dtype x, in, out, shared_in, shared_out;
        uint32_t d_model, d_ff, d_shared_ff;
    } rows[] = {
        {VKMOE_PRECISION_HALF, VKMOE_BF16, VKMOE_BF16, VKMOE_BF16, VKMOE_BF16, VKMOE_BF16, 66, 40,
         17},
        {VKMOE_PRECISION_HALF, VKMOE_F32, VKMOE_BF16, VKMOE_F16, VKMOE_F32, VKMOE_BF16, 37, 81, 33},
        {VKMOE_PRECISION_INT8, VKMOE_F32, VKMOE_Q8_0, VKMOE_Q4_0, VKMOE_MXFP4, VKMOE_F32, 64, 160,
         17},
        {VKMOE_PRECISION_INT8, VKMOE_F16, VKMOE_Q4_K, VKMOE_Q8_0, VKMOE_BF16, VKMOE_Q8_0, 256, 32,
         96},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct layer_case c = {"types of operands", vkmoe_layer_desc_init()};
        c.layer.n_experts = 5, c.layer.top_k = 2;
        c.layer.d_model = rows[i].d_model, c.layer.d_ff = rows[i].d_ff, c.layer.d_out = 19;
        c.layer.d_shared_ff = rows[i].d_shared_ff;
        c.layer.act = VKMOE_ACT_SILU, c.layer.gated = true;
        c.layer.in_type = rows[i].in, c.layer.out_type = rows[i].out;
        c.layer.own_shared_types = true;
        c.layer.shared_in_type = rows[i].shared_in, c.layer.shared_out_type = rows[i].shared_out;
        check_case(&c, rows[i].x, rows[i].precision, (uint32_t) i + 1);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_do_not_depend_on_scheduling),
        cmocka_unit_test(bits_of_other_operands),
    };
    isa = argc > 1 ? argv[1] : "scalar";
    few = argc > 2;
    if (!have_isa(isa))
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
