// SPDX-License-Identifier: MIT
// Weights of every type of blocks: weight_types MODE, where MODE is bda, descriptors or floor.
// Kernels see the very values that a row decodes to, few tokens and many; layers are the oracle's;
// what is on the device comes back, and takes no more room than what was stored.
#include "fixture.h"
#include "host.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/api.h"

static vkmoe_context *context, *oracle;

// A type, the width that its values are tested at, and the f16 numbers of its blocks.
static const struct block_type {
    enum vkmoe_dtype type;
    uint32_t width;
    int scales[2]; // bytes where they are; -1: none
} types[] = {
    {VKMOE_Q8_0, 160, {0, -1}}, {VKMOE_Q4_0, 160, {0, -1}},   {VKMOE_Q4_K, 512, {0, 2}},
    {VKMOE_Q5_K, 512, {0, 2}},  {VKMOE_Q6_K, 512, {208, -1}}, {VKMOE_Q2_K, 512, {80, 82}},
    {VKMOE_MXFP4, 160, {-1, -1}}, {VKMOE_FP8, 300, {-1, -1}},
};
enum { N_TYPES = sizeof types / sizeof *types, N_ROWS = 19 };

static size_t stored_size(enum vkmoe_dtype type, uint32_t width)
{
    uint32_t values, size;
    check_ok(vkmoe_dtype_block(type, &values, &size));
    return (size_t) (width + values - 1) / values * size;
}

// ---- values ------------------------------------------------------------------------------------

static uint32_t random_state = 1;

static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % n;
}

// Scales as they are in files, where they are often denormal, and the ends of what they can be.
static void set_scales(const struct block_type *t, unsigned char *block)
{
    static const uint16_t halves[] = {0x0000, 0x0001, 0x8001, 0x0155, 0x03ff, 0x0400, 0x83ff,
                                      0x1234, 0x2c00, 0xac01, 0x3c00, 0xbbff, 0x7bff, 0xfbff};
    static const unsigned char exponents[] = {0, 1, 2, 3, 63, 64, 100, 126, 127, 128, 200, 252};
    for (int i = 0; i < 2; i++)
        if (t->scales[i] >= 0)
            memcpy(block + t->scales[i], &halves[random_below(sizeof halves / sizeof *halves)], 2);
    if (t->type == VKMOE_MXFP4)
        block[0] = exponents[random_below(sizeof exponents)];
    if (t->type == VKMOE_FP8) {
        float scale = ((float) random_below(1u << 24) - 0x1p23f) * 0x1p-30f;
        memcpy(block, &scale, sizeof scale);
    }
}

// Rows of random codes; fp8 without NaN, and without codes behind the row.
static unsigned char *random_rows(const struct block_type *t)
{
    uint32_t values, size;
    check_ok(vkmoe_dtype_block(t->type, &values, &size));
    size_t row_size = stored_size(t->type, t->width);
    unsigned char *rows = malloc(N_ROWS * row_size);
    assert_non_null(rows);
    for (size_t i = 0; i < N_ROWS * row_size; i++) {
        rows[i] = (unsigned char) random_below(256);
        if (t->type == VKMOE_FP8 && (rows[i] & 127) == 127)
            rows[i] ^= 1;
    }
    for (size_t i = 0; i < N_ROWS * row_size; i += size)
        set_scales(t, rows + i);
    if (t->type == VKMOE_FP8)
        for (size_t row = 1; row <= N_ROWS; row++)
            memset(rows + row * row_size - (values - t->width % values), 0,
                   values - t->width % values);
    return rows;
}

// A weight of one expert that does nothing else to x: y[t, n] = w[n, k] where x[t] is 1 at k alone,
// k = t * step. The same functions read either weight; down, which takes far more work, is asked
// for every fifth value.
struct probe {
    const struct block_type *type;
    bool is_out; // the weight is down, else up; the other one is the identity
    vkmoe_layer_desc layer;
    unsigned char *rows;
    uint32_t step, n_tokens;
    float *unit, *router, *x; // unit: the identity
    float *want;              // what the rows decode to
    vkmoe_weights *weights;
};

