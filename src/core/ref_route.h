// SPDX-License-Identifier: MIT
// The router's rule for one token: logits in, selected experts and their gate weights out.
#ifndef MOE_CORE_REF_ROUTE_H
#define MOE_CORE_REF_ROUTE_H

#include <vkmoe/vkmoe.h>

// What a router says of one token. ids and gates have top_k entries, the others one for each expert
// and identity expert.
struct moe_ref_routing {
    double *ids;     // -1: the slot is unused
    double *gates;   // 0 where it is unused
    double *ranking; // what selection ranked by: rank(l, s) + selection_bias with groups masked;
                     // sparsemixer: l
};

// What the rule needs besides logits; NULL where the layer has none.
struct moe_ref_rule {
    const float *selection_bias, *expert_scale; // one for each expert and identity expert
    const int32_t *table_row;                   // (top_k), of the token's id
};

// `logits` has an entry for each expert and identity expert, router_bias included, before the
// soft-cap.
//
// Selection takes the largest ranking value first; equal values (-0 and +0 are equal) go to the
// lower index; a NaN comes after every number. NaN scores are not special otherwise: their gate
// weights are NaN. One NaN logit makes all softmax scores NaN.
//
// Gate weights are final, but for layers with capacity_renorm: there they are what the norm takes.
void moe_ref_route(const vkmoe_layer_desc *layer, const double *logits,
                   const struct moe_ref_rule *rule, const struct moe_ref_routing *out);

// The same for layers without table and expert_scale, with an f64 bias or NULL.
void moe_ref_select(const vkmoe_layer_desc *layer, const double *logits,
                    const double *selection_bias, const struct moe_ref_routing *out);

// gates = norm(gates) * routed_scale * expert_scale of the slots that are used.
void moe_ref_normalise(const vkmoe_layer_desc *layer, const float *expert_scale, const double *ids,
                       double *gates);

// Slots of all tokens beyond their expert's capacity become unused; with capacity_renorm the others
// are normalised then. By gate weight, a NaN is kept after every number.
void moe_ref_capacity(const vkmoe_layer_desc *layer, const float *expert_scale, uint32_t n_tokens,
                      double *ids, double *gates);

// Scores of n logits; out may be logits itself.
void moe_ref_score(enum vkmoe_score kind, const double *logits, uint32_t n, double *out);

double moe_ref_sigmoid(double v);

#endif
