// SPDX-License-Identifier: MIT
// The moe layer: who works on what, hidden rows of experts, the shared expert.
#include "train/train.h"

#include <stdio.h>

// One set of experts, ".experts" or ".shared".
struct bank {
    const char *prefix;
    uint32_t n;     // experts
    uint32_t d_ff;
    struct moe_emit_rows rows;
    const struct moe_emit_groups *groups; // NULL: everybody is in the only one
};

static uint32_t weight(struct moe_build *build, const struct bank *bank, const char *name,
                       uint32_t n_out, uint32_t n_in)
{
    return moe_build_weight(build, bank->n * n_out, n_in, "%s%s.weight", bank->prefix, name);
}

static uint32_t bias(struct moe_build *build, const struct bank *bank, bool has, const char *name,
                     uint32_t n_out, uint32_t n_in)
{
    if (!has)
        return MOE_NET_NONE;
    return moe_build_param(build, (struct moe_train_shape){bank->n, n_out, n_in},
                           MOE_TRAIN_UNIFORM, 0, "%s%s.bias", bank->prefix, name);
}

// ---- experts ---------------------------------------------------------------------------------

// The pre-activation of one half.
static uint32_t build_half(struct moe_build *build, const vkmoe_net_layer *layer,
                           const struct bank *bank, const char *name, bool has_bias, uint32_t a,
                           uint32_t div)
{
    uint32_t n_in = moe_emit_width(&build->emit, a);
    uint32_t w = weight(build, bank, name, bank->d_ff, n_in);
    uint32_t b = bias(build, bank, has_bias, name, bank->d_ff, n_in);
    uint32_t z = moe_emit_matmul(&build->emit, bank->rows, bank->d_ff, a, div, w, b, bank->groups);
    if (layer->recompute)
        moe_build_transient(build, z);
    return z;
}

// h of rows a[r / div]. Only pre-activations are kept for BACKWARD.
static uint32_t build_hidden(struct moe_build *build, const vkmoe_net_layer *layer,
                             const struct bank *bank, uint32_t a, uint32_t div)
{
    const struct moe_emit *emit = &build->emit;
    const vkmoe_layer_desc *d = layer->layer;
    uint32_t h, gate = MOE_NET_NONE;
    if (d->gated)
        gate = build_half(build, layer, bank, ".gate", d->gate_bias, a, div);
    uint32_t up = build_half(build, layer, bank, ".up", d->up_bias, a, div);
    if (d->gated) {
        h = moe_emit_like(emit, up, "h");
        struct moe_net_op *op = moe_emit_op(emit, MOE_NET_GLU, h, gate, up, MOE_NET_NONE);
        op->act = d->act;
        op->beta = d->act_alpha;
    } else {
        h = moe_emit_act(emit, up, d->act, d->act_alpha);
    }
    moe_build_transient(build, h);
    uint32_t dropped = moe_build_dropout(build, h, layer->hidden_dropout);
    if (dropped != h)
        moe_build_transient(build, dropped);
    return dropped;
}

// act of a product, the pre-activation kept.
static uint32_t build_act(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t z,
                          enum vkmoe_act act)
{
    if (act == VKMOE_ACT_NONE)
        return z;
    if (layer->recompute)
        moe_build_transient(build, z);
    uint32_t f = moe_emit_act(&build->emit, z, act, layer->layer->act_alpha);
    moe_build_transient(build, f);
    return f;
}

// The experts of slots at work on rows a[slot / div].
static void build_experts(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t a,
                          uint32_t div, struct moe_build_slots *slots)
{
    const vkmoe_layer_desc *d = layer->layer;
    const struct bank bank = {".experts", d->n_experts, d->d_ff,
                              moe_emit_times(build->rows, slots->per_row), &slots->groups};
    uint32_t n_in = moe_emit_width(&build->emit, a);
    if (d->expert_kind == VKMOE_EXPERT_LINEAR) {
        uint32_t w = weight(build, &bank, "", d->d_out, n_in);
        uint32_t b = bias(build, &bank, d->up_bias, "", d->d_out, n_in);
        uint32_t z = moe_emit_matmul(&build->emit, bank.rows, d->d_out, a, div, w, b, bank.groups);
        slots->f = build_act(build, layer, z, d->act);
        return;
    }
    slots->h = build_hidden(build, layer, &bank, a, div);
    slots->down = weight(build, &bank, ".down", d->d_out, d->d_ff);
    slots->down_bias = bias(build, &bank, d->down_bias, ".down", d->d_out, d->d_ff);
    if (!moe_build_needs_outputs(build, layer))
        return;
    uint32_t z = moe_emit_matmul(&build->emit, bank.rows, d->d_out, slots->h, 1, slots->down,
                                 slots->down_bias, bank.groups);
    slots->f = build_act(build, layer, z, d->act_out);
}

// y += out_scale c_shared g f, g = sigmoid(w x) or 1.
static void add_shared(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t x,
                       uint32_t y)
{
    const struct moe_emit *emit = &build->emit;
    const vkmoe_layer_desc *d = layer->layer;
    const struct bank bank = {".shared", 1, d->d_shared_ff, build->rows, NULL};
    uint32_t d_in = moe_emit_width(emit, x), gate = MOE_NET_NONE;
    uint32_t h = build_hidden(build, layer, &bank, x, 1);
    uint32_t w = weight(build, &bank, ".down", d->d_out, d->d_shared_ff);
    uint32_t b = bias(build, &bank, d->down_bias, ".down", d->d_out, d->d_shared_ff);
    uint32_t z = moe_emit_matmul(emit, build->rows, d->d_out, h, 1, w, b, NULL);
    uint32_t f = build_act(build, layer, z, d->act_out);
    if (d->shared_gate == VKMOE_SHARED_SIGMOID) {
        uint32_t vector = moe_build_param(build, (struct moe_train_shape){1, d_in, d_in},
                                          MOE_TRAIN_UNIFORM, 0, ".shared.gate_vector");
        gate = moe_emit_act(emit,
                            moe_emit_matmul(emit, build->rows, 1, x, 1, vector, MOE_NET_NONE, NULL),
                            VKMOE_ACT_SIGMOID, 1);
    }
    struct moe_net_op *op = moe_emit_op(emit, MOE_NET_SCALE_ROWS, y, f, gate, MOE_NET_NONE);
    op->alpha = d->out_scale * d->c_shared;
    op->write = MOE_NET_ADD;
}

