// SPDX-License-Identifier: MIT
#include "interpose.h"
#include "claims.h"
#include "keep.h"
#include "other_memory.h"
#include "spv_table.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct interpose interpose;

PFN_vkGetInstanceProcAddr moe_vk_loader(void);
void moe_vk_loader_release(void);

// X(name, objects made, parameters, arguments) of the calls that return a VkResult.
#define FALLIBLE(X)                                                                              \
    X(vkCreateInstance, 1,                                                                       \
      (const VkInstanceCreateInfo *a, const VkAllocationCallbacks *b, VkInstance *c), (a, b, c)) \
    X(vkEnumerateInstanceVersion, 0, (uint32_t * a), (a))                                        \
    X(vkEnumerateInstanceExtensionProperties, 0,                                                 \
      (const char *a, uint32_t *b, VkExtensionProperties *c), (a, b, c))                         \
    X(vkEnumeratePhysicalDevices, 0, (VkInstance a, uint32_t * b, VkPhysicalDevice * c),         \
      (a, b, c))                                                                                 \
    X(vkEnumerateDeviceExtensionProperties, 0,                                                   \
      (VkPhysicalDevice a, const char *b, uint32_t *c, VkExtensionProperties *d), (a, b, c, d))  \
    X(vkCreateDevice, 1,                                                                         \
      (VkPhysicalDevice a, const VkDeviceCreateInfo *b, const VkAllocationCallbacks *c,          \
       VkDevice *d),                                                                             \
      (a, b, c, d))                                                                              \
    X(vkDeviceWaitIdle, 0, (VkDevice a), (a))                                                    \
    X(vkQueueWaitIdle, 0, (VkQueue a), (a))                                                      \
    X(vkQueueSubmit, 0, (VkQueue a, uint32_t b, const VkSubmitInfo *c, VkFence d), (a, b, c, d)) \
    X(vkAllocateMemory, 1,                                                                       \
      (VkDevice a, const VkMemoryAllocateInfo *b, const VkAllocationCallbacks *c,                \
       VkDeviceMemory *d),                                                                       \
      (a, b, c, d))                                                                              \
    X(vkMapMemory, 0,                                                                            \
      (VkDevice a, VkDeviceMemory b, VkDeviceSize c, VkDeviceSize d, VkMemoryMapFlags e,         \
       void **f),                                                                                \
      (a, b, c, d, e, f))                                                                        \
    X(vkFlushMappedMemoryRanges, 0, (VkDevice a, uint32_t b, const VkMappedMemoryRange *c),      \
      (a, b, c))                                                                                 \
    X(vkInvalidateMappedMemoryRanges, 0, (VkDevice a, uint32_t b, const VkMappedMemoryRange *c), \
      (a, b, c))                                                                                 \
    X(vkCreateBuffer, 1,                                                                         \
      (VkDevice a, const VkBufferCreateInfo *b, const VkAllocationCallbacks *c, VkBuffer *d),    \
      (a, b, c, d))                                                                              \
    X(vkBindBufferMemory, 0, (VkDevice a, VkBuffer b, VkDeviceMemory c, VkDeviceSize d),         \
      (a, b, c, d))                                                                              \
    X(vkCreateFence, 1,                                                                          \
      (VkDevice a, const VkFenceCreateInfo *b, const VkAllocationCallbacks *c, VkFence *d),      \
      (a, b, c, d))                                                                              \
    X(vkResetFences, 0, (VkDevice a, uint32_t b, const VkFence *c), (a, b, c))                   \
    X(vkWaitForFences, 0, (VkDevice a, uint32_t b, const VkFence *c, VkBool32 d, uint64_t e),    \
      (a, b, c, d, e))                                                                           \
    X(vkCreateCommandPool, 1,                                                                    \
      (VkDevice a, const VkCommandPoolCreateInfo *b, const VkAllocationCallbacks *c,             \
       VkCommandPool *d),                                                                        \
      (a, b, c, d))                                                                              \
    X(vkAllocateCommandBuffers, 0,                                                               \
      (VkDevice a, const VkCommandBufferAllocateInfo *b, VkCommandBuffer *c), (a, b, c))         \
    X(vkBeginCommandBuffer, 0, (VkCommandBuffer a, const VkCommandBufferBeginInfo *b), (a, b))   \
    X(vkEndCommandBuffer, 0, (VkCommandBuffer a), (a))                                           \
    X(vkCreateShaderModule, 1,                                                                   \
      (VkDevice a, const VkShaderModuleCreateInfo *b, const VkAllocationCallbacks *c,            \
       VkShaderModule *d),                                                                       \
      (a, b, c, d))                                                                              \
    X(vkCreateDescriptorSetLayout, 1,                                                            \
      (VkDevice a, const VkDescriptorSetLayoutCreateInfo *b, const VkAllocationCallbacks *c,     \
       VkDescriptorSetLayout *d),                                                                \
      (a, b, c, d))                                                                              \
    X(vkCreateDescriptorPool, 1,                                                                 \
      (VkDevice a, const VkDescriptorPoolCreateInfo *b, const VkAllocationCallbacks *c,          \
       VkDescriptorPool *d),                                                                     \
      (a, b, c, d))                                                                              \
    X(vkAllocateDescriptorSets, 0,                                                               \
      (VkDevice a, const VkDescriptorSetAllocateInfo *b, VkDescriptorSet *c), (a, b, c))         \
    X(vkCreatePipelineLayout, 1,                                                                 \
      (VkDevice a, const VkPipelineLayoutCreateInfo *b, const VkAllocationCallbacks *c,          \
       VkPipelineLayout *d),                                                                     \
      (a, b, c, d))                                                                              \
    X(vkCreatePipelineCache, 1,                                                                  \
      (VkDevice a, const VkPipelineCacheCreateInfo *b, const VkAllocationCallbacks *c,           \
       VkPipelineCache *d),                                                                      \
      (a, b, c, d))                                                                              \
    X(vkGetPipelineCacheData, 0, (VkDevice a, VkPipelineCache b, size_t * c, void *d),           \
      (a, b, c, d))                                                                              \
    X(vkCreateComputePipelines, 1,                                                               \
      (VkDevice a, VkPipelineCache b, uint32_t c, const VkComputePipelineCreateInfo *d,          \
       const VkAllocationCallbacks *e, VkPipeline *f),                                           \
      (a, b, c, d, e, f))                                                                        \
    X(vkCreateQueryPool, 1,                                                                      \
      (VkDevice a, const VkQueryPoolCreateInfo *b, const VkAllocationCallbacks *c,               \
       VkQueryPool *d),                                                                          \
      (a, b, c, d))                                                                              \
    X(vkGetQueryPoolResults, 0,                                                                  \
      (VkDevice a, VkQueryPool b, uint32_t c, uint32_t d, size_t e, void *f, VkDeviceSize g,     \
       VkQueryResultFlags h),                                                                    \
      (a, b, c, d, e, f, g, h))

