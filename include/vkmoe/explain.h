// SPDX-License-Identifier: MIT
// Which expert of a model serves what, and why. The rules of vkmoe.h hold here too. This part is of
// the library libvkmoe-model.
//
//     vkmoe_explain *explain;
//     vkmoe_explain_create(model, NULL, &explain);
//     for each batch of a session: vkmoe_explain_add(explain, n_rows, &batch);
//     vkmoe_explain_finish(explain);                 // then ask
//
// Rows fall into groups: their class, or for a regression the quarter of the first target that they
// are in. A slot is one (row, selected expert); its gate weight is what multiplies the expert.
// What one expert adds to one row's output comes from a session with VKMOE_EXPERTS_ALONE.
#ifndef VKMOE_EXPLAIN_H
#define VKMOE_EXPLAIN_H

#include <vkmoe/model.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vkmoe_explain vkmoe_explain;

enum {
    VKMOE_EXPLAIN_BINS = 20,    // of a histogram of gate weights
    VKMOE_EXPLAIN_QUARTERS = 4, // groups of a regression
};

typedef struct vkmoe_explain_desc {
    size_t struct_size;
    uint32_t layer;     // which one
    uint32_t n_certain; // inputs that are kept for each expert; init sets 5
} vkmoe_explain_desc;

static inline vkmoe_explain_desc vkmoe_explain_desc_init(void)
{
    vkmoe_explain_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.struct_size = sizeof desc;
    desc.n_certain = 5;
    return desc;
}

// desc may be NULL. The model is borrowed until the object is destroyed. Memory grows with the rows
// of a regression, by its first target and the experts; else it does not. Threads: one at a time.
// VKMOE_E_UNSUPPORTED: a layer without gate weights.
VKMOE_API enum vkmoe_status vkmoe_explain_create(const vkmoe_model *model,
                                                 const vkmoe_explain_desc *desc,
                                                 vkmoe_explain **out);
VKMOE_API void vkmoe_explain_destroy(vkmoe_explain *explain);

// Rows as they come and what vkmoe_session_run gave for them. Where the layer's rows are tokens,
// each of them is a row here, with the label or target of its example.
typedef struct vkmoe_explain_batch {
    size_t struct_size;
    const int32_t *ids;    // (n_rows, top_k)
    const float *gates;    // (n_rows, top_k)
    const int32_t *labels; // (n_rows), classify
    const float *values;   // (n_rows, n_outputs), regress
    const float *layer_x;  // (n_rows, d_model), or NULL: no features are asked for
    const uint64_t *rows;  // (n_rows) their numbers; NULL: counted from 1 as they come
} vkmoe_explain_batch;

static inline vkmoe_explain_batch vkmoe_explain_batch_init(void)
{
    vkmoe_explain_batch batch;
    memset(&batch, 0, sizeof batch);
    batch.struct_size = sizeof batch;
    return batch;
}

// A row with a gate weight that is NaN is counted as undecided and leaves no other trace.
// VKMOE_E_DATA names the row: a first target that is not finite.  VKMOE_E_ARGUMENT: a label or an
// expert that does not exist.
VKMOE_API enum vkmoe_status vkmoe_explain_add(vkmoe_explain *explain, uint32_t n_rows,
                                              const vkmoe_explain_batch *batch);

// Nothing can be added after it; the functions below need it. VKMOE_E_DATA: no row was decided.
VKMOE_API enum vkmoe_status vkmoe_explain_finish(vkmoe_explain *explain);

// ---- answers ---------------------------------------------------------------------------------

typedef struct vkmoe_explain_summary {
    uint64_t n_rows;      // decided ones, all the rest is about them
    uint64_t n_undecided;
    uint32_t n_groups;
    uint32_t n_used;      // experts with a slot
    double group_entropy; // bits: what there is to know about a row's group
    // Mutual information in bits between a row's group and an expert: of a slot drawn at random; of
    // a slot drawn by gate weight, NaN when one is negative; the first one of the row.
    double information, information_gates, information_first;
    // Mean of information_first if experts and groups had nothing to do with each other:
    // (experts - 1) (groups - 1) / (2 n_rows ln 2), of those that occur.
    double chance_first;
    double load_entropy;  // bits, of the experts' shares of the slots; log2 n_experts is even load
    double gate_limit;    // the last bin of a histogram ends here, the first begins at 0
} vkmoe_explain_summary;

VKMOE_API enum vkmoe_status vkmoe_explain_get(const vkmoe_explain *explain,
                                              vkmoe_explain_summary *out);

typedef struct vkmoe_explain_group {
    const char *name; // of the class, borrowed until the model is destroyed; NULL: regress
    uint64_t n_rows;
    double low, high; // regress: smallest and largest target in it; NaN when there is none
} vkmoe_explain_group;

// VKMOE_E_ARGUMENT: no such group.
VKMOE_API enum vkmoe_status vkmoe_explain_get_group(const vkmoe_explain *explain, uint32_t i,
                                                    vkmoe_explain_group *out);

// Arrays are borrowed until the object is destroyed. Means and quantiles are NaN without slots.
typedef struct vkmoe_explain_expert {
    uint64_t n_slots; // its load
    uint64_t n_first; // rows of which it is the first one
    double share;     // of all slots
    double gate_mean; // over its slots
    // Bits that a slot of this expert tells about the group: the divergence of the groups of its
    // slots from those of all slots. The mean over slots is vkmoe_explain_summary.information.
    double information;
    const uint64_t *slots;      // (n_groups)
    const double *gates;        // (n_groups) sums of gate weights
    const uint64_t *histogram;  // (VKMOE_EXPLAIN_BINS) slots by gate weight
    double quantiles[5]; // regress: of the first target over slots: 0, 1/4, 1/2, 3/4, 1; else NaN
} vkmoe_explain_expert;

// VKMOE_E_ARGUMENT: no such expert.
VKMOE_API enum vkmoe_status vkmoe_explain_get_expert(const vkmoe_explain *explain, uint32_t expert,
                                                     vkmoe_explain_expert *out);

// The inputs that an expert was chosen for with the largest gate weights; equal ones in order.
typedef struct vkmoe_explain_certain {
    uint64_t row;
    float gate;
    int32_t label; // classify, else -1
    float value;   // regress: the first target, else NaN
} vkmoe_explain_certain;

// VKMOE_E_ARGUMENT: there is no i-th, from 0; *n, which may be NULL, is how many there are.
VKMOE_API enum vkmoe_status vkmoe_explain_get_certain(const vkmoe_explain *explain, uint32_t expert,
                                                      uint32_t i, uint32_t *n,
                                                      vkmoe_explain_certain *out);

// What an input feature of the layer does to an expert's score, for a router with linear scores:
// effect = weight * std; the features with the largest |effect| come first, equal ones in order.
typedef struct vkmoe_explain_feature {
    uint32_t feature; // from 0
    double weight;    // of the router
    double std;       // of the feature in the layer's input, over the decided rows
    double effect;
} vkmoe_explain_feature;

// VKMOE_E_ARGUMENT: there is no i-th, from 0 (d_model of them; none without layer_x, or where
// scores are not linear).
VKMOE_API enum vkmoe_status vkmoe_explain_get_feature(const vkmoe_explain *explain, uint32_t expert,
                                                      uint32_t i, vkmoe_explain_feature *out);

#ifdef __cplusplus
}
#endif
#endif
