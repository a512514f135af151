// SPDX-License-Identifier: MIT
// Panels of types of blocks for AVX2, FMA and F16C: 32 steps of 16 rows at a time become f32 in the
// first-level cache and are multiplied there. Numbers are those of core/quant.h, bit by bit:
// products of scales and codes are exact, so that fusing a subtraction changes nothing. As
// kernels_avx2.c, this file includes no header of ours that has code in it.
//
// What is byte `at` of 16 blocks is a vector, 16 `at` bytes from the begin of their column.
#include "cpu/kernels.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum { TILE = 32 }; // steps that are decoded together

// A number of each of 16 rows.
struct lanes {
    __m256 lo, hi;
};

INLINE __m128i bytes(const char *column, uint32_t at)
{
    return _mm_load_si128((const __m128i *) column + at);
}

// Bits of each byte from `shift` on.
INLINE __m128i bits(__m128i v, uint32_t shift, int mask)
{
    return _mm_and_si128(_mm_srl_epi16(v, _mm_cvtsi32_si128((int) shift)),
                         _mm_set1_epi8((char) mask));
}

// Signed bytes as numbers.
INLINE struct lanes numbers(__m128i v)
{
    return (struct lanes){
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v)),
        _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(v, v))),
    };
}

INLINE struct lanes f16_at(const char *column, uint32_t at)
{
    const __m128i low = bytes(column, at), high = bytes(column, at + 1);
    return (struct lanes){_mm256_cvtph_ps(_mm_unpacklo_epi8(low, high)),
                          _mm256_cvtph_ps(_mm_unpackhi_epi8(low, high))};
}

