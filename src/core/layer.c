// SPDX-License-Identifier: MIT
#include "core/layer.h"

#include "base/bits.h"
#include "base/desc.h"
#include "base/status.h"
#include "core/dtype.h"
#include "core/layer_fields.h"

static enum vkmoe_status check_range(const char *name, uint32_t value, uint32_t least,
                                     uint32_t most)
{
    if (value < least || value > most)
        return moe_fail(VKMOE_E_ARGUMENT, "layer.%s = %u: must be %u to %u", name, value, least,
                        most);
    return VKMOE_OK;
}

// With these limits no size of a layer overflows 64 bits: three matrices of 2^24 x 2^24 f32 in each
// of 2^10 experts are less than 2^62 bytes.
static enum vkmoe_status check_sizes(const vkmoe_layer_desc *desc)
{
    enum vkmoe_status status;
    TRY(check_range("n_experts", desc->n_experts, 1, MOE_MAX_EXPERTS));
    TRY(check_range("top_k", desc->top_k, 1, UINT32_MAX));
    TRY(check_range("d_model", desc->d_model, 1, MOE_MAX_WIDTH));
    TRY(check_range("d_ff", desc->d_ff, 1, MOE_MAX_WIDTH));
    TRY(check_range("d_out", desc->d_out, 0, MOE_MAX_WIDTH));
    TRY(check_range("d_shared_ff", desc->d_shared_ff, 0, MOE_MAX_WIDTH));
    if (desc->top_k > desc->n_experts)
        return moe_fail(VKMOE_E_SHAPE, "layer.top_k = %u: there are n_experts = %u", desc->top_k,
                        desc->n_experts);
    return VKMOE_OK;
fail:
    return status;
}

// Fields that only make sense together.
static enum vkmoe_status check_pairs(const vkmoe_layer_desc *desc)
{
    if (desc->norm_eps < 0)
        return moe_fail(VKMOE_E_ARGUMENT, "layer.norm_eps = %g: must be at least 0",
                        (double) desc->norm_eps);
    if (desc->gate_bias && !desc->gated)
        return moe_fail(VKMOE_E_ARGUMENT, "layer.gate_bias = true: needs gated = true");
    if (desc->shared_gate != VKMOE_SHARED_PLAIN && desc->d_shared_ff == 0)
        return moe_fail(VKMOE_E_ARGUMENT, "layer.shared_gate = %u: needs d_shared_ff above 0",
                        (uint32_t) desc->shared_gate);
    return VKMOE_OK;
}

enum vkmoe_status moe_layer_init(struct moe_layer *out, const vkmoe_layer_desc *desc)
{
    enum vkmoe_status status;
    out->desc = vkmoe_layer_desc_init();
    TRY(moe_desc_copy(&out->desc, sizeof out->desc, desc, "vkmoe_layer_desc"));
    TRY(moe_layer_check_fields(&out->desc));
    TRY(check_sizes(&out->desc));
    TRY(check_pairs(&out->desc));
    if (out->desc.d_out == 0)
        out->desc.d_out = out->desc.d_model;
    return VKMOE_OK;
fail:
    return status;
}

bool moe_layer_same_weights(const struct moe_layer *a, const struct moe_layer *b)
{
    const vkmoe_layer_desc *p = &a->desc, *q = &b->desc;
    return p->n_experts == q->n_experts && p->d_model == q->d_model && p->d_ff == q->d_ff &&
           p->d_out == q->d_out && p->d_shared_ff == q->d_shared_ff && p->in_type == q->in_type &&
           p->out_type == q->out_type && p->router_bias == q->router_bias &&
           p->selection_bias == q->selection_bias && p->gated == q->gated &&
           p->gate_bias == q->gate_bias && p->up_bias == q->up_bias &&
           p->down_bias == q->down_bias && p->shared_gate == q->shared_gate;
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
