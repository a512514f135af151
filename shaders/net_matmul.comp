#version 450
// SPDX-License-Identifier: MIT
// Rows times matrices of groups.
//   out[r, n] = sum_k a[r / div0, k] w[g, n, k] + bias[g, n]    w (G, width, depth)
//   out[r, n] = sum_k a[r / div0, k] w[g, k, n]                 w (G, depth, width), TRANSPOSED = 1
//   a (head.rows / div0, depth)   out (head.rows, width)   g: the row's group
// Operands: a, w, [bias], [starts, members]. Result: out.
// Dispatch: (tiles of rows: at most rows / 32 + G, tiles of 64 columns: end_tile - first_tile, 1),
// or fewer: a workgroup takes every so many tiles.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#define NET_PARAMS net_matmul_params
#include "net.glsl"
#include "net_tiles.glsl"
#include "net_tile_product.glsl"
layout(constant_id = 0) const uint TRANSPOSED = 0;
layout(constant_id = 1) const uint W_TYPE = TYPE_F32;

shared uint source[MOE_NET_TILE_ROWS]; // element where a row of a begins

void load_a(uint k0)
{
    [[unroll]] for (uint j = 0; j < MOE_NET_TILE_ROWS * TILE_DEPTH; j += MOE_LOCAL_SIZE) {
        uint i = gl_LocalInvocationID.x + j;
        uint row = i / TILE_DEPTH, k = i % TILE_DEPTH;
        tile_a[k * TILE_A_STRIDE + row] =
            row < tile_rows && k0 + k < p.depth ? in_at(0, source[row] + k0 + k) : 0.0;
    }
}

float weight_at(uint i)
{
    return element_from(W_TYPE, in_uint(1, i / elements_per_word(W_TYPE)), i);
}

void load_w(uint first_column, uint k0)
{
    uint from = tile_group * p.width * p.depth;
    [[unroll]] for (uint j = 0; j < MOE_NET_TILE_COLUMNS * TILE_DEPTH; j += MOE_LOCAL_SIZE) {
        uint i = gl_LocalInvocationID.x + j;
        uint column = TRANSPOSED != 0 ? i % MOE_NET_TILE_COLUMNS : i / TILE_DEPTH;
        uint k = TRANSPOSED != 0 ? i / MOE_NET_TILE_COLUMNS : i % TILE_DEPTH;
        uint n = first_column + column, depth = k0 + k;
        float v = 0.0;
        if (n < p.width && depth < p.depth)
            v = weight_at(from + (TRANSPOSED != 0 ? depth * p.width + n : n * p.depth + depth));
        tile_b[k * MOE_NET_TILE_COLUMNS + column] = v;
    }
}

void multiply(uint first_column)
{
    vec4 sum[4] = vec4[4](vec4(0), vec4(0), vec4(0), vec4(0));
    for (uint k0 = 0; k0 < p.depth; k0 += TILE_DEPTH) {
        load_a(k0);
        load_w(first_column, k0);
        tile_multiply(sum);
    }
    for (uint r = 0; r < 4; r++) {
        if (cell_row() + r >= tile_rows)
            break;
        uint row = group_member(tile_first + cell_row() + r);
        for (uint j = 0; j < 4; j++) {
            uint n = first_column + cell_column() + j;
            if (n < p.width)
                put(0, row * p.width + n,
                    has_in(2) ? sum[r][j] + in_at(2, tile_group * p.width + n) : sum[r][j]);
        }
    }
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
            multiply(j * MOE_NET_TILE_COLUMNS);
    }
}
