// SPDX-License-Identifier: MIT
// The published families. A row has what the authors' own code computes; where other readers of the
// same files compute something else, the comment says what. What configurations say themselves
// (keys.c) overrules the row, which therefore has what holds where they are silent.
#include "model/families/families.h"

#include "model/families/special.h"

#include "base/bits.h"
#include "model/config.h"

#include <stdio.h>

// Fields of which 0 would be wrong.
#define COMMON                                                                                     \
    .norm_p = 1, .c_routed = 1, .c_shared = 1, .out_scale = 1

// ---- experts ----
#define SWIGLU COMMON, .gated = true, .act = VKMOE_ACT_SILU, .act_alpha = 1
#define GATED(name) COMMON, .gated = true, .act = VKMOE_ACT_##name, .act_alpha = 1
#define UNGATED(name) COMMON, .act = VKMOE_ACT_##name, .act_alpha = 1
// min(g, 7) sigmoid(1.702 g) (clip(u, 7) + 1)
#define SWIGLU_OAI                                                                                 \
    COMMON, .gated = true, .act = VKMOE_ACT_SILU, .act_alpha = 1.702f, .up_add = 1,                \
    .clamp = VKMOE_CLAMP_BEFORE_ACT, .limit = 7, .limit_shared = 7

// ---- routers ----
#define SCALE(value) .routed_scale = (value)
#define NORM(eps) .norm = VKMOE_NORM_SUM_PLUS_EPS, .norm_eps = (eps)
#define SOFTMAX .score = VKMOE_SCORE_SOFTMAX
// The k largest logits, softmax over those alone.
#define SOFTMAX_OF_SELECTED                                                                        \
    .score = VKMOE_SCORE_SOFTMAX, .rank = VKMOE_RANK_LOGIT,                                        \
    .gate_source = VKMOE_GATE_SOFTMAX_SELECTED
// Sigmoid; a bias for the selection only; divided by the sum.
#define SIGMOID_BIASED(eps)                                                                        \
    .score = VKMOE_SCORE_SIGMOID, .selection_bias = true, .group_score = VKMOE_GROUP_TOP2_SUM,     \
    NORM(eps)
#define V3 SIGMOID_BIASED(1e-20f)

