// SPDX-License-Identifier: MIT
// x and y of 16 bits. Argument: the device.
#include "check.h"
#include "fixture.h"

#include "core/dtype.h"

#include <stdlib.h>

static const char *device;
static const enum vkmoe_dtype halves[] = {VKMOE_F16, VKMOE_BF16};

static uint16_t to_half(enum vkmoe_dtype type, float value)
{
    uint16_t half;
    moe_dtype_encode(type, &value, 1, &half);
    return half;
}

static float from_half(enum vkmoe_dtype type, uint16_t half)
{
    float value;
    moe_dtype_decode(type, &half, 1, &value);
    return value;
}

static vkmoe_plan_desc plan_of(enum vkmoe_dtype x_type, uint32_t max_tokens)
{
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.max_tokens = max_tokens;
    plan.x_type = x_type;
    plan.scores = true;
    return plan;
}

static void create(struct stack *stack, const struct layer_data *data, const vkmoe_plan_desc *plan)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = device;
    desc.n_threads = 3;
    check_ok(stack_create_plan(stack, &desc, data, plan));
}

// ---- against f32 -------------------------------------------------------------------------------

enum { N = 150, D_MODEL = 37, D_OUT = 21, E = 5, K = 2, X_PAD = 2, Y_PAD = 4 };

// What a run writes. A layer has the same ids and scores whatever type carries the same x.
struct results {
    int32_t ids[N * K];
    float gates[N * K], scores[N * E];
};

static vkmoe_layer_desc odd_layer(void)
{
    vkmoe_layer_desc layer = full_layer();
    layer.d_model = D_MODEL;
    layer.d_out = D_OUT;
    return layer;
}

static vkmoe_io io_of(const void *x, void *y, struct results *results)
{
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.y = y;
    io.ids = results->ids;
    io.gates = results->gates;
    io.scores = results->scores;
    return io;
}

// Rows of odd width at odd halves of words: y is what f32 rows of the same values give, rounded
// once, and nothing between the rows is touched. The oracle's f32 rows are rounded once before; a
// number in 2^14 would show it, none of these does.
static void check_rows(enum vkmoe_dtype type, const struct stack *f32, const struct stack *half,
                       uint32_t n)
{
    static float x32[N * D_MODEL], y32[N * D_OUT];
    static uint16_t x16[1 + N * (D_MODEL + X_PAD)], y16[1 + N * (D_OUT + Y_PAD)];
    static struct results results32, results16;
    const uint16_t guard = 0x7fad;
    fill_random(x32, N * D_MODEL, 7);
    for (size_t i = 0; i < sizeof x16 / sizeof *x16; i++)
        x16[i] = guard; // a NaN that must not matter
    for (size_t i = 0; i < sizeof y16 / sizeof *y16; i++)
        y16[i] = guard;
    for (uint32_t i = 0; i < N * D_MODEL; i++) {
        uint16_t *x = &x16[1 + i / D_MODEL * (D_MODEL + X_PAD) + i % D_MODEL];
        *x = to_half(type, x32[i]);
        x32[i] = from_half(type, *x);
    }
    vkmoe_io io = io_of(x32, y32, &results32);
    check_ok(vkmoe_run(f32->bind, n, &io));
    io = io_of(x16 + 1, y16 + 1, &results16);
    io.x_stride = (D_MODEL + X_PAD) * sizeof *x16;
    io.y_stride = (D_OUT + Y_PAD) * sizeof *y16;
    check_ok(vkmoe_run(half->bind, n, &io));
    for (uint32_t i = 0; i < N * (D_OUT + Y_PAD); i++) {
        uint32_t row = i / (D_OUT + Y_PAD), column = i % (D_OUT + Y_PAD);
        bool written = row < n && column < D_OUT;
        uint16_t want = written ? to_half(type, y32[row * D_OUT + column]) : guard;
        if (y16[1 + i] != want)
            fail_msg("%s, row %u of %u, column %u: %04x, not %04x", vkmoe_dtype_name(type), row, n,
                     column, y16[1 + i], want);
    }
    assert_int_equal(y16[0], guard);
    assert_memory_equal(results16.ids, results32.ids, n * K * 4);
    assert_memory_equal(results16.gates, results32.gates, n * K * 4);
    assert_memory_equal(results16.scores, results32.scores, n * E * 4);
}

