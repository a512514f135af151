// SPDX-License-Identifier: MIT
// Panels of bf16 for AMX: an instruction multiplies 16 rows of 32 values with 32 steps of a panel,
// which lie in it as a tile of weights has to. Each output has two sums, that take such steps by
// turns and are added at the end. Within 32 steps the processor adds up even and odd ones apart.
#include "cpu/fetch_avx512.h"
#include "cpu/kernels.h"
#include "cpu/unroll.h"

#include <immintrin.h>
#include <string.h>

enum {
    TILE_ROWS = 16,    // of a register, the most
    ROW_BYTES = 64,    // of each of them
    N_TILES = 8,       // registers
    UNITS = 16,        // pairs of values that one instruction takes
    TILE_BYTES = 1024, // of a panel
    MANY = 3,          // tiles of rows at once: two sums of each fill the registers but two
    FEW = 4,           // rows that take no tiles
    CHUNK = 8,         // steps whose rows are copied together
    // Bytes, into the second-level cache: tiles of x fill the first one. Measured of 2 to 32 KiB,
    // into either.
    AHEAD = 8192,
};

enum { W_BF16 = 2 };

// ---- tiles -------------------------------------------------------------------------------------

#define INLINE static inline __attribute__((always_inline))

// The instructions, of tiles that are literals. To gcc 12 they are text that touches no memory.
#define IN_MEMORY __asm__ volatile("" ::: "memory")
#define TILE_LOAD(tile, from, stride)                                                              \
    do {                                                                                           \
        IN_MEMORY;                                                                                 \
        _tile_loadd(tile, from, stride);                                                           \
        IN_MEMORY;                                                                                 \
    } while (0)
#define TILE_STORE(tile, to, stride)                                                               \
    do {                                                                                           \
        IN_MEMORY;                                                                                 \
        _tile_stored(tile, to, stride);                                                            \
        IN_MEMORY;                                                                                 \
    } while (0)

// What LDTILECFG reads.
struct tile_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

INLINE void set_tile(struct tile_config *config, uint32_t tile, uint32_t rows, uint32_t row_bytes)
{
    config->palette = 1;
    config->rows[tile] = (uint8_t) rows;
    config->row_bytes[tile] = (uint16_t) row_bytes;
}

// Makes all tiles 0.
INLINE void configure(const struct tile_config *config)
{
    IN_MEMORY;
    _tile_loadconfig(config);
    IN_MEMORY;
}

// n_rows as tiles of 16 that may overlap, or one of fewer: rows have the same bits in each.
struct tile_cut {
    uint32_t n_tiles, tile_rows;
};

INLINE struct tile_cut cut_rows(uint32_t n_rows)
{
    if (n_rows <= TILE_ROWS)
        return (struct tile_cut){1, n_rows};
    return (struct tile_cut){(n_rows + TILE_ROWS - 1) / TILE_ROWS, TILE_ROWS};
}

INLINE uint32_t first_row(struct tile_cut cut, uint32_t n_rows, uint32_t tile)
{
    const uint32_t first = tile * TILE_ROWS, last = n_rows - cut.tile_rows;
    return first < last ? first : last;
}

// Where the rows of a tile are read: `stride` apart, and the next step's `step` behind.
struct tile_rows {
    const char *from;
    size_t step, stride;
};

// Are n rows the same distance apart, so that one instruction loads them?
INLINE bool evenly_apart(const void *const *x, uint32_t n, size_t *stride)
{
    *stride = n > 1 ? (uintptr_t) x[1] - (uintptr_t) x[0] : 0;
    for (uint32_t r = 2; r < n; r++)
        if ((uintptr_t) x[r] - (uintptr_t) x[r - 1] != *stride)
            return false;
    return true;
}

// ---- steps -------------------------------------------------------------------------------------

// Even and odd steps of a tile of rows have a sum each; tile 6 holds its x and tile 7 weights.
#define TIMES(even_sum, odd_sum, odd, a)                                                           \
    do {                                                                                           \
        TILE_LOAD(6, (a)->from, (a)->stride);                                                      \
        if (odd)                                                                                   \
            _tile_dpbf16ps(odd_sum, 6, 7);                                                         \
        else                                                                                       \
            _tile_dpbf16ps(even_sum, 6, 7);                                                        \
        (a)->from += (a)->step;                                                                    \
    } while (0)

