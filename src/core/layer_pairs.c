// SPDX-License-Identifier: MIT
// Fields of a layer that only make sense together.
#include "core/layer_fields.h"

#include "base/status.h"
#include "core/layer.h"

static enum vkmoe_status need(const char *field, const char *value, const char *needs)
{
    return moe_fail(VKMOE_E_ARGUMENT, "layer.%s = %s: needs %s", field, value, needs);
}

static enum vkmoe_status positive(const char *field, float value)
{
    if (value > 0)
        return VKMOE_OK;
    return moe_fail(VKMOE_E_ARGUMENT, "layer.%s = %g: must be above 0", field, (double) value);
}

static enum vkmoe_status not_negative(const char *field, float value)
{
    if (value >= 0)
        return VKMOE_OK;
    return moe_fail(VKMOE_E_ARGUMENT, "layer.%s = %g: must be at least 0", field, (double) value);
}

static enum vkmoe_status check_groups(const vkmoe_layer_desc *d)
{
    if (d->n_group <= 1)
        return VKMOE_OK;
    if (d->n_zero > 0)
        return need("n_group", "above 1", "n_zero = 0");
    if (d->n_experts % d->n_group != 0)
        return moe_fail(VKMOE_E_SHAPE, "layer.n_group = %u: does not divide n_experts = %u",
                        d->n_group, d->n_experts);
    if (d->topk_group < 1 || d->topk_group > d->n_group)
        return moe_fail(VKMOE_E_ARGUMENT, "layer.topk_group = %u: must be 1 to n_group = %u",
                        d->topk_group, d->n_group);
    uint32_t per_group = d->n_experts / d->n_group;
    if (d->group_score == VKMOE_GROUP_TOP2_SUM && per_group < 2)
        return moe_fail(VKMOE_E_SHAPE,
                        "layer.group_score = top2_sum: a group has 1 expert (n_group = %u)",
                        d->n_group);
    if (d->group_score == VKMOE_GROUP_TOP_SHARE_SUM &&
        (d->top_k % d->topk_group != 0 || d->top_k / d->topk_group > per_group))
        return moe_fail(VKMOE_E_SHAPE, "layer.group_score = top_share_sum: top_k = %u over "
                        "topk_group = %u is no whole number up to %u, the experts of a group",
                        d->top_k, d->topk_group, per_group);
    if (!d->group_fill_zero && d->top_k > d->topk_group * per_group)
        return moe_fail(VKMOE_E_SHAPE, "layer.top_k = %u: topk_group = %u groups have %u experts",
                        d->top_k, d->topk_group, d->topk_group * per_group);
    return VKMOE_OK;
}

static enum vkmoe_status check_router(const vkmoe_layer_desc *d)
{
    enum vkmoe_status status;
    bool is_table = d->select == VKMOE_SELECT_TABLE;
    TRY(not_negative("norm_eps", d->norm_eps));
    TRY(not_negative("prenorm_eps", d->prenorm_eps));
    TRY(not_negative("logit_softcap", d->logit_softcap));
    TRY(not_negative("sparsemixer_eps", d->sparsemixer_eps));
    TRY(positive("norm_p", d->norm_p));
    if (is_table != (d->n_token_ids > 0))
        return is_table ? need("select", "table", "n_token_ids above 0")
                        : need("n_token_ids", "above 0", "select = table");
    if (is_table && d->selection_bias)
        return need("selection_bias", "true", "a select that ranks");
    if (is_table && d->n_token_ids > MOE_MAX_WIDTH)
        return moe_fail(VKMOE_E_ARGUMENT, "layer.n_token_ids = %u: must be 1 to %d",
                        d->n_token_ids, MOE_MAX_WIDTH);
    if (d->select != VKMOE_SELECT_TOP_K && d->n_group > 1)
        return need("n_group", "above 1", "select = top_k");
    if (d->select == VKMOE_SELECT_SPARSEMIXER && (d->selection_bias || d->n_zero > 0))
        return need("select", "sparsemixer", "selection_bias = false and n_zero = 0");
    if (d->select == VKMOE_SELECT_TOP_P)
        TRY(positive("select_p", d->select_p));
    TRY(check_groups(d));
    return VKMOE_OK;
fail:
    return status;
}

