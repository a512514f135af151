// SPDX-License-Identifier: MIT
#include "model/model.h"

#include "base/host.h"
#include "base/status.h"

static enum vkmoe_status read_config(vkmoe_model *model)
{
    const char *format = moe_safetensors_metadata(&model->file, "format");
    const char *text = moe_safetensors_metadata(&model->file, "config");
    if (!format || strcmp(format, MOE_MODEL_FORMAT) != 0)
        return moe_fail(VKMOE_E_DATA, "%s: not a " MOE_MODEL_FORMAT " file: its format is '%.40s'",
                        model->path, format ? format : "(none)");
    if (!text)
        return moe_fail(VKMOE_E_DATA, "%s: no config in __metadata__", model->path);
    return moe_description_parse(&model->host, model->path, text, strlen(text), false, &model->d);
}

enum vkmoe_status vkmoe_model_open(const vkmoe_host *host, const char *path, vkmoe_model **out)
{
    enum vkmoe_status status;
    vkmoe_model *model = NULL;
    vkmoe_host services;
    if (!path || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_model_open: %s is NULL", path ? "out" : "path");
    *out = NULL;
    TRY(moe_host_init(&services, host));
    TRY(moe_try_alloc(&services, sizeof *model, "model", &model));
    model->host = services;
    model->path = path;
    TRY(moe_safetensors_open(&model->host, path, &model->file));
    TRY(moe_safetensors_read_types(&model->file, path));
    TRY(read_config(model));
    TRY(moe_model_read_tensors(model));
    model->path = NULL;
    *out = model;
    return VKMOE_OK;

fail:
    vkmoe_model_destroy(model);
    return status;
}

void vkmoe_model_destroy(vkmoe_model *model)
{
    if (!model)
        return;
    const vkmoe_host host = model->host;
    for (size_t i = 0; i < model->n_copies; i++)
        moe_free(&host, model->copies[i]);
    moe_free(&host, model->copies);
    for (uint32_t i = 0; model->layers && i < model->d.info.n_layers; i++)
        moe_free(&host, model->layers[i].experts);
    moe_free(&host, model->layers);
    moe_free(&host, model->tensors);
    moe_free(&host, model->specs);
    moe_description_finish(&model->d);
    moe_safetensors_close(&model->file);
    moe_free(&host, model);
}

enum vkmoe_status vkmoe_model_get_info(const vkmoe_model *model, vkmoe_model_info *out)
{
    if (!model || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_model_get_info: %s is NULL",
                        model ? "out" : "model");
    *out = model->d.info;
    return VKMOE_OK;
}

const char *vkmoe_model_class(const vkmoe_model *model, uint32_t i)
{
    return model && model->d.classes && i < model->d.info.n_classes ? model->d.classes[i] : NULL;
}

static enum vkmoe_status check_layer(const vkmoe_model *model, uint32_t i, const void *out,
                                     const char *function)
{
    if (!model || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: %s is NULL", function, model ? "out" : "model");
    if (i >= model->d.info.n_layers)
        return moe_fail(VKMOE_E_ARGUMENT, "layer %u of a model with %u", i, model->d.info.n_layers);
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_model_layer(const vkmoe_model *model, uint32_t i, vkmoe_layer_desc *out)
{
    enum vkmoe_status status = check_layer(model, i, out, "vkmoe_model_layer");
    if (status != VKMOE_OK)
        return status;
    if (model->d.layers[i].kind != VKMOE_NET_MOE)
        return moe_fail(VKMOE_E_ARGUMENT, "layer %u has no experts", i);
    *out = model->layers[i].desc;
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_model_net_layer(const vkmoe_model *model, uint32_t i, vkmoe_net_layer *out)
{
    enum vkmoe_status status = check_layer(model, i, out, "vkmoe_model_net_layer");
    if (status == VKMOE_OK)
        *out = model->d.layers[i];
    return status;
}

uint32_t vkmoe_model_layer_d_in(const vkmoe_model *model, uint32_t i)
{
    return model && i < model->d.info.n_layers ? model->d.widths[i] : 0;
}

bool vkmoe_model_is_by_token(const vkmoe_model *model, uint32_t layer)
{
    return model && model->d.pool != MOE_NO_LAYER && layer < (uint32_t) model->d.pool;
}

const struct moe_description *moe_model_description(const vkmoe_model *model)
{
    return &model->d;
}

enum vkmoe_status vkmoe_model_tokens(const vkmoe_model *model, uint32_t n,
                                     const char *const *texts, int32_t *offsets, int32_t *token_ids)
{
    if (!model || !texts || !offsets)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_model_tokens: %s is NULL",
                        !model ? "model" : !texts ? "texts" : "offsets");
    if (!moe_input_is_text(model->d.info.input))
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_model_tokens: the model's input is no text");
    uint64_t total = 0;
    offsets[0] = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t n_tokens;
        if (!texts[i])
            return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_model_tokens: text %u is NULL", i);
        enum vkmoe_status status =
            moe_text_tokens(&model->d.text, &model->host, texts[i], strlen(texts[i]),
                            token_ids ? token_ids + total : NULL, &n_tokens);
        if (status != VKMOE_OK)
            return status;
        total += n_tokens;
        if (total > INT32_MAX)
            return moe_fail(VKMOE_E_SHAPE, "texts 0..%u have more than %d tokens", i, INT32_MAX);
        offsets[i + 1] = (int32_t) total;
    }
    return VKMOE_OK;
}
