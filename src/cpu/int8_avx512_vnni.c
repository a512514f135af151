// SPDX-License-Identifier: MIT
// Operands of int8 for AVX-512 with VNNI. One instruction multiplies 4 codes of 16 columns, a
// unit of the panel made bytes without a sign, with 4 codes of a row of x, and adds up. 32 values
// of 16 columns are a tile; few rows take it from registers, more from the first-level cache,
// where all of them find it decoded. Of two panels at once a row's codes are loaded once for both:
// one load for each product would take as long as the products. (AMX multiplies tiles faster, but
// sums of 32 values have to leave its registers to be scaled, which takes longer than all this.)
// As kernels_avx2.c, this file includes no header of ours that has code for other levels in it.
#include "cpu/blocks_avx512.h"

#include <math.h>

enum {
    TILES = 8, // that are decoded before they are multiplied with many rows
    FEW = 4,   // rows that take tiles from registers
    MANY = 12, // sums of a block of rows: of int32 and of f32 they leave 8 registers
};

// Codes without a sign: what has one is moved by `zero`, and sums begin at -zero times those of x.
enum zero { ZERO_0, ZERO_8, ZERO_128 };

// What types of blocks decode to.
struct form {
    enum zero zero;
    bool minimum;     // there is one, times 1 / 128
    uint32_t n_parts; // with a scale of their own
    // Sums begin at CPU_INT8_ZERO's bits: one multiply-add, of the scale and of `zero` below, is
    // then the scale times the sum, with the same bits as converted first (NaN of an infinite
    // scale). The scale of mxfp4 may be too large for it.
    bool as_f32;
};

struct tile {
    __m512i codes[UNITS];
    __m512 scale[2], minimum[2]; // of each part
    __m512 zero;                 // -CPU_INT8_ZERO times the scale
};

INLINE __m512i unsigned_codes(enum vkmoe_dtype type, enum zero zero, const char *column,
                              uint32_t t, uint32_t u)
{
    const __m128i halves = _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
    const __m512i sign = _mm512_set1_epi8(-128), codes = codes_of(type, column, t, u);
    if (type == VKMOE_Q8_0)
        return _mm512_xor_si512(codes, sign);
    if (type == VKMOE_Q4_0 && zero == ZERO_128)
        return _mm512_add_epi8(codes, _mm512_set1_epi8(128 - 8));
    if (type == VKMOE_Q6_K)
        return _mm512_add_epi8(codes, _mm512_set1_epi8(128 - 32));
    if (type == VKMOE_MXFP4)
        return _mm512_shuffle_epi8(_mm512_xor_si512(_mm512_broadcast_i32x4(halves), sign), codes);
    return codes;
}

// Tile t of a column of blocks.
INLINE void decode(enum vkmoe_dtype type, struct form form, const char *column, uint32_t t,
                   struct tile *out)
{
#pragma GCC unroll 2
    for (uint32_t part = 0; part < form.n_parts; part++) {
        const struct factors f = scales_of(type, column, t, part);
        out->scale[part] = f.scale;
        if (form.minimum)
            out->minimum[part] = _mm512_mul_ps(f.minimum, _mm512_set1_ps(1 / 128.0f));
    }
    if (form.as_f32)
        out->zero = _mm512_mul_ps(out->scale[0], _mm512_set1_ps(-CPU_INT8_ZERO));
#pragma GCC unroll 8
    for (uint32_t u = 0; u < UNITS; u++)
        out->codes[u] = unsigned_codes(type, form.zero, column, t, u);
}

// ---- a tile times rows -----------------------------------------------------------------------

INLINE __m512i broadcast_4(const int8_t *codes)
{
    int32_t four;
    __builtin_memcpy(&four, codes, sizeof four);
    return _mm512_set1_epi32(four);
}

INLINE __m512 number_4(const int32_t *number)
{
    return _mm512_cvtepi32_ps(_mm512_set1_epi32(*number));
}

