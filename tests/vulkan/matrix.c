// SPDX-License-Identifier: MIT
// Precision half by cooperative matrices (variant a3, or with MOE_FLEXIBLE a4), under the
// validation layer: every type of weights and of x against the oracle, that its kernel did the
// work, numbers far beyond f16's range, and what a row's bits depend on. Skipped where the device
// or the shader compiler has no such matrices.
#include "forced.h"

#include <stdio.h>

#include "api/api.h"
#include "base/bits.h"
#include "core/dtype.h"

#ifdef MOE_FLEXIBLE
#define SHAPES flexible
const struct forced forced = {MOE_VK_A4, VKMOE_PRECISION_HALF, "expert_gemm_flex_bda",
                              "expert_gemm_flex_bda"};
static const char *const last = "a4b", *const lacks = "fewer than 2 fit";
#else
#define SHAPES shapes
const struct forced forced = {MOE_VK_A3, VKMOE_PRECISION_HALF, "expert_gemm_coop_bda",
                              "expert_gemm_coop_bda"};
static const char *const last = "a3d", *const lacks = "fewer than 4 fit";
#endif

// Relative L2 error that precision half is promised to stay below.
#define HALF 4e-3

// Odd widths where a type has no blocks.
static vkmoe_layer_desc layer_of(enum vkmoe_dtype type, bool gated)
{
    vkmoe_layer_desc layer = full_layer();
    bool blocks = (int) type >= MOE_N_FLOAT_DTYPES;
    layer.n_experts = 4;
    layer.top_k = TOP_K;
    layer.d_model = blocks ? 256 : 77;
    layer.d_ff = blocks ? 256 : 71;
    layer.d_out = 37;
    layer.d_shared_ff = blocks ? 0 : 19; // each kernel takes a driver some time
    if (blocks)
        layer.shared_gate = VKMOE_SHARED_PLAIN;
    layer.in_type = layer.out_type = type;
    layer.gated = layer.gate_bias = gated;
    return layer;
}

static size_t n_y(const struct layer_data *data)
{
    return (size_t) N_TOKENS * data->layer.d_out;
}

static void check_error(const char *what, const float *got, const float *want, size_t n)
{
    double error = error_of(got, want, n);
    if (!(error <= HALF))
        fail_msg("%s: error %g", what, error);
}

// ---- the promise -------------------------------------------------------------------------------

// Tiles of 64 rows that a matrix is, gate and up together.
static uint64_t tiles(uint32_t n_rows, bool gated)
{
    return moe_div_up(moe_div_up(n_rows, 16) * 16 * (gated ? 2 : 1), 64);
}

static uint64_t columns_of(const vkmoe_layer_desc *layer)
{
    uint64_t out = tiles(layer->d_out, false);
    uint64_t of_slots = TOP_K * (tiles(layer->d_ff, layer->gated) + out);
    uint64_t shared = layer->d_shared_ff > 0 ? tiles(layer->d_shared_ff, layer->gated) + out : 0;
    return N_TOKENS * (of_slots + shared);
}

static void check_type(enum vkmoe_dtype type, enum vkmoe_dtype x_type, bool gated)
{
    struct layer_data data;
    struct result got, want;
    float x[MAX_Y];
    vkmoe_layer_desc layer = layer_of(type, gated);
    layer_data_init(&data, &layer, 3 + type);
    fill_random(x, (size_t) N_TOKENS * layer.d_model, 7);
    run(device, &data, x_type, x, &got);
    run(oracle, &data, x_type, x, &want);
    assert_memory_equal(got.ids, want.ids, sizeof got.ids);
    check_error(vkmoe_dtype_name(type), got.y, want.y, n_y(&data));
    assert_int_equal(got.columns, columns_of(&layer));

    // The same check notices that one matrix of each expert begins one row later.
    for (uint32_t e = 0; e < layer.n_experts; e++)
        data.experts[e].down.data = (const float *) data.experts[e].down.data - layer.d_ff;
    run(oracle, &data, x_type, x, &want);
    double error = error_of(got.y, want.y, n_y(&data));
    if (!(error > HALF))
        fail_msg("%s: a row too far is an error of %g", vkmoe_dtype_name(type), error);
    layer_data_finish(&data);
}

static void every_type_keeps_the_promise(void **state)
{
    (void) state;
    for (int type = 0; type < MOE_N_DTYPES; type++)
        check_type((enum vkmoe_dtype) type, VKMOE_F32, type % 2);
}

