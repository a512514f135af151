// SPDX-License-Identifier: MIT
// Writes GGUF files. The header is made in memory and given to the reader before there is a file:
// what the reader refuses, this refuses, with the reader's text.
#include "model/gguf_part.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"

#include <string.h>

enum { PIECE_SIZE = 1 << 20 };

struct job {
    const vkmoe_host *host;
    const char *path;
    const struct moe_gguf_value *values;
    size_t n_values;
    const struct moe_gguf_source *tensors;
    size_t n_tensors;
    uint64_t alignment;
};

// ---- header ----------------------------------------------------------------------------------

// Bytes are counted, and kept once there is room for them.
struct buffer {
    unsigned char *bytes;
    uint64_t size;
};

static void put(struct buffer *b, const void *data, uint64_t size)
{
    if (b->bytes && size > 0)
        memcpy(b->bytes + b->size, data, (size_t) size);
    b->size += size;
}

static void put_number(struct buffer *b, uint64_t number, uint32_t size)
{
    unsigned char bytes[8];
    for (uint32_t i = 0; i < size; i++)
        bytes[i] = (unsigned char) (number >> (8 * i));
    put(b, bytes, size);
}

static void put_text(struct buffer *b, const char *text, size_t size)
{
    put_number(b, size, 8);
    put(b, text, size);
}

static void put_value(struct buffer *b, const struct moe_gguf_value *v)
{
    put_text(b, v->key, strlen(v->key));
    if (v->is_array)
        put_number(b, MOE_GGUF_ARRAY, 4);
    put_number(b, v->type, 4);
    if (v->is_array)
        put_number(b, v->n, 8);
    if (v->type != MOE_GGUF_STRING) {
        put(b, v->data, v->n * moe_gguf_value_kind(v->type)->size);
        return;
    }
    const struct moe_gguf_text *texts = v->data;
    for (uint64_t i = 0; i < v->n; i++)
        put_text(b, texts[i].text, texts[i].size);
}

// Bytes of a tensor; where they cannot be told the reader refuses the tensor.
static uint64_t tensor_size(const struct moe_gguf_source *source)
{
    struct moe_gguf_tensor t = {.type = moe_gguf_type_of(source->type_id),
                                .n_dims = source->n_dims};
    memcpy(t.dims, source->dims, sizeof t.dims);
    if (!t.type || t.type->kind == MOE_GGUF_REMOVED || !moe_gguf_measure(&t))
        return 0;
    return t.size;
}

// Moves *offset behind the tensor.
static void put_tensor(struct buffer *b, const struct moe_gguf_source *t, uint64_t alignment,
                       uint64_t *offset)
{
    put_text(b, t->name, strlen(t->name));
    put_number(b, t->n_dims, 4);
    for (uint32_t i = 0; i < moe_min(t->n_dims, MOE_GGUF_MAX_DIMS); i++)
        put_number(b, t->dims[i], 8);
    put_number(b, t->type_id, 4);
    put_number(b, *offset, 8);
    *offset += moe_align_up(tensor_size(t), alignment);
}

static void put_header(struct buffer *b, const struct job *job)
{
    uint64_t offset = 0;
    put(b, "GGUF", 4);
    put_number(b, 3, 4);
    put_number(b, job->n_tensors, 8);
    put_number(b, job->n_values, 8);
    for (size_t i = 0; i < job->n_values; i++)
        put_value(b, &job->values[i]);
    for (size_t i = 0; i < job->n_tensors; i++)
        put_tensor(b, &job->tensors[i], job->alignment, &offset);
}

// The header, to be freed.
static enum vkmoe_status make_header(const struct job *job, struct buffer *out)
{
    struct buffer size = {0};
    put_header(&size, job);
    *out = (struct buffer){0};
    if (size.size > MOE_GGUF_MAX_HEADER_SIZE)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: header of %llu bytes, at most %d", job->path,
                        (unsigned long long) size.size, MOE_GGUF_MAX_HEADER_SIZE);
    enum vkmoe_status status =
        moe_try_alloc(job->host, (size_t) size.size, "header of a GGUF file", &out->bytes);
    if (status == VKMOE_OK)
        put_header(out, job);
    return status;
}

// ---- checks ----------------------------------------------------------------------------------

// What put_value must know before it can make a header to check.
static enum vkmoe_status check_value(const struct job *job, const struct moe_gguf_value *v)
{
    uint64_t size = 0;
    if (!moe_gguf_value_kind(v->type) || v->type == MOE_GGUF_ARRAY)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: key '%.128s': there is no type %u of elements",
                        job->path, v->key, (unsigned) v->type);
    if (!v->is_array && v->n != 1)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: key '%.128s': %llu elements of no array", job->path,
                        v->key, (unsigned long long) v->n);
    if (!moe_mul(v->n, moe_max(8, moe_gguf_value_kind(v->type)->size), &size) ||
        size > MOE_GGUF_MAX_HEADER_SIZE)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: key '%.128s': %llu elements of %s do not fit %d "
                        "bytes of header", job->path, v->key, (unsigned long long) v->n,
                        moe_gguf_value_kind(v->type)->name, MOE_GGUF_MAX_HEADER_SIZE);
    return VKMOE_OK;
}

