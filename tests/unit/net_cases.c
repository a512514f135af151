// SPDX-License-Identifier: MIT
#include "net_cases.h"

#include "base/bits.h"
#include "fixture.h"

#include <stdio.h>

enum { N_EXPERTS = 4, TOP_K = 2, D_FF = 3, N_CLASSES = 3 };

#define LAST (NET_LAYERS - 1)

// linear (tanh) -> moe, 2 of 4 experts -> linear, cross entropy: what the cases change.
static void base(struct net_case *c)
{
    c->desc = vkmoe_net_desc_init();
    for (uint32_t i = 0; i < NET_LAYERS; i++) {
        c->layers[i] = vkmoe_net_layer_init();
        c->moe[i] = vkmoe_layer_desc_init();
        c->moe[i].n_experts = N_EXPERTS;
        c->moe[i].top_k = TOP_K;
        c->moe[i].d_model = c->moe[i].d_out = NET_D_IN;
        c->moe[i].d_ff = D_FF;
        c->moe[i].act = VKMOE_ACT_TANH;
        c->layers[i].layer = &c->moe[i];
        c->layers[i].kind = VKMOE_NET_LINEAR;
        c->layers[i].d_out = i == LAST ? N_CLASSES : NET_D_IN;
        c->layers[i].bias = true;
        c->list[i] = &c->layers[i];
    }
    c->layers[0].act = VKMOE_ACT_TANH;
    c->layers[1].kind = VKMOE_NET_MOE;
    c->desc.layers = c->list;
    c->desc.n_layers = NET_LAYERS;
    c->desc.d_in = NET_D_IN;
    c->desc.max_tokens = NET_TOKENS;
    c->desc.optimiser = VKMOE_OPTIMISER_ADAMW;
    c->desc.decay = 0.01f;
}

// The moe layer is the last one, with N_CLASSES outputs.
static void end_with_moe(struct net_case *c)
{
    c->desc.n_layers = 2;
    c->moe[1].d_out = N_CLASSES;
}

// ---- experts ---------------------------------------------------------------------------------

static void biases(struct net_case *c)
{
    c->moe[1].up_bias = c->moe[1].down_bias = c->moe[1].router_bias = true;
}

static void gated(struct net_case *c)
{
    biases(c);
    c->moe[1].gated = c->moe[1].gate_bias = true;
    c->moe[1].act = VKMOE_ACT_SILU;
    c->moe[1].act_alpha = 1.25f;
}

static void recompute(struct net_case *c)
{
    gated(c);
    c->layers[1].recompute = true;
    c->layers[1].hidden_dropout = 0.25f;
    c->moe[1].d_shared_ff = 2;
}

static void shared(struct net_case *c)
{
    gated(c);
    c->moe[1].d_shared_ff = 2;
    c->moe[1].shared_gate = VKMOE_SHARED_SIGMOID;
    c->moe[1].c_routed = 0.75f;
    c->moe[1].c_shared = 1.5f;
    c->moe[1].out_scale = 1.25f;
}

static void shared_plain(struct net_case *c)
{
    c->moe[1].d_shared_ff = 5;
    c->moe[1].act_out = VKMOE_ACT_TANH;
    c->layers[1].residual = true;
}

static void act_out(struct net_case *c)
{
    biases(c);
    c->moe[1].act_out = VKMOE_ACT_SIGMOID;
    c->moe[1].out_scale = 0.5f;
}

static void linear_experts(struct net_case *c)
{
    c->moe[1].expert_kind = VKMOE_EXPERT_LINEAR;
    c->moe[1].up_bias = true;
}

static void linear_no_act(struct net_case *c)
{
    linear_experts(c);
    c->moe[1].act = VKMOE_ACT_NONE;
}

static void hidden_dropout(struct net_case *c)
{
    gated(c);
    c->layers[1].hidden_dropout = 0.4f;
}

static void all_of_one(struct net_case *c)
{
    c->moe[1].n_experts = c->moe[1].top_k = 1;
}

// ---- routers ---------------------------------------------------------------------------------

static void top_1(struct net_case *c)
{
    c->moe[1].top_k = 1;
}

static void top_1_balanced(struct net_case *c)
{
    c->moe[1].top_k = 1;
    c->moe[1].gate_source = VKMOE_GATE_SOFTMAX_SELECTED;
    c->layers[1].load_balance = 0.5f;
}

static void renormalised(struct net_case *c)
{
    c->moe[1].norm = VKMOE_NORM_SUM_PLUS_EPS;
    c->moe[1].norm_eps = 0.125f;
    c->moe[1].routed_scale = 1.5f;
}

static void dense_sigmoid(struct net_case *c)
{
    biases(c);
    c->moe[1].top_k = N_EXPERTS;
    c->moe[1].score = VKMOE_SCORE_SIGMOID;
    c->moe[1].norm = VKMOE_NORM_SUM_PLUS_EPS;
}

