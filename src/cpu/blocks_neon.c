// SPDX-License-Identifier: MIT
// Panels of types of blocks for 64-bit ARM's own vectors: 32 steps of 16 rows at a time become f32
// in the first-level cache and are multiplied there. Numbers are those of core/quant.h, bit by bit:
// products of scales and codes are exact, so that fusing a subtraction changes nothing.
#include "cpu/blocks_neon_text.h"

// Signed byte `at` of each unit, as a number.
INLINE float32x4_t code_number(int8x16_t codes, uint32_t at)
{
    const int32x4_t v = vshlq_s32(vreinterpretq_s32_s8(codes), vdupq_n_s32(24 - 8 * (int) at));
    return vcvtq_f32_s32(vshrq_n_s32(v, 24));
}

// scale * code [- minimum]
INLINE void decode_tile(scales_fn *scales, codes_fn *codes, bool has_minima, const char *column,
                        uint32_t tile, float *w)
{
    for (uint32_t group = 0; group < GROUPS; group++) {
        const struct tile_scales s = scales(column, tile, group);
#pragma GCC unroll 8
        for (uint32_t unit = 0; unit < UNITS; unit++) {
            const int8x16_t c = codes(column, tile, unit, group);
            const float32x4_t scale = s.scale[unit / 4], negative = vnegq_f32(s.minimum[unit / 4]);
#pragma GCC unroll 4
            for (uint32_t i = 0; i < 4; i++) {
                const float32x4_t v = has_minima ? vfmaq_f32(negative, scale, code_number(c, i))
                                                 : vmulq_f32(scale, code_number(c, i));
                vst1q_f32(w + (4 * unit + i) * CPU_PANEL + 4 * group, v);
            }
        }
    }
}

// ---- fp8 ---------------------------------------------------------------------------------------

// E4M3 with its exponent where an f16 has it is 2^-8 times its value, subnormal numbers too; only
// NaN has to be made one.
INLINE float16x8_t e4m3_as_f16(uint8x8_t codes)
{
    const uint16x8_t wide = vmovl_u8(codes), most = vdupq_n_u16(0x7f);
    const uint16x8_t magnitude = vandq_u16(wide, most);
    const uint16x8_t sign = vshlq_n_u16(vbicq_u16(wide, most), 8);
    const uint16x8_t nan = vandq_u16(vceqq_u16(magnitude, most), vdupq_n_u16(0x7e00));
    return vreinterpretq_f16_u16(vorrq_u16(vorrq_u16(vshlq_n_u16(magnitude, 7), sign), nan));
}

INLINE void store_fp8(float32x4_t d, float16x4_t half, float *out)
{
    vst1q_f32(out, vmulq_f32(d, vmulq_n_f32(vcvt_f32_f16(half), 256)));
}

static void decode_fp8(const char *column, uint32_t tile, float *w)
{
    for (uint32_t unit = 0; unit < UNITS; unit++) {
        const uint8_t *at = (const uint8_t *) column + (4 + tile * TILE + 4 * unit) * CPU_PANEL;
        const uint8x16x4_t v = vld4q_u8(at); // 4 bytes of 16 rows each
#pragma GCC unroll 4
        for (uint32_t i = 0; i < 4; i++) {
            const float16x8_t low = e4m3_as_f16(vget_low_u8(v.val[i]));
            const float16x8_t high = e4m3_as_f16(vget_high_u8(v.val[i]));
            const float16x4_t quarters[GROUPS] = {vget_low_f16(low), vget_high_f16(low),
                                                  vget_low_f16(high), vget_high_f16(high)};
#pragma GCC unroll 4
            for (uint32_t group = 0; group < GROUPS; group++)
                store_fp8(vreinterpretq_f32_u8(unit_at(column, 0, group)), quarters[group],
                          w + (4 * unit + i) * CPU_PANEL + 4 * group);
        }
    }
}

// ---- panels ------------------------------------------------------------------------------------

typedef void tile_fn(const char *column, uint32_t tile, float *w);

INLINE void panel_any(tile_fn *decode, uint32_t values, uint32_t size, const void *const *x,
                      uint32_t n_rows, const char *panel, uint32_t k, float *out)
{
    _Alignas(64) float w[TILE * CPU_PANEL];
    for (uint32_t first = 0; first < k; first += TILE) {
        const char *column = panel + (size_t) (first / values) * size * CPU_PANEL;
        const uint32_t n = k - first < TILE ? k - first : TILE;
        decode(column, first % values / TILE, w);
        moe_cpu_steps_neon((const float *const *) x, n_rows, first, w, n, first > 0, out);
    }
}

#define DECODE(name, type, scales, values, size, two_scales, has_minima)                           \
    static void decode_##name(const char *column, uint32_t tile, float *w)                         \
    {                                                                                              \
        decode_tile(scales, codes_##name, has_minima, column, tile, w);                            \
    }
BLOCKS(DECODE)

#define PANEL(name, type, scales, values, size, two_scales, has_minima)                            \
    static void panel_##name(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k, \
                             float *out)                                                           \
    {                                                                                              \
        panel_any(decode_##name, values, size, x, n_rows, panel, k, out);                          \
    }
BLOCKS(PANEL)
PANEL(fp8, VKMOE_FP8, , 128, 132, , )

void moe_cpu_blocks_neon(struct cpu_kernels *kernels)
{
#define ENTRY(name, type, scales, values, size, two_scales, has_minima)                            \
    kernels->panel[CPU_OPERAND_F32][type] = panel_##name;
    BLOCKS(ENTRY)
    ENTRY(fp8, VKMOE_FP8, , 128, 132, , )
}
