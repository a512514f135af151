// SPDX-License-Identifier: MIT
// Precision half by the kernels in f16 (variant a1), under the validation layer: what a layer is
// promised against the oracle, what is rounded and what is not.
#include "check.h"
#include "fixture.h"

#include "api/api.h"
#include "base/bits.h"
#include "core/dtype.h"
#include "vulkan/plan.h"

enum { N_TOKENS = 45, MAX_Y = N_TOKENS * 64, MAX_SLOTS = N_TOKENS * 8 };

// Relative L2 error that precision half is promised to stay below.
#define HALF 4e-3

static vkmoe_context *device, *oracle;

static vkmoe_layer_desc layer_of(enum vkmoe_dtype in_type, enum vkmoe_dtype out_type, bool gated)
{
    vkmoe_layer_desc layer = full_layer();
    layer.n_experts = 6;
    layer.top_k = 2;
    layer.d_model = 50;
    layer.d_ff = 39;
    layer.d_out = 37;
    layer.d_shared_ff = 21;
    layer.in_type = in_type;
    layer.out_type = out_type;
    layer.gated = layer.gate_bias = gated;
    return layer;
}

struct result {
    float y[MAX_Y];
    int32_t ids[MAX_SLOTS];
    const char *variant; // that the device's plan has
};

static void run_some(vkmoe_context *context, const struct layer_data *data,
                     enum vkmoe_precision precision, const char *variant, const float *x,
                     uint32_t n_tokens, struct result *out)
{
    struct stack stack;
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    vkmoe_io io = vkmoe_io_init();
    plan.layer = &data->layer;
    plan.max_tokens = N_TOKENS;
    plan.precision = precision;
    plan.variant = variant;
    io.x = x;
    io.y = out->y;
    io.ids = out->ids;
    memset(out, 0xff, sizeof *out);
    check_ok(vkmoe_weights_create(context, &data->desc, &stack.weights));
    check_ok(vkmoe_plan_create(context, &plan, &stack.plan));
    check_ok(vkmoe_bind_create(stack.plan, stack.weights, NULL, &stack.bind));
    check_ok(vkmoe_run(stack.bind, n_tokens, &io));
    if (context == device) // the one thing that no public call tells
        out->variant = ((struct moe_vk_program *) stack.plan->program)->variant->name;
    stack.context = NULL;
    stack_destroy(&stack);
}

static void run(vkmoe_context *context, const struct layer_data *data,
                enum vkmoe_precision precision, const char *variant, const float *x,
                struct result *out)
{
    run_some(context, data, precision, variant, x, N_TOKENS, out);
}

static size_t n_y(const struct layer_data *data)
{
    return (size_t) N_TOKENS * data->layer.d_out;
}

static double relative_error(const struct layer_data *data, const float *got, const float *want)
{
    double error = 0, norm = 0;
    for (size_t i = 0; i < n_y(data); i++) {
        error += ((double) got[i] - want[i]) * ((double) got[i] - want[i]);
        norm += (double) want[i] * want[i];
    }
    return sqrt(error / norm);
}

static void the_promise_is_kept(void **state)
{
    static const enum vkmoe_dtype types[][2] = {
        {VKMOE_F16, VKMOE_F16}, {VKMOE_F16, VKMOE_BF16}, {VKMOE_F32, VKMOE_F16}};
    (void) state;
    float x[N_TOKENS * 64];
    struct result got, want, swapped;
    for (size_t t = 0; t < MOE_COUNT(types); t++)
        for (int gated = 0; gated < 2; gated++) {
            struct layer_data data;
            vkmoe_layer_desc layer = layer_of(types[t][0], types[t][1], gated);
            layer_data_init(&data, &layer, 3);
            fill_random(x, N_TOKENS * layer.d_model, 7);
            run(device, &data, VKMOE_PRECISION_HALF, NULL, x, &got);
            assert_string_equal(got.variant, "a1");
            run(oracle, &data, VKMOE_PRECISION_EXACT, NULL, x, &want);
            assert_memory_equal(got.ids, want.ids, N_TOKENS * layer.top_k * sizeof *got.ids);
            double error = relative_error(&data, got.y, want.y);
            if (!(error <= HALF))
                fail_msg("case %zu, gated %d: error %g", t, gated, error);

            // The same check notices that the rows of one matrix are in the wrong order.
            data.experts[0].down.data = (const float *) data.experts[0].down.data + layer.d_ff;
            run(oracle, &data, VKMOE_PRECISION_EXACT, NULL, x, &swapped);
            assert_true(relative_error(&data, got.y, swapped.y) > HALF);
            layer_data_finish(&data);
        }
}

