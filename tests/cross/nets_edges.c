// SPDX-License-Identifier: MIT
#include "nets_edges.h"

#include "check.h"
#include "fixture.h"
#include "net_random.h"

#include <stdio.h>
#include <stdlib.h>

// ---- sizes -----------------------------------------------------------------------------------

static void from(struct whole *w, const char *name)
{
    net_case_init(&w->of, net_case_find(name));
}

static void tokens(struct whole *w, uint32_t n, uint32_t max_tokens)
{
    w->n_tokens = n;
    w->of.desc.max_tokens = max_tokens;
}

// Widths of linear -> moe -> linear.
static void widths(struct whole *w, uint32_t d_in, uint32_t d, uint32_t d_ff, uint32_t d_out)
{
    w->of.desc.d_in = d_in;
    w->of.layers[0].d_out = w->of.moe[1].d_model = w->of.moe[1].d_out = d;
    w->of.moe[1].d_ff = d_ff;
    w->of.layers[2].d_out = d_out;
}

static void one_token(struct whole *w)
{
    from(w, "shared");
    tokens(w, 1, 6);
}

static void one_token_at_most(struct whole *w)
{
    from(w, "gated");
    tokens(w, 1, 1);
}

static void fewer_tokens(struct whole *w)
{
    from(w, "pool_max");
    tokens(w, 5, 70);
    w->of.desc.max_examples = 9;
    w->n_examples = 9;
    w->other_offsets = true;
}

static void width_1(struct whole *w)
{
    from(w, "shared");
    widths(w, 1, 1, 1, 2);
    w->of.moe[1].d_shared_ff = 1;
    w->of.moe[1].top_k = 1;
}

static void one_class(struct whole *w)
{
    from(w, "biases");
    w->of.layers[2].d_out = 1;
}

static void mostly_empty_experts(struct whole *w)
{
    from(w, "gated");
    w->of.moe[1].n_experts = 64;
    w->of.moe[1].top_k = 1;
}

static void all_to_one(struct whole *w)
{
    from(w, "sigmoid_balance");
    w->favourite = 2;
    w->of.moe[1].top_k = 1;
    w->of.moe[1].up_bias = w->of.moe[1].down_bias = true;
    tokens(w, 130, 130);
}

static void many_experts(struct whole *w)
{
    from(w, "biases");
    widths(w, 7, 12, 3, 5);
    w->of.moe[1].n_experts = 1024;
    w->of.moe[1].top_k = 64;
    tokens(w, 37, 40);
}

static void tiles(struct whole *w)
{
    from(w, "gated");
    widths(w, 32, 64, 96, 10);
    w->of.moe[1].n_experts = 8;
    tokens(w, 150, 160);
}

static void odd_sizes(struct whole *w)
{
    from(w, "shared");
    widths(w, 19, 65, 33, 11);
    w->of.moe[1].n_experts = 5;
    w->of.moe[1].top_k = 3;
    w->of.moe[1].d_shared_ff = 67;
    w->of.layers[1].recompute = true;
    w->of.layers[1].hidden_dropout = 0.2f;
    tokens(w, 67, 67);
}

static void odd_queries(struct whole *w)
{
    from(w, "attention");
    widths(w, 21, 17, 9, 4);
    w->of.layers[1].d_query = w->of.moe[1].d_model = 13;
    w->of.moe[1].n_experts = 5;
    tokens(w, 41, 41);
}

static void wide_norm(struct whole *w)
{
    from(w, "norm");
    w->of.desc.d_in = 130;
    w->of.moe[1].d_model = 130;
    w->of.moe[1].d_out = 9;
    tokens(w, 33, 33);
}

static void sentences(struct whole *w)
{
    from(w, "embed");
    w->of.layers[0].n_rows = 50;
    w->of.layers[0].d_out = w->of.moe[1].d_model = 24;
    w->of.moe[1].expert_kind = VKMOE_EXPERT_LINEAR;
    w->of.moe[1].act = VKMOE_ACT_RELU;
    w->of.moe[1].up_bias = w->of.moe[1].router_bias = true;
    w->of.moe[1].n_experts = 6;
    w->of.moe[1].d_out = 3;
    w->of.layers[2].kind = VKMOE_NET_POOL;
    w->of.desc.max_examples = 16;
    w->n_examples = 16;
    w->other_offsets = true;
    tokens(w, 90, 100);
}

