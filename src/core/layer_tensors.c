// SPDX-License-Identifier: MIT
// Are the tensors of a layer there, and of a type their place can take?
#include "core/layer.h"

#include "base/status.h"
#include "core/dtype.h"

#include <stdio.h>

struct place {
    const char *owner; // "expert 3", "router"
    const char *name;
};

static enum vkmoe_status check_presence(struct place place, const void *data, bool wanted)
{
    if (wanted && !data)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: %s is NULL, the layer has one", place.owner,
                        place.name);
    if (!wanted && data)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: %s is given, the layer has none", place.owner,
                        place.name);
    return VKMOE_OK;
}

static enum vkmoe_status check_tensor(struct place place, const vkmoe_tensor *tensor, bool wanted,
                                      enum vkmoe_dtype stored)
{
    enum vkmoe_status status;
    TRY(check_presence(place, tensor->data, wanted));
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

static enum vkmoe_status check_vector(struct place place, const float *data, bool wanted)
{
    enum vkmoe_status status;
    TRY(check_presence(place, data, wanted));
    if ((uintptr_t) data % sizeof *data != 0)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: %s at %p is not aligned to %zu bytes", place.owner,
                        place.name, (const void *) data, sizeof *data);
    return VKMOE_OK;
fail:
    return status;
}

enum vkmoe_status moe_layer_check_expert(const struct moe_layer *layer, uint32_t expert,
                                         const vkmoe_expert_tensors *tensors)
{
    const vkmoe_layer_desc *desc = &layer->desc;
    char owner[32] = "the shared expert";
    if (expert != VKMOE_SHARED_EXPERT)
        snprintf(owner, sizeof owner, "expert %u", expert);

    enum vkmoe_status status;
    TRY(check_tensor((struct place){owner, "gate"}, &tensors->gate, desc->gated, desc->in_type));
    TRY(check_tensor((struct place){owner, "up"}, &tensors->up, true, desc->in_type));
    TRY(check_tensor((struct place){owner, "down"}, &tensors->down, true, desc->out_type));
    TRY(check_vector((struct place){owner, "gate_bias"}, tensors->gate_bias, desc->gate_bias));
    TRY(check_vector((struct place){owner, "up_bias"}, tensors->up_bias, desc->up_bias));
    TRY(check_vector((struct place){owner, "down_bias"}, tensors->down_bias, desc->down_bias));
    return VKMOE_OK;
fail:
    return status;
}

enum vkmoe_status moe_layer_check_router(const struct moe_layer *layer,
                                         const vkmoe_router_tensors *tensors)
{
    const vkmoe_layer_desc *desc = &layer->desc;
    const char *owner = "router";
    enum vkmoe_status status;
    TRY(check_presence((struct place){owner, "weight"}, tensors->weight.data, true));
    if (!moe_dtype_valid(tensors->weight.type))
        return moe_fail(VKMOE_E_ARGUMENT, "router: weight has type %u, there are %d types",
                        (uint32_t) tensors->weight.type, MOE_N_DTYPES);
    TRY(check_vector((struct place){owner, "bias"}, tensors->bias, desc->router_bias));
    TRY(check_vector((struct place){owner, "selection_bias"}, tensors->selection_bias,
                     desc->selection_bias));
    TRY(check_vector((struct place){owner, "shared_gate"}, tensors->shared_gate,
                     desc->shared_gate == VKMOE_SHARED_SIGMOID));
    return VKMOE_OK;
fail:
    return status;
}

void moe_tensor_row(const vkmoe_tensor *tensor, uint64_t row, uint32_t width, float *out)
{
    const char *first = tensor->data;
    moe_dtype_decode(tensor->type, first + row * moe_dtype_size(tensor->type, width), width, out);
}
