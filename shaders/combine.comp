#version 450
// SPDX-License-Identifier: MIT
// Weighted sum of a token's experts, in ascending k, without atomics.
//   y[t, n] = routed_scale * sum_k gate[t, k] * f[position[t, k], n]
//           + shared_scale * shared_gate[t] * f_shared[t, n]
//   f (slots, d_out) f32 in expert order, then from word shared_input on (n_tokens, d_out)
// Dispatch: (ceil(d_out / MOE_LOCAL_SIZE), n_tokens, 1)
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

void main()
{
    uint n = gl_GlobalInvocationID.x, token = gl_WorkGroupID.y;
    if (n >= p.d_out)
        return;
    float y = 0.0;
    for (uint k = 0; k < p.top_k; k++) {
        uint slot = token * p.top_k + k;
        float gate = uintBitsToFloat(routing(p.gates + slot));
        y += gate * input_at(routing(p.positions + slot) * p.d_out + n);
    }
    y *= p.routed_scale;
    if (p.shared_input != MOE_NONE) {
        bool gated = p.shared_gate != MOE_NONE;
        float gate = uintBitsToFloat(routing(gated ? p.shared_gate + token : 0));
        gate = gated ? gate : 1.0;
        y += p.shared_scale * gate * input_at(p.shared_input + token * p.d_out + n);
    }
    output_at(token * head.y_stride + n) = y;
}
