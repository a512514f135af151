// SPDX-License-Identifier: MIT
// Types of blocks for the levels of 64-bit ARM, as text that blocks_neon.c and each int8_<level>.c
// compile for their level: 32 values of 4 rows are scale * code - minimum. A panel's units are 4
// bytes of each row (panel.h), so a vector has 4 bytes of 4 rows: group g of a panel has rows
// 4 g .. 4 g + 3. No header of ours that has other code is included.
#ifndef MOE_CPU_BLOCKS_NEON_TEXT_H
#define MOE_CPU_BLOCKS_NEON_TEXT_H

#include "cpu/kernels.h"

#include <arm_neon.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    TILE = 32,              // values of a row
    UNITS = TILE / 4,       // that its codes are
    GROUPS = CPU_PANEL / 4, // of rows
};

// Of 4 rows: of values 0..15 and 16..31. Types without a minimum have 0, which is not used.
struct tile_scales {
    float32x4_t scale[2], minimum[2];
};

// Of tile `tile` of the blocks of 16 rows that begin at `column`, and the codes of its values
// 4 unit .. 4 unit + 3, row by row.
typedef struct tile_scales scales_fn(const char *column, uint32_t tile, uint32_t group);
typedef int8x16_t codes_fn(const char *column, uint32_t tile, uint32_t unit, uint32_t group);

// ---- fields ------------------------------------------------------------------------------------

// The unit of 4 bytes that begins at byte `at` of each block.
INLINE uint8x16_t unit_at(const char *column, uint32_t at, uint32_t group)
{
    return vld1q_u8((const uint8_t *) column + (size_t) at * CPU_PANEL + group * 16);
}

INLINE uint32x4_t byte_at(const char *column, uint32_t at, uint32_t group)
{
    const uint32x4_t unit = vreinterpretq_u32_u8(unit_at(column, at / 4 * 4, group));
    return vandq_u32(vshlq_u32(unit, vdupq_n_s32(-8 * (int) (at % 4))), vdupq_n_u32(255));
}

INLINE float32x4_t f16_number(uint16x4_t bits)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(bits));
}

// Of a unit of 2 bytes.
INLINE float32x4_t f16_alone(const char *column, uint32_t at, uint32_t group)
{
    return f16_number(vld1_u16((const uint16_t *) (column + (size_t) at * CPU_PANEL) + group * 4));
}

// Two of a unit of 4.
INLINE float32x4_t f16_low(const char *column, uint32_t at, uint32_t group)
{
    return f16_number(vmovn_u32(vreinterpretq_u32_u8(unit_at(column, at, group))));
}

INLINE float32x4_t f16_high(const char *column, uint32_t at, uint32_t group)
{
    return f16_number(vshrn_n_u32(vreinterpretq_u32_u8(unit_at(column, at, group)), 16));
}

// Bits of each byte from `shift` on.
INLINE uint8x16_t bits(uint8x16_t v, uint32_t shift, uint8_t mask)
{
    return vandq_u8(vshlq_u8(v, vdupq_n_s8((int8_t) -(int) shift)), vdupq_n_u8(mask));
}

INLINE int8x16_t less(uint8x16_t v, int8_t n)
{
    return vsubq_s8(vreinterpretq_s8_u8(v), vdupq_n_s8(n));
}

INLINE struct tile_scales one_scale(float32x4_t scale, float32x4_t minimum)
{
    return (struct tile_scales){{scale, scale}, {minimum, minimum}};
}

// ---- blocks of one tile ------------------------------------------------------------------------

INLINE struct tile_scales scales_head(const char *column, uint32_t tile, uint32_t group)
{
    (void) tile;
    return one_scale(f16_alone(column, 0, group), vdupq_n_f32(0));
}

INLINE int8x16_t codes_q8_0(const char *column, uint32_t tile, uint32_t unit, uint32_t group)
{
    (void) tile;
    return vreinterpretq_s8_u8(unit_at(column, 2 + 4 * unit, group));
}

// The low halves of 16 bytes, then the high ones.
INLINE uint8x16_t halves_at(const char *column, uint32_t at, uint32_t unit, uint32_t group)
{
    const uint8x16_t v = unit_at(column, at + unit % 4 * 4, group);
    return unit < 4 ? vandq_u8(v, vdupq_n_u8(15)) : vshrq_n_u8(v, 4);
}

INLINE int8x16_t codes_q4_0(const char *column, uint32_t tile, uint32_t unit, uint32_t group)
{
    (void) tile;
    return less(halves_at(column, 2, unit, group), 8);
}

// 2^(e - 128), as codes count halves; 255 is NaN.
INLINE struct tile_scales scales_mxfp4(const char *column, uint32_t tile, uint32_t group)
{
    uint32_t head;
    (void) tile;
    __builtin_memcpy(&head, column + 4 * group, sizeof head);
    const uint8x8_t bytes = vreinterpret_u8_u32(vdup_n_u32(head));
    const uint32x4_t e = vmovl_u16(vget_low_u16(vmovl_u8(bytes)));
    const uint32x4_t normal = vshlq_n_u32(vsubq_u32(e, vdupq_n_u32(1)), 23);
    const uint32x4_t subnormal = vshlq_u32(vdupq_n_u32(1 << 21), vreinterpretq_s32_u32(e));
    const uint32x4_t power = vbslq_u32(vcltq_u32(e, vdupq_n_u32(2)), subnormal, normal);
    const uint32x4_t is_nan = vceqq_u32(e, vdupq_n_u32(255));
    return one_scale(vreinterpretq_f32_u32(vorrq_u32(power, is_nan)), vdupq_n_f32(0));
}

