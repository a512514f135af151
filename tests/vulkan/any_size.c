// SPDX-License-Identifier: MIT
// Layers and batches that are larger than a device's limits: any_size MODE, bda or descriptors. The
// limits are made small (interpose.c); the bits are those that the same device gives without.
#include "fixture.h"
#include "host.h"
#include "interpose.h"

#include <stdlib.h>

enum { MIB = 1 << 20 };

static enum vkmoe_addressing addressing;

// What a run gives. Rows of y follow each other, of elements of the plan's x_type.
struct outcome {
    char *y;
    float *gates, *scores;
    int32_t *ids;
    size_t y_size, slots_size, scores_size;
};

static size_t row_size(const vkmoe_plan_desc *plan, uint32_t width)
{
    return (size_t) width * (plan->x_type == VKMOE_F32 ? 4 : 2);
}

static void outcome_init(struct outcome *out, const struct layer_data *data,
                         const vkmoe_plan_desc *plan)
{
    out->y_size = plan->max_tokens * row_size(plan, data->layer.d_out);
    out->slots_size = (size_t) plan->max_tokens * data->layer.top_k * 4;
    out->scores_size = (size_t) plan->max_tokens * data->layer.n_experts * 4;
    out->y = malloc(out->y_size);
    out->gates = malloc(out->slots_size);
    out->ids = malloc(out->slots_size);
    out->scores = malloc(out->scores_size);
    assert_true(out->y && out->gates && out->ids && out->scores);
    memset(out->y, 0xff, out->y_size);
}

static void outcome_finish(struct outcome *out)
{
    free(out->y);
    free(out->gates);
    free(out->ids);
    free(out->scores);
}

// Rows of the plan's type that follow each other.
static char *random_x(const struct layer_data *data, const vkmoe_plan_desc *plan)
{
    size_t n = (size_t) plan->max_tokens * data->layer.d_model;
    float *values = malloc(n * sizeof *values);
    char *x = malloc(plan->max_tokens * row_size(plan, data->layer.d_model));
    assert_true(x && values);
    fill_random(values, n, 5);
    check_ok(vkmoe_dtype_convert(plan->x_type, values, n, x));
    free(values);
    return x;
}

static vkmoe_plan_desc plan_for(uint32_t max_tokens)
{
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.max_tokens = max_tokens;
    plan.scores = true;
    return plan;
}

static void open_stack(struct stack *stack, const struct layer_data *data,
                       const vkmoe_plan_desc *plan)
{
    vkmoe_context_desc context = vkmoe_context_desc_init();
    context.device = "vulkan";
    context.cache_dir = ""; // a self-test that runs beside this one is not ours to wait for
    context.addressing = addressing;
    check_ok(stack_create_plan(stack, &context, data, plan));
}

// A layer whose router has an input of its own gets x again; its token ids are NULL for others.
static void run_ids(struct stack *stack, const char *x, const int32_t *token_ids,
                    uint32_t n_tokens, struct outcome *out)
{
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.router_x = token_ids ? x : NULL;
    io.token_ids = token_ids;
    io.y = out->y;
    io.ids = out->ids;
    io.gates = out->gates;
    io.scores = out->scores;
    check_ok(vkmoe_run(stack->bind, n_tokens, &io));
}

static void run(struct stack *stack, const char *x, uint32_t n_tokens, struct outcome *out)
{
    run_ids(stack, x, NULL, n_tokens, out);
}

static void check_same(const struct outcome *got, const struct outcome *want)
{
    assert_memory_equal(got->ids, want->ids, want->slots_size);
    assert_memory_equal(got->gates, want->gates, want->slots_size);
    assert_memory_equal(got->scores, want->scores, want->scores_size);
    assert_memory_equal(got->y, want->y, want->y_size);
}

// ---- run ---------------------------------------------------------------------------------------

struct small_device {
    struct interpose limits;
    float budget_ms;
};

// Rows in the caller's buffer: in whole words, what is beside an element is all ones.
static void put_rows(struct host_buffer *buffer, const char *rows, size_t size, uint32_t n)
{
    size_t stride = (size + 3) / 4 * 4;
    memset(buffer->mapped, 0xff, buffer->size);
    for (uint32_t t = 0; rows && t < n; t++)
        memcpy((char *) buffer->mapped + t * stride, rows + t * size, size);
}

// They are these, and what is beside an element became 0.
static void check_put_rows(const struct host_buffer *buffer, const char *rows, size_t size,
                           uint32_t n)
{
    static const char zeros[4];
    size_t stride = (size + 3) / 4 * 4;
    for (uint32_t t = 0; t < n; t++) {
        const char *row = (const char *) buffer->mapped + t * stride;
        assert_memory_equal(row, rows + t * size, size);
        assert_memory_equal(row + size, zeros, stride - size);
    }
}

