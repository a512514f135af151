// SPDX-License-Identifier: MIT
// Operands of int8 for 64-bit ARM's own vectors: rows to blocks of codes, with the bits of
// int8_scalar.c, and panels by products of 16 bits. Two of those, of at most 127 * 128 each, have
// room before they are added to sums of 32 bits.
#include "cpu/int8_neon_text.h"

// 4 codes of x for each of 4 columns; sums are of two products of each column.
INLINE int8x16_t repeat(const struct operand *x, uint32_t unit)
{
    const int32x4_t v = vreinterpretq_s32_s8(x->v[unit / 4]);
    switch (unit % 4) {
    case 0:
        return vreinterpretq_s8_s32(vdupq_laneq_s32(v, 0));
    case 1:
        return vreinterpretq_s8_s32(vdupq_laneq_s32(v, 1));
    case 2:
        return vreinterpretq_s8_s32(vdupq_laneq_s32(v, 2));
    default:
        return vreinterpretq_s8_s32(vdupq_laneq_s32(v, 3));
    }
}

INLINE void add_smull(int32x4_t sum[2], const int8x16_t w[2], const struct operand *x,
                      uint32_t pair)
{
    const int8x16_t first = repeat(x, 2 * pair), second = repeat(x, 2 * pair + 1);
    int16x8_t low = vmull_s8(vget_low_s8(w[0]), vget_low_s8(first));
    int16x8_t high = vmull_high_s8(w[0], first);
    low = vmlal_s8(low, vget_low_s8(w[1]), vget_low_s8(second));
    high = vmlal_high_s8(high, w[1], second);
    sum[0] = vpadalq_s16(sum[0], low);
    sum[1] = vpadalq_s16(sum[1], high);
}

INLINE int32x4_t total_smull(const int32x4_t sum[2], uint32_t row)
{
    (void) row;
    return vpaddq_s32(sum[0], sum[1]);
}

static const struct dot smull = {1, load_row, add_smull, total_smull};

#define rows_dot smull
#define row_dot smull

BLOCKS(PANEL_INT8)

// ---- rows to blocks ----------------------------------------------------------------------------

INLINE int8x16_t codes_of(const float *values, float inverse)
{
    int32x4_t v[4];
#pragma GCC unroll 4
    for (uint32_t i = 0; i < 4; i++)
        v[i] = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(values + 4 * i), inverse)); // to nearest even
    return vcombine_s8(vmovn_s16(vcombine_s16(vmovn_s32(v[0]), vmovn_s32(v[1]))),
                       vmovn_s16(vcombine_s16(vmovn_s32(v[2]), vmovn_s32(v[3]))));
}

INLINE void quantise_block(const float *values, struct cpu_int8_block *out)
{
    float32x4_t magnitude = vdupq_n_f32(0); // NaN if one of them is
#pragma GCC unroll 8
    for (uint32_t i = 0; i < TILE / 4; i++)
        magnitude = vmaxq_f32(magnitude, vabsq_f32(vld1q_f32(values + 4 * i)));
    const float most = vmaxvq_f32(magnitude), inverse = 127 / most;
    const bool finite = most < __builtin_inff();
    *out = (struct cpu_int8_block){.scale = finite ? 0 : __builtin_nanf(""),
                                   .begin = CPU_INT8_ZERO_BITS};
    if (!finite || !(inverse < __builtin_inff()))
        return;
    out->scale = most / 127;
    for (uint32_t part = 0; part < 2; part++) {
        const int8x16_t codes = codes_of(values + part * PART, inverse);
        vst1q_s8(out->codes + part * PART, codes);
        out->start[part] = -128 * vaddlvq_s8(codes);
    }
    out->start[2] = out->start[0] + out->start[1];
    out->start_value = (float) out->start[2];
    out->begin += out->start[2];
}

static void quantise(const float *values, uint32_t n, struct cpu_int8_block *out)
{
    for (uint32_t i = 0; i < n / TILE; i++)
        quantise_block(values + i * TILE, &out[i]);
}

void moe_cpu_int8_neon(struct cpu_kernels *kernels)
{
    BLOCKS(ENTRY_INT8)
    kernels->quantise = quantise;
}
