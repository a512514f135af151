// SPDX-License-Identifier: MIT
#include "core/ref_route.h"

#include "core/layer.h"

#include <assert.h>
#include <math.h>

double moe_ref_sigmoid(double v)
{
    return 1 / (1 + exp(-v));
}

// out = softmax(in). fmax passes over NaN; the sum does not, so one NaN reaches every output.
static void softmax(const double *in, uint32_t n, double *out)
{
    double most = in[0], sum = 0;
    for (uint32_t i = 1; i < n; i++)
        most = fmax(most, in[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += out[i] = exp(in[i] - most);
    for (uint32_t i = 0; i < n; i++)
        out[i] /= sum;
}

void moe_ref_score(enum vkmoe_score kind, const double *logits, uint32_t n, double *out)
{
    assert(kind == VKMOE_SCORE_SOFTMAX || kind == VKMOE_SCORE_SIGMOID || kind == VKMOE_SCORE_NONE);
    if (kind == VKMOE_SCORE_SOFTMAX) {
        softmax(logits, n, out);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        out[i] = kind == VKMOE_SCORE_NONE ? logits[i] : moe_ref_sigmoid(logits[i]);
}

// Does expert a come before expert b in selection?
static bool comes_before(const double *ranking, uint32_t a, uint32_t b)
{
    bool a_is_nan = isnan(ranking[a]), b_is_nan = isnan(ranking[b]);
    if (a_is_nan != b_is_nan)
        return b_is_nan;
    if (!a_is_nan && ranking[a] != ranking[b])
        return ranking[a] > ranking[b];
    return a < b;
}

static void select_top_k(const double *ranking, uint32_t n_experts, uint32_t top_k, double *ids)
{
    bool taken[MOE_MAX_EXPERTS] = {false};
    for (uint32_t k = 0; k < top_k; k++) {
        uint32_t best = n_experts;
        for (uint32_t e = 0; e < n_experts; e++) {
            if (!taken[e] && (best == n_experts || comes_before(ranking, e, best)))
                best = e;
        }
        taken[best] = true;
        ids[k] = best;
    }
}

static void normalise(const vkmoe_layer_desc *layer, double *gates)
{
    double sum = 0, eps = (double) layer->norm_eps, divisor = 1;
    for (uint32_t k = 0; k < layer->top_k; k++)
        sum += gates[k];
    switch (layer->norm) {
    case VKMOE_NORM_NONE:
        break;
    case VKMOE_NORM_SUM_PLUS_EPS:
        divisor = sum + eps;
        break;
    case VKMOE_NORM_MAX_SUM_EPS:
        divisor = sum < eps ? eps : sum; // a NaN sum stays
        break;
    }
    for (uint32_t k = 0; k < layer->top_k; k++)
        gates[k] = gates[k] / divisor * (double) layer->routed_scale;
}

void moe_ref_route(const vkmoe_layer_desc *layer, const double *logits, const float *selection_bias,
                   const struct moe_ref_routing *out)
{
    double bias[MOE_MAX_EXPERTS];
    for (uint32_t e = 0; selection_bias && e < layer->n_experts; e++)
        bias[e] = (double) selection_bias[e];
    moe_ref_select(layer, logits, selection_bias ? bias : NULL, out);
}

void moe_ref_select(const vkmoe_layer_desc *layer, const double *logits,
                    const double *selection_bias, const struct moe_ref_routing *out)
{
    assert(layer->rank == VKMOE_RANK_SCORE || layer->rank == VKMOE_RANK_LOGIT);
    double scores[MOE_MAX_EXPERTS];
    moe_ref_score(layer->score, logits, layer->n_experts, scores);

    const double *ranked = layer->rank == VKMOE_RANK_SCORE ? scores : logits;
    for (uint32_t e = 0; e < layer->n_experts; e++)
        out->ranking[e] = ranked[e] + (selection_bias ? selection_bias[e] : 0);
    select_top_k(out->ranking, layer->n_experts, layer->top_k, out->ids);

    const double *source = layer->gate_source == VKMOE_GATE_SCORE ? scores : logits;
    for (uint32_t k = 0; k < layer->top_k; k++)
        out->gates[k] = source[(uint32_t) out->ids[k]];
    if (layer->gate_source == VKMOE_GATE_SOFTMAX_SELECTED)
        softmax(out->gates, layer->top_k, out->gates);
    normalise(layer, out->gates);
}
