// SPDX-License-Identifier: MIT
// The CPU with operands of 16 and 8 bits, on layers whose matrices have different types and forms,
// against the oracle: the same experts, outputs within the promise of the precision, and not just
// those of f32 operands.
#include "check.h"
#include "fixture.h"

#include "api/api.h"
#include "core/dtype.h"
#include "cpu/cpu.h"

#include <vkmoe/bench.h>

enum { N_TOKENS = 37, D_MODEL = 256, D_OUT = 21, TINY = 2 };

static const double promises[] = {1e-5, 4e-3, 1.5e-2};

// ---- operands of bf16 in plain C, where this machine's level has none ---------------------------

static void panel_bf16(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                       float *out)
{
    const uint16_t *w = panel;
    for (uint32_t r = 0; r < n_rows; r++) {
        const uint16_t *row = x[r];
        // Other threads cannot fail a test, but NaN does.
        const bool is_right = (uintptr_t) row % 4 == 0 && (k % 2 == 0 || row[k] == 0);
        for (uint32_t c = 0; c < CPU_PANEL; c++) {
            float sum = 0;
            for (uint32_t i = 0; i < k; i++)
                sum += moe_bf16_to_f32(row[i]) *
                       moe_bf16_to_f32(w[(i / 2 * CPU_PANEL + c) * 2 + i % 2]);
            out[r * CPU_PANEL + c] = is_right ? sum : NAN;
        }
    }
}

// Of which operands rows are gathered: as for AMX.
static bool gathers[CPU_N_OPERANDS] = {[CPU_OPERAND_BF16] = true};

static void create(struct stack *stack, const char *device, const struct layer_data *data,
                   const vkmoe_plan_desc *plan)
{
    vkmoe_context_desc context = vkmoe_context_desc_init();
    vkmoe_plan_desc desc = *plan;
    context.device = device;
    context.n_threads = 2;
    desc.precision = VKMOE_PRECISION_EXACT;
    check_ok(stack_create_plan(stack, &context, data, &desc));
    if (strcmp(device, "cpu") != 0)
        return;
    struct cpu_device *cpu = (struct cpu_device *) stack->context->device;
    if (!cpu->kernels.panel[CPU_OPERAND_BF16][VKMOE_BF16]) {
        cpu->kernels.panel[CPU_OPERAND_BF16][VKMOE_BF16] = panel_bf16;
        cpu->kernels.peak[CPU_OPERAND_BF16] = cpu->kernels.peak[CPU_OPERAND_F32];
    }
    memcpy(cpu->kernels.even_rows, gathers, sizeof gathers);
    vkmoe_bind_destroy(stack->bind);
    vkmoe_plan_destroy(stack->plan);
    desc.layer = &data->layer;
    desc.precision = plan->precision;
    check_ok(vkmoe_plan_create(stack->context, &desc, &stack->plan));
    check_ok(vkmoe_bind_create(stack->plan, stack->weights, NULL, &stack->bind));
}

// ---- layers ---------------------------------------------------------------------------------

static void plain(vkmoe_layer_desc *layer)
{
    layer->gate_bias = layer->up_bias = layer->down_bias = false;
}

static void no_shared(vkmoe_layer_desc *layer)
{
    layer->d_shared_ff = 0;
}

static void float_shared(vkmoe_layer_desc *layer)
{
    layer->own_shared_types = true;
    layer->shared_in_type = VKMOE_BF16;
    layer->shared_out_type = VKMOE_F16;
    layer->d_shared_ff = 33;
}

static void block_shared(vkmoe_layer_desc *layer)
{
    layer->own_shared_types = true;
    layer->shared_in_type = VKMOE_Q4_0;
    layer->shared_out_type = VKMOE_Q8_0;
    layer->d_shared_ff = 96;
}

static void adjugate(vkmoe_layer_desc *layer)
{
    layer->adjugate_group = 2;
    layer->d_adjugate = 64;
    layer->adjugate_scale = 0.5f;
}

