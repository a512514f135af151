// SPDX-License-Identifier: MIT
// Layers as GGUF. The keys of a GGUF are copied; of a Hugging Face folder those are written that
// readers of the family's architecture look at. The new file is read again before it gets its name:
// what the keys cannot say is found there.
#include "model/save.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "core/layer_fields.h"

#include <stdio.h>

enum { MAX_VALUES = 40, MAX_KEY = 160, MAX_NAME = 64 };

// ---- names -----------------------------------------------------------------------------------

static const char *const names[VKMOE_N_PARTS] = {
    [VKMOE_PART_ROUTER] = "ffn_gate_inp.weight",
    [VKMOE_PART_ROUTER_BIAS] = "ffn_gate_inp.bias",
    [VKMOE_PART_SELECTION_BIAS] = "exp_probs_b.bias",
    [VKMOE_PART_TABLE] = "ffn_gate_tid2eid.weight",
    [VKMOE_PART_EXPERT_SCALE] = "ffn_down_exps.scale",
    [VKMOE_PART_PRENORM_SCALE] = "ffn_gate_inp.scale",
    [VKMOE_PART_SHARED_GATE] = "ffn_gate_inp_shexp.weight",
    [VKMOE_PART_LATENT_DOWN] = "ffn_latent_down.weight",
    [VKMOE_PART_LATENT_UP] = "ffn_latent_up.weight",
    [VKMOE_PART_LATENT_NORM] = "ffn_routed_norm.weight",
    [VKMOE_PART_GATE] = "ffn_gate_exps.weight",
    [VKMOE_PART_UP] = "ffn_up_exps.weight",
    [VKMOE_PART_DOWN] = "ffn_down_exps.weight",
    [VKMOE_PART_GATE_BIAS] = "ffn_gate_exps.bias",
    [VKMOE_PART_UP_BIAS] = "ffn_up_exps.bias",
    [VKMOE_PART_DOWN_BIAS] = "ffn_down_exps.bias",
    [VKMOE_PART_SHARED] = "ffn_gate_shexp.weight",
    [VKMOE_PART_SHARED + 1] = "ffn_up_shexp.weight",
    [VKMOE_PART_SHARED + 2] = "ffn_down_shexp.weight",
    [VKMOE_PART_SHARED + 3] = "ffn_gate_shexp.bias",
    [VKMOE_PART_SHARED + 4] = "ffn_up_shexp.bias",
    [VKMOE_PART_SHARED + 5] = "ffn_down_shexp.bias",
    [VKMOE_PART_ADJUGATE] = "ffn_gate_chexps.weight",
    [VKMOE_PART_ADJUGATE + 1] = "ffn_up_chexps.weight",
    [VKMOE_PART_ADJUGATE + 2] = "ffn_down_chexps.weight",
};

static enum vkmoe_status describe(struct moe_save_item *item, char name[MAX_NAME],
                                  struct moe_gguf_source *out)
{
    const struct moe_bound *bound = &item->layer->parts[item->part];
    *out = (struct moe_gguf_source){.name = name, .fill = moe_save_fill, .user = item};
    if (!names[item->part])
        return moe_fail(VKMOE_E_UNSUPPORTED, "%s: GGUF has no name for %s of layer %u: write "
                        ".safetensors", item->save->path, vkmoe_part_name(item->part),
                        item->index);
    snprintf(name, MAX_NAME, "blk.%u.%s", item->index, names[item->part]);
    if (item->part == VKMOE_PART_TABLE)
        out->type_id = MOE_GGML_I32;
    else
        moe_gguf_id_of(item->type, &out->type_id); // what fits in place of save->desc.type has one
    // Innermost first. A row alone, as of a gate vector, has one dimension.
    if (bound->shape == MOE_SHAPE_MATRIX)
        out->dims[out->n_dims++] = item->n_columns;
    if (bound->shape == MOE_SHAPE_VECTOR || item->n_rows > 1 || moe_part_is_matrix(item->part))
        out->dims[out->n_dims++] = item->n_rows;
    if (moe_part_is_stacked(item->part))
        out->dims[out->n_dims++] = item->n;
    return VKMOE_OK;
}

// ---- keys ------------------------------------------------------------------------------------

struct keys {
    const char *arch;
    struct moe_gguf_value values[MAX_VALUES];
    size_t n;
    char text[MAX_VALUES][MAX_KEY];
    union {
        uint32_t u32;
        float f32;
        unsigned char flag;
        struct moe_gguf_text text;
    } data[MAX_VALUES];
};

static void *add(struct keys *keys, const char *name, enum moe_gguf_value_type type)
{
    size_t i = keys->n++;
    snprintf(keys->text[i], MAX_KEY, strncmp(name, "general.", 8) == 0 ? "%.0s%s" : "%s.%s",
             keys->arch, name);
    keys->values[i] = (struct moe_gguf_value){
        .key = keys->text[i], .type = type, .n = 1, .data = &keys->data[i]};
    return &keys->data[i];
}

