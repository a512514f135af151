// SPDX-License-Identifier: MIT
#include "net_random.h"

#include "base/bits.h"

#include <stdio.h>
#include <string.h>

enum { N_CLASSES = 3 };

static uint64_t state;

static uint32_t below(uint32_t n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t) (state >> 33) % n;
}

static bool one_in(uint32_t n)
{
    return below(n) == 0;
}

// Smooth ones, so that finite differences see slopes.
static enum vkmoe_act any_act(void)
{
    static const enum vkmoe_act acts[] = {VKMOE_ACT_TANH, VKMOE_ACT_SILU, VKMOE_ACT_GELU_ERF,
                                          VKMOE_ACT_GELU_TANH, VKMOE_ACT_SIGMOID, VKMOE_ACT_NONE};
    return acts[below(MOE_COUNT(acts))];
}

static void random_router(vkmoe_net_layer *layer, vkmoe_layer_desc *d)
{
    static const enum vkmoe_score scores[] = {VKMOE_SCORE_SOFTMAX, VKMOE_SCORE_SOFTMAX,
                                              VKMOE_SCORE_SIGMOID, VKMOE_SCORE_NONE};
    d->top_k = 1 + below(d->n_experts);
    d->score = scores[below(MOE_COUNT(scores))];
    d->rank = (enum vkmoe_rank) (one_in(4) ? below(2) : 0);
    d->selection_bias = one_in(3);
    d->gate_source = one_in(5) ? VKMOE_GATE_SOFTMAX_SELECTED : VKMOE_GATE_SCORE;
    // a sum of logits may be anything, 0 too
    d->norm = d->score != VKMOE_SCORE_NONE && one_in(3) ? (enum vkmoe_norm) (1 + below(2)) : 0;
    d->norm_eps = one_in(2) ? 0.125f : 0;
    d->routed_scale = one_in(4) ? 1.5f : 1;
    layer->scorer = (enum vkmoe_scorer) (one_in(2) ? below(VKMOE_SCORER_SUM + 1) : 0);
    bool has_bias = layer->scorer == VKMOE_SCORER_LINEAR || layer->scorer == VKMOE_SCORER_ONE;
    d->router_bias = has_bias && one_in(2);
    layer->d_score = 1 + below(5);
    layer->score_width = 0.75f;
    layer->noisy = one_in(4);
    layer->load_balance = one_in(3) ? 0.25f : 0;
    layer->z_loss = one_in(3) ? 0.125f : 0;
    layer->bias_rate = d->selection_bias && one_in(2) ? 0.125f : 0;
}

static void random_queries(vkmoe_net_layer *layer, vkmoe_layer_desc *d)
{
    layer->combine = (enum vkmoe_combine) (1 + below(VKMOE_COMBINE_VOTE));
    layer->pairing = (enum vkmoe_pairing) below(3);
    d->top_k = 0;
    if (layer->pairing != VKMOE_PAIRING_NONE)
        layer->d_query = d->d_model = 1 + below(4);
}

static void random_moe(vkmoe_net_layer *layer, vkmoe_layer_desc *d, uint32_t d_in, uint32_t d_out)
{
    layer->kind = VKMOE_NET_MOE;
    d->n_experts = 1 + below(5);
    d->d_model = d_in;
    d->d_out = d_out;
    d->d_ff = 1 + below(4);
    d->act = any_act();
    d->act_alpha = d->act == VKMOE_ACT_SILU && one_in(2) ? 1.25f : 1;
    d->up_bias = one_in(2);
    if (one_in(4)) {
        d->expert_kind = VKMOE_EXPERT_LINEAR;
    } else {
        d->gated = one_in(2) && d->act != VKMOE_ACT_NONE;
        d->gate_bias = d->gated && one_in(2);
        d->down_bias = one_in(2);
        d->act_out = one_in(4) ? any_act() : VKMOE_ACT_NONE;
        d->d_shared_ff = one_in(3) ? 1 + below(4) : 0;
        d->shared_gate = d->d_shared_ff > 0 && one_in(2) ? VKMOE_SHARED_SIGMOID : 0;
        d->c_shared = d->d_shared_ff > 0 && one_in(2) ? 1.5f : 1;
        layer->hidden_dropout = one_in(3) ? 0.25f : 0;
    }
    d->c_routed = one_in(4) ? 0.75f : 1;
    d->out_scale = one_in(4) ? 1.25f : 1;
    layer->recompute = one_in(3);
    if (one_in(3))
        random_queries(layer, d);
    else
        random_router(layer, d);
}

