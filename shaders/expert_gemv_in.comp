#version 450
// SPDX-License-Identifier: MIT
// Expert matvec for few tokens: hidden activations of one slot, straight from the selected ids.
//   h[s, n] = act(sum_k x[t, k] * w[n, k] + b[n]), gated as in expert_gemm.comp; t = s / top_k
//   x (n_tokens, d_in) f32   h (slots, n_out) f32 in slot order
// Dispatch: (ceil(n_out / MOE_PANEL_ROWS), slots, 1)
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    gemv_in_params p;
};
#define WEIGHTS_ACCESS readonly
#define INPUT_ACCESS readonly
#define ROUTING_ACCESS readonly
#define OUTPUT_ACCESS writeonly
#include "buffers.glsl"
#include "weight.glsl"
#include "act.glsl"
#include "gemv.glsl"
layout(constant_id = 1) const uint GATED = 0;

void main()
{
    uint slot = gl_WorkGroupID.y, n = gl_WorkGroupID.x * MOE_PANEL_ROWS + gemv_row();
    uint expert = p.expert != MOE_NONE ? p.expert : routing(slot);
    uvec2 base = expert_base(expert);
    bool live = n < p.n_out && !expert_absent(base);

    uint packed = GATED != 0 ? gl_WorkGroupID.x * 2 * MOE_PANEL_ROWS + gemv_row() : n;
    uint x = slot / p.top_k * head.x_stride;
    float v = gemv_dot(base, live, p.weight + packed * p.weight_stride, p.d_in, x);
    float up = 0.0;
    if (GATED != 0)
        up = gemv_dot(base, live, p.weight + (packed + MOE_PANEL_ROWS) * p.weight_stride,
                      p.d_in, x);
    if (gemv_lane() != 0 || n >= p.n_out)
        return;
    float h = 0.0;
    if (live) {
        h = activate(p.act, p.act_alpha, v + expert_float(base, p.bias, packed));
        if (GATED != 0)
            h *= up + expert_float(base, p.bias, packed + MOE_PANEL_ROWS);
    }
    output_at(slot * p.n_out + n) = h;
}
