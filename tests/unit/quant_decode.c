// SPDX-License-Identifier: MIT
// Blocks as f32 against a second reading of the published layouts: one value at a time, from bit
// positions, in f64. Every scale, every code in every place, and every byte of what is around them.
#include "check.h"

#include "core/dtype.h"
#include "core/quant.h"

typedef double value_fn(const unsigned char *block, int i);

// n bits from bit `at` on, the first one the lowest.
static int bits(const unsigned char *block, int at, int n)
{
    int left = 8 - at % 8; // in the first byte
    if (n > left)
        return bits(block, at, left) + (bits(block, at + left, n - left) << left);
    return block[at / 8] >> at % 8 & ((1 << n) - 1);
}

static int byte(const unsigned char *block, int at)
{
    return bits(block, 8 * at, 8);
}

static double f16(const unsigned char *block, int at)
{
    int exponent = bits(block, 8 * at + 10, 5), mantissa = bits(block, 8 * at, 10);
    double sign = bits(block, 8 * at + 15, 1) ? -1.0 : 1.0;
    if (exponent == 31)
        return mantissa ? NAN : sign * INFINITY;
    return exponent ? sign * ldexp(1024 + mantissa, exponent - 25) : sign * ldexp(mantissa, -24);
}

// A 4-bit code of a block of 32 whose codes begin at a byte.
static int nibble(const unsigned char *block, int at, int i)
{
    return i < 16 ? bits(block, 8 * (at + i), 4) : bits(block, 8 * (at + i - 16) + 4, 4);
}

static double q8_0(const unsigned char *b, int i)
{
    int code = byte(b, 2 + i);
    return f16(b, 0) * (code >= 128 ? code - 256 : code);
}

static double q4_0(const unsigned char *b, int i)
{
    return f16(b, 0) * (nibble(b, 2, i) - 8);
}

static double q4_1(const unsigned char *b, int i)
{
    return f16(b, 0) * nibble(b, 4, i) + f16(b, 2);
}

static double q5_0(const unsigned char *b, int i)
{
    return f16(b, 0) * (nibble(b, 6, i) + 16 * bits(b, 16 + i, 1) - 16);
}

static double q5_1(const unsigned char *b, int i)
{
    return f16(b, 0) * (nibble(b, 8, i) + 16 * bits(b, 32 + i, 1)) + f16(b, 2);
}

static double iq4_value(int code)
{
    static const double values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
    return values[code];
}

static double iq4_nl(const unsigned char *b, int i)
{
    return f16(b, 0) * iq4_value(nibble(b, 2, i));
}

static double iq4_xs(const unsigned char *b, int i)
{
    int part = i / 32;
    int scale = bits(b, 32 + 4 * part, 4) + 16 * bits(b, 16 + 2 * part, 2) - 32;
    return f16(b, 0) * scale * iq4_value(nibble(b, 8 + 16 * part, i % 32));
}

// Scale or minimum of a part of q4_K and q5_K, by the place of each bit.
static int k_scale(const unsigned char *b, int part, bool minimum)
{
    int s = 32; // the bit that the 12 bytes begin at
    if (part < 4)
        return bits(b, s + 8 * part + (minimum ? 32 : 0), 6);
    int low = bits(b, s + 64 + 8 * (part - 4) + (minimum ? 4 : 0), 4);
    return low + 16 * bits(b, s + 8 * (part - 4) + (minimum ? 32 : 0) + 6, 2);
}

static double with_minimum(const unsigned char *b, int part, int code)
{
    return f16(b, 0) * k_scale(b, part, false) * code - f16(b, 2) * k_scale(b, part, true);
}

static double q4_K(const unsigned char *b, int i)
{
    int at = 8 * (16 + i / 64 * 32 + i % 32) + (i % 64 >= 32 ? 4 : 0);
    return with_minimum(b, i / 32, bits(b, at, 4));
}

static double q5_K(const unsigned char *b, int i)
{
    int at = 8 * (48 + i / 64 * 32 + i % 32) + (i % 64 >= 32 ? 4 : 0);
    return with_minimum(b, i / 32, bits(b, at, 4) + 16 * bits(b, 8 * (16 + i % 32) + i / 32, 1));
}