// One step of n_tiles of rows (a constant where this is expanded).
INLINE void step(uint32_t n_tiles, bool odd, struct tile_rows *a, const char *w)
{
    TILE_LOAD(7, w, ROW_BYTES);
    TIMES(0, 1, odd, &a[0]);
    if (n_tiles > 1)
        TIMES(2, 3, odd, &a[1]);
    if (n_tiles > 2)
        TIMES(4, 5, odd, &a[2]);
}

INLINE void fetch_ahead(const char *w)
{
    UNROLL
    for (uint32_t i = 0; i < TILE_BYTES; i += 64)
        _mm_prefetch(w + AHEAD + i, _MM_HINT_T1);
}

INLINE void steps(uint32_t n_tiles, struct tile_rows *a, const char *w, uint32_t n)
{
    uint32_t i = 0;
    for (; i + 2 <= n; i += 2, w += 2 * TILE_BYTES) {
        fetch_ahead(w);
        step(n_tiles, false, a, w);
        fetch_ahead(w + TILE_BYTES);
        step(n_tiles, true, a, w + TILE_BYTES);
    }
    if (i < n)
        step(n_tiles, false, a, w);
}

// ---- rows of x ---------------------------------------------------------------------------------

// Rows that are not evenly apart, for some steps at a time.
struct copy {
    _Alignas(64) char rows[MANY][CHUNK][TILE_ROWS * ROW_BYTES];
};

INLINE void copy_rows(struct tile_cut cut, uint32_t n_rows, const void *const *x, size_t first,
                      uint32_t n, struct copy *copy, struct tile_rows *a)
{
    for (uint32_t t = 0; t < cut.n_tiles; t++) {
        const void *const *row = x + first_row(cut, n_rows, t);
        for (uint32_t r = 0; r < cut.tile_rows; r++) {
            const char *from = (const char *) row[r] + first * ROW_BYTES;
            for (uint32_t i = 0; i < n; i++)
                _mm512_store_si512(copy->rows[t][i] + r * ROW_BYTES,
                                   _mm512_loadu_si512(from + i * ROW_BYTES));
        }
        a[t] = (struct tile_rows){copy->rows[t][0], TILE_ROWS * ROW_BYTES, ROW_BYTES};
    }
}

INLINE bool rows_in_place(struct tile_cut cut, uint32_t n_rows, const void *const *x,
                          struct tile_rows *a)
{
    bool even = true;
    for (uint32_t t = 0; t < cut.n_tiles && even; t++) {
        const void *const *row = x + first_row(cut, n_rows, t);
        a[t] = (struct tile_rows){.from = row[0], .step = ROW_BYTES};
        even = evenly_apart(row, cut.tile_rows, &a[t].stride);
    }
    return even;
}

// The last step, of fewer than 16 units: both sides are filled up with zeros.
INLINE void last_step(struct tile_cut cut, uint32_t n_rows, const void *const *x, size_t first,
                      const char *w, uint32_t n_units, struct copy *copy)
{
    _Alignas(64) char weights[TILE_BYTES] = {0};
    const __mmask16 mask = (__mmask16) ((1u << n_units) - 1);
    struct tile_rows a[MANY];
    memcpy(weights, w, n_units * ROW_BYTES);
    for (uint32_t t = 0; t < cut.n_tiles; t++) {
        const void *const *row = x + first_row(cut, n_rows, t);
        for (uint32_t r = 0; r < cut.tile_rows; r++)
            _mm512_store_si512(copy->rows[t][0] + r * ROW_BYTES,
                               _mm512_maskz_loadu_epi32(mask, (const char *) row[r] +
                                                                  first * ROW_BYTES));
        a[t] = (struct tile_rows){copy->rows[t][0], 0, ROW_BYTES};
    }
    step(cut.n_tiles, first % 2 > 0, a, weights);
}

// ---- panels ------------------------------------------------------------------------------------