// ---- who works on what -----------------------------------------------------------------------

// What auxiliary losses and the balancing of the selection bias need of the routing.
static void note_routing(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t logits,
                         uint32_t selection_bias, const struct moe_emit_groups *groups)
{
    struct moe_train *train = build->train;
    const vkmoe_layer_desc *d = layer->layer;
    if (layer->load_balance != 0 || layer->z_loss != 0)
        train->aux[train->n_aux++] = (struct moe_train_aux){
            .p = layer->load_balance != 0 ? moe_build_shares(build, d, logits) : MOE_NET_NONE,
            .starts = groups->starts,
            .logits = logits,
            .top_k = d->top_k,
            .load_balance = layer->load_balance,
            .z_loss = layer->z_loss,
        };
    if (layer->bias_rate != 0)
        train->balances[train->n_balances++] = (struct moe_train_balance){
            .bias = selection_bias,
            .starts = groups->starts,
            .counts = moe_net_add_tensor(train->net, MOE_NET_STATE, MOE_NET_F32, MOE_NET_FIXED, 1,
                                         d->n_experts, "layers.%u.counts", build->layer),
            .rate = layer->bias_rate,
        };
}

static struct moe_build_slots build_routing(struct moe_build *build, const vkmoe_net_layer *layer,
                                            uint32_t x)
{
    const struct moe_emit *emit = &build->emit;
    const vkmoe_layer_desc *d = layer->layer;
    struct moe_emit_rows rows = moe_emit_times(build->rows, d->top_k);
    uint32_t selection_bias = MOE_NET_NONE;
    uint32_t logits = moe_build_logits(build, layer, x);
    if (d->selection_bias)
        selection_bias = moe_build_selection_bias(build, d->n_experts);
    uint32_t ids = moe_emit_ids(emit, rows, "ids");
    uint32_t gates = moe_emit_value(emit, rows, 1, "gates");
    vkmoe_layer_desc *owned = moe_net_own(build->train->net, sizeof *owned);
    if (owned)
        *owned = *d;
    struct moe_net_op *op =
        moe_emit_op(emit, MOE_NET_SELECT, ids, logits, selection_bias, MOE_NET_NONE);
    op->out[1] = gates;
    op->layer = owned;
    op->top_k = d->top_k;
    struct moe_emit_groups groups = moe_emit_group(emit, ids, d->n_experts);
    if (moe_build_training(build))
        note_routing(build, layer, logits, selection_bias, &groups);
    return (struct moe_build_slots){groups, d->top_k, gates};
}

// Every expert on every row, or on every query.
static struct moe_build_slots build_all(struct moe_build *build, const vkmoe_net_layer *layer)
{
    uint32_t n = layer->layer->n_experts;
    uint32_t per_row = layer->pairing == VKMOE_PAIRING_ALL ? n * n : n;
    uint32_t ids = moe_emit_iota(&build->emit, moe_emit_times(build->rows, per_row), n);
    return (struct moe_build_slots){moe_emit_group(&build->emit, ids, n), per_row, MOE_NET_NONE};
}

// q = W_q x + b_q, a row for each query.
static uint32_t build_queries(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t x)
{
    const struct moe_emit *emit = &build->emit;
    uint32_t d_in = moe_emit_width(emit, x), n = layer->layer->n_experts;
    uint32_t width = n * layer->d_query;
    uint32_t w = moe_build_weight(build, width, d_in, ".query.weight");
    uint32_t b = moe_build_param(build, (struct moe_train_shape){1, width, d_in},
                                 MOE_TRAIN_UNIFORM, 0, ".query.bias");
    uint32_t q = moe_emit_matmul(emit, build->rows, width, x, 1, w, b, NULL);
    return moe_emit_reshape(emit, q, moe_emit_times(build->rows, n), layer->d_query);
}

uint32_t moe_build_moe(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t x)
{
    const vkmoe_layer_desc *d = layer->layer;
    bool routed = layer->combine == VKMOE_COMBINE_WEIGHTED_SUM;
    struct moe_build_slots slots =
        routed ? build_routing(build, layer, x) : build_all(build, layer);
    slots.h = slots.down = slots.down_bias = slots.f = MOE_NET_NONE;
    uint32_t a = x, div = slots.per_row;
    if (layer->pairing != VKMOE_PAIRING_NONE) {
        a = build_queries(build, layer, x);
        div /= d->n_experts;
    }
    build_experts(build, layer, a, div, &slots);
    uint32_t y = moe_build_combine(build, layer, &slots);
    if (d->d_shared_ff > 0)
        add_shared(build, layer, x, y);

    struct moe_train_routing *routing = &build->train->routing[build->layer];
    *routing = (struct moe_train_routing){routed ? slots.groups.ids : MOE_NET_NONE, slots.gates,
                                          routed ? d->top_k : d->n_experts};
    moe_build_keep(build, routing->ids);
    moe_build_keep(build, routing->gates);
    build->ends.f = slots.f;
    build->ends.gates = slots.gates;
    build->ends.top_k = routing->top_k;
    return y;
}