static void latent(vkmoe_layer_desc *layer)
{
    layer->n_zero = 2;
    layer->d_latent = 64;
    layer->latent_type = layer->in_type;
}

static void latent_norm(vkmoe_layer_desc *layer)
{
    latent(layer);
    no_shared(layer);
    layer->n_zero = 0;
    adjugate(layer);
    layer->latent_norm = true;
    layer->latent_norm_eps = 1e-6f;
}

static void odd_latent(vkmoe_layer_desc *layer)
{
    latent_norm(layer);
    layer->d_latent = 47;
    layer->d_adjugate = 33;
}

static void on_input(vkmoe_layer_desc *layer)
{
    layer->weight_on_input = true;
}

static void relu2(vkmoe_layer_desc *layer)
{
    layer->gated = layer->gate_bias = false;
    layer->act = VKMOE_ACT_RELU2;
}

// Hidden columns behind the last are not 0 before the weights see them.
static void never_zero(vkmoe_layer_desc *layer)
{
    layer->gated = layer->gate_bias = false;
    layer->act = VKMOE_ACT_SIGMOID;
}

// What the routed experts are multiplied with.
#define F32 VKMOE_ARITHMETIC_F32
#define BF16 VKMOE_ARITHMETIC_BF16
#define INT8 VKMOE_ARITHMETIC_INT8
#define HALF VKMOE_PRECISION_HALF
#define BLOCKS VKMOE_PRECISION_INT8

