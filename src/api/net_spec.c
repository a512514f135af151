// SPDX-License-Identifier: MIT
// Checks a network's description and completes it.
#include "api/net.h"

#include "base/desc.h"
#include "core/layer_fields.h"
#include "core/dtype.h"
#include "core/ref_backward.h"

#include <math.h>
#include <stdio.h>

// Where we are: for texts, "net.layers[2].top_k".
struct place {
    uint32_t layer;
    const vkmoe_net_desc *net;
    uint32_t width;   // of the layer's input
    bool of_examples; // rows are examples by now
};

static enum vkmoe_status check_number(const struct place *place, const char *field, float value,
                                      float least, float below)
{
    if (!(value >= least && value < below))
        return moe_fail(VKMOE_E_ARGUMENT, "net.layers[%u].%s = %g: must be at least %g and below "
                        "%g", place->layer, field, (double) value, (double) least, (double) below);
    return VKMOE_OK;
}

static enum vkmoe_status check_size(const struct place *place, const char *field, uint32_t value)
{
    if (value < 1 || value > MOE_MAX_WIDTH)
        return moe_fail(VKMOE_E_ARGUMENT, "net.layers[%u].%s = %u: must be 1 to %u", place->layer,
                        field, value, MOE_MAX_WIDTH);
    return VKMOE_OK;
}

static enum vkmoe_status check_enum(const struct place *place, const char *field, uint32_t value,
                                    uint32_t n_values)
{
    if (value >= n_values)
        return moe_fail(VKMOE_E_ARGUMENT, "net.layers[%u].%s = %u: must be below %u", place->layer,
                        field, value, n_values);
    return VKMOE_OK;
}

// A field that says something where it cannot.
static enum vkmoe_status refuse(const struct place *place, bool wrong, const char *field,
                                const char *why)
{
    if (wrong)
        return moe_fail(VKMOE_E_ARGUMENT, "net.layers[%u].%s: %s", place->layer, field, why);
    return VKMOE_OK;
}

// ---- moe -------------------------------------------------------------------------------------

// Puts the layer's number in front of a text that knows only the layer.
static enum vkmoe_status at_layer(const struct place *place, enum vkmoe_status status)
{
    char text[768];
    snprintf(text, sizeof text, "%s", vkmoe_error_text());
    return moe_fail(status, "net.layers[%u].%s", place->layer, text);
}

// The layer's own checks, with what only nets compute put aside.
static enum vkmoe_status check_layer_desc(const struct place *place, const vkmoe_net_layer *layer,
                                          vkmoe_layer_desc *out)
{
    enum vkmoe_status status;
    struct moe_layer checked;
    bool routed = layer->combine == VKMOE_COMBINE_WEIGHTED_SUM;
    *out = vkmoe_layer_desc_init();
    status = moe_desc_copy(out, sizeof *out, layer->layer, "vkmoe_layer_desc");
    if (status != VKMOE_OK)
        return at_layer(place, status);
    const enum vkmoe_expert_kind kind = out->expert_kind;
    const enum vkmoe_score score = out->score;
    TRY(check_enum(place, "layer.expert_kind", kind, 2));
    if (kind == VKMOE_EXPERT_LINEAR) {
        out->expert_kind = VKMOE_EXPERT_MLP;
        out->d_ff = 1;
    }
    if (score == VKMOE_SCORE_NONE)
        out->score = VKMOE_SCORE_SOFTMAX;
    if (!routed && out->top_k == 0)
        out->top_k = out->n_experts;
    out->in_type = out->out_type = VKMOE_F32;
    out->own_shared_types = false;
    status = moe_layer_check_fields(out);
    if (status == VKMOE_OK)
        status = moe_layer_check_gradients(out);
    if (status == VKMOE_OK)
        status = moe_layer_init(&checked, out);
    if (status != VKMOE_OK)
        return at_layer(place, status);
    *out = checked.desc;
    out->expert_kind = kind;
    out->score = score;
    if (!routed && out->top_k != out->n_experts)
        return moe_fail(VKMOE_E_ARGUMENT, "net.layers[%u].layer.top_k = %u: without a router every "
                        "expert works, n_experts = %u", place->layer, out->top_k, out->n_experts);
fail:
    return status;
}

