// SPDX-License-Identifier: MIT
#include "model/shards.h"

#include "base/host.h"
#include "base/status.h"
#include "model/config.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

// ---- index -----------------------------------------------------------------------------------

static enum vkmoe_status read_index(struct moe_shards *shards, const char *path)
{
    // A total_size is nobody's business, and may be any number that f64 can hold: more is the
    // parser's to refuse. A zero byte in a file's name is ours to report.
    return moe_json_read(shards->host, path, MOE_ST_MAX_HEADER_SIZE,
                         JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL,
                         &shards->index);
}

static enum vkmoe_status check_name(const json_t *value, const char *path, const char *tensor)
{
    const char *name = json_string_value(value), *what = NULL;
    if (!name)
        return moe_fail(VKMOE_E_DATA, "%s: tensor '%s': its shard is not a text", path, tensor);
    if (!*name && json_string_length(value) == 0)
        what = "is empty";
    else if (strlen(name) != json_string_length(value))
        what = "has a zero byte in it";
    else if (strpbrk(name, "/\\"))
        what = "is in another folder";
    else if (strchr(name, ':'))
        what = "names a drive";
    else if (strcmp(name, ".") == 0)
        what = "names a folder";
    else if (strstr(name, ".."))
        what = "has '..' in it";
    if (what)
        return moe_fail(VKMOE_E_DATA, "%s: tensor '%s': shard '%.200s' %s: only a bare file name",
                        path, tensor, name, what);
    return VKMOE_OK;
}

struct listed {
    const char *tensor, *shard;
};

static int by_shard(const void *a, const void *b)
{
    const struct listed *x = a, *y = b;
    int order = strcmp(x->shard, y->shard);
    return order ? order : strcmp(x->tensor, y->tensor);
}

// What the index lists, sorted by shard.
static enum vkmoe_status list_tensors(const vkmoe_host *host, json_t *map, const char *path,
                                      struct listed **out)
{
    enum vkmoe_status status;
    struct listed *list = NULL;
    size_t n = 0;
    const char *tensor;
    json_t *value;
    *out = NULL;
    TRY(moe_try_alloc(host, json_object_size(map) * sizeof *list, "list of tensors", &list));
    json_object_foreach(map, tensor, value) {
        TRY(check_name(value, path, tensor));
        list[n++] = (struct listed){tensor, json_string_value(value)};
    }
    qsort(list, n, sizeof *list, by_shard);
    *out = list;
    return VKMOE_OK;

fail:
    moe_free(host, list);
    return status;
}

// The paths of a folder's files; false when one would be too long.
static bool join(char path[PATH_MAX], const char *folder, const char *name)
{
    return snprintf(path, PATH_MAX, "%s%s", folder, name) < PATH_MAX;
}

static enum vkmoe_status check_file(const struct moe_shards *shards, const struct moe_shard *shard,
                                    const char *index)
{
    char path[PATH_MAX];
    struct stat info;
    const char *what = NULL;
    if (!join(path, shards->folder, shard->name))
        what = "the path is too long";
    else if (stat(path, &info) != 0)
        what = strerror(errno);
    else if (!S_ISREG(info.st_mode))
        what = "not a regular file";
    if (what)
        return moe_fail(VKMOE_E_DATA, "%s: shard '%.200s' of tensor '%s': %s", index, shard->name,
                        shards->entries[shard->first].tensor, what);
    return VKMOE_OK;
}

