// SPDX-License-Identifier: MIT
// The numbers of a case: random weights and inputs, each a pure function of the seed and of the
// case's name, and the perturbations of the negative controls.
#ifndef VERIFY_DATA_H
#define VERIFY_DATA_H

#include "verify_cases.h"

// A layer's weights on the host. Tensors whose place does not store f32 are given in both ways the
// library takes: `up` in its stored type, the others as f32 that packing rounds.
struct verify_weights {
    vkmoe_layer_desc desc;
    vkmoe_router_tensors router;
    vkmoe_expert_tensors *experts; // (n_experts)
    vkmoe_expert_tensors *adjugates; // or NULL
    vkmoe_expert_tensors shared;
    vkmoe_latent_tensors latent;
    const float *out_bias; // or NULL
    void *memory; // owned; all of the above points into it
};

// false: no memory.
bool verify_weights_create(const struct verify_case *c, uint64_t seed, struct verify_weights *out);
void verify_weights_finish(struct verify_weights *weights); // zeroed is fine

// Fills x (n_tokens rows, `stride` floats apart). What lies between rows is left alone.
void verify_fill_x(const struct verify_case *c, uint64_t seed, float *x, size_t stride);

// What the router reads, likewise, and the ids of tokens (n_tokens), where the layer has them.
void verify_fill_router_x(const struct verify_case *c, uint64_t seed, float *x, size_t stride);
void verify_fill_token_ids(const struct verify_case *c, uint64_t seed, int32_t *ids);

// The gradient that reaches y (n_tokens rows, `stride` floats apart), likewise.
void verify_fill_dy(const struct verify_case *c, uint64_t seed, float *dy, size_t stride);

// n_rows rows of x or dy, and room for one more, as the library gets them and as they are compared.
struct verify_rows {
    enum vkmoe_dtype type;
    size_t stride; // in elements
    size_t n;      // elements
    float *values; // NAN, then filled by the caller
    void *stored;  // the same numbers in `type`, by verify_rows_store; f32: values itself
};

// false: no memory. What is between the rows must not matter.
bool verify_rows_create(enum vkmoe_dtype type, uint32_t n_rows, size_t stride,
                        struct verify_rows *out);
// Stores the values, which are rounded by that.
void verify_rows_store(struct verify_rows *rows);
void verify_rows_finish(struct verify_rows *rows); // zeroed is fine

// n stored elements as f32, which holds each type exactly.
void verify_decode(enum vkmoe_dtype type, const void *stored, size_t n, float *out);

// Bytes of a row of weights, whatever their type.
size_t verify_row_size(enum vkmoe_dtype type, uint32_t width);

// Changes of one weight row, or of two neighbours, of one expert. Done twice, each is undone.
enum verify_perturbation {
    VERIFY_SWAP_DOWN, // a row of W_down and the next
    VERIFY_SWAP_UP,
    VERIFY_NEGATE_UP, // a row of W_up
    VERIFY_NEGATE_DOWN,
    VERIFY_SWAP_ROUTER,   // the expert's router row and its neighbour's
    VERIFY_NEGATE_ROUTER, // the expert's router row
    VERIFY_N_PERTURBATIONS,
};

// `row` (any number) chooses among the rows of W_up and W_down.
// false: the layer has no such rows, nothing was changed.
bool verify_perturb(struct verify_weights *weights, enum verify_perturbation perturbation,
                    uint32_t expert, uint32_t row);

#endif
