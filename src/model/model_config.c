// SPDX-License-Identifier: MIT
// The configuration of a vkmoe-model file; include/vkmoe/model.h describes it.
#include "model/model.h"

#include "base/host.h"
#include "base/status.h"
#include "model/config.h"

#define ACTIVATIONS "none|silu|gelu_erf|gelu_tanh|relu|relu2|sigmoid|tanh" // as in enum vkmoe_act

static enum vkmoe_status read_router(const struct moe_config *parent, vkmoe_layer_desc *desc)
{
    static const char *const keys[] = {"score", "order", "renormalize", "eps", "routed_scale",
                                       "bias", "selection_bias", NULL};
    enum { SCORE_THEN_TOPK, TOPK_THEN_SCORE };
    enum vkmoe_status status;
    struct moe_config c;
    int score = -1, order = -1;
    bool renormalize = false;
    TRY(moe_config_object(parent, "router", &c));
    TRY(moe_config_keys(&c, keys));
    TRY(moe_config_word(&c, "score", "softmax|sigmoid", NULL, &score));
    TRY(moe_config_word(&c, "order", "score_then_topk|topk_then_score", NULL, &order));
    TRY(moe_config_bool(&c, "renormalize", &renormalize));
    TRY(moe_config_real(&c, "eps", &desc->norm_eps));
    TRY(moe_config_real(&c, "routed_scale", &desc->routed_scale));
    TRY(moe_config_bool(&c, "bias", &desc->router_bias));
    TRY(moe_config_bool(&c, "selection_bias", &desc->selection_bias));
    if (desc->norm_eps < 0 || (desc->norm_eps > 0 && !renormalize))
        return moe_config_fail(&c, VKMOE_E_DATA, "eps", "needs renormalize, and to be >= 0");
    desc->score = score == 0 ? VKMOE_SCORE_SOFTMAX : VKMOE_SCORE_SIGMOID;
    desc->rank = order == SCORE_THEN_TOPK ? VKMOE_RANK_SCORE : VKMOE_RANK_LOGIT;
    // A sigmoid of the selected logits is the selected score; only softmax depends on the rest.
    if (order == TOPK_THEN_SCORE && desc->score == VKMOE_SCORE_SOFTMAX)
        desc->gate_source = VKMOE_GATE_SOFTMAX_SELECTED;
    desc->norm = renormalize ? VKMOE_NORM_SUM_PLUS_EPS : VKMOE_NORM_NONE;

fail:
    return status;
}

static enum vkmoe_status read_expert(const struct moe_config *parent, vkmoe_layer_desc *desc)
{
    static const char *const keys[] = {"gated", "activation", "output_activation", "bias", NULL};
    enum vkmoe_status status;
    struct moe_config c;
    int act = -1, act_out = VKMOE_ACT_NONE;
    bool bias = false;
    TRY(moe_config_object(parent, "expert", &c));
    TRY(moe_config_keys(&c, keys));
    TRY(moe_config_bool(&c, "gated", &desc->gated));
    TRY(moe_config_word(&c, "activation", ACTIVATIONS, NULL, &act));
    TRY(moe_config_word(&c, "output_activation", ACTIVATIONS, NULL, &act_out));
    TRY(moe_config_bool(&c, "bias", &bias));
    desc->act = (enum vkmoe_act) act;
    desc->act_out = (enum vkmoe_act) act_out;
    desc->gate_bias = bias && desc->gated;
    desc->up_bias = desc->down_bias = bias;

fail:
    return status;
}

static enum vkmoe_status read_shared(const struct moe_config *parent, vkmoe_layer_desc *desc)
{
    static const char *const keys[] = {"d_ff", "gate", NULL};
    enum vkmoe_status status;
    struct moe_config c;
    int gate = 0;
    if (!moe_config_has(parent, "shared"))
        return VKMOE_OK;
    TRY(moe_config_object(parent, "shared", &c));
    TRY(moe_config_keys(&c, keys));
    TRY(moe_config_size(&c, "d_ff", &desc->d_shared_ff));
    TRY(moe_config_word(&c, "gate", "none|sigmoid", NULL, &gate));
    desc->shared_gate = gate == 0 ? VKMOE_SHARED_PLAIN : VKMOE_SHARED_SIGMOID;

fail:
    return status;
}

static enum vkmoe_status read_layer(const struct moe_config *c, vkmoe_layer_desc *desc)
{
    static const char *const keys[] = {"kind", "d_in", "d_ff", "d_out", "n_experts", "top_k",
                                       "router", "expert", "shared", "combine", "residual", NULL};
    enum vkmoe_status status;
    int kind = -1, combine = 0;
    bool residual = false;
    *desc = vkmoe_layer_desc_init();
    TRY(moe_config_word(c, "kind", "moe", "linear|norm|pool|dropout|recurrent", &kind));
    TRY(moe_config_keys(c, keys));
    TRY(moe_config_size(c, "d_in", &desc->d_model));
    TRY(moe_config_size(c, "d_ff", &desc->d_ff));
    desc->d_out = desc->d_model;
    if (moe_config_has(c, "d_out"))
        TRY(moe_config_size(c, "d_out", &desc->d_out));
    TRY(moe_config_size(c, "n_experts", &desc->n_experts));
    TRY(moe_config_size(c, "top_k", &desc->top_k));
    TRY(read_router(c, desc));
    TRY(read_expert(c, desc));
    TRY(read_shared(c, desc));
    TRY(moe_config_word(c, "combine", "weighted_sum", NULL, &combine));
    TRY(moe_config_bool(c, "residual", &residual));
    if (residual)
        return moe_config_fail(c, VKMOE_E_UNSUPPORTED, "residual", "not computed yet (only false)");
    if (desc->top_k > desc->n_experts)
        return moe_config_fail(c, VKMOE_E_DATA, "top_k", "%u of %u experts", desc->top_k,
                               desc->n_experts);
    status = vkmoe_layer_check(desc);
    if (status != VKMOE_OK) // whatever is wrong, it is the file's fault
        return moe_config_fail(c, status == VKMOE_E_UNSUPPORTED ? status : VKMOE_E_DATA, "", "%s",
                               vkmoe_error_text());

fail:
    return status;
}