static const struct test_case {
    const char *name;
    enum vkmoe_precision precision;
    enum vkmoe_dtype in, out;
    uint32_t d_ff;
    void (*change)(vkmoe_layer_desc *layer); // or NULL
    enum vkmoe_arithmetic arithmetic;
    uint32_t n_phases; // more than in `exact`
    bool exact;        // nothing is rounded
} cases[] = {
    {"bf16", HALF, VKMOE_BF16, VKMOE_BF16, 48, NULL, BF16, 1},
    {"bf16, plain", HALF, VKMOE_BF16, VKMOE_BF16, 16, plain, BF16, 1},
    {"bf16, no shared", HALF, VKMOE_BF16, VKMOE_BF16, 144, no_shared, BF16, 1},
    {"bf16, odd width", HALF, VKMOE_BF16, VKMOE_BF16, 97, NULL, BF16, 1},
    {"bf16, odd width, sigmoid", HALF, VKMOE_BF16, VKMOE_BF16, 1, never_zero, BF16, 1},
    {"bf16, adjugate", HALF, VKMOE_BF16, VKMOE_BF16, 40, adjugate, BF16, 1},
    {"bf16, latent", HALF, VKMOE_BF16, VKMOE_BF16, 40, latent, BF16, 2},
    {"bf16, latent norm", HALF, VKMOE_BF16, VKMOE_BF16, 40, latent_norm, BF16, 1},
    {"bf16, odd latent", HALF, VKMOE_BF16, VKMOE_BF16, 33, odd_latent, BF16, 1},
    {"bf16, on input", HALF, VKMOE_BF16, VKMOE_BF16, 40, on_input, BF16, 1},
    {"bf16, relu2", HALF, VKMOE_BF16, VKMOE_BF16, 64, relu2, BF16, 1},
    {"bf16, f16", HALF, VKMOE_BF16, VKMOE_F16, 41, NULL, BF16, 1},
    {"f32, bf16", HALF, VKMOE_F32, VKMOE_BF16, 41, NULL, BF16, 0},
    {"f16", HALF, VKMOE_F16, VKMOE_F16, 41, NULL, F32, 0, true},
    {"q8_0 in half", HALF, VKMOE_Q8_0, VKMOE_Q8_0, 64, NULL, F32, 0, true},
    {"q8_0, bf16 shared", HALF, VKMOE_Q8_0, VKMOE_Q8_0, 64, float_shared, F32, 1},

    {"q8_0", BLOCKS, VKMOE_Q8_0, VKMOE_Q8_0, 96, NULL, INT8, 1},
    {"q8_0, plain", BLOCKS, VKMOE_Q8_0, VKMOE_Q8_0, 32, plain, INT8, 1},
    {"q4_0", BLOCKS, VKMOE_Q4_0, VKMOE_Q4_0, 64, NULL, INT8, 1},
    {"q4_K", BLOCKS, VKMOE_Q4_K, VKMOE_Q8_0, 32, NULL, INT8, 1},
    {"q5_K", BLOCKS, VKMOE_Q5_K, VKMOE_Q8_0, 32, NULL, INT8, 1},
    {"q6_K", BLOCKS, VKMOE_Q6_K, VKMOE_Q8_0, 32, NULL, INT8, 1},
    {"q2_K", BLOCKS, VKMOE_Q2_K, VKMOE_Q8_0, 32, NULL, INT8, 1},
    {"q8_0, q4_K", BLOCKS, VKMOE_Q8_0, VKMOE_Q4_K, 256, NULL, INT8, 1},
    {"q8_0, q5_K", BLOCKS, VKMOE_Q8_0, VKMOE_Q5_K, 256, NULL, INT8, 1},
    {"q8_0, q6_K", BLOCKS, VKMOE_Q8_0, VKMOE_Q6_K, 256, NULL, INT8, 1},
    {"q8_0, q2_K", BLOCKS, VKMOE_Q8_0, VKMOE_Q2_K, 256, NULL, INT8, 1},
    {"mxfp4", BLOCKS, VKMOE_MXFP4, VKMOE_MXFP4, 160, NULL, INT8, 1},
    {"fp8", BLOCKS, VKMOE_FP8, VKMOE_FP8, 50, NULL, F32, 0, true},
    {"fp8, q8_0", BLOCKS, VKMOE_FP8, VKMOE_Q8_0, 96, NULL, INT8, 0},
    {"q8_0, bf16", BLOCKS, VKMOE_Q8_0, VKMOE_BF16, 33, NULL, INT8, 1},
    {"f32, q4_0", BLOCKS, VKMOE_F32, VKMOE_Q4_0, 64, NULL, INT8, 0},
    {"q4_0, float shared", BLOCKS, VKMOE_Q4_0, VKMOE_Q8_0, 64, float_shared, INT8, 1},
    {"f32, block shared", BLOCKS, VKMOE_F32, VKMOE_F32, 31, block_shared, F32, 1},
    {"q8_0, adjugate", BLOCKS, VKMOE_Q8_0, VKMOE_Q8_0, 64, adjugate, INT8, 1},
    {"q8_0, latent", BLOCKS, VKMOE_Q8_0, VKMOE_Q8_0, 64, latent, INT8, 2},
    {"q4_0, latent norm", BLOCKS, VKMOE_Q4_0, VKMOE_Q4_0, 64, latent_norm, INT8, 1},
    {"q8_0, relu2", BLOCKS, VKMOE_Q8_0, VKMOE_Q8_0, 64, relu2, INT8, 1},
    {"q8_0, on input", BLOCKS, VKMOE_Q8_0, VKMOE_Q8_0, 64, on_input, INT8, 1},
};
enum { N_CASES = sizeof cases / sizeof *cases };

static vkmoe_layer_desc layer_of(const struct test_case *c)
{
    vkmoe_layer_desc layer = full_layer();
    layer.n_experts = 3;
    layer.d_model = c->in >= VKMOE_Q4_K && c->in <= VKMOE_Q2_K ? D_MODEL : D_MODEL / 4;
    layer.d_ff = c->d_ff;
    layer.d_shared_ff = c->d_ff;
    layer.d_out = D_OUT;
    layer.in_type = c->in;
    layer.out_type = c->out;
    layer.shared_gate = VKMOE_SHARED_PLAIN;
    layer.router_input = true; // so that nothing but operands can turn NaN into numbers
    if (c->change)
        c->change(&layer);
    return layer;
}

