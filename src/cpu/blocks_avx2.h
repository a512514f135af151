// SPDX-License-Identifier: MIT
// What blocks of 16 rows in a panel hold, in vectors of AVX2: codes and scales, for those files
// alone that are compiled for it. The formats are those of core/quant.h; where units lie is said in
// cpu/kernels.h. 32 steps of a column of blocks are a tile: 8 units of codes.
#ifndef MOE_CPU_BLOCKS_AVX2_H
#define MOE_CPU_BLOCKS_AVX2_H

#include "cpu/kernels.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    TILE = 32,
    TILE_UNITS = 8,
    READ_AHEAD = 2048, // bytes: the hardware's own prefetch stops at every page
};

// A number of each of 16 rows, and 4 bytes of each.
struct lanes {
    __m256 lo, hi;
};
struct unit {
    __m256i lo, hi;
};

// The unit that begins at byte `at` of the rows' blocks.
INLINE struct unit unit_at(const char *column, uint32_t at)
{
    const __m256i *from = (const __m256i *) (column + (size_t) at * CPU_PANEL);
    return (struct unit){_mm256_loadu_si256(from), _mm256_loadu_si256(from + 1)};
}

// Asks for a tile's share of its column of blocks of `size` bytes, ahead of where it is.
INLINE void read_ahead(const char *column, uint32_t tile, uint32_t tiles, uint32_t size)
{
    const uint32_t share = size * CPU_PANEL / tiles;
    const char *at = column + tile * share + READ_AHEAD;
#pragma GCC unroll 9
    for (uint32_t i = 0; i < share; i += 64)
        _mm_prefetch(at + i, _MM_HINT_T0);
}

// Bits of each byte from `shift` on.
INLINE __m256i bits_256(__m256i v, uint32_t shift, int mask)
{
    return _mm256_and_si256(_mm256_srli_epi16(v, (int) shift), _mm256_set1_epi8((char) mask));
}

INLINE struct unit bits(struct unit v, uint32_t shift, int mask)
{
    return (struct unit){bits_256(v.lo, shift, mask), bits_256(v.hi, shift, mask)};
}

INLINE struct unit either(struct unit a, struct unit b)
{
    return (struct unit){_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)};
}

// Bits that have room to the left of them in each byte.
INLINE struct unit left(struct unit v, int shift)
{
    return (struct unit){_mm256_slli_epi16(v.lo, shift), _mm256_slli_epi16(v.hi, shift)};
}

INLINE struct unit from_table(__m128i table, struct unit codes)
{
    const __m256i both = _mm256_broadcastsi128_si256(table);
    return (struct unit){_mm256_shuffle_epi8(both, codes.lo), _mm256_shuffle_epi8(both, codes.hi)};
}

// Byte i of each row becomes byte `to` of a number whose other bytes are 0.
INLINE struct unit byte_to(struct unit v, uint32_t i, uint32_t to)
{
    const int to_lowest = (int) (0x80808000u + i), to_highest = (int) (0x00808080u + (i << 24));
    const int each = to == 0 ? 4 : 4 << 24, first = to == 0 ? to_lowest : to_highest;
    const __m128i row = _mm_setr_epi32(first, first + each, first + 2 * each, first + 3 * each);
    const __m256i rows = _mm256_broadcastsi128_si256(row);
    return (struct unit){_mm256_shuffle_epi8(v.lo, rows), _mm256_shuffle_epi8(v.hi, rows)};
}

INLINE struct lanes numbers(struct unit v)
{
    return (struct lanes){_mm256_cvtepi32_ps(v.lo), _mm256_cvtepi32_ps(v.hi)};
}

// Byte i of each row, without a sign.
INLINE struct lanes byte_of(struct unit v, uint32_t i)
{
    return numbers(byte_to(v, i, 0));
}

INLINE struct lanes times(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}

// ---- scales ----------------------------------------------------------------------------------

// Lower (half 0) or upper halves of 8 rows, as f16.
INLINE __m256 f16_half(__m256i v, uint32_t half)
{
    const __m256i low = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1,
                                         0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i rows = _mm256_shuffle_epi8(half ? _mm256_srli_epi32(v, 16) : v, low);
    return _mm256_cvtph_ps(_mm256_castsi256_si128(_mm256_permute4x64_epi64(rows, 0x08)));
}

INLINE struct lanes f16_of(struct unit v, uint32_t half)
{
    return (struct lanes){f16_half(v.lo, half), f16_half(v.hi, half)};
}

// Of units that are f16 alone: heads and tails.
INLINE struct lanes f16_at(const char *column, uint32_t at)
{
    const __m128i *from = (const __m128i *) (column + (size_t) at * CPU_PANEL);
    return (struct lanes){_mm256_cvtph_ps(_mm_loadu_si128(from)),
                          _mm256_cvtph_ps(_mm_loadu_si128(from + 1))};
}

