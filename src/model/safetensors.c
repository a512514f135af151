// SPDX-License-Identifier: MIT
#include "model/safetensors.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "core/dtype.h"

#include <stdio.h>
#include <stdlib.h>

enum { PREFIX_SIZE = 8 };

// No file is larger, so that products of checked dimensions stay far from 64 bits.
static const uint64_t max_dim = (uint64_t) 1 << 48;

static const struct moe_st_dtype dtypes[] = {
    {"BOOL", 8},        {"U8", 8},       {"I8", 8},       {"U16", 16},     {"I16", 16},
    {"U32", 32},        {"I32", 32},     {"U64", 64},     {"I64", 64},     {"F16", 16},
    {"BF16", 16},       {"F32", 32},     {"F64", 64},     {"C64", 64},     {"F8_E4M3", 8},
    {"F8_E5M2", 8},     {"F8_E8M0", 8},  {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
    {"F6_E2M3", 6},     {"F6_E3M2", 6},  {"F4", 4},
};

const struct moe_st_dtype *moe_st_find_dtype(const char *name)
{
    for (size_t i = 0; i < MOE_COUNT(dtypes); i++) {
        if (strcmp(dtypes[i].name, name) == 0)
            return &dtypes[i];
    }
    return NULL;
}

bool moe_st_shape_size(const struct moe_st_dtype *dtype, const uint64_t *dims, uint32_t n_dims,
                       uint64_t *n_elements, uint64_t *size)
{
    uint64_t n = 1, n_bits;
    for (uint32_t i = 0; i < n_dims; i++) {
        if (dims[i] > max_dim || !moe_mul(n, dims[i], &n))
            return false;
    }
    if (!moe_mul(n, dtype->bits, &n_bits) || n_bits % 8 != 0)
        return false;
    *n_elements = n;
    *size = n_bits / 8;
    return true;
}

const char *moe_st_describe(const struct moe_st_tensor *tensor, char text[192])
{
    int n = snprintf(text, 192, "%s (", tensor->dtype->name);
    for (uint32_t i = 0; i < tensor->n_dims; i++)
        n += snprintf(text + n, (size_t) (192 - n), "%s%llu", i ? ", " : "",
                      (unsigned long long) tensor->dims[i]);
    snprintf(text + n, (size_t) (192 - n), ")");
    return text;
}

bool moe_st_float_type(const struct moe_st_tensor *tensor, enum vkmoe_dtype *out)
{
    static const char *const names[] = {
        [VKMOE_F32] = "F32",
        [VKMOE_F16] = "F16",
        [VKMOE_BF16] = "BF16",
    };
    for (uint32_t i = 0; i < MOE_COUNT(names); i++) {
        if (strcmp(tensor->dtype->name, names[i]) == 0) {
            *out = (enum vkmoe_dtype) i;
            return true;
        }
    }
    return false;
}

// ---- header ----------------------------------------------------------------------------------

// Parses the header's text, all of it.
static enum vkmoe_status parse_header(struct moe_safetensors *file, const char *path,
                                      const char *text, size_t n)
{
    while (n > 0 && text[n - 1] == ' ')
        n--;
    if (n < 2 || text[0] != '{' || text[n - 1] != '}')
        return moe_fail(VKMOE_E_DATA, "%s: the header is not a JSON object padded by spaces", path);

    json_error_t error;
    file->header = json_loadb(text, n, JSON_REJECT_DUPLICATES, &error);
    if (!file->header)
        return moe_fail(VKMOE_E_DATA, "%s: header: %s (byte %d)", path, error.text, error.position);
    return VKMOE_OK;
}

static enum vkmoe_status read_header(struct moe_safetensors *file, const char *path)
{
    enum vkmoe_status status;
    unsigned char prefix[PREFIX_SIZE];
    char *text = NULL;
    unsigned long long file_size = file->file.size;
    uint64_t size = 0;
    if (file_size < PREFIX_SIZE)
        return moe_fail(VKMOE_E_DATA, "%s: %llu bytes: too short for a safetensors file", path,
                        file_size);
    TRY(moe_file_read_at(&file->file, 0, PREFIX_SIZE, prefix));
    for (int i = PREFIX_SIZE - 1; i >= 0; i--)
        size = size << 8 | prefix[i];
    if (size > MOE_ST_MAX_HEADER_SIZE)
        return moe_fail(VKMOE_E_DATA,
                        "%s: header of %llu bytes, at most %d: not a safetensors file", path,
                        (unsigned long long) size, MOE_ST_MAX_HEADER_SIZE);
    if (size > file_size - PREFIX_SIZE)
        return moe_fail(VKMOE_E_DATA, "%s: header of %llu bytes in a file of %llu: truncated", path,
                        (unsigned long long) size, file_size);
    TRY(moe_try_alloc(file->host, (size_t) size, "header of a safetensors file", &text));
    TRY(moe_file_read_at(&file->file, PREFIX_SIZE, (size_t) size, text));
    TRY(parse_header(file, path, text, (size_t) size));
    file->data_start = PREFIX_SIZE + size;

fail:
    moe_free(file->host, text);
    return status;
}

static enum vkmoe_status check_metadata(const struct moe_safetensors *file, const char *path)
{
    json_t *metadata = json_object_get(file->header, MOE_ST_METADATA);
    if (!metadata)
        return VKMOE_OK;
    if (!json_is_object(metadata))
        return moe_fail(VKMOE_E_DATA, "%s: " MOE_ST_METADATA " is not an object", path);
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value) {
        if (!json_is_string(value))
            return moe_fail(VKMOE_E_DATA, "%s: " MOE_ST_METADATA " '%s' is not a text", path, key);
    }
    return VKMOE_OK;
}

