// SPDX-License-Identifier: MIT
// Blocks of 32 values with a scale: q8_0, q4_0, and those that only files have.
#include "core/quant.h"

#include "base/bits.h"
#include "core/quant_bytes.h"

enum { N = 32 };

// ---- decoding --------------------------------------------------------------------------------

void moe_q8_0_decode(const unsigned char *block, float *out)
{
    const float d = load_f16(block);
    for (uint32_t i = 0; i < N; i++)
        out[i] = d * (float) (int8_t) block[2 + i];
}

// Code i of 16 bytes: the low halves come first.
static inline int half_byte(const unsigned char *codes, uint32_t i)
{
    return codes[i % 16] >> i / 16 * 4 & 15;
}

void moe_q4_0_decode(const unsigned char *block, float *out)
{
    const float d = load_f16(block);
    for (uint32_t i = 0; i < N; i++)
        out[i] = d * (float) (half_byte(block + 2, i) - 8);
}

void moe_q4_1_decode(const unsigned char *block, float *out)
{
    const float d = load_f16(block), m = load_f16(block + 2);
    for (uint32_t i = 0; i < N; i++)
        out[i] = d * (float) half_byte(block + 4, i) + m;
}

// The fifth bits of all codes precede the others.
static inline int five_bits(const unsigned char *codes, uint32_t i)
{
    return half_byte(codes + 4, i) | (int) (load_u32(codes) >> i & 1) << 4;
}

void moe_q5_0_decode(const unsigned char *block, float *out)
{
    const float d = load_f16(block);
    for (uint32_t i = 0; i < N; i++)
        out[i] = d * (float) (five_bits(block + 2, i) - 16);
}

void moe_q5_1_decode(const unsigned char *block, float *out)
{
    const float d = load_f16(block), m = load_f16(block + 2);
    for (uint32_t i = 0; i < N; i++)
        out[i] = d * (float) five_bits(block + 4, i) + m;
}

static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};

void moe_iq4_nl_decode(const unsigned char *block, float *out)
{
    const float d = load_f16(block);
    for (uint32_t i = 0; i < N; i++)
        out[i] = d * (float) iq4_values[half_byte(block + 2, i)];
}

// 8 parts of 32 with 6-bit scales.
void moe_iq4_xs_decode(const unsigned char *block, float *out)
{
    const float d = load_f16(block);
    const int high = load_u16(block + 2);
    for (uint32_t part = 0; part < 8; part++) {
        const int low = half_byte(block + 4 + part / 2, part % 2 * 16);
        const float scale = d * (float) ((low | (high >> 2 * part & 3) << 4) - 32);
        for (uint32_t i = 0; i < N; i++)
            out[N * part + i] = scale * (float) iq4_values[half_byte(block + 8 + 16 * part, i)];
    }
}

// ---- conversions that change no value --------------------------------------------------------

void moe_q5_0_to_q8_0(const unsigned char *block, unsigned char *out)
{
    memcpy(out, block, 2);
    for (uint32_t i = 0; i < N; i++)
        out[2 + i] = (unsigned char) (five_bits(block + 2, i) - 16);
}

void moe_iq4_nl_to_q8_0(const unsigned char *block, unsigned char *out)
{
    memcpy(out, block, 2);
    for (uint32_t i = 0; i < N; i++)
        out[2 + i] = (unsigned char) iq4_values[half_byte(block + 2, i)];
}

// ---- encoding --------------------------------------------------------------------------------

// A scale with its nearest codes, and what is left over: the sum of squared differences.
struct fit {
    float d;
    double error;
    int8_t codes[N];
};

// The nearest codes in least..most for a scale; keeps them if they are better than `best`.
static void try_scale(const float *values, float d, int least, int most, struct fit *best)
{
    struct fit fit = {.d = f16_scale(d)};
    const float factor = fit.d != 0 ? 1 / fit.d : 0;
    for (uint32_t i = 0; i < N && fit.error < best->error; i++) {
        const float code = (float) nearest_in((double) (values[i] * factor), least, most);
        const double off = (double) values[i] - (double) (fit.d * code);
        fit.codes[i] = (int8_t) code;
        fit.error += off * off;
    }
    if (fit.error < best->error)
        *best = fit;
}

// The scale that is best for the codes found: sum x q / sum q^2. The codes follow it.
static void improve(const float *values, int least, int most, struct fit *best)
{
    for (uint32_t round = 0; round < 4; round++) {
        const double before = best->error;
        double xq = 0, qq = 0;
        for (uint32_t i = 0; i < N; i++) {
            xq += (double) values[i] * best->codes[i];
            qq += best->codes[i] * best->codes[i];
        }
        if (qq > 0)
            try_scale(values, (float) (xq / qq), least, most, best);
        if (!(best->error < before))
            return;
    }
}

// Tries the scales that give the largest value each of these codes. Values that are codes times a
// scale come back as they are if their largest code is among them.
static struct fit search(const float *values, float largest, const float *codes, uint32_t n_codes,
                         int least, int most)
{
    struct fit best = {.error = INFINITY};
    for (uint32_t c = 0; c < n_codes && best.error > 0; c++)
        try_scale(values, largest / codes[c], least, most, &best);
    improve(values, least, most, &best);
    return best;
}

void moe_q8_0_encode(const float *values, unsigned char *block)
{
    static const float codes[] = {127, -127, -128, 126, -126, 125, -125};
    struct fit best = {.error = 0};
    float largest;
    bool finite = find_most(values, N, &largest);
    if (finite && largest != 0)
        best = search(values, largest, codes, MOE_COUNT(codes), -128, 127);
    store_u16(block, finite ? moe_f32_to_f16(best.d) : F16_NAN);
    memcpy(block + 2, best.codes, N);
}

void moe_q4_0_encode(const float *values, unsigned char *block)
{
    // Every code, and some beyond them, which cut the largest value off.
    static const float codes[] = {-8, -8.5f, 7.5f, -7.5f, 7, -7, -9, 8, -9.5f, 8.5f, -10, 9, 6, -6,
                                  5, -5, 4, -4, 3, -3, 2, -2, 1, -1};
    struct fit best = {.error = 0};
    float largest;
    bool finite = find_most(values, N, &largest);
    if (finite && largest != 0)
        best = search(values, largest, codes, MOE_COUNT(codes), -8, 7);
    store_u16(block, finite ? moe_f32_to_f16(best.d) : F16_NAN);
    for (uint32_t i = 0; i < 16; i++)
        block[2 + i] = (unsigned char) ((best.codes[i] + 8) | (best.codes[16 + i] + 8) << 4);
}
