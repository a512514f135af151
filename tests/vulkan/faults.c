// SPDX-License-Identifier: MIT
// Every Vulkan call that can fail is made to fail once, at each time it is made: a clean error or a
// fallback, never a crash, never an object left over. A lost device stays lost.
#include "check.h"
#include "fixture.h"
#include "host.h"
#include "interpose.h"

enum { N_TOKENS = 4 };

static struct layer_data data;

static vkmoe_context_desc context_desc(void)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "vulkan";
    desc.cache_dir = "";
    desc.addressing = VKMOE_ADDRESSING_DESCRIPTORS; // makes more calls
    return desc;
}

static enum vkmoe_status run(vkmoe_bind *bind, float *y)
{
    float x[N_TOKENS * 64];
    vkmoe_io io = vkmoe_io_init();
    fill_random(x, (size_t) N_TOKENS * data.layer.d_model, 5);
    io.x = x;
    io.y = y;
    return vkmoe_run(bind, N_TOKENS, &io);
}

static enum vkmoe_status attempt(float *y)
{
    struct stack stack;
    vkmoe_context_desc desc = context_desc();
    vkmoe_error_set("");
    enum vkmoe_status status = stack_create(&stack, &desc, &data, N_TOKENS, false);
    if (status == VKMOE_OK)
        status = run(stack.bind, y);
    assert_true(status == VKMOE_OK || strlen(vkmoe_error_text()) > 0);
    stack_destroy(&stack);
    return status;
}

// What the device looks like while calls fail.
static struct interpose device_kind;

// What a run gives when nothing fails.
static float want[N_TOKENS * 64];

static void inject(const char *name, VkResult result)
{
    float y[N_TOKENS * 64];
    for (long n = 1;; n++) {
        interpose = device_kind;
        interpose.fail_name = name;
        interpose.fail_at = n;
        interpose.fail_result = result;
        memset(y, 0xff, sizeof y);
        enum vkmoe_status status = attempt(y);
        if (interpose.n_live != 0)
            fail_msg("%s failed at call %ld with %d: %ld objects left", name, n, result,
                     interpose.n_live);
        if (status == VKMOE_OK)
            assert_memory_equal(y, want, (size_t) N_TOKENS * data.layer.d_out * sizeof *y);
        if (interpose.failed)
            continue;
        assert_int_equal(status, VKMOE_OK); // every call has had its turn
        return;
    }
}

static void every_call_fails_once(void **state)
{
    (void) state;
    for (int i = 0; interpose_names[i]; i++) {
        inject(interpose_names[i], VK_ERROR_OUT_OF_HOST_MEMORY);
        inject(interpose_names[i], VK_ERROR_DEVICE_LOST);
    }
}

// The same on memory that the host cannot see, where weights and results pass through staging.
static void every_call_fails_once_with_staging(void **state)
{
    static const char *const names[] = {
        "vkAllocateMemory",     "vkMapMemory",        "vkCreateBuffer",
        "vkQueueSubmit",        "vkWaitForFences",    "vkCreateFence",
        "vkBeginCommandBuffer", "vkEndCommandBuffer", NULL};
    (void) state;
    device_kind.discrete = true;
    for (int i = 0; names[i]; i++)
        inject(names[i], VK_ERROR_OUT_OF_DEVICE_MEMORY);
    device_kind.discrete = false;
}

// The same where weights are in several buffers, and matmuls in many dispatches.
static void every_call_fails_once_on_a_small_device(void **state)
{
    static const char *const names[] = {"vkAllocateMemory",
                                        "vkCreateBuffer",
                                        "vkBindBufferMemory",
                                        "vkQueueSubmit",
                                        "vkAllocateDescriptorSets",
                                        "vkCreateDescriptorPool",
                                        NULL};
    (void) state;
    device_kind = (struct interpose){.max_range = 3 << 10, .max_allocation = 8 << 10};
    for (int discrete = 0; discrete < 2; discrete++) {
        device_kind.discrete = discrete;
        for (int i = 0; names[i]; i++)
            inject(names[i], VK_ERROR_OUT_OF_DEVICE_MEMORY);
    }
    device_kind = (struct interpose){0};
}

// A wait that ends too early is an error, and the work is over before its memory is touched again.
static void a_wait_times_out(void **state)
{
    (void) state;
    inject("vkWaitForFences", VK_TIMEOUT);
}

static void staging_gives_the_same_bits(void **state)
{
    (void) state;
    float y[N_TOKENS * 64];
    interpose = (struct interpose){.discrete = true};
    check_ok(attempt(y));
    assert_memory_equal(y, want, (size_t) N_TOKENS * data.layer.d_out * sizeof *y);
    interpose = (struct interpose){0};
}

