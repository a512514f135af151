#version 450
// SPDX-License-Identifier: MIT
// Down projection and combine for few tokens, without grouping and without a buffer of slots.
//   y[t, n] = routed_scale * sum_k gate[t, k] * act(sum_f h[t, k, f] * w_e[n, f] + b_e[n])
//           + shared_scale * shared_gate[t] * (the same for the shared expert)
//   without unused slots; the routed sum with out_bias, and with a gate of its own, as SUM says
//   h (slots, d_ff) f32, then from word shared_input on (n_tokens, shared_d_ff)
//   y (n_tokens, n_out)
// Dispatch: (ceil(n_out / MOE_PANEL_ROWS), n_tokens, 1)
//
// The bits are those of expert_gemv.comp and combine.comp one after the other.
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
#include "counters.glsl"
#include "weight.glsl"
#include "element.glsl"
#include "act.glsl"
#define GEMV_TURNS
#include "gemv.glsl"
#include "combine.glsl"
layout(constant_id = 1) const uint OUTPUT_TYPE = 0; // of y, enum vkmoe_dtype
layout(constant_id = 2) const uint SUM = 0;         // MOE_SUM_*

float gate_at(uint i)
{
    return uintBitsToFloat(routing(i));
}

shared float outputs[MOE_PANEL_ROWS];

// y of this workgroup's rows, from its first invocations; two rows a word in 16-bit types.
void store(uint token, float y)
{
    uint first = gl_WorkGroupID.x * MOE_PANEL_ROWS;
    uint word = (head.first_token + token) * head.y_stride;
    uint per_word = elements_per_word(OUTPUT_TYPE);
    if (gl_LocalInvocationID.x < MOE_PANEL_ROWS)
        outputs[gl_LocalInvocationID.x] = y;
    barrier();
    uint row = gl_LocalInvocationID.x * per_word;
    if (row >= MOE_PANEL_ROWS || first + row >= p.n_out)
        return;
    float next = first + row + 1 < p.n_out ? outputs[(row + 1) % MOE_PANEL_ROWS] : 0.0;
    output_at(word + (first + row) / per_word) = element_pack(OUTPUT_TYPE, outputs[row], next);
}

void main()
{
    uint token = gl_WorkGroupID.y, first = gl_WorkGroupID.x * MOE_PANEL_ROWS;
    uint own = gl_LocalInvocationID.x, n = first + own, turn = 0;
    bool there = token < token_count(), inside = own < MOE_PANEL_ROWS && n < p.n_out;
    float y = 0.0;
    uint k = 0;
    do { // top_k > 0; the expert of slot top_k must not be looked up, see buffers.glsl
        uint slot = token * p.top_k + k;
        uint expert = routing(p.ids + slot);
        bool used = (SUM & MOE_SUM_SKIPS) == 0 || expert != MOE_NONE;
        uvec2 block = expert_base(there && used ? expert : 0);
        if (!there) { // the whole workgroup
            COUNT_END(false);
            return;
        }
        if (!used)
            continue;
        COUNT_TILE(!expert_absent(block), 1, 1);
        bool absent = expert_absent(block);
        float sum[GEMV_SUMS];
        gemv_add(block, 0, !absent, 1,
                 row_at(p.weight, p.weight_stride, first + gemv_first_row()), p.weight_stride,
                 p.d_ff, TYPE_F32, slot * p.d_ff, sum);
        gemv_share(turn, 1, sum);
        float f = 0.0;
        if (inside && !absent)
            f = activate(p.act, p.act_alpha,
                         gemv_total(turn, 0, own) +
                             row_bias(block, 0, p.weight, p.weight_stride, n));
        turn = 1 - turn;
        y = combine_slot(y, (SUM & MOE_SUM_WEIGHTED) != 0 ? 1.0 : gate_at(p.gates + slot), f);
    } while (++k < p.top_k);
    if ((SUM & MOE_SUM_BIAS) != 0 && inside)
        y = combine_bias(y, uintBitsToFloat(weights(p.out_bias + n / 4)[n % 4]));
    bool two = (SUM & MOE_SUM_SOFTMAX2) != 0;
    uint gates = p.shared_gate + (two ? 2 * token : token);
    y = two ? combine_gated(y, p.routed_scale, gate_at(gates)) : combine_scale(y, p.routed_scale);
    bool has_shared = p.shared_expert != MOE_NONE;
    uvec2 base = expert_base(has_shared ? p.shared_expert : 0); // inside, see buffers.glsl
    if (has_shared) {
        COUNT_TILE(true, 1, 1);
        float sum[GEMV_SUMS];
        gemv_add(base, 0, true, 1,
                 row_at(p.shared_weight, p.shared_weight_stride, first + gemv_first_row()),
                 p.shared_weight_stride, p.shared_d_ff, TYPE_F32,
                 p.shared_input + token * p.shared_d_ff, sum);
        gemv_share(turn, 1, sum);
        bool gated = p.shared_gate != MOE_NONE;
        float gate = gate_at(gated ? gates + (two ? 1 : 0) : 0);
        float f = 0.0;
        if (inside)
            f = activate(p.act, p.act_alpha,
                         gemv_total(turn, 0, own) + row_bias(base, 0, p.shared_weight,
                                                             p.shared_weight_stride, n));
        y = combine_shared(y, p.shared_scale, gated ? gate : 1.0, f);
    }
    store(token, y);
    COUNT_END(true);
}
