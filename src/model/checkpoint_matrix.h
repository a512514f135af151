// SPDX-License-Identifier: MIT
// A matrix of a checkpoint: codes in one tensor, their scales in another, and how its rows become
// rows of a weight type.
#ifndef MOE_MODEL_CHECKPOINT_MATRIX_H
#define MOE_MODEL_CHECKPOINT_MATRIX_H

#include "model/checkpoint_source.h"
#include "model/families/families.h"

// One tensor with its scales: `n_stacked` matrices of rows x columns as they are stored. Element
// (i, j) is code * scale[i / scale_rows, j / scale_columns] * global.
struct moe_matrix {
    struct moe_source_tensor weight, scale, global; // name NULL: there is none
    enum moe_code code;
    bool divide;           // by global
    uint32_t n_stacked;
    uint64_t rows, columns;
    uint64_t row_size;     // bytes
    uint64_t scale_rows, scale_columns;
    uint64_t grid_rows, grid_columns;
};

// How a matrix is asked for.
enum moe_shape {
    MOE_SHAPE_MATRIX,
    MOE_SHAPE_VECTOR, // one value for each row
};

// Where a part of a layer lies: one tensor for all its matrices, or one for each.
struct moe_bound {
    const struct moe_place *place; // NULL: the layer has no such part
    enum moe_shape shape;
    uint32_t n;                 // matrices
    uint32_t n_rows, n_columns; // of each, as a layer wants them; of a vector (n_rows, 1)
    struct moe_matrix *matrices;
    uint32_t n_matrices;        // 1, or n
    enum vkmoe_dtype type;      // that it becomes of itself
    bool exact;                 // `type` can hold all of it
};

// Finds the tensor `name`, or with the suffixes that weights have, and its scales. out->weight.name
// is NULL where there is none.
//   n_stacked    experts in it, 0: as many as its first dimension; 1: no such dimension
//   block        rows and columns that share a scale by the configuration; 0: as the grid says
enum vkmoe_status moe_matrix_find(struct moe_source *source, const char *name,
                                  const struct moe_place *place, enum moe_shape shape,
                                  uint32_t n_stacked, bool scaled, const uint32_t block[2],
                                  struct moe_matrix *out);

// Rows that belong to the part, and columns.
void moe_matrix_size(const struct moe_matrix *matrix, const struct moe_place *place,
                     uint64_t *n_rows, uint64_t *n_columns);

// The type that holds it best. false: none can hold all of it.
bool moe_matrix_type(const struct moe_matrix *matrix, const struct moe_place *place,
                     enum vkmoe_dtype *out);

// "mxfp4 blocks, even rows". Returns `text`.
const char *moe_matrix_words(const struct moe_matrix *matrix, const struct moe_place *place,
                             char text[96]);

// ---- reading ---------------------------------------------------------------------------------

// Of one matrix of a part.
struct moe_reader {
    const struct moe_source *source;
    const struct moe_bound *bound;
    const struct moe_matrix *matrix;
    uint32_t stacked;     // which of those in the tensor
    double factor;        // global
    float *tile;          // some of its columns as rows, where it is transposed
    uint64_t tile_first;  // the first of them; UINT64_MAX: none yet
    uint64_t tile_columns;
    unsigned char *row;   // one stored row
    float *values;        // of a stored row, then of a row
    float *scales;        // of a row of the grid
    uint64_t scales_row;  // which one; UINT64_MAX: none yet
};

enum vkmoe_status moe_reader_open(const struct moe_source *source, const struct moe_bound *bound,
                                  uint32_t i, struct moe_reader *out);
void moe_reader_close(struct moe_reader *reader); // a zeroed one is fine

// A row as f32: (n_columns).
enum vkmoe_status moe_reader_row(struct moe_reader *reader, uint32_t row, float *dst);

// How far converted values are from those in the file.
struct moe_error {
    double difference, total; // sums of squares
};

// A row as `type`, bit by bit where that can hold it.
enum vkmoe_status moe_reader_convert(struct moe_reader *reader, uint32_t row, enum vkmoe_dtype type,
                                     void *dst, struct moe_error *error);

// n rows, one behind the other.
enum vkmoe_status moe_reader_convert_rows(struct moe_reader *reader, uint32_t first, uint32_t n,
                                          enum vkmoe_dtype type, void *dst,
                                          struct moe_error *error);

#endif
