// SPDX-License-Identifier: MIT
#include "presets.h"

#include <stdio.h>

enum rule {
    SOFTMAX,      // over all experts; gate weights are the scores
    SOFTMAX_NORM, // the same, divided by their sum
    SOFTMAX_TOP,  // over the selected experts
    SIGMOID_NORM, // divided by the sum; a bias for the selection
    SIGMOID,      // of the logits that selection ranks by
    SPARSEMIXER,
};

enum expert {
    GATED_SILU,
    GATED_OAI, // gated SiLU with alpha 1.702, clamped at 7, the up half plus 1; biases
    RELU,
    RELU2,
};

enum quirk { // bits
    SHARED_SIGMOID = 1,   // sigmoid(w . x) multiplies the shared expert
    SELECTION_BIAS = 2,   // also without a sigmoid
    ROUTER_BIAS = 4,
    WEIGHT_ON_INPUT = 8,  // the gate weight multiplies the expert's input
    GROUPS_8_OF_TOP2 = 16, // 8 groups, 4 of them by the sum of their two best
    GROUPS_8_OF_MAX = 32,  // 8 groups, 3 of them by their best; the others rank as 0
    EPS_1E6 = 64,          // added to the sum, instead of 1e-20
    LEAST_SUM = 128,       // the sum is 1e-12 at least
    CAPACITY_64 = 256,     // slots of an expert in a run, as in a row of a batch; later ones drop
};

// As published: what the models' own code computes. d_shared_ff is that of all shared experts
// together.
static const struct preset {
    const char *name;
    uint32_t n_experts, top_k, d_model, d_ff, d_shared_ff;
    enum rule rule;
    enum expert expert;
    float routed_scale;
    uint32_t quirks;
} presets[] = {
    {"granite-1b-a400m", 32, 8, 1024, 512, 0, SOFTMAX_TOP, GATED_SILU, 1, 0},
    {"granite-3b-a800m", 40, 8, 1536, 512, 0, SOFTMAX_TOP, GATED_SILU, 1, 0},
    {"olmoe-1b-7b", 64, 8, 2048, 1024, 0, SOFTMAX, GATED_SILU, 1, 0},
    {"qwen1.5-moe-a2.7b", 60, 4, 2048, 1408, 5632, SOFTMAX, GATED_SILU, 1, SHARED_SIGMOID},
    {"qwen3-30b-a3b", 128, 8, 2048, 768, 0, SOFTMAX_NORM, GATED_SILU, 1, 0},
    {"qwen3-235b-a22b", 128, 8, 4096, 1536, 0, SOFTMAX_NORM, GATED_SILU, 1, 0},
    {"qwen3-next-80b-a3b", 512, 10, 2048, 512, 512, SOFTMAX_NORM, GATED_SILU, 1, SHARED_SIGMOID},
    {"mixtral-8x7b", 8, 2, 4096, 14336, 0, SOFTMAX_NORM, GATED_SILU, 1, 0},
    {"mixtral-8x22b", 8, 2, 6144, 16384, 0, SOFTMAX_NORM, GATED_SILU, 1, 0},
    {"gpt-oss-20b", 32, 4, 2880, 2880, 0, SOFTMAX_TOP, GATED_OAI, 1, ROUTER_BIAS},
    {"gpt-oss-120b", 128, 4, 2880, 2880, 0, SOFTMAX_TOP, GATED_OAI, 1, ROUTER_BIAS},
    {"deepseek-v2-lite", 64, 6, 2048, 1408, 2816, SOFTMAX, GATED_SILU, 1, 0},
    {"deepseek-v2", 160, 6, 5120, 1536, 3072, SOFTMAX, GATED_SILU, 16, GROUPS_8_OF_MAX},
    {"deepseek-v3", 256, 8, 7168, 2048, 2048, SIGMOID_NORM, GATED_SILU, 2.5f, GROUPS_8_OF_TOP2},
    {"kimi-k2", 384, 8, 7168, 2048, 2048, SIGMOID_NORM, GATED_SILU, 2.827f, 0},
    {"glm-4.5-air", 128, 8, 4096, 1408, 1408, SIGMOID_NORM, GATED_SILU, 1, 0},
    {"ernie-4.5-21b-a3b", 64, 6, 2560, 1536, 3072, SOFTMAX_NORM, GATED_SILU, 1,
     SELECTION_BIAS | LEAST_SUM},
    {"hunyuan-a13b", 64, 8, 4096, 3072, 3072, SOFTMAX_NORM, GATED_SILU, 1, 0},
    {"lfm2-8b-a1b", 32, 4, 2048, 1792, 0, SIGMOID_NORM, GATED_SILU, 1, EPS_1E6},
    {"nemotron-3-nano", 128, 6, 2688, 1856, 3712, SIGMOID_NORM, RELU2, 2.5f, 0},
    {"jamba", 16, 2, 4096, 14336, 0, SOFTMAX, GATED_SILU, 1, 0},
    {"dbrx", 16, 4, 6144, 10752, 0, SOFTMAX_NORM, GATED_SILU, 1, 0},
    {"phi-3.5-moe", 16, 2, 4096, 6400, 0, SPARSEMIXER, GATED_SILU, 1, 0},
    {"llama-4-scout", 16, 1, 5120, 8192, 8192, SIGMOID, GATED_SILU, 1, WEIGHT_ON_INPUT},
    {"switch-base-8", 8, 1, 768, 3072, 0, SOFTMAX, RELU, 1, CAPACITY_64},
};