// Both sums of tile t of the rows, added up in its rows of out.
#define STORE(t, even_sum, odd_sum)                                                                \
    do {                                                                                           \
        float *rows = out + (size_t) first_row(cut, n_rows, t) * CPU_PANEL;                        \
        TILE_STORE(even_sum, rows, ROW_BYTES);                                                     \
        TILE_STORE(odd_sum, other, ROW_BYTES);                                                     \
        for (uint32_t i = 0; i < cut.tile_rows * CPU_PANEL; i += CPU_PANEL)                        \
            _mm512_store_ps(rows + i,                                                              \
                            _mm512_add_ps(_mm512_load_ps(rows + i), _mm512_load_ps(other + i)));   \
    } while (0)

// cut.n_tiles is a constant where this is expanded.
INLINE void multiply(struct tile_cut cut, uint32_t n_rows, const void *const *x, const char *panel,
                     uint32_t k, float *out)
{
    const uint32_t n_units = k / 2 + k % 2, n_steps = n_units / UNITS;
    struct tile_config config = {0};
    struct tile_rows a[MANY];
    struct copy copy;
    _Alignas(64) float other[TILE_ROWS * CPU_PANEL];
    for (uint32_t t = 0; t < N_TILES - 1; t++)
        set_tile(&config, t, cut.tile_rows, ROW_BYTES);
    set_tile(&config, N_TILES - 1, UNITS, ROW_BYTES);
    configure(&config);
    if (rows_in_place(cut, n_rows, x, a)) {
        steps(cut.n_tiles, a, panel, n_steps);
    } else {
        for (uint32_t i = 0, n; i < n_steps; i += n) {
            n = n_steps - i < CHUNK ? n_steps - i : CHUNK;
            copy_rows(cut, n_rows, x, i, n, &copy, a);
            steps(cut.n_tiles, a, panel + (size_t) i * TILE_BYTES, n);
        }
    }
    if (n_units % UNITS > 0)
        last_step(cut, n_rows, x, n_steps, panel + (size_t) n_steps * TILE_BYTES, n_units % UNITS,
                  &copy);
    STORE(0, 0, 1);
    if (cut.n_tiles > 1)
        STORE(1, 2, 3);
    if (cut.n_tiles > 2)
        STORE(2, 4, 5);
    _tile_release();
}

static void many_rows(const void *const *x, uint32_t n_rows, const char *panel, uint32_t k,
                      float *out)
{
    for (uint32_t n; n_rows > 0; n_rows -= n, x += n, out += (size_t) n * CPU_PANEL) {
        n = n_rows < MANY * TILE_ROWS ? n_rows : MANY * TILE_ROWS;
        const struct tile_cut cut = cut_rows(n);
        if (cut.n_tiles == 1)
            multiply((struct tile_cut){1, cut.tile_rows}, n, x, panel, k, out);
        else if (cut.n_tiles == 2)
            multiply((struct tile_cut){2, TILE_ROWS}, n, x, panel, k, out);
        else
            multiply((struct tile_cut){3, TILE_ROWS}, n, x, panel, k, out);
    }
}

// ---- few rows ----------------------------------------------------------------------------------

// Tiles read memory slower than vectors. These compute what an instruction of tiles does, in its
// order: first and second values of 16 units, each from 0, then the sum of both, which is added.
// Denormal numbers are 0 meanwhile, whatever the thread has set, but not when the two sums of an
// output are added: both are done by functions of their own, as compilers do not see MXCSR.
enum { NEAREST_AND_NO_DENORMALS = 0x9fc0 }; // of MXCSR

