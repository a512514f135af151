// SPDX-License-Identifier: MIT
// The tensors of a model, from its description: the one list that opening, saving and networks use.
#include "model/description.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>

// Tensors in order; counted only while `out` is NULL.
struct list {
    struct moe_tensor_spec *out;
    uint32_t n;
    uint32_t layer, net_layer; // of the names
};

// dims end with a 0, three at most.
static void add(struct list *list, const char *name, const char *net_name, const uint64_t *dims)
{
    struct moe_tensor_spec *spec = list->out ? &list->out[list->n] : NULL;
    list->n++;
    if (!spec)
        return;
    snprintf(spec->name, sizeof spec->name, "%s", name);
    snprintf(spec->net_name, sizeof spec->net_name, "%s", net_name);
    spec->layer = MOE_NO_LAYER;
    spec->n_elements = 1;
    for (; dims[spec->n_dims]; spec->n_dims++) {
        spec->dims[spec->n_dims] = dims[spec->n_dims];
        // Sizes are below 2^24, but n_elements of three of them may not fit: such a tensor is in no
        // file, and saving it fails for want of memory.
        if (!moe_mul(spec->n_elements, dims[spec->n_dims], &spec->n_elements))
            spec->n_elements = UINT64_MAX;
    }
}

#define DIMS(...) ((const uint64_t[]){__VA_ARGS__, 0})

// A tensor of the layer at hand.
static void add_own(struct list *list, bool has, const char *name, const uint64_t *dims)
{
    char file[96], net[96];
    if (!has)
        return;
    snprintf(file, sizeof file, "layers.%u.%s", list->layer, name);
    snprintf(net, sizeof net, "layers.%u.%s", list->net_layer, name);
    add(list, file, net, dims);
    if (list->out)
        list->out[list->n - 1].layer = (int) list->layer;
}

// ---- layers ----------------------------------------------------------------------------------

static void add_router(struct list *list, const vkmoe_net_layer *layer, uint64_t in)
{
    const vkmoe_layer_desc *d = layer->layer;
    const uint64_t e = d->n_experts + d->n_zero, s = layer->d_score;
    switch (layer->scorer) {
    case VKMOE_SCORER_LINEAR:
    case VKMOE_SCORER_KERNEL:
        add_own(list, true, "router.weight", DIMS(e, in));
        break;
    case VKMOE_SCORER_ADDITIVE:
    case VKMOE_SCORER_MULTIPLICATIVE:
        add_own(list, true, "router.weight", DIMS(s, in));
        add_own(list, true, "router.keys", DIMS(e, s));
        break;
    case VKMOE_SCORER_ONE:
        add_own(list, true, "router.weight", DIMS(1, in));
        break;
    case VKMOE_SCORER_SUM:
        add_own(list, true, "router.weight", DIMS(e, 1));
        break;
    }
    add_own(list, layer->scorer == VKMOE_SCORER_ADDITIVE, "router.vector", DIMS(s));
    add_own(list, d->router_bias, "router.bias", DIMS(layer->scorer == VKMOE_SCORER_ONE ? 1 : e));
    add_own(list, d->selection_bias, "router.selection_bias", DIMS(e));
    add_own(list, layer->noisy, "router.noise", DIMS(e, in));
    add_own(list, d->select == VKMOE_SELECT_TABLE, "router.table",
            DIMS(d->n_token_ids, d->top_k));
    add_own(list, d->expert_scale, "router.expert_scale", DIMS(e));
    add_own(list, d->router_prenorm, "router.prenorm_scale", DIMS(in));
}

// What lies around the routed experts.
static void add_around(struct list *list, const vkmoe_layer_desc *d)
{
    const uint64_t latent = d->d_latent;
    add_own(list, latent > 0, "latent.down.weight", DIMS(latent, d->d_model));
    add_own(list, latent > 0, "latent.up.weight", DIMS(d->d_out, latent));
    add_own(list, d->latent_norm, "latent.norm", DIMS(latent));
    add_own(list, d->out_bias, "out_bias", DIMS(d->d_out));
}

// Of experts that work in a latent width, the widths in and out.
static void add_adjugate(struct list *list, const vkmoe_layer_desc *d, uint64_t in, uint64_t out)
{
    const uint64_t n = moe_div_up(d->n_experts, d->adjugate_group), f = d->d_adjugate;
    add_own(list, d->gated, "adjugate.gate.weight", DIMS(n, f, in));
    add_own(list, d->gate_bias, "adjugate.gate.bias", DIMS(n, f));
    add_own(list, true, "adjugate.up.weight", DIMS(n, f, in));
    add_own(list, d->up_bias, "adjugate.up.bias", DIMS(n, f));
    add_own(list, true, "adjugate.down.weight", DIMS(n, out, f));
    add_own(list, d->down_bias, "adjugate.down.bias", DIMS(n, out));
}