static void no_score(struct net_case *c)
{
    c->moe[1].top_k = N_EXPERTS;
    c->moe[1].score = VKMOE_SCORE_NONE;
}

static void kernel(struct net_case *c)
{
    c->layers[1].scorer = VKMOE_SCORER_KERNEL;
    c->layers[1].score_width = 0.75f;
}

static void kernel_sigmoid(struct net_case *c)
{
    kernel(c);
    c->moe[1].score = VKMOE_SCORE_SIGMOID;
}

static void additive(struct net_case *c)
{
    c->layers[1].scorer = VKMOE_SCORER_ADDITIVE;
    c->layers[1].d_score = 5;
}

static void multiplicative(struct net_case *c)
{
    c->layers[1].scorer = VKMOE_SCORER_MULTIPLICATIVE;
    c->layers[1].d_score = 2;
}

static void one_unit(struct net_case *c)
{
    no_score(c);
    c->moe[1].score = VKMOE_SCORE_SIGMOID;
    c->moe[1].router_bias = true;
    c->layers[1].scorer = VKMOE_SCORER_ONE;
}

static void sum_scorer(struct net_case *c)
{
    no_score(c);
    c->layers[1].scorer = VKMOE_SCORER_SUM;
}

static void noisy(struct net_case *c)
{
    c->layers[1].noisy = true;
    c->layers[1].load_balance = 0.25f;
}

static void z_loss(struct net_case *c)
{
    kernel(c);
    c->layers[1].z_loss = 0.25f;
    c->layers[1].load_balance = 0.25f;
}

static void sigmoid_balance(struct net_case *c)
{
    c->moe[1].score = VKMOE_SCORE_SIGMOID;
    c->moe[1].selection_bias = true;
    c->layers[1].load_balance = 0.25f;
    c->layers[1].bias_rate = 0.125f;
}

// ---- combinations ----------------------------------------------------------------------------

static void combine(struct net_case *c, enum vkmoe_combine kind, enum vkmoe_pairing pairing)
{
    biases(c);
    c->moe[1].router_bias = false;
    c->moe[1].top_k = 0;
    c->layers[1].combine = kind;
    c->layers[1].pairing = pairing;
    if (pairing != VKMOE_PAIRING_NONE)
        c->layers[1].d_query = c->moe[1].d_model = 2;
}

static void mean(struct net_case *c)
{
    combine(c, VKMOE_COMBINE_MEAN, VKMOE_PAIRING_NONE);
}

static void mean_all(struct net_case *c)
{
    combine(c, VKMOE_COMBINE_MEAN, VKMOE_PAIRING_ALL);
}

static void stack_combine(struct net_case *c)
{
    combine(c, VKMOE_COMBINE_STACK, VKMOE_PAIRING_NONE);
    c->moe[1].c_routed = 0.5f;
}

static void stack_all(struct net_case *c)
{
    combine(c, VKMOE_COMBINE_STACK, VKMOE_PAIRING_ALL);
    c->moe[1].act_out = VKMOE_ACT_TANH;
}

static void share(struct net_case *c)
{
    combine(c, VKMOE_COMBINE_RESPONSE_SHARE, VKMOE_PAIRING_EACH);
}

static void share_all(struct net_case *c)
{
    combine(c, VKMOE_COMBINE_RESPONSE_SHARE, VKMOE_PAIRING_ALL);
}

static void attention(struct net_case *c)
{
    combine(c, VKMOE_COMBINE_ATTENTION, VKMOE_PAIRING_EACH);
}

static void attention_linear(struct net_case *c)
{
    combine(c, VKMOE_COMBINE_ATTENTION, VKMOE_PAIRING_NONE);
    linear_experts(c);
    c->moe[1].down_bias = false;
}

static void vote(struct net_case *c)
{
    end_with_moe(c);
    combine(c, VKMOE_COMBINE_VOTE, VKMOE_PAIRING_NONE);
}

// ---- other layers ----------------------------------------------------------------------------

static void norm(struct net_case *c)
{
    c->layers[0].kind = VKMOE_NET_NORM;
    c->layers[0].residual = true;
}

static void rms_norm(struct net_case *c)
{
    c->layers[1].kind = VKMOE_NET_NORM;
    c->layers[1].rms = true;
    c->layers[1].bias = false;
}

static void dropout(struct net_case *c)
{
    c->layers[1].kind = VKMOE_NET_DROPOUT;
    c->layers[1].rate = 0.3f;
    c->layers[1].residual = true;
    c->desc.input_noise = 0.5f;
}

static void pool(struct net_case *c, enum vkmoe_pool kind, uint32_t at)
{
    c->layers[at].kind = VKMOE_NET_POOL;
    c->layers[at].pool = kind;
    c->desc.max_examples = NET_EXAMPLES;
}

static void pool_mean(struct net_case *c)
{
    pool(c, VKMOE_POOL_MEAN, 0); // a moe layer of examples behind it
}

static void pool_sum(struct net_case *c)
{
    pool(c, VKMOE_POOL_SUM, 1);
}

