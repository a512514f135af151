// SPDX-License-Identifier: MIT
// safetensors files: 8 bytes of header size, a JSON header, then the tensors' bytes without a hole.
// Reading is strict: what the format's text forbids or leaves to taste is refused, with the
// tensor's name and the numbers.
#ifndef MOE_MODEL_SAFETENSORS_H
#define MOE_MODEL_SAFETENSORS_H

#include "base/file.h"

#include <jansson.h>

enum {
    MOE_ST_MAX_DIMS = 8,
    MOE_ST_MAX_HEADER_SIZE = 100000000,
};

#define MOE_ST_METADATA "__metadata__"

struct moe_st_dtype {
    const char *name; // as in the file: "F32"
    uint32_t bits;
};

struct moe_st_tensor {
    const char *name;
    const struct moe_st_dtype *dtype;
    uint32_t n_dims;
    uint64_t dims[MOE_ST_MAX_DIMS];
    uint64_t n_elements;
    uint64_t begin, end; // within the data part
    bool used;           // for the caller's own bookkeeping
};

// Everything points into it until close. Nothing is mapped: the header is copied at open, the
// tensors' bytes are read with moe_safetensors_read.
struct moe_safetensors {
    const vkmoe_host *host;
    struct moe_file file;
    uint64_t data_start; // where the tensors' bytes begin in the file
    json_t *header;
    json_t *types; // of moe_safetensors_read_types; NULL: none
    struct moe_st_tensor *tensors; // sorted by name
    size_t n_tensors;
};

// VKMOE_E_IO: cannot be read.  VKMOE_E_DATA: not a strictly valid file.
// The JSON parser uses the C library's memory, not the host's.
enum vkmoe_status moe_safetensors_open(const vkmoe_host *host, const char *path,
                                       struct moe_safetensors *out);
void moe_safetensors_close(struct moe_safetensors *file); // a zeroed one is fine

struct moe_st_tensor *moe_safetensors_find(struct moe_safetensors *file, const char *name);

// Copies bytes of a tensor. VKMOE_E_ARGUMENT: outside the tensor.  VKMOE_E_IO: cannot be read, or
// the file is shorter than it was.
// Threads: any number of calls at a time.
enum vkmoe_status moe_safetensors_read(const struct moe_safetensors *file,
                                       const struct moe_st_tensor *tensor, uint64_t offset,
                                       size_t size, void *dst);

// Elements `first` and on of a float tensor, as f32.
enum vkmoe_status moe_safetensors_read_f32(const struct moe_safetensors *file,
                                           const struct moe_st_tensor *tensor, uint64_t first,
                                           size_t n, float *dst);

// Text of a key of __metadata__; NULL: there is none.
const char *moe_safetensors_metadata(const struct moe_safetensors *file, const char *key);

// Reads the key "types" of __metadata__, which says of U8 tensors that their rows are blocks:
// {"layers.0.experts.up.weight": "q8_0"}. VKMOE_E_DATA: not such a list, or of other tensors.
enum vkmoe_status moe_safetensors_read_types(struct moe_safetensors *file, const char *path);

// Is it one of those? A row is as many blocks as its bytes make.
bool moe_st_block_type(const struct moe_safetensors *file, const struct moe_st_tensor *tensor,
                       enum vkmoe_dtype *type, uint64_t *n_columns);

// "F32 (8, 64)", for messages. Returns `text`.
const char *moe_st_describe(const struct moe_st_tensor *tensor, char text[192]);

// The vkmoe type of a float tensor; false for any other.
bool moe_st_float_type(const struct moe_st_tensor *tensor, enum vkmoe_dtype *out);

// One tensor to write; bytes are given in full, or piece by piece.
struct moe_st_source {
    const char *name;
    const char *dtype;
    uint32_t n_dims;
    uint64_t dims[MOE_ST_MAX_DIMS];
    const void *data;
    // Where data is NULL: called for one piece after the other, from the first byte to the last.
    enum vkmoe_status (*fill)(void *user, uint64_t offset, size_t size, void *dst);
    void *user;
};

// Writes a file, atomically. `metadata` is a JSON object of texts or NULL. The reader takes
// whatever this writes, else it fails with VKMOE_E_ARGUMENT.
enum vkmoe_status moe_safetensors_write(const vkmoe_host *host, const char *path,
                                        const struct moe_st_source *tensors, size_t n_tensors,
                                        json_t *metadata);

// The same with a writer for `path`, which is gone afterwards.
enum vkmoe_status moe_safetensors_commit(struct moe_file_writer *writer, const char *path,
                                         const struct moe_st_source *tensors, size_t n_tensors,
                                         json_t *metadata);

// Of the list of dtypes: NULL when there is no such name.
const struct moe_st_dtype *moe_st_find_dtype(const char *name);

// Bytes of a shape; false when a dimension or the product is beyond any file, or when the bits are
// not whole bytes.
bool moe_st_shape_size(const struct moe_st_dtype *dtype, const uint64_t *dims, uint32_t n_dims,
                       uint64_t *n_elements, uint64_t *size);

#endif