// ---- tensors ---------------------------------------------------------------------------------

// A whole number >= 0; JSON reals such as 1.0 are not.
static bool read_count(const json_t *value, uint64_t *out)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *out = (uint64_t) json_integer_value(value);
    return true;
}

static enum vkmoe_status read_shape(const json_t *shape, const char *path,
                                    struct moe_st_tensor *out)
{
    if (!json_is_array(shape))
        return moe_fail(VKMOE_E_DATA, "%s: tensor '%s': shape is not an array", path, out->name);
    size_t n_dims = json_array_size(shape);
    if (n_dims > MOE_ST_MAX_DIMS)
        return moe_fail(VKMOE_E_DATA, "%s: tensor '%s': %zu dimensions, at most %d", path,
                        out->name, n_dims, MOE_ST_MAX_DIMS);
    out->n_dims = (uint32_t) n_dims;
    for (uint32_t i = 0; i < out->n_dims; i++) {
        if (!read_count(json_array_get(shape, i), &out->dims[i]))
            return moe_fail(VKMOE_E_DATA, "%s: tensor '%s': shape[%u] is not a whole number >= 0",
                            path, out->name, i);
    }
    return VKMOE_OK;
}

static enum vkmoe_status read_tensor(const char *path, json_t *entry, uint64_t data_size,
                                     struct moe_st_tensor *out)
{
    enum vkmoe_status status;
    const json_t *dtype = json_object_get(entry, "dtype");
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *shape = json_object_get(entry, "shape");
    if (!dtype || !offsets || !shape || json_object_size(entry) != 3)
        return moe_fail(VKMOE_E_DATA,
                        "%s: tensor '%s': needs dtype, shape and data_offsets and nothing else",
                        path, out->name);
    out->dtype = json_is_string(dtype) ? moe_st_find_dtype(json_string_value(dtype)) : NULL;
    if (!out->dtype)
        return moe_fail(VKMOE_E_DATA, "%s: tensor '%s': unknown dtype '%.40s'", path, out->name,
                        json_is_string(dtype) ? json_string_value(dtype) : "(not a text)");
    if ((status = read_shape(shape, path, out)) != VKMOE_OK)
        return status;
    if (json_array_size(offsets) != 2 ||
        !read_count(json_array_get(offsets, 0), &out->begin) ||
        !read_count(json_array_get(offsets, 1), &out->end))
        return moe_fail(VKMOE_E_DATA,
                        "%s: tensor '%s': data_offsets are not two whole numbers >= 0", path,
                        out->name);
    if (out->begin > out->end || out->end > data_size)
        return moe_fail(VKMOE_E_DATA,
                        "%s: tensor '%s': data_offsets [%llu, %llu] outside %llu bytes of data",
                        path, out->name, (unsigned long long) out->begin,
                        (unsigned long long) out->end, (unsigned long long) data_size);
    uint64_t size;
    char text[192];
    if (!moe_st_shape_size(out->dtype, out->dims, out->n_dims, &out->n_elements, &size))
        return moe_fail(VKMOE_E_DATA, "%s: tensor '%s': impossible size of %s", path, out->name,
                        moe_st_describe(out, text));
    if (size != out->end - out->begin)
        return moe_fail(VKMOE_E_DATA, "%s: tensor '%s': %s takes %llu bytes, has %llu", path,
                        out->name, moe_st_describe(out, text), (unsigned long long) size,
                        (unsigned long long) (out->end - out->begin));
    return VKMOE_OK;
}

static int by_offset(const void *a, const void *b)
{
    const struct moe_st_tensor *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct moe_st_tensor *) a)->name,
                  ((const struct moe_st_tensor *) b)->name);
}

