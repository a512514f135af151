// SPDX-License-Identifier: MIT
// As faults.c, on the other ways to a result: buffers by address, contexts on a device that
// somebody else owns, a plan that tests its variant. Every Vulkan call that can fail is made to
// fail: a clean error or the right result, never an object left over.
#include "check.h"
#include "fixture.h"
#include "host.h"
#include "interpose.h"

enum { N_TOKENS = 4, WIDTH = 8 }; // of a row of x and y, in floats

static vkmoe_context *owner;
static struct host host;
static struct host_buffer x, y;
static bool has_f16; // of the device

struct kind {
    bool own;   // not imported
    bool queue; // else it only records
    enum vkmoe_addressing addressing;
    enum vkmoe_precision precision; // half: with f16 weights
};

static enum vkmoe_status open_context(const struct kind *kind, vkmoe_context **out)
{
    VkPhysicalDeviceVulkan12Features v12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
        .bufferDeviceAddress = VK_TRUE,
        .shaderFloat16 = has_f16};
    vkmoe_vk_import_desc desc;
    vkmoe_context_desc own = vkmoe_context_desc_init();
    own.device = "vulkan";
    own.cache_dir = "";
    own.addressing = kind->addressing;
    if (kind->own)
        return vkmoe_context_create(&own, out);
    desc = host_import_desc(&host.handles);
    desc.queue = kind->queue ? host.handles.queue : NULL;
    desc.features = &v12;
    desc.addressing = kind->addressing;
    return vkmoe_context_import_vk(&desc, out);
}

// A call that fails from the making of the plan on: in its self-test, if it has one.
struct fault {
    const char *name;
    VkResult result;
    long n; // at its n-th time
    bool in_plan;
};

static void start(const struct fault *fault)
{
    interpose.n_calls = 0;
    interpose.fail_name = fault->name;
}

static enum vkmoe_status make(const struct kind *kind, const struct layer_data *data,
                              const struct fault *fault, struct stack *stack)
{
    enum vkmoe_status status;
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    vkmoe_bind_desc bind = vkmoe_bind_desc_init();
    vkmoe_vk_io io = vkmoe_vk_io_init();
    plan.layer = &data->layer;
    plan.max_tokens = N_TOKENS;
    plan.precision = kind->precision;
    io.x = (vkmoe_vk_buffer){x.handle, 0, x.size};
    io.y = (vkmoe_vk_buffer){y.handle, 0, y.size};
    io.x_stride = io.y_stride = WIDTH * sizeof(float);
    if (!kind->queue)
        bind.vk_io = &io;
    status = open_context(kind, &stack->context);
    if (status == VKMOE_OK)
        status = vkmoe_weights_create(stack->context, &data->desc, &stack->weights);
    if (fault->in_plan)
        start(fault);
    if (status == VKMOE_OK)
        status = vkmoe_plan_create(stack->context, &plan, &stack->plan);
    if (status == VKMOE_OK)
        status = vkmoe_bind_create(stack->plan, stack->weights, &bind, &stack->bind);
    return status;
}

// A call of the caller's does not fail.
static enum vkmoe_status compute(const struct kind *kind, const struct stack *stack,
                                 VkCommandBuffer cmd)
{
    vkmoe_io io = vkmoe_io_init();
    io.x = x.mapped;
    io.y = y.mapped;
    io.x_stride = io.y_stride = WIDTH * sizeof(float);
    if (kind->queue)
        return vkmoe_run(stack->bind, N_TOKENS, &io);
    enum vkmoe_status status = vkmoe_vk_weights_record_upload(stack->weights, cmd);
    if (status == VKMOE_OK)
        status = vkmoe_vk_record(stack->bind, cmd, N_TOKENS, 0, UINT32_MAX);
    interpose.fail_name = NULL;
    if (status == VKMOE_OK)
        host_submit(&host, cmd);
    return status;
}

