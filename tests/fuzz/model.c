// SPDX-License-Identifier: MIT
// Bytes: a whole model file. The weights of what is accepted are where its layers say.
#include "fuzz.h"

#include "core/dtype.h"
#include "model/model.h"

// A tensor is a copy in memory that the sanitizers know.
static void check_tensor(const vkmoe_tensor *tensor, uint64_t rows, uint64_t columns)
{
    const unsigned char *data = tensor->data;
    size_t size = (size_t) moe_dtype_size(tensor->type, rows * columns);
    uint32_t n_values, element;
    vkmoe_dtype_block(tensor->type, &n_values, &element);
    FUZZ_CHECK(data && (n_values > 1 || (uintptr_t) data % element == 0));
    fuzz_touch(data, size);
}

static void check_f32(const float *data, uint64_t n, bool there)
{
    const vkmoe_tensor tensor = {.data = data, .type = VKMOE_F32};
    FUZZ_CHECK(there || !data);
    if (there)
        check_tensor(&tensor, 1, n);
}

static void check_expert(const vkmoe_layer_desc *d, uint64_t d_ff, bool own_types,
                         const vkmoe_expert_tensors *expert)
{
    const enum vkmoe_dtype in_type = own_types ? d->shared_in_type : d->in_type;
    FUZZ_CHECK(expert->up.type == in_type &&
               expert->down.type == (own_types ? d->shared_out_type : d->out_type));
    check_tensor(&expert->up, d_ff, d->d_model);
    check_tensor(&expert->down, d->d_out, d_ff);
    if (d->gated) {
        FUZZ_CHECK(expert->gate.type == in_type);
        check_tensor(&expert->gate, d_ff, d->d_model);
    }
    check_f32(expert->gate_bias, d_ff, d->gate_bias);
    check_f32(expert->up_bias, d_ff, d->up_bias);
    check_f32(expert->down_bias, d->d_out, d->down_bias);
}

static void check_layer(const struct moe_model_layer *layer)
{
    const vkmoe_layer_desc *d = &layer->desc;
    FUZZ_CHECK(vkmoe_layer_check(d) == VKMOE_OK);
    check_tensor(&layer->router.weight, d->n_experts, d->d_model);
    check_f32(layer->router.bias, d->n_experts, d->router_bias);
    check_f32(layer->router.selection_bias, d->n_experts, d->selection_bias);
    for (uint32_t e = 0; e < d->n_experts; e++)
        check_expert(d, d->d_ff, false, &layer->experts[e]);
    if (d->d_shared_ff > 0)
        check_expert(d, d->d_shared_ff, d->own_shared_types, &layer->shared);
}

bool fuzz_target(const uint8_t *data, size_t size)
{
    vkmoe_model *model;
    const char *path = scratch_file("model.safetensors", data, size);
    if (!fuzz_accepted(vkmoe_model_open(fuzz_host(), path, &model))) {
        FUZZ_CHECK(!model);
        return false;
    }
    for (uint32_t i = 0; i < model->n_tensors; i++)
        check_tensor(&model->tensors[i], 1, model->specs[i].n_elements);
    for (uint32_t i = 0; i < model->d.info.n_layers; i++) {
        if (model->layers[i].planned)
            check_layer(&model->layers[i]);
    }
    const struct moe_input_stats *stats = &model->stats;
    FUZZ_CHECK(!stats->first == !stats->second);
    for (uint32_t i = 0; i < model->d.info.n_features && stats->first; i++)
        FUZZ_CHECK(isfinite(stats->first[i]) && isfinite(stats->second[i]));
    vkmoe_model_destroy(model);
    return true;
}
