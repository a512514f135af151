#version 450
// SPDX-License-Identifier: MIT
// Gradient of the gate weights by the logits; the selection is taken as constant.
//   logits, dlogits (T, E)   ids, dgates (T * K, 1)
// Operands: logits, ids, dgates. Result: dlogits.
// Dispatch: (ceil(T / tokens of a workgroup), 1, 1), or fewer: a workgroup takes every so many.
//
// gate_k = scale q_k / D, where q are the selected scores, or the softmax of the selected logits:
//   Dq_k = scale (Dgate_k - m) / D, m = sum_j Dgate_j q_j / D, or 0 where D does not depend on q
//   softmax of the selected:  Dl_k = q_k (Dq_k - sum_j q_j Dq_j), others 0
//   softmax of all:           Dl_e = s_e (Ds_e - sum_j q_j Dq_j), Ds = Dq where selected, else 0
//   sigmoid, none:            Dl_e = Ds_e s_e (1 - s_e), Ds_e
#extension GL_GOOGLE_include_directive : require
#define NET_PARAMS net_select_params
#include "net.glsl"
#include "act_derivative.glsl"
#include "net_scores.glsl"
shared float d_values[PLACES]; // by place

// Of what `values` has by place, with Dgate in d_values: Dq there, and sum_j q_j Dq_j.
float places_backward(uint n_places)
{
    uint base = token_base();
    float sum = 0.0, mean = 0.0, dot = 0.0;
    bool constant;
    for (uint k = 0; k < n_places; k++)
        sum += values[base + k];
    float divisor = gate_divisor(sum, constant);
    for (uint k = 0; k < n_places && !constant; k++)
        mean += d_values[base + k] * values[base + k] / divisor;
    barrier();
    for (uint k = lane(); k < n_places; k += p.lanes)
        d_values[base + k] = p.routed_scale * (d_values[base + k] - mean) / divisor;
    barrier();
    for (uint k = 0; k < n_places; k++)
        dot += values[base + k] * d_values[base + k];
    barrier();
    return dot;
}

// Dl of an expert from its own score (of a softmax over all) and Ds.
float logit_gradient(uint i, float own, float ds, float dot)
{
    if (SCORE == SCORE_SOFTMAX)
        return own * (ds - dot);
    return SCORE == SCORE_SIGMOID ? ds * sigmoid_derivative(in_at(0, i)) : ds;
}

void backward_of(uint token, uint n)
{
    uint base = token_base(), n_places = n > 0 ? p.top_k : 0, j = 0;
    float mine[MAX_MINE];
    load_logits(token, n);
    if (OF_SELECTED == 0)
        score_values(n);
    for (uint e = lane(); e < n; e += p.lanes)
        mine[j++] = values[base + e];
    for (uint k = lane(); k < n_places; k += p.lanes) {
        others[base + k] = values[base + in_uint(1, token * p.top_k + k)];
        d_values[base + k] = in_at(2, token * p.top_k + k);
    }
    barrier();
    for (uint k = lane(); k < n_places; k += p.lanes)
        values[base + k] = others[base + k];
    barrier();
    if (OF_SELECTED != 0)
        softmax_of_values(n_places);
    float dot = places_backward(n_places);
    if (OF_SELECTED != 0) {
        for (uint k = lane(); k < n_places; k += p.lanes)
            d_values[base + k] = values[base + k] * (d_values[base + k] - dot);
        barrier();
    }
    for (uint e = lane(); e < n; e += p.lanes) // Ds, or Dl of the selected
        others[base + e] = 0.0;
    barrier();
    for (uint k = lane(); k < n_places; k += p.lanes)
        others[base + in_uint(1, token * p.top_k + k)] = d_values[base + k];
    barrier();
    j = 0;
    for (uint e = lane(); e < n; e += p.lanes, j++) {
        uint i = token * p.n_experts + e;
        float d = OF_SELECTED != 0 ? others[base + e]
                                   : logit_gradient(i, mine[j], others[base + e], dot);
        put(0, i, p.constant_gates != 0 ? 0.0 : d);
    }
    barrier();
}

void main()
{
    for (uint first = gl_WorkGroupID.x * tokens_of_workgroup(); first < head.rows;
         first += gl_NumWorkGroups.x * tokens_of_workgroup()) {
        uint token = first + gl_LocalInvocationID.x / p.lanes;
        backward_of(token, token < head.rows ? p.n_experts : 0);
    }
}