enum { N_PRESETS = sizeof presets / sizeof *presets };

const char *bench_preset_name(uint32_t i)
{
    return i < N_PRESETS ? presets[i].name : NULL;
}

static void describe_rule(const struct preset *preset, vkmoe_layer_desc *out)
{
    switch (preset->rule) {
    case SOFTMAX:
        break;
    case SOFTMAX_NORM:
        out->norm = VKMOE_NORM_SUM_PLUS_EPS;
        break;
    case SOFTMAX_TOP:
        out->rank = VKMOE_RANK_LOGIT;
        out->gate_source = VKMOE_GATE_SOFTMAX_SELECTED;
        break;
    case SIGMOID_NORM:
        out->score = VKMOE_SCORE_SIGMOID;
        out->selection_bias = true;
        out->norm = VKMOE_NORM_SUM_PLUS_EPS;
        out->norm_eps = preset->quirks & EPS_1E6 ? 1e-6f : 1e-20f;
        break;
    case SIGMOID:
        out->score = VKMOE_SCORE_SIGMOID;
        out->rank = VKMOE_RANK_LOGIT;
        break;
    case SPARSEMIXER:
        out->select = VKMOE_SELECT_SPARSEMIXER;
        out->sparsemixer_eps = 0.01f;
        break;
    }
    out->routed_scale = preset->routed_scale;
    out->router_bias = preset->quirks & ROUTER_BIAS;
    out->selection_bias |= (preset->quirks & SELECTION_BIAS) != 0;
    out->weight_on_input = preset->quirks & WEIGHT_ON_INPUT;
    if (preset->quirks & LEAST_SUM) {
        out->norm = VKMOE_NORM_MAX_SUM_EPS;
        out->norm_eps = 1e-12f;
    }
    if (preset->quirks & CAPACITY_64) {
        out->capacity_mode = VKMOE_CAPACITY_BY_POSITION;
        out->capacity = 64;
    }
    if (preset->quirks & SHARED_SIGMOID)
        out->shared_gate = VKMOE_SHARED_SIGMOID;
    if (preset->quirks & (GROUPS_8_OF_TOP2 | GROUPS_8_OF_MAX)) {
        bool top2 = preset->quirks & GROUPS_8_OF_TOP2;
        out->n_group = 8;
        out->topk_group = top2 ? 4 : 3;
        out->group_score = top2 ? VKMOE_GROUP_TOP2_SUM : VKMOE_GROUP_MAX;
        out->group_fill_zero = !top2;
    }
}

static void describe_expert(enum expert expert, vkmoe_layer_desc *out)
{
    switch (expert) {
    case GATED_OAI:
        out->gate_bias = out->up_bias = out->down_bias = true;
        out->act_alpha = 1.702f;
        out->up_add = 1;
        out->clamp = VKMOE_CLAMP_BEFORE_ACT;
        out->limit = out->limit_shared = 7;
        // fall through
    case GATED_SILU:
        out->gated = true;
        out->act = VKMOE_ACT_SILU;
        return;
    case RELU:
        out->act = VKMOE_ACT_RELU;
        return;
    case RELU2:
        out->act = VKMOE_ACT_RELU2;
        return;
    }
}

