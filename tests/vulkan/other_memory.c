// SPDX-License-Identifier: MIT
#include "other_memory.h"
#include "interpose.h"

#include <stdlib.h>
#include <string.h>

struct other_memory other_memory;

enum {
    LOCAL = VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT,
    VISIBLE = VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT,
    COHERENT = VK_MEMORY_PROPERTY_HOST_COHERENT_BIT,
    CACHED = VK_MEMORY_PROPERTY_HOST_CACHED_BIT,
    POISON = 0xa5,
};

// interpose.discrete: the types alone, with the device's own behaviour, as contexts from before and
// after may be in use together.
static const VkPhysicalDeviceMemoryProperties discrete = {
    .memoryTypeCount = 3,
    .memoryTypes = {{LOCAL, 0}, {VISIBLE | COHERENT, 1}, {VISIBLE | COHERENT | CACHED, 1}},
    .memoryHeapCount = 2,
    .memoryHeaps = {{UINT64_C(16) << 30, VK_MEMORY_HEAP_DEVICE_LOCAL_BIT}, {UINT64_C(32) << 30, 0}},
};

static const VkPhysicalDeviceMemoryProperties *types(void)
{
    if (other_memory.memory)
        return other_memory.memory;
    return interpose.discrete ? &discrete : NULL;
}

static void misuse(const char *what)
{
    if (!other_memory.error)
        other_memory.error = what;
}

static uint32_t real_type; // which all the others are made of

#define REAL(name) static PFN_##name real_##name
REAL(vkGetPhysicalDeviceMemoryProperties);
static VKAPI_ATTR void VKAPI_CALL our_vkGetPhysicalDeviceMemoryProperties(
    VkPhysicalDevice physical, VkPhysicalDeviceMemoryProperties *out)
{
    const VkMemoryPropertyFlags want = VISIBLE | COHERENT;
    real_vkGetPhysicalDeviceMemoryProperties(physical, out);
    real_type = 0;
    while ((out->memoryTypes[real_type].propertyFlags & want) != want)
        real_type++;
    if (types())
        *out = *types();
}

REAL(vkGetPhysicalDeviceProperties2);
static VKAPI_ATTR void VKAPI_CALL our_vkGetPhysicalDeviceProperties2(
    VkPhysicalDevice physical, VkPhysicalDeviceProperties2 *out)
{
    real_vkGetPhysicalDeviceProperties2(physical, out);
    if (!other_memory.memory)
        return;
    out->properties.deviceType = other_memory.type;
    out->properties.limits.nonCoherentAtomSize = other_memory.atom_size;
}

REAL(vkGetBufferMemoryRequirements);
static VKAPI_ATTR void VKAPI_CALL our_vkGetBufferMemoryRequirements(VkDevice device,
                                                                    VkBuffer buffer,
                                                                    VkMemoryRequirements *out)
{
    real_vkGetBufferMemoryRequirements(device, buffer, out);
    if (types())
        out->memoryTypeBits = (1u << types()->memoryTypeCount) - 1;
}

// ---- memory ------------------------------------------------------------------------------------

enum { MAX_BLOCKS = 256 };
static struct block {
    VkDeviceMemory memory;
    VkDeviceSize size;
    uint32_t heap;
    VkMemoryPropertyFlags flags;
    unsigned char *real, *seen; // by the device; by the host: NULL if that is the same
} blocks[MAX_BLOCKS];

static struct block *block_of(VkDeviceMemory memory)
{
    for (int i = 0; i < MAX_BLOCKS; i++)
        if (blocks[i].memory == memory)
            return &blocks[i];
    return NULL;
}

static bool has_room(const VkMemoryAllocateInfo *info, uint32_t heap)
{
    VkDeviceSize size = info->allocationSize;
    for (int i = 0; i < MAX_BLOCKS; i++)
        size += blocks[i].memory && blocks[i].heap == heap ? blocks[i].size : 0;
    return size <= types()->memoryHeaps[heap].size;
}

REAL(vkAllocateMemory);
static VKAPI_ATTR VkResult VKAPI_CALL our_vkAllocateMemory(VkDevice device,
                                                           const VkMemoryAllocateInfo *info,
                                                           const VkAllocationCallbacks *allocator,
                                                           VkDeviceMemory *out)
{
    VkMemoryAllocateInfo made = *info;
    made.memoryTypeIndex = real_type;
    if (!other_memory.memory)
        return real_vkAllocateMemory(device, types() ? &made : info, allocator, out);
    const VkMemoryType *type = &types()->memoryTypes[info->memoryTypeIndex];
    if (!has_room(info, type->heapIndex))
        return VK_ERROR_OUT_OF_DEVICE_MEMORY;
    VkResult result = real_vkAllocateMemory(device, &made, allocator, out);
    if (result != VK_SUCCESS)
        return result;
    struct block *block = block_of(VK_NULL_HANDLE);
    if (!block)
        abort();
    *block = (struct block){.memory = *out,
                            .size = info->allocationSize,
                            .heap = type->heapIndex,
                            .flags = type->propertyFlags};
    other_memory.allocated[info->memoryTypeIndex] += info->allocationSize;
    return VK_SUCCESS;
}

