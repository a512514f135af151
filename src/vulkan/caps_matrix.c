// SPDX-License-Identifier: MIT
// Which cooperative matrices a physical device multiplies.
#include "vulkan/vk.h"

#include <string.h>

#include "params.h"

static bool is_f16_to_f32(VkComponentTypeKHR a, VkComponentTypeKHR b, VkComponentTypeKHR c,
                          VkComponentTypeKHR result)
{
    return a == VK_COMPONENT_TYPE_FLOAT16_KHR && b == VK_COMPONENT_TYPE_FLOAT16_KHR &&
           c == VK_COMPONENT_TYPE_FLOAT32_KHR && result == VK_COMPONENT_TYPE_FLOAT32_KHR;
}

static bool is_bytes_to_int(const VkCooperativeMatrixPropertiesKHR *p)
{
    return p->AType == VK_COMPONENT_TYPE_SINT8_KHR && p->BType == VK_COMPONENT_TYPE_SINT8_KHR &&
           p->CType == VK_COMPONENT_TYPE_SINT32_KHR &&
           p->ResultType == VK_COMPONENT_TYPE_SINT32_KHR;
}

// Each once.
static void add_shape(const struct moe_vk_shape *shape, struct moe_vk_shape *all, uint32_t *n)
{
    for (uint32_t i = 0; i < *n; i++)
        if (memcmp(&all[i], shape, sizeof *shape) == 0)
            return;
    if (*n < MOE_VK_MAX_SHAPES)
        all[(*n)++] = *shape;
}

static void add_fixed(const VkCooperativeMatrixPropertiesKHR *p, struct moe_vk_caps *out)
{
    const struct moe_vk_shape shape = {p->MSize, p->NSize, p->KSize, p->NSize > p->MSize, 0};
    if (p->scope != VK_SCOPE_SUBGROUP_KHR || p->saturatingAccumulation)
        return;
    if (is_f16_to_f32(p->AType, p->BType, p->CType, p->ResultType))
        add_shape(&shape, out->shapes, &out->n_shapes);
    if (is_bytes_to_int(p))
        add_shape(&shape, out->byte_shapes, &out->n_byte_shapes);
}

static enum vkmoe_status query_fixed(const struct moe_vk_instance *instance,
                                     VkPhysicalDevice physical, struct moe_vk_caps *out)
{
    PFN_vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR get =
        instance->fn.vkGetPhysicalDeviceCooperativeMatrixPropertiesKHR;
    uint32_t n = 0;
    if (!moe_vk_has(out, MOE_VK_MATRIX) || !get || get(physical, &n, NULL) < 0 || n == 0)
        return VKMOE_OK;
    VkCooperativeMatrixPropertiesKHR *all = moe_alloc_array(instance->host, n, sizeof *all);
    if (!all)
        return moe_fail(VKMOE_E_MEMORY, "list of %u shapes of cooperative matrices", n);
    for (uint32_t i = 0; i < n; i++)
        all[i].sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_PROPERTIES_KHR;
    if (get(physical, &n, all) < 0)
        n = 0;
    for (uint32_t i = 0; i < n; i++)
        add_fixed(&all[i], out);
    moe_free(instance->host, all);
    return VKMOE_OK;
}

// Those of one scope.
static void add_flexible(const VkCooperativeMatrixFlexibleDimensionsPropertiesNV *p,
                         VkScopeKHR scope, struct moe_vk_caps *out)
{
    const bool workgroup = scope == VK_SCOPE_WORKGROUP_KHR;
    const struct moe_vk_shape shape = {p->MGranularity, p->NGranularity, p->KGranularity,
                                       p->NGranularity > p->MGranularity, workgroup};
    if (p->scope != scope || p->saturatingAccumulation ||
        !is_f16_to_f32(p->AType, p->BType, p->CType, p->ResultType) ||
        (workgroup && p->workgroupInvocations != MOE_LOCAL_SIZE))
        return;
    add_shape(&shape, out->flexible, &out->n_flexible);
}

static void query_limits(const struct moe_vk_fn *fn, VkPhysicalDevice physical,
                         struct moe_vk_caps *out)
{
    VkPhysicalDeviceCooperativeMatrix2PropertiesNV matrix2 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_COOPERATIVE_MATRIX_2_PROPERTIES_NV};
    VkPhysicalDeviceProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &matrix2};
    fn->vkGetPhysicalDeviceProperties2(physical, &properties);
    out->max_dimension = matrix2.cooperativeMatrixFlexibleDimensionsMaxDimension;
    out->shared_reserved = matrix2.cooperativeMatrixWorkgroupScopeReservedSharedMemory;
}

static enum vkmoe_status query_flexible(const struct moe_vk_instance *instance,
                                        VkPhysicalDevice physical, struct moe_vk_caps *out)
{
    PFN_vkGetPhysicalDeviceCooperativeMatrixFlexibleDimensionsPropertiesNV get =
        instance->fn.vkGetPhysicalDeviceCooperativeMatrixFlexibleDimensionsPropertiesNV;
    uint32_t n = 0;
    if (!moe_vk_has(out, MOE_VK_FLEXIBLE) || !get || get(physical, &n, NULL) < 0 || n == 0)
        return VKMOE_OK;
    query_limits(&instance->fn, physical, out);
    VkCooperativeMatrixFlexibleDimensionsPropertiesNV *all =
        moe_alloc_array(instance->host, n, sizeof *all);
    if (!all)
        return moe_fail(VKMOE_E_MEMORY, "list of %u sizes of cooperative matrices", n);
    for (uint32_t i = 0; i < n; i++)
        all[i].sType = VK_STRUCTURE_TYPE_COOPERATIVE_MATRIX_FLEXIBLE_DIMENSIONS_PROPERTIES_NV;
    if (get(physical, &n, all) < 0)
        n = 0;
    for (uint32_t i = 0; i < n; i++)
        add_flexible(&all[i], VK_SCOPE_WORKGROUP_KHR, out);
    for (uint32_t i = 0; i < n; i++)
        add_flexible(&all[i], VK_SCOPE_SUBGROUP_KHR, out);
    moe_free(instance->host, all);
    return VKMOE_OK;
}

enum vkmoe_status moe_vk_query_shapes(const struct moe_vk_instance *instance,
                                      VkPhysicalDevice physical, struct moe_vk_caps *out)
{
    enum vkmoe_status status = query_fixed(instance, physical, out);
    return status == VKMOE_OK ? query_flexible(instance, physical, out) : status;
}