static void every_type_of_x_keeps_the_promise(void **state)
{
    (void) state;
    check_type(VKMOE_F16, VKMOE_F16, true);
    check_type(VKMOE_BF16, VKMOE_BF16, true);
    check_type(VKMOE_F32, VKMOE_F16, false);
}

// ---- range -------------------------------------------------------------------------------------

// One expert, no gate and no bias: a row of y has the scale of its row of x.
static vkmoe_layer_desc linear_layer(enum vkmoe_dtype type)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = layer.top_k = 1;
    layer.d_model = 150;
    layer.d_ff = 71;
    layer.d_out = 37;
    layer.in_type = layer.out_type = type;
    layer.act = VKMOE_ACT_NONE;
    return layer;
}

static void transpose(const float *in, size_t n_rows, size_t width, float *out)
{
    for (size_t i = 0; i < n_rows * width; i++)
        out[i % width * n_rows + i / width] = in[i];
}

static void check_lines(const char *what, const float *got, const float *want, size_t n,
                        size_t size)
{
    for (size_t i = 0; i < n; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s %zu", what, i);
        assert_true(want[i * size] != 0 && isfinite(want[i * size]));
        check_error(name, got + i * size, want + i * size, size);
    }
}

// Each row or each column of y for itself: those that have scales of their own.
static void check_scales(const struct layer_data *data, const float *x, bool columns)
{
    struct result got, want;
    float got_columns[MAX_Y], want_columns[MAX_Y];
    const size_t d = data->layer.d_out;
    run(device, data, VKMOE_F32, x, &got);
    run(oracle, data, VKMOE_F32, x, &want);
    if (!columns) {
        check_lines("row", got.y, want.y, N_TOKENS, d);
        return;
    }
    transpose(got.y, N_TOKENS, d, got_columns);
    transpose(want.y, N_TOKENS, d, want_columns);
    check_lines("column", got_columns, want_columns, d, N_TOKENS);
}

// From 2^-66 to 2^66, all in one tile.
static void rows_may_have_any_scale(void **state)
{
    (void) state;
    struct layer_data data;
    float x[MAX_Y];
    for (int type = 0; type < MOE_N_FLOAT_DTYPES; type++) {
        vkmoe_layer_desc layer = linear_layer((enum vkmoe_dtype) type);
        layer_data_init(&data, &layer, 5);
        fill_random(x, N_TOKENS * layer.d_model, 13);
        for (uint32_t i = 0; i < N_TOKENS * layer.d_model; i++)
            x[i] = ldexpf(x[i], (int) (i / layer.d_model) * 3 - 66);
        check_scales(&data, x, false);
        layer_data_finish(&data);
    }
}

// Every step of k is larger than all before, or smaller.
static void rows_may_grow(void **state)
{
    (void) state;
    struct layer_data data;
    float x[MAX_Y];
    for (int sign = -1; sign <= 1; sign += 2) {
        vkmoe_layer_desc layer = linear_layer(VKMOE_F16);
        layer_data_init(&data, &layer, 5);
        fill_random(x, N_TOKENS * layer.d_model, 13);
        for (uint32_t i = 0; i < N_TOKENS * layer.d_model; i++)
            x[i] = ldexpf(x[i], sign * ((int) (i % layer.d_model) - 75) /
                                    (1 + (int) (i / 600 % 3)));
        check_scales(&data, x, false);
        layer_data_finish(&data);
    }
}

// Rows of weights too, from one to the next and, as far as f16 goes, within a row.
static void weights_may_have_any_scale(void **state)
{
    (void) state;
    static const enum vkmoe_dtype types[] = {VKMOE_F32, VKMOE_BF16};
    struct layer_data data;
    float x[MAX_Y];
    for (size_t t = 0; t < MOE_COUNT(types); t++) {
        vkmoe_layer_desc layer = linear_layer(types[t]);
        layer_data_init(&data, &layer, 5);
        float *up = (float *) data.experts[0].up.data, *down = (float *) data.experts[0].down.data;
        for (uint32_t i = 0; i < layer.d_ff * layer.d_model; i++)
            up[i] = ldexpf(up[i], (int) (i / layer.d_model) % 3 * 4 +
                                      (int) (i % layer.d_model) / 5);
        for (uint32_t i = 0; i < layer.d_out * layer.d_ff; i++)
            down[i] = ldexpf(down[i], (int) (i / layer.d_ff) * 3 - 70 -
                                          (int) (i % layer.d_ff) % 3 * 4);
        fill_random(x, N_TOKENS * layer.d_model, 13);
        check_scales(&data, x, true);
        layer_data_finish(&data);
    }
}

