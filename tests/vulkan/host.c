// SPDX-License-Identifier: MIT
#include "host.h"

#include <vkmoe/bench.h>

#include <stdio.h>

static void log_line(void *user, enum vkmoe_log_level level, const char *text)
{
    (void) user;
    fprintf(stderr, "%d: %s\n", level, text);
}

bool host_context_desc(int argc, char **argv, vkmoe_host *services, vkmoe_context_desc *out)
{
    const char *mode = argc == 2 ? argv[1] : "";
    *services = vkmoe_host_init();
    services->log = log_line;
    *out = vkmoe_context_desc_init();
    out->host = services;
    out->device = "vulkan";
    out->cache_dir = "";
    out->validation = true;
    out->floor = strcmp(mode, "floor") == 0;
    out->addressing = strcmp(mode, "bda") == 0           ? VKMOE_ADDRESSING_BDA
                      : strcmp(mode, "descriptors") == 0 ? VKMOE_ADDRESSING_DESCRIPTORS
                                                         : VKMOE_ADDRESSING_AUTO;
    return out->floor || out->addressing != VKMOE_ADDRESSING_AUTO;
}

static void need(VkResult result)
{
    assert_int_equal(result, VK_SUCCESS);
}

bool host_has_variant(vkmoe_context *context, const char *name)
{
    enum { MOST = 32 };
    vkmoe_kernel_info kernels[MOST];
    uint32_t n = MOST;
    check_ok(vkmoe_context_kernels(context, kernels, &n));
    assert_true(n <= MOST);
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(kernels[i].verdict.kernel, name) == 0)
            return kernels[i].verdict.state == VKMOE_TUNE_USED ||
                   kernels[i].verdict.state == VKMOE_TUNE_UNTESTED;
    fail_msg("no variant has the name %s", name);
    return false;
}

void host_init(struct host *host, const vkmoe_context *context)
{
    check_ok(vkmoe_vk_get_handles(context, &host->handles));
    PFN_vkGetInstanceProcAddr get =
        (PFN_vkGetInstanceProcAddr) host->handles.get_instance_proc_addr;
#define LOAD(name)                                                \
    host->name = (PFN_##name) get(host->handles.instance, #name); \
    assert_non_null(host->name);
    HOST_FUNCTIONS(LOAD)
#undef LOAD
    VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                    .queueFamilyIndex = host->handles.queue_family};
    need(host->vkCreateCommandPool(host->handles.device, &pool, NULL, &host->pool));
}

void host_finish(struct host *host)
{
    host->vkDestroyCommandPool(host->handles.device, host->pool, NULL);
}

vkmoe_vk_import_desc host_import_desc(const vkmoe_vk_handles *handles)
{
    vkmoe_vk_import_desc desc = vkmoe_vk_import_desc_init();
    desc.get_instance_proc_addr = handles->get_instance_proc_addr;
    desc.instance = handles->instance;
    desc.physical_device = handles->physical_device;
    desc.device = handles->device;
    desc.queue_family = handles->queue_family;
    desc.api_version = VK_API_VERSION_1_3;
    return desc;
}

static uint32_t visible_type(struct host *host, uint32_t allowed)
{
    VkPhysicalDeviceMemoryProperties memory;
    VkMemoryPropertyFlags want =
        VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT | VK_MEMORY_PROPERTY_HOST_COHERENT_BIT;
    host->vkGetPhysicalDeviceMemoryProperties(host->handles.physical_device, &memory);
    for (uint32_t i = 0; i < memory.memoryTypeCount; i++)
        if ((allowed & (1u << i)) && (memory.memoryTypes[i].propertyFlags & want) == want)
            return i;
    fail_msg("no host-visible memory");
    return 0;
}

