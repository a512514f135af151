// SPDX-License-Identifier: MIT
// The router's rules for one token: scores, selection, gate weights. Pure functions.
#ifndef MOE_CPU_ROUTE_H
#define MOE_CPU_ROUTE_H

#include "core/layer.h"
#include "cpu/arrays.h"

// What the rules take besides logits. n: experts and identity experts.
struct cpu_route_rule {
    const float *selection_bias; // (n), zeros where the layer has none
    const float *expert_scale;   // (n), NULL where it has none
    const int32_t *table_row;    // (top_k) of the token's id, NULL where it has no table
    const struct cpu_arrays *arrays; // of the level
};

// Selects the experts of one token.
//
//   layer      checked description
//   logits     (n) router output, router bias added
//   ids        (top_k) out, in descending order of what selection ranks by; ties go to the lower
//              index, -0 equals +0, NaN comes last; -1 for slots that are not used
//   gates      (top_k) out, gate weights of `ids`, normalised and scaled, but with capacity_renorm
//              neither; 0 for slots that are not used
//   ranking    (n) out, what selection ranked by
void moe_cpu_route(const vkmoe_layer_desc *layer, const float *logits,
                   const struct cpu_route_rule *rule, int32_t *ids, float *gates, float *ranking);

// gates = norm(gates) * routed_scale * expert_scale of the slots that are used.
void moe_cpu_normalise(const vkmoe_layer_desc *layer, const float *expert_scale, const int32_t *ids,
                       float *gates);

// A number that sorts ascending as selection wants: the larger value first, -0 as +0, NaN last,
// then the lower index, which is its low half.
uint64_t moe_cpu_sort_key(float value, uint32_t index);

// Leaves the n_best smallest of n keys at the front, in no order but the largest of them first.
// n_best is 1..n.
void moe_cpu_keep_smallest(uint64_t *keys, uint32_t n, uint32_t n_best);

#endif
