// SPDX-License-Identifier: MIT
// Cases of routing.
#include "net_case.h"

#include "core/layer.h"
#include "core/ref_route.h"

#include <math.h>
#include <string.h>

enum { N_TOKENS = 2 };

// All rules that there are, by number; some of them make no difference.
enum { N_RULES = 3 * 2 * 2 * 3 };

static vkmoe_layer_desc *rule(struct net_case *c, uint32_t i, uint32_t n_experts, uint32_t top_k)
{
    static const enum vkmoe_score scores[] = {VKMOE_SCORE_SOFTMAX, VKMOE_SCORE_SIGMOID,
                                              VKMOE_SCORE_NONE};
    vkmoe_layer_desc *layer = moe_net_own(c->net, sizeof *layer);
    *layer = vkmoe_layer_desc_init();
    layer->n_experts = n_experts;
    layer->top_k = top_k;
    layer->score = scores[i % 3];
    layer->rank = i / 3 % 2 == 0 ? VKMOE_RANK_SCORE : VKMOE_RANK_LOGIT;
    layer->gate_source = i / 6 % 2 == 0 ? VKMOE_GATE_SCORE : VKMOE_GATE_SOFTMAX_SELECTED;
    layer->norm = (enum vkmoe_norm)(i / 12 % 3);
    layer->norm_eps = i % 5 == 0 ? 0 : 0.25f;
    layer->routed_scale = i % 4 == 0 ? 2.5f : 1;
    return layer;
}

// Is a token's selection the same in f32? Numbers that rank may be equal, or clearly not.
static bool is_clear(const vkmoe_layer_desc *layer, const float *logits, const float *bias)
{
    double as_f64[MOE_MAX_EXPERTS], ids[MOE_MAX_EXPERTS], gates[MOE_MAX_EXPERTS];
    double ranking[MOE_MAX_EXPERTS];
    for (uint32_t e = 0; e < layer->n_experts; e++)
        as_f64[e] = (double) logits[e];
    moe_ref_route(layer, as_f64, &(struct moe_ref_rule){.selection_bias = bias},
                      &(struct moe_ref_routing){ids, gates, ranking});
    for (uint32_t a = 0; a < layer->n_experts; a++) {
        for (uint32_t b = 0; b < a; b++) {
            double apart = fabs(ranking[a] - ranking[b]);
            bool equal = logits[a] == logits[b] && (!bias || bias[a] == bias[b]);
            if (!equal && apart < 1e-6 * (1 + fabs(ranking[a])))
                return false;
        }
    }
    return true;
}

// Logits are drawn again where f32 could select others. ties: there are equal ones. As scores they
// are positive, so that the sum of the selected is not about 0.
static void clear_logits(struct net_case *c, const vkmoe_layer_desc *layer, uint32_t logits,
                         const float *bias, bool ties)
{
    float least = layer->score == VKMOE_SCORE_NONE ? 0.5f : -2;
    for (uint64_t t = 0; t < case_size(c, logits) / layer->n_experts; t++) {
        float *row = c->data[logits].f32 + t * layer->n_experts;
        do {
            for (uint32_t e = 0; e < layer->n_experts; e++)
                row[e] = least + (ties ? (float) case_next(c, 5) / 2
                                       : (float) case_next(c, 1 << 20) / (1 << 18));
        } while (!is_clear(layer, row, bias));
    }
}

static void select_experts(struct case_sink *sink, uint32_t i, uint32_t n_experts, uint32_t top_k,
                           bool ties)
{
    struct net_case c;
    bool biased = i % 2 == 1 && !ties;
    case_begin(&c, N_TOKENS, 1, "select %u of %u, rule %u%s%s", top_k, n_experts, i,
               ties ? ", ties" : "", biased ? ", biased" : "");
    const vkmoe_layer_desc *layer = rule(&c, i, n_experts, top_k);
    uint32_t logits = case_f32(&c, MOE_NET_TOKENS, 1, n_experts);
    uint32_t bias = biased ? case_f32(&c, MOE_NET_FIXED, 1, n_experts) : MOE_NET_NONE;
    clear_logits(&c, layer, logits, biased ? c.data[bias].f32 : NULL, ties);
    uint32_t ids = case_out(&c, MOE_NET_I32, MOE_NET_TOKENS, top_k, 1);
    uint32_t gates = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, top_k, 1);
    struct moe_net_op *op = case_op(&c, MOE_NET_SELECT, MOE_NET_SET);
    op->in[0] = logits, op->in[1] = bias, op->out[0] = ids, op->out[1] = gates;
    op->layer = layer;
    c.terms = n_experts + top_k;
    case_done(sink, &c);
}

