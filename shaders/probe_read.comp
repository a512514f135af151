#version 450
// SPDX-License-Identifier: MIT
// Reads memory in order, as often as there are passes: a workgroup sums MOE_PROBE_CHUNK uvec4.
//   weights (chunks of MOE_PROBE_CHUNK) uvec4
// Result: output (1), written if a sum is what it never is, so that no load can be left out.
// Dispatch: (chunks, passes, 1)
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    probe_params p;
};
#define WEIGHTS_ACCESS readonly
#define OUTPUT_ACCESS writeonly
#define MOE_NO_COUNT
#include "buffers.glsl"

void main()
{
    uint at = gl_WorkGroupID.x * MOE_PROBE_CHUNK + gl_LocalInvocationID.x;
    uint end = (gl_WorkGroupID.x + 1) * MOE_PROBE_CHUNK;
    uvec4 sum = uvec4(0);
    for (; at < end; at += 4 * MOE_LOCAL_SIZE) { // four loads in flight
        uvec4 a = weights(at);
        uvec4 b = weights(at + MOE_LOCAL_SIZE);
        uvec4 c = weights(at + 2 * MOE_LOCAL_SIZE);
        uvec4 d = weights(at + 3 * MOE_LOCAL_SIZE);
        sum += (a + b) + (c + d);
    }
    uint all = (sum.x + sum.y) + (sum.z + sum.w);
    if (all == p.never)
        output_at(0) = all;
}
