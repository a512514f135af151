// SPDX-License-Identifier: MIT
// Features and limits of a physical device. The only place that asks for them.
#include "vulkan/choose.h"
#include "vulkan/feature_table.h"

#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "params.h"

static bool has_extension(const VkExtensionProperties *all, uint32_t n, const char *name)
{
    for (uint32_t i = 0; i < n; i++)
        if (strcmp(all[i].extensionName, name) == 0)
            return true;
    return false;
}

// Which of our features the device has.
static uint32_t query_features(const struct moe_vk_fn *fn, VkPhysicalDevice physical,
                               uint32_t version, const VkExtensionProperties *all, uint32_t n)
{
    uint32_t askable = 0;
    for (int f = 0; f < MOE_VK_N_FEATURES; f++) {
        const char *extension = moe_vk_feature_extension((enum moe_vk_feature) f, version);
        if (!extension || has_extension(all, n, extension))
            askable |= MOE_VK_BIT(f);
    }
    union moe_vk_feature_struct structs[MOE_VK_N_FEATURES];
    void *chain = moe_vk_feature_chain(askable, VK_FALSE, structs);
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = chain};
    fn->vkGetPhysicalDeviceFeatures2(physical, &features);
    return moe_vk_whole_features(moe_vk_features_of_chain(chain));
}

static uint32_t query_driver_id(const struct moe_vk_fn *fn, VkPhysicalDevice physical)
{
    VkPhysicalDeviceDriverProperties driver = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES};
    VkPhysicalDeviceProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &driver};
    fn->vkGetPhysicalDeviceProperties2(physical, &properties);
    return (uint32_t) driver.driverID;
}

// Which of our features' extensions the device has, whether or not its version still takes them.
static uint32_t query_feature_extensions(const VkExtensionProperties *all, uint32_t n)
{
    uint32_t found = 0;
    for (int f = 0; f < MOE_VK_N_FEATURES; f++)
        if (has_extension(all, n, moe_vk_features[f].extension))
            found |= MOE_VK_BIT(f);
    return found;
}

// Subgroups are pinned to their least size: that of matrix units where sizes vary.
static void query_subgroups(const struct moe_vk_fn *fn, VkPhysicalDevice physical,
                            struct moe_vk_caps *out)
{
    VkPhysicalDeviceSubgroupSizeControlProperties sizes = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_SIZE_CONTROL_PROPERTIES};
    VkPhysicalDeviceSubgroupProperties usual = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES, .pNext = &sizes};
    VkPhysicalDeviceProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &usual};
    const uint32_t needs = MOE_VK_BIT(MOE_VK_SUBGROUP_SIZE) | MOE_VK_BIT(MOE_VK_FULL_SUBGROUPS);
    if ((out->features & needs) != needs)
        return;
    fn->vkGetPhysicalDeviceProperties2(physical, &properties);
    const uint32_t least = sizes.minSubgroupSize, most = sizes.maxComputeWorkgroupSubgroups;
    out->subgroup_pinned = (sizes.requiredSubgroupSizeStages & VK_SHADER_STAGE_COMPUTE_BIT) &&
                           least > 0 && MOE_LOCAL_SIZE / least <= most;
    out->subgroup_size = out->subgroup_pinned ? least : usual.subgroupSize;
}

// Without instructions of its own a device computes such products from others.
static bool query_dot(const struct moe_vk_fn *fn, VkPhysicalDevice physical,
                      const struct moe_vk_caps *caps)
{
    VkPhysicalDeviceShaderIntegerDotProductProperties dot = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_PROPERTIES};
    VkPhysicalDeviceProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &dot};
    if (moe_vk_has(caps, MOE_VK_DOT))
        fn->vkGetPhysicalDeviceProperties2(physical, &properties);
    return dot.integerDotProduct4x8BitPackedSignedAccelerated;
}

