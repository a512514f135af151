// SPDX-License-Identifier: MIT
// Kernels for AVX-512 F, BW, DQ and VL. This file alone is compiled for them, so it includes no
// header of ours that has code in it (kernels_avx2.c says why).
//
// A row times a panel is one register of 16 sums. A block of rows shares the loads of weights, and
// takes each number of x straight from memory, broadcast by the instruction that multiplies it. So
// a step of R rows is R multiply-adds and R + 1 loads, of which there are as many a cycle: the more
// rows, the less the one load costs. There are more rows than registers for their addresses; of
// rows that are the same distance apart, few registers make up all addresses.
#include "cpu/floats_avx512.h"

enum {
    BLOCK_ROWS = MAX_EVEN_ROWS, // sums; with weights of STEPS steps they leave 4 of 32 registers
    // Steps of a panel that stay in the first-level cache while all row blocks use them.
    BLOCK_K = 256,
    AHEAD = 2048, // bytes, of the probe that reads
};

// n_steps of n_rows, and on to the next; both are constants where this is expanded.
INLINE void multiply(uint32_t n_rows, struct rows *rows, uint32_t n_steps, const __m512 *w,
                     __m512 *sum)
{
    UNROLL
    for (uint32_t j = 0; j < n_steps; j++)
        UNROLL
        for (uint32_t r = 0; r < n_rows; r++)
            sum[r] = _mm512_fmadd_ps(_mm512_set1_ps(row_of(n_rows, rows, r)[j]), w[j], sum[r]);
    rows_advance(n_rows, rows, n_steps);
}

// A part of a product: chains are begun or, with `more`, gone on with by k steps, starting with
// x[r][first]. With `fetch` the panel is not in the cache yet.
struct part {
    const char *panel;
    uint32_t first, k;
    bool more, fetch;
};

// n_rows is a constant where this is expanded.
INLINE void block(enum weight_type type, uint32_t n_rows, const float *const *x,
                  const struct part *part, float *const *out)
{
    __m512 sum[BLOCK_ROWS], w[STEPS];
    const size_t size = step_size(type);
    const bool fetch = part->fetch;
    const char *panel = part->panel;
    uint32_t left = part->k;
    struct rows rows;
    rows_init(n_rows, x, part->first, &rows);
    UNROLL
    for (uint32_t r = 0; r < n_rows; r++)
        sum[r] = part->more ? _mm512_loadu_ps(out[r]) : _mm512_setzero_ps();
    for (; left >= STEPS; left -= STEPS, panel += STEPS * size) {
        if (fetch)
            UNROLL
            for (size_t line = 0; line < STEPS * size; line += 64)
                fetch_line(panel + line);
        load_two(type, panel, w);
        load_two(type, panel + 2 * size, w + 2);
        multiply(n_rows, &rows, STEPS, w, sum);
    }
    if (left >= 2) {
        load_two(type, panel, w);
        multiply(n_rows, &rows, 2, w, sum);
        left -= 2, panel += 2 * size;
    }
    if (left > 0) {
        w[0] = load_last(type, panel);
        multiply(n_rows, &rows, 1, w, sum);
    }
    UNROLL
    for (uint32_t r = 0; r < n_rows; r++)
        _mm512_storeu_ps(out[r], sum[r]);
}

typedef void block_fn(const float *const *x, const struct part *part, float *const *out);

#define FOR_ROWS(X, type)                                                                          \
    X(type, 1) X(type, 2) X(type, 3) X(type, 4) X(type, 5) X(type, 6) X(type, 7) X(type, 8)        \
    X(type, 9) X(type, 10) X(type, 11) X(type, 12) X(type, 13) X(type, 14) X(type, 15)             \
    X(type, 16) X(type, 17) X(type, 18) X(type, 19) X(type, 20) X(type, 21) X(type, 22)            \
    X(type, 23) X(type, 24)
#define DEFINE(type, n)                                                                            \
    static void block_##type##_##n(const float *const *x, const struct part *part,                 \
                                   float *const *out)                                              \
    {                                                                                              \
        block(type, n, x, part, out);                                                              \
    }
#define ENTRY(type, n) [type][n] = block_##type##_##n,

FOR_ROWS(DEFINE, W_F32)
FOR_ROWS(DEFINE, W_F16)
FOR_ROWS(DEFINE, W_BF16)

static block_fn *const blocks[W_N][BLOCK_ROWS + 1] = {
    FOR_ROWS(ENTRY, W_F32) FOR_ROWS(ENTRY, W_F16) FOR_ROWS(ENTRY, W_BF16)};

// Rows of the first of as few blocks as there can be, all nearly equal.
INLINE uint32_t next_block(const float *const *x, uint32_t n_rows)
{
    const uint32_t most = n_rows <= FEW_ROWS || !evenly_apart(x, n_rows) ? FEW_ROWS : BLOCK_ROWS;
    const uint32_t n_blocks = (n_rows + most - 1) / most;
    return (n_rows + n_blocks - 1) / n_blocks;
}

