// SPDX-License-Identifier: MIT
// The layers that the cross tests go through, and running one of them on a device.
#ifndef TESTS_CROSS_CASES_H
#define TESTS_CROSS_CASES_H

#include "fixture.h"

struct layer_case {
    const char *name;
    vkmoe_layer_desc layer;
};

enum { MAX_CASES = 24, MAX_TOKENS = 300 };

// Fills in the cases and returns their number.
uint32_t list_cases(struct layer_case out[MAX_CASES]);

// Random weights of a size that keeps logits and activations in the range of real layers.
void case_weights(struct layer_data *data, const vkmoe_layer_desc *layer, uint32_t seed);

// In every matrix of every expert the first two rows change places; a matrix of one row changes its
// sign. Every comparison has to notice.
void spoil_weights(struct layer_data *data);

// What a run wrote, rows packed.
struct outputs {
    uint32_t n_tokens, top_k, d_out, n_experts;
    enum vkmoe_dtype x_type;
    size_t element_size; // of y
    char *y;             // elements of x_type
    float *gates, *scores;
    int32_t *ids;
};

// x_type: that of the stack's plan, which is made with scores.
void outputs_init(struct outputs *out, const vkmoe_layer_desc *layer, enum vkmoe_dtype x_type,
                  uint32_t n_tokens);
void outputs_finish(struct outputs *out);

// Runs rows [first, first + out->n_tokens) of x (packed rows), rounded to out->x_type, into
// poisoned outputs, with padded strides whose padding has to stay as it is. Fails the test if it
// does not work.
void run_rows(const struct stack *stack, const vkmoe_layer_desc *layer, const float *x,
              uint32_t first, struct outputs *out);

// Does this machine have the CPU back end's level of that name? If not, says so.
bool have_isa(const char *isa);

#endif