static enum vkmoe_status check_experts(const vkmoe_layer_desc *d)
{
    enum vkmoe_status status;
    bool has_situ = d->act == VKMOE_ACT_SITU;
    if (d->gate_bias && !d->gated)
        return need("gate_bias", "true", "gated = true");
    if (d->up_add != 0 && !d->gated)
        return need("up_add", "not 0", "gated = true");
    if (d->act_out == VKMOE_ACT_SITU)
        return need("act_out", "situ", "to be act: it is of two halves");
    if (has_situ)
        TRY(positive("situ_beta", d->situ_beta));
    if (d->clamp != VKMOE_CLAMP_NONE) {
        if (!d->gated)
            return need("clamp", "not none", "gated = true");
        TRY(positive("limit", d->limit));
        if (d->d_shared_ff > 0)
            TRY(positive("limit_shared", d->limit_shared));
    }
    if (d->adjugate_group > 0 && d->d_adjugate == 0)
        return need("adjugate_group", "above 0", "d_adjugate above 0");
    if (d->adjugate_group > 0 && d->n_zero > 0)
        return need("adjugate_group", "above 0", "n_zero = 0");
    if (d->n_zero > 0 && moe_layer_routed_in(d) != moe_layer_routed_out(d))
        return moe_fail(VKMOE_E_SHAPE, "layer.n_zero = %u: identity experts need d_out = %u to be "
                        "d_model = %u", d->n_zero, d->d_out, d->d_model);
    if (d->latent_norm && d->d_latent == 0)
        return need("latent_norm", "true", "d_latent above 0");
    TRY(not_negative("latent_norm_eps", d->latent_norm_eps));
    return VKMOE_OK;
fail:
    return status;
}

static enum vkmoe_status check_shared(const vkmoe_layer_desc *d)
{
    if (d->shared_gate != VKMOE_SHARED_PLAIN && d->d_shared_ff == 0)
        return moe_fail(VKMOE_E_ARGUMENT, "layer.shared_gate = %u: needs d_shared_ff above 0",
                        (uint32_t) d->shared_gate);
    if (d->shared_gate_bias && d->shared_gate == VKMOE_SHARED_PLAIN)
        return need("shared_gate_bias", "true", "a shared_gate");
    if (d->shared_gate != VKMOE_SHARED_PLAIN && (d->router_input || d->router_prenorm))
        return moe_fail(VKMOE_E_UNSUPPORTED, "layer.shared_gate = %u: not computed with "
                        "router_input or router_prenorm", (uint32_t) d->shared_gate);
    return VKMOE_OK;
}

static enum vkmoe_status check_capacity(const vkmoe_layer_desc *d)
{
    enum vkmoe_status status;
    if (d->capacity_mode == VKMOE_CAPACITY_NONE)
        return d->capacity_renorm ? need("capacity_renorm", "true", "a capacity_mode") : VKMOE_OK;
    if (d->capacity == 0)
        TRY(positive("capacity_factor", d->capacity_factor));
    if (d->capacity_renorm && d->norm == VKMOE_NORM_NONE)
        return need("capacity_renorm", "true", "a norm");
    return VKMOE_OK;
fail:
    return status;
}

enum vkmoe_status moe_layer_check_pairs(const vkmoe_layer_desc *desc)
{
    enum vkmoe_status status;
    TRY(check_router(desc));
    TRY(check_experts(desc));
    TRY(check_shared(desc));
    TRY(check_capacity(desc));
    return VKMOE_OK;
fail:
    return status;
}