static float *unit_rows(uint32_t n, uint32_t step, uint32_t width)
{
    float *out = calloc((size_t) n * width, sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < n; i++)
        out[i * width + i * step] = 1.0f;
    return out;
}

static void probe_init(struct probe *p, const struct block_type *t, bool is_out)
{
    vkmoe_expert_tensors expert = {0};
    vkmoe_router_tensors router = {0};
    vkmoe_weights_desc desc = vkmoe_weights_desc_init();
    *p = (struct probe){.type = t, .is_out = is_out, .layer = vkmoe_layer_desc_init()};
    p->layer.n_experts = p->layer.top_k = 1;
    p->layer.d_model = t->width;
    p->layer.d_ff = is_out ? t->width : N_ROWS;
    p->layer.d_out = N_ROWS;
    p->layer.in_type = is_out ? VKMOE_F32 : t->type;
    p->layer.out_type = is_out ? t->type : VKMOE_F32;
    p->rows = random_rows(t);
    p->step = is_out ? 5 : 1;
    p->n_tokens = (t->width + p->step - 1) / p->step;
    p->unit = unit_rows(p->layer.d_ff, 1, p->layer.d_ff);
    p->x = unit_rows(p->n_tokens, p->step, t->width);
    p->router = calloc(t->width, sizeof *p->router);
    p->want = malloc((size_t) N_ROWS * t->width * sizeof *p->want);
    assert_true(p->router && p->want);
    size_t row_size = stored_size(t->type, t->width);
    for (size_t row = 0; row < N_ROWS; row++)
        check_ok(vkmoe_dtype_to_f32(t->type, p->rows + row * row_size, t->width,
                                    p->want + row * t->width));
    const vkmoe_tensor unit = {.data = p->unit, .type = VKMOE_F32};
    const vkmoe_tensor rows = {.data = p->rows, .type = t->type};
    expert.up = is_out ? unit : rows;
    expert.down = is_out ? rows : unit;
    router.weight = (vkmoe_tensor){.data = p->router, .type = VKMOE_F32};
    desc.layer = &p->layer;
    desc.router = &router;
    desc.experts = &expert;
    check_ok(vkmoe_weights_create(context, &desc, &p->weights));
}

static void probe_finish(struct probe *p)
{
    vkmoe_weights_destroy(p->weights);
    free(p->rows);
    free(p->unit);
    free(p->router);
    free(p->x);
    free(p->want);
}

// Values below the smallest normal number may be 0.
static bool is_value(float got, float want)
{
    return got == want || (fabsf(want) < FLT_MIN && got == 0.0f);
}

// Runs the rows of x from `first` on.
static void check_rows(const struct probe *p, vkmoe_bind *bind, uint32_t first, uint32_t n_tokens)
{
    float *y = malloc((size_t) n_tokens * N_ROWS * sizeof *y);
    vkmoe_io io = vkmoe_io_init();
    assert_non_null(y);
    memset(y, 0xff, (size_t) n_tokens * N_ROWS * sizeof *y);
    io.x = p->x + (size_t) first * p->type->width;
    io.y = y;
    check_ok(vkmoe_run(bind, n_tokens, &io));
    for (uint32_t t = 0; t < n_tokens; t++)
        for (uint32_t n = 0; n < N_ROWS; n++) {
            uint32_t k = (first + t) * p->step;
            float got = y[t * N_ROWS + n], want = p->want[n * p->type->width + k];
            if (!is_value(got, want))
                fail_msg("%s %s, %u tokens: value %u of row %u is %a, not %a",
                         vkmoe_dtype_name(p->type->type), p->is_out ? "down" : "up", n_tokens, k,
                         n, (double) got, (double) want);
        }
    free(y);
}

