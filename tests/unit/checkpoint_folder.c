// SPDX-License-Identifier: MIT
#include "checkpoint_folder.h"

#include "scratch.h"

#include "base/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void *folder_add(struct folder *folder, const char *name, const char *dtype, uint64_t d0,
                 uint64_t d1, uint64_t d2)
{
    assert_true(folder->n_tensors < FOLDER_MAX_TENSORS);
    struct moe_st_source *t = &folder->tensors[folder->n_tensors++];
    const uint64_t dims[] = {d0, d1, d2};
    uint64_t n, size;
    char *copy = malloc(strlen(name) + 1);
    assert_non_null(copy);
    strcpy(copy, name);
    *t = (struct moe_st_source){.name = copy, .dtype = dtype};
    while (t->n_dims < 3 && dims[t->n_dims] > 0) {
        t->dims[t->n_dims] = dims[t->n_dims];
        t->n_dims++;
    }
    assert_true(moe_st_shape_size(moe_st_find_dtype(dtype), t->dims, t->n_dims, &n, &size));
    t->data = calloc(1, size + 1);
    assert_non_null(t->data);
    return (void *) t->data;
}

struct moe_st_source *folder_find(struct folder *folder, const char *name)
{
    for (size_t i = 0; i < folder->n_tensors; i++) {
        if (strcmp(folder->tensors[i].name, name) == 0)
            return &folder->tensors[i];
    }
    return NULL;
}

static void release(struct moe_st_source *t)
{
    free((void *) t->name);
    free((void *) t->data);
}

void folder_remove(struct folder *folder, const char *name)
{
    struct moe_st_source *t = folder_find(folder, name);
    assert_non_null(t);
    release(t);
    *t = folder->tensors[--folder->n_tensors];
}

float folder_value(const char *name, size_t i)
{
    uint32_t h = 2166136261u ^ (uint32_t) i * 2654435761u;
    for (; *name; name++)
        h = (h ^ (unsigned char) *name) * 16777619u;
    h ^= h >> 15;
    return (float) ((int) (h % 127) - 63) / 64;
}

void folder_fill(struct folder *folder, const char *name)
{
    struct moe_st_source *t = folder_find(folder, name);
    assert_non_null(t);
    size_t n = 1;
    for (uint32_t i = 0; i < t->n_dims; i++)
        n *= (size_t) t->dims[i];
    for (size_t i = 0; i < n; i++)
        ((float *) t->data)[i] = folder_value(name, i);
}

void folder_write(const struct folder *folder, const char *config)
{
    unlink(scratch_path("model.safetensors.index.json"));
    scratch_text("config.json", config);
    check_ok(moe_safetensors_write(moe_host_default(), scratch_path("model.safetensors"),
                                   folder->tensors, folder->n_tensors, NULL));
}

void folder_finish(struct folder *folder)
{
    for (size_t i = 0; i < folder->n_tensors; i++)
        release(&folder->tensors[i]);
    folder->n_tensors = 0;
}

void folder_mixtral(struct folder *folder)
{
    static const char *const names[] = {"w1", "w3", "w2"};
    const char *router = "model.layers.1.block_sparse_moe.gate.weight";
    *folder = (struct folder){.n_tensors = 0};
    folder_add(folder, router, "F32", 4, 8, 0);
    folder_fill(folder, router);
    for (int e = 0; e < 4; e++) {
        for (int k = 0; k < 3; k++) {
            char name[96];
            snprintf(name, sizeof name, "model.layers.1.block_sparse_moe.experts.%d.%s.weight", e,
                     names[k]);
            folder_add(folder, name, "F32", k == 2 ? 8 : 6, k == 2 ? 6 : 8, 0);
            folder_fill(folder, name);
        }
    }
}