const struct moe_family moe_families[] = {
    // -- Google, Meta: one or two experts, ungated --
    // Experts drop what is beyond their capacity, later tokens first: a run is one row of a batch.
    // transformers 5 never drops (it sums over the wrong axis); transformers 4 does.
    {"switch_transformers", "switch_transformers", NULL, &moe_layout_switch,
     {UNGATED(RELU), SOFTMAX, SCALE(1), .top_k = 1}, 0, moe_special_switch},
    // The largest probability, then the best of the rest, over the sum of both; evaluation times
    // 1 - moe_token_dropout. transformers 5 runs only experts 0 and 1; transformers 4 is right.
    {"nllb_moe", "nllb-moe|nllb_moe", NULL, &moe_layout_nllb,
     {UNGATED(RELU), SOFTMAX, .norm = VKMOE_NORM_MAX_SUM_EPS, .norm_eps = 1.1920929e-7f,
      SCALE(0.8f), .top_k = 2}, 0, moe_special_nllb},

    // -- softmax over all, divided by the sum --
    {"mixtral", "mixtral", "llama|mistral3", &moe_layout_mixtral, {SWIGLU, SOFTMAX, NORM(0),
     SCALE(1)}},
    {"minimax", "minimax|minimax_text_01|minimax_m1", "minimax-01", &moe_layout_mixtral,
     {SWIGLU, SOFTMAX, NORM(0), SCALE(1)}},
    // A threshold on relative distance, for each of the two slots. llama.cpp takes a softmax over
    // the two best instead.
    {"phimoe", "phimoe", "phimoe", &moe_layout_mixtral,
     {SWIGLU, .select = VKMOE_SELECT_SPARSEMIXER, .sparsemixer_eps = 0.01f, SCALE(1)}, 0,
     moe_special_phimoe},
    // transformers 5 multiplies by w1 where the authors multiply by its transpose.
    {"dbrx", "dbrx", "dbrx", &moe_layout_dbrx, {SWIGLU, SOFTMAX, NORM(0), SCALE(1)}, 0,
     moe_special_dbrx},
    // xAI's code neither renormalises nor caps the logits; vLLM and llama.cpp renormalise, which
    // the norm behind the block hides but for its epsilon.
    {"grok-1", "grok-1|grok", NULL, &moe_layout_grok, {GATED(GELU_TANH), SOFTMAX, SCALE(1)}},
    {"grok-2", "git|grok-2|grok2", "grok", &moe_layout_grok,
     {GATED(GELU_TANH), SOFTMAX, NORM(0), SCALE(1), .logit_softcap = 30}},
    // The dense MLP beside the experts is no part of the block.
    {"arctic", "arctic", "arctic", &moe_layout_mixtral, {SWIGLU, SOFTMAX, NORM(0), SCALE(1)}, 0,
     moe_special_norm_of_many},
    {"qwen3_moe", "qwen3_moe|qwen3_omni_moe_text|qwen3_omni_moe", "qwen3moe", &moe_layout_mlp,
     {SWIGLU, SOFTMAX, NORM(0), SCALE(1)}},
    {"qwen3_vl_moe", "qwen3_vl_moe|qwen3_vl_moe_text", "qwen3vlmoe", &moe_layout_qwen3_vl,
     {SWIGLU, SOFTMAX, NORM(0), SCALE(1)}},
    {"qwen3_next", "qwen3_next", "qwen3next", &moe_layout_mlp,
     {SWIGLU, SOFTMAX, NORM(0), SCALE(1), .shared_gate = VKMOE_SHARED_SIGMOID}},
    {"qwen3_5_moe", "qwen3_5_moe|qwen3_5_moe_text|qwen4exp", "qwen35moe|qwen4exp", &moe_layout_mlp,
     {SWIGLU, SOFTMAX, NORM(0), SCALE(1), .shared_gate = VKMOE_SHARED_SIGMOID}},
    {"hunyuan_v1_moe", "hunyuan_v1_moe|hunyuan", "hunyuan-moe", &moe_layout_mlp,
     {SWIGLU, SOFTMAX, NORM(0), SCALE(1)}, 1},
    {"mellum", "mellum", "mellum", &moe_layout_mlp, {SWIGLU, SOFTMAX, NORM(0), SCALE(1)}},
    {"rnd1", "rnd1", "rnd1", &moe_layout_mlp, {SWIGLU, SOFTMAX, NORM(0), SCALE(1)}},
    {"maple", "maple", "maple", &moe_layout_mlp,
     {SWIGLU, SOFTMAX, NORM(0), SCALE(1), .clamp = VKMOE_CLAMP_BEFORE_ACT}},
    {"bailing_moe", "bailing_moe", "bailingmoe", &moe_layout_mlp,
     {SWIGLU, SOFTMAX, NORM(1e-20f), SCALE(1)}, 0, moe_special_norm_of_many},
    // Masked groups rank as 0; probabilities are never below.
    {"mistral4", "mistral4", "mistral4", &moe_layout_mlp,
     {SWIGLU, SOFTMAX, NORM(1e-20f), SCALE(1), .group_score = VKMOE_GROUP_TOP2_SUM,
      .group_fill_zero = true}, 1},
    // Ranked by sigmoids of the same logits, weighed by softmax; the adjugate experts run on x with
    // the same weights. llama.cpp runs them on the block's output.
    {"grove_moe", "grove_moe|grovemoe", "grovemoe", &moe_layout_mlp,
     {SWIGLU, SOFTMAX, .rank = VKMOE_RANK_SIGMOID, NORM(0), SCALE(1), .adjugate_group = 2,
      .adjugate_scale = 0.05f}},
    // The router has a norm of its own and reads the residual stream.
    {"gemma4", "gemma4|gemma4_text", "gemma4", &moe_layout_gemma4,
     {GATED(GELU_TANH), SOFTMAX, NORM(0), SCALE(1), .router_input = true, .router_prenorm = true,
      .expert_scale = true}, 0, moe_special_gemma4},
    // llama.cpp and MLX leave the bias out.
    {"ernie4_5_moe", "ernie4_5_moe", "ernie4_5-moe", &moe_layout_mlp,
     {SWIGLU, SOFTMAX, .selection_bias = true, .norm = VKMOE_NORM_MAX_SUM_EPS, .norm_eps = 1e-12f,
      SCALE(1)}, 0, moe_special_ernie},

    // -- softmax over all, as it is --
    {"jamba", "jamba", "jamba", &moe_layout_feed_forward, {SWIGLU, SOFTMAX, SCALE(1)}},
    {"olmoe", "olmoe", "olmoe", &moe_layout_mlp, {SWIGLU, SOFTMAX, SCALE(1)}},
    {"flex_olmo", "flex_olmo", NULL, &moe_layout_mlp, {SWIGLU, SOFTMAX, SCALE(1)}},
    {"llada_moe", "llada_moe", "llada-moe", &moe_layout_mlp, {SWIGLU, SOFTMAX, SCALE(1)}},
    {"qwen2_moe", "qwen2_moe", "qwen2moe", &moe_layout_mlp,
     {SWIGLU, SOFTMAX, SCALE(1), .shared_gate = VKMOE_SHARED_SIGMOID}},
    {"deepseek", "deepseek", "deepseek", &moe_layout_mlp, {SWIGLU, SOFTMAX, SCALE(1)}, 0,
     moe_special_norm_of_many},
    // Groups by their best expert; llama.cpp by their two best, transformers 5 not at all.
    {"deepseek_v2", "deepseek_v2", NULL, &moe_layout_mlp,
     {SWIGLU, SOFTMAX, SCALE(1), .group_score = VKMOE_GROUP_MAX, .group_fill_zero = true}, 0,
     moe_special_deepseek_v2},
    // transformers 5 never adds the router's bias.
    {"longcat_flash", "longcat_flash|longcat_flash_ngram", NULL, &moe_layout_mlp,
     {SWIGLU, SOFTMAX, .selection_bias = true, SCALE(6)}},
    {"step3", "step3_vl|step3_text|step3", NULL, &moe_layout_step, {SWIGLU, SOFTMAX, SCALE(1)}, 1},
    // llama.cpp takes the tanh form of GELU and leaves the bias out.
    {"nomic_bert_moe", "nomic_bert", "nomic-bert-moe", &moe_layout_nomic,
     {UNGATED(GELU_ERF), SOFTMAX, SCALE(1), .out_bias = true}},

    // -- softmax over the selected --
    {"jetmoe", "jetmoe", NULL, &moe_layout_jetmoe,
     {SWIGLU, SOFTMAX_OF_SELECTED, SCALE(1), .out_bias = true}},
    {"granitemoe", "granitemoe", "granitemoe", &moe_layout_granite,
     {SWIGLU, SOFTMAX_OF_SELECTED, SCALE(1)}},
    {"granitemoeshared", "granitemoeshared", NULL, &moe_layout_granite,
     {SWIGLU, SOFTMAX_OF_SELECTED, SCALE(1)}},
    {"granitemoehybrid", "granitemoehybrid", "granitehybrid", &moe_layout_granite,
     {SWIGLU, SOFTMAX_OF_SELECTED, SCALE(1)}},
    {"aria", "aria|aria_text", NULL, &moe_layout_aria, {SWIGLU, SOFTMAX_OF_SELECTED, SCALE(1)}, 2},
    {"gpt_oss", "gpt_oss", "gpt-oss", &moe_layout_gpt_oss,
     {SWIGLU_OAI, SOFTMAX_OF_SELECTED, SCALE(1), .router_bias = true, .gate_bias = true,
      .up_bias = true, .down_bias = true}},
    {"openai_privacy_filter", "openai_privacy_filter", NULL, &moe_layout_privacy,
     {SWIGLU_OAI, SOFTMAX_OF_SELECTED, SCALE(1), .router_bias = true, .gate_bias = true,
      .up_bias = true, .down_bias = true}},
    {"cohere2_moe", "cohere2_moe", "cohere2moe", &moe_layout_mlp,
     {SWIGLU, SOFTMAX_OF_SELECTED, SCALE(1)}, 0, moe_special_cohere2},
    // Reads what the layer was given, before attention.
    {"smallthinker", "smallthinker", "smallthinker", &moe_layout_smallthinker,
     {GATED(RELU), .score = VKMOE_SCORE_SIGMOID, .rank = VKMOE_RANK_LOGIT, NORM(0), SCALE(1),
      .router_input = true}, 0, moe_special_smallthinker},

    // -- sigmoid --
    // Old files of GGUF do not say that V3 has groups; llama.cpp then routes without them.
    {"deepseek_v3", "deepseek_v3|kimi_k2|deepseek_v32|kimi_k25|kimi_vl|deepseek_vl_v3",
     "deepseek32", &moe_layout_mlp, {SWIGLU, V3, SCALE(2.5f)}, 1, moe_special_deepseek_v3},
    {"kimi_linear", "kimi_linear", "kimi-linear", &moe_layout_mixtral, {SWIGLU, V3, SCALE(1)}, 1,
     moe_special_norm_of_many},
    // A norm on the combined latent hides a renormalisation, too.
    {"kimi_k3", "kimi_k3", "kimi-k3", &moe_layout_mixtral,
     {GATED(SITU), V3, SCALE(1), .situ_beta = 4, .situ_lambda = 25, .latent_norm = true}, 2},
    {"glm4_moe", "glm4_moe|glm4v_moe|glm4v_moe_text", "glm4moe", &moe_layout_mlp,
     {SWIGLU, V3, SCALE(1)}, 1},
    {"glm4_moe_lite", "glm4_moe_lite", NULL, &moe_layout_mlp, {SWIGLU, V3, SCALE(1.8f)}, 1},
    {"glm_moe_dsa", "glm_moe_dsa", "glm-dsa", &moe_layout_mlp, {SWIGLU, V3, SCALE(2.5f)}, 1},
    {"glm5_next", "glm5next|glm5_next", "glm5-next", &moe_layout_mlp,
     {SWIGLU, V3, SCALE(2.5f), .clamp = VKMOE_CLAMP_BEFORE_ACT}, 1},
    {"dots1", "dots1|dots3_note", "dots1|dots3note", &moe_layout_mlp,
     {SWIGLU, V3, SCALE(1)}, 2},
    // Masked groups rank as -infinity; MLX ranks them as 0. LLaDA 2 has the same block.
    {"bailing_moe_v2", "bailing_moe_v2|bailing_moe_linear|BailingMoeV2ForCausalLM|llada2_moe",
     "bailingmoe2", &moe_layout_mlp, {SWIGLU, V3, SCALE(2.5f)}, 1, moe_special_norm_of_many},
    {"bailing_moe_v3", "bailing_moe_v3", "bailingmoe3", &moe_layout_mlp,
     {SWIGLU, V3, SCALE(2.5f), .clamp = VKMOE_CLAMP_AFTER_ACT}, 1, moe_special_norm_of_many},
    {"hy_v3", "hy_v3", "hy_v3", &moe_layout_mlp, {SWIGLU, V3, SCALE(2.826f)}, 1},
    {"hy_v4", "hy_v4", "hy_v4", &moe_layout_mlp,
     {SWIGLU, V3, SCALE(2.826f), .clamp = VKMOE_CLAMP_BEFORE_ACT}, 1},
    {"exaone_moe", "exaone_moe", "exaone-moe", &moe_layout_mlp, {SWIGLU, V3, SCALE(2.5f)}, 1},
    {"solar_open", "solar_open", NULL, &moe_layout_mlp, {SWIGLU, V3, SCALE(1)}, 1},
    {"afmoe", "afmoe", "afmoe", &moe_layout_mlp, {SWIGLU, V3, SCALE(1)}, 2},
    {"mimo_v2_flash", "mimo_v2_flash|mimo_v2", "mimo2", &moe_layout_mlp, {SWIGLU, V3, SCALE(1)}},
    {"minimax_m2", "minimax_m2", "minimax-m2", &moe_layout_mixtral,
     {SWIGLU, SIGMOID_BIASED(0), SCALE(1)}},
    {"minimax_m3", "minimax_m3_vl|minimax_m3_vl_text|minimax_m3", "minimax-m3",
     &moe_layout_mixtral, {SWIGLU_OAI, SIGMOID_BIASED(0), SCALE(2)}, 1,
     moe_special_scaled_sum},
    {"lfm2_moe", "lfm2_moe", "lfm2moe", &moe_layout_feed_forward,
     {SWIGLU, SIGMOID_BIASED(1e-6f), SCALE(1)}},
    {"nemotron_h", "nemotron_h", "nemotron_h_moe", &moe_layout_nemotron,
     {UNGATED(RELU2), V3, SCALE(1)}, 1},
    {"step3p5", "step3p5|step3_5", "step35", &moe_layout_step,
     {SWIGLU, V3, SCALE(3), .clamp = VKMOE_CLAMP_AFTER_ACT}, 1},
    {"klear", "klear|Klear", NULL, &moe_layout_mlp,
     {SWIGLU, SIGMOID_BIASED(0), SCALE(1), .shared_gate = VKMOE_SHARED_SOFTMAX2}, 1},
    {"laguna", "laguna", "laguna", &moe_layout_mlp, {SWIGLU, SIGMOID_BIASED(0), SCALE(1)}, 1,
     moe_special_scaled_sum},
    {"k2_horizon", "k2_horizon", "k2-horizon", &moe_layout_mlp, {SWIGLU, V3, SCALE(1)}, 1},
    // The weight multiplies what the expert reads.
    {"llama4", "llama4|llama4_text", "llama4", &moe_layout_llama4,
     {SWIGLU, .score = VKMOE_SCORE_SIGMOID, .rank = VKMOE_RANK_LOGIT, SCALE(1),
      .weight_on_input = true}, 1},

    // -- square root of softplus --
    // The first num_hash_layers take their experts from a table.
    {"deepseek_v4", "deepseek_v4", "deepseek4", &moe_layout_deepseek_v4,
     {SWIGLU, .score = VKMOE_SCORE_SQRT_SOFTPLUS, .selection_bias = true,
      .group_score = VKMOE_GROUP_TOP2_SUM, NORM(1e-20f), SCALE(1.5f),
      .clamp = VKMOE_CLAMP_BEFORE_ACT}, 1, moe_special_hash},
};
const uint32_t moe_n_families = MOE_COUNT(moe_families);