// ---- runs -----------------------------------------------------------------------------------

struct input {
    float x[N_TOKENS * D_MODEL], router_x[N_TOKENS * D_MODEL];
    uint16_t x_half[N_TOKENS * (D_MODEL + 1)];
    uint16_t router_half[N_TOKENS * (D_MODEL + 1)];
};

struct outputs {
    float y[2][N_TOKENS * D_OUT]; // of one token, of all
    int32_t ids[2][N_TOKENS * 2];
    uint64_t weight_loads;
    uint32_t n_phases;
    enum vkmoe_arithmetic arithmetic;
};

static void fill_input(struct input *in)
{
    fill_random(in->x, N_TOKENS * D_MODEL, 9);
    fill_random(in->router_x, N_TOKENS * D_MODEL, 10);
    for (uint32_t i = 0; i < D_MODEL; i++)
        in->x[TINY * D_MODEL + i] *= 0x1p-130f; // denormal
}

// The same rows as bf16, `stride` elements apart.
static void fill_half(struct input *in, uint32_t stride)
{
    for (uint32_t t = 0; t < N_TOKENS; t++) {
        moe_dtype_encode(VKMOE_BF16, in->x + t * D_MODEL, D_MODEL, in->x_half + t * stride);
        moe_dtype_encode(VKMOE_BF16, in->router_x + t * D_MODEL, D_MODEL,
                         in->router_half + t * stride);
    }
}

static void run_on(const char *device, const struct layer_data *data,
                   enum vkmoe_precision precision, const struct input *in, struct outputs *out)
{
    const bool cpu = strcmp(device, "cpu") == 0;
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    vkmoe_io io = vkmoe_io_init();
    vkmoe_plan_kernels kernels;
    vkmoe_counters counters;
    struct stack stack;
    memset(out, 0, sizeof *out);
    plan.max_tokens = N_TOKENS;
    plan.precision = precision;
    plan.counters = cpu;
    create(&stack, device, data, &plan);
    io.x = in->x, io.router_x = in->router_x;
    io.x_stride = io.router_x_stride = D_MODEL * sizeof *in->x;
    for (int many = 0; many < 2; many++) {
        io.y = out->y[many], io.ids = out->ids[many];
        check_ok(vkmoe_run(stack.bind, many ? N_TOKENS : 1, &io));
    }
    if (cpu) {
        check_ok(vkmoe_plan_get_kernels(stack.plan, &kernels));
        check_ok(vkmoe_bind_get_counters(stack.bind, &counters));
        out->arithmetic = kernels.arithmetic;
        out->weight_loads = counters.weight_loads;
        out->n_phases = counters.dispatches;
    }
    stack_destroy(&stack);
}

// Of all tokens; the token that was run alone has to have the same bits.
static double distance(const struct outputs *got, const struct outputs *want)
{
    double of_difference = 0, of_want = 0;
    assert_memory_equal(got->y[0], got->y[1], D_OUT * sizeof(float));
    for (size_t i = 0; i < N_TOKENS * D_OUT; i++) {
        of_difference += pow((double) got->y[1][i] - (double) want->y[1][i], 2);
        of_want += pow((double) want->y[1][i], 2);
    }
    return sqrt(of_difference / of_want);
}

