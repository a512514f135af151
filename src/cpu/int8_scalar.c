// SPDX-License-Identifier: MIT
// Operands of int8, in plain C: rows to blocks of codes, and panels of types of blocks that are
// multiplied with them. This is their definition.
#include "cpu/panel.h"

#include "core/quant.h"
#include "core/quant_bytes.h"

#include <math.h>

enum {
    TILE = 32, // values of a row that have one scale of x
    PART = 16, // that have one scale of the weights, at least
};

static void quantise_block(const float *values, struct cpu_int8_block *out)
{
    float most = 0;
    bool finite = true;
    for (uint32_t i = 0; i < TILE; i++) {
        finite = finite && isfinite(values[i]);
        most = fabsf(values[i]) > most ? fabsf(values[i]) : most;
    }
    const float inverse = 127 / most;
    *out = (struct cpu_int8_block){.scale = finite ? 0 : NAN, .begin = CPU_INT8_ZERO_BITS};
    if (!finite || !isfinite(inverse))
        return;
    out->scale = most / 127;
    for (uint32_t i = 0; i < TILE; i++) {
        out->codes[i] = (int8_t) rintf(values[i] * inverse);
        out->start[i / PART] -= 128 * out->codes[i];
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

// ---- 32 values of a row of weights: scale * code - minimum --------------------------------------

struct tile {
    uint32_t n_parts; // that have scales of their own: 1 or 2
    float scale[2], minimum[2];
    int32_t codes[TILE];
};

typedef void tile_fn(const unsigned char *block, uint32_t i, struct tile *out);

static void set_scales(struct tile *out, float scale, float minimum)
{
    out->n_parts = 1;
    out->scale[0] = scale;
    out->minimum[0] = minimum;
}

static void tile_q8_0(const unsigned char *block, uint32_t i, struct tile *out)
{
    (void) i; // a block is one
    set_scales(out, load_f16(block), 0);
    for (uint32_t j = 0; j < TILE; j++)
        out->codes[j] = (int8_t) block[2 + j];
}

static void tile_q4_0(const unsigned char *block, uint32_t i, struct tile *out)
{
    (void) i;
    set_scales(out, load_f16(block), 0);
    for (uint32_t j = 0; j < TILE; j++)
        out->codes[j] = (block[2 + j % 16] >> j / 16 * 4 & 15) - 8;
}

// Codes count halves.
static void tile_mxfp4(const unsigned char *block, uint32_t i, struct tile *out)
{
    (void) i;
    set_scales(out, block[0] == 255 ? NAN : ldexpf(1, block[0] - 128), 0);
    for (uint32_t j = 0; j < TILE; j++)
        out->codes[j] = (int32_t) (2 * moe_e2m1_to_f32(block[1 + j % 16] >> j / 16 * 4 & 15));
}

// Scales and minima of 6 bits, as in core/quant_k.c.
static void set_scales_6(const unsigned char *block, uint32_t i, struct tile *out)
{
    const unsigned char *s = block + 4;
    const int scale = i < 4 ? s[i] & 63 : (s[i + 4] & 15) | s[i - 4] >> 6 << 4;
    const int minimum = i < 4 ? s[i + 4] & 63 : s[i + 4] >> 4 | s[i] >> 6 << 4;
    set_scales(out, load_f16(block) * (float) scale, load_f16(block + 2) * (float) minimum);
}

static void tile_q4_K(const unsigned char *block, uint32_t i, struct tile *out)
{
    set_scales_6(block, i, out);
    for (uint32_t j = 0; j < TILE; j++)
        out->codes[j] = block[16 + i / 2 * 32 + j] >> i % 2 * 4 & 15;
}

static void tile_q5_K(const unsigned char *block, uint32_t i, struct tile *out)
{
    set_scales_6(block, i, out);
    for (uint32_t j = 0; j < TILE; j++)
        out->codes[j] = (block[48 + i / 2 * 32 + j] >> i % 2 * 4 & 15) |
                        (block[16 + j] >> i & 1) << 4;
}

static void tile_q6_K(const unsigned char *block, uint32_t i, struct tile *out)
{
    const unsigned char *low = block + 64 * (i / 4) + i % 2 * 32;
    const unsigned char *high = block + 128 + 32 * (i / 4);
    out->n_parts = 2;
    for (uint32_t part = 0; part < 2; part++)
        out->scale[part] = load_f16(block + 208) * (float) (int8_t) block[192 + 2 * i + part];
    out->minimum[0] = out->minimum[1] = 0;
    for (uint32_t j = 0; j < TILE; j++)
        out->codes[j] = ((low[j] >> i % 4 / 2 * 4 & 15) | (high[j] >> i % 4 * 2 & 3) << 4) - 32;
}

static void tile_q2_K(const unsigned char *block, uint32_t i, struct tile *out)
{
    out->n_parts = 2;
    for (uint32_t part = 0; part < 2; part++) {
        const unsigned char both = block[2 * i + part];
        out->scale[part] = load_f16(block + 80) * (float) (both & 15);
        out->minimum[part] = load_f16(block + 82) * (float) (both >> 4);
    }
    for (uint32_t j = 0; j < TILE; j++)
        out->codes[j] = block[16 + i / 4 * 32 + j] >> i % 4 * 2 & 3;
}

// ---- panels ------------------------------------------------------------------------------------

static float times_tile(const struct tile *w, const struct cpu_int8_block *x)
{
    const uint32_t n = TILE / w->n_parts;
    float sum = 0;
    for (uint32_t part = 0; part < w->n_parts; part++) {
        const int32_t start = x->start[w->n_parts == 1 ? 2 : part];
        int32_t products = 0;
        for (uint32_t j = part * n; j < part * n + n; j++)
            products += w->codes[j] * x->codes[j];
        sum += w->scale[part] * (float) products - w->minimum[part] * (float) (start / -128);
    }
    return sum * x->scale;
}

static void panel_int8(enum vkmoe_dtype type, tile_fn *tile, const void *const *x, uint32_t n_rows,
                       const char *panel, uint32_t k, float *out)
{
    const struct cpu_panel_block b = moe_cpu_panel_block(type);
    char block[MOE_MAX_BLOCK_SIZE];
    struct tile w;
    memset(out, 0, (size_t) n_rows * CPU_PANEL * sizeof *out);
    for (uint32_t first = 0; first < k; first += b.n_values, panel += b.size * CPU_PANEL) {
        for (uint32_t c = 0; c < CPU_PANEL; c++) {
            moe_cpu_take_block(type, panel, c, block);
            for (uint32_t i = 0; i < b.n_values / TILE; i++) {
                tile((const unsigned char *) block, i, &w);
                for (uint32_t r = 0; r < n_rows; r++)
                    out[r * CPU_PANEL + c] +=
                        times_tile(&w, (const struct cpu_int8_block *) x[r] + first / TILE + i);
            }
        }
    }
}

#define PANEL(name, type, values, size)                                                            \
    static void panel_##name(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k, \
                             float *out)                                                           \
    {                                                                                              \
        panel_int8(type, tile_##name, x, n_rows, panel, k, out);                                   \
    }
CPU_INT8_LIST(PANEL)

void moe_cpu_int8_scalar(struct cpu_kernels *kernels)
{
#define ENTRY(name, type, values, size) kernels->panel[CPU_OPERAND_INT8][type] = panel_##name;
    CPU_INT8_LIST(ENTRY)
    kernels->quantise = quantise;
}
