#version 450
// SPDX-License-Identifier: MIT
// Does the shader compiler know cooperative matrices? For meson.build; no kernel.
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
layout(local_size_x = 32) in;
layout(constant_id = 0) const uint M = 16;
shared float16_t memory[256];

void main()
{
    coopmat<float16_t, gl_ScopeSubgroup, M, 16, gl_MatrixUseA> a;
    coopMatLoad(a, memory, gl_SubgroupID, 16, gl_CooperativeMatrixLayoutRowMajor);
    coopMatStore(a, memory, 0, 16, gl_CooperativeMatrixLayoutRowMajor);
}
