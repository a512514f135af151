#version 450
// SPDX-License-Identifier: MIT
// Rows of x in the order of experts.
//   rows_out[i, :] = x[slot of the i-th row / top_k, :], i below the number of all rows
//   x and rows_out: words, of strides head.x_stride and p.output_stride
// A workgroup has MOE_GATHER_ROWS rows.
// Dispatch: (ceil(words / MOE_LOCAL_SIZE), ceil(slots / MOE_GATHER_ROWS), 1)
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    gather_params p;
};
#define INPUT_ACCESS readonly
#define ROUTING_ACCESS readonly
#define OUTPUT_ACCESS writeonly
#include "buffers.glsl"
#include "counters.glsl"
#include "grouped.glsl"

void main()
{
    uint word = gl_GlobalInvocationID.x, first = gl_WorkGroupID.y * MOE_GATHER_ROWS;
    uint end = min(first + MOE_GATHER_ROWS, grouped_total());
    for (uint i = first; i < end && word < p.words; i++) {
        uint token = routing(p.rows + i) / p.top_k;
        output_at(i * p.output_stride + word) = input_at(token * head.x_stride + word);
    }
    COUNT_END(first < end);
}
