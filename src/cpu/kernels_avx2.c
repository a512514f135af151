// SPDX-License-Identifier: MIT
// Kernels for AVX2, FMA and F16C. This file alone is compiled for them, so it includes no header of
// ours that has code in it: a shared inline function could otherwise be taken from here and run on
// a processor without them.
#include "cpu/kernels.h"

#include <immintrin.h>

enum {
    // 6 rows of 16 outputs are 12 accumulators: with two vectors of weights and one of x they fill
    // the 16 registers, and 12 chains cover the latency of two fused multiply-adds a cycle.
    BLOCK_ROWS = 6,
    // Rows of a panel that stay in the first-level cache while all row blocks use them.
    BLOCK_K = 256,
};

enum weight_type { W_F32, W_F16, W_BF16 };

#define INLINE static inline __attribute__((always_inline))

INLINE size_t unit_size(enum weight_type type)
{
    return type == W_F16 ? 2 : 4;
}

// 16 columns of one step as f32, or of the two steps of a unit of bf16; exact.
INLINE void load_weights(enum weight_type type, const char *units, __m256 *lo, __m256 *hi)
{
    switch (type) {
    case W_F32:
        lo[0] = _mm256_load_ps((const float *) units);
        hi[0] = _mm256_load_ps((const float *) units + 8);
        return;
    case W_F16:
        lo[0] = _mm256_cvtph_ps(_mm_load_si128((const __m128i *) units));
        hi[0] = _mm256_cvtph_ps(_mm_load_si128((const __m128i *) units + 1));
        return;
    case W_BF16:
        break;
    }
    const __m256i upper = _mm256_set1_epi32(-65536);
    const __m256i first = _mm256_load_si256((const __m256i *) units);
    const __m256i last = _mm256_load_si256((const __m256i *) units + 1);
    lo[0] = _mm256_castsi256_ps(_mm256_slli_epi32(first, 16));
    hi[0] = _mm256_castsi256_ps(_mm256_slli_epi32(last, 16));
    lo[1] = _mm256_castsi256_ps(_mm256_and_si256(first, upper));
    hi[1] = _mm256_castsi256_ps(_mm256_and_si256(last, upper));
}

// Begins or, with `more`, goes on with chains of n_rows (a constant where this is expanded) by k
// steps, starting with x[r][first]. Row r of out is at out[r], or without `scattered` 16 r behind
// out[0].
INLINE void block(enum weight_type type, uint32_t n_rows, const float *const *x, uint32_t first,
                  const char *panel, uint32_t k, bool more, float *const *out, bool scattered)
{
    const uint32_t n_values = type == W_BF16 ? 2 : 1;
    const float *row[BLOCK_ROWS];
    float *to[BLOCK_ROWS];
    __m256 lo[BLOCK_ROWS], hi[BLOCK_ROWS], w_lo[2], w_hi[2];
#pragma GCC unroll 6
    for (uint32_t r = 0; r < n_rows; r++) {
        row[r] = x[r] + first;
        to[r] = scattered ? out[r] : out[0] + r * CPU_PANEL;
        lo[r] = more ? _mm256_loadu_ps(to[r]) : _mm256_setzero_ps();
        hi[r] = more ? _mm256_loadu_ps(to[r] + 8) : _mm256_setzero_ps();
    }
    for (uint32_t i = 0; i + n_values <= k; i += n_values, panel += unit_size(type) * CPU_PANEL) {
        load_weights(type, panel, w_lo, w_hi);
#pragma GCC unroll 2
        for (uint32_t j = 0; j < n_values; j++) {
#pragma GCC unroll 6
            for (uint32_t r = 0; r < n_rows; r++) {
                __m256 v = _mm256_broadcast_ss(row[r] + i + j);
                lo[r] = _mm256_fmadd_ps(v, w_lo[j], lo[r]);
                hi[r] = _mm256_fmadd_ps(v, w_hi[j], hi[r]);
            }
        }
    }
    if (k % n_values > 0) {
        load_weights(type, panel, w_lo, w_hi);
#pragma GCC unroll 6
        for (uint32_t r = 0; r < n_rows; r++) {
            __m256 v = _mm256_broadcast_ss(row[r] + k - 1);
            lo[r] = _mm256_fmadd_ps(v, w_lo[0], lo[r]);
            hi[r] = _mm256_fmadd_ps(v, w_hi[0], hi[r]);
        }
    }
#pragma GCC unroll 6
    for (uint32_t r = 0; r < n_rows; r++) {
        _mm256_storeu_ps(to[r], lo[r]);
        _mm256_storeu_ps(to[r] + 8, hi[r]);
    }
}

