// SPDX-License-Identifier: MIT
// The router's rule for one token: logits in, selected experts and their gate weights out.
#ifndef MOE_CORE_REF_ROUTE_H
#define MOE_CORE_REF_ROUTE_H

#include <vkmoe/vkmoe.h>

// What a router says of one token. ids and gates have top_k entries, the others n_experts.
struct moe_ref_routing {
    double *ids;
    double *gates;
    double *ranking; // what selection ranked by: rank(l, s) + selection_bias
};

// `logits` has n_experts entries, router_bias included; selection_bias is NULL for none.
//
// Selection takes the largest ranking value first; equal values (-0 and +0 are equal) go to the
// lower index; a NaN comes after every number. NaN scores are not special otherwise: their gate
// weights are NaN. One NaN logit makes all softmax scores NaN.
void moe_ref_route(const vkmoe_layer_desc *layer, const double *logits, const float *selection_bias,
                   const struct moe_ref_routing *out);

// The same with an f64 bias.
void moe_ref_select(const vkmoe_layer_desc *layer, const double *logits,
                    const double *selection_bias, const struct moe_ref_routing *out);

// Scores of n logits; out may be logits itself.
void moe_ref_score(enum vkmoe_score kind, const double *logits, uint32_t n, double *out);

double moe_ref_sigmoid(double v);

#endif