// Makes the tables of shards and of their tensors.
static enum vkmoe_status read_weight_map(struct moe_shards *shards, const char *path)
{
    enum vkmoe_status status;
    struct listed *list = NULL;
    json_t *map = json_object_get(shards->index, "weight_map");
    const vkmoe_host *host = shards->host;
    if (!json_is_object(map))
        return moe_fail(VKMOE_E_DATA, "%s: weight_map is %s", path,
                        map ? "not an object" : "missing");
    size_t n = json_object_size(map), n_shards = 0;
    TRY(list_tensors(host, map, path, &list));
    for (size_t i = 0; i < n; i++)
        n_shards += i == 0 || strcmp(list[i].shard, list[i - 1].shard) != 0;
    TRY(moe_try_alloc(host, n_shards * sizeof *shards->shards, "shards", &shards->shards));
    TRY(moe_try_alloc(host, n * sizeof *shards->entries, "tensors of shards", &shards->entries));
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || strcmp(list[i].shard, list[i - 1].shard) != 0)
            shards->shards[shards->n_shards++] =
                (struct moe_shard){.name = list[i].shard, .first = i};
        struct moe_shard *shard = &shards->shards[shards->n_shards - 1];
        shard->n_tensors++;
        shards->entries[shards->n_entries++] = (struct moe_shard_entry){list[i].tensor, shard};
    }
    for (size_t i = 0; i < n_shards; i++)
        TRY(check_file(shards, &shards->shards[i], path));

fail:
    moe_free(host, list);
    return status;
}

enum vkmoe_status moe_shards_open(const vkmoe_host *host, const char *folder,
                                  struct moe_shards *out)
{
    enum vkmoe_status status;
    struct moe_shards shards = {.host = host};
    char path[PATH_MAX];
    size_t size = strlen(folder);
    *out = (struct moe_shards){0};
    TRY(moe_try_alloc(host, size + 2, "path of a folder", &shards.folder));
    memcpy(shards.folder, folder, size);
    shards.folder[size] = size > 0 && folder[size - 1] == '/' ? '\0' : '/';
    if (!join(path, shards.folder, MOE_SHARDS_INDEX)) {
        status = moe_fail(VKMOE_E_IO, "%.200s: the path is too long", folder);
        goto fail;
    }
    TRY(read_index(&shards, path));
    TRY(read_weight_map(&shards, path));
    *out = shards;
    return VKMOE_OK;

fail:
    moe_shards_close(&shards);
    return status;
}

void moe_shards_close(struct moe_shards *shards)
{
    if (!shards->host)
        return;
    for (size_t i = 0; i < shards->n_shards; i++)
        moe_safetensors_close(&shards->shards[i].file);
    moe_free(shards->host, shards->entries);
    moe_free(shards->host, shards->shards);
    json_decref(shards->index);
    moe_free(shards->host, shards->folder);
    *shards = (struct moe_shards){0};
}

// ---- shards ----------------------------------------------------------------------------------

static enum vkmoe_status open_shard(struct moe_shards *shards, struct moe_shard *shard)
{
    char path[PATH_MAX];
    enum vkmoe_status status;
    if (!join(path, shards->folder, shard->name))
        return moe_fail(VKMOE_E_IO, "%.200s: the path is too long", shard->name);
    TRY(moe_safetensors_open(shards->host, path, &shard->file));
    for (size_t i = 0; i < shard->n_tensors; i++) {
        const char *tensor = shards->entries[shard->first + i].tensor;
        if (!moe_safetensors_find(&shard->file, tensor)) {
            status = moe_fail(VKMOE_E_DATA, "%s: tensor '%s' is missing; " MOE_SHARDS_INDEX
                              " says that it is there", path, tensor);
            goto fail;
        }
    }
    shard->is_open = true;
    return VKMOE_OK;

fail:
    moe_safetensors_close(&shard->file);
    return status;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct moe_shard *) a)->name, ((const struct moe_shard *) b)->name);
}

enum vkmoe_status moe_shards_find(struct moe_shards *shards, const char *name,
                                  struct moe_st_tensor **out)
{
    *out = NULL;
    struct moe_shard key = {
        .name = json_string_value(json_object_get(json_object_get(shards->index, "weight_map"),
                                                  name))};
    if (!key.name)
        return VKMOE_OK;
    struct moe_shard *shard =
        bsearch(&key, shards->shards, shards->n_shards, sizeof key, by_name);
    if (!shard->is_open) {
        enum vkmoe_status status = open_shard(shards, shard);
        if (status != VKMOE_OK)
            return status;
    }
    *out = moe_safetensors_find(&shard->file, name);
    return VKMOE_OK;
}