static void check_case(const struct test_case *c, const struct input *in)
{
    static struct outputs want, exact, got, wrong;
    const vkmoe_layer_desc layer = layer_of(c);
    const double promise = promises[c->precision];
    struct layer_data data;
    layer_data_init(&data, &layer, 3);
    run_on("reference", &data, VKMOE_PRECISION_EXACT, in, &want);
    run_on("cpu", &data, VKMOE_PRECISION_EXACT, in, &exact);
    run_on("cpu", &data, c->precision, in, &got);
    assert_memory_equal(got.ids, want.ids, sizeof got.ids);
    const double d = distance(&got, &want);
    if (!(d <= promise) || !(distance(&exact, &want) <= 1e-5))
        fail_msg("%s: %g", c->name, d);
    if (c->exact)
        assert_memory_equal(got.y, exact.y, sizeof got.y);
    else if (d <= 1e-5)
        fail_msg("%s: nothing was rounded", c->name);
    if (got.arithmetic != c->arithmetic || exact.arithmetic != VKMOE_ARITHMETIC_F32)
        fail_msg("%s: %s", c->name, vkmoe_arithmetic_name(got.arithmetic));
    const uint32_t more = c->n_phases + (c->precision == HALF && c->in == VKMOE_BF16);
    if (got.n_phases != exact.n_phases + more || got.weight_loads != exact.weight_loads)
        fail_msg("%s: %u phases, not %u + %u; %llu bytes of weights, not %llu", c->name,
                 got.n_phases, exact.n_phases, more,
                 (unsigned long long) got.weight_loads, (unsigned long long) exact.weight_loads);

    const vkmoe_expert_tensors first = data.experts[0];
    data.experts[0] = data.experts[1];
    data.experts[1] = first;
    run_on("cpu", &data, c->precision, in, &wrong);
    if (distance(&wrong, &want) <= promise)
        fail_msg("%s: the check does not see other experts", c->name);
    layer_data_finish(&data);
}

static void within_the_promise(void **state)
{
    (void) state;
    static struct input in;
    fill_input(&in);
    for (uint32_t i = 0; i < N_CASES; i++)
        check_case(&cases[i], &in);
}

// Tokens with an infinity or NaN leave no number that looks like a result, and no trace in others.
static void not_finite(void **state)
{
    (void) state;
    static struct input good, bad;
    static struct outputs want, got;
    enum { NOT_A_NUMBER = 3, INFINITE = 5 };
    fill_input(&good);
    bad = good;
    bad.x[NOT_A_NUMBER * D_MODEL + 35] = NAN;
    bad.x[INFINITE * D_MODEL + 63] = INFINITY;
    for (uint32_t i = 0; i < N_CASES; i++) {
        const vkmoe_layer_desc layer = layer_of(&cases[i]);
        struct layer_data data;
        if (!layer.gated || layer.d_model == D_MODEL) // an infinity may become 0; slow to encode
            continue;
        layer_data_init(&data, &layer, 3);
        run_on("cpu", &data, cases[i].precision, &good, &want);
        run_on("cpu", &data, cases[i].precision, &bad, &got);
        for (uint32_t j = 0; j < N_TOKENS * D_OUT; j++) {
            const uint32_t t = j / D_OUT;
            const bool lost = t == NOT_A_NUMBER || t == INFINITE;
            if (lost ? isfinite(got.y[1][j]) : got.y[1][j] != want.y[1][j])
                fail_msg("%s: token %u, output %u is %g", cases[i].name, t, j % D_OUT,
                         (double) got.y[1][j]);
        }
        layer_data_finish(&data);
    }
}

static void run_half(const struct layer_data *data, const struct input *in, uint32_t stride,
                     uint16_t *y)
{
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    vkmoe_io io = vkmoe_io_init();
    struct stack stack;
    plan.max_tokens = N_TOKENS;
    plan.precision = VKMOE_PRECISION_HALF;
    plan.x_type = VKMOE_BF16;
    create(&stack, "cpu", data, &plan);
    io.x = in->x_half, io.router_x = in->router_half;
    io.x_stride = io.router_x_stride = stride * sizeof(uint16_t);
    io.y = y;
    check_ok(vkmoe_run(stack.bind, N_TOKENS, &io));
    stack_destroy(&stack);
}