static void test_rows(void **state)
{
    (void) state;
    static const uint32_t counts[] = {1, 2, 9, N};
    struct layer_data data;
    struct stack f32, half;
    vkmoe_layer_desc layer = odd_layer();
    vkmoe_plan_desc plan = plan_of(VKMOE_F32, N);
    layer_data_init(&data, &layer, 2);
    create(&f32, &data, &plan);
    for (size_t t = 0; t < 2; t++) {
        plan = plan_of(halves[t], N);
        plan.precision = t ? VKMOE_PRECISION_HALF : VKMOE_PRECISION_EXACT; // the same here
        create(&half, &data, &plan);
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
            check_rows(halves[t], &f32, &half, counts[i]);
        stack_destroy(&half);
    }
    stack_destroy(&f32);
    layer_data_finish(&data);
}

// ---- single numbers ----------------------------------------------------------------------------

// One expert that is its bias plus x[0] times 2^-20: y[o] = bias[o] + 2^-20 x[0].
struct line {
    float router[1], up[1], down[8], bias[8];
    vkmoe_layer_desc layer;
    vkmoe_expert_tensors expert;
    struct layer_data data;
};

static void line_init(struct line *line, const float *bias, uint32_t n)
{
    memset(line, 0, sizeof *line);
    memcpy(line->bias, bias, n * sizeof *bias);
    line->up[0] = 1;
    for (uint32_t o = 0; o < n; o++)
        line->down[o] = 0x1p-20f;
    line->layer = vkmoe_layer_desc_init();
    line->layer.n_experts = line->layer.top_k = line->layer.d_model = line->layer.d_ff = 1;
    line->layer.d_out = n;
    line->layer.down_bias = true;
    line->expert = (vkmoe_expert_tensors){.up = {.data = line->up, .type = VKMOE_F32},
                                          .down = {.data = line->down, .type = VKMOE_F32},
                                          .down_bias = line->bias};
    line->data.layer = line->layer;
    line->data.router.weight = (vkmoe_tensor){.data = line->router, .type = VKMOE_F32};
    line->data.desc = vkmoe_weights_desc_init();
    line->data.desc.layer = &line->data.layer;
    line->data.desc.router = &line->data.router;
    line->data.desc.experts = &line->expert;
}

static void check_line(enum vkmoe_dtype type, const float *bias, const uint16_t *want, uint32_t n,
                       uint16_t x)
{
    struct line line;
    struct stack stack;
    uint16_t y[8];
    vkmoe_io io = vkmoe_io_init();
    vkmoe_plan_desc plan = plan_of(type, 1);
    line_init(&line, bias, n);
    create(&stack, &line.data, &plan);
    io.x = &x;
    io.y = y;
    check_ok(vkmoe_run(stack.bind, 1, &io));
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(y[i], want[i]);
    stack_destroy(&stack);
}

static void test_limits(void **state)
{
    (void) state;
    const float bias[6] = {65519.996f, 65520, -65520, 1e30f, -3.4e38f, 0x1p-24f};
    const uint16_t f16[6] = {0x7bff, 0x7c00, 0xfc00, 0x7c00, 0xfc00, 1};
    const float wide[4] = {3.3961775e38f, -3.3961775e38f, 1e30f, 0x1p-133f};
    const uint16_t bf16[4] = {0x7f80, 0xff80, to_half(VKMOE_BF16, 1e30f), 1};
    check_line(VKMOE_F16, bias, f16, 6, 0);
    check_line(VKMOE_BF16, wide, bf16, 4, 0);
}

// x is the least subnormal of f16, 2^-24, which f32 sums lose beside 1 and f64 sums do not; then
// 2^-10, with a bias halfway between two f16: f64 sums are above the tie.
static void test_rounded_once(void **state)
{
    (void) state;
    bool f64 = strcmp(device, "reference") == 0;
    const float zero = 0, tie = 1 + 0x1p-11f;
    const uint16_t least = to_half(VKMOE_F16, 0x1p-24f), small = to_half(VKMOE_F16, 0x1p-10f);
    const uint16_t none = 0, above = 0x3c01, even = 0x3c00;
    check_line(VKMOE_F16, &zero, &none, 1, least); // 2^-44
    check_line(VKMOE_F16, &tie, f64 ? &above : &even, 1, least);
    check_line(VKMOE_F16, &tie, f64 ? &above : &even, 1, small);
    const uint16_t large = to_half(VKMOE_F16, 16); // 2^-16 is within f32
    check_line(VKMOE_F16, &tie, &above, 1, large);
    const uint16_t tiny = 1, tiny_bf16 = to_half(VKMOE_BF16, 0x1p-113f);
    check_line(VKMOE_BF16, &zero, &tiny, 1, tiny_bf16); // 2^-133, its least subnormal
}

