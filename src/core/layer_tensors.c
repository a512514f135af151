// SPDX-License-Identifier: MIT
// Are the tensors of a layer there, and of a type their place can take?
#include "core/layer.h"

#include "base/bits.h"
#include "base/status.h"
#include "core/dtype.h"

#include <stdio.h>

struct place {
    const char *owner; // "expert 3", "router"
    const char *name;
};

static enum vkmoe_status check_presence(struct place place, bool given, bool wanted)
{
    if (wanted && !given)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: %s is NULL, the layer has one", place.owner,
                        place.name);
    if (!wanted && given)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: %s is given, the layer has none", place.owner,
                        place.name);
    return VKMOE_OK;
}

static enum vkmoe_status check_tensor(struct place place, const vkmoe_tensor *tensor, bool wanted,
                                      enum vkmoe_dtype stored)
{
    enum vkmoe_status status;
    if (tensor->data && tensor->read)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: %s has both data and read: one of them",
                        place.owner, place.name);
    TRY(check_presence(place, moe_tensor_given(tensor), wanted));
    if (!wanted)
        return VKMOE_OK;
    if (!moe_dtype_valid(tensor->type))
        return moe_fail(VKMOE_E_ARGUMENT, "%s: %s has type %u, there are %d types", place.owner,
                        place.name, (uint32_t) tensor->type, MOE_N_DTYPES);
    if (tensor->type != stored && tensor->type != VKMOE_F32)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: %s is %s, the layer takes %s%s", place.owner,
                        place.name, moe_dtype_info(tensor->type)->name,
                        moe_dtype_info(stored)->name, stored == VKMOE_F32 ? "" : " or f32");
    return VKMOE_OK;
fail:
    return status;
}

static enum vkmoe_status check_aligned(struct place place, const void *data, size_t align)
{
    if ((uintptr_t) data % align != 0)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: %s at %p is not aligned to %zu bytes", place.owner,
                        place.name, data, align);
    return VKMOE_OK;
}

static enum vkmoe_status check_vector(struct place place, const void *data, bool wanted)
{
    enum vkmoe_status status = check_presence(place, data, wanted);
    return status == VKMOE_OK ? check_aligned(place, data, 4) : status;
}

enum vkmoe_status moe_layer_check_expert(const struct moe_layer *layer, uint32_t expert,
                                         const vkmoe_expert_tensors *tensors)
{
    const vkmoe_layer_desc *desc = &layer->desc;
    const struct moe_expert_shape shape = moe_layer_expert_shape(layer, expert);
    char owner[32] = "the shared expert";
    if (moe_expert_is_adjugate(expert))
        snprintf(owner, sizeof owner, "adjugate expert %u", expert - VKMOE_ADJUGATE_EXPERT);
    else if (expert != VKMOE_SHARED_EXPERT)
        snprintf(owner, sizeof owner, "expert %u", expert);

    enum vkmoe_status status;
    TRY(check_tensor((struct place){owner, "gate"}, &tensors->gate, desc->gated, shape.in_type));
    TRY(check_tensor((struct place){owner, "up"}, &tensors->up, true, shape.in_type));
    TRY(check_tensor((struct place){owner, "down"}, &tensors->down, true, shape.out_type));
    TRY(check_vector((struct place){owner, "gate_bias"}, tensors->gate_bias, desc->gate_bias));
    TRY(check_vector((struct place){owner, "up_bias"}, tensors->up_bias, desc->up_bias));
    TRY(check_vector((struct place){owner, "down_bias"}, tensors->down_bias, desc->down_bias));
    return VKMOE_OK;
fail:
    return status;
}

// Ids of experts that there are, none of them twice for one token.
static enum vkmoe_status check_table(const vkmoe_layer_desc *desc, const int32_t *table)
{
    const uint32_t n = moe_layer_n_scored(desc);
    for (uint32_t t = 0; t < desc->n_token_ids; t++) {
        const int32_t *row = table + (size_t) t * desc->top_k;
        uint64_t taken[MOE_MAX_EXPERTS / 64] = {0};
        for (uint32_t k = 0; k < desc->top_k; k++) {
            uint32_t id = (uint32_t) row[k];
            if (id >= n)
                return moe_fail(VKMOE_E_DATA, "router: table[%u][%u] = %d: there are %u experts", t,
                                k, row[k], n);
            if (taken[id / 64] >> id % 64 & 1)
                return moe_fail(VKMOE_E_DATA, "router: table[%u] has expert %d twice", t, row[k]);
            taken[id / 64] |= (uint64_t) 1 << id % 64;
        }
    }
    return VKMOE_OK;
}

