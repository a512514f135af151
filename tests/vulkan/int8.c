// SPDX-License-Identifier: MIT
// Precision int8 by packed products of bytes (variant a2, or with MOE_MATRIX a3i, by matrices),
// under the validation layer: every type of blocks against a model of its rounding and against the
// oracle, that its kernels did the work, and what a row's bits depend on. Skipped where the device
// or the shader compiler has no such products.
#include "forced.h"

#include <float.h>

#include <vkmoe/bench.h>

#include "api/api.h"
#include "base/bits.h"
#include "core/dtype.h"

enum { BLOCK = 32, D_OUT = 37 };

#ifdef MOE_MATRIX
const struct forced forced = {MOE_VK_A3I, VKMOE_PRECISION_INT8, "expert_gemm_coop_int8_bda",
                              "expert_gemm_coop_int8_bda"};
#else
const struct forced forced = {MOE_VK_A2, VKMOE_PRECISION_INT8, "expert_gemm_int8_bda",
                              "expert_gemv_tile_int8_bda"};
#endif

// Relative L2 error that precision int8 is promised to stay below.
#define INT8 1.5e-2

static const enum vkmoe_dtype types[] = {VKMOE_Q8_0, VKMOE_Q4_0, VKMOE_Q4_K, VKMOE_Q5_K,
                                         VKMOE_Q6_K, VKMOE_Q2_K, VKMOE_MXFP4};

// ---- the model of its rounding -----------------------------------------------------------------

// One expert, no gate and no bias: y = W2 (W1 x).
static vkmoe_layer_desc linear_layer(enum vkmoe_dtype type)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = layer.top_k = 1;
    layer.d_model = layer.d_ff = WIDTH;
    layer.d_out = D_OUT;
    layer.in_type = layer.out_type = type;
    layer.act = VKMOE_ACT_NONE;
    return layer;
}

// A row as blocks of `levels` codes either side of 0, and how far each may be from what the device
// makes of it, which has its values to within of_value. A code is another one only near a tie.
static void quantise(const double *values, const double *of_value, double levels, double *out,
                     double *error)
{
    for (uint32_t i = 0; i < WIDTH; i++) {
        double most = 0, of_most = 0;
        for (uint32_t j = i / BLOCK * BLOCK; j < i / BLOCK * BLOCK + BLOCK; j++) {
            most = fmax(most, fabs(values[j]));
            of_most = fmax(of_most, of_value[j]);
        }
        double code = values[i] * levels / most, whole = nearbyint(code);
        double of_code = (of_value[i] + of_most) * levels / most + 4 * levels * FLT_EPSILON;
        bool tie = fabs(code - whole) + of_code >= 0.5;
        out[i] = whole * most / levels;
        error[i] = (tie ? most / levels : 0) + fabs(whole) / levels * of_most +
                   4 * fabs(out[i]) * FLT_EPSILON;
    }
}

// out = W v and its error: that of v, and that of f32, which is 24 roundings in either direction of
// a sum of 16 parts. A part is scale * codes - minimum * codes; as weights have both signs in a
// part, no minimum is larger than the largest of them.
static void multiply(const struct layer_data *data, const float *w, uint32_t n_rows,
                     const double *v, const double *of_v, double *out, double *error)
{
    const enum vkmoe_dtype type = data->layer.in_type;
    const bool minima = type == VKMOE_Q4_K || type == VKMOE_Q5_K || type == VKMOE_Q2_K;
    for (uint32_t row = 0; row < n_rows; row++, w += WIDTH) {
        double terms = 0, most = 0;
        out[row] = error[row] = 0;
        for (uint32_t k = 0; k < WIDTH; k++)
            most = fmax(most, fabs((double) w[k]));
        for (uint32_t k = 0; k < WIDTH; k++) {
            out[row] += (double) w[k] * v[k];
            error[row] += fabs((double) w[k]) * of_v[k];
            terms += (fabs((double) w[k]) + (minima ? 2 * most : 0)) * fabs(v[k]);
        }
        error[row] += 24 * FLT_EPSILON * terms;
    }
}

