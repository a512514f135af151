// SPDX-License-Identifier: MIT
// The features we know, without a device: how they are found in a caller's structs.
#include "check.h"

#include "vulkan/feature_table.h"

enum { ALL = MOE_VK_BIT(MOE_VK_N_FEATURES) - 1 };

static void features_are_found_in_their_own_structs(void **state)
{
    (void) state;
    union moe_vk_feature_struct structs[MOE_VK_N_FEATURES];
    for (uint32_t features = 0; features <= ALL; features++) {
        void *chain = moe_vk_feature_chain(features, VK_TRUE, structs);
        assert_int_equal(chain == NULL, features == 0);
        assert_int_equal(moe_vk_features_of_chain(chain), features);
        chain = moe_vk_feature_chain(features, VK_FALSE, structs);
        assert_int_equal(moe_vk_features_of_chain(chain), 0);
    }
}

// Whatever was in memory before: a driver refuses a device with features that nobody asked for.
static void chains_set_nothing_else(void **state)
{
    (void) state;
    union moe_vk_feature_struct structs[MOE_VK_N_FEATURES], want;
    for (uint32_t features = 0; features <= ALL; features++) {
        memset(structs, 0xaa, sizeof structs);
        VkBaseOutStructure *s = moe_vk_feature_chain(features, VK_TRUE, structs);
        for (; s; s = s->pNext) {
            memset(&want, 0, sizeof want);
            want.base.sType = s->sType;
            want.base.pNext = s->pNext;
            for (int f = 0; f < MOE_VK_N_FEATURES; f++)
                if ((features & MOE_VK_BIT(f)) && moe_vk_features[f].own == s->sType)
                    memcpy((char *) &want + moe_vk_features[f].own_member, &(VkBool32){VK_TRUE},
                           sizeof(VkBool32));
            assert_memory_equal(s, &want, sizeof want);
        }
    }
}

// Two features of one struct: a chain must not have a struct twice.
static void chains_have_each_struct_once(void **state)
{
    (void) state;
    union moe_vk_feature_struct structs[MOE_VK_N_FEATURES];
    for (uint32_t features = 0; features <= ALL; features++) {
        VkBaseOutStructure *chain = moe_vk_feature_chain(features, VK_TRUE, structs);
        for (VkBaseOutStructure *s = chain; s; s = s->pNext)
            for (VkBaseOutStructure *t = s->pNext; t; t = t->pNext)
                assert_int_not_equal(s->sType, t->sType);
    }
}

static void features_are_found_in_structs_of_core_versions(void **state)
{
    (void) state;
    VkPhysicalDeviceCooperativeMatrix2FeaturesNV matrix2 = { // no version has them
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_FEATURES_NV};
    VkPhysicalDeviceCooperativeMatrixFeaturesKHR matrix = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_FEATURES_KHR,
        .pNext = &matrix2};
    VkPhysicalDeviceVulkan13Features v13 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_3_FEATURES, .pNext = &matrix};
    VkPhysicalDeviceVulkan12Features v12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES, .pNext = &v13};
    VkPhysicalDeviceFeatures2 base = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                      .pNext = &v12}; // of no interest, but in the chain
    VkBool32 *members[MOE_VK_N_FEATURES] = {
        [MOE_VK_BDA] = &v12.bufferDeviceAddress,
        [MOE_VK_FLOAT16] = &v12.shaderFloat16,
        [MOE_VK_MEMORY_MODEL] = &v12.vulkanMemoryModel,
        [MOE_VK_DEVICE_SCOPE] = &v12.vulkanMemoryModelDeviceScope,
        [MOE_VK_SUBGROUP_SIZE] = &v13.subgroupSizeControl,
        [MOE_VK_FULL_SUBGROUPS] = &v13.computeFullSubgroups,
        [MOE_VK_DOT] = &v13.shaderIntegerDotProduct,
        [MOE_VK_INT8] = &v12.shaderInt8,
        [MOE_VK_MATRIX] = &matrix.cooperativeMatrix,
        [MOE_VK_FLEXIBLE] = &matrix2.cooperativeMatrixFlexibleDimensions,
        [MOE_VK_PER_ELEMENT] = &matrix2.cooperativeMatrixPerElementOperations,
        [MOE_VK_WORKGROUP] = &matrix2.cooperativeMatrixWorkgroupScope,
    };
    for (uint32_t features = 0; features <= ALL; features++) {
        for (int f = 0; f < MOE_VK_N_FEATURES; f++)
            *members[f] = features >> f & 1;
        assert_int_equal(moe_vk_features_of_chain(&base), features);
    }
    v12.samplerFilterMinmax = v12.bufferDeviceAddressCaptureReplay = VK_TRUE; // neighbours
    v12.vulkanMemoryModelAvailabilityVisibilityChains = v13.synchronization2 = VK_TRUE;
    matrix.cooperativeMatrixRobustBufferAccess = VK_TRUE;
    matrix2.cooperativeMatrixReductions = matrix2.cooperativeMatrixBlockLoads = VK_TRUE;
    for (int f = 0; f < MOE_VK_N_FEATURES; f++)
        *members[f] = VK_FALSE;
    assert_int_equal(moe_vk_features_of_chain(&base), 0);
}

static void extensions_are_for_versions_before_core(void **state)
{
    (void) state;
    assert_string_equal(moe_vk_feature_extension(MOE_VK_BDA, VK_API_VERSION_1_1),
                        "VK_KHR_buffer_device_address");
    assert_string_equal(moe_vk_feature_extension(MOE_VK_FLOAT16, VK_API_VERSION_1_1),
                        "VK_KHR_shader_float16_int8");
    for (int f = 0; f < MOE_VK_N_FEATURES; f++) {
        const char *before = moe_vk_feature_extension((enum moe_vk_feature) f, VK_API_VERSION_1_2);
        const char *after = moe_vk_feature_extension((enum moe_vk_feature) f, VK_API_VERSION_1_3);
        bool of_1_3 = f == MOE_VK_SUBGROUP_SIZE || f == MOE_VK_FULL_SUBGROUPS || f == MOE_VK_DOT;
        bool of_none = f >= MOE_VK_MATRIX;
        assert_int_equal(before != NULL, of_1_3 || of_none);
        assert_int_equal(after != NULL, of_none);
    }
}

static void an_extension_is_listed_once(void **state)
{
    (void) state;
    const char *all[3];
    char copy[] = "VK_EXT_subgroup_size_control";
    uint32_t n = 0;
    moe_vk_add_extension(all, &n, VK_EXT_SUBGROUP_SIZE_CONTROL_EXTENSION_NAME);
    moe_vk_add_extension(all, &n, "VK_KHR_cooperative_matrix");
    moe_vk_add_extension(all, &n, copy);
    assert_int_equal(n, 2);
    assert_string_equal(all[1], "VK_KHR_cooperative_matrix");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(features_are_found_in_their_own_structs),
        cmocka_unit_test(chains_set_nothing_else),
        cmocka_unit_test(features_are_found_in_structs_of_core_versions),
        cmocka_unit_test(chains_have_each_struct_once),
        cmocka_unit_test(extensions_are_for_versions_before_core),
        cmocka_unit_test(an_extension_is_listed_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
