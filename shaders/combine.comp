#version 450
// SPDX-License-Identifier: MIT
// Weighted sum of a token's experts, in ascending k, without atomics.
//   y[t, n] = routed_scale * sum_k gate[t, k] * f[position[t, k], n]
//           + shared_scale * shared_gate[t] * f_shared[t, n]
//   f (slots, d_out) f32 in expert order, or in slot order, then from word shared_input on
//   (n_tokens, d_out)
// Dispatch: (ceil(words of a row of y / MOE_LOCAL_SIZE), n_tokens, 1)
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    combine_params p;
};
#define INPUT_ACCESS readonly
#define ROUTING_ACCESS readonly
#define OUTPUT_ACCESS writeonly
#include "buffers.glsl"
#include "counters.glsl"
#include "element.glsl"
#include "combine.glsl"
layout(constant_id = 0) const uint OUTPUT_TYPE = 0; // of y, enum vkmoe_dtype

float combined(uint token, uint n)
{
    float y = 0.0;
    for (uint k = 0; k < p.top_k; k++) {
        uint slot = token * p.top_k + k;
        bool listed = p.positions != MOE_NONE;
        uint position = routing(listed ? p.positions + slot : 0);
        position = listed ? position : slot;
        y = combine_slot(y, uintBitsToFloat(routing(p.gates + slot)),
                         uintBitsToFloat(input_at(position * p.d_out + n)));
    }
    y = combine_scale(y, p.routed_scale);
    if (p.shared_input == MOE_NONE)
        return y;
    bool gated = p.shared_gate != MOE_NONE;
    float gate = uintBitsToFloat(routing(gated ? p.shared_gate + token : 0));
    return combine_shared(y, p.shared_scale, gated ? gate : 1.0,
                          uintBitsToFloat(input_at(p.shared_input + token * p.d_out + n)));
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
    output_at((head.first_token + token) * head.y_stride + word) =
        element_pack(OUTPUT_TYPE, y, next);
    COUNT_END(true);
}