// The tensors' bytes with what fills them up to the alignment.
static enum vkmoe_status measure_data(const struct job *job, uint64_t *out)
{
    const uint64_t most = (uint64_t) INT64_MAX / 2;
    *out = 0;
    for (size_t i = 0; i < job->n_tensors; i++) {
        uint64_t size = tensor_size(&job->tensors[i]);
        if (size > most - *out - job->alignment)
            return moe_fail(VKMOE_E_ARGUMENT, "%s: tensor '%s': %llu bytes from %llu are beyond "
                            "any file", job->path, job->tensors[i].name,
                            (unsigned long long) size, (unsigned long long) *out);
        *out += moe_align_up(size, job->alignment);
    }
    return VKMOE_OK;
}

// Would the reader open the file? Takes the header.
static enum vkmoe_status check_header(const struct job *job, struct buffer *header,
                                      uint64_t data_size)
{
    enum vkmoe_status status;
    struct moe_gguf_part part = {0};
    struct moe_gguf file = {.host = job->host, .n_parts = 1};
    struct moe_gguf_split split;
    uint64_t size = moe_align_up(header->size, job->alignment) + data_size;
    TRY(moe_gguf_part_parse(job->host, job->path, header->bytes, (size_t) header->size, size,
                            &part));
    TRY(moe_gguf_part_split(&part, &split));
    if (split.count != 1) {
        status = moe_fail(VKMOE_E_ARGUMENT, "%s: part %llu of %llu: only whole models are written",
                          job->path, (unsigned long long) split.no + 1,
                          (unsigned long long) split.count);
        goto fail;
    }
    file.parts = &part;
    TRY(moe_gguf_join(&file, &split));

fail:
    moe_free(job->host, file.by_name);
    moe_free(job->host, file.tensors);
    moe_gguf_part_close(&part);
    return status == VKMOE_E_DATA || status == VKMOE_E_UNSUPPORTED ? VKMOE_E_ARGUMENT : status;
}

static enum vkmoe_status check(const struct job *job)
{
    enum vkmoe_status status;
    struct buffer header;
    uint64_t data_size = 0;
    for (size_t i = 0; i < job->n_values; i++)
        TRY(check_value(job, &job->values[i]));
    TRY(measure_data(job, &data_size));
    TRY(make_header(job, &header));
    TRY(check_header(job, &header, data_size));

fail:
    return status;
}

// ---- file ------------------------------------------------------------------------------------

static enum vkmoe_status write_padding(struct moe_file_writer *writer, uint64_t size,
                                       uint64_t alignment)
{
    static const unsigned char zeros[4096];
    enum vkmoe_status status = VKMOE_OK;
    uint64_t n = moe_align_up(size, alignment) - size;
    while (n > 0 && status == VKMOE_OK) {
        size_t piece = (size_t) moe_min(n, sizeof zeros);
        status = moe_file_write(writer, zeros, piece);
        n -= piece;
    }
    return status;
}

static enum vkmoe_status write_pieces(const struct job *job, struct moe_file_writer *writer,
                                      const struct moe_gguf_source *t, uint64_t size)
{
    enum vkmoe_status status;
    void *piece = NULL;
    uint32_t block = moe_gguf_type_of(t->type_id)->block_size;
    uint64_t most = PIECE_SIZE / block * block;
    TRY(moe_try_alloc(job->host, (size_t) moe_min(size, most), "piece of a tensor", &piece));
    for (uint64_t at = 0; at < size; at += most) {
        size_t n = (size_t) moe_min(most, size - at);
        TRY(t->fill(t->user, at, n, piece));
        TRY(moe_file_write(writer, piece, n));
    }

fail:
    moe_free(job->host, piece);
    return status;
}

static enum vkmoe_status write_all(const struct job *job, struct moe_file_writer *writer)
{
    enum vkmoe_status status;
    struct buffer header = {0};
    TRY(make_header(job, &header));
    TRY(moe_file_write(writer, header.bytes, (size_t) header.size));
    TRY(write_padding(writer, header.size, job->alignment));
    for (size_t i = 0; i < job->n_tensors; i++) {
        const struct moe_gguf_source *t = &job->tensors[i];
        uint64_t size = tensor_size(t);
        if (t->data)
            TRY(moe_file_write(writer, t->data, (size_t) size));
        else if (size > 0)
            TRY(write_pieces(job, writer, t, size));
        TRY(write_padding(writer, size, job->alignment));
    }

fail:
    moe_free(job->host, header.bytes);
    return status;
}

// What the caller's keys say; where it is none the reader says so.
static uint64_t find_alignment(const struct job *job)
{
    for (size_t i = 0; i < job->n_values; i++) {
        const struct moe_gguf_value *v = &job->values[i];
        if (strcmp(v->key, MOE_GGUF_ALIGNMENT) == 0 && v->type == MOE_GGUF_U32 && v->n == 1)
            return moe_max(1, moe_gguf_number(v->data, 4));
    }
    return MOE_GGUF_ALIGN;
}

enum vkmoe_status moe_gguf_write(const vkmoe_host *host, const char *path,
                                 const struct moe_gguf_value *values, size_t n_values,
                                 const struct moe_gguf_source *tensors, size_t n_tensors,
                                 const struct moe_gguf_check *look)
{
    enum vkmoe_status status;
    struct moe_file_writer *writer = NULL;
    struct job job = {host, path, values, n_values, tensors, n_tensors, 0};
    job.alignment = find_alignment(&job);
    TRY(check(&job));
    TRY(moe_file_create(host, path, &writer));
    TRY(write_all(&job, writer));
    if (look)
        TRY(look->look(look->user, moe_file_temporary(writer)));
    status = moe_file_commit(writer);
    writer = NULL;

fail:
    moe_file_discard(writer);
    return status;
}