// Weights as they are packed.
static void round_weights(struct layer_data *data)
{
    vkmoe_expert_tensors *e = &data->experts[0];
    char stored[WIDTH * sizeof(float)];
    float *matrices[2] = {(float *) e->up.data, (float *) e->down.data};
    const uint32_t n_rows[2] = {WIDTH, D_OUT};
    for (int m = 0; m < 2; m++)
        for (uint32_t row = 0; row < n_rows[m]; row++) {
            float *w = matrices[m] + row * WIDTH;
            moe_dtype_encode(data->layer.in_type, w, WIDTH, stored);
            moe_dtype_decode(data->layer.in_type, stored, WIDTH, w);
            moe_dtype_encode(data->layer.in_type, w, WIDTH, stored); // as packing will
            moe_dtype_decode(data->layer.in_type, stored, WIDTH, w);
        }
}

// How many times its bound the largest difference to the model is.
static double off_model(const struct layer_data *data, const float *x, const float *y,
                        double levels)
{
    const float *up = data->experts[0].up.data, *down = data->experts[0].down.data;
    double most = 0;
    for (uint32_t t = 0; t < N_TOKENS; t++) {
        double v[WIDTH], of_v[WIDTH] = {0}, q[WIDTH], of_q[WIDTH], want[D_OUT], of_want[D_OUT];
        for (uint32_t i = 0; i < WIDTH; i++)
            v[i] = x[t * WIDTH + i];
        quantise(v, of_v, levels, q, of_q);
        multiply(data, up, WIDTH, q, of_q, v, of_v);
        quantise(v, of_v, levels, q, of_q);
        multiply(data, down, D_OUT, q, of_q, want, of_want);
        for (uint32_t i = 0; i < D_OUT; i++) {
            double off = fabs(y[t * D_OUT + i] - want[i]) / of_want[i];
            if (!(off <= most) && !isnan(most)) // NaN stays
                most = off;
        }
    }
    return most;
}

static void check_type(enum vkmoe_dtype type)
{
    struct layer_data data;
    struct result got;
    float x[MAX_Y];
    vkmoe_layer_desc layer = linear_layer(type);
    layer_data_init(&data, &layer, 5 + (uint32_t) type);
    fill_random(x, MAX_Y, 13);
    round_weights(&data);
    run(device, &data, VKMOE_F32, x, &got);
    double off = off_model(&data, x, got.y, 127);
    if (!(off <= 1))
        fail_msg("%s: %g times the bound", vkmoe_dtype_name(type), off);

    // A model with other codes is another one.
    assert_true(off_model(&data, x, got.y, 126) > 2);
    layer_data_finish(&data);
}

static void every_type_rounds_as_the_model_does(void **state)
{
    (void) state;
    for (size_t i = 0; i < MOE_COUNT(types); i++)
        check_type(types[i]);
}

// ---- the promise -------------------------------------------------------------------------------

static void check_layer(const vkmoe_layer_desc *layer, enum vkmoe_dtype x_type)
{
    struct layer_data data;
    struct result got, want;
    float x[MAX_Y];
    const char *name = vkmoe_dtype_name(layer->in_type);
    layer_data_init(&data, layer, 3 + layer->in_type);
    fill_random(x, (size_t) N_TOKENS * layer->d_model, 7);
    run(device, &data, x_type, x, &got);
    run(oracle, &data, x_type, x, &want);
    assert_memory_equal(got.ids, want.ids, sizeof got.ids);
    double error = error_of(got.y, want.y, (size_t) N_TOKENS * layer->d_out);
    if (!(error <= INT8))
        fail_msg("%s: error %g", name, error);

    // The same check notices that one matrix of each expert begins one row later.
    for (uint32_t e = 0; e < layer->n_experts; e++)
        data.experts[e].down.data = (const float *) data.experts[e].down.data - layer->d_ff;
    run(oracle, &data, x_type, x, &want);
    error = error_of(got.y, want.y, (size_t) N_TOKENS * layer->d_out);
    if (!(error > INT8))
        fail_msg("%s: a row too far is an error of %g", name, error);
    layer_data_finish(&data);
}

// Gated or not, with a shared expert, biases, all types of x, and an odd number of blocks in a row.
static void layers_keep_the_promise(void **state)
{
    (void) state;
    static const enum vkmoe_dtype of_32[] = {VKMOE_Q8_0, VKMOE_Q4_0, VKMOE_MXFP4};
    for (int i = 0; i < 3; i++) {
        vkmoe_layer_desc layer = full_layer();
        layer.n_experts = 4;
        layer.top_k = TOP_K;
        layer.d_model = 160;
        layer.d_ff = 96;
        layer.d_out = D_OUT;
        layer.d_shared_ff = 64;
        layer.in_type = layer.out_type = of_32[i];
        layer.gated = layer.gate_bias = i != 1;
        check_layer(&layer, (enum vkmoe_dtype) i);
    }
}

