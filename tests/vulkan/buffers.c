// SPDX-License-Identifier: MIT
// What a caller may bring besides x and y: the token count, the workspace, the memory of the
// weights: buffers MODE, where MODE is bda, descriptors or floor. Results are compared bit for bit
// with vkmoe_run; the validation layer is on, and any message of it fails.
#include "fixture.h"
#include "host.h"

#include <stdlib.h>
#include <vkmoe/train.h>

enum { MAX_TOKENS = 40 };

static vkmoe_context_desc context_desc;
static struct layer_data data;
static struct stack stack; // the library's own buffers
static struct host host;
static struct host_buffer x, y, count;
static float want[MAX_TOKENS * 8]; // what vkmoe_run makes of x, for all tokens

// The bits belong to the regime that n_tokens asks for.
static void run_whole(uint32_t n_tokens)
{
    vkmoe_io io = vkmoe_io_init();
    io.x = x.mapped;
    io.y = want;
    check_ok(vkmoe_run(stack.bind, n_tokens, &io));
}

static vkmoe_vk_io plain_io(void)
{
    vkmoe_vk_io io = vkmoe_vk_io_init();
    io.x = (vkmoe_vk_buffer){x.handle, 0, x.size};
    io.y = (vkmoe_vk_buffer){y.handle, 0, y.size};
    return io;
}

static vkmoe_bind *bind_with(vkmoe_weights *weights, const vkmoe_vk_io *io)
{
    vkmoe_bind *bind;
    vkmoe_bind_desc desc = vkmoe_bind_desc_init();
    desc.vk_io = io;
    check_ok(vkmoe_bind_create(stack.plan, weights, &desc, &bind));
    return bind;
}

static void record_and_submit(vkmoe_bind *bind, uint32_t n_tokens)
{
    memset(y.mapped, 0xff, y.size);
    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    check_ok(vkmoe_vk_record(bind, cmd, n_tokens, 0, UINT32_MAX));
    host_submit(&host, cmd);
}

// The first n rows of y are right, the others untouched.
static void check_rows(uint32_t n)
{
    size_t size = (size_t) n * data.layer.d_out * 4;
    assert_memory_equal(y.mapped, want, size);
    for (size_t i = size; i < y.size; i++)
        assert_int_equal(((unsigned char *) y.mapped)[i], 0xff);
}

static void the_count_is_read_when_it_runs(void **state)
{
    (void) state;
    static const struct {
        uint32_t recorded, count, rows;
    } cases[] = {{4, 1, 1},   {4, 4, 4},   {4, 0, 0},    {4, 9, 4},
                 {40, 1, 1},  {40, 33, 33}, {40, 40, 40}, {40, UINT32_MAX, 40},
                 {40, 0, 0},  {5, 4, 4}};
    vkmoe_vk_io io = plain_io();
    io.n_tokens = (vkmoe_vk_buffer){count.handle, 256, 4};
    vkmoe_bind *bind = bind_with(stack.weights, &io);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        run_whole(cases[i].recorded);
        memcpy((char *) count.mapped + 256, &cases[i].count, 4);
        record_and_submit(bind, cases[i].recorded);
        check_rows(cases[i].rows);
    }
    vkmoe_bind_destroy(bind);
}

// One recording, executed for one count after the other.
static void one_recording_serves_every_count(void **state)
{
    (void) state;
    vkmoe_vk_io io = plain_io();
    io.n_tokens = (vkmoe_vk_buffer){count.handle, 0, 4};
    vkmoe_bind *bind = bind_with(stack.weights, &io);
    run_whole(MAX_TOKENS);
    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    check_ok(vkmoe_vk_record(bind, cmd, MAX_TOKENS, 0, UINT32_MAX));
    for (uint32_t n = 0; n <= MAX_TOKENS; n += 8) {
        memset(y.mapped, 0xff, y.size);
        memcpy(count.mapped, &n, 4);
        (n == 0 ? host_submit : host_submit_again)(&host, cmd);
        check_rows(n);
    }
    vkmoe_bind_destroy(bind);
}

// The second run overwrites the workspace that the first one has used, not before.
static void binds_share_a_workspace(void **state)
{
    (void) state;
    uint64_t size;
    struct host_buffer work, first_y;
    vkmoe_vk_io io = plain_io(), first_io;
    check_ok(vkmoe_vk_get_workspace_size(stack.plan, &size));
    host_buffer_init(&host, 1024 + size, &work);
    host_buffer_init(&host, y.size, &first_y);
    memset(work.mapped, 0xff, work.size); // any contents
    io.workspace = (vkmoe_vk_buffer){work.handle, 768, size};
    first_io = io;
    first_io.y = (vkmoe_vk_buffer){first_y.handle, 0, first_y.size};
    vkmoe_bind *first = bind_with(stack.weights, &first_io);
    vkmoe_bind *second = bind_with(stack.weights, &io);
    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    check_ok(vkmoe_vk_record(first, cmd, MAX_TOKENS, 0, UINT32_MAX));
    check_ok(vkmoe_vk_record(second, cmd, 4, 0, UINT32_MAX)); // of another regime
    memset(y.mapped, 0xff, y.size);
    host_submit(&host, cmd);
    run_whole(4);
    check_rows(4);
    run_whole(MAX_TOKENS);
    assert_memory_equal(first_y.mapped, want, first_y.size);
    const unsigned char *bytes = (const unsigned char *) work.mapped;
    for (size_t i = 0; i < 768; i++) // nothing is written beside it
        assert_true(bytes[i] == 0xff && bytes[768 + size + i % 256] == 0xff);
    vkmoe_bind_destroy(second);
    vkmoe_bind_destroy(first);
    host_buffer_finish(&host, &first_y);
    host_buffer_finish(&host, &work);
}

