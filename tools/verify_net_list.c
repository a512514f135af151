// SPDX-License-Identifier: MIT
#include "verify_net_list.h"

enum { LAST = 2, D_WIDE = 10 };

// linear (tanh) -> moe, 2 of 4 experts -> linear, cross entropy of labels, SGD: what the networks
// change. No relu: at 0 its derivative jumps, and a rounding decides.
static void base(struct verify_net_case *c)
{
    c->desc = vkmoe_net_desc_init();
    for (uint32_t i = 0; i < VERIFY_NET_LAYERS; i++) {
        vkmoe_net_layer *layer = &c->layers[i];
        vkmoe_layer_desc *moe = &c->moe[i];
        *layer = vkmoe_net_layer_init();
        *moe = vkmoe_layer_desc_init();
        moe->n_experts = 4;
        moe->top_k = 2;
        moe->d_model = moe->d_out = D_WIDE;
        moe->d_ff = 7;
        moe->act = VKMOE_ACT_TANH;
        layer->layer = moe;
        layer->kind = i == 1 ? VKMOE_NET_MOE : VKMOE_NET_LINEAR;
        layer->d_out = i == LAST ? VERIFY_NET_CLASSES : D_WIDE;
        layer->bias = true;
        c->list[i] = layer;
    }
    c->layers[0].act = VKMOE_ACT_TANH;
    c->desc.layers = c->list;
    c->desc.n_layers = LAST + 1;
    c->desc.d_in = VERIFY_NET_D_IN;
    c->desc.max_tokens = VERIFY_NET_TOKENS;
    c->desc.adam_eps = 0x1p-6f; // see verify_nets.c
    c->rate = 0.5f;
}

static void gated(struct verify_net_case *c)
{
    vkmoe_layer_desc *moe = &c->moe[1];
    moe->gated = moe->gate_bias = moe->up_bias = moe->down_bias = moe->router_bias = true;
    moe->act = VKMOE_ACT_SILU;
    c->layers[1].residual = true;
}

static void dense(struct verify_net_case *c)
{
    c->moe[1].top_k = c->moe[1].n_experts;
    c->moe[1].act = VKMOE_ACT_GELU_ERF;
}

static void balanced(struct verify_net_case *c)
{
    gated(c);
    c->moe[1].norm = VKMOE_NORM_SUM_PLUS_EPS;
    c->moe[1].selection_bias = true;
    c->layers[1].recompute = true;
    c->layers[1].load_balance = 0.25f;
    c->layers[1].z_loss = 0.125f;
    c->layers[1].bias_rate = 0x1p-6f;
    c->desc.optimiser = VKMOE_OPTIMISER_ADAMW;
    c->desc.decay = 0.0625f;
    c->rate = 0x1p-5f;
}

static void noisy(struct verify_net_case *c)
{
    c->layers[1].noisy = true;
    c->layers[1].hidden_dropout = 0.25f;
    c->desc.input_noise = 0.125f;
    c->desc.optimiser = VKMOE_OPTIMISER_ADAM;
    c->rate = 0x1p-5f;
}

static void shared(struct verify_net_case *c)
{
    gated(c);
    c->moe[1].score = VKMOE_SCORE_SIGMOID;
    c->moe[1].d_shared_ff = 5;
    c->moe[1].shared_gate = VKMOE_SHARED_SIGMOID;
    c->moe[1].act_out = VKMOE_ACT_TANH;
    c->desc.loss = VKMOE_LOSS_MSE;
    c->desc.momentum = 0.5f;
    c->desc.nesterov = true;
    c->desc.clip_norm = 0.25f;
}

static void kernel(struct verify_net_case *c)
{
    c->layers[1].scorer = VKMOE_SCORER_KERNEL;
    c->layers[1].score_width = 2;
    c->desc.loss = VKMOE_LOSS_HUBER;
}

static void additive(struct verify_net_case *c)
{
    c->layers[1].scorer = VKMOE_SCORER_ADDITIVE;
    c->layers[1].d_score = 5;
    c->desc.loss = VKMOE_LOSS_BCE_LOGITS;
}

static void multiplicative(struct verify_net_case *c)
{
    c->layers[1].scorer = VKMOE_SCORER_MULTIPLICATIVE;
    c->layers[1].d_score = 3;
    c->desc.soft_targets = true;
    c->desc.label_smoothing = 0.125f;
}

static void one_unit(struct verify_net_case *c)
{
    dense(c);
    c->moe[1].score = VKMOE_SCORE_SIGMOID;
    c->moe[1].router_bias = true;
    c->layers[1].scorer = VKMOE_SCORER_ONE;
    c->layers[LAST].act = VKMOE_ACT_SIGMOID;
    c->desc.loss = VKMOE_LOSS_BCE;
}

static void queries(struct verify_net_case *c, enum vkmoe_pairing pairing,
                    enum vkmoe_combine combine)
{
    dense(c);
    c->moe[1].d_model = c->layers[1].d_query = 5;
    c->layers[1].pairing = pairing;
    c->layers[1].combine = combine;
}

static void attention(struct verify_net_case *c)
{
    queries(c, VKMOE_PAIRING_EACH, VKMOE_COMBINE_ATTENTION);
}

static void response_share(struct verify_net_case *c)
{
    queries(c, VKMOE_PAIRING_ALL, VKMOE_COMBINE_RESPONSE_SHARE);
}

static void stack(struct verify_net_case *c)
{
    dense(c);
    c->layers[1].combine = VKMOE_COMBINE_STACK;
}

// The experts' own outputs are what the loss is of.
static void mixture(struct verify_net_case *c)
{
    c->desc.n_layers = LAST;
    c->moe[1].d_out = VERIFY_NET_CLASSES;
    c->desc.loss = VKMOE_LOSS_MIXTURE;
    c->desc.variance = 0.5f;
}

// embed -> moe of linear experts -> norm -> pool, with the classes as width.
static void text(struct verify_net_case *c)
{
    c->layers[0].kind = VKMOE_NET_EMBED;
    c->layers[0].n_rows = VERIFY_NET_ROWS;
    c->moe[1].expert_kind = VKMOE_EXPERT_LINEAR;
    c->moe[1].up_bias = true;
    c->moe[1].d_out = VERIFY_NET_CLASSES;
    c->layers[2].kind = VKMOE_NET_NORM;
    c->layers[3].kind = VKMOE_NET_POOL;
    c->desc.n_layers = VERIFY_NET_LAYERS;
    c->desc.d_in = 1;
    c->desc.max_examples = VERIFY_NET_EXAMPLES;
    for (uint32_t i = 0; i < VERIFY_NET_CLASSES; i++)
        c->class_weights[i] = 0.5f + 0.25f * (float) i;
    c->desc.class_weights = c->class_weights;
}

static const struct {
    const char *name;
    void (*change)(struct verify_net_case *c);
} nets[] = {
    {"net/dense", dense},
    {"net/balanced-top-2", balanced},
    {"net/noisy-top-2", noisy},
    {"net/shared", shared},
    {"net/kernel", kernel},
    {"net/additive", additive},
    {"net/multiplicative", multiplicative},
    {"net/one-unit", one_unit},
    {"net/query-attention", attention},
    {"net/query-response-share", response_share},
    {"net/stack", stack},
    {"net/mixture", mixture},
    {"net/text", text},
};

uint32_t verify_net_count(void)
{
    return sizeof nets / sizeof *nets;
}

const char *verify_net_name(uint32_t i)
{
    return nets[i].name;
}

void verify_net_case_init(struct verify_net_case *out, uint32_t i)
{
    memset(out, 0, sizeof *out);
    base(out);
    nets[i].change(out);
}
