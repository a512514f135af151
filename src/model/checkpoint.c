// SPDX-License-Identifier: MIT
// Opening a checkpoint: what it is, whose it is, and what its configuration has of each layer.
#include "model/checkpoint.h"

#include "base/bits.h"
#include "base/desc.h"
#include "base/file.h"
#include "base/host.h"
#include "base/status.h"
#include "model/config.h"
#include "model/model.h"

#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_CONFIG_SIZE = 64 << 20, MAX_LAYERS = 4096 };

// ---- config.json -----------------------------------------------------------------------------

static enum vkmoe_status read_config(vkmoe_checkpoint *c)
{
    enum vkmoe_status status;
    char path[PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/config.json", c->path);
    if (n < 0 || (size_t) n >= sizeof path)
        return moe_fail(VKMOE_E_IO, "%.200s: the path is too long", c->path);
    // A description that says all stands in for it.
    if (c->explicit.n_layers > 0 && c->explicit.layer && c->explicit.n_places > 0 &&
        access(path, F_OK) != 0)
        return VKMOE_OK;
    // Whole numbers may be beyond 64 bits where nobody cares: all of them become real.
    TRY(moe_json_read(&c->host, path, MAX_CONFIG_SIZE,
                      JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &c->config));
    if (!json_is_object(c->config))
        status = moe_fail(VKMOE_E_DATA, "%s: not a JSON object", path);

fail:
    return status;
}

// Rows and columns that share a scale, where the configuration says so.
static void read_scale_block(vkmoe_checkpoint *c)
{
    const json_t *text = json_object_get(c->config, "text_config");
    const json_t *config = json_object_get(c->config, "quantization_config");
    if (!config)
        config = json_object_get(text, "quantization_config");
    const json_t *block = json_object_get(config, "weight_block_size");
    for (size_t i = 0; i < 2; i++) {
        double n = json_number_value(json_array_get(block, i));
        if (n >= 1 && n <= 1 << 20)
            c->scale_block[i] = (uint32_t) n;
    }
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

// A family by the model's own type, or by that of its text part.
static const struct moe_family *family_of_config(const json_t *config)
{
    static const char *const parts[] = {"text_config", "language_config", "llm_config",
                                        "thinker_config"};
    const json_t *class = json_array_get(json_object_get(config, "architectures"), 0);
    const struct moe_family *family =
        json_is_string(class) ? moe_family_of_type(json_string_value(class)) : NULL;
    if (!family)
        family = moe_family_of_type(text_of(config, "model_type"));
    for (size_t i = 0; !family && i < MOE_COUNT(parts); i++)
        family = moe_family_of_type(text_of(json_object_get(config, parts[i]), "model_type"));
    return family;
}

// ---- whose it is -----------------------------------------------------------------------------

static enum vkmoe_status choose_family(vkmoe_checkpoint *c, const char *assume,
                                       const struct moe_family *own)
{
    char list[2048];
    c->family = c->explicit.family ? c->explicit.family : own;
    if (assume) {
        c->family = moe_family_named(assume);
        if (!c->family)
            return moe_fail(VKMOE_E_ARGUMENT, "no family '%.40s'; there are: %s", assume,
                            moe_family_list(list));
    }
    // A description that says all needs no family.
    if (!c->family && c->explicit.layer && c->explicit.n_places > 0)
        return VKMOE_OK;
    const char *why = moe_family_why_not(c->says);
    if (!c->family && why)
        return moe_fail(VKMOE_E_UNSUPPORTED, "%.150s: '%.60s' cannot be computed here: %s",
                        c->path, c->says, why);
    if (!c->family)
        return moe_fail(VKMOE_E_UNSUPPORTED, "%.150s: '%.60s' is no family known here: %s",
                        c->path, c->says, moe_family_list(list));
    c->layout = c->source.is_gguf ? &moe_layout_gguf : c->family->layout;
    return VKMOE_OK;
}

static enum vkmoe_status count_layers(vkmoe_checkpoint *c)
{
    enum vkmoe_status status;
    uint32_t decoder = 0;
    c->n_layers = c->explicit.n_layers;
    if (c->n_layers == 0)
        TRY(moe_look_up_u32(&c->lookup, "num_hidden_layers|encoder_layers|n_layers|num_layers|"
                            "n_layer", "block_count", MOE_ALL_LAYERS, &c->n_layers));
    // Models of two stacks.
    if (c->layout == &moe_layout_switch || c->layout == &moe_layout_nllb) {
        c->n_encoder_layers = c->n_layers;
        decoder = c->n_layers;
        TRY(moe_look_up_u32(&c->lookup, "encoder_layers|num_layers", NULL, MOE_ALL_LAYERS,
                            &c->n_encoder_layers));
        TRY(moe_look_up_u32(&c->lookup, "decoder_layers|num_decoder_layers", NULL, MOE_ALL_LAYERS,
                            &decoder));
        c->n_layers = c->n_encoder_layers + decoder;
    }
    if (c->n_layers == 0 || c->n_layers > MAX_LAYERS)
        return moe_fail(VKMOE_E_DATA, "%s: %u layers; must be 1 to %d", c->path, c->n_layers,
                        MAX_LAYERS);

fail:
    return status;
}

// ---- kinds -----------------------------------------------------------------------------------

static enum vkmoe_status open_folder(vkmoe_checkpoint *c, const char *assume)
{
    enum vkmoe_status status;
    c->kind = VKMOE_CHECKPOINT_HF;
    TRY(read_config(c));
    read_scale_block(c);
    c->says = text_of(c->config, "model_type");
    c->lookup = (struct moe_lookup){.file = c->path, .root = c->config};
    TRY(choose_family(c, assume, family_of_config(c->config)));
    TRY(moe_source_open_folder(&c->host, c->path, &c->source));
    TRY(count_layers(c));

fail:
    return status;
}

static enum vkmoe_status open_gguf(vkmoe_checkpoint *c, const char *path, const char *assume)
{
    enum vkmoe_status status;
    const char *arch = "";
    c->kind = VKMOE_CHECKPOINT_GGUF;
    TRY(moe_source_open_gguf(&c->host, path, &c->source));
    TRY(moe_gguf_string(&c->source.gguf, "general.architecture", &arch));
    c->says = arch;
    c->lookup = (struct moe_lookup){.file = c->path, .gguf = &c->source.gguf, .arch = arch};
    TRY(choose_family(c, assume, moe_family_of_gguf(&c->source.gguf, arch)));
    TRY(count_layers(c));

fail:
    return status;
}

static enum vkmoe_status open_model(vkmoe_checkpoint *c)
{
    enum vkmoe_status status;
    c->kind = VKMOE_CHECKPOINT_MODEL;
    TRY(moe_source_open_file(&c->host, c->path, &c->source));
    const char *format = moe_safetensors_metadata(&c->source.single, "format");
    const char *text = moe_safetensors_metadata(&c->source.single, "config");
    if (!format || strcmp(format, MOE_MODEL_FORMAT) != 0 || !text)
        return moe_fail(VKMOE_E_DATA, "%s: not a " MOE_MODEL_FORMAT " file: its format is '%.40s'",
                        c->path, format ? format : "(none)");
    TRY(moe_safetensors_read_types(&c->source.single, c->path));
    TRY(moe_description_parse(&c->host, c->path, text, strlen(text), false, &c->model));
    c->says = "vkmoe-model/1";
    c->layout = &moe_layout_model;
    c->n_layers = c->model.info.n_layers;

fail:
    return status;
}

static enum vkmoe_status open_any(vkmoe_checkpoint *c, const vkmoe_checkpoint_desc *desc)
{
    struct stat info;
    if (stat(c->path, &info) != 0)
        return moe_fail(VKMOE_E_IO, "%s: there is no such model", c->path);
    if (S_ISDIR(info.st_mode))
        return open_folder(c, desc->assume);
    if (moe_has_suffix(c->path, ".gguf"))
        return open_gguf(c, c->path, desc->assume);
    return open_model(c);
}

static enum vkmoe_status create(const vkmoe_host *host, const char *path, vkmoe_checkpoint **out)
{
    enum vkmoe_status status;
    vkmoe_checkpoint *c = NULL;
    TRY(moe_try_alloc(host, sizeof *c, "checkpoint", &c));
    c->host = *host;
    TRY(moe_try_alloc(&c->host, strlen(path) + 1, "path", &c->path));
    memcpy(c->path, path, strlen(path) + 1);
    *out = c;
    return VKMOE_OK;

fail:
    vkmoe_checkpoint_destroy(c);
    return status;
}

static enum vkmoe_status make_layers(vkmoe_checkpoint *c)
{
    return moe_try_alloc(&c->host, c->n_layers * sizeof *c->layers, "layers", &c->layers);
}

enum vkmoe_status vkmoe_checkpoint_open(const char *path, const vkmoe_checkpoint_desc *desc,
                                        vkmoe_checkpoint **out)
{
    enum vkmoe_status status;
    vkmoe_checkpoint *c = NULL;
    vkmoe_checkpoint_desc full = vkmoe_checkpoint_desc_init();
    vkmoe_host host;
    if (!path || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_checkpoint_open: %s is NULL",
                        path ? "out" : "path");
    *out = NULL;
    if (desc)
        TRY(moe_desc_copy(&full, sizeof full, desc, "vkmoe_checkpoint_desc"));
    TRY(moe_host_init(&host, full.host));
    TRY(create(&host, path, &c));
    if (full.description)
        TRY(moe_explicit_parse(&c->host, full.description, &c->explicit));
    TRY(open_any(c, &full));
    TRY(make_layers(c));
    *out = c;
    return VKMOE_OK;

fail:
    vkmoe_checkpoint_destroy(c);
    return status;
}

enum vkmoe_status moe_checkpoint_open_gguf(const vkmoe_host *host, const char *path,
                                           const char *name, vkmoe_checkpoint **out)
{
    enum vkmoe_status status;
    vkmoe_checkpoint *c = NULL;
    *out = NULL;
    TRY(create(host, name, &c));
    TRY(open_gguf(c, path, NULL));
    TRY(make_layers(c));
    *out = c;
    return VKMOE_OK;

fail:
    vkmoe_checkpoint_destroy(c);
    return status;
}

void vkmoe_checkpoint_destroy(vkmoe_checkpoint *c)
{
    if (!c)
        return;
    const vkmoe_host host = c->host;
    for (uint32_t i = 0; c->layers && i < c->n_layers; i++)
        moe_checkpoint_unbind(&host, c->layers[i]);
    moe_free(&host, c->layers);
    moe_explicit_finish(&host, &c->explicit);
    moe_description_finish(&c->model);
    moe_source_close(&c->source);
    json_decref(c->config);
    moe_free(&host, c->path);
    moe_free(&host, c);
}

// ---- layers ----------------------------------------------------------------------------------

static enum vkmoe_status model_facts(const vkmoe_checkpoint *c, uint32_t layer,
                                     struct moe_facts *out, char reason[160])
{
    const vkmoe_net_layer *net = &c->model.layers[layer];
    out->d = c->model.moe[layer];
    if (net->kind != VKMOE_NET_MOE)
        snprintf(reason, 160, "it is no moe layer");
    else if (net->scorer != VKMOE_SCORER_LINEAR || net->combine != VKMOE_COMBINE_WEIGHTED_SUM ||
             net->pairing != VKMOE_PAIRING_NONE || out->d.expert_kind != VKMOE_EXPERT_MLP)
        snprintf(reason, 160, "only the network that it is part of computes its experts");
    return VKMOE_OK;
}

enum vkmoe_status moe_checkpoint_facts(vkmoe_checkpoint *c, uint32_t layer, struct moe_facts *out,
                                       char reason[160])
{
    enum vkmoe_status status = VKMOE_OK;
    *reason = '\0';
    *out = (struct moe_facts){.d = vkmoe_layer_desc_init()};
    if (c->kind == VKMOE_CHECKPOINT_MODEL)
        return model_facts(c, layer, out, reason);
    if (c->family) {
        TRY(moe_dense_layer(&c->lookup, layer, reason));
        if (*reason)
            return VKMOE_OK;
        TRY(moe_family_facts(c->family, &c->lookup, layer, out));
    }
    if (c->explicit.layer)
        TRY(moe_layer_fields_read(c->explicit.layer, &out->d));

fail:
    return status;
}

enum vkmoe_status moe_checkpoint_layer(vkmoe_checkpoint *c, uint32_t layer,
                                       struct moe_checkpoint_layer **out)
{
    enum vkmoe_status status;
    struct moe_checkpoint_layer *bound = NULL;
    if (layer >= c->n_layers)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: layer %u of a model with %u", c->path, layer,
                        c->n_layers);
    if (!c->layers[layer]) {
        TRY(moe_try_alloc(&c->host, sizeof *bound, "layer", &bound));
        TRY(moe_checkpoint_bind(c, layer, bound));
        c->layers[layer] = bound;
    }
    *out = c->layers[layer];
    return VKMOE_OK;

fail:
    moe_checkpoint_unbind(&c->host, bound);
    return status;
}

enum vkmoe_status moe_checkpoint_moe_layer(vkmoe_checkpoint *c, uint32_t layer,
                                           struct moe_checkpoint_layer **out)
{
    enum vkmoe_status status = moe_checkpoint_layer(c, layer, out);
    if (status == VKMOE_OK && !(*out)->has_experts)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: layer %u has no experts: %s", c->path, layer,
                        (*out)->reason);
    return status;
}
