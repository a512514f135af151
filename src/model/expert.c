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

static void leave_alone(vkmoe_layer_desc *desc)
{
    desc->routed_scale = 1;
    desc->d_shared_ff = 0;
    desc->shared_gate = VKMOE_SHARED_PLAIN;
}

static enum vkmoe_status check_expert(const vkmoe_layer_desc *desc, uint32_t expert)
{
    if (expert >= desc->n_experts)
        return moe_fail(VKMOE_E_ARGUMENT, "expert %u of a layer with %u", expert, desc->n_experts);
    return VKMOE_OK;
}

enum vkmoe_status moe_layer_one_expert(const vkmoe_host *host, const struct moe_model_layer *layer,
                                       enum vkmoe_experts experts, uint32_t expert,
                                       struct moe_model_layer *out, float **zeros)
{
    enum vkmoe_status status;
    TRY(check_expert(&layer->desc, expert));
    TRY(moe_try_alloc(host, layer->desc.d_model * sizeof **zeros, "router of one expert", zeros));
    *out = *layer;
    route_to_one(&out->desc);
    if (experts == VKMOE_EXPERTS_ALONE) {
        leave_alone(&out->desc);
        out->router.shared_gate = NULL;
    }
    out->router.weight = (vkmoe_tensor){.data = *zeros, .type = VKMOE_F32};
    out->router.bias = out->router.selection_bias = NULL;
    out->experts = layer->experts + expert;

fail:
    return status;
}

enum vkmoe_status moe_net_one_expert(const vkmoe_net_layer *layer, const vkmoe_session_desc *desc,
                                     vkmoe_layer_desc *one, vkmoe_net_layer *out)
{
    if (layer->combine == VKMOE_COMBINE_STACK || layer->pairing != VKMOE_PAIRING_NONE)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "layer %u: its experts have weights of their own or queries, so that one "
                        "alone makes no layer", desc->layer);
    enum vkmoe_status status = check_expert(layer->layer, desc->expert);
    if (status != VKMOE_OK)
        return status;
    *one = *layer->layer;
    route_to_one(one);
    if (desc->experts == VKMOE_EXPERTS_ALONE)
        leave_alone(one);
    *out = *layer;
    out->layer = one;
    out->scorer = VKMOE_SCORER_LINEAR;
    out->d_score = 0;
    out->noisy = false;
    out->load_balance = out->z_loss = out->bias_rate = 0;
    return VKMOE_OK;
}

enum moe_use moe_tensor_use(const char *name, const vkmoe_session_desc *desc)
{
    const char *dot = strchr(name + strlen("layers."), '.');
    if (strncmp(dot, ".experts.", strlen(".experts.")) == 0)
        return MOE_USE_SLICE;
    if (strcmp(dot, ".router.weight") == 0)
        return MOE_USE_ZEROS;
    bool shared = strncmp(dot, ".shared.", strlen(".shared.")) == 0;
    return shared && desc->experts == VKMOE_EXPERTS_ONE ? MOE_USE_WHOLE : MOE_USE_NONE;
}