// Rows of all experts' matrices together are counted in 32 bits.
static enum vkmoe_status check_rows(const struct place *place, const char *field,
                                    uint32_t n_experts, uint32_t width)
{
    if ((uint64_t) n_experts * width > INT32_MAX)
        return moe_fail(VKMOE_E_SHAPE, "net.layers[%u].%s = %u of n_experts = %u: more than %d "
                        "rows", place->layer, field, width, n_experts, INT32_MAX);
    return VKMOE_OK;
}

// Widths of the experts' input, and what linear experts do not have.
static enum vkmoe_status check_experts(const struct place *place, const vkmoe_net_layer *layer,
                                       const vkmoe_layer_desc *d)
{
    enum vkmoe_status status = VKMOE_OK;
    static const char linear[] = "linear experts have none";
    bool queries = layer->pairing != VKMOE_PAIRING_NONE;
    uint32_t width = queries ? layer->d_query : place->width;
    if (queries)
        TRY(check_size(place, "d_query", layer->d_query));
    if (d->d_model != width)
        return moe_fail(VKMOE_E_SHAPE, "net.layers[%u].layer.d_model = %u: %s = %u", place->layer,
                        d->d_model, queries ? "d_query" : "the layer's input has a width of",
                        width);
    TRY(check_rows(place, "d_query", d->n_experts, queries ? width : 1));
    TRY(check_rows(place, "layer.d_ff", d->n_experts, d->d_ff));
    TRY(check_rows(place, "layer.d_out", d->n_experts, d->d_out));
    TRY(check_number(place, "hidden_dropout", layer->hidden_dropout, 0, 1));
    if (d->expert_kind == VKMOE_EXPERT_LINEAR) {
        TRY(refuse(place, d->gated, "layer.gated", linear));
        TRY(refuse(place, d->down_bias, "layer.down_bias", "linear experts have up_bias"));
        TRY(refuse(place, d->act_out != VKMOE_ACT_NONE, "layer.act_out", linear));
        TRY(refuse(place, d->d_shared_ff > 0, "layer.d_shared_ff",
                   "linear experts have no shared expert"));
        TRY(refuse(place, layer->hidden_dropout != 0, "hidden_dropout", linear));
    }
    if (layer->combine == VKMOE_COMBINE_VOTE && d->d_out > MOE_MAX_EXPERTS)
        return moe_fail(VKMOE_E_UNSUPPORTED, "net.layers[%u].combine = vote: d_out = %u, at most "
                        "%u classes", place->layer, d->d_out, MOE_MAX_EXPERTS);
fail:
    return status;
}

// Fields of a layer without a router.
static enum vkmoe_status check_no_router(const struct place *place, const vkmoe_net_layer *layer,
                                         const vkmoe_layer_desc *d)
{
    enum vkmoe_status status;
    static const char text[] = "this combine has no router";
    TRY(refuse(place, layer->scorer != VKMOE_SCORER_LINEAR, "scorer", text));
    TRY(refuse(place, layer->noisy, "noisy", text));
    TRY(refuse(place, layer->load_balance != 0, "load_balance", text));
    TRY(refuse(place, layer->z_loss != 0, "z_loss", text));
    TRY(refuse(place, layer->bias_rate != 0, "bias_rate", text));
    TRY(refuse(place, d->router_bias, "layer.router_bias", text));
    TRY(refuse(place, d->selection_bias, "layer.selection_bias", text));
fail:
    return status;
}

