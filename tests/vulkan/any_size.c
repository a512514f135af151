// SPDX-License-Identifier: MIT
// Layers and batches that are larger than a device's limits: any_size MODE, bda or descriptors. The
// limits are made small (interpose.c); the bits are those that the same device gives without.
#include "fixture.h"
#include "host.h"
#include "interpose.h"

#include <stdlib.h>

enum { MIB = 1 << 20 };

static enum vkmoe_addressing addressing;

// What a run gives, in one piece of memory.
struct outcome {
    float *y, *gates, *scores;
    int32_t *ids;
    size_t y_size, slots_size, scores_size;
};

static void outcome_init(struct outcome *out, const vkmoe_layer_desc *layer, uint32_t n_tokens)
{
    out->y_size = (size_t) n_tokens * layer->d_out * 4;
    out->slots_size = (size_t) n_tokens * layer->top_k * 4;
    out->scores_size = (size_t) n_tokens * layer->n_experts * 4;
    out->y = malloc(out->y_size);
    out->gates = malloc(out->slots_size);
    out->ids = malloc(out->slots_size);
    out->scores = malloc(out->scores_size);
    memset(out->y, 0xff, out->y_size);
}

static void outcome_finish(struct outcome *out)
{
    free(out->y);
    free(out->gates);
    free(out->ids);
    free(out->scores);
}

static float *random_x(const vkmoe_layer_desc *layer, uint32_t n_tokens)
{
    float *x = malloc((size_t) n_tokens * layer->d_model * sizeof *x);
    assert_non_null(x);
    fill_random(x, (size_t) n_tokens * layer->d_model, 5);
    return x;
}

static void open_stack(struct stack *stack, const struct layer_data *data, uint32_t max_tokens,
                       float budget_ms)
{
    vkmoe_context_desc context = vkmoe_context_desc_init();
    context.device = "vulkan";
    context.addressing = addressing;
    check_ok(vkmoe_context_create(&context, &stack->context));
    check_ok(vkmoe_weights_create(stack->context, &data->desc, &stack->weights));
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.layer = &data->layer;
    plan.max_tokens = max_tokens;
    plan.scores = true;
    plan.budget_ms = budget_ms;
    check_ok(vkmoe_plan_create(stack->context, &plan, &stack->plan));
    check_ok(vkmoe_bind_create(stack->plan, stack->weights, NULL, &stack->bind));
}

