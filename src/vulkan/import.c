// SPDX-License-Identifier: MIT
// Contexts on a device that the caller made and owns.
#include "vulkan/vk.h"

#include <string.h>

#include "base/bits.h"

static const vkmoe_vk_feature features[] = {
    {"VkPhysicalDeviceBufferDeviceAddressFeatures", "bufferDeviceAddress", false},
};
static const char *const extensions[] = {VK_KHR_BUFFER_DEVICE_ADDRESS_EXTENSION_NAME};

enum vkmoe_status moe_vk_requirements(void *get_instance_proc_addr, VkInstance instance,
                                      VkPhysicalDevice physical, vkmoe_vk_requirements *out)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk_instance *imported = NULL;
    struct moe_vk_caps caps;
    vkmoe_device_info info;
    TRY(moe_vk_instance_import(moe_host_default(),
                               (PFN_vkGetInstanceProcAddr) get_instance_proc_addr, instance,
                               VK_API_VERSION_1_3, &imported)); // the caller's is not known
    TRY(moe_vk_caps_query(imported, physical, &caps));
    moe_vk_describe(&imported->fn, physical, &caps, &info);
    TRY(moe_vk_check_limits(&caps, info.name));
    *out = (vkmoe_vk_requirements){
        .api_version = VK_API_VERSION_1_1,
        .queue_flags = VK_QUEUE_COMPUTE_BIT,
        .extensions = extensions,
        .n_extensions = caps.bda_extension ? MOE_COUNT(extensions) : 0,
        .features = features,
        .n_features = caps.bda ? MOE_COUNT(features) : 0,
    };

fail:
    moe_vk_instance_destroy(imported);
    return status;
}

static bool lists(const vkmoe_vk_import_desc *desc, const char *name)
{
    for (uint32_t i = 0; i < desc->n_extensions; i++)
        if (strcmp(desc->extensions[i], name) == 0)
            return true;
    return false;
}

// Did the caller enable buffer device address, in either struct that has it?
static bool enabled_bda(const vkmoe_vk_import_desc *desc)
{
    for (const VkBaseInStructure *s = desc->features; s; s = s->pNext) {
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES &&
            ((const VkPhysicalDeviceVulkan12Features *) s)->bufferDeviceAddress)
            return true;
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_BUFFER_DEVICE_ADDRESS_FEATURES &&
            ((const VkPhysicalDeviceBufferDeviceAddressFeatures *) s)->bufferDeviceAddress)
            return true;
    }
    return false;
}

// Keeps of the physical device's features only what the caller says is enabled.
static enum vkmoe_status choose_addressing(struct moe_vk *vk, const vkmoe_vk_import_desc *desc)
{
    const char *missing = NULL;
    if (desc->floor || !vk->caps.bda)
        missing = "the device (or floor mode)";
    else if (!enabled_bda(desc))
        missing = "features: bufferDeviceAddress";
    else if (vk->caps.bda_extension && !lists(desc, extensions[0]))
        missing = "extensions: " VK_KHR_BUFFER_DEVICE_ADDRESS_EXTENSION_NAME;
    if (missing && desc->addressing == VKMOE_ADDRESSING_BDA)
        return moe_fail(VKMOE_E_UNSUPPORTED, "buffer device address is missing in %s", missing);
    vk->caps.bda = !missing;
    vk->bda = vk->caps.bda && desc->addressing != VKMOE_ADDRESSING_DESCRIPTORS;
    return VKMOE_OK;
}

enum vkmoe_status moe_vk_import(const vkmoe_host *host, const vkmoe_vk_import_desc *desc,
                                struct moe_device **out)
{
    struct moe_vk *vk;
    enum vkmoe_status status = moe_vk_object(host, &vk);
    if (status != VKMOE_OK)
        return status;
    vk->imported = true;
    TRY(moe_vk_instance_import(host, (PFN_vkGetInstanceProcAddr) desc->get_instance_proc_addr,
                               desc->instance, desc->api_version, &vk->instance));
    vk->fn = vk->instance->fn;
    vk->physical = desc->physical_device;
    vk->device = desc->device;
    vk->queue = desc->queue;
    vk->queue_family = desc->queue_family;
    vk->lock_queue = desc->lock_queue;
    vk->unlock_queue = desc->unlock_queue;
    vk->queue_user = desc->queue_user;
    vk->labels = desc->debug_labels && vk->instance->debug_utils;
    TRY(moe_vk_caps_query(vk->instance, vk->physical, &vk->caps));
    TRY(choose_addressing(vk, desc));
    if (desc->floor)
        moe_vk_caps_floor(&vk->caps);
    moe_vk_describe(&vk->fn, vk->physical, &vk->caps, &vk->base.info);
    TRY(moe_vk_check_limits(&vk->caps, vk->base.info.name));
    vk->fn.vkGetPhysicalDeviceMemoryProperties(vk->physical, &vk->memory);
    TRY(moe_vk_load_device(vk));
    TRY(moe_vk_layouts_create(vk));
    TRY(moe_vk_cache_open(vk));
    *out = &vk->base;
    return VKMOE_OK;

fail:
    moe_vk_close(&vk->base);
    return status;
}