// X(name, type of the object) of what undoes them: (device, object, allocator).
#define DESTROYERS(X)                                      \
    X(vkFreeMemory, VkDeviceMemory)                        \
    X(vkDestroyBuffer, VkBuffer)                           \
    X(vkDestroyFence, VkFence)                             \
    X(vkDestroyCommandPool, VkCommandPool)                 \
    X(vkDestroyShaderModule, VkShaderModule)               \
    X(vkDestroyDescriptorSetLayout, VkDescriptorSetLayout) \
    X(vkDestroyDescriptorPool, VkDescriptorPool)           \
    X(vkDestroyPipelineLayout, VkPipelineLayout)           \
    X(vkDestroyPipelineCache, VkPipelineCache)             \
    X(vkDestroyPipeline, VkPipeline)                       \
    X(vkDestroyQueryPool, VkQueryPool)

static bool fails_now(const char *name)
{
    if (!interpose.fail_name || strcmp(name, interpose.fail_name) != 0 ||
        ++interpose.n_calls != interpose.fail_at)
        return false;
    interpose.failed = true;
    return true;
}

// A kernel with a bug. The library makes a module and its pipeline in one go.
static bool module_has_bug, bound_has_bug;
static VkPipeline buggy[16];
static uint32_t n_buggy;

// On a device that is lost no work goes on, as it does on ours: so a call that then fails waits.
static PFN_vkDeviceWaitIdle wait_idle;
static VkDevice idle_device;

static VkResult fail(void)
{
    if (interpose.fail_result == VK_ERROR_DEVICE_LOST && idle_device)
        wait_idle(idle_device);
    return interpose.fail_result;
}

