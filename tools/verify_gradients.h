// SPDX-License-Identifier: MIT
// Gradients of a layer: places for all of them, and their comparison with the oracle's.
#ifndef VERIFY_GRADIENTS_H
#define VERIFY_GRADIENTS_H

#include "verify_check.h"

#include <vkmoe/train.h>

// The first ones of each kind of tensor; all experts' are one tensor.
enum verify_gradient {
    VERIFY_GRAD_DX,
    VERIFY_GRAD_ROUTER, // weight, bias, shared_gate
    VERIFY_GRAD_EXPERTS = VERIFY_GRAD_ROUTER + 3,
    VERIFY_GRADS_PER_EXPERT = 6, // gate, up, down, gate_bias, up_bias, down_bias
    VERIFY_GRAD_SHARED = VERIFY_GRAD_EXPERTS + VERIFY_GRADS_PER_EXPERT,
    VERIFY_N_GRADS = VERIFY_GRAD_SHARED + VERIFY_GRADS_PER_EXPERT,
};

// `n_rows` rows of `width` numbers, `stride` apart. data NULL: the layer has no such tensor.
struct verify_grad {
    float *data;
    uint32_t n_rows;
    size_t width, stride;
};

// In one block of memory. Behind each tensor is room that nobody may write, and between the rows
// of dx.
struct verify_gradients {
    enum vkmoe_dtype x_type;
    void *stored_dx; // of x_type, for the run; f32: tensor VERIFY_GRAD_DX itself
    struct verify_grad tensors[VERIFY_N_GRADS];
    vkmoe_router_grads router; // the tensors of the parameters, as the run wants them
    vkmoe_expert_grads *experts, shared;
    uint32_t n_experts;
    void *memory; // owned
    float *values;
    size_t n_values; // dx among them
};

// Poisoned. `padded`: rows of dx are apart. false: no memory.
bool verify_gradients_create(const vkmoe_layer_desc *desc, enum vkmoe_dtype x_type,
                             uint32_t n_tokens, bool padded, struct verify_gradients *out);
void verify_gradients_finish(struct verify_gradients *gradients); // zeroed is fine

void verify_gradients_poison(struct verify_gradients *gradients);
void verify_gradients_poison_dx(struct verify_gradients *gradients);
void verify_gradients_read_dx(struct verify_gradients *gradients); // after a run

const char *verify_gradient_name(uint32_t i); // "experts.gate"

// False when something outside the tensors is not poison any more; `what` is the tensor it follows.
bool verify_gradients_untouched(const struct verify_gradients *gradients, uint32_t *what);

// True when no number of an expert's gradients is other than 0.
bool verify_gradients_none(const struct verify_gradients *gradients, uint32_t expert);

// Compares all tensors with the oracle's, whose dx is f32. Bits of the verdict are tensors; nothing
// is exempt.
void verify_gradients_compare(const struct verify_gradients *got,
                              const struct verify_gradients *want, struct verify_verdict *verdict);

// Bits of the tensors that are nothing beside the others: no larger than what rounding may do.
uint32_t verify_gradients_nothing(const struct verify_gradients *want);

#endif