// Rows of bf16 that can be read where they are, and rows at odd places that can not: the same bits,
// and those of f32 rows of the same values, rounded.
static void rows_of_bf16(void **state)
{
    (void) state;
    static struct input in;
    static struct outputs want;
    static uint16_t here[N_TOKENS * D_OUT], copied[N_TOKENS * D_OUT], rounded[N_TOKENS * D_OUT];
    const vkmoe_layer_desc layer = layer_of(&cases[0]);
    struct layer_data data;
    layer_data_init(&data, &layer, 3);
    fill_input(&in);
    for (uint32_t i = 0; i < N_TOKENS * D_MODEL; i++) {
        in.x[i] = moe_bf16_to_f32(moe_f32_to_bf16(in.x[i]));
        in.router_x[i] = moe_bf16_to_f32(moe_f32_to_bf16(in.router_x[i]));
    }
    run_on("cpu", &data, VKMOE_PRECISION_HALF, &in, &want);
    moe_dtype_encode(VKMOE_BF16, want.y[1], N_TOKENS * D_OUT, rounded);
    fill_half(&in, D_MODEL);
    run_half(&data, &in, D_MODEL, here);
    fill_half(&in, D_MODEL + 1);
    run_half(&data, &in, D_MODEL + 1, copied);
    assert_memory_equal(here, rounded, sizeof here);
    assert_memory_equal(copied, rounded, sizeof copied);
    layer_data_finish(&data);
}

static uint32_t run_strided(const struct layer_data *data, const float *x, size_t stride,
                            uint32_t n_tokens, float *y)
{
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    vkmoe_io io = vkmoe_io_init();
    vkmoe_counters counters;
    struct stack stack;
    plan.max_tokens = N_TOKENS;
    plan.counters = true;
    plan.precision = data->layer.in_type == VKMOE_BF16 ? VKMOE_PRECISION_HALF
                                                     : VKMOE_PRECISION_EXACT;
    create(&stack, "cpu", data, &plan);
    io.x = x, io.x_stride = stride, io.y = y;
    check_ok(vkmoe_run(stack.bind, n_tokens, &io));
    check_ok(vkmoe_bind_get_counters(stack.bind, &counters));
    stack_destroy(&stack);
    return counters.dispatches;
}

// Rows of f32 that share the lines of a cache are copied where there are some: the same bits.
static void rows_that_are_copied(void **state)
{
    (void) state;
    enum { WIDE = 512 };
    static float x[N_TOKENS * (WIDE + 1)], near[N_TOKENS * D_OUT], apart[N_TOKENS * D_OUT];
    vkmoe_layer_desc layer = layer_of(&cases[0]);
    struct layer_data data;
    layer.d_model = WIDE;
    layer.in_type = layer.out_type = VKMOE_F32;
    layer.router_input = false;
    layer_data_init(&data, &layer, 3);
    fill_random(x, N_TOKENS * WIDE, 9);
    const uint32_t copied = run_strided(&data, x, WIDE * sizeof *x, N_TOKENS, near);
    const uint32_t few = run_strided(&data, x, WIDE * sizeof *x, 15, apart);
    for (uint32_t t = N_TOKENS; t-- > 0;)
        memmove(x + t * (WIDE + 1), x + t * WIDE, WIDE * sizeof *x);
    const uint32_t read = run_strided(&data, x, (WIDE + 1) * sizeof *x, N_TOKENS, apart);
    assert_memory_equal(near, apart, sizeof near);
    assert_int_equal(copied, read + 1);
    assert_int_equal(few, read);
    layer_data_finish(&data);
}

// Rows are gathered where there are some: the same bits.
static void rows_that_are_gathered(void **state)
{
    static const enum vkmoe_dtype types[] = {[CPU_OPERAND_F32] = VKMOE_F32,
                                             [CPU_OPERAND_BF16] = VKMOE_BF16};
    static float x[N_TOKENS * D_MODEL], there[N_TOKENS * D_OUT], gathered[N_TOKENS * D_OUT];
    (void) state;
    fill_random(x, N_TOKENS * D_MODEL, 9);
    for (uint32_t operand = 0; operand < MOE_COUNT(types); operand++) {
        const bool before = gathers[operand];
        vkmoe_layer_desc layer = layer_of(&cases[0]);
        struct layer_data data;
        layer.in_type = layer.out_type = types[operand];
        layer.router_input = false;
        layer_data_init(&data, &layer, 3);
        gathers[operand] = false;
        const uint32_t n = run_strided(&data, x, D_MODEL * sizeof *x, N_TOKENS, there);
        gathers[operand] = true;
        assert_int_equal(run_strided(&data, x, D_MODEL * sizeof *x, N_TOKENS, gathered), n + 1);
        assert_memory_equal(there, gathered, sizeof there);
        assert_int_equal(run_strided(&data, x, D_MODEL * sizeof *x, 15, gathered), n);
        gathers[operand] = before;
        layer_data_finish(&data);
    }
}

