#version 450
// SPDX-License-Identifier: MIT
// Multiply-adds and nothing else: eight chains of vec4, v = v a + b, MOE_PROBE_STEPS steps of each
// times p.n. -DMOE_F16: in f16. -DMOE_INT8: eight chains of i32, v = v + the sum of the products of
// their bytes and those of a.
// Result: output (1), written if the sum is what it never is, so that no chain can be left out.
// Dispatch: any
#extension GL_GOOGLE_include_directive : require
#ifdef MOE_F16
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#endif
#ifdef MOE_INT8
#extension GL_EXT_spirv_intrinsics : require
#endif
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    probe_params p;
};
#define OUTPUT_ACCESS writeonly
#define MOE_NO_COUNT
#include "buffers.glsl"

#if defined(MOE_INT8)
#include "dot.glsl"
#define VALUE int
#define FACTOR(v) int(floatBitsToUint(v))
#define NEXT(v) v + dot_bytes(uint(v), uint(a))
#elif defined(MOE_F16)
#define VALUE f16vec4
#define FACTOR(v) f16vec4(v)
#define NEXT(v) fma(v, a, b)
#else
#define VALUE vec4
#define FACTOR(v) vec4(v)
#define NEXT(v) fma(v, a, b)
#endif

#define STEP                                          \
    v0 = NEXT(v0), v1 = NEXT(v1), v2 = NEXT(v2), v3 = NEXT(v3), \
    v4 = NEXT(v4), v5 = NEXT(v5), v6 = NEXT(v6), v7 = NEXT(v7);

void main()
{
    VALUE a = FACTOR(p.a), b = FACTOR(p.b);
    VALUE v0 = VALUE(float(gl_LocalInvocationID.x) * 0.0078125);
    VALUE v1 = v0 + b, v2 = v1 + b, v3 = v2 + b, v4 = v3 + b, v5 = v4 + b, v6 = v5 + b, v7 = v6 + b;
    for (uint i = 0; i < p.n; i++) {
        STEP STEP STEP STEP STEP STEP STEP STEP
    }
    VALUE sum = ((v0 + v1) + (v2 + v3)) + ((v4 + v5) + (v6 + v7));
    vec4 all = vec4(sum);
    if (floatBitsToUint((all.x + all.y) + (all.z + all.w)) == p.never)
        output_at(0) = p.never;
}
