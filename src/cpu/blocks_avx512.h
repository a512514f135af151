// SPDX-License-Identifier: MIT
// What blocks of 16 rows in a panel hold, in vectors of AVX-512: codes and scales, for those files
// alone that are compiled for it. The formats are those of core/quant.h; where units lie is said in
// cpu/kernels.h: one is a vector. 32 steps of a column of blocks are a tile: 8 units of codes.
#ifndef MOE_CPU_BLOCKS_AVX512_H
#define MOE_CPU_BLOCKS_AVX512_H

#include "cpu/fetch_avx512.h"
#include "cpu/kernels.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum { TILE = 32, UNITS = 8, LINE = 64 };

// The unit that begins at byte `at` of the rows' blocks.
INLINE __m512i unit_at(const char *column, uint32_t at)
{
    return _mm512_loadu_si512(column + (size_t) at * CPU_PANEL);
}

// Bits of each byte that `mask` leaves, moved to the left (by > 0) or right.
INLINE __m512i bits(__m512i v, int by, int mask)
{
    v = by < 0 ? _mm512_srli_epi16(v, (unsigned) -by) : _mm512_slli_epi16(v, (unsigned) by);
    return _mm512_and_si512(v, _mm512_set1_epi8((char) mask));
}

// Asks for what is a while behind the part of a block of so many bytes that tile `tile` of n_tiles
// is.
INLINE void fetch_ahead(const char *column, uint32_t size, uint32_t tile, uint32_t n_tiles)
{
    const uint32_t n = size * CPU_PANEL / LINE + 1;
#pragma GCC unroll 16
    for (uint32_t i = n * tile / n_tiles; i < n * (tile + 1) / n_tiles; i++)
        fetch_line(column + i * LINE);
}

// ---- scales ----------------------------------------------------------------------------------

// Units that are f16 alone: heads and tails.
INLINE __m512 f16_at(const char *column, uint32_t at)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) (column + at * CPU_PANEL)));
}

// The lower (half 0) or upper 16 bits of a unit, as f16.
INLINE __m512 f16_of(__m512i v, uint32_t half)
{
    return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(half ? _mm512_srli_epi32(v, 16) : v));
}

// 2^(e - 128), as codes of mxfp4 count halves; 255 is NaN.
INLINE __m512 half_power(__m128i exponents)
{
    const __m512i e = _mm512_cvtepu8_epi32(exponents), nan = _mm512_set1_epi32(0x7fc00000);
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    const __m512i subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(1 << 21), e);
    const __mmask16 small = _mm512_cmplt_epu32_mask(e, _mm512_set1_epi32(2));
    const __mmask16 is_nan = _mm512_cmpeq_epi32_mask(e, _mm512_set1_epi32(255));
    const __m512i power = _mm512_mask_mov_epi32(normal, small, subnormal);
    return _mm512_castsi512_ps(_mm512_mask_mov_epi32(power, is_nan, nan));
}

// Scales and minima of a part of 16 steps, or of a tile.
struct factors {
    __m512 scale, minimum;
};

// Some bits of byte `at` of each block, as numbers.
INLINE __m512 field(const char *column, uint32_t at, uint32_t shift, int mask)
{
    const __m512i low = _mm512_srli_epi32(unit_at(column, at / 4 * 4), at % 4 * 8 + shift);
    return _mm512_cvtepi32_ps(_mm512_and_si512(low, _mm512_set1_epi32(mask)));
}

// 6 bits each, as in core/quant_k.c.
INLINE struct factors scales_6(const char *column, uint32_t tile)
{
    const __m512i both = unit_at(column, 0);
    const __m512 sixteen = _mm512_set1_ps(16);
    __m512 scale, minimum;
    if (tile < 4) {
        scale = field(column, 4 + tile, 0, 63);
        minimum = field(column, 8 + tile, 0, 63);
    } else {
        scale = _mm512_fmadd_ps(field(column, tile, 6, 3), sixteen, field(column, 8 + tile, 0, 15));
        minimum = _mm512_fmadd_ps(field(column, 4 + tile, 6, 3), sixteen,
                                  field(column, 8 + tile, 4, 15));
    }
    return (struct factors){_mm512_mul_ps(f16_of(both, 0), scale),
                            _mm512_mul_ps(f16_of(both, 1), minimum)};
}

// Of part `part` of a tile: its first or last 16 steps, which differ in q6_K and q2_K.
INLINE struct factors scales_of(enum vkmoe_dtype type, const char *column, uint32_t tile,
                                uint32_t part)
{
    const uint32_t at = 2 * tile + part; // of a scale that is a byte
    const __m512 none = _mm512_setzero_ps();
    if (type == VKMOE_Q4_K || type == VKMOE_Q5_K)
        return scales_6(column, tile);
    if (type == VKMOE_Q2_K) {
        const __m512i both = unit_at(column, 80);
        return (struct factors){_mm512_mul_ps(f16_of(both, 0), field(column, at, 0, 15)),
                                _mm512_mul_ps(f16_of(both, 1), field(column, at, 4, 15))};
    }
    if (type == VKMOE_Q6_K) {
        const __m512i highest = _mm512_slli_epi32(unit_at(column, 192 + at / 4 * 4),
                                                  24 - at % 4 * 8);
        const __m512 scale = _mm512_cvtepi32_ps(_mm512_srai_epi32(highest, 24));
        return (struct factors){_mm512_mul_ps(f16_at(column, 208), scale), none};
    }
    if (type == VKMOE_MXFP4)
        return (struct factors){half_power(_mm_loadu_si128((const __m128i *) column)), none};
    return (struct factors){f16_at(column, 0), none};
}

// ---- codes -----------------------------------------------------------------------------------

// Those of steps 4 u .. 4 u + 3 of a tile, as they are stored: without a sign, but in q8_0.
INLINE __m512i codes_of(enum vkmoe_dtype type, const char *column, uint32_t tile, uint32_t u)
{
    const uint32_t half = tile / 4;            // of a block of 256,
    const int quarter = (int) tile % 4;        // of a half,
    const int nibble = tile % 2 ? -4 : 0;      // of a pair of tiles
    if (type == VKMOE_Q8_0)
        return unit_at(column, 2 + 4 * u);
    if (type == VKMOE_Q4_0 || type == VKMOE_MXFP4)
        return bits(unit_at(column, (type == VKMOE_Q4_0 ? 2 : 1) + u % 4 * 4), u < 4 ? 0 : -4, 15);
    if (type == VKMOE_Q4_K)
        return bits(unit_at(column, 16 + tile / 2 * 32 + 4 * u), nibble, 15);
    if (type == VKMOE_Q5_K)
        return _mm512_or_si512(
            bits(unit_at(column, 48 + tile / 2 * 32 + 4 * u), nibble, 15),
            bits(unit_at(column, 16 + 4 * u), 4 - (int) tile, 16));
    if (type == VKMOE_Q2_K)
        return bits(unit_at(column, 16 + half * 32 + 4 * u), -2 * quarter, 3);
    const __m512i low = unit_at(column, 64 * half + tile % 2 * 32 + 4 * u); // q6_K
    const __m512i high = unit_at(column, 128 + 32 * half + 4 * u);
    return _mm512_or_si512(bits(low, quarter / 2 ? -4 : 0, 15), bits(high, 4 - 2 * quarter, 48));
}

#endif
