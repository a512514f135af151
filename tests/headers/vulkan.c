// SPDX-License-Identifier: MIT
// vulkan.h as C11 and C++17: alone, after Vulkan's own header (-DVULKAN_FIRST) and before it
// (-DVULKAN_LAST). Handles of either header are the same types.
#ifdef VULKAN_FIRST
#include <vulkan/vulkan_core.h>
#endif
#include <vkmoe/vulkan.h>
#ifdef VULKAN_LAST
#include <vulkan/vulkan_core.h>
#endif
#include <vkmoe/vulkan.h>

int main(void)
{
    vkmoe_vk_io io = vkmoe_vk_io_init();
    vkmoe_vk_import_desc import = vkmoe_vk_import_desc_init();
    vkmoe_vk_requirements requirements;
    vkmoe_vk_handles handles;
    memset(&requirements, 0, sizeof requirements);
    memset(&handles, 0, sizeof handles);
#if defined(VULKAN_FIRST) || defined(VULKAN_LAST)
    VkBuffer buffer = VK_NULL_HANDLE;
    VkInstance *instance = &handles.instance;
    VkPhysicalDevice *physical_device = &handles.physical_device;
    VkDevice *device = &handles.device;
    VkQueue *queue = &handles.queue;
    io.x.buffer = buffer;
    if (*instance || *physical_device || *device || *queue)
        return 1;
#endif
    if (import.struct_size != sizeof import || requirements.n_features)
        return 1;
    bool empty = !io.x.buffer && !io.y.buffer && !io.offsets.buffer;
    return io.struct_size == sizeof io && empty && !handles.queue ? 0 : 1;
}
