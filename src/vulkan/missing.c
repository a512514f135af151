// SPDX-License-Identifier: MIT
// What this back end does not compute yet, one row a field.
#include "base/bits.h"
#include "vulkan/plan.h"

enum vkmoe_status moe_vk_check_layer(const vkmoe_layer_desc *desc)
{
    const struct {
        const char *field;
        bool missing;
    } rows[] = {
        {"in_type", desc->in_type > VKMOE_BF16},
        {"out_type", desc->out_type > VKMOE_BF16},
        {"shared_in_type", desc->shared_in_type > VKMOE_BF16},
        {"shared_out_type", desc->shared_out_type > VKMOE_BF16},
        {"latent_type", desc->latent_type > VKMOE_BF16},
    };
    for (size_t i = 0; i < MOE_COUNT(rows); i++)
        if (rows[i].missing)
            return moe_fail(VKMOE_E_UNSUPPORTED, "layer.%s: this is not computed on Vulkan yet",
                            rows[i].field);
    return VKMOE_OK;
}
