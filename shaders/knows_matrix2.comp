#version 450
// SPDX-License-Identifier: MIT
// Does the shader compiler know matrices of any size, and functions of each element? For
// meson.build; no kernel.
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_NV_cooperative_matrix2 : require
#extension GL_KHR_memory_scope_semantics : require
layout(local_size_x = 32) in;
layout(constant_id = 0) const uint M = 16;
layout(constant_id = 1) const int SCOPE = gl_ScopeWorkgroup;
shared float16_t memory[256];

float16_t twice(const in uint row, const in uint column, const in float16_t v,
                const in float16_t same, const in uint n)
{
    return row + column < n ? v + same : v;
}

void main()
{
    coopmat<float16_t, SCOPE, M, 16, gl_MatrixUseAccumulator> a;
    coopMatLoad(a, memory, 0, 16, gl_CooperativeMatrixLayoutRowMajor);
    coopMatPerElementNV(a, a, twice, a, 9u);
    coopMatStore(a, memory, 0, 16, gl_CooperativeMatrixLayoutRowMajor);
}
