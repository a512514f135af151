#version 450
// SPDX-License-Identifier: MIT
// Rows times matrices of groups: the formula, the operands, the dispatch and the bits are those of
// net_matmul.comp.
//
// For GPUs whose shared memory is no nearer than what their caches hold: no operand is copied
// there. Each invocation loads its 4 columns, which 8 invocations have in common, and its 4 rows,
// which 16 have; both neighbours.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#define NET_PARAMS net_matmul_params
#include "net.glsl"
#include "net_tiles.glsl"
#include "net_direct.glsl"
layout(constant_id = 0) const uint TRANSPOSED = 0;
layout(constant_id = 1) const uint W_TYPE = TYPE_F32;

// Element (k, n) of the tile's matrix, which begins at `from`.
float weight_at(uint from, uint k, uint n)
{
    uint i = from + (TRANSPOSED != 0 ? k * p.width + n : n * p.depth + k);
    return element_from(W_TYPE, in_uint(1, i / elements_per_word(W_TYPE)), i);
}

void multiply(uint first_column)
{
    uint from = tile_group * p.width * p.depth, first = first_column + cell_column();
    uint n_rows = own_of(cell_row(), tile_rows), n_columns = own_of(first, p.width);
    uint row[4], source[4];
    vec4 sum[4] = vec4[4](vec4(0), vec4(0), vec4(0), vec4(0));
    for (uint r = 0; r < n_rows; r++) {
        row[r] = group_member(tile_first + cell_row() + r);
        source[r] = row[r] / p.div0 * p.depth;
    }
    for (uint k0 = 0; k0 < p.depth && n_rows > 0 && n_columns > 0; k0 += STEP)
        [[unroll]] for (uint k = k0; k < k0 + STEP; k++) {
            if (k >= p.depth)
                break;
            vec4 columns = vec4(0);
            [[unroll]] for (uint j = 0; j < 4; j++)
                if (j < n_columns)
                    columns[j] = weight_at(from, k, first + j);
            [[unroll]] for (uint r = 0; r < 4; r++)
                if (r < n_rows)
                    sum[r] = fma(vec4(in_at(0, source[r] + k)), columns, sum[r]);
        }
    for (uint r = 0; r < n_rows; r++)
        for (uint j = 0; j < n_columns; j++)
            put(0, row[r] * p.width + first + j,
                has_in(2) ? sum[r][j] + in_at(2, tile_group * p.width + first + j) : sum[r][j]);
}

void main()
{
    count_tiles();
    for (uint tile = gl_WorkGroupID.x; tile < n_tiles; tile += gl_NumWorkGroups.x) {
        find_tile(tile);
        for (uint j = p.first_tile + gl_WorkGroupID.y; j < p.end_tile; j += gl_NumWorkGroups.y)
            multiply(j * MOE_NET_TILE_COLUMNS);
    }
}
