// SPDX-License-Identifier: MIT
// Which experts a token gets: every rule of enum vkmoe_select, groups included.
#ifndef MOE_CORE_REF_SELECT_H
#define MOE_CORE_REF_SELECT_H

#include "core/ref_route.h"

// Does a come before b in selection? The larger value first (-0 and +0 are equal), then the lower
// index; NaN after every number.
bool moe_ref_comes_before(const double *ranking, uint64_t a, uint64_t b);

// The values of experts outside the best groups become -infinity or 0. A group counts as much as
// the sum of its first few in the order of selection; groups are in that order too.
void moe_ref_mask_groups(const vkmoe_layer_desc *layer, double *ranking);

// Fills ids from ranking and scores, the rest with -1; returns how many are selected. Not for
// VKMOE_SELECT_TABLE and VKMOE_SELECT_SPARSEMIXER.
uint32_t moe_ref_select_ranked(const vkmoe_layer_desc *layer, const double *ranking,
                               const double *scores, double *ids);

// All top_k ids, and their gate weights before the norm. A NaN among the logits of the experts left
// is in their softmax.
void moe_ref_sparsemixer(const vkmoe_layer_desc *layer, const double *logits, double *ids,
                         double *gates);

#endif
