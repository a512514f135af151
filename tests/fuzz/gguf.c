// SPDX-License-Identifier: MIT
// Bytes: a GGUF file. Its name says that it is the first of two parts, of which the second is the
// target's own, or that it is whole: by the first byte. What is accepted is consistent; a whole
// file is written and read again.
#include "fuzz.h"

#include "model/gguf.h"

#include <stdlib.h>

// The second of two parts with two tensors, of which it has "z".
static const unsigned char second[] =
    "GGUF\3\0\0\0\1\0\0\0\0\0\0\0\3\0\0\0\0\0\0\0"
    "\10\0\0\0\0\0\0\0split.no\4\0\0\0\1\0\0\0"
    "\13\0\0\0\0\0\0\0split.count\4\0\0\0\2\0\0\0"
    "\23\0\0\0\0\0\0\0split.tensors.count\4\0\0\0\2\0\0\0"
    "\1\0\0\0\0\0\0\0z\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
    "0123456789012345678901234567890123456789";

static void check_values(const struct moe_gguf *file)
{
    for (size_t i = 0; i < file->n_values; i++) {
        const struct moe_gguf_value *v = &file->values[i];
        const char *text;
        uint64_t u64 = 0;
        uint32_t u32 = 0;
        double f64;
        float f32;
        bool yes;
        FUZZ_CHECK(moe_gguf_find_value(file, v->key) == v);
        FUZZ_CHECK(v->type <= MOE_GGUF_F64 && v->type != MOE_GGUF_ARRAY);
        FUZZ_CHECK(v->is_array || v->n == 1);
        bool is_u64 = moe_gguf_u64(file, v->key, &u64) == VKMOE_OK;
        bool is_u32 = moe_gguf_u32(file, v->key, &u32) == VKMOE_OK;
        FUZZ_CHECK(is_u32 == (is_u64 && u64 <= UINT32_MAX) && (!is_u32 || u32 == u64));
        bool is_f64 = moe_gguf_f64(file, v->key, &f64) == VKMOE_OK;
        FUZZ_CHECK(moe_gguf_f32(file, v->key, &f32) != VKMOE_OK || is_f64);
        bool is_bool = moe_gguf_bool(file, v->key, &yes) == VKMOE_OK;
        bool is_text = moe_gguf_string(file, v->key, &text) == VKMOE_OK;
        FUZZ_CHECK(is_u64 + is_f64 + is_bool + is_text <= !v->is_array);
        if (v->type == MOE_GGUF_STRING) {
            const struct moe_gguf_text *texts = v->data;
            for (uint64_t j = 0; j < v->n; j++) {
                fuzz_touch(texts[j].text, texts[j].size);
                FUZZ_CHECK(texts[j].text[texts[j].size] == '\0');
            }
        }
        if (v->is_array && v->n > 0) {
            u64 = 0;
            bool of_u64 = moe_gguf_element_u64(file, v->key, v->n - 1, &u64) == VKMOE_OK;
            bool of_f32 = moe_gguf_element_f32(file, v->key, v->n - 1, &f32) == VKMOE_OK;
            FUZZ_CHECK(of_u64 + of_f32 <= 1);
        }
        FUZZ_CHECK(moe_gguf_layer_u32(file, v->key, UINT32_MAX, &u32) != VKMOE_OK || is_u32);
    }
    vkmoe_error_set("");
}

static unsigned char *read_tensor(const struct moe_gguf *file, const struct moe_gguf_tensor *t)
{
    unsigned char *bytes = malloc((size_t) t->size + 1);
    FUZZ_CHECK(bytes);
    FUZZ_CHECK(moe_gguf_read(file, t, 0, (size_t) t->size, bytes) == VKMOE_OK);
    fuzz_touch(bytes, (size_t) t->size);
    FUZZ_CHECK(moe_gguf_read(file, t, 0, (size_t) t->size + 1, bytes) == VKMOE_E_ARGUMENT);
    vkmoe_error_set("");
    return bytes;
}

