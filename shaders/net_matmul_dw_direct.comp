#version 450
// SPDX-License-Identifier: MIT
// Gradients of matrices of groups: the formula, the operands, the dispatch and the bits are those
// of net_matmul_dw.comp. Nothing is copied to shared memory, as in net_matmul_direct.comp: 4
// columns are common to 8 invocations, 4 rows to 16, and all lie next to each other.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#define NET_PARAMS net_matmul_params
#include "net.glsl"
#include "net_groups.glsl"
#include "net_direct.glsl"

void multiply(uint g, uint first_o, uint first_c)
{
    uint o = first_o + cell_row(), c = first_c + cell_column(), end = group_start(g + 1);
    uint n_o = own_of(o, p.depth), n_c = own_of(c, p.width);
    vec4 sum[4] = vec4[4](vec4(0), vec4(0), vec4(0), vec4(0));
    for (uint i0 = group_start(g); i0 < end && n_o > 0 && n_c > 0; i0 += STEP)
        [[unroll]] for (uint i = i0; i < i0 + STEP; i++) {
            if (i >= end)
                break;
            uint row = group_member(i), dy = row / p.div0 * p.depth + o;
            float s = has_in(2) ? in_at(2, row) : 1.0;
            vec4 columns = vec4(0);
            [[unroll]] for (uint j = 0; j < 4; j++)
                if (j < n_c)
                    columns[j] = in_at(1, row / p.div1 * p.width + c + j);
            [[unroll]] for (uint r = 0; r < 4; r++)
                if (r < n_o)
                    sum[r] = fma(vec4(s * in_at(0, dy + r)), columns, sum[r]);
        }
    for (uint r = 0; r < n_o; r++)
        for (uint j = 0; j < n_c; j++)
            put(0, (g * p.depth + o + r) * p.width + c + j, sum[r][j]);
}

void main()
{
    uint row_tiles = (p.depth + MOE_NET_TILE_ROWS - 1) / MOE_NET_TILE_ROWS;
    uint column_tiles = (p.width + MOE_NET_TILE_COLUMNS - 1) / MOE_NET_TILE_COLUMNS;
    for (uint i = p.first_tile + gl_WorkGroupID.y * p.tile_step; i < p.end_tile;
         i += gl_NumWorkGroups.y * p.tile_step) {
        uint g = min(i / row_tiles, p.n_groups - 1); // see buffers.glsl: the loop's next one
        for (uint j = gl_WorkGroupID.x; j < column_tiles; j += gl_NumWorkGroups.x)
            multiply(g, i % row_tiles * MOE_NET_TILE_ROWS, j * MOE_NET_TILE_COLUMNS);
    }
}