bool bench_preset(const char *name, vkmoe_layer_desc *out)
{
    for (const struct preset *preset = presets; preset < presets + N_PRESETS; preset++) {
        if (strcmp(name, preset->name) != 0)
            continue;
        *out = vkmoe_layer_desc_init();
        out->n_experts = preset->n_experts;
        out->top_k = preset->top_k;
        out->d_model = out->d_out = preset->d_model;
        out->d_ff = preset->d_ff;
        out->d_shared_ff = preset->d_shared_ff;
        describe_rule(preset, out);
        describe_expert(preset->expert, out);
        return true;
    }
    return false;
}

vkmoe_layer_desc bench_plain_layer(uint32_t n_experts, uint32_t top_k, uint32_t d_model,
                                   uint32_t d_ff, uint32_t d_shared_ff)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = n_experts;
    layer.top_k = top_k;
    layer.d_model = layer.d_out = d_model;
    layer.d_ff = d_ff;
    layer.d_shared_ff = d_shared_ff;
    layer.norm = VKMOE_NORM_SUM_PLUS_EPS;
    layer.gated = true;
    layer.act = VKMOE_ACT_SILU;
    return layer;
}

// ---- in words ----------------------------------------------------------------------------------

struct words {
    char *out;
    size_t size, used;
};

static void add(struct words *words, bool wanted, const char *word)
{
    if (!wanted || words->used >= words->size)
        return;
    int n = snprintf(words->out + words->used, words->size - words->used, "%s%s",
                     words->used ? " " : "", word);
    words->used += (size_t) n;
}

void bench_rule_text(const vkmoe_layer_desc *layer, char *out, size_t size)
{
    static const char *const scores[] = {"softmax", "sigmoid", "sqrt-softplus", "relu", "none"};
    static const char *const selects[] = {"", "table", "sparsemixer", "top-p", "threshold"};
    struct words words = {out, size, 0};
    char scale[24];
    snprintf(scale, sizeof scale, "x%g", (double) layer->routed_scale);
    bool top = layer->gate_source == VKMOE_GATE_SOFTMAX_SELECTED;
    add(&words, true, top ? "softmax-selected" : scores[layer->score]);
    add(&words, layer->select != VKMOE_SELECT_TOP_K, selects[layer->select]);
    add(&words, layer->norm != VKMOE_NORM_NONE, "norm");
    add(&words, layer->routed_scale != 1, scale);
    add(&words, layer->n_group > 1, "groups");
    add(&words, layer->capacity_mode != VKMOE_CAPACITY_NONE, "capacity");
    add(&words, layer->router_input, "own-input");
    add(&words, layer->router_bias, "bias");
    add(&words, layer->selection_bias, "selection-bias");
    add(&words, layer->weight_on_input, "on-input");
    add(&words, layer->shared_gate == VKMOE_SHARED_SIGMOID, "shared-sigmoid");
    add(&words, layer->shared_gate == VKMOE_SHARED_SOFTMAX2, "shared-softmax");
}

void bench_expert_text(const vkmoe_layer_desc *layer, char *out, size_t size)
{
    static const char *const acts[] = {"none", "silu",    "gelu_erf", "gelu_tanh", "relu",
                                       "relu2", "sigmoid", "tanh",     "situ"};
    struct words words = {out, size, 0};
    char alpha[24];
    snprintf(alpha, sizeof alpha, "alpha%g", (double) layer->act_alpha);
    add(&words, layer->expert_kind == VKMOE_EXPERT_LINEAR, "linear");
    add(&words, layer->gated, "gated");
    add(&words, true, acts[layer->act]);
    add(&words, layer->act_alpha != 1, alpha);
    add(&words, layer->act_out != VKMOE_ACT_NONE, "act-out");
    add(&words, layer->clamp != VKMOE_CLAMP_NONE, "clamp");
    add(&words, layer->up_add != 0, "up-add");
    add(&words, layer->gate_bias || layer->up_bias || layer->down_bias, "bias");
}
