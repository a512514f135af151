// SPDX-License-Identifier: MIT
#include "model/families/special.h"

#include "base/status.h"

#include <math.h>

// A number of the file, where it is there, in place of a field.
static enum vkmoe_status take_float(const struct moe_lookup *lookup, const char *key,
                                    uint32_t layer, float *field)
{
    struct moe_value value;
    enum vkmoe_status status = moe_look_up(lookup, key, NULL, layer, &value);
    if (status == VKMOE_OK && value.kind == MOE_VALUE_NUMBER)
        *field = (float) value.number;
    return status;
}

// What trains as jitter decides in evaluation, too, how far below the best an expert may be.
enum vkmoe_status moe_special_phimoe(const struct moe_lookup *lookup, uint32_t layer,
                                     struct moe_facts *facts)
{
    return take_float(lookup, "router_jitter_noise", layer, &facts->d.sparsemixer_eps);
}

enum vkmoe_status moe_special_switch(const struct moe_lookup *lookup, uint32_t layer,
                                     struct moe_facts *facts)
{
    vkmoe_layer_desc *d = &facts->d;
    enum vkmoe_status status =
        moe_look_up_u32(lookup, "expert_capacity", NULL, layer, &d->capacity);
    if (d->capacity > 0)
        d->capacity_mode = VKMOE_CAPACITY_BY_POSITION;
    return status;
}

// The scale is that of the routed sum, not of the gate weights.
enum vkmoe_status moe_special_scaled_sum(const struct moe_lookup *lookup, uint32_t layer,
                                         struct moe_facts *facts)
{
    (void) lookup, (void) layer;
    facts->d.c_routed = facts->d.routed_scale;
    facts->d.routed_scale = 1;
    return VKMOE_OK;
}

// In evaluation the routed sum is scaled by what dropout would have left.
enum vkmoe_status moe_special_nllb(const struct moe_lookup *lookup, uint32_t layer,
                                   struct moe_facts *facts)
{
    struct moe_value value;
    enum vkmoe_status status;
    TRY(moe_look_up(lookup, "moe_token_dropout", NULL, layer, &value));
    if (value.kind == MOE_VALUE_NUMBER)
        facts->d.routed_scale = 1 - (float) value.number;
    return moe_special_scaled_sum(lookup, layer, facts);

fail:
    return status;
}

// The order of the norm that the weights are divided by; null: they are not. The authors' files
// leave out what is as usual, which is 1.
enum vkmoe_status moe_special_dbrx(const struct moe_lookup *lookup, uint32_t layer,
                                   struct moe_facts *facts)
{
    static const char key[] = "moe_normalize_expert_weights";
    struct moe_value value;
    enum vkmoe_status status;
    TRY(moe_look_up(lookup, key, NULL, layer, &value));
    if (value.kind == MOE_VALUE_NUMBER)
        facts->d.norm_p = (float) value.number;
    else if (json_object_get(json_object_get(lookup->root, "ffn_config"), key))
        facts->d.norm = VKMOE_NORM_NONE;

fail:
    return status;
}

enum vkmoe_status moe_special_gemma4(const struct moe_lookup *lookup, uint32_t layer,
                                     struct moe_facts *facts)
{
    (void) lookup, (void) layer;
    facts->d.prenorm_const = 1 / sqrtf((float) facts->d.d_model);
    facts->d.prenorm_eps = facts->rms_eps > 0 ? facts->rms_eps : 1e-6f;
    return VKMOE_OK;
}

enum vkmoe_status moe_special_ernie(const struct moe_lookup *lookup, uint32_t layer,
                                    struct moe_facts *facts)
{
    return take_float(lookup, "moe_norm_min", layer, &facts->d.norm_eps);
}

// The authors divide by the sum only where there are several to sum.
enum vkmoe_status moe_special_norm_of_many(const struct moe_lookup *lookup, uint32_t layer,
                                           struct moe_facts *facts)
{
    (void) lookup, (void) layer;
    if (facts->d.top_k == 1)
        facts->d.norm = VKMOE_NORM_NONE;
    return VKMOE_OK;
}

// Likewise; and they scale only what they do not renormalise.
enum vkmoe_status moe_special_deepseek_v2(const struct moe_lookup *lookup, uint32_t layer,
                                          struct moe_facts *facts)
{
    enum vkmoe_status status = moe_special_norm_of_many(lookup, layer, facts);
    if (facts->d.norm != VKMOE_NORM_NONE) {
        facts->d.norm_eps = 1e-20f;
        facts->d.routed_scale = 1;
    }
    return status;
}

// DeepSeek-V3 and R1 are known by their sizes where a file of GGUF is silent.
enum vkmoe_status moe_special_deepseek_v3(const struct moe_lookup *lookup, uint32_t layer,
                                          struct moe_facts *facts)
{
    vkmoe_layer_desc *d = &facts->d;
    struct moe_value value;
    enum vkmoe_status status;
    TRY(moe_look_up(lookup, NULL, "expert_group_count", layer, &value));
    if (lookup->gguf && value.kind == MOE_VALUE_NONE && d->n_experts == 256 && d->d_model == 7168) {
        d->n_group = 8;
        d->topk_group = 4;
    }

fail:
    return status;
}

enum vkmoe_status moe_special_cohere2(const struct moe_lookup *lookup, uint32_t layer,
                                      struct moe_facts *facts)
{
    struct moe_value value;
    enum vkmoe_status status;
    TRY(moe_look_up(lookup, "shared_expert_combination_strategy", NULL, layer, &value));
    bool sum = value.kind == MOE_VALUE_TEXT && strcmp(value.text, "sum") == 0;
    if (facts->n_shared > 0 && !sum)
        facts->d.c_routed = facts->d.c_shared = 0.5f;
    // A file of GGUF that does not say has sigmoids. With these the logits still decide.
    TRY(moe_look_up(lookup, NULL, "expert_gating_func", layer, &value));
    if (lookup->gguf && value.number == 0)
        facts->d.score = VKMOE_SCORE_SIGMOID;
    if (facts->d.score == VKMOE_SCORE_SIGMOID) {
        TRY(moe_look_up(lookup, "norm_topk_prob", "expert_weights_norm", layer, &value));
        bool plain = value.kind == MOE_VALUE_BOOL && value.number == 0;
        facts->d.gate_source = VKMOE_GATE_SCORE;
        facts->d.norm = plain ? VKMOE_NORM_NONE : VKMOE_NORM_SUM_PLUS_EPS;
    } else {
        facts->d.norm = VKMOE_NORM_NONE; // they sum to 1 already
    }

fail:
    return status;
}

enum vkmoe_status moe_special_smallthinker(const struct moe_lookup *lookup, uint32_t layer,
                                           struct moe_facts *facts)
{
    struct moe_value value;
    enum vkmoe_status status;
    TRY(moe_look_up(lookup, "moe_primary_router_apply_softmax", NULL, layer, &value));
    if ((value.kind == MOE_VALUE_BOOL && value.number != 0) ||
        facts->d.score == VKMOE_SCORE_SOFTMAX) {
        facts->d.score = VKMOE_SCORE_SOFTMAX;
        facts->d.gate_source = VKMOE_GATE_SOFTMAX_SELECTED;
        facts->d.norm = VKMOE_NORM_NONE;
    }

fail:
    return status;
}

enum vkmoe_status moe_special_hash(const struct moe_lookup *lookup, uint32_t layer,
                                   struct moe_facts *facts)
{
    (void) lookup;
    if (layer < facts->n_hash) {
        facts->d.select = VKMOE_SELECT_TABLE;
        facts->d.selection_bias = false;
    }
    return VKMOE_OK;
}
