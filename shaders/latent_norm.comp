#version 450
// SPDX-License-Identifier: MIT
// The root mean square norm of the combined latent, in place.
//   r[t, k] = r[t, k] / sqrt(sum_k r[t, k]^2 / width + eps) * scale[k]
//   r (n_tokens, width) f32   scale (width) f32
// Dispatch: (1, n_tokens, 1)
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    norm_params p;
};
#define EXTRA_ACCESS readonly
#define ROUTING_ACCESS readonly
#define OUTPUT_ACCESS
#include "buffers.glsl"
#include "counters.glsl"

shared float sums[MOE_LOCAL_SIZE];

void main()
{
    uint lid = gl_LocalInvocationID.x, token = gl_WorkGroupID.y, row = token * p.width;
    if (token >= token_count()) { // the whole workgroup
        COUNT_END(false);
        return;
    }
    float sum = 0.0;
    for (uint k = lid; k < p.width; k += MOE_LOCAL_SIZE) {
        float r = uintBitsToFloat(output_at(row + k));
        sum = fma(r, r, sum);
    }
    sums[lid] = sum;
    barrier();
    float total = 0.0; // of the lanes, in their order
    for (uint i = 0; i < MOE_LOCAL_SIZE; i++)
        total += sums[i];
    float factor = 1.0 / sqrt(total / float(p.width) + p.eps);
    for (uint k = lid; k < p.width; k += MOE_LOCAL_SIZE)
        output_at(row + k) = floatBitsToUint(uintBitsToFloat(output_at(row + k)) * factor *
                                             uintBitsToFloat(extra_at(p.scale + k)));
    COUNT_END(true);
}
