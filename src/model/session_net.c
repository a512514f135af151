// SPDX-License-Identifier: MIT
// Examples go through the network in groups: as many as its tokens have room for.
#include "model/session_net.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"

#include <stdio.h>

enum { MIN_TOKENS = 4096 }; // of a group, when examples are sequences

struct moe_session_net {
    const vkmoe_model *model;
    vkmoe_net *net;
    bool one_layer;
    uint32_t layer;      // with one_layer
    uint32_t net_first;  // the network's number of the model's (or the session's) first layer
    bool sequences;      // an example is a sequence of tokens, not one
    bool texts;          // tokens are numbers, not features
    uint32_t d_in, d_out;
    uint32_t max_rows, max_tokens;
    float *scaled;       // (max_tokens, d_in); NULL: x is used as it is
    float *y;            // (max_rows, d_out)
    int32_t *offsets;    // (max_rows + 1), of a group
    int32_t *text_offsets; // (max_rows + 1), of texts
    int32_t *tokens;       // of texts
    uint64_t n_tokens;     // room in `tokens`
};

// Gives the network's layers, of which at most one is not the model's own: the only one without
// its residual, or the one with one expert.
static enum vkmoe_status choose_layers(const struct moe_session_net *s,
                                       const vkmoe_session_desc *desc, vkmoe_layer_desc *one,
                                       vkmoe_net_layer *own, const vkmoe_net_layer **layers,
                                       vkmoe_net_desc *out)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_description *d = &s->model->d;
    out->layers = d->net_layers;
    if (!s->one_layer && desc->experts == VKMOE_EXPERTS_ALL)
        return VKMOE_OK;
    *own = d->layers[desc->layer];
    if (desc->experts != VKMOE_EXPERTS_ALL)
        TRY(moe_net_one_expert(&d->layers[desc->layer], desc, one, own));
    if (s->one_layer) {
        own->residual = false;
        layers[0] = own;
        out->n_layers = 1;
        out->d_in = s->d_in;
    } else {
        memcpy(layers, d->net_layers, out->n_layers * sizeof *layers);
        layers[s->net_first + desc->layer] = own;
    }
    out->layers = layers;

fail:
    return status;
}

static enum vkmoe_status create_net(vkmoe_context *context, const vkmoe_session_desc *session,
                                    struct moe_session_net *s)
{
    enum vkmoe_status status;
    vkmoe_net_desc desc;
    vkmoe_layer_desc one;
    vkmoe_net_layer own;
    const vkmoe_net_layer **layers = NULL;
    moe_description_net(&s->model->d, &desc);
    TRY(moe_try_alloc(&s->model->host, desc.n_layers * sizeof *layers, "layers", &layers));
    TRY(choose_layers(s, session, &one, &own, layers, &desc));
    desc.evaluation_only = true;
    desc.max_tokens = s->max_tokens;
    desc.max_examples = (uint32_t) moe_min(s->max_rows, s->max_tokens);
    TRY(vkmoe_net_create(context, &desc, &s->net));
    TRY(moe_model_load_session(s->model, session, s->net));

fail:
    moe_free(&s->model->host, layers);
    return status;
}

static void describe(struct moe_session_net *s, const vkmoe_session_desc *desc)
{
    const struct moe_description *d = &s->model->d;
    s->one_layer = desc->one_layer;
    s->layer = s->one_layer ? desc->layer : 0;
    s->net_first = s->one_layer ? 0 : d->n_input_layers;
    s->texts = !s->one_layer && moe_input_is_text(d->info.input);
    s->sequences = s->one_layer ? d->layers[s->layer].kind == VKMOE_NET_POOL
                                : s->texts || d->pool != MOE_NO_LAYER;
    const uint32_t end = s->one_layer ? s->layer + 1 : d->info.n_layers;
    s->d_in = d->widths[s->layer];
    s->d_out = end < d->info.n_layers ? d->widths[end] : d->info.n_outputs;
    s->max_rows = desc->max_rows;
    s->max_tokens = desc->max_rows;
    if (s->sequences)
        s->max_tokens = desc->max_tokens != 0
                            ? desc->max_tokens
                            : (uint32_t) moe_max(moe_max(MIN_TOKENS, desc->max_rows),
                                                 s->texts ? d->text.max_tokens : 0);
}

