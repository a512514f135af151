// SPDX-License-Identifier: MIT
#include "core/ref_route.h"

#include "core/layer.h"
#include "core/ref_select.h"

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

static double score(enum vkmoe_score kind, double l)
{
    double positive = l < 0 ? 0 : l; // NaN stays NaN
    switch (kind) {
    case VKMOE_SCORE_SOFTMAX:
        break; // depends on all logits
    case VKMOE_SCORE_SIGMOID:
        return moe_ref_sigmoid(l);
    case VKMOE_SCORE_SQRT_SOFTPLUS: // ln(1 + e^l) without overflow
        return sqrt(positive + log1p(exp(-fabs(l))));
    case VKMOE_SCORE_RELU:
        return positive;
    case VKMOE_SCORE_NONE:
        return l;
    }
    return NAN;
}

void moe_ref_score(enum vkmoe_score kind, const double *logits, uint32_t n, double *out)
{
    if (kind == VKMOE_SCORE_SOFTMAX) {
        softmax(logits, n, out);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        out[i] = score(kind, logits[i]);
}

static double rank(enum vkmoe_rank kind, double logit, double score_of_it)
{
    switch (kind) {
    case VKMOE_RANK_SCORE:
        return score_of_it;
    case VKMOE_RANK_LOGIT:
        return logit;
    case VKMOE_RANK_SIGMOID:
        return moe_ref_sigmoid(logit);
    }
    return NAN;
}

// The divisor of the norm. Unused slots have weight 0.
static double divisor(const vkmoe_layer_desc *layer, const double *gates)
{
    double sum = 0, p = (double) layer->norm_p, eps = (double) layer->norm_eps;
    for (uint32_t k = 0; k < layer->top_k; k++)
        sum += p == 1 ? gates[k] : pow(fabs(gates[k]), p);
    if (p != 1)
        sum = pow(sum, 1 / p);
    switch (layer->norm) {
    case VKMOE_NORM_NONE:
        break;
    case VKMOE_NORM_SUM_PLUS_EPS:
        return sum + eps;
    case VKMOE_NORM_MAX_SUM_EPS:
        return sum < eps ? eps : sum; // a NaN sum stays
    }
    return 1;
}

void moe_ref_normalise(const vkmoe_layer_desc *layer, const float *expert_scale, const double *ids,
                       double *gates)
{
    double by = divisor(layer, gates);
    for (uint32_t k = 0; k < layer->top_k; k++) {
        if (ids[k] < 0)
            continue;
        gates[k] = gates[k] / by * (double) layer->routed_scale;
        if (expert_scale)
            gates[k] *= (double) expert_scale[(uint32_t) ids[k]];
    }
}

// ids, and the gate weights that the norm takes.
static void select_experts(const vkmoe_layer_desc *layer, const double *logits,
                           const int32_t *table_row, const double *scores,
                           const struct moe_ref_routing *out)
{
    uint32_t n_used = layer->top_k;
    if (layer->select == VKMOE_SELECT_SPARSEMIXER) {
        moe_ref_sparsemixer(layer, logits, out->ids, out->gates);
        return;
    }
    if (layer->select == VKMOE_SELECT_TABLE) {
        for (uint32_t k = 0; k < layer->top_k; k++)
            out->ids[k] = table_row[k];
    } else {
        n_used = moe_ref_select_ranked(layer, out->ranking, scores, out->ids);
    }
    const double *source = layer->gate_source == VKMOE_GATE_SCORE ? scores : logits;
    for (uint32_t k = 0; k < layer->top_k; k++)
        out->gates[k] = k < n_used ? source[(uint32_t) out->ids[k]] : 0;
    if (layer->gate_source == VKMOE_GATE_SOFTMAX_SELECTED)
        softmax(out->gates, n_used, out->gates);
}

static void route(const vkmoe_layer_desc *layer, const double *logits, const double *selection_bias,
                  const struct moe_ref_rule *rule, const struct moe_ref_routing *out)
{
    const uint32_t n = moe_layer_n_scored(layer);
    double capped[MOE_MAX_EXPERTS] = {0}, scores[MOE_MAX_EXPERTS];
    const double cap = (double) layer->logit_softcap;
    for (uint32_t e = 0; e < n; e++)
        capped[e] = cap > 0 ? cap * tanh(logits[e] / cap) : logits[e];
    moe_ref_score(layer->score, capped, n, scores);
    for (uint32_t e = 0; e < n; e++)
        out->ranking[e] = rank(layer->select == VKMOE_SELECT_SPARSEMIXER ? VKMOE_RANK_LOGIT
                                                                         : layer->rank,
                               capped[e], scores[e]) +
                          (selection_bias ? selection_bias[e] : 0);
    moe_ref_mask_groups(layer, out->ranking);
    select_experts(layer, capped, rule->table_row, scores, out);
    if (!layer->capacity_renorm)
        moe_ref_normalise(layer, rule->expert_scale, out->ids, out->gates);
}

void moe_ref_route(const vkmoe_layer_desc *layer, const double *logits,
                   const struct moe_ref_rule *rule, const struct moe_ref_routing *out)
{
    double bias[MOE_MAX_EXPERTS];
    for (uint32_t e = 0; rule->selection_bias && e < moe_layer_n_scored(layer); e++)
        bias[e] = (double) rule->selection_bias[e];
    route(layer, logits, rule->selection_bias ? bias : NULL, rule, out);
}

void moe_ref_select(const vkmoe_layer_desc *layer, const double *logits,
                    const double *selection_bias, const struct moe_ref_routing *out)
{
    route(layer, logits, selection_bias, &(struct moe_ref_rule){0}, out);
}
