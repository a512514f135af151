// SPDX-License-Identifier: MIT
#include "core/layer.h"

#include "base/bits.h"
#include "base/desc.h"
#include "base/status.h"
#include "core/dtype.h"
#include "core/layer_fields.h"

#include <math.h>

static enum vkmoe_status check_range(const char *name, uint32_t value, uint32_t least,
                                     uint32_t most)
{
    if (value < least || value > most)
        return moe_fail(VKMOE_E_ARGUMENT, "layer.%s = %u: must be %u to %u", name, value, least,
                        most);
    return VKMOE_OK;
}

// A row of `width` values is whole blocks of its type. fp8 rows may end in a part of one.
static enum vkmoe_status check_blocks(const char *type_name, enum vkmoe_dtype type,
                                      const char *width_name, uint32_t width)
{
    uint32_t n = moe_dtype_info(type)->block_elements;
    if (type != VKMOE_FP8 && width % n != 0)
        return moe_fail(VKMOE_E_SHAPE, "layer.%s = %s: blocks of %u values, %s = %u is no multiple",
                        type_name, moe_dtype_info(type)->name, n, width_name, width);
    return VKMOE_OK;
}

static enum vkmoe_status check_types(const vkmoe_layer_desc *desc)
{
    enum vkmoe_status status;
    const char *routed_in = desc->d_latent ? "d_latent" : "d_model";
    TRY(check_blocks("in_type", desc->in_type, routed_in, moe_layer_routed_in(desc)));
    TRY(check_blocks("out_type", desc->out_type, "d_ff", desc->d_ff));
    if (desc->d_shared_ff > 0) {
        TRY(check_blocks("shared_in_type", desc->shared_in_type, "d_model", desc->d_model));
        TRY(check_blocks("shared_out_type", desc->shared_out_type, "d_shared_ff",
                         desc->d_shared_ff));
    }
    if (desc->adjugate_group > 0)
        TRY(check_blocks("out_type", desc->out_type, "d_adjugate", desc->d_adjugate));
    if (desc->d_latent > 0) {
        TRY(check_blocks("latent_type", desc->latent_type, "d_model", desc->d_model));
        TRY(check_blocks("latent_type", desc->latent_type, "d_latent", desc->d_latent));
    }
    return VKMOE_OK;
fail:
    return status;
}

// With these limits no size of a layer overflows 64 bits: three matrices of 2^24 x 2^24 f32 in each
// of 2^10 experts are less than 2^62 bytes.
static enum vkmoe_status check_sizes(const vkmoe_layer_desc *desc)
{
    enum vkmoe_status status;
    TRY(check_range("n_experts", desc->n_experts, 1, MOE_MAX_EXPERTS));
    TRY(check_range("top_k", desc->top_k, 1, UINT32_MAX));
    TRY(check_range("d_model", desc->d_model, 1, MOE_MAX_WIDTH));
    if (!moe_layer_is_external(desc))
        TRY(check_range("d_ff", desc->d_ff, 1, MOE_MAX_WIDTH));
    TRY(check_range("d_out", desc->d_out, 0, MOE_MAX_WIDTH));
    TRY(check_range("d_shared_ff", desc->d_shared_ff, 0, MOE_MAX_WIDTH));
    TRY(check_range("n_zero", desc->n_zero, 0, MOE_MAX_EXPERTS - desc->n_experts));
    TRY(check_range("d_latent", desc->d_latent, 0, MOE_MAX_WIDTH));
    TRY(check_range("d_adjugate", desc->d_adjugate, 0, MOE_MAX_WIDTH));
    if (desc->top_k > moe_layer_n_scored(desc))
        return moe_fail(VKMOE_E_SHAPE, "layer.top_k = %u: there are n_experts = %u%s", desc->top_k,
                        moe_layer_n_scored(desc), desc->n_zero ? " with the identity experts" : "");
    return VKMOE_OK;
fail:
    return status;
}

// What comes to the weighted sum of the experts' outputs, or changes what they read.
static enum vkmoe_status check_plain(const vkmoe_layer_desc *desc, enum vkmoe_status code,
                                     const char *who)
{
    const struct {
        const char *name;
        uint32_t value;
    } fields[] = {{"d_shared_ff", desc->d_shared_ff},
                  {"d_latent", desc->d_latent},
                  {"adjugate_group", desc->adjugate_group},
                  {"out_bias", desc->out_bias},
                  {"weight_on_input", desc->weight_on_input}};
    for (uint32_t i = 0; i < MOE_COUNT(fields); i++)
        if (fields[i].value != 0)
            return moe_fail(code, "layer.%s = %u: %s", fields[i].name, fields[i].value, who);
    return VKMOE_OK;
}

// What an expert that is not ours computes.
static void forget_experts(vkmoe_layer_desc *desc)
{
    const vkmoe_layer_desc none = vkmoe_layer_desc_init();
    desc->d_ff = none.d_ff;
    desc->in_type = desc->out_type = none.in_type;
    desc->gated = desc->gate_bias = desc->up_bias = desc->down_bias = false;
    desc->act = desc->act_out = none.act;
    desc->act_alpha = none.act_alpha;
    desc->up_add = none.up_add;
    desc->clamp = none.clamp;
}

