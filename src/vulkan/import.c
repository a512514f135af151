// SPDX-License-Identifier: MIT
// Contexts on a device that the caller made and owns.
#include "vulkan/choose.h"
#include "vulkan/feature_table.h"

#include <stdio.h>
#include <string.h>

#include "base/bits.h"

_Static_assert((int) MOE_VK_N_FEATURES <= (int) VKMOE_VK_MAX_FEATURES, "room in the requirements");

// Lists what the device has of our features, with their extensions: we cannot ask an instance for
// its version, and below the core version that has a feature it is there by its extension alone.
static void list_features(const struct moe_vk_caps *caps, vkmoe_vk_requirements *out)
{
    for (int f = 0; f < MOE_VK_N_FEATURES; f++) {
        if (!moe_vk_has(caps, (enum moe_vk_feature) f))
            continue;
        out->features[out->n_features++] = moe_vk_features[f].listed;
        if (caps->extensions & MOE_VK_BIT(f))
            moe_vk_add_extension(out->extensions, &out->n_extensions,
                                 moe_vk_features[f].extension);
    }
}

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
    *out = (vkmoe_vk_requirements){.api_version = VK_API_VERSION_1_1,
                                   .queue_flags = VK_QUEUE_COMPUTE_BIT};
    list_features(&caps, out);

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

// Where a feature is missing that a device may have and its owner may have enabled; NULL: nowhere.
static const char *missing(const vkmoe_vk_import_desc *desc, const struct moe_vk_caps *caps,
                           enum moe_vk_feature feature, char text[128])
{
    const char *extension = moe_vk_feature_extension(feature, caps->api_version);
    if (desc->floor || !moe_vk_has(caps, feature))
        return "the device (or floor mode)";
    if (!(moe_vk_features_of_chain(desc->features) & MOE_VK_BIT(feature)))
        snprintf(text, 128, "features: %s", moe_vk_features[feature].listed.member);
    else if (extension && !lists(desc, extension))
        snprintf(text, 128, "extensions: %s", extension);
    else
        return NULL;
    return text;
}

// Keeps of the physical device's features only what the caller says is enabled.
static enum vkmoe_status choose_features(struct moe_vk *vk, const vkmoe_vk_import_desc *desc)
{
    char text[128];
    const uint32_t enabled = moe_vk_features_of_chain(desc->features);
    if ((enabled & MOE_VK_BIT(MOE_VK_MEMORY_MODEL)) && !(enabled & MOE_VK_BIT(MOE_VK_DEVICE_SCOPE)))
        return moe_fail(VKMOE_E_UNSUPPORTED, "features: vulkanMemoryModel is enabled without "
                                             "vulkanMemoryModelDeviceScope, by which atomics of "
                                             "kernels would be invalid");
    const char *no_bda = missing(desc, &vk->caps, MOE_VK_BDA, text);
    if (no_bda && desc->addressing == VKMOE_ADDRESSING_BDA)
        return moe_fail(VKMOE_E_UNSUPPORTED, "buffer device address is missing in %s", no_bda);
    for (int f = 0; f < MOE_VK_N_FEATURES; f++)
        if (missing(desc, &vk->caps, (enum moe_vk_feature) f, text))
            vk->caps.features &= ~MOE_VK_BIT(f);
    vk->caps.features = moe_vk_whole_features(vk->caps.features);
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
    TRY(choose_features(vk, desc));
    if (desc->floor)
        moe_vk_caps_floor(&vk->caps);
    moe_vk_describe(&vk->fn, vk->physical, &vk->caps, &vk->base.info);
    if (desc->addressing == VKMOE_ADDRESSING_DESCRIPTORS)
        vk->caps.features &= ~MOE_VK_BIT(MOE_VK_BDA);
    vk->bda = moe_vk_has(&vk->caps, MOE_VK_BDA);
    TRY(moe_vk_check_limits(&vk->caps, vk->base.info.name));
    TRY(moe_vk_parse_variants(desc->disable, &vk->caps.disabled));
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
