// SPDX-License-Identifier: MIT
// An expert's packed weights. The weights buffer begins with a table of 8-byte entries, one an
// expert: a device address, or with descriptors an offset in uvec4, which route.comp copies to
// where every kernel has it bound; 0 means absent.
// Included after counters.glsl.
#include "weight_types.h"
layout(constant_id = 0) const uint WEIGHT_TYPE = 0; // enum vkmoe_dtype

#define WEIGHT_NUMBER(type, id, values, head, low, high, tail) const uint WEIGHT_##type = id;
MOE_WEIGHT_TYPES(WEIGHT_NUMBER)

// The row of the table for WEIGHT_TYPE.
#define WEIGHT_VALUES(type, id, values, head, low, high, tail) WEIGHT_TYPE == id ? values :
#define WEIGHT_HEAD(type, id, values, head, low, high, tail) WEIGHT_TYPE == id ? head :
#define WEIGHT_LOW(type, id, values, head, low, high, tail) WEIGHT_TYPE == id ? low :
#define WEIGHT_HIGH(type, id, values, head, low, high, tail) WEIGHT_TYPE == id ? high :
#define WEIGHT_TAIL(type, id, values, head, low, high, tail) WEIGHT_TYPE == id ? tail :
const uint BLOCK_VALUES = MOE_WEIGHT_TYPES(WEIGHT_VALUES) 1u;
const uint HEAD_VECS = MOE_WEIGHT_TYPES(WEIGHT_HEAD) 0u;
const uint LOW_BITS = MOE_WEIGHT_TYPES(WEIGHT_LOW) 8u;
const uint HIGH_BITS = MOE_WEIGHT_TYPES(WEIGHT_HIGH) 0u;
const uint TAIL_SIZE = MOE_WEIGHT_TYPES(WEIGHT_TAIL) 0u;

const uint LOW_VECS = BLOCK_VALUES * LOW_BITS / 128u;
const uint BLOCK_VECS = HEAD_VECS + LOW_VECS + BLOCK_VALUES * HIGH_BITS / 128u;
const bool HAS_CODES = LOW_BITS < 16u;
const uint CODE_BITS = HAS_CODES ? LOW_BITS : 8u; // so that nothing is divided by 0

// Values that are unpacked together, from at most one uvec4 of their low bits. The scales of codes
// are those of 16 or of 32 values.
const uint PIECE = LOW_BITS < 4u ? 32u : 128u / LOW_BITS;
const uint BLOCK_PIECES = BLOCK_VALUES / PIECE;
// Are rows whole pieces?
const bool WHOLE_PIECES = HAS_CODES && WEIGHT_TYPE != WEIGHT_FP8;

struct weight_piece {
    uvec4 low;  // their bits; unused ones are anything
    uvec2 high;
    vec2 scale, minimum; // of the first 16 values and of the others: scale * code - minimum
};

// All are 0.
weight_piece no_weights()
{
    return weight_piece(uvec4(0), uvec2(0), vec2(0), vec2(0));
}

// Where an expert's block begins.
uvec2 expert_base(uint expert)
{
#ifdef MOE_BDA
    uvec4 pair = weights(expert >> 1);
    return (expert & 1) == 0 ? pair.xy : pair.zw;
#else
    return uvec2(routing(MOE_TABLE_WORD + expert), 0);
#endif
}

bool expert_absent(uvec2 base)
{
    return base.x == 0 && base.y == 0;
}

// `window` is subtracted from what may be beyond 32 bits; the difference never is.
uvec4 expert_load(uvec2 base, uint window, uint i)
{
    COUNT_WEIGHTS();
#ifdef MOE_BDA
    return WeightsRef(base).v[i];
#else
    return weights(base.x - window + i);
#endif
}

// Packed rows come in panels of MOE_PANEL_ROWS, each followed by its rows' biases in f32.
// The first uvec4 of a row of a matrix that begins at uvec4 `matrix` of the block.
uint row_at(uint matrix, uint stride, uint row)
{
    return matrix + row * stride + row / MOE_PANEL_ROWS * (MOE_PANEL_ROWS / 4);
}

