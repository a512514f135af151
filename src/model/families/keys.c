// SPDX-License-Identifier: MIT
// What the keys of config.json and GGUF mean: one row each, for all families.
#include "model/families/families.h"

#include "base/bits.h"
#include "base/status.h"
#include "model/config.h"

#include <math.h>
#include <stdio.h>

enum key_kind {
    KEY_U32,
    KEY_REAL,
    KEY_SCALE,  // a real of which 0 means 1
    KEY_FLAG,
    KEY_NORM,   // are the gate weights renormalised?
    KEY_SCORE,  // the score's name, or llama.cpp's number of it
    KEY_ACT,    // the activation's name
    KEY_METHOD, // DeepSeek's topk_method
    KEY_ZERO,   // what identity experts do
    KEY_LIMIT,  // of clamped experts, both kinds
    KEY_SHARED_LIMIT, // of the shared one alone
};

struct key {
    const char *hf, *gguf;
    enum key_kind kind;
    size_t offset; // in struct moe_facts
};

#define AT(field) offsetof(struct moe_facts, field)

// The first name that is there counts: special ones stand before general ones.
static const struct key keys[] = {
    {"num_experts|n_routed_experts|num_local_experts|moe_num_experts|num_routed_experts|"
     "moe_num_primary_experts|n_experts", "expert_count", KEY_U32, AT(d.n_experts)},
    {"num_experts_per_tok|moe_topk|moe_k|moe_top_k|experts_per_token|num_experts_per_token|"
     "top_k_experts|num_selected_experts|num_activated_experts|moe_num_active_primary_experts",
     "expert_used_count", KEY_U32, AT(d.top_k)},
    {"hidden_size|d_model|n_embd|emb_size", "embedding_length", KEY_U32, AT(d.d_model)},
    {"moe_intermediate_size|moe_ffn_hidden_size|expert_ffn_hidden_size|expert_hidden_dim|"
     "moe_ffn_dim|ffn_hidden_size|expert_dim|encoder_ffn_dim|d_ff|n_inner|intermediate_size",
     "expert_feed_forward_length", KEY_U32, AT(d.d_ff)},
    {"zero_expert_num", NULL, KEY_U32, AT(d.n_zero)},
    {"zero_expert_type", NULL, KEY_ZERO, 0}, // behind their number
    {"moe_latent_size|routed_expert_hidden_size|expert_latent_size",
     "moe_latent_size|expert_latent_length", KEY_U32, AT(d.d_latent)},
    {"shared_expert_intermediate_size|moe_shared_expert_intermediate_size|"
     "shared_intermediate_size|share_expert_dim|share_expert_dims",
     "expert_shared_feed_forward_length", KEY_U32, AT(d_shared)},
    {"n_shared_experts|num_shared_experts|moe_num_shared_experts|num_shared_expert",
     "expert_shared_count", KEY_U32, AT(n_shared)},

    {"n_group|num_expert_group|num_expert_groups", "expert_group_count", KEY_U32, AT(d.n_group)},
    {"topk_group|num_limited_groups|topk_groups", "expert_group_used_count", KEY_U32,
     AT(d.topk_group)},
    {"topk_method", NULL, KEY_METHOD, 0},
    {"scoring_func|score_function|moe_router_score_function|router_score_function|score_func|"
     "expert_selection_fn|moe_router_activation_func|router_activation|moe_router_activation",
     "expert_gating_func", KEY_SCORE, 0},
    {"norm_topk_prob|norm_expert_weight|route_norm|moe_renormalize|norm_topk|"
     "moe_normalize_topk|router_norm_topk_prob", "expert_weights_norm", KEY_NORM, 0},
    {"routed_scaling_factor|moe_routed_scaling_factor|router_scaling_factor|route_scale|"
     "moe_router_scaling_factor", "expert_weights_scale", KEY_SCALE, AT(d.routed_scale)},
    {"use_routing_bias|use_expert_bias|moe_use_aux_free|moe_router_enable_expert_bias|"
     "use_moe_router_bias", NULL, KEY_FLAG, AT(d.selection_bias)},
    {"router_bias", NULL, KEY_FLAG, AT(d.router_bias)},
    {"moe_router_logit_softcapping|router_logit_softcapping", "router_logit_softcapping", KEY_REAL,
     AT(d.logit_softcap)},
    {"num_hash_layers", "hash_layer_count", KEY_U32, AT(n_hash)},

    {"mlp_hidden_act|hidden_act|hidden_activation|activation_function|dense_act_fn|ffn_act_fn",
     NULL, KEY_ACT, 0},
    {"swiglu_alpha", NULL, KEY_REAL, AT(d.act_alpha)},
    {"swiglu_limit|swiglu_limits|expert_swiglu_limit", "swiglu_clamp_exp", KEY_LIMIT, 0},
    {"swiglu_limits_shared|shared_swiglu_limit", "swiglu_clamp_shexp", KEY_SHARED_LIMIT, 0},
    {"activation_situ_beta", "activation.situ_beta", KEY_REAL, AT(d.situ_beta)},
    {"activation_situ_linear_beta", "activation.situ_linear_beta", KEY_REAL, AT(d.situ_lambda)},
    {"rms_norm_eps|layer_norm_epsilon", "attention.layer_norm_rms_epsilon", KEY_REAL, AT(rms_eps)},

    {"experts_per_group", "experts_per_group", KEY_U32, AT(d.adjugate_group)},
    {"small_expert_scale|expert_group_scale", "expert_group_scale", KEY_REAL,
     AT(d.adjugate_scale)},
};

