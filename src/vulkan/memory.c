// SPDX-License-Identifier: MIT
// Buffers, each with memory of its own: a weights object or a bind has a handful, never one an
// expert.
#include "vulkan/vk.h"

#include <inttypes.h>

enum {
    LOCAL = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
    VISIBLE = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
    COHERENT = VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
    CACHED = VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
    HOST = VISIBLE | COHERENT | CACHED, // the host reads and writes it like its own
    // Needs a feature that we do not enable, or is not for buffers.
    UNUSABLE = VK_MEMORY_PROPERTY_LAZILY_ALLOCATED_BIT | VK_MEMORY_PROPERTY_PROTECTED_BIT |
               VK_MEMORY_PROPERTY_DEVICE_COHERENT_BIT_AMD |
               VK_MEMORY_PROPERTY_DEVICE_UNCACHED_BIT_AMD |
               VK_MEMORY_PROPERTY_RDMA_CAPABLE_BIT_NV,
};

// The first type with all of `want` and none of `avoid`; UINT32_MAX if there is none.
static uint32_t find_type(const VkPhysicalDeviceMemoryProperties *memory, uint32_t allowed,
                          VkMemoryPropertyFlags want, VkMemoryPropertyFlags avoid)
{
    avoid |= UNUSABLE;
    for (uint32_t i = 0; i < memory->memoryTypeCount; i++) {
        VkMemoryPropertyFlags flags = memory->memoryTypes[i].propertyFlags;
        if ((allowed & (1u << i)) && (flags & want) == want && !(flags & avoid))
            return i;
    }
    return UINT32_MAX;
}

// Preferences of a use, best first. Device memory that the host sees uncached is write-combined on
// many machines: reading it is slow, so such memory is treated as if the host could not see it.
uint32_t moe_vk_memory_type(const VkPhysicalDeviceMemoryProperties *memory, bool unified,
                            enum moe_vk_memory_use use, uint32_t allowed)
{
    static const struct {
        VkMemoryPropertyFlags want, avoid;
    } lists[3][4] = {
        [MOE_VK_DEVICE] = {{LOCAL, VISIBLE}, {LOCAL, 0}, {0, 0}, {0, 0}},
        [MOE_VK_UPLOAD] = {{VISIBLE | COHERENT, CACHED | LOCAL},
                           {VISIBLE | COHERENT, LOCAL},
                           {VISIBLE | COHERENT, 0},
                           {VISIBLE | COHERENT, 0}},
        [MOE_VK_READBACK] = {{VISIBLE | CACHED | COHERENT, 0},
                             {VISIBLE | CACHED, 0},
                             {VISIBLE | COHERENT, 0},
                             {VISIBLE | COHERENT, 0}},
    };
    if (use == MOE_VK_DEVICE && unified) {
        uint32_t type = find_type(memory, allowed, LOCAL | HOST, 0);
        if (type != UINT32_MAX)
            return type;
    }
    for (int i = 0; i < 4; i++) {
        uint32_t type = find_type(memory, allowed, lists[use][i].want, lists[use][i].avoid);
        if (type != UINT32_MAX)
            return type;
    }
    return UINT32_MAX;
}

static enum vkmoe_status create_handle(struct moe_vk *vk, enum moe_vk_memory_use use,
                                       struct moe_vk_buffer *buffer)
{
    static const VkBufferUsageFlags usage[] = {
        [MOE_VK_DEVICE] = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT |
                          VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
        [MOE_VK_UPLOAD] = VK_BUFFER_USAGE_TRANSFER_SRC_BIT,
        [MOE_VK_READBACK] = VK_BUFFER_USAGE_TRANSFER_DST_BIT,
    };
    bool address = vk->bda && use == MOE_VK_DEVICE;
    VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                               .size = buffer->size,
                               .usage = usage[use] |
                                        (address ? VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT : 0)};
    VkResult result = vk->fn.vkCreateBuffer(vk->device, &info, NULL, &buffer->handle);
    return result < 0 ? moe_vk_fail(vk, result, "vkCreateBuffer") : VKMOE_OK;
}