// 2^(e - 128), as codes count halves; 255 is NaN.
INLINE __m256 half_power(__m128i exponents)
{
    const __m256i e = _mm256_cvtepu8_epi32(exponents), two = _mm256_set1_epi32(2);
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    const __m256i subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(1 << 21), e);
    const __m256i power = _mm256_blendv_epi8(normal, subnormal, _mm256_cmpgt_epi32(two, e));
    const __m256i is_nan = _mm256_cmpeq_epi32(e, _mm256_set1_epi32(255));
    return _mm256_castsi256_ps(_mm256_or_si256(power, is_nan));
}

// What a column's scales are multiplied with, and its minima.
struct factors {
    struct lanes scale, minimum;
};

INLINE struct factors factors_of(enum vkmoe_dtype type, const char *column)
{
    struct factors f;
    if (type == VKMOE_MXFP4) {
        const __m128i e = _mm_loadu_si128((const __m128i *) column);
        f.scale = (struct lanes){half_power(e), half_power(_mm_unpackhi_epi64(e, e))};
    } else if (type == VKMOE_Q8_0 || type == VKMOE_Q4_0) {
        f.scale = f16_at(column, 0);
    } else if (type == VKMOE_Q6_K) {
        f.scale = f16_at(column, 208);
    } else {
        const struct unit both = unit_at(column, type == VKMOE_Q2_K ? 80 : 0);
        f.minimum = f16_of(both, 1);
        f.scale = f16_of(both, 0);
        return f;
    }
    f.minimum = (struct lanes){_mm256_setzero_ps(), _mm256_setzero_ps()};
    return f;
}

// Scales and minima of 6 bits, as in core/quant_k.c.
INLINE struct factors scales_6(const struct factors *f, const char *column, uint32_t tile)
{
    const struct unit first = unit_at(column, 4), second = unit_at(column, 8);
    struct unit scale = bits(first, 0, 63), minimum = bits(second, 0, 63);
    if (tile >= 4) {
        const struct unit third = unit_at(column, 12);
        scale = either(bits(third, 0, 15), bits(first, 2, 48));
        minimum = either(bits(third, 4, 15), bits(second, 2, 48));
    }
    return (struct factors){times(f->scale, byte_of(scale, tile % 4)),
                            times(f->minimum, byte_of(minimum, tile % 4))};
}

// Those of part `part` of a tile: of its first or last 16 steps, which differ in q6_K and q2_K.
INLINE struct factors scales_of(enum vkmoe_dtype type, const struct factors *f, const char *column,
                                uint32_t tile, uint32_t part)
{
    const uint32_t at = 2 * tile + part; // of a scale that is a byte
    if (type == VKMOE_Q4_K || type == VKMOE_Q5_K)
        return scales_6(f, column, tile);
    if (type == VKMOE_Q2_K) {
        const struct unit both = unit_at(column, at / 4 * 4);
        return (struct factors){times(f->scale, byte_of(bits(both, 0, 15), at % 4)),
                                times(f->minimum, byte_of(bits(both, 4, 15), at % 4))};
    }
    if (type == VKMOE_Q6_K) {
        const struct unit s = byte_to(unit_at(column, 192 + at / 4 * 4), at % 4, 3);
        const struct unit scale = {_mm256_srai_epi32(s.lo, 24), _mm256_srai_epi32(s.hi, 24)};
        return (struct factors){times(f->scale, numbers(scale)), f->minimum};
    }
    return *f;
}

// ---- codes -----------------------------------------------------------------------------------

// Those of steps 4 u .. 4 u + 3 of a tile, as they are stored: without a sign, but in q8_0.
INLINE struct unit codes_of(enum vkmoe_dtype type, const char *column, uint32_t tile, uint32_t u)
{
    const uint32_t half = tile / 4, quarter = tile % 4; // of a block of 256
    if (type == VKMOE_Q8_0)
        return unit_at(column, 2 + 4 * u);
    if (type == VKMOE_Q4_0 || type == VKMOE_MXFP4)
        return bits(unit_at(column, (type == VKMOE_Q4_0 ? 2 : 1) + u % 4 * 4), u / 4 * 4, 15);
    if (type == VKMOE_Q4_K)
        return bits(unit_at(column, 16 + tile / 2 * 32 + 4 * u), tile % 2 * 4, 15);
    if (type == VKMOE_Q5_K) {
        const struct unit fifth = bits(unit_at(column, 16 + 4 * u), tile, 1);
        const struct unit low = unit_at(column, 48 + tile / 2 * 32 + 4 * u);
        return either(bits(low, tile % 2 * 4, 15), left(fifth, 4));
    }
    if (type == VKMOE_Q2_K)
        return bits(unit_at(column, 16 + half * 32 + 4 * u), 2 * quarter, 3);
    const struct unit low = unit_at(column, 64 * half + quarter % 2 * 32 + 4 * u); // q6_K
    const struct unit high = bits(unit_at(column, 128 + 32 * half + 4 * u), 2 * quarter, 3);
    return either(bits(low, quarter / 2 * 4, 15), left(high, 4));
}

#endif