static enum vkmoe_status wrong(const struct moe_lookup *lookup, const struct moe_value *value,
                               const char *what)
{
    return moe_fail(VKMOE_E_DATA, "%s: %.*s is not %s", lookup->file,
                    (int) strcspn(value->key, "|"), value->key, what);
}

// ---- kinds -----------------------------------------------------------------------------------

static enum vkmoe_status take_real(const struct moe_lookup *lookup, const struct moe_value *value,
                                   float *out)
{
    if (value->kind != MOE_VALUE_NUMBER || !isfinite((float) value->number))
        return wrong(lookup, value, "a number that f32 holds");
    *out = (float) value->number;
    return VKMOE_OK;
}

static enum vkmoe_status take_norm(const struct moe_lookup *lookup, const struct moe_value *value,
                                   struct moe_facts *facts)
{
    if (value->kind != MOE_VALUE_BOOL)
        return wrong(lookup, value, "true or false");
    if (value->number == 0)
        facts->d.norm = VKMOE_NORM_NONE;
    else if (facts->d.norm == VKMOE_NORM_NONE &&
             facts->d.gate_source != VKMOE_GATE_SOFTMAX_SELECTED)
        facts->d.norm = VKMOE_NORM_SUM_PLUS_EPS;
    return VKMOE_OK;
}

struct word {
    const char *words;
    int value;
};

static bool find_word(const struct word *words, size_t n, const char *word, int *out)
{
    for (size_t i = 0; i < n; i++) {
        if (moe_word_index(words[i].words, word) >= 0) {
            *out = words[i].value;
            return true;
        }
    }
    return false;
}

enum { SCORE_OF_FAMILY = -1 }; // the word is of something else

static enum vkmoe_status take_score(const struct moe_lookup *lookup, const struct moe_value *value,
                                    struct moe_facts *facts)
{
    static const struct word words[] = {
        {"softmax", VKMOE_SCORE_SOFTMAX},
        {"sigmoid", VKMOE_SCORE_SIGMOID},
        {"sqrtsoftplus|sqrt_softplus", VKMOE_SCORE_SQRT_SOFTPLUS},
        {"noaux_tc", SCORE_OF_FAMILY}, // dots1 says here how experts are selected
    };
    int score;
    if (value->kind == MOE_VALUE_TEXT) {
        if (!find_word(words, MOE_COUNT(words), value->text, &score))
            return moe_fail(VKMOE_E_UNSUPPORTED, "%s: %.*s is '%.40s'; known here are softmax, "
                            "sigmoid and sqrtsoftplus", lookup->file,
                            (int) strcspn(value->key, "|"), value->key, value->text);
        if (score != SCORE_OF_FAMILY)
            facts->d.score = (enum vkmoe_score) score;
        return VKMOE_OK;
    }
    if (value->kind != MOE_VALUE_NUMBER)
        return wrong(lookup, value, "the name of a score");
    switch (value->number >= 0 && value->number <= 4 ? (int) value->number : -1) {
    case 0: // not said
        break;
    case 1:
        facts->d.score = VKMOE_SCORE_SOFTMAX;
        break;
    case 2:
        facts->d.score = VKMOE_SCORE_SIGMOID;
        break;
    case 3:
        facts->d.score = VKMOE_SCORE_SOFTMAX;
        facts->d.rank = VKMOE_RANK_LOGIT;
        facts->d.gate_source = VKMOE_GATE_SOFTMAX_SELECTED;
        facts->d.norm = VKMOE_NORM_NONE;
        break;
    case 4:
        facts->d.score = VKMOE_SCORE_SQRT_SOFTPLUS;
        break;
    default:
        return wrong(lookup, value, "a gating function from 1 to 4");
    }
    return VKMOE_OK;
}

