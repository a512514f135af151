// SPDX-License-Identifier: MIT
// Panels of types of blocks with operands of int8, as text that int8_neon.c, int8_dotprod.c and
// int8_i8mm.c compile, each with its instructions for products of codes. Sums of products are exact
// and what becomes of them is written here, so all three have the same bits.
#ifndef MOE_CPU_INT8_NEON_TEXT_H
#define MOE_CPU_INT8_NEON_TEXT_H

#include "cpu/blocks_neon_text.h"

enum { PART = 16 }; // values that have one scale, at least

// 32 codes of as many rows of x as are multiplied together, in the level's own order.
struct operand {
    int8x16_t v[4];
};

// What an instruction does. Where these are expanded, all but vectors are constants.
struct dot {
    uint32_t n_rows; // that are multiplied together: 1 or 2
    struct operand (*load)(const int8_t *const *codes);
    // Adds the products of 8 values of 4 columns: units w[0] and w[1] with values 8 pair .. + 7.
    void (*add)(int32x4_t sum[2], const int8x16_t w[2], const struct operand *x, uint32_t pair);
    int32x4_t (*total)(const int32x4_t sum[2], uint32_t row); // of 4 columns
};

// How a type is decoded.
struct form {
    scales_fn *scales;
    codes_fn *codes;
    bool two_scales, has_minima;
};

enum { BLOCK_ROWS = 4 }; // that share one decoding of the weights

// The products of values 16 part .. 16 part + 15.
INLINE void add_part(const struct form *form, const struct dot *dot, uint32_t n_rows,
                     const char *column, uint32_t tile, uint32_t group, uint32_t part,
                     const struct operand *x, int32x4_t (*sum)[2])
{
#pragma GCC unroll 2
    for (uint32_t pair = 2 * part; pair < 2 * part + 2; pair++) {
        const int8x16_t w[2] = {form->codes(column, tile, 2 * pair, group),
                                form->codes(column, tile, 2 * pair + 1, group)};
#pragma GCC unroll 4
        for (uint32_t r = 0; r < n_rows / dot->n_rows; r++)
            dot->add(sum[r], w, &x[r], pair);
    }
}

// -128 times the sum of codes, as it is in a struct cpu_int8_block.
INLINE float32x4_t less_minimum(float32x4_t t, float32x4_t minimum, int32_t start)
{
    return vfmaq_n_f32(t, minimum, (float) start * (1.0f / 128));
}

// t = scale * sum of products - minimum * sum of codes, and out += t * x's scale: 4 columns.
INLINE void tile_times_rows(const struct form *form, const struct dot *dot, uint32_t n_rows,
                            const char *column, uint32_t tile, uint32_t group,
                            const struct cpu_int8_block *const *b, const struct operand *x,
                            float *out)
{
    const struct tile_scales s = form->scales(column, tile, group);
    int32x4_t sum[2][BLOCK_ROWS][2];
#pragma GCC unroll 2
    for (uint32_t part = 0; part < 2; part++) {
        if (part == 0 || form->two_scales)
#pragma GCC unroll 4
            for (uint32_t r = 0; r < n_rows / dot->n_rows; r++)
                sum[part][r][0] = sum[part][r][1] = vdupq_n_s32(0);
        add_part(form, dot, n_rows, column, tile, group, part, x, sum[form->two_scales ? part : 0]);
    }
#pragma GCC unroll 4
    for (uint32_t r = 0; r < n_rows; r++) {
        const uint32_t of = r / dot->n_rows, row = r % dot->n_rows;
        float32x4_t t = vmulq_f32(s.scale[0], vcvtq_f32_s32(dot->total(sum[0][of], row)));
        if (form->two_scales)
            t = vfmaq_f32(t, s.scale[1], vcvtq_f32_s32(dot->total(sum[1][of], row)));
        if (form->has_minima)
            t = less_minimum(t, s.minimum[0], b[r]->start[form->two_scales ? 0 : 2]);
        if (form->has_minima && form->two_scales)
            t = less_minimum(t, s.minimum[1], b[r]->start[1]);
        vst1q_f32(out + r * CPU_PANEL, vfmaq_n_f32(vld1q_f32(out + r * CPU_PANEL), t, b[r]->scale));
    }
}