static double q6_K(const unsigned char *b, int i)
{
    int half = i / 128, quarter = i % 128 / 32, l = i % 32;
    int low = bits(b, 8 * (64 * half + (quarter & 1 ? 32 : 0) + l) + (quarter & 2 ? 4 : 0), 4);
    int code = low + 16 * bits(b, 8 * (128 + 32 * half + l) + 2 * quarter, 2);
    int scale = byte(b, 192 + i / 16);
    return f16(b, 208) * (scale >= 128 ? scale - 256 : scale) * (code - 32);
}

static double q2_K(const unsigned char *b, int i)
{
    int code = bits(b, 8 * (16 + i / 128 * 32 + i % 32) + 2 * (i % 128 / 32), 2);
    double scale = f16(b, 80) * bits(b, 8 * (i / 16), 4);
    return scale * code - f16(b, 82) * bits(b, 8 * (i / 16) + 4, 4);
}

static double q3_K(const unsigned char *b, int i)
{
    int part = i / 16;
    int scale = bits(b, 8 * (96 + part % 8) + (part >= 8 ? 4 : 0), 4) +
                16 * bits(b, 8 * (104 + part % 4) + 2 * (part / 4), 2) - 32;
    int code = bits(b, 8 * (32 + i / 128 * 32 + i % 32) + 2 * (i % 128 / 32), 2);
    if (!bits(b, 8 * (i % 32) + i / 32, 1))
        code -= 4;
    return f16(b, 108) * scale * code;
}

static double e2m1(int code)
{
    static const double values[16] = {0, 0.5,  1,  1.5,  2,  3,  4,  6,
                                      0, -0.5, -1, -1.5, -2, -3, -4, -6};
    return values[code];
}

static double mxfp4(const unsigned char *b, int i)
{
    return (byte(b, 0) == 255 ? NAN : ldexp(1, byte(b, 0) - 127)) * e2m1(nibble(b, 1, i));
}

static double e4m3(const unsigned char *block, int at)
{
    int exponent = bits(block, 8 * at + 3, 4), mantissa = bits(block, 8 * at, 3);
    double sign = bits(block, 8 * at + 7, 1) ? -1.0 : 1.0;
    if (exponent == 15 && mantissa == 7)
        return NAN;
    return sign * (exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9));
}

static double fp8(const unsigned char *b, int i)
{
    int exponent = bits(b, 23, 8), mantissa = bits(b, 0, 23);
    double scale = exponent ? ldexp(0x800000 + mantissa, exponent - 150) : ldexp(mantissa, -149);
    if (exponent == 255)
        scale = mantissa ? NAN : INFINITY;
    return (bits(b, 31, 1) ? -scale : scale) * e4m3(b, 4 + i);
}

static double nvfp4(const unsigned char *b, int i)
{
    int part = i / 16, l = i % 16;
    int code = bits(b, 8 * (4 + 8 * part + l % 8) + (l < 8 ? 0 : 4), 4);
    int exponent = bits(b, 8 * part + 3, 4), mantissa = bits(b, 8 * part, 3);
    double scale = exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9);
    return (byte(b, part) == 127 ? 0 : scale) * e2m1(code);
}

// A type: where its scales are, and how many bits they have.
static const struct layout {
    const char *name;
    moe_block_decode_fn *decode;
    value_fn *value;
    int values, bytes, scale_at, scale_bits;
} layouts[] = {
    {"q8_0", moe_q8_0_decode, q8_0, 32, 34, 0, 16},
    {"q4_0", moe_q4_0_decode, q4_0, 32, 18, 0, 16},
    {"q4_K", moe_q4_K_decode, q4_K, 256, 144, 0, 16},
    {"q5_K", moe_q5_K_decode, q5_K, 256, 176, 2, 16},
    {"q6_K", moe_q6_K_decode, q6_K, 256, 210, 208, 16},
    {"q2_K", moe_q2_K_decode, q2_K, 256, 84, 80, 16},
    {"mxfp4", moe_mxfp4_decode, mxfp4, 32, 17, 0, 8},
    {"fp8", moe_fp8_decode, fp8, 128, 132, 2, 16}, // sign, exponent and mantissa's upper bits
    {"q4_1", moe_q4_1_decode, q4_1, 32, 20, 2, 16},
    {"q5_0", moe_q5_0_decode, q5_0, 32, 22, 0, 16},
    {"q5_1", moe_q5_1_decode, q5_1, 32, 24, 0, 16},
    {"q3_K", moe_q3_K_decode, q3_K, 256, 110, 108, 16},
    {"iq4_nl", moe_iq4_nl_decode, iq4_nl, 32, 18, 0, 16},
    {"iq4_xs", moe_iq4_xs_decode, iq4_xs, 256, 136, 0, 16},
    {"nvfp4", moe_nvfp4_decode, nvfp4, 64, 36, 0, 8},
};

