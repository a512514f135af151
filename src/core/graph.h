// SPDX-License-Identifier: MIT
// A layer as a graph of a few coarse ops over values. Three places know what an op means:
// core/ref.c (the f64 oracle), cpu/compile.c and vulkan/compile.c. Each switches over
// enum moe_op_kind without `default:`, so a new op does not compile until all three handle it.
#ifndef MOE_CORE_GRAPH_H
#define MOE_CORE_GRAPH_H

#include "core/layer.h"

// An array whose rows follow the token count. Slots are token-major: slot = token * top_k + k.
enum moe_rows {
    MOE_ROWS_TOKEN,   // n_tokens
    MOE_ROWS_SLOT,    // n_tokens * top_k
};

enum moe_value_id {
    MOE_VALUE_X,           // (token, d_model)  input
    MOE_VALUE_IDS,         // (slot, 1) i32     selected experts, descending
    MOE_VALUE_GATES,       // (slot, 1)         their gate weights
    MOE_VALUE_SCORES,      // (token, n_experts) what selection ranked by; only if asked for
    MOE_VALUE_SHARED_GATE, // (token, 1)        factor of the shared expert
    MOE_VALUE_GROUPING,    // the slots of each expert, in token order; form chosen by the back end
    MOE_VALUE_H,           // (slot, d_ff)      hidden activations of the routed experts
    MOE_VALUE_F,           // (slot, d_out)     outputs of the routed experts
    MOE_VALUE_H_SHARED,    // (token, d_shared_ff)
    MOE_VALUE_F_SHARED,    // (token, d_out)
    MOE_VALUE_Y,           // (token, d_out)    output
    MOE_N_VALUES,
};

struct moe_value {
    const char *name;
    enum moe_rows rows;
    uint32_t width;   // elements a row; 0: opaque
    bool used;
};

enum moe_op_kind {
    // X -> IDS, GATES [, SCORES] [, SHARED_GATE]: scores, selection, gate weights.
    MOE_OP_ROUTE,
    // IDS -> GROUPING: slots by expert, stable.
    MOE_OP_GROUP,
    // X [, IDS, GROUPING] -> H: act(W_gate x + b_gate) * (W_up x + b_up), or act(W_up x + b_up).
    MOE_OP_EXPERT_IN,
    // H [, IDS, GROUPING] -> F: act_out(W_down h + b_down).
    MOE_OP_EXPERT_OUT,
    // F, GATES [, F_SHARED, SHARED_GATE] -> Y: c_routed sum_k w_k f_k + c_shared g f_shared, times
    // out_scale; the sum in ascending k.
    MOE_OP_COMBINE,
};

// Which experts an EXPERT_IN or EXPERT_OUT reads.
enum moe_bank {
    MOE_BANK_ROUTED,
    MOE_BANK_SHARED, // the one shared expert, applied to every token
};

struct moe_op {
    enum moe_op_kind kind;
    enum moe_bank bank;
    uint32_t reads, writes; // bit i = enum moe_value_id i
};

enum { MOE_MAX_OPS = 16 };

struct moe_graph {
    struct moe_layer layer;
    struct moe_value values[MOE_N_VALUES];
    struct moe_op ops[MOE_MAX_OPS]; // in an order in which they can run
    uint32_t n_ops;
};

// The forward graph of a checked layer. with_scores: SCORES is an output too.
void moe_graph_forward(struct moe_graph *graph, const struct moe_layer *layer, bool with_scores);

const char *moe_op_name(enum moe_op_kind kind);

static inline bool moe_graph_uses(const struct moe_graph *graph, enum moe_value_id value)
{
    return graph->values[value].used;
}

#endif
