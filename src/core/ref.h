// SPDX-License-Identifier: MIT
// The oracle: interprets a graph in f64 on the weights' exact values. Slow, serial and obvious; it
// defines what every back end must compute.
#ifndef MOE_CORE_REF_H
#define MOE_CORE_REF_H

#include "core/graph.h"

struct moe_ref_expert {
    float *gate, *up, *down;                 // as vkmoe_expert_tensors, decoded; NULL where absent
    float *gate_bias, *up_bias, *down_bias;
};

// Decoded weights. f32 holds every stored type exactly.
struct moe_ref_weights {
    struct moe_layer layer;
    // As the tensors of vkmoe/layer.h; NULL where the layer has none. Rows of the router: experts,
    // then identity experts.
    float *router, *router_bias, *selection_bias, *shared_gate, *shared_gate_bias;
    float *expert_scale, *prenorm_scale;
    int32_t *table;
    float *latent_down, *latent_up, *latent_norm, *out_bias;
    struct moe_ref_expert *experts;   // (n_experts)
    struct moe_ref_expert *adjugates; // (moe_layer_n_adjugates)
    struct moe_ref_expert shared;
};

// A run's values, f64, rows packed; ids are stored as f64 too. All of moe_graph's used values but
// GROUPING are allocated by moe_ref_run_create for up to max_tokens.
struct moe_ref_run {
    const vkmoe_host *host;
    double *values[MOE_N_VALUES];
    double *normed, *weighted; // work: a row of x or of the latent
};

enum vkmoe_status moe_ref_run_create(const vkmoe_host *host, const struct moe_graph *graph,
                                     uint32_t max_tokens, struct moe_ref_run **out);
void moe_ref_run_destroy(struct moe_ref_run *run);

// Fills every value from those of the graph's inputs: X and, where the layer has them, ROUTER_X and
// TOKEN_IDS. weights may be NULL for what moe_operation_is_whole. Hidden
// activations and outputs of slots that no expert runs for are 0 and have no meaning.
void moe_ref_run(struct moe_ref_run *run, const struct moe_graph *graph,
                 const struct moe_ref_weights *weights, uint32_t n_tokens);

// act(v); of VKMOE_ACT_SITU the gate half.
double moe_ref_act(const vkmoe_layer_desc *layer, enum vkmoe_act act, double v);

// One hidden activation from its gate half, if the layer has one, and its up half.
double moe_ref_hidden(const vkmoe_layer_desc *layer, enum moe_bank bank, double gate, double up);

// bias[row] + sum_i w[row, i] x[i]; w (n_rows, width), bias NULL for none.
double moe_ref_dot(const float *w, const float *bias, uint64_t row, uint32_t width,
                   const double *x);

#endif
