// SPDX-License-Identifier: MIT
// Two panels of floats at once for AVX-512. A number of x is loaded once for both: a step of R rows
// is 2 R multiply-adds and R + 2 loads, which leaves the units that load the time to bring weights
// and x nearer. As kernels_avx2.c, this file includes no header of ours that has code for other
// levels in it.
#include "cpu/floats_avx512.h"

enum {
    PAIR_ROWS = EVEN_ROWS, // sums of two panels, with weights of two steps, leave 4 registers
    // Steps of both panels that stay in the first-level cache while all row blocks use them.
    PIECE = 192,
    LINE = 64,
};

// A part of both products: chains are begun or, with `more`, gone on with by k steps, starting with
// x[r][first]. Meanwhile the only block of rows, `alone`, asks for what comes a little behind;
// others ask for n_fetch lines for each STEPS, from fetch[] on, and for what their caller wants.
struct part {
    const char *panels[2], *fetch[2];
    uint32_t first, k, n_fetch;
    bool more, alone;
    struct cpu_fetch *ahead; // of W_F32
};

// A few lines more, into the second-level cache.
INLINE void fetch_more(struct cpu_fetch *fetch)
{
    for (uint32_t i = 0; i < fetch->each && fetch->n_rows > 0; i++) {
        _mm_prefetch(fetch->row + (size_t) fetch->line * CPU_LINE, _MM_HINT_T1);
        if (++fetch->line < fetch->n_lines)
            continue;
        fetch->line = 0;
        fetch->row += fetch->stride;
        fetch->n_rows--;
    }
}

// n <= 2 steps.
INLINE void multiply(uint32_t n_rows, uint32_t n, struct rows *rows, __m512 w[2][2],
                     __m512 sum[2][PAIR_ROWS])
{
    UNROLL
    for (uint32_t j = 0; j < n; j++)
        UNROLL
        for (uint32_t r = 0; r < n_rows; r++) {
            const __m512 v = _mm512_set1_ps(row_of(n_rows, rows, r)[j]);
            sum[0][r] = _mm512_fmadd_ps(v, w[0][j], sum[0][r]);
            sum[1][r] = _mm512_fmadd_ps(v, w[1][j], sum[1][r]);
        }
    rows_advance(n_rows, rows, n);
}

INLINE void two_steps(enum weight_type type, uint32_t n_rows, struct rows *rows, const char *a,
                      const char *b, __m512 sum[2][PAIR_ROWS])
{
    __m512 w[2][2];
    load_two(type, a, w[0]);
    load_two(type, b, w[1]);
    multiply(n_rows, 2, rows, w, sum);
}

// n_rows is a constant where this is expanded.
INLINE void block(enum weight_type type, uint32_t n_rows, const float *const *x,
                  const struct part *part, float *const out[2][PAIR_ROWS])
{
    const size_t size = 2 * step_size(type);
    const char *a = part->panels[0], *b = part->panels[1];
    const char *next_a = part->fetch[0], *next_b = part->fetch[1];
    uint32_t left = part->k;
    struct cpu_fetch ahead = *part->ahead;
    struct rows rows;
    __m512 sum[2][PAIR_ROWS];
    rows_init(n_rows, x, part->first, &rows);
    UNROLL
    for (uint32_t r = 0; r < n_rows; r++) {
        sum[0][r] = part->more ? _mm512_loadu_ps(out[0][r]) : _mm512_setzero_ps();
        sum[1][r] = part->more ? _mm512_loadu_ps(out[1][r]) : _mm512_setzero_ps();
    }
    for (; left >= STEPS; left -= STEPS, a += 2 * size, b += 2 * size) {
        if (part->alone)
            UNROLL
            for (size_t at = 0; at < 2 * size; at += LINE) {
                fetch_line(a + at);
                fetch_line(b + at);
            }
        if (type == W_F32)
            fetch_more(&ahead);
        for (uint32_t i = 0; i < part->n_fetch; i++, next_a += LINE, next_b += LINE) {
            _mm_prefetch(next_a, _MM_HINT_T1);
            _mm_prefetch(next_b, _MM_HINT_T1);
        }
        two_steps(type, n_rows, &rows, a, b, sum);
        two_steps(type, n_rows, &rows, a + size, b + size, sum);
    }
    if (left >= 2) {
        two_steps(type, n_rows, &rows, a, b, sum);
        left -= 2, a += size, b += size;
    }
    if (left > 0) {
        __m512 w[2][2];
        w[0][0] = load_last(type, a);
        w[1][0] = load_last(type, b);
        multiply(n_rows, 1, &rows, w, sum);
    }
    if (type == W_F32)
        *part->ahead = ahead;
    UNROLL
    for (uint32_t r = 0; r < n_rows; r++) {
        _mm512_storeu_ps(out[0][r], sum[0][r]);
        _mm512_storeu_ps(out[1][r], sum[1][r]);
    }
}

typedef void block_fn(const float *const *x, const struct part *part,
                      float *const out[2][PAIR_ROWS]);

