#version 450
// SPDX-License-Identifier: MIT
// Gradients of matrices of groups: sums over the rows of a group, ascending.
//   dw[g, o, c] = sum_{r in g} s[r] dy[r / div0, o] a[r / div1, c]
//   dy (rows / div0, depth)   a (rows / div1, width)   dw (G, depth, width)
// Operands: dy, a, [s], [starts, members]. Result: dw.
// Tiles: of G * ceil(depth / 32) those from first_tile to end_tile - 1 in steps of tile_step.
// Dispatch: (ceil(width / 64), tiles, 1), or fewer: a workgroup takes every so many.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#define NET_PARAMS net_matmul_params
#include "net.glsl"
#include "net_groups.glsl"
#include "net_tile_product.glsl"

// Rows i .. i + TILE_DEPTH - 1 of the group's, up to `end`.
void load(uint i, uint end, uint first_o, uint first_c)
{
    uint lid = gl_LocalInvocationID.x;
    [[unroll]] for (uint n = 0; n < MOE_NET_TILE_ROWS * TILE_DEPTH; n += MOE_LOCAL_SIZE) {
        uint j = lid + n, k = j / MOE_NET_TILE_ROWS, o = j % MOE_NET_TILE_ROWS;
        float v = 0.0;
        if (i + k < end && first_o + o < p.depth) {
            uint row = group_member(i + k);
            v = in_at(0, row / p.div0 * p.depth + first_o + o);
            v = has_in(2) ? in_at(2, row) * v : v;
        }
        tile_a[k * TILE_A_STRIDE + o] = v;
    }
    [[unroll]] for (uint n = 0; n < MOE_NET_TILE_COLUMNS * TILE_DEPTH; n += MOE_LOCAL_SIZE) {
        uint j = lid + n, k = j / MOE_NET_TILE_COLUMNS, c = j % MOE_NET_TILE_COLUMNS;
        float v = 0.0;
        if (i + k < end && first_c + c < p.width)
            v = in_at(1, group_member(i + k) / p.div1 * p.width + first_c + c);
        tile_b[k * MOE_NET_TILE_COLUMNS + c] = v;
    }
}

void multiply(uint g, uint first_o, uint first_c)
{
    vec4 sum[4] = vec4[4](vec4(0), vec4(0), vec4(0), vec4(0));
    uint end = group_start(g + 1);
    for (uint i = group_start(g); i < end; i += TILE_DEPTH) {
        load(i, end, first_o, first_c);
        tile_multiply(sum);
    }
    for (uint r = 0; r < 4; r++) {
        uint o = first_o + cell_row() + r;
        for (uint j = 0; j < 4; j++) {
            uint c = first_c + cell_column() + j;
            if (o < p.depth && c < p.width)
                put(0, (g * p.depth + o) * p.width + c, sum[r][j]);
        }
    }
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
