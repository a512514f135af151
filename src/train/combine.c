// SPDX-License-Identifier: MIT
// From what experts did with slots to y, by every rule.
#include "train/train.h"

#include <math.h>

bool moe_build_needs_outputs(const struct moe_build *build, const vkmoe_net_layer *layer)
{
    bool is_last = build->layer + 1 == build->spec->desc.n_layers;
    if (layer->layer->act_out != VKMOE_ACT_NONE)
        return true;
    switch (layer->combine) {
    case VKMOE_COMBINE_WEIGHTED_SUM:
        return is_last && build->spec->desc.loss == VKMOE_LOSS_MIXTURE;
    case VKMOE_COMBINE_MEAN:
    case VKMOE_COMBINE_STACK:
        return false;
    case VKMOE_COMBINE_RESPONSE_SHARE:
    case VKMOE_COMBINE_ATTENTION:
        return true;
    case VKMOE_COMBINE_VOTE:
        return !moe_build_training(build);
    }
    return true;
}

// y = scale sum_k s_k f_k, k over n slots of a row; s NONE: 1.
static uint32_t sum_slots(struct moe_build *build, uint32_t f, uint32_t s, uint32_t n, float scale)
{
    const struct moe_emit *emit = &build->emit;
    uint32_t y = moe_emit_value(emit, build->rows, moe_emit_width(emit, f), "combined");
    struct moe_net_op *op = moe_emit_op(emit, MOE_NET_SUM_SLOTS, y, f, s, MOE_NET_NONE);
    op->top_k = n;
    op->alpha = scale;
    return y;
}

// The same, without outputs of slots where there are none.
static uint32_t weigh(struct moe_build *build, const vkmoe_net_layer *layer,
                      const struct moe_build_slots *slots, uint32_t s, float scale)
{
    const struct moe_emit *emit = &build->emit;
    if (slots->f != MOE_NET_NONE)
        return sum_slots(build, slots->f, s, slots->per_row, scale);
    uint32_t y = moe_emit_value(emit, build->rows, layer->layer->d_out, "combined");
    struct moe_net_op *op =
        moe_emit_op(emit, MOE_NET_MATMUL_COMBINE, y, slots->h, slots->down, slots->down_bias);
    op->in[3] = s;
    op->in[4] = slots->groups.starts;
    op->in[5] = slots->groups.members;
    op->top_k = slots->per_row;
    op->alpha = scale;
    return y;
}

// sum_k v_k r_k + c, v by the slot's expert
static uint32_t stack(struct moe_build *build, const vkmoe_net_layer *layer,
                      const struct moe_build_slots *slots, float scale)
{
    const struct moe_emit *emit = &build->emit;
    const vkmoe_layer_desc *d = layer->layer;
    uint32_t v = moe_build_param(build, (struct moe_train_shape){d->n_experts, 1, d->n_experts},
                                 MOE_TRAIN_FILL, 1 / (float) d->n_experts, ".combine.weight");
    uint32_t c = moe_build_param(build, (struct moe_train_shape){1, d->d_out, 1}, MOE_TRAIN_FILL,
                                 0, ".combine.bias");
    uint32_t s = moe_emit_value(emit, moe_emit_times(build->rows, slots->per_row), 1, "weights");
    moe_emit_op(emit, MOE_NET_SCALE_ROWS, s, v, MOE_NET_NONE, slots->groups.ids);
    uint32_t y = weigh(build, layer, slots, s,
                       scale * (float) d->n_experts / (float) slots->per_row);
    uint32_t zeros = moe_emit_iota(emit, build->rows, 1);
    struct moe_net_op *op = moe_emit_op(emit, MOE_NET_SCALE_ROWS, y, c, MOE_NET_NONE, zeros);
    op->alpha = scale;
    op->write = MOE_NET_ADD;
    return y;
}

// One output of each expert: with every query at every expert, slots of a row are (query, expert),
// and an expert's outputs are averaged.
static uint32_t expert_outputs(struct moe_build *build, uint32_t n,
                               const struct moe_build_slots *slots)
{
    const struct moe_emit *emit = &build->emit;
    uint32_t width = moe_emit_width(emit, slots->f);
    if (slots->per_row == n)
        return slots->f;
    uint32_t queries = moe_emit_reshape(emit, slots->f, moe_emit_times(build->rows, n), n * width);
    uint32_t mean = sum_slots(build, queries, MOE_NET_NONE, n, 1 / (float) n);
    return moe_emit_reshape(emit, mean, moe_emit_times(build->rows, n), width);
}

