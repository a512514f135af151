// SPDX-License-Identifier: MIT
// Kernels for AVX-512 BF16: one instruction multiplies 16 pairs of weights with a pair of x and
// adds both products to 16 sums. Blocks of rows are as in kernels_avx512.c.
#include "cpu/fetch_avx512.h"
#include "cpu/kernels.h"
#include "cpu/unroll.h"

#include <immintrin.h>

enum {
    BLOCK_ROWS = 24,
    PAIR_ROWS = 4, // of two panels at once
    UNITS = 4, // pairs at a time
    TURN = 8,
    BLOCK_UNITS = 256,
};

enum { W_BF16 = 2 };

#define INLINE static inline __attribute__((always_inline))

// Two bf16 of x.
typedef uint32_t __attribute__((may_alias)) pair;

// n_units of n_rows, from x[r][at]; both are constants where this is expanded.
INLINE void multiply(uint32_t n_rows, const pair *const *x, size_t at, uint32_t n_units,
                     const __m512bh *w, __m512 *sum)
{
    const pair *const volatile *addresses = x;
    const pair *row[TURN];
    UNROLL
    for (uint32_t r = 0; r < n_rows; r++)
        row[r] = addresses[r];
    UNROLL
    for (uint32_t j = 0; j < n_units; j++)
        UNROLL
        for (uint32_t r = 0; r < n_rows; r++)
            sum[r] = _mm512_dpbf16_ps(sum[r], w[j],
                                      (__m512bh) _mm512_set1_epi32((int) row[r][at + j]));
}

INLINE void multiply_in_turns(uint32_t n_rows, const pair *const *x, size_t at,
                              uint32_t n_units, const __m512bh *w, __m512 *sum)
{
    const uint32_t n_turns = (n_rows + TURN - 1) / TURN, most = (n_rows + n_turns - 1) / n_turns;
    const uint32_t others = n_rows - most, second = others < most ? others : most;
    multiply(most, x, at, n_units, w, sum);
    multiply(second, x + most, at, n_units, w, sum + most);
    multiply(others - second, x + most + second, at, n_units, w, sum + most + second);
}

// Begins or, with `more`, goes on with sums of n_rows (a constant where this is expanded) by n
// units, starting with x[r][first].
INLINE void block(uint32_t n_rows, const pair *const *x, uint32_t first, const char *panel,
                  uint32_t n, bool more, float *out)
{
    __m512 sum[BLOCK_ROWS];
    __m512bh w[UNITS];
    uint32_t i = 0;
    UNROLL
    for (uint32_t r = 0; r < n_rows; r++)
        sum[r] = more ? _mm512_load_ps(out + r * CPU_PANEL) : _mm512_setzero_ps();
    for (; i + UNITS <= n; i += UNITS, panel += UNITS * 64) {
        UNROLL
        for (uint32_t j = 0; j < UNITS; j++) {
            fetch_line(panel + 64 * j);
            w[j] = (__m512bh) _mm512_loadu_si512(panel + 64 * j);
        }
        multiply_in_turns(n_rows, x, (size_t) first + i, UNITS, w, sum);
    }
    for (; i < n; i++, panel += 64) {
        w[0] = (__m512bh) _mm512_loadu_si512(panel);
        multiply_in_turns(n_rows, x, (size_t) first + i, 1, w, sum);
    }
    UNROLL
    for (uint32_t r = 0; r < n_rows; r++)
        _mm512_store_ps(out + r * CPU_PANEL, sum[r]);
}

typedef void block_fn(const pair *const *x, uint32_t first, const char *panel, uint32_t n,
                      bool more, float *out);

#define FOR_ROWS(X)                                                                                \
    X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15) X(16) X(17)   \
    X(18) X(19) X(20) X(21) X(22) X(23) X(24)
#define DEFINE(n_rows)                                                                             \
    static void block_##n_rows(const pair *const *x, uint32_t first, const char *panel,        \
                               uint32_t n, bool more, float *out)                                  \
    {                                                                                              \
        block(n_rows, x, first, panel, n, more, out);                                              \
    }
#define ENTRY(n_rows) [n_rows] = block_##n_rows,

FOR_ROWS(DEFINE)

static block_fn *const blocks[BLOCK_ROWS + 1] = {FOR_ROWS(ENTRY)};