// A recording over the caller's buffers gives the same rows; tells its dispatches.
static uint32_t record(const struct stack *stack, const struct layer_data *data,
                       const vkmoe_plan_desc *plan, const char *x, const struct outcome *out)
{
    struct host host;
    struct host_buffer buffers[2];
    struct vkmoe_vk_io io = vkmoe_vk_io_init();
    vkmoe_bind_desc desc = vkmoe_bind_desc_init();
    vkmoe_bind *bind;
    uint32_t n, n_tokens = plan->max_tokens;
    size_t x_size = row_size(plan, data->layer.d_model), y_size = row_size(plan, data->layer.d_out);
    io.x_stride = (x_size + 3) / 4 * 4;
    io.y_stride = (y_size + 3) / 4 * 4;
    host_init(&host, stack->context);
    host_buffer_init(&host, n_tokens * io.x_stride, &buffers[0]);
    host_buffer_init(&host, n_tokens * io.y_stride, &buffers[1]);
    io.x = (vkmoe_vk_buffer){buffers[0].handle, 0, buffers[0].size};
    io.y = (vkmoe_vk_buffer){buffers[1].handle, 0, buffers[1].size};
    desc.vk_io = &io;
    check_ok(vkmoe_bind_create(stack->plan, stack->weights, &desc, &bind));
    check_ok(vkmoe_vk_dispatch_count(bind, n_tokens, &n));
    put_rows(&buffers[0], x, x_size, n_tokens);
    put_rows(&buffers[1], NULL, y_size, n_tokens);
    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    check_ok(vkmoe_vk_record(bind, cmd, n_tokens, 0, UINT32_MAX));
    host_submit(&host, cmd);
    check_put_rows(&buffers[1], out->y, y_size, n_tokens);
    vkmoe_bind_destroy(bind);
    host_buffer_finish(&host, &buffers[0]);
    host_buffer_finish(&host, &buffers[1]);
    host_finish(&host);
    return n;
}

// Runs and records on a device, and returns the number of dispatches that it took.
static uint32_t compute(const struct layer_data *data, const vkmoe_plan_desc *plan,
                        const struct small_device *small, const char *x, struct outcome *out)
{
    struct stack stack;
    vkmoe_plan_desc under_budget = *plan;
    under_budget.budget_ms = small->budget_ms;
    interpose = small->limits;
    open_stack(&stack, data, &under_budget);
    run(&stack, x, plan->max_tokens, out);
    uint32_t n = record(&stack, data, plan, x, out);
    stack_destroy(&stack);
    interpose = (struct interpose){0};
    return n;
}

// Every small device gives the bits of the whole one, with more dispatches.
static void check_plan(const vkmoe_layer_desc *layer, const vkmoe_plan_desc *plan,
                       const struct small_device *small, size_t n_small)
{
    struct layer_data data;
    struct outcome want, got;
    layer_data_init(&data, layer, 3);
    outcome_init(&want, &data, plan);
    outcome_init(&got, &data, plan);
    char *x = random_x(&data, plan);
    static const struct small_device whole = {.budget_ms = 1e6f};
    uint32_t n_whole = compute(&data, plan, &whole, x, &want);
    for (size_t i = 0; i < n_small; i++) {
        memset(got.y, 0xff, got.y_size);
        uint32_t n = compute(&data, plan, &small[i], x, &got);
        bool by_address = addressing == VKMOE_ADDRESSING_BDA;
        if (n <= n_whole && !(by_address && small[i].limits.max_range))
            fail_msg("small device %zu: %u dispatches, the whole one has %u", i, n, n_whole);
        check_same(&got, &want);
    }
    free(x);
    outcome_finish(&got);
    outcome_finish(&want);
    layer_data_finish(&data);
}

static void check_layer(const vkmoe_layer_desc *layer, uint32_t n_tokens,
                        const struct small_device *small, size_t n_small)
{
    vkmoe_plan_desc plan = plan_for(n_tokens);
    check_plan(layer, &plan, small, n_small);
}

static vkmoe_layer_desc wide_layer(void)
{
    vkmoe_layer_desc layer = full_layer();
    layer.d_model = 300;
    layer.d_ff = 420; // 1 MB for gate and up, 0.5 MB for down
    layer.d_out = 301;
    layer.d_shared_ff = 500;
    return layer;
}

