// SPDX-License-Identifier: MIT
// Operands of int8 for AVX2: rows to blocks of codes, and panels of types of blocks multiplied with
// them. As kernels_avx2.c, this file includes no header of ours that has code for other files.
//
// A lane of 4 bytes is 4 steps of one row of weights, so that no sum goes across lanes. Its product
// with 4 codes of x takes codes of weights without a sign: those of types that have one are stored
// with an offset, and what that adds is taken off the sum (`start` of x). Products of two steps are
// added to 16 bits, and so are several units', as many as fit; then they become sums of 32 bits.
//
//   type   codes   offset  units that fit 16 bits
//   q4_0   0..15        8  8: 8 * 2 * 15 * 127 = 30480
//   q4_K   0..15           8
//   q5_K   0..31           4: 4 * 2 * 31 * 127 = 31496
//   q6_K   0..63       32  2: 2 * 2 * 63 * 127 = 32004
//   q2_K   0..3            4: scales are of 16 steps
//   mxfp4  0..24       12  4: 4 * 2 * 24 * 127 = 24384
//   q8_0   0..255     128  8, as two planes of 4 bits: code = low + 16 high
#include "cpu/blocks_avx2.h"

enum {
    BLOCK_ROWS = 4,  // of x, for which weights are read once: 8 sums of 16 bits, and what they need
    MAX_TILES = 8,   // that are unpacked together where x has more rows
    MAX_UNITS = 16,  // of a tile, with both planes
};

INLINE uint32_t planes(enum vkmoe_dtype type)
{
    return type == VKMOE_Q8_0 ? 2 : 1;
}

// Parts of a tile that have scales of their own.
INLINE uint32_t parts(enum vkmoe_dtype type)
{
    return type == VKMOE_Q6_K || type == VKMOE_Q2_K ? 2 : 1;
}

INLINE bool has_minimum(enum vkmoe_dtype type)
{
    return type == VKMOE_Q4_K || type == VKMOE_Q5_K || type == VKMOE_Q2_K;
}

// Units whose products fit 16 bits.
INLINE uint32_t units_of_sum(enum vkmoe_dtype type)
{
    if (type == VKMOE_Q6_K)
        return 2;
    return type == VKMOE_Q5_K || type == VKMOE_Q2_K || type == VKMOE_MXFP4 ? 4 : 8;
}

// Codes without a sign.
INLINE struct unit positive_codes(enum vkmoe_dtype type, const char *column, uint32_t tile,
                                  uint32_t plane, uint32_t u)
{
    const __m128i halves = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
    const __m256i sign = _mm256_set1_epi8((char) 128);
    struct unit codes = codes_of(type, column, tile, u);
    if (type == VKMOE_MXFP4)
        return from_table(halves, codes);
    if (type != VKMOE_Q8_0)
        return codes;
    if (plane == 0)
        return bits(codes, 0, 15);
    codes = (struct unit){_mm256_xor_si256(codes.lo, sign), _mm256_xor_si256(codes.hi, sign)};
    return bits(codes, 4, 15);
}

// A tile, unpacked.
struct tile {
    struct factors scales[2];
    struct unit codes[MAX_UNITS];
};

INLINE void unpack(enum vkmoe_dtype type, const struct factors *f, const char *column,
                   uint32_t tile, struct tile *out)
{
#pragma GCC unroll 2
    for (uint32_t part = 0; part < parts(type); part++)
        out->scales[part] = scales_of(type, f, column, tile, part);
#pragma GCC unroll 2
    for (uint32_t plane = 0; plane < planes(type); plane++)
#pragma GCC unroll 8
        for (uint32_t u = 0; u < TILE_UNITS; u++)
            out->codes[plane * TILE_UNITS + u] = positive_codes(type, column, tile, plane, u);
}

// Where a tile is read from: `unpacked`, or if that is NULL a column.
struct source {
    const struct tile *unpacked;
    const struct factors *f;
    const char *column;
    uint32_t tile;
};

INLINE struct unit source_codes(enum vkmoe_dtype type, const struct source *from, uint32_t plane,
                                uint32_t u)
{
    if (from->unpacked)
        return from->unpacked->codes[plane * TILE_UNITS + u];
    return positive_codes(type, from->column, from->tile, plane, u);
}

INLINE struct factors source_scales(enum vkmoe_dtype type, const struct source *from, uint32_t part)
{
    if (from->unpacked)
        return from->unpacked->scales[part];
    return scales_of(type, from->f, from->column, from->tile, part);
}

