// SPDX-License-Identifier: MIT
// A program that owns its Vulkan device and records a Mixture-of-Experts layer between two passes
// of its own: one command buffer, one submit. To copy from: your renderer's passes stand where this
// one fills and copies buffers.
//
// The layer has two experts: the first doubles a token, the second multiplies it by ten. The router
// sends a token to the second when its numbers are positive, to the first when they are negative.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <vulkan/vulkan.h>
#include <vkmoe/vulkan.h>

enum { N_TOKENS = 6, WIDTH = 4, ROW = WIDTH * sizeof(float), SIZE = N_TOKENS * ROW };

#define VK(call) check((call) == VK_SUCCESS, #call)
#define MOE(call) check((call) == VKMOE_OK, #call)
static void check(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "%s failed. vkmoe says: %s\n", what, vkmoe_error_text());
        exit(1);
    }
}

// ---- what every engine has already -------------------------------------------------------------
static VkInstance instance;
static VkPhysicalDevice physical;
static VkDevice device;
static VkQueue queue;
static uint32_t family;
enum { X, Y, RESULT, N_BUFFERS };
static VkBuffer buffers[N_BUFFERS];
static VkDeviceMemory memory[N_BUFFERS];

static void make_device(void)
{
    VkApplicationInfo app = {VK_STRUCTURE_TYPE_APPLICATION_INFO, .apiVersion = VK_API_VERSION_1_1};
    VkInstanceCreateInfo info = {VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO, .pApplicationInfo = &app};
    VK(vkCreateInstance(&info, NULL, &instance));
    uint32_t n = 1;
    check(vkEnumeratePhysicalDevices(instance, &n, &physical) >= 0 && n == 1, "a Vulkan device");

    // What the layer asks for, before the device is made. It needs no feature.
    vkmoe_vk_requirements need;
    MOE(vkmoe_vk_get_requirements((void *) vkGetInstanceProcAddr, instance, physical, &need));
    VkQueueFamilyProperties families[16];
    n = 16;
    vkGetPhysicalDeviceQueueFamilyProperties(physical, &n, families);
    while (family < n && (families[family].queueFlags & need.queue_flags) != need.queue_flags)
        family++;
    check(family < n, "finding a queue family");

    float priority = 1;
    VkDeviceQueueCreateInfo queues = {VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                      .queueFamilyIndex = family, .queueCount = 1,
                                      .pQueuePriorities = &priority};
    VkDeviceCreateInfo device_info = {VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                                      .queueCreateInfoCount = 1, .pQueueCreateInfos = &queues};
    VK(vkCreateDevice(physical, &device_info, NULL, &device));
    vkGetDeviceQueue(device, family, 0, &queue);
}

static void make_buffer(int i)
{
    // Storage for the layer, transfer for the other passes.
    const VkBufferUsageFlags usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT |
        VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT;
    VkMemoryRequirements need;
    VkPhysicalDeviceMemoryProperties types;
    enum { WANT = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT };
    VkBufferCreateInfo info = {VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO, .size = SIZE, .usage = usage};
    VK(vkCreateBuffer(device, &info, NULL, &buffers[i]));
    vkGetBufferMemoryRequirements(device, buffers[i], &need);
    vkGetPhysicalDeviceMemoryProperties(physical, &types);
    uint32_t type = 0;
    while (!(need.memoryTypeBits >> type & 1) ||
           (types.memoryTypes[type].propertyFlags & WANT) != WANT)
        type++;
    VkMemoryAllocateInfo allocate = {VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO, NULL, need.size, type};
    VK(vkAllocateMemory(device, &allocate, NULL, &memory[i]));
    VK(vkBindBufferMemory(device, buffers[i], memory[i], 0));
}

static void barrier(VkCommandBuffer cmd, VkPipelineStageFlags from, VkAccessFlags wrote,
                    VkPipelineStageFlags to, VkAccessFlags reads)
{
    VkMemoryBarrier b = {VK_STRUCTURE_TYPE_MEMORY_BARRIER, NULL, wrote, reads};
    vkCmdPipelineBarrier(cmd, from, to, 0, 1, &b, 0, NULL, 0, NULL);
}

// ---- what vkmoe adds ---------------------------------------------------------------------------
static vkmoe_context *context;
static vkmoe_weights *weights;
static vkmoe_plan *plan;
static vkmoe_bind *bind;

