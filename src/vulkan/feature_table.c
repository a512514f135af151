// SPDX-License-Identifier: MIT
// The table of features, and chains of their structs.
#include "vulkan/feature_table.h"

#include <stddef.h>
#include <string.h>

#define ROW(name, own, own_type, core, core_type, member, core_version, extension)            \
    {                                                                                         \
        name, {#own, #member, false}, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_##own_type##FEATURES, \
            VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_##core_type##_FEATURES,                  \
            offsetof(own, member), offsetof(core, member), core_version, extension            \
    }

const struct moe_vk_feature_row moe_vk_features[MOE_VK_N_FEATURES] = {
    [MOE_VK_BDA] =
        ROW("buffer_device_address", VkPhysicalDeviceBufferDeviceAddressFeatures,
            BUFFER_DEVICE_ADDRESS_, VkPhysicalDeviceVulkan12Features, 1_2, bufferDeviceAddress,
            VK_API_VERSION_1_2, VK_KHR_BUFFER_DEVICE_ADDRESS_EXTENSION_NAME),
    [MOE_VK_FLOAT16] =
        ROW("shader_float16", VkPhysicalDeviceShaderFloat16Int8Features, SHADER_FLOAT16_INT8_,
            VkPhysicalDeviceVulkan12Features, 1_2, shaderFloat16, VK_API_VERSION_1_2,
            VK_KHR_SHADER_FLOAT16_INT8_EXTENSION_NAME),
};

static VkBool32 *member(const void *structure, size_t offset)
{
    return (VkBool32 *) ((unsigned char *) structure + offset);
}

void *moe_vk_feature_chain(uint32_t features, VkBool32 value,
                           union moe_vk_feature_struct structs[MOE_VK_N_FEATURES])
{
    VkBaseOutStructure *head = NULL;
    for (int f = 0; f < MOE_VK_N_FEATURES; f++) {
        if (!(features & MOE_VK_BIT(f)))
            continue;
        memset(&structs[f], 0, sizeof structs[f]); // an initialiser leaves the other members open
        structs[f].base.sType = moe_vk_features[f].own;
        structs[f].base.pNext = head;
        *member(&structs[f], moe_vk_features[f].own_member) = value;
        head = &structs[f].base;
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
