// SPDX-License-Identifier: MIT
// What is recorded may be executed again: record_again MODE, with the modes of record.c. One bind
// twice in a command buffer, one bind behind another, and one command buffer submitted several
// times, with the barriers that the contract leaves to the caller. The layer's input and output
// have one width, so that y can become the next x; vkmoe_run applied as often is what must come
// out, bit for bit. The validation layer is on, and any message of it fails.
#include "fixture.h"
#include "host.h"

enum { MAX_TOKENS = 40, WIDTH = 12, SIZE = MAX_TOKENS * WIDTH * 4 };

static vkmoe_context_desc context_desc;
static struct layer_data data;
static struct stack stack; // the library's own buffers
static struct host host;

static int set_up(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = full_layer();
    layer.d_model = layer.d_out = WIDTH;
    layer_data_init(&data, &layer, 7);
    check_ok(stack_create(&stack, &context_desc, &data, MAX_TOKENS, false));
    host_init(&host, stack.context);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    host_finish(&host);
    stack_destroy(&stack);
    layer_data_finish(&data);
    return 0;
}

static vkmoe_bind *bind_create(const struct host_buffer *x, const struct host_buffer *y)
{
    vkmoe_bind *bind;
    vkmoe_vk_io io = vkmoe_vk_io_init();
    io.x = (vkmoe_vk_buffer){x->handle, 0, x->size};
    io.y = (vkmoe_vk_buffer){y->handle, 0, y->size};
    vkmoe_bind_desc desc = vkmoe_bind_desc_init();
    desc.vk_io = &io;
    check_ok(vkmoe_bind_create(stack.plan, stack.weights, &desc, &bind));
    return bind;
}

// Two buffers and a bind from one to the other.
struct engine {
    struct host_buffer x, y;
    vkmoe_bind *bind;
};

static void engine_init(struct engine *engine, uint32_t seed)
{
    host_buffer_init(&host, SIZE, &engine->x);
    host_buffer_init(&host, SIZE, &engine->y);
    fill_random(engine->x.mapped, SIZE / 4, seed);
    memset(engine->y.mapped, 0xff, SIZE);
    engine->bind = bind_create(&engine->x, &engine->y);
}

static void engine_finish(struct engine *engine)
{
    vkmoe_bind_destroy(engine->bind);
    host_buffer_finish(&host, &engine->x);
    host_buffer_finish(&host, &engine->y);
}

// values = the layer of values, n_times.
static void apply(float *values, uint32_t n_tokens, int n_times)
{
    float y[SIZE / 4];
    vkmoe_io io = vkmoe_io_init();
    io.x = values;
    io.y = y;
    for (int i = 0; i < n_times; i++) {
        check_ok(vkmoe_run(stack.bind, n_tokens, &io));
        memcpy(values, y, n_tokens * WIDTH * sizeof *y);
    }
}

static void check_rows(const float *got, const float *want, uint32_t n_tokens)
{
    for (uint32_t i = 0; i < n_tokens * WIDTH; i++)
        if (memcmp(&got[i], &want[i], sizeof *got) != 0)
            fail_msg("%u tokens: row %u, column %u: %g, not %g", n_tokens, i / WIDTH, i % WIDTH,
                     (double) got[i], (double) want[i]);
}

static void barrier(VkCommandBuffer cmd, VkPipelineStageFlags from_stage, VkAccessFlags from,
                    VkPipelineStageFlags to_stage, VkAccessFlags to)
{
    VkMemoryBarrier memory = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = from, .dstAccessMask = to};
    host.vkCmdPipelineBarrier(cmd, from_stage, to_stage, 0, 1, &memory, 0, NULL, 0, NULL);
}

// y becomes x, between two executions: what the contract leaves to the caller.
static void record_copy_back(VkCommandBuffer cmd, const struct engine *engine)
{
    VkBufferCopy region = {.size = SIZE};
    barrier(cmd, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
            VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_READ_BIT);
    host.vkCmdCopyBuffer(cmd, engine->y.handle, engine->x.handle, 1, &region);
    barrier(cmd, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
            VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_READ_BIT);
}

static const uint32_t counts[] = {1, 5, MAX_TOKENS};

static void one_bind_twice(void **state)
{
    (void) state;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct engine engine;
        float want[SIZE / 4];
        engine_init(&engine, 3 + (uint32_t) i);
        memcpy(want, engine.x.mapped, SIZE);
        apply(want, counts[i], 2);
        VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
        check_ok(vkmoe_vk_record(engine.bind, cmd, counts[i], 0, UINT32_MAX));
        record_copy_back(cmd, &engine);
        check_ok(vkmoe_vk_record(engine.bind, cmd, counts[i], 0, UINT32_MAX));
        host_submit(&host, cmd);
        check_rows(engine.y.mapped, want, counts[i]);
        engine_finish(&engine);
    }
}

