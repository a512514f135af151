// SPDX-License-Identifier: MIT
// A model's tensors on their way to a file, and into a network.
#include "model/model.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "core/dtype.h"

#include <stdio.h>
#include <stdlib.h>

// ---- to a file -------------------------------------------------------------------------------

static enum vkmoe_status make_metadata(const char *path, const struct moe_description *d,
                                       json_t **out)
{
    json_t *config = json_copy(d->config);
    char *text = NULL;
    if (config && json_object_set_new(config, "format", json_string(MOE_MODEL_FORMAT)) == 0)
        text = json_dumps(config, JSON_COMPACT);
    *out = text ? json_pack("{s:s, s:s}", "format", MOE_MODEL_FORMAT, "config", text) : NULL;
    free(text);
    json_decref(config);
    return *out ? VKMOE_OK : moe_fail(VKMOE_E_MEMORY, "%s: config", path);
}

// The values of one tensor, in memory of the caller's to free.
static enum vkmoe_status read_tensor(const struct moe_description *d,
                                     const struct moe_tensor_spec *spec,
                                     const struct moe_input_stats *stats, bool second,
                                     moe_tensor_read *read, void *user, float **out)
{
    uint64_t size;
    if (!moe_mul(spec->n_elements, sizeof **out, &size) || size > SIZE_MAX)
        return moe_fail(VKMOE_E_MEMORY, "tensor '%s': %llu f32", spec->name,
                        (unsigned long long) spec->n_elements);
    enum vkmoe_status status = moe_try_alloc(&d->host, (size_t) size, spec->name, out);
    if (status != VKMOE_OK)
        return status;
    if (*spec->net_name)
        return read(user, spec->net_name, *out, spec->n_elements);
    memcpy(*out, second ? stats->second : stats->first, (size_t) size);
    return VKMOE_OK;
}

enum vkmoe_status moe_model_save(const char *path, const struct moe_description *d,
                                 const struct moe_input_stats *stats, moe_tensor_read *read,
                                 void *user)
{
    enum vkmoe_status status;
    struct moe_tensor_spec *specs = NULL;
    struct moe_st_source *sources = NULL;
    float **values = NULL;
    json_t *metadata = NULL;
    uint32_t n = 0;
    const bool scaled = d->info.input == VKMOE_INPUT_STANDARDIZE ||
                        d->info.input == VKMOE_INPUT_MINMAX;
    if (d->info.task == VKMOE_TASK_CLASSIFY && !d->classes)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: the classes have no names", path);
    if (scaled && (!stats || !stats->first || !stats->second))
        return moe_fail(VKMOE_E_ARGUMENT, "%s: no statistics of the input", path);
    TRY(moe_description_tensors(d, &specs, &n));
    TRY(moe_try_alloc(&d->host, moe_max(n, 1) * sizeof *sources, "tensors", &sources));
    TRY(moe_try_alloc(&d->host, moe_max(n, 1) * sizeof *values, "tensors", &values));
    for (uint32_t i = 0; i < n; i++) {
        TRY(read_tensor(d, &specs[i], stats, i == 1, read, user, &values[i]));
        sources[i] = (struct moe_st_source){specs[i].name, "F32", specs[i].n_dims, {0}, values[i]};
        memcpy(sources[i].dims, specs[i].dims, sizeof specs[i].dims);
    }
    TRY(make_metadata(path, d, &metadata));
    TRY(moe_safetensors_write(&d->host, path, sources, n, metadata));

fail:
    json_decref(metadata);
    for (uint32_t i = 0; values && i < n; i++)
        moe_free(&d->host, values[i]);
    moe_free(&d->host, values);
    moe_free(&d->host, sources);
    moe_free(&d->host, specs);
    return status;
}

static enum vkmoe_status read_net(void *user, const char *net_name, float *data, uint64_t n)
{
    return vkmoe_net_read(user, VKMOE_NET_VALUE, net_name, data, n);
}

enum vkmoe_status moe_model_save_net(const char *path, const struct moe_description *d,
                                     const struct moe_input_stats *stats, vkmoe_net *net)
{
    return moe_model_save(path, d, stats, read_net, net);
}

// ---- into a network --------------------------------------------------------------------------

// What is used of a tensor of the layer that desc names.
static enum vkmoe_status load_part(const vkmoe_model *model, uint32_t i, enum moe_use use,
                                   const vkmoe_session_desc *desc, const char *name, vkmoe_net *net)
{
    enum vkmoe_status status = VKMOE_OK;
    const vkmoe_tensor *tensor = &model->tensors[i];
    uint64_t n = model->specs[i].n_elements; // as many as are in the file
    const unsigned char *from = tensor->data;
    float *copy = NULL;
    if (use == MOE_USE_ZEROS)
        n = model->d.widths[desc->layer];
    if (use == MOE_USE_SLICE) {
        n /= model->d.moe[desc->layer].n_experts;
        from += moe_dtype_size(tensor->type, n * desc->expert);
    }
    const float *data = (const float *) from;
    if (tensor->type != VKMOE_F32 || use == MOE_USE_ZEROS) {
        TRY(moe_try_alloc(&model->host, (size_t) n * sizeof *copy, name, &copy));
        if (use != MOE_USE_ZEROS)
            moe_dtype_decode(tensor->type, from, (size_t) n, copy);
        data = copy;
    }
    TRY(vkmoe_net_write(net, VKMOE_NET_VALUE, name, data, n));

fail:
    moe_free(&model->host, copy);
    return status;
}

enum vkmoe_status moe_model_load_session(const vkmoe_model *model, const vkmoe_session_desc *desc,
                                         vkmoe_net *net)
{
    uint32_t n_loaded = 0;
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        const struct moe_tensor_spec *spec = &model->specs[i];
        const bool own = spec->layer == (int) desc->layer;
        enum moe_use use = MOE_USE_WHOLE;
        char name[sizeof spec->net_name];
        if (!*spec->net_name || (desc->one_layer && !own))
            continue;
        snprintf(name, sizeof name, "%s", spec->net_name);
        if (desc->one_layer)
            snprintf(name, sizeof name, "layers.0%.80s",
                     strchr(spec->name + strlen("layers."), '.'));
        if (own && desc->experts != VKMOE_EXPERTS_ALL)
            use = moe_tensor_use(spec->name, desc);
        if (use == MOE_USE_NONE)
            continue;
        enum vkmoe_status status = load_part(model, i, use, desc, name, net);
        if (status != VKMOE_OK)
            return status;
        n_loaded++;
    }
    if (n_loaded != vkmoe_net_param_count(net))
        return moe_fail(VKMOE_E_SHAPE, "%u tensors for a network of %u", n_loaded,
                        vkmoe_net_param_count(net));
    return VKMOE_OK;
}

enum vkmoe_status moe_model_load_net(const vkmoe_model *model, vkmoe_net *net)
{
    const vkmoe_session_desc whole = vkmoe_session_desc_init();
    return moe_model_load_session(model, &whole, net);
}
