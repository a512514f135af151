// SPDX-License-Identifier: MIT
// Buffers, each with memory of its own: a weights object or a bind has a handful, never one an
// expert.
#include "vulkan/vk.h"

#include <inttypes.h>

#include "base/bits.h"

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

static bool usable(VkMemoryPropertyFlags flags)
{
    return !(flags & UNUSABLE);
}

// A window into a card's memory has 256 MiB or less. A resizable BAR shows all of it, and then the
// memory is not cut into a heap for each.
enum moe_vk_memory_kind moe_vk_memory_kind(const VkPhysicalDeviceMemoryProperties *memory,
                                           bool integrated)
{
    const uint64_t window = UINT64_C(256) << 20;
    uint64_t largest = 0, visible = 0;
    uint32_t local_heaps = 0, visible_heaps = 0; // bits
    for (uint32_t i = 0; i < memory->memoryTypeCount; i++) {
        const VkMemoryType *type = &memory->memoryTypes[i];
        uint64_t size = memory->memoryHeaps[type->heapIndex].size;
        if (!(type->propertyFlags & LOCAL) || !usable(type->propertyFlags))
            continue;
        local_heaps |= 1u << type->heapIndex;
        largest = moe_max(largest, size);
        if (type->propertyFlags & VISIBLE) {
            visible_heaps |= 1u << type->heapIndex;
            visible = moe_max(visible, size);
        }
    }
    if (integrated && local_heaps && visible_heaps == local_heaps)
        return MOE_VK_UNIFIED;
    return visible > window && visible >= largest ? MOE_VK_REBAR : MOE_VK_DISCRETE;
}

const char *moe_vk_memory_kind_name(enum moe_vk_memory_kind kind)
{
    static const char *const names[] = {[MOE_VK_DISCRETE] = "discrete",
                                        [MOE_VK_REBAR] = "resizable BAR",
                                        [MOE_VK_UNIFIED] = "unified"};
    return names[kind];
}

struct preference {
    VkMemoryPropertyFlags want, avoid;
};

// Best first; a row without wishes is the last resort. Device memory that the host sees uncached is
// write-combined on many machines: reading it is slow, so kernels' results are not put there, and
// what the host writes once and in order is.
static const struct preference in_place[] = {
    {LOCAL | VISIBLE | COHERENT, CACHED}, {LOCAL | VISIBLE | COHERENT, 0}, {LOCAL | VISIBLE, 0}};
static const struct preference host_like[] = {{LOCAL | HOST, 0}};
static const struct preference local[] = {{LOCAL, VISIBLE}, {LOCAL, 0}, {0, 0}};
static const struct preference upload[] = {
    {VISIBLE | COHERENT, CACHED | LOCAL}, {VISIBLE | COHERENT, LOCAL}, {VISIBLE | COHERENT, 0}};
static const struct preference readback[] = {
    {HOST, 0}, {VISIBLE | CACHED, 0}, {VISIBLE | COHERENT, 0}};

static uint32_t first_of(const VkPhysicalDeviceMemoryProperties *memory, uint32_t allowed,
                         const struct preference *list, size_t n)
{
    uint32_t type = UINT32_MAX;
    for (size_t i = 0; type == UINT32_MAX && i < n; i++)
        type = find_type(memory, allowed, list[i].want, list[i].avoid);
    return type;
}
#define FIRST_OF(list) first_of(memory, allowed, list, MOE_COUNT(list))

uint32_t moe_vk_memory_type(const VkPhysicalDeviceMemoryProperties *memory,
                            enum moe_vk_memory_kind kind, enum moe_vk_memory_use use,
                            uint32_t allowed)
{
    uint32_t type = UINT32_MAX;
    if (use == MOE_VK_UPLOAD)
        return FIRST_OF(upload);
    if (use == MOE_VK_READBACK)
        return FIRST_OF(readback);
    if (use == MOE_VK_INPUT && kind != MOE_VK_DISCRETE)
        type = FIRST_OF(in_place);
    if (use == MOE_VK_DEVICE && kind == MOE_VK_UNIFIED)
        type = FIRST_OF(host_like);
    return type != UINT32_MAX ? type : FIRST_OF(local);
}

// ---- buffers -----------------------------------------------------------------------------------

static bool is_of_kernels(enum moe_vk_memory_use use)
{
    return use == MOE_VK_DEVICE || use == MOE_VK_INPUT;
}

enum {
    KERNELS = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_INDIRECT_BUFFER_BIT |
              VK_BUFFER_USAGE_TRANSFER_SRC_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT,
};

static enum vkmoe_status create_handle(struct moe_vk *vk, enum moe_vk_memory_use use,
                                       struct moe_vk_buffer *buffer)
{
    static const VkBufferUsageFlags usage[] = {
        [MOE_VK_DEVICE] = KERNELS,
        [MOE_VK_INPUT] = KERNELS,
        [MOE_VK_UPLOAD] = VK_BUFFER_USAGE_TRANSFER_SRC_BIT,
        [MOE_VK_READBACK] = VK_BUFFER_USAGE_TRANSFER_DST_BIT,
    };
    bool address = vk->bda && is_of_kernels(use);
    VkBufferCreateInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO,
                               .size = buffer->size,
                               .usage = usage[use] |
                                        (address ? VK_BUFFER_USAGE_SHADER_DEVICE_ADDRESS_BIT : 0)};
    VkResult result = vk->fn.vkCreateBuffer(vk->device, &info, NULL, &buffer->handle);
    return result < 0 ? moe_vk_fail(vk, result, "vkCreateBuffer") : VKMOE_OK;
}

