// SPDX-License-Identifier: MIT
// `layers` of a configuration.
#include "model/description_parts.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "model/families/families.h"

#define ACTIVATIONS "none|silu|gelu_erf|gelu_tanh|relu|relu2|sigmoid|tanh" // as in enum vkmoe_act

// A layer being read.
struct reading {
    struct moe_config c;
    vkmoe_net_layer *layer;
    vkmoe_layer_desc *moe;
    uint32_t d_in, d_out;
};

// A key that another one's value leaves no place for.
static enum vkmoe_status refuse(const struct moe_config *c, const char *key, const char *needs)
{
    return moe_config_has(c, key) ? moe_config_fail(c, VKMOE_E_DATA, key, "needs %s", needs)
                                  : VKMOE_OK;
}

// An optional number in [0, limit); limit 0: none.
static enum vkmoe_status read_amount(const struct moe_config *c, const char *key, float limit,
                                     float *out)
{
    enum vkmoe_status status = moe_config_real(c, key, out);
    if (status != VKMOE_OK || (*out >= 0 && (limit == 0 || *out < limit)))
        return status;
    if (limit == 0)
        return moe_config_fail(c, VKMOE_E_DATA, key, "%g: at least 0", (double) *out);
    return moe_config_fail(c, VKMOE_E_DATA, key, "%g: from 0 up to, not including, %g",
                           (double) *out, (double) limit);
}

// ---- router ----------------------------------------------------------------------------------

static enum vkmoe_status read_scorer(const struct moe_config *c, struct reading *r)
{
    enum vkmoe_status status;
    int scorer = VKMOE_SCORER_LINEAR;
    TRY(moe_config_word(c, "scorer", "linear|kernel|additive|multiplicative|one|sum", NULL,
                        &scorer)); // as in enum vkmoe_scorer
    r->layer->scorer = (enum vkmoe_scorer) scorer;
    if (scorer == VKMOE_SCORER_ADDITIVE || scorer == VKMOE_SCORER_MULTIPLICATIVE)
        TRY(moe_config_size(c, "d_score", &r->layer->d_score));
    else
        TRY(refuse(c, "d_score", "scorer additive or multiplicative"));
    if (scorer != VKMOE_SCORER_KERNEL)
        TRY(refuse(c, "score_width", "scorer kernel"));
    TRY(moe_config_real(c, "score_width", &r->layer->score_width));
    if (!(r->layer->score_width > 0))
        return moe_config_fail(c, VKMOE_E_DATA, "score_width", "%g: above 0",
                               (double) r->layer->score_width);
    if (scorer != VKMOE_SCORER_LINEAR && scorer != VKMOE_SCORER_ONE && r->moe->router_bias)
        return moe_config_fail(c, VKMOE_E_DATA, "bias", "needs scorer linear or one");

fail:
    return status;
}

static enum vkmoe_status read_balancing(const struct moe_config *c, struct reading *r)
{
    enum vkmoe_status status;
    TRY(moe_config_bool(c, "noisy", &r->layer->noisy));
    TRY(read_amount(c, "load_balance", 0, &r->layer->load_balance));
    TRY(read_amount(c, "z_loss", 0, &r->layer->z_loss));
    TRY(read_amount(c, "bias_rate", 0, &r->layer->bias_rate));
    if (r->layer->bias_rate > 0 && !r->moe->selection_bias)
        return moe_config_fail(c, VKMOE_E_DATA, "bias_rate", "needs selection_bias");

fail:
    return status;
}

