// SPDX-License-Identifier: MIT
// Panels of types of blocks for AVX2, FMA and F16C: 32 steps of 16 rows at a time become f32 in the
// first-level cache and are multiplied there. Numbers are those of core/quant.h, bit by bit:
// products of scales and codes are exact, so that fusing a subtraction changes nothing. As
// kernels_avx2.c, this file includes no header of ours that has code for other files.
#include "cpu/blocks_avx2.h"

INLINE void store(float *out, uint32_t step, struct lanes v)
{
    _mm256_store_ps(out + step * CPU_PANEL, v.lo);
    _mm256_store_ps(out + step * CPU_PANEL + 8, v.hi);
}

// scale * code - minimum of the 4 steps of a unit
INLINE void store_less(float *out, uint32_t step, struct factors f, struct unit codes)
{
#pragma GCC unroll 4
    for (uint32_t i = 0; i < 4; i++) {
        const struct lanes code = byte_of(codes, i);
        store(out, step + i,
              (struct lanes){_mm256_fmsub_ps(f.scale.lo, code.lo, f.minimum.lo),
                             _mm256_fmsub_ps(f.scale.hi, code.hi, f.minimum.hi)});
    }
}

// scale * 2^24 * code: bytes with a sign are the upper ones of a number.
INLINE void store_signed(float *out, uint32_t step, struct lanes scale, struct unit codes)
{
#pragma GCC unroll 4
    for (uint32_t i = 0; i < 4; i++)
        store(out, step + i, times(scale, numbers(byte_to(codes, i, 3))));
}

// scale * code. The scale may be so small that a factor less would make it 0.
INLINE void store_small(float *out, uint32_t step, struct lanes scale, struct unit codes)
{
#pragma GCC unroll 4
    for (uint32_t i = 0; i < 4; i++) {
        const struct unit code = byte_to(codes, i, 3);
        const struct unit number = {_mm256_srai_epi32(code.lo, 24), _mm256_srai_epi32(code.hi, 24)};
        store(out, step + i, times(scale, numbers(number)));
    }
}

INLINE struct unit less(struct unit codes, int offset)
{
    const __m256i v = _mm256_set1_epi8((char) offset);
    return (struct unit){_mm256_sub_epi8(codes.lo, v), _mm256_sub_epi8(codes.hi, v)};
}

// Steps 4 u .. 4 u + 3 of a tile.
INLINE void decode_unit(enum vkmoe_dtype type, const char *column, uint32_t tile, uint32_t u,
                        struct factors f, float *out)
{
    const __m128i halves = _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
    const __m256 upper = _mm256_set1_ps(0x1p-24f);
    const struct lanes scale = times(f.scale, (struct lanes){upper, upper});
    const struct unit codes = codes_of(type, column, tile, u);
    if (type == VKMOE_MXFP4)
        store_small(out, 4 * u, f.scale, from_table(halves, codes));
    else if (type == VKMOE_Q8_0)
        store_signed(out, 4 * u, scale, codes);
    else if (type == VKMOE_Q4_0 || type == VKMOE_Q6_K)
        store_signed(out, 4 * u, scale, less(codes, type == VKMOE_Q4_0 ? 8 : 32));
    else
        store_less(out, 4 * u, f, codes);
}

INLINE void decode_tile(enum vkmoe_dtype type, const char *column, uint32_t tile, float *out)
{
    const struct factors f = factors_of(type, column);
#pragma GCC unroll 2
    for (uint32_t part = 0; part < 2; part++) {
        const struct factors s = scales_of(type, &f, column, tile, part);
#pragma GCC unroll 4
        for (uint32_t u = part * 4; u < part * 4 + 4; u++)
            decode_unit(type, column, tile, u, s, out);
    }
}

// ---- fp8 -------------------------------------------------------------------------------------