// ---- what is told of it ------------------------------------------------------------------------

// Few tokens are computed in f32, and a plan that is for no more says so.
static void plans_of_few_tokens_are_f32(void **state)
{
    (void) state;
    struct layer_data data;
    vkmoe_layer_desc layer = linear_layer(VKMOE_Q8_0);
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    vkmoe_plan_kernels kernels;
    layer_data_init(&data, &layer, 5);
    desc.layer = &data.layer;
    desc.precision = forced.precision;
    desc.variant = "a2";
    for (desc.max_tokens = 1; desc.max_tokens <= 5; desc.max_tokens += 4) {
        vkmoe_plan *plan;
        check_ok(vkmoe_plan_create(device, &desc, &plan));
        check_ok(vkmoe_plan_get_kernels(plan, &kernels));
        assert_int_equal(kernels.arithmetic, desc.max_tokens == 1 ? VKMOE_ARITHMETIC_F32
                                                                  : VKMOE_ARITHMETIC_INT8);
        vkmoe_plan_destroy(plan);
    }
    layer_data_finish(&data);
}

// ---- what bits depend on -----------------------------------------------------------------------

// Rows of one expert with the same input, in full tiles and in a small one, beside rows of any
// scale. A row that is a power of two times it has the same codes, but for those at a tie, where
// the quotient may be rounded to either side: one code of 127 in few of 256 products.
static void a_row_depends_on_itself_alone(void **state)
{
    (void) state;
    struct layer_data data;
    struct result got;
    float x[MAX_Y];
    vkmoe_layer_desc layer = linear_layer(VKMOE_Q4_K);
    layer_data_init(&data, &layer, 5);
    fill_random(x, MAX_Y, 11);
    for (uint32_t i = WIDTH; i < MAX_Y; i++)
        x[i] = ldexpf(x[i % WIDTH], i / WIDTH % 2 == 0 ? 0 : (int) (i / WIDTH) * 4 - 90);
    run(device, &data, VKMOE_F32, x, &got);
    assert_true(got.y[0] != 0 && isfinite(got.y[0]));
    for (uint32_t i = 0; i < N_TOKENS * D_OUT; i++) {
        const uint32_t t = i / D_OUT;
        float want = ldexpf(got.y[i % D_OUT], t % 2 == 0 ? 0 : (int) t * 4 - 90);
        if (t % 2 == 0)
            assert_memory_equal(&got.y[i], &want, sizeof want);
        else
            check_near(got.y[i], want, 1e-3 * fabsf(want) + 1e-3 * fabsf(got.y[0]) *
                                                               ldexp(1, (int) t * 4 - 90));
    }
    check_small_tile(&data, x, &got);
    layer_data_finish(&data);
}

// What is no number stays in its row, and makes all of it none; what is too small becomes 0.
static void rows_keep_what_is_no_number(void **state)
{
    (void) state;
    struct layer_data data;
    struct result clean, got;
    float x[MAX_Y];
    vkmoe_layer_desc layer = linear_layer(VKMOE_MXFP4);
    layer_data_init(&data, &layer, 5);
    fill_random(x, MAX_Y, 11);
    run(device, &data, VKMOE_F32, x, &clean);
    x[3 * WIDTH + 40] = NAN;
    x[7 * WIDTH + 149] = -INFINITY;
    for (uint32_t i = 9 * WIDTH; i < 10 * WIDTH; i++)
        x[i] = ldexpf(x[i], -130);
    run(device, &data, VKMOE_F32, x, &got);
    for (uint32_t i = 0; i < N_TOKENS * D_OUT; i++) {
        const uint32_t t = i / D_OUT;
        if (t == 3 || t == 7)
            assert_true(isnan(got.y[i]));
        else if (t == 9)
            assert_true(got.y[i] == 0);
        else
            assert_memory_equal(&got.y[i], &clean.y[i], sizeof clean.y[i]);
    }
    layer_data_finish(&data);
}