static enum vkmoe_status gradients(vkmoe_bind *bind)
{
    vkmoe_io in = vkmoe_io_init();
    vkmoe_backward_io out = vkmoe_backward_io_init();
    in.x = x.mapped;
    out.dy = want;
    return vkmoe_backward(bind, MAX_TOKENS, &in, &out);
}

static void weights_in_the_callers_buffer(void **state)
{
    (void) state;
    struct host_buffer memory;
    vkmoe_weights_layout layout;
    vkmoe_weights_desc desc = data.desc;
    vkmoe_weights *weights;
    vkmoe_vk_io io = plain_io();
    check_ok(vkmoe_weights_get_layout(stack.context, &data.layer, &layout));
    host_buffer_init(&host, 512 + layout.total_size, &memory);
    memset(memory.mapped, 0xff, memory.size);
    vkmoe_vk_buffer place = {memory.handle, 256, layout.total_size - 1};
    desc.vk_buffer = &place;
    check_fails(vkmoe_weights_create(stack.context, &desc, &weights), VKMOE_E_SHAPE,
                "weights.vk_buffer.size");
    place.size++;
    check_ok(vkmoe_weights_create(stack.context, &desc, &weights));
    const unsigned char *bytes = (const unsigned char *) memory.mapped;
    for (size_t i = 0; i < 256; i++)
        assert_true(bytes[i] == 0xff && bytes[256 + layout.total_size + i] == 0xff);
    vkmoe_bind *bind = bind_with(weights, &io);
    for (uint32_t n = 4; n <= MAX_TOKENS; n *= 10) {
        run_whole(n);
        record_and_submit(bind, n);
        check_rows(n);
    }
    vkmoe_bind_destroy(bind);

    // Gradients need the weights' values, which the caller's buffer need not give back.
    check_ok(vkmoe_bind_create(stack.plan, weights, NULL, &bind));
    check_fails(gradients(bind), VKMOE_E_UNSUPPORTED, "in the caller's buffer cannot be read back");
    check_ok(gradients(stack.bind));
    vkmoe_bind_destroy(bind);
    vkmoe_weights_destroy(weights);
    host_buffer_finish(&host, &memory);
}

// By their work a caller can cut a recording; together the parts are the whole.
static void dispatches_tell_their_work(void **state)
{
    (void) state;
    uint32_t n;
    double sum = 0, experts = 0;
    vkmoe_vk_dispatch d;
    vkmoe_vk_io io = plain_io();
    vkmoe_bind *bind = bind_with(stack.weights, &io);
    check_ok(vkmoe_vk_dispatch_count(bind, MAX_TOKENS, &n));
    for (uint32_t i = 0; i < n; i++) {
        check_ok(vkmoe_vk_get_dispatch(bind, MAX_TOKENS, i, &d));
        assert_true(d.label && d.work >= 0);
        sum += d.work;
        experts += strstr(d.label, "expert") ? d.work : 0;
    }
    const vkmoe_layer_desc *l = &data.layer;
    double least = 2.0 * MAX_TOKENS * l->top_k * (2 * l->d_model * l->d_ff + l->d_ff * l->d_out);
    assert_true(experts >= least && sum > experts);
    check_fails(vkmoe_vk_get_dispatch(bind, MAX_TOKENS, n, &d), VKMOE_E_ARGUMENT, "there are");
    vkmoe_bind_destroy(bind);
}

static void validation_found_nothing(void **state)
{
    (void) state;
    assert_int_equal(vkmoe_context_validation_count(stack.context), 0);
}

static int set_up(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = full_layer();
    layer_data_init(&data, &layer, 7);
    check_ok(stack_create(&stack, &context_desc, &data, MAX_TOKENS, true));
    host_init(&host, stack.context);
    host_buffer_init(&host, MAX_TOKENS * data.layer.d_model * 4, &x);
    host_buffer_init(&host, MAX_TOKENS * data.layer.d_out * 4, &y);
    host_buffer_init(&host, 512, &count);
    fill_random(x.mapped, x.size / 4, 11);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    host_buffer_finish(&host, &x);
    host_buffer_finish(&host, &y);
    host_buffer_finish(&host, &count);
    host_finish(&host);
    stack_destroy(&stack);
    layer_data_finish(&data);
    return 0;
}

int main(int argc, char **argv)
{
    vkmoe_host services;
    if (!host_context_desc(argc, argv, &services, &context_desc))
        return 2;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_count_is_read_when_it_runs),
        cmocka_unit_test(one_recording_serves_every_count),
        cmocka_unit_test(binds_share_a_workspace),
        cmocka_unit_test(weights_in_the_callers_buffer),
        cmocka_unit_test(dispatches_tell_their_work),
        cmocka_unit_test(validation_found_nothing),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down) != 0;
}
