// SPDX-License-Identifier: MIT
// Contexts on a device that somebody else owns. The owner is a context of the library: its handles
// are all that the importing one gets.
#include "fixture.h"
#include "host.h"

#include <vkmoe/train.h>

#include <stdlib.h>

enum { N_TOKENS = 9 };

static vkmoe_context *owner;
static struct host host;
static struct layer_data data;
static float x[N_TOKENS * 64], want[N_TOKENS * 64];

static VkPhysicalDeviceBufferDeviceAddressFeatures bda = {
    .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_BUFFER_DEVICE_ADDRESS_FEATURES,
    .bufferDeviceAddress = VK_TRUE};

static vkmoe_vk_import_desc import_desc(void)
{
    vkmoe_vk_import_desc desc = host_import_desc(&host.handles);
    desc.features = &bda;
    return desc;
}

// The rest of a layer on an imported context, into a stack whose context there is.
static enum vkmoe_status add_layer(struct stack *stack, const vkmoe_bind_desc *bind)
{
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.layer = &data.layer;
    plan.max_tokens = N_TOKENS;
    enum vkmoe_status status = vkmoe_weights_create(stack->context, &data.desc, &stack->weights);
    if (status == VKMOE_OK)
        status = vkmoe_plan_create(stack->context, &plan, &stack->plan);
    if (status == VKMOE_OK)
        status = vkmoe_bind_create(stack->plan, stack->weights, bind, &stack->bind);
    return status;
}

static int n_locks, n_unlocks;

static void lock(void *user)
{
    assert_ptr_equal(user, &n_locks);
    assert_int_equal(n_locks, n_unlocks);
    n_locks++;
}

static void unlock(void *user)
{
    (void) user;
    n_unlocks++;
}

static enum vkmoe_status run(vkmoe_bind *bind, float *y)
{
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.y = y;
    return vkmoe_run(bind, N_TOKENS, &io);
}

static size_t y_size(void)
{
    return (size_t) N_TOKENS * data.layer.d_out * sizeof(float);
}

static void with_a_queue_it_runs(void **state)
{
    (void) state;
    float y[N_TOKENS * 64];
    struct stack stack = {0};
    vkmoe_vk_import_desc desc = import_desc();
    desc.queue = host.handles.queue;
    desc.lock_queue = lock;
    desc.unlock_queue = unlock;
    desc.queue_user = &n_locks;
    check_ok(vkmoe_context_import_vk(&desc, &stack.context));
    check_ok(add_layer(&stack, NULL));
    check_ok(run(stack.bind, y));
    assert_memory_equal(y, want, y_size());
    assert_true(n_locks > 0);
    assert_int_equal(n_locks, n_unlocks);
    stack_destroy(&stack);
}

// x, y and a bind over them on a context that only records; recorded, submitted by the owner.
static void record_only(const vkmoe_vk_import_desc *desc)
{
    struct stack stack = {0};
    struct host_buffer bx, by;
    vkmoe_vk_io io = vkmoe_vk_io_init();
    vkmoe_bind_desc bind = vkmoe_bind_desc_init();
    check_ok(vkmoe_context_import_vk(desc, &stack.context));
    host_buffer_init(&host, N_TOKENS * data.layer.d_model * sizeof *x, &bx);
    host_buffer_init(&host, y_size(), &by);
    memcpy(bx.mapped, x, bx.size);
    io.x = (vkmoe_vk_buffer){bx.handle, 0, bx.size};
    io.y = (vkmoe_vk_buffer){by.handle, 0, by.size};
    bind.vk_io = &io;
    check_ok(add_layer(&stack, &bind));

    VkCommandBuffer cmd = host_begin(&host, VK_COMMAND_BUFFER_LEVEL_PRIMARY);
    check_ok(vkmoe_vk_weights_record_upload(stack.weights, cmd));
    check_ok(vkmoe_vk_record(stack.bind, cmd, N_TOKENS, 0, UINT32_MAX));
    host_submit(&host, cmd);
    vkmoe_vk_weights_release_staging(stack.weights);
    if (desc->floor) // there was staging
        check_fails(vkmoe_vk_weights_record_upload(stack.weights, cmd), VKMOE_E_ARGUMENT,
                    "staging is released");
    assert_memory_equal(by.mapped, want, y_size());
    stack_destroy(&stack);
    host_buffer_finish(&host, &bx);
    host_buffer_finish(&host, &by);
}

