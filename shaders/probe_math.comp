#version 450
// SPDX-License-Identifier: MIT
// Multiply-adds and nothing else: eight chains of vec4, v = v a + b, MOE_PROBE_STEPS steps of each
// times p.n. -DMOE_F16: in f16.
// Result: output (1), written if the sum is what it never is, so that no chain can be left out.
// Dispatch: any
#extension GL_GOOGLE_include_directive : require
#ifdef MOE_F16
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#endif
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    probe_params p;
};
#define OUTPUT_ACCESS writeonly
#define MOE_NO_COUNT
#include "buffers.glsl"

#ifdef MOE_F16
#define VEC4 f16vec4
#else
#define VEC4 vec4
#endif

#define STEP                                                   \
    v0 = fma(v0, a, b), v1 = fma(v1, a, b), v2 = fma(v2, a, b), \
    v3 = fma(v3, a, b), v4 = fma(v4, a, b), v5 = fma(v5, a, b), \
    v6 = fma(v6, a, b), v7 = fma(v7, a, b);

void main()
{
    VEC4 a = VEC4(p.a), b = VEC4(p.b);
    VEC4 v0 = VEC4(float(gl_LocalInvocationID.x) * 0.0078125);
    VEC4 v1 = v0 + b, v2 = v1 + b, v3 = v2 + b, v4 = v3 + b, v5 = v4 + b, v6 = v5 + b, v7 = v6 + b;
    for (uint i = 0; i < p.n; i++) {
        STEP STEP STEP STEP STEP STEP STEP STEP
    }
    VEC4 sum = ((v0 + v1) + (v2 + v3)) + ((v4 + v5) + (v6 + v7));
    vec4 all = vec4(sum);
    if (floatBitsToUint((all.x + all.y) + (all.z + all.w)) == p.never)
        output_at(0) = p.never;
}
