// SPDX-License-Identifier: MIT
// The oracle's gradients: of sum(dy * y) by x and by every parameter of a layer, in f64. Slow,
// serial and obvious as the oracle itself; it defines what every back end must compute.
#ifndef MOE_CORE_REF_BACKWARD_H
#define MOE_CORE_REF_BACKWARD_H

#include "core/ref.h"

// Shapes as in vkmoe_expert_tensors; NULL where the layer has none.
struct moe_ref_expert_grads {
    double *gate, *up, *down;
    double *gate_bias, *up_bias, *down_bias;
};

// All gradients of a layer, owned, in one block. There is none for the selection bias.
struct moe_ref_grads {
    const vkmoe_host *host;
    double *x;                            // (max_tokens, d_model)
    double *router;                       // (n_experts, d_model)
    double *router_bias;                  // (n_experts), or NULL
    double *shared_gate;                  // (d_model), or NULL
    struct moe_ref_expert_grads *experts; // (n_experts)
    struct moe_ref_expert_grads shared;
    double *memory;    // x first, then the parameters as they are listed here
    uint64_t n_params; // elements of all parameters together
    double *d_v;       // (d_out), work of one slot
};

enum vkmoe_status moe_ref_grads_create(const vkmoe_host *host, const struct moe_layer *layer,
                                       uint32_t max_tokens, struct moe_ref_grads **out);
void moe_ref_grads_destroy(struct moe_ref_grads *grads);

// Overwrites all gradients; without tokens those of parameters are 0.
//   run   what moe_ref_run left after the same graph, weights and n_tokens
//   dy    (n_tokens, d_out)
//
// No gradient flows through the selection: ids are constants. A NaN reaches what it was multiplied
// with or added to: dx of its own token, and sums over tokens.
void moe_ref_backward(const struct moe_ref_run *run, const struct moe_graph *graph,
                      const struct moe_ref_weights *weights, uint32_t n_tokens, const double *dy,
                      struct moe_ref_grads *grads);

// Are the gate weights constants, so that the router has a gradient of exactly 0? So they are with
// one expert a token whose weight is divided by itself, or is the softmax of one number.
bool moe_ref_gates_are_constant(const vkmoe_layer_desc *layer);

// The derivative d_gates of a token's gate weights, which is overwritten, becomes that of its
// logits: exactly 0 where gates are constant. ids: the experts that were selected, (top_k).
void moe_ref_route_backward(const vkmoe_layer_desc *layer, const double *logits, const double *ids,
                            double *d_gates, double *d_logits);

// d act(v) / dv; at a kink the derivative from below.
double moe_ref_act_derivative(const vkmoe_layer_desc *layer, enum vkmoe_act act, double v);

#endif
