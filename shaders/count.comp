#version 450
// SPDX-License-Identifier: MIT
// The token count of a block, from the caller's buffer to where every kernel finds it.
//   n_tokens (1) u32: of all blocks together; more than there is room for counts as that
// Dispatch: (1, 1, 1)
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
};
#define INPUT_ACCESS readonly
#define ROUTING_ACCESS writeonly
#define MOE_NO_COUNT // this is where it comes from
#include "buffers.glsl"

void main()
{
    if (gl_LocalInvocationID.x > 0)
        return;
    uint all = input_at(0);
    uint rest = all > head.block_first ? all - head.block_first : 0;
    routing(MOE_COUNT_WORD) = min(rest, head.n_tokens);
}