static enum vkmoe_status read_router(struct reading *r)
{
    static const char *const keys[] = {
        "score",  "order",   "renormalize", "eps",   "routed_scale", "bias",   "selection_bias",
        "scorer", "d_score", "score_width", "noisy", "load_balance", "z_loss", "bias_rate", NULL};
    static const enum vkmoe_score scores[] = {VKMOE_SCORE_SOFTMAX, VKMOE_SCORE_SIGMOID,
                                              VKMOE_SCORE_NONE};
    enum { SCORE_THEN_TOPK, TOPK_THEN_SCORE };
    enum vkmoe_status status;
    struct moe_config c;
    vkmoe_layer_desc *desc = r->moe;
    int score = -1, order = -1;
    bool renormalize = false;
    TRY(moe_config_object(&r->c, "router", &c));
    TRY(moe_config_keys(&c, keys));
    TRY(moe_config_word(&c, "score", "softmax|sigmoid|none", NULL, &score));
    TRY(moe_config_word(&c, "order", "score_then_topk|topk_then_score", NULL, &order));
    TRY(moe_config_bool(&c, "renormalize", &renormalize));
    TRY(moe_config_real(&c, "eps", &desc->norm_eps));
    TRY(moe_config_real(&c, "routed_scale", &desc->routed_scale));
    TRY(moe_config_bool(&c, "bias", &desc->router_bias));
    TRY(moe_config_bool(&c, "selection_bias", &desc->selection_bias));
    if (desc->norm_eps < 0 || (desc->norm_eps > 0 && !renormalize))
        return moe_config_fail(&c, VKMOE_E_DATA, "eps", "needs renormalize, and to be >= 0");
    desc->score = scores[score];
    desc->rank = order == SCORE_THEN_TOPK ? VKMOE_RANK_SCORE : VKMOE_RANK_LOGIT;
    // A sigmoid of the selected logits is the selected score; only softmax depends on the rest.
    if (order == TOPK_THEN_SCORE && desc->score == VKMOE_SCORE_SOFTMAX)
        desc->gate_source = VKMOE_GATE_SOFTMAX_SELECTED;
    desc->norm = renormalize ? VKMOE_NORM_SUM_PLUS_EPS : VKMOE_NORM_NONE;
    TRY(read_scorer(&c, r));
    TRY(read_balancing(&c, r));

fail:
    return status;
}

// ---- experts ---------------------------------------------------------------------------------

static enum vkmoe_status read_expert(struct reading *r)
{
    static const char *const keys[] = {"kind", "gated", "activation", "output_activation", "bias",
                                       "dropout", NULL};
    enum { MLP, LINEAR };
    enum vkmoe_status status;
    struct moe_config c;
    vkmoe_layer_desc *desc = r->moe;
    int kind = MLP, act = -1, act_out = VKMOE_ACT_NONE;
    bool bias = false;
    TRY(moe_config_object(&r->c, "expert", &c));
    TRY(moe_config_keys(&c, keys));
    TRY(moe_config_word(&c, "kind", "mlp|linear", NULL, &kind));
    if (kind == LINEAR) {
        TRY(refuse(&c, "gated", "kind mlp"));
        TRY(refuse(&c, "output_activation", "kind mlp"));
        TRY(refuse(&c, "dropout", "kind mlp"));
        TRY(refuse(&r->c, "d_ff", "expert kind mlp"));
    } else {
        TRY(moe_config_size(&r->c, "d_ff", &desc->d_ff));
    }
    TRY(moe_config_bool(&c, "gated", &desc->gated));
    TRY(moe_config_word(&c, "activation", ACTIVATIONS, NULL, &act));
    TRY(moe_config_word(&c, "output_activation", ACTIVATIONS, NULL, &act_out));
    TRY(moe_config_bool(&c, "bias", &bias));
    TRY(read_amount(&c, "dropout", 1, &r->layer->hidden_dropout));
    desc->expert_kind = kind == LINEAR ? VKMOE_EXPERT_LINEAR : VKMOE_EXPERT_MLP;
    desc->act = (enum vkmoe_act) act;
    desc->act_out = (enum vkmoe_act) act_out;
    desc->gate_bias = bias && desc->gated;
    desc->up_bias = bias;
    desc->down_bias = bias && kind == MLP;

fail:
    return status;
}