// Where a type's heap is full the next best one is tried, but kernels get no host memory instead of
// the device's: that would be slower by far, and nobody would know.
static uint32_t next_type(const struct moe_vk *vk, enum moe_vk_memory_use use, uint32_t allowed,
                          uint32_t full)
{
    const VkMemoryType *types = vk->memory.memoryTypes;
    uint32_t type = moe_vk_memory_type(&vk->memory, vk->caps.memory_kind, use, allowed);
    if (type != UINT32_MAX && is_of_kernels(use) &&
        (types[full].propertyFlags & ~types[type].propertyFlags & LOCAL))
        return UINT32_MAX;
    return type;
}

static enum vkmoe_status allocate(struct moe_vk *vk, enum moe_vk_memory_use use, const char *name,
                                  struct moe_vk_buffer *buffer, uint32_t *type)
{
    VkMemoryRequirements need;
    vk->fn.vkGetBufferMemoryRequirements(vk->device, buffer->handle, &need);
    uint32_t allowed = need.memoryTypeBits;
    uint32_t next = moe_vk_memory_type(&vk->memory, vk->caps.memory_kind, use, allowed);
    if (next == UINT32_MAX)
        return moe_fail(VKMOE_E_UNSUPPORTED, "%s: no memory type of %s fits (bits %#x)", name,
                        vk->base.info.name, need.memoryTypeBits);
    VkMemoryAllocateFlagsInfo flags = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_FLAGS_INFO,
                                       .flags = VK_MEMORY_ALLOCATE_DEVICE_ADDRESS_BIT};
    VkMemoryAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO,
                                 .pNext = vk->bda && is_of_kernels(use) ? &flags : NULL,
                                 .allocationSize = need.size};
    VkResult result;
    do {
        info.memoryTypeIndex = *type = next;
        result = vk->fn.vkAllocateMemory(vk->device, &info, NULL, &buffer->memory);
        allowed &= ~(1u << *type);
        next = next_type(vk, use, allowed, *type);
    } while (result == VK_ERROR_OUT_OF_DEVICE_MEMORY && next != UINT32_MAX);
    buffer->allocated = need.size;
    if (result < 0)
        return moe_fail(result == VK_ERROR_OUT_OF_HOST_MEMORY ? VKMOE_E_MEMORY
                                                              : VKMOE_E_DEVICE_MEMORY,
                        "%s: %" PRIu64 " bytes of device memory: %s", name, (uint64_t) need.size,
                        moe_vk_result_name(result));
    return VKMOE_OK;
}

// Is it memory that the host uses by itself, not through staging?
static bool is_mapped(const struct moe_vk *vk, enum moe_vk_memory_use use,
                      VkMemoryPropertyFlags flags)
{
    if (use == MOE_VK_DEVICE)
        return vk->caps.memory_kind == MOE_VK_UNIFIED && (flags & HOST) == HOST;
    if (use == MOE_VK_INPUT)
        return vk->caps.memory_kind != MOE_VK_DISCRETE && (flags & VISIBLE);
    return true;
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
    uint32_t type = 0;
    TRY(create_handle(vk, use, out));
    TRY(allocate(vk, use, name, out, &type));
    VK_TRY(vk, vk->fn.vkBindBufferMemory(vk->device, out->handle, out->memory, 0));
    VkMemoryPropertyFlags flags = vk->memory.memoryTypes[type].propertyFlags;
    out->coherent = flags & COHERENT;
    out->cached = flags & CACHED;
    if (is_mapped(vk, use, flags))
        VK_TRY(vk, vk->fn.vkMapMemory(vk->device, out->memory, 0, VK_WHOLE_SIZE, 0, &out->mapped));
    if (is_of_kernels(use))
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

VkMappedMemoryRange moe_vk_mapped_range(const struct moe_vk_buffer *buffer, uint64_t atom_size,
                                        uint64_t offset, uint64_t size)
{
    uint64_t begin = offset - offset % atom_size, end = moe_align_up(offset + size, atom_size);
    return (VkMappedMemoryRange){.sType = VK_STRUCTURE_TYPE_MAPPED_MEMORY_RANGE,
                                 .memory = buffer->memory,
                                 .offset = begin,
                                 // the memory need not end with an atom
                                 .size = end < buffer->allocated ? end - begin : VK_WHOLE_SIZE};
}

// Both functions of Vulkan have this type.
static enum vkmoe_status synchronise(struct moe_vk *vk, const struct moe_vk_buffer *buffer,
                                     uint64_t offset, uint64_t size,
                                     PFN_vkFlushMappedMemoryRanges function, const char *name)
{
    if (buffer->coherent || size == 0)
        return VKMOE_OK;
    VkMappedMemoryRange range = moe_vk_mapped_range(buffer, vk->caps.atom_size, offset, size);
    VkResult result = function(vk->device, 1, &range);
    return result < 0 ? moe_vk_fail(vk, result, name) : VKMOE_OK;
}

enum vkmoe_status moe_vk_buffer_flush(struct moe_vk *vk, const struct moe_vk_buffer *buffer,
                                      uint64_t offset, uint64_t size)
{
    return synchronise(vk, buffer, offset, size, vk->fn.vkFlushMappedMemoryRanges,
                       "vkFlushMappedMemoryRanges");
}

enum vkmoe_status moe_vk_buffer_invalidate(struct moe_vk *vk, const struct moe_vk_buffer *buffer,
                                           uint64_t offset, uint64_t size)
{
    return synchronise(vk, buffer, offset, size, vk->fn.vkInvalidateMappedMemoryRanges,
                       "vkInvalidateMappedMemoryRanges");
}
