// SPDX-License-Identifier: MIT
// Blocks of 256 values whose parts have scales of their own: q4_K, q5_K, q6_K, q2_K, and q3_K,
// which only files have. What is stored where; the numbers are found in quant_fit.c.
#include "core/quant_fit.h"

#include "core/quant_bytes.h"

enum { N = 256 };

// ---- q4_K, q5_K ------------------------------------------------------------------------------

// 6-bit scales and minima of 8 parts in 12 bytes: the last four have their two upper bits above
// those of the first four.
static uint8_t scale_6(const unsigned char *s, uint32_t part)
{
    return part < 4 ? s[part] & 63 : (s[part + 4] & 15) | s[part - 4] >> 6 << 4;
}

static uint8_t minimum_6(const unsigned char *s, uint32_t part)
{
    return part < 4 ? s[part + 4] & 63 : s[part + 4] >> 4 | s[part] >> 6 << 4;
}

static void pack_6(const struct moe_k_block *from, unsigned char *s)
{
    for (uint32_t part = 0; part < 4; part++) {
        const uint32_t scale = (uint32_t) from->scales[part + 4];
        const uint32_t minimum = from->minima[part + 4];
        s[part] = (unsigned char) (from->scales[part] | (int) (scale >> 4 << 6));
        s[part + 4] = (unsigned char) (from->minima[part] | minimum >> 4 << 6);
        s[part + 8] = (unsigned char) ((scale & 15) | (minimum & 15) << 4);
    }
}

// Two parts share 32 bytes, the first one in the low halves; the fifth bits of all have 32 bytes.
static void decode_45(const unsigned char *block, const unsigned char *fifth,
                      const unsigned char *codes, float *out)
{
    const float d = load_f16(block), m = load_f16(block + 2);
    for (uint32_t part = 0; part < 8; part++) {
        const float scale = d * scale_6(block + 4, part), minimum = m * minimum_6(block + 4, part);
        for (uint32_t i = 0; i < 32; i++) {
            int code = codes[part / 2 * 32 + i] >> part % 2 * 4 & 15;
            if (fifth)
                code |= (fifth[i] >> part & 1) << 4;
            out[part * 32 + i] = scale * (float) code - minimum;
        }
    }
}

void moe_q4_K_decode(const unsigned char *block, float *out)
{
    decode_45(block, NULL, block + 16, out);
}

void moe_q5_K_decode(const unsigned char *block, float *out)
{
    decode_45(block, block + 16, block + 48, out);
}

static void pack_45(const struct moe_k_block *from, unsigned char *block, unsigned char *fifth,
                    unsigned char *codes)
{
    store_u16(block, from->d);
    store_u16(block + 2, from->m);
    pack_6(from, block + 4);
    for (uint32_t i = 0; i < N; i++) {
        const uint32_t part = i / 32;
        codes[part / 2 * 32 + i % 32] |= (unsigned char) ((from->codes[i] & 15) << part % 2 * 4);
        if (fifth)
            fifth[i % 32] |= (unsigned char) ((from->codes[i] >> 4) << part);
    }
}

void moe_q4_K_encode(const float *values, unsigned char *block)
{
    static const struct moe_k_shape shape = {.n_parts = 8, .most_code = 15, .most_scale = 63};
    struct moe_k_block found;
    moe_k_fit_minimum(&shape, values, &found);
    memset(block, 0, 144);
    pack_45(&found, block, NULL, block + 16);
}

void moe_q5_K_encode(const float *values, unsigned char *block)
{
    static const struct moe_k_shape shape = {.n_parts = 8, .most_code = 31, .most_scale = 63};
    struct moe_k_block found;
    moe_k_fit_minimum(&shape, values, &found);
    memset(block, 0, 176);
    pack_45(&found, block, block + 16, block + 48);
}

// ---- q2_K, q3_K, q6_K ------------------------------------------------------------------------

// Value i of 256 lies in half h, quarter s of it, at place l of 32; its part is i / 16.
struct place {
    uint32_t h, s, l;
};

static inline struct place place_of(uint32_t i)
{
    return (struct place){i / 128, i / 32 % 4, i % 32};
}

// Two bits of value i in 64 bytes.
static inline int two_bits(const unsigned char *codes, uint32_t i)
{
    const struct place at = place_of(i);
    return codes[32 * at.h + at.l] >> 2 * at.s & 3;
}

