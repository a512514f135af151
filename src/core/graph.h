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
    MOE_ROWS_ONE,     // one, whatever the token count is
};

// Widths of the routed experts: d_in is d_latent or d_model, d_to is d_latent or d_out.
enum moe_value_id {
    MOE_VALUE_X,           // (token, d_model)  input
    MOE_VALUE_ROUTER_X,    // (token, d_model)  input of the router, if it has its own
    MOE_VALUE_TOKEN_IDS,   // (token, 1) i32    input, if experts are selected by a table
    MOE_VALUE_IDS,         // (slot, 1) i32     selected experts, descending; identity experts are
                           //                   n_experts and above; -1: the slot is unused
    MOE_VALUE_GATES,       // (slot, 1)         their gate weights; 0 where unused
    MOE_VALUE_SCORES,      // (token, n_experts + n_zero) what selection ranked by; if asked for
    MOE_VALUE_SHARED_GATE, // (token, 1 or 2)   factor of the shared expert; softmax2: of the routed
                           //                   sum, then of the shared expert
    MOE_VALUE_GROUPING,    // the slots of each expert, in token order; form chosen by the back end
    MOE_VALUE_GROUPING_ADJUGATE,
    MOE_VALUE_X_LATENT,    // (token, d_latent)
    MOE_VALUE_H,           // (slot, d_ff)      hidden activations of the routed experts
    MOE_VALUE_F,           // (slot, d_to)      outputs of the routed experts
    MOE_VALUE_H_ADJUGATE,  // (slot, d_adjugate)
    MOE_VALUE_F_ADJUGATE,  // (slot, d_to)
    MOE_VALUE_R_LATENT,    // (token, d_latent) sum of the routed experts' outputs
    MOE_VALUE_H_SHARED,    // (token, d_shared_ff)
    MOE_VALUE_F_SHARED,    // (token, d_out)
    MOE_VALUE_Y,           // (token, d_out)    output
    // Of operations: rows in the order of experts, d_model wide for gather and d_out for combine.
    MOE_VALUE_ROWS,        // (slot, ...)
    MOE_VALUE_SLOTS,       // (slot, 1) i32     which slot a row is of; -1 behind the last one
    MOE_VALUE_COUNTS,      // (one, n_experts) u32 rows of an expert
    MOE_VALUE_OFFSETS,     // (one, n_experts + 1) u32 its first row, then the number of all
    MOE_VALUE_POSITIONS,   // (slot, 1)         its row; beyond all of them: it has none
    MOE_N_VALUES,
};

struct moe_value {
    const char *name;
    enum moe_rows rows;
    uint32_t width;   // elements a row; 0: opaque
    bool used;
};

enum moe_op_kind {
    // X or ROUTER_X [, TOKEN_IDS] -> IDS, GATES [, SCORES] [, SHARED_GATE]: scores, selection, gate
    // weights. With a capacity they are not yet normalised if that is to be over the slots kept.
    MOE_OP_ROUTE,
    // IDS, GATES -> IDS, GATES in place: slots beyond their expert's capacity become unused; then
    // the norm, if it is over the slots kept. Identity experts have no capacity.
    MOE_OP_CAPACITY,
    // IDS -> GROUPING (bank adjugate: GROUPING_ADJUGATE): slots by expert, stable, without unused
    // slots and identity experts.
    MOE_OP_GROUP,
    // X -> X_LATENT: W_down x.
    MOE_OP_LATENT_IN,
    // X or X_LATENT [, IDS, GROUPING] [, GATES] -> H: act(W_gate x + b_gate) * (W_up x + b_up), or
    // act(W_up x + b_up), with the clamps and addends of the layer; w_k x for x where weights are
    // on the input.
    MOE_OP_EXPERT_IN,
    // H [, IDS, GROUPING] -> F: act_out(W_down h + b_down).
    MOE_OP_EXPERT_OUT,
    // F, GATES [, F_ADJUGATE] [, X or X_LATENT] [, F_SHARED, SHARED_GATE] -> Y:
    //   r = sum_k w_k f_k + sum_k (w_k adjugate_scale) a_k, f_k = x for an identity expert, w_k = 1
    //   for what was weighted on the input already; r += out_bias. The order is fixed: ascending k,
    //   on the CPU ascending experts.
    //   y = out_scale (c_routed r + c_shared g f_shared), or with softmax2 c_routed g_0 r and g_1
    // With a latent width -> R_LATENT: the sum alone.
    MOE_OP_COMBINE,
    // R_LATENT [, F_SHARED, SHARED_GATE] -> Y: r = W_up r, or W_up (rms(r) norm); from there on as
    // COMBINE.
    MOE_OP_LATENT_OUT,
    // X, GROUPING -> ROWS, SLOTS, COUNTS, OFFSETS: the rows of x of the slots in GROUPING.
    MOE_OP_GATHER,
    // SLOTS -> POSITIONS: where each slot's row is.
    MOE_OP_PLACE,
    // ROWS, POSITIONS, GATES [, IDS, X] -> Y = out_scale c_routed sum_k w_k row_k in ascending k;
    // the row of an identity expert's slot is x.
    MOE_OP_COMBINE_ROWS,
};

// Which experts an EXPERT_IN or EXPERT_OUT reads.
enum moe_bank {
    MOE_BANK_ROUTED,
    MOE_BANK_SHARED, // the one shared expert, applied to every token
    MOE_BANK_ADJUGATE, // expert e of a slot is adjugate e / adjugate_group
    MOE_N_BANKS,
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
    enum vkmoe_operation operation;
    uint32_t inputs, outputs; // the caller's: bit i = enum moe_value_id i
};

// What the values of a bank are: its input, hidden activations, output and grouping. The shared one
// has no grouping.
struct moe_bank_values {
    enum moe_value_id in, h, f, grouping;
};
struct moe_bank_values moe_graph_bank(const struct moe_graph *graph, enum moe_bank bank);

// The forward graph of a checked layer. with_scores: SCORES is an output too.
void moe_graph_forward(struct moe_graph *graph, const struct moe_layer *layer, bool with_scores);

// The graph of an operation that moe_layer_check_operation admits; of a layer: its forward graph.
void moe_graph_operation(struct moe_graph *graph, const struct moe_layer *layer,
                         enum vkmoe_operation operation, bool with_scores);

// Does it go over all tokens of a run at once, and without weights?
static inline bool moe_operation_is_whole(enum vkmoe_operation operation)
{
    return operation == VKMOE_OPERATION_GATHER || operation == VKMOE_OPERATION_COMBINE;
}

static inline bool moe_graph_has_input(const struct moe_graph *graph, enum moe_value_id value)
{
    return graph->inputs >> value & 1;
}

static inline bool moe_graph_has_output(const struct moe_graph *graph, enum moe_value_id value)
{
    return graph->outputs >> value & 1;
}

const char *moe_op_name(enum moe_op_kind kind);

static inline bool moe_graph_uses(const struct moe_graph *graph, enum moe_value_id value)
{
    return graph->values[value].used;
}

#endif
