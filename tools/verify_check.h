// SPDX-License-Identifier: MIT
// Compares what a device wrote with what the oracle wrote.
#ifndef VERIFY_CHECK_H
#define VERIFY_CHECK_H

#include "verify_data.h"

enum verify_check {
    VERIFY_CHECK_IDS,    // equal, but for scores closer than the bound
    VERIFY_CHECK_GATES,  // relative L2 <= VERIFY_TOLERANCE, in every precision
    VERIFY_CHECK_Y,      // relative L2 <= what the precision promises and y's own rounding
    VERIFY_CHECK_SCORES, // each within its bound
    VERIFY_N_CHECKS,
};

#define VERIFY_TOLERANCE 1e-5      // precision `exact`
#define VERIFY_TOLERANCE_HALF 4e-3 // precision `half`
#define VERIFY_TOLERANCE_INT8 1.5e-2 // precision `int8`

enum { VERIFY_TEXT_SIZE = 256 };

// How y comes about.
struct verify_kind {
    enum vkmoe_dtype y_type;
    enum vkmoe_precision precision;
};

// Outputs of one run, in one block of memory. Every array has one row more than asked for, which
// nobody may write, and so has the room between rows of y.
struct verify_outputs {
    struct verify_kind kind;
    uint32_t n_tokens, d_out, top_k;
    uint32_t n_experts, n_real; // with identity experts, and without
    size_t y_stride;  // in elements
    void *stored_y;   // (n_tokens + 1, y_stride) of y_type, for the run; f32: y itself
    float *y;         // the same as f32, made by verify_read_y; for all else
    int32_t *ids;     // (n_tokens + 1, top_k)
    float *gates;     // (n_tokens + 1, top_k)
    float *scores;    // (n_tokens + 1, n_experts)
    void *memory;     // owned
    size_t size;
};

// Poisoned outputs. `padded`: rows of y are apart and begin off any vector's alignment.
// false: no memory.
bool verify_outputs_create(const vkmoe_layer_desc *desc, struct verify_kind kind,
                           uint32_t n_tokens, bool padded, struct verify_outputs *out);
void verify_outputs_finish(struct verify_outputs *outputs); // zeroed is fine

// Floats and halves become a NaN with a payload of our own, ids 0x7fffffff.
void verify_poison(struct verify_outputs *outputs);

// Fills y from what the run stored; what is poison there is poison in y.
void verify_read_y(struct verify_outputs *outputs);

// False when something outside the first n_tokens rows of y, ids, gates and scores is not poison
// any more, or outside row ends of y; `what` names it.
bool verify_untouched(const struct verify_outputs *outputs, uint32_t n_tokens, const char **what);

// ---- pieces of this, for gradients ----

void verify_poison_elements(enum vkmoe_dtype type, void *at, size_t n);
bool verify_is_poison(const float *value);
bool verify_all_poison(const float *values, size_t n);
// As verify_decode; what is poison stays poison.
void verify_decode_poison(enum vkmoe_dtype type, const void *stored, size_t n, float *out);

// The error of one number, NaN where no error is small enough. NaN answers NaN, an infinity answers
// the same one.
double verify_difference(const float *got, float want);

// Of the types that outputs are rounded to once more. What f32 loses is within the promises.
double verify_unit_roundoff(enum vkmoe_dtype type);
// How far rounding to a type takes `v` at most; among subnormals half of what they are apart.
double verify_rounding(enum vkmoe_dtype type, double v);

// What the relative L2 of n numbers of y against the oracle is at most. int8 rounds by up to 1/254
// of the largest of a block: what that adds up to is a ratio of roots of sums of n squares, which
// scatters by 1 / sqrt(n), of which three are allowed.
double verify_promise(enum vkmoe_precision precision, double n);

// ---- comparisons ----

// How far f32 arithmetic may take each score from its exact value: (n_tokens, n_experts + n_zero),
// the f32 rounding of the oracle's own included. verify_bounds.c.
//   x (n_tokens, d_model) that the router reads, `stride` floats from row to row
void verify_score_bounds(const struct verify_weights *weights, const float *x, size_t stride,
                         uint32_t n_tokens, double *bounds);

struct verify_verdict {
    uint32_t failed;             // bit i: check i
    uint32_t changed;            // bit i: an output of check i has other bits than the oracle's
    uint32_t n_exempt;           // rows with other ids whose scores are closer than the bounds
    char text[VERIFY_TEXT_SIZE]; // of the first failed check
};

// Compares the first n_tokens rows. A slot that the oracle leaves unused is left so: id -1, gate 0.
//   want    the oracle's, whose y is f32: it has not been rounded to got's type
//   exempt  (n_tokens) out: rows left out of gates and y
//   with_scores  got has scores; the oracle always has
void verify_compare(const struct verify_outputs *got, const struct verify_outputs *want,
                    uint32_t n_tokens, const double *bounds, bool with_scores, bool *exempt,
                    struct verify_verdict *verdict);

#endif