enum { N_LAYOUTS = sizeof layouts / sizeof *layouts };

static bool same_bits(float a, float b)
{
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b));
}

// Of every `step`-th value from `first` on.
static void check_block(const struct layout *layout, const unsigned char *block, int first,
                        int step)
{
    float out[MOE_MAX_BLOCK];
    layout->decode(block, out);
    for (int i = first; i < layout->values; i += step) {
        float want = (float) layout->value(block, i);
        if (!same_bits(out[i], want))
            fail_msg("%s: value %d is %g, not %g", layout->name, i, (double) out[i], (double) want);
    }
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

// At an odd address, so that nothing relies on alignment.
static unsigned char *random_block(const struct layout *layout, uint32_t *state,
                                   unsigned char room[300])
{
    for (int i = 0; i < layout->bytes; i++)
        room[1 + i] = (unsigned char) next_random(state);
    return room + 1;
}

static void every_scale(void **state)
{
    (void) state;
    unsigned char room[300];
    uint32_t random = 1;
    for (int t = 0; t < N_LAYOUTS; t++) {
        const struct layout *layout = &layouts[t];
        for (uint32_t scale = 0; scale < 1u << layout->scale_bits; scale++) {
            unsigned char *block = random_block(layout, &random, room);
            block[layout->scale_at] = (unsigned char) scale;
            if (layout->scale_bits == 16)
                block[layout->scale_at + 1] = (unsigned char) (scale >> 8);
            check_block(layout, block, (int) scale % 8, 8);
        }
    }
}

// Each byte of a block has all its values, eight times among different others.
static void every_byte(void **state)
{
    (void) state;
    unsigned char room[300];
    uint32_t random = 2;
    for (int t = 0; t < N_LAYOUTS; t++) {
        const struct layout *layout = &layouts[t];
        for (int n = 0; n < 8; n++) {
            unsigned char *block = random_block(layout, &random, room);
            for (int value = 0; value < 256; value++) {
                for (int at = 0; at < layout->bytes; at++)
                    block[at] = (unsigned char) (block[at] + 1);
                check_block(layout, block, 0, 1);
            }
        }
    }
}

// What the two readings would not agree on is seen: each byte means something.
static void every_byte_counts(void **state)
{
    (void) state;
    unsigned char room[300];
    uint32_t random = 3;
    for (int t = 0; t < N_LAYOUTS; t++) {
        const struct layout *layout = &layouts[t];
        for (int at = 0; at < layout->bytes; at++) {
            float before[MOE_MAX_BLOCK], after[MOE_MAX_BLOCK];
            bool seen = false;
            for (int attempt = 0; attempt < 64 && !seen; attempt++) {
                unsigned char *block = random_block(layout, &random, room);
                layout->decode(block, before);
                block[at] ^= 0x55;
                layout->decode(block, after);
                for (int i = 0; i < layout->values; i++)
                    seen = seen || !same_bits(before[i], after[i]);
            }
            assert_true(seen);
        }
    }
}

static void small_floats(void **state)
{
    (void) state;
    for (int code = 0; code < 256; code++) {
        const unsigned char byte_of = (unsigned char) code;
        const unsigned char half[2] = {0, byte_of};
        assert_true(same_bits(moe_e4m3_to_f32(byte_of), (float) e4m3(&byte_of, 0)));
        assert_true(same_bits(moe_e5m2_to_f32(byte_of), (float) f16(half, 0)));
        assert_true(same_bits(moe_e8m0_to_f32(byte_of),
                              code == 255 ? NAN : (float) ldexp(1, code - 127)));
        assert_true(same_bits(moe_e2m1_to_f32(byte_of & 15), (float) e2m1(code & 15)));
        const uint8_t back = moe_f32_to_e4m3(moe_e4m3_to_f32(byte_of));
        assert_int_equal(back, code);
    }
}

// Numbers next to and on each middle of two codes of E4M3.
static void e4m3_rounds_to_nearest_even(void **state)
{
    (void) state;
    for (int code = 0; code < 0x7e; code++) {
        float low = moe_e4m3_to_f32((uint8_t) code), high = moe_e4m3_to_f32((uint8_t) (code + 1));
        float middle = (low + high) / 2;
        assert_int_equal(moe_f32_to_e4m3(nextafterf(middle, 0)), code);
        assert_int_equal(moe_f32_to_e4m3(nextafterf(middle, 1000)), code + 1);
        assert_int_equal(moe_f32_to_e4m3(middle), code + code % 2);
        assert_int_equal(moe_f32_to_e4m3(-middle), 0x80 + code + code % 2);
    }
    assert_int_equal(moe_f32_to_e4m3(1e30f), 0x7e);
    assert_int_equal(moe_f32_to_e4m3(-INFINITY), 0xfe);
    assert_int_equal(moe_f32_to_e4m3(NAN) & 0x7f, 0x7f);
}

// The types of files: which they are, and that what is said to be exact is.
static void conversions_of_files(void **state)
{
    (void) state;
    static const int ids[] = {3, 6, 7, 11, 20, 23, 40};
    uint32_t random = 4;
    int n_exact = 0;
    assert_null(moe_block_format_find(8)); // q8_0 is computed on
    assert_null(moe_block_format_find(1000));
    assert_null(moe_block_format_named("q5_2"));
    for (uint32_t f = 0; f < sizeof ids / sizeof *ids; f++) {
        const struct moe_block_format *format = moe_block_format_find((uint32_t) ids[f]);
        assert_non_null(format);
        assert_ptr_equal(moe_block_format_named(format->name), format);
        const struct layout *layout = &layouts[0];
        while (strcmp(layout->name, format->name) != 0)
            layout++;
        assert_int_equal(format->values, layout->values);
        assert_int_equal(format->bytes, layout->bytes);
        for (int n = 0; format->repack && n < 20000; n++) {
            unsigned char room[300], converted[300];
            float want[MOE_MAX_BLOCK], got[MOE_MAX_BLOCK];
            const unsigned char *block = random_block(layout, &random, room);
            moe_block_format_decode(format, block, format->values, want);
            moe_block_format_convert(format, block, format->values, converted);
            moe_dtype_decode(format->to, converted, format->values, got);
            for (uint32_t i = 0; i < format->values; i++)
                assert_true(same_bits(got[i], want[i]));
        }
        n_exact += format->repack ? 1 : 0;
    }
    assert_int_equal(n_exact, 3);
}

// The others come as close as q8_0 can: half a step of 1 / 127 of the largest value, and some for
// the scale, which is an f16.
static void nearest_conversions_of_files(void **state)
{
    (void) state;
    static const char *const names[] = {"q4_1", "q5_1", "iq4_xs", "nvfp4"};
    uint32_t random = 5;
    for (int f = 0; f < 4; f++) {
        const struct moe_block_format *format = moe_block_format_named(names[f]);
        const struct layout *layout = &layouts[0];
        while (strcmp(layout->name, format->name) != 0)
            layout++;
        for (int n = 0; n < 2000; n++) {
            unsigned char room[300], converted[300];
            float want[MOE_MAX_BLOCK], got[MOE_MAX_BLOCK];
            unsigned char *block = random_block(layout, &random, room);
            block[1] = (unsigned char) (block[1] % 16 + 40); // scales of 2^-5 to 2^-1
            block[3] = (unsigned char) (block[3] % 16 + 40);
            moe_block_format_decode(format, block, format->values, want);
            moe_block_format_convert(format, block, format->values, converted);
            moe_dtype_decode(format->to, converted, format->values, got);
            for (uint32_t first = 0; first < format->values; first += 32) {
                double most = 0, error = 0;
                for (uint32_t i = first; i < first + 32; i++) {
                    most = fmax(most, fabs((double) want[i]));
                    error += pow((double) got[i] - (double) want[i], 2);
                }
                assert_true(sqrt(error / 32) <= most / 254 * (1 + 0x1p-8));
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scale),
        cmocka_unit_test(every_byte),
        cmocka_unit_test(every_byte_counts),
        cmocka_unit_test(small_floats),
        cmocka_unit_test(e4m3_rounds_to_nearest_even),
        cmocka_unit_test(conversions_of_files),
        cmocka_unit_test(nearest_conversions_of_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