static enum vkmoe_status check_router(const struct place *place, const vkmoe_net_layer *layer,
                                      const vkmoe_layer_desc *d)
{
    enum vkmoe_status status;
    bool keyed = layer->scorer == VKMOE_SCORER_ADDITIVE ||
                 layer->scorer == VKMOE_SCORER_MULTIPLICATIVE;
    bool has_bias = layer->scorer == VKMOE_SCORER_LINEAR || layer->scorer == VKMOE_SCORER_ONE;
    TRY(refuse(place, layer->pairing != VKMOE_PAIRING_NONE, "pairing",
               "queries need a combine without a router"));
    if (keyed)
        TRY(check_size(place, "d_score", layer->d_score));
    if (layer->scorer == VKMOE_SCORER_KERNEL && !(layer->score_width > 0 &&
                                                  isfinite(layer->score_width)))
        return moe_fail(VKMOE_E_ARGUMENT, "net.layers[%u].score_width = %g: must be above 0",
                        place->layer, (double) layer->score_width);
    TRY(refuse(place, d->router_bias && !has_bias, "layer.router_bias", "this scorer has no bias"));
    TRY(check_number(place, "load_balance", layer->load_balance, 0, INFINITY));
    TRY(check_number(place, "z_loss", layer->z_loss, 0, INFINITY));
    TRY(check_number(place, "bias_rate", layer->bias_rate, 0, INFINITY));
    TRY(refuse(place, layer->bias_rate != 0 && !d->selection_bias, "bias_rate",
               "needs layer.selection_bias"));
    // The router's gradient is exactly 0, and nothing else would train it.
    if (!place->net->evaluation_only && d->n_experts > 1 && layer->load_balance == 0 &&
        layer->z_loss == 0 && moe_ref_gates_are_constant(d))
        return moe_fail(VKMOE_E_ARGUMENT, "net.layers[%u].layer.top_k = 1: with this %s every gate "
                        "weight is constant and the router is never trained; set load_balance, or "
                        "%s", place->layer,
                        d->gate_source == VKMOE_GATE_SOFTMAX_SELECTED ? "gate_source" : "norm",
                        d->gate_source == VKMOE_GATE_SOFTMAX_SELECTED ? "gate_source = score"
                                                                      : "norm = none");
fail:
    return status;
}

static uint32_t max_examples(const vkmoe_net_desc *desc)
{
    return desc->max_examples > 0 ? desc->max_examples : desc->max_tokens;
}

static enum vkmoe_status check_moe(const struct place *place, vkmoe_net_layer *layer,
                                   vkmoe_layer_desc *d)
{
    enum vkmoe_status status;
    TRY(refuse(place, !layer->layer, "layer", "is NULL"));
    TRY(check_enum(place, "scorer", layer->scorer, VKMOE_SCORER_SUM + 1));
    TRY(check_enum(place, "combine", layer->combine, VKMOE_COMBINE_VOTE + 1));
    TRY(check_enum(place, "pairing", layer->pairing, VKMOE_PAIRING_ALL + 1));
    TRY(check_layer_desc(place, layer, d));
    layer->layer = d;
    TRY(check_experts(place, layer, d));
    if (layer->combine == VKMOE_COMBINE_WEIGHTED_SUM)
        TRY(check_router(place, layer, d));
    else
        TRY(check_no_router(place, layer, d));
    uint64_t per_row = layer->pairing == VKMOE_PAIRING_ALL ? (uint64_t) d->n_experts * d->n_experts
                       : layer->scorer == VKMOE_SCORER_ADDITIVE ? d->n_experts
                                                                : d->top_k;
    uint32_t n_rows = place->of_examples ? max_examples(place->net) : place->net->max_tokens;
    if (n_rows * per_row > INT32_MAX)
        return moe_fail(VKMOE_E_SHAPE, "net.layers[%u]: %s = %u of %llu slots: more than %d slots",
                        place->layer, place->of_examples ? "max_examples" : "max_tokens", n_rows,
                        (unsigned long long) per_row, INT32_MAX);
fail:
    return status;
}

// ---- other layers ----------------------------------------------------------------------------