enum vkmoe_status moe_session_net_create(vkmoe_context *context, const vkmoe_model *model,
                                         const vkmoe_session_desc *desc,
                                         struct moe_session_net **out)
{
    enum vkmoe_status status;
    struct moe_session_net *s = NULL;
    const vkmoe_host *host = &model->host;
    if (desc->precision != VKMOE_PRECISION_EXACT)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "vkmoe_session_desc.precision = %u: this model is computed in f32 only",
                        (unsigned) desc->precision);
    if (desc->variant)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "vkmoe_session_desc.variant = \"%s\": no layer of this model has a choice "
                        "of kernels", desc->variant);
    TRY(moe_try_alloc(host, sizeof *s, "session", &s));
    s->model = model;
    describe(s, desc);
    TRY(create_net(context, desc, s));
    if (model->stats.first && !s->one_layer)
        TRY(moe_try_alloc(host, (size_t) s->max_tokens * s->d_in * sizeof(float), "scaled input",
                          &s->scaled));
    TRY(moe_try_alloc(host, (size_t) s->max_rows * s->d_out * sizeof(float), "outputs", &s->y));
    if (s->sequences)
        TRY(moe_try_alloc(host, ((size_t) s->max_rows + 1) * sizeof *s->offsets, "offsets",
                          &s->offsets));
    if (s->texts)
        TRY(moe_try_alloc(host, ((size_t) s->max_rows + 1) * sizeof *s->offsets, "offsets",
                          &s->text_offsets));
    *out = s;
    return VKMOE_OK;

fail:
    moe_session_net_destroy(s);
    return status;
}

void moe_session_net_destroy(struct moe_session_net *net)
{
    if (!net)
        return;
    const vkmoe_host *host = &net->model->host;
    vkmoe_net_destroy(net->net);
    moe_free(host, net->scaled);
    moe_free(host, net->y);
    moe_free(host, net->offsets);
    moe_free(host, net->text_offsets);
    moe_free(host, net->tokens);
    moe_free(host, net);
}

// ---- one run ---------------------------------------------------------------------------------

// Token numbers of the io's texts, into s->tokens and s->text_offsets.
static enum vkmoe_status cut_texts(struct moe_session_net *s, uint32_t n_rows,
                                   vkmoe_session_io *io)
{
    enum vkmoe_status status;
    TRY(vkmoe_model_tokens(s->model, n_rows, io->texts, s->text_offsets, NULL));
    if ((uint64_t) s->text_offsets[n_rows] > s->n_tokens) {
        moe_free(&s->model->host, s->tokens);
        s->tokens = NULL;
        s->n_tokens = 0;
        TRY(moe_try_alloc(&s->model->host, (size_t) s->text_offsets[n_rows] * sizeof *s->tokens,
                          "tokens", &s->tokens));
        s->n_tokens = (uint64_t) s->text_offsets[n_rows];
    }
    TRY(vkmoe_model_tokens(s->model, n_rows, io->texts, s->text_offsets, s->tokens));
    io->token_ids = s->tokens;
    io->offsets = s->text_offsets;

fail:
    return status;
}

static enum vkmoe_status check_offsets(const struct moe_session_net *s, uint32_t n_rows,
                                       const int32_t *offsets)
{
    if (!offsets)
        return moe_fail(VKMOE_E_ARGUMENT,
                        "vkmoe_session_io.offsets is NULL: this model's examples are sequences");
    if (offsets[0] != 0)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_session_io.offsets[0] = %d, not 0",
                        (int) offsets[0]);
    for (uint32_t i = 0; i < n_rows; i++) {
        if (offsets[i + 1] <= offsets[i])
            return moe_fail(VKMOE_E_ARGUMENT,
                            "vkmoe_session_io.offsets: example %u begins at %d and ends at %d", i,
                            (int) offsets[i], (int) offsets[i + 1]);
        if ((uint32_t) (offsets[i + 1] - offsets[i]) > s->max_tokens)
            return moe_fail(VKMOE_E_SHAPE, "example %u has %d tokens; this session takes %u", i,
                            (int) (offsets[i + 1] - offsets[i]), s->max_tokens);
    }
    return VKMOE_OK;
}

static enum vkmoe_status check_io(struct moe_session_net *s, uint32_t n_rows,
                                  const vkmoe_session_io *io)
{
    if (s->texts ? !io->token_ids : !io->x)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_session_io.%s is NULL",
                        s->texts ? "texts, and token_ids," : "x");
    if (s->texts ? io->x != NULL : io->token_ids != NULL)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_session_io.%s: this model's input is %s",
                        s->texts ? "x" : "token_ids", s->texts ? "text" : "features");
    if (s->sequences)
        return check_offsets(s, n_rows, io->offsets);
    if (io->offsets)
        return moe_fail(VKMOE_E_ARGUMENT,
                        "vkmoe_session_io.offsets: this model's examples are no sequences");
    return VKMOE_OK;
}

// Examples first .. first + n - 1 and their tokens.
struct group {
    uint32_t first, n;
    size_t first_token;
    uint32_t n_tokens;
};

static struct group next_group(const struct moe_session_net *s, const vkmoe_session_io *io,
                               uint32_t first, uint32_t n_rows)
{
    if (!s->sequences)
        return (struct group){first, n_rows - first, first, n_rows - first};
    struct group g = {.first = first, .first_token = (size_t) io->offsets[first]};
    while (first + g.n < n_rows &&
           (uint32_t) (io->offsets[first + g.n + 1] - io->offsets[first]) <= s->max_tokens)
        g.n++;
    g.n_tokens = (uint32_t) (io->offsets[first + g.n] - io->offsets[first]);
    return g;
}

