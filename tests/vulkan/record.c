// SPDX-License-Identifier: MIT
// Recording into the caller's command buffer, with the caller's buffers: record MODE, where MODE is
// bda, descriptors or floor. The result is compared bit for bit with vkmoe_run. The validation
// layer is on, and any message of it fails.
#include "fixture.h"
#include "host.h"

#include <stdlib.h>

enum { MAX_TOKENS = 40 };

static vkmoe_context_desc context_desc;
static struct layer_data data;
static struct stack stack; // the library's own buffers
static struct host host;
static size_t n_allocations;

static void *count_alloc(void *user, size_t size, size_t align)
{
    (void) user;
    n_allocations++;
    return aligned_alloc(align, (size + align - 1) / align * align);
}

static void count_free(void *user, void *memory)
{
    (void) user;
    free(memory);
}

static int set_up(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = full_layer();
    layer_data_init(&data, &layer, 7);
    check_ok(stack_create(&stack, &context_desc, &data, MAX_TOKENS, true));
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

// The caller's x and y with padded rows, and a bind over them.
struct engine {
    struct host_buffer x, y;
    uint32_t x_words, y_words; // of a row
    vkmoe_bind *bind;
};

static void engine_init(struct engine *engine, uint32_t seed)
{
    engine->x_words = data.layer.d_model + 3;
    engine->y_words = data.layer.d_out + 5;
    host_buffer_init(&host, 512 + MAX_TOKENS * engine->x_words * 4, &engine->x);
    host_buffer_init(&host, 256 + MAX_TOKENS * engine->y_words * 4, &engine->y);
    fill_random(engine->x.mapped, engine->x.size / 4, seed);
    memset(engine->y.mapped, 0xff, engine->y.size);

    vkmoe_vk_io io = vkmoe_vk_io_init();
    io.x = (vkmoe_vk_buffer){engine->x.handle, 512, engine->x.size - 512};
    io.y = (vkmoe_vk_buffer){engine->y.handle, 256, engine->y.size - 256};
    io.x_stride = engine->x_words * 4;
    io.y_stride = engine->y_words * 4;
    vkmoe_bind_desc desc = vkmoe_bind_desc_init();
    desc.vk_io = &io;
    check_ok(vkmoe_bind_create(stack.plan, stack.weights, &desc, &engine->bind));
}

static void engine_finish(struct engine *engine)
{
    vkmoe_bind_destroy(engine->bind);
    host_buffer_finish(&host, &engine->x);
    host_buffer_finish(&host, &engine->y);
}

// y equals what vkmoe_run makes of the same x, and nothing beside it was written.
static void check_result(const struct engine *engine, uint32_t n_tokens)
{
    uint32_t d_out = data.layer.d_out;
    float *want = malloc(MAX_TOKENS * d_out * sizeof *want);
    assert_non_null(want);
    vkmoe_io io = vkmoe_io_init();
    io.x = engine->x.mapped + 512 / 4;
    io.x_stride = engine->x_words * 4;
    io.y = want;
    check_ok(vkmoe_run(stack.bind, n_tokens, &io));
    const float *got = engine->y.mapped + 256 / 4;
    for (uint32_t t = 0; t < n_tokens; t++)
        assert_memory_equal(got + t * engine->y_words, want + t * d_out, d_out * sizeof *want);

    const uint32_t *words = (const uint32_t *) engine->y.mapped;
    for (uint32_t i = 0; i < engine->y.size / 4; i++) {
        bool before = i < 256 / 4;
        uint32_t row = before ? 0 : (i - 256 / 4) / engine->y_words;
        bool padding = before || row >= n_tokens || (i - 256 / 4) % engine->y_words >= d_out;
        if (padding)
            assert_int_equal(words[i], UINT32_MAX);
    }
    free(want);
}

static const uint32_t counts[] = {1, 4, 5, MAX_TOKENS};

static void record_equals_run(void **state)
{
    (void) state;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct engine engine;
        engine_init(&engine, 11 + (uint32_t) i);
        VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
        check_ok(vkmoe_vk_record(engine.bind, cmd, counts[i], 0, UINT32_MAX));
        host_submit(&host, cmd);
        check_result(&engine, counts[i]);
        engine_finish(&engine);
    }
}

