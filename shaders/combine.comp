#version 450
// SPDX-License-Identifier: MIT
// Weighted sum of a token's experts, in ascending k, without atomics.
//   r[t, n] = sum_k gate[t, k] * f[position[t, k], n]
//           + sum_k gate[t, k] * adjugate_scale * f_adjugate[adjugate_position[t, k], n]
//           + out_bias[n]
//   y[t, n] = routed_scale * r[t, n] + shared_scale * shared_gate[t] * f_shared[t, n]
//   f (slots, d_out) f32 in expert order, or in slot order; adjugates' likewise, from word
//   adjugate_input on; from word shared_input on (n_tokens, d_out)
// Slots of identity experts have a row of x, or of the latent x, for f; unused ones add nothing.
// SUM says which of these there are; slot 0 has the input of identity experts or out_bias.
// Dispatch: (ceil(words of a row of y / MOE_LOCAL_SIZE), n_tokens, 1)
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    combine_params p;
};
#define EXTRA_ACCESS readonly
#define INPUT_ACCESS readonly
#define ROUTING_ACCESS readonly
#define OUTPUT_ACCESS writeonly
#include "buffers.glsl"
#include "counters.glsl"
#include "element.glsl"
#include "combine.glsl"
layout(constant_id = 0) const uint OUTPUT_TYPE = 0; // of y, enum vkmoe_dtype
layout(constant_id = 1) const uint SUM = 0;         // MOE_SUM_*
layout(constant_id = 2) const uint IDENTITY_TYPE = 0; // of identity experts' input

float float_at(uint i)
{
    return uintBitsToFloat(input_at(i));
}

float gate_at(uint i)
{
    return uintBitsToFloat(routing(i));
}

// What a slot's output is multiplied with.
float slot_weight(uint slot)
{
    return (SUM & MOE_SUM_WEIGHTED) != 0 ? 1.0 : gate_at(p.gates + slot);
}

// The row of a slot that has one.
uint slot_row(uint positions, uint slot)
{
    bool listed = positions != MOE_NONE;
    uint position = routing(listed ? positions + slot : 0);
    return listed ? position : slot;
}

bool is_used(uint slot)
{
    return (SUM & MOE_SUM_SKIPS) == 0 || routing(p.ids + slot) != MOE_NONE;
}

bool is_identity(uint slot)
{
    return (SUM & MOE_SUM_IDENTITY) != 0 && routing(p.ids + slot) >= p.n_experts;
}

float identity_at(uint token, uint n)
{
    uint row = p.identity_stride != 0 ? token * p.identity_stride
                                      : (head.first_token + token) * head.x_stride;
    return element_from(IDENTITY_TYPE, extra_at(row + n / elements_per_word(IDENTITY_TYPE)), n);
}

float routed_sum(uint token, uint n)
{
    if ((SUM & MOE_SUM_ROWS) != 0)
        return float_at(token * p.d_out + n);
    float r = 0.0;
    for (uint k = 0; k < p.top_k; k++) {
        uint slot = token * p.top_k + k;
        if (!is_used(slot))
            continue;
        if (is_identity(slot))
            r = combine_slot(r, gate_at(p.gates + slot), identity_at(token, n));
        else
            r = combine_slot(r, slot_weight(slot),
                             float_at(slot_row(p.positions, slot) * p.d_out + n));
    }
    for (uint k = 0; k < p.top_k && (SUM & MOE_SUM_ADJUGATES) != 0; k++) {
        uint slot = token * p.top_k + k;
        if (is_used(slot))
            r = combine_adjugate(r, slot_weight(slot), p.adjugate_scale,
                                 float_at(p.adjugate_input +
                                          slot_row(p.adjugate_positions, slot) * p.d_out + n));
    }
    return r;
}

float combined(uint token, uint n)
{
    float y = routed_sum(token, n);
    if ((SUM & MOE_SUM_BIAS) != 0)
        y = combine_bias(y, uintBitsToFloat(extra_at(p.out_bias + n)));
    bool two = (SUM & MOE_SUM_SOFTMAX2) != 0;
    uint gates = p.shared_gate + (two ? 2 * token : token);
    y = two ? combine_gated(y, p.routed_scale, gate_at(gates)) : combine_scale(y, p.routed_scale);
    if (p.shared_input == MOE_NONE)
        return y;
    bool gated = p.shared_gate != MOE_NONE;
    float gate = gate_at(gated ? gates + (two ? 1 : 0) : 0);
    return combine_shared(y, p.shared_scale, gated ? gate : 1.0,
                          float_at(p.shared_input + token * p.d_out + n));
}

void main()
{
    uint word = gl_GlobalInvocationID.x, token = gl_WorkGroupID.y;
    uint per_word = elements_per_word(OUTPUT_TYPE), n = word * per_word;
    if (token >= token_count() || n >= p.d_out) {
        COUNT_END(false);
        return;
    }
    float y = combined(token, n);
    float next = per_word == 2 && n + 1 < p.d_out ? combined(token, n + 1) : 0.0;
    uint row = p.output_stride != 0 ? token * p.output_stride
                                    : (head.first_token + token) * head.y_stride;
    output_at(row + word) = element_pack(OUTPUT_TYPE, y, next);
    COUNT_END(true);
}
