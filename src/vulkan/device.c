// SPDX-License-Identifier: MIT
// A Vulkan device that we create and own: one compute queue, and those of the features we know that
// the device has.
#include "vulkan/choose.h"
#include "vulkan/feature_table.h"

#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "params.h"

// Which addressing a context uses, from what the device can do.
static enum vkmoe_status choose_addressing(struct moe_vk *vk, const vkmoe_context_desc *desc)
{
    bool has = moe_vk_has(&vk->caps, MOE_VK_BDA);
    if (desc->addressing == VKMOE_ADDRESSING_BDA && !has)
        return moe_fail(VKMOE_E_UNSUPPORTED, "%s has no buffer device address%s",
                        vk->base.info.name, desc->floor ? " in floor mode" : "");
    if (desc->addressing == VKMOE_ADDRESSING_DESCRIPTORS)
        vk->caps.features &= ~MOE_VK_BIT(MOE_VK_BDA);
    vk->bda = moe_vk_has(&vk->caps, MOE_VK_BDA);
    return VKMOE_OK;
}

enum vkmoe_status moe_vk_check_limits(const struct moe_vk_caps *caps, const char *name)
{
    if (moe_min(caps->max_invocations, caps->max_size_x) < MOE_LOCAL_SIZE || caps->max_push < 128 ||
        caps->max_storage_buffers < 4 || caps->max_shared < 16384 || caps->storage_align > 256)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "%s is below the Vulkan 1.1 minimum: %u invocations, %u bytes of push "
                        "constants, %u storage buffers, %u bytes of shared memory",
                        name, caps->max_invocations, caps->max_push, caps->max_storage_buffers,
                        caps->max_shared);
    return VKMOE_OK;
}