// ---- what is left out, or there twice ---------------------------------------------------------

static void two_moe_layers(struct whole *w)
{
    from(w, "noisy");
    w->of.layers[1].residual = true;
    w->of.layers[1].z_loss = 0.125f;
    w->of.layers[2] = w->of.layers[1];
    w->of.layers[2].recompute = true;
    w->of.moe[2] = w->of.moe[1];
    w->of.moe[2].selection_bias = true;
    w->of.layers[2].layer = &w->of.moe[2];
    w->of.layers[2].bias_rate = 0.01f;
}

static void only_moe(struct whole *w)
{
    from(w, "gated");
    w->of.list[0] = &w->of.layers[1];
    w->of.desc.n_layers = 1;
    w->of.desc.loss = VKMOE_LOSS_MSE;
}

static void no_parameters(struct whole *w)
{
    from(w, "dropout");
    w->of.layers[0] = w->of.layers[1];
    w->of.layers[0].residual = false;
    w->of.desc.n_layers = 1;
    w->of.desc.loss = VKMOE_LOSS_MSE;
}

static void nothing_at_all(struct whole *w)
{
    no_parameters(w);
    w->of.layers[0].rate = 0;
    w->of.desc.input_noise = 0;
}

static void only_pool(struct whole *w)
{
    from(w, "pool_sum");
    w->of.layers[0] = w->of.layers[1];
    w->of.desc.n_layers = 1;
    w->of.desc.loss = VKMOE_LOSS_HUBER;
    w->n_examples = NET_EXAMPLES;
}

static void pooled_mixture(struct whole *w)
{
    from(w, "mixture_gaussian");
    w->of.layers[0].kind = VKMOE_NET_POOL;
    w->of.desc.max_examples = w->n_examples = 12;
    w->of.moe[1].top_k = 2;
    w->of.moe[1].norm = VKMOE_NORM_SUM_PLUS_EPS;
    w->other_offsets = true;
    tokens(w, 50, 50);
}

static void mixture_of_many(struct whole *w)
{
    from(w, "mixture_labels");
    w->of.moe[1].n_experts = 40;
    w->of.moe[1].top_k = 9;
    w->of.moe[1].d_out = 21;
    w->of.moe[1].act_out = VKMOE_ACT_TANH;
    tokens(w, 25, 30);
}

// ---- optimisers ------------------------------------------------------------------------------

static void sgd(struct whole *w)
{
    from(w, "shared");
    w->of.desc.optimiser = VKMOE_OPTIMISER_SGD;
}

static void momentum(struct whole *w)
{
    sgd(w);
    w->of.desc.momentum = 0.875f;
}

static void nesterov_clip(struct whole *w)
{
    momentum(w);
    w->of.desc.nesterov = true;
    w->of.desc.clip_norm = 0.05f;
}

static void adam_groups(struct whole *w)
{
    sgd(w);
    w->of.desc.optimiser = VKMOE_OPTIMISER_ADAM;
    w->group = (vkmoe_net_group){".router.", 0.25f, 0.5f};
    w->of.desc.groups = &w->group;
    w->of.desc.n_groups = 1;
    w->of.desc.clip_norm = 1e9f;
}

static void (*const edges[])(struct whole *) = {
    one_token, one_token_at_most, fewer_tokens, width_1, one_class, mostly_empty_experts,
    all_to_one, many_experts, tiles, odd_sizes, odd_queries, wide_norm, sentences, two_moe_layers,
    only_moe, no_parameters, nothing_at_all, only_pool, pooled_mixture, mixture_of_many, sgd,
    momentum, nesterov_clip, adam_groups,
};
static const char *const edge_names[] = {
    "one_token", "one_token_at_most", "fewer_tokens", "width_1", "one_class",
    "mostly_empty_experts", "all_to_one", "many_experts", "tiles", "odd_sizes", "odd_queries",
    "wide_norm", "sentences", "two_moe_layers", "only_moe", "no_parameters", "nothing_at_all",
    "only_pool", "pooled_mixture", "mixture_of_many", "sgd", "momentum", "nesterov_clip",
    "adam_groups",
};

enum { N_EDGES = sizeof edges / sizeof *edges };
_Static_assert(N_EDGES == sizeof edge_names / sizeof *edge_names, "a name for each");

uint32_t whole_count(void)
{
    return net_case_count() + N_EDGES;
}

