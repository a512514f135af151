#version 450
// SPDX-License-Identifier: MIT
// What tells whose the rows in the order of experts are.
//   LIST 0: slots (slots) i32: the slot of a row, -1 behind the last row
//   LIST 1: counts (n_experts): rows of an expert
//   LIST 2: offsets (n_experts + 1): its first row; the number of all rows
// Dispatch: (ceil(slots, n_experts or n_experts + 1 / MOE_COPY_WORDS), 1, 1)
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    gather_params p;
};
#define ROUTING_ACCESS readonly
#define OUTPUT_ACCESS writeonly
#include "buffers.glsl"
#include "counters.glsl"
#include "grouped.glsl"
layout(constant_id = 0) const uint LIST = 0;

uint element(uint i)
{
    if (LIST == MOE_LIST_SLOTS)
        return i < grouped_total() ? routing(p.rows + i) : MOE_NONE;
    uint offset = grouped_offset(i);
    return LIST == MOE_LIST_COUNTS ? grouped_offset(i + 1) - offset : offset;
}

void main()
{
    uint n = LIST == MOE_LIST_SLOTS ? token_count() * p.top_k : p.n_experts;
    n += LIST == MOE_LIST_OFFSETS ? 1 : 0;
    uint first = gl_WorkGroupID.x * MOE_COPY_WORDS, end = min(first + MOE_COPY_WORDS, n);
    for (uint i = first + gl_LocalInvocationID.x; i < end; i += MOE_LOCAL_SIZE)
        output_at(i) = element(i);
    COUNT_END(first < n);
}