enum vkmoe_status moe_layer_init(struct moe_layer *out, const vkmoe_layer_desc *desc)
{
    enum vkmoe_status status;
    out->desc = vkmoe_layer_desc_init();
    TRY(moe_desc_copy(&out->desc, sizeof out->desc, desc, "vkmoe_layer_desc"));
    TRY(moe_layer_check_fields(&out->desc));
    if (moe_layer_is_external(&out->desc))
        forget_experts(&out->desc);
    TRY(check_sizes(&out->desc));
    if (out->desc.d_out == 0)
        out->desc.d_out = out->desc.d_model;
    if (!out->desc.own_shared_types) {
        out->desc.shared_in_type = out->desc.in_type;
        out->desc.shared_out_type = out->desc.out_type;
    }
    TRY(moe_layer_check_pairs(&out->desc));
    TRY(check_types(&out->desc));
    if (moe_layer_is_external(&out->desc))
        TRY(check_plain(&out->desc, VKMOE_E_ARGUMENT, "experts that are external have none"));
    return VKMOE_OK;
fail:
    return status;
}

enum vkmoe_status moe_layer_check_operation(const vkmoe_layer_desc *desc,
                                            enum vkmoe_operation operation)
{
    switch (operation) {
    case VKMOE_OPERATION_LAYER:
        if (moe_layer_is_external(desc))
            return moe_fail(VKMOE_E_UNSUPPORTED, "layer.expert_kind = external: a plan of these is "
                            "of the operation route, gather or combine");
        break;
    case VKMOE_OPERATION_ROUTE:
        break;
    case VKMOE_OPERATION_GATHER:
    case VKMOE_OPERATION_COMBINE:
        return check_plain(desc, VKMOE_E_UNSUPPORTED,
                           "the operations gather and combine do not compute it");
    }
    return VKMOE_OK;
}

uint32_t moe_layer_capacity(const vkmoe_layer_desc *desc, uint32_t n_tokens)
{
    double share = (double) desc->capacity_factor * desc->top_k * n_tokens / desc->n_experts;
    double n = desc->capacity > 0 ? desc->capacity : ceil(share);
    return n < n_tokens ? (uint32_t) n : n_tokens;
}

// Fields that a router's tensors depend on.
static bool same_router(const vkmoe_layer_desc *p, const vkmoe_layer_desc *q)
{
    bool is_table = p->select == VKMOE_SELECT_TABLE;
    return p->n_experts == q->n_experts && p->n_zero == q->n_zero && p->d_model == q->d_model &&
           p->router_bias == q->router_bias && p->selection_bias == q->selection_bias &&
           p->shared_gate == q->shared_gate && p->shared_gate_bias == q->shared_gate_bias &&
           p->expert_scale == q->expert_scale && p->router_prenorm == q->router_prenorm &&
           is_table == (q->select == VKMOE_SELECT_TABLE) &&
           (!is_table || (p->n_token_ids == q->n_token_ids && p->top_k == q->top_k));
}

// Fields that experts and what lies around them depend on.
static bool same_experts(const vkmoe_layer_desc *p, const vkmoe_layer_desc *q)
{
    return p->expert_kind == q->expert_kind && p->d_ff == q->d_ff && p->d_out == q->d_out &&
           p->d_shared_ff == q->d_shared_ff &&
           p->in_type == q->in_type && p->out_type == q->out_type &&
           p->shared_in_type == q->shared_in_type && p->shared_out_type == q->shared_out_type &&
           p->gated == q->gated && p->gate_bias == q->gate_bias && p->up_bias == q->up_bias &&
           p->down_bias == q->down_bias && p->d_latent == q->d_latent &&
           (p->d_latent == 0 || p->latent_type == q->latent_type) &&
           p->latent_norm == q->latent_norm && p->out_bias == q->out_bias &&
           p->adjugate_group == q->adjugate_group && p->d_adjugate == q->d_adjugate;
}

bool moe_layer_has_blocks(const vkmoe_layer_desc *desc)
{
    if (moe_layer_is_external(desc))
        return false;
    return !moe_dtype_is_float(desc->in_type) || !moe_dtype_is_float(desc->out_type) ||
           (desc->d_shared_ff > 0 && (!moe_dtype_is_float(desc->shared_in_type) ||
                                      !moe_dtype_is_float(desc->shared_out_type)));
}

bool moe_layer_same_weights(const struct moe_layer *a, const struct moe_layer *b)
{
    return same_router(&a->desc, &b->desc) && same_experts(&a->desc, &b->desc);
}

const char *moe_act_name(enum vkmoe_act act)
{
    static const char *const names[] = {
        [VKMOE_ACT_NONE] = "none",           [VKMOE_ACT_SILU] = "silu",
        [VKMOE_ACT_GELU_ERF] = "gelu_erf",   [VKMOE_ACT_GELU_TANH] = "gelu_tanh",
        [VKMOE_ACT_RELU] = "relu",           [VKMOE_ACT_RELU2] = "relu2",
        [VKMOE_ACT_SIGMOID] = "sigmoid",     [VKMOE_ACT_TANH] = "tanh",
        [VKMOE_ACT_SITU] = "situ",
    };
    return (uint32_t) act < MOE_COUNT(names) ? names[act] : "unknown";
}

const char *moe_score_name(enum vkmoe_score score)
{
    static const char *const names[] = {
        [VKMOE_SCORE_SOFTMAX] = "softmax", [VKMOE_SCORE_SIGMOID] = "sigmoid",
        [VKMOE_SCORE_SQRT_SOFTPLUS] = "sqrt_softplus", [VKMOE_SCORE_RELU] = "relu",
        [VKMOE_SCORE_NONE] = "none",
    };
    return (uint32_t) score < MOE_COUNT(names) ? names[score] : "unknown";
}
