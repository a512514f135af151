// SPDX-License-Identifier: MIT
// The CPU's results do not depend on how its work is done: the same bits for any number of threads,
// for a caller's job system that runs tasks one by one from the last to the first, and for any way
// of cutting the rows into runs.
#include "cases.h"
#include "check.h"

#include <stdlib.h>

static const char *isa; // the level under test

static void reversed_for(void *user, uint32_t n, void (*task)(void *arg, uint32_t i), void *arg)
{
    uint32_t *n_phases = user;
    ++*n_phases;
    while (n-- > 0)
        task(arg, n);
}

static void create(struct stack *stack, const struct layer_data *data, enum vkmoe_dtype x_type,
                   uint32_t n_threads, const vkmoe_host *host)
{
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.max_tokens = MAX_TOKENS;
    plan.scores = true;
    plan.x_type = x_type;
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

static void check_setting(const struct setting *setting, const char *name,
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
    create(&stack, data, all->x_type, setting->n_threads, setting->reversed ? &host : NULL);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!rows_same(&stack, data, x, parts[i].first, parts[i].n, all))
            fail_msg("%s, %s, %s, %s: other bits when rows [%u, +%u) are run apart", isa, name,
                     vkmoe_dtype_name(all->x_type), setting->name, parts[i].first, parts[i].n);
    assert_int_equal(n_phases > 0, setting->reversed);
    stack_destroy(&stack);
}

static void check_case(const struct layer_case *c, enum vkmoe_dtype x_type, uint32_t seed)
{
    static const struct setting settings[] = {
        {"1 thread", 1, false},  {"2 threads", 2, false}, {"3 threads", 3, false},
        {"7 threads", 7, false}, {"reversed", 0, true},
    };
    struct layer_data data;
    struct stack stack;
    struct outputs all;
    float *x = malloc(sizeof *x * MAX_TOKENS * c->layer.d_model);
    fill_random(x, (size_t) MAX_TOKENS * c->layer.d_model, seed);
    case_weights(&data, &c->layer, seed);
    create(&stack, &data, x_type, 1, NULL);
    outputs_init(&all, &data.layer, x_type, MAX_TOKENS);
    run_rows(&stack, &data.layer, x, 0, &all);
    stack_destroy(&stack);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        check_setting(&settings[i], c->name, &data, x, &all);

    spoil_weights(&data);
    create(&stack, &data, x_type, 1, NULL);
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
    for (uint32_t i = 0; i < n; i++) {
        check_case(&cases[i], VKMOE_F32, i + 1);
        check_case(&cases[i], i % 2 ? VKMOE_F16 : VKMOE_BF16, i + 1);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bits_do_not_depend_on_scheduling)};
    isa = argc > 1 ? argv[1] : "scalar";
    if (!have_isa(isa))
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