#define WRAP_FALLIBLE(name, n_objects, parameters, arguments)       \
    static PFN_##name real_##name;                                  \
    static VKAPI_ATTR VkResult VKAPI_CALL our_##name parameters     \
    {                                                               \
        if (fails_now(#name))                                       \
            return fail();                                          \
        VkResult result = real_##name arguments;                    \
        interpose.n_live += result == VK_SUCCESS ? (n_objects) : 0; \
        return result;                                              \
    }
FALLIBLE(WRAP_FALLIBLE)

#define WRAP_DESTROYER(name, type)                                                       \
    static PFN_##name real_##name;                                                       \
    static VKAPI_ATTR void VKAPI_CALL our_##name(VkDevice device, type object,           \
                                                 const VkAllocationCallbacks *allocator) \
    {                                                                                    \
        interpose.n_live -= object != VK_NULL_HANDLE;                                    \
        real_##name(device, object, allocator);                                          \
    }
DESTROYERS(WRAP_DESTROYER)

static PFN_vkDestroyInstance real_vkDestroyInstance;
static VKAPI_ATTR void VKAPI_CALL our_vkDestroyInstance(VkInstance instance,
                                                        const VkAllocationCallbacks *allocator)
{
    interpose.n_live -= instance != NULL;
    real_vkDestroyInstance(instance, allocator);
}

static void forget_blocks(void);
static PFN_vkDestroyDevice real_vkDestroyDevice;
static VKAPI_ATTR void VKAPI_CALL our_vkDestroyDevice(VkDevice device,
                                                      const VkAllocationCallbacks *allocator)
{
    interpose.n_live -= device != NULL;
    idle_device = NULL;
    n_buggy = 0;
    forget_blocks();
    real_vkDestroyDevice(device, allocator);
}

static PFN_vkGetPhysicalDeviceProperties2 real_vkGetPhysicalDeviceProperties2;
static VKAPI_ATTR void VKAPI_CALL our_vkGetPhysicalDeviceProperties2(
    VkPhysicalDevice physical, VkPhysicalDeviceProperties2 *out)
{
    real_vkGetPhysicalDeviceProperties2(physical, out);
    VkPhysicalDeviceLimits *limits = &out->properties.limits;
    if (interpose.max_range && limits->maxStorageBufferRange > interpose.max_range)
        limits->maxStorageBufferRange = interpose.max_range;
    for (int i = 0; i < 3 && interpose.max_groups; i++)
        if (limits->maxComputeWorkGroupCount[i] > interpose.max_groups)
            limits->maxComputeWorkGroupCount[i] = interpose.max_groups;
    for (VkBaseOutStructure *s = out->pNext; s; s = s->pNext) {
        VkPhysicalDeviceMaintenance3Properties *m = (VkPhysicalDeviceMaintenance3Properties *) s;
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES &&
            interpose.max_allocation && m->maxMemoryAllocationSize > interpose.max_allocation)
            m->maxMemoryAllocationSize = interpose.max_allocation;
    }
}

// A range beyond the limit that was told ends the program; no driver here would mind it.
static PFN_vkUpdateDescriptorSets real_vkUpdateDescriptorSets;
static VKAPI_ATTR void VKAPI_CALL our_vkUpdateDescriptorSets(
    VkDevice device, uint32_t n, const VkWriteDescriptorSet *writes, uint32_t n_copies,
    const VkCopyDescriptorSet *copies)
{
    for (uint32_t i = 0; i < n && interpose.max_range; i++)
        if (writes[i].pBufferInfo->range > interpose.max_range) {
            fprintf(stderr, "binding %u: a range of %llu bytes, the limit is %u\n",
                    writes[i].dstBinding, (unsigned long long) writes[i].pBufferInfo->range,
                    interpose.max_range);
            abort();
        }
    real_vkUpdateDescriptorSets(device, n, writes, n_copies, copies);
}

// Counts, and takes its time.
static PFN_vkVoidFunction next_submit;
static VKAPI_ATTR VkResult VKAPI_CALL slow_submit(VkQueue queue, uint32_t n,
                                                  const VkSubmitInfo *submits, VkFence fence)
{
    interpose.n_submits++;
    struct timespec pause = {.tv_sec = interpose.submit_ms / 1000,
                             .tv_nsec = interpose.submit_ms % 1000 * 1000000};
    if (interpose.submit_ms)
        nanosleep(&pause, NULL);
    return ((PFN_vkQueueSubmit) next_submit)(queue, n, submits, fence);
}

