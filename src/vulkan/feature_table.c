// SPDX-License-Identifier: MIT
// The table of features, and chains of their structs.
#include "vulkan/feature_table.h"

#include <stddef.h>
#include <string.h>

#define ROW(name, own, own_type, core, core_type, member, core_version, extension, needs)     \
    {                                                                                         \
        name, {#own, #member, false}, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_##own_type##FEATURES, \
            VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_##core_type##_FEATURES,                  \
            offsetof(own, member), offsetof(core, member), core_version, extension, needs     \
    }

// No core version has it.
#define NOT_CORE(name, own, own_type, member, extension, needs)                               \
    {                                                                                         \
        name, {#own, #member, false}, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_##own_type,           \
            VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_##own_type, offsetof(own, member),              \
            offsetof(own, member), UINT32_MAX, extension, needs                               \
    }
// Their extension takes the one of matrices of fixed sizes.
#define MATRIX2(name, member)                                                                 \
    NOT_CORE(name, VkPhysicalDeviceCooperativeMatrix2FeaturesNV,                              \
             COOPERATIVE_MATRIX_2_FEATURES_NV, member,                                        \
             VK_NV_COOPERATIVE_MATRIX_2_EXTENSION_NAME, MOE_VK_BIT(MOE_VK_MATRIX))

// Where the memory model is enabled without the scope of devices, atomics of all kernels are
// invalid.
const struct moe_vk_feature_row moe_vk_features[MOE_VK_N_FEATURES] = {
    [MOE_VK_BDA] =
        ROW("buffer_device_address", VkPhysicalDeviceBufferDeviceAddressFeatures,
            BUFFER_DEVICE_ADDRESS_, VkPhysicalDeviceVulkan12Features, 1_2, bufferDeviceAddress,
            VK_API_VERSION_1_2, VK_KHR_BUFFER_DEVICE_ADDRESS_EXTENSION_NAME, 0),
    [MOE_VK_FLOAT16] =
        ROW("shader_float16", VkPhysicalDeviceShaderFloat16Int8Features, SHADER_FLOAT16_INT8_,
            VkPhysicalDeviceVulkan12Features, 1_2, shaderFloat16, VK_API_VERSION_1_2,
            VK_KHR_SHADER_FLOAT16_INT8_EXTENSION_NAME, 0),
    [MOE_VK_MEMORY_MODEL] =
        ROW("vulkan_memory_model", VkPhysicalDeviceVulkanMemoryModelFeatures, VULKAN_MEMORY_MODEL_,
            VkPhysicalDeviceVulkan12Features, 1_2, vulkanMemoryModel, VK_API_VERSION_1_2,
            VK_KHR_VULKAN_MEMORY_MODEL_EXTENSION_NAME, MOE_VK_BIT(MOE_VK_DEVICE_SCOPE)),
    [MOE_VK_DEVICE_SCOPE] =
        ROW("device_scope", VkPhysicalDeviceVulkanMemoryModelFeatures, VULKAN_MEMORY_MODEL_,
            VkPhysicalDeviceVulkan12Features, 1_2, vulkanMemoryModelDeviceScope, VK_API_VERSION_1_2,
            VK_KHR_VULKAN_MEMORY_MODEL_EXTENSION_NAME, MOE_VK_BIT(MOE_VK_MEMORY_MODEL)),
    [MOE_VK_SUBGROUP_SIZE] =
        ROW("subgroup_size_control", VkPhysicalDeviceSubgroupSizeControlFeatures,
            SUBGROUP_SIZE_CONTROL_, VkPhysicalDeviceVulkan13Features, 1_3, subgroupSizeControl,
            VK_API_VERSION_1_3, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME, 0),
    [MOE_VK_FULL_SUBGROUPS] =
        ROW("full_subgroups", VkPhysicalDeviceSubgroupSizeControlFeatures, SUBGROUP_SIZE_CONTROL_,
            VkPhysicalDeviceVulkan13Features, 1_3, computeFullSubgroups, VK_API_VERSION_1_3,
            VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME, 0),
    [MOE_VK_DOT] =
        ROW("integer_dot_product", VkPhysicalDeviceShaderIntegerDotProductFeatures,
            SHADER_INTEGER_DOT_PRODUCT_, VkPhysicalDeviceVulkan13Features, 1_3,
            shaderIntegerDotProduct, VK_API_VERSION_1_3,
            VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME, 0),
    [MOE_VK_INT8] =
        ROW("shader_int8", VkPhysicalDeviceShaderFloat16Int8Features, SHADER_FLOAT16_INT8_,
            VkPhysicalDeviceVulkan12Features, 1_2, shaderInt8, VK_API_VERSION_1_2,
            VK_KHR_SHADER_FLOAT16_INT8_EXTENSION_NAME, 0),
    [MOE_VK_MATRIX] = NOT_CORE("cooperative_matrix", VkPhysicalDeviceCooperativeMatrixFeaturesKHR,
                               COOPERATIVE_MATRIX_FEATURES_KHR, cooperativeMatrix,
                               VK_KHR_COOPERATIVE_MATRIX_EXTENSION_NAME, 0),
    [MOE_VK_FLEXIBLE] = MATRIX2("flexible_matrix", cooperativeMatrixFlexibleDimensions),
    [MOE_VK_PER_ELEMENT] = MATRIX2("matrix_per_element", cooperativeMatrixPerElementOperations),
    [MOE_VK_WORKGROUP] = MATRIX2("workgroup_matrix", cooperativeMatrixWorkgroupScope),
};

uint32_t moe_vk_whole_features(uint32_t features)
{
    uint32_t before;
    do {
        before = features;
        for (int f = 0; f < MOE_VK_N_FEATURES; f++)
            if (moe_vk_features[f].needs & ~before)
                features &= ~MOE_VK_BIT(f);
    } while (features != before);
    return features;
}

void moe_vk_add_extension(const char **all, uint32_t *n, const char *name)
{
    for (uint32_t i = 0; i < *n; i++)
        if (strcmp(all[i], name) == 0)
            return;
    all[(*n)++] = name;
}

static VkBool32 *member(const void *structure, size_t offset)
{
    return (VkBool32 *) ((unsigned char *) structure + offset);
}

static VkBaseOutStructure *of_type(VkBaseOutStructure *chain, VkStructureType type)
{
    while (chain && chain->sType != type)
        chain = chain->pNext;
    return chain;
}

static VkBaseOutStructure *begin_struct(union moe_vk_feature_struct *out, VkStructureType type,
                                        VkBaseOutStructure *next)
{
    memset(out, 0, sizeof *out); // an initialiser leaves the other members open
    out->base.sType = type;
    out->base.pNext = next;
    return &out->base;
}

void *moe_vk_feature_chain(uint32_t features, VkBool32 value,
                           union moe_vk_feature_struct structs[MOE_VK_N_FEATURES])
{
    VkBaseOutStructure *head = NULL;
    for (int f = 0; f < MOE_VK_N_FEATURES; f++) {
        if (!(features & MOE_VK_BIT(f)))
            continue;
        VkBaseOutStructure *own = of_type(head, moe_vk_features[f].own);
        if (!own)
            own = head = begin_struct(&structs[f], moe_vk_features[f].own, head);
        *member(own, moe_vk_features[f].own_member) = value;
    }
    return head;
}

uint32_t moe_vk_features_of_chain(const void *chain)
{
    uint32_t set = 0;
    for (const VkBaseInStructure *s = chain; s; s = s->pNext)
        for (int f = 0; f < MOE_VK_N_FEATURES; f++) {
            const struct moe_vk_feature_row *row = &moe_vk_features[f];
            if ((s->sType == row->own && *member(s, row->own_member)) ||
                (s->sType == row->core && *member(s, row->core_member)))
                set |= MOE_VK_BIT(f);
        }
    return set;
}