static void add_u32(struct keys *keys, const char *name, uint32_t value)
{
    memcpy(add(keys, name, MOE_GGUF_U32), &value, sizeof value);
}

static void add_f32(struct keys *keys, const char *name, float value)
{
    memcpy(add(keys, name, MOE_GGUF_F32), &value, sizeof value);
}

static void add_flag(struct keys *keys, const char *name, bool value)
{
    memcpy(add(keys, name, MOE_GGUF_BOOL), &value, sizeof value);
}

static void add_sizes(struct keys *keys, const vkmoe_layer_desc *d)
{
    add_u32(keys, "embedding_length", d->d_model);
    add_u32(keys, "feed_forward_length", d->d_ff);
    add_u32(keys, "expert_count", d->n_experts);
    add_u32(keys, "expert_used_count", d->top_k);
    add_u32(keys, "expert_feed_forward_length", d->d_ff);
    if (d->d_shared_ff > 0) {
        add_u32(keys, "expert_shared_feed_forward_length", d->d_shared_ff);
        if (d->d_shared_ff % d->d_ff == 0)
            add_u32(keys, "expert_shared_count", d->d_shared_ff / d->d_ff);
    }
    if (d->d_latent > 0)
        add_u32(keys, "moe_latent_size", d->d_latent);
    if (d->adjugate_group > 0) {
        add_u32(keys, "experts_per_group", d->adjugate_group);
        add_f32(keys, "expert_group_scale", d->adjugate_scale);
    }
}

static void add_rules(struct keys *keys, const vkmoe_layer_desc *d)
{
    static const uint32_t gating[] = {[VKMOE_SCORE_SOFTMAX] = 1, [VKMOE_SCORE_SIGMOID] = 2,
                                      [VKMOE_SCORE_SQRT_SOFTPLUS] = 4, [VKMOE_SCORE_NONE] = 0};
    bool selected = d->gate_source == VKMOE_GATE_SOFTMAX_SELECTED;
    float scale = d->routed_scale;
    if (scale == 1 && d->c_shared == 1)
        scale = d->c_routed; // families that scale the sum have it under the same key
    if (selected || gating[d->score] > 0)
        add_u32(keys, "expert_gating_func", selected ? 3 : gating[d->score]);
    if (!selected)
        add_flag(keys, "expert_weights_norm", d->norm != VKMOE_NORM_NONE);
    if (scale != 1)
        add_f32(keys, "expert_weights_scale", scale);
    if (d->n_group > 1) {
        add_u32(keys, "expert_group_count", d->n_group);
        add_u32(keys, "expert_group_used_count", d->topk_group);
    }
    if (d->logit_softcap > 0)
        add_f32(keys, "router_logit_softcapping", d->logit_softcap);
    if (d->clamp != VKMOE_CLAMP_NONE) {
        add_f32(keys, "swiglu_clamp_exp", d->limit);
        add_f32(keys, "swiglu_clamp_shexp", d->limit_shared);
    }
    if (d->act == VKMOE_ACT_SITU) {
        add_f32(keys, "activation.situ_beta", d->situ_beta);
        add_f32(keys, "activation.situ_linear_beta", d->situ_lambda);
    }
    if (d->router_prenorm)
        add_f32(keys, "attention.layer_norm_rms_epsilon", d->prenorm_eps);
    else if (d->latent_norm)
        add_f32(keys, "attention.layer_norm_rms_epsilon", d->latent_norm_eps);
}

// The first of the family's "a|b"; or what it shares with others.
static enum vkmoe_status find_arch(const struct moe_save *save, char out[64])
{
    static const struct {
        const char *family, *arch;
    } shared[] = {
        {"deepseek_v2", "deepseek2"},
        {"deepseek_v3", "deepseek2"},
        {"glm4_moe_lite", "deepseek2"},
        {"granitemoeshared", "granitemoe"},
    };
    const struct moe_family *family = save->checkpoint->family;
    const char *words = family ? family->archs : NULL;
    for (size_t i = 0; family && i < MOE_COUNT(shared); i++) {
        if (strcmp(shared[i].family, family->name) == 0)
            words = shared[i].arch;
    }
    if (!words)
        return moe_fail(VKMOE_E_UNSUPPORTED, "%s: GGUF has no architecture for %s: write "
                        ".safetensors", save->path, family ? family->name : "a model of no family");
    snprintf(out, 64, "%.*s", (int) strcspn(words, "|"), words);
    return VKMOE_OK;
}

// Layers that select by a table are the first ones.
static uint32_t count_tables(const struct moe_save *save)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < save->n_layers; i++) {
        if (save->layers[i].select == VKMOE_SELECT_TABLE)
            n = save->numbers[i] + 1;
    }
    return n;
}

