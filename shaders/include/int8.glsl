// SPDX-License-Identifier: MIT
// What kernels that multiply codes by codes share, see expert_gemm_int8.comp: blocks of
// MOE_INT8_VALUES of a packed row and of the input. Included after weight.glsl.
#include "dot.glsl"

const uint CODES = MOE_INT8_VALUES / 4; // words of a block's codes
// Pieces of a block of 32 values, and words of their codes.
const uint PIECES = PIECE < 32 ? 2 : 1, PIECE_CODES = CODES / PIECES;
// Parts of a block that have scales of their own, and words of their codes.
const uint PARTS = WEIGHT_TYPE == WEIGHT_Q6_K || WEIGHT_TYPE == WEIGHT_Q2_K ? 2 : 1;
const uint PART_CODES = CODES / PARTS;
const uint OFFSET = WEIGHT_TYPE == WEIGHT_Q4_0 ? 8 : WEIGHT_TYPE == WEIGHT_Q6_K ? 32 : 0;
const bool HAS_MINIMUM = WEIGHT_TYPE == WEIGHT_Q4_K || WEIGHT_TYPE == WEIGHT_Q5_K ||
                         WEIGHT_TYPE == WEIGHT_Q2_K;

// Four codes of mxfp4 as how many halves they are: 0, 1, 2, 3, 4, 6, 8, 12, and their negatives.
uint e2m1_halves(uint codes)
{
    const uint ONES = 0x01010101u;
    uint a = codes & ONES, b = codes >> 1 & ONES, c = codes >> 2 & ONES, sign = codes >> 3 & ONES;
    uint v = (a & ~c) | ((b & ~c) | (a & ~b & c)) << 1 | (c & (~b | a)) << 2 | (b & c) << 3;
    sign &= a | b | c; // 0 has none, so no byte carries into the next one
    return (v ^ sign * 255) + sign;
}

uint signed_codes(weight_piece w, uint i)
{
    uint codes = packed_codes(w, i);
    return WEIGHT_TYPE == WEIGHT_MXFP4 ? e2m1_halves(codes) : codes;
}

// Scales of both parts of a block, from its first piece.
vec2 part_scales(weight_piece w)
{
    return WEIGHT_TYPE == WEIGHT_MXFP4 ? vec2(w.scale.x * 0.5 * w.scale.y) : w.scale;
}

// The sum of the input's codes in a part of a block.
int part_sum(uint sums, uint part)
{
    int low = int(sums << 16) >> 16, high = int(sums) >> 16;
    return PARTS == 1 ? low + high : part == 0 ? low : high;
}
