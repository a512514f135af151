// SPDX-License-Identifier: MIT
// NPY arrays: version 1 and 2, little-endian, C order; f4, f8, i4 and i8 are read, f4 and i4 are
// written. Both sides stream: an array is never whole in memory.
#ifndef MOE_MODEL_NPY_H
#define MOE_MODEL_NPY_H

#include "base/file.h"

#include <stdio.h>

enum { MOE_NPY_MAX_DIMS = 8 };

struct moe_npy {
    FILE *file;
    const char *path; // borrowed
    bool is_integer;
    uint32_t element_size;
    uint32_t n_dims;
    uint64_t dims[MOE_NPY_MAX_DIMS];
};

// VKMOE_E_IO: cannot be read.  VKMOE_E_DATA: not such an array, or its size is not what its header
// says. `path` is borrowed until close.
enum vkmoe_status moe_npy_open(const char *path, struct moe_npy *out);
void moe_npy_close(struct moe_npy *npy); // a zeroed one is fine

// Reads the next n elements, converted. The caller knows how many there are.
enum vkmoe_status moe_npy_read(struct moe_npy *npy, size_t n, float *out);

// The same of integers that stay such. VKMOE_E_DATA: element `first` + i does not fit 32 bits.
enum vkmoe_status moe_npy_read_i32(struct moe_npy *npy, uint64_t first, size_t n, int32_t *out);

struct moe_npy_writer {
    struct moe_file_writer *file;
    bool is_integer;
    uint64_t n_columns;
    uint64_t n_rows; // so far
};

// A (rows, n_columns) array of i4 or f4. Its number of rows is known at the end only.
enum vkmoe_status moe_npy_create(const vkmoe_host *host, const char *path, bool is_integer,
                                 uint64_t n_columns, struct moe_npy_writer *out);

// data: (n_rows, n_columns) of int32_t or float.
enum vkmoe_status moe_npy_append(struct moe_npy_writer *writer, const void *data, uint64_t n_rows);

enum vkmoe_status moe_npy_commit(struct moe_npy_writer *writer);
void moe_npy_discard(struct moe_npy_writer *writer); // after commit and when zeroed, too

#endif