// Rows of one expert with the same input, in full tiles and in one of the matvec.
static void bits_do_not_depend_on_the_tile(void **state)
{
    (void) state;
    struct layer_data data;
    struct result got, few;
    float x[N_TOKENS * 64];
    vkmoe_layer_desc layer = layer_of(VKMOE_F16, VKMOE_F16, true);
    layer_data_init(&data, &layer, 5);
    fill_random(x, layer.d_model, 11);
    for (uint32_t t = 1; t < N_TOKENS; t++)
        memcpy(x + t * layer.d_model, x, layer.d_model * sizeof *x);
    run(device, &data, VKMOE_PRECISION_HALF, "a1", x, &got);
    assert_true(got.y[0] != 0 && isfinite(got.y[0]));
    for (uint32_t t = 1; t < N_TOKENS; t++)
        assert_memory_equal(got.y + t * layer.d_out, got.y, layer.d_out * sizeof *got.y);
    assert_true(N_TOKENS > MOE_TILE_FULL);
    run_some(device, &data, VKMOE_PRECISION_HALF, "a1", x, MOE_TILE_SMALL - 1, &few);
    assert_memory_equal(few.y, got.y, (MOE_TILE_SMALL - 1) * layer.d_out * sizeof *few.y);
    layer_data_finish(&data);
}

// One expert, so that routing does not see x: its rounding alone makes the difference.
static void x_is_rounded_to_f16(void **state)
{
    (void) state;
    struct layer_data data;
    struct result got, rounded, exact;
    float x[N_TOKENS * 64], f16_x[N_TOKENS * 64];
    vkmoe_layer_desc layer = layer_of(VKMOE_F16, VKMOE_F16, true);
    layer.n_experts = layer.top_k = 1;
    layer.shared_gate = VKMOE_SHARED_PLAIN;
    layer_data_init(&data, &layer, 5);
    fill_random(x, N_TOKENS * layer.d_model, 13);
    for (uint32_t i = 0; i < N_TOKENS * layer.d_model; i++)
        f16_x[i] = moe_f16_to_f32(moe_f32_to_f16(x[i]));
    run(device, &data, VKMOE_PRECISION_HALF, "a1", x, &got);
    run(device, &data, VKMOE_PRECISION_HALF, "a1", f16_x, &rounded);
    run(device, &data, VKMOE_PRECISION_HALF, "a0", f16_x, &exact);
    // lavapipe rounds to nearest even, as we do; where x is of f16 already, a1 rounds nothing.
    assert_memory_equal(got.y, rounded.y, n_y(&data) * sizeof *got.y);
    assert_memory_equal(got.y, exact.y, n_y(&data) * sizeof *got.y);
    run(device, &data, VKMOE_PRECISION_HALF, "a0", x, &exact);
    assert_memory_not_equal(got.y, exact.y, n_y(&data) * sizeof *got.y);
    layer_data_finish(&data);
}

// The hidden rows are products of two halves of some thousands each.
static void hidden_rows_may_pass_65504(void **state)
{
    (void) state;
    struct layer_data data;
    struct result got, want;
    float x[N_TOKENS * 64];
    vkmoe_layer_desc layer = layer_of(VKMOE_F16, VKMOE_F16, true);
    layer.act = VKMOE_ACT_NONE;
    layer_data_init(&data, &layer, 5);
    fill_random(x, N_TOKENS * layer.d_model, 13);
    for (uint32_t i = 0; i < N_TOKENS * layer.d_model; i++)
        x[i] *= 1000;
    run(device, &data, VKMOE_PRECISION_HALF, "a1", x, &got);
    run(oracle, &data, VKMOE_PRECISION_EXACT, NULL, x, &want);
    double most = 0;
    for (size_t i = 0; i < n_y(&data); i++)
        most = fmax(most, fabs(want.y[i]));
    assert_true(most > 60 * 65504.0); // of 39 + 21 hidden values, at most so many times as much
    assert_true(relative_error(&data, got.y, want.y) <= HALF);
    layer_data_finish(&data);
}

// bf16 and f32 weights go to a0 at every precision, whose bits are those of precision exact.
static void other_weights_are_computed_exactly(void **state)
{
    (void) state;
    for (int type = 0; type < MOE_N_FLOAT_DTYPES; type++) {
        struct layer_data data;
        struct result got, want;
        float x[N_TOKENS * 64];
        if (type == VKMOE_F16)
            continue;
        vkmoe_layer_desc layer = layer_of((enum vkmoe_dtype) type, (enum vkmoe_dtype) type, true);
        layer_data_init(&data, &layer, 5);
        fill_random(x, N_TOKENS * layer.d_model, 13);
        run(device, &data, VKMOE_PRECISION_HALF, NULL, x, &got);
        run(device, &data, VKMOE_PRECISION_EXACT, NULL, x, &want);
        assert_string_equal(got.variant, "a0");
        assert_memory_equal(got.y, want.y, n_y(&data) * sizeof *got.y);
        layer_data_finish(&data);
    }
}

static void validation_found_nothing(void **state)
{
    (void) state;
    assert_int_equal(vkmoe_context_validation_count(device), 0);
}

static int set_up(void **state)
{
    (void) state;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "reference";
    check_ok(vkmoe_context_create(&desc, &oracle));
    desc.device = "vulkan";
    desc.cache_dir = "";
    desc.validation = true;
    check_ok(vkmoe_context_create(&desc, &device));
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    vkmoe_context_destroy(device);
    vkmoe_context_destroy(oracle);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_promise_is_kept),
        cmocka_unit_test(bits_do_not_depend_on_the_tile),
        cmocka_unit_test(x_is_rounded_to_f16),
        cmocka_unit_test(hidden_rows_may_pass_65504),
        cmocka_unit_test(other_weights_are_computed_exactly),
        cmocka_unit_test(validation_found_nothing),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down) != 0;
}
