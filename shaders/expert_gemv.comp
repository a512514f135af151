#version 450
// SPDX-License-Identifier: MIT
// Expert matvec for few tokens: one slot at a time, straight from the selected ids.
//   o[s, n] = act(sum_k in[r, k] * w[n, k] + b[n]), gated as in expert_gemm.comp
//   Slots without a real expert are left alone, unused ones and those of identity experts.
//   in  a row of x for each token, or a row of f32 for each slot: r = s / p.rows_per_input
//   o   (slots, n_out) f32 in slot order
// Dispatch: (panels of MOE_PANEL_ROWS outputs, slots, 1)
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    gemv_params p;
};
#define WEIGHTS_ACCESS readonly
#define INPUT_ACCESS readonly
#define ROUTING_ACCESS readonly
#define OUTPUT_ACCESS writeonly
#include "buffers.glsl"
#include "counters.glsl"
#include "weight.glsl"
#include "element.glsl"
#include "act.glsl"
#include "expert_act.glsl"
#define GEMV_GATED
#include "gemv.glsl"
layout(constant_id = 1) const uint GATED = 0;
layout(constant_id = 2) const uint INPUT_TYPE = 0; // of the input, enum vkmoe_dtype
layout(constant_id = 3) const uint N_ROUTED = 0;   // routed experts, behind which adjugates are
layout(constant_id = 4) const uint SHARED_BY = 0;  // that share an adjugate; 0: not of adjugates

uint slot_expert(uint slot)
{
    if (p.expert != MOE_NONE)
        return p.expert;
    uint id = routing(p.ids + slot);
    return SHARED_BY == 0 || id >= N_ROUTED ? id : N_ROUTED + id / SHARED_BY;
}

void main()
{
    uint slot = gl_WorkGroupID.y, panel = p.first_panel + gl_WorkGroupID.x;
    uint expert = slot_expert(slot);
    bool mine = slot < token_count() * p.slots && expert - p.first_expert < p.n_experts;
    uvec2 base = expert_base(mine ? expert : p.first_expert);
    if (!mine) { // the whole workgroup
        COUNT_END(false);
        return;
    }
    const uint n_matrices = GATED != 0 ? 2 : 1;
    uint first = panel * n_matrices * MOE_PANEL_ROWS; // packed row
    uint row = slot / p.rows_per_input;
    uint from = p.input_stride != 0 ? row * p.input_stride
                                    : (head.first_token + row) * head.x_stride;
    float sum[GEMV_SUMS];
    gemv_add(base, p.window, !expert_absent(base), n_matrices,
             row_at(p.weight, p.weight_stride, first + gemv_first_row()), p.weight_stride, p.d_in,
             INPUT_TYPE, from, sum);
    gemv_share(0, n_matrices, sum);
    COUNT_TILE(!expert_absent(base), 1, 1);

    uint own = gl_LocalInvocationID.x, n = panel * MOE_PANEL_ROWS + own, packed = first + own;
    if (own >= MOE_PANEL_ROWS || n >= p.n_out) {
        COUNT_END(true);
        return;
    }
    float o = 0.0;
    if (!expert_absent(base)) {
        float v = gemv_total(0, 0, own), up = GATED != 0 ? gemv_total(0, 1, own) : 0.0;
        float factor = uintBitsToFloat(WEIGHTED != 0 ? routing(p.gates + slot) : 0);
        v = weighted_sum(v, factor,
                         row_bias(base, p.window, p.weight, p.weight_stride, packed));
        if (GATED != 0)
            up = weighted_sum(up, factor, row_bias(base, p.window, p.weight, p.weight_stride,
                                                   packed + MOE_PANEL_ROWS));
        o = GATED != 0 ? expert_gated(p.act, p.act_alpha, v, up)
                       : expert_act(p.act, p.act_alpha, v);
    }
    output_at(slot * p.n_out + n) = floatBitsToUint(o);
    COUNT_END(true);
}