// What the offset of codes adds, negative.
INLINE __m256i offset_of(enum vkmoe_dtype type, int32_t start)
{
    const __m256i v = _mm256_set1_epi32(start);
    switch (type) {
    case VKMOE_Q8_0:
        return v;
    case VKMOE_Q4_0:
        return _mm256_srai_epi32(v, 4);
    case VKMOE_Q6_K:
        return _mm256_srai_epi32(v, 2);
    case VKMOE_MXFP4: {
        const __m256i four = _mm256_srai_epi32(v, 5);
        return _mm256_add_epi32(four, _mm256_add_epi32(four, four));
    }
    default:
        return _mm256_setzero_si256();
    }
}

// The sum as a value that the compiler knows nothing of. It would otherwise order the additions of
// a chain anew, and keep all their terms.
INLINE __m256i in_order(__m256i sum)
{
    __asm__("" : "+x"(sum));
    return sum;
}

// sums[r] += codes of a part of a tile times those of x[r].
INLINE void add_products(enum vkmoe_dtype type, uint32_t n_rows,
                         const struct cpu_int8_block *const *x, const struct source *from,
                         uint32_t part, struct unit *sums)
{
    const uint32_t n = TILE_UNITS / parts(type), step = units_of_sum(type);
#pragma GCC unroll 2
    for (uint32_t plane = 0; plane < planes(type); plane++) {
        const __m256i weight = _mm256_set1_epi16(plane == 0 ? 1 : 16);
#pragma GCC unroll 4
        for (uint32_t first = part * n; first < part * n + n; first += step) {
            struct unit pairs[BLOCK_ROWS];
#pragma GCC unroll 8
            for (uint32_t u = first; u < first + step; u++) {
                const struct unit w = source_codes(type, from, plane, u);
#pragma GCC unroll 4
                for (uint32_t r = 0; r < n_rows; r++) {
                    int32_t four;
                    __builtin_memcpy(&four, x[r]->codes + 4 * u, sizeof four);
                    const __m256i v = _mm256_set1_epi32(four);
                    const __m256i lo = _mm256_maddubs_epi16(w.lo, v);
                    const __m256i hi = _mm256_maddubs_epi16(w.hi, v);
                    pairs[r].lo = u == first ? lo : in_order(_mm256_add_epi16(pairs[r].lo, lo));
                    pairs[r].hi = u == first ? hi : in_order(_mm256_add_epi16(pairs[r].hi, hi));
                }
                __asm__ volatile("" ::: "memory"); // nothing is read before there is room for it
            }
#pragma GCC unroll 4
            for (uint32_t r = 0; r < n_rows; r++) {
                const __m256i lo = _mm256_madd_epi16(pairs[r].lo, weight);
                const __m256i hi = _mm256_madd_epi16(pairs[r].hi, weight);
                sums[r].lo = _mm256_add_epi32(sums[r].lo, lo);
                sums[r].hi = _mm256_add_epi32(sums[r].hi, hi);
            }
        }
    }
}

// scale * sum [- minimum * sum of codes] of a part, added to `total` unless it is the first.
INLINE struct lanes scaled(enum vkmoe_dtype type, const struct factors *s, struct unit sum,
                           int32_t start, bool first, struct lanes total)
{
    const struct lanes n = numbers(sum);
    if (first)
        total = times(s->scale, n);
    else
        total = (struct lanes){_mm256_fmadd_ps(s->scale.lo, n.lo, total.lo),
                               _mm256_fmadd_ps(s->scale.hi, n.hi, total.hi)};
    if (!has_minimum(type))
        return total;
    const __m256i codes = _mm256_srai_epi32(_mm256_set1_epi32(start), 7); // negative
    const __m256 v = _mm256_cvtepi32_ps(codes);
    return (struct lanes){_mm256_fmadd_ps(s->minimum.lo, v, total.lo),
                          _mm256_fmadd_ps(s->minimum.hi, v, total.hi)};
}

// A tile of n_rows chains.
INLINE void multiply(enum vkmoe_dtype type, uint32_t n_rows, const struct cpu_int8_block *const *x,
                     const struct source *from, struct lanes *out)
{
    struct lanes total[BLOCK_ROWS];
#pragma GCC unroll 2
    for (uint32_t part = 0; part < parts(type); part++) {
        struct unit sums[BLOCK_ROWS];
        const uint32_t at = parts(type) == 1 ? 2 : part; // in `start`
#pragma GCC unroll 4
        for (uint32_t r = 0; r < n_rows; r++)
            sums[r].lo = sums[r].hi = offset_of(type, x[r]->start[at]);
        add_products(type, n_rows, x, from, part, sums);
        const struct factors s = source_scales(type, from, part);
#pragma GCC unroll 4
        for (uint32_t r = 0; r < n_rows; r++)
            total[r] = scaled(type, &s, sums[r], x[r]->start[at], part == 0, total[r]);
    }
#pragma GCC unroll 4
    for (uint32_t r = 0; r < n_rows; r++) {
        const __m256 scale = _mm256_broadcast_ss(&x[r]->scale);
        out[r].lo = _mm256_fmadd_ps(total[r].lo, scale, out[r].lo);
        out[r].hi = _mm256_fmadd_ps(total[r].hi, scale, out[r].hi);
    }
}

