#version 450
// SPDX-License-Identifier: MIT
// Words of every token, between a caller's buffer and the workspace.
//   output[(output_first + t) * n + i] = input[(input_first + t) * n + i], t < n_tokens, i < n,
//   where the caller's side begins at head.first_token, the other one at 0
// Dispatch: (ceil(n_tokens * n / MOE_COPY_WORDS), 1, 1)
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    copy_params p;
};
#define INPUT_ACCESS readonly
#define ROUTING_ACCESS readonly
#define OUTPUT_ACCESS writeonly
#include "buffers.glsl"
#include "counters.glsl"

void main()
{
    uint words = token_count() * p.n, first = gl_WorkGroupID.x * MOE_COPY_WORDS;
    uint from = head.first_token * p.input_words, to = head.first_token * p.output_words;
    uint end = min(first + MOE_COPY_WORDS, words);
    for (uint i = first + gl_LocalInvocationID.x; i < end; i += MOE_LOCAL_SIZE)
        output_at(to + i) = input_at(from + i);
    COUNT_END(first < words);
}
