// SPDX-License-Identifier: MIT
#include "backend/source.h"

#include "base/status.h"

static enum vkmoe_status load(const struct moe_weights_source *source,
                              const struct moe_layer *layer, uint32_t expert,
                              struct moe_source_expert *out)
{
    enum vkmoe_status status = source->load_expert(source->load_user, expert, &out->tensors);
    return status == VKMOE_OK ? moe_layer_check_expert(layer, expert, &out->tensors) : status;
}

enum vkmoe_status moe_source_get(const struct moe_weights_source *source,
                                 const struct moe_layer *layer, uint32_t expert,
                                 struct moe_source_expert *out)
{
    *out = (struct moe_source_expert){0};
    if (source->load_expert)
        return load(source, layer, expert, out);
    const vkmoe_expert_tensors *tensors = source->experts;
    const void *const *packed = source->packed_experts;
    uint32_t i = expert;
    if (expert == VKMOE_SHARED_EXPERT) {
        tensors = source->shared;
        packed = &source->packed_shared;
        i = 0;
    } else if (moe_expert_is_adjugate(expert)) {
        tensors = source->adjugates;
        packed = source->packed_adjugates;
        i = expert - VKMOE_ADJUGATE_EXPERT;
    }
    if (tensors)
        out->tensors = tensors[i];
    else
        out->packed = packed[i];
    return VKMOE_OK;
}