float row_bias(uvec2 base, uint window, uint matrix, uint stride, uint row)
{
    uint panel = row / MOE_PANEL_ROWS, i = row % MOE_PANEL_ROWS;
    uint at = row_at(matrix, stride, panel * MOE_PANEL_ROWS) + MOE_PANEL_ROWS * stride;
    return uintBitsToFloat(expert_load(base, window, at + i / 4)[i % 4]);
}

// ---- scales ------------------------------------------------------------------------------------

// By integers: scales are often denormal, and GLSL leaves open what unpackHalf2x16 makes of those.
float f16_value(uint bits)
{
    uint a = bits & 0x7fffu;
    float v = a < 0x400u ? float(a) * 5.9604644775390625e-8 // 2^-24
                         : uintBitsToFloat((a << 13) + (a < 0x7c00u ? 0x38000000u : 0x70000000u));
    return (bits & 0x8000u) != 0 ? -v : v;
}

// 2^(e - 127) as a product of two numbers that are not denormal; NaN for 255.
vec2 e8m0_factors(uint e)
{
    uint a = (e >> 1) + 64, b = e + 127 - a;
    return uintBitsToFloat(uvec2(e == 255 ? 0x7fc00000u : a << 23, b << 23));
}

// 6-bit scale and minimum of part j of 8, from the words of a q4_K head behind the first one.
uvec2 packed_scale(uvec4 head, uint j)
{
    uvec3 s = head.yzw >> (8 * (j & 3));
    return j < 4 ? s.xy & 63
                 : (uvec2(s.z, s.z >> 4) & 15) | (s.xy >> 6 & 3) << 4;
}

// The tail of a block, from its lowest bit on. tails: first uvec4 of the tails of a row.
uint load_tail(uvec2 base, uint window, uint tails, uint block)
{
    uint at = block * TAIL_SIZE;
    return expert_load(base, window, tails + at / 16)[at / 4 % 4] >> (at % 4 * 8);
}

// Two bytes of a head for the two halves of the part-th 32 values.
uvec2 half_scales(uvec4 head, uint part)
{
    uint pair = head[part / 2] >> (16 * (part & 1));
    return uvec2(pair, pair >> 8) & 255;
}

// Fills in the scales of the part-th 32 values of a block.
void load_scales(uvec2 base, uint window, uint row, uint n_blocks, uint block, uint part,
                 inout weight_piece w)
{
    uint tail = 0;
    uvec4 head = uvec4(0);
    if (TAIL_SIZE > 0)
        tail = load_tail(base, window, row + n_blocks * BLOCK_VECS, block);
    if (HEAD_VECS > 0)
        head = expert_load(base, window, row + block * BLOCK_VECS);
    if (WEIGHT_TYPE == WEIGHT_MXFP4) {
        w.scale = e8m0_factors(tail & 255);
    } else if (WEIGHT_TYPE == WEIGHT_FP8) {
        w.scale = vec2(uintBitsToFloat(tail));
    } else if (WEIGHT_TYPE == WEIGHT_Q4_K || WEIGHT_TYPE == WEIGHT_Q5_K) {
        vec2 v = vec2(f16_value(head.x & 0xffffu), f16_value(head.x >> 16)) *
                 vec2(packed_scale(head, part));
        w.scale = v.xx;
        w.minimum = v.yy;
    } else if (WEIGHT_TYPE == WEIGHT_Q2_K) {
        uvec2 both = half_scales(head, part);
        w.scale = f16_value(tail & 0xffffu) * vec2(both & 15);
        w.minimum = f16_value(tail >> 16) * vec2(both >> 4);
    } else if (WEIGHT_TYPE == WEIGHT_Q6_K) {
        w.scale = f16_value(tail & 0xffffu) * vec2(ivec2(half_scales(head, part) << 24) >> 24);
    } else {
        w.scale = vec2(f16_value(tail & 0xffffu));
    }
}

// ---- values ------------------------------------------------------------------------------------

