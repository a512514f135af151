// SPDX-License-Identifier: MIT
// Kernels for 64-bit ARM's own vectors. As those of the other levels, this file includes no header
// of ours that has code in it.
#include "cpu/kernels.h"

#include <arm_neon.h>

enum {
    // 4 rows of 16 outputs are 16 accumulators, which cover the latency of four multiply-adds a
    // cycle. With a vector of x a row, 12 of the 32 registers are left for weights in flight;
    // with 5 rows the compiler already spills.
    BLOCK_ROWS = 4,
    // Rows of a panel that stay in the first-level cache while all row blocks use them.
    BLOCK_K = 256,
    VECTORS = CPU_PANEL / 4, // of 16 columns
    STEPS = 4,               // of a vector of x
};

enum weight_type { W_F32, W_F16, W_BF16 };

#define INLINE static inline __attribute__((always_inline))

INLINE size_t unit_size(enum weight_type type)
{
    return type == W_F16 ? 2 : 4;
}

INLINE uint32_t unit_values(enum weight_type type)
{
    return type == W_BF16 ? 2 : 1;
}

// Columns 4 c .. 4 c + 3 of step `step`, from units that follow each other; exact.
INLINE float32x4_t weights(enum weight_type type, const char *units, uint32_t step, uint32_t c)
{
    const char *at = units + (step / unit_values(type) * CPU_PANEL + 4 * c) * unit_size(type);
    if (type == W_F32)
        return vld1q_f32((const float *) at);
    if (type == W_F16)
        return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t *) at)));
    const uint32x4_t both = vld1q_u32((const uint32_t *) at);
    return vreinterpretq_f32_u32(step % 2 == 0 ? vshlq_n_u32(both, 16)
                                               : vandq_u32(both, vdupq_n_u32(0xffff0000)));
}

// sum += x[r][step] * weights of that step, x[r] a vector of which `lane` has the step.
#define ADD_STEP(step, lane)                                                                       \
    _Pragma("GCC unroll 4") for (uint32_t c = 0; c < VECTORS; c++)                                 \
    {                                                                                              \
        const float32x4_t w = weights(type, panel, step, c);                                       \
        _Pragma("GCC unroll 4") for (uint32_t r = 0; r < n_rows; r++)                              \
            sum[r][c] = vfmaq_laneq_f32(sum[r][c], w, v[r], lane);                                 \
    }

// Begins or, with `more`, goes on with chains of n_rows (a constant where this is expanded) by k
// steps, starting with x[r][first]. Row r of out is at out[r], or without `scattered` 16 r behind
// out[0].
INLINE void block(enum weight_type type, uint32_t n_rows, const float *const *x, uint32_t first,
                  const char *panel, uint32_t k, bool more, float *const *out, bool scattered)
{
    const uint32_t n_values = unit_values(type);
    const float *row[BLOCK_ROWS];
    float *to[BLOCK_ROWS];
    float32x4_t sum[BLOCK_ROWS][VECTORS], v[BLOCK_ROWS];
#pragma GCC unroll 4
    for (uint32_t r = 0; r < n_rows; r++) {
        row[r] = x[r] + first;
        to[r] = scattered ? out[r] : out[0] + r * CPU_PANEL;
#pragma GCC unroll 4
        for (uint32_t c = 0; c < VECTORS; c++)
            sum[r][c] = more ? vld1q_f32(to[r] + 4 * c) : vdupq_n_f32(0);
    }
    uint32_t i = 0;
    for (; i + STEPS <= k; i += STEPS) {
#pragma GCC unroll 4
        for (uint32_t r = 0; r < n_rows; r++)
            v[r] = vld1q_f32(row[r] + i);
        ADD_STEP(0, 0)
        ADD_STEP(1, 1)
        ADD_STEP(2, 2)
        ADD_STEP(3, 3)
        panel += STEPS / n_values * unit_size(type) * CPU_PANEL;
    }
    for (; i < k; i++) {
#pragma GCC unroll 4
        for (uint32_t r = 0; r < n_rows; r++)
            v[r] = vld1q_dup_f32(row[r] + i);
        ADD_STEP(i % n_values, 0)
        if ((i + 1) % n_values == 0)
            panel += unit_size(type) * CPU_PANEL;
    }
#pragma GCC unroll 4
    for (uint32_t r = 0; r < n_rows; r++)
#pragma GCC unroll 4
        for (uint32_t c = 0; c < VECTORS; c++)
            vst1q_f32(to[r] + 4 * c, sum[r][c]);
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
        const size_t unit = first / unit_values(type);
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

void moe_cpu_steps_neon(const float *const *x, uint32_t n_rows, uint32_t first, const float *panel,
                        uint32_t k, bool more, float *out)
{
    for (uint32_t r = 0; r < n_rows; r += BLOCK_ROWS, out += BLOCK_ROWS * CPU_PANEL) {
        uint32_t rows = n_rows - r < BLOCK_ROWS ? n_rows - r : BLOCK_ROWS;
        block_of(W_F32, rows, x + r, first, (const char *) panel, k, more, &out, false);
    }
}

// 4 rows of 4 to 4 columns of `out`: pairs, then pairs of pairs.
INLINE void transpose_4x4(const float *const *rows, uint32_t first, float *out, size_t stride)
{
    const float32x4_t r0 = vld1q_f32(rows[0] + first), r1 = vld1q_f32(rows[1] + first);
    const float32x4_t r2 = vld1q_f32(rows[2] + first), r3 = vld1q_f32(rows[3] + first);
    const float64x2_t a = vreinterpretq_f64_f32(vzip1q_f32(r0, r1));
    const float64x2_t b = vreinterpretq_f64_f32(vzip2q_f32(r0, r1));
    const float64x2_t c = vreinterpretq_f64_f32(vzip1q_f32(r2, r3));
    const float64x2_t d = vreinterpretq_f64_f32(vzip2q_f32(r2, r3));
    vst1q_f32(out, vreinterpretq_f32_f64(vzip1q_f64(a, c)));
    vst1q_f32(out + stride, vreinterpretq_f32_f64(vzip2q_f64(a, c)));
    vst1q_f32(out + 2 * stride, vreinterpretq_f32_f64(vzip1q_f64(b, d)));
    vst1q_f32(out + 3 * stride, vreinterpretq_f32_f64(vzip2q_f64(b, d)));
}

static void transpose(const float *const *rows, uint32_t n_rows, uint32_t first, uint32_t n,
                      float *out, uint32_t stride)
{
    uint32_t i = 0;
    for (; n_rows == CPU_PANEL && i + 4 <= n; i += 4)
        for (uint32_t r = 0; r < CPU_PANEL; r += 4)
            transpose_4x4(rows + r, first + i, out + (size_t) i * stride + r, stride);
    for (; i < n; i++)
        for (uint32_t r = 0; r < CPU_PANEL; r++)
            out[(size_t) i * stride + r] = r < n_rows ? rows[r][first + i] : 0.0f;
}

// ---- 16-bit types ----------------------------------------------------------------------------

INLINE float32x4_t decode_4(enum weight_type type, const uint16_t *stored)
{
    const uint16x4_t bits = vld1_u16(stored);
    if (type == W_F16)
        return vcvt_f32_f16(vreinterpret_f16_u16(bits));
    return vreinterpretq_f32_u32(vshll_n_u16(bits, 16));
}

// The upper half of each number: nearest even, and NaN made quiet.
INLINE uint16x4_t bf16_of(float32x4_t v)
{
    const uint32x4_t bits = vreinterpretq_u32_f32(v), high = vshrq_n_u32(bits, 16);
    const uint32x4_t odd = vandq_u32(high, vdupq_n_u32(1));
    const uint32x4_t sum = vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd);
    const uint32x4_t quiet = vorrq_u32(high, vdupq_n_u32(0x40));
    return vmovn_u32(vbslq_u32(vceqq_f32(v, v), vshrq_n_u32(sum, 16), quiet));
}

