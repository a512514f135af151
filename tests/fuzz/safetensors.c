// SPDX-License-Identifier: MIT
// Bytes: a safetensors file. What is accepted is written and read again.
#include "fuzz.h"

#include "model/safetensors.h"

#include <stdlib.h>

// The tensors are sorted, can be found and read, and fill the data part of the file.
static void check_tensors(struct moe_safetensors *file)
{
    uint64_t size = 0;
    for (size_t i = 0; i < file->n_tensors; i++) {
        struct moe_st_tensor *t = &file->tensors[i];
        char text[192];
        FUZZ_CHECK(i == 0 || strcmp(t[-1].name, t->name) < 0);
        FUZZ_CHECK(moe_safetensors_find(file, t->name) == t);
        FUZZ_CHECK((t->end - t->begin) * 8 == t->n_elements * t->dtype->bits);
        FUZZ_CHECK(strlen(moe_st_describe(t, text)) < sizeof text - 1);
        size += t->end - t->begin;
    }
    FUZZ_CHECK(file->data_start + size == file->file.size);
    for (size_t i = 0; i < file->n_tensors; i++) {
        FUZZ_CHECK(file->tensors[i].end <= size);
        free(fuzz_tensor(file, &file->tensors[i]));
    }
}

static void write_again(const struct moe_safetensors *file, const char *path)
{
    struct moe_st_source *sources = calloc(file->n_tensors + 1, sizeof *sources);
    FUZZ_CHECK(sources);
    for (size_t i = 0; i < file->n_tensors; i++) {
        const struct moe_st_tensor *t = &file->tensors[i];
        sources[i] = (struct moe_st_source){
            .name = t->name, .dtype = t->dtype->name, .n_dims = t->n_dims,
            .data = fuzz_tensor(file, t)};
        memcpy(sources[i].dims, t->dims, sizeof t->dims);
    }
    FUZZ_CHECK(moe_safetensors_write(fuzz_host(), path, sources, file->n_tensors,
                                     json_object_get(file->header, MOE_ST_METADATA)) == VKMOE_OK);
    for (size_t i = 0; i < file->n_tensors; i++)
        free((void *) sources[i].data);
    free(sources);
}

static void check_bytes(const struct moe_safetensors *a, const struct moe_st_tensor *t,
                        const struct moe_safetensors *b, const struct moe_st_tensor *u)
{
    void *x = fuzz_tensor(a, t), *y = fuzz_tensor(b, u);
    FUZZ_CHECK(memcmp(x, y, (size_t) (t->end - t->begin)) == 0);
    free(x);
    free(y);
}

static void check_equal(const struct moe_safetensors *a, const struct moe_safetensors *b)
{
    const json_t *metadata = json_object_get(a->header, MOE_ST_METADATA);
    const json_t *other = json_object_get(b->header, MOE_ST_METADATA);
    FUZZ_CHECK(metadata ? json_equal(metadata, other) : !other);
    FUZZ_CHECK(a->n_tensors == b->n_tensors);
    for (size_t i = 0; i < a->n_tensors; i++) {
        const struct moe_st_tensor *t = &a->tensors[i], *u = &b->tensors[i];
        FUZZ_CHECK(strcmp(t->name, u->name) == 0);
        FUZZ_CHECK(t->dtype == u->dtype && t->n_dims == u->n_dims);
        FUZZ_CHECK(memcmp(t->dims, u->dims, sizeof t->dims) == 0);
        FUZZ_CHECK(t->n_elements == u->n_elements && t->end - t->begin == u->end - u->begin);
        check_bytes(a, t, b, u);
    }
}

bool fuzz_target(const uint8_t *data, size_t size)
{
    struct moe_safetensors file, again;
    const char *path = scratch_path("again.safetensors");
    if (!fuzz_accepted(moe_safetensors_open(
            fuzz_host(), scratch_file("a.safetensors", data, size), &file))) {
        FUZZ_CHECK(!file.host && !file.tensors);
        return false;
    }
    check_tensors(&file);
    write_again(&file, path);
    FUZZ_CHECK(moe_safetensors_open(fuzz_host(), path, &again) == VKMOE_OK);
    check_tensors(&again);
    check_equal(&file, &again);
    moe_safetensors_close(&again);
    moe_safetensors_close(&file);
    return true;
}
