#version 450
// SPDX-License-Identifier: MIT
// Expert matmul for a tile of rows of one expert: the formula, the layouts and the dispatch are
// those of expert_gemm.comp, and so are the sums, each one chain of fma in ascending k.
//
// For GPUs whose shared memory is no nearer than what their caches hold: none is used, and nothing
// waits at a barrier. Each invocation loads the pieces of its 4 packed rows, which 8 invocations
// have in common, and the values of its rows of the input, which 16 have; both neighbours. A piece
// is used for all of its TILE / 8 rows.
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
#define MOE_NO_SHARED
#include "buffers.glsl"
#include "counters.glsl"
#include "weight.glsl"
#include "element.glsl"
#include "act.glsl"
#include "expert_act.glsl"
#include "gemm.glsl"
#include "tiles.h"

const uint MAX_PER_LANE = MOE_TILE_FULL / MOE_TILE_LANES;

// Four neighbours in k, zeros behind the row's end.
vec4 input_values(uint source, uint k)
{
    vec4 v = vec4(0);
    for (uint l = 0; l < 4; l++)
        if (k + l < p.d_in)
            v[l] = element_from(INPUT_TYPE,
                                input_at(source + (k + l) / elements_per_word(INPUT_TYPE)), k + l);
    return v;
}

void main()
{
    uint row_block = p.first_row_block + gl_WorkGroupID.y;
    gemm_tile tile = own_tile();
    uvec2 base = expert_base(tile.expert);
    bool absent = expert_absent(base), used = !absent && tile.n_rows > 0;

    uvec4 packed = row_block * MOE_TILE_ROWS + own_rows();
    uint n_own = own_row(0) < tile.n_rows ? min(PER_LANE, tile.n_rows - own_row(0)) : 0;
    gemm_row rows[MAX_PER_LANE];
    vec4 sum[MAX_PER_LANE];
    for (uint r = 0; r < PER_LANE; r++) {
        sum[r] = vec4(0);
        if (r < n_own)
            rows[r] = tile_row(tile, own_row(r));
    }
    for (uint k0 = 0; k0 < p.d_in && used && n_own > 0; k0 += PIECE) {
        weight_piece w[4];
        for (uint j = 0; j < 4; j++) {
            w[j] = no_weights();
            if (packed[j] < p.packed_rows)
                w[j] = load_piece(base, p.window, row_at(p.weight, p.weight_stride, packed[j]),
                                  p.d_in, k0 / PIECE);
        }
        for (uint i = 0; i < PIECE / 4; i++) {
            mat4 at_k = transpose(mat4(piece_values(w[0], i), piece_values(w[1], i),
                                       piece_values(w[2], i), piece_values(w[3], i)));
            for (uint r = 0; r < n_own; r++) {
                vec4 v = input_values(rows[r].source, k0 + 4 * i);
                for (uint l = 0; l < 4; l++)
                    sum[r] = fma(vec4(v[l]), at_k[l], sum[r]);
            }
        }
    }

    COUNT_TILE(used, tile.n_rows, moe_tile_columns(tile.n_rows, TILE));

    vec4 bias = absent ? vec4(0) : own_bias(base, row_block);
    for (uint r = 0; r < n_own; r++)
        write_sums(tile, absent, row_block, own_row(r), rows[r].factor, sum[r], bias);
    COUNT_END(tile.n_rows > 0);
}