// Nothing to read fast: then the host reads from what there is.
static bool none_is_cached(void)
{
    VkMemoryPropertyFlags all = 0;
    for (uint32_t i = 0; i < types()->memoryTypeCount; i++)
        all |= types()->memoryTypes[i].propertyFlags;
    return !(all & CACHED);
}

static bool is_seen_at_once(const struct block *block)
{
    const VkMemoryPropertyFlags host = CACHED | COHERENT;
    return (block->flags & host) == host || none_is_cached();
}

static void note_mapped(const struct block *block)
{
    for (uint32_t i = 0; i < types()->memoryTypeCount; i++)
        if (types()->memoryTypes[i].propertyFlags == block->flags &&
            types()->memoryTypes[i].heapIndex == block->heap)
            other_memory.mapped |= 1u << i;
}

REAL(vkMapMemory);
static VKAPI_ATTR VkResult VKAPI_CALL our_vkMapMemory(VkDevice device, VkDeviceMemory memory,
                                                      VkDeviceSize offset, VkDeviceSize size,
                                                      VkMemoryMapFlags flags, void **out)
{
    struct block *block = other_memory.memory ? block_of(memory) : NULL;
    if (block && !(block->flags & VISIBLE)) {
        misuse("memory is mapped that the host cannot see");
        return VK_ERROR_MEMORY_MAP_FAILED;
    }
    VkResult result = real_vkMapMemory(device, memory, offset, size, flags, out);
    if (!block || result != VK_SUCCESS)
        return result;
    note_mapped(block);
    block->real = *out;
    if (is_seen_at_once(block))
        return VK_SUCCESS;
    if (offset != 0 || size != VK_WHOLE_SIZE || !(block->seen = malloc(block->size)))
        abort();
    memset(block->seen, POISON, block->size);
    *out = block->seen;
    return VK_SUCCESS;
}

REAL(vkFreeMemory);
static VKAPI_ATTR void VKAPI_CALL our_vkFreeMemory(VkDevice device, VkDeviceMemory memory,
                                                   const VkAllocationCallbacks *allocator)
{
    struct block *block = memory ? block_of(memory) : NULL;
    if (block) {
        free(block->seen);
        *block = (struct block){0};
    }
    real_vkFreeMemory(device, memory, allocator);
}

// The bytes of a range; NULL: it is none.
static struct block *check_range(const VkMappedMemoryRange *range, VkDeviceSize *size)
{
    struct block *block = block_of(range->memory);
    const VkDeviceSize atom = other_memory.atom_size;
    if (!block || !block->seen || range->offset % atom != 0 || range->offset >= block->size) {
        misuse("a range that is not mapped, or begins within an atom");
        return NULL;
    }
    *size = range->size == VK_WHOLE_SIZE ? block->size - range->offset : range->size;
    if (range->offset + *size > block->size ||
        (range->offset + *size < block->size && *size % atom != 0)) {
        misuse("a range that ends within an atom, or behind the memory");
        return NULL;
    }
    return block;
}

// What the program sees goes to the memory, or the other way round.
static void copy_ranges(uint32_t n, const VkMappedMemoryRange *ranges, bool from_seen)
{
    for (uint32_t i = 0; i < n; i++) {
        VkDeviceSize size;
        struct block *block = check_range(&ranges[i], &size);
        if (!block)
            continue;
        unsigned char *seen = block->seen + ranges[i].offset;
        unsigned char *real = block->real + ranges[i].offset;
        memcpy(from_seen ? real : seen, from_seen ? seen : real, size);
    }
}

REAL(vkFlushMappedMemoryRanges);
static VKAPI_ATTR VkResult VKAPI_CALL our_vkFlushMappedMemoryRanges(
    VkDevice device, uint32_t n, const VkMappedMemoryRange *ranges)
{
    if (!other_memory.memory)
        return real_vkFlushMappedMemoryRanges(device, n, ranges);
    copy_ranges(n, ranges, true);
    other_memory.n_flushes += n;
    return VK_SUCCESS;
}

