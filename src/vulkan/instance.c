// SPDX-License-Identifier: MIT
// A Vulkan instance of our own, with validation and debug messages when asked for.
#include "vulkan/vk.h"

#include <string.h>

#include "base/bits.h"

static const char validation_layer[] = "VK_LAYER_KHRONOS_validation";

static VKAPI_ATTR VkBool32 VKAPI_CALL on_message(VkDebugUtilsMessageSeverityFlagBitsEXT severity,
                                                 VkDebugUtilsMessageTypeFlagsEXT types,
                                                 const VkDebugUtilsMessengerCallbackDataEXT *data,
                                                 void *user)
{
    struct moe_vk_instance *instance = user;
    // Loader and driver chatter is not a finding of the layer.
    bool finding = types & VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT;
    if (finding)
        atomic_fetch_add(&instance->n_messages, 1);
    bool error = severity & VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT;
    moe_log(instance->host, finding || error ? VKMOE_LOG_ERROR : VKMOE_LOG_WARN, "vulkan: %s",
            data->pMessage);
    return VK_FALSE;
}

static bool has_extension(const struct moe_vk_instance *instance, const char *name)
{
    bool found = false;
    uint32_t n = 0;
    if (instance->fn.vkEnumerateInstanceExtensionProperties(NULL, &n, NULL) < 0)
        return false;
    VkExtensionProperties *all = moe_alloc_array(instance->host, n, sizeof *all);
    if (all && instance->fn.vkEnumerateInstanceExtensionProperties(NULL, &n, all) >= 0)
        for (uint32_t i = 0; i < n && !found; i++)
            found = strcmp(all[i].extensionName, name) == 0;
    moe_free(instance->host, all);
    return found;
}

static bool has_layer(const struct moe_vk_instance *instance, const char *name)
{
    bool found = false;
    uint32_t n = 0;
    if (instance->fn.vkEnumerateInstanceLayerProperties(&n, NULL) < 0)
        return false;
    VkLayerProperties *all = moe_alloc_array(instance->host, n, sizeof *all);
    if (all && instance->fn.vkEnumerateInstanceLayerProperties(&n, all) >= 0)
        for (uint32_t i = 0; i < n && !found; i++)
            found = strcmp(all[i].layerName, name) == 0;
    moe_free(instance->host, all);
    return found;
}

static void load_global(struct moe_vk_fn *fn)
{
#define LOAD(name) fn->name = (PFN_##name) fn->vkGetInstanceProcAddr(NULL, #name);
    MOE_VK_GLOBAL_FUNCTIONS(LOAD)
#undef LOAD
}

