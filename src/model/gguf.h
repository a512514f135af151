// SPDX-License-Identifier: MIT
// GGUF files, versions 2 and 3, little endian: a header of keys with values and of the tensors'
// names, shapes and offsets, then the tensors' bytes. A model may be split into several files,
// MODEL-00001-of-00003.gguf; opening any of them opens all, as one.
// Reading is strict: what the format's text forbids or leaves to taste is refused, with the name of
// the key or tensor and the numbers. Nothing is mapped: the header is copied at open, the tensors'
// bytes are read when they are asked for, so that a file that shrinks meanwhile is an error.
#ifndef MOE_MODEL_GGUF_H
#define MOE_MODEL_GGUF_H

#include "base/file.h"

enum {
    MOE_GGUF_MAX_DIMS = 4,
    MOE_GGUF_MAX_HEADER_SIZE = 100000000,
    MOE_GGUF_MAX_KEY_SIZE = 65535,
    MOE_GGUF_MAX_NAME_SIZE = 63, // of a tensor
    MOE_GGUF_MAX_TEXT_SIZE = 16 << 20,
    MOE_GGUF_ALIGN = 32, // of the tensors' bytes, unless MOE_GGUF_ALIGNMENT says another
};

#define MOE_GGUF_ALIGNMENT "general.alignment"

// ---- types of tensors ------------------------------------------------------------------------

enum moe_gguf_kind {
    MOE_GGUF_WEIGHTS,  // values that we know how to read
    MOE_GGUF_INTEGERS, // tables of numbers, no weights
    MOE_GGUF_UNREAD,   // exists, but we cannot read its values: to be refused where it is wanted
    MOE_GGUF_REMOVED,  // does not exist any more: a file that has it cannot be opened
};

// Ids of ggml that others name.
enum moe_ggml_id {
    MOE_GGML_F32 = 0,
    MOE_GGML_F16 = 1,
    MOE_GGML_Q4_0 = 2,
    MOE_GGML_Q4_1 = 3,
    MOE_GGML_Q5_0 = 6,
    MOE_GGML_Q5_1 = 7,
    MOE_GGML_Q8_0 = 8,
    MOE_GGML_Q2_K = 10,
    MOE_GGML_Q3_K = 11,
    MOE_GGML_Q4_K = 12,
    MOE_GGML_Q5_K = 13,
    MOE_GGML_Q6_K = 14,
    MOE_GGML_IQ4_NL = 20,
    MOE_GGML_IQ4_XS = 23,
    MOE_GGML_I32 = 26,
    MOE_GGML_BF16 = 30,
    MOE_GGML_MXFP4 = 39,
    MOE_GGML_NVFP4 = 40,
};

// A block is `block_elements` neighbours of a row in `block_size` bytes.
struct moe_gguf_type {
    const char *name; // as ggml spells it: "q4_K"
    enum moe_gguf_kind kind;
    uint32_t block_elements, block_size; // 0 of those that are removed
};

// NULL: there is no such type.
const struct moe_gguf_type *moe_gguf_type_of(uint32_t id);

// ---- values of keys --------------------------------------------------------------------------

enum moe_gguf_value_type {
    MOE_GGUF_U8,
    MOE_GGUF_I8,
    MOE_GGUF_U16,
    MOE_GGUF_I16,
    MOE_GGUF_U32,
    MOE_GGUF_I32,
    MOE_GGUF_F32,
    MOE_GGUF_BOOL, // a byte, 0 or 1
    MOE_GGUF_STRING,
    MOE_GGUF_ARRAY, // in files; in a struct moe_gguf_value it is the flag
    MOE_GGUF_U64,
    MOE_GGUF_I64,
    MOE_GGUF_F64,
};

// `size` bytes and a zero behind them; there may be zeros among them.
struct moe_gguf_text {
    const char *text;
    size_t size;
};

// A key with its value, for reading and for writing.
struct moe_gguf_value {
    const char *key;
    enum moe_gguf_value_type type; // of an array: of its elements
    bool is_array;                 // of one dimension: arrays of arrays are refused
    uint64_t n;                    // elements of an array; 1 of any other
    // n numbers as in the file, without an alignment, or n of struct moe_gguf_text.
    const void *data;
    size_t key_at, at; // the reader's own
};

// ---- reading ---------------------------------------------------------------------------------

struct moe_gguf_tensor {
    const char *name;
    uint32_t type_id;                 // enum moe_ggml_id, or one that has no name there
    const struct moe_gguf_type *type; // never a removed one
    uint32_t n_dims;                  // 0: one element
    uint64_t dims[MOE_GGUF_MAX_DIMS]; // dims[0] is a row, of whole blocks; beyond n_dims they are 1
    uint64_t n_elements;
    uint64_t offset; // within the data of its part
    uint64_t size;   // bytes
    uint32_t part;   // 0, or which of the files of a split model
    bool used;       // for the caller's own bookkeeping
    size_t at;       // the reader's own
};

struct moe_gguf_part; // one file