INLINE struct lanes times(struct lanes a, struct lanes b)
{
    return (struct lanes){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}

INLINE void store(float *out, uint32_t step, struct lanes v)
{
    _mm256_store_ps(out + step * CPU_PANEL, v.lo);
    _mm256_store_ps(out + step * CPU_PANEL + 8, v.hi);
}

// scale * code - minimum
INLINE void store_less(float *out, uint32_t step, struct lanes scale, __m128i codes,
                       struct lanes minimum)
{
    const struct lanes code = numbers(codes);
    store(out, step, (struct lanes){_mm256_fmsub_ps(scale.lo, code.lo, minimum.lo),
                                    _mm256_fmsub_ps(scale.hi, code.hi, minimum.hi)});
}

// ---- one scale for 32 values -----------------------------------------------------------------

INLINE void tile_q8_0(const char *column, uint32_t tile, float *out)
{
    const struct lanes d = f16_at(column, 0);
    (void) tile; // a block is one
    for (uint32_t i = 0; i < TILE; i++)
        store(out, i, times(d, numbers(bytes(column, 2 + i))));
}

INLINE void tile_q4_0(const char *column, uint32_t tile, float *out)
{
    const struct lanes d = f16_at(column, 0);
    const __m128i eight = _mm_set1_epi8(8);
    (void) tile;
    for (uint32_t i = 0; i < 16; i++) {
        const __m128i v = bytes(column, 2 + i);
        store(out, i, times(d, numbers(_mm_sub_epi8(bits(v, 0, 15), eight))));
        store(out, i + 16, times(d, numbers(_mm_sub_epi8(bits(v, 4, 15), eight))));
    }
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

INLINE void tile_mxfp4(const char *column, uint32_t tile, float *out)
{
    const __m128i halves = _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
    const __m128i e = bytes(column, 0);
    const struct lanes d = {half_power(e), half_power(_mm_unpackhi_epi64(e, e))};
    (void) tile;
    for (uint32_t i = 0; i < 16; i++) {
        const __m128i v = bytes(column, 1 + i);
        store(out, i, times(d, numbers(_mm_shuffle_epi8(halves, bits(v, 0, 15)))));
        store(out, i + 16, times(d, numbers(_mm_shuffle_epi8(halves, bits(v, 4, 15)))));
    }
}

// ---- q4_K, q5_K ------------------------------------------------------------------------------

struct scales {
    struct lanes scale, minimum;
};

// Of part `part`: 6 bits each, as in core/quant_k.c.
INLINE struct scales scales_6(const char *column, uint32_t part)
{
    const struct lanes d = f16_at(column, 0), m = f16_at(column, 2);
    __m128i scale, minimum;
    if (part < 4) {
        scale = bits(bytes(column, 4 + part), 0, 63);
        minimum = bits(bytes(column, 8 + part), 0, 63);
    } else {
        const __m128i low = bytes(column, 8 + part);
        scale = _mm_or_si128(bits(low, 0, 15), bits(bytes(column, part), 2, 48));
        minimum = _mm_or_si128(bits(low, 4, 15), bits(bytes(column, 4 + part), 2, 48));
    }
    return (struct scales){times(d, numbers(scale)), times(m, numbers(minimum))};
}

INLINE void tile_q4_K(const char *column, uint32_t tile, float *out)
{
    const struct scales s = scales_6(column, tile);
    for (uint32_t i = 0; i < TILE; i++) {
        const __m128i codes = bits(bytes(column, 16 + tile / 2 * 32 + i), tile % 2 * 4, 15);
        store_less(out, i, s.scale, codes, s.minimum);
    }
}

INLINE void tile_q5_K(const char *column, uint32_t tile, float *out)
{
    const struct scales s = scales_6(column, tile);
    for (uint32_t i = 0; i < TILE; i++) {
        const __m128i low = bits(bytes(column, 48 + tile / 2 * 32 + i), tile % 2 * 4, 15);
        const __m128i fifth = _mm_slli_epi16(bits(bytes(column, 16 + i), tile, 1), 4);
        store_less(out, i, s.scale, _mm_or_si128(low, fifth), s.minimum);
    }
}

// ---- q2_K, q6_K ------------------------------------------------------------------------------

// Tile t is quarter t % 4 of half t / 4; its two parts are 2 t and 2 t + 1.

INLINE void tile_q2_K(const char *column, uint32_t tile, float *out)
{
    const struct lanes d = f16_at(column, 80), m = f16_at(column, 82);
    for (uint32_t part = 0; part < 2; part++) {
        const __m128i both = bytes(column, 2 * tile + part);
        const struct lanes scale = times(d, numbers(bits(both, 0, 15)));
        const struct lanes minimum = times(m, numbers(bits(both, 4, 15)));
        for (uint32_t i = part * 16; i < part * 16 + 16; i++) {
            const __m128i codes = bits(bytes(column, 16 + tile / 4 * 32 + i), tile % 4 * 2, 3);
            store_less(out, i, scale, codes, minimum);
        }
    }
}

INLINE void tile_q6_K(const char *column, uint32_t tile, float *out)
{
    const struct lanes d = f16_at(column, 208);
    const uint32_t half = tile / 4, quarter = tile % 4;
    for (uint32_t part = 0; part < 2; part++) {
        const struct lanes scale = times(d, numbers(bytes(column, 192 + 2 * tile + part)));
        for (uint32_t i = part * 16; i < part * 16 + 16; i++) {
            const __m128i low = bytes(column, 64 * half + quarter % 2 * 32 + i);
            const __m128i high = bits(bytes(column, 128 + 32 * half + i), 2 * quarter, 3);
            const __m128i code = _mm_or_si128(bits(low, quarter / 2 * 4, 15),
                                              _mm_slli_epi16(high, 4));
            store(out, i, times(scale, numbers(_mm_sub_epi8(code, _mm_set1_epi8(32)))));
        }
    }
}

// ---- fp8 -------------------------------------------------------------------------------------

INLINE struct lanes f32_at(const char *column, uint32_t at)
{
    const __m128i b0 = bytes(column, at), b1 = bytes(column, at + 1);
    const __m128i b2 = bytes(column, at + 2), b3 = bytes(column, at + 3);
    const __m128i a = _mm_unpacklo_epi8(b0, b1), b = _mm_unpackhi_epi8(b0, b1);
    const __m128i c = _mm_unpacklo_epi8(b2, b3), e = _mm_unpackhi_epi8(b2, b3);
    return (struct lanes){
        _mm256_castsi256_ps(
            _mm256_setr_m128i(_mm_unpacklo_epi16(a, c), _mm_unpackhi_epi16(a, c))),
        _mm256_castsi256_ps(
            _mm256_setr_m128i(_mm_unpacklo_epi16(b, e), _mm_unpackhi_epi16(b, e))),
    };
}

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

INLINE void tile_fp8(const char *column, uint32_t tile, float *out)
{
    const struct lanes d = f32_at(column, 0);
    for (uint32_t i = 0; i < TILE; i++)
        store(out, i, times(d, e4m3(bytes(column, 4 + tile * TILE + i))));
}

// ---- panels ----------------------------------------------------------------------------------

typedef void tile_fn(const char *column, uint32_t tile, float *out);

INLINE void panel_any(tile_fn *decode, uint32_t values, uint32_t size, const float *const *x,
                      uint32_t n_rows, const char *panel, uint32_t k, float *out)
{
    _Alignas(64) float w[TILE * CPU_PANEL];
    for (uint32_t first = 0; first < k; first += TILE) {
        const char *column = panel + (size_t) (first / values) * size * CPU_PANEL;
        const uint32_t n = k - first < TILE ? k - first : TILE;
        decode(column, first % values / TILE, w);
        moe_cpu_steps_avx2(x, n_rows, first, w, n, first > 0, out);
    }
}

// X(name, type, values of a block, its bytes)
#define BLOCKS(X)                                                                                  \
    X(q8_0, VKMOE_Q8_0, 32, 34)                                                                    \
    X(q4_0, VKMOE_Q4_0, 32, 18)                                                                    \
    X(q4_K, VKMOE_Q4_K, 256, 144)                                                                  \
    X(q5_K, VKMOE_Q5_K, 256, 176)                                                                  \
    X(q6_K, VKMOE_Q6_K, 256, 210)                                                                  \
    X(q2_K, VKMOE_Q2_K, 256, 84)                                                                   \
    X(mxfp4, VKMOE_MXFP4, 32, 17)                                                                  \
    X(fp8, VKMOE_FP8, 128, 132)

#define PANEL(name, type, values, size)                                                            \
    static void panel_##name(const float *const *x, uint32_t n_rows, const void *panel,            \
                             uint32_t k, float *out)                                               \
    {                                                                                              \
        panel_any(tile_##name, values, size, x, n_rows, panel, k, out);                            \
    }
BLOCKS(PANEL)

void moe_cpu_blocks_avx2(struct cpu_kernels *kernels)
{
#define ENTRY(name, type, values, size) kernels->panel[type] = panel_##name;
    BLOCKS(ENTRY)
}
