// SPDX-License-Identifier: MIT
// Finds the tensors a configuration asks for, checks them, and points the layers' weights at them.
#include "model/model.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "core/dtype.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

struct name {
    char text[96];
};

__attribute__((format(printf, 1, 2)))
static struct name make_name(const char *format, ...)
{
    struct name name;
    va_list args;
    va_start(args, format);
    vsnprintf(name.text, sizeof name.text, format, args);
    va_end(args);
    return name;
}

static enum vkmoe_status copy_memory(vkmoe_model *model, size_t size, const char *name, void *out)
{
    enum vkmoe_status status = moe_try_alloc(&model->host, size, name, out);
    if (status == VKMOE_OK)
        memcpy(&model->copies[model->n_copies++], out, sizeof(void *));
    return status;
}

// Ids, in I32.
static bool is_table(const struct moe_tensor_spec *spec)
{
    return strstr(spec->name, ".router.table") != NULL;
}

// Of experts or latent: may be rows of blocks.
static bool is_matrix(const struct moe_tensor_spec *spec)
{
    const char *dot = spec->n_dims > 1 ? strrchr(spec->name, '.') : NULL;
    return dot && strcmp(dot, ".weight") == 0 && !strstr(spec->name, ".router.");
}

// The float tensor that `spec` wants, or what may stand in its place.
static enum vkmoe_status find(vkmoe_model *model, const struct moe_tensor_spec *spec,
                              struct moe_st_tensor **out, enum vkmoe_dtype *type)
{
    char is[192], wanted[192];
    uint64_t dims[MOE_ST_MAX_DIMS];
    struct moe_st_tensor *tensor = moe_safetensors_find(&model->file, spec->name);
    if (!tensor)
        return moe_fail(VKMOE_E_DATA, "%s: tensor '%s' is missing", model->path, spec->name);
    memcpy(dims, tensor->dims, sizeof dims);
    if (is_table(spec)) {
        if (strcmp(tensor->dtype->name, "I32") != 0)
            return moe_fail(VKMOE_E_DATA, "%s: tensor '%s': %s: only I32 here", model->path,
                            spec->name, moe_st_describe(tensor, is));
        *type = VKMOE_F32; // as large; nobody looks at it
    } else if (!moe_st_float_type(tensor, type) &&
               !(is_matrix(spec) && tensor->n_dims > 0 &&
                 moe_st_block_type(&model->file, tensor, type, &dims[tensor->n_dims - 1]))) {
        return moe_fail(VKMOE_E_DATA, "%s: tensor '%s': %s: only F32, F16 and BF16 here",
                        model->path, spec->name, moe_st_describe(tensor, is));
    }
    if (tensor->n_dims != spec->n_dims ||
        memcmp(dims, spec->dims, spec->n_dims * sizeof *spec->dims) != 0) {
        struct moe_st_tensor other = {.dtype = tensor->dtype, .n_dims = spec->n_dims};
        memcpy(other.dims, spec->dims, spec->n_dims * sizeof *spec->dims);
        return moe_fail(VKMOE_E_DATA, "%s: tensor '%s': %s, the configuration makes it %s",
                        model->path, spec->name, moe_st_describe(tensor, is),
                        moe_st_describe(&other, wanted));
    }
    tensor->used = true;
    *out = tensor;
    return VKMOE_OK;
}

static void warn_nan(const vkmoe_model *model, const char *name, enum vkmoe_dtype type,
                     const unsigned char *data, uint64_t n_elements)
{
    float chunk[1024]; // whole blocks; rows are, too
    uint64_t n_nan = 0;
    for (uint64_t i = 0; i < n_elements; i += MOE_COUNT(chunk)) {
        size_t n = (size_t) moe_min(MOE_COUNT(chunk), n_elements - i);
        moe_dtype_decode(type, data + moe_dtype_size(type, i), n, chunk);
        for (size_t j = 0; j < n; j++)
            n_nan += isnan(chunk[j]);
    }
    if (n_nan > 0)
        moe_log(&model->host, VKMOE_LOG_WARN, "%s: tensor '%s': %llu of %llu values are NaN",
                model->path, name, (unsigned long long) n_nan, (unsigned long long) n_elements);
}

// A copy of the tensor in its own type.
static enum vkmoe_status get(vkmoe_model *model, const struct moe_tensor_spec *spec,
                             vkmoe_tensor *out)
{
    enum vkmoe_status status;
    struct moe_st_tensor *tensor = NULL;
    void *copy;
    TRY(find(model, spec, &tensor, &out->type));
    size_t size = (size_t) (tensor->end - tensor->begin);
    TRY(copy_memory(model, size, spec->name, &copy));
    TRY(moe_safetensors_read(&model->file, tensor, 0, size, copy));
    out->data = copy;
    if (!is_table(spec))
        warn_nan(model, spec->name, out->type, copy, spec->n_elements);

fail:
    return status;
}

