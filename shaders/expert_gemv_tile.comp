#version 450
// SPDX-License-Identifier: MIT
// Expert matvec for a tile of few rows of one expert: the formula and the layouts are those of
// expert_gemm.comp, and so are the sums, each one chain of fma in ascending k, so a row's bits do
// not depend on its tile. Dispatch: (n_tiles, pairs of row blocks, 1), indirect.
//
// The work is reading weights. Each invocation streams a packed row, some pieces at once, and
// multiplies what it unpacks with all rows of the tile, whose values wait in shared memory, where
// all invocations read the same ones. So a weight is loaded and unpacked once, sums stay where they
// are, and nothing depends on how invocations make subgroups.
//
// -DMOE_F16: x is rounded as there.
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
#define MOE_MATVEC
#include "buffers.glsl"
#include "counters.glsl"
#include "weight.glsl"
#include "element.glsl"
#include "act.glsl"
#include "expert_act.glsl"
#include "gemm.glsl"
#include "tiles.h"
#include "gemv_tile.glsl"
layout(constant_id = 6) const uint INPUT_IS_X = 0;

const uint DEPTH = 128; // k of one step through shared memory
const uint QUADS = DEPTH / 4;
const uint BURST = HAS_CODES ? 2 : 4; // pieces that are loaded at once

shared vec4 tile_in[QUADS * TILE]; // (row, four k)

// By integers: to f16 and back at once is what a compiler may leave out, and Mesa 26 does.
float rounded(float v)
{
#ifdef MOE_F16
    if (INPUT_IS_X != 0 && INPUT_TYPE != TYPE_F16)
        return f16_value(f16_bits(v));
#endif
    return v;
}

// The tile's rows, and one of zeros if it multiplies one more.
void load_input(uint n_rows, uint k0)
{
    uint n = moe_matvec_columns(n_rows) * QUADS;
    for (uint i = gl_LocalInvocationID.x; i < n; i += MOE_LOCAL_SIZE) {
        uint row = i / QUADS;
        vec4 v = vec4(0);
        for (uint l = 0; l < 4; l++) {
            uint at = k0 + i % QUADS * 4 + l;
            if (row < n_rows && at < p.d_in)
                v[l] = rounded(element_from(
                    INPUT_TYPE, input_at(source[row] + at / elements_per_word(INPUT_TYPE)), at));
        }
        tile_in[i] = v;
    }
}

vec4 weight_values(weight_piece w, uint i)
{
#ifdef MOE_F16
    return vec4(unpackFloat2x16(w.low[2 * i]), unpackFloat2x16(w.low[2 * i + 1]));
#else
    return piece_values(w, i);
#endif
}

// A piece whose first k is the 4 * `quad`-th of the step.
void add_piece(weight_piece w, uint quad, uint n_rows, inout float sum[MOE_TILE_SMALL])
{
    vec4 v[8];
    for (uint i = 0; i < PIECE / 4; i++)
        v[i] = weight_values(w, i);
    for (uint first = 0; first < TILE; first += 2) {
        if (first >= n_rows)
            break;
        for (uint row = first; row < first + 2; row++)
            for (uint i = 0; i < PIECE / 4; i++) {
                vec4 x = tile_in[row * QUADS + quad + i];
                for (uint l = 0; l < 4; l++)
                    sum[row] = fma(x[l], v[i][l], sum[row]);
            }
    }
}

void main()
{
    gemm_tile tile = find_tile();
    uvec2 base = expert_base(tile.expert);
    bool absent = expert_absent(base), used = !absent && tile.n_rows > 0;
    uint packed = own_packed_row();
    bool live = used && packed < p.packed_rows;
    uint row_start = row_at(p.weight, p.weight_stride, packed);
    barrier();

    float sum[MOE_TILE_SMALL];
    for (uint row = 0; row < TILE; row++)
        sum[row] = 0.0;
    for (uint k0 = 0; k0 < p.d_in && used; k0 += DEPTH) {
        load_input(tile.n_rows, k0);
        barrier();
        for (uint i = 0; i < DEPTH / PIECE && live; i += BURST) {
            weight_piece w[4];
            for (uint j = 0; j < BURST; j++) {
                uint at = k0 / PIECE + i + j;
                w[j] = no_weights();
                if (at * PIECE < p.d_in)
                    w[j] = load_piece(base, p.window, row_start, p.d_in, at);
            }
            for (uint j = 0; j < BURST; j++)
                add_piece(w[j], (i + j) * PIECE / 4, tile.n_rows, sum);
        }
        barrier();
    }

    COUNT_TILE(used, tile.n_rows * own_row_blocks(),
               moe_matvec_columns(tile.n_rows) * own_row_blocks());
    write_rows(tile, base, absent, live, sum);
    COUNT_END(tile.n_rows > 0);
}
