// SPDX-License-Identifier: MIT
#include "keep.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static uint64_t hash(uint64_t key, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        key = (key ^ bytes[i]) * UINT64_C(1099511628211);
    return key;
}

// The library's chains have a struct for what they enable, and none for what they do not.
static uint64_t hash_chain(uint64_t key, const void *chain)
{
    for (const VkBaseInStructure *s = chain; s; s = s->pNext)
        key = hash(key, &s->sType, sizeof s->sType);
    return key;
}

// ---- instances and devices ---------------------------------------------------------------------

enum { MAX_OBJECTS = 8 };

struct object {
    void *handle;
    uint64_t key; // of what it was made from
};
static struct object instances[MAX_OBJECTS], devices[MAX_OBJECTS];

static void *kept(const struct object *objects, uint64_t key)
{
    for (int i = 0; i < MAX_OBJECTS; i++)
        if (objects[i].handle && objects[i].key == key)
            return objects[i].handle;
    return NULL;
}

static void keep(struct object *objects, uint64_t key, void *handle)
{
    int i = 0;
    while (objects[i].handle)
        if (++i == MAX_OBJECTS)
            abort(); // a device that is kept needs its instance
    objects[i] = (struct object){handle, key};
}

static bool is_kept(const struct object *objects, const void *handle)
{
    bool found = !handle; // nothing to destroy either
    for (int i = 0; i < MAX_OBJECTS; i++)
        found = found || objects[i].handle == handle;
    return found;
}

static PFN_vkCreateInstance real_vkCreateInstance;
static VKAPI_ATTR VkResult VKAPI_CALL keep_vkCreateInstance(const VkInstanceCreateInfo *info,
                                                            const VkAllocationCallbacks *allocator,
                                                            VkInstance *out)
{
    uint32_t what[] = {info->pApplicationInfo->apiVersion, info->enabledExtensionCount,
                       info->enabledLayerCount};
    uint64_t key = hash_chain(hash(1, what, sizeof what), info->pNext);
    if ((*out = kept(instances, key)))
        return VK_SUCCESS;
    VkResult result = real_vkCreateInstance(info, allocator, out);
    if (result == VK_SUCCESS)
        keep(instances, key, *out);
    return result;
}

static PFN_vkDestroyInstance real_vkDestroyInstance;
static VKAPI_ATTR void VKAPI_CALL keep_vkDestroyInstance(VkInstance instance,
                                                         const VkAllocationCallbacks *allocator)
{
    if (!is_kept(instances, instance))
        real_vkDestroyInstance(instance, allocator);
}

static PFN_vkCreateDevice real_vkCreateDevice;
static VKAPI_ATTR VkResult VKAPI_CALL keep_vkCreateDevice(VkPhysicalDevice physical,
                                                          const VkDeviceCreateInfo *info,
                                                          const VkAllocationCallbacks *allocator,
                                                          VkDevice *out)
{
    uint64_t key = hash_chain(hash(2, &physical, sizeof physical), info->pNext);
    for (uint32_t i = 0; i < info->enabledExtensionCount; i++)
        key = hash(key, info->ppEnabledExtensionNames[i], strlen(info->ppEnabledExtensionNames[i]));
    if ((*out = kept(devices, key)))
        return VK_SUCCESS;
    VkResult result = real_vkCreateDevice(physical, info, allocator, out);
    if (result == VK_SUCCESS)
        keep(devices, key, *out);
    return result;
}

static PFN_vkDestroyDevice real_vkDestroyDevice;
static VKAPI_ATTR void VKAPI_CALL keep_vkDestroyDevice(VkDevice device,
                                                       const VkAllocationCallbacks *allocator)
{
    if (!is_kept(devices, device))
        real_vkDestroyDevice(device, allocator);
}

// ---- what a device has -------------------------------------------------------------------------

enum { MAX_CHILDREN = 1024 };

// Handles of Vulkan's that are no pointers everywhere have 64 bits everywhere.
static struct {
    VkDevice device;
    uint64_t key, handle;
} children[MAX_CHILDREN];
static uint32_t n_children;

static uint64_t kept_child(VkDevice device, uint64_t key)
{
    for (uint32_t i = 0; i < n_children; i++)
        if (children[i].device == device && children[i].key == key)
            return children[i].handle;
    return 0;
}

static void keep_child(VkDevice device, uint64_t key, uint64_t handle)
{
    if (!is_kept(devices, device) || n_children == MAX_CHILDREN)
        return;
    children[n_children].device = device;
    children[n_children].key = key;
    children[n_children++].handle = handle;
}

static bool is_kept_child(uint64_t handle)
{
    for (uint32_t i = 0; i < n_children; i++)
        if (children[i].handle == handle)
            return true;
    return false;
}

