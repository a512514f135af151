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

struct shape {
    uint32_t n_dims;
    uint64_t dims[3];
};

#define SHAPE1(a) ((struct shape){1, {a}})
#define SHAPE2(a, b) ((struct shape){2, {a, b}})
#define SHAPE3(a, b, c) ((struct shape){3, {a, b, c}})

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

// A float tensor of the given shape.
static enum vkmoe_status find(vkmoe_model *model, const char *name, struct shape shape,
                              struct moe_st_tensor **out, enum vkmoe_dtype *type)
{
    char is[192], wanted[192];
    struct moe_st_tensor *tensor = moe_safetensors_find(&model->file, name);
    if (!tensor)
        return moe_fail(VKMOE_E_DATA, "%s: tensor '%s' is missing", model->path, name);
    if (!moe_st_float_type(tensor, type))
        return moe_fail(VKMOE_E_DATA, "%s: tensor '%s': %s: only F32, F16 and BF16 here",
                        model->path, name, moe_st_describe(tensor, is));
    if (tensor->n_dims != shape.n_dims ||
        memcmp(tensor->dims, shape.dims, shape.n_dims * sizeof *shape.dims) != 0) {
        struct moe_st_tensor other = {.dtype = tensor->dtype, .n_dims = shape.n_dims};
        memcpy(other.dims, shape.dims, shape.n_dims * sizeof *shape.dims);
        return moe_fail(VKMOE_E_DATA, "%s: tensor '%s': %s, the configuration makes it %s",
                        model->path, name, moe_st_describe(tensor, is),
                        moe_st_describe(&other, wanted));
    }
    tensor->used = true;
    *out = tensor;
    return VKMOE_OK;
}