static enum vkmoe_status check_kind(struct place *place, vkmoe_net_layer *layer,
                                    vkmoe_layer_desc *moe)
{
    enum vkmoe_status status = VKMOE_OK;
    switch (layer->kind) {
    case VKMOE_NET_MOE:
        return check_moe(place, layer, moe);
    case VKMOE_NET_LINEAR:
        TRY(check_size(place, "d_out", layer->d_out));
        return check_enum(place, "act", layer->act, VKMOE_ACT_SITU);
    case VKMOE_NET_NORM:
        return check_number(place, "eps", layer->eps, 0, INFINITY);
    case VKMOE_NET_POOL:
        TRY(refuse(place, place->of_examples, "kind = pool", "there is a pool layer before"));
        TRY(refuse(place, layer->residual, "residual", "not of a pool layer"));
        place->of_examples = true;
        return check_enum(place, "pool", layer->pool, VKMOE_POOL_MAX + 1);
    case VKMOE_NET_DROPOUT:
        return check_number(place, "rate", layer->rate, 0, 1);
    case VKMOE_NET_EMBED:
        TRY(refuse(place, place->layer > 0, "kind = embed", "only as the first layer"));
        TRY(refuse(place, layer->residual, "residual", "not of an embed layer"));
        if (place->net->d_in != 1)
            return moe_fail(VKMOE_E_SHAPE, "net.d_in = %u: 1 with embed", place->net->d_in);
        if (place->net->input_noise != 0)
            return moe_fail(VKMOE_E_ARGUMENT, "net.input_noise = %g: not on token numbers",
                            (double) place->net->input_noise);
        TRY(check_size(place, "d_out", layer->d_out));
        return check_size(place, "n_rows", layer->n_rows);
    }
    return moe_fail(VKMOE_E_ARGUMENT, "net.layers[%u].kind = %u: must be below %d", place->layer,
                    (uint32_t) layer->kind, VKMOE_NET_EMBED + 1);
fail:
    return status;
}

static enum vkmoe_status check_layers(struct moe_train_spec *spec)
{
    enum vkmoe_status status = VKMOE_OK;
    struct place place = {0, &spec->desc, spec->desc.d_in, false};
    for (; place.layer < spec->desc.n_layers; place.layer++) {
        vkmoe_net_layer *layer = &spec->layers[place.layer];
        TRY(refuse(&place, !spec->desc.layers[place.layer], "", "is NULL"));
        *layer = vkmoe_net_layer_init();
        TRY(moe_desc_copy(layer, sizeof *layer, spec->desc.layers[place.layer],
                          "vkmoe_net_layer"));
        TRY(check_kind(&place, layer, &spec->moe[place.layer]));
        uint32_t width = moe_train_width(layer, place.width);
        if (layer->residual && width != place.width)
            return moe_fail(VKMOE_E_SHAPE, "net.layers[%u].residual: a width of %u in, %u out",
                            place.layer, place.width, width);
        place.width = width;
    }
    spec->desc.max_examples =
        place.of_examples ? max_examples(&spec->desc) : spec->desc.max_tokens;
fail:
    return status;
}

// ---- loss and optimiser ----------------------------------------------------------------------

static enum vkmoe_status check_net_number(const char *field, float value, float least, float below)
{
    if (!(value >= least && value < below))
        return moe_fail(VKMOE_E_ARGUMENT, "net.%s = %g: must be at least %g and below %g", field,
                        (double) value, (double) least, (double) below);
    return VKMOE_OK;
}

static enum vkmoe_status check_above(const char *field, float value)
{
    if (!(value > 0 && isfinite(value)))
        return moe_fail(VKMOE_E_ARGUMENT, "net.%s = %g: must be above 0", field, (double) value);
    return VKMOE_OK;
}

