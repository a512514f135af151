// SPDX-License-Identifier: MIT
// The optional features of Vulkan that the library uses, one row each: how a device shows one, how
// it is enabled on a device of ours, and how a caller says that it is enabled on theirs.
#ifndef MOE_VULKAN_FEATURE_TABLE_H
#define MOE_VULKAN_FEATURE_TABLE_H

#include "vulkan/vk.h"

struct moe_vk_feature_row {
    const char *name;               // in vkmoe_device_info.features
    vkmoe_vk_feature listed;        // in vkmoe_vk_requirements
    VkStructureType own, core;      // its own struct, and the one of a core version that has it too
    size_t own_member, core_member; // offsets
    uint32_t core_version;          // from which on it takes no extension
    const char *extension;          // before that
    uint32_t needs;                 // features (bits) without which it may not be enabled
};
extern const struct moe_vk_feature_row moe_vk_features[MOE_VK_N_FEATURES];

// The extension that a feature takes at a version; NULL: none.
static inline const char *moe_vk_feature_extension(enum moe_vk_feature feature, uint32_t version)
{
    const struct moe_vk_feature_row *row = &moe_vk_features[feature];
    return version < row->core_version ? row->extension : NULL;
}

// `features` (bits) without those that need one that is not among them. Pure.
uint32_t moe_vk_whole_features(uint32_t features);

// Adds an extension to a list; two features may have the same one.
void moe_vk_add_extension(const char **all, uint32_t *n, const char *name);

// Room for any row's own struct.
union moe_vk_feature_struct {
    VkBaseOutStructure base;
    VkPhysicalDeviceBufferDeviceAddressFeatures bda;
    VkPhysicalDeviceShaderFloat16Int8Features float16;
    VkPhysicalDeviceVulkanMemoryModelFeatures memory_model;
    VkPhysicalDeviceSubgroupSizeControlFeatures subgroup;
    VkPhysicalDeviceShaderIntegerDotProductFeatures dot;
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix;
    VkPhysicalDeviceCooperativeMatrix2FeaturesNV matrix2;
};

// A chain of the own structs of `features` (bits) with their members set to `value`; NULL if there
// are none. Features of one struct share it. It lives in `structs`.
void *moe_vk_feature_chain(uint32_t features, VkBool32 value,
                           union moe_vk_feature_struct structs[MOE_VK_N_FEATURES]);

// The features (bits) that a chain of feature structs sets, in either of the structs that have one.
uint32_t moe_vk_features_of_chain(const void *chain);

#endif
