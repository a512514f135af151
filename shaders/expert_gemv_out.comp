#version 450
// SPDX-License-Identifier: MIT
// Down projection and combine for few tokens, without grouping and without a buffer of slots.
//   y[t, n] = routed_scale * sum_k gate[t, k] * act(sum_f h[t, k, f] * w_e[n, f] + b_e[n])
//           + shared_scale * shared_gate[t] * (the same for the shared expert)
//   h (slots, d_ff) f32, then from word shared_input on (n_tokens, shared_d_ff)
//   y (n_tokens, n_out)
// Dispatch: (ceil(n_out / MOE_PANEL_ROWS), n_tokens, 1)
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    gemv_out_params p;
};
#define WEIGHTS_ACCESS readonly
#define INPUT_ACCESS readonly
#define ROUTING_ACCESS readonly
#define OUTPUT_ACCESS writeonly
#include "buffers.glsl"
#include "weight.glsl"
#include "act.glsl"
#include "gemv.glsl"

void main()
{
    uint token = gl_WorkGroupID.y, n = gl_WorkGroupID.x * MOE_PANEL_ROWS + gemv_row();
    bool inside = n < p.n_out;
    float y = 0.0;
    uint k = 0;
    do { // top_k > 0; the expert of slot top_k must not be looked up, see buffers.glsl
        uint slot = token * p.top_k + k;
        uvec2 base = expert_base(routing(slot));
        bool live = inside && !expert_absent(base);
        float v =
            gemv_dot(base, live, p.weight + n * p.weight_stride, p.d_ff, slot * p.d_ff);
        if (live && gemv_lane() == 0)
            y += uintBitsToFloat(routing(p.gates + slot)) *
                 activate(p.act, p.act_alpha, v + expert_float(base, p.bias, n));
    } while (++k < p.top_k);
    y *= p.routed_scale;
    if (p.shared_expert != MOE_NONE) {
        uvec2 base = expert_base(p.shared_expert);
        float v = gemv_dot(base, inside, p.shared_weight + n * p.shared_weight_stride,
                           p.shared_d_ff, p.shared_input + token * p.shared_d_ff);
        bool gated = p.shared_gate != MOE_NONE;
        float gate = uintBitsToFloat(routing(gated ? p.shared_gate + token : 0));
        gate = gated ? gate : 1.0;
        if (inside && gemv_lane() == 0)
            y += p.shared_scale * gate *
                 activate(p.act, p.act_alpha, v + expert_float(base, p.shared_bias, n));
    }
    if (inside && gemv_lane() == 0)
        output_at(token * head.y_stride + n) = y;
}
