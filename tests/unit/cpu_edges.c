// SPDX-License-Identifier: MIT
// The CPU at its edges: any number of threads, rows of x and y anywhere in memory, and numbers that
// are denormal or not finite, in weights and in x. Results have the same bits, or the oracle's
// class.
#include "check.h"
#include "fixture.h"

#include "core/dtype.h"

#include <vkmoe/bench.h>

#include <stdlib.h>

enum { N_TOKENS = 19, D_MODEL = 64, D_FF = 96, D_OUT = 37 };

// What is computed with what.
static const struct form {
    enum vkmoe_dtype type, x_type;
    enum vkmoe_precision precision;
} forms[] = {
    {VKMOE_F32, VKMOE_F32, VKMOE_PRECISION_EXACT},  {VKMOE_F16, VKMOE_F32, VKMOE_PRECISION_EXACT},
    {VKMOE_BF16, VKMOE_F32, VKMOE_PRECISION_EXACT}, {VKMOE_BF16, VKMOE_BF16, VKMOE_PRECISION_HALF},
    {VKMOE_F16, VKMOE_F16, VKMOE_PRECISION_HALF},   {VKMOE_Q8_0, VKMOE_F32, VKMOE_PRECISION_EXACT},
    {VKMOE_Q8_0, VKMOE_BF16, VKMOE_PRECISION_INT8}, {VKMOE_Q4_0, VKMOE_F32, VKMOE_PRECISION_INT8},
    {VKMOE_MXFP4, VKMOE_F32, VKMOE_PRECISION_INT8},
};
enum { N_FORMS = sizeof forms / sizeof *forms };

static vkmoe_layer_desc layer_of(const struct form *form)
{
    vkmoe_layer_desc layer = full_layer();
    layer.d_model = D_MODEL;
    layer.d_ff = layer.d_shared_ff = D_FF;
    layer.d_out = D_OUT;
    layer.in_type = layer.out_type = form->type;
    return layer;
}

static void open_stack(struct stack *stack, const char *device, uint32_t n_threads,
                       const struct layer_data *data, const struct form *form)
{
    vkmoe_context_desc context = vkmoe_context_desc_init();
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    context.device = device;
    context.n_threads = n_threads;
    plan.max_tokens = N_TOKENS;
    plan.x_type = form->x_type;
    plan.precision = form->precision;
    check_ok(stack_create_plan(stack, &context, data, &plan));
}

// Rows of x and y of some type, `offset` elements behind memory that is aligned for anything, and
// `gap` elements apart.
struct rows {
    enum vkmoe_dtype type;
    size_t x_stride, y_stride, element;
    char *memory, *x, *y;
};

static void rows_init(struct rows *rows, enum vkmoe_dtype type, size_t offset, size_t gap,
                      const float *x)
{
    const size_t element = type == VKMOE_F32 ? 4 : 2;
    *rows = (struct rows){.type = type, .element = element};
    rows->x_stride = (D_MODEL + gap) * element, rows->y_stride = (D_OUT + gap) * element;
    const size_t x_size = N_TOKENS * rows->x_stride + 256, y_size = N_TOKENS * rows->y_stride + 256;
    rows->memory = aligned_alloc(256, (x_size + y_size) / 256 * 256 + 512);
    assert_non_null(rows->memory);
    rows->x = rows->memory + offset * element;
    rows->y = rows->memory + (x_size + 255) / 256 * 256 + offset * element;
    for (uint32_t t = 0; t < N_TOKENS; t++)
        moe_dtype_encode(type, x + (size_t) t * D_MODEL, D_MODEL, rows->x + t * rows->x_stride);
}

static void run(const struct stack *stack, struct rows *rows, float *y)
{
    vkmoe_io io = vkmoe_io_init();
    io.x = rows->x, io.x_stride = rows->x_stride;
    io.y = rows->y, io.y_stride = rows->y_stride;
    check_ok(vkmoe_run(stack->bind, N_TOKENS, &io));
    for (uint32_t t = 0; t < N_TOKENS; t++)
        moe_dtype_decode(rows->type, rows->y + t * rows->y_stride, D_OUT, y + (size_t) t * D_OUT);
}