const struct moe_family *moe_family_named(const char *name)
{
    for (uint32_t i = 0; i < moe_n_families; i++) {
        if (strcmp(moe_families[i].name, name) == 0)
            return &moe_families[i];
    }
    return NULL;
}

const struct moe_family *moe_family_of_type(const char *model_type)
{
    for (uint32_t i = 0; i < moe_n_families; i++) {
        if (moe_word_index(moe_families[i].types, model_type) >= 0)
            return &moe_families[i];
    }
    return NULL;
}

// Published models that no layer here describes, and why.
static const struct {
    const char *types, *why;
} others[] = {
    {"ernie4_5_vl_moe|ernie4_5_vl_moe_text|ernie4_5_moe_vl",
     "its layers have two banks of experts, for text and for images; which of them a token takes "
     "is decided by its type, which a layer here does not know"},
};

const char *moe_family_why_not(const char *model_type)
{
    for (size_t i = 0; i < MOE_COUNT(others); i++) {
        if (moe_word_index(others[i].types, model_type) >= 0)
            return others[i].why;
    }
    return NULL;
}

const char *vkmoe_family_name(uint32_t i)
{
    return i < moe_n_families ? moe_families[i].name : NULL;
}

const char *moe_family_list(char text[2048])
{
    size_t n = 0;
    *text = '\0';
    for (uint32_t i = 0; i < moe_n_families; i++) {
        size_t size = strlen(moe_families[i].name);
        if (n + size + 3 >= 2048)
            break;
        n += (size_t) sprintf(text + n, "%s%s", i ? " " : "", moe_families[i].name);
    }
    return text;
}
