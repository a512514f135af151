// SPDX-License-Identifier: MIT
// Panels with operands of int8 for processors that multiply matrices of 2 x 8 and 8 x 2 codes. A
// row that is left over is summed as int8_dotprod.c does.
#include "cpu/int8_neon_text.h"

// 8 codes of one row, then of the other.
INLINE struct operand load_rows(const int8_t *const *codes)
{
    struct operand x;
#pragma GCC unroll 2
    for (uint32_t i = 0; i < 2; i++) {
        const int64x2_t a = vreinterpretq_s64_s8(vld1q_s8(codes[0] + 16 * i));
        const int64x2_t b = vreinterpretq_s64_s8(vld1q_s8(codes[1] + 16 * i));
        x.v[2 * i] = vreinterpretq_s8_s64(vzip1q_s64(a, b));
        x.v[2 * i + 1] = vreinterpretq_s8_s64(vzip2q_s64(a, b));
    }
    return x;
}

// Units side by side are 8 codes of each column: of two columns, then of the other two. Sums are of
// these for the first row, then for the second.
INLINE void add_smmla(int32x4_t sum[2], const int8x16_t w[2], const struct operand *x,
                      uint32_t pair)
{
    const int32x4_t a = vreinterpretq_s32_s8(w[0]), b = vreinterpretq_s32_s8(w[1]);
    sum[0] = vmmlaq_s32(sum[0], x->v[pair], vreinterpretq_s8_s32(vzip1q_s32(a, b)));
    sum[1] = vmmlaq_s32(sum[1], x->v[pair], vreinterpretq_s8_s32(vzip2q_s32(a, b)));
}

INLINE int32x4_t total_smmla(const int32x4_t sum[2], uint32_t row)
{
    const int64x2_t a = vreinterpretq_s64_s32(sum[0]), b = vreinterpretq_s64_s32(sum[1]);
    return vreinterpretq_s32_s64(row == 0 ? vzip1q_s64(a, b) : vzip2q_s64(a, b));
}

static const struct dot smmla = {2, load_rows, add_smmla, total_smmla};

#define rows_dot smmla
#define row_dot sdot

BLOCKS(PANEL_INT8)

// 12 chains of 4 sums, 384 multiply-adds: 2 steps in 8 rounds.
static float peak(uint64_t n_rounds, float start, float factor, float term)
{
    const int8x16_t f = vdupq_n_s8((int8_t) factor), t = vdupq_n_s8((int8_t) term);
    int32x4_t v[12];
#pragma GCC unroll 12
    for (int j = 0; j < 12; j++)
        v[j] = vdupq_n_s32(j * (int) start);
    for (uint64_t i = 0; i < n_rounds; i += 4)
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++)
            v[j] = vmmlaq_s32(v[j], f, t);
#pragma GCC unroll 12
    for (int j = 1; j < 12; j++)
        v[0] = vaddq_s32(v[0], v[j]);
    return (float) vaddvq_s32(v[0]) / 48;
}

void moe_cpu_int8_i8mm(struct cpu_kernels *kernels)
{
    BLOCKS(ENTRY_INT8)
    kernels->peak[CPU_OPERAND_INT8] = peak;
}