static enum vkmoe_status make_keys(const struct moe_save *save, char arch[64], struct keys *keys)
{
    enum vkmoe_status status;
    TRY(find_arch(save, arch));
    const struct moe_gguf_text text = {arch, strlen(arch)};
    keys->arch = arch;
    memcpy(add(keys, "general.architecture", MOE_GGUF_STRING), &text, sizeof text);
    add_u32(keys, "general.quantization_version", 2);
    add_u32(keys, "block_count", save->checkpoint->n_layers);
    add_u32(keys, "leading_dense_block_count", save->numbers[0]);
    add_sizes(keys, &save->layers[0]);
    add_rules(keys, &save->layers[0]);
    if (count_tables(save) > 0)
        add_u32(keys, "hash_layer_count", count_tables(save));

fail:
    return status;
}

// Those of a GGUF, but for what says how it was stored.
static void copy_keys(const struct moe_gguf *gguf, struct moe_gguf_value *out, size_t *n)
{
    for (size_t i = 0; i < gguf->n_values; i++) {
        const char *key = gguf->values[i].key;
        if (strncmp(key, "split.", 6) != 0 && strcmp(key, "general.file_type") != 0)
            out[(*n)++] = gguf->values[i];
    }
}

// ---- the file --------------------------------------------------------------------------------

static double value_of(const struct moe_layer_field *field, const vkmoe_layer_desc *d)
{
    const char *at = (const char *) d + field->offset;
    uint32_t number;
    float real;
    switch (field->kind) {
    case MOE_FIELD_BOOL:
        return *(const bool *) at;
    case MOE_FIELD_F32:
        memcpy(&real, at, sizeof real);
        return (double) real;
    case MOE_FIELD_U32:
    case MOE_FIELD_ENUM:
        memcpy(&number, at, sizeof number);
        return number;
    case MOE_FIELD_ARRAY:
        break;
    }
    return 0;
}

static enum vkmoe_status compare(const struct moe_save *save, uint32_t index,
                                 const vkmoe_layer_desc *want, const vkmoe_layer_desc *got)
{
    for (uint32_t i = 0; i < moe_n_layer_fields; i++) {
        const struct moe_layer_field *field = &moe_layer_fields[i];
        double a = value_of(field, want), b = value_of(field, got);
        if (a != b)
            return moe_fail(VKMOE_E_UNSUPPORTED, "%s: GGUF cannot say layer.%s = %g of layer %u, "
                            "it would be read as %g: write .safetensors", save->path, field->name,
                            a, index, b);
    }
    return VKMOE_OK;
}

// Does the file say the same as the checkpoint?
static enum vkmoe_status look(void *user, const char *path)
{
    enum vkmoe_status status;
    const struct moe_save *save = user;
    vkmoe_checkpoint *copy = NULL;
    TRY(moe_checkpoint_open_gguf(&save->checkpoint->host, path, save->path, &copy));
    for (uint32_t i = 0; i < save->n_layers; i++) {
        struct moe_checkpoint_layer *layer;
        TRY(moe_checkpoint_moe_layer(copy, save->numbers[i], &layer));
        TRY(compare(save, save->numbers[i], &save->layers[i], &layer->desc));
    }

fail:
    vkmoe_checkpoint_destroy(copy);
    return status;
}

enum vkmoe_status moe_save_gguf(struct moe_save *save)
{
    enum vkmoe_status status;
    const vkmoe_host *host = &save->checkpoint->host;
    const struct moe_gguf *gguf = &save->checkpoint->source.gguf;
    const bool copied = save->checkpoint->kind == VKMOE_CHECKPOINT_GGUF;
    struct moe_gguf_source *sources = NULL;
    struct moe_gguf_value *values = NULL;
    char (*texts)[MAX_NAME] = NULL;
    struct keys *keys = NULL;
    const struct moe_gguf_check check = {look, save};
    char arch[64];
    size_t n = 0;
    uint32_t id;
    if (save->checkpoint->kind == VKMOE_CHECKPOINT_MODEL)
        return moe_fail(VKMOE_E_UNSUPPORTED, "%s: a vkmoe-model is of no architecture that GGUF "
                        "has a name for: write .safetensors", save->path);
    if (!moe_gguf_id_of(save->desc.type, &id))
        return moe_fail(VKMOE_E_UNSUPPORTED, "%s: GGUF has no type %s: give another, or write "
                        ".safetensors", save->path, vkmoe_dtype_name(save->desc.type));
    TRY(moe_try_alloc(host, save->n_items * sizeof *sources, "tensors", &sources));
    TRY(moe_try_alloc(host, save->n_items * sizeof *texts, "names", &texts));
    TRY(moe_try_alloc(host, (gguf->n_values + 1) * sizeof *values, "keys", &values));
    TRY(moe_try_alloc(host, sizeof *keys, "keys", &keys));
    for (size_t i = 0; i < save->n_items; i++)
        TRY(describe(&save->items[i], texts[i], &sources[i]));
    if (copied)
        copy_keys(gguf, values, &n);
    else
        TRY(make_keys(save, arch, keys));
    TRY(moe_gguf_write(host, save->path, copied ? values : keys->values, copied ? n : keys->n,
                       sources, save->n_items, &check));

fail:
    moe_free(host, keys);
    moe_free(host, values);
    moe_free(host, texts);
    moe_free(host, sources);
    return status;
}
