// SPDX-License-Identifier: MIT
// The tensors of a checkpoint, whatever files they are in: found by name, read piece by piece.
// Files are opened when a tensor of theirs is asked for. None is read through a mapping, so that a
// file that shrinks is an error.
#ifndef MOE_MODEL_CHECKPOINT_SOURCE_H
#define MOE_MODEL_CHECKPOINT_SOURCE_H

#include "model/gguf.h"
#include "model/shards.h"

// How a tensor's elements are written.
enum moe_code {
    MOE_CODE_F32,
    MOE_CODE_F16,
    MOE_CODE_BF16,
    MOE_CODE_F64,
    MOE_CODE_I8,
    MOE_CODE_U8,
    MOE_CODE_I32,
    MOE_CODE_I64,
    MOE_CODE_E4M3,
    MOE_CODE_E5M2,
    MOE_CODE_E8M0,
    MOE_CODE_E2M1,  // two to a byte, the first in the low half
    MOE_CODE_INT4,  // likewise, 8 stands for 0
    MOE_CODE_BLOCK, // of a vkmoe_dtype or of a moe_block_format, as GGUF has them
    MOE_CODE_OTHER, // exists, but we cannot read it
};

struct moe_source_tensor {
    const char *name;       // NULL: there is none. The source's
    enum moe_code code;
    enum vkmoe_dtype type;  // of MOE_CODE_BLOCK, unless there is a `format`
    const struct moe_block_format *format;
    const char *type_name;  // as the file spells it
    uint32_t block_values, block_size; // 1 and the element's bytes of those without blocks
    uint32_t n_dims;
    uint64_t dims[MOE_ST_MAX_DIMS]; // outermost first
    uint64_t size;                  // bytes
    const void *at;                 // the source's own
    const struct moe_safetensors *file; // NULL: GGUF
};

struct moe_source {
    const vkmoe_host *host;
    bool is_gguf;
    struct moe_gguf gguf;
    struct moe_shards shards;      // of a folder with an index
    struct moe_safetensors single; // of one file
};

// A folder of safetensors with an index or a file model.safetensors; a .safetensors file; a GGUF.
enum vkmoe_status moe_source_open_folder(const vkmoe_host *host, const char *folder,
                                         struct moe_source *out);
enum vkmoe_status moe_source_open_file(const vkmoe_host *host, const char *path,
                                       struct moe_source *out);
enum vkmoe_status moe_source_open_gguf(const vkmoe_host *host, const char *path,
                                       struct moe_source *out);
void moe_source_close(struct moe_source *source); // a zeroed one is fine

// out->name is NULL where there is no such tensor.
enum vkmoe_status moe_source_find(struct moe_source *source, const char *name,
                                  struct moe_source_tensor *out);

// Copies bytes of a tensor.
enum vkmoe_status moe_source_read(const struct moe_source *source,
                                  const struct moe_source_tensor *tensor, uint64_t offset,
                                  size_t size, void *dst);

// Its id in GGUF; false: there it has none.
bool moe_gguf_id_of(enum vkmoe_dtype type, uint32_t *out);

// "BF16 (8, 14336, 4096)". Returns `text`.
const char *moe_source_describe(const struct moe_source_tensor *tensor, char *text, size_t size);

#endif
