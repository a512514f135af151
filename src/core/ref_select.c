// SPDX-License-Identifier: MIT
#include "core/ref_select.h"

#include "core/layer.h"

#include <assert.h>
#include <math.h>

bool moe_ref_comes_before(const double *ranking, uint64_t a, uint64_t b)
{
    bool a_is_nan = isnan(ranking[a]), b_is_nan = isnan(ranking[b]);
    if (a_is_nan != b_is_nan)
        return b_is_nan;
    if (!a_is_nan && ranking[a] != ranking[b])
        return ranking[a] > ranking[b];
    return a < b;
}

// The first of n in the order of selection that is not taken; n if there is none.
static uint32_t first_left(const double *ranking, const bool *taken, uint32_t n)
{
    uint32_t best = n;
    for (uint32_t i = 0; i < n; i++) {
        if (!taken[i] && (best == n || moe_ref_comes_before(ranking, i, best)))
            best = i;
    }
    return best;
}

// ---- groups -----------------------------------------------------------------------------------

static uint32_t n_counted(const vkmoe_layer_desc *layer)
{
    switch (layer->group_score) {
    case VKMOE_GROUP_MAX:
        return 1;
    case VKMOE_GROUP_TOP2_SUM:
        return 2;
    case VKMOE_GROUP_TOP_SHARE_SUM:
        break;
    }
    return layer->top_k / layer->topk_group;
}

// Sum of the `count` first of n in the order of selection.
static double sum_of_first(const double *ranking, uint32_t n, uint32_t count)
{
    bool taken[MOE_MAX_EXPERTS] = {false};
    double sum = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t best = first_left(ranking, taken, n);
        taken[best] = true;
        sum += ranking[best];
    }
    return sum;
}

void moe_ref_mask_groups(const vkmoe_layer_desc *layer, double *ranking)
{
    if (layer->n_group <= 1)
        return;
    double of_group[MOE_MAX_EXPERTS];
    bool taken[MOE_MAX_EXPERTS] = {false};
    uint32_t per_group = layer->n_experts / layer->n_group;
    for (uint32_t g = 0; g < layer->n_group; g++)
        of_group[g] = sum_of_first(ranking + g * per_group, per_group, n_counted(layer));
    for (uint32_t i = 0; i < layer->topk_group; i++)
        taken[first_left(of_group, taken, layer->n_group)] = true;
    for (uint32_t e = 0; e < layer->n_experts; e++) {
        if (!taken[e / per_group])
            ranking[e] = layer->group_fill_zero ? 0 : -INFINITY;
    }
}

// ---- experts ----------------------------------------------------------------------------------

uint32_t moe_ref_select_ranked(const vkmoe_layer_desc *layer, const double *ranking,
                               const double *scores, double *ids)
{
    bool taken[MOE_MAX_EXPERTS] = {false};
    const uint32_t n = moe_layer_n_scored(layer);
    const double p = (double) layer->select_p;
    double sum = 0;
    uint32_t k = 0;
    for (; k < layer->top_k; k++) {
        uint32_t best = first_left(ranking, taken, n);
        if (k > 0 && layer->select == VKMOE_SELECT_TOP_P && sum >= p)
            break;
        if (k > 0 && layer->select == VKMOE_SELECT_THRESHOLD && !(ranking[best] >= p))
            break;
        taken[best] = true;
        sum += scores[best];
        ids[k] = best;
    }
    for (uint32_t unused = k; unused < layer->top_k; unused++)
        ids[unused] = -1;
    return k;
}

// Softmax of the logits of those experts left that are close to the largest of them, at that one.
static double sparsemixer_gate(const double *logits, const bool *taken, uint32_t n, uint32_t best,
                               double eps)
{
    double most = logits[best], sum = 0;
    for (uint32_t e = 0; e < n; e++) {
        double distance = (most - logits[e]) / fmax(fabs(logits[e]), most);
        if (!taken[e] && !(distance > 2 * eps))
            sum += exp(logits[e] - most);
    }
    return 1 / sum;
}

void moe_ref_sparsemixer(const vkmoe_layer_desc *layer, const double *logits, double *ids,
                         double *gates)
{
    bool taken[MOE_MAX_EXPERTS] = {false};
    for (uint32_t k = 0; k < layer->top_k; k++) {
        uint32_t best = first_left(logits, taken, layer->n_experts);
        gates[k] = sparsemixer_gate(logits, taken, layer->n_experts, best,
                                    (double) layer->sparsemixer_eps);
        taken[best] = true;
        ids[k] = best;
    }
}