// Every layer takes what the one before gives.
static enum vkmoe_status read_layers(vkmoe_model *model, const struct moe_config *top)
{
    enum vkmoe_status status;
    size_t n;
    TRY(moe_config_array(top, "layers", &n));
    TRY(moe_try_alloc(&model->host, n * sizeof *model->layers, "layers", &model->layers));
    uint32_t width = model->info.n_features;
    for (size_t i = 0; i < n; i++) {
        struct moe_config c;
        vkmoe_layer_desc *desc = &model->layers[i].desc;
        TRY(moe_config_item(top, "layers", i, &c));
        TRY(read_layer(&c, desc));
        if (desc->d_model != width)
            return moe_config_fail(&c, VKMOE_E_DATA, "d_in", "%u, but %s gives %u", desc->d_model,
                                   i ? "the layer before" : "the input", width);
        width = desc->d_out;
        model->info.n_layers++;
    }
    model->info.n_outputs = width;

fail:
    return status;
}

static enum vkmoe_status read_input(vkmoe_model *model, const struct moe_config *top)
{
    static const char *const keys[] = {"kind", "n_features", NULL};
    enum vkmoe_status status;
    struct moe_config c;
    int kind = -1;
    TRY(moe_config_object(top, "input", &c));
    TRY(moe_config_word(&c, "kind", "none|standardize|minmax", // as in enum vkmoe_input
                        "embed|embed_bag|coordinates|image", &kind));
    TRY(moe_config_keys(&c, keys));
    TRY(moe_config_size(&c, "n_features", &model->info.n_features));
    model->info.input = (enum vkmoe_input) kind;

fail:
    return status;
}

static enum vkmoe_status read_classes(vkmoe_model *model, const struct moe_config *top)
{
    enum vkmoe_status status;
    size_t n;
    TRY(moe_config_array(top, "classes", &n));
    if (n > MOE_CONFIG_MAX)
        return moe_config_fail(top, VKMOE_E_DATA, "classes", "%zu, at most %d", n, MOE_CONFIG_MAX);
    TRY(moe_try_alloc(&model->host, n * sizeof *model->classes, "classes", &model->classes));
    const json_t *array = json_object_get(top->object, "classes");
    json_t *seen = json_object();
    for (size_t i = 0; i < n && status == VKMOE_OK; i++) {
        const char *name = json_string_value(json_array_get(array, i));
        if (!name || !*name || json_object_get(seen, name))
            status = moe_config_fail(top, VKMOE_E_DATA, "classes", "[%zu] is %s", i,
                                     name && *name ? "there before" : "not a name");
        else if (json_object_set_new(seen, name, json_true()) != 0)
            status = moe_fail(VKMOE_E_MEMORY, "%s: %zu classes", model->path, n);
        model->classes[i] = name;
    }
    json_decref(seen);
    model->info.n_classes = (uint32_t) n;

fail:
    return status;
}

// Does the last layer have the width that the task needs?
static enum vkmoe_status check_outputs(const vkmoe_model *model, const struct moe_config *top)
{
    const vkmoe_model_info *info = &model->info;
    if (info->task == VKMOE_TASK_REGRESS) {
        if (info->head == VKMOE_HEAD_SOFTMAX)
            return moe_config_fail(top, VKMOE_E_DATA, "head", "softmax needs task classify");
        return VKMOE_OK;
    }
    if (info->head == VKMOE_HEAD_IDENTITY)
        return moe_config_fail(top, VKMOE_E_DATA, "head", "identity needs task regress");
    bool binary = info->head == VKMOE_HEAD_SIGMOID && info->n_outputs == 1 && info->n_classes == 2;
    if (!binary && info->n_outputs != info->n_classes)
        return moe_config_fail(top, VKMOE_E_DATA, "classes", "%u, but the last layer gives %u",
                               info->n_classes, info->n_outputs);
    return VKMOE_OK;
}

enum vkmoe_status moe_model_read_config(vkmoe_model *model)
{
    static const char *const keys[] = {"format", "task", "classes", "input", "layers", "head",
                                       NULL};
    enum vkmoe_status status;
    const struct moe_config top = {.file = model->path, .object = model->config};
    int format = 0, task = -1, head = -1;
    TRY(moe_config_keys(&top, keys));
    TRY(moe_config_word(&top, "format", "vkmoe-model/1", NULL, &format));
    TRY(moe_config_word(&top, "task", "classify|regress", NULL, &task));
    TRY(moe_config_word(&top, "head", "identity|softmax|sigmoid", NULL, &head));
    model->info.task = (enum vkmoe_task) task;
    model->info.head = (enum vkmoe_head) head;
    TRY(read_input(model, &top));
    TRY(read_layers(model, &top));
    if (model->info.task == VKMOE_TASK_CLASSIFY)
        TRY(read_classes(model, &top));
    else if (moe_config_has(&top, "classes"))
        return moe_config_fail(&top, VKMOE_E_DATA, "classes", "needs task classify");
    TRY(check_outputs(model, &top));

fail:
    return status;
}