static enum vkmoe_status take_act(const struct moe_lookup *lookup, const struct moe_value *value,
                                  struct moe_facts *facts)
{
    static const struct word words[] = {
        {"silu|swish|swiglu", VKMOE_ACT_SILU},
        {"gelu|gelu_python", VKMOE_ACT_GELU_ERF},
        {"gelu_new|gelu_fast|gelu_pytorch_tanh|gelu_tanh", VKMOE_ACT_GELU_TANH},
        {"relu", VKMOE_ACT_RELU},
        {"relu2|relu_squared", VKMOE_ACT_RELU2},
        {"sigmoid", VKMOE_ACT_SIGMOID},
        {"tanh", VKMOE_ACT_TANH},
        {"situ", VKMOE_ACT_SITU},
    };
    int act;
    if (value->kind != MOE_VALUE_TEXT)
        return wrong(lookup, value, "the name of an activation");
    // Clamped experts and those with another activation have theirs by family: configurations of
    // Grok say "silu", those of Nemotron-H give that of their other layers.
    if (facts->d.clamp != VKMOE_CLAMP_NONE || facts->d.act != VKMOE_ACT_SILU)
        return VKMOE_OK;
    if (!find_word(words, MOE_COUNT(words), value->text, &act))
        return moe_fail(VKMOE_E_UNSUPPORTED, "%s: activation '%.40s' is not known here",
                        lookup->file, value->text);
    facts->d.act = (enum vkmoe_act) act;
    return VKMOE_OK;
}

static enum vkmoe_status take_method(const struct moe_value *value, struct moe_facts *facts)
{
    if (value->kind != MOE_VALUE_TEXT)
        return VKMOE_OK;
    if (strcmp(value->text, "greedy") == 0)
        facts->d.n_group = 0;
    if (strcmp(value->text, "noaux_tc") == 0)
        facts->d.group_score = VKMOE_GROUP_TOP2_SUM;
    return VKMOE_OK;
}

static enum vkmoe_status take_zero(const struct moe_lookup *lookup, const struct moe_value *value,
                                   const struct moe_facts *facts)
{
    if (facts->d.n_zero == 0)
        return VKMOE_OK;
    if (value->kind != MOE_VALUE_TEXT)
        return wrong(lookup, value, "the name of a kind of expert");
    if (strcmp(value->text, "identity") != 0)
        return moe_fail(VKMOE_E_UNSUPPORTED, "%s: %.*s is '%.40s'; known here is identity",
                        lookup->file, (int) strcspn(value->key, "|"), value->key, value->text);
    return VKMOE_OK;
}

// Experts of a family are clamped on one side of the activation or not at all, which no key says.
// 0 is no limit.
static enum vkmoe_status take_limit(const struct moe_lookup *lookup, const struct moe_value *value,
                                    float *out, struct moe_facts *facts)
{
    float limit = 0;
    enum vkmoe_status status;
    TRY(take_real(lookup, value, &limit));
    if (limit < 0)
        return wrong(lookup, value, "0 or more");
    if (limit > 0 && facts->d.clamp == VKMOE_CLAMP_NONE)
        return moe_fail(VKMOE_E_UNSUPPORTED, "%s: %.*s is %g, but this family's experts are not "
                        "clamped", lookup->file, (int) strcspn(value->key, "|"), value->key,
                        (double) limit);
    *out = limit;

fail:
    return status;
}

