// SPDX-License-Identifier: MIT
// Panels with operands of int8 for processors that sum 4 products of 8 bits in each lane.
#include "cpu/int8_neon_text.h"

#define rows_dot sdot
#define row_dot sdot

BLOCKS(PANEL_INT8)

// 12 chains of 4 sums, 192 multiply-adds: 4 steps in 8 rounds.
static float peak(uint64_t n_rounds, float start, float factor, float term)
{
    const int8x16_t f = vdupq_n_s8((int8_t) factor), t = vdupq_n_s8((int8_t) term);
    int32x4_t v[12];
#pragma GCC unroll 12
    for (int j = 0; j < 12; j++)
        v[j] = vdupq_n_s32(j * (int) start);
    for (uint64_t i = 0; i < n_rounds; i += 2)
#pragma GCC unroll 12
        for (int j = 0; j < 12; j++)
            v[j] = vdotq_s32(v[j], f, t);
#pragma GCC unroll 12
    for (int j = 1; j < 12; j++)
        v[0] = vaddq_s32(v[0], v[j]);
    return (float) vaddvq_s32(v[0]) / 48;
}

void moe_cpu_int8_dotprod(struct cpu_kernels *kernels)
{
    BLOCKS(ENTRY_INT8)
    kernels->peak[CPU_OPERAND_INT8] = peak;
}