INLINE uint16x4_t encode_4(enum weight_type type, const float *values)
{
    const float32x4_t v = vld1q_f32(values);
    return type == W_F16 ? vreinterpret_u16_f16(vcvt_f16_f32(v)) : bf16_of(v);
}

// What is left of n is computed in arrays of 4, as the rest is.
INLINE void decode_any(enum weight_type type, const uint16_t *stored, float *out, size_t n)
{
    uint16_t last[4] = {0};
    float last_out[4];
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        vst1q_f32(out + i, decode_4(type, stored + i));
    if (i == n)
        return;
    for (size_t j = i; j < n; j++)
        last[j - i] = stored[j];
    vst1q_f32(last_out, decode_4(type, last));
    for (size_t j = i; j < n; j++)
        out[j] = last_out[j - i];
}

INLINE void encode_any(enum weight_type type, const float *values, uint16_t *out, size_t n)
{
    float last[4] = {0};
    uint16_t last_out[4];
    size_t i = 0;
    for (; i + 4 <= n; i += 4)
        vst1_u16(out + i, encode_4(type, values + i));
    if (i == n)
        return;
    for (size_t j = i; j < n; j++)
        last[j - i] = values[j];
    vst1_u16(last_out, encode_4(type, last));
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

enum { READ_AHEAD = 2048 };

static uint32_t read_words(const uint32_t *memory, size_t n)
{
    uint32x4_t sum[16];
    for (int j = 0; j < 16; j++)
        sum[j] = vdupq_n_u32(0);
    for (size_t i = 0; i < n; i += CPU_READ_WORDS) {
        const uint32_t *here = memory + i;
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            __builtin_prefetch((const char *) here + READ_AHEAD + 64 * j);
#pragma GCC unroll 16
        for (int j = 0; j < 16; j++)
            sum[j] = vaddq_u32(sum[j], vld1q_u32(here + 4 * j));
    }
    for (int j = 1; j < 16; j++)
        sum[0] = vaddq_u32(sum[0], sum[j]);
    return vaddvq_u32(sum[0]);
}

// 12 chains twice: equal ones would be made one, if the compiler could see that they are.
enum { CHAINS = 24 };

// What the instruction adds to is what it changes, so a step is two of them: v += v * (factor - 1),
// v += term * 1.
static float peak(uint64_t n_rounds, float start, float factor, float term)
{
    const float32x4_t less = vdupq_n_f32(factor - 1), t = vdupq_n_f32(term), one = vdupq_n_f32(1);
    float32x4_t v[CHAINS];
#pragma GCC unroll 24
    for (int j = 0; j < CHAINS; j++) {
        v[j] = vdupq_n_f32((float) (j % 12) * start);
        __asm__("" : "+w"(v[j]));
    }
    for (uint64_t i = 0; i < n_rounds; i += 2) {
#pragma GCC unroll 24
        for (int j = 0; j < CHAINS; j++)
            v[j] = vfmaq_f32(v[j], v[j], less);
#pragma GCC unroll 24
        for (int j = 0; j < CHAINS; j++)
            v[j] = vfmaq_f32(v[j], t, one);
    }
#pragma GCC unroll 24
    for (int j = 1; j < CHAINS; j++)
        v[0] = vaddq_f32(v[0], v[j]);
    return vaddvq_f32(v[0]) / (4 * CHAINS);
}

void moe_cpu_kernels_neon(struct cpu_kernels *kernels)
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
