// SPDX-License-Identifier: MIT
// The pipeline cache: one stored entry per device and driver version. A driver may take what it is
// given for its own, whole data, so it only gets back what it once wrote.
#include "vulkan/vk.h"

#include <stdio.h>
#include <string.h>

enum { HEADER_SIZE = 32 };

static void query(const struct moe_vk *vk, VkPhysicalDeviceProperties2 *properties)
{
    properties->sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
    vk->fn.vkGetPhysicalDeviceProperties2(vk->physical, properties);
}

// Is this the cache of the device we run on? VkPipelineCacheHeaderVersionOne, read bytewise.
static bool header_fits(const struct moe_vk *vk, const void *data, size_t size)
{
    uint32_t words[4];
    if (size < HEADER_SIZE)
        return false;
    memcpy(words, data, sizeof words);
    VkPhysicalDeviceProperties2 properties = {0};
    query(vk, &properties);
    return words[0] >= HEADER_SIZE && words[1] == VK_PIPELINE_CACHE_HEADER_VERSION_ONE &&
           words[2] == properties.properties.vendorID &&
           words[3] == properties.properties.deviceID &&
           memcmp((const unsigned char *) data + 16, properties.properties.pipelineCacheUUID,
                  VK_UUID_SIZE) == 0;
}

enum vkmoe_status moe_vk_cache_open(struct moe_vk *vk)
{
    struct moe_vk_entry entry;
    VkPhysicalDeviceProperties2 properties = {0};
    query(vk, &properties);
    snprintf(vk->cache_key, sizeof vk->cache_key, "pipelines-%s-%08x", vk->base.info.uuid,
             properties.properties.driverVersion);
    moe_vk_entry_read(vk, vk->cache_key, &entry);
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
    if (entry.data && header_fits(vk, entry.data, entry.size)) {
        info.initialDataSize = vk->cache_size_on_disk = entry.size;
        info.pInitialData = entry.data;
    }
    VkResult result = vk->fn.vkCreatePipelineCache(vk->device, &info, NULL, &vk->pipeline_cache);
    moe_vk_entry_finish(vk, &entry);
    return result < 0 ? moe_vk_fail(vk, result, "vkCreatePipelineCache") : VKMOE_OK;
}

void moe_vk_cache_save(struct moe_vk *vk)
{
    size_t size = 0;
    // SwiftShader puts a new header around what it was given: that alone is nothing new.
    size_t old_size = vk->cache_size_on_disk > 0 ? vk->cache_size_on_disk + HEADER_SIZE : 0;
    if (!vk->pipeline_cache || !moe_vk_store_exists(vk) ||
        vk->fn.vkGetPipelineCacheData(vk->device, vk->pipeline_cache, &size, NULL) < 0 ||
        size <= old_size)
        return;
    void *data = moe_alloc(vk->base.host, size);
    // lavapipe 26 hands out a piece of a header, and calls that success.
    if (data &&
        vk->fn.vkGetPipelineCacheData(vk->device, vk->pipeline_cache, &size, data) == VK_SUCCESS &&
        size >= HEADER_SIZE)
        moe_vk_entry_write(vk, vk->cache_key, data, size);
    moe_free(vk->base.host, data);
}