// ---- layers of plans -------------------------------------------------------------------------

// Number of a tensor among the model's; it is there.
static uint32_t index_of(const vkmoe_model *model, struct name name)
{
    uint32_t i = 0;
    while (strcmp(model->specs[i].name, name.text) != 0)
        i++;
    return i;
}

// The tensor as f32.
static enum vkmoe_status get_f32(vkmoe_model *model, struct name name, const float **out)
{
    enum vkmoe_status status = VKMOE_OK;
    const uint32_t i = index_of(model, name);
    const vkmoe_tensor *tensor = &model->tensors[i];
    const size_t n = (size_t) model->specs[i].n_elements; // as many as are in the file
    float *copy;
    *out = tensor->data;
    if (tensor->type != VKMOE_F32) {
        TRY(copy_memory(model, n * sizeof *copy, name.text, &copy));
        moe_dtype_decode(tensor->type, tensor->data, n, copy);
        *out = copy;
    }

fail:
    return status;
}

static enum vkmoe_status read_router(vkmoe_model *model, uint32_t index)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_model_layer *layer = &model->layers[index];
    const vkmoe_layer_desc *d = &layer->desc;
    layer->router.weight =
        model->tensors[index_of(model, make_name("layers.%u.router.weight", index))];
    if (d->router_bias)
        TRY(get_f32(model, make_name("layers.%u.router.bias", index), &layer->router.bias));
    if (d->selection_bias)
        TRY(get_f32(model, make_name("layers.%u.router.selection_bias", index),
                    &layer->router.selection_bias));
    if (d->shared_gate == VKMOE_SHARED_SIGMOID && d->d_shared_ff > 0)
        TRY(get_f32(model, make_name("layers.%u.shared.gate_vector", index),
                    &layer->router.shared_gate));

fail:
    return status;
}

// One matrix of the experts, (n_experts, rows, columns), and its bias; of the shared expert without
// the leading dimension.
struct matrix {
    vkmoe_tensor weight;
    const float *bias; // NULL: none
};

static enum vkmoe_status read_matrix(vkmoe_model *model, const char *prefix, const char *which,
                                     bool has_bias, struct matrix *out)
{
    *out = (struct matrix){.weight = model->tensors[index_of(model, make_name("%s.%s.weight",
                                                                              prefix, which))]};
    return has_bias ? get_f32(model, make_name("%s.%s.bias", prefix, which), &out->bias) : VKMOE_OK;
}

// The weights of one expert inside a matrix of all.
static vkmoe_tensor slice(const struct matrix *m, uint32_t expert, uint32_t rows, uint32_t columns)
{
    vkmoe_tensor tensor = m->weight;
    if (tensor.data)
        tensor.data = (const unsigned char *) tensor.data +
                      moe_dtype_size(tensor.type, (uint64_t) expert * rows * columns);
    return tensor;
}

static const float *slice_bias(const struct matrix *m, uint32_t expert, uint32_t rows)
{
    return m->bias ? m->bias + (size_t) expert * rows : NULL;
}

// Experts 0..max(n_experts, 1) of the tensors named `prefix`, into out[].
static enum vkmoe_status read_bank(vkmoe_model *model, const char *prefix, uint32_t n_experts,
                                   uint32_t d_ff, vkmoe_layer_desc *d, vkmoe_expert_tensors *out)
{
    enum vkmoe_status status;
    struct matrix gate = {0}, up, down;
    TRY(read_matrix(model, prefix, "up", d->up_bias, &up));
    TRY(read_matrix(model, prefix, "down", d->down_bias, &down));
    if (d->gated)
        TRY(read_matrix(model, prefix, "gate", d->gate_bias, &gate));
    if (n_experts > 0) {
        d->in_type = up.weight.type;
        d->out_type = down.weight.type;
    }
    if (d->gated && gate.weight.type != up.weight.type)
        return moe_fail(VKMOE_E_DATA, "%s: tensors '%s': gate is %s and up %s: one type for both",
                        model->path, prefix, vkmoe_dtype_name(gate.weight.type),
                        vkmoe_dtype_name(up.weight.type));
    if (up.weight.type != d->in_type || down.weight.type != d->out_type) {
        d->own_shared_types = true;
        d->shared_in_type = up.weight.type;
        d->shared_out_type = down.weight.type;
    }
    for (uint32_t e = 0; e < moe_max(n_experts, 1); e++) {
        out[e] = (vkmoe_expert_tensors){
            .gate = slice(&gate, e, d_ff, d->d_model),
            .up = slice(&up, e, d_ff, d->d_model),
            .down = slice(&down, e, d->d_out, d_ff),
            .gate_bias = slice_bias(&gate, e, d_ff),
            .up_bias = slice_bias(&up, e, d_ff),
            .down_bias = slice_bias(&down, e, d->d_out),
        };
    }

fail:
    return status;
}