REAL(vkInvalidateMappedMemoryRanges);
static VKAPI_ATTR VkResult VKAPI_CALL our_vkInvalidateMappedMemoryRanges(
    VkDevice device, uint32_t n, const VkMappedMemoryRange *ranges)
{
    if (!other_memory.memory)
        return real_vkInvalidateMappedMemoryRanges(device, n, ranges);
    copy_ranges(n, ranges, false);
    other_memory.n_invalidations += n;
    return VK_SUCCESS;
}

// ---- submissions -------------------------------------------------------------------------------

enum { MAX_WAITING = 8 };
static struct {
    VkQueue queue;
    VkCommandBuffer command;
    VkFence fence;
} waiting[MAX_WAITING];
static uint32_t n_waiting;

REAL(vkQueueSubmit);
static VKAPI_ATTR VkResult VKAPI_CALL our_vkQueueSubmit(VkQueue queue, uint32_t n,
                                                        const VkSubmitInfo *submits, VkFence fence)
{
    if (!other_memory.memory)
        return real_vkQueueSubmit(queue, n, submits, fence);
    if (n != 1 || submits->commandBufferCount != 1 || n_waiting == MAX_WAITING)
        abort();
    waiting[n_waiting].queue = queue;
    waiting[n_waiting].command = submits->pCommandBuffers[0];
    waiting[n_waiting++].fence = fence;
    if (n_waiting > other_memory.most_waiting)
        other_memory.most_waiting = n_waiting;
    return VK_SUCCESS;
}

static VkResult begin_work(void)
{
    VkResult result = VK_SUCCESS;
    for (int i = 0; n_waiting > 0 && i < MAX_BLOCKS; i++)
        if (blocks[i].seen && !(blocks[i].flags & CACHED))
            memcpy(blocks[i].real, blocks[i].seen, blocks[i].size);
    for (uint32_t i = 0; result == VK_SUCCESS && i < n_waiting; i++) {
        const VkSubmitInfo submit = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                                     .commandBufferCount = 1,
                                     .pCommandBuffers = &waiting[i].command};
        result = real_vkQueueSubmit(waiting[i].queue, 1, &submit, waiting[i].fence);
    }
    n_waiting = 0;
    return result;
}

REAL(vkWaitForFences);
static VKAPI_ATTR VkResult VKAPI_CALL our_vkWaitForFences(VkDevice device, uint32_t n,
                                                          const VkFence *fences, VkBool32 all,
                                                          uint64_t timeout)
{
    VkResult result = begin_work();
    return result == VK_SUCCESS ? real_vkWaitForFences(device, n, fences, all, timeout) : result;
}

REAL(vkQueueWaitIdle);
static VKAPI_ATTR VkResult VKAPI_CALL our_vkQueueWaitIdle(VkQueue queue)
{
    VkResult result = begin_work();
    return result == VK_SUCCESS ? real_vkQueueWaitIdle(queue) : result;
}

REAL(vkDeviceWaitIdle);
static VKAPI_ATTR VkResult VKAPI_CALL our_vkDeviceWaitIdle(VkDevice device)
{
    VkResult result = begin_work();
    return result == VK_SUCCESS ? real_vkDeviceWaitIdle(device) : result;
}

REAL(vkCmdCopyBuffer);
static VKAPI_ATTR void VKAPI_CALL our_vkCmdCopyBuffer(VkCommandBuffer cmd, VkBuffer from,
                                                      VkBuffer to, uint32_t n,
                                                      const VkBufferCopy *copies)
{
    for (uint32_t i = 0; i < n; i++)
        other_memory.copied += copies[i].size;
    real_vkCmdCopyBuffer(cmd, from, to, n, copies);
}

PFN_vkVoidFunction other_memory_call(const char *name, PFN_vkVoidFunction real)
{
#define LOOK_UP(call)                           \
    if (strcmp(name, #call) == 0) {             \
        real_##call = (PFN_##call) real;        \
        return (PFN_vkVoidFunction) our_##call; \
    }
    LOOK_UP(vkGetPhysicalDeviceMemoryProperties)
    LOOK_UP(vkGetPhysicalDeviceProperties2)
    LOOK_UP(vkGetBufferMemoryRequirements)
    LOOK_UP(vkAllocateMemory)
    LOOK_UP(vkMapMemory)
    LOOK_UP(vkFreeMemory)
    LOOK_UP(vkFlushMappedMemoryRanges)
    LOOK_UP(vkInvalidateMappedMemoryRanges)
    LOOK_UP(vkQueueSubmit)
    LOOK_UP(vkWaitForFences)
    LOOK_UP(vkQueueWaitIdle)
    LOOK_UP(vkDeviceWaitIdle)
    LOOK_UP(vkCmdCopyBuffer)
#undef LOOK_UP
    return real;
}
