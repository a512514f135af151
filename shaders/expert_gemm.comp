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
// rows, 4 rows each, times 8 across its TILE rows. Each output is one chain of fma in ascending k,
// so a row's bits do not depend on the tile it is in.
//
// -DMOE_F16: for weights of f16 alone, which wait in shared memory as they are. So does x, rounded
// (INPUT_IS_X = 1). The hidden rows wait as f32, because in real models they pass 65504, the
// largest f16. Every product and sum is f32.
#extension GL_GOOGLE_include_directive : require
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
layout(constant_id = 1) const uint TILE = MOE_TILE_FULL;
layout(constant_id = 2) const uint GATED = 0;
layout(constant_id = 3) const uint LISTED = 1;
layout(constant_id = 4) const uint GATHER = 1;
layout(constant_id = 5) const uint INPUT_TYPE = 0; // of the input, enum vkmoe_dtype
layout(constant_id = 6) const uint INPUT_IS_X = 0;

const uint DEPTH = HAS_CODES ? 32 : 16; // k of one step through shared memory
const uint STAGED = PIECE < 16 ? PIECE : 16; // of them an invocation stages at once
const uint PER_LANE = TILE / 8;              // rows of the tile an invocation computes
const uint MAX_PER_LANE = MOE_TILE_FULL / 8;

#ifdef MOE_F16
shared float16_t tile_w[DEPTH * MOE_TILE_ROWS];
shared float16_t tile_x[DEPTH * MOE_TILE_FULL]; // instead of tile_in
#else
shared float tile_w[DEPTH * MOE_TILE_ROWS]; // (k, packed row)
#endif
shared float tile_in[DEPTH * MOE_TILE_FULL]; // (k, row)
shared uint source[MOE_TILE_FULL];           // word where a row of the input starts
shared float factor[MOE_TILE_FULL];          // of a row, with WEIGHTED

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

void main()
{
    uint lid = gl_LocalInvocationID.x, row_block = p.first_row_block + gl_WorkGroupID.y;
    uint expert = p.expert, first = gl_WorkGroupID.x * TILE, n_rows;
    if (LISTED != 0) {
        uint tile = routing(p.args + 3) + gl_WorkGroupID.x;
        uint at = p.tiles + tile * MOE_TILE_WORDS;
        expert = routing(at);
        first = routing(at + 1);
        n_rows = routing(at + 2);
    } else {
        uint n_tokens = token_count();
        n_rows = first < n_tokens ? min(TILE, n_tokens - first) : 0;
    }
    bool own_rows = p.input_stride != 0; // else those of x
    if (lid < n_rows) {
        uint slot = GATHER != 0 ? routing(p.rows + first + lid) : 0;
        uint row = GATHER != 0 ? slot / p.top_k : first + lid;
        if (WEIGHTED != 0)
            factor[lid] = uintBitsToFloat(routing(p.gates + slot));
        source[lid] =
            own_rows ? row * p.input_stride : (head.first_token + row) * head.x_stride;
    }
    uvec2 base = expert_base(expert);
    bool absent = expert_absent(base);
    barrier();

    // Packed rows of this invocation: a, a + 1, and the two `apart` after them, which are their up
    // half when gated.
    uint cell = lid % 16, lane = lid / 16;
    uint a = GATED != 0 ? cell / 8 * 32 + cell % 8 * 2 : cell * 4;
    uint apart = GATED != 0 ? MOE_PANEL_ROWS : 2;
    vec4 sum[MAX_PER_LANE];
    for (uint r = 0; r < PER_LANE; r++)
        sum[r] = vec4(0);
    for (uint k0 = 0; k0 < p.d_in && !absent && n_rows > 0; k0 += DEPTH) {
        load_weights(base, row_block, k0);
        load_input(n_rows, k0);
        barrier();
        for (uint k = 0; k < DEPTH; k++) {
            uint at = k * MOE_TILE_ROWS + a;
            vec4 w = vec4(staged_weight(at), staged_weight(at + 1), staged_weight(at + apart),
                          staged_weight(at + apart + 1));
            for (uint r = 0; r < PER_LANE; r++)
                sum[r] = fma(vec4(staged_input(k * TILE + lane * PER_LANE + r)), w, sum[r]);
        }
        barrier();
    }

    COUNT_TILE(!absent && n_rows > 0, n_rows, TILE);

    uint packed = row_block * MOE_TILE_ROWS + a;
    vec4 bias = vec4(0);
    for (uint j = 0; j < 4 && !absent; j++) {
        uint row = packed + (j & 1) + (j >> 1) * apart;
        if (row < p.packed_rows)
            bias[j] = row_bias(base, p.window, p.weight, p.weight_stride, row);
    }
    for (uint r = 0; r < PER_LANE; r++) {
        uint row = lane * PER_LANE + r;
        if (row >= n_rows)
            break;
        uint to = (first + row) * p.output_stride;
        vec4 v;
        for (uint j = 0; j < 4; j++)
            v[j] = weighted_sum(sum[r][j], factor[row], bias[j]);
        if (GATED != 0) {
            uint n = row_block * (MOE_TILE_ROWS / 2) + cell * 2;
            for (uint j = 0; j < 2; j++)
                if (n + j < p.n_out)
                    output_at(to + n + j) = floatBitsToUint(
                        absent ? 0.0 : expert_gated(p.act, p.act_alpha, v[j], v[j + 2]));
        } else {
            for (uint j = 0; j < 4; j++)
                if (packed + j < p.n_out)
                    output_at(to + packed + j) =
                        floatBitsToUint(absent ? 0.0 : expert_act(p.act, p.act_alpha, v[j]));
        }
    }
    COUNT_END(n_rows > 0);
}
