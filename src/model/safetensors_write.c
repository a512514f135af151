// SPDX-License-Identifier: MIT
#include "model/safetensors.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"

#include <stdlib.h>

enum { DATA_ALIGN = 8, PIECE_SIZE = 1 << 20 };

static enum vkmoe_status add_metadata(json_t *metadata, json_t *header)
{
    const char *key;
    json_t *value;
    bool good = json_is_object(metadata);
    json_object_foreach(metadata, key, value)
        good = good && json_is_string(value);
    if (!good)
        return moe_fail(VKMOE_E_ARGUMENT, MOE_ST_METADATA " is not an object of texts");
    if (json_object_set(header, MOE_ST_METADATA, metadata) != 0)
        return moe_fail(VKMOE_E_MEMORY, MOE_ST_METADATA " of %zu texts",
                        json_object_size(metadata));
    return VKMOE_OK;
}

// The JSON entry of one tensor; moves *offset behind it.
static enum vkmoe_status describe(const struct moe_st_source *tensor, uint64_t *offset,
                                  json_t *header)
{
    const struct moe_st_dtype *dtype = moe_st_find_dtype(tensor->dtype);
    uint64_t n_elements, size;
    if (!dtype || tensor->n_dims > MOE_ST_MAX_DIMS ||
        !moe_st_shape_size(dtype, tensor->dims, tensor->n_dims, &n_elements, &size))
        return moe_fail(VKMOE_E_ARGUMENT, "tensor '%s': no such dtype or shape (%s, %u dimensions)",
                        tensor->name, tensor->dtype, tensor->n_dims);
    if (strcmp(tensor->name, MOE_ST_METADATA) == 0)
        return moe_fail(VKMOE_E_ARGUMENT, "'%s' is no name of a tensor", tensor->name);
    if (json_object_get(header, tensor->name))
        return moe_fail(VKMOE_E_ARGUMENT, "tensor '%s' is given twice", tensor->name);
    json_t *shape = json_array();
    for (uint32_t i = 0; i < tensor->n_dims; i++)
        json_array_append_new(shape, json_integer((json_int_t) tensor->dims[i]));
    json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype->name, "shape", shape,
                              "data_offsets", (json_int_t) *offset, (json_int_t) (*offset + size));
    if (json_object_set_new(header, tensor->name, entry) != 0)
        return moe_fail(VKMOE_E_ARGUMENT, "tensor '%s': the name is not UTF-8, or no memory",
                        tensor->name);
    *offset += size;
    return VKMOE_OK;
}

static enum vkmoe_status write_header(struct moe_file_writer *writer, const char *text)
{
    // Spaces up to the alignment, so that a reader may use the data in place.
    char spaces[DATA_ALIGN];
    memset(spaces, ' ', sizeof spaces);
    size_t n = strlen(text);
    size_t padded = (size_t) moe_align_up(n, DATA_ALIGN);
    unsigned char prefix[8];
    for (int i = 0; i < 8; i++)
        prefix[i] = (unsigned char) ((uint64_t) padded >> (8 * i));
    enum vkmoe_status status;
    if ((status = moe_file_write(writer, prefix, sizeof prefix)) != VKMOE_OK ||
        (status = moe_file_write(writer, text, n)) != VKMOE_OK)
        return status;
    return moe_file_write(writer, spaces, padded - n);
}

// The text of the header, to be freed.
static enum vkmoe_status make_header(const char *path, const struct moe_st_source *tensors,
                                     size_t n_tensors, json_t *metadata, char **text)
{
    enum vkmoe_status status = VKMOE_OK;
    uint64_t offset = 0;
    json_t *header = json_object();
    if (metadata)
        TRY(add_metadata(metadata, header));
    for (size_t i = 0; i < n_tensors; i++)
        TRY(describe(&tensors[i], &offset, header));
    *text = json_dumps(header, JSON_COMPACT);
    if (!*text)
        status = moe_fail(VKMOE_E_MEMORY, "%s: header of %zu tensors", path, n_tensors);
    else if (moe_align_up(strlen(*text), DATA_ALIGN) > MOE_ST_MAX_HEADER_SIZE)
        status = moe_fail(VKMOE_E_ARGUMENT, "%s: header of %zu bytes, at most %d", path,
                          strlen(*text), MOE_ST_MAX_HEADER_SIZE);

fail:
    json_decref(header);
    return status;
}

static enum vkmoe_status write_pieces(const vkmoe_host *host, struct moe_file_writer *writer,
                                      const struct moe_st_source *tensor, uint64_t size)
{
    enum vkmoe_status status;
    void *piece = NULL;
    TRY(moe_try_alloc(host, (size_t) moe_min(size, PIECE_SIZE), "piece of a tensor", &piece));
    for (uint64_t at = 0; at < size; at += PIECE_SIZE) {
        size_t n = (size_t) moe_min(PIECE_SIZE, size - at);
        TRY(tensor->fill(tensor->user, at, n, piece));
        TRY(moe_file_write(writer, piece, n));
    }

fail:
    moe_free(host, piece);
    return status;
}

// Header and tensors; the writer is gone afterwards.
static enum vkmoe_status write_all(const vkmoe_host *host, struct moe_file_writer *writer,
                                   const char *text,
                                   const struct moe_st_source *tensors, size_t n_tensors)
{
    enum vkmoe_status status;
    TRY(write_header(writer, text));
    for (size_t i = 0; i < n_tensors; i++) {
        uint64_t n_elements, size = 0;
        moe_st_shape_size(moe_st_find_dtype(tensors[i].dtype), tensors[i].dims, tensors[i].n_dims,
                          &n_elements, &size);
        if (tensors[i].fill)
            TRY(write_pieces(host, writer, &tensors[i], size));
        else
            TRY(moe_file_write(writer, tensors[i].data, (size_t) size));
    }
    status = moe_file_commit(writer);
    writer = NULL;

fail:
    moe_file_discard(writer);
    return status;
}

enum vkmoe_status moe_safetensors_write(const vkmoe_host *host, const char *path,
                                        const struct moe_st_source *tensors, size_t n_tensors,
                                        json_t *metadata)
{
    enum vkmoe_status status;
    struct moe_file_writer *writer;
    char *text = NULL;
    TRY(make_header(path, tensors, n_tensors, metadata, &text));
    TRY(moe_file_create(host, path, &writer));
    TRY(write_all(host, writer, text, tensors, n_tensors));

fail:
    free(text);
    return status;
}

enum vkmoe_status moe_safetensors_commit(struct moe_file_writer *writer, const char *path,
                                         const struct moe_st_source *tensors, size_t n_tensors,
                                         json_t *metadata)
{
    char *text = NULL;
    enum vkmoe_status status = make_header(path, tensors, n_tensors, metadata, &text);
    if (status == VKMOE_OK)
        status = write_all(moe_host_default(), writer, text, tensors, n_tensors);
    else
        moe_file_discard(writer);
    free(text);
    return status;
}