// Where the products of a part of a tile begin.
INLINE __m512i begin(struct form form, uint32_t which, const struct cpu_int8_block *x)
{
    if (form.zero == ZERO_0)
        return _mm512_set1_epi32(form.as_f32 ? CPU_INT8_ZERO_BITS : 0);
    if (form.zero == ZERO_8)
        return _mm512_add_epi32(_mm512_srai_epi32(_mm512_set1_epi32(x->start[which]), 4),
                                _mm512_set1_epi32(CPU_INT8_ZERO_BITS));
    return _mm512_set1_epi32(form.as_f32 ? x->begin : x->start[which]);
}

// What a part's products give before the scale of x: a later part's is added to v.
INLINE __m512 scaled(struct form form, const struct tile *w, uint32_t part, __m512i products,
                     const struct cpu_int8_block *x, __m512 v)
{
    if (form.as_f32)
        v = _mm512_fmadd_ps(w->scale[0], _mm512_castsi512_ps(products), w->zero);
    else if (part == 0)
        v = _mm512_mul_ps(w->scale[0], _mm512_cvtepi32_ps(products));
    else
        v = _mm512_fmadd_ps(w->scale[part], _mm512_cvtepi32_ps(products), v);
    if (!form.minimum)
        return v;
    const __m512 start = form.n_parts == 1 ? _mm512_set1_ps(x->start_value)
                                           : number_4(&x->start[part]);
    return _mm512_fmadd_ps(w->minimum[part], start, v);
}

// Adds to sum[p][r] what tile p of n_panels and block i of row r give, for n_rows: constants both.
INLINE void times_tiles(struct form form, uint32_t n_panels, uint32_t n_rows,
                        const struct tile *first, const struct tile *second,
                        const struct cpu_int8_block *const *x, size_t i, __m512 (*sum)[MANY])
{
    const uint32_t n_units = UNITS / form.n_parts;
    __m512i products[2][MANY];
    __m512 v[2][MANY];
#pragma GCC unroll 2
    for (uint32_t part = 0; part < form.n_parts; part++) {
        const uint32_t which = form.n_parts > 1 ? part : 2; // of the starts
#pragma GCC unroll 12
        for (uint32_t r = 0; r < n_rows; r++)
            products[0][r] = products[1][r] = begin(form, which, &x[r][i]);
#pragma GCC unroll 8
        for (uint32_t j = part * n_units; j < part * n_units + n_units; j++)
#pragma GCC unroll 12
            for (uint32_t r = 0; r < n_rows; r++) {
                const __m512i codes = broadcast_4(x[r][i].codes + 4 * j);
                products[0][r] = _mm512_dpbusd_epi32(products[0][r], first->codes[j], codes);
                if (n_panels > 1)
                    products[1][r] = _mm512_dpbusd_epi32(products[1][r], second->codes[j], codes);
            }
#pragma GCC unroll 12
        for (uint32_t r = 0; r < n_rows; r++) {
            v[0][r] = scaled(form, first, part, products[0][r], &x[r][i], v[0][r]);
            if (n_panels > 1)
                v[1][r] = scaled(form, second, part, products[1][r], &x[r][i], v[1][r]);
        }
    }
#pragma GCC unroll 12
    for (uint32_t r = 0; r < n_rows; r++) {
        const __m512 scale = _mm512_set1_ps(x[r][i].scale);
        sum[0][r] = _mm512_fmadd_ps(v[0][r], scale, sum[0][r]);
        if (n_panels > 1)
            sum[1][r] = _mm512_fmadd_ps(v[1][r], scale, sum[1][r]);
    }
}

// ---- few rows: a tile stays in registers -----------------------------------------------------

INLINE void few_rows(enum vkmoe_dtype type, struct form form, uint32_t values, uint32_t size,
                     uint32_t n_rows, const struct cpu_int8_block *const *x, const char *panel,
                     uint32_t k, float *out)
{
    const uint32_t n_tiles = values / TILE;
    __m512 sum[1][MANY];
    const struct cpu_int8_block *row[FEW];
#pragma GCC unroll 4
    for (uint32_t r = 0; r < n_rows; r++) {
        sum[0][r] = _mm512_setzero_ps();
        row[r] = x[r];
    }
    for (size_t i = 0; i < k / TILE; i += n_tiles, panel += size * CPU_PANEL) {
#pragma GCC unroll 8
        for (uint32_t t = 0; t < n_tiles; t++) {
            struct tile w;
            fetch_ahead(panel, size, t, n_tiles);
            decode(type, form, panel, t, &w);
            times_tiles(form, 1, n_rows, &w, NULL, row, i + t, sum);
        }
    }
#pragma GCC unroll 4
    for (uint32_t r = 0; r < n_rows; r++)
        _mm512_store_ps(out + r * CPU_PANEL, sum[0][r]);
}