static void add_mlp(struct list *list, const vkmoe_layer_desc *d)
{
    const uint64_t e = d->n_experts, f = d->d_ff, in = d->d_latent ? d->d_latent : d->d_model;
    const uint64_t out = d->d_latent ? d->d_latent : d->d_out;
    add_own(list, d->gated, "experts.gate.weight", DIMS(e, f, in));
    add_own(list, d->gate_bias, "experts.gate.bias", DIMS(e, f));
    add_own(list, true, "experts.up.weight", DIMS(e, f, in));
    add_own(list, d->up_bias, "experts.up.bias", DIMS(e, f));
    add_own(list, true, "experts.down.weight", DIMS(e, out, f));
    add_own(list, d->down_bias, "experts.down.bias", DIMS(e, out));
    if (d->adjugate_group > 0)
        add_adjugate(list, d, in, out);
}

static void add_shared(struct list *list, const vkmoe_layer_desc *d)
{
    const uint64_t f = d->d_shared_ff, in = d->d_model, out = d->d_out;
    add_own(list, d->gated, "shared.gate.weight", DIMS(f, in));
    add_own(list, d->gate_bias, "shared.gate.bias", DIMS(f));
    add_own(list, true, "shared.up.weight", DIMS(f, in));
    add_own(list, d->up_bias, "shared.up.bias", DIMS(f));
    add_own(list, true, "shared.down.weight", DIMS(out, f));
    add_own(list, d->down_bias, "shared.down.bias", DIMS(out));
    add_own(list, d->shared_gate == VKMOE_SHARED_SIGMOID, "shared.gate_vector", DIMS(in));
    add_own(list, d->shared_gate == VKMOE_SHARED_SOFTMAX2, "shared.gate_vector", DIMS(2, in));
    add_own(list, d->shared_gate_bias, "shared.gate_vector.bias",
            DIMS(d->shared_gate == VKMOE_SHARED_SOFTMAX2 ? 2 : 1));
}

static void add_moe(struct list *list, const vkmoe_net_layer *layer, uint64_t in)
{
    const vkmoe_layer_desc *d = layer->layer;
    const uint64_t e = d->n_experts, out = d->d_out;
    const bool stack = layer->combine == VKMOE_COMBINE_STACK;
    const bool queries = layer->pairing != VKMOE_PAIRING_NONE;
    if (layer->combine == VKMOE_COMBINE_WEIGHTED_SUM)
        add_router(list, layer, in);
    add_own(list, queries, "query.weight", DIMS(e, layer->d_query, in));
    add_own(list, queries, "query.bias", DIMS(e, layer->d_query));
    if (d->expert_kind == VKMOE_EXPERT_MLP) {
        add_mlp(list, d);
    } else {
        add_own(list, true, "experts.weight", DIMS(e, out, d->d_model));
        add_own(list, d->up_bias, "experts.bias", DIMS(e, out));
    }
    add_own(list, stack, "combine.weight", DIMS(e));
    add_own(list, stack, "combine.bias", DIMS(out));
    add_around(list, d);
    if (d->d_shared_ff > 0)
        add_shared(list, d);
}

static void add_layer(struct list *list, const vkmoe_net_layer *layer, uint64_t in)
{
    switch (layer->kind) {
    case VKMOE_NET_MOE:
        add_moe(list, layer, in);
        break;
    case VKMOE_NET_LINEAR:
        add_own(list, true, "weight", DIMS(layer->d_out, in));
        add_own(list, layer->bias, "bias", DIMS(layer->d_out));
        break;
    case VKMOE_NET_NORM:
        add_own(list, true, "gain", DIMS(in));
        add_own(list, layer->bias, "bias", DIMS(in));
        break;
    case VKMOE_NET_POOL:
    case VKMOE_NET_DROPOUT:
    case VKMOE_NET_EMBED: // of the input
        break;
    }
}

// ---- all of them -----------------------------------------------------------------------------

static void add_input(struct list *list, const struct moe_description *d)
{
    const uint64_t n = d->info.n_features;
    switch (d->info.input) {
    case VKMOE_INPUT_NONE:
        break;
    case VKMOE_INPUT_STANDARDIZE:
        add(list, "input.mean", "", DIMS(n));
        add(list, "input.std", "", DIMS(n));
        break;
    case VKMOE_INPUT_MINMAX:
        add(list, "input.min", "", DIMS(n));
        add(list, "input.max", "", DIMS(n));
        break;
    case VKMOE_INPUT_EMBED:
    case VKMOE_INPUT_EMBED_BAG:
        add(list, "input.table", "layers.0.table", DIMS(d->text.n_rows, d->d_table));
        break;
    }
}

static void add_all(struct list *list, const struct moe_description *d)
{
    list->n = 0;
    add_input(list, d);
    for (uint32_t i = 0; i < d->info.n_layers; i++) {
        list->layer = i;
        list->net_layer = d->n_input_layers + i;
        add_layer(list, &d->layers[i], d->widths[i]);
    }
}

enum vkmoe_status moe_description_tensors(const struct moe_description *d,
                                          struct moe_tensor_spec **out, uint32_t *n)
{
    struct list list = {0};
    *out = NULL;
    add_all(&list, d);
    enum vkmoe_status status = moe_try_alloc(&d->host, moe_max(list.n, 1) * sizeof **out,
                                             "list of tensors", out);
    if (status != VKMOE_OK)
        return status;
    list.out = *out;
    add_all(&list, d);
    *n = list.n;
    return VKMOE_OK;
}