// ---- what bits depend on -----------------------------------------------------------------------

// Rows of one expert with the same input, in full tiles and in a small one, beside rows of any
// scale.
static void bits_do_not_depend_on_the_tile(void **state)
{
    (void) state;
    struct layer_data data;
    struct result got;
    float x[MAX_Y];
    vkmoe_layer_desc layer = linear_layer(VKMOE_BF16);
    layer_data_init(&data, &layer, 5);
    fill_random(x, N_TOKENS * layer.d_model, 11);
    for (uint32_t t = 0; t < N_TOKENS; t++)
        for (uint32_t i = 0; i < layer.d_model; i++)
            x[t * layer.d_model + i] =
                t % 2 == 0 ? x[i] : ldexpf(x[t * layer.d_model + i], (int) t - 20);
    run(device, &data, VKMOE_F32, x, &got);
    assert_true(got.y[0] != 0 && isfinite(got.y[0]));
    for (uint32_t t = 2; t < N_TOKENS; t += 2)
        assert_memory_equal(got.y + t * layer.d_out, got.y, layer.d_out * sizeof *got.y);
    check_small_tile(&data, x, &got);
    layer_data_finish(&data);
}

// What is no number stays in its row.
static void rows_keep_what_is_no_number(void **state)
{
    (void) state;
    struct layer_data data;
    struct result clean, got;
    float x[MAX_Y];
    vkmoe_layer_desc layer = linear_layer(VKMOE_BF16);
    layer_data_init(&data, &layer, 5);
    fill_random(x, N_TOKENS * layer.d_model, 11);
    run(device, &data, VKMOE_F32, x, &clean);
    x[3 * layer.d_model + 40] = NAN;
    x[7 * layer.d_model + 149] = INFINITY;
    run(device, &data, VKMOE_F32, x, &got);
    for (uint32_t t = 0; t < N_TOKENS; t++)
        for (uint32_t i = t * layer.d_out; i < (t + 1) * layer.d_out; i++)
            if (t == 3 || t == 7)
                assert_false(isfinite(got.y[i]));
            else
                assert_memory_equal(&got.y[i], &clean.y[i], sizeof clean.y[i]);
    layer_data_finish(&data);
}

// The sides of the matrices change places, as for the shapes of some devices.
static void either_side_may_have_the_weights(void **state)
{
    (void) state;
    struct moe_vk_shape *shape = &moe_vk(device->device)->caps.SHAPES[0];
    if (shape->m != shape->n)
        return; // then one of them is the device's own
    shape->packed_is_n = 1;
    check_type(VKMOE_BF16, VKMOE_F32, true);
    bits_do_not_depend_on_the_tile(state);
    shape->packed_is_n = 0;
}

// ---- the choice --------------------------------------------------------------------------------

static void other_plans_are_refused(void **state)
{
    (void) state;
    vkmoe_plan *plan = NULL;
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    vkmoe_layer_desc layer = linear_layer(VKMOE_F16);
    desc.layer = &layer;
    desc.max_tokens = N_TOKENS;
    desc.variant = moe_vk_variants[forced.variant].name; // precision exact
    assert_int_equal(vkmoe_plan_create(device, &desc, &plan), VKMOE_E_UNSUPPORTED);
    assert_non_null(strstr(vkmoe_error_text(), "precision exact"));
    desc.precision = VKMOE_PRECISION_HALF;
    desc.variant = last; // no device has so many shapes that fit
    assert_int_equal(vkmoe_plan_create(device, &desc, &plan), VKMOE_E_UNSUPPORTED);
    assert_non_null(strstr(vkmoe_error_text(), lacks));
    assert_null(plan);
}

static void validation_found_nothing(void **state)
{
    (void) state;
    assert_int_equal(vkmoe_context_validation_count(device), 0);
}

static int all_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_keeps_the_promise),
        cmocka_unit_test(every_type_of_x_keeps_the_promise),
        cmocka_unit_test(rows_may_have_any_scale),
        cmocka_unit_test(rows_may_grow),
        cmocka_unit_test(weights_may_have_any_scale),
        cmocka_unit_test(bits_do_not_depend_on_the_tile),
        cmocka_unit_test(rows_keep_what_is_no_number),
        cmocka_unit_test(either_side_may_have_the_weights),
        cmocka_unit_test(other_plans_are_refused),
        cmocka_unit_test(validation_found_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}

int main(void)
{
    const vkmoe_layer_desc layer = linear_layer(VKMOE_F16);
    return forced_main(&layer, all_tests);
}