// The i-th PIECE values of the row of d_in values that begins at uvec4 `row` of the block.
weight_piece load_piece(uvec2 base, uint window, uint row, uint d_in, uint i)
{
    weight_piece w = no_weights();
    if (!HAS_CODES) {
        w.low = expert_load(base, window, row + i);
        return w;
    }
    uint block = i / BLOCK_PIECES, piece = i % BLOCK_PIECES;
    uint low = row + block * BLOCK_VECS + HEAD_VECS, high = low + LOW_VECS;
    w.low = expert_load(base, window, low + piece * PIECE * LOW_BITS / 128);
    if (LOW_BITS == 2 && (piece & 1) != 0)
        w.low.xy = w.low.zw;
    if (HIGH_BITS == 1)
        w.high.x = expert_load(base, window, high + piece / 4)[piece % 4];
    if (HIGH_BITS == 2) {
        uvec4 v = expert_load(base, window, high + piece / 2);
        w.high = (piece & 1) == 0 ? v.xy : v.zw;
    }
    load_scales(base, window, row, (d_in + BLOCK_VALUES - 1) / BLOCK_VALUES, block,
                piece * PIECE / 32, w);
    return w;
}

// The i-th four codes, one a byte.
uint packed_codes(weight_piece w, uint i)
{
    uint codes = w.low[i * CODE_BITS / 8] >> (i % (8 / CODE_BITS) * CODE_BITS);
    if (LOW_BITS == 4)
        codes &= 0x0f0f0f0fu;
    if (LOW_BITS == 2)
        codes &= 0x03030303u;
    if (HIGH_BITS == 1)
        codes |= (w.high.x >> i & 0x01010101u) << 4;
    if (HIGH_BITS == 2)
        codes |= (w.high[i / 4] >> (i % 4 * 2) & 0x03030303u) << 4;
    return codes;
}

uvec4 piece_codes(weight_piece w, uint i)
{
    uint codes = packed_codes(w, i);
    return uvec4(codes, codes >> 8, codes >> 16, codes >> 24) & 255;
}

vec4 e2m1_values(uvec4 codes)
{
    uvec4 a = codes & 7;
    vec4 v = mix(uintBitsToFloat((a << 22) + (126u << 23)), vec4(a) * 0.5, lessThan(a, uvec4(2)));
    return uintBitsToFloat(floatBitsToUint(v) | (codes & 8) << 28);
}

// 0x7f and 0xff are NaN.
vec4 e4m3_values(uvec4 codes)
{
    uvec4 a = codes & 127;
    vec4 v = mix(uintBitsToFloat((a << 20) + (120u << 23)), vec4(a) * 0.001953125, // 2^-9
                 lessThan(a, uvec4(8)));
    v = mix(v, uintBitsToFloat(uvec4(0x7fc00000u)), equal(a, uvec4(127)));
    return uintBitsToFloat(floatBitsToUint(v) | (codes & 128) << 24);
}

// The i-th four values of a piece, exactly; those below 2^-126 may be 0. A scale times a code fits
// an f32, so nothing is rounded but the difference to a minimum and the product with fp8's scale.
vec4 piece_values(weight_piece w, uint i)
{
    if (WEIGHT_TYPE == WEIGHT_F32)
        return uintBitsToFloat(w.low);
    if (WEIGHT_TYPE == WEIGHT_F16) {
        uvec2 v = i == 0 ? w.low.xy : w.low.zw;
        return vec4(unpackHalf2x16(v.x), unpackHalf2x16(v.y));
    }
    if (WEIGHT_TYPE == WEIGHT_BF16) {
        uvec2 v = i == 0 ? w.low.xy : w.low.zw;
        return uintBitsToFloat(uvec4(v.x << 16, v.x & 0xffff0000u, v.y << 16, v.y & 0xffff0000u));
    }
    uvec4 codes = piece_codes(w, i);
    if (WEIGHT_TYPE == WEIGHT_MXFP4)
        return e2m1_values(codes) * w.scale.x * w.scale.y;
    if (WEIGHT_TYPE == WEIGHT_FP8)
        return e4m3_values(codes) * w.scale.x;
    float scale = i < 4 ? w.scale.x : w.scale.y;
    if (WEIGHT_TYPE == WEIGHT_Q8_0)
        return vec4(ivec4(codes << 24) >> 24) * scale;
    if (WEIGHT_TYPE == WEIGHT_Q4_0)
        return (vec4(codes) - 8.0) * scale;
    if (WEIGHT_TYPE == WEIGHT_Q6_K)
        return (vec4(codes) - 32.0) * scale;
    return vec4(codes) * scale - (i < 4 ? w.minimum.x : w.minimum.y);
}