static void slices_equal_the_whole(void **state)
{
    (void) state;
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct engine engine;
        uint32_t n;
        engine_init(&engine, 23);
        check_ok(vkmoe_vk_dispatch_count(engine.bind, counts[i], &n));
        assert_true(n >= 3);
        for (uint32_t first = 0; first < n; first++) { // one submission a dispatch
            VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
            check_ok(vkmoe_vk_record(engine.bind, cmd, counts[i], first, 1));
            host_submit(&host, cmd);
        }
        check_result(&engine, counts[i]);
        engine_finish(&engine);
    }
}

static void two_binds_in_one_secondary_buffer(void **state)
{
    (void) state;
    struct engine a, b;
    engine_init(&a, 31);
    engine_init(&b, 37);
    VkCommandBuffer secondary = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_SECONDARY);
    check_ok(vkmoe_vk_record(a.bind, secondary, 9, 0, UINT32_MAX));
    check_ok(vkmoe_vk_record(b.bind, secondary, 3, 0, UINT32_MAX));
    assert_int_equal(host.vkEndCommandBuffer(secondary), VK_SUCCESS);
    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    host.vkCmdExecuteCommands(cmd, 1, &secondary);
    host_submit(&host, cmd);
    check_result(&a, 9);
    check_result(&b, 3);
    engine_finish(&b);
    engine_finish(&a);
}

static void recording_allocates_nothing(void **state)
{
    (void) state;
    struct engine engine;
    engine_init(&engine, 41);
    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    size_t before = n_allocations;
    assert_true(before > 0);
    check_ok(vkmoe_vk_record(engine.bind, cmd, MAX_TOKENS, 0, UINT32_MAX));
    check_ok(vkmoe_vk_record(engine.bind, cmd, 2, 0, UINT32_MAX));
    assert_int_equal(n_allocations, before);
    host_submit(&host, cmd);
    engine_finish(&engine);
}

static void nothing_to_record(void **state)
{
    (void) state;
    struct engine engine;
    uint32_t n = 99;
    engine_init(&engine, 43);
    check_ok(vkmoe_vk_dispatch_count(engine.bind, 0, &n));
    assert_int_equal(n, 0);
    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    check_ok(vkmoe_vk_record(engine.bind, cmd, 0, 0, UINT32_MAX));
    check_fails(vkmoe_vk_record(engine.bind, cmd, 4, 4, 1), VKMOE_E_ARGUMENT, "there are 4");
    check_fails(vkmoe_vk_record(engine.bind, cmd, MAX_TOKENS + 1, 0, 1), VKMOE_E_SHAPE, "41");
    check_fails(vkmoe_vk_record(engine.bind, NULL, 4, 0, 1), VKMOE_E_ARGUMENT, "cmd");
    host_submit(&host, cmd);
    check_result(&engine, 0);
    engine_finish(&engine);
}

static void a_bind_with_callers_buffers_does_not_run(void **state)
{
    (void) state;
    struct engine engine;
    engine_init(&engine, 47);
    float *y = malloc(MAX_TOKENS * data.layer.d_out * sizeof *y);
    vkmoe_io io = vkmoe_io_init();
    io.x = engine.x.mapped + 512 / 4;
    io.y = y;
    check_fails(vkmoe_run(engine.bind, 1, &io), VKMOE_E_ARGUMENT, "the caller's buffers");
    free(y);
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
    services.alloc = count_alloc;
    services.free = count_free;
    context_desc.debug_labels = true;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(record_equals_run),
        cmocka_unit_test(slices_equal_the_whole),
        cmocka_unit_test(two_binds_in_one_secondary_buffer),
        cmocka_unit_test(recording_allocates_nothing),
        cmocka_unit_test(nothing_to_record),
        cmocka_unit_test(a_bind_with_callers_buffers_does_not_run),
        cmocka_unit_test(validation_found_nothing),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down) != 0;
}