// The mixture's experts are those of the last layer, and nothing else makes y.
static enum vkmoe_status check_mixture(const struct moe_train_spec *spec)
{
    enum vkmoe_status status;
    uint32_t i = spec->desc.n_layers - 1;
    const vkmoe_net_layer *layer = &spec->layers[i];
    const vkmoe_layer_desc *d = &spec->moe[i];
    TRY(check_above("variance", spec->desc.variance));
    if (layer->kind != VKMOE_NET_MOE || layer->combine != VKMOE_COMBINE_WEIGHTED_SUM)
        return moe_fail(VKMOE_E_ARGUMENT, "net.loss = mixture: layers[%u], the last one, must be a "
                        "moe layer of weighted_sum", i);
    if (layer->residual || d->d_shared_ff > 0 || d->c_routed != 1 || d->out_scale != 1)
        return moe_fail(VKMOE_E_ARGUMENT, "net.loss = mixture: layers[%u], the last one, must have "
                        "no residual, shared expert, c_routed or out_scale", i);
    if (d->score == VKMOE_SCORE_NONE && d->gate_source == VKMOE_GATE_SCORE)
        return moe_fail(VKMOE_E_ARGUMENT, "net.loss = mixture: layers[%u].layer.score = none: gate "
                        "weights may be negative, and have no logarithm then", i);
fail:
    return status;
}

static enum vkmoe_status check_cross_entropy(const vkmoe_net_desc *desc, uint32_t width)
{
    double sum = 0;
    enum vkmoe_status status = check_net_number("label_smoothing", desc->label_smoothing, 0, 1);
    for (uint32_t i = 0; status == VKMOE_OK && desc->class_weights && i < width; i++) {
        float weight = desc->class_weights[i];
        if (!(weight >= 0 && isfinite(weight)))
            return moe_fail(VKMOE_E_ARGUMENT, "net.class_weights[%u] = %g: must be at least 0", i,
                            (double) weight);
        sum += (double) weight;
    }
    if (status == VKMOE_OK && desc->class_weights && sum == 0)
        return moe_fail(VKMOE_E_ARGUMENT, "net.class_weights: all %u are 0", width);
    return status;
}

static enum vkmoe_status check_loss(const struct moe_train_spec *spec, uint32_t width)
{
    const vkmoe_net_desc *desc = &spec->desc;
    bool is_entropy = desc->loss == VKMOE_LOSS_CROSS_ENTROPY;
    if ((uint32_t) desc->loss > VKMOE_LOSS_MIXTURE)
        return moe_fail(VKMOE_E_ARGUMENT, "net.loss = %u: must be below %d", (uint32_t) desc->loss,
                        VKMOE_LOSS_MIXTURE + 1);
    if (!is_entropy && (desc->label_smoothing != 0 || desc->class_weights || desc->soft_targets))
        return moe_fail(VKMOE_E_ARGUMENT, "net.%s: of cross entropy only",
                        desc->label_smoothing != 0 ? "label_smoothing"
                        : desc->class_weights      ? "class_weights"
                                                   : "soft_targets");
    if (desc->loss != VKMOE_LOSS_MIXTURE && desc->labels)
        return moe_fail(VKMOE_E_ARGUMENT, "net.labels: of mixture only");
    if (is_entropy)
        return check_cross_entropy(desc, width);
    if (desc->loss == VKMOE_LOSS_MIXTURE)
        return check_mixture(spec);
    return desc->loss == VKMOE_LOSS_HUBER ? check_above("huber_delta", desc->huber_delta)
                                          : VKMOE_OK;
}