INLINE void block_of(enum weight_type type, uint32_t n_rows, const float *const *x, uint32_t first,
                     const char *panel, uint32_t k, bool more, float *const *out, bool scattered)
{
    switch (n_rows) {
    case 1:
        block(type, 1, x, first, panel, k, more, out, scattered);
        return;
    case 2:
        block(type, 2, x, first, panel, k, more, out, scattered);
        return;
    case 3:
        block(type, 3, x, first, panel, k, more, out, scattered);
        return;
    case 4:
        block(type, 4, x, first, panel, k, more, out, scattered);
        return;
    case 5:
        block(type, 5, x, first, panel, k, more, out, scattered);
        return;
    default:
        block(type, BLOCK_ROWS, x, first, panel, k, more, out, scattered);
    }
}

INLINE void panel_any(enum weight_type type, const void *const *rows_of_x, uint32_t n_rows,
                      const void *panel, uint32_t k, float *out)
{
    const float *const *x = (const float *const *) rows_of_x;
    // One block of rows reads the panel once anyway: then no chain is interrupted.
    const uint32_t step = n_rows > BLOCK_ROWS ? BLOCK_K : k;
    for (uint32_t first = 0; first < k; first += step) {
        const size_t unit = first / (type == W_BF16 ? 2 : 1);
        const char *w = (const char *) panel + unit * CPU_PANEL * unit_size(type);
        uint32_t n = k - first < step ? k - first : step;
        for (uint32_t r = 0; r < n_rows; r += BLOCK_ROWS) {
            uint32_t rows = n_rows - r < BLOCK_ROWS ? n_rows - r : BLOCK_ROWS;
            float *to = out + (size_t) r * CPU_PANEL;
            block_of(type, rows, x + r, first, w, n, first > 0, &to, false);
        }
    }
}

static void panel_f32(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                      float *out)
{
    panel_any(W_F32, x, n_rows, panel, k, out);
}

static void panel_f16(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                      float *out)
{
    panel_any(W_F16, x, n_rows, panel, k, out);
}

static void panel_bf16(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                       float *out)
{
    panel_any(W_BF16, x, n_rows, panel, k, out);
}

static void chain(const float *const *x, uint32_t n_rows, uint32_t first, const float *panel,
                  uint32_t k, bool more, float *const *out)
{
    for (uint32_t r = 0; r < n_rows; r += BLOCK_ROWS) {
        uint32_t rows = n_rows - r < BLOCK_ROWS ? n_rows - r : BLOCK_ROWS;
        block_of(W_F32, rows, x + r, first, (const char *) panel, k, more, out + r, true);
    }
}

void moe_cpu_steps_avx2(const float *const *x, uint32_t n_rows, uint32_t first, const float *panel,
                        uint32_t k, bool more, float *out)
{
    for (uint32_t r = 0; r < n_rows; r += BLOCK_ROWS, out += BLOCK_ROWS * CPU_PANEL) {
        uint32_t rows = n_rows - r < BLOCK_ROWS ? n_rows - r : BLOCK_ROWS;
        block_of(W_F32, rows, x + r, first, (const char *) panel, k, more, &out, false);
    }
}

