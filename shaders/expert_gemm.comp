#version 450
// SPDX-License-Identifier: MIT
// Expert matmul for a tile of rows of one expert, with row gather and fused activation.
//   o[r, n] = act(sum_k in[r, k] * w[n, k] + b[n])              (GATED = 0)
//   o[r, n] = act(gate[r, n] + bg[n]) * (up[r, n] + bu[n])      (GATED = 1)
//   in  rows of d_in: x by token (GATHER = 1) or rows in place
//   w   packed rows of the expert's block, see src/vulkan/plan.h
// LISTED = 1: tiles from grouping's list. Dispatch: (n_tiles, row blocks, 1), indirect.
// LISTED = 0: all tokens through p.expert. Dispatch: (ceil(n_tokens / TILE), row blocks, 1).
// A dispatch may have a part of the experts and of the row blocks only.
//
// Neighbouring workgroups (x) share a block of weights. 16 invocations across the tile's 64 packed
// rows, 4 rows each, times 8 across its TILE rows. Each output is one chain of fma in ascending k,
// so a row's bits do not depend on the tile it is in.
#extension GL_GOOGLE_include_directive : require
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
#include "weight.glsl"
#include "element.glsl"
#include "act.glsl"
layout(constant_id = 1) const uint TILE = MOE_TILE_FULL;
layout(constant_id = 2) const uint GATED = 0;
layout(constant_id = 3) const uint LISTED = 1;
layout(constant_id = 4) const uint GATHER = 1;
layout(constant_id = 5) const uint INPUT_TYPE = 0; // of the input, enum vkmoe_dtype

const uint DEPTH = 16;               // k of one step through shared memory
const uint PER_LANE = TILE / 8;      // rows of the tile an invocation computes
const uint MAX_PER_LANE = MOE_TILE_FULL / 8;

shared float tile_w[DEPTH * MOE_TILE_ROWS]; // (k, packed row)
shared float tile_in[DEPTH * MOE_TILE_FULL]; // (k, row)
shared uint source[MOE_TILE_FULL];           // word where a row of the input starts

void load_weights(uvec2 base, uint row_block, uint k0)
{
    uint vecs = DEPTH / WEIGHTS_PER_VEC; // a row's uvec4 in this step
    for (uint i = gl_LocalInvocationID.x; i < MOE_TILE_ROWS * vecs; i += MOE_LOCAL_SIZE) {
        uint row = i / vecs, vec = i % vecs;
        uint packed = row_block * MOE_TILE_ROWS + row;
        uint at = k0 / WEIGHTS_PER_VEC + vec;
        vec4 lo = vec4(0), hi = vec4(0);
        if (packed < p.packed_rows && at < p.weight_stride)
            weight_unpack(expert_load(base, p.window,
                                      row_at(p.weight, p.weight_stride, packed) + at),
                          lo, hi);
        uint to = vec * WEIGHTS_PER_VEC * MOE_TILE_ROWS + row;
        for (uint j = 0; j < 4; j++)
            tile_w[to + j * MOE_TILE_ROWS] = lo[j];
        if (WEIGHTS_PER_VEC == 8)
            for (uint j = 0; j < 4; j++)
                tile_w[to + (4 + j) * MOE_TILE_ROWS] = hi[j];
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
        tile_in[k * TILE + row] = v;
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
        uint row = GATHER != 0 ? routing(p.rows + first + lid) / p.top_k : first + lid;
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
    for (uint k0 = 0; k0 < p.d_in && !absent; k0 += DEPTH) {
        load_weights(base, row_block, k0);
        load_input(n_rows, k0);
        barrier();
        for (uint k = 0; k < DEPTH; k++) {
            uint at = k * MOE_TILE_ROWS + a;
            vec4 w = vec4(tile_w[at], tile_w[at + 1], tile_w[at + apart], tile_w[at + apart + 1]);
            for (uint r = 0; r < PER_LANE; r++)
                sum[r] = fma(vec4(tile_in[k * TILE + lane * PER_LANE + r]), w, sum[r]);
        }
        barrier();
    }

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
        vec4 v = sum[r] + bias;
        if (GATED != 0) {
            uint n = row_block * (MOE_TILE_ROWS / 2) + cell * 2;
            for (uint j = 0; j < 2; j++)
                if (n + j < p.n_out)
                    output_at(to + n + j) = floatBitsToUint(
                        absent ? 0.0 : activate(p.act, p.act_alpha, v[j]) * v[j + 2]);
        } else {
            for (uint j = 0; j < 4; j++)
                if (packed + j < p.n_out)
                    output_at(to + packed + j) =
                        floatBitsToUint(absent ? 0.0 : activate(p.act, p.act_alpha, v[j]));
        }
    }
}