// ---- many rows -------------------------------------------------------------------------------

// Decoded tiles of each panel, and what is asked for meanwhile: n_fetch lines for each of them and
// each block of rows, from `fetch` on.
struct tiles {
    struct tile tile[2][TILES];
    uint32_t n, n_fetch;
    const char *fetch[2];
};

INLINE void rows_of(struct form form, uint32_t n_panels, uint32_t n_rows, struct tiles *tiles,
                    const struct cpu_int8_block *const *x, size_t first, float *const *out)
{
    __m512 sum[2][MANY];
    const struct cpu_int8_block *row[MANY];
#pragma GCC unroll 12
    for (uint32_t r = 0; r < n_rows; r++) {
        row[r] = x[r];
#pragma GCC unroll 2
        for (uint32_t p = 0; p < n_panels; p++)
            sum[p][r] = first > 0 ? _mm512_load_ps(out[p] + r * CPU_PANEL) : _mm512_setzero_ps();
    }
    for (uint32_t t = 0; t < tiles->n; t++) {
        for (uint32_t i = 0; i < tiles->n_fetch; i++)
#pragma GCC unroll 2
            for (uint32_t p = 0; p < n_panels; p++) {
                _mm_prefetch(tiles->fetch[p], _MM_HINT_T1);
                tiles->fetch[p] += LINE;
            }
        times_tiles(form, n_panels, n_rows, &tiles->tile[0][t], &tiles->tile[1][t], row, first + t,
                    sum);
    }
#pragma GCC unroll 12
    for (uint32_t r = 0; r < n_rows; r++)
#pragma GCC unroll 2
        for (uint32_t p = 0; p < n_panels; p++)
            _mm512_store_ps(out[p] + r * CPU_PANEL, sum[p][r]);
}

// Blocks of n_most rows or less, as even as they can be: of 5 rows and more, as FEW are not many.
INLINE void all_rows(struct form form, uint32_t n_panels, uint32_t n_rows, struct tiles *tiles,
                     const struct cpu_int8_block *const *x, size_t first, float *const *out)
{
    const uint32_t most = MANY / n_panels;
    float *at[] = {out[0], out[n_panels - 1]};
    for (uint32_t left = n_rows; left > 0;) {
        const uint32_t n_blocks = (left + most - 1) / most, n = (left + n_blocks - 1) / n_blocks;
        switch (n + (n_panels - 1) * MANY) {
#define ROWS(n)                                                                                    \
    case n:                                                                                        \
        if (n_panels == 1)                                                                         \
            rows_of(form, 1, n, tiles, x, first, at);                                              \
        break;
#define PAIR_ROWS(n)                                                                               \
    case MANY + n:                                                                                 \
        if (n_panels == 2)                                                                         \
            rows_of(form, 2, n, tiles, x, first, at);                                              \
        break;
            ROWS(5) ROWS(6) ROWS(7) ROWS(8) ROWS(9) ROWS(10) ROWS(11) ROWS(12)
            PAIR_ROWS(3) PAIR_ROWS(4) PAIR_ROWS(5) PAIR_ROWS(6)
        }
        x += n, at[0] += n * CPU_PANEL, at[1] += n * CPU_PANEL, left -= n;
    }
}

typedef void rows_fn(uint32_t n_rows, struct tiles *tiles, const struct cpu_int8_block *const *x,
                     size_t first, float *const *out);

// X(name, zero, minimum, parts, as f32)
#define FORMS(X)                                                                                   \
    X(zero, ZERO_128, false, 1, true) X(minimum, ZERO_0, true, 1, true)                            \
    X(zero_far, ZERO_128, false, 1, false) X(zero_parts, ZERO_128, false, 2, false)                \
    X(minimum_parts, ZERO_0, true, 2, false)