// ---- panels ----------------------------------------------------------------------------------

struct form {
    enum vkmoe_dtype type;
    uint32_t tiles, size; // of a block
};

// Begins or, with `more`, goes on with chains of n_rows (a constant where this is expanded) by
// n_tiles, from tile `first` on: those of a panel, or unpacked ones.
INLINE void block(struct form form, uint32_t n_rows, const void *const *x, uint32_t first,
                  const char *panel, const struct tile *unpacked, uint32_t n_tiles, bool more,
                  float *out)
{
    const struct cpu_int8_block *rows[BLOCK_ROWS];
    struct lanes sum[BLOCK_ROWS];
    struct factors f;
    struct source from = {.unpacked = unpacked, .f = &f, .column = panel};
#pragma GCC unroll 4
    for (uint32_t r = 0; r < n_rows; r++) {
        rows[r] = (const struct cpu_int8_block *) x[r] + first;
        sum[r].lo = more ? _mm256_load_ps(out + r * CPU_PANEL) : _mm256_setzero_ps();
        sum[r].hi = more ? _mm256_load_ps(out + r * CPU_PANEL + 8) : _mm256_setzero_ps();
    }
    for (uint32_t i = 0; i < n_tiles; i++) {
        if (!unpacked && from.tile == 0)
            f = factors_of(form.type, from.column);
        if (!unpacked)
            read_ahead(from.column, from.tile, form.tiles, form.size);
        multiply(form.type, n_rows, rows, &from, sum);
#pragma GCC unroll 4
        for (uint32_t r = 0; r < n_rows; r++)
            rows[r]++;
        if (unpacked) {
            from.unpacked++;
        } else if (++from.tile == form.tiles) {
            from.tile = 0;
            from.column += form.size * CPU_PANEL;
        }
    }
#pragma GCC unroll 4
    for (uint32_t r = 0; r < n_rows; r++) {
        _mm256_store_ps(out + r * CPU_PANEL, sum[r].lo);
        _mm256_store_ps(out + r * CPU_PANEL + 8, sum[r].hi);
    }
}

INLINE void block_of(struct form form, uint32_t n_rows, const void *const *x, uint32_t first,
                     const char *panel, const struct tile *unpacked, uint32_t n_tiles, bool more,
                     float *out)
{
    switch (n_rows) {
    case 1:
        block(form, 1, x, first, panel, unpacked, n_tiles, more, out);
        return;
    case 2:
        block(form, 2, x, first, panel, unpacked, n_tiles, more, out);
        return;
    case 3:
        block(form, 3, x, first, panel, unpacked, n_tiles, more, out);
        return;
    default:
        block(form, BLOCK_ROWS, x, first, panel, unpacked, n_tiles, more, out);
    }
}

// Up to BLOCK_ROWS rows use codes as they are unpacked, more read them from the first-level cache.
INLINE void panel_any(struct form form, const void *const *x, uint32_t n_rows, const char *panel,
                      uint32_t k, float *out)
{
    struct tile unpacked[MAX_TILES];
    const uint32_t n = k / TILE;
    if (n_rows <= BLOCK_ROWS) {
        block_of(form, n_rows, x, 0, panel, NULL, n, false, out);
        return;
    }
    for (uint32_t first = 0, n_tiles; first < n; first += n_tiles) {
        n_tiles = n - first < MAX_TILES ? n - first : MAX_TILES;
        for (uint32_t i = 0; i < n_tiles; i++) {
            const size_t block_i = (first + i) / form.tiles;
            const char *column = panel + block_i * form.size * CPU_PANEL;
            const struct factors f = factors_of(form.type, column);
            read_ahead(column, (first + i) % form.tiles, form.tiles, form.size);
            unpack(form.type, &f, column, (first + i) % form.tiles, &unpacked[i]);
        }
        for (uint32_t r = 0; r < n_rows; r += BLOCK_ROWS) {
            const uint32_t rows = n_rows - r < BLOCK_ROWS ? n_rows - r : BLOCK_ROWS;
            block_of(form, rows, x + r, first, NULL, unpacked, n_tiles, first > 0,
                     out + (size_t) r * CPU_PANEL);
        }
    }
}