// One that returns what is kept by `key`, or makes and keeps it.
#define KEEP_CREATE(call, device, key, out, ...)                   \
    do {                                                           \
        uint64_t kept_handle = kept_child(device, key);            \
        if (kept_handle != 0) {                                    \
            memcpy(out, &kept_handle, sizeof *(out));              \
            return VK_SUCCESS;                                     \
        }                                                          \
        VkResult result = real_##call(device, __VA_ARGS__, out);   \
        if (result == VK_SUCCESS)                                  \
            keep_child(device, key, (uint64_t) *(out));            \
        return result;                                             \
    } while (0)

#define KEEP_DESTROY(call, type)                                                               \
    static PFN_##call real_##call;                                                             \
    static VKAPI_ATTR void VKAPI_CALL keep_##call(VkDevice device, type handle,                \
                                                  const VkAllocationCallbacks *allocator)      \
    {                                                                                          \
        if (!is_kept_child((uint64_t) handle))                                                 \
            real_##call(device, handle, allocator);                                            \
    }
KEEP_DESTROY(vkDestroyDescriptorSetLayout, VkDescriptorSetLayout)
KEEP_DESTROY(vkDestroyPipelineLayout, VkPipelineLayout)
KEEP_DESTROY(vkDestroyPipeline, VkPipeline)

// The library's bindings are all of one kind, and its ranges begin at 0.
static PFN_vkCreateDescriptorSetLayout real_vkCreateDescriptorSetLayout;
static VKAPI_ATTR VkResult VKAPI_CALL keep_vkCreateDescriptorSetLayout(
    VkDevice device, const VkDescriptorSetLayoutCreateInfo *info,
    const VkAllocationCallbacks *allocator, VkDescriptorSetLayout *out)
{
    uint64_t key = hash(3, &info->bindingCount, sizeof info->bindingCount);
    KEEP_CREATE(vkCreateDescriptorSetLayout, device, key, out, info, allocator);
}

static PFN_vkCreatePipelineLayout real_vkCreatePipelineLayout;
static VKAPI_ATTR VkResult VKAPI_CALL keep_vkCreatePipelineLayout(
    VkDevice device, const VkPipelineLayoutCreateInfo *info,
    const VkAllocationCallbacks *allocator, VkPipelineLayout *out)
{
    uint64_t key = hash(4, info->pSetLayouts, info->setLayoutCount * sizeof *info->pSetLayouts);
    for (uint32_t i = 0; i < info->pushConstantRangeCount; i++)
        key = hash(key, &info->pPushConstantRanges[i], sizeof info->pPushConstantRanges[i]);
    KEEP_CREATE(vkCreatePipelineLayout, device, key, out, info, allocator);
}

static uint64_t kernel_key; // the library makes a module and its pipeline in one go

static PFN_vkCreateShaderModule real_vkCreateShaderModule;
static VKAPI_ATTR VkResult VKAPI_CALL
keep_vkCreateShaderModule(VkDevice device, const VkShaderModuleCreateInfo *info,
                          const VkAllocationCallbacks *allocator, VkShaderModule *out)
{
    kernel_key = hash(5, info->pCode, info->codeSize);
    return real_vkCreateShaderModule(device, info, allocator, out);
}

static PFN_vkCreateComputePipelines real_vkCreateComputePipelines;
static VKAPI_ATTR VkResult VKAPI_CALL keep_vkCreateComputePipelines(
    VkDevice device, VkPipelineCache cache, uint32_t n, const VkComputePipelineCreateInfo *info,
    const VkAllocationCallbacks *allocator, VkPipeline *out)
{
    const VkSpecializationInfo *spec = info->stage.pSpecializationInfo;
    uint64_t key = hash(kernel_key, spec->pData, spec->dataSize);
    key = hash(key, spec->pMapEntries, spec->mapEntryCount * sizeof *spec->pMapEntries);
    key = hash(key, &info->layout, sizeof info->layout);
    KEEP_CREATE(vkCreateComputePipelines, device, key, out, cache, n, info, allocator);
}

PFN_vkVoidFunction keep_call(const char *name, PFN_vkVoidFunction real)
{
#define KEEP(call)                               \
    if (strcmp(name, #call) == 0) {              \
        real_##call = (PFN_##call) real;         \
        return (PFN_vkVoidFunction) keep_##call; \
    }
    KEEP(vkCreateInstance)
    KEEP(vkDestroyInstance)
    KEEP(vkCreateDevice)
    KEEP(vkDestroyDevice)
    KEEP(vkCreateDescriptorSetLayout)
    KEEP(vkDestroyDescriptorSetLayout)
    KEEP(vkCreatePipelineLayout)
    KEEP(vkDestroyPipelineLayout)
    KEEP(vkCreateShaderModule)
    KEEP(vkCreateComputePipelines)
    KEEP(vkDestroyPipeline)
#undef KEEP
    return real;
}