INLINE int8x16_t codes_mxfp4(const char *column, uint32_t tile, uint32_t unit, uint32_t group)
{
    static const int8_t values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    (void) tile;
    return vqtbl1q_s8(vld1q_s8(values), halves_at(column, 1, unit, group));
}

// ---- blocks of 8 tiles -------------------------------------------------------------------------

// Scales and minima of 6 bits, as in core/quant_k.c.
INLINE struct tile_scales scales_6(const char *column, uint32_t tile, uint32_t group)
{
    uint32x4_t scale, minimum;
    if (tile < 4) {
        scale = vandq_u32(byte_at(column, 4 + tile, group), vdupq_n_u32(63));
        minimum = vandq_u32(byte_at(column, 8 + tile, group), vdupq_n_u32(63));
    } else {
        const uint32x4_t low = byte_at(column, 8 + tile, group), upper = vdupq_n_u32(48);
        const uint32x4_t scale_high = vshrq_n_u32(byte_at(column, tile, group), 2);
        const uint32x4_t minimum_high = vshrq_n_u32(byte_at(column, 4 + tile, group), 2);
        scale = vorrq_u32(vandq_u32(low, vdupq_n_u32(15)), vandq_u32(scale_high, upper));
        minimum = vorrq_u32(vshrq_n_u32(low, 4), vandq_u32(minimum_high, upper));
    }
    return one_scale(vmulq_f32(f16_low(column, 0, group), vcvtq_f32_u32(scale)),
                     vmulq_f32(f16_high(column, 0, group), vcvtq_f32_u32(minimum)));
}

INLINE int8x16_t codes_q4_K(const char *column, uint32_t tile, uint32_t unit, uint32_t group)
{
    const uint8x16_t v = unit_at(column, 16 + tile / 2 * 32 + 4 * unit, group);
    return vreinterpretq_s8_u8(bits(v, tile % 2 * 4, 15));
}

INLINE int8x16_t codes_q5_K(const char *column, uint32_t tile, uint32_t unit, uint32_t group)
{
    const uint8x16_t low = unit_at(column, 48 + tile / 2 * 32 + 4 * unit, group);
    const uint8x16_t fifth = bits(unit_at(column, 16 + 4 * unit, group), tile, 1);
    return vreinterpretq_s8_u8(vorrq_u8(bits(low, tile % 2 * 4, 15), vshlq_n_u8(fifth, 4)));
}

// Tile t is quarter t % 4 of half t / 4; its two parts are 2 t and 2 t + 1.

INLINE struct tile_scales scales_q6_K(const char *column, uint32_t tile, uint32_t group)
{
    const float32x4_t d = f16_alone(column, 208, group);
    struct tile_scales s = one_scale(d, vdupq_n_f32(0));
    for (uint32_t part = 0; part < 2; part++) {
        const uint32x4_t code = byte_at(column, 192 + 2 * tile + part, group);
        const int32x4_t wide = vshrq_n_s32(vreinterpretq_s32_u32(vshlq_n_u32(code, 24)), 24);
        s.scale[part] = vmulq_f32(d, vcvtq_f32_s32(wide));
    }
    return s;
}

INLINE int8x16_t codes_q6_K(const char *column, uint32_t tile, uint32_t unit, uint32_t group)
{
    const uint32_t half = tile / 4, quarter = tile % 4;
    const uint8x16_t low = unit_at(column, 64 * half + quarter % 2 * 32 + 4 * unit, group);
    const uint8x16_t high = unit_at(column, 128 + 32 * half + 4 * unit, group);
    return less(vorrq_u8(bits(low, quarter / 2 * 4, 15), vshlq_n_u8(bits(high, quarter * 2, 3), 4)),
                32);
}

INLINE struct tile_scales scales_q2_K(const char *column, uint32_t tile, uint32_t group)
{
    const float32x4_t d = f16_low(column, 80, group), m = f16_high(column, 80, group);
    struct tile_scales s = one_scale(d, m);
    for (uint32_t part = 0; part < 2; part++) {
        const uint32x4_t both = byte_at(column, 2 * tile + part, group);
        s.scale[part] = vmulq_f32(d, vcvtq_f32_u32(vandq_u32(both, vdupq_n_u32(15))));
        s.minimum[part] = vmulq_f32(m, vcvtq_f32_u32(vshrq_n_u32(both, 4)));
    }
    return s;
}

INLINE int8x16_t codes_q2_K(const char *column, uint32_t tile, uint32_t unit, uint32_t group)
{
    const uint8x16_t v = unit_at(column, 16 + tile / 4 * 32 + 4 * unit, group);
    return vreinterpretq_s8_u8(bits(v, tile % 4 * 2, 3));
}

// X(name, type, its scales, values of a block, its bytes, has it two scales, has it minima)
#define BLOCKS(X)                                                                                  \
    X(q8_0, VKMOE_Q8_0, scales_head, 32, 34, false, false)                                         \
    X(q4_0, VKMOE_Q4_0, scales_head, 32, 18, false, false)                                         \
    X(q4_K, VKMOE_Q4_K, scales_6, 256, 144, false, true)                                           \
    X(q5_K, VKMOE_Q5_K, scales_6, 256, 176, false, true)                                           \
    X(q6_K, VKMOE_Q6_K, scales_q6_K, 256, 210, true, false)                                        \
    X(q2_K, VKMOE_Q2_K, scales_q2_K, 256, 84, true, true)                                          \
    X(mxfp4, VKMOE_MXFP4, scales_mxfp4, 32, 17, false, false)

#endif
