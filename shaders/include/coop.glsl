// SPDX-License-Identifier: MIT
// What kernels of an expert's matmul by matrices of f16 share: how a step is staged of packed rows
// and of rows of the input, see products.glsl. Included after gemm.glsl.
const bool SCALES_PACKED = WEIGHT_TYPE != WEIGHT_F16, SCALES_ROWS = INPUT_TYPE != TYPE_F16;
#include "products.glsl"

const uint STAGED = PIECE < 16 ? PIECE : 16; // of a packed row an invocation stages at once

// The kernel's: the packed row of a line, of the tile's 64.
uint packed_of(uint line);

void load_weights(uvec2 base, uint row_block, uint k0)
{
    uint parts = DEPTH / STAGED; // of a row in this step
    for (uint i = gl_LocalInvocationID.x; i < MOE_TILE_ROWS * parts; i += MOE_LOCAL_SIZE) {
        uint line = i / parts, k = i % parts * STAGED, at = k0 + k, most = 0;
        uint packed = row_block * MOE_TILE_ROWS + packed_of(line);
        float scale = SCALES_PACKED ? power(exponent[line]) : 1.0;
        weight_piece w = no_weights();
        if (packed < p.packed_rows && at < p.d_in)
            w = load_piece(base, p.window, row_at(p.weight, p.weight_stride, packed), p.d_in,
                           at / PIECE);
        for (uint j = 0; j < STAGED / 4; j++) {
            vec4 v = piece_values(w, at % PIECE / 4 + j);
            uint to = line * STRIDE + k / 2 + 2 * j;
            if (SCALES_PACKED)
                most = max(most, max(max(magnitude(v.x), magnitude(v.y)),
                                     max(magnitude(v.z), magnitude(v.w))));
            staged[to] = f16vec2(v.xy * scale);
            staged[to + 1] = f16vec2(v.zw * scale);
        }
        if (SCALES_PACKED)
            watch(line, most);
    }
}

// Elements at and at + 1 of a row of the tile; `at` is even.
vec2 input_pair(uint row, uint at)
{
    uint word = input_at(source[row] + at / elements_per_word(INPUT_TYPE));
    vec2 v = vec2(element_from(INPUT_TYPE, word, 0), 0.0);
    if (at + 1 < p.d_in)
        v.y = INPUT_TYPE == TYPE_F32 ? uintBitsToFloat(input_at(source[row] + at + 1))
                                     : element_from(INPUT_TYPE, word, 1);
    return v;
}

void load_input(uint n_rows, uint k0)
{
    for (uint i = gl_LocalInvocationID.x; i < WIDTH * PAIRS; i += MOE_LOCAL_SIZE) {
        uint row = i / PAIRS, pair = i % PAIRS, at = k0 + 2 * pair;
        vec2 v = vec2(0);
        if (row < n_rows && at < p.d_in)
            v = input_pair(row, at);
        stage_pair(FIRST_ROW + row, pair, v, SCALES_ROWS);
    }
}