static void refused(void **state)
{
    (void) state;
    struct stack stack;
    struct layer_data data;
    vkmoe_context_desc context = vkmoe_context_desc_init();
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    vkmoe_layer_desc layer = layer_of(&cases[0]);
    plan.max_tokens = N_TOKENS;
    plan.precision = VKMOE_PRECISION_INT8;
    context.device = "cpu";
    layer.out_type = VKMOE_F16;
    layer_data_init(&data, &layer, 3);
    check_fails(stack_create_plan(&stack, &context, &data, &plan), VKMOE_E_UNSUPPORTED,
                "plan.precision = int8: for weights of blocks, and these experts have none "
                "(layer.in_type is bf16, layer.out_type f16)");
    stack_destroy(&stack);
    layer_data_finish(&data);

    context.device = "reference";
    layer.in_type = VKMOE_Q8_0;
    layer_data_init(&data, &layer, 3);
    check_fails(stack_create_plan(&stack, &context, &data, &plan), VKMOE_E_UNSUPPORTED,
                "plan.precision = int8: the reference");
    stack_destroy(&stack);
    layer_data_finish(&data);
}

// Each matrix that a layer can have makes it one with weights of blocks.
static void layers_with_blocks(void **state)
{
    (void) state;
    const struct {
        enum vkmoe_dtype in, out, shared_in, shared_out, latent;
        uint32_t d_shared_ff, d_latent;
        bool blocks;
    } rows[] = {
        {VKMOE_F32, VKMOE_BF16, VKMOE_F16, VKMOE_F32, VKMOE_Q8_0, 32, 32, false},
        {VKMOE_Q8_0, VKMOE_F32, VKMOE_F32, VKMOE_F32, VKMOE_F32, 0, 0, true},
        {VKMOE_F32, VKMOE_FP8, VKMOE_F32, VKMOE_F32, VKMOE_F32, 0, 0, true},
        {VKMOE_F32, VKMOE_F32, VKMOE_Q8_0, VKMOE_Q8_0, VKMOE_Q8_0, 0, 0, false},
        {VKMOE_F32, VKMOE_F32, VKMOE_Q8_0, VKMOE_F32, VKMOE_F32, 32, 0, true},
        {VKMOE_F32, VKMOE_F32, VKMOE_F32, VKMOE_Q8_0, VKMOE_F32, 32, 0, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        vkmoe_layer_desc layer = vkmoe_layer_desc_init();
        layer.in_type = rows[i].in, layer.out_type = rows[i].out;
        layer.shared_in_type = rows[i].shared_in, layer.shared_out_type = rows[i].shared_out;
        layer.latent_type = rows[i].latent;
        layer.d_shared_ff = rows[i].d_shared_ff, layer.d_latent = rows[i].d_latent;
        assert_int_equal(moe_layer_has_blocks(&layer), rows[i].blocks);
        layer.expert_kind = VKMOE_EXPERT_EXTERNAL;
        assert_false(moe_layer_has_blocks(&layer));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(within_the_promise),
        cmocka_unit_test(not_finite),
        cmocka_unit_test(rows_of_bf16),
        cmocka_unit_test(rows_that_are_copied),
        cmocka_unit_test(rows_that_are_gathered),
        cmocka_unit_test(refused),
        cmocka_unit_test(layers_with_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
