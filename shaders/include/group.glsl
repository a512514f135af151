// SPDX-License-Identifier: MIT
// What the passes of grouping share: a workgroup walks its block of slots in order, and each expert
// is served by one invocation, so it is stable and without atomics. Ids beyond the experts, those
// of unused slots and identity experts, are nobody's. SHARED_BY experts in a row count as one.
// Included after buffers.glsl; the kernel's parameters are group_params p.
layout(constant_id = 1) const uint SHARED_BY = 1;

const uint STEP = 256; // slots that wait in shared memory

shared uint step_ids[STEP];
shared uint next[MOE_GROUP_EXPERTS]; // what an expert has counted, or its next position

uint block_first()
{
    return gl_WorkGroupID.x * p.block_slots;
}

uint block_end()
{
    return min(block_first() + p.block_slots, token_count() * p.top_k);
}

void load_step(uint first, uint n)
{
    for (uint i = gl_LocalInvocationID.x; i < n; i += MOE_LOCAL_SIZE)
        step_ids[i] = routing(p.ids + first + i) / SHARED_BY;
    barrier();
}

// Where the numbers of a block's slots by expert stand: behind the first positions.
uint block_counts(uint block)
{
    return p.offsets + (1 + block) * p.n_experts + 1;
}
