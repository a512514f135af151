#version 450
// SPDX-License-Identifier: MIT
// Grouping, first pass, over blocks of p.block_slots slots:
//   counts[block, e] = number of the block's slots with ids == e
//   ids (n_tokens * top_k) u32   counts (n_blocks, n_experts) u32
// Dispatch: (ceil(slots / block_slots), 1, 1)
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    group_params p;
};
#define ROUTING_ACCESS
#include "buffers.glsl"
#include "counters.glsl"
#include "group.glsl"

void main()
{
    uint lid = gl_LocalInvocationID.x, end = block_end();
    for (uint e = lid; e < p.n_experts; e += MOE_LOCAL_SIZE)
        next[e] = 0;
    for (uint first = block_first(); first < end; first += STEP) {
        uint n = min(STEP, end - first);
        load_step(first, n);
        for (uint e = lid; e < p.n_experts; e += MOE_LOCAL_SIZE) {
            uint count = next[e];
            for (uint i = 0; i < n; i++)
                count += step_ids[i] == e ? 1 : 0;
            next[e] = count;
        }
        barrier();
    }
    bool busy = block_first() < end;
    for (uint e = lid; e < p.n_experts && busy; e += MOE_LOCAL_SIZE)
        routing(block_counts(gl_WorkGroupID.x) + e) = next[e];
    COUNT_END(busy);
}
