// SPDX-License-Identifier: MIT
// The router's rules for one token: scores, selection, gate weights. Pure functions.
#ifndef MOE_CPU_ROUTE_H
#define MOE_CPU_ROUTE_H

#include "core/layer.h"

// Selects the experts of one token.
//
//   layer      checked description
//   logits     (n_experts) router output, router bias added
//   selection_bias (n_experts), zeros where the layer has none
//   ids        (top_k) out, in descending order of what selection ranks by; ties go to the lower
//              index, -0 equals +0, NaN comes last
//   gates      (top_k) out, normalised and scaled gate weights of `ids`
//   ranking    (n_experts) out, what selection ranked by
void moe_cpu_route(const vkmoe_layer_desc *layer, const float *logits,
                   const float *selection_bias, int32_t *ids, float *gates, float *ranking);

#endif