static enum vkmoe_status read_shared(struct reading *r)
{
    static const char *const keys[] = {"d_ff", "gate", NULL};
    enum vkmoe_status status;
    struct moe_config c;
    int gate = 0;
    if (!moe_config_has(&r->c, "shared"))
        return VKMOE_OK;
    TRY(moe_config_object(&r->c, "shared", &c));
    TRY(moe_config_keys(&c, keys));
    TRY(moe_config_size(&c, "d_ff", &r->moe->d_shared_ff));
    TRY(moe_config_word(&c, "gate", "none|sigmoid", NULL, &gate));
    r->moe->shared_gate = gate == 0 ? VKMOE_SHARED_PLAIN : VKMOE_SHARED_SIGMOID;
    if (r->layer->combine != VKMOE_COMBINE_WEIGHTED_SUM ||
        r->moe->expert_kind != VKMOE_EXPERT_MLP)
        return moe_config_fail(&r->c, VKMOE_E_DATA, "shared",
                               "needs combine weighted_sum and expert kind mlp");

fail:
    return status;
}

static enum vkmoe_status read_queries(struct reading *r)
{
    static const char *const keys[] = {"pairing", "d_query", NULL};
    enum vkmoe_status status;
    struct moe_config c;
    int pairing = -1;
    if (!moe_config_has(&r->c, "queries"))
        return VKMOE_OK;
    if (r->layer->combine == VKMOE_COMBINE_WEIGHTED_SUM)
        return moe_config_fail(&r->c, VKMOE_E_DATA, "queries", "needs a combine without a router");
    TRY(moe_config_object(&r->c, "queries", &c));
    TRY(moe_config_keys(&c, keys));
    TRY(moe_config_word(&c, "pairing", "each|all", NULL, &pairing));
    TRY(moe_config_size(&c, "d_query", &r->layer->d_query));
    r->layer->pairing = pairing == 0 ? VKMOE_PAIRING_EACH : VKMOE_PAIRING_ALL;
    r->moe->d_model = r->layer->d_query;

fail:
    return status;
}

// The rules of vkmoe_layer_check, with what networks compute beyond plans replaced.
static enum vkmoe_status check_moe(const struct reading *r)
{
    vkmoe_layer_desc desc = *r->moe;
    if (desc.expert_kind == VKMOE_EXPERT_LINEAR) {
        desc.expert_kind = VKMOE_EXPERT_MLP;
        desc.d_ff = 1;
    }
    if (desc.score == VKMOE_SCORE_NONE)
        desc.score = VKMOE_SCORE_SOFTMAX;
    enum vkmoe_status status = vkmoe_layer_check(&desc);
    if (status == VKMOE_OK)
        return status;
    // Whatever is wrong, it is the file's fault.
    return moe_config_fail(&r->c, status == VKMOE_E_UNSUPPORTED ? status : VKMOE_E_DATA, "", "%s",
                           vkmoe_error_text());
}

// A layer in full, by the fields of vkmoe_layer_desc.
static enum vkmoe_status read_full(struct reading *r)
{
    static const char *const keys[] = {"kind", "d_in", "layer", "residual", NULL};
    enum vkmoe_status status;
    struct moe_config c;
    const char *key;
    json_t *value;
    vkmoe_layer_desc *desc = r->moe;
    TRY(moe_config_keys(&r->c, keys));
    TRY(moe_config_object(&r->c, "layer", &c));
    json_object_foreach((json_t *) c.object, key, value) {
        if (moe_layer_field_is_type(key))
            return moe_config_fail(&c, VKMOE_E_DATA, key, "the tensors say it");
    }
    TRY(moe_layer_fields_read(c.object, desc));
    if (desc->expert_kind != VKMOE_EXPERT_MLP)
        return moe_config_fail(&c, VKMOE_E_UNSUPPORTED, "expert_kind", "mlp only");
    if (desc->d_model != r->d_in)
        return moe_config_fail(&c, VKMOE_E_DATA, "d_model", "%u, but the layer is given %u",
                               desc->d_model, r->d_in);
    if (desc->d_out == 0)
        desc->d_out = desc->d_model;
    r->d_out = desc->d_out;
    TRY(check_moe(r));

fail:
    return status;
}