// All that hangs on the device's extensions.
static enum vkmoe_status query_extensions(const struct moe_vk_instance *instance,
                                          VkPhysicalDevice physical, struct moe_vk_caps *out)
{
    const struct moe_vk_fn *fn = &instance->fn;
    uint32_t n = 0;
    fn->vkEnumerateDeviceExtensionProperties(physical, NULL, &n, NULL);
    VkExtensionProperties *all = moe_alloc_array(instance->host, n, sizeof *all);
    if (!all)
        return moe_fail(VKMOE_E_MEMORY, "list of %u Vulkan extensions", n);
    if (fn->vkEnumerateDeviceExtensionProperties(physical, NULL, &n, all) < 0)
        n = 0;
    out->portability_subset = has_extension(all, n, "VK_KHR_portability_subset");
    out->pci_bus_info = has_extension(all, n, VK_EXT_PCI_BUS_INFO_EXTENSION_NAME);
    out->features = query_features(fn, physical, out->api_version, all, n);
    out->extensions = query_feature_extensions(all, n);
    if (out->api_version >= VK_API_VERSION_1_2 ||
        has_extension(all, n, VK_KHR_DRIVER_PROPERTIES_EXTENSION_NAME))
        out->driver_id = query_driver_id(fn, physical);
    moe_free(instance->host, all);
    out->dot_accelerated = query_dot(fn, physical, out);
    query_subgroups(fn, physical, out);
    return moe_vk_query_shapes(instance, physical, out);
}

enum vkmoe_status moe_vk_caps_query(const struct moe_vk_instance *instance,
                                    VkPhysicalDevice physical, struct moe_vk_caps *out)
{
    const struct moe_vk_fn *fn = &instance->fn;
    VkPhysicalDeviceMaintenance3Properties maintenance3 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MAINTENANCE_3_PROPERTIES};
    VkPhysicalDeviceProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &maintenance3};
    fn->vkGetPhysicalDeviceProperties2(physical, &properties);
    const VkPhysicalDeviceLimits *limits = &properties.properties.limits;
    *out = (struct moe_vk_caps){
        .api_version = (uint32_t) moe_min(properties.properties.apiVersion, instance->api_version),
        .driver_version = properties.properties.driverVersion,
        .max_storage_range = limits->maxStorageBufferRange,
        .max_allocation = maintenance3.maxMemoryAllocationSize,
        .max_groups = {limits->maxComputeWorkGroupCount[0], limits->maxComputeWorkGroupCount[1],
                       limits->maxComputeWorkGroupCount[2]},
        .max_invocations = limits->maxComputeWorkGroupInvocations,
        .max_size_x = limits->maxComputeWorkGroupSize[0],
        .max_shared = limits->maxComputeSharedMemorySize,
        .max_push = limits->maxPushConstantsSize,
        .max_storage_buffers = limits->maxPerStageDescriptorStorageBuffers,
        .storage_align = (uint32_t) limits->minStorageBufferOffsetAlignment,
        .atom_size = moe_max(limits->nonCoherentAtomSize, 1),
        .timestamp_period = limits->timestampPeriod,
    };
    enum vkmoe_status status = query_extensions(instance, physical, out);
    if (status != VKMOE_OK)
        return status;

    VkPhysicalDeviceMemoryProperties memory;
    fn->vkGetPhysicalDeviceMemoryProperties(physical, &memory);
    for (uint32_t i = 0; i < memory.memoryHeapCount; i++)
        if (memory.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT)
            out->memory_bytes += memory.memoryHeaps[i].size;
    const VkPhysicalDeviceType type = properties.properties.deviceType;
    const bool integrated =
        type == VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU || type == VK_PHYSICAL_DEVICE_TYPE_CPU;
    out->memory_kind = moe_vk_memory_kind(&memory, integrated);
    return VKMOE_OK;
}

uint32_t moe_vk_timestamp_bits(const struct moe_vk *vk)
{
    VkQueueFamilyProperties families[MOE_VK_MAX_FAMILIES];
    uint32_t n = MOE_COUNT(families);
    vk->fn.vkGetPhysicalDeviceQueueFamilyProperties(vk->physical, &n, families);
    return vk->queue_family < n ? families[vk->queue_family].timestampValidBits : 0;
}

void moe_vk_caps_floor(struct moe_vk_caps *caps)
{
    caps->api_version = VK_API_VERSION_1_1;
    caps->max_storage_range = moe_min(caps->max_storage_range, UINT64_C(128) << 20);
    caps->max_allocation = moe_min(caps->max_allocation, UINT64_C(1) << 30);
    for (int i = 0; i < 3; i++)
        caps->max_groups[i] = 65535;
    caps->max_invocations = caps->max_size_x = 128;
    caps->max_shared = 16384;
    caps->max_push = 128;
    caps->max_storage_buffers = 4;
    caps->storage_align = 256;
    caps->features = 0;
    caps->subgroup_size = 0;
    caps->n_shapes = caps->n_byte_shapes = caps->n_flexible = 0;
    caps->max_dimension = caps->shared_reserved = 0;
    caps->subgroup_pinned = caps->dot_accelerated = false;
    caps->memory_kind = MOE_VK_DISCRETE; // no device must let the host see its own memory
}