void host_buffer_init(struct host *host, uint64_t size, struct host_buffer *out)
{
    VkDevice device = host->handles.device;
    bool bda = host->handles.buffer_device_address;
    VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                               .size = size,
                               .usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT |
                                        VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT |
                                        VK_BUFFER_USAGE_TRANSFER_SRC_BIT |
                                        VK_BUFFER_USAGE_TRANSFER_DST_BIT |
                                        (bda ? VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT : 0)};
    out->size = size;
    need(host->vkCreateBuffer(device, &info, NULL, &out->handle));
    VkMemoryRequirements require;
    host->vkGetBufferMemoryRequirements(device, out->handle, &require);
    VkMemoryAllocateFlagsInfo flags = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                       .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT};
    VkMemoryAllocateInfo allocate = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                     .pNext = bda ? &flags : NULL,
                                     .allocationSize = require.size,
                                     .memoryTypeIndex = visible_type(host, require.memoryTypeBits)};
    need(host->vkAllocateMemory(device, &allocate, NULL, &out->memory));
    need(host->vkBindBufferMemory(device, out->handle, out->memory, 0));
    need(host->vkMapMemory(device, out->memory, 0, VK_WHOLE_SIZE, 0, (void **) &out->mapped));
}

void host_buffer_finish(struct host *host, struct host_buffer *buffer)
{
    host->vkDestroyBuffer(host->handles.device, buffer->handle, NULL);
    host->vkFreeMemory(host->handles.device, buffer->memory, NULL);
}

VkCommandBuffer host_begin(struct host *host, VkCommandBufferLevel level)
{
    VkCommandBuffer cmd;
    VkCommandBufferAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                        .commandPool = host->pool,
                                        .level = level,
                                        .commandBufferCount = 1};
    need(host->vkAllocateCommandBuffers(host->handles.device, &info, &cmd));
    VkCommandBufferInheritanceInfo inheritance = {
        .sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_INHERITANCE_INFO};
    VkCommandBufferBeginInfo begin = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                      .pInheritanceInfo = &inheritance};
    need(host->vkBeginCommandBuffer(cmd, &begin));
    return cmd;
}

void host_submit(struct host *host, VkCommandBuffer cmd)
{
    VkMemoryBarrier barrier = {.sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER,
                               .srcAccessMask = VK_ACCESS_SHADER_WRITE_BIT,
                               .dstAccessMask = VK_ACCESS_HOST_READ_BIT};
    host->vkCmdPipelineBarrier(cmd, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                               VK_PIPELINE_STAGE_HOST_BIT, 0, 1, &barrier, 0, NULL, 0, NULL);
    need(host->vkEndCommandBuffer(cmd));
    host_submit_again(host, cmd);
}

void host_submit_again(struct host *host, VkCommandBuffer cmd)
{
    VkSubmitInfo submit = {
        .sType = VK_STRUCTURE_TYPE_SUBMIT_INFO, .commandBufferCount = 1, .pCommandBuffers = &cmd};
    need(host->vkQueueSubmit(host->handles.queue, 1, &submit, VK_NULL_HANDLE));
    need(host->vkQueueWaitIdle(host->handles.queue));
}

bool host_driver_has_caches(const vkmoe_context *context)
{
    vkmoe_vk_handles h;
    VkPipelineCache cache;
    VkPipelineCacheHeaderVersionOne header;
    size_t size = sizeof header;
    check_ok(vkmoe_vk_get_handles(context, &h));
    PFN_vkGetInstanceProcAddr get = (PFN_vkGetInstanceProcAddr) h.get_instance_proc_addr;
#define LOAD(name) PFN_##name name = (PFN_##name) get(h.instance, #name)
    LOAD(vkCreatePipelineCache);
    LOAD(vkGetPipelineCacheData);
    LOAD(vkDestroyPipelineCache);
#undef LOAD
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
    need(vkCreatePipelineCache(h.device, &info, NULL, &cache));
    assert_true(vkGetPipelineCacheData(h.device, cache, &size, &header) >= 0);
    vkDestroyPipelineCache(h.device, cache, NULL);
    return size == sizeof header;
}
