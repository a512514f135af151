#version 450
// SPDX-License-Identifier: MIT
// The matmul of expert_gemm.comp by cooperative matrices of f16 with sums in f32. Same formula,
// tiles and dispatch.
//
// A step of DEPTH values of k stages the tile's 64 packed rows and its rows of the input as f16, k
// along memory. A matrix of M x K takes one side, one of K x N the other one. Each subgroup adds up
// its own fragments of the result, which it reaches by loading and storing alone, so nothing
// depends on where a driver keeps an element.
// See coop.glsl for what is staged.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_cooperative_matrix : require
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_EXT_control_flow_attributes : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    gemm_params p;
};
#define WEIGHTS_ACCESS readonly
#define INPUT_ACCESS readonly
#define ROUTING_ACCESS readonly
#define OUTPUT_ACCESS writeonly
#include "buffers.glsl"
#include "counters.glsl"
#include "weight.glsl"
#include "element.glsl"
#include "act.glsl"
#include "expert_act.glsl"
#include "gemm.glsl"
layout(constant_id = MOE_SPEC_M) const uint M = 16;
layout(constant_id = MOE_SPEC_N) const uint N = 16;
layout(constant_id = MOE_SPEC_K) const uint K = 16;
#include "fragments.glsl"

uint packed_of(uint line)
{
    return line;
}
#include "coop.glsl"

const uint A_LINE = PACKED_IS_M ? 0 : MOE_TILE_ROWS, B_LINE = PACKED_IS_M ? MOE_TILE_ROWS : 0;

#define A_MATRIX coopmat<float16_t, gl_ScopeSubgroup, M, K, gl_MatrixUseA>
#define B_MATRIX coopmat<float16_t, gl_ScopeSubgroup, K, N, gl_MatrixUseB>

// ---- fragments ---------------------------------------------------------------------------------

// Has a fragment a row that is multiplied? The numbers are those along A and B.
bool is_live(uint a, uint b, uint n_rows)
{
    return (PACKED_IS_M ? b : a) * ROWS < n_rows;
}

void multiply(uint n_rows)
{
    uvec2 first = PACKED_IS_M ? first_fragments().xy : first_fragments().yx;
    // Unrolled, it is most of the kernel, and compilers that emulate matrices take seconds for it.
    [[dont_unroll]] for (uint k = 0; k < DEPTH; k += K) {
        B_MATRIX b[B_OWN];
        for (uint j = 0; j < B_OWN; j++)
            coopMatLoad(b[j], staged, (B_LINE + (first.y + j) * N) * STRIDE + k / 2, STRIDE,
                        gl_CooperativeMatrixLayoutColumnMajor);
        for (uint i = 0; i < A_OWN; i++) {
            A_MATRIX a;
            coopMatLoad(a, staged, (A_LINE + (first.x + i) * M) * STRIDE + k / 2, STRIDE,
                        gl_CooperativeMatrixLayoutRowMajor);
            for (uint j = 0; j < B_OWN; j++)
                if (is_live(first.x + i, first.y + j, n_rows))
                    acc[i * B_OWN + j] = coopMatMulAdd(a, b[j], acc[i * B_OWN + j]);
        }
    }
}

void load_sums()
{
    barrier();
    if (has_fragments())
        for (uint i = 0; i < A_OWN; i++)
            for (uint j = 0; j < B_OWN; j++)
                coopMatLoad(acc[i * B_OWN + j], sums, sums_at(i, j), SUMS_STRIDE,
                            int(SUMS_LAYOUT));
}

// ---- exponents ---------------------------------------------------------------------------------

void rescale()
{
    store_sums();
    grow_exponents();
    for (uint i = gl_LocalInvocationID.x; i < WIDTH * MOE_TILE_ROWS; i += MOE_LOCAL_SIZE) {
        uint row = i / MOE_TILE_ROWS, packed = i % MOE_TILE_ROWS, at = row * SUMS_STRIDE + packed;
        sums[at] = grown(sums[at], packed, row);
    }
    load_sums();
}

// Sums of an invocation's packed rows in a row of the tile.
vec4 own_sums(uint row)
{
    vec4 v;
    for (uint j = 0; j < 4; j++)
        v[j] = unscaled(sums[row * SUMS_STRIDE + own_rows()[j]], own_rows()[j], row);
    return v;
}

void main()
{
    uint row_block = p.first_row_block + gl_WorkGroupID.y;
    gemm_tile tile = find_tile();
    uvec2 base = expert_base(tile.expert);
    bool absent = expert_absent(base), used = !absent && tile.n_rows > 0;
    reset_exponents();
    for (uint i = 0; i < A_OWN * B_OWN; i++)
        acc[i] = SUM_MATRIX(0.0);
    barrier();

    for (uint k0 = 0; k0 < p.d_in && used;) {
        load_weights(base, row_block, k0);
        load_input(tile.n_rows, k0);
        barrier();
        if (has_passed()) {
            rescale(); // and once more
        } else {
            if (has_fragments())
                multiply(tile.n_rows);
            k0 += DEPTH;
        }
        barrier();
    }
    store_sums();

    COUNT_TILE(used, tile.n_rows, (tile.n_rows + ROWS - 1) / ROWS * ROWS);

    vec4 bias = absent ? vec4(0) : own_bias(base, row_block);
    for (uint r = 0; r < PER_LANE && own_row(r) < tile.n_rows; r++)
        write_sums(tile, absent, row_block, own_row(r), factor[own_row(r)], own_sums(own_row(r)),
                   bias);
    COUNT_END(tile.n_rows > 0);
}
