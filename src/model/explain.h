// SPDX-License-Identifier: MIT
// What vkmoe_explain counts, and the measures of it.
#ifndef MOE_MODEL_EXPLAIN_H
#define MOE_MODEL_EXPLAIN_H

#include <vkmoe/explain.h>

// Of one feature of the layer's input: Welford's running mean and sum of squares.
struct moe_spread {
    double mean, squares;
};

// Of a regression, whose groups are known at the end only.
struct moe_explain_rows {
    float *values; // (n) first targets
    int32_t *ids;  // (n, top_k)
    float *gates;  // (n, top_k)
    size_t n, room;
};

struct vkmoe_explain {
    const vkmoe_model *model;
    const vkmoe_host *host; // the model's
    uint32_t layer, n_experts, top_k, d_model, n_outputs, n_groups, n_certain;
    bool classify, finished, has_x;
    uint64_t n_rows, n_undecided;

    uint64_t *group_rows; // (n_groups)
    uint64_t *slots;      // (n_experts, n_groups)
    double *gate_sums;    // (n_experts, n_groups)
    uint64_t *first;      // (n_experts, n_groups), of the first expert of a row
    uint64_t *histograms; // (n_experts, VKMOE_EXPLAIN_BINS)
    double gate_limit;
    vkmoe_explain_certain *certain; // (n_experts, n_certain), the largest gate first
    uint32_t *n_kept;               // (n_experts)
    struct moe_spread *spreads;     // (d_model)

    struct moe_explain_rows rows;
    double (*quantiles)[5];         // (n_experts)
    double low[VKMOE_EXPLAIN_QUARTERS], high[VKMOE_EXPLAIN_QUARTERS];
    vkmoe_explain_feature *features; // (n_experts, d_model), sorted
};

// Mutual information in bits of a table (n, m) of weights >= 0; NaN when one is negative.
double moe_information(const double *weights, uint32_t n, uint32_t m);

// Entropy in bits of counts.
double moe_entropy(const uint64_t *counts, uint32_t n);

// Puts the rows of a regression into groups and fills what depends on them.
enum vkmoe_status moe_explain_quarters(vkmoe_explain *e);

// Counts a decided row, of this group.
void moe_explain_count(vkmoe_explain *e, uint32_t group, const int32_t *ids, const float *gates);

// Weight, spread and effect of every feature for every expert, if scores are linear.
enum vkmoe_status moe_explain_features(vkmoe_explain *e);

#endif