static void kernels_see_what_rows_decode_to(void **state)
{
    (void) state;
    for (int i = 0; i < 2 * N_TYPES; i++) {
        struct probe p;
        vkmoe_plan *plan;
        vkmoe_bind *bind;
        vkmoe_plan_desc desc = vkmoe_plan_desc_init();
        probe_init(&p, &types[i / 2], i % 2);
        desc.layer = &p.layer;
        desc.max_tokens = p.n_tokens;
        check_ok(vkmoe_plan_create(context, &desc, &plan));
        check_ok(vkmoe_bind_create(plan, p.weights, NULL, &bind));
        check_rows(&p, bind, 0, p.n_tokens);
        for (uint32_t first = 0; first + 3 < p.n_tokens; first += 11)
            check_rows(&p, bind, first, 3);
        vkmoe_bind_destroy(bind);
        vkmoe_plan_destroy(plan);
        probe_finish(&p);
    }
}

static void what_is_on_the_device_comes_back(void **state)
{
    (void) state;
    for (int i = 0; i < 2 * N_TYPES; i++) {
        struct probe p;
        probe_init(&p, &types[i / 2], i % 2);
        size_t size = (size_t) N_ROWS * p.type->width * sizeof(float);
        float *got = malloc(size);
        assert_non_null(got);
        memset(got, 0xff, size);
        vkmoe_expert_grads out = {.up = p.is_out ? NULL : got, .down = p.is_out ? got : NULL};
        check_ok(p.weights->packed->device->backend->read_expert(p.weights->packed, 0, &out));
        assert_memory_equal(got, p.want, size);
        free(got);
        probe_finish(&p);
    }
}

// ---- layers ------------------------------------------------------------------------------------

enum { MAX_TOKENS = 41 };

// Objects of a layer on a device.
static void open_layer(vkmoe_context *where, const struct layer_data *data, struct stack *out)
{
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    desc.layer = &data->layer;
    desc.max_tokens = MAX_TOKENS;
    *out = (struct stack){0};
    check_ok(vkmoe_weights_create(where, &data->desc, &out->weights));
    check_ok(vkmoe_plan_create(where, &desc, &out->plan));
    check_ok(vkmoe_bind_create(out->plan, out->weights, NULL, &out->bind));
}

static double distance(const float *got, const float *want, size_t n)
{
    double d = 0, sum = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double) got[i] - (double) want[i]) * ((double) got[i] - (double) want[i]);
        sum += (double) want[i] * (double) want[i];
    }
    return sqrt(d / sum);
}

// Two neighbouring rows of every expert's down, which the same layer does not have.
static void swap_rows(struct layer_data *data)
{
    for (uint32_t e = 0; e < data->layer.n_experts; e++) {
        float *row = data->memory + ((const float *) data->experts[e].down.data - data->memory);
        for (uint32_t i = 0; i < data->layer.d_ff; i++) {
            float v = row[i];
            row[i] = row[i + data->layer.d_ff];
            row[i + data->layer.d_ff] = v;
        }
    }
}

// The distance of a run from the oracle's y.
static double run_layer(const struct stack *stack, uint32_t n_tokens, const float *x,
                        const float *want, size_t n)
{
    float *y = malloc(n * sizeof *y);
    vkmoe_io io = vkmoe_io_init();
    assert_non_null(y);
    memset(y, 0xff, n * sizeof *y);
    io.x = x;
    io.y = y;
    check_ok(vkmoe_run(stack->bind, n_tokens, &io));
    double d = distance(y, want, n);
    free(y);
    return d;
}