static void chain(const float *const *x, uint32_t n_rows, uint32_t first, const float *panel,
                  uint32_t k, bool more, float *const *out)
{
    struct part part = {(const char *) panel, first, k, more, false};
    for (uint32_t r = 0, n; r < n_rows; r += n) {
        n = next_block(x + r, n_rows - r);
        blocks[W_F32][n](x + r, &part, out + r);
    }
}

// Rows of out follow each other. The first block of rows brings the panel into the cache.
static void steps(enum weight_type type, const float *const *x, uint32_t n_rows, struct part part,
                  float *out)
{
    float *to[BLOCK_ROWS];
    for (uint32_t r = 0, n; r < n_rows; r += n, out += n * CPU_PANEL, part.fetch = false) {
        n = next_block(x + r, n_rows - r);
        for (uint32_t j = 0; j < n; j++)
            to[j] = out + j * CPU_PANEL;
        blocks[type][n](x + r, &part, to);
    }
}

void moe_cpu_steps_avx512(const float *const *x, uint32_t n_rows, uint32_t first,
                          const float *panel, uint32_t k, bool more, float *out)
{
    steps(W_F32, x, n_rows, (struct part){(const char *) panel, first, k, more, false}, out);
}

static void panel_any(enum weight_type type, const void *const *rows_of_x, uint32_t n_rows,
                      const void *panel, uint32_t k, float *out)
{
    const float *const *x = (const float *const *) rows_of_x;
    // One block of rows reads the panel once anyway: then no chain is interrupted.
    const uint32_t piece = next_block(x, n_rows) < n_rows ? BLOCK_K : k;
    struct part part = {.panel = panel, .fetch = true};
    for (; part.first < k; part.first += piece, part.panel += piece * step_size(type)) {
        part.k = k - part.first < piece ? k - part.first : piece;
        part.more = part.first > 0;
        steps(type, x, n_rows, part, out);
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

// ---- transposing -----------------------------------------------------------------------------

// Up to 16 steps of up to 16 rows: pairs, pairs of pairs, then quarters of registers.
INLINE void transpose_16(const float *const *rows, uint32_t n_rows, uint32_t first, uint32_t n,
                         float *out, size_t stride)
{
    const __mmask16 mask = (__mmask16) (0xffff >> (16 - n));
    __m512 a[16], b[16];
    UNROLL
    for (uint32_t r = 0; r < 16; r++)
        a[r] = r < n_rows ? _mm512_maskz_loadu_ps(mask, rows[r] + first) : _mm512_setzero_ps();
    UNROLL
    for (int r = 0; r < 16; r += 2) {
        b[r] = _mm512_unpacklo_ps(a[r], a[r + 1]);
        b[r + 1] = _mm512_unpackhi_ps(a[r], a[r + 1]);
    }
    // a[4 q + i]: rows 4 q to 4 q + 3 of steps i, 4 + i, 8 + i and 12 + i
    UNROLL
    for (int r = 0; r < 16; r += 4) {
        a[r] = _mm512_shuffle_ps(b[r], b[r + 2], 0x44);
        a[r + 1] = _mm512_shuffle_ps(b[r], b[r + 2], 0xee);
        a[r + 2] = _mm512_shuffle_ps(b[r + 1], b[r + 3], 0x44);
        a[r + 3] = _mm512_shuffle_ps(b[r + 1], b[r + 3], 0xee);
    }
    UNROLL
    for (int i = 0; i < 4; i++) {
        // Quarters: steps i and 8 + i of rows 0-3 and 4-7, and so on.
        const __m512 even_low = _mm512_shuffle_f32x4(a[i], a[4 + i], 0x88);
        const __m512 odd_low = _mm512_shuffle_f32x4(a[i], a[4 + i], 0xdd);
        const __m512 even_high = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0x88);
        const __m512 odd_high = _mm512_shuffle_f32x4(a[8 + i], a[12 + i], 0xdd);
        b[i] = _mm512_shuffle_f32x4(even_low, even_high, 0x88);
        b[4 + i] = _mm512_shuffle_f32x4(odd_low, odd_high, 0x88);
        b[8 + i] = _mm512_shuffle_f32x4(even_low, even_high, 0xdd);
        b[12 + i] = _mm512_shuffle_f32x4(odd_low, odd_high, 0xdd);
    }
    UNROLL
    for (uint32_t i = 0; i < 16; i++)
        if (i < n)
            _mm512_storeu_ps(out + i * stride, b[i]);
}

static void transpose(const float *const *rows, uint32_t n_rows, uint32_t first, uint32_t n,
                      float *out, uint32_t stride)
{
    uint32_t i = 0;
    for (; n_rows == CPU_PANEL && i + 16 <= n; i += 16)
        transpose_16(rows, CPU_PANEL, first + i, 16, out + (size_t) i * stride, stride);
    for (; i < n; i += 16)
        transpose_16(rows, n_rows, first + i, n - i < 16 ? n - i : 16, out + (size_t) i * stride,
                     stride);
}

// ---- 16-bit types ----------------------------------------------------------------------------

INLINE __m512 decode_16(enum weight_type type, __m256i stored)
{
    if (type == W_F16)
        return _mm512_cvtph_ps(stored);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(stored), 16));
}

