// SPDX-License-Identifier: MIT
// A layer as one of its experts makes it, without the others.
#include "model/model.h"

#include "base/host.h"
#include "base/status.h"

// A softmax over one expert gives it a gate weight of exactly 1.
static void route_to_one(vkmoe_layer_desc *desc)
{
    desc->n_experts = desc->top_k = 1;
    desc->router_bias = desc->selection_bias = false;
    desc->score = VKMOE_SCORE_SOFTMAX;
    desc->rank = VKMOE_RANK_SCORE;
    desc->gate_source = vkmoe_layer_desc_init().gate_source;
    desc->norm = VKMOE_NORM_NONE;
    desc->norm_eps = 0;
}

enum vkmoe_status moe_layer_one_expert(const vkmoe_host *host, const struct moe_model_layer *layer,
                                       enum vkmoe_experts experts, uint32_t expert,
                                       struct moe_model_layer *out, float **zeros)
{
    if (expert >= layer->desc.n_experts)
        return moe_fail(VKMOE_E_ARGUMENT, "expert %u of a layer with %u", expert,
                        layer->desc.n_experts);
    enum vkmoe_status status = moe_try_alloc(host, layer->desc.d_model * sizeof **zeros,
                                             "router of one expert", zeros);
    if (status != VKMOE_OK)
        return status;
    *out = *layer;
    route_to_one(&out->desc);
    if (experts == VKMOE_EXPERTS_ALONE) {
        out->desc.routed_scale = 1;
        out->desc.d_shared_ff = 0;
        out->desc.shared_gate = VKMOE_SHARED_PLAIN;
        out->router.shared_gate = NULL;
    }
    out->router.weight = (vkmoe_tensor){*zeros, VKMOE_F32};
    out->router.bias = out->router.selection_bias = NULL;
    out->experts = layer->experts + expert;
    return VKMOE_OK;
}