static void make_layer(void)
{
    vkmoe_vk_import_desc import = vkmoe_vk_import_desc_init(); // no queue: it will only record
    import.get_instance_proc_addr = (void *) vkGetInstanceProcAddr;
    import.instance = instance, import.physical_device = physical, import.device = device;
    import.queue_family = family, import.api_version = VK_API_VERSION_1_1;
    MOE(vkmoe_context_import_vk(&import, &context));

    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = 2, layer.top_k = 1;
    layer.d_model = layer.d_ff = WIDTH;
    layer.norm = VKMOE_NORM_SUM_PLUS_EPS; // one expert, so its gate weight is 1
    static const float one[16] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};
    static const float two[16] = {2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2};
    static const float ten[16] = {10, 0, 0, 0, 0, 10, 0, 0, 0, 0, 10, 0, 0, 0, 0, 10};
    static const float signs[2 * WIDTH] = {-1, -1, -1, -1, 1, 1, 1, 1};
    const vkmoe_expert_tensors experts[2] = {
        {.up = {.data = one, .type = VKMOE_F32}, .down = {.data = two, .type = VKMOE_F32}},
        {.up = {.data = one, .type = VKMOE_F32}, .down = {.data = ten, .type = VKMOE_F32}},
    };
    const vkmoe_router_tensors router = {.weight = {.data = signs, .type = VKMOE_F32}};
    vkmoe_weights_desc w = vkmoe_weights_desc_init();
    w.layer = &layer, w.router = &router, w.experts = experts;
    MOE(vkmoe_weights_create(context, &w, &weights));

    vkmoe_plan_desc p = vkmoe_plan_desc_init();
    p.layer = &layer, p.max_tokens = N_TOKENS;
    MOE(vkmoe_plan_create(context, &p, &plan));

    vkmoe_vk_io io = vkmoe_vk_io_init();
    io.x = (vkmoe_vk_buffer){buffers[X], 0, SIZE}, io.y = (vkmoe_vk_buffer){buffers[Y], 0, SIZE};
    vkmoe_bind_desc b = vkmoe_bind_desc_init();
    b.vk_io = &io;
    MOE(vkmoe_bind_create(plan, weights, &b, &bind));
}

// ---- own pass, layer, own pass -----------------------------------------------------------------
static void record(VkCommandBuffer cmd)
{
    MOE(vkmoe_vk_weights_record_upload(weights, cmd));
    for (uint32_t t = 0; t < N_TOKENS; t++) {
        float value = t % 2 ? -(float) t : (float) t + 1;
        const float row[WIDTH] = {value, value, value, value};
        vkCmdUpdateBuffer(cmd, buffers[X], t * ROW, ROW, row);
    }
    barrier(cmd, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
            VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_READ_BIT);

    MOE(vkmoe_vk_record(bind, cmd, N_TOKENS, 0, UINT32_MAX));

    barrier(cmd, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
            VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_READ_BIT);
    vkCmdCopyBuffer(cmd, buffers[Y], buffers[RESULT], 1, &(VkBufferCopy){.size = SIZE});
    barrier(cmd, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
            VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_READ_BIT);
}

int main(void)
{
    VkCommandPool pool;
    VkCommandBuffer cmd;
    make_device();
    for (int i = 0; i < N_BUFFERS; i++)
        make_buffer(i);
    make_layer();

    VkCommandPoolCreateInfo of = {VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO, NULL, 0, family};
    VK(vkCreateCommandPool(device, &of, NULL, &pool));
    VkCommandBufferAllocateInfo cmd_info = {VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO, NULL,
                                            pool, VK_COMMAND_BUFFER_LEVEL_PRIMARY, 1};
    VK(vkAllocateCommandBuffers(device, &cmd_info, &cmd));
    VkCommandBufferBeginInfo begin = {VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    VK(vkBeginCommandBuffer(cmd, &begin));
    record(cmd);
    VK(vkEndCommandBuffer(cmd));
    VkSubmitInfo submit = {VK_STRUCTURE_TYPE_SUBMIT_INFO, NULL, 0, NULL, NULL, 1, &cmd, 0, NULL};
    VK(vkQueueSubmit(queue, 1, &submit, VK_NULL_HANDLE));
    VK(vkQueueWaitIdle(queue)); // an engine has its fence for this

    float *values;
    int n_wrong = 0;
    VK(vkMapMemory(device, memory[RESULT], 0, SIZE, 0, (void **) &values));
    for (int t = 0; t < N_TOKENS; t++) {
        float want = t % 2 ? -2 * (float) t : 10 * ((float) t + 1);
        printf("token %d: expert %d gives %g\n", t, t % 2 ? 0 : 1, values[t * WIDTH]);
        for (int i = 0; i < WIDTH; i++)
            n_wrong += !(fabsf(values[t * WIDTH + i] - want) <= 1e-5f * fabsf(want));
    }

    vkmoe_bind_destroy(bind); // nothing is in flight any more
    vkmoe_plan_destroy(plan);
    vkmoe_weights_destroy(weights);
    vkmoe_context_destroy(context);
    vkDestroyCommandPool(device, pool, NULL);
    for (int i = 0; i < N_BUFFERS; i++) {
        vkDestroyBuffer(device, buffers[i], NULL);
        vkFreeMemory(device, memory[i], NULL);
    }
    vkDestroyDevice(device, NULL);
    vkDestroyInstance(instance, NULL);
    return n_wrong > 0;
}