static void check_tensors(const struct moe_gguf *file)
{
    for (size_t i = 0; i < file->n_tensors; i++) {
        const struct moe_gguf_tensor *t = &file->tensors[i], *u = file->by_name[i];
        char text[192];
        FUZZ_CHECK(i == 0 || strcmp(file->by_name[i - 1]->name, u->name) < 0);
        FUZZ_CHECK(moe_gguf_find(file, t->name) == t);
        FUZZ_CHECK(t->type == moe_gguf_type_of(t->type_id) && t->type->kind != MOE_GGUF_REMOVED);
        FUZZ_CHECK(t->size * t->type->block_elements == t->n_elements * t->type->block_size);
        FUZZ_CHECK(strlen(moe_gguf_describe(t, text)) < sizeof text - 1);
        FUZZ_CHECK(t->part < file->n_parts);
        free(read_tensor(file, t));
    }
}

static enum vkmoe_status write_again(const struct moe_gguf *file, const char *path)
{
    struct moe_gguf_source *sources = calloc(file->n_tensors + 1, sizeof *sources);
    FUZZ_CHECK(sources);
    for (size_t i = 0; i < file->n_tensors; i++) {
        const struct moe_gguf_tensor *t = &file->tensors[i];
        sources[i] = (struct moe_gguf_source){.name = t->name, .type_id = t->type_id,
                                              .n_dims = t->n_dims, .data = read_tensor(file, t)};
        memcpy(sources[i].dims, t->dims, sizeof t->dims);
    }
    enum vkmoe_status status = moe_gguf_write(fuzz_host(), path, file->values, file->n_values,
                                              sources, file->n_tensors, NULL);
    for (size_t i = 0; i < file->n_tensors; i++)
        free((void *) sources[i].data);
    free(sources);
    return status;
}

static void check_equal_value(const struct moe_gguf_value *v, const struct moe_gguf_value *w)
{
    static const size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    FUZZ_CHECK(strcmp(v->key, w->key) == 0 && v->type == w->type);
    FUZZ_CHECK(v->is_array == w->is_array && v->n == w->n);
    FUZZ_CHECK(memcmp(v->data, w->data, (size_t) v->n * sizes[v->type]) == 0);
    if (v->type != MOE_GGUF_STRING)
        return;
    const struct moe_gguf_text *a = v->data, *b = w->data;
    for (uint64_t i = 0; i < v->n; i++)
        FUZZ_CHECK(a[i].size == b[i].size && memcmp(a[i].text, b[i].text, a[i].size) == 0);
}

static void check_equal(const struct moe_gguf *a, const struct moe_gguf *b)
{
    FUZZ_CHECK(a->n_values == b->n_values && a->n_tensors == b->n_tensors);
    for (size_t i = 0; i < a->n_values; i++)
        check_equal_value(&a->values[i], &b->values[i]);
    for (size_t i = 0; i < a->n_tensors; i++) {
        const struct moe_gguf_tensor *t = &a->tensors[i], *u = &b->tensors[i];
        FUZZ_CHECK(strcmp(t->name, u->name) == 0 && t->type == u->type && t->n_dims == u->n_dims);
        FUZZ_CHECK(memcmp(t->dims, u->dims, sizeof t->dims) == 0 && t->size == u->size);
        unsigned char *x = read_tensor(a, t), *y = read_tensor(b, u);
        FUZZ_CHECK(memcmp(x, y, (size_t) t->size) == 0);
        free(x);
        free(y);
    }
}

bool fuzz_target(const uint8_t *data, size_t size)
{
    struct moe_gguf file, again;
    bool split = size > 0 && data[0] != 0;
    const char *name = split ? "a-00001-of-00002.gguf" : "a.gguf";
    if (split)
        scratch_file("a-00002-of-00002.gguf", second, sizeof second - 1);
    if (!fuzz_accepted(moe_gguf_open(fuzz_host(), scratch_file(name, data + (size > 0),
                                                               size - (size > 0)), &file))) {
        FUZZ_CHECK(!file.host && !file.parts && !file.tensors);
        return false;
    }
    FUZZ_CHECK(file.n_parts == (split ? 2 : 1));
    check_values(&file);
    check_tensors(&file);
    const char *path = scratch_path("again.gguf");
    if (split) {
        FUZZ_CHECK(write_again(&file, path) == VKMOE_E_ARGUMENT);
        vkmoe_error_set("");
    } else {
        FUZZ_CHECK(write_again(&file, path) == VKMOE_OK);
        FUZZ_CHECK(moe_gguf_open(fuzz_host(), path, &again) == VKMOE_OK);
        check_tensors(&again);
        check_equal(&file, &again);
        moe_gguf_close(&again);
    }
    moe_gguf_close(&file);
    return true;
}
