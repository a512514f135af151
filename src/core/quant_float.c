// SPDX-License-Identifier: MIT
// Small floats, and blocks of them: mxfp4, fp8, nvfp4.
#include "core/quant.h"

#include "base/bits.h"
#include "core/quant_bytes.h"

// ---- one value -------------------------------------------------------------------------------

float moe_e4m3_to_f32(uint8_t code)
{
    const int exponent = code >> 3 & 15, mantissa = code & 7;
    float value = exponent > 0 ? ldexpf((float) (8 + mantissa), exponent - 10)
                               : (float) mantissa * 0x1p-9f;
    if ((code & 0x7f) == 0x7f)
        value = NAN;
    return code & 0x80 ? -value : value;
}

uint8_t moe_f32_to_e4m3(float value)
{
    const float largest = 448, least_normal = 0x1p-6f;
    const uint8_t sign = signbit(value) ? 0x80 : 0;
    const float magnitude = fabsf(value);
    if (isnan(value))
        return sign | 0x7f;
    if (magnitude >= largest)
        return sign | 0x7e;
    if (magnitude < least_normal) // a multiple of 2^-9, the least normal one too
        return (uint8_t) (sign | (int) rintf(magnitude * 512));
    int exponent; // magnitude is 0.5 to 1 times 2^exponent
    const float fraction = frexpf(magnitude, &exponent);
    const int eighths = (int) rintf(fraction * 16); // 8 to 16: a carry moves into the exponent
    return (uint8_t) (sign | (((exponent + 6) << 3) + eighths - 8));
}

float moe_e5m2_to_f32(uint8_t code)
{
    return moe_f16_to_f32((uint16_t) (code << 8));
}

float moe_e8m0_to_f32(uint8_t code)
{
    return code == 255 ? NAN : ldexpf(1, code - 127);
}

static const float e2m1_values[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};

float moe_e2m1_to_f32(uint8_t code)
{
    const float magnitude = e2m1_values[code & 7];
    return code & 8 ? 0 - magnitude : magnitude;
}

// Ties go to the even code.
static uint8_t to_e2m1(float value)
{
    static const float middles[7] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5};
    const float magnitude = fabsf(value);
    uint8_t code = 0;
    while (code < 7 && (code % 2 ? magnitude >= middles[code] : magnitude > middles[code]))
        code++;
    return (uint8_t) (code | (value < 0 && code > 0 ? 8 : 0));
}

// ---- mxfp4 -----------------------------------------------------------------------------------

void moe_mxfp4_decode(const unsigned char *block, float *out)
{
    const float d = moe_e8m0_to_f32(block[0]);
    for (uint32_t i = 0; i < 32; i++)
        out[i] = d * moe_e2m1_to_f32(block[1 + i % 16] >> i / 16 * 4 & 15);
}

// The codes for a scale of 2^(e - 127), if they are better than those of `block`. f64, as squares
// of such scales are no f32.
static void try_exponent(const float *values, int e, double *best, unsigned char *block)
{
    const double factor = ldexp(1, 127 - e), d = ldexp(1, e - 127);
    unsigned char codes[32];
    double error = 0;
    for (uint32_t i = 0; i < 32; i++) {
        codes[i] = to_e2m1((float) ((double) values[i] * factor));
        const double off = (double) values[i] - d * (double) moe_e2m1_to_f32(codes[i]);
        error += off * off;
    }
    if (error >= *best)
        return;
    *best = error;
    block[0] = (unsigned char) e;
    for (uint32_t i = 0; i < 16; i++)
        block[1 + i] = (unsigned char) (codes[i] | codes[16 + i] << 4);
}

void moe_mxfp4_encode(const float *values, unsigned char *block)
{
    float largest;
    memset(block, 0, 17);
    if (!find_most(values, 32, &largest)) {
        block[0] = 255;
        return;
    }
    if (largest == 0)
        return;
    // The largest value is 4 to 8 times 2^(e - 127), which cuts off what is above 6. Halving or
    // doubling the scale may be better for the others.
    int exponent;
    frexpf(largest, &exponent);
    const int e = exponent - 3 + 127, most = 252; // 6 * 2^125 is the largest that is an f32
    double best = INFINITY;
    for (int step = 0; step < 3; step++) {
        const int candidate = e + (step == 2 ? -1 : step);
        try_exponent(values, candidate < 0 ? 0 : candidate > most ? most : candidate, &best, block);
    }
}

// ---- fp8 -------------------------------------------------------------------------------------

void moe_fp8_decode(const unsigned char *block, float *out)
{
    const uint32_t bits = load_u32(block);
    float d;
    memcpy(&d, &bits, sizeof d);
    for (uint32_t i = 0; i < 128; i++)
        out[i] = d * moe_e4m3_to_f32(block[4 + i]);
}

static void try_fp8(const float *values, float d, double *best, unsigned char *block)
{
    unsigned char codes[128];
    double error = 0;
    for (uint32_t i = 0; i < 128 && error < *best; i++) {
        codes[i] = moe_f32_to_e4m3(values[i] / d);
        const double off = (double) values[i] - (double) (d * moe_e4m3_to_f32(codes[i]));
        error += off * off;
    }
    if (error >= *best)
        return;
    *best = error;
    uint32_t bits;
    memcpy(&bits, &d, sizeof bits);
    store_u32(block, bits);
    memcpy(block + 4, codes, sizeof codes);
}

// At most 20 significant bits, so that a product with 4 more is exact, rounded to nearest. It is no
// subnormal, which would have fewer, and 448 times it is finite.
static float fp8_scale(float d)
{
    uint32_t bits;
    memcpy(&bits, &d, sizeof bits);
    bits = (bits + 8) & ~UINT32_C(15);
    memcpy(&d, &bits, sizeof d);
    return fminf(fmaxf(d, 0x1p-126f), 0x1.24924p119f);
}

void moe_fp8_encode(const float *values, unsigned char *block)
{
    // Each mantissa for the largest value: scales a power of two apart have the same codes but for
    // those below the least normal number.
    static const float codes[8] = {448, 416, 384, 352, 320, 288, 256, 240};
    float largest;
    memset(block, 0, 132);
    if (!find_most(values, 128, &largest)) {
        store_u32(block, UINT32_C(0x7fc00000));
        return;
    }
    double best = INFINITY;
    for (uint32_t c = 0; c < MOE_COUNT(codes) && largest != 0 && best > 0; c++)
        try_fp8(values, fp8_scale(fabsf(largest) / codes[c]), &best, block);
}

// ---- nvfp4 -----------------------------------------------------------------------------------

// Four parts of 16 with scales that have no sign: its bit is unused. Of the two codes that would be
// NaN 0x7f is 0 and 0xff 480.
void moe_nvfp4_decode(const unsigned char *block, float *out)
{
    for (uint32_t i = 0; i < 64; i++) {
        const uint32_t part = i / 16;
        const float d = block[part] == 0x7f ? 0 : block[part] == 0xff ? 480
                                                : moe_e4m3_to_f32(block[part] & 0x7f);
        const uint8_t byte = block[4 + 8 * part + i % 8];
        out[i] = d * moe_e2m1_to_f32(byte >> i % 16 / 8 * 4 & 15);
    }
}
