// SPDX-License-Identifier: MIT
#include "model/model.h"

#include "base/host.h"
#include "base/status.h"

#define FORMAT "vkmoe-model/1"

static enum vkmoe_status parse_config(vkmoe_model *model)
{
    const char *format = moe_safetensors_metadata(&model->file, "format");
    const char *text = moe_safetensors_metadata(&model->file, "config");
    if (!format || strcmp(format, FORMAT) != 0)
        return moe_fail(VKMOE_E_DATA, "%s: not a " FORMAT " file: its format is '%.40s'",
                        model->path, format ? format : "(none)");
    if (!text)
        return moe_fail(VKMOE_E_DATA, "%s: no config in __metadata__", model->path);
    json_error_t error;
    model->config = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!model->config)
        return moe_fail(VKMOE_E_DATA, "%s: config: %s (byte %d)", model->path, error.text,
                        error.position);
    if (!json_is_object(model->config))
        return moe_fail(VKMOE_E_DATA, "%s: config: not an object", model->path);
    return VKMOE_OK;
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
    TRY(parse_config(model));
    TRY(moe_model_read_config(model));
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
    for (uint32_t i = 0; model->layers && i < model->info.n_layers; i++)
        moe_free(&host, model->layers[i].experts);
    moe_free(&host, model->layers);
    moe_free(&host, model->classes);
    json_decref(model->config);
    moe_safetensors_close(&model->file);
    moe_free(&host, model);
}

enum vkmoe_status vkmoe_model_get_info(const vkmoe_model *model, vkmoe_model_info *out)
{
    if (!model || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_model_get_info: %s is NULL",
                        model ? "out" : "model");
    *out = model->info;
    return VKMOE_OK;
}

const char *vkmoe_model_class(const vkmoe_model *model, uint32_t i)
{
    return model && i < model->info.n_classes ? model->classes[i] : NULL;
}

enum vkmoe_status vkmoe_model_layer(const vkmoe_model *model, uint32_t i, vkmoe_layer_desc *out)
{
    if (!model || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_model_layer: %s is NULL", model ? "out" : "model");
    if (i >= model->info.n_layers)
        return moe_fail(VKMOE_E_ARGUMENT, "layer %u of a model with %u", i, model->info.n_layers);
    *out = model->layers[i].desc;
    return VKMOE_OK;
}
