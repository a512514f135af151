#version 450
// SPDX-License-Identifier: MIT
// Where the row of each slot is.
//   PASS 0: positions[slot] = MOE_NONE;  PASS 1: positions[slots[i]] = i, slots[i] below n_slots
//   slots, positions (n_slots) u32
// Dispatch: (ceil(n_slots / MOE_COPY_WORDS), 1, 1)
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    place_params p;
};
#define INPUT_ACCESS readonly
#define ROUTING_ACCESS
#include "buffers.glsl"
#include "counters.glsl"
layout(constant_id = 0) const uint PASS = 0;

void main()
{
    uint n = token_count() * p.top_k, first = gl_WorkGroupID.x * MOE_COPY_WORDS;
    uint end = min(first + MOE_COPY_WORDS, n);
    for (uint i = first + gl_LocalInvocationID.x; i < end; i += MOE_LOCAL_SIZE) {
        uint slot = PASS == 0 ? i : input_at(i);
        if (slot < n)
            routing(p.positions + slot) = PASS == 0 ? MOE_NONE : i;
    }
    COUNT_END(first < n);
}
