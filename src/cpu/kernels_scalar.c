// SPDX-License-Identifier: MIT
// The definition of the kernels, in plain C; blocks_scalar.c has those of types of blocks.
#include "cpu/kernels.h"

#include "core/dtype.h"

#include <string.h>

_Static_assert((int) CPU_N_WEIGHTS == (int) MOE_N_DTYPES, "one kernel for each weight type");
_Static_assert((int) CPU_N_FLOATS == (int) MOE_N_FLOAT_DTYPES, "f32, f16, bf16");

#define INLINE static inline __attribute__((always_inline))

enum { BLOCK_ROWS = 4 }; // rows that share one decoding of the weights

// The values of 16 units of a panel, n_values each, as f32 w[i][c]; exact.
INLINE void decode(enum vkmoe_dtype type, uint32_t n_values, const char *units, float *w)
{
    float values[2 * CPU_PANEL];
    if (type == VKMOE_F32)
        memcpy(values, units, CPU_PANEL * sizeof *values);
    else
        moe_dtype_decode(type, units, n_values * CPU_PANEL, values);
    for (uint32_t i = 0; i < n_values; i++)
        for (uint32_t c = 0; c < CPU_PANEL; c++)
            w[i * CPU_PANEL + c] = values[c * n_values + i];
}

INLINE void rows_times_panel(enum vkmoe_dtype type, uint32_t n_rows, const float *const *x,
                             const char *panel, uint32_t k, float *out)
{
    const uint32_t n_values = type == VKMOE_BF16 ? 2 : 1;
    const size_t size = CPU_PANEL * (type == VKMOE_F16 ? 2 : 4);
    float sum[BLOCK_ROWS][CPU_PANEL] = {{0}}, w[2 * CPU_PANEL];
    for (uint32_t i = 0; i < k; i++) {
        if (i % n_values == 0)
            decode(type, n_values, panel + i / n_values * size, w);
        for (uint32_t r = 0; r < n_rows; r++)
            for (uint32_t c = 0; c < CPU_PANEL; c++)
                sum[r][c] += x[r][i] * w[i % n_values * CPU_PANEL + c];
    }
    memcpy(out, sum, n_rows * sizeof sum[0]);
}

// Blocks of rows, then the rest one by one: both counts are constants to the compiler.
INLINE void panel_any(enum vkmoe_dtype type, const void *const *rows, uint32_t n_rows,
                      const void *panel, uint32_t k, float *out)
{
    const float *const *x = (const float *const *) rows;
    uint32_t r = 0;
    for (; r + BLOCK_ROWS <= n_rows; r += BLOCK_ROWS)
        rows_times_panel(type, BLOCK_ROWS, x + r, panel, k, out + (size_t) r * CPU_PANEL);
    for (; r < n_rows; r++)
        rows_times_panel(type, 1, x + r, panel, k, out + (size_t) r * CPU_PANEL);
}

static void panel_f32(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                      float *out)
{
    panel_any(VKMOE_F32, x, n_rows, panel, k, out);
}

static void panel_f16(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                      float *out)
{
    panel_any(VKMOE_F16, x, n_rows, panel, k, out);
}

static void panel_bf16(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                       float *out)
{
    panel_any(VKMOE_BF16, x, n_rows, panel, k, out);
}

void moe_cpu_steps_scalar(const float *const *x, uint32_t n_rows, uint32_t first,
                          const float *panel, uint32_t k, bool more, float *out)
{
    for (uint32_t r = 0; r < n_rows; r++, out += CPU_PANEL) {
        float sum[CPU_PANEL] = {0};
        if (more)
            memcpy(sum, out, sizeof sum);
        for (uint32_t i = 0; i < k; i++)
            for (uint32_t c = 0; c < CPU_PANEL; c++)
                sum[c] += x[r][first + i] * panel[i * CPU_PANEL + c];
        memcpy(out, sum, sizeof sum);
    }
}

static void chain(const float *const *x, uint32_t n_rows, uint32_t first, const float *panel,
                  uint32_t k, bool more, float *const *out)
{
    for (uint32_t r = 0; r < n_rows; r++)
        moe_cpu_steps_scalar(x + r, 1, first, panel, k, more, out[r]);
}

static void transpose(const float *const *rows, uint32_t n_rows, uint32_t first, uint32_t n,
                      float *out, uint32_t stride)
{
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t r = 0; r < CPU_PANEL; r++)
            out[(size_t) i * stride + r] = r < n_rows ? rows[r][first + i] : 0.0f;
}

static void decode_f16(const uint16_t *stored, float *out, size_t n)
{
    moe_dtype_decode(VKMOE_F16, stored, n, out);
}

static void decode_bf16(const uint16_t *stored, float *out, size_t n)
{
    moe_dtype_decode(VKMOE_BF16, stored, n, out);
}

static void encode_f16(const float *values, uint16_t *out, size_t n)
{
    moe_dtype_encode(VKMOE_F16, values, n, out);
}

static void encode_bf16(const float *values, uint16_t *out, size_t n)
{
    moe_dtype_encode(VKMOE_BF16, values, n, out);
}

// Eight sums, so that none waits for another.
static uint32_t read_words(const uint32_t *memory, size_t n)
{
    uint32_t sum[8] = {0}, total = 0;
    for (size_t i = 0; i < n; i += 8)
        for (uint32_t j = 0; j < 8; j++)
            sum[j] += memory[i + j];
    for (uint32_t j = 0; j < 8; j++)
        total += sum[j];
    return total;
}

// 12 chains of four, for which every 64-bit processor has registers. They begin differently:
// equal ones would be made one.
static float peak(uint64_t n_rounds, float start, float factor, float term)
{
    typedef float vector __attribute__((vector_size(4 * sizeof(float))));
    vector v[12];
    float total = 0;
#pragma GCC unroll 12
    for (int j = 0; j < 12; j++)
        v[j] = (vector){0} + (float) j * start;
    for (uint64_t i = 0; i < n_rounds * (CPU_ROUND_MACS / 48); i++)
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++)
            v[j] = v[j] * factor + term;
#pragma GCC unroll 12
    for (int j = 0; j < 12; j++)
        total += v[j][0] + v[j][1] + v[j][2] + v[j][3];
    return total / 48;
}

void moe_cpu_kernels_scalar(struct cpu_kernels *kernels)
{
    kernels->panel[CPU_OPERAND_F32][VKMOE_F32] = panel_f32;
    kernels->panel[CPU_OPERAND_F32][VKMOE_F16] = panel_f16;
    kernels->panel[CPU_OPERAND_F32][VKMOE_BF16] = panel_bf16;
    kernels->decode[VKMOE_F16] = decode_f16;
    kernels->decode[VKMOE_BF16] = decode_bf16;
    kernels->encode[VKMOE_F16] = encode_f16;
    kernels->encode[VKMOE_BF16] = encode_bf16;
    kernels->chain = chain;
    kernels->transpose = transpose;
    kernels->read = read_words;
    kernels->peak[CPU_OPERAND_F32] = peak;
}
