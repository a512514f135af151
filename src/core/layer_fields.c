// SPDX-License-Identifier: MIT
#include "core/layer_fields.h"

#include "base/bits.h"
#include "base/status.h"
#include "core/dtype.h"
#include "core/layer.h"

#include <math.h>
#include <stdio.h>

#define V(value) (1u << (value))
// A row: field, kind, values of an enum, then
//   ANY           every value is computed, and its gradient
//   FORWARD(g)    every value is computed, the gradient of those in g
//   ONLY(c, why)  those in c are computed with their gradient, others refused
#define ANY 0, NULL, true, 0
#define FORWARD(gradients) 0, NULL, false, gradients
#define ONLY(computed, refusal) computed, refusal, true, 0
#define FIELD(field, kind, n, ...)                                                                 \
    {#field, offsetof(vkmoe_layer_desc, field), kind, n, __VA_ARGS__},
#define BOOL(field, ...) FIELD(field, MOE_FIELD_BOOL, 0, __VA_ARGS__)
#define U32(field, ...) FIELD(field, MOE_FIELD_U32, 0, __VA_ARGS__)
#define F32(field, ...) FIELD(field, MOE_FIELD_F32, 0, __VA_ARGS__)
#define ENUM(field, n, ...) FIELD(field, MOE_FIELD_ENUM, n, __VA_ARGS__)
#define ARRAY(field, ...) FIELD(field, MOE_FIELD_ARRAY, 0, __VA_ARGS__)

#define FLOATS (V(VKMOE_F32) | V(VKMOE_F16) | V(VKMOE_BF16))
#define NO_TRAINING "it has a meaning in networks (vkmoe/train.h), not in a layer (only 0)"

const struct moe_layer_field moe_layer_fields[] = {
    U32(n_experts, ANY)
    U32(top_k, ANY)
    U32(d_model, ANY)
    U32(d_ff, ANY)
    U32(d_out, ANY)
    U32(d_shared_ff, ANY)
    U32(n_zero, FORWARD(V(0)))
    U32(d_latent, FORWARD(V(0)))
    ENUM(in_type, MOE_N_DTYPES, FORWARD(FLOATS))
    ENUM(out_type, MOE_N_DTYPES, FORWARD(FLOATS))

    BOOL(router_input, FORWARD(V(0)))
    BOOL(router_prenorm, FORWARD(V(0)))
    F32(prenorm_const, ANY)
    F32(prenorm_eps, ANY)
    BOOL(router_bias, ANY)
    BOOL(selection_bias, ANY)
    F32(logit_softcap, FORWARD(V(0)))
    ENUM(score, 5, FORWARD(V(VKMOE_SCORE_SOFTMAX) | V(VKMOE_SCORE_SIGMOID)))
    ENUM(rank, 3, FORWARD(V(VKMOE_RANK_SCORE) | V(VKMOE_RANK_LOGIT)))
    ENUM(select, 5, FORWARD(V(VKMOE_SELECT_TOP_K)))
    F32(select_p, ANY)
    F32(sparsemixer_eps, ANY)
    U32(n_group, FORWARD(V(0) | V(1)))
    U32(topk_group, ANY)
    ENUM(group_score, 3, ANY)
    BOOL(group_fill_zero, ANY)
    ENUM(gate_source, 2, ANY)
    ENUM(norm, 3, ANY)
    F32(norm_p, FORWARD(V(1)))
    F32(norm_eps, ANY)
    F32(routed_scale, ANY)
    BOOL(expert_scale, FORWARD(V(0)))

    ENUM(expert_kind, 3, ONLY(V(VKMOE_EXPERT_MLP) | V(VKMOE_EXPERT_EXTERNAL),
                              "linear experts exist in networks (vkmoe/train.h), not in a layer "
                              "(only mlp)"))
    BOOL(gated, ANY)
    ENUM(act, 9, FORWARD(V(VKMOE_ACT_SITU) - 1))
    ENUM(act_out, 9, FORWARD(V(VKMOE_ACT_SITU) - 1))
    F32(act_alpha, ANY)
    F32(up_add, FORWARD(V(0)))
    ENUM(clamp, 3, FORWARD(V(VKMOE_CLAMP_NONE)))
    F32(limit, ANY)
    F32(limit_shared, ANY)
    F32(situ_beta, ANY)
    F32(situ_lambda, ANY)
    BOOL(gate_bias, ANY)
    BOOL(up_bias, ANY)
    BOOL(down_bias, ANY)
    BOOL(weight_on_input, FORWARD(V(0)))
    BOOL(latent_norm, ANY)
    BOOL(out_bias, FORWARD(V(0)))
    U32(adjugate_group, FORWARD(V(0)))
    U32(d_adjugate, ANY)
    F32(adjugate_scale, ANY)
    ARRAY(expert_d_ff, ONLY(V(0), "a width per expert is not computed yet (only NULL)"))
    ARRAY(expert_act, ONLY(V(0), "an activation per expert is not computed yet (only NULL)"))
    ARRAY(expert_alias, ONLY(V(0), "experts that share weights are not computed yet (only NULL)"))

    ENUM(shared_gate, 3, FORWARD(V(VKMOE_SHARED_PLAIN) | V(VKMOE_SHARED_SIGMOID)))
    F32(c_routed, ANY)
    F32(c_shared, ANY)
    F32(out_scale, ANY)

    ENUM(capacity_mode, 3, FORWARD(V(VKMOE_CAPACITY_NONE)))
    U32(capacity, ANY)
    U32(capacity_rows, ANY)
    F32(jitter, ONLY(V(0), NO_TRAINING))
    F32(aux_coef, ONLY(V(0), NO_TRAINING))
    F32(z_coef, ONLY(V(0), NO_TRAINING))
    F32(bias_rate, ONLY(V(0), NO_TRAINING))

    F32(capacity_factor, ANY)
    BOOL(capacity_renorm, ANY)
    F32(latent_norm_eps, ANY)
    ENUM(latent_type, MOE_N_DTYPES, ANY)
    U32(n_token_ids, ANY)
    BOOL(shared_gate_bias, FORWARD(V(0)))
    BOOL(own_shared_types, ANY)
    ENUM(shared_in_type, MOE_N_DTYPES, FORWARD(FLOATS))
    ENUM(shared_out_type, MOE_N_DTYPES, FORWARD(FLOATS))
};
const uint32_t moe_n_layer_fields = MOE_COUNT(moe_layer_fields);

// A field's value as a number, and as text for a message.
struct field_value {
    double number;
    char text[32];
};

static struct field_value read_field(const struct moe_layer_field *field,
                                     const vkmoe_layer_desc *desc)
{
    const char *at = (const char *) desc + field->offset;
    struct field_value value = {0};
    uint32_t word;
    float real;
    const void *array;
    switch (field->kind) {
    case MOE_FIELD_BOOL:
        value.number = *(const bool *) at;
        snprintf(value.text, sizeof value.text, "%s", value.number != 0 ? "true" : "false");
        break;
    case MOE_FIELD_U32:
    case MOE_FIELD_ENUM:
        memcpy(&word, at, sizeof word);
        value.number = word;
        snprintf(value.text, sizeof value.text, "%u", word);
        break;
    case MOE_FIELD_F32:
        memcpy(&real, at, sizeof real);
        value.number = (double) real;
        snprintf(value.text, sizeof value.text, "%g", value.number);
        break;
    case MOE_FIELD_ARRAY:
        memcpy(&array, at, sizeof array);
        value.number = array ? 1 : 0;
        snprintf(value.text, sizeof value.text, "%s", array ? "an array" : "NULL");
        break;
    }
    return value;
}

static bool is_in(uint32_t set, double value)
{
    for (uint32_t v = 0; v < 32; v++) {
        if ((set & V(v)) && value == v)
            return true;
    }
    return false;
}

enum vkmoe_status moe_layer_check_fields(const vkmoe_layer_desc *desc)
{
    for (uint32_t i = 0; i < moe_n_layer_fields; i++) {
        const struct moe_layer_field *field = &moe_layer_fields[i];
        struct field_value value = read_field(field, desc);
        if (!isfinite(value.number))
            return moe_fail(VKMOE_E_ARGUMENT, "layer.%s = %s: must be finite", field->name,
                            value.text);
        if (field->kind == MOE_FIELD_ENUM && value.number >= field->n_values)
            return moe_fail(VKMOE_E_ARGUMENT, "layer.%s = %s: must be below %u", field->name,
                            value.text, field->n_values);
        if (field->refusal && !is_in(field->computed, value.number))
            return moe_fail(VKMOE_E_UNSUPPORTED, "layer.%s = %s: %s", field->name, value.text,
                            field->refusal);
    }
    return VKMOE_OK;
}

enum vkmoe_status moe_layer_check_gradients(const vkmoe_layer_desc *desc)
{
    for (uint32_t i = 0; i < moe_n_layer_fields; i++) {
        const struct moe_layer_field *field = &moe_layer_fields[i];
        struct field_value value = read_field(field, desc);
        if (!field->all_gradients && !is_in(field->gradients, value.number))
            return moe_fail(VKMOE_E_UNSUPPORTED,
                            "layer.%s = %s: the gradient of this is not computed", field->name,
                            value.text);
    }
    return VKMOE_OK;
}