// All parts of a model. Everything points into it until close.
struct moe_gguf {
    const vkmoe_host *host;
    struct moe_gguf_part *parts;
    size_t n_parts;
    const struct moe_gguf_value *values; // of the first part, in its order
    size_t n_values;
    struct moe_gguf_tensor *tensors; // of all parts, in the order of the files
    struct moe_gguf_tensor **by_name; // the same, sorted
    size_t n_tensors;
};

// VKMOE_E_IO: cannot be read.  VKMOE_E_DATA: not a strictly valid file, or a part that does not fit
// the others.  VKMOE_E_UNSUPPORTED: of another version or byte order, or with nested arrays.
enum vkmoe_status moe_gguf_open(const vkmoe_host *host, const char *path, struct moe_gguf *out);
void moe_gguf_close(struct moe_gguf *file); // a zeroed one is fine

// NULL: there is none.
struct moe_gguf_tensor *moe_gguf_find(const struct moe_gguf *file, const char *name);

// Copies bytes of a tensor. VKMOE_E_ARGUMENT: outside the tensor.  VKMOE_E_IO: cannot be read, or
// the file is shorter than it was.
// Threads: any number of calls at a time.
enum vkmoe_status moe_gguf_read(const struct moe_gguf *file, const struct moe_gguf_tensor *tensor,
                                uint64_t offset, size_t size, void *dst);

// "q4_K (4096, 64, 8)", for messages; dims[0] first. Returns `text`.
const char *moe_gguf_describe(const struct moe_gguf_tensor *tensor, char text[192]);

// ---- keys ------------------------------------------------------------------------------------
// Each call looks at the type that is stored. VKMOE_E_DATA: the key is missing, has another type,
// or its number does not fit; *out stays as it was.

// NULL: the key is missing. To be asked first where a key may be missing.
const struct moe_gguf_value *moe_gguf_find_value(const struct moe_gguf *file, const char *key);

// From an integer of any type that is >= 0 and not larger than *out can be.
enum vkmoe_status moe_gguf_u64(const struct moe_gguf *file, const char *key, uint64_t *out);
enum vkmoe_status moe_gguf_u32(const struct moe_gguf *file, const char *key, uint32_t *out);

// From F32 or F64; moe_gguf_f32 rounds, and refuses a number that would become infinite.
enum vkmoe_status moe_gguf_f64(const struct moe_gguf *file, const char *key, double *out);
enum vkmoe_status moe_gguf_f32(const struct moe_gguf *file, const char *key, float *out);

enum vkmoe_status moe_gguf_bool(const struct moe_gguf *file, const char *key, bool *out);

// A text without zero bytes.
enum vkmoe_status moe_gguf_string(const struct moe_gguf *file, const char *key, const char **out);

// An array whose elements have this type.
enum vkmoe_status moe_gguf_array(const struct moe_gguf *file, const char *key,
                                 enum moe_gguf_value_type type, const struct moe_gguf_value **out);

// Element i of an array of integers, or of floats; what holds for single numbers holds here.
enum vkmoe_status moe_gguf_element_u64(const struct moe_gguf *file, const char *key, uint64_t i,
                                       uint64_t *out);
enum vkmoe_status moe_gguf_element_f32(const struct moe_gguf *file, const char *key, uint64_t i,
                                       float *out);

// What a key says of one layer: a single value is for all layers, an array has one for each.
enum vkmoe_status moe_gguf_layer_u64(const struct moe_gguf *file, const char *key, uint32_t layer,
                                     uint64_t *out);
enum vkmoe_status moe_gguf_layer_u32(const struct moe_gguf *file, const char *key, uint32_t layer,
                                     uint32_t *out);
enum vkmoe_status moe_gguf_layer_f32(const struct moe_gguf *file, const char *key, uint32_t layer,
                                     float *out);

// ---- writing ---------------------------------------------------------------------------------

// A tensor to write. Its bytes are `data`, or where that is NULL come from `fill`, which is called
// for one piece after the other, from the first byte to the last; a piece is whole blocks.
struct moe_gguf_source {
    const char *name;
    uint32_t type_id;
    uint32_t n_dims;
    uint64_t dims[MOE_GGUF_MAX_DIMS];
    const void *data;
    enum vkmoe_status (*fill)(void *user, uint64_t offset, size_t size, void *dst);
    void *user;
};

// Looks at the finished file before it has its name: `path` is its temporary one.
struct moe_gguf_check {
    enum vkmoe_status (*look)(void *user, const char *path);
    void *user;
};

// Writes one file of version 3, atomically; what a `fill` or `check` fails with ends it, and
// nothing is at `path` then but what was there. `check` may be NULL. The tensors are
// aligned to what a key MOE_GGUF_ALIGNMENT says, else to MOE_GGUF_ALIGN. The reader takes whatever
// this writes, else it fails with VKMOE_E_ARGUMENT and the reader's text. The values that a reader
// gave can be written again, but those of a split model (split.*) are refused.
enum vkmoe_status moe_gguf_write(const vkmoe_host *host, const char *path,
                                 const struct moe_gguf_value *values, size_t n_values,
                                 const struct moe_gguf_source *tensors, size_t n_tensors,
                                 const struct moe_gguf_check *check);

#endif