static void pool_max(struct net_case *c)
{
    pool(c, VKMOE_POOL_MAX, 1);
}

static void embed(struct net_case *c)
{
    c->layers[0].kind = VKMOE_NET_EMBED;
    c->layers[0].n_rows = 5;
    c->desc.d_in = 1;
}

// ---- losses ----------------------------------------------------------------------------------

static void weighted_classes(struct net_case *c)
{
    c->class_weights[0] = 0.5f, c->class_weights[1] = 2, c->class_weights[2] = 1;
    c->desc.class_weights = c->class_weights;
    c->desc.label_smoothing = 0.125f;
}

static void soft_targets(struct net_case *c)
{
    c->desc.soft_targets = true;
}

static void bce(struct net_case *c)
{
    c->layers[LAST].act = VKMOE_ACT_SIGMOID;
    c->desc.loss = VKMOE_LOSS_BCE;
}

static void bce_logits(struct net_case *c)
{
    c->desc.loss = VKMOE_LOSS_BCE_LOGITS;
}

static void mse(struct net_case *c)
{
    c->desc.loss = VKMOE_LOSS_MSE;
}

static void huber(struct net_case *c)
{
    c->desc.loss = VKMOE_LOSS_HUBER;
    c->desc.huber_delta = 0.4f;
}

static void mixture_labels(struct net_case *c)
{
    end_with_moe(c);
    biases(c);
    c->moe[1].norm = VKMOE_NORM_SUM_PLUS_EPS;
    c->desc.loss = VKMOE_LOSS_MIXTURE;
    c->desc.labels = true;
}

static void mixture_gaussian(struct net_case *c)
{
    end_with_moe(c);
    linear_experts(c);
    c->moe[1].top_k = N_EXPERTS;
    c->desc.loss = VKMOE_LOSS_MIXTURE;
    c->desc.variance = 0.5f;
}

static const struct {
    const char *name;
    void (*change)(struct net_case *c);
} cases[] = {
#define CASE(name) {#name, name}
    CASE(biases), CASE(gated), CASE(recompute), CASE(shared), CASE(shared_plain), CASE(act_out),
    CASE(linear_experts), CASE(linear_no_act), CASE(hidden_dropout), CASE(all_of_one),
    CASE(top_1), CASE(top_1_balanced), CASE(renormalised), CASE(dense_sigmoid), CASE(no_score),
    CASE(kernel), CASE(kernel_sigmoid), CASE(additive), CASE(multiplicative), CASE(one_unit),
    CASE(sum_scorer), CASE(noisy), CASE(z_loss), CASE(sigmoid_balance),
    CASE(mean), CASE(mean_all), CASE(stack_combine), CASE(stack_all), CASE(share), CASE(share_all),
    CASE(attention), CASE(attention_linear), CASE(vote),
    CASE(norm), CASE(rms_norm), CASE(dropout), CASE(pool_mean), CASE(pool_sum), CASE(pool_max),
    CASE(embed),
    CASE(weighted_classes), CASE(soft_targets), CASE(bce), CASE(bce_logits), CASE(mse),
    CASE(huber), CASE(mixture_labels), CASE(mixture_gaussian),
#undef CASE
};

uint32_t net_case_count(void)
{
    return MOE_COUNT(cases);
}

void net_case_init(struct net_case *out, uint32_t i)
{
    memset(out, 0, sizeof *out);
    base(out);
    cases[i].change(out);
    snprintf(out->name, sizeof out->name, "%s", cases[i].name);
}

uint32_t net_case_find(const char *name)
{
    uint32_t i = 0;
    while (i + 1 < MOE_COUNT(cases) && strcmp(cases[i].name, name) != 0)
        i++;
    return i;
}

void net_data_init(struct net_data *out, const struct net_case *of, uint32_t seed)
{
    const uint32_t n_examples = of->desc.max_examples > 0 ? NET_EXAMPLES : NET_TOKENS;
    memset(out, 0, sizeof *out);
    fill_random(out->x, MOE_COUNT(out->x), seed);
    fill_random(out->targets, MOE_COUNT(out->targets), seed + 1);
    for (uint32_t i = 0; i < MOE_COUNT(out->targets); i++)
        out->targets[i] = (out->targets[i] + 1) / 2;
    for (uint32_t i = 0; i < NET_TOKENS; i++) {
        out->token_ids[i] = (int32_t) ((i * 3 + seed) % 5);
        out->labels[i] = (int32_t) ((i * i + seed) % N_CLASSES);
    }
    out->offsets[1] = 2; // an example without tokens, and one of four
    out->offsets[2] = 2;
    out->offsets[3] = NET_TOKENS;
    out->batch = vkmoe_net_batch_init();
    out->batch.n_tokens = NET_TOKENS;
    out->batch.n_examples = n_examples;
    out->batch.x = out->x;
    out->batch.token_ids = out->token_ids;
    out->batch.offsets = out->offsets;
    out->batch.labels = out->labels;
    out->batch.targets = out->targets;
}