// On the same memory, without a queue: the caller uploads what the library has staged, to the
// library's buffers or to one of the caller's.
static void record_upload(bool own_memory)
{
    struct stack owner = {0}, stack = {0};
    struct host host;
    struct host_buffer x, y, memory;
    vkmoe_weights_layout layout;
    vkmoe_weights_desc weights = data.desc;
    vkmoe_vk_buffer place;
    vkmoe_context_desc desc = context_desc();
    interpose = (struct interpose){.discrete = true};
    check_ok(vkmoe_context_create(&desc, &owner.context));
    host_init(&host, owner.context);
    host_buffer_init(&host, N_TOKENS * data.layer.d_model * sizeof(float), &x);
    host_buffer_init(&host, N_TOKENS * data.layer.d_out * sizeof(float), &y);
    fill_random(x.mapped, (size_t) N_TOKENS * data.layer.d_model, 5);

    vkmoe_vk_import_desc import = host_import_desc(&host.handles);
    import.api_version = VK_API_VERSION_1_1;
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.layer = &data.layer;
    plan.max_tokens = N_TOKENS;
    vkmoe_vk_io io = vkmoe_vk_io_init();
    io.x = (vkmoe_vk_buffer){x.handle, 0, x.size};
    io.y = (vkmoe_vk_buffer){y.handle, 0, y.size};
    vkmoe_bind_desc bind = vkmoe_bind_desc_init();
    bind.vk_io = &io;
    check_ok(vkmoe_context_import_vk(&import, &stack.context));
    check_ok(vkmoe_weights_get_layout(stack.context, &data.layer, &layout));
    host_buffer_init(&host, 512 + layout.total_size, &memory);
    place = (vkmoe_vk_buffer){memory.handle, 512, layout.total_size};
    weights.vk_buffer = own_memory ? NULL : &place;
    check_ok(vkmoe_weights_create(stack.context, &weights, &stack.weights));
    check_ok(vkmoe_plan_create(stack.context, &plan, &stack.plan));
    check_ok(vkmoe_bind_create(stack.plan, stack.weights, &bind, &stack.bind));

    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    check_fails(vkmoe_vk_record(stack.bind, cmd, N_TOKENS, 0, UINT32_MAX), VKMOE_E_ARGUMENT,
                "not uploaded");
    check_ok(vkmoe_vk_weights_record_upload(stack.weights, cmd));
    check_ok(vkmoe_vk_record(stack.bind, cmd, N_TOKENS, 0, UINT32_MAX));
    host_submit(&host, cmd);
    assert_memory_equal(y.mapped, want, y.size);
    stack_destroy(&stack);
    host_buffer_finish(&host, &x);
    host_buffer_finish(&host, &y);
    host_buffer_finish(&host, &memory);
    host_finish(&host);
    stack_destroy(&owner);
    assert_int_equal(interpose.n_live, 0);
    interpose = (struct interpose){0};
}

static void an_upload_is_recorded(void **state)
{
    (void) state;
    record_upload(true);
    record_upload(false);
}

static void lost(const char *name, VkResult result)
{
    float y[N_TOKENS * 64];
    struct stack stack;
    vkmoe_context_desc desc = context_desc();
    interpose = (struct interpose){0};
    check_ok(stack_create(&stack, &desc, &data, N_TOKENS, false));
    check_ok(run(stack.bind, y));
    check_ok(vkmoe_context_status(stack.context));
    interpose.fail_name = name;
    interpose.fail_at = 1;
    interpose.fail_result = result;
    check_fails(run(stack.bind, y), VKMOE_E_DEVICE_LOST, name);
    interpose.fail_name = NULL; // whatever the driver says from now on
    assert_int_equal(vkmoe_context_status(stack.context), VKMOE_E_DEVICE_LOST);
    check_fails(run(stack.bind, y), VKMOE_E_DEVICE_LOST, "lost");
    vkmoe_bind *bind;
    check_fails(vkmoe_bind_create(stack.plan, stack.weights, NULL, &bind), VKMOE_E_DEVICE_LOST,
                "lost");
    stack_destroy(&stack);
    assert_int_equal(interpose.n_live, 0);
}

static void a_lost_device_stays_lost(void **state)
{
    (void) state;
    lost("vkQueueSubmit", VK_ERROR_DEVICE_LOST);
    lost("vkWaitForFences", VK_ERROR_DEVICE_LOST);
}

static int set_up(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = full_layer();
    layer_data_init(&data, &layer, 9);
    assert_true(layer.d_model <= 64 && data.layer.d_out <= 64);
    check_ok(attempt(want));
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    layer_data_finish(&data);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_fails_once),
        cmocka_unit_test(every_call_fails_once_with_staging),
        cmocka_unit_test(every_call_fails_once_on_a_small_device),
        cmocka_unit_test(a_wait_times_out),
        cmocka_unit_test(staging_gives_the_same_bits),
        cmocka_unit_test(an_upload_is_recorded),
        cmocka_unit_test(a_lost_device_stays_lost),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down) != 0;
}
