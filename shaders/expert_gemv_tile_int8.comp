#version 450
// SPDX-License-Identifier: MIT
// The matvec of expert_gemv_tile.comp by integer products: the formula and the input are those of
// expert_gemm_int8.comp, and so are the sums, each one chain of fma in ascending k.
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
#define MOE_MATVEC
#include "buffers.glsl"
#include "counters.glsl"
#include "weight.glsl"
#include "element.glsl"
#include "act.glsl"
#include "expert_act.glsl"
#include "gemm.glsl"
#include "tiles.h"
#include "int8.glsl"
#include "gemv_tile.glsl"

const uint BLOCKS = 4; // of MOE_INT8_VALUES, of one step through shared memory
const uint BURST = 2;  // of them, whose weights are loaded at once

shared uvec4 codes_x[TILE * BLOCKS * 2]; // (row, block, half)
shared float scale_x[TILE * BLOCKS];     // (row, block)
shared uint sums_x[TILE * BLOCKS];

// The tile's rows, and one of zeros if it multiplies one more.
void load_input(uint n_rows, uint first_block, uint n_blocks)
{
    const uint OF_BLOCK = 3; // two halves of the codes, then what goes with them
    uint n = moe_matvec_columns(n_rows) * BLOCKS * OF_BLOCK;
    for (uint i = gl_LocalInvocationID.x; i < n; i += MOE_LOCAL_SIZE) {
        uint to = i / OF_BLOCK, part = i % OF_BLOCK;
        uint row = to / BLOCKS, block = first_block + to % BLOCKS;
        uvec4 v = uvec4(0);
        for (uint j = 0; j < (part < 2 ? 4 : 2); j++)
            if (row < n_rows && block < n_blocks)
                v[j] = input_at(source[row] + block * MOE_INT8_WORDS + part * 4 + j);
        if (part < 2) {
            codes_x[to * 2 + part] = v;
        } else {
            scale_x[to] = uintBitsToFloat(v.x);
            sums_x[to] = v.y;
        }
    }
}

// A block's products with a block of a row of the tile.
float add_products(uint codes[CODES], vec2 scale, vec2 minimum, uint at, float sum)
{
    for (uint part = 0; part < PARTS; part++) {
        int products = 0;
        for (uint j = part * PART_CODES; j < (part + 1) * PART_CODES; j++)
            products += dot_bytes(codes[j], codes_x[at * 2 + j / 4][j % 4]);
        int of_codes = part_sum(sums_x[at], part);
        float less = HAS_MINIMUM ? minimum[part] * -float(of_codes) : 0.0;
        float v = fma(scale[part], float(products - int(OFFSET) * of_codes), less);
        sum = fma(v, scale_x[at], sum);
    }
    return sum;
}

// The block of pieces w, the `block`-th of the step.
void add_block(weight_piece w[2], uint block, uint n_rows, inout float sum[MOE_TILE_SMALL])
{
    uint codes[CODES];
    for (uint j = 0; j < CODES; j++)
        codes[j] = signed_codes(w[j / PIECE_CODES], j % PIECE_CODES);
    vec2 scale = part_scales(w[0]), minimum = w[0].minimum;
    for (uint first = 0; first < TILE; first += 2) {
        if (first >= n_rows)
            break;
        for (uint row = first; row < first + 2; row++)
            sum[row] = add_products(codes, scale, minimum, row * BLOCKS + block, sum[row]);
    }
}

void main()
{
    gemm_tile tile = find_tile();
    uvec2 base = expert_base(tile.expert);
    bool absent = expert_absent(base), used = !absent && tile.n_rows > 0;
    uint packed = own_packed_row(), n_blocks = p.d_in / MOE_INT8_VALUES;
    bool live = used && packed < p.packed_rows;
    uint row_start = row_at(p.weight, p.weight_stride, packed);
    barrier();

    float sum[MOE_TILE_SMALL];
    for (uint row = 0; row < TILE; row++)
        sum[row] = 0.0;
    for (uint first = 0; first < n_blocks && used; first += BLOCKS) {
        load_input(tile.n_rows, first, n_blocks);
        barrier();
        for (uint i = 0; i < BLOCKS && live; i += BURST) {
            weight_piece w[BURST][2];
            for (uint j = 0; j < BURST; j++)
                for (uint piece = 0; piece < PIECES; piece++) {
                    w[j][piece] = no_weights();
                    if (first + i + j < n_blocks)
                        w[j][piece] = load_piece(base, p.window, row_start, p.d_in,
                                                 (first + i + j) * PIECES + piece);
                }
            for (uint j = 0; j < BURST; j++)
                add_block(w[j], i + j, tile.n_rows, sum);
        }
        barrier();
    }

    COUNT_TILE(used, tile.n_rows * own_row_blocks(),
               moe_matvec_columns(tile.n_rows) * own_row_blocks());
    write_rows(tile, base, absent, live, sum);
    COUNT_END(tile.n_rows > 0);
}