// ---- the choice --------------------------------------------------------------------------------

static void check_refused(vkmoe_context *context, enum vkmoe_dtype type,
                          enum vkmoe_precision precision, const char *part)
{
    vkmoe_plan *plan = NULL;
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    vkmoe_layer_desc layer = linear_layer(type);
    desc.layer = &layer;
    desc.max_tokens = N_TOKENS;
    desc.variant = moe_vk_variants[forced.variant].kind;
    desc.precision = precision;
    check_fails(vkmoe_plan_create(context, &desc, &plan), VKMOE_E_UNSUPPORTED, part);
    assert_null(plan);
}

static void other_plans_are_refused(void **state)
{
    (void) state;
    vkmoe_context *by_descriptors = NULL;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "vulkan";
    desc.cache_dir = "";
    desc.addressing = VKMOE_ADDRESSING_DESCRIPTORS;
    check_ok(vkmoe_context_create(&desc, &by_descriptors));
    check_refused(device, VKMOE_Q8_0, VKMOE_PRECISION_EXACT, "precision exact");
    check_refused(device, VKMOE_Q8_0, VKMOE_PRECISION_HALF, "precision half");
    check_refused(device, VKMOE_FP8, VKMOE_PRECISION_INT8, "no kernel for weights of fp8");
    check_refused(by_descriptors, VKMOE_Q8_0, VKMOE_PRECISION_INT8, "bufferDeviceAddress");
    vkmoe_context_destroy(by_descriptors);
}

// Without instructions for it, only a plan that names it has it.
static void others_choose_it_where_it_is_accelerated(void **state)
{
    (void) state;
    if (forced.variant != MOE_VK_A2)
        return; // drivers say nothing of that for matrices
    vkmoe_plan *plan = NULL;
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    vkmoe_layer_desc layer = linear_layer(VKMOE_Q8_0);
    struct moe_vk_caps *caps = &moe_vk(device->device)->caps;
    const bool before = caps->dot_accelerated;
    desc.layer = &layer;
    desc.max_tokens = N_TOKENS;
    desc.precision = VKMOE_PRECISION_INT8;
    for (int accelerated = 0; accelerated < 2; accelerated++) {
        caps->dot_accelerated = accelerated;
        check_ok(vkmoe_plan_create(device, &desc, &plan));
        assert_string_equal(((struct moe_vk_program *) plan->program)->variant->name,
                            accelerated ? "a2" : "a0");
        vkmoe_plan_destroy(plan);
    }
    caps->dot_accelerated = before;
}

// The sides of the matrices change places; then a matrix is as deep as a block, which is twice what
// shares a scale in q6_K, if the device multiplies those of any size.
static void any_shape_will_do(void **state)
{
    (void) state;
    struct moe_vk_caps *caps = &moe_vk(device->device)->caps;
    if (forced.variant == MOE_VK_A2 || caps->byte_shapes[0].m != caps->byte_shapes[0].n)
        return;
    const uint32_t k = caps->byte_shapes[0].k;
    caps->byte_shapes[0].packed_is_n = 1;
    check_type(VKMOE_Q2_K);
    caps->byte_shapes[0].packed_is_n = 0;
    if (moe_vk_has(caps, MOE_VK_FLEXIBLE) && BLOCK % k == 0)
        caps->byte_shapes[0].k = BLOCK;
    check_type(VKMOE_Q6_K);
    caps->byte_shapes[0].k = k;
}

static void validation_found_nothing(void **state)
{
    (void) state;
    assert_int_equal(vkmoe_context_validation_count(device), 0);
}

static int all_tests(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_rounds_as_the_model_does),
        cmocka_unit_test(layers_keep_the_promise),
        cmocka_unit_test(plans_of_few_tokens_are_f32),
        cmocka_unit_test(a_row_depends_on_itself_alone),
        cmocka_unit_test(rows_keep_what_is_no_number),
        cmocka_unit_test(other_plans_are_refused),
        cmocka_unit_test(others_choose_it_where_it_is_accelerated),
        cmocka_unit_test(any_shape_will_do),
        cmocka_unit_test(validation_found_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}

int main(void)
{
    const vkmoe_layer_desc layer = linear_layer(VKMOE_Q8_0);
    return forced_main(&layer, all_tests);
}