static void without_a_queue_it_records(void **state)
{
    (void) state;
    vkmoe_vk_import_desc desc = import_desc();
    record_only(&desc);
    desc.addressing = VKMOE_ADDRESSING_DESCRIPTORS;
    desc.floor = true;
    record_only(&desc);
    // The owner's device is still there.
    record_only(&desc);
}

static void without_a_queue_it_does_not_run(void **state)
{
    (void) state;
    struct stack stack = {0};
    vkmoe_vk_import_desc desc = import_desc();
    check_ok(vkmoe_context_import_vk(&desc, &stack.context));
    check_fails(add_layer(&stack, NULL), VKMOE_E_UNSUPPORTED, "only records");
    stack_destroy(&stack);
}

static void without_a_queue_there_is_no_network(void **state)
{
    (void) state;
    vkmoe_context *context;
    vkmoe_net *net;
    vkmoe_vk_import_desc desc = import_desc();
    vkmoe_layer_desc moe = vkmoe_layer_desc_init();
    vkmoe_net_layer layer = vkmoe_net_layer_init();
    const vkmoe_net_layer *layers = &layer;
    vkmoe_net_desc of = vkmoe_net_desc_init();
    moe.n_experts = 4;
    moe.top_k = 2;
    moe.d_model = 8;
    moe.d_ff = 4;
    layer.kind = VKMOE_NET_MOE;
    layer.layer = &moe;
    of.layers = &layers;
    of.n_layers = 1;
    of.d_in = 8;
    of.max_tokens = 4;
    of.loss = VKMOE_LOSS_MSE;
    check_ok(vkmoe_context_import_vk(&desc, &context));
    check_fails(vkmoe_net_create(context, &of, &net), VKMOE_E_UNSUPPORTED,
                "this context only records: a network needs a queue");
    vkmoe_context_destroy(context);
    desc.queue = host.handles.queue; // nothing else is wrong
    check_ok(vkmoe_context_import_vk(&desc, &context));
    check_ok(vkmoe_net_create(context, &of, &net));
    vkmoe_net_destroy(net);
    vkmoe_context_destroy(context);
}

static void what_is_missing_is_named(void **state)
{
    (void) state;
    vkmoe_context *context;
    vkmoe_vk_handles handles;
    vkmoe_vk_import_desc desc = import_desc();
    desc.addressing = VKMOE_ADDRESSING_BDA;
    desc.features = NULL;
    check_fails(vkmoe_context_import_vk(&desc, &context), VKMOE_E_UNSUPPORTED,
                "features: bufferDeviceAddress");
    desc.features = &bda;
    desc.api_version = VK_API_VERSION_1_1;
    // Below 1.2 it takes an extension, which is not enabled, or which the device does not have.
    check_fails(vkmoe_context_import_vk(&desc, &context), VKMOE_E_UNSUPPORTED,
                "buffer device address is missing in");
    assert_null(context);
    desc.addressing = VKMOE_ADDRESSING_AUTO; // then it does without
    check_ok(vkmoe_context_import_vk(&desc, &context));
    check_ok(vkmoe_vk_get_handles(context, &handles));
    assert_false(handles.buffer_device_address);
    assert_null(handles.queue);
    vkmoe_context_destroy(context);

    // Of a device that has both: in a struct of its own, and in the one of 1.2.
    VkPhysicalDeviceVulkanMemoryModelFeatures model = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_MEMORY_MODEL_FEATURES,
        .vulkanMemoryModel = VK_TRUE};
    VkPhysicalDeviceVulkan12Features v12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
        .vulkanMemoryModel = VK_TRUE};
    for (int i = 0; i < 2; i++) {
        desc = import_desc();
        desc.features = i == 0 ? (void *) &model : &v12;
        for (int floor = 0; floor < 2; floor++) { // what is enabled is not undone by it
            desc.floor = floor;
            check_fails(vkmoe_context_import_vk(&desc, &context), VKMOE_E_UNSUPPORTED,
                        "vulkanMemoryModel is enabled without vulkanMemoryModelDeviceScope");
            assert_null(context);
        }
        desc.floor = false;
        model.vulkanMemoryModelDeviceScope = v12.vulkanMemoryModelDeviceScope = VK_TRUE;
        check_ok(vkmoe_context_import_vk(&desc, &context));
        vkmoe_context_destroy(context);
        model.vulkanMemoryModelDeviceScope = v12.vulkanMemoryModelDeviceScope = VK_FALSE;
    }

    desc = import_desc();
    desc.api_version = VK_API_VERSION_1_0;
    check_fails(vkmoe_context_import_vk(&desc, &context), VKMOE_E_UNSUPPORTED, "1.1 is needed");
    desc = import_desc();
    desc.device = NULL;
    check_fails(vkmoe_context_import_vk(&desc, &context), VKMOE_E_ARGUMENT, "device is NULL");
    desc = import_desc();
    desc.lock_queue = lock;
    check_fails(vkmoe_context_import_vk(&desc, &context), VKMOE_E_ARGUMENT, "unlock_queue");
    desc = import_desc();
    desc.struct_size = 0;
    check_fails(vkmoe_context_import_vk(&desc, &context), VKMOE_E_ARGUMENT, "struct_size");
}