static enum vkmoe_status read_moe(struct reading *r)
{
    static const char *const keys[] = {"kind", "d_in", "d_ff", "d_out", "n_experts", "top_k",
                                       "router", "expert", "shared", "combine", "queries",
                                       "recompute", "residual", NULL};
    enum vkmoe_status status;
    const struct moe_config *c = &r->c;
    vkmoe_layer_desc *desc = r->moe;
    int combine = VKMOE_COMBINE_WEIGHTED_SUM;
    *desc = vkmoe_layer_desc_init();
    r->layer->layer = desc;
    desc->d_model = r->d_in;
    desc->d_out = r->d_in;
    if (moe_config_has(c, "layer"))
        return read_full(r);
    TRY(moe_config_keys(c, keys));
    if (moe_config_has(c, "d_out"))
        TRY(moe_config_size(c, "d_out", &desc->d_out));
    TRY(moe_config_size(c, "n_experts", &desc->n_experts));
    TRY(moe_config_word(c, "combine",
                        "weighted_sum|mean|stack|response_share|attention|vote", NULL, &combine));
    r->layer->combine = (enum vkmoe_combine) combine;
    desc->top_k = desc->n_experts;
    if (combine == VKMOE_COMBINE_WEIGHTED_SUM) {
        TRY(moe_config_size(c, "top_k", &desc->top_k));
        TRY(read_router(r));
    } else {
        TRY(refuse(c, "top_k", "combine weighted_sum"));
        TRY(refuse(c, "router", "combine weighted_sum"));
    }
    TRY(read_expert(r));
    TRY(read_shared(r));
    TRY(read_queries(r));
    TRY(moe_config_bool(c, "recompute", &r->layer->recompute));
    if (desc->top_k > desc->n_experts)
        return moe_config_fail(c, VKMOE_E_DATA, "top_k", "%u of %u experts", desc->top_k,
                               desc->n_experts);
    r->d_out = desc->d_out;
    TRY(check_moe(r));

fail:
    return status;
}

// ---- other kinds -----------------------------------------------------------------------------

static enum vkmoe_status read_linear(struct reading *r)
{
    static const char *const keys[] = {"kind", "d_in", "d_out", "activation", "bias", "residual",
                                       NULL};
    enum vkmoe_status status;
    int act = VKMOE_ACT_NONE;
    r->layer->bias = true;
    TRY(moe_config_keys(&r->c, keys));
    TRY(moe_config_size(&r->c, "d_out", &r->layer->d_out));
    TRY(moe_config_word(&r->c, "activation", ACTIVATIONS, NULL, &act));
    TRY(moe_config_bool(&r->c, "bias", &r->layer->bias));
    r->layer->act = (enum vkmoe_act) act;
    r->d_out = r->layer->d_out;

fail:
    return status;
}

static enum vkmoe_status read_norm(struct reading *r)
{
    static const char *const keys[] = {"kind", "d_in", "rms", "bias", "eps", "residual", NULL};
    enum vkmoe_status status;
    TRY(moe_config_keys(&r->c, keys));
    TRY(moe_config_bool(&r->c, "rms", &r->layer->rms));
    r->layer->bias = !r->layer->rms;
    TRY(moe_config_bool(&r->c, "bias", &r->layer->bias));
    TRY(read_amount(&r->c, "eps", 0, &r->layer->eps));
    r->d_out = r->d_in;

fail:
    return status;
}

static enum vkmoe_status read_pool(struct reading *r)
{
    static const char *const keys[] = {"kind", "d_in", "pool", NULL};
    enum vkmoe_status status;
    int pool = -1;
    TRY(moe_config_keys(&r->c, keys));
    TRY(moe_config_word(&r->c, "pool", "mean|sum|max", NULL, &pool)); // as in enum vkmoe_pool
    r->layer->pool = (enum vkmoe_pool) pool;
    r->d_out = r->d_in;

fail:
    return status;
}

