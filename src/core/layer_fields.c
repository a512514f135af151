// SPDX-License-Identifier: MIT
#include "core/layer_fields.h"

#include "base/bits.h"
#include "base/status.h"
#include "core/dtype.h"

#include <math.h>
#include <stdio.h>

#define V(value) (1u << (value))
#define FIELD(field, kind, n, computed, refusal)                                                   \
    {#field, offsetof(vkmoe_layer_desc, field), kind, n, computed, refusal},

// A field of which every value is computed, and one of which only some are.
#define BOOL(field) FIELD(field, MOE_FIELD_BOOL, 0, 0, NULL)
#define U32(field) FIELD(field, MOE_FIELD_U32, 0, 0, NULL)
#define F32(field) FIELD(field, MOE_FIELD_F32, 0, 0, NULL)
#define ENUM(field, n) FIELD(field, MOE_FIELD_ENUM, n, 0, NULL)
#define BOOL_ONLY(field, computed, refusal) FIELD(field, MOE_FIELD_BOOL, 0, computed, refusal)
#define U32_ONLY(field, computed, refusal) FIELD(field, MOE_FIELD_U32, 0, computed, refusal)
#define F32_ONLY(field, computed, refusal) FIELD(field, MOE_FIELD_F32, 0, computed, refusal)
#define ENUM_ONLY(field, n, computed, refusal) FIELD(field, MOE_FIELD_ENUM, n, computed, refusal)
#define ARRAY_ONLY(field, computed, refusal) FIELD(field, MOE_FIELD_ARRAY, 0, computed, refusal)

#define NO_PRENORM "the router's own norm is not computed yet (only 0)"
#define NO_GROUPS "groups of experts are not computed yet (only 0)"
#define NO_CLAMP "clamping is not computed yet (only 0)"
#define NO_SUCH_ACT "this activation is not computed yet (only 0 to 7)"
#define NO_SITU "the situ activation is not computed yet (only 0)"
#define NO_LATENT "a latent width is not computed yet (only 0)"
#define NO_ADJUGATE "adjugate experts are not computed yet (only 0)"
#define NO_CAPACITY "capacity is not computed yet (only 0)"
#define NO_TRAINING "training is not computed yet (only 0)"

const struct moe_layer_field moe_layer_fields[] = {
    U32(n_experts)
    U32(top_k)
    U32(d_model)
    U32(d_ff)
    U32(d_out)
    U32(d_shared_ff)
    U32_ONLY(n_zero, V(0), "identity experts are not computed yet (only 0)")
    U32_ONLY(d_latent, V(0), NO_LATENT)
    ENUM(in_type, MOE_N_DTYPES)
    ENUM(out_type, MOE_N_DTYPES)

    BOOL_ONLY(router_input, V(0), "an own input of the router is not computed yet (only false)")
    BOOL_ONLY(router_prenorm, V(0), NO_PRENORM)
    F32_ONLY(prenorm_const, V(0), NO_PRENORM)
    F32_ONLY(prenorm_eps, V(0), NO_PRENORM)
    BOOL(router_bias)
    BOOL(selection_bias)
    F32_ONLY(logit_softcap, V(0), "capped logits are not computed yet (only 0)")
    ENUM_ONLY(score, 5, V(VKMOE_SCORE_SOFTMAX) | V(VKMOE_SCORE_SIGMOID),
              "this score is not computed yet (only softmax or sigmoid)")
    ENUM_ONLY(rank, 3, V(VKMOE_RANK_SCORE) | V(VKMOE_RANK_LOGIT),
              "this ranking is not computed yet (only score or logit)")
    ENUM_ONLY(select, 5, V(VKMOE_SELECT_TOP_K), "this selection is not computed yet (only top_k)")
    F32_ONLY(select_p, V(0), "selection by a threshold is not computed yet (only 0)")
    F32_ONLY(sparsemixer_eps, V(0), "sparsemixer is not computed yet (only 0)")
    U32_ONLY(n_group, V(0) | V(1), "groups are not computed yet (only 0 or 1)")
    U32_ONLY(topk_group, V(0) | V(1), "groups are not computed yet (only 0 or 1)")
    ENUM_ONLY(group_score, 3, V(0), NO_GROUPS)
    BOOL_ONLY(group_fill_zero, V(0), NO_GROUPS)
    ENUM(gate_source, 2)
    ENUM(norm, 3)
    F32_ONLY(norm_p, V(1), "other exponents of the norm are not computed yet (only 1)")
    F32(norm_eps)
    F32(routed_scale)
    BOOL_ONLY(expert_scale, V(0), "a factor per expert is not computed yet (only false)")

    ENUM_ONLY(expert_kind, 2, V(VKMOE_EXPERT_MLP), "linear experts are not computed yet (only mlp)")
    BOOL(gated)
    ENUM_ONLY(act, 9, V(VKMOE_ACT_SITU) - 1, NO_SUCH_ACT)
    ENUM_ONLY(act_out, 9, V(VKMOE_ACT_SITU) - 1, NO_SUCH_ACT)
    F32(act_alpha)
    F32_ONLY(up_add, V(0), "an addend to the up half is not computed yet (only 0)")
    ENUM_ONLY(clamp, 3, V(VKMOE_CLAMP_NONE), NO_CLAMP)
    F32_ONLY(limit, V(0), NO_CLAMP)
    F32_ONLY(limit_shared, V(0), NO_CLAMP)
    F32_ONLY(situ_beta, V(0), NO_SITU)
    F32_ONLY(situ_lambda, V(0), NO_SITU)
    BOOL(gate_bias)
    BOOL(up_bias)
    BOOL(down_bias)
    BOOL_ONLY(weight_on_input, V(0), "gate weights on the input are not computed yet (only false)")
    BOOL_ONLY(latent_norm, V(0), NO_LATENT)
    BOOL_ONLY(out_bias, V(0), "a bias on the routed sum is not computed yet (only false)")
    U32_ONLY(adjugate_group, V(0), NO_ADJUGATE)
    U32_ONLY(d_adjugate, V(0), NO_ADJUGATE)
    F32_ONLY(adjugate_scale, V(0), NO_ADJUGATE)
    ARRAY_ONLY(expert_d_ff, V(0), "a width per expert is not computed yet (only NULL)")
    ARRAY_ONLY(expert_act, V(0), "an activation per expert is not computed yet (only NULL)")
    ARRAY_ONLY(expert_alias, V(0), "experts that share weights are not computed yet (only NULL)")

    ENUM_ONLY(shared_gate, 3, V(VKMOE_SHARED_PLAIN) | V(VKMOE_SHARED_SIGMOID),
              "this gate of the shared expert is not computed yet (only plain or sigmoid)")
    F32(c_routed)
    F32(c_shared)
    F32(out_scale)

    ENUM_ONLY(capacity_mode, 3, V(VKMOE_CAPACITY_NONE), NO_CAPACITY)
    U32_ONLY(capacity, V(0), NO_CAPACITY)
    U32_ONLY(capacity_rows, V(0), NO_CAPACITY)
    F32_ONLY(jitter, V(0), NO_TRAINING)
    F32_ONLY(aux_coef, V(0), NO_TRAINING)
    F32_ONLY(z_coef, V(0), NO_TRAINING)
    F32_ONLY(bias_rate, V(0), NO_TRAINING)
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

static bool is_computed(const struct moe_layer_field *field, double value)
{
    if (!field->refusal)
        return true;
    for (uint32_t v = 0; v < 32; v++) {
        if ((field->computed & V(v)) && value == v)
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
        if (!is_computed(field, value.number))
            return moe_fail(VKMOE_E_UNSUPPORTED, "layer.%s = %s: %s", field->name, value.text,
                            field->refusal);
    }
    return VKMOE_OK;
}