// Memory that comes back as it was given away, as far as the host had it mapped.
enum { MAX_BLOCKS = 64 };
static struct block {
    VkDeviceMemory memory; // VK_NULL_HANDLE: freed, its bytes are kept
    VkDeviceSize size;
    void *mapped, *bytes;
} blocks[MAX_BLOCKS];
static uint32_t n_blocks;

static struct block *block_of(VkDeviceMemory memory)
{
    for (uint32_t i = 0; i < n_blocks; i++)
        if (blocks[i].memory == memory)
            return &blocks[i];
    return NULL;
}

static void forget_blocks(void)
{
    for (uint32_t i = 0; i < n_blocks; i++)
        free(blocks[i].bytes);
    n_blocks = 0;
}

static VKAPI_ATTR VkResult VKAPI_CALL allocate_memory(VkDevice device,
                                                      const VkMemoryAllocateInfo *info,
                                                      const VkAllocationCallbacks *allocator,
                                                      VkDeviceMemory *out)
{
    VkResult result = our_vkAllocateMemory(device, info, allocator, out);
    if (interpose.recycle && result == VK_SUCCESS && n_blocks < MAX_BLOCKS)
        blocks[n_blocks++] = (struct block){.memory = *out, .size = info->allocationSize};
    return result;
}

static VKAPI_ATTR VkResult VKAPI_CALL map_memory(VkDevice device, VkDeviceMemory memory,
                                                 VkDeviceSize offset, VkDeviceSize size,
                                                 VkMemoryMapFlags flags, void **out)
{
    VkResult result = our_vkMapMemory(device, memory, offset, size, flags, out);
    struct block *block = interpose.recycle ? block_of(memory) : NULL;
    if (!block || result != VK_SUCCESS)
        return result;
    block->mapped = *out;
    for (uint32_t i = n_blocks; i-- > 0;)
        if (blocks[i].bytes && blocks[i].size == block->size) {
            memcpy(*out, blocks[i].bytes, block->size);
            break;
        }
    return result;
}

static VKAPI_ATTR void VKAPI_CALL free_memory(VkDevice device, VkDeviceMemory memory,
                                              const VkAllocationCallbacks *allocator)
{
    struct block *block = interpose.recycle ? block_of(memory) : NULL;
    if (block && block->mapped && (block->bytes = malloc(block->size)))
        memcpy(block->bytes, block->mapped, block->size);
    if (block)
        block->memory = VK_NULL_HANDLE;
    our_vkFreeMemory(device, memory, allocator);
}

// The words from the first function on, which the library takes over as they are, unlike what
// precedes them, and their number.
static size_t functions(const uint32_t *words, size_t n, const uint32_t **out)
{
    enum { HEADER = 5, OP_FUNCTION = 54 };
    size_t i = HEADER;
    while (i < n && (words[i] & 0xffff) != OP_FUNCTION)
        i += words[i] >> 16;
    *out = words + i;
    return n - i;
}

// Is it made of interpose.kernel, or of the second?
static bool is_kernel(const VkShaderModuleCreateInfo *info)
{
    const uint32_t *of_module, *of_kernel;
    size_t n = functions(info->pCode, info->codeSize / 4, &of_module);
    for (int i = 0; i < MOE_N_SPV; i++)
        if (moe_spv_table[i].words == interpose.kernel ||
            moe_spv_table[i].words == interpose.second) {
            const uint32_t *words = moe_spv_table[i].words;
            if (functions(words, moe_spv_table[i].size / 4, &of_kernel) == n &&
                memcmp(of_module, of_kernel, n * 4) == 0)
                return true;
        }
    return false;
}

static VKAPI_ATTR VkResult VKAPI_CALL create_module(VkDevice device,
                                                    const VkShaderModuleCreateInfo *info,
                                                    const VkAllocationCallbacks *allocator,
                                                    VkShaderModule *out)
{
    VkShaderModuleCreateInfo made = *info;
    module_has_bug = is_kernel(info);
    if (module_has_bug && interpose.bug == INTERPOSE_OTHER) {
        made.pCode = interpose.other;
        made.codeSize = interpose.other_size;
    }
    return our_vkCreateShaderModule(device, &made, allocator, out);
}