// A range that holds neither the layer nor an expert, little memory at once, little work at once.
static void an_expert_larger_than_a_range(void **state)
{
    (void) state;
    static const struct small_device small[] = {
        {{.max_range = MIB}, 1e6f},
        {{.max_range = MIB / 4}, 1e6f},
        {{0}, 0.01f},
        {{.max_range = MIB, .max_allocation = 4 * MIB}, 0.1f},
    };
    vkmoe_layer_desc layer = wide_layer();
    check_layer(&layer, 4, small, sizeof small / sizeof *small);
    check_layer(&layer, 67, small, sizeof small / sizeof *small);
}

// Rows of an odd number of 16-bit elements, whose last words hold one and a half.
static void rows_of_16_bit_elements(void **state)
{
    (void) state;
    static const struct small_device small[] = {
        {{.max_range = MIB / 8}, 1e6f},
        {{0}, 0.01f},
        {{.max_range = MIB / 8, .max_allocation = 2 * MIB, .max_groups = 40}, 0.1f},
    };
    vkmoe_layer_desc layer = wide_layer();
    layer.d_model = 299;
    for (int type = VKMOE_F16; type <= VKMOE_BF16; type++) {
        vkmoe_plan_desc plan = plan_for(67);
        plan.x_type = layer.in_type = layer.out_type = (enum vkmoe_dtype) type;
        check_plan(&layer, &plan, small, sizeof small / sizeof *small);
    }
}

// Parts of an expert whose rows are blocks, those of fp8 ragged.
static void rows_of_blocks(void **state)
{
    (void) state;
    static const struct small_device small[] = {
        {{.max_range = 64 << 10}, 1e6f}, // an expert has more than 250 KiB
        {{0}, 0.01f},
    };
    vkmoe_layer_desc layer = wide_layer();
    layer.d_model = 256;
    layer.d_ff = layer.d_shared_ff = 512;
    layer.in_type = VKMOE_Q4_K;
    layer.out_type = VKMOE_Q6_K;
    check_layer(&layer, 4, small, 2);
    check_layer(&layer, 33, small, 2);
    layer.d_model = 300;
    layer.in_type = VKMOE_FP8;
    layer.out_type = VKMOE_Q8_0;
    check_layer(&layer, 33, small, 2);
}

// The kernel in f16 knows nothing but addresses, so that its only limits are groups, work and
// memory.
static void the_kernel_in_f16(void **state)
{
    (void) state;
    static const struct small_device small[] = {
        {{0}, 0.01f},
        {{.max_groups = 40}, 0.1f},
        {{.max_allocation = 2 * MIB}, 1.0f},
    };
    if (addressing != VKMOE_ADDRESSING_BDA)
        return;
    vkmoe_layer_desc layer = wide_layer();
    layer.in_type = layer.out_type = VKMOE_F16;
    vkmoe_plan_desc plan = plan_for(67);
    plan.precision = VKMOE_PRECISION_HALF;
    plan.variant = "a1";
    for (int type = VKMOE_F32; type <= VKMOE_F16; type++) {
        plan.x_type = (enum vkmoe_dtype) type;
        check_plan(&layer, &plan, small, sizeof small / sizeof *small);
    }
}

// Experts fit, the layer does not: chunks of several experts, segments of several chunks.
static void a_layer_larger_than_a_range(void **state)
{
    (void) state;
    static const struct small_device small[] = {
        {{.max_range = MIB}, 1e6f},
        {{.max_range = MIB, .max_allocation = 2 * MIB}, 1e6f},
        {{.max_range = 200 << 10, .max_groups = 40}, 1.0f},
    };
    vkmoe_layer_desc layer = full_layer();
    layer.n_experts = 60;
    layer.top_k = 4;
    layer.d_model = 64;
    layer.d_ff = 48;
    layer.d_out = 64;
    check_layer(&layer, 3, small, 2);
    check_layer(&layer, 150, small, sizeof small / sizeof *small);
}

static void the_most_experts(void **state)
{
    (void) state;
    static const struct small_device small[] = {{{.max_range = MIB}, 1e6f}};
    vkmoe_layer_desc layer = full_layer();
    layer.n_experts = 1024;
    layer.top_k = 64;
    layer.d_model = layer.d_ff = layer.d_out = 16;
    check_layer(&layer, 2, small, 1);
    check_layer(&layer, 40, small, 1);
}