// 8 rows of 8 to 8 columns of `out`: pairs, pairs of pairs, halves.
INLINE void transpose_8x8(const float *const *rows, uint32_t first, float *out, size_t stride)
{
    __m256 a[8], b[8];
#pragma GCC unroll 8
    for (int r = 0; r < 8; r++)
        a[r] = _mm256_loadu_ps(rows[r] + first);
#pragma GCC unroll 4
    for (int r = 0; r < 8; r += 2) {
        b[r] = _mm256_unpacklo_ps(a[r], a[r + 1]);
        b[r + 1] = _mm256_unpackhi_ps(a[r], a[r + 1]);
    }
#pragma GCC unroll 2
    for (int r = 0; r < 8; r += 4) {
        a[r] = _mm256_shuffle_ps(b[r], b[r + 2], 0x44);
        a[r + 1] = _mm256_shuffle_ps(b[r], b[r + 2], 0xee);
        a[r + 2] = _mm256_shuffle_ps(b[r + 1], b[r + 3], 0x44);
        a[r + 3] = _mm256_shuffle_ps(b[r + 1], b[r + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        _mm256_store_ps(out + i * stride, _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
        _mm256_store_ps(out + (i + 4) * stride, _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
    }
}

static void transpose(const float *const *rows, uint32_t n_rows, uint32_t first, uint32_t n,
                      float *out, uint32_t stride)
{
    uint32_t i = 0;
    for (; n_rows == CPU_PANEL && i + 8 <= n; i += 8) {
        transpose_8x8(rows, first + i, out + (size_t) i * stride, stride);
        transpose_8x8(rows + 8, first + i, out + (size_t) i * stride + 8, stride);
    }
    for (; i < n; i++)
        for (uint32_t r = 0; r < CPU_PANEL; r++)
            out[(size_t) i * stride + r] = r < n_rows ? rows[r][first + i] : 0.0f;
}

// ---- 16-bit types ----------------------------------------------------------------------------

INLINE __m256 decode_8(enum weight_type type, const uint16_t *stored)
{
    const __m128i bits = _mm_loadu_si128((const __m128i *) stored);
    if (type == W_F16)
        return _mm256_cvtph_ps(bits);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}

// The upper half of each number: nearest even, and NaN made quiet.
INLINE __m256i bf16_of(__m256 v)
{
    const __m256i bits = _mm256_castps_si256(v), high = _mm256_srli_epi32(bits, 16);
    const __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
    const __m256i sum = _mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(sum, odd), 16);
    const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
    const __m256i is_nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(rounded, quiet, is_nan);
}

INLINE __m128i encode_8(enum weight_type type, const float *values)
{
    const __m256 v = _mm256_loadu_ps(values);
    if (type == W_F16)
        return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256i wide = bf16_of(v);
    return _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
}

// What is left of n is computed in arrays of 8, as the rest is.
INLINE void decode_any(enum weight_type type, const uint16_t *stored, float *out, size_t n)
{
    uint16_t last[8] = {0};
    float last_out[8];
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(out + i, decode_8(type, stored + i));
    if (i == n)
        return;
    for (size_t j = i; j < n; j++)
        last[j - i] = stored[j];
    _mm256_storeu_ps(last_out, decode_8(type, last));
    for (size_t j = i; j < n; j++)
        out[j] = last_out[j - i];
}

INLINE void encode_any(enum weight_type type, const float *values, uint16_t *out, size_t n)
{
    float last[8] = {0};
    uint16_t last_out[8];
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *) (out + i), encode_8(type, values + i));
    if (i == n)
        return;
    for (size_t j = i; j < n; j++)
        last[j - i] = values[j];
    _mm_storeu_si128((__m128i *) last_out, encode_8(type, last));
    for (size_t j = i; j < n; j++)
        out[j] = last_out[j - i];
}

static void decode_f16(const uint16_t *stored, float *out, size_t n)
{
    decode_any(W_F16, stored, out, n);
}

static void decode_bf16(const uint16_t *stored, float *out, size_t n)
{
    decode_any(W_BF16, stored, out, n);
}

static void encode_f16(const float *values, uint16_t *out, size_t n)
{
    encode_any(W_F16, values, out, n);
}

static void encode_bf16(const float *values, uint16_t *out, size_t n)
{
    encode_any(W_BF16, values, out, n);
}

// ---- probes ----------------------------------------------------------------------------------

// The hardware's own prefetch stops at every page.
enum { READ_AHEAD = 2048 };

static uint32_t read_words(const uint32_t *memory, size_t n)
{
    __m256i sum[8];
    uint32_t lanes[8], total = 0;
    for (int j = 0; j < 8; j++)
        sum[j] = _mm256_setzero_si256();
    for (size_t i = 0; i < n; i += 64) {
        const char *here = (const char *) (memory + i);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            _mm_prefetch(here + READ_AHEAD + 64 * j, _MM_HINT_T0);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            sum[j] = _mm256_add_epi32(sum[j], _mm256_load_si256((const __m256i *) here + j));
    }
    for (int j = 1; j < 8; j++)
        sum[0] = _mm256_add_epi32(sum[0], sum[j]);
    _mm256_storeu_si256((__m256i *) lanes, sum[0]);
    for (int j = 0; j < 8; j++)
        total += lanes[j];
    return total;
}

// 12 chains of 8, as in a block of rows. They begin differently: equal ones would be made one.
static float peak(uint64_t n_rounds, float start, float factor, float term)
{
    const __m256 f = _mm256_set1_ps(factor), t = _mm256_set1_ps(term);
    __m256 v[12];
    float lanes[8], total = 0;
#pragma GCC unroll 12
    for (int j = 0; j < 12; j++)
        v[j] = _mm256_set1_ps((float) j * start);
    for (uint64_t i = 0; i < n_rounds; i++)
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++)
            v[j] = _mm256_fmadd_ps(v[j], f, t);
#pragma GCC unroll 12
    for (int j = 1; j < 12; j++)
        v[0] = _mm256_add_ps(v[0], v[j]);
    _mm256_storeu_ps(lanes, v[0]);
    for (int j = 0; j < 8; j++)
        total += lanes[j];
    return total / 96;
}

void moe_cpu_kernels_avx2(struct cpu_kernels *kernels)
{
    kernels->panel[CPU_OPERAND_F32][W_F32] = panel_f32;
    kernels->panel[CPU_OPERAND_F32][W_F16] = panel_f16;
    kernels->panel[CPU_OPERAND_F32][W_BF16] = panel_bf16;
    kernels->decode[W_F16] = decode_f16;
    kernels->decode[W_BF16] = decode_bf16;
    kernels->encode[W_F16] = encode_f16;
    kernels->encode[W_BF16] = encode_bf16;
    kernels->chain = chain;
    kernels->transpose = transpose;
    kernels->read = read_words;
    kernels->peak[CPU_OPERAND_F32] = peak;
}