INLINE void rows_times_panel(const struct form *form, const struct dot *dot, uint32_t n_rows,
                             uint32_t values, uint32_t size, const void *const *x,
                             const char *panel, uint32_t k, float *out)
{
    for (uint32_t first = 0; first < k; first += TILE) {
        const char *column = panel + (size_t) (first / values) * size * CPU_PANEL;
        const struct cpu_int8_block *b[BLOCK_ROWS];
        const int8_t *codes[BLOCK_ROWS];
        struct operand operands[BLOCK_ROWS];
#pragma GCC unroll 4
        for (uint32_t r = 0; r < n_rows; r++) {
            b[r] = (const struct cpu_int8_block *) x[r] + first / TILE;
            codes[r] = b[r]->codes;
        }
#pragma GCC unroll 4
        for (uint32_t r = 0; r < n_rows / dot->n_rows; r++)
            operands[r] = dot->load(codes + r * dot->n_rows);
        for (uint32_t group = 0; group < GROUPS; group++)
            tile_times_rows(form, dot, n_rows, column, first % values / TILE, group, b, operands,
                            out + 4 * group);
    }
}

// Blocks of rows, two together, then one; `last` is for that one alone.
INLINE void panel_any(const struct form *form, const struct dot *dot, const struct dot *last,
                      uint32_t values, uint32_t size, const void *const *x, uint32_t n_rows,
                      const char *panel, uint32_t k, float *out)
{
    uint32_t r = 0;
    __builtin_memset(out, 0, (size_t) n_rows * CPU_PANEL * sizeof *out);
    for (; r + BLOCK_ROWS <= n_rows; r += BLOCK_ROWS)
        rows_times_panel(form, dot, BLOCK_ROWS, values, size, x + r, panel, k, out + r * CPU_PANEL);
    for (; r + 2 <= n_rows; r += 2)
        rows_times_panel(form, dot, 2, values, size, x + r, panel, k, out + r * CPU_PANEL);
    if (r < n_rows)
        rows_times_panel(form, last, 1, values, size, x + r, panel, k, out + r * CPU_PANEL);
}

// A level's panels and their entries: it says what rows_dot and row_dot are, the latter for a row
// that is left.
#define PANEL_INT8(name, type, scales, values, size, two_scales, has_minima)                       \
    static void panel_##name(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k, \
                             float *out)                                                           \
    {                                                                                              \
        static const struct form form = {scales, codes_##name, two_scales, has_minima};            \
        panel_any(&form, &rows_dot, &row_dot, values, size, x, n_rows, panel, k, out);             \
    }
#define ENTRY_INT8(name, type, scales, values, size, two_scales, has_minima)                       \
    kernels->panel[CPU_OPERAND_INT8][type] = panel_##name;

// ---- instructions ------------------------------------------------------------------------------

INLINE struct operand load_row(const int8_t *const *codes)
{
    return (struct operand){{vld1q_s8(codes[0]), vld1q_s8(codes[0] + 16)}};
}

#ifdef __ARM_FEATURE_DOTPROD
// Lanes are 4 codes of x and of each column.
INLINE void add_sdot(int32x4_t sum[2], const int8x16_t w[2], const struct operand *x, uint32_t pair)
{
    const int8x16_t v = x->v[pair / 2];
    if (pair % 2 == 0) {
        sum[0] = vdotq_laneq_s32(sum[0], w[0], v, 0);
        sum[0] = vdotq_laneq_s32(sum[0], w[1], v, 1);
    } else {
        sum[0] = vdotq_laneq_s32(sum[0], w[0], v, 2);
        sum[0] = vdotq_laneq_s32(sum[0], w[1], v, 3);
    }
}

INLINE int32x4_t total_sdot(const int32x4_t sum[2], uint32_t row)
{
    (void) row;
    return sum[0];
}

static const struct dot sdot = {1, load_row, add_sdot, total_sdot};
#endif

#endif