static void run(struct stack *stack, const float *x, uint32_t n_tokens, struct outcome *out)
{
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.y = out->y;
    io.ids = out->ids;
    io.gates = out->gates;
    io.scores = out->scores;
    check_ok(vkmoe_run(stack->bind, n_tokens, &io));
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

static uint32_t n_dispatches(const struct layer_data *data, uint32_t n_tokens,
                             const struct small_device *small, const float *x,
                             struct outcome *out)
{
    struct stack stack;
    struct vkmoe_vk_io io = vkmoe_vk_io_init();
    struct host host;
    struct host_buffer buffers[2];
    uint32_t n;
    interpose = small->limits;
    open_stack(&stack, data, n_tokens, small->budget_ms);
    run(&stack, x, n_tokens, out);
    host_init(&host, stack.context);
    host_buffer_init(&host, (uint64_t) n_tokens * data->layer.d_model * 4, &buffers[0]);
    host_buffer_init(&host, (uint64_t) n_tokens * data->layer.d_out * 4, &buffers[1]);
    io.x = (vkmoe_vk_buffer){buffers[0].handle, 0, buffers[0].size};
    io.y = (vkmoe_vk_buffer){buffers[1].handle, 0, buffers[1].size};
    vkmoe_bind_desc desc = vkmoe_bind_desc_init();
    vkmoe_bind *bind;
    desc.vk_io = &io;
    check_ok(vkmoe_bind_create(stack.plan, stack.weights, &desc, &bind));
    check_ok(vkmoe_vk_dispatch_count(bind, n_tokens, &n));
    memcpy(buffers[0].mapped, x, buffers[0].size);
    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    check_ok(vkmoe_vk_record(bind, cmd, n_tokens, 0, UINT32_MAX));
    host_submit(&host, cmd);
    assert_memory_equal(buffers[1].mapped, out->y, out->y_size);
    vkmoe_bind_destroy(bind);
    host_buffer_finish(&host, &buffers[0]);
    host_buffer_finish(&host, &buffers[1]);
    host_finish(&host);
    stack_destroy(&stack);
    interpose = (struct interpose){0};
    return n;
}

// Every small device gives the bits of the whole one, with more dispatches.
static void check_layer(const vkmoe_layer_desc *layer, uint32_t n_tokens,
                        const struct small_device *small, size_t n_small)
{
    struct layer_data data;
    struct outcome want, got;
    layer_data_init(&data, layer, 3);
    outcome_init(&want, &data.layer, n_tokens);
    outcome_init(&got, &data.layer, n_tokens);
    float *x = random_x(&data.layer, n_tokens);
    static const struct small_device whole = {.budget_ms = 1e6f};
    uint32_t n_whole = n_dispatches(&data, n_tokens, &whole, x, &want);
    for (size_t i = 0; i < n_small; i++) {
        memset(got.y, 0xff, got.y_size);
        uint32_t n = n_dispatches(&data, n_tokens, &small[i], x, &got);
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
    layer_data_init(&data, &layer, 3);
    float *x = random_x(&data.layer, N);
    outcome_init(&all, &data.layer, N);
    outcome_init(&first, &data.layer, FIRST);
    outcome_init(&rest, &data.layer, N - FIRST);
    open_stack(&stack, &data, N, 0);
    run(&stack, x, N, &all);
    run(&stack, x, FIRST, &first);
    run(&stack, x + (size_t) FIRST * data.layer.d_model, N - FIRST, &rest);
    assert_memory_equal(all.y, first.y, first.y_size);
    assert_memory_equal((char *) all.y + first.y_size, rest.y, rest.y_size);
    assert_memory_equal((char *) all.ids + first.slots_size, rest.ids, rest.slots_size);
    stack_destroy(&stack);
    outcome_finish(&all);
    outcome_finish(&first);
    outcome_finish(&rest);
    free(x);
    layer_data_finish(&data);
}

// ---- windows of the caller's x and y -----------------------------------------------------------

struct window_case {
    uint32_t max_range, n_tokens, x_stride, y_stride;
};

// The count is read from a buffer if it is below n_tokens.
static void check_windows(const struct layer_data *data, const struct window_case *c,
                          uint32_t count)
{
    struct stack stack;
    struct host host;
    struct host_buffer x, y, n_tokens;
    struct outcome want;
    interpose = (struct interpose){.max_range = c->max_range};
    open_stack(&stack, data, c->n_tokens, 0);
    outcome_init(&want, &data->layer, c->n_tokens);
    float *dense = random_x(&data->layer, c->n_tokens);
    run(&stack, dense, c->n_tokens, &want);
    host_init(&host, stack.context);
    host_buffer_init(&host, (uint64_t) c->n_tokens * c->x_stride, &x);
    host_buffer_init(&host, (uint64_t) c->n_tokens * c->y_stride, &y);
    host_buffer_init(&host, 4, &n_tokens);
    memcpy(n_tokens.mapped, &count, 4);
    memset(y.mapped, 0xff, y.size);
    size_t x_row = data->layer.d_model * sizeof(float), y_row = data->layer.d_out * sizeof(float);
    for (uint32_t t = 0; t < c->n_tokens; t++)
        memcpy((char *) x.mapped + (size_t) t * c->x_stride,
               dense + (size_t) t * data->layer.d_model, x_row);

    vkmoe_vk_io io = vkmoe_vk_io_init();
    vkmoe_bind_desc desc = vkmoe_bind_desc_init();
    vkmoe_bind *bind;
    io.x = (vkmoe_vk_buffer){x.handle, 0, x.size};
    io.y = (vkmoe_vk_buffer){y.handle, 0, y.size};
    io.x_stride = c->x_stride;
    io.y_stride = c->y_stride;
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
            assert_memory_equal(row, (const char *) want.y + t * y_row, y_row);
        for (size_t i = t < count ? y_row : 0; i < c->y_stride; i++)
            assert_int_equal((unsigned char) row[i], 0xff);
    }
    vkmoe_bind_destroy(bind);
    host_buffer_finish(&host, &x);
    host_buffer_finish(&host, &y);
    host_buffer_finish(&host, &n_tokens);
    host_finish(&host);
    free(dense);
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
    open_stack(&stack, &data, 300, 0);
    host_init(&host, stack.context);
    host_buffer_init(&host, 300 * 1028 + 256 * 300, &buffer);
    io.y = (vkmoe_vk_buffer){buffer.handle, 0, 256 * 300};
    io.x = (vkmoe_vk_buffer){buffer.handle, 256 * 300, 300 * 1028};
    io.x_stride = 1028;
    desc.vk_io = &io;
    check_fails(vkmoe_bind_create(stack.plan, stack.weights, &desc, &bind), VKMOE_E_UNSUPPORTED,
                "64 rows of strides 1028 and 12 bytes");
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
        cmocka_unit_test(a_layer_larger_than_a_range),
        cmocka_unit_test(the_most_experts),
        cmocka_unit_test(blocks_of_tokens),
        cmocka_unit_test(more_tokens_than_workgroups),
        cmocka_unit_test(rows_larger_than_a_range),
        cmocka_unit_test(what_no_window_holds_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