// ---- rows of x -------------------------------------------------------------------------------

INLINE int32_t sum_of(__m256i v)
{
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}

// Of numbers whose sign bits are 0, as integers: NaN is the largest, then infinity.
INLINE uint32_t most_of(const __m256i *magnitudes)
{
    const __m256i a = _mm256_max_epu32(magnitudes[0], magnitudes[1]);
    const __m256i v = _mm256_max_epu32(a, _mm256_max_epu32(magnitudes[2], magnitudes[3]));
    __m128i most = _mm_max_epu32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    most = _mm_max_epu32(most, _mm_shuffle_epi32(most, 0x4e));
    return (uint32_t) _mm_cvtsi128_si32(_mm_max_epu32(most, _mm_shuffle_epi32(most, 0xb1)));
}

static void quantise_block(const float *values, struct cpu_int8_block *out)
{
    const uint32_t infinity = 0x7f800000, nan = 0x7fc00000;
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    __m256 v[4];
    __m256i codes[4];
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_loadu_ps(values + 8 * i);
        codes[i] = _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude);
    }
    const uint32_t most_bits = most_of(codes);
    float most, inverse;
    __builtin_memcpy(&most, &most_bits, sizeof most);
    inverse = 127 / most;
    *out = (struct cpu_int8_block){.begin = CPU_INT8_ZERO_BITS};
    if (most_bits >= infinity)
        __builtin_memcpy(&out->scale, &nan, sizeof nan);
    if (most_bits >= infinity || __builtin_isinf(inverse))
        return;
    out->scale = most / 127;
    for (int i = 0; i < 4; i++)
        codes[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], _mm256_set1_ps(inverse)));
    out->start[0] = -128 * sum_of(_mm256_add_epi32(codes[0], codes[1]));
    out->start[1] = -128 * sum_of(_mm256_add_epi32(codes[2], codes[3]));
    out->start[2] = out->start[0] + out->start[1];
    out->start_value = (float) out->start[2];
    out->begin += out->start[2];
    const __m256i words = _mm256_packs_epi32(codes[0], codes[1]);
    const __m256i bytes = _mm256_packs_epi16(words, _mm256_packs_epi32(codes[2], codes[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256((__m256i *) out->codes, _mm256_permutevar8x32_epi32(bytes, order));
}

static void quantise(const float *values, uint32_t n, struct cpu_int8_block *out)
{
    for (uint32_t i = 0; i < n / TILE; i++)
        quantise_block(values + i * TILE, &out[i]);
}

#define PANEL(name, type, values, size)                                                            \
    static void panel_##name(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k, \
                             float *out)                                                           \
    {                                                                                              \
        panel_any((struct form){type, values / 32, size}, x, n_rows, panel, k, out);               \
    }
CPU_INT8_LIST(PANEL)

// 12 sums of 8 lanes; a step is 8 rounds. Products that nothing changes would be made but once.
static float peak(uint64_t n_rounds, float start, float factor, float term)
{
    const __m256i f = _mm256_set1_epi8((char) factor), one = _mm256_set1_epi16(1);
    __m256i t = _mm256_set1_epi8((char) term), v[12];
    int32_t lanes[8];
    float total = 0;
#pragma GCC unroll 12
    for (int j = 0; j < 12; j++)
        v[j] = _mm256_set1_epi32((int32_t) ((float) j * start));
    for (uint64_t i = 0; i < n_rounds / 8; i++)
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++) {
            __asm__("" : "+x"(t));
            __m256i sum = _mm256_maddubs_epi16(f, t);
            __asm__("" : "+x"(t));
            sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(f, t));
            v[j] = _mm256_add_epi32(v[j], _mm256_madd_epi16(sum, one));
        }
#pragma GCC unroll 12
    for (int j = 1; j < 12; j++)
        v[0] = _mm256_add_epi32(v[0], v[j]);
    _mm256_storeu_si256((__m256i *) lanes, v[0]);
    for (int j = 0; j < 8; j++)
        total += (float) lanes[j];
    return total / 96;
}

void moe_cpu_int8_avx2(struct cpu_kernels *kernels)
{
#define ENTRY(name, type, values, size) kernels->panel[CPU_OPERAND_INT8][type] = panel_##name;
    CPU_INT8_LIST(ENTRY)
    kernels->quantise = quantise;
    kernels->peak[CPU_OPERAND_INT8] = peak;
}