enum vkmoe_status moe_vk_load_device(struct moe_vk *vk)
{
    struct moe_vk_fn *fn = &vk->fn;
#define LOAD(call)                                                      \
    fn->call = (PFN_##call) fn->vkGetDeviceProcAddr(vk->device, #call); \
    if (!fn->call)                                                      \
        return moe_fail(VKMOE_E_DEVICE, "%s has no " #call, vk->base.info.name);
    MOE_VK_DEVICE_FUNCTIONS(LOAD)
#undef LOAD
    if (!vk->bda)
        return VKMOE_OK;
    const char *name = moe_vk_feature_extension(MOE_VK_BDA, vk->caps.api_version)
                           ? "vkGetBufferDeviceAddressKHR"
                           : "vkGetBufferDeviceAddress";
    fn->vkGetBufferDeviceAddress =
        (PFN_vkGetBufferDeviceAddress) fn->vkGetDeviceProcAddr(vk->device, name);
    if (!fn->vkGetBufferDeviceAddress)
        return moe_fail(VKMOE_E_DEVICE, "%s has no %s", vk->base.info.name, name);
    return VKMOE_OK;
}

static VkResult try_features(struct moe_vk *vk, uint32_t features)
{
    float priority = 1.0f;
    VkDeviceQueueCreateInfo queue = {.sType = VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO,
                                     .queueFamilyIndex = vk->queue_family,
                                     .queueCount = 1,
                                     .pQueuePriorities = &priority};
    union moe_vk_feature_struct structs[MOE_VK_N_FEATURES];
    const char *extensions[1 + MOE_VK_N_FEATURES];
    uint32_t n = 0;
    if (vk->caps.portability_subset)
        extensions[n++] = "VK_KHR_portability_subset";
    for (int f = 0; f < MOE_VK_N_FEATURES; f++) {
        const char *extension =
            moe_vk_feature_extension((enum moe_vk_feature) f, vk->caps.api_version);
        if (extension && (features & MOE_VK_BIT(f)))
            moe_vk_add_extension(extensions, &n, extension);
    }
    VkDeviceCreateInfo info = {.sType = VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO,
                               .pNext = moe_vk_feature_chain(features, VK_TRUE, structs),
                               .queueCreateInfoCount = 1,
                               .pQueueCreateInfos = &queue,
                               .enabledExtensionCount = n,
                               .ppEnabledExtensionNames = extensions};
    return vk->fn.vkCreateDevice(vk->physical, &info, NULL, &vk->device);
}

static bool is_refusal(VkResult result)
{
    return result == VK_ERROR_FEATURE_NOT_PRESENT || result == VK_ERROR_EXTENSION_NOT_PRESENT;
}

// What a driver may have meant by a refusal: a feature, or those of one extension.
struct suspect {
    uint32_t features;
    const char *name;
};

static struct suspect suspect_of(int i)
{
    const struct moe_vk_feature_row *row = &moe_vk_features[i % MOE_VK_N_FEATURES];
    struct suspect out = {MOE_VK_BIT(i % MOE_VK_N_FEATURES), row->name};
    if (i < MOE_VK_N_FEATURES)
        return out;
    out.name = row->extension;
    for (int f = 0; f < MOE_VK_N_FEATURES; f++)
        if (strcmp(moe_vk_features[f].extension, row->extension) == 0)
            out.features |= MOE_VK_BIT(f);
    return out;
}

// A device without the features of one suspect, of those for which `n` of the listed ones go.
static VkResult try_without(struct moe_vk *vk, uint32_t listed, int n, VkResult refusal)
{
    VkResult result = refusal;
    for (int i = 0; is_refusal(result) && i < 2 * MOE_VK_N_FEATURES; i++) {
        const struct suspect suspect = suspect_of(i);
        const uint32_t rest = moe_vk_whole_features(listed & ~suspect.features);
        if (__builtin_popcount(listed & ~rest) != n)
            continue;
        vk->caps.features = rest;
        result = try_features(vk, rest);
        if (result >= 0)
            moe_log(vk->base.host, VKMOE_LOG_WARN, "%s refuses %s, which it lists: %s",
                    vk->base.info.name, suspect.name, moe_vk_result_name(refusal));
    }
    return result;
}

// A driver may list a feature and then refuse it. The device does without that one and those that
// need it, or those of its extension, fewest first; or without any.
static VkResult try_fewer_features(struct moe_vk *vk, VkResult refusal)
{
    const uint32_t listed = vk->caps.features;
    VkResult result = refusal;
    for (int n = 1; is_refusal(result) && n <= MOE_VK_N_FEATURES; n++)
        result = try_without(vk, listed, n, refusal);
    if (is_refusal(result)) {
        vk->caps.features = 0;
        result = try_features(vk, 0);
        moe_log(vk->base.host, VKMOE_LOG_WARN, "%s refuses features that it lists: %s",
                vk->base.info.name, moe_vk_result_name(refusal));
    }
    return result;
}

static enum vkmoe_status create_device(struct moe_vk *vk)
{
    vk->queue_family = moe_vk_compute_family(&vk->fn, vk->physical);
    VkResult result = try_features(vk, vk->caps.features);
    if (is_refusal(result)) {
        result = try_fewer_features(vk, result);
        moe_vk_describe(&vk->fn, vk->physical, &vk->caps, &vk->base.info);
    }
    if (result < 0)
        return moe_vk_fail(vk, result, "vkCreateDevice");
    vk->bda = moe_vk_has(&vk->caps, MOE_VK_BDA);
    enum vkmoe_status status = moe_vk_load_device(vk);
    if (status == VKMOE_OK)
        vk->fn.vkGetDeviceQueue(vk->device, vk->queue_family, 0, &vk->queue);
    return status;
}

static enum vkmoe_status copy_cache_dir(struct moe_vk *vk, const char *dir)
{
    if (!dir || !*dir)
        return VKMOE_OK;
    size_t size = strlen(dir) + 1;
    vk->cache_dir = moe_alloc(vk->base.host, size);
    if (!vk->cache_dir)
        return moe_fail(VKMOE_E_MEMORY, "cache path of %zu bytes", size);
    memcpy(vk->cache_dir, dir, size);
    return VKMOE_OK;
}

enum vkmoe_status moe_vk_object(const vkmoe_host *host, struct moe_vk **out)
{
    enum vkmoe_status status = moe_try_alloc(host, sizeof **out, "Vulkan device", out);
    if (status != VKMOE_OK)
        return status;
    (*out)->base.backend = &moe_backend_vulkan;
    (*out)->base.host = host;
    pthread_mutex_init(&(*out)->queue_lock, NULL);
    pthread_mutex_init(&(*out)->pipelines_lock, NULL);
    pthread_mutex_init(&(*out)->verdicts_lock, NULL);
    return VKMOE_OK;
}

enum vkmoe_status moe_vk_open(const vkmoe_host *host, const vkmoe_context_desc *desc, uint32_t i,
                              struct moe_device **out)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk;
    status = moe_vk_object(host, &vk);
    if (status != VKMOE_OK)
        return status;

    uint32_t n;
    TRY(moe_vk_instance_create(host, desc, &vk->instance));
    vk->fn = vk->instance->fn;
    vk->labels = desc->debug_labels && vk->instance->debug_utils;
    TRY(moe_vk_physical_device(vk->instance, i, &vk->physical, &n));
    TRY(moe_vk_caps_query(vk->instance, vk->physical, &vk->caps));
    if (desc->floor)
        moe_vk_caps_floor(&vk->caps);
    moe_vk_describe(&vk->fn, vk->physical, &vk->caps, &vk->base.info);
    vk->fn.vkGetPhysicalDeviceMemoryProperties(vk->physical, &vk->memory);
    TRY(moe_vk_check_limits(&vk->caps, vk->base.info.name));
    TRY(choose_addressing(vk, desc));
    TRY(moe_vk_parse_variants(desc->disable, &vk->caps.disabled));
    vk->probes = vk->base.info.type == VKMOE_DEVICE_DISCRETE ||
                 vk->base.info.type == VKMOE_DEVICE_INTEGRATED;
    TRY(create_device(vk));
    TRY(choose_addressing(vk, desc)); // again: of what the driver has not refused
    TRY(moe_vk_layouts_create(vk));
    TRY(copy_cache_dir(vk, desc->cache_dir));
    TRY(moe_vk_cache_open(vk));
    *out = &vk->base;
    return VKMOE_OK;

fail:
    moe_vk_close(&vk->base);
    return status;
}

void moe_vk_close(struct moe_device *device)
{
    if (!device)
        return;
    struct moe_vk *vk = moe_vk(device);
    if (vk->pipeline_layout) { // the device got as far as its function table
        if (!vk->imported)
            vk->fn.vkDeviceWaitIdle(vk->device);
        moe_vk_cache_save(vk);
        moe_vk_pipelines_destroy(vk);
        vk->fn.vkDestroyPipelineCache(vk->device, vk->pipeline_cache, NULL);
        vk->fn.vkDestroyPipelineLayout(vk->device, vk->pipeline_layout, NULL);
    }
    if (vk->set_layout)
        vk->fn.vkDestroyDescriptorSetLayout(vk->device, vk->set_layout, NULL);
    if (!vk->imported && vk->device && vk->fn.vkDestroyDevice)
        vk->fn.vkDestroyDevice(vk->device, NULL);
    moe_vk_instance_destroy(vk->instance);
    pthread_mutex_destroy(&vk->queue_lock);
    pthread_mutex_destroy(&vk->pipelines_lock);
    pthread_mutex_destroy(&vk->verdicts_lock);
    moe_free(vk->base.host, vk->cache_dir);
    moe_free(vk->base.host, vk);
}