static enum vkmoe_device_type device_type(VkPhysicalDeviceType type)
{
    switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
        return VKMOE_DEVICE_DISCRETE;
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
        return VKMOE_DEVICE_SOFTWARE;
    default:
        return VKMOE_DEVICE_INTEGRATED; // virtual GPUs too: a GPU, but not known to be discrete
    }
}

// Vulkan 1.2 tells the driver's name and version in words; before that only a number.
static void describe_driver(const struct moe_vk_fn *fn, VkPhysicalDevice physical,
                            const struct moe_vk_caps *caps, uint32_t number, vkmoe_device_info *out)
{
    snprintf(out->driver_version, sizeof out->driver_version, "%u.%u.%u",
             VK_API_VERSION_MAJOR(number), VK_API_VERSION_MINOR(number),
             VK_API_VERSION_PATCH(number));
    if (caps->api_version < VK_API_VERSION_1_2)
        return;
    VkPhysicalDeviceDriverProperties driver = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES};
    VkPhysicalDeviceProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &driver};
    fn->vkGetPhysicalDeviceProperties2(physical, &properties);
    snprintf(out->driver, sizeof out->driver, "%.63s", driver.driverName);
    if (driver.driverInfo[0])
        snprintf(out->driver_version, sizeof out->driver_version, "%.63s", driver.driverInfo);
}

static void describe_pci(const struct moe_vk_fn *fn, VkPhysicalDevice physical,
                         vkmoe_device_info *out)
{
    VkPhysicalDevicePCIBusInfoPropertiesEXT pci = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PCI_BUS_INFO_PROPERTIES_EXT};
    VkPhysicalDeviceProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &pci};
    fn->vkGetPhysicalDeviceProperties2(physical, &properties);
    snprintf(out->pci, sizeof out->pci, "%04x:%02x:%02x.%x", pci.pciDomain & 0xffff,
             pci.pciBus & 0xff, pci.pciDevice & 0xff, pci.pciFunction & 0xf);
}

static void describe_features(const struct moe_vk_caps *caps, vkmoe_device_info *out)
{
    size_t at = 0;
    for (int f = 0; f < MOE_VK_N_FEATURES; f++)
        if (moe_vk_has(caps, (enum moe_vk_feature) f))
            at += (size_t) snprintf(out->features + at, sizeof out->features - at, "%s%s",
                                    at > 0 ? " " : "", moe_vk_features[f].name);
}

void moe_vk_describe(const struct moe_vk_fn *fn, VkPhysicalDevice physical,
                     const struct moe_vk_caps *caps, vkmoe_device_info *out)
{
    VkPhysicalDeviceIDProperties id = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES};
    VkPhysicalDeviceProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &id};
    fn->vkGetPhysicalDeviceProperties2(physical, &properties);
    const VkPhysicalDeviceProperties *p = &properties.properties;

    memset(out, 0, sizeof *out);
    out->type = device_type(p->deviceType);
    snprintf(out->name, sizeof out->name, "%s", p->deviceName);
    for (uint32_t i = 0; i < VK_UUID_SIZE; i++)
        snprintf(out->uuid + 2 * i, 3, "%02x", id.deviceUUID[i]);
    out->vendor_id = p->vendorID;
    out->device_id = p->deviceID;
    snprintf(out->api, sizeof out->api, "%u.%u.%u", VK_API_VERSION_MAJOR(p->apiVersion) & 127,
             VK_API_VERSION_MINOR(p->apiVersion) & 1023,
             VK_API_VERSION_PATCH(p->apiVersion) & 4095);
    describe_driver(fn, physical, caps, p->driverVersion, out);
    if (caps->pci_bus_info)
        describe_pci(fn, physical, out);
    out->memory_bytes = caps->memory_bytes;
    snprintf(out->memory, sizeof out->memory, "%s", moe_vk_memory_kind_name(caps->memory_kind));
    snprintf(out->tier, sizeof out->tier, "%s", moe_vk_tier(caps));
    describe_features(caps, out);
}