// NaN and infinity enter and leave, and other rows do not notice.
static void test_no_numbers(void **state)
{
    (void) state;
    struct layer_data data;
    struct stack stack;
    vkmoe_layer_desc layer = odd_layer();
    static uint16_t x[3 * D_MODEL], y[3 * D_OUT], before[3 * D_OUT];
    layer_data_init(&data, &layer, 3);
    for (size_t t = 0; t < 2; t++) {
        const enum vkmoe_dtype type = halves[t];
        const float bad[3] = {NAN, INFINITY, -INFINITY};
        vkmoe_plan_desc plan = plan_of(type, 3);
        vkmoe_io io = vkmoe_io_init();
        create(&stack, &data, &plan);
        for (uint32_t i = 0; i < 3 * D_MODEL; i++)
            x[i] = to_half(type, (float) (i % 11) / 8 - 0.5f);
        io.x = x;
        io.y = before;
        check_ok(vkmoe_run(stack.bind, 3, &io));
        for (uint32_t i = 0; i < 3 * D_OUT; i++)
            assert_true(isfinite(from_half(type, before[i])));
        io.y = y;
        for (uint32_t b = 0; b < 3; b++) {
            x[D_MODEL + 4] = to_half(type, bad[b]);
            check_ok(vkmoe_run(stack.bind, 3, &io));
            for (uint32_t i = 0; i < D_OUT; i++)
                assert_false(isfinite(from_half(type, y[D_OUT + i])));
            assert_memory_equal(y, before, D_OUT * 2);
            assert_memory_equal(y + 2 * D_OUT, before + 2 * D_OUT, D_OUT * 2);
        }
        stack_destroy(&stack);
    }
    layer_data_finish(&data);
}

// ---- arguments ---------------------------------------------------------------------------------

static void test_arguments(void **state)
{
    (void) state;
    struct layer_data data;
    struct stack stack;
    vkmoe_layer_desc layer = full_layer(); // rows of 6 and 3
    vkmoe_plan_desc plan = plan_of(VKMOE_BF16, 4);
    uint16_t x[40] = {0}, y[40];
    vkmoe_io io, good = vkmoe_io_init();
    layer_data_init(&data, &layer, 1);
    create(&stack, &data, &plan);
    good.x = x + 1;
    good.y = y + 1;
    check_ok(vkmoe_run(stack.bind, 4, &good));
#define WRONG(field, value, text)                                                                  \
    do {                                                                                           \
        io = good;                                                                                 \
        io.field = (value);                                                                        \
        check_fails(vkmoe_run(stack.bind, 4, &io), VKMOE_E_ARGUMENT, text);                        \
    } while (0)
    WRONG(x, (char *) x + 1, "is not aligned to 2 bytes");
    WRONG(y, (char *) y + 1, "is not aligned to 2 bytes");
    WRONG(x_stride, 13, "io.x_stride = 13: must be a multiple of 2");
    WRONG(x_stride, 10, "io.x_stride = 10: a row takes 12 bytes");
    WRONG(y_stride, 7, "io.y_stride = 7: must be a multiple of 2");
    WRONG(y_stride, 4, "io.y_stride = 4: a row takes 6 bytes");
    WRONG(y, x + 24, "io.x and io.y overlap"); // x ends behind x[24]
#undef WRONG
    io = good;
    io.y = x + 25;
    check_ok(vkmoe_run(stack.bind, 4, &io));
    stack_destroy(&stack);
    layer_data_finish(&data);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_rounded_once),
        cmocka_unit_test(test_no_numbers),
        cmocka_unit_test(test_arguments),
    };
    if (argc != 2)
        return 2;
    device = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
