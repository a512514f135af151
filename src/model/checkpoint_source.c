// SPDX-License-Identifier: MIT
#include "model/checkpoint_source.h"

#include "base/bits.h"
#include "base/status.h"
#include "core/dtype.h"
#include "core/quant.h"

#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

// ---- opening ---------------------------------------------------------------------------------

enum vkmoe_status moe_source_open_file(const vkmoe_host *host, const char *path,
                                       struct moe_source *out)
{
    *out = (struct moe_source){.host = host};
    enum vkmoe_status status = moe_safetensors_open(host, path, &out->single);
    if (status != VKMOE_OK)
        *out = (struct moe_source){0};
    return status;
}

enum vkmoe_status moe_source_open_folder(const vkmoe_host *host, const char *folder,
                                         struct moe_source *out)
{
    char path[PATH_MAX];
    struct stat info;
    *out = (struct moe_source){0};
    int n = snprintf(path, sizeof path, "%s/" MOE_SHARDS_INDEX, folder);
    if (n < 0 || (size_t) n >= sizeof path)
        return moe_fail(VKMOE_E_IO, "%.200s: the path is too long", folder);
    if (stat(path, &info) == 0) {
        *out = (struct moe_source){.host = host};
        enum vkmoe_status status = moe_shards_open(host, folder, &out->shards);
        if (status != VKMOE_OK)
            *out = (struct moe_source){0};
        return status;
    }
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    if (stat(path, &info) != 0)
        return moe_fail(VKMOE_E_IO, "%.400s: neither " MOE_SHARDS_INDEX
                        " nor model.safetensors is there", folder);
    return moe_source_open_file(host, path, out);
}

enum vkmoe_status moe_source_open_gguf(const vkmoe_host *host, const char *path,
                                       struct moe_source *out)
{
    *out = (struct moe_source){.host = host, .is_gguf = true};
    enum vkmoe_status status = moe_gguf_open(host, path, &out->gguf);
    if (status != VKMOE_OK)
        *out = (struct moe_source){0};
    return status;
}

void moe_source_close(struct moe_source *source)
{
    if (!source->host)
        return;
    moe_gguf_close(&source->gguf);
    moe_shards_close(&source->shards);
    moe_safetensors_close(&source->single);
    *source = (struct moe_source){0};
}

// ---- tensors ---------------------------------------------------------------------------------

static const struct {
    const char *dtype;
    enum moe_code code;
} st_codes[] = {
    {"F32", MOE_CODE_F32},         {"F16", MOE_CODE_F16},         {"BF16", MOE_CODE_BF16},
    {"F64", MOE_CODE_F64},         {"I8", MOE_CODE_I8},           {"U8", MOE_CODE_U8},
    {"I32", MOE_CODE_I32},         {"I64", MOE_CODE_I64},         {"F8_E4M3", MOE_CODE_E4M3},
    {"F8_E5M2", MOE_CODE_E5M2},    {"F8_E8M0", MOE_CODE_E8M0},
};

static void from_safetensors(const struct moe_safetensors *file,
                             const struct moe_st_tensor *tensor, struct moe_source_tensor *out)
{
    *out = (struct moe_source_tensor){
        .name = tensor->name,
        .code = MOE_CODE_OTHER,
        .type_name = tensor->dtype->name,
        .block_values = 1,
        .block_size = tensor->dtype->bits / 8,
        .n_dims = tensor->n_dims,
        .size = tensor->end - tensor->begin,
        .at = tensor,
        .file = file,
    };
    memcpy(out->dims, tensor->dims, sizeof out->dims);
    for (size_t i = 0; i < MOE_COUNT(st_codes); i++) {
        if (strcmp(st_codes[i].dtype, tensor->dtype->name) == 0)
            out->code = st_codes[i].code;
    }
    uint64_t n_columns;
    if (!moe_st_block_type(file, tensor, &out->type, &n_columns))
        return;
    out->code = MOE_CODE_BLOCK;
    out->type_name = vkmoe_dtype_name(out->type);
    vkmoe_dtype_block(out->type, &out->block_values, &out->block_size);
    out->dims[out->n_dims - 1] = n_columns;
}

