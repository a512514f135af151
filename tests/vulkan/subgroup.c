// SPDX-License-Identifier: MIT
// The device's subgroups have SIZE invocations: subgroup SIZE. Tests that ask a driver for a size
// would otherwise pass at another one.
#include "host.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    uint32_t want = argc > 1 ? (uint32_t) strtoul(argv[1], NULL, 10) : 0;
    vkmoe_context *context = NULL;
    vkmoe_vk_handles h;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "vulkan";
    desc.cache_dir = "";
    if (vkmoe_context_create(&desc, &context) != VKMOE_OK ||
        vkmoe_vk_get_handles(context, &h) != VKMOE_OK) {
        printf("%s\n", vkmoe_error_text());
        vkmoe_context_destroy(context);
        return 1;
    }
    PFN_vkGetInstanceProcAddr get = (PFN_vkGetInstanceProcAddr) h.get_instance_proc_addr;
    PFN_vkGetPhysicalDeviceProperties2 query = (PFN_vkGetPhysicalDeviceProperties2) get(
        h.instance, "vkGetPhysicalDeviceProperties2");
    VkPhysicalDeviceSubgroupProperties subgroup = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SUBGROUP_PROPERTIES};
    VkPhysicalDeviceProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &subgroup};
    query(h.physical_device, &properties);
    vkmoe_context_destroy(context);
    printf("subgroups of %u, asked for %u\n", subgroup.subgroupSize, want);
    return subgroup.subgroupSize != want;
}
