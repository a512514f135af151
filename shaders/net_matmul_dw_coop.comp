#version 450
// SPDX-License-Identifier: MIT
// Gradients of matrices of groups, by cooperative matrices, with MOE_FLEXIBLE by those of any size:
// the formula, the operands and the dispatch are those of net_matmul_dw.comp. Operands become f16,
// each column of s dy and of a with a scale of its own in a group.
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
#include "net_groups.glsl"
const bool SCALES_PACKED = true;
#include "net_coop.glsl"

float dy_at(uint i, uint o)
{
    uint row = group_member(i);
    float v = in_at(0, row / p.div0 * p.depth + o);
    return has_in(2) ? in_at(2, row) * v : v;
}

float a_at(uint i, uint c)
{
    return in_at(1, group_member(i) / p.div1 * p.width + c);
}

// Rows i .. i + DEPTH - 1 of the group's, up to `end`.
void stage(uint i, uint end, uint first_o, uint first_c)
{
    uint lid = gl_LocalInvocationID.x;
    for (uint j = lid; j < MOE_NET_TILE_ROWS * PAIRS; j += MOE_LOCAL_SIZE) {
        uint pair = j / MOE_NET_TILE_ROWS, row = j % MOE_NET_TILE_ROWS, o = first_o + row;
        uint k = i + 2 * pair;
        vec2 v = vec2(0);
        if (o < p.depth && k < end)
            v.x = dy_at(k, o);
        if (o < p.depth && k + 1 < end)
            v.y = dy_at(k + 1, o);
        stage_pair(FIRST_ROW + row, pair, v, SCALES_ROWS);
    }
    for (uint j = lid; j < MOE_NET_TILE_COLUMNS * PAIRS; j += MOE_LOCAL_SIZE) {
        uint pair = j / MOE_NET_TILE_COLUMNS, column = j % MOE_NET_TILE_COLUMNS;
        uint c = first_c + column, k = i + 2 * pair;
        vec2 v = vec2(0);
        if (c < p.width && k < end)
            v.x = a_at(k, c);
        if (c < p.width && k + 1 < end)
            v.y = a_at(k + 1, c);
        stage_pair(column, pair, v, SCALES_PACKED);
    }
}

// at: the result's row that is the tile's first one, of all groups, and the first column.
void write_sum(uint row, uint column, float sum, uvec2 at)
{
    uint c = at.y + column;
    if (c < p.width)
        put(0, (at.x + row) * p.width + c, sum);
}

void multiply_tile(uint g, uint first_o, uint first_c)
{
    uint end = group_start(g + 1), n_rows = min(MOE_NET_TILE_ROWS, p.depth - first_o);
    coop_begin();
    for (uint i = group_start(g); i < end;) {
        stage(i, end, first_o, first_c);
        if (multiply_step(n_rows))
            i += DEPTH;
    }
    write_sums(n_rows, uvec2(g * p.depth + first_o, first_c));
}

void main()
{
    uint row_tiles = (p.depth + MOE_NET_TILE_ROWS - 1) / MOE_NET_TILE_ROWS;
    uint column_tiles = (p.width + MOE_NET_TILE_COLUMNS - 1) / MOE_NET_TILE_COLUMNS;
    for (uint i = p.first_tile + gl_WorkGroupID.y * p.tile_step; i < p.end_tile;
         i += gl_NumWorkGroups.y * p.tile_step) {
        uint g = min(i / row_tiles, p.n_groups - 1); // see buffers.glsl: the loop's next one
        for (uint j = gl_WorkGroupID.x; j < column_tiles; j += gl_NumWorkGroups.x)
            multiply_tile(g, i % row_tiles * MOE_NET_TILE_ROWS, j * MOE_NET_TILE_COLUMNS);
    }
}