// Nothing but the library's own barrier keeps the second use of the workspace and of y behind the
// first: fewer tokens, so that their rows stay and the others are the first one's.
static void one_bind_twice_without_a_barrier(void **state)
{
    (void) state;
    struct engine engine;
    float want[SIZE / 4];
    engine_init(&engine, 11);
    memcpy(want, engine.x.mapped, SIZE);
    apply(want, MAX_TOKENS, 1);
    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    check_ok(vkmoe_vk_record(engine.bind, cmd, MAX_TOKENS, 0, UINT32_MAX));
    check_ok(vkmoe_vk_record(engine.bind, cmd, MAX_TOKENS / 2, 0, UINT32_MAX));
    check_ok(vkmoe_vk_record(engine.bind, cmd, 3, 0, UINT32_MAX)); // of the other regime
    host_submit(&host, cmd);
    check_rows(engine.y.mapped + 3 * WIDTH, want + 3 * WIDTH, MAX_TOKENS - 3);
    apply(memcpy(want, engine.x.mapped, SIZE), 3, 1);
    check_rows(engine.y.mapped, want, 3);
    engine_finish(&engine);
}

// y of one bind is x of the next one: two layers of a network.
static void one_bind_behind_another(void **state)
{
    (void) state;
    struct engine engine;
    struct host_buffer z;
    float want[SIZE / 4];
    engine_init(&engine, 13);
    host_buffer_init(&host, SIZE, &z);
    vkmoe_bind *second = bind_create(&engine.y, &z);
    memcpy(want, engine.x.mapped, SIZE);
    apply(want, 9, 2);
    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    check_ok(vkmoe_vk_record(engine.bind, cmd, 9, 0, UINT32_MAX));
    barrier(cmd, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
            VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_READ_BIT);
    check_ok(vkmoe_vk_record(second, cmd, 9, 0, UINT32_MAX));
    host_submit(&host, cmd);
    check_rows(z.mapped, want, 9);
    vkmoe_bind_destroy(second);
    host_buffer_finish(&host, &z);
    engine_finish(&engine);
}

// Recorded once, with its slices apart; each submission takes what the last one left.
static void one_command_buffer_many_times(void **state)
{
    (void) state;
    enum { N_TIMES = 4 };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct engine engine;
        float want[SIZE / 4];
        uint32_t n;
        engine_init(&engine, 17 + (uint32_t) i);
        memcpy(want, engine.x.mapped, SIZE);
        check_ok(vkmoe_vk_dispatch_count(engine.bind, counts[i], &n));
        VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
        for (uint32_t first = 0; first < n; first++)
            check_ok(vkmoe_vk_record(engine.bind, cmd, counts[i], first, 1));
        record_copy_back(cmd, &engine);
        host_submit(&host, cmd);
        for (int k = 1; k < N_TIMES; k++)
            host_submit_again(&host, cmd);
        apply(want, counts[i], N_TIMES);
        check_rows(engine.y.mapped, want, counts[i]);
        check_rows(engine.x.mapped, want, counts[i]);
        engine_finish(&engine);
    }
}

// The control: the layer is no identity, so that once is not twice.
static void once_is_not_twice(void **state)
{
    (void) state;
    struct engine engine;
    float once[SIZE / 4], twice[SIZE / 4];
    engine_init(&engine, 19);
    memcpy(once, engine.x.mapped, SIZE);
    apply(once, 9, 1);
    memcpy(twice, once, SIZE);
    apply(twice, 9, 1);
    for (uint32_t t = 0; t < 9; t++)
        assert_memory_not_equal(once + t * WIDTH, twice + t * WIDTH, WIDTH * sizeof *once);
    engine_finish(&engine);
}

// The last test: a group's tear-down that fails does not fail a cmocka program.
static void validation_found_nothing(void **state)
{
    (void) state;
    assert_int_equal(vkmoe_context_validation_count(stack.context), 0);
}

int main(int argc, char **argv)
{
    vkmoe_host services;
    if (!host_context_desc(argc, argv, &services, &context_desc))
        return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_bind_twice),
        cmocka_unit_test(one_bind_twice_without_a_barrier),
        cmocka_unit_test(one_bind_behind_another),
        cmocka_unit_test(one_command_buffer_many_times),
        cmocka_unit_test(once_is_not_twice),
        cmocka_unit_test(validation_found_nothing),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down) != 0;
}
