#version 450
// SPDX-License-Identifier: MIT
// Capacity, last pass: a slot of an expert without a position becomes unused; where gate weights
// are normalised over the slots kept, they are here. One invocation for each token.
//   ids (n_tokens, top_k) i32   gates (n_tokens, top_k) f32   positions (n_tokens * top_k)
// Dispatch: (ceil(n_tokens / MOE_LOCAL_SIZE), 1, 1)
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    capacity_params p;
};
#define WEIGHTS_ACCESS readonly
#define ROUTING_ACCESS
#include "buffers.glsl"
#include "counters.glsl"
#include "element.glsl"
#include "act.glsl"
#include "gate_norm.glsl"
layout(constant_id = MOE_SPEC_FLAGS) const uint FLAGS = 0; // MOE_ROUTE_*

float gate_at(uint slot)
{
    return uintBitsToFloat(routing(p.gates + slot));
}

void drop_slots(uint first)
{
    for (uint slot = first; slot < first + p.top_k; slot++)
        if (routing(p.ids + slot) < p.n_experts && routing(p.positions + slot) == MOE_NONE) {
            routing(p.ids + slot) = MOE_NONE;
            routing(p.gates + slot) = 0;
        }
}

float kept_total(uint first)
{
    float largest = 0.0, sum = 0.0;
    for (uint slot = first; slot < first + p.top_k; slot++)
        largest = max(largest, abs(gate_at(slot)));
    float unit = gate_unit(largest);
    for (uint slot = first; slot < first + p.top_k; slot++)
        sum += norm_has_power() ? gate_term(gate_at(slot), unit) : gate_at(slot);
    return norm_has_power() ? gate_total(sum, unit) : sum;
}

void normalise(uint first)
{
    float scale = ROUTED_SCALE / gate_divisor(kept_total(first));
    for (uint slot = first; slot < first + p.top_k; slot++) {
        uint expert = routing(p.ids + slot);
        if (expert == MOE_NONE)
            continue;
        float gate = gate_at(slot) * scale;
        if ((FLAGS & MOE_ROUTE_EXPERT_SCALE) != 0) {
            COUNT_ROUTER(1);
            gate *= uintBitsToFloat(weights(p.expert_scale + (expert >> 2))[expert & 3]);
        }
        routing(p.gates + slot) = floatBitsToUint(gate);
    }
}

void main()
{
    uint token = gl_GlobalInvocationID.x, n_tokens = token_count();
    if (token < n_tokens) {
        drop_slots(token * p.top_k);
        if ((FLAGS & MOE_ROUTE_KEPT) != 0)
            normalise(token * p.top_k);
    }
    COUNT_END(gl_WorkGroupID.x * MOE_LOCAL_SIZE < n_tokens);
}