// Many tokens: each limit alone cuts them into blocks.
static void blocks_of_tokens(void **state)
{
    (void) state;
    static const struct small_device small[] = {
        {{.max_groups = 30}, 1e6f},
        {{.max_allocation = 40 << 10}, 1e6f},
        {{.max_range = 20 << 10}, 1e6f},
    };
    for (uint32_t n_experts = 1; n_experts <= 7; n_experts += 3) {
        vkmoe_layer_desc layer = full_layer();
        layer.n_experts = n_experts;
        layer.top_k = n_experts; // dense
        check_layer(&layer, 1000, small, sizeof small / sizeof *small);
    }
}

// More tokens than there are workgroups along an axis; no limit is made smaller.
static void more_tokens_than_workgroups(void **state)
{
    (void) state;
    enum { N = 70000, FIRST = 40000 };
    struct stack stack;
    struct layer_data data;
    struct outcome all, first, rest;
    vkmoe_layer_desc layer = full_layer();
    vkmoe_plan_desc plan = plan_for(N), part = plan_for(FIRST), other_part = plan_for(N - FIRST);
    layer_data_init(&data, &layer, 3);
    char *x = random_x(&data, &plan);
    outcome_init(&all, &data, &plan);
    outcome_init(&first, &data, &part);
    outcome_init(&rest, &data, &other_part);
    open_stack(&stack, &data, &plan);
    run(&stack, x, N, &all);
    run(&stack, x, FIRST, &first);
    run(&stack, x + FIRST * row_size(&plan, data.layer.d_model), N - FIRST, &rest);
    assert_memory_equal(all.y, first.y, first.y_size);
    assert_memory_equal(all.y + first.y_size, rest.y, rest.y_size);
    assert_memory_equal((char *) all.ids + first.slots_size, rest.ids, rest.slots_size);
    stack_destroy(&stack);
    outcome_finish(&all);
    outcome_finish(&first);
    outcome_finish(&rest);
    free(x);
    layer_data_finish(&data);
}

// ---- windows of the caller's inputs and y ------------------------------------------------------

struct window_case {
    uint32_t max_range, n_tokens, x_stride, y_stride;
};

// The count is read from a buffer if it is below n_tokens.
static void check_windows(const struct layer_data *data, const struct window_case *c,
                          uint32_t count)
{
    struct stack stack;
    struct host host;
    struct host_buffer x, y, n_tokens, token_ids;
    struct outcome want;
    vkmoe_plan_desc plan = plan_for(c->n_tokens);
    const bool has_table = data->layer.select == VKMOE_SELECT_TABLE;
    int32_t *ids = malloc(c->n_tokens * sizeof *ids);
    assert_non_null(ids);
    for (uint32_t t = 0; t < c->n_tokens && has_table; t++)
        ids[t] = (int32_t) (t * 7 % data->layer.n_token_ids);
    interpose = (struct interpose){.max_range = c->max_range};
    open_stack(&stack, data, &plan);
    outcome_init(&want, data, &plan);
    char *dense = random_x(data, &plan);
    run_ids(&stack, dense, has_table ? ids : NULL, c->n_tokens, &want);
    host_init(&host, stack.context);
    host_buffer_init(&host, c->n_tokens * sizeof *ids, &token_ids);
    memcpy(token_ids.mapped, ids, c->n_tokens * sizeof *ids);
    host_buffer_init(&host, (uint64_t) c->n_tokens * c->x_stride, &x);
    host_buffer_init(&host, (uint64_t) c->n_tokens * c->y_stride, &y);
    host_buffer_init(&host, 4, &n_tokens);
    memcpy(n_tokens.mapped, &count, 4);
    memset(y.mapped, 0xff, y.size);
    size_t x_row = data->layer.d_model * sizeof(float), y_row = data->layer.d_out * sizeof(float);
    for (uint32_t t = 0; t < c->n_tokens; t++)
        memcpy((char *) x.mapped + (size_t) t * c->x_stride, dense + t * x_row, x_row);

    vkmoe_vk_io io = vkmoe_vk_io_init();
    vkmoe_bind_desc desc = vkmoe_bind_desc_init();
    vkmoe_bind *bind;
    io.x = (vkmoe_vk_buffer){x.handle, 0, x.size};
    io.y = (vkmoe_vk_buffer){y.handle, 0, y.size};
    io.x_stride = c->x_stride;
    io.y_stride = c->y_stride;
    if (has_table) {
        io.router_x = io.x;
        io.router_x_stride = c->x_stride;
        io.token_ids = (vkmoe_vk_buffer){token_ids.handle, 0, token_ids.size};
    }
    if (count < c->n_tokens)
        io.n_tokens = (vkmoe_vk_buffer){n_tokens.handle, 0, 4};
    desc.vk_io = &io;
    check_ok(vkmoe_bind_create(stack.plan, stack.weights, &desc, &bind));
    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    check_ok(vkmoe_vk_record(bind, cmd, c->n_tokens, 0, UINT32_MAX));
    host_submit(&host, cmd);
    for (uint32_t t = 0; t < c->n_tokens; t++) {
        const char *row = (const char *) y.mapped + (size_t) t * c->y_stride;
        if (t < count)
            assert_memory_equal(row, want.y + t * y_row, y_row);
        for (size_t i = t < count ? y_row : 0; i < c->y_stride; i++)
            assert_int_equal((unsigned char) row[i], 0xff);
    }
    vkmoe_bind_destroy(bind);
    host_buffer_finish(&host, &x);
    host_buffer_finish(&host, &y);
    host_buffer_finish(&host, &n_tokens);
    host_buffer_finish(&host, &token_ids);
    host_finish(&host);
    free(dense);
    free(ids);
    outcome_finish(&want);
    stack_destroy(&stack);
    interpose = (struct interpose){0};
}

