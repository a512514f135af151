// SPDX-License-Identifier: MIT
// Panels of types of blocks for AVX-512, with operands of f32: 32 steps of 16 rows at a time become
// f32 in the first-level cache and are multiplied there. Numbers are those of core/quant.h, bit by
// bit: products of scales and codes are exact, so that fusing a subtraction changes nothing. With
// one row the chain of each output takes longer than decoding does. As kernels_avx2.c, this file
// includes no header of ours that has code for other levels in it.
#include "cpu/blocks_avx512.h"

// Byte i of each row becomes the highest of a number whose other bytes are 0.
INLINE __m512i highest(__m512i v, uint32_t i)
{
    const int first = (int) (0x00808080u + (i << 24)), each = 4 << 24;
    const __m128i row = _mm_setr_epi32(first, first + each, first + 2 * each, first + 3 * each);
    return _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(row));
}

// Codes with their signs, if the type has any.
INLINE __m512i signed_codes(enum vkmoe_dtype type, const char *column, uint32_t tile, uint32_t u)
{
    const __m512i codes = codes_of(type, column, tile, u);
    if (type == VKMOE_Q4_0)
        return _mm512_sub_epi8(codes, _mm512_set1_epi8(8));
    if (type == VKMOE_Q6_K)
        return _mm512_sub_epi8(codes, _mm512_set1_epi8(32));
    return codes;
}

// Codes are 2^24 times too large and scales 2^24 times too small: no f16 comes near what f32 has
// not.
INLINE void decode_scaled(enum vkmoe_dtype type, const char *column, uint32_t tile, float *out)
{
    const bool minimum = type == VKMOE_Q4_K || type == VKMOE_Q5_K || type == VKMOE_Q2_K;
    const bool parts = type == VKMOE_Q6_K || type == VKMOE_Q2_K;
    struct factors f = scales_of(type, column, tile, 0);
    __m512 scale = _mm512_mul_ps(f.scale, _mm512_set1_ps(0x1p-24f));
#pragma GCC unroll 8
    for (uint32_t u = 0; u < UNITS; u++) {
        if (parts && u == UNITS / 2) {
            f = scales_of(type, column, tile, 1);
            scale = _mm512_mul_ps(f.scale, _mm512_set1_ps(0x1p-24f));
        }
        const __m512i codes = signed_codes(type, column, tile, u);
#pragma GCC unroll 4
        for (uint32_t i = 0; i < 4; i++) {
            const __m512 code = _mm512_cvtepi32_ps(highest(codes, i));
            _mm512_store_ps(out + (4 * u + i) * CPU_PANEL,
                            minimum ? _mm512_fmsub_ps(scale, code, f.minimum)
                                    : _mm512_mul_ps(scale, code));
        }
    }
}

// Scales come near the smallest and the largest of f32. Looking up reads 4 bits of a number.
INLINE void decode_mxfp4(const char *column, float *out)
{
    const __m512 halves = _mm512_setr_ps(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
    const __m512 scale = scales_of(VKMOE_MXFP4, column, 0, 0).scale;
#pragma GCC unroll 4
    for (uint32_t u = 0; u < UNITS / 2; u++) {
        const __m512i v = unit_at(column, 1 + 4 * u);
#pragma GCC unroll 8
        for (uint32_t i = 0; i < 8; i++) {
            const __m512 code = _mm512_permutexvar_ps(_mm512_srli_epi32(v, 4 * i), halves);
            const uint32_t step = i % 2 * 16 + 4 * u + i / 2;
            _mm512_store_ps(out + step * CPU_PANEL, _mm512_mul_ps(scale, code));
        }
    }
}

// E4M3 in the upper byte of each 16 bits, as f16: with its exponent where that has it, it is 2^-8
// times its value, subnormal numbers too; only NaN has to be made one.
INLINE __m512i f16_of_e4m3(__m512i upper)
{
    const __m512i magnitude = _mm512_and_si512(upper, _mm512_set1_epi16(0x7f00));
    const __m512i sign = _mm512_and_si512(upper, _mm512_set1_epi16(-0x8000));
    const __mmask32 is_nan = _mm512_cmpeq_epi16_mask(magnitude, _mm512_set1_epi16(0x7f00));
    const __m512i bits_of = _mm512_or_si512(sign, _mm512_srli_epi16(magnitude, 1));
    return _mm512_mask_mov_epi16(bits_of, is_nan, _mm512_set1_epi16(0x7e00));
}

INLINE void decode_fp8(const char *column, uint32_t tile, float *out)
{
    const __m512 d = _mm512_castsi512_ps(unit_at(column, 0)), factor = _mm512_set1_ps(256);
#pragma GCC unroll 8
    for (uint32_t u = 0; u < UNITS; u++) {
        const __m512i v = unit_at(column, 4 + tile * TILE + 4 * u);
        const __m512i even = f16_of_e4m3(_mm512_slli_epi16(v, 8)), odd = f16_of_e4m3(v);
#pragma GCC unroll 4
        for (uint32_t i = 0; i < 4; i++) {
            const __m512 code = _mm512_mul_ps(f16_of(i % 2 ? odd : even, i / 2), factor);
            _mm512_store_ps(out + (4 * u + i) * CPU_PANEL, _mm512_mul_ps(d, code));
        }
    }
}

INLINE void decode(enum vkmoe_dtype type, const char *column, uint32_t tile, float *out)
{
    if (type == VKMOE_FP8)
        decode_fp8(column, tile, out);
    else if (type == VKMOE_MXFP4)
        decode_mxfp4(column, out);
    else
        decode_scaled(type, column, tile, out);
}

INLINE void panel_any(enum vkmoe_dtype type, uint32_t values, uint32_t size, const float *const *x,
                      uint32_t n_rows, const char *panel, uint32_t k, float *out)
{
    _Alignas(64) float w[TILE * CPU_PANEL];
    const uint32_t n_tiles = values / TILE; // of a block
    for (uint32_t first = 0; first < k; panel += size * CPU_PANEL) {
#pragma GCC unroll 8
        for (uint32_t t = 0; t < n_tiles && first < k; t++, first += TILE) {
            const uint32_t n = k - first < TILE ? k - first : TILE;
            fetch_ahead(panel, size, t, n_tiles);
            decode(type, panel, t, w);
            moe_cpu_steps_avx512(x, n_rows, first, w, n, first > 0, out);
        }
    }
}

#define PANEL(name, type, values, size)                                                            \
    static void panel_##name(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k, \
                             float *out)                                                           \
    {                                                                                              \
        panel_any(type, values, size, (const float *const *) x, n_rows, panel, k, out);            \
    }
CPU_BLOCK_LIST(PANEL)

void moe_cpu_blocks_avx512(struct cpu_kernels *kernels)
{
#define ENTRY(name, type, values, size) kernels->panel[CPU_OPERAND_F32][type] = panel_##name;
    CPU_BLOCK_LIST(ENTRY)
}
