#version 450
// SPDX-License-Identifier: MIT
// Weighted sum of a token's rows, in ascending k.
//   y[t, n] = routed_scale * sum_k gate[t, k] * rows[position[t, k], n]
//   rows (slots, d_out), of the type of y and of stride p.rows_stride; a slot whose position is
//   MOE_NONE adds nothing. IDENTITY: one whose id is n_experts or more has a row of x instead.
// Dispatch: (ceil(words of a row / MOE_LOCAL_SIZE), ceil(n_tokens / MOE_COMBINE_TOKENS), 1)
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    combine_rows_params p;
};
#define EXTRA_ACCESS readonly
#define INPUT_ACCESS readonly
#define ROUTING_ACCESS readonly
#define OUTPUT_ACCESS writeonly
#include "buffers.glsl"
#include "counters.glsl"
#include "element.glsl"
#include "combine.glsl"
layout(constant_id = 0) const uint TYPE = 0; // enum vkmoe_dtype
layout(constant_id = 1) const uint IDENTITY = 0;

vec2 elements(uint word)
{
    return vec2(element_from(TYPE, word, 0), element_from(TYPE, word, 1));
}

vec2 combined(uint token, uint word)
{
    vec2 y = vec2(0.0);
    for (uint k = 0; k < p.top_k; k++) {
        uint slot = token * p.top_k + k, position = routing(p.positions + slot), row;
        uint id = routing(p.ids + slot); // of -1 this is no expert's either
        if (IDENTITY != 0 && id >= p.n_experts && id < p.n_scored)
            row = extra_at(token * head.x_stride + word);
        else if (position != MOE_NONE)
            row = input_at(position * p.rows_stride + word);
        else
            continue;
        vec2 v = elements(row);
        float gate = uintBitsToFloat(routing(p.gates + slot));
        y = vec2(combine_slot(y.x, gate, v.x), combine_slot(y.y, gate, v.y));
    }
    return vec2(combine_scale(y.x, p.routed_scale), combine_scale(y.y, p.routed_scale));
}

void main()
{
    uint word = gl_GlobalInvocationID.x, first = gl_WorkGroupID.y * MOE_COMBINE_TOKENS;
    uint per_word = elements_per_word(TYPE), end = min(first + MOE_COMBINE_TOKENS, token_count());
    for (uint token = first; token < end && word * per_word < p.d_out; token++) {
        vec2 y = combined(token, word);
        float next = word * per_word + 1 < p.d_out ? y.y : 0.0;
        output_at(token * head.y_stride + word) = element_pack(TYPE, y.x, next);
    }
    COUNT_END(first < end);
}
