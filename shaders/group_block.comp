#version 450
// SPDX-License-Identifier: MIT
// Grouping, first and last pass, over blocks of MOE_GROUP_BLOCK slots.
//   SCATTER = 0: counts[block, e] = number of the block's slots with ids == e
//   SCATTER = 1: rows[i] = slot, positions[slot] = i, i counting up from counts[block, e]
//   where ids beyond the experts are nobody's, those of unused slots and identity experts, whose
//   positions are MOE_NONE, and SHARED_BY experts in a row count as one
//   ids (n_tokens * top_k) u32   counts (n_blocks, n_experts) u32   rows, positions (slots) u32
// Dispatch: (ceil(slots / MOE_GROUP_BLOCK), 1, 1)
//
// Each expert is served by one invocation, which walks the block's slots in order: stable, and no
// atomics.
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    group_params p;
};
#define ROUTING_ACCESS
#include "buffers.glsl"
#include "counters.glsl"
layout(constant_id = 0) const uint SCATTER = 0;
layout(constant_id = 1) const uint SHARED_BY = 1;

shared uint block_ids[MOE_GROUP_BLOCK];

void main()
{
    uint lid = gl_LocalInvocationID.x, block = gl_WorkGroupID.x;
    uint first = block * MOE_GROUP_BLOCK, slots = token_count() * p.top_k;
    uint n = first < slots ? min(MOE_GROUP_BLOCK, slots - first) : 0;
    for (uint i = lid; i < n; i += MOE_LOCAL_SIZE)
        block_ids[i] = routing(p.ids + first + i) / SHARED_BY;
    barrier();
    COUNT_END(n > 0);
    if (n == 0) // the whole workgroup
        return;

    for (uint e = lid; e < p.n_experts; e += MOE_LOCAL_SIZE) {
        uint at = p.counts + block * p.n_experts + e;
        uint next = SCATTER != 0 ? routing(at) : 0;
        for (uint i = 0; i < n; i++) {
            if (block_ids[i] != e)
                continue;
            if (SCATTER != 0) {
                routing(p.rows + next) = first + i;
                routing(p.positions + first + i) = next;
            }
            next++;
        }
        if (SCATTER == 0)
            routing(at) = next;
    }
    for (uint i = lid; i < n && SCATTER != 0; i += MOE_LOCAL_SIZE)
        if (block_ids[i] >= p.n_experts)
            routing(p.positions + first + i) = MOE_NONE;
}