static void run_plain(const struct stack *stack, const struct form *form, const float *x, float *y)
{
    struct rows rows;
    rows_init(&rows, form->x_type, 0, 0, x);
    run(stack, &rows, y);
    free(rows.memory);
}

// ---- threads and places ------------------------------------------------------------------------

static void test_any_number_of_threads(void **state)
{
    (void) state;
    static const uint32_t n_threads[] = {0, 1, 2, 1000};
    float x[N_TOKENS * D_MODEL], want[N_TOKENS * D_OUT], got[N_TOKENS * D_OUT];
    fill_random(x, N_TOKENS * D_MODEL, 3);
    for (uint32_t f = 0; f < N_FORMS; f += 3) { // f32, bf16, int8 of q8_0
        const vkmoe_layer_desc layer = layer_of(&forms[f]);
        struct layer_data data;
        layer_data_init(&data, &layer, 5);
        for (uint32_t i = 0; i < sizeof n_threads / sizeof *n_threads; i++) {
            struct stack stack;
            open_stack(&stack, "cpu", n_threads[i], &data, &forms[f]);
            run_plain(&stack, &forms[f], x, i == 0 ? want : got);
            assert_in_range(vkmoe_context_thread_count(stack.context), 1, 1000);
            stack_destroy(&stack);
            if (i > 0)
                assert_memory_equal(got, want, sizeof got);
        }
        layer_data_finish(&data);
    }
}

static void test_rows_anywhere(void **state)
{
    (void) state;
    static const size_t offsets[] = {1, 3, 8, 13};
    float x[N_TOKENS * D_MODEL], want[N_TOKENS * D_OUT], got[N_TOKENS * D_OUT];
    fill_random(x, N_TOKENS * D_MODEL, 3);
    for (uint32_t f = 0; f < N_FORMS; f++) {
        const vkmoe_layer_desc layer = layer_of(&forms[f]);
        struct layer_data data;
        struct stack stack;
        layer_data_init(&data, &layer, 5);
        open_stack(&stack, "cpu", 2, &data, &forms[f]);
        run_plain(&stack, &forms[f], x, want);
        for (uint32_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
            struct rows rows;
            rows_init(&rows, forms[f].x_type, offsets[i], i % 2 ? 5 : 0, x);
            run(&stack, &rows, got);
            free(rows.memory);
            assert_memory_equal(got, want, sizeof got);
        }
        x[7] += 1; // these bits do depend on x
        run_plain(&stack, &forms[f], x, got);
        x[7] -= 1;
        assert_memory_not_equal(got, want, sizeof got);
        stack_destroy(&stack);
        layer_data_finish(&data);
    }
}

// ---- numbers that are not like others ----------------------------------------------------------

// The first rows: denormal in f32, denormal in f16, an infinity of each sign, a NaN.
static void fill_x(float *x)
{
    fill_random(x, N_TOKENS * D_MODEL, 3);
    for (uint32_t i = 0; i < D_MODEL; i++) {
        x[i] *= 0x1p-130f;
        x[D_MODEL + i] *= 0x1p-18f;
    }
    x[2 * D_MODEL + 5] = INFINITY;
    x[3 * D_MODEL + 40] = -INFINITY;
    x[4 * D_MODEL] = NAN;
}

// An expert of weights that are denormal in f16, and in the others a value that is not finite.
// Those of int8 get it as a bias: an infinite weight makes a block NaN in any case.
static void spoil(struct layer_data *data, enum vkmoe_dtype type)
{
    float *tiny = (float *) data->experts[0].down.data;
    for (uint32_t i = 0; i < D_OUT * D_FF; i++)
        tiny[i] *= type == VKMOE_F32 || type == VKMOE_BF16 ? 0x1p-128f : 0x1p-16f;
    const bool is_float = type <= VKMOE_BF16;
    *(is_float ? (float *) data->experts[1].down.data + 3 * D_FF + 7
               : (float *) data->experts[1].down_bias + 3) = INFINITY;
    *(is_float ? (float *) data->experts[2].down.data + 9 * D_FF + 11
               : (float *) data->experts[2].down_bias + 9) = -INFINITY;
    *(is_float ? (float *) data->experts[3].down.data + 21 * D_FF
               : (float *) data->experts[3].down_bias + 21) = NAN;
}

