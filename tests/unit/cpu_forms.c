// SPDX-License-Identifier: MIT
// The CPU on layers with anything in any field, against the oracle: the same experts, outputs
// within the promise, and the same bits whatever the number of threads.
#include "check.h"
#include "fixture.h"

#include "core/dtype.h"
#include "core/layer.h"

#include <stdlib.h>

enum { N_LAYERS = 400, MAX_TOKENS = 70, MAX_WIDTH = 32, MAX_SCORED = 80, N_TYPES = 3 };

struct outputs {
    char y[MAX_TOKENS * MAX_WIDTH * sizeof(float)];
    float gates[MAX_TOKENS * MAX_SCORED], scores[MAX_TOKENS * MAX_SCORED];
    int32_t ids[MAX_TOKENS * MAX_SCORED];
};

struct test_case {
    struct layer_data data;
    uint32_t n_tokens;
    enum vkmoe_dtype x_type;
    char x[MAX_TOKENS * (MAX_WIDTH + 8) * sizeof(float)];
    char router_x[MAX_TOKENS * (MAX_WIDTH + 8) * sizeof(float)];
    size_t x_stride; // of both
    int32_t token_ids[MAX_TOKENS];
};

static void store_rows(const float *rows, const struct test_case *c, char *out)
{
    for (uint32_t t = 0; t < c->n_tokens; t++)
        moe_dtype_encode(c->x_type, rows + t * c->data.layer.d_model, c->data.layer.d_model,
                         out + t * c->x_stride);
}

static void make_case(struct test_case *c, uint32_t seed)
{
    static float x[MAX_TOKENS * MAX_WIDTH], router_x[MAX_TOKENS * MAX_WIDTH];
    const vkmoe_layer_desc layer = random_layer(seed, N_TYPES);
    layer_data_init(&c->data, &layer, seed);
    c->n_tokens = 1 + seed * 7 % MAX_TOKENS;
    c->x_type = seed % 4 == 3 ? (enum vkmoe_dtype) (1 + seed / 4 % 2) : VKMOE_F32;
    c->x_stride = moe_dtype_size(c->x_type, layer.d_model + seed % 8);
    fill_random(x, c->n_tokens * layer.d_model, seed + 1000);
    fill_inputs(&layer, c->n_tokens, seed + 2000, router_x, c->token_ids);
    for (uint32_t i = 0; seed % 5 == 4 && i < layer.d_model; i++)
        x[i] = router_x[i] = NAN; // the first token
    store_rows(x, c, c->x);
    store_rows(router_x, c, c->router_x);
}

static void run_case(const struct test_case *c, const char *device, uint32_t n_threads,
                     struct outputs *out)
{
    vkmoe_context_desc context = vkmoe_context_desc_init();
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    vkmoe_io io = vkmoe_io_init();
    struct stack stack;
    context.device = device;
    context.n_threads = n_threads;
    plan.max_tokens = c->n_tokens;
    plan.scores = true;
    plan.x_type = c->x_type;
    memset(out, 0x5a, sizeof *out);
    io.x = c->x, io.x_stride = c->x_stride;
    io.y = out->y, io.ids = out->ids, io.gates = out->gates, io.scores = out->scores;
    if (c->data.layer.router_input)
        io.router_x = c->router_x, io.router_x_stride = c->x_stride;
    if (c->data.layer.select == VKMOE_SELECT_TABLE)
        io.token_ids = c->token_ids;
    check_ok(stack_create_plan(&stack, &context, &c->data, &plan));
    check_ok(vkmoe_run(stack.bind, c->n_tokens, &io));
    stack_destroy(&stack);
}

// The distance of two arrays relative to the length of the second; equal infinities, and NaN where
// NaN is wanted, are no distance.
static double distance(const float *got, const float *want, size_t n)
{
    double of_difference = 0, of_want = 0;
    for (size_t i = 0; i < n; i++) {
        const bool same_nan = isnan(got[i]) && isnan(want[i]);
        if (same_nan || (got[i] == want[i] && !isfinite((double) want[i])))
            continue;
        of_difference += pow((double) got[i] - (double) want[i], 2);
        of_want += pow((double) want[i], 2);
    }
    return of_difference == 0 ? 0 : sqrt(of_difference / of_want);
}

static double y_distance(const struct test_case *c, const struct outputs *got,
                         const struct outputs *want)
{
    static float a[MAX_TOKENS * MAX_WIDTH], b[MAX_TOKENS * MAX_WIDTH];
    const size_t n = (size_t) c->n_tokens * c->data.layer.d_out;
    moe_dtype_decode(c->x_type, got->y, n, a);
    moe_dtype_decode(c->x_type, want->y, n, b);
    return distance(a, b, n);
}

static void test_random_layers(void **state)
{
    (void) state;
    static struct test_case c;
    static struct outputs want, got, again;
    // f32 keeps the promise of `exact`; y of 16 bits is rounded once, here and there.
    static const double bounds[N_TYPES] = {1e-5, 0x1p-10, 0x1p-7};
    for (uint32_t seed = 0; seed < N_LAYERS; seed++) {
        make_case(&c, seed);
        const size_t n_slots = (size_t) c.n_tokens * c.data.layer.top_k;
        const size_t n_scores = (size_t) c.n_tokens * moe_layer_n_scored(&c.data.layer);
        run_case(&c, "reference", 0, &want);
        run_case(&c, "cpu", 1, &got);
        for (size_t i = 0; i < n_slots; i++)
            if (got.ids[i] != want.ids[i])
                fail_msg("layer %u, slot %zu: expert %d, not %d", seed, i, got.ids[i], want.ids[i]);
        double gates = distance(got.gates, want.gates, n_slots);
        double scores = distance(got.scores, want.scores, n_scores);
        double y = y_distance(&c, &got, &want);
        if (!(gates <= 1e-5) || !(scores <= 1e-5) || !(y <= bounds[c.x_type]))
            fail_msg("layer %u: gates differ by %g, scores by %g, y by %g", seed, gates, scores, y);
        for (uint32_t n_threads = 2; n_threads <= 3; n_threads++) {
            run_case(&c, "cpu", n_threads, &again);
            if (memcmp(&again, &got, sizeof got) != 0)
                fail_msg("layer %u: other bits with %u threads", seed, n_threads);
        }
        layer_data_finish(&c.data);
    }
}

// An expert of the first token that changed places with another is noticed, so the comparison above
// can fail.
static void test_can_fail(void **state)
{
    (void) state;
    static struct test_case c;
    static struct outputs want, got;
    uint32_t n_noticed = 0, n_layers = 0;
    for (uint32_t seed = 0; seed < 100; seed++) {
        make_case(&c, seed);
        run_case(&c, "reference", 0, &want);
        const uint32_t n = c.data.layer.n_experts, e = (uint32_t) want.ids[0];
        if (c.x_type == VKMOE_F32 && n > 1 && e < n) {
            vkmoe_expert_tensors first = c.data.experts[e];
            c.data.experts[e] = c.data.experts[(e + 1) % n];
            c.data.experts[(e + 1) % n] = first;
            run_case(&c, "cpu", 1, &got);
            n_layers++;
            n_noticed += y_distance(&c, &got, &want) > 1e-5;
        }
        layer_data_finish(&c.data);
    }
    if (n_layers < 40 || n_noticed < n_layers - 3) // a clamp or a ReLU may hide it
        fail_msg("%u of %u layers", n_noticed, n_layers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_layers),
        cmocka_unit_test(test_can_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