static enum vkmoe_status read_dropout(struct reading *r)
{
    static const char *const keys[] = {"kind", "d_in", "rate", "residual", NULL};
    enum vkmoe_status status;
    TRY(moe_config_keys(&r->c, keys));
    if (!moe_config_has(&r->c, "rate"))
        return moe_config_fail(&r->c, VKMOE_E_DATA, "rate", "missing");
    TRY(read_amount(&r->c, "rate", 1, &r->layer->rate));
    r->d_out = r->d_in;

fail:
    return status;
}

// ---- all of them -----------------------------------------------------------------------------

static enum vkmoe_status read_layer(struct reading *r, const char *before)
{
    static enum vkmoe_status (*const readers[])(struct reading *) = {
        [VKMOE_NET_MOE] = read_moe,         [VKMOE_NET_LINEAR] = read_linear,
        [VKMOE_NET_NORM] = read_norm,       [VKMOE_NET_POOL] = read_pool,
        [VKMOE_NET_DROPOUT] = read_dropout,
    };
    enum vkmoe_status status;
    int kind = -1;
    uint32_t d_in = r->d_in;
    *r->layer = vkmoe_net_layer_init();
    TRY(moe_config_word(&r->c, "kind", "moe|linear|norm|pool|dropout", "recurrent", &kind));
    r->layer->kind = (enum vkmoe_net_kind) kind;
    TRY(readers[kind](r));
    if (moe_config_has(&r->c, "d_in"))
        TRY(moe_config_size(&r->c, "d_in", &d_in));
    if (d_in != r->d_in)
        return moe_config_fail(&r->c, VKMOE_E_DATA, "d_in", "%u, but %s gives %u", d_in, before,
                               r->d_in);
    TRY(moe_config_bool(&r->c, "residual", &r->layer->residual));
    if (r->layer->residual && r->d_out != r->d_in)
        return moe_config_fail(&r->c, VKMOE_E_DATA, "residual", "needs a width out, %u, as in, %u",
                               r->d_out, r->d_in);

fail:
    return status;
}

static enum vkmoe_status note_pool(struct moe_description *d, const struct reading *r, int index)
{
    if (d->info.input == VKMOE_INPUT_EMBED_BAG)
        return moe_config_fail(&r->c, VKMOE_E_DATA, "kind", "pool: embed_bag is one already");
    if (d->pool != MOE_NO_LAYER)
        return moe_config_fail(&r->c, VKMOE_E_DATA, "kind", "pool: layers[%d] is one already",
                               d->pool);
    d->pool = index;
    return VKMOE_OK;
}

// Every layer takes what the one before gives.
enum vkmoe_status moe_description_read_layers(struct moe_description *d,
                                              const struct moe_config *top)
{
    enum vkmoe_status status;
    size_t n;
    TRY(moe_config_array(top, "layers", &n));
    if (n > MOE_CONFIG_MAX)
        return moe_config_fail(top, VKMOE_E_DATA, "layers", "%zu, at most %d", n, MOE_CONFIG_MAX);
    TRY(moe_try_alloc(&d->host, n * sizeof *d->layers, "layers", &d->layers));
    TRY(moe_try_alloc(&d->host, n * sizeof *d->moe, "layers", &d->moe));
    TRY(moe_try_alloc(&d->host, n * sizeof *d->widths, "layers", &d->widths));
    uint32_t width = moe_input_is_text(d->info.input) ? d->d_table : d->info.n_features;
    for (size_t i = 0; i < n; i++) {
        struct reading r = {.layer = &d->layers[i], .moe = &d->moe[i], .d_in = width};
        TRY(moe_config_item(top, "layers", i, &r.c));
        TRY(read_layer(&r, i ? "the layer before" : "the input"));
        if (r.layer->kind == VKMOE_NET_POOL)
            TRY(note_pool(d, &r, (int) i));
        d->widths[i] = width;
        width = r.d_out;
        d->info.n_layers++;
    }
    d->info.n_outputs = width;
    if (d->info.input == VKMOE_INPUT_EMBED && d->pool == MOE_NO_LAYER)
        return moe_config_fail(top, VKMOE_E_DATA, "layers", "input embed needs a pool layer");

fail:
    return status;
}
