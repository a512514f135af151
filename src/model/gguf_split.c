// SPDX-License-Identifier: MIT
// One or several GGUF files as one model. Of a split model each file says in its keys which part it
// is, of how many, and how many tensors all have; its name must say the same. The other files are
// found by that name alone, in the same folder: a key never names a file.
#include "model/gguf_part.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SPLIT_NO "split.no"
#define SPLIT_COUNT "split.count"
#define SPLIT_TENSORS "split.tensors.count"
#define SUFFIX "-%05llu-of-%05llu.gguf"

enum {
    SUFFIX_SIZE = 20,
    MAX_PARTS = 65535, // split.count is a u16 where it is written
};

// What a path ends with: "-00002-of-00003.gguf" is 2 and 3. False: with nothing like it.
static bool read_suffix(const char *path, unsigned long long *no, unsigned long long *count)
{
    char again[64];
    size_t size = strlen(path);
    if (size < SUFFIX_SIZE)
        return false;
    const char *suffix = path + size - SUFFIX_SIZE;
    if (sscanf(suffix, "-%5llu-of-%5llu", no, count) != 2)
        return false;
    snprintf(again, sizeof again, SUFFIX, *no, *count);
    return strcmp(suffix, again) == 0;
}

static enum vkmoe_status check_name(const struct moe_gguf_part *part,
                                    const struct moe_gguf_split *split)
{
    unsigned long long no = 1, count = 1;
    bool named = read_suffix(part->path, &no, &count);
    if (split->count == 1 && count <= 1)
        return VKMOE_OK;
    if (!named)
        return moe_fail(VKMOE_E_DATA, "%s: part %llu of %llu, which its name does not end with: "
                        SUFFIX, part->path, (unsigned long long) split->no + 1,
                        (unsigned long long) split->count, (unsigned long long) split->no + 1,
                        (unsigned long long) split->count);
    if (no != split->no + 1 || count != split->count)
        return moe_fail(VKMOE_E_DATA, "%s: part %llu of %llu by its keys, %llu of %llu by its name",
                        part->path, (unsigned long long) split->no + 1,
                        (unsigned long long) split->count, no, count);
    return VKMOE_OK;
}

enum vkmoe_status moe_gguf_part_split(const struct moe_gguf_part *part, struct moe_gguf_split *out)
{
    enum vkmoe_status status;
    struct moe_gguf_split split = {0, 1, part->n_tensors};
    bool has_count = moe_gguf_part_value(part, SPLIT_COUNT);
    if (has_count) {
        TRY(moe_gguf_part_u64(part, SPLIT_COUNT, &split.count));
        TRY(moe_gguf_part_u64(part, SPLIT_NO, &split.no));
        TRY(moe_gguf_part_u64(part, SPLIT_TENSORS, &split.n_tensors));
    }
    if (split.count > MAX_PARTS || split.no >= split.count)
        return moe_fail(VKMOE_E_DATA, "%s: " SPLIT_NO " %llu of " SPLIT_COUNT " %llu, at most %d",
                        part->path, (unsigned long long) split.no,
                        (unsigned long long) split.count, MAX_PARTS);
    TRY(check_name(part, &split));
    *out = split;

fail:
    return status;
}

// ---- parts -----------------------------------------------------------------------------------

static enum vkmoe_status open_other(struct moe_gguf *file, const struct moe_gguf_part *given,
                                    const struct moe_gguf_split *split, uint64_t no)
{
    enum vkmoe_status status;
    struct moe_gguf_split is;
    char path[PATH_MAX];
    size_t stem = strlen(given->path) - SUFFIX_SIZE;
    if (stem + SUFFIX_SIZE >= sizeof path)
        return moe_fail(VKMOE_E_IO, "%.200s: the path is too long", given->path);
    memcpy(path, given->path, stem);
    snprintf(path + stem, sizeof path - stem, SUFFIX, (unsigned long long) no + 1,
             (unsigned long long) split->count);
    TRY(moe_gguf_part_open(file->host, path, &file->parts[no]));
    TRY(moe_gguf_part_split(&file->parts[no], &is)); // no and count are what the name says
    if (is.n_tensors != split->n_tensors)
        return moe_fail(VKMOE_E_DATA, "%s: " SPLIT_TENSORS " is %llu, in part %llu it is %llu",
                        path, (unsigned long long) is.n_tensors, (unsigned long long) split->no + 1,
                        (unsigned long long) split->n_tensors);

fail:
    return status;
}