static const char *class_of(float v)
{
    return isnan(v) ? "NaN" : isinf(v) ? (v > 0 ? "infinite" : "-infinite") : "finite";
}

static double largest(const float *row)
{
    double most = 0;
    for (uint32_t i = 0; i < D_OUT; i++)
        most = isfinite(row[i]) ? fmax(most, fabs((double) row[i])) : most;
    return most;
}

// int8 makes NaN of a row with an infinity; what is finite is near the oracle's in each class.
static void check_class(const struct form *form, const float *got, const float *want)
{
    uint32_t n_finite = 0, n_other = 0;
    for (uint32_t i = 0; i < N_TOKENS * D_OUT; i++) {
        const uint32_t row = i / D_OUT;
        const bool lost = form->precision == VKMOE_PRECISION_INT8 && (row == 2 || row == 3);
        const bool same = lost ? !isfinite(got[i])
                               : strcmp(class_of(got[i]), class_of(want[i])) == 0;
        n_finite += isfinite(want[i]), n_other += !isfinite(want[i]);
        if (!same)
            fail_msg("%s, x %s, %s: row %u, column %u is %s, not %s", vkmoe_dtype_name(form->type),
                     vkmoe_dtype_name(form->x_type), vkmoe_precision_name(form->precision), row,
                     i % D_OUT, class_of(got[i]), class_of(want[i]));
        if (isfinite(want[i]))
            check_near(got[i], want[i], 0.05 * largest(want + (size_t) row * D_OUT));
    }
    assert_true(n_finite > N_TOKENS * D_OUT / 2 && n_other > 3 * D_OUT);
}

static void test_numbers(void **state)
{
    (void) state;
    static const struct form exact = {.precision = VKMOE_PRECISION_EXACT};
    float x[N_TOKENS * D_MODEL], want[N_TOKENS * D_OUT], got[N_TOKENS * D_OUT];
    for (uint32_t f = 0; f < N_FORMS; f++) {
        const vkmoe_layer_desc layer = layer_of(&forms[f]);
        struct form as_f32 = exact;
        struct layer_data data;
        struct stack stack;
        fill_x(x);
        layer_data_init(&data, &layer, 5);
        spoil(&data, forms[f].type);
        as_f32.x_type = forms[f].x_type;
        open_stack(&stack, "reference", 0, &data, &as_f32);
        run_plain(&stack, &as_f32, x, want);
        stack_destroy(&stack);
        open_stack(&stack, "cpu", 2, &data, &forms[f]);
        run_plain(&stack, &forms[f], x, got);
        stack_destroy(&stack);
        check_class(&forms[f], got, want);
        layer_data_finish(&data);
    }
}

// ---- layers that are no whole blocks -----------------------------------------------------------

static void test_no_whole_blocks(void **state)
{
    (void) state;
    struct form form = forms[0];
    vkmoe_layer_desc layer = layer_of(&form);
    layer.d_model = 65, layer.d_ff = 97;
    check_ok(vkmoe_layer_check(&layer)); // floats have no blocks
    layer.in_type = VKMOE_Q8_0;
    check_fails(vkmoe_layer_check(&layer), VKMOE_E_SHAPE,
                "layer.in_type = q8_0: blocks of 32 values, d_model = 65 is no multiple");
    layer.in_type = VKMOE_F32, layer.out_type = VKMOE_Q4_K;
    check_fails(vkmoe_layer_check(&layer), VKMOE_E_SHAPE,
                "layer.out_type = q4_K: blocks of 256 values, d_ff = 97 is no multiple");
    layer.out_type = VKMOE_FP8; // whose last block may be part of one
    check_ok(vkmoe_layer_check(&layer));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_number_of_threads),
        cmocka_unit_test(test_rows_anywhere),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_no_whole_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