static VKAPI_ATTR VkResult VKAPI_CALL create_pipelines(VkDevice device, VkPipelineCache cache,
                                                       uint32_t n,
                                                       const VkComputePipelineCreateInfo *info,
                                                       const VkAllocationCallbacks *allocator,
                                                       VkPipeline *out)
{
    const uint32_t *spec = info->stage.pSpecializationInfo->pData;
    if (interpose.by_spec && spec[interpose.spec] != interpose.value)
        module_has_bug = false;
    interpose.n_pipelines += module_has_bug;
    if (module_has_bug && interpose.bug == INTERPOSE_NO_PIPELINE)
        return interpose.fail_result ? interpose.fail_result : VK_ERROR_UNKNOWN;
    if (module_has_bug && interpose.bug == INTERPOSE_CRASH)
        _exit(9);
    VkResult result = our_vkCreateComputePipelines(device, cache, n, info, allocator, out);
    if (result == VK_SUCCESS && module_has_bug && n_buggy < sizeof buggy / sizeof *buggy)
        buggy[n_buggy++] = *out;
    return result;
}

static PFN_vkCmdPipelineBarrier real_vkCmdPipelineBarrier;
static VKAPI_ATTR void VKAPI_CALL our_vkCmdPipelineBarrier(
    VkCommandBuffer cmd, VkPipelineStageFlags from, VkPipelineStageFlags to,
    VkDependencyFlags flags, uint32_t n, const VkMemoryBarrier *barriers, uint32_t n_buffers,
    const VkBufferMemoryBarrier *buffers, uint32_t n_images, const VkImageMemoryBarrier *images)
{
    interpose.n_barriers++;
    real_vkCmdPipelineBarrier(cmd, from, to, flags, n, barriers, n_buffers, buffers, n_images,
                              images);
}

static PFN_vkCmdBindPipeline real_vkCmdBindPipeline;
static VKAPI_ATTR void VKAPI_CALL our_vkCmdBindPipeline(VkCommandBuffer cmd,
                                                        VkPipelineBindPoint point,
                                                        VkPipeline pipeline)
{
    bound_has_bug = false;
    for (uint32_t i = 0; i < n_buggy; i++)
        bound_has_bug = bound_has_bug || buggy[i] == pipeline;
    real_vkCmdBindPipeline(cmd, point, pipeline);
}

static PFN_vkCmdDispatchIndirect real_vkCmdDispatchIndirect;
static VKAPI_ATTR void VKAPI_CALL our_vkCmdDispatchIndirect(VkCommandBuffer cmd, VkBuffer buffer,
                                                            VkDeviceSize offset)
{
    int n = 1;
    if (bound_has_bug && interpose.bug == INTERPOSE_SKIP)
        n = 0;
    if (bound_has_bug && interpose.bug == INTERPOSE_SLOW)
        n = 4;
    for (int i = 0; i < n; i++)
        real_vkCmdDispatchIndirect(cmd, buffer, offset);
}

static PFN_vkCmdFillBuffer real_vkCmdFillBuffer;
static VKAPI_ATTR void VKAPI_CALL our_vkCmdFillBuffer(VkCommandBuffer cmd, VkBuffer buffer,
                                                      VkDeviceSize offset, VkDeviceSize size,
                                                      uint32_t data)
{
    real_vkCmdFillBuffer(cmd, buffer, offset, size, interpose.fill_ones ? UINT32_MAX : data);
}

static PFN_vkCmdPushConstants real_vkCmdPushConstants;
static VKAPI_ATTR void VKAPI_CALL our_vkCmdPushConstants(VkCommandBuffer cmd,
                                                         VkPipelineLayout layout,
                                                         VkShaderStageFlags stages, uint32_t offset,
                                                         uint32_t size, const void *data)
{
    uint32_t words[32];
    memcpy(words, data, size);
    if (bound_has_bug && interpose.bug == INTERPOSE_SHORT)
        words[interpose.word]--;
    real_vkCmdPushConstants(cmd, layout, stages, offset, size, words);
}

static PFN_vkGetPhysicalDeviceQueueFamilyProperties real_vkGetPhysicalDeviceQueueFamilyProperties;
static VKAPI_ATTR void VKAPI_CALL our_vkGetPhysicalDeviceQueueFamilyProperties(
    VkPhysicalDevice physical, uint32_t *n, VkQueueFamilyProperties *out)
{
    real_vkGetPhysicalDeviceQueueFamilyProperties(physical, n, out);
    for (uint32_t i = 0; out && interpose.stamp_bits && i < *n; i++)
        out[i].timestampValidBits = interpose.stamp_bits == UINT32_MAX ? 0 : interpose.stamp_bits;
}

