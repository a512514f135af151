#version 450
// SPDX-License-Identifier: MIT
// Expert matmul for a tile of rows of one expert, with row gather and fused activation.
//   o[r, n] = act(sum_k in[r, k] * w[n, k] + b[n])              (GATED = 0)
//   o[r, n] = act(gate[r, n] + bg[n]) * (up[r, n] + bu[n])      (GATED = 1)
//   where clamps and other forms are those of expert_act.glsl
//   in  rows of d_in: x by token (GATHER = 1) or rows in place
//   w   packed rows of the expert's block, see src/vulkan/plan.h
// LISTED = 1: tiles from grouping's list. Dispatch: (n_tiles, row blocks, 1), indirect.
// LISTED = 0: all tokens through p.expert. Dispatch: (ceil(n_tokens / TILE), row blocks, 1).
// A dispatch may have a part of the experts and of the row blocks only.
//
// Neighbouring workgroups (x) share a block of weights. 16 invocations across the tile's 64 packed
// rows, 4 rows each, times 8 across its TILE rows; those without a row have nothing to multiply.
// The wider a tile, the more products an invocation makes of what it reads of shared memory.
// Each output is one chain of fma in ascending k, so a row's bits do not depend on its tile.
//
// -DMOE_F16: for weights of f16 alone, which wait in shared memory as they are. So does x, rounded
// (INPUT_IS_X = 1). The hidden rows wait as f32, because in real models they pass 65504, the
// largest f16. Every product and sum is f32.
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : require
#ifdef MOE_F16
#extension GL_EXT_shader_explicit_arithmetic_types_float16 : require
#endif
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
layout(constant_id = 6) const uint INPUT_IS_X = 0;

const uint DEPTH = HAS_CODES ? MOE_GEMM_DEPTH : 16; // k of one step through shared memory
const uint UNROLLED = TILE > MOE_TILE_FULL ? 4 : DEPTH; // of them, at most
const uint AT_ONCE = TILE > MOE_TILE_FULL ? 4 : 1; // of them, which ask once whether rows lack
const uint STAGED = PIECE < 16 ? PIECE : 16; // of them an invocation stages at once
const uint MAX_PER_LANE = MOE_TILE_WIDE / MOE_TILE_LANES;

#ifdef MOE_F16
shared float16_t tile_w[DEPTH * MOE_TILE_ROWS];
shared float16_t tile_x[DEPTH * TILE]; // instead of tile_in
#else
shared float tile_w[DEPTH * MOE_TILE_ROWS]; // (k, packed row)
#endif
shared float tile_in[DEPTH * TILE]; // (k, row)

// Stores four weights, neighbours in k, the j-th four of a piece, from `to` on.
void stage_weights(weight_piece w, uint j, uint to)
{
#ifdef MOE_F16
    for (uint l = 0; l < 2; l++) {
        f16vec2 pair = unpackFloat2x16(w.low[2 * j + l]);
        tile_w[to + 2 * l * MOE_TILE_ROWS] = pair.x;
        tile_w[to + (2 * l + 1) * MOE_TILE_ROWS] = pair.y;
    }
#else
    vec4 v = piece_values(w, j);
    for (uint l = 0; l < 4; l++)
        tile_w[to + l * MOE_TILE_ROWS] = v[l];
#endif
}

void stage_input(float v, uint to)
{
#ifdef MOE_F16
    if (INPUT_IS_X != 0) {
        tile_x[to] = float16_t(v);
        return;
    }
#endif
    tile_in[to] = v;
}

float staged_input(uint at)
{
#ifdef MOE_F16
    if (INPUT_IS_X != 0)
        return float(tile_x[at]);
#endif
    return tile_in[at];
}

float staged_weight(uint at)
{
    return float(tile_w[at]);
}

void load_weights(uvec2 base, uint row_block, uint k0)
{
    uint parts = DEPTH / STAGED; // of a row in this step
    for (uint i = gl_LocalInvocationID.x; i < MOE_TILE_ROWS * parts; i += MOE_LOCAL_SIZE) {
        uint row = i / parts, k = i % parts * STAGED, at = k0 + k;
        uint packed = row_block * MOE_TILE_ROWS + row;
        weight_piece w = no_weights();
        if (packed < p.packed_rows && at < p.d_in)
            w = load_piece(base, p.window, row_at(p.weight, p.weight_stride, packed), p.d_in,
                           at / PIECE);
        for (uint j = 0; j < STAGED / 4; j++)
            stage_weights(w, at % PIECE / 4 + j, (k + 4 * j) * MOE_TILE_ROWS + row);
    }
}

void load_input(uint n_rows, uint k0)
{
    for (uint i = gl_LocalInvocationID.x; i < TILE * DEPTH; i += MOE_LOCAL_SIZE) {
        uint row = i / DEPTH, k = i % DEPTH;
        uint at = k0 + k;
        float v = 0.0;
        if (row < n_rows && at < p.d_in)
            v = element_from(INPUT_TYPE,
                             input_at(source[row] + at / elements_per_word(INPUT_TYPE)), at);
        stage_input(v, k * TILE + row);
    }
}

// Adds the products of AT_ONCE k, from i on. A wide tile leaves out what its last rows lack.
void add_products(uint i, uvec4 rows, uint n_rows, inout vec4 sum[MAX_PER_LANE])
{
    vec4 w[4];
    for (uint j = 0; j < AT_ONCE; j++) {
        uvec4 at = (i + j) * MOE_TILE_ROWS + rows;
        w[j] = vec4(staged_weight(at.x), staged_weight(at.y), staged_weight(at.z),
                    staged_weight(at.w));
    }
    for (uint first = 0; first < PER_LANE; first += LANE_ROWS) {
        if (first > 0 && own_row(first) >= n_rows)
            continue;
        for (uint j = 0; j < AT_ONCE; j++)
            for (uint r = first; r < first + LANE_ROWS; r++)
                sum[r] = fma(vec4(staged_input((i + j) * TILE + own_row(r))), w[j], sum[r]);
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
    for (uint k0 = 0; k0 < p.d_in && used; k0 += DEPTH) {
        load_weights(base, row_block, k0);
        load_input(tile.n_rows, k0);
        barrier();
        // Unrolled altogether, it is most of what drivers compile.
        [[dont_unroll]] for (uint k = 0; k < DEPTH && own_row(0) < tile.n_rows; k += UNROLLED)
            for (uint i = k; i < k + UNROLLED; i += AT_ONCE)
                add_products(i, rows, tile.n_rows, sum);
        barrier();
    }

    COUNT_TILE(used, tile.n_rows, moe_tile_columns(tile.n_rows, TILE));

    vec4 bias = absent ? vec4(0) : own_bias(base, row_block);
    for (uint r = 0; r < PER_LANE && own_row(r) < tile.n_rows; r++)
        write_sums(tile, absent, row_block, own_row(r), factor[own_row(r)], sum[r], bias);
    COUNT_END(tile.n_rows > 0);
}