#define FOR_ROWS(X, type)                                                                          \
    X(type, 1) X(type, 2) X(type, 3) X(type, 4) X(type, 5) X(type, 6) X(type, 7) X(type, 8)        \
    X(type, 9) X(type, 10) X(type, 11) X(type, 12)
#define DEFINE(type, n)                                                                            \
    static void block_##type##_##n(const float *const *x, const struct part *part,                 \
                                   float *const out[2][PAIR_ROWS])                                 \
    {                                                                                              \
        block(type, n, x, part, out);                                                              \
    }
#define ENTRY(type, n) [type][n] = block_##type##_##n,

FOR_ROWS(DEFINE, W_F32)
FOR_ROWS(DEFINE, W_F16)
FOR_ROWS(DEFINE, W_BF16)

static block_fn *const blocks[W_N][PAIR_ROWS + 1] = {
    FOR_ROWS(ENTRY, W_F32) FOR_ROWS(ENTRY, W_F16) FOR_ROWS(ENTRY, W_BF16)};

// Block i of n_blocks asks for its share of what is read next, `size` bytes of each from next[] on.
INLINE void share_fetch(enum weight_type type, struct part *part, const char *const *next,
                        size_t size, uint32_t i, uint32_t n_blocks)
{
    const uint32_t n_lines = (uint32_t) (STEPS * step_size(type) / LINE);
    part->n_fetch = (n_lines + n_blocks - 1) / n_blocks;
    const size_t before = (size_t) i * (part->k / STEPS) * part->n_fetch * LINE;
    if (before >= size)
        part->n_fetch = 0;
    part->fetch[0] = next[0] + before;
    part->fetch[1] = next[1] + before;
}

static void pair(enum weight_type type, const void *const *rows_of_x, uint32_t n_rows,
                 const char *const *panels, uint32_t k, float *const *out)
{
    const float *const *x = (const float *const *) rows_of_x;
    const uint32_t most = n_rows > FEW_ROWS && evenly_apart(x, n_rows) ? PAIR_ROWS : FEW_ROWS;
    const uint32_t n_blocks = (n_rows + most - 1) / most;
    // One block of rows reads the panels once anyway: then no chain is interrupted.
    const uint32_t piece = n_blocks > 1 ? PIECE : k;
    const size_t size = piece * step_size(type);
    struct cpu_fetch none = {0};
    struct part part = {
        .panels = {panels[0], panels[1]}, .alone = n_blocks == 1, .ahead = &none};
    float *to[2][PAIR_ROWS];
    for (; part.first < k; part.first += piece, part.panels[0] += size, part.panels[1] += size) {
        const char *const next[] = {part.panels[0] + size, part.panels[1] + size};
        part.k = k - part.first < piece ? k - part.first : piece;
        part.more = part.first > 0;
        for (uint32_t i = 0, r = 0, n; i < n_blocks; i++, r += n) {
            n = (n_rows - r + n_blocks - i - 1) / (n_blocks - i);
            if (n_blocks > 1)
                share_fetch(type, &part, next, size, i, n_blocks);
            for (uint32_t j = 0; j < n; j++) {
                to[0][j] = out[0] + (r + j) * CPU_PANEL;
                to[1][j] = out[1] + (r + j) * CPU_PANEL;
            }
            blocks[type][n](x + r, &part, to);
        }
    }
}

#define PAIR(name, type)                                                                           \
    static void pair_##name(const void *const *x, uint32_t n_rows, const char *const *panels,      \
                            uint32_t k, float *const *out)                                         \
    {                                                                                              \
        pair(type, x, n_rows, panels, k, out);                                                     \
    }
PAIR(f32, W_F32)
PAIR(f16, W_F16)
PAIR(bf16, W_BF16)

// ---- chains ------------------------------------------------------------------------------------

static void chain_two(const float *const *x, uint32_t n_rows, uint32_t first,
                      const float *const *panels, uint32_t k, bool more, float *const *out,
                      struct cpu_fetch *fetch)
{
    const uint32_t most = n_rows > FEW_ROWS && evenly_apart(x, n_rows) ? PAIR_ROWS : FEW_ROWS;
    const uint32_t n_blocks = (n_rows + most - 1) / most;
    struct cpu_fetch none = {0};
    struct part part = {
        .panels = {(const char *) panels[0], (const char *) panels[1]},
        .first = first,
        .k = k,
        .more = more,
        .ahead = fetch ? fetch : &none,
    };
    float *to[2][PAIR_ROWS];
    for (uint32_t i = 0, r = 0, n; i < n_blocks; i++, r += n) {
        n = (n_rows - r + n_blocks - i - 1) / (n_blocks - i);
        for (uint32_t j = 0; j < n; j++) {
            to[0][j] = out[r + j];
            to[1][j] = out[r + j] + CPU_PANEL;
        }
        blocks[W_F32][n](x + r, &part, to);
    }
}

void moe_cpu_pairs_avx512(struct cpu_kernels *kernels)
{
    kernels->pair[CPU_OPERAND_F32][W_F32] = pair_f32;
    kernels->pair[CPU_OPERAND_F32][W_F16] = pair_f16;
    kernels->pair[CPU_OPERAND_F32][W_BF16] = pair_bf16;
    kernels->chain_two = chain_two;
}