static void check_info(const vkmoe_vk_import_desc *desc, const char *features, const char *tier)
{
    vkmoe_context *context;
    vkmoe_device_info info;
    check_ok(vkmoe_context_import_vk(desc, &context));
    check_ok(vkmoe_context_info(context, &info));
    assert_string_equal(info.features, features);
    assert_string_equal(info.tier, tier);
    vkmoe_context_destroy(context);
}

// What an import has of a device whose owner enabled these two where they are.
static void check_bda_and_f16(const vkmoe_vk_import_desc *desc, bool f16)
{
    check_info(desc, f16 ? "buffer_device_address shader_float16" : "buffer_device_address",
               f16 ? "T1 fp16" : "T0 floor");
}

// What the device has and its owner did not enable is off. What is enabled may stand in the struct
// of the feature or in that of a core version.
static void what_is_not_enabled_is_off(void **state)
{
    (void) state;
    static const char *const extensions[] = {VK_KHR_SHADER_FLOAT16_INT8_EXTENSION_NAME};
    VkPhysicalDeviceShaderFloat16Int8Features float16 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES,
        .shaderFloat16 = VK_TRUE};
    VkPhysicalDeviceVulkan12Features v12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
        .bufferDeviceAddress = VK_TRUE,
        .shaderFloat16 = VK_TRUE};
    VkPhysicalDeviceVulkan11Features v11 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_FEATURES,
        .pNext = &v12}; // of no interest, but in the chain
    vkmoe_device_info info;
    vkmoe_vk_import_desc desc = import_desc();
    check_ok(vkmoe_context_info(owner, &info));
    bool f16 = strstr(info.features, "shader_float16") != NULL; // not on SwiftShader
    check_info(&desc, "buffer_device_address", "T0 floor");
    desc.features = NULL;
    check_info(&desc, "", "T0 floor");
    bda.pNext = &float16; // both, each in its own
    desc.features = &bda;
    check_bda_and_f16(&desc, f16);
    bda.pNext = NULL;
    desc.features = &v11;
    check_bda_and_f16(&desc, f16);
    desc.floor = true;
    check_info(&desc, "", "T0 floor");
    desc.floor = false;
    desc.features = &float16;
    check_info(&desc, f16 ? "shader_float16" : "", "T0 floor");

    // Below 1.2 it also takes an extension.
    desc.api_version = VK_API_VERSION_1_1;
    check_info(&desc, "", "T0 floor");
    desc.extensions = extensions;
    desc.n_extensions = 1;
    check_info(&desc, f16 ? "shader_float16" : "", "T0 floor");
}

static uint32_t n_words(const char *text)
{
    uint32_t n = *text != '\0';
    for (; *text; text++)
        n += *text == ' ';
    return n;
}

static bool device_has_extension(const char *name)
{
    VkExtensionProperties all[512];
    uint32_t n = 512;
    PFN_vkGetInstanceProcAddr get = (PFN_vkGetInstanceProcAddr) host.handles.get_instance_proc_addr;
    PFN_vkEnumerateDeviceExtensionProperties enumerate =
        (PFN_vkEnumerateDeviceExtensionProperties) get(host.handles.instance,
                                                       "vkEnumerateDeviceExtensionProperties");
    assert_int_equal(enumerate(host.handles.physical_device, NULL, &n, all), VK_SUCCESS);
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(all[i].extensionName, name) == 0)
            return true;
    return false;
}

static bool lists(const vkmoe_vk_requirements *need, const char *name)
{
    for (uint32_t i = 0; i < need->n_extensions; i++)
        if (strcmp(need->extensions[i], name) == 0)
            return true;
    return false;
}