static enum vkmoe_status find_in_shards(struct moe_source *source, const char *name,
                                        struct moe_source_tensor *out)
{
    struct moe_st_tensor *tensor;
    enum vkmoe_status status = moe_shards_find(&source->shards, name, &tensor);
    if (status != VKMOE_OK || !tensor)
        return status;
    for (size_t i = 0; i < source->shards.n_shards; i++) {
        const struct moe_shard *shard = &source->shards.shards[i];
        const struct moe_safetensors *file = &shard->file;
        if (!shard->is_open || tensor < file->tensors ||
            tensor >= file->tensors + file->n_tensors)
            continue;
        from_safetensors(file, tensor, out);
        break;
    }
    return VKMOE_OK;
}

// GGUF types that are ours, too.
static const struct {
    uint32_t id;
    enum vkmoe_dtype type;
} gguf_types[] = {
    {MOE_GGML_Q8_0, VKMOE_Q8_0}, {MOE_GGML_Q4_0, VKMOE_Q4_0}, {MOE_GGML_Q4_K, VKMOE_Q4_K},
    {MOE_GGML_Q5_K, VKMOE_Q5_K}, {MOE_GGML_Q6_K, VKMOE_Q6_K}, {MOE_GGML_Q2_K, VKMOE_Q2_K},
    {MOE_GGML_MXFP4, VKMOE_MXFP4},
};

bool moe_gguf_id_of(enum vkmoe_dtype type, uint32_t *out)
{
    *out = type == VKMOE_F16 ? MOE_GGML_F16 : type == VKMOE_BF16 ? MOE_GGML_BF16 : MOE_GGML_F32;
    for (size_t i = 0; i < MOE_COUNT(gguf_types); i++) {
        if (gguf_types[i].type == type)
            *out = gguf_types[i].id;
    }
    return *out != MOE_GGML_F32 || type == VKMOE_F32;
}

static void set_gguf_code(uint32_t id, struct moe_source_tensor *out)
{
    out->code = id == MOE_GGML_F32    ? MOE_CODE_F32
                : id == MOE_GGML_F16  ? MOE_CODE_F16
                : id == MOE_GGML_BF16 ? MOE_CODE_BF16
                : id == MOE_GGML_I32  ? MOE_CODE_I32
                                      : MOE_CODE_OTHER;
    for (size_t i = 0; i < MOE_COUNT(gguf_types); i++) {
        if (gguf_types[i].id == id) {
            out->code = MOE_CODE_BLOCK;
            out->type = gguf_types[i].type;
        }
    }
    out->format = moe_block_format_find(id);
    if (out->format)
        out->code = MOE_CODE_BLOCK;
}

static void from_gguf(const struct moe_gguf_tensor *tensor, struct moe_source_tensor *out)
{
    *out = (struct moe_source_tensor){
        .name = tensor->name,
        .type_name = tensor->type->name,
        .block_values = tensor->type->block_elements,
        .block_size = tensor->type->block_size,
        .n_dims = tensor->n_dims,
        .size = tensor->size,
        .at = tensor,
    };
    for (uint32_t i = 0; i < tensor->n_dims; i++)
        out->dims[i] = tensor->dims[tensor->n_dims - 1 - i];
    set_gguf_code(tensor->type_id, out);
}

enum vkmoe_status moe_source_find(struct moe_source *source, const char *name,
                                  struct moe_source_tensor *out)
{
    *out = (struct moe_source_tensor){0};
    if (source->is_gguf) {
        const struct moe_gguf_tensor *tensor = moe_gguf_find(&source->gguf, name);
        if (tensor)
            from_gguf(tensor, out);
        return VKMOE_OK;
    }
    if (!source->single.host)
        return find_in_shards(source, name, out);
    const struct moe_st_tensor *tensor = moe_safetensors_find(&source->single, name);
    if (tensor)
        from_safetensors(&source->single, tensor, out);
    return VKMOE_OK;
}

enum vkmoe_status moe_source_read(const struct moe_source *source,
                                  const struct moe_source_tensor *tensor, uint64_t offset,
                                  size_t size, void *dst)
{
    if (source->is_gguf)
        return moe_gguf_read(&source->gguf, tensor->at, offset, size, dst);
    return moe_safetensors_read(tensor->file, tensor->at, offset, size, dst);
}

const char *moe_source_describe(const struct moe_source_tensor *tensor, char *text, size_t size)
{
    size_t n = (size_t) snprintf(text, size, "%s (", tensor->type_name);
    for (uint32_t i = 0; i < tensor->n_dims && n < size; i++)
        n += (size_t) snprintf(text + n, size - n, "%s%llu", i ? ", " : "",
                               (unsigned long long) tensor->dims[i]);
    if (n < size)
        snprintf(text + n, size - n, ")");
    return text;
}
