// SPDX-License-Identifier: MIT
// Between the files of the reader and the writer of GGUF.
#ifndef MOE_MODEL_GGUF_PART_H
#define MOE_MODEL_GGUF_PART_H

#include "model/gguf.h"

// One file. Keys and names point into its header.
struct moe_gguf_part {
    const vkmoe_host *host;
    const char *path;     // of messages
    struct moe_file file; // not open where the header came from memory
    unsigned char *header;
    size_t header_size;
    uint64_t data_start; // where the tensors' bytes begin in the file
    uint32_t alignment;
    struct moe_gguf_value *values; // in the order of the file
    size_t n_values;
    const struct moe_gguf_value **by_key; // sorted
    struct moe_gguf_text *texts;          // of all values that are text
    size_t n_texts;
    struct moe_gguf_tensor *tensors; // in the order of the file
    size_t n_tensors;
};

// Reads the header of one file and checks all that one file can tell.
enum vkmoe_status moe_gguf_part_open(const vkmoe_host *host, const char *path,
                                     struct moe_gguf_part *out);

// The same for a header in memory, of a file of `file_size` bytes that goes to `path`, which is
// borrowed. The header is the part's, also after a failure.
enum vkmoe_status moe_gguf_part_parse(const vkmoe_host *host, const char *path,
                                      unsigned char *header, size_t header_size,
                                      uint64_t file_size, struct moe_gguf_part *out);
void moe_gguf_part_close(struct moe_gguf_part *part); // a zeroed one is fine

// What moe_gguf_find_value and moe_gguf_u64 do, for any part.
const struct moe_gguf_value *moe_gguf_part_value(const struct moe_gguf_part *part,
                                                 const char *key);
enum vkmoe_status moe_gguf_part_u64(const struct moe_gguf_part *part, const char *key,
                                    uint64_t *out);

// Which part of how many a file is, by its keys and its name.
struct moe_gguf_split {
    uint64_t no, count; // of a model in one file: 0 and 1
    uint64_t n_tensors; // of all parts; of a model in one file without split.tensors.count its own
};
enum vkmoe_status moe_gguf_part_split(const struct moe_gguf_part *part,
                                      struct moe_gguf_split *out);

// Makes the tables of file->parts: names are unique in all parts, and there are as many tensors as
// `split` says.
enum vkmoe_status moe_gguf_join(struct moe_gguf *file, const struct moe_gguf_split *split);

// The size of a tensor from its type and dims: n_elements, size, and dims beyond n_dims. False: no
// file has it.
bool moe_gguf_measure(struct moe_gguf_tensor *tensor);

// Name and bytes of the type of a value; the bytes are 0 of text and of an array.
struct moe_gguf_value_kind {
    const char *name;
    uint32_t size;
};

// NULL: there is no such type.
const struct moe_gguf_value_kind *moe_gguf_value_kind(uint32_t type);

// A little-endian number of up to 8 bytes.
uint64_t moe_gguf_number(const unsigned char *bytes, uint32_t size);

#endif