// A caller with an instance of 1.1 who enables all that is listed has all that the device has.
static void requirements_serve_an_instance_of_1_1(void **state)
{
    (void) state;
    vkmoe_vk_requirements need;
    vkmoe_device_info info;
    VkPhysicalDeviceShaderFloat16Int8Features float16 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES,
        .shaderFloat16 = VK_TRUE};
    check_ok(vkmoe_context_info(owner, &info));
    check_ok(vkmoe_vk_get_requirements(host.handles.get_instance_proc_addr, host.handles.instance,
                                       host.handles.physical_device, &need));
    bool f16 = strstr(info.features, "shader_float16") != NULL;
    assert_int_equal(lists(&need, VK_KHR_BUFFER_DEVICE_ADDRESS_EXTENSION_NAME),
                     device_has_extension(VK_KHR_BUFFER_DEVICE_ADDRESS_EXTENSION_NAME));
    assert_int_equal(lists(&need, VK_KHR_SHADER_FLOAT16_INT8_EXTENSION_NAME),
                     f16 && device_has_extension(VK_KHR_SHADER_FLOAT16_INT8_EXTENSION_NAME));
    if (!lists(&need, VK_KHR_BUFFER_DEVICE_ADDRESS_EXTENSION_NAME) ||
        (f16 && !lists(&need, VK_KHR_SHADER_FLOAT16_INT8_EXTENSION_NAME)))
        return; // SwiftShader has it in 1.2 alone
    vkmoe_vk_import_desc desc = import_desc();
    desc.api_version = VK_API_VERSION_1_1;
    desc.extensions = need.extensions;
    desc.n_extensions = need.n_extensions;
    bda.pNext = &float16;
    desc.features = &bda;
    // The owner's device does not have the extension enabled, so its function is not to be had.
    desc.addressing = VKMOE_ADDRESSING_DESCRIPTORS;
    check_bda_and_f16(&desc, f16);
    bda.pNext = NULL;
}

static void requirements_are_data(void **state)
{
    (void) state;
    vkmoe_device_info info;
    vkmoe_vk_requirements need;
    check_ok(vkmoe_context_info(owner, &info));
    check_ok(vkmoe_vk_get_requirements(host.handles.get_instance_proc_addr, host.handles.instance,
                                       host.handles.physical_device, &need));
    assert_int_equal(need.api_version, VK_API_VERSION_1_1);
    assert_int_equal(need.queue_flags, VK_QUEUE_COMPUTE_BIT);
    // Those of the device: the owner's context has them all.
    assert_int_equal(need.n_features, n_words(info.features));
    assert_string_equal(need.features[0].member, "bufferDeviceAddress");
    for (uint32_t i = 0; i < need.n_features; i++) {
        assert_false(need.features[i].required);
        assert_int_equal(strncmp(need.features[i].structure, "VkPhysicalDevice", 16), 0);
    }
    check_fails(vkmoe_vk_get_requirements(host.handles.get_instance_proc_addr,
                                          host.handles.instance, NULL, &need),
                VKMOE_E_ARGUMENT, "physical_device is NULL");
}

static int set_up(void **state)
{
    (void) state;
    struct stack stack = {0};
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_layer_desc layer = full_layer();
    desc.device = "vulkan";
    desc.cache_dir = "";
    desc.validation = true;
    layer_data_init(&data, &layer, 13);
    fill_random(x, sizeof x / sizeof *x, 17);
    check_ok(vkmoe_context_create(&desc, &owner));
    host_init(&host, owner);
    stack.context = owner;
    check_ok(add_layer(&stack, NULL));
    check_ok(run(stack.bind, want));
    vkmoe_bind_destroy(stack.bind);
    vkmoe_plan_destroy(stack.plan);
    vkmoe_weights_destroy(stack.weights);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    host_finish(&host);
    vkmoe_context_destroy(owner);
    layer_data_finish(&data);
    return 0;
}

// The last test: a group's tear-down that fails does not fail a cmocka program.
static void validation_found_nothing(void **state)
{
    (void) state;
    assert_int_equal(vkmoe_context_validation_count(owner), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_a_queue_it_runs),
        cmocka_unit_test(without_a_queue_it_records),
        cmocka_unit_test(without_a_queue_it_does_not_run),
        cmocka_unit_test(without_a_queue_there_is_no_network),
        cmocka_unit_test(what_is_missing_is_named),
        cmocka_unit_test(what_is_not_enabled_is_off),
        cmocka_unit_test(requirements_serve_an_instance_of_1_1),
        cmocka_unit_test(requirements_are_data),
        cmocka_unit_test(validation_found_nothing),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down) != 0;
}