// Rows of NaN and infinity: ids are those of core/ref_route.h, gates may be NaN.
static void select_odd(struct case_sink *sink, uint32_t i)
{
    struct net_case c;
    case_begin(&c, 4, 1, "select from NaN, rule %u", i);
    uint32_t n_experts = 6, top_k = 2;
    vkmoe_layer_desc *layer = rule(&c, i, n_experts, top_k);
    layer->rank = VKMOE_RANK_LOGIT;
    uint32_t logits = case_f32(&c, MOE_NET_TOKENS, 1, n_experts);
    float *l = c.data[logits].f32;
    for (uint32_t e = 0; e < n_experts; e++) {
        l[e] = NAN;
        l[n_experts + e] = e == 3 ? NAN : (float) e;
        l[2 * n_experts + e] = e == 2 ? 1 : NAN;
        l[3 * n_experts + e] = e % 2 == 0 ? -INFINITY : (float) e;
    }
    uint32_t ids = case_out(&c, MOE_NET_I32, MOE_NET_TOKENS, top_k, 1);
    uint32_t gates = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, top_k, 1);
    struct moe_net_op *op = case_op(&c, MOE_NET_SELECT, MOE_NET_SET);
    op->in[0] = logits, op->out[0] = ids, op->out[1] = gates;
    op->layer = layer;
    c.terms = n_experts + top_k;
    case_done(sink, &c);
}

static void select_backward(struct case_sink *sink, uint32_t i, uint32_t n_experts, uint32_t top_k)
{
    struct net_case c;
    enum moe_net_write write = i % 3;
    case_begin(&c, N_TOKENS, 1, "select_backward %u of %u, rule %u, write %d", top_k, n_experts, i,
               write);
    const vkmoe_layer_desc *layer = rule(&c, i, n_experts, top_k);
    uint32_t logits = case_f32(&c, MOE_NET_TOKENS, 1, n_experts);
    uint32_t ids = case_i32(&c, MOE_NET_TOKENS, top_k, 1);
    if (layer->score == VKMOE_SCORE_NONE) // sums of gates that are not about 0
        case_random(&c, logits, 0.5f, 2);
    for (uint64_t j = 0; j < case_size(&c, ids); j++)
        c.data[ids].i32[j] = (int32_t) ((j % top_k * (n_experts / top_k)) % n_experts);
    uint32_t d_gates = case_f32(&c, MOE_NET_TOKENS, top_k, 1);
    uint32_t d_logits = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, 1, n_experts);
    struct moe_net_op *op = case_op(&c, MOE_NET_SELECT_BACKWARD, write);
    op->in[0] = logits, op->in[1] = ids, op->in[2] = d_gates, op->out[0] = d_logits;
    op->layer = layer;
    c.terms = n_experts + top_k;
    c.zero = top_k == 1 || n_experts == 1;
    case_done(sink, &c);
}

static void count(struct case_sink *sink, uint32_t n_groups, enum moe_net_write write)
{
    struct net_case c;
    case_begin(&c, 9, 1, "count of %u, write %d", n_groups, write);
    struct case_grouping g = case_group(&c, GROUPS_SPREAD, 2, n_groups);
    uint32_t counts = case_out(&c, MOE_NET_F32, MOE_NET_FIXED, 1, n_groups);
    struct moe_net_op *op = case_op(&c, MOE_NET_COUNT, write);
    op->in[0] = g.starts, op->out[0] = counts;
    c.linear = true;
    case_done(sink, &c);
}

void list_route_cases(struct case_sink *sink)
{
    static const uint32_t sizes[][2] = {{1, 1}, {8, 2}, {4, 4}, {17, 1}, {130, 6}, {64, 64}};
    for (uint32_t i = 0; i < N_RULES; i++) {
        for (uint32_t s = i % 2; s < 6; s += 2) {
            uint32_t n_experts = sizes[s][0], top_k = sizes[s][1];
            select_experts(sink, i, n_experts, top_k, i % 7 == 0);
            select_backward(sink, i, n_experts, top_k);
        }
        if (i % 5 == 0)
            select_odd(sink, i);
    }
    select_experts(sink, 1, 1024, 8, false);
    select_experts(sink, 0, 200, 3, true);
    count(sink, 1, MOE_NET_SET);
    count(sink, 7, MOE_NET_ADD);
    count(sink, 130, MOE_NET_ADD);
}