static enum vkmoe_status check_optimiser(const vkmoe_net_desc *desc)
{
    enum vkmoe_status status;
    if ((uint32_t) desc->optimiser > VKMOE_OPTIMISER_ADAMW)
        return moe_fail(VKMOE_E_ARGUMENT, "net.optimiser = %u: must be below %d",
                        (uint32_t) desc->optimiser, VKMOE_OPTIMISER_ADAMW + 1);
    TRY(check_net_number("momentum", desc->momentum, 0, 1));
    TRY(check_net_number("beta1", desc->beta1, 0, 1));
    TRY(check_net_number("beta2", desc->beta2, 0, 1));
    TRY(check_above("adam_eps", desc->adam_eps)); // an expert without rows yet: 0 / (0 + eps)
    TRY(check_net_number("decay", desc->decay, 0, INFINITY));
    TRY(check_net_number("clip_norm", desc->clip_norm, 0, INFINITY));
    if (desc->nesterov && desc->momentum == 0)
        return moe_fail(VKMOE_E_ARGUMENT, "net.nesterov: needs momentum");
    if (desc->n_groups > 0 && !desc->groups)
        return moe_fail(VKMOE_E_ARGUMENT, "net.groups is NULL, n_groups = %u", desc->n_groups);
    for (uint32_t i = 0; i < desc->n_groups; i++) {
        const vkmoe_net_group *group = &desc->groups[i];
        if (!group->match)
            return moe_fail(VKMOE_E_ARGUMENT, "net.groups[%u].match is NULL", i);
        if (!(group->rate_scale >= 0 && isfinite(group->rate_scale)) ||
            !(group->decay >= 0 && isfinite(group->decay)))
            return moe_fail(VKMOE_E_ARGUMENT, "net.groups[%u]: rate_scale = %g, decay = %g: must "
                            "be at least 0", i, (double) group->rate_scale, (double) group->decay);
    }
fail:
    return status;
}

static enum vkmoe_status check_sizes(const vkmoe_net_desc *desc)
{
    if (desc->n_layers == 0 || desc->n_layers > MOE_API_MAX_LAYERS || !desc->layers)
        return moe_fail(VKMOE_E_ARGUMENT, "net.n_layers = %u, layers %s: must be 1 to %u layers",
                        desc->n_layers, desc->layers ? "given" : "NULL", MOE_API_MAX_LAYERS);
    if (desc->d_in < 1 || desc->d_in > MOE_MAX_WIDTH)
        return moe_fail(VKMOE_E_ARGUMENT, "net.d_in = %u: must be 1 to %u", desc->d_in,
                        MOE_MAX_WIDTH);
    if (desc->max_tokens < 1 || desc->max_tokens > INT32_MAX ||
        desc->max_examples > INT32_MAX - 1)
        return moe_fail(VKMOE_E_ARGUMENT, "net.max_tokens = %u, max_examples = %u: must be 1 to "
                        "%d, and 0 to %d", desc->max_tokens, desc->max_examples, INT32_MAX,
                        INT32_MAX - 1);
    if (!moe_dtype_is_float(desc->weight_type))
        return moe_fail(VKMOE_E_ARGUMENT, "net.weight_type = %u: must be below %d",
                        (uint32_t) desc->weight_type, MOE_N_FLOAT_DTYPES);
    if (desc->precision != VKMOE_PRECISION_EXACT && desc->precision != VKMOE_PRECISION_HALF)
        return moe_fail(VKMOE_E_ARGUMENT, "net.precision = %u: must be exact (0) or half (1)",
                        (uint32_t) desc->precision);
    return check_net_number("input_noise", desc->input_noise, 0, INFINITY);
}

enum vkmoe_status moe_api_net_spec(const vkmoe_host *host, const vkmoe_net_desc *desc,
                                   struct moe_train_spec *out)
{
    enum vkmoe_status status;
    *out = (struct moe_train_spec){.desc = vkmoe_net_desc_init()};
    TRY(moe_desc_copy(&out->desc, sizeof out->desc, desc, "vkmoe_net_desc"));
    TRY(check_sizes(&out->desc));
    TRY(moe_try_alloc(host, out->desc.n_layers * sizeof *out->layers, "layers", &out->layers));
    TRY(moe_try_alloc(host, out->desc.n_layers * sizeof *out->moe, "layers", &out->moe));
    TRY(check_layers(out));
    uint32_t width = out->desc.d_in;
    for (uint32_t i = 0; i < out->desc.n_layers; i++)
        width = moe_train_width(&out->layers[i], width);
    TRY(check_loss(out, width));
    TRY(check_optimiser(&out->desc));
fail:
    return status;
}

void moe_api_net_spec_finish(const vkmoe_host *host, struct moe_train_spec *spec)
{
    moe_free(host, spec->layers);
    moe_free(host, spec->moe);
}