// The upper half of each number: nearest even, and NaN made quiet. The instruction that BF16 has
// for it takes denormal numbers for 0.
INLINE __m512i bf16_of(__m512 v)
{
    const __m512i bits = _mm512_castps_si512(v), high = _mm512_srli_epi32(bits, 16);
    const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
    const __m512i sum = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(sum, odd), 16);
    const __mmask16 is_nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    return _mm512_mask_or_epi32(rounded, is_nan, high, _mm512_set1_epi32(0x40));
}

INLINE __m256i encode_16(enum weight_type type, __m512 v)
{
    if (type == W_F16)
        return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return _mm512_cvtepi32_epi16(bf16_of(v));
}

INLINE void decode_any(enum weight_type type, const uint16_t *stored, float *out, size_t n)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256i bits = _mm256_loadu_si256((const __m256i *) (stored + i));
        _mm512_storeu_ps(out + i, decode_16(type, bits));
    }
    if (i == n)
        return;
    const __mmask16 mask = (__mmask16) ((1u << (n - i)) - 1);
    const __m256i bits = _mm256_maskz_loadu_epi16(mask, stored + i);
    _mm512_mask_storeu_ps(out + i, mask, decode_16(type, bits));
}

INLINE void encode_any(enum weight_type type, const float *values, uint16_t *out, size_t n)
{
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const __m512 v = _mm512_loadu_ps(values + i);
        _mm256_storeu_si256((__m256i *) (out + i), encode_16(type, v));
    }
    if (i == n)
        return;
    const __mmask16 mask = (__mmask16) ((1u << (n - i)) - 1);
    const __m512 v = _mm512_maskz_loadu_ps(mask, values + i);
    _mm256_mask_storeu_epi16(out + i, mask, encode_16(type, v));
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

static uint32_t read_words(const uint32_t *memory, size_t n)
{
    __m512i sum[4];
    for (int j = 0; j < 4; j++)
        sum[j] = _mm512_setzero_si512();
    for (size_t i = 0; i < n; i += CPU_READ_WORDS) {
        const char *here = (const char *) (memory + i);
        UNROLL
        for (int j = 0; j < 4; j++) {
            _mm_prefetch(here + AHEAD + 64 * j, _MM_HINT_T0);
            sum[j] = _mm512_add_epi32(sum[j], _mm512_load_si512(here + 64 * j));
        }
    }
    for (int j = 1; j < 4; j++)
        sum[0] = _mm512_add_epi32(sum[0], sum[j]);
    return (uint32_t) _mm512_reduce_add_epi32(sum[0]);
}

// 12 chains of 16: two rounds at once. They begin differently: equal ones would be made one.
static float peak(uint64_t n_rounds, float start, float factor, float term)
{
    enum { CHAINS = 12, LANES = 16 };
    const __m512 f = _mm512_set1_ps(factor), t = _mm512_set1_ps(term);
    __m512 v[CHAINS];
    UNROLL
    for (int j = 0; j < CHAINS; j++)
        v[j] = _mm512_set1_ps((float) j * start);
    for (uint64_t i = 0; i < n_rounds; i += CHAINS * LANES / CPU_ROUND_MACS)
        UNROLL
        for (int j = 0; j < CHAINS; j++)
            v[j] = _mm512_fmadd_ps(v[j], f, t);
    UNROLL
    for (int j = 1; j < CHAINS; j++)
        v[0] = _mm512_add_ps(v[0], v[j]);
    return _mm512_reduce_add_ps(v[0]) / (CHAINS * LANES);
}

void moe_cpu_kernels_avx512(struct cpu_kernels *kernels)
{
    kernels->panel[CPU_OPERAND_F32][W_F32] = panel_f32;
    kernels->panel[CPU_OPERAND_F32][W_F16] = panel_f16;
    kernels->panel[CPU_OPERAND_F32][W_BF16] = panel_bf16;
    moe_cpu_pairs_avx512(kernels);
    kernels->decode[W_F16] = decode_f16;
    kernels->decode[W_BF16] = decode_bf16;
    kernels->encode[W_F16] = encode_f16;
    kernels->encode[W_BF16] = encode_bf16;
    kernels->chain = chain;
    kernels->transpose = transpose;
    kernels->read = read_words;
    kernels->peak[CPU_OPERAND_F32] = peak;
    kernels->even_rows[CPU_OPERAND_F32] = true;
}