static inline void set_two_bits(unsigned char *codes, uint32_t i, int bits)
{
    const struct place at = place_of(i);
    codes[32 * at.h + at.l] |= (unsigned char) (bits << 2 * at.s);
}

void moe_q2_K_decode(const unsigned char *block, float *out)
{
    const float d = load_f16(block + 80), m = load_f16(block + 82);
    for (uint32_t i = 0; i < N; i++) {
        const unsigned char scales = block[i / 16];
        const float scale = d * (float) (scales & 15), minimum = m * (float) (scales >> 4);
        out[i] = scale * (float) two_bits(block + 16, i) - minimum;
    }
}

void moe_q2_K_encode(const float *values, unsigned char *block)
{
    static const struct moe_k_shape shape = {.n_parts = 16, .most_code = 3, .most_scale = 15};
    struct moe_k_block found;
    moe_k_fit_minimum(&shape, values, &found);
    memset(block, 0, 84);
    for (uint32_t part = 0; part < 16; part++)
        block[part] = (unsigned char) (found.scales[part] | found.minima[part] << 4);
    for (uint32_t i = 0; i < N; i++)
        set_two_bits(block + 16, i, found.codes[i]);
    store_u16(block + 80, found.d);
    store_u16(block + 82, found.m);
}

// 6-bit scales of 16 parts in 12 bytes, 32 the zero: four bits in 8 bytes, two in the other 4.
static int q3_scale(const unsigned char *s, uint32_t part)
{
    const int low = s[part % 8] >> part / 8 * 4 & 15, high = s[8 + part % 4] >> part / 4 * 2 & 3;
    return (low | high << 4) - 32;
}

// -4..3: the bit of weight 4 is in the first 32 bytes, set where nothing is taken away.
static int q3_code(const unsigned char *block, uint32_t i)
{
    const struct place at = place_of(i);
    const int bit = block[at.l] >> (4 * at.h + at.s) & 1;
    return two_bits(block + 32, i) - (bit ? 0 : 4);
}

void moe_q3_K_decode(const unsigned char *block, float *out)
{
    const float d = load_f16(block + 108);
    for (uint32_t i = 0; i < N; i++)
        out[i] = d * (float) q3_scale(block + 96, i / 16) * (float) q3_code(block, i);
}

// A code of value i in q6_K, 0..63: four bits in 128 bytes, two in 64.
static int q6_code(const unsigned char *block, uint32_t i)
{
    const struct place at = place_of(i);
    const int low = block[64 * at.h + 32 * (at.s % 2) + at.l] >> at.s / 2 * 4 & 15;
    return low | two_bits(block + 128, i) << 4;
}

static void set_q6_code(unsigned char *block, uint32_t i, int code)
{
    const struct place at = place_of(i);
    block[64 * at.h + 32 * (at.s % 2) + at.l] |= (unsigned char) ((code & 15) << at.s / 2 * 4);
    set_two_bits(block + 128, i, code >> 4);
}

void moe_q6_K_decode(const unsigned char *block, float *out)
{
    const float d = load_f16(block + 208);
    for (uint32_t i = 0; i < N; i++) {
        const float scale = d * (float) (int8_t) block[192 + i / 16];
        out[i] = scale * (float) (q6_code(block, i) - 32);
    }
}

void moe_q6_K_encode(const float *values, unsigned char *block)
{
    struct moe_k_block found;
    moe_k_fit_signed(values, &found);
    memset(block, 0, 210);
    for (uint32_t i = 0; i < N; i++)
        set_q6_code(block, i, found.codes[i]);
    for (uint32_t part = 0; part < 16; part++)
        block[192 + part] = (unsigned char) found.scales[part];
    store_u16(block + 208, found.d);
}

void moe_q3_K_to_q6_K(const unsigned char *block, unsigned char *out)
{
    memset(out, 0, 210);
    for (uint32_t i = 0; i < N; i++)
        set_q6_code(out, i, q3_code(block, i) + 32);
    for (uint32_t part = 0; part < 16; part++)
        out[192 + part] = (unsigned char) q3_scale(block + 96, part);
    memcpy(out + 208, block + 108, 2);
}