// A layer, d_in wide, whose output is d_out wide; returns that.
static uint32_t random_layer(struct net_case *c, uint32_t i, uint32_t d_in, uint32_t d_out,
                             bool *pooled)
{
    vkmoe_net_layer *layer = &c->layers[i];
    bool is_last = i + 1 == c->desc.n_layers;
    uint32_t choice = below(10);
    layer->bias = one_in(2);
    layer->act = any_act();
    layer->layer = &c->moe[i];
    layer->residual = one_in(2) && d_in == d_out;
    layer->d_out = d_out;
    layer->kind = VKMOE_NET_LINEAR;
    if (choice < 5 || c->desc.n_layers == 1) {
        random_moe(layer, &c->moe[i], d_in, d_out);
    } else if (choice < 8 && (!is_last || d_in == d_out)) {
        const enum vkmoe_net_kind kinds[] = {VKMOE_NET_NORM, VKMOE_NET_DROPOUT, VKMOE_NET_POOL};
        layer->kind = kinds[choice - 5];
        layer->rms = one_in(2);
        layer->rate = 0.25f;
        layer->pool = (enum vkmoe_pool) below(3);
        layer->residual = layer->residual && layer->kind != VKMOE_NET_POOL;
        if (layer->kind == VKMOE_NET_POOL && *pooled)
            layer->kind = VKMOE_NET_NORM;
        *pooled = *pooled || layer->kind == VKMOE_NET_POOL;
        return d_in;
    }
    return d_out;
}

static void random_loss(struct net_case *c)
{
    static const enum vkmoe_loss losses[] = {VKMOE_LOSS_CROSS_ENTROPY, VKMOE_LOSS_BCE_LOGITS,
                                             VKMOE_LOSS_MSE, VKMOE_LOSS_MIXTURE};
    c->desc.loss = losses[below(MOE_COUNT(losses))];
    if (c->desc.loss == VKMOE_LOSS_MIXTURE)
        c->desc.labels = one_in(2);
    if (c->desc.loss != VKMOE_LOSS_CROSS_ENTROPY)
        return;
    c->desc.soft_targets = one_in(3);
    c->desc.label_smoothing = one_in(3) ? 0.125f : 0;
    c->class_weights[0] = 0.5f, c->class_weights[1] = 2, c->class_weights[2] = 1;
    c->desc.class_weights = one_in(3) ? c->class_weights : NULL;
}

void net_random_init(struct net_case *out, uint32_t number)
{
    bool pooled = false;
    state = number * 0x9e3779b97f4a7c15u + 1;
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "random %u", number);
    out->desc = vkmoe_net_desc_init();
    out->desc.layers = out->list;
    out->desc.n_layers = 1 + below(NET_LAYERS);
    out->desc.d_in = NET_D_IN;
    out->desc.max_tokens = NET_TOKENS;
    out->desc.input_noise = one_in(5) ? 0.25f : 0;
    out->desc.optimiser = (enum vkmoe_optimiser) below(3);
    out->desc.momentum = one_in(2) ? 0.75f : 0;
    out->desc.decay = one_in(2) ? 0.01f : 0;
    out->desc.clip_norm = one_in(3) ? 0.5f : 0;
    uint32_t width = NET_D_IN;
    for (uint32_t i = 0; i < NET_LAYERS; i++) {
        out->layers[i] = vkmoe_net_layer_init();
        out->moe[i] = vkmoe_layer_desc_init();
        out->list[i] = &out->layers[i];
    }
    for (uint32_t i = 0; i < out->desc.n_layers; i++) {
        bool is_last = i + 1 == out->desc.n_layers;
        width = random_layer(out, i, width, is_last ? N_CLASSES : 2 + below(3), &pooled);
    }
    if (pooled)
        out->desc.max_examples = NET_EXAMPLES;
    random_loss(out);
}