enum vkmoe_status moe_layer_check_router(const struct moe_layer *layer,
                                         const vkmoe_router_tensors *tensors)
{
    const vkmoe_layer_desc *desc = &layer->desc;
    const uint32_t block = moe_dtype_valid(tensors->weight.type)
                               ? moe_dtype_info(tensors->weight.type)->block_elements : 1;
    enum vkmoe_status status;
    TRY(check_presence((struct place){"router", "weight"}, tensors->weight.data, true));
    if (!moe_dtype_valid(tensors->weight.type))
        return moe_fail(VKMOE_E_ARGUMENT, "router: weight has type %u, there are %d types",
                        (uint32_t) tensors->weight.type, MOE_N_DTYPES);
    if (tensors->weight.type != VKMOE_FP8 && desc->d_model % block != 0)
        return moe_fail(VKMOE_E_SHAPE, "router: weight is %s, blocks of %u values: d_model = %u is "
                        "no multiple", moe_dtype_info(tensors->weight.type)->name, block,
                        desc->d_model);
    const struct {
        const char *name;
        const void *data;
        bool wanted;
    } vectors[] = {
        {"bias", tensors->bias, desc->router_bias},
        {"selection_bias", tensors->selection_bias, desc->selection_bias},
        {"shared_gate", tensors->shared_gate, desc->shared_gate != VKMOE_SHARED_PLAIN},
        {"shared_gate_bias", tensors->shared_gate_bias, desc->shared_gate_bias},
        {"expert_scale", tensors->expert_scale, desc->expert_scale},
        {"prenorm_scale", tensors->prenorm_scale, desc->router_prenorm},
        {"table", tensors->table, desc->select == VKMOE_SELECT_TABLE},
    };
    for (uint32_t i = 0; i < MOE_COUNT(vectors); i++)
        TRY(check_vector((struct place){"router", vectors[i].name}, vectors[i].data,
                         vectors[i].wanted));
    if (tensors->table)
        TRY(check_table(desc, tensors->table));
    return VKMOE_OK;
fail:
    return status;
}

enum vkmoe_status moe_layer_check_around(const struct moe_layer *layer,
                                         const vkmoe_latent_tensors *latent,
                                         const float *out_bias)
{
    const vkmoe_layer_desc *desc = &layer->desc;
    enum vkmoe_status status;
    TRY(check_vector((struct place){"weights", "out_bias"}, out_bias, desc->out_bias));
    TRY(check_presence((struct place){"weights", "latent"}, latent, desc->d_latent > 0));
    if (!latent)
        return VKMOE_OK;
    TRY(check_tensor((struct place){"latent", "down"}, &latent->down, true, desc->latent_type));
    TRY(check_tensor((struct place){"latent", "up"}, &latent->up, true, desc->latent_type));
    TRY(check_vector((struct place){"latent", "norm"}, latent->norm, desc->latent_norm));
    return VKMOE_OK;
fail:
    return status;
}

void moe_tensor_row(const vkmoe_tensor *tensor, uint64_t row, uint32_t width, float *out)
{
    const char *first = tensor->data;
    moe_dtype_decode(tensor->type, first + row * moe_dtype_size(tensor->type, width), width, out);
}

enum vkmoe_status moe_tensor_rows(const vkmoe_tensor *tensor, uint64_t first, uint64_t n,
                                  uint32_t width, void *room, const char **rows)
{
    *rows = room;
    if (!tensor->data)
        return tensor->read(tensor->read_user, first, n, room);
    *rows = (const char *) tensor->data + first * moe_dtype_size(tensor->type, width);
    return VKMOE_OK;
}

uint64_t moe_rows_room(enum vkmoe_dtype type, uint64_t n, uint32_t width)
{
    return n * moe_max(moe_dtype_size(type, width), moe_dtype_size(VKMOE_F32, width));
}