static VKAPI_ATTR VkResult VKAPI_CALL get_stamps(VkDevice device, VkQueryPool pool, uint32_t first,
                                                 uint32_t n, size_t size, void *data,
                                                 VkDeviceSize stride, VkQueryResultFlags flags)
{
    VkResult result =
        our_vkGetQueryPoolResults(device, pool, first, n, size, data, stride, flags);
    uint64_t ones = interpose.stamp_bits ? (UINT64_C(1) << interpose.stamp_bits) - 1 : UINT64_MAX;
    for (uint32_t i = 0; result == VK_SUCCESS && interpose.tick && i < n; i++) {
        uint64_t stamp = (ones + (first + i) * interpose.tick) & ones;
        memcpy((unsigned char *) data + i * stride, &stamp, sizeof stamp);
    }
    return result;
}

static PFN_vkVoidFunction interposed(const char *name, PFN_vkVoidFunction real)
{
    if (!real)
        return NULL;
    real = claims_call(name, other_memory_call(name, keep_call(name, real)));
#define LOOK_UP(call, ...)                      \
    if (strcmp(name, #call) == 0) {             \
        real_##call = (PFN_##call) real;        \
        return (PFN_vkVoidFunction) our_##call; \
    }
#define LOOK_UP_OVER(call, over)               \
    if (strcmp(name, #call) == 0) {            \
        real_##call = (PFN_##call) real;       \
        return (PFN_vkVoidFunction) (over);    \
    }
    LOOK_UP_OVER(vkCreateShaderModule, create_module)
    LOOK_UP_OVER(vkCreateComputePipelines, create_pipelines)
    LOOK_UP_OVER(vkAllocateMemory, allocate_memory)
    LOOK_UP_OVER(vkMapMemory, map_memory)
    LOOK_UP_OVER(vkFreeMemory, free_memory)
    LOOK_UP_OVER(vkGetQueryPoolResults, get_stamps)
    LOOK_UP(vkCmdPipelineBarrier)
    LOOK_UP(vkCmdBindPipeline)
    LOOK_UP(vkCmdDispatchIndirect)
    LOOK_UP(vkCmdFillBuffer)
    LOOK_UP(vkCmdPushConstants)
    FALLIBLE(LOOK_UP)
    DESTROYERS(LOOK_UP)
    LOOK_UP(vkDestroyInstance)
    LOOK_UP(vkDestroyDevice)
    LOOK_UP(vkGetPhysicalDeviceProperties2)
    LOOK_UP(vkGetPhysicalDeviceQueueFamilyProperties)
    LOOK_UP(vkUpdateDescriptorSets)
#undef LOOK_UP_OVER
#undef LOOK_UP
    return real;
}

static PFN_vkGetDeviceProcAddr real_get_device;
static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL our_get_device(VkDevice device, const char *name)
{
    idle_device = device;
    wait_idle = (PFN_vkDeviceWaitIdle) real_get_device(device, "vkDeviceWaitIdle");
    PFN_vkVoidFunction function = interposed(name, real_get_device(device, name));
    if (function && strcmp(name, "vkQueueSubmit") == 0) {
        next_submit = function;
        return (PFN_vkVoidFunction) slow_submit;
    }
    return function;
}

static PFN_vkGetInstanceProcAddr real_get_instance;
static VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL our_get_instance(VkInstance instance,
                                                                 const char *name)
{
    PFN_vkVoidFunction real = real_get_instance(instance, name);
    if (real && strcmp(name, "vkGetDeviceProcAddr") == 0) {
        real_get_device = (PFN_vkGetDeviceProcAddr) real;
        return (PFN_vkVoidFunction) our_get_device;
    }
    return interposed(name, real);
}

PFN_vkGetInstanceProcAddr moe_vk_loader(void)
{
    if (!real_get_instance) {
        void *loader = dlopen("libvulkan.so.1", RTLD_NOW);
        if (!loader)
            abort();
        real_get_instance = (PFN_vkGetInstanceProcAddr) dlsym(loader, "vkGetInstanceProcAddr");
    }
    return our_get_instance;
}

void moe_vk_loader_release(void)
{
}

#define NAME(name, ...) #name,
const char *const interpose_names[] = {FALLIBLE(NAME) NULL};