#define FORM(name, zero, minimum, parts, as_f32)                                                   \
    static const struct form form_##name = {zero, minimum, parts, as_f32};                         \
    static void rows_##name(uint32_t n_rows, struct tiles *tiles,                                  \
                            const struct cpu_int8_block *const *x, size_t first,                   \
                            float *const *out)                                                     \
    {                                                                                              \
        all_rows(form_##name, 1, n_rows, tiles, x, first, out);                                    \
    }                                                                                              \
    static void pairs_##name(uint32_t n_rows, struct tiles *tiles,                                 \
                             const struct cpu_int8_block *const *x, size_t first,                  \
                             float *const *out)                                                    \
    {                                                                                              \
        all_rows(form_##name, 2, n_rows, tiles, x, first, out);                                    \
    }
FORMS(FORM)

// Of few rows: a code of 4 bits as it is.
static const struct form form_zero_8 = {ZERO_8, false, 1, true};

INLINE void many_rows(enum vkmoe_dtype type, struct form form, rows_fn *rows, uint32_t values,
                      uint32_t size, uint32_t n_panels, uint32_t n_rows,
                      const struct cpu_int8_block *const *x, const char *const *panels, uint32_t k,
                      float *const *out)
{
    const uint32_t n_of_block = values / TILE, most = MANY / n_panels;
    const uint32_t n_blocks = (n_rows + most - 1) / most;
    size_t at = 0; // in each panel
    struct tiles tiles;
    for (uint32_t first = 0; first < k / TILE; first += tiles.n) {
        const uint32_t left = k / TILE - first;
        tiles.n = left < TILES ? left : TILES;
        const uint32_t n_bytes = tiles.n / n_of_block * size * CPU_PANEL;
        const uint32_t n = n_blocks * tiles.n;
        for (uint32_t p = 0; p < n_panels; p++) {
            const char *column = panels[p] + at;
            tiles.fetch[p] = column + FETCH_FAR;
            for (uint32_t t = 0; t < tiles.n; t += n_of_block, column += size * CPU_PANEL)
#pragma GCC unroll 8
                for (uint32_t i = 0; i < n_of_block; i++)
                    decode(type, form, column, i, &tiles.tile[p][t + i]);
        }
        tiles.n_fetch = (n_bytes / LINE + n - 1) / n;
        rows(n_rows, &tiles, x, first, out);
        at += n_bytes;
    }
}

// ---- panels ----------------------------------------------------------------------------------

// X(name, type, form of few rows, of many, values of a block, its bytes)
#define BLOCKS(X)                                                                                  \
    X(q8_0, VKMOE_Q8_0, zero, zero, 32, 34)                                                        \
    X(q4_0, VKMOE_Q4_0, zero_8, zero, 32, 18)                                                      \
    X(q4_K, VKMOE_Q4_K, minimum, minimum, 256, 144)                                                \
    X(q5_K, VKMOE_Q5_K, minimum, minimum, 256, 176)                                                \
    X(q6_K, VKMOE_Q6_K, zero_parts, zero_parts, 256, 210)                                          \
    X(q2_K, VKMOE_Q2_K, minimum_parts, minimum_parts, 256, 84)                                     \
    X(mxfp4, VKMOE_MXFP4, zero_far, zero_far, 32, 17)

#define PANEL(name, type, few, many, values, size)                                                 \
    static void panel_##name(const void *const *rows, uint32_t n_rows, const void *panel,          \
                             uint32_t k, float *out)                                               \
    {                                                                                              \
        const struct cpu_int8_block *const *x = (const struct cpu_int8_block *const *) rows;       \
        switch (n_rows) {                                                                          \
        case 1:                                                                                    \
            few_rows(type, form_##few, values, size, 1, x, panel, k, out);                         \
            return;                                                                                \
        case 2:                                                                                    \
            few_rows(type, form_##few, values, size, 2, x, panel, k, out);                         \
            return;                                                                                \
        case 3:                                                                                    \
            few_rows(type, form_##few, values, size, 3, x, panel, k, out);                         \
            return;                                                                                \
        case FEW:                                                                                  \
            few_rows(type, form_##few, values, size, FEW, x, panel, k, out);                       \
            return;                                                                                \
        default:                                                                                   \
            many_rows(type, form_##many, rows_##many, values, size, 1, n_rows, x,                  \
                      (const char *[]){panel}, k, &out);                                           \
        }                                                                                          \
    }                                                                                              \
    static void pair_##name(const void *const *rows, uint32_t n_rows, const char *const *panels,   \
                            uint32_t k, float *const *out)                                         \
    {                                                                                              \
        if (n_rows > FEW) {                                                                        \
            many_rows(type, form_##many, pairs_##many, values, size, 2, n_rows,                    \
                      (const struct cpu_int8_block *const *) rows, panels, k, out);                \
            return;                                                                                \
        }                                                                                          \
        panel_##name(rows, n_rows, panels[0], k, out[0]);                                          \
        panel_##name(rows, n_rows, panels[1], k, out[1]);                                          \
    }
BLOCKS(PANEL)

// ---- quantising ------------------------------------------------------------------------------

// The sum of the codes of 16 values, times -128.
INLINE int32_t start_of(__m128i codes)
{
    const __m128i fours = _mm_dpbusd_epi32(_mm_setzero_si128(), _mm_set1_epi8(1), codes);
    const __m128i twos = _mm_add_epi32(fours, _mm_shuffle_epi32(fours, 0x4e));
    return -128 * _mm_cvtsi128_si32(_mm_add_epi32(twos, _mm_shuffle_epi32(twos, 0xb1)));
}

INLINE __m128i rounded(__m512 v, __m512 inverse)
{
    return _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(v, inverse)));
}

INLINE void quantise_block(const float *values, struct cpu_int8_block *out)
{
    enum { SPECIAL = 0x99 }; // NaNs and infinities
    const __m512 a = _mm512_loadu_ps(values), b = _mm512_loadu_ps(values + 16);
    const bool finite = (_mm512_fpclass_ps_mask(a, SPECIAL) |
                         _mm512_fpclass_ps_mask(b, SPECIAL)) == 0;
    const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
    const float inverse = 127 / most;
    *out = (struct cpu_int8_block){.scale = finite ? 0 : NAN, .begin = CPU_INT8_ZERO_BITS};
    if (!finite || !isfinite(inverse))
        return;
    const __m128i first = rounded(a, _mm512_set1_ps(inverse));
    const __m128i last = rounded(b, _mm512_set1_ps(inverse));
    out->scale = most / 127;
    out->start[0] = start_of(first);
    out->start[1] = start_of(last);
    out->start[2] = out->start[0] + out->start[1];
    out->start_value = (float) out->start[2];
    out->begin += out->start[2];
    _mm_storeu_si128((__m128i *) out->codes, first);
    _mm_storeu_si128((__m128i *) out->codes + 1, last);
}

static void quantise(const float *values, uint32_t n, struct cpu_int8_block *out)
{
    for (uint32_t i = 0; i < n / TILE; i++)
        quantise_block(values + (size_t) i * TILE, &out[i]);
}

// ---- probe -----------------------------------------------------------------------------------

// 12 chains of 16 sums, each of 4 products: 8 rounds. They begin differently: equal ones would be
// made one.
static float peak(uint64_t n_rounds, float start, float factor, float term)
{
    const __m512i f = _mm512_set1_epi8((char) factor), t = _mm512_set1_epi8((char) term);
    __m512i v[12];
#pragma GCC unroll 12
    for (int j = 0; j < 12; j++)
        v[j] = _mm512_set1_epi32(j * (int) start);
    for (uint64_t i = 0; i < n_rounds; i += 8)
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++)
            v[j] = _mm512_dpbusd_epi32(v[j], f, t);
#pragma GCC unroll 12
    for (int j = 1; j < 12; j++)
        v[0] = _mm512_add_epi32(v[0], v[j]);
    return (float) _mm512_reduce_add_epi32(v[0]) / (12 * CPU_PANEL);
}

void moe_cpu_int8_avx512_vnni(struct cpu_kernels *kernels)
{
#define ENTRY(name, type, few, many, values, size)                                                 \
    kernels->panel[CPU_OPERAND_INT8][type] = panel_##name;                                         \
    kernels->pair[CPU_OPERAND_INT8][type] = pair_##name;
    BLOCKS(ENTRY)
    kernels->quantise = quantise;
    kernels->peak[CPU_OPERAND_INT8] = peak;
}
