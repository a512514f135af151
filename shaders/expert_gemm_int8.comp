#version 450
// SPDX-License-Identifier: MIT
// The matmul of expert_gemm.comp for weights of blocks, by integer products. Same tiles and
// dispatch. The input is what quantise.comp made of its rows. For each part of a block of 32 values
// that has one scale of the weights, with codes c of the weights and q of the input,
//   o[r, n] += (scale[n] sum_k (c[n, k] - offset) q[r, k] - minimum[n] sum_k q[r, k]) scale[r]
// whose sums are exact. Each output is one chain of fma in ascending k, so a row's bits do not
// depend on the tile it is in.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_spirv_intrinsics : require
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
#include "tiles.h"
#include "int8.glsl"

const uint BLOCKS = 2; // of MOE_INT8_VALUES, of one step through shared memory
const uint MAX_PER_LANE = MOE_TILE_FULL / MOE_TILE_LANES;

shared uint codes_w[BLOCKS * CODES * MOE_TILE_ROWS]; // (block, word, packed row)
shared vec2 scale_w[BLOCKS * MOE_TILE_ROWS], minimum_w[BLOCKS * MOE_TILE_ROWS];
shared uint codes_x[BLOCKS * CODES * MOE_TILE_FULL]; // (block, word, row)
shared float scale_x[BLOCKS * MOE_TILE_FULL];
shared uint sums_x[BLOCKS * MOE_TILE_FULL];

void load_weights(uvec2 base, uint row_block, uint first_block)
{
    const uint OF_ROW = BLOCKS * PIECES;
    for (uint i = gl_LocalInvocationID.x; i < MOE_TILE_ROWS * OF_ROW; i += MOE_LOCAL_SIZE) {
        uint row = i / OF_ROW, block = i % OF_ROW / PIECES, piece = i % PIECES;
        uint packed = row_block * MOE_TILE_ROWS + row, at = first_block + block;
        weight_piece w = no_weights();
        if (packed < p.packed_rows && at * MOE_INT8_VALUES < p.d_in)
            w = load_piece(base, p.window, row_at(p.weight, p.weight_stride, packed), p.d_in,
                           at * PIECES + piece);
        for (uint j = 0; j < PIECE_CODES; j++)
            codes_w[(block * CODES + piece * PIECE_CODES + j) * MOE_TILE_ROWS + row] =
                signed_codes(w, j);
        if (piece == 0) {
            scale_w[block * MOE_TILE_ROWS + row] = part_scales(w);
            minimum_w[block * MOE_TILE_ROWS + row] = w.minimum;
        }
    }
}

void load_input(uint n_rows, uint first_block)
{
    const uint OF_ROW = BLOCKS * MOE_INT8_WORDS;
    for (uint i = gl_LocalInvocationID.x; i < TILE * OF_ROW; i += MOE_LOCAL_SIZE) {
        uint row = i / OF_ROW, block = i % OF_ROW / MOE_INT8_WORDS, word = i % MOE_INT8_WORDS;
        uint v = 0, at = first_block + block;
        if (row < n_rows && at * MOE_INT8_VALUES < p.d_in)
            v = input_at(source[row] + at * MOE_INT8_WORDS + word);
        if (word < CODES)
            codes_x[(block * CODES + word) * TILE + row] = v;
        else if (word == CODES)
            scale_x[block * TILE + row] = uintBitsToFloat(v);
        else
            sums_x[block * TILE + row] = v;
    }
}

void add_part(uint block, uint part, uvec4 rows, inout vec4 sum[MAX_PER_LANE])
{
    ivec4 products[MAX_PER_LANE];
    for (uint r = 0; r < PER_LANE; r++)
        products[r] = ivec4(0);
    for (uint j = part * PART_CODES; j < (part + 1) * PART_CODES; j++) {
        uint from = (block * CODES + j) * MOE_TILE_ROWS;
        uvec4 w = uvec4(codes_w[from + rows.x], codes_w[from + rows.y], codes_w[from + rows.z],
                        codes_w[from + rows.w]);
        for (uint r = 0; r < PER_LANE; r++) {
            uint x = codes_x[(block * CODES + j) * TILE + own_row(r)];
            products[r] += ivec4(dot_bytes(w.x, x), dot_bytes(w.y, x), dot_bytes(w.z, x),
                                 dot_bytes(w.w, x));
        }
    }
    uvec4 at = block * MOE_TILE_ROWS + rows;
    vec4 scale = vec4(scale_w[at.x][part], scale_w[at.y][part], scale_w[at.z][part],
                      scale_w[at.w][part]);
    vec4 minimum = vec4(minimum_w[at.x][part], minimum_w[at.y][part], minimum_w[at.z][part],
                        minimum_w[at.w][part]);
    for (uint r = 0; r < PER_LANE; r++) {
        uint row = block * TILE + own_row(r);
        int of_codes = part_sum(sums_x[row], part);
        vec4 less = HAS_MINIMUM ? minimum * -float(of_codes) : vec4(0.0);
        vec4 v = fma(scale, vec4(products[r] - int(OFFSET) * of_codes), less);
        sum[r] = fma(v, vec4(scale_x[row]), sum[r]);
    }
}

void main()
{
    uint row_block = p.first_row_block + gl_WorkGroupID.y;
    gemm_tile tile = find_tile();
    uvec2 base = expert_base(tile.expert);
    bool absent = expert_absent(base), used = !absent && tile.n_rows > 0;
    barrier();

    uvec4 rows = own_rows();
    vec4 sum[MAX_PER_LANE];
    for (uint r = 0; r < PER_LANE; r++)
        sum[r] = vec4(0);
    uint n_blocks = p.d_in / MOE_INT8_VALUES;
    for (uint first = 0; first < n_blocks && used; first += BLOCKS) {
        load_weights(base, row_block, first);
        load_input(tile.n_rows, first);
        barrier();
        for (uint block = 0; block < BLOCKS && own_row(0) < tile.n_rows; block++)
            for (uint part = 0; part < PARTS; part++)
                add_part(block, part, rows, sum);
        barrier();
    }

    COUNT_TILE(used, tile.n_rows, moe_tile_columns(tile.n_rows, TILE));

    vec4 bias = absent ? vec4(0) : own_bias(base, row_block);
    for (uint r = 0; r < PER_LANE && own_row(r) < tile.n_rows; r++)
        write_sums(tile, absent, row_block, own_row(r), factor[own_row(r)], sum[r], bias);
    COUNT_END(tile.n_rows > 0);
}