// Layers that give all experts the same weight, or one that is learned.
static bool has_fixed_gates(const vkmoe_net_layer *layer)
{
    return layer->combine == VKMOE_COMBINE_MEAN || layer->combine == VKMOE_COMBINE_STACK ||
           layer->combine == VKMOE_COMBINE_VOTE;
}

static enum vkmoe_status fixed_routing(struct moe_session_net *s, const vkmoe_net_layer *layer,
                                       const char *stack_weight, size_t n_rows, int32_t *ids,
                                       float *gates)
{
    const uint32_t n_experts = layer->layer->n_experts;
    for (size_t i = 0; ids && i < n_rows * n_experts; i++)
        ids[i] = (int32_t) (i % n_experts);
    if (!gates)
        return VKMOE_OK;
    for (uint32_t e = 0; e < n_experts; e++)
        gates[e] = 1.0f / (float) n_experts;
    if (layer->combine == VKMOE_COMBINE_STACK) {
        enum vkmoe_status status =
            vkmoe_net_read(s->net, VKMOE_NET_VALUE, stack_weight, gates, n_experts);
        if (status != VKMOE_OK)
            return status;
    }
    for (size_t row = 1; row < n_rows; row++)
        memcpy(gates + row * n_experts, gates, n_experts * sizeof *gates);
    return VKMOE_OK;
}

// Of the last group.
static enum vkmoe_status read_routing(struct moe_session_net *s, const struct group *g,
                                      const vkmoe_session_io *io)
{
    const vkmoe_net_layer *layer = &s->model->d.layers[io->layer];
    const uint32_t index = s->one_layer ? 0 : s->net_first + io->layer;
    const bool by_token = !s->one_layer && vkmoe_model_is_by_token(s->model, io->layer);
    const size_t row = by_token ? g->first_token : g->first, top_k = layer->layer->top_k;
    int32_t *ids = io->ids ? io->ids + row * top_k : NULL;
    float *gates = io->gates ? io->gates + row * top_k : NULL;
    if (!has_fixed_gates(layer))
        return vkmoe_net_routing(s->net, index, ids, gates);
    char name[48];
    snprintf(name, sizeof name, "layers.%u.combine.weight", index);
    return fixed_routing(s, layer, name, by_token ? g->n_tokens : g->n, ids, gates);
}

static enum vkmoe_status run_group(struct moe_session_net *s, const struct group *g,
                                   const vkmoe_session_io *io)
{
    enum vkmoe_status status;
    const struct moe_description *d = &s->model->d;
    vkmoe_net_batch batch = vkmoe_net_batch_init();
    batch.n_tokens = g->n_tokens;
    batch.n_examples = g->n;
    if (s->texts) {
        batch.token_ids = io->token_ids + g->first_token;
    } else {
        batch.x = io->x + g->first_token * s->d_in;
        if (s->scaled) {
            moe_input_scale(d->info.input, &s->model->stats, s->d_in, g->n_tokens, batch.x,
                            s->scaled);
            batch.x = s->scaled;
        }
        if (io->layer_x)
            memcpy(io->layer_x + g->first_token * s->d_in, batch.x,
                   (size_t) g->n_tokens * s->d_in * sizeof *batch.x);
    }
    if (s->sequences) {
        for (uint32_t i = 0; i <= g->n; i++)
            s->offsets[i] = io->offsets[g->first + i] - io->offsets[g->first];
        batch.offsets = s->offsets;
    }
    float *y = (io->y ? io->y : s->y) + (size_t) g->first * s->d_out;
    TRY(vkmoe_net_eval(s->net, &batch, y, NULL));
    if (io->scores)
        moe_head_apply(s->one_layer ? VKMOE_HEAD_IDENTITY : d->info.head, g->n, s->d_out, y,
                       io->scores + (size_t) g->first * s->d_out);
    if (io->ids || io->gates)
        TRY(read_routing(s, g, io));

fail:
    return status;
}

enum vkmoe_status moe_session_net_run(struct moe_session_net *net, uint32_t n_rows,
                                      const vkmoe_session_io *io)
{
    enum vkmoe_status status = VKMOE_OK;
    vkmoe_session_io full = *io;
    if (net->texts && io->texts)
        TRY(cut_texts(net, n_rows, &full));
    else if (io->texts)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_session_io.texts: this model's input is features");
    if ((io->ids || io->gates) && net->model->d.layers[io->layer].kind != VKMOE_NET_MOE)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_session_io.layer = %u has no experts", io->layer);
    TRY(check_io(net, n_rows, &full));
    for (uint32_t first = 0; first < n_rows;) {
        struct group g = next_group(net, &full, first, n_rows);
        TRY(run_group(net, &g, &full));
        first += g.n;
    }

fail:
    return status;
}