static enum vkmoe_status take(const struct moe_lookup *lookup, const struct key *key,
                              const struct moe_value *value, struct moe_facts *facts)
{
    void *at = (char *) facts + key->offset;
    float real = 0;
    enum vkmoe_status status;
    switch (key->kind) {
    case KEY_U32:
        return VKMOE_OK; // moe_look_up_u32
    case KEY_REAL:
        return take_real(lookup, value, at);
    case KEY_SCALE:
        status = take_real(lookup, value, &real);
        if (status == VKMOE_OK)
            *(float *) at = real == 0 ? 1 : real;
        return status;
    case KEY_FLAG:
        if (value->kind != MOE_VALUE_BOOL)
            return wrong(lookup, value, "true or false");
        *(bool *) at = value->number != 0;
        return VKMOE_OK;
    case KEY_NORM:
        return take_norm(lookup, value, facts);
    case KEY_SCORE:
        return take_score(lookup, value, facts);
    case KEY_ACT:
        return take_act(lookup, value, facts);
    case KEY_METHOD:
        return take_method(value, facts);
    case KEY_ZERO:
        return take_zero(lookup, value, facts);
    case KEY_LIMIT:
        status = take_limit(lookup, value, &facts->d.limit, facts);
        facts->d.limit_shared = facts->d.limit;
        return status;
    case KEY_SHARED_LIMIT:
        return take_limit(lookup, value, &facts->d.limit_shared, facts);
    }
    return VKMOE_OK;
}

// ---- all of them -----------------------------------------------------------------------------

// Limits that are 0 or absent mean none.
static void settle_clamp(vkmoe_layer_desc *d)
{
    if (d->clamp == VKMOE_CLAMP_NONE)
        return;
    if (!(d->limit > 0) && !(d->limit_shared > 0)) {
        d->clamp = VKMOE_CLAMP_NONE;
        d->limit = d->limit_shared = 0;
        return;
    }
    if (!(d->limit > 0))
        d->limit = 3e38f;
    if (!(d->limit_shared > 0))
        d->limit_shared = 3e38f;
}

bool moe_family_key(const struct moe_lookup *lookup, size_t offset, uint32_t layer, char out[64])
{
    for (size_t i = 0; i < MOE_COUNT(keys); i++) {
        struct moe_value value;
        bool is_field = keys[i].kind <= KEY_FLAG && keys[i].offset == offset;
        if (is_field && moe_look_up(lookup, keys[i].hf, keys[i].gguf, layer, &value) == VKMOE_OK &&
            value.kind != MOE_VALUE_NONE) {
            snprintf(out, 64, "%.*s", (int) strcspn(value.key, "|"), value.key);
            return true;
        }
    }
    return false;
}

enum vkmoe_status moe_family_facts(const struct moe_family *family, const struct moe_lookup *lookup,
                                   uint32_t layer, struct moe_facts *out)
{
    enum vkmoe_status status;
    *out = (struct moe_facts){.d = family->rules, .n_shared = family->n_shared};
    out->d.struct_size = sizeof out->d;
    if (lookup->gguf) {
        // The writers of GGUF leave out a key of 1, and a shared expert is there or not.
        out->d.routed_scale = 1;
        out->n_shared = 0;
    }
    for (size_t i = 0; i < MOE_COUNT(keys); i++) {
        const struct key *key = &keys[i];
        struct moe_value value;
        if (key->kind == KEY_U32) {
            TRY(moe_look_up_u32(lookup, key->hf, key->gguf, layer,
                                (uint32_t *) (void *) ((char *) out + key->offset)));
            continue;
        }
        TRY(moe_look_up(lookup, key->hf, key->gguf, layer, &value));
        if (value.kind != MOE_VALUE_NONE)
            TRY(take(lookup, key, &value, out));
    }
    if (out->d.n_group <= 1)
        out->d.n_group = out->d.topk_group = 0;
    if (out->d.latent_norm)
        out->d.latent_norm_eps = out->rms_eps > 0 ? out->rms_eps : 1e-6f;
    if (family->special)
        TRY(family->special(lookup, layer, out));
    settle_clamp(&out->d);

fail:
    return status;
}