// Units [first, first + n) of rows and panels, added to sum[p][r].
INLINE void few_units(uint32_t n_rows, uint32_t n_panels, const char *const *x, size_t first,
                      const char *const *w, uint32_t n, __m512 sum[2][FEW])
{
    const __m512i upper = _mm512_set1_epi32((int) 0xffff0000);
    __m512 even[2][FEW], odd[2][FEW];
    UNROLL
    for (uint32_t i = 0; i < n_panels * n_rows; i++)
        even[i / n_rows][i % n_rows] = odd[i / n_rows][i % n_rows] = _mm512_setzero_ps();
    for (uint32_t u = 0; u < n; u++) {
        __m512i unit[2];
        UNROLL
        for (uint32_t p = 0; p < n_panels; p++) {
            fetch_line(w[p] + u * ROW_BYTES);
            unit[p] = _mm512_loadu_si512(w[p] + u * ROW_BYTES);
        }
        UNROLL
        for (uint32_t r = 0; r < n_rows; r++) {
            int32_t pair;
            memcpy(&pair, x[r] + (first + u) * sizeof pair, sizeof pair);
            const __m512i both = _mm512_set1_epi32(pair);
            const __m512 first_x = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
            const __m512 second_x = _mm512_castsi512_ps(_mm512_and_si512(both, upper));
            UNROLL
            for (uint32_t p = 0; p < n_panels; p++) {
                const __m512 first_w = _mm512_castsi512_ps(_mm512_slli_epi32(unit[p], 16));
                const __m512 second_w = _mm512_castsi512_ps(_mm512_and_si512(unit[p], upper));
                even[p][r] = _mm512_fmadd_ps(first_x, first_w, even[p][r]);
                odd[p][r] = _mm512_fmadd_ps(second_x, second_w, odd[p][r]);
            }
        }
    }
    UNROLL
    for (uint32_t i = 0; i < n_panels * n_rows; i++) {
        const uint32_t p = i / n_rows, r = i % n_rows;
        sum[p][r] = _mm512_add_ps(sum[p][r], _mm512_add_ps(even[p][r], odd[p][r]));
    }
}

// n_rows and n_panels are constants where this is expanded.
INLINE void few_rows(uint32_t n_rows, uint32_t n_panels, const void *const *rows_of_x,
                     const char *const *panels, uint32_t k, float out[2][2][FEW * CPU_PANEL])
{
    const uint32_t n_units = k / 2 + k % 2;
    const char *x[FEW], *w[2] = {panels[0], panels[n_panels - 1]};
    __m512 sum[2][2][FEW]; // of even and odd steps
    UNROLL
    for (uint32_t r = 0; r < n_rows; r++) {
        x[r] = (const char *) rows_of_x[r];
        for (uint32_t i = 0; i < 4; i++)
            sum[i / 2][i % 2][r] = _mm512_setzero_ps();
    }
    for (uint32_t i = 0; i < n_units; i += 2 * UNITS) {
        const char *const second[] = {w[0] + TILE_BYTES, w[1] + TILE_BYTES};
        const uint32_t left = n_units - i;
        few_units(n_rows, n_panels, x, i, w, left < UNITS ? left : UNITS, sum[0]);
        if (left > UNITS)
            few_units(n_rows, n_panels, x, i + UNITS, second,
                      left < 2 * UNITS ? left - UNITS : UNITS, sum[1]);
        w[0] += 2 * TILE_BYTES;
        w[1] += 2 * TILE_BYTES;
    }
    UNROLL
    for (uint32_t i = 0; i < n_panels * n_rows; i++) {
        const uint32_t p = i / n_rows, r = i % n_rows;
        _mm512_store_ps(out[p][0] + r * CPU_PANEL, sum[0][p][r]);
        _mm512_store_ps(out[p][1] + r * CPU_PANEL, sum[1][p][r]);
    }
}

// Both sums of each output, to out[panel].
typedef void few_fn(const void *const *x, const char *const *panels, uint32_t k,
                    float out[2][2][FEW * CPU_PANEL]);

#define FEW_ROWS(n, n_panels)                                                                      \
    static __attribute__((noinline)) void rows_##n##_of_##n_panels(                                \
        const void *const *x, const char *const *panels, uint32_t k,                               \
        float out[2][2][FEW * CPU_PANEL])                                                          \
    {                                                                                              \
        few_rows(n, n_panels, x, panels, k, out);                                                  \
    }
FEW_ROWS(1, 1) FEW_ROWS(2, 1) FEW_ROWS(3, 1) FEW_ROWS(4, 1)
FEW_ROWS(1, 2) FEW_ROWS(2, 2) FEW_ROWS(3, 2) FEW_ROWS(4, 2)

static __attribute__((noinline)) void add_sums(uint32_t n_rows, float sums[2][FEW * CPU_PANEL],
                                               float *out)
{
    for (uint32_t i = 0; i < n_rows * CPU_PANEL; i += CPU_PANEL)
        _mm512_store_ps(out + i, _mm512_add_ps(_mm512_load_ps(sums[0] + i),
                                               _mm512_load_ps(sums[1] + i)));
}

