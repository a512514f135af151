// SPDX-License-Identifier: MIT
// The pipeline cache on disk, or in the host's store: one entry per device and driver version. A
// driver may take what it is given for its own, whole data, so an entry is sealed with a checksum:
// a foreign or damaged one is just an empty cache.
#include "vulkan/vk.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"

enum { MAX_CACHE_SIZE = 64 << 20, HEADER_SIZE = 32 };

struct seal { // before the driver's data
    char magic[8];
    uint64_t checksum; // FNV-1a of the driver's data
};
static const char magic[8] = "vkmoe/1";

static uint64_t checksum(const unsigned char *data, size_t size)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ data[i]) * UINT64_C(0x100000001b3);
    return hash;
}

// Is this the cache of the device we run on? VkPipelineCacheHeaderVersionOne, read bytewise.
static bool header_fits(const struct moe_vk *vk, const void *data, size_t size)
{
    uint32_t words[4];
    if (size < HEADER_SIZE)
        return false;
    memcpy(words, data, sizeof words);
    VkPhysicalDeviceProperties2 properties = {.sType =
                                                  VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
    vk->fn.vkGetPhysicalDeviceProperties2(vk->physical, &properties);
    return words[0] >= HEADER_SIZE && words[1] == VK_PIPELINE_CACHE_HEADER_VERSION_ONE &&
           words[2] == properties.properties.vendorID &&
           words[3] == properties.properties.deviceID &&
           memcmp((const unsigned char *) data + 16, properties.properties.pipelineCacheUUID,
                  VK_UUID_SIZE) == 0;
}

static void make_key(struct moe_vk *vk)
{
    VkPhysicalDeviceProperties2 properties = {.sType =
                                                  VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
    vk->fn.vkGetPhysicalDeviceProperties2(vk->physical, &properties);
    snprintf(vk->cache_key, sizeof vk->cache_key, "pipelines-%s-%08x", vk->base.info.uuid,
             properties.properties.driverVersion);
}

static bool file_path(const struct moe_vk *vk, char path[PATH_MAX])
{
    return vk->cache_dir &&
           snprintf(path, PATH_MAX, "%s/%s.bin", vk->cache_dir, vk->cache_key) < PATH_MAX;
}

// The driver's data in an entry, and its size; NULL if that is not what was once saved here.
static const unsigned char *unseal(const struct moe_vk *vk, const unsigned char *entry,
                                   size_t *size)
{
    struct seal seal;
    if (!entry || *size < sizeof seal || *size > MAX_CACHE_SIZE)
        return NULL;
    memcpy(&seal, entry, sizeof seal);
    *size -= sizeof seal;
    if (memcmp(seal.magic, magic, sizeof magic) != 0 ||
        seal.checksum != checksum(entry + sizeof seal, *size) ||
        !header_fits(vk, entry + sizeof seal, *size))
        return NULL;
    return entry + sizeof seal;
}

static enum vkmoe_status create(struct moe_vk *vk, const void *entry, size_t size)
{
    const unsigned char *data = unseal(vk, entry, &size);
    vk->cache_size_on_disk = data ? size : 0;
    VkPipelineCacheCreateInfo info = {.sType = VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO,
                                      .initialDataSize = vk->cache_size_on_disk,
                                      .pInitialData = data};
    VkResult result = vk->fn.vkCreatePipelineCache(vk->device, &info, NULL, &vk->pipeline_cache);
    return result < 0 ? moe_vk_fail(vk, result, "vkCreatePipelineCache") : VKMOE_OK;
}

static enum vkmoe_status open_from_host(struct moe_vk *vk)
{
    const vkmoe_host *host = vk->base.host;
    size_t room = 0;
    void *data = NULL;
    if (host->cache_get(host->user, vk->cache_key, NULL, &room) && room <= MAX_CACHE_SIZE)
        data = moe_alloc(host, room);
    size_t size = room; // somebody may have replaced the entry by a larger one meanwhile
    if (data && (!host->cache_get(host->user, vk->cache_key, data, &size) || size > room))
        size = 0;
    enum vkmoe_status status = create(vk, data, size);
    moe_free(host, data);
    return status;
}

enum vkmoe_status moe_vk_cache_open(struct moe_vk *vk)
{
    make_key(vk);
    if (vk->base.host->cache_get)
        return open_from_host(vk);
    char path[PATH_MAX];
    struct moe_file_map map = {0};
    struct stat file;
    // A first run has no file: that is no failure to report.
    if (file_path(vk, path) && stat(path, &file) == 0)
        (void) moe_file_map(path, &map);
    enum vkmoe_status status = create(vk, map.data, map.size);
    moe_file_unmap(&map);
    return status;
}

// Makes the directory and its parents; what fails shows when the file is written.
static void make_directories(const char *dir)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s", dir) >= (int) sizeof path)
        return;
    for (char *p = path + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        mkdir(path, 0755);
        *p = '/';
    }
    mkdir(path, 0755);
}

static enum vkmoe_status write_file(const struct moe_vk *vk, const void *data, size_t size)
{
    enum vkmoe_status status = VKMOE_OK;
    char path[PATH_MAX];
    struct moe_file_writer *writer = NULL;
    if (!file_path(vk, path))
        return VKMOE_OK;
    make_directories(vk->cache_dir);
    TRY(moe_file_create(vk->base.host, path, &writer));
    status = moe_file_write(writer, data, size);
    if (status == VKMOE_OK)
        return moe_file_commit(writer);
    moe_file_discard(writer);

fail:
    return status;
}

void moe_vk_cache_save(struct moe_vk *vk)
{
    const vkmoe_host *host = vk->base.host;
    size_t size = 0;
    // SwiftShader puts a new header around what it was given: that alone is nothing new.
    size_t old_size = vk->cache_size_on_disk > 0 ? vk->cache_size_on_disk + HEADER_SIZE : 0;
    if (!vk->pipeline_cache || (!host->cache_set && !vk->cache_dir) ||
        vk->fn.vkGetPipelineCacheData(vk->device, vk->pipeline_cache, &size, NULL) < 0 ||
        size <= old_size || size > MAX_CACHE_SIZE - sizeof(struct seal))
        return;
    unsigned char *entry = moe_alloc(host, sizeof(struct seal) + size);
    unsigned char *data = entry ? entry + sizeof(struct seal) : NULL;
    // lavapipe 26 hands out a piece of a header, and calls that success.
    if (data &&
        vk->fn.vkGetPipelineCacheData(vk->device, vk->pipeline_cache, &size, data) == VK_SUCCESS &&
        size >= HEADER_SIZE) {
        struct seal seal = {.checksum = checksum(data, size)};
        memcpy(seal.magic, magic, sizeof magic);
        memcpy(entry, &seal, sizeof seal);
        if (host->cache_set)
            host->cache_set(host->user, vk->cache_key, entry, sizeof seal + size);
        else if (write_file(vk, entry, sizeof seal + size) != VKMOE_OK)
            moe_log(host, VKMOE_LOG_WARN, "pipelines are not cached: %s", vkmoe_error_text());
    }
    moe_free(host, entry);
}
