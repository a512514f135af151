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
        {"n_zero", desc->n_zero > 0},
        {"router_input", desc->router_input},
        {"router_prenorm", desc->router_prenorm},
        {"logit_softcap", desc->logit_softcap > 0},
        {"score", desc->score > VKMOE_SCORE_SIGMOID},
        {"rank", desc->rank > VKMOE_RANK_LOGIT},
        {"select", desc->select != VKMOE_SELECT_TOP_K},
        {"n_group", desc->n_group > 1},
        {"norm_p", desc->norm != VKMOE_NORM_NONE && desc->norm_p != 1},
        {"expert_scale", desc->expert_scale},
        {"shared_gate", desc->shared_gate > VKMOE_SHARED_SIGMOID},
        {"shared_gate_bias", desc->shared_gate_bias},
        {"capacity_mode", desc->capacity_mode != VKMOE_CAPACITY_NONE},
    };
    for (size_t i = 0; i < MOE_COUNT(rows); i++)
        if (rows[i].missing)
            return moe_fail(VKMOE_E_UNSUPPORTED, "layer.%s: this is not computed on Vulkan yet",
                            rows[i].field);
    return VKMOE_OK;
}