static void warn_nan(const vkmoe_model *model, const char *name, enum vkmoe_dtype type,
                     const unsigned char *data, uint64_t n_elements)
{
    float chunk[1024];
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

// The tensor in its own type: in the mapping where it lies aligned, else in a copy.
static enum vkmoe_status get(vkmoe_model *model, const char *name, struct shape shape,
                             vkmoe_tensor *out)
{
    enum vkmoe_status status;
    struct moe_st_tensor *tensor;
    TRY(find(model, name, shape, &tensor, &out->type));
    out->data = tensor->data;
    if ((uintptr_t) tensor->data % moe_dtype_size(out->type, 1) != 0) {
        void *copy;
        size_t size = (size_t) (tensor->end - tensor->begin);
        TRY(copy_memory(model, size, name, &copy));
        memcpy(copy, tensor->data, size);
        out->data = copy;
    }
    warn_nan(model, name, out->type, out->data, tensor->n_elements);

fail:
    return status;
}

// The tensor as f32.
static enum vkmoe_status get_f32(vkmoe_model *model, const char *name, struct shape shape,
                                 const float **out)
{
    enum vkmoe_status status;
    vkmoe_tensor tensor;
    float *copy;
    uint64_t n = 1;
    TRY(get(model, name, shape, &tensor));
    for (uint32_t i = 0; i < shape.n_dims; i++)
        n *= shape.dims[i];
    *out = tensor.data;
    if (tensor.type != VKMOE_F32) {
        TRY(copy_memory(model, (size_t) n * sizeof *copy, name, &copy));
        moe_dtype_decode(tensor.type, tensor.data, (size_t) n, copy);
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
    struct name name = make_name("layers.%u.router.weight", index);
    TRY(get(model, name.text, SHAPE2(d->n_experts, d->d_model), &layer->router.weight));
    if (d->router_bias) {
        name = make_name("layers.%u.router.bias", index);
        TRY(get_f32(model, name.text, SHAPE1(d->n_experts), &layer->router.bias));
    }
    if (d->selection_bias) {
        name = make_name("layers.%u.router.selection_bias", index);
        TRY(get_f32(model, name.text, SHAPE1(d->n_experts), &layer->router.selection_bias));
    }
    if (d->shared_gate == VKMOE_SHARED_SIGMOID && d->d_shared_ff > 0) {
        name = make_name("layers.%u.shared.gate_vector", index);
        TRY(get_f32(model, name.text, SHAPE1(d->d_model), &layer->router.shared_gate));
    }

fail:
    return status;
}

// One matrix of the experts, (n_experts, rows, columns), and its bias; of the shared expert when
// n_experts is 0, then without the leading dimension.
struct matrix {
    vkmoe_tensor weight;
    const float *bias; // NULL: none
};

static enum vkmoe_status read_matrix(vkmoe_model *model, const char *prefix, const char *which,
                                     uint32_t n_experts, uint32_t rows, uint32_t columns,
                                     bool has_bias, struct matrix *out)
{
    enum vkmoe_status status;
    struct name name = make_name("%s.%s.weight", prefix, which);
    *out = (struct matrix){0};
    TRY(get(model, name.text,
            n_experts ? SHAPE3(n_experts, rows, columns) : SHAPE2(rows, columns), &out->weight));
    if (has_bias) {
        name = make_name("%s.%s.bias", prefix, which);
        TRY(get_f32(model, name.text, n_experts ? SHAPE2(n_experts, rows) : SHAPE1(rows),
                    &out->bias));
    }

fail:
    return status;
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
    TRY(read_matrix(model, prefix, "up", n_experts, d_ff, d->d_model, d->up_bias, &up));
    TRY(read_matrix(model, prefix, "down", n_experts, d->d_out, d_ff, d->down_bias, &down));
    if (d->gated)
        TRY(read_matrix(model, prefix, "gate", n_experts, d_ff, d->d_model, d->gate_bias, &gate));
    if (n_experts > 0) {
        d->in_type = up.weight.type;
        d->out_type = down.weight.type;
    }
    if (up.weight.type != d->in_type || (d->gated && gate.weight.type != d->in_type) ||
        down.weight.type != d->out_type)
        return moe_fail(VKMOE_E_DATA,
                        "%s: tensors '%s': gate and up must be %s and down %s, as in the experts",
                        model->path, prefix, vkmoe_dtype_name(d->in_type),
                        vkmoe_dtype_name(d->out_type));
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

static enum vkmoe_status read_layer(vkmoe_model *model, uint32_t index)
{
    enum vkmoe_status status;
    struct moe_model_layer *layer = &model->layers[index];
    vkmoe_layer_desc *d = &layer->desc;
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

// The two numbers a feature is scaled with, kept as what is subtracted and what is divided by.
static enum vkmoe_status read_input(vkmoe_model *model)
{
    static const char *const names[][2] = {
        [VKMOE_INPUT_STANDARDIZE] = {"input.mean", "input.std"},
        [VKMOE_INPUT_MINMAX] = {"input.min", "input.max"},
    };
    enum vkmoe_status status;
    uint32_t n = model->info.n_features;
    const float *offset, *range;
    if (model->info.input == VKMOE_INPUT_NONE)
        return VKMOE_OK;
    const char *const *name = names[model->info.input];
    TRY(get_f32(model, name[0], SHAPE1(n), &offset));
    TRY(get_f32(model, name[1], SHAPE1(n), &range));
    TRY(copy_memory(model, n * sizeof(float), name[0], &model->in_offset));
    TRY(copy_memory(model, n * sizeof(float), name[1], &model->in_range));
    memcpy(model->in_offset, offset, n * sizeof(float));
    for (uint32_t i = 0; i < n; i++) {
        float width = model->info.input == VKMOE_INPUT_MINMAX ? range[i] - offset[i] : range[i];
        model->in_range[i] = width;
        if (!isfinite(offset[i]) || !isfinite(width) || !(width > 0))
            return moe_fail(VKMOE_E_DATA, "%s: tensors '%s' and '%s': feature %u: %g and %g",
                            model->path, name[0], name[1], i, (double) offset[i],
                            (double) range[i]);
    }

fail:
    return status;
}

enum vkmoe_status moe_model_read_tensors(vkmoe_model *model)
{
    enum vkmoe_status status;
    // A tensor needs two copies at most: one aligned, one as f32; the input's own take two more.
    TRY(moe_try_alloc(&model->host, (model->file.n_tensors * 2 + 2) * sizeof *model->copies,
                      "tensor copies", &model->copies));
    TRY(read_input(model));
    for (uint32_t i = 0; i < model->info.n_layers; i++)
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