// w_k = |r_k|_1 / (sum_j |r_j|_1 + 1e-12)
static uint32_t response_shares(const struct moe_emit *emit, uint32_t r, uint32_t n)
{
    uint32_t w = moe_emit_value(emit, moe_emit_rows(emit, r), 1, "weights");
    struct moe_net_op *op = moe_emit_op(emit, MOE_NET_SHARE, w, r, MOE_NET_NONE, MOE_NET_NONE);
    op->top_k = n;
    op->eps = 1e-12f;
    return w;
}

// w = softmax(r_k . mean_j r_j / sqrt d)
static uint32_t attention_weights(struct moe_build *build, uint32_t r, uint32_t n)
{
    const struct moe_emit *emit = &build->emit;
    struct moe_emit_rows pairs = moe_emit_times(build->rows, n);
    uint32_t mean = sum_slots(build, r, MOE_NET_NONE, n, 1 / (float) n);
    uint32_t scores = moe_emit_value(emit, pairs, 1, "scores");
    struct moe_net_op *op = moe_emit_op(emit, MOE_NET_ROW_DOT, scores, r, mean, MOE_NET_NONE);
    op->div[1] = n;
    op->alpha = 1 / sqrtf((float) moe_emit_width(emit, r));
    uint32_t rows = moe_emit_reshape(emit, scores, build->rows, n);
    uint32_t p = moe_emit_like(emit, rows, "softmax");
    moe_emit_op(emit, MOE_NET_SOFTMAX, p, rows, MOE_NET_NONE, MOE_NET_NONE);
    return moe_emit_reshape(emit, p, pairs, 1);
}

// A 1 where a row is largest, the first of equal ones: selects one "expert" of each row, and takes
// its row of the unit matrix.
static uint32_t one_hot(struct moe_build *build, uint32_t a)
{
    const struct moe_emit *emit = &build->emit;
    struct moe_emit_rows rows = moe_emit_rows(emit, a);
    uint32_t width = moe_emit_width(emit, a);
    float *unit;
    uint32_t identity = moe_build_constant(build, width, width, &unit);
    for (uint32_t i = 0; unit && i < width; i++)
        unit[(size_t) i * width + i] = 1;
    vkmoe_layer_desc *rule = moe_net_own(build->train->net, sizeof *rule);
    if (rule) {
        *rule = vkmoe_layer_desc_init();
        rule->n_experts = width;
        rule->top_k = 1;
        rule->rank = VKMOE_RANK_LOGIT;
        rule->score = VKMOE_SCORE_NONE;
    }
    uint32_t ids = moe_emit_ids(emit, rows, "largest");
    struct moe_net_op *op = moe_emit_op(emit, MOE_NET_SELECT, ids, a, MOE_NET_NONE, MOE_NET_NONE);
    op->layer = rule;
    op->top_k = 1;
    op->out[1] = moe_emit_value(emit, rows, 1, "unused");
    uint32_t y = moe_emit_like(emit, a, "one_hot");
    moe_emit_op(emit, MOE_NET_SCALE_ROWS, y, identity, MOE_NET_NONE, ids);
    return y;
}

static uint32_t vote(struct moe_build *build, uint32_t r, uint32_t n)
{
    return one_hot(build, sum_slots(build, one_hot(build, r), MOE_NET_NONE, n, 1));
}

uint32_t moe_build_combine(struct moe_build *build, const vkmoe_net_layer *layer,
                           struct moe_build_slots *slots)
{
    const vkmoe_layer_desc *d = layer->layer;
    float scale = d->out_scale * d->c_routed, mean = scale / (float) slots->per_row;
    uint32_t n = d->n_experts, r;
    switch (layer->combine) {
    case VKMOE_COMBINE_WEIGHTED_SUM:
        return weigh(build, layer, slots, slots->gates, scale);
    case VKMOE_COMBINE_MEAN:
        return weigh(build, layer, slots, MOE_NET_NONE, mean);
    case VKMOE_COMBINE_STACK:
        return stack(build, layer, slots, scale);
    case VKMOE_COMBINE_VOTE:
        if (moe_build_training(build))
            return weigh(build, layer, slots, MOE_NET_NONE, mean);
        return vote(build, expert_outputs(build, n, slots), n);
    case VKMOE_COMBINE_RESPONSE_SHARE:
        r = expert_outputs(build, n, slots);
        slots->gates = response_shares(&build->emit, r, n);
        return sum_slots(build, r, slots->gates, n, scale);
    case VKMOE_COMBINE_ATTENTION:
        r = expert_outputs(build, n, slots);
        slots->gates = attention_weights(build, r, n);
        return sum_slots(build, r, slots->gates, n, scale);
    }
    return MOE_NET_NONE;
}