// Few tokens and many.
static void check_layer(const vkmoe_layer_desc *layer)
{
    static const uint32_t token_counts[] = {1, 4, 5, MAX_TOKENS};
    struct layer_data data;
    struct stack right, wrong, reference;
    layer_data_init(&data, layer, 7);
    size_t n_x = (size_t) MAX_TOKENS * data.layer.d_model;
    float *x = malloc(n_x * sizeof *x);
    float *want = malloc((size_t) MAX_TOKENS * data.layer.d_out * sizeof *want);
    assert_true(x && want);
    fill_random(x, n_x, 5);
    open_layer(oracle, &data, &reference);
    open_layer(context, &data, &right);
    swap_rows(&data);
    open_layer(context, &data, &wrong);
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.y = want;
    check_ok(vkmoe_run(reference.bind, MAX_TOKENS, &io));
    for (size_t i = 0; i < sizeof token_counts / sizeof *token_counts; i++) {
        size_t n = (size_t) token_counts[i] * data.layer.d_out;
        double d = run_layer(&right, token_counts[i], x, want, n);
        if (!(d <= 1e-5))
            fail_msg("%s and %s, %u tokens: %g from the oracle", vkmoe_dtype_name(layer->in_type),
                     vkmoe_dtype_name(layer->out_type), token_counts[i], d);
        assert_true(run_layer(&wrong, token_counts[i], x, want, n) > 1e-5);
    }
    stack_destroy(&reference);
    stack_destroy(&right);
    stack_destroy(&wrong);
    free(x);
    free(want);
    layer_data_finish(&data);
}

// Gate and up of a type with down of the next one, the shared expert's the other way round.
static void layers_are_the_oracles(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < N_TYPES; i++) {
        vkmoe_layer_desc layer = full_layer();
        layer.n_experts = 3;
        layer.d_model = layer.d_ff = layer.d_shared_ff = 256;
        layer.d_out = 37;
        layer.in_type = layer.shared_out_type = types[i].type;
        layer.out_type = layer.shared_in_type = types[(i + 1) % N_TYPES].type;
        layer.own_shared_types = i % 2 == 0;
        check_layer(&layer);
    }
}

// Widths of fp8 that end inside a block.
static void rows_of_fp8_end_anywhere(void **state)
{
    (void) state;
    static const uint32_t widths[] = {1, 15, 17, 127, 129, 200};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        vkmoe_layer_desc layer = full_layer();
        layer.d_model = layer.d_ff = widths[i];
        layer.d_out = 5;
        layer.in_type = layer.out_type = VKMOE_FP8;
        layer.shared_gate = VKMOE_SHARED_PLAIN;
        check_layer(&layer);
    }
}

// ---- sizes -------------------------------------------------------------------------------------

static void they_take_the_room_of_stored_ones(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < N_TYPES; i++) {
        vkmoe_weights_layout layout;
        vkmoe_layer_desc layer = full_layer();
        layer.d_model = layer.d_out = 2048;
        layer.d_ff = layer.d_shared_ff = 1024;
        layer.in_type = layer.out_type = types[i].type;
        check_ok(vkmoe_weights_get_layout(context, &layer, &layout));
        size_t stored = 2 * 1024 * stored_size(types[i].type, 2048) +
                        2048 * stored_size(types[i].type, 1024);
        assert_true(layout.expert_size >= stored);
        assert_true((double) layout.expert_size <= 1.03 * (double) stored);
        assert_int_equal(layout.shared_size, layout.expert_size);
    }
}

int main(int argc, char **argv)
{
    vkmoe_host services;
    vkmoe_context_desc desc;
    if (!host_context_desc(argc, argv, &services, &desc))
        return 2;
    if (vkmoe_context_create(&desc, &context) != VKMOE_OK) {
        fprintf(stderr, "%s\n", vkmoe_error_text());
        return 1;
    }
    oracle = context_on("reference", NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kernels_see_what_rows_decode_to),
        cmocka_unit_test(what_is_on_the_device_comes_back),
        cmocka_unit_test(layers_are_the_oracles),
        cmocka_unit_test(rows_of_fp8_end_anywhere),
        cmocka_unit_test(they_take_the_room_of_stored_ones),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    failed += vkmoe_context_validation_count(context) != 0;
    vkmoe_context_destroy(oracle);
    vkmoe_context_destroy(context);
    return failed != 0;
}
