// SPDX-License-Identifier: MIT
// The CPU against the oracle: the same experts, and outputs within the promise for f32 operands,
// relative L2 1e-5.
//
// Two experts may change places only where the oracle's own scores of them are closer than both can
// be off: a logit by gamma_n(u) * sum of |x w| and of the bias, n = d_model + 1; scores change no
// faster than logits, and evaluating one costs a few roundings more.
#include "cases.h"
#include "check.h"

#include <stdlib.h>

static const char *isa; // the level under test

static const double promise = 1e-5;

static void run_on(const char *device, const struct layer_data *data, const float *x,
                   struct outputs *out)
{
    struct stack stack;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = device;
    desc.cpu_isa = isa;
    check_ok(stack_create(&stack, &desc, data, MAX_TOKENS, true));
    run_rows(&stack, &data->layer, x, 0, out);
    stack_destroy(&stack);
}

static double score_bound(const struct layer_data *data, const float *x, int32_t expert)
{
    const double u = 0x1p-24, n = data->layer.d_model + 1.0;
    const float *w = data->router.weight.data;
    w += (size_t) expert * data->layer.d_model;
    double magnitude = data->router.bias ? fabs((double) data->router.bias[expert]) : 0;
    for (uint32_t i = 0; i < data->layer.d_model; i++)
        magnitude += fabs((double) x[i] * (double) w[i]);
    return n * u / (1 - n * u) * magnitude + 8 * u;
}

// Did the CPU choose the oracle's experts for this row, or others that cannot be told from them?
static bool row_ids_ok(const struct layer_data *data, const float *x, const struct outputs *cpu,
                       const struct outputs *ref, uint32_t row, uint32_t *n_exempt)
{
    const int32_t *got = cpu->ids + (size_t) row * ref->top_k;
    const int32_t *want = ref->ids + (size_t) row * ref->top_k;
    const float *scores = ref->scores + (size_t) row * ref->n_experts;
    if (memcmp(got, want, ref->top_k * sizeof *got) == 0)
        return true;
    ++*n_exempt;
    for (uint32_t k = 0; k < ref->top_k; k++) {
        if (got[k] < 0 || (uint32_t) got[k] >= ref->n_experts)
            return false;
        double apart = fabs((double) scores[got[k]] - (double) scores[want[k]]);
        const float *row_x = x + (size_t) row * data->layer.d_model;
        if (apart > score_bound(data, row_x, got[k]) + score_bound(data, row_x, want[k]))
            return false;
    }
    return true;
}

struct distance {
    double difference, norm; // sums of squares
};

static void add_row(struct distance *d, const float *got, const float *want, uint32_t width)
{
    for (uint32_t i = 0; i < width; i++) {
        double apart = (double) got[i] - (double) want[i];
        d->difference += apart * apart;
        d->norm += (double) want[i] * (double) want[i];
    }
}

static bool within_promise(const struct distance *d)
{
    return sqrt(d->difference) <= promise * sqrt(d->norm);
}

// Everything the CPU wrote against the oracle; rows whose experts changed places are left out.
static bool outputs_ok(const struct layer_data *data, const float *x, const struct outputs *cpu,
                       const struct outputs *ref, uint32_t *n_exempt, struct distance *y)
{
    struct distance gates = {0};
    *y = (struct distance){0};
    for (uint32_t r = 0; r < ref->n_tokens; r++) {
        uint32_t exempt_before = *n_exempt;
        const size_t slot = (size_t) r * ref->top_k;
        if (!row_ids_ok(data, x, cpu, ref, r, n_exempt))
            return false;
        if (*n_exempt > exempt_before)
            continue;
        add_row(&gates, cpu->gates + slot, ref->gates + slot, ref->top_k);
        add_row(y, (const float *) (void *) cpu->y + (size_t) r * ref->d_out,
                (const float *) (void *) ref->y + (size_t) r * ref->d_out, ref->d_out);
    }
    return within_promise(&gates) && within_promise(y);
}

static void check_case(const struct layer_case *c, uint32_t seed, uint32_t *n_exempt)
{
    struct layer_data data;
    struct outputs cpu, ref;
    struct distance y;
    uint32_t ignored = 0;
    float *x = malloc(sizeof *x * MAX_TOKENS * c->layer.d_model);
    fill_random(x, (size_t) MAX_TOKENS * c->layer.d_model, seed);
    case_weights(&data, &c->layer, seed);
    outputs_init(&cpu, &data.layer, VKMOE_F32, MAX_TOKENS);
    outputs_init(&ref, &data.layer, VKMOE_F32, MAX_TOKENS);
    run_on("reference", &data, x, &ref);
    run_on("cpu", &data, x, &cpu);
    if (!outputs_ok(&data, x, &cpu, &ref, n_exempt, &y))
        fail_msg("%s, %s: other experts, or relative L2 of y %g", isa, c->name,
                 sqrt(y.difference / y.norm));

    spoil_weights(&data);
    run_on("cpu", &data, x, &cpu);
    if (outputs_ok(&data, x, &cpu, &ref, &ignored, &y))
        fail_msg("%s, %s: the check does not see other weights", isa, c->name);
    outputs_finish(&ref);
    outputs_finish(&cpu);
    layer_data_finish(&data);
    free(x);
}

static void cpu_agrees_with_the_oracle(void **state)
{
    (void) state;
    static struct layer_case cases[MAX_CASES];
    const uint32_t n = list_cases(cases);
    uint32_t n_exempt = 0;
    for (uint32_t i = 0; i < n; i++)
        check_case(&cases[i], i + 1, &n_exempt);
    // At most one row in a thousand may have had experts too close to call.
    assert_true(n_exempt * 1000ull <= (uint64_t) n * MAX_TOKENS);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cpu_agrees_with_the_oracle)};
    isa = argc > 1 ? argv[1] : "scalar";
    if (!have_isa(isa))
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