static enum vkmoe_status allocate(struct moe_vk *vk, enum moe_vk_memory_use use, const char *name,
                                  struct moe_vk_buffer *buffer, uint32_t *type)
{
    VkMemoryRequirements need;
    vk->fn.vkGetBufferMemoryRequirements(vk->device, buffer->handle, &need);
    *type = moe_vk_memory_type(&vk->memory, vk->caps.unified, use, need.memoryTypeBits);
    if (*type == UINT32_MAX)
        return moe_fail(VKMOE_E_UNSUPPORTED, "%s: no memory type of %s fits (bits %#x)", name,
                        vk->base.info.name, need.memoryTypeBits);
    VkMemoryAllocateFlagsInfo flags = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                       .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT};
    VkMemoryAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                 .pNext = vk->bda && use == MOE_VK_DEVICE ? &flags : NULL,
                                 .allocationSize = need.size,
                                 .memoryTypeIndex = *type};
    VkResult result = vk->fn.vkAllocateMemory(vk->device, &info, NULL, &buffer->memory);
    if (result < 0)
        return moe_fail(result == VK_ERROR_OUT_OF_HOST_MEMORY ? VKMOE_E_MEMORY
                                                              : VKMOE_E_DEVICE_MEMORY,
                        "%s: %" PRIu64 " bytes of device memory: %s", name, (uint64_t) need.size,
                        moe_vk_result_name(result));
    return VKMOE_OK;
}

uint64_t moe_vk_buffer_address(const struct moe_vk *vk, VkBuffer buffer)
{
    VkBufferDeviceAddressInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO,
                                      .buffer = buffer};
    return vk->bda ? vk->fn.vkGetBufferDeviceAddress(vk->device, &info) : 0;
}

enum vkmoe_status moe_vk_buffer_create(struct moe_vk *vk, uint64_t size, enum moe_vk_memory_use use,
                                       const char *name, struct moe_vk_buffer *out)
{
    enum vkmoe_status status = VKMOE_OK;
    *out = (struct moe_vk_buffer){.size = size};
    if (size > vk->caps.max_allocation)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "%s: %" PRIu64 " bytes; %s allows %" PRIu64 " in one allocation", name,
                        size, vk->base.info.name, vk->caps.max_allocation);
    uint32_t type;
    TRY(create_handle(vk, use, out));
    TRY(allocate(vk, use, name, out, &type));
    VK_TRY(vk, vk->fn.vkBindBufferMemory(vk->device, out->handle, out->memory, 0));
    VkMemoryPropertyFlags flags = vk->memory.memoryTypes[type].propertyFlags;
    out->coherent = flags & COHERENT;
    if (use != MOE_VK_DEVICE || (vk->caps.unified && (flags & HOST) == HOST))
        VK_TRY(vk, vk->fn.vkMapMemory(vk->device, out->memory, 0, VK_WHOLE_SIZE, 0, &out->mapped));
    if (use == MOE_VK_DEVICE)
        out->address = moe_vk_buffer_address(vk, out->handle);
    moe_vk_name(vk, VK_OBJECT_TYPE_BUFFER, (uint64_t) out->handle, name);
    return VKMOE_OK;

fail:
    moe_vk_buffer_destroy(vk, out);
    return status;
}

void moe_vk_buffer_destroy(struct moe_vk *vk, struct moe_vk_buffer *buffer)
{
    if (buffer->handle)
        vk->fn.vkDestroyBuffer(vk->device, buffer->handle, NULL);
    if (buffer->memory)
        vk->fn.vkFreeMemory(vk->device, buffer->memory, NULL); // unmaps too
    *buffer = (struct moe_vk_buffer){0};
}

enum vkmoe_status moe_vk_buffer_invalidate(struct moe_vk *vk, const struct moe_vk_buffer *buffer)
{
    if (buffer->coherent)
        return VKMOE_OK;
    VkMappedMemoryRange range = {.sType = VK_STRUCTURE_TYPE_MAPPED_MEMORY_RANGE,
                                 .memory = buffer->memory,
                                 .size = VK_WHOLE_SIZE};
    VkResult result = vk->fn.vkInvalidateMappedMemoryRanges(vk->device, 1, &range);
    return result < 0 ? moe_vk_fail(vk, result, "vkInvalidateMappedMemoryRanges") : VKMOE_OK;
}