// Sorted by offset the ranges must follow each other from 0 to the end of the file.
static enum vkmoe_status check_tiling(struct moe_safetensors *file, const char *path,
                                      uint64_t data_size)
{
    qsort(file->tensors, file->n_tensors, sizeof *file->tensors, by_offset);
    uint64_t expected = 0;
    for (size_t i = 0; i < file->n_tensors; i++) {
        const struct moe_st_tensor *t = &file->tensors[i];
        if (t->begin != expected)
            return moe_fail(VKMOE_E_DATA, "%s: tensor '%s' begins at %llu, %s %llu", path, t->name,
                            (unsigned long long) t->begin,
                            t->begin < expected ? "inside a tensor that ends at" : "a hole from",
                            (unsigned long long) expected);
        expected = t->end;
    }
    if (expected != data_size)
        return moe_fail(VKMOE_E_DATA, "%s: %llu bytes of data, the tensors take %llu", path,
                        (unsigned long long) data_size, (unsigned long long) expected);
    return VKMOE_OK;
}

enum vkmoe_status moe_safetensors_open(const vkmoe_host *host, const char *path,
                                       struct moe_safetensors *out)
{
    enum vkmoe_status status;
    struct moe_safetensors file = {.host = host};
    *out = (struct moe_safetensors){0};
    TRY(moe_file_open(host, path, &file.file));
    TRY(read_header(&file, path));
    TRY(check_metadata(&file, path));

    uint64_t data_size = file.file.size - file.data_start;
    TRY(moe_try_alloc(host, json_object_size(file.header) * sizeof *file.tensors, "tensor table",
                      &file.tensors));
    const char *name;
    json_t *entry;
    json_object_foreach(file.header, name, entry) {
        if (strcmp(name, MOE_ST_METADATA) == 0)
            continue;
        struct moe_st_tensor *tensor = &file.tensors[file.n_tensors++];
        tensor->name = name;
        TRY(read_tensor(path, entry, data_size, tensor));
    }
    TRY(check_tiling(&file, path, data_size));
    qsort(file.tensors, file.n_tensors, sizeof *file.tensors, by_name);
    *out = file;
    return VKMOE_OK;

fail:
    moe_safetensors_close(&file);
    return status;
}

void moe_safetensors_close(struct moe_safetensors *file)
{
    if (!file->host)
        return;
    moe_free(file->host, file->tensors);
    json_decref(file->types);
    json_decref(file->header);
    moe_file_close(&file->file);
    *file = (struct moe_safetensors){0};
}

struct moe_st_tensor *moe_safetensors_find(struct moe_safetensors *file, const char *name)
{
    const struct moe_st_tensor key = {.name = name};
    return bsearch(&key, file->tensors, file->n_tensors, sizeof key, by_name);
}

enum vkmoe_status moe_safetensors_read(const struct moe_safetensors *file,
                                       const struct moe_st_tensor *tensor, uint64_t offset,
                                       size_t size, void *dst)
{
    uint64_t has = tensor->end - tensor->begin;
    if (offset > has || size > has - offset)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: tensor '%s': %zu bytes from %llu, it has %llu",
                        file->file.path, tensor->name, size, (unsigned long long) offset,
                        (unsigned long long) has);
    return moe_file_read_at(&file->file, file->data_start + tensor->begin + offset, size, dst);
}

enum vkmoe_status moe_safetensors_read_f32(const struct moe_safetensors *file,
                                           const struct moe_st_tensor *tensor, uint64_t first,
                                           size_t n, float *dst)
{
    enum vkmoe_status status = VKMOE_OK;
    enum vkmoe_dtype type;
    char text[192];
    unsigned char piece[8192];
    if (!moe_st_float_type(tensor, &type))
        return moe_fail(VKMOE_E_ARGUMENT, "%s: tensor '%s': %s has no floats", file->file.path,
                        tensor->name, moe_st_describe(tensor, text));
    if (first > tensor->n_elements || n > tensor->n_elements - first)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: tensor '%s': %zu elements from %llu of %s",
                        file->file.path, tensor->name, n, (unsigned long long) first,
                        moe_st_describe(tensor, text));
    const size_t size = tensor->dtype->bits / 8, most = sizeof piece / size;
    for (size_t at = 0; at < n; at += most) {
        size_t m = (size_t) moe_min(most, n - at);
        TRY(moe_safetensors_read(file, tensor, (first + at) * size, m * size, piece));
        moe_dtype_decode(type, piece, m, dst + at);
    }

fail:
    return status;
}

const char *moe_safetensors_metadata(const struct moe_safetensors *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header, MOE_ST_METADATA), key));
}
