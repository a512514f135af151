// SPDX-License-Identifier: MIT
// Full tiles of 32, 64 and 128 rows: plans for more tokens have wider ones, and a row has the same
// bits in each. Experts of every number of rows around the widths.
#include "check.h"
#include "fixture.h"

#include "api/api.h"
#include "vulkan/bind.h"

enum { D = 64, D_FF = 32, N_EXPERTS = 10, MAX_Y = 466 * D };
static const uint32_t expert_rows[N_EXPERTS] = {0, 1, 8, 9, 31, 33, 63, 65, 127, 129};
static const uint32_t max_tokens[] = {466, 960, 1920}, widths[] = {32, 64, 128};

static vkmoe_context *device, *oracle;

static void init_data(struct layer_data *data, enum vkmoe_dtype type, bool gated)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = N_EXPERTS;
    layer.top_k = 1;
    layer.d_model = D;
    layer.d_ff = D_FF;
    layer.gated = gated;
    layer.act = VKMOE_ACT_SILU;
    layer.in_type = layer.out_type = type;
    layer_data_init(data, &layer, 3);
    float *router = (float *) data->router.weight.data; // the fixture's own memory
    for (uint32_t i = 0; i < N_EXPERTS * D; i++)
        router[i] = i % D == i / D ? 50 : 0;
}

// The first features of a token name its expert; experts take turns while they have rows to come.
static uint32_t fill_tokens(float *x)
{
    uint32_t left[N_EXPERTS], n = 0;
    memcpy(left, expert_rows, sizeof left);
    fill_random(x, MAX_Y, 5);
    for (uint32_t turn = 0; n < MAX_Y / D; turn++) {
        const uint32_t e = turn % N_EXPERTS;
        if (left[e] == 0)
            continue;
        for (uint32_t i = 0; i < N_EXPERTS; i++)
            x[n * D + i] = i == e;
        left[e]--;
        n++;
    }
    return n;
}

// The rows that full tiles of a plan may have.
static uint32_t width_of(const vkmoe_plan *plan)
{
    const struct moe_vk_program *program = (const struct moe_vk_program *) plan->program;
    const struct moe_vk_sequence *sequence = &program->sequences[MOE_VK_GROUPED];
    for (uint32_t i = 0; i < sequence->n; i++)
        if (strstr(sequence->dispatches[i].label, "full tiles"))
            return sequence->dispatches[i].spec[1];
    return 0;
}

static void run(vkmoe_context *context, const struct layer_data *data, const char *variant,
                uint32_t most, uint32_t width, const float *x, uint32_t n, float *y)
{
    struct stack stack = {0};
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    vkmoe_io io = vkmoe_io_init();
    int32_t ids[MAX_Y / D];
    uint32_t rows[N_EXPERTS] = {0};
    plan.layer = &data->layer;
    plan.max_tokens = most;
    plan.variant = variant;
    if (variant)
        plan.precision = VKMOE_PRECISION_HALF;
    io.x = x;
    io.y = y;
    io.ids = ids;
    memset(y, 0xff, MAX_Y * sizeof *y);
    check_ok(vkmoe_weights_create(context, &data->desc, &stack.weights));
    check_ok(vkmoe_plan_create(context, &plan, &stack.plan));
    if (width > 0)
        assert_int_equal(width_of(stack.plan), width);
    check_ok(vkmoe_bind_create(stack.plan, stack.weights, NULL, &stack.bind));
    check_ok(vkmoe_run(stack.bind, n, &io));
    for (uint32_t t = 0; t < n; t++)
        rows[ids[t]]++;
    assert_memory_equal(rows, expert_rows, sizeof rows);
    stack_destroy(&stack);
}

static double error_of(const float *got, const float *want)
{
    double error = 0, norm = 0;
    for (size_t i = 0; i < MAX_Y; i++) {
        error += ((double) got[i] - want[i]) * ((double) got[i] - want[i]);
        norm += (double) want[i] * want[i];
    }
    return sqrt(error / norm);
}

static void check_widths(enum vkmoe_dtype type, bool gated, const char *variant)
{
    static float x[MAX_Y], want[MAX_Y], first[MAX_Y], y[MAX_Y];
    const double most = variant ? 4e-3 : 1e-5;
    struct layer_data data;
    init_data(&data, type, gated);
    uint32_t n = fill_tokens(x);
    assert_int_equal(n * D, MAX_Y);
    run(oracle, &data, NULL, n, 0, x, n, want);
    for (int i = 0; i < 3; i++) {
        run(device, &data, variant, max_tokens[i], widths[i], x, n, y);
        assert_true(error_of(y, want) <= most);
        if (i == 0)
            memcpy(first, y, sizeof y);
        assert_memory_equal(y, first, sizeof y);
    }
    // The same check notices two rows in each other's place.
    memcpy(y + D, first, D * sizeof *y);
    memcpy(y, first + D, D * sizeof *y);
    assert_true(error_of(y, want) > most);
    layer_data_finish(&data);
}

static void a_row_has_the_same_bits_in_each_width(void **state)
{
    (void) state;
    check_widths(VKMOE_F32, true, NULL);
    check_widths(VKMOE_BF16, false, NULL);
    check_widths(VKMOE_Q8_0, true, NULL);
    if (moe_vk(device->device)->bda &&
        (moe_vk(device->device)->caps.features & MOE_VK_BIT(MOE_VK_FLOAT16)))
        check_widths(VKMOE_F16, true, "a1");
}

// Tiles are as wide as the memory of a workgroup has room for: blocks take more than floats.
static void shared_memory_bounds_the_width(void **state)
{
    (void) state;
    static const struct {
        enum vkmoe_dtype type;
        uint32_t shared, width;
    } cases[] = {{VKMOE_F32, 16384, 128},
                 {VKMOE_F32, 13311, 64},
                 {VKMOE_Q8_0, 16384, 32},
                 {VKMOE_Q8_0, 16896, 64}};
    static float x[MAX_Y], y[MAX_Y];
    struct moe_vk_caps *caps = &moe_vk(device->device)->caps;
    const uint32_t shared = caps->max_shared;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct layer_data data;
        init_data(&data, cases[i].type, true);
        uint32_t n = fill_tokens(x);
        caps->max_shared = cases[i].shared;
        run(device, &data, NULL, max_tokens[2], cases[i].width, x, n, y);
        layer_data_finish(&data);
    }
    caps->max_shared = shared;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_row_has_the_same_bits_in_each_width),
        cmocka_unit_test(shared_memory_bounds_the_width),
    };
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "reference";
    check_ok(vkmoe_context_create(&desc, &oracle));
    desc.device = "vulkan";
    desc.cache_dir = "";
    desc.validation = true;
    check_ok(vkmoe_context_create(&desc, &device));
    int failed = cmocka_run_group_tests(tests, NULL, NULL) != 0;
    vkmoe_context_destroy(device);
    vkmoe_context_destroy(oracle);
    return failed;
}