void whole_init(struct whole *out, uint32_t i)
{
    const uint32_t n_cases = net_case_count();
    memset(out, 0, sizeof *out);
    out->favourite = NO_FAVOURITE;
    if (i < n_cases) {
        net_case_init(&out->of, i);
        out->n_tokens = NET_TOKENS;
        out->n_examples = out->of.desc.max_examples;
        return;
    }
    out->n_tokens = NET_TOKENS;
    edges[i - n_cases](out);
    snprintf(out->of.name, sizeof out->of.name, "%s", edge_names[i - n_cases]);
}

void whole_random(struct whole *out, uint32_t number)
{
    memset(out, 0, sizeof *out);
    net_random_init(&out->of, number);
    out->favourite = NO_FAVOURITE;
    out->n_tokens = NET_TOKENS;
    out->n_examples = out->of.desc.max_examples;
}

// ---- batches ---------------------------------------------------------------------------------

uint32_t whole_d_out(const struct whole *of)
{
    uint32_t width = of->of.desc.d_in;
    for (uint32_t i = 0; i < of->of.desc.n_layers; i++) {
        const vkmoe_net_layer *layer = of->of.desc.layers[i];
        if (layer->kind == VKMOE_NET_MOE)
            width = layer->layer->d_out;
        if (layer->kind == VKMOE_NET_LINEAR || layer->kind == VKMOE_NET_EMBED)
            width = layer->d_out;
    }
    return width;
}

static uint32_t random_below(uint32_t n, uint32_t seed, uint32_t i)
{
    return (i * 2654435761u + seed * 40503u) % 65521 % n;
}

// Examples of no token, and of several.
static void fill_offsets(struct whole_data *out, const struct whole *of, uint32_t n_tokens,
                         uint32_t seed)
{
    uint32_t n = of->n_examples, at = 0;
    for (uint32_t i = 0; i + 1 < n; i++) {
        at += random_below(2 * n_tokens / n + 1, seed, i) * (i % 4 != 1);
        out->offsets[i + 1] = (int32_t) (at < n_tokens ? at : n_tokens);
    }
    if (!of->other_offsets && n == NET_EXAMPLES) {
        out->offsets[1] = 2;
        out->offsets[2] = 2;
    }
    out->offsets[n] = (int32_t) n_tokens;
}

void whole_data_init(struct whole_data *out, const struct whole *of, uint32_t n_tokens,
                     uint32_t seed)
{
    const uint32_t n_examples = of->n_examples > 0 ? of->n_examples : n_tokens;
    const uint32_t d_in = of->of.desc.d_in, d_out = whole_d_out(of);
    memset(out, 0, sizeof *out);
    out->x = calloc((size_t) n_tokens * d_in, sizeof *out->x);
    out->targets = calloc((size_t) n_examples * d_out, sizeof *out->targets);
    out->token_ids = calloc(n_tokens, sizeof *out->token_ids);
    out->labels = calloc(n_examples, sizeof *out->labels);
    out->offsets = calloc((size_t) n_examples + 1, sizeof *out->offsets);
    assert_true(out->x && out->targets && out->token_ids && out->labels && out->offsets);
    fill_random(out->x, (size_t) n_tokens * d_in, seed);
    fill_random(out->targets, (size_t) n_examples * d_out, seed + 1);
    for (uint32_t i = 0; i < n_examples * d_out; i++)
        out->targets[i] = (out->targets[i] + 1) / 2;
    for (uint32_t i = 0; i < n_examples; i++)
        out->labels[i] = (int32_t) random_below(d_out, seed, i);
    for (uint32_t i = 0; of->of.layers[0].kind == VKMOE_NET_EMBED && i < n_tokens; i++)
        out->token_ids[i] = (int32_t) random_below(of->of.layers[0].n_rows, seed, i);
    if (of->n_examples > 0)
        fill_offsets(out, of, n_tokens, seed);
    out->batch = vkmoe_net_batch_init();
    out->batch.n_tokens = n_tokens;
    out->batch.n_examples = n_examples;
    out->batch.x = out->x;
    out->batch.token_ids = out->token_ids;
    out->batch.offsets = out->offsets;
    out->batch.labels = out->labels;
    out->batch.targets = out->targets;
}

void whole_data_finish(struct whole_data *data)
{
    free(data->x);
    free(data->targets);
    free(data->token_ids);
    free(data->offsets);
    free(data->labels);
}