static enum vkmoe_status attempt(const struct kind *kind, const struct layer_data *data,
                                 const struct fault *fault)
{
    struct stack stack = {0};
    VkCommandBuffer cmd = NULL;
    interpose = (struct interpose){.fail_at = fault->n, .fail_result = fault->result};
    if (!kind->queue)
        cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    if (!fault->in_plan)
        start(fault);
    memset(y.mapped, 0, y.size);
    vkmoe_error_set("");
    enum vkmoe_status status = make(kind, data, fault, &stack);
    if (status == VKMOE_OK)
        status = compute(kind, &stack, cmd);
    assert_true(status == VKMOE_OK || strlen(vkmoe_error_text()) > 0);
    stack_destroy(&stack);
    if (interpose.n_live != 0)
        fail_msg("%s failed at call %ld with %d: %ld objects left", fault->name, fault->n,
                 fault->result, interpose.n_live);
    return status;
}

// One name after the other, each time that it is called; or the first time in a plan.
static void inject(const struct kind *kind, VkResult result, bool in_plan)
{
    struct layer_data data;
    float want[N_TOKENS * WIDTH];
    int n_failed = 0;
    vkmoe_layer_desc layer = full_layer();
    if (kind->precision == VKMOE_PRECISION_HALF)
        layer.in_type = layer.out_type = VKMOE_F16;
    layer_data_init(&data, &layer, 9);
    check_ok(attempt(kind, &data, &(struct fault){0}));
    memcpy(want, y.mapped, sizeof want);
    for (int i = 0; interpose_names[i]; i++) {
        struct fault fault = {interpose_names[i], result, 1, in_plan};
        do {
            enum vkmoe_status status = attempt(kind, &data, &fault);
            if (!interpose.failed)
                check_ok(status); // every call has had its turn
            if (status == VKMOE_OK && !(in_plan && interpose.failed)) // without a1: other bits
                assert_memory_equal(y.mapped, want, sizeof want);
            n_failed += interpose.failed;
            fault.n++;
        } while (interpose.failed && !in_plan);
    }
    print_message("%d calls failed\n", n_failed);
    assert_true(n_failed >= 10);
    layer_data_finish(&data);
    interpose = (struct interpose){0};
}

static void buffers_by_address(void **state)
{
    static const struct kind kind = {
        .own = true, .queue = true, .addressing = VKMOE_ADDRESSING_BDA};
    (void) state;
    inject(&kind, VK_ERROR_OUT_OF_DEVICE_MEMORY, false);
}

static void an_imported_queue(void **state)
{
    static const struct kind kind = {.queue = true};
    (void) state;
    inject(&kind, VK_ERROR_OUT_OF_HOST_MEMORY, false);
    inject(&kind, VK_ERROR_DEVICE_LOST, false);
}

static void a_device_without_a_queue(void **state)
{
    static const struct kind kinds[] = {{.addressing = VKMOE_ADDRESSING_DESCRIPTORS},
                                        {.addressing = VKMOE_ADDRESSING_BDA}};
    (void) state;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        inject(&kinds[i], VK_ERROR_OUT_OF_DEVICE_MEMORY, false);
}

// vulkan/verdict.c has what becomes of the verdict.
static void a_plan_that_tests_its_variant(void **state)
{
    static const struct kind own = {.own = true, .queue = true, .precision = VKMOE_PRECISION_HALF};
    static const struct kind imported = {.queue = true, .precision = VKMOE_PRECISION_HALF};
    (void) state;
    inject(&own, VK_ERROR_OUT_OF_DEVICE_MEMORY, true);
    inject(&imported, VK_ERROR_OUT_OF_DEVICE_MEMORY, true);
}

static int set_up(void **state)
{
    (void) state;
    vkmoe_device_info info;
    static const struct kind kind = {.own = true};
    check_ok(open_context(&kind, &owner));
    check_ok(vkmoe_context_info(owner, &info));
    has_f16 = strcmp(info.tier, "T1 fp16") == 0;
    host_init(&host, owner);
    host_buffer_init(&host, N_TOKENS * WIDTH * sizeof(float), &x);
    host_buffer_init(&host, N_TOKENS * WIDTH * sizeof(float), &y);
    fill_random(x.mapped, N_TOKENS * WIDTH, 5);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    interpose = (struct interpose){0};
    host_buffer_finish(&host, &x);
    host_buffer_finish(&host, &y);
    host_finish(&host);
    vkmoe_context_destroy(owner);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buffers_by_address),
        cmocka_unit_test(an_imported_queue),
        cmocka_unit_test(a_device_without_a_queue),
        cmocka_unit_test(a_plan_that_tests_its_variant),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down) != 0;
}