static enum vkmoe_status load_instance(struct moe_vk_instance *instance)
{
    struct moe_vk_fn *fn = &instance->fn;
#define LOAD(name) fn->name = (PFN_##name) fn->vkGetInstanceProcAddr(instance->handle, #name);
    MOE_VK_DEBUG_FUNCTIONS(LOAD)
    MOE_VK_MATRIX_FUNCTIONS(LOAD)
#undef LOAD
#define LOAD(name)                                                              \
    fn->name = (PFN_##name) fn->vkGetInstanceProcAddr(instance->handle, #name); \
    if (!fn->name)                                                              \
        return moe_fail(VKMOE_E_DEVICE, "the Vulkan loader has no " #name);
    MOE_VK_INSTANCE_FUNCTIONS(LOAD)
#undef LOAD
    return VKMOE_OK;
}

struct creation {
    const char *extensions[4];
    VkApplicationInfo app;
    VkDebugUtilsMessengerCreateInfoEXT messenger;
    VkValidationFeatureEnableEXT enables[1];
    VkValidationFeaturesEXT features;
    const char *layers[1];
    VkInstanceCreateInfo info;
};

static void fill(struct moe_vk_instance *instance, bool validation, struct creation *c)
{
    *c = (struct creation){
        .app = {.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO,
                .pApplicationName = "vkmoe",
                .pEngineName = "vkmoe",
                .engineVersion = vkmoe_version(),
                .apiVersion = instance->api_version},
        .messenger = {.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_MESSENGER_CREATE_INFO_EXT,
                      .messageSeverity = VK_DEBUG_UTILS_MESSAGE_SEVERITY_WARNING_BIT_EXT |
                                         VK_DEBUG_UTILS_MESSAGE_SEVERITY_ERROR_BIT_EXT,
                      .messageType = VK_DEBUG_UTILS_MESSAGE_TYPE_VALIDATION_BIT_EXT |
                                     VK_DEBUG_UTILS_MESSAGE_TYPE_GENERAL_BIT_EXT,
                      .pfnUserCallback = on_message,
                      .pUserData = instance},
        .enables = {VK_VALIDATION_FEATURE_ENABLE_SYNCHRONIZATION_VALIDATION_EXT},
        .layers = {validation_layer},
        .info = {.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO},
    };
    c->features = (VkValidationFeaturesEXT){.sType = VK_STRUCTURE_TYPE_VALIDATION_FEATURES_EXT,
                                            .pNext = &c->messenger,
                                            .enabledValidationFeatureCount = 1,
                                            .pEnabledValidationFeatures = c->enables};
    c->info.pApplicationInfo = &c->app;
    c->info.ppEnabledExtensionNames = c->extensions;
    uint32_t n = 0;
    if (instance->debug_utils)
        c->extensions[n++] = VK_EXT_DEBUG_UTILS_EXTENSION_NAME;
    if (validation) {
        c->extensions[n++] = VK_EXT_VALIDATION_FEATURES_EXTENSION_NAME;
        c->info.pNext = &c->features;
        c->info.enabledLayerCount = 1;
        c->info.ppEnabledLayerNames = c->layers;
    }
    if (has_extension(instance, VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME)) {
        c->extensions[n++] = VK_KHR_PORTABILITY_ENUMERATION_EXTENSION_NAME;
        c->info.flags |= VK_INSTANCE_CREATE_ENUMERATE_PORTABILITY_BIT_KHR;
    }
    c->info.enabledExtensionCount = n;
}

enum vkmoe_status moe_vk_instance_create(const vkmoe_host *host, const vkmoe_context_desc *desc,
                                         struct moe_vk_instance **out)
{
    enum vkmoe_status status = VKMOE_OK;
    PFN_vkGetInstanceProcAddr get_proc = moe_vk_loader();
    if (!get_proc)
        return moe_fail(VKMOE_E_NO_DEVICE, "this machine has no Vulkan loader");
    struct moe_vk_instance *instance = moe_alloc(host, sizeof *instance);
    if (!instance) {
        moe_vk_loader_release();
        return moe_fail(VKMOE_E_MEMORY, "Vulkan instance: %zu bytes", sizeof *instance);
    }
    instance->host = host;
    instance->fn.vkGetInstanceProcAddr = get_proc;
    load_global(&instance->fn);

    uint32_t loader = VK_API_VERSION_1_0;
    if (instance->fn.vkEnumerateInstanceVersion)
        instance->fn.vkEnumerateInstanceVersion(&loader);
    if (loader < VK_API_VERSION_1_1) {
        status = moe_fail(VKMOE_E_NO_DEVICE, "the Vulkan loader is version 1.0; 1.1 is needed");
        goto fail;
    }
    instance->api_version = (uint32_t) moe_min(loader, VK_API_VERSION_1_3);
    if (desc->floor)
        instance->api_version = VK_API_VERSION_1_1;
    if (desc->validation && !has_layer(instance, validation_layer)) {
        status = moe_fail(VKMOE_E_UNSUPPORTED, "validation: %s is not installed", validation_layer);
        goto fail;
    }
    instance->debug_utils = (desc->validation || desc->debug_labels) &&
                            has_extension(instance, VK_EXT_DEBUG_UTILS_EXTENSION_NAME);

    if (desc->validation && !instance->debug_utils) {
        status = moe_fail(VKMOE_E_UNSUPPORTED, "validation: there is no %s to get messages by",
                          VK_EXT_DEBUG_UTILS_EXTENSION_NAME);
        goto fail;
    }

    struct creation creation;
    fill(instance, desc->validation, &creation);
    VkResult result = instance->fn.vkCreateInstance(&creation.info, NULL, &instance->handle);
    if (result < 0) {
        status = moe_fail(VKMOE_E_NO_DEVICE, "vkCreateInstance: %s", moe_vk_result_name(result));
        goto fail;
    }
    TRY(load_instance(instance));
    if (desc->validation)
        result = instance->fn.vkCreateDebugUtilsMessengerEXT(
            instance->handle, &creation.messenger, NULL, &instance->messenger);
    if (result < 0) {
        status = moe_fail(VKMOE_E_DEVICE, "vkCreateDebugUtilsMessengerEXT: %s",
                          moe_vk_result_name(result));
        goto fail;
    }
    *out = instance;
    return VKMOE_OK;

fail:
    moe_vk_instance_destroy(instance);
    return status;
}

enum vkmoe_status moe_vk_instance_import(const vkmoe_host *host, PFN_vkGetInstanceProcAddr get_proc,
                                         VkInstance handle, uint32_t api_version,
                                         struct moe_vk_instance **out)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk_instance *instance = NULL;
    TRY(moe_try_alloc(host, sizeof *instance, "Vulkan instance", &instance));
    instance->host = host;
    instance->fn.vkGetInstanceProcAddr = get_proc;
    instance->handle = handle;
    instance->api_version = api_version;
    instance->imported = true;
    TRY(load_instance(instance));
    instance->debug_utils = instance->fn.vkSetDebugUtilsObjectNameEXT != NULL;
    *out = instance;
    return VKMOE_OK;

fail:
    moe_vk_instance_destroy(instance);
    return status;
}

void moe_vk_instance_destroy(struct moe_vk_instance *instance)
{
    if (!instance)
        return;
    if (instance->messenger)
        instance->fn.vkDestroyDebugUtilsMessengerEXT(instance->handle, instance->messenger, NULL);
    if (!instance->imported && instance->handle && instance->fn.vkDestroyInstance)
        instance->fn.vkDestroyInstance(instance->handle, NULL);
    if (!instance->imported)
        moe_vk_loader_release();
    moe_free(instance->host, instance);
}

uint32_t moe_vk_compute_family(const struct moe_vk_fn *fn, VkPhysicalDevice physical)
{
    VkQueueFamilyProperties families[MOE_VK_MAX_FAMILIES];
    uint32_t n = MOE_COUNT(families);
    fn->vkGetPhysicalDeviceQueueFamilyProperties(physical, &n, families);
    for (uint32_t i = 0; i < n; i++)
        if (families[i].queueCount > 0 && (families[i].queueFlags & VK_QUEUE_COMPUTE_BIT))
            return i;
    return UINT32_MAX;
}

static bool usable(const struct moe_vk_fn *fn, VkPhysicalDevice physical)
{
    VkPhysicalDeviceProperties2 properties = {.sType =
                                                  VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
    fn->vkGetPhysicalDeviceProperties2(physical, &properties);
    return properties.properties.apiVersion >= VK_API_VERSION_1_1 &&
           moe_vk_compute_family(fn, physical) != UINT32_MAX;
}

enum vkmoe_status moe_vk_physical_device(struct moe_vk_instance *instance, uint32_t i,
                                         VkPhysicalDevice *physical, uint32_t *n)
{
    enum { MAX_DEVICES = 64 };
    VkPhysicalDevice all[MAX_DEVICES];
    uint32_t n_all = MAX_DEVICES, n_usable = 0;
    VkResult result = instance->fn.vkEnumeratePhysicalDevices(instance->handle, &n_all, all);
    if (result < 0)
        n_all = 0;
    for (uint32_t k = 0; k < n_all; k++) {
        if (!usable(&instance->fn, all[k]))
            continue;
        if (physical && n_usable == i)
            *physical = all[k];
        n_usable++;
    }
    *n = n_usable;
    if (physical && i >= n_usable)
        return moe_fail(VKMOE_E_NO_DEVICE, "Vulkan device %u of %u", i, n_usable);
    return VKMOE_OK;
}