bool moe_layer_needs_more(const vkmoe_layer_desc *d)
{
    return d->router_input || d->router_prenorm || d->select == VKMOE_SELECT_TABLE ||
           d->capacity_mode != VKMOE_CAPACITY_NONE || d->n_zero > 0 || d->d_latent > 0 ||
           d->adjugate_group > 0 || d->out_bias || d->expert_scale ||
           d->shared_gate == VKMOE_SHARED_SOFTMAX2 || d->shared_gate_bias;
}

// Do plans compute this layer, but for what `residual` adds?
static bool is_planned(const vkmoe_net_layer *layer)
{
    return layer->kind == VKMOE_NET_MOE && layer->scorer == VKMOE_SCORER_LINEAR &&
           layer->combine == VKMOE_COMBINE_WEIGHTED_SUM &&
           layer->pairing == VKMOE_PAIRING_NONE &&
           layer->layer->expert_kind == VKMOE_EXPERT_MLP &&
           !moe_layer_needs_more(layer->layer) && vkmoe_layer_check(layer->layer) == VKMOE_OK;
}

static enum vkmoe_status read_layer(vkmoe_model *model, uint32_t index)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_model_layer *layer = &model->layers[index];
    vkmoe_layer_desc *d = &layer->desc;
    *d = model->d.moe[index];
    layer->planned = is_planned(&model->d.layers[index]);
    if (!layer->planned)
        return VKMOE_OK;
    TRY(read_router(model, index));
    TRY(moe_try_alloc(&model->host, d->n_experts * sizeof *layer->experts, "experts",
                      &layer->experts));
    struct name prefix = make_name("layers.%u.experts", index);
    TRY(read_bank(model, prefix.text, d->n_experts, d->d_ff, d, layer->experts));
    if (d->d_shared_ff > 0) {
        prefix = make_name("layers.%u.shared", index);
        TRY(read_bank(model, prefix.text, 0, d->d_shared_ff, d, &layer->shared));
    }

fail:
    return status;
}

// ---- all of them -----------------------------------------------------------------------------

// The two numbers a feature is scaled with.
static enum vkmoe_status read_stats(vkmoe_model *model)
{
    enum vkmoe_status status = VKMOE_OK;
    const vkmoe_model_info *info = &model->d.info;
    struct moe_input_stats *stats = &model->stats;
    if (info->input != VKMOE_INPUT_STANDARDIZE && info->input != VKMOE_INPUT_MINMAX)
        return VKMOE_OK;
    struct name first = make_name("%s", model->specs[0].name);
    struct name second = make_name("%s", model->specs[1].name);
    TRY(get_f32(model, first, &stats->first));
    TRY(get_f32(model, second, &stats->second));
    for (uint32_t i = 0; i < info->n_features; i++) {
        float width = info->input == VKMOE_INPUT_MINMAX ? stats->second[i] - stats->first[i]
                                                        : stats->second[i];
        if (!isfinite(stats->first[i]) || !isfinite(width) || !(width > 0))
            return moe_fail(VKMOE_E_DATA, "%s: tensors '%s' and '%s': feature %u: %g and %g",
                            model->path, first.text, second.text, i, (double) stats->first[i],
                            (double) stats->second[i]);
    }

fail:
    return status;
}

enum vkmoe_status moe_model_read_tensors(vkmoe_model *model)
{
    enum vkmoe_status status;
    TRY(moe_description_tensors(&model->d, &model->specs, &model->n_tensors));
    TRY(moe_try_alloc(&model->host, moe_max(model->n_tensors, 1) * sizeof *model->tensors,
                      "tensors", &model->tensors));
    // A tensor needs two copies at most: as it is, and as f32.
    TRY(moe_try_alloc(&model->host, moe_max(model->n_tensors, 1) * 2 * sizeof *model->copies,
                      "tensor copies", &model->copies));
    TRY(moe_try_alloc(&model->host, model->d.info.n_layers * sizeof *model->layers, "layers",
                      &model->layers));
    for (uint32_t i = 0; i < model->n_tensors; i++)
        TRY(get(model, &model->specs[i], &model->tensors[i]));
    TRY(read_stats(model));
    for (uint32_t i = 0; i < model->d.info.n_layers; i++)
        TRY(read_layer(model, i));
    for (size_t i = 0; i < model->file.n_tensors; i++) {
        const struct moe_st_tensor *tensor = &model->file.tensors[i];
        if (!tensor->used)
            return moe_fail(VKMOE_E_DATA, "%s: tensor '%s' has no place in this model",
                            model->path, tensor->name);
    }

fail:
    return status;
}