static void panel_bf16(const void *const *rows_of_x, uint32_t n_rows, const void *panel,
                       uint32_t k, float *out)
{
    const pair *const *x = (const pair *const *) rows_of_x;
    const uint32_t n_units = k / 2 + k % 2, piece = n_rows > BLOCK_ROWS ? BLOCK_UNITS : n_units;
    for (uint32_t first = 0; first < n_units; first += piece) {
        const uint32_t n = n_units - first < piece ? n_units - first : piece;
        const char *w = (const char *) panel + (size_t) first * 64;
        for (uint32_t r = 0, rows; r < n_rows; r += rows) {
            const uint32_t left = n_rows - r, n_blocks = (left + BLOCK_ROWS - 1) / BLOCK_ROWS;
            rows = (left + n_blocks - 1) / n_blocks;
            blocks[rows](x + r, first, w, n, first > 0, out + (size_t) r * CPU_PANEL);
        }
    }
}

// Two panels at once for n_rows, a constant: few chains wait for themselves as long as for memory.
INLINE void block_of_two(uint32_t n_rows, const pair *const *x, const char *const *panels,
                         uint32_t n, float *const *out)
{
    const char *a = panels[0], *b = panels[1];
    __m512 sum[2][PAIR_ROWS];
    __m512bh w[2][UNITS];
    uint32_t i = 0;
    UNROLL
    for (uint32_t r = 0; r < n_rows; r++)
        sum[0][r] = sum[1][r] = _mm512_setzero_ps();
    for (; i + UNITS <= n; i += UNITS, a += UNITS * 64, b += UNITS * 64) {
        UNROLL
        for (uint32_t j = 0; j < UNITS; j++) {
            fetch_line(a + 64 * j);
            fetch_line(b + 64 * j);
            w[0][j] = (__m512bh) _mm512_loadu_si512(a + 64 * j);
            w[1][j] = (__m512bh) _mm512_loadu_si512(b + 64 * j);
        }
        multiply(n_rows, x, i, UNITS, w[0], sum[0]);
        multiply(n_rows, x, i, UNITS, w[1], sum[1]);
    }
    for (; i < n; i++, a += 64, b += 64) {
        w[0][0] = (__m512bh) _mm512_loadu_si512(a);
        w[1][0] = (__m512bh) _mm512_loadu_si512(b);
        multiply(n_rows, x, i, 1, w[0], sum[0]);
        multiply(n_rows, x, i, 1, w[1], sum[1]);
    }
    UNROLL
    for (uint32_t r = 0; r < n_rows; r++) {
        _mm512_store_ps(out[0] + r * CPU_PANEL, sum[0][r]);
        _mm512_store_ps(out[1] + r * CPU_PANEL, sum[1][r]);
    }
}

static void pair_bf16(const void *const *rows_of_x, uint32_t n_rows, const char *const *panels,
                      uint32_t k, float *const *out)
{
    const pair *const *x = (const pair *const *) rows_of_x;
    const uint32_t n_units = k / 2 + k % 2;
    switch (n_rows) {
    case 1:
        block_of_two(1, x, panels, n_units, out);
        return;
    case 2:
        block_of_two(2, x, panels, n_units, out);
        return;
    case 3:
        block_of_two(3, x, panels, n_units, out);
        return;
    case PAIR_ROWS:
        block_of_two(PAIR_ROWS, x, panels, n_units, out);
        return;
    default:
        panel_bf16(rows_of_x, n_rows, panels[0], k, out[0]);
        panel_bf16(rows_of_x, n_rows, panels[1], k, out[1]);
    }
}

// 12 chains of 16 pairs: four rounds at once. They begin differently: equal ones would be made one.
static float peak(uint64_t n_rounds, float start, float factor, float term)
{
    enum { CHAINS = 12, LANES = 16 };
    const __m512bh f = _mm512_cvtne2ps_pbh(_mm512_set1_ps(factor), _mm512_set1_ps(factor));
    const __m512bh t = _mm512_cvtne2ps_pbh(_mm512_set1_ps(term), _mm512_set1_ps(term));
    __m512 v[CHAINS];
    UNROLL
    for (int j = 0; j < CHAINS; j++)
        v[j] = _mm512_set1_ps((float) j * start);
    for (uint64_t i = 0; i < n_rounds; i += 2 * CHAINS * LANES / CPU_ROUND_MACS)
        UNROLL
        for (int j = 0; j < CHAINS; j++)
            v[j] = _mm512_dpbf16_ps(v[j], f, t);
    UNROLL
    for (int j = 1; j < CHAINS; j++)
        v[0] = _mm512_add_ps(v[0], v[j]);
    return _mm512_reduce_add_ps(v[0]) / (CHAINS * LANES);
}

void moe_cpu_kernels_avx512_bf16(struct cpu_kernels *kernels)
{
    kernels->panel[CPU_OPERAND_BF16][W_BF16] = panel_bf16;
    kernels->pair[CPU_OPERAND_BF16][W_BF16] = pair_bf16;
    kernels->peak[CPU_OPERAND_BF16] = peak;
}
