#version 450
// SPDX-License-Identifier: MIT
// Rows times matrices of groups, by cooperative matrices, with MOE_FLEXIBLE by those of any size:
// the formula, the operands and the dispatch are those of net_matmul.comp. Operands become f16,
// each row of a and each column of w with a scale of its own.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#extension GL_KHR_cooperative_matrix : require
#ifdef MOE_FLEXIBLE
#extension GL_NV_cooperative_matrix2 : require
#endif
#extension GL_KHR_memory_scope_semantics : require
#extension GL_KHR_shader_subgroup_basic : require
#extension GL_EXT_control_flow_attributes : require
#define NET_PARAMS net_matmul_params
#include "net.glsl"
#include "net_tiles.glsl"
layout(constant_id = 0) const uint TRANSPOSED = 0;
layout(constant_id = 1) const uint W_TYPE = TYPE_F32;
const bool SCALES_PACKED = W_TYPE != TYPE_F16;
#include "net_coop.glsl"

shared uint source[MOE_NET_TILE_ROWS]; // element where a row of a begins

void stage_a(uint k0)
{
    for (uint i = gl_LocalInvocationID.x; i < MOE_NET_TILE_ROWS * PAIRS; i += MOE_LOCAL_SIZE) {
        uint row = i / PAIRS, pair = i % PAIRS, k = k0 + 2 * pair;
        vec2 v = vec2(0);
        if (row < tile_rows && k < p.depth)
            v.x = in_at(0, source[row] + k);
        if (row < tile_rows && k + 1 < p.depth)
            v.y = in_at(0, source[row] + k + 1);
        stage_pair(FIRST_ROW + row, pair, v, SCALES_ROWS);
    }
}

// Element (k, n) of the group's matrix, which begins at `from`.
float weight_at(uint from, uint k, uint n)
{
    uint i = from + (TRANSPOSED != 0 ? k * p.width + n : n * p.depth + k);
    return element_from(W_TYPE, in_uint(1, i / elements_per_word(W_TYPE)), i);
}

void stage_w(uint first_column, uint k0)
{
    uint from = tile_group * p.width * p.depth;
    for (uint i = gl_LocalInvocationID.x; i < MOE_NET_TILE_COLUMNS * PAIRS;
         i += MOE_LOCAL_SIZE) {
        uint column = TRANSPOSED != 0 ? i % MOE_NET_TILE_COLUMNS : i / PAIRS;
        uint pair = TRANSPOSED != 0 ? i / MOE_NET_TILE_COLUMNS : i % PAIRS;
        uint n = first_column + column, k = k0 + 2 * pair;
        vec2 v = vec2(0);
        if (n < p.width && k < p.depth)
            v.x = weight_at(from, k, n);
        if (n < p.width && k + 1 < p.depth)
            v.y = weight_at(from, k + 1, n);
        stage_pair(column, pair, v, SCALES_PACKED);
    }
}

// at: the first column.
void write_sum(uint row, uint column, float sum, uvec2 at)
{
    uint n = at.x + column;
    if (n < p.width)
        put(0, group_member(tile_first + row) * p.width + n,
            has_in(2) ? sum + in_at(2, tile_group * p.width + n) : sum);
}

void multiply_tile(uint first_column)
{
    coop_begin();
    for (uint k0 = 0; k0 < p.depth;) {
        stage_a(k0);
        stage_w(first_column, k0);
        if (multiply_step(tile_rows))
            k0 += DEPTH;
    }
    write_sums(tile_rows, uvec2(first_column, 0));
}

void main()
{
    uint lid = gl_LocalInvocationID.x;
    count_tiles();
    for (uint tile = gl_WorkGroupID.x; tile < n_tiles; tile += gl_NumWorkGroups.x) {
        find_tile(tile);
        if (lid < tile_rows)
            source[lid] = group_member(tile_first + lid) / p.div0 * p.depth;
        barrier();
        for (uint j = p.first_tile + gl_WorkGroupID.y; j < p.end_tile; j += gl_NumWorkGroups.y)
            multiply_tile(j * MOE_NET_TILE_COLUMNS);
    }
}