static void rows_larger_than_a_range(void **state)
{
    (void) state;
    static const struct window_case cases[] = {
        {128 << 10, 300, 1028, 12},   // blocks of whole steps
        {100 << 10, 300, 1028, 12},   // blocks that begin between two offsets
        {100 << 10, 300, 24, 1028},   // the same for y
        {100 << 10, 1000, 1280, 772}, // every row can be an offset of x
        {4 << 10, 4, 1280, 256},      // decode
    };
    struct layer_data data;
    vkmoe_layer_desc layer = full_layer();
    layer_data_init(&data, &layer, 3);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_windows(&data, &cases[i], cases[i].n_tokens);
        check_windows(&data, &cases[i], cases[i].n_tokens / 2 + 1);
        check_windows(&data, &cases[i], 0);
    }
    layer_data_finish(&data);
    layer.shared_gate = VKMOE_SHARED_PLAIN;
    layer.selection_bias = false;
    layer.router_input = true;
    layer.select = VKMOE_SELECT_TABLE;
    layer.n_token_ids = 50;
    layer_data_init(&data, &layer, 4);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_windows(&data, &cases[i], cases[i].n_tokens / 2 + 1);
    layer_data_finish(&data);
}

static void what_no_window_holds_is_refused(void **state)
{
    (void) state;
    struct stack stack;
    struct host host;
    struct host_buffer buffer;
    struct layer_data data;
    vkmoe_layer_desc layer = full_layer();
    vkmoe_vk_io io = vkmoe_vk_io_init();
    vkmoe_bind_desc desc = vkmoe_bind_desc_init();
    vkmoe_bind *bind;
    if (addressing == VKMOE_ADDRESSING_BDA)
        return; // there a window has 8 GiB
    layer_data_init(&data, &layer, 3);
    interpose = (struct interpose){.max_range = 63 << 10};
    vkmoe_plan_desc plan = plan_for(300);
    open_stack(&stack, &data, &plan);
    host_init(&host, stack.context);
    host_buffer_init(&host, 300 * 1028 + 256 * 300, &buffer);
    io.y = (vkmoe_vk_buffer){buffer.handle, 0, 256 * 300};
    io.x = (vkmoe_vk_buffer){buffer.handle, 256 * 300, 300 * 1028};
    io.x_stride = 1028;
    desc.vk_io = &io;
    check_fails(vkmoe_bind_create(stack.plan, stack.weights, &desc, &bind), VKMOE_E_UNSUPPORTED,
                "64 rows of strides up to 1028 bytes");
    assert_null(bind);
    host_buffer_finish(&host, &buffer);
    host_finish(&host);
    stack_destroy(&stack);
    layer_data_finish(&data);
    interpose = (struct interpose){0};
}

int main(int argc, char **argv)
{
    bool bda = argc > 1 && strcmp(argv[1], "bda") == 0;
    addressing = bda ? VKMOE_ADDRESSING_BDA : VKMOE_ADDRESSING_DESCRIPTORS;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_expert_larger_than_a_range),
        cmocka_unit_test(rows_of_16_bit_elements),
        cmocka_unit_test(rows_of_blocks),
        cmocka_unit_test(the_kernel_in_f16),
        cmocka_unit_test(a_layer_larger_than_a_range),
        cmocka_unit_test(the_most_experts),
        cmocka_unit_test(blocks_of_tokens),
        cmocka_unit_test(more_tokens_than_workgroups),
        cmocka_unit_test(rows_larger_than_a_range),
        cmocka_unit_test(what_no_window_holds_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