static int by_name(const void *a, const void *b)
{
    return strcmp((*(struct moe_gguf_tensor *const *) a)->name,
                  (*(struct moe_gguf_tensor *const *) b)->name);
}

static enum vkmoe_status check_unique(const struct moe_gguf *file)
{
    for (size_t i = 1; i < file->n_tensors; i++) {
        const struct moe_gguf_tensor *a = file->by_name[i - 1], *b = file->by_name[i];
        if (strcmp(a->name, b->name) == 0)
            return moe_fail(VKMOE_E_DATA, "%s: tensor '%s' is there twice (the other in %s)",
                            file->parts[b->part].path, b->name, file->parts[a->part].path);
    }
    return VKMOE_OK;
}

enum vkmoe_status moe_gguf_join(struct moe_gguf *file, const struct moe_gguf_split *split)
{
    enum vkmoe_status status;
    size_t n = 0;
    for (size_t i = 0; i < file->n_parts; i++)
        n += file->parts[i].n_tensors;
    if (n != split->n_tensors)
        return moe_fail(VKMOE_E_DATA, "%s: " SPLIT_TENSORS " is %llu, there are %zu",
                        file->parts[0].path, (unsigned long long) split->n_tensors, n);
    TRY(moe_try_alloc(file->host, n * sizeof *file->tensors, "tensors", &file->tensors));
    TRY(moe_try_alloc(file->host, n * sizeof *file->by_name, "tensors by name", &file->by_name));
    for (size_t i = 0; i < file->n_parts; i++) {
        const struct moe_gguf_part *part = &file->parts[i];
        for (size_t j = 0; j < part->n_tensors; j++) {
            struct moe_gguf_tensor *t = &file->tensors[file->n_tensors];
            *t = part->tensors[j];
            t->part = (uint32_t) i;
            file->by_name[file->n_tensors++] = t;
        }
    }
    qsort(file->by_name, n, sizeof *file->by_name, by_name);
    file->values = file->parts[0].values;
    file->n_values = file->parts[0].n_values;
    TRY(check_unique(file));

fail:
    return status;
}

enum vkmoe_status moe_gguf_open(const vkmoe_host *host, const char *path, struct moe_gguf *out)
{
    enum vkmoe_status status;
    struct moe_gguf file = {.host = host};
    struct moe_gguf_part given = {0};
    struct moe_gguf_split split;
    *out = (struct moe_gguf){0};
    TRY(moe_gguf_part_open(host, path, &given));
    TRY(moe_gguf_part_split(&given, &split));
    TRY(moe_try_alloc(host, (size_t) split.count * sizeof *file.parts, "parts of a GGUF model",
                      &file.parts));
    file.n_parts = (size_t) split.count;
    for (uint64_t i = 0; i < split.count; i++) {
        if (i != split.no)
            TRY(open_other(&file, &given, &split, i));
    }
    file.parts[split.no] = given;
    given = (struct moe_gguf_part){0};
    TRY(moe_gguf_join(&file, &split));
    *out = file;
    return VKMOE_OK;

fail:
    moe_gguf_part_close(&given);
    moe_gguf_close(&file);
    return status;
}

void moe_gguf_close(struct moe_gguf *file)
{
    if (!file->host)
        return;
    for (size_t i = 0; i < file->n_parts; i++)
        moe_gguf_part_close(&file->parts[i]);
    moe_free(file->host, file->by_name);
    moe_free(file->host, file->tensors);
    moe_free(file->host, file->parts);
    *file = (struct moe_gguf){0};
}

// ---- tensors ---------------------------------------------------------------------------------

struct moe_gguf_tensor *moe_gguf_find(const struct moe_gguf *file, const char *name)
{
    struct moe_gguf_tensor tensor = {.name = name}, *wanted = &tensor;
    struct moe_gguf_tensor **found =
        bsearch(&wanted, file->by_name, file->n_tensors, sizeof wanted, by_name);
    return found ? *found : NULL;
}

enum vkmoe_status moe_gguf_read(const struct moe_gguf *file, const struct moe_gguf_tensor *tensor,
                                uint64_t offset, size_t size, void *dst)
{
    const struct moe_gguf_part *part = &file->parts[tensor->part];
    if (offset > tensor->size || size > tensor->size - offset)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: tensor '%s': %zu bytes from %llu, it has %llu",
                        part->path, tensor->name, size, (unsigned long long) offset,
                        (unsigned long long) tensor->size);
    return moe_file_read_at(&part->file, part->data_start + tensor->offset + offset, size, dst);
}
