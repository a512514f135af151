// SPDX-License-Identifier: MIT
// What outlives the process: entries by name, in the host's store or in files of cache_dir. An
// entry is sealed with a checksum, so a foreign or damaged one is just absent.
#include "vulkan/vk.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_ENTRY_SIZE = 64 << 20, SMALL_SIZE = 1024 };

struct seal { // before the data
    char magic[8];
    uint64_t checksum; // FNV-1a of the data
};
static const char magic[8] = "vkmoe/1";

uint64_t moe_vk_checksum(const void *data, size_t size)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ ((const unsigned char *) data)[i]) * UINT64_C(0x100000001b3);
    return hash;
}

bool moe_vk_store_exists(const struct moe_vk *vk)
{
    return vk->base.host->cache_set || vk->cache_dir;
}

static bool file_path(const struct moe_vk *vk, const char *key, char path[PATH_MAX])
{
    return vk->cache_dir && snprintf(path, PATH_MAX, "%s/%s.bin", vk->cache_dir, key) < PATH_MAX;
}

static void unseal(struct moe_vk_entry *entry, const unsigned char *sealed, size_t size)
{
    struct seal seal;
    if (!sealed || size < sizeof seal || size > MAX_ENTRY_SIZE)
        return;
    memcpy(&seal, sealed, sizeof seal);
    sealed += sizeof seal;
    size -= sizeof seal;
    if (memcmp(seal.magic, magic, sizeof magic) != 0 ||
        seal.checksum != moe_vk_checksum(sealed, size))
        return;
    entry->data = sealed;
    entry->size = size;
}

static void read_host(const struct moe_vk *vk, const char *key, struct moe_vk_entry *entry)
{
    const vkmoe_host *host = vk->base.host;
    size_t room = 0;
    if (!host->cache_get(host->user, key, NULL, &room) || room > MAX_ENTRY_SIZE)
        return;
    entry->memory = moe_alloc(host, room);
    size_t size = room; // somebody may have replaced the entry by a larger one meanwhile
    if (entry->memory && host->cache_get(host->user, key, entry->memory, &size) && size <= room)
        unseal(entry, entry->memory, size);
}

void moe_vk_entry_read(const struct moe_vk *vk, const char *key, struct moe_vk_entry *entry)
{
    char path[PATH_MAX];
    struct stat file;
    *entry = (struct moe_vk_entry){0};
    if (vk->base.host->cache_get) {
        read_host(vk, key, entry);
        return;
    }
    // A first run has no file: that is no failure to report.
    if (file_path(vk, key, path) && stat(path, &file) == 0 &&
        moe_file_map(path, &entry->map) == VKMOE_OK)
        unseal(entry, entry->map.data, entry->map.size);
}

void moe_vk_entry_finish(const struct moe_vk *vk, struct moe_vk_entry *entry)
{
    moe_file_unmap(&entry->map);
    moe_free(vk->base.host, entry->memory);
    *entry = (struct moe_vk_entry){0};
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

static enum vkmoe_status write_file(const struct moe_vk *vk, const char *key, const void *data,
                                    size_t size)
{
    enum vkmoe_status status = VKMOE_OK;
    char path[PATH_MAX];
    struct moe_file_writer *writer = NULL;
    if (!file_path(vk, key, path))
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

bool moe_vk_entry_write(const struct moe_vk *vk, const char *key, const void *data, size_t size)
{
    const vkmoe_host *host = vk->base.host;
    struct seal seal = {.checksum = moe_vk_checksum(data, size)};
    unsigned char small[SMALL_SIZE], *sealed = small;
    size_t sealed_size = sizeof seal + size;
    bool written = true;
    if (size > MAX_ENTRY_SIZE - sizeof seal)
        return false;
    if (sealed_size > sizeof small && !(sealed = moe_alloc(host, sealed_size)))
        return false;
    memcpy(seal.magic, magic, sizeof magic);
    memcpy(sealed, &seal, sizeof seal);
    memcpy(sealed + sizeof seal, data, size);
    if (host->cache_set)
        host->cache_set(host->user, key, sealed, sealed_size);
    else
        written = write_file(vk, key, sealed, sealed_size) == VKMOE_OK;
    if (!written)
        moe_log(host, VKMOE_LOG_WARN, "%s is not cached: %s", key, vkmoe_error_text());
    if (sealed != small)
        moe_free(host, sealed);
    return written;
}

void moe_vk_entry_remove(const struct moe_vk *vk, const char *key)
{
    char path[PATH_MAX];
    if (!vk->base.host->cache_set && file_path(vk, key, path))
        unlink(path);
}