static void few(uint32_t n_rows, uint32_t n_panels, const void *const *x,
                const char *const *panels, uint32_t k, float *const *out)
{
    static few_fn *const rows[2][FEW] = {
        {rows_1_of_1, rows_2_of_1, rows_3_of_1, rows_4_of_1},
        {rows_1_of_2, rows_2_of_2, rows_3_of_2, rows_4_of_2},
    };
    _Alignas(64) float sums[2][2][FEW * CPU_PANEL];
    const unsigned before = _mm_getcsr();
    _mm_setcsr(NEAREST_AND_NO_DENORMALS);
    rows[n_panels - 1][n_rows - 1](x, panels, k, sums);
    _mm_setcsr(before);
    for (uint32_t p = 0; p < n_panels; p++)
        add_sums(n_rows, sums[p], out[p]);
}

static void panel_bf16(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                       float *out)
{
    if (n_rows <= FEW)
        few(n_rows, 1, x, (const char *[]){panel}, k, &out);
    else
        many_rows(x, n_rows, panel, k, out);
}

static void pair_bf16(const void *const *x, uint32_t n_rows, const char *const *panels, uint32_t k,
                      float *const *out)
{
    if (n_rows <= FEW) {
        few(n_rows, 2, x, panels, k, out);
        return;
    }
    many_rows(x, n_rows, panels[0], k, out[0]);
    many_rows(x, n_rows, panels[1], k, out[1]);
}

// ---- probe -------------------------------------------------------------------------------------

// The upper half of a small whole number is all of it.
INLINE uint16_t bf16_of(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return (uint16_t) (bits >> 16);
}

// Four tiles of sums, which begin differently.
static float peak(uint64_t n_rounds, float start, float factor, float term)
{
    enum { SUMS = TILE_ROWS * CPU_PANEL, MACS = 4 * SUMS * 2 * UNITS };
    _Alignas(64) float sums[4][SUMS];
    _Alignas(64) uint16_t factors[2 * SUMS], terms[2 * SUMS];
    struct tile_config config = {0};
    for (uint32_t i = 0; i < 4 * SUMS; i++)
        sums[i / SUMS][i % SUMS] = start * (float) (i / SUMS);
    for (uint32_t i = 0; i < 2 * SUMS; i++)
        factors[i] = bf16_of(factor), terms[i] = bf16_of(term);
    for (uint32_t t = 0; t < N_TILES; t++)
        set_tile(&config, t, TILE_ROWS, ROW_BYTES);
    configure(&config);
    TILE_LOAD(0, sums[0], ROW_BYTES);
    TILE_LOAD(1, sums[1], ROW_BYTES);
    TILE_LOAD(2, sums[2], ROW_BYTES);
    TILE_LOAD(3, sums[3], ROW_BYTES);
    TILE_LOAD(6, factors, ROW_BYTES);
    TILE_LOAD(7, terms, ROW_BYTES);
    for (uint64_t left = n_rounds * CPU_ROUND_MACS; left >= MACS; left -= MACS) {
        _tile_dpbf16ps(0, 6, 7);
        _tile_dpbf16ps(1, 6, 7);
        _tile_dpbf16ps(2, 6, 7);
        _tile_dpbf16ps(3, 6, 7);
    }
    TILE_STORE(0, sums[0], ROW_BYTES);
    TILE_STORE(1, sums[1], ROW_BYTES);
    TILE_STORE(2, sums[2], ROW_BYTES);
    TILE_STORE(3, sums[3], ROW_BYTES);
    _tile_release();
    double sum = 0;
    for (uint32_t i = 0; i < 4 * SUMS; i++)
        sum += (double) sums[i / SUMS][i % SUMS];
    return (float) (sum / (4 * SUMS));
}

void moe_cpu_kernels_amx(struct cpu_kernels *kernels)
{
    kernels->panel[CPU_OPERAND_BF16][W_BF16] = panel_bf16;
    kernels->pair[CPU_OPERAND_BF16][W_BF16] = pair_bf16;
    kernels->peak[CPU_OPERAND_BF16] = peak;
    kernels->even_rows[CPU_OPERAND_BF16] = true;
}
