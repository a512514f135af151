// SPDX-License-Identifier: MIT
#include "vulkan/newer.h"

#include "claims.h"
#include "vulkan/feature_table.h"

#include <stdlib.h>
#include <string.h>

struct claims claims;

enum { UNKNOWN_DRIVER = 9999 };

static uint32_t missing; // of the claimed features

static VkBool32 *member(const void *structure, size_t offset)
{
    return (VkBool32 *) ((unsigned char *) structure + offset);
}

// The library asks for each feature in a struct of its own, never in those of a version.
static void set_features(const void *chain, uint32_t features, VkBool32 value)
{
    for (const VkBaseInStructure *s = chain; s; s = s->pNext)
        for (int f = 0; f < MOE_VK_N_FEATURES; f++)
            if ((features & MOE_VK_BIT(f)) && s->sType == moe_vk_features[f].own)
                *member(s, moe_vk_features[f].own_member) = value;
}

#define REAL(name) static PFN_##name real_##name
REAL(vkGetPhysicalDeviceFeatures2);
static VKAPI_ATTR void VKAPI_CALL our_vkGetPhysicalDeviceFeatures2(VkPhysicalDevice physical,
                                                                   VkPhysicalDeviceFeatures2 *out)
{
    real_vkGetPhysicalDeviceFeatures2(physical, out);
    missing = claims.features & ~moe_vk_features_of_chain(out->pNext);
    set_features(out->pNext, missing, VK_TRUE);
}

// An extension that makes a claimed feature askable.
REAL(vkEnumerateDeviceExtensionProperties);
static VKAPI_ATTR VkResult VKAPI_CALL our_vkEnumerateDeviceExtensionProperties(
    VkPhysicalDevice physical, const char *layer, uint32_t *n, VkExtensionProperties *out)
{
    VkResult result = real_vkEnumerateDeviceExtensionProperties(physical, layer, n, out);
    for (int f = 0; result == VK_SUCCESS && !layer && f < MOE_VK_N_FEATURES; f++) {
        if (!(claims.features & MOE_VK_BIT(f)))
            continue;
        if (out) // the count that was asked before had room for it
            strcpy(out[*n].extensionName, moe_vk_features[f].extension);
        ++*n;
    }
    return result;
}

REAL(vkGetPhysicalDeviceProperties2);
static VKAPI_ATTR void VKAPI_CALL our_vkGetPhysicalDeviceProperties2(
    VkPhysicalDevice physical, VkPhysicalDeviceProperties2 *out)
{
    real_vkGetPhysicalDeviceProperties2(physical, out);
    for (VkBaseOutStructure *s = out->pNext; s && claims.is_fast; s = s->pNext) {
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_PROPERTIES)
            ((VkPhysicalDeviceShaderIntegerDotProductProperties *) s)
                ->integerDotProduct4x8BitPackedSignedAccelerated = VK_TRUE;
        if (s->sType == VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES)
            ((VkPhysicalDeviceDriverProperties *) s)->driverID = (VkDriverId) UNKNOWN_DRIVER;
    }
}

REAL(vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR);
static VKAPI_ATTR VkResult VKAPI_CALL our_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR(
    VkPhysicalDevice physical, uint32_t *n, VkCooperativeMatrixPropertiesKHR *out)
{
    const uint32_t more = claims.shape ? 1 : 0;
    uint32_t rest = out ? *n - more : 0;
    if (out && more)
        out[0] = (VkCooperativeMatrixPropertiesKHR){
            .sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR,
            .MSize = claims.shape,
            .NSize = claims.shape,
            .KSize = claims.shape,
            .AType = VK_COMPONENT_TYPE_FLOAT16_KHR,
            .BType = VK_COMPONENT_TYPE_FLOAT16_KHR,
            .CType = VK_COMPONENT_TYPE_FLOAT32_KHR,
            .ResultType = VK_COMPONENT_TYPE_FLOAT32_KHR,
            .scope = VK_SCOPE_SUBGROUP_KHR};
    VkResult result = real_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR(
        physical, &rest, out ? out + more : NULL);
    *n = rest + more;
    return result;
}

// Does the driver not know what an extension's features are?
static bool is_missing(const char *extension)
{
    bool claimed = false, there = false;
    for (int f = 0; f < MOE_VK_N_FEATURES; f++)
        if (strcmp(extension, moe_vk_features[f].extension) == 0) {
            claimed = claimed || (missing & MOE_VK_BIT(f));
            there = there || !(missing & MOE_VK_BIT(f));
        }
    return claimed && !there;
}

static bool is_enabled(const VkDeviceCreateInfo *info, const char *extension)
{
    for (uint32_t i = 0; i < info->enabledExtensionCount; i++)
        if (strcmp(info->ppEnabledExtensionNames[i], extension) == 0)
            return true;
    return false;
}

// What layers for validation would say, which do not see what is claimed.
static void check_asked(const VkDeviceCreateInfo *info, uint32_t asked)
{
    if ((asked & MOE_VK_BIT(MOE_VK_MEMORY_MODEL)) && !(asked & MOE_VK_BIT(MOE_VK_DEVICE_SCOPE)))
        claims.error = "the memory model without the scope of devices, which atomics have";
    if (is_enabled(info, VK_NV_COOPERATIVE_MATRIX_2_EXTENSION_NAME) &&
        !is_enabled(info, VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME))
        claims.error = "VK_NV_cooperative_matrix2 without VK_KHR_cooperative_matrix";
}

REAL(vkCreateDevice);
static VKAPI_ATTR VkResult VKAPI_CALL our_vkCreateDevice(VkPhysicalDevice physical,
                                                         const VkDeviceCreateInfo *info,
                                                         const VkAllocationCallbacks *allocator,
                                                         VkDevice *out)
{
    const uint32_t asked = moe_vk_features_of_chain(info->pNext);
    check_asked(info, asked);
    if (asked & claims.refused)
        return claims.refusal;
    const char *names[32];
    VkDeviceCreateInfo made = *info;
    made.ppEnabledExtensionNames = names;
    made.enabledExtensionCount = 0;
    for (uint32_t i = 0; i < info->enabledExtensionCount; i++)
        if (!is_missing(info->ppEnabledExtensionNames[i]))
            names[made.enabledExtensionCount++] = info->ppEnabledExtensionNames[i];
    set_features(info->pNext, asked & missing, VK_FALSE);
    VkResult result = real_vkCreateDevice(physical, &made, allocator, out);
    set_features(info->pNext, asked & missing, VK_TRUE);
    return result;
}

PFN_vkVoidFunction claims_call(const char *name, PFN_vkVoidFunction real)
{
#define LOOK_UP(call)                           \
    if (strcmp(name, #call) == 0) {             \
        real_##call = (PFN_##call) real;        \
        return (PFN_vkVoidFunction) our_##call; \
    }
    LOOK_UP(vkGetPhysicalDeviceFeatures2)
    LOOK_UP(vkEnumerateDeviceExtensionProperties)
    LOOK_UP(vkGetPhysicalDeviceProperties2)
    LOOK_UP(vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR)
    LOOK_UP(vkCreateDevice)
#undef LOOK_UP
    return real;
}