// E4M3 with its exponent where an f16 has it is 2^-8 times its value, subnormal numbers too; only
// NaN has to be made one.
INLINE struct lanes e4m3(__m128i codes)
{
    const __m256i wide = _mm256_cvtepu8_epi16(codes), most = _mm256_set1_epi16(0x7f);
    const __m256i magnitude = _mm256_and_si256(wide, most);
    const __m256i sign = _mm256_slli_epi16(_mm256_andnot_si256(most, wide), 8);
    const __m256i is_nan = _mm256_cmpeq_epi16(magnitude, most);
    const __m256i nan = _mm256_and_si256(is_nan, _mm256_set1_epi16(0x7e00));
    const __m256i half = _mm256_or_si256(_mm256_or_si256(_mm256_slli_epi16(magnitude, 7), sign),
                                         nan);
    const __m256 factor = _mm256_set1_ps(256);
    return (struct lanes){
        _mm256_mul_ps(_mm256_cvtph_ps(_mm256_castsi256_si128(half)), factor),
        _mm256_mul_ps(_mm256_cvtph_ps(_mm256_extracti128_si256(half, 1)), factor),
    };
}

// 4 steps of 8 rows, step by step.
INLINE __m256i steps_of(__m256i rows)
{
    const __m256i turn = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15,
                                          0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(rows, turn),
                                       _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

// The two steps of 8 rows that `codes` has, to their columns.
INLINE void store_steps(float *out, __m256 scale, __m128i codes)
{
    const struct lanes v = e4m3(codes);
    _mm256_store_ps(out, _mm256_mul_ps(scale, v.lo));
    _mm256_store_ps(out + CPU_PANEL, _mm256_mul_ps(scale, v.hi));
}

INLINE void decode_tile_fp8(const char *column, uint32_t tile, float *out)
{
    const struct unit d = unit_at(column, 0);
    const __m256 lo = _mm256_castsi256_ps(d.lo), hi = _mm256_castsi256_ps(d.hi);
    for (uint32_t u = 0; u < TILE_UNITS; u++, out += 4 * CPU_PANEL) {
        const struct unit codes = unit_at(column, 4 + tile * TILE + 4 * u);
        const __m256i first = steps_of(codes.lo), last = steps_of(codes.hi);
        store_steps(out, lo, _mm256_castsi256_si128(first));
        store_steps(out + 8, hi, _mm256_castsi256_si128(last));
        store_steps(out + 2 * CPU_PANEL, lo, _mm256_extracti128_si256(first, 1));
        store_steps(out + 2 * CPU_PANEL + 8, hi, _mm256_extracti128_si256(last, 1));
    }
}

// ---- panels ----------------------------------------------------------------------------------

INLINE void panel_any(enum vkmoe_dtype type, uint32_t values, uint32_t size, const void *const *x,
                      uint32_t n_rows, const char *panel, uint32_t k, float *out)
{
    _Alignas(64) float w[TILE * CPU_PANEL];
    for (uint32_t first = 0; first < k; first += TILE) {
        const char *column = panel + (size_t) (first / values) * size * CPU_PANEL;
        const uint32_t tile = first % values / TILE, n = k - first < TILE ? k - first : TILE;
        read_ahead(column, tile, values / TILE, size);
        if (type == VKMOE_FP8)
            decode_tile_fp8(column, tile, w);
        else
            decode_tile(type, column, tile, w);
        moe_cpu_steps_avx2((const float *const *) x, n_rows, first, w, n, first > 0, out);
    }
}

#define PANEL(name, type, values, size)                                                            \
    static void panel_##name(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k, \
                             float *out)                                                           \
    {                                                                                              \
        panel_any(type, values, size, x, n_rows, panel, k, out);                                   \
    }
CPU_BLOCK_LIST(PANEL)

void moe_cpu_blocks_avx2(struct cpu_kernels *kernels)
{
#define ENTRY(name, type, values, size) kernels->panel[CPU_OPERAND_F32][type] = panel_##name;
    CPU_BLOCK_LIST(ENTRY)
}
