// SPDX-License-Identifier: MIT
// f32 as blocks: how far off they are, what comes back unchanged, and what cannot be stored.
#include "check.h"

#include "core/dtype.h"

#include <float.h>

enum { N = 4096, FIRST = VKMOE_Q8_0 };

static uint32_t random_state;

// Uniform in [-1, 1).
static float next_random(void)
{
    random_state = random_state * 1664525 + 1013904223;
    return (float) (random_state >> 8) * 0x1p-23f - 1;
}

static uint32_t next_below(uint32_t n)
{
    return (uint32_t) ((double) (next_random() + 1) / 2 * n);
}

static void there_and_back(enum vkmoe_dtype type, const float *in, size_t n, float *out)
{
    unsigned char stored[N * 5];
    const size_t size = (size_t) moe_dtype_size(type, n);
    memset(stored, 0xa5, size + 2);
    moe_dtype_encode(type, in, n, stored + 1);
    assert_int_equal(stored[0], 0xa5);
    assert_int_equal(stored[1 + size], 0xa5);
    moe_dtype_decode(type, stored + 1, n, out);
}

// Root of the mean squared error, in units of the scale of the values.
static double rms(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += pow((double) a[i] - (double) b[i], 2);
    return sqrt(sum / (double) n);
}

static void zeros(void **state)
{
    (void) state;
    for (int type = FIRST; type < MOE_N_DTYPES; type++) {
        float in[512] = {0}, out[512];
        memset(out, 1, sizeof out);
        there_and_back((enum vkmoe_dtype) type, in, 512, out);
        for (int i = 0; i < 512; i++)
            assert_true(out[i] == 0);
    }
}

// Steps of equal width s have an error of s / sqrt 12 where the values are uniform. Scales that are
// rounded, and parts that do not fill their range, change that a little.
static void error_of_even_steps(void **state)
{
    (void) state;
    static const struct {
        enum vkmoe_dtype type;
        double step; // for values in [-1, 1)
    } cases[] = {
        {VKMOE_Q8_0, 2.0 / 254}, {VKMOE_Q4_0, 2.0 / 15}, {VKMOE_Q4_K, 2.0 / 15},
        {VKMOE_Q5_K, 2.0 / 31},  {VKMOE_Q6_K, 2.0 / 63}, {VKMOE_Q2_K, 2.0 / 3},
    };
    static float in[N], out[N];
    random_state = 1;
    for (uint32_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        for (int i = 0; i < N; i++)
            in[i] = next_random();
        there_and_back(cases[c].type, in, N, out);
        const double got = rms(in, out, N), want = cases[c].step / sqrt(12);
        if (got > want * 1.03 || got < want * 0.6)
            fail_msg("%s: error %g, a step has %g", moe_dtype_info(cases[c].type)->name, got, want);
    }
}

// The least scale that cuts nothing off bounds what a search finds: half a step for each value.
static void error_of_each_block(void **state)
{
    (void) state;
    static const struct {
        enum vkmoe_dtype type;
        int values;
        double bound; // of the rms, to the largest value of the block
    } cases[] = {
        {VKMOE_Q8_0, 32, 0.5 / 127}, {VKMOE_Q4_0, 32, 0.5 / 7},
        {VKMOE_MXFP4, 32, 0.25}, // 6 is the largest of 4 to 8: 2 of 8
        {VKMOE_FP8, 128, 1.0 / 16},
    };
    random_state = 2;
    for (uint32_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const int n = cases[c].values;
        for (int block = 0; block < 5000; block++) {
            float in[128], out[128], most = 0;
            const float scale = ldexpf(1, (int) next_below(20) - 10);
            for (int i = 0; i < n; i++) {
                float value = next_random();
                in[i] = scale * value * value * value;
                most = fmaxf(most, fabsf(in[i]));
            }
            there_and_back(cases[c].type, in, (size_t) n, out);
            assert_true(rms(in, out, (size_t) n) <= cases[c].bound * (double) most * 1.001);
        }
    }
}

// A larger value never becomes a smaller one than its neighbours do that share its scale.
static void order_is_kept(void **state)
{
    (void) state;
    static const int shared[MOE_N_DTYPES] = {
        [VKMOE_Q8_0] = 32, [VKMOE_Q4_0] = 32, [VKMOE_Q4_K] = 32, [VKMOE_Q5_K] = 32,
        [VKMOE_Q6_K] = 16, [VKMOE_Q2_K] = 16, [VKMOE_MXFP4] = 32, [VKMOE_FP8] = 128,
    };
    static float in[N], out[N];
    random_state = 3;
    for (int type = FIRST; type < MOE_N_DTYPES; type++) {
        for (int i = 0; i < N; i++)
            in[i] = next_random() * next_random() + 0.1f;
        there_and_back((enum vkmoe_dtype) type, in, N, out);
        for (int i = 0; i < N; i++) {
            const int first = i / shared[type] * shared[type];
            for (int j = first; j < first + shared[type]; j++)
                assert_true(in[i] < in[j] ? out[i] <= out[j] : true);
        }
    }
}

// Stores a random f16 of 2^-7 to 2^1.
static void random_f16(unsigned char *at)
{
    at[0] = (unsigned char) next_below(256);
    at[1] = (unsigned char) (0x20 + next_below(32));
}

// Rows that the type holds come back as they are. The first value has the largest code.
static void rows_of_the_type(void **state)
{
    (void) state;
    random_state = 4;
    for (int n = 0; n < 3000; n++) {
        unsigned char q8[34], q4[18], mx[17];
        float in[128], out[128];
        random_f16(q8);
        random_f16(q4);
        for (int i = 0; i < 32; i++)
            q8[2 + i] = (unsigned char) ((int) next_below(251) - 125);
        q8[2 + n % 32] = (unsigned char) (n % 2 ? 127 : -128);
        for (int i = 0; i < 16; i++)
            q4[2 + i] = (unsigned char) next_below(256);
        for (int i = 0; i < 17; i++)
            mx[i] = (unsigned char) next_below(253);
        moe_dtype_decode(VKMOE_Q8_0, q8, 32, in);
        there_and_back(VKMOE_Q8_0, in, 32, out);
        assert_true(rms(in, out, 32) == 0);
        moe_dtype_decode(VKMOE_Q4_0, q4, 32, in);
        there_and_back(VKMOE_Q4_0, in, 32, out);
        assert_true(rms(in, out, 32) == 0);
        moe_dtype_decode(VKMOE_MXFP4, mx, 32, in);
        there_and_back(VKMOE_MXFP4, in, 32, out);
        assert_true(memcmp(in, out, sizeof(float) * 32) == 0);

        const float scale = (float) (1 + next_below(0xfffff)); // 20 bits
        for (int i = 0; i < 128; i++) {
            unsigned char fp8[132] = {0, 0, 0x80, 0x3f, (unsigned char) next_below(0x7f)};
            moe_dtype_decode(VKMOE_FP8, fp8, 1, &in[i]); // scale 1
            in[i] *= i % 2 ? scale : -scale;
        }
        there_and_back(VKMOE_FP8, in, 128, out);
        assert_true(rms(in, out, 128) == 0);
    }
}

// A difference of two products was rounded once.
static void check_same(const float in[256], const float out[256])
{
    float most = 0;
    for (int i = 0; i < 256; i++)
        most = fmaxf(most, fabsf(in[i]));
    assert_true(rms(in, out, 256) <= 0x1p-23 * (double) most);
}

// The same for blocks with parts, each of which has its least and its largest code; one part has
// the largest scale and one the largest minimum.
static void blocks_of_the_type(void **state)
{
    (void) state;
    random_state = 5;
    for (int n = 0; n < 300; n++) {
        unsigned char q4[144], q2[84], q6[210];
        float in[256], out[256];
        for (int i = 0; i < 210; i++)
            q4[i % 144] = q2[i % 84] = q6[i] = (unsigned char) next_below(256);
        random_f16(q4);
        random_f16(q4 + 2);
        random_f16(q2 + 80);
        random_f16(q2 + 82);
        random_f16(q6 + 208);
        for (int i = 0; i < 4; i++) { // scales 8 or more, so that they are told apart
            q4[4 + i] |= 8;
            q4[12 + i] |= 8;
        }
        q4[4 + n % 4] |= 63;
        q4[8 + n % 4] |= 63;
        for (int part = 0; part < 8; part += 2) {
            q4[16 + part * 16] = 0xf0;
            q4[17 + part * 16] = 0x0f;
        }
        moe_dtype_decode(VKMOE_Q4_K, q4, 256, in);
        there_and_back(VKMOE_Q4_K, in, 256, out);
        check_same(in, out);

        for (int part = 0; part < 16; part++)
            q2[part] |= 4;
        q2[n % 16] = 0xff;
        for (int part = 0; part < 4; part++) { // four quarters each
            q2[16 + part * 16] = 0xff;
            q2[17 + part * 16] = 0;
        }
        moe_dtype_decode(VKMOE_Q2_K, q2, 256, in);
        there_and_back(VKMOE_Q2_K, in, 256, out);
        check_same(in, out);

        q6[192 + n % 16] = n % 2 ? 128 : 127;
        for (int part = 0; part < 16; part++)
            if (q6[192 + part] == 128 && n % 2 == 0)
                q6[192 + part] = 1;
        for (int l = 0; l < 32; l += 16) { // the code of the largest size: -32
            for (int at = 0; at < 128; at += 32)
                q6[at + l] = 0;
            q6[128 + l] = q6[160 + l] = 0;
        }
        moe_dtype_decode(VKMOE_Q6_K, q6, 256, in);
        there_and_back(VKMOE_Q6_K, in, 256, out);
        assert_true(rms(in, out, 256) == 0);
    }
}

// What no code can say makes the whole block NaN, and nothing else.
static void infinity_and_nan(void **state)
{
    (void) state;
    static const float bad[] = {INFINITY, -INFINITY, NAN};
    random_state = 6;
    for (int type = FIRST; type < MOE_N_DTYPES; type++) {
        const int block = (int) moe_dtype_info((enum vkmoe_dtype) type)->block_elements;
        for (int b = 0; b < 3; b++) {
            float in[768], out[768];
            for (int i = 0; i < 768; i++)
                in[i] = next_random();
            in[block + b] = bad[b];
            there_and_back((enum vkmoe_dtype) type, in, (size_t) (3 * block), out);
            for (int i = 0; i < 3 * block; i++)
                assert_int_equal(isnan(out[i]) != 0, i / block == 1);
        }
    }
}

// The largest f32 and the least: the largest value that there is, or one close to 0; never NaN.
static void ends_of_the_range(void **state)
{
    (void) state;
    static const float ends[] = {FLT_MAX, 1e30f, 1e9f, 1e-9f, 1e-30f, 0x1p-149f};
    random_state = 7;
    for (int type = FIRST; type < MOE_N_DTYPES; type++) {
        for (uint32_t e = 0; e < sizeof ends / sizeof *ends; e++) {
            float in[256], out[256];
            for (int i = 0; i < 256; i++)
                in[i] = next_random() * ends[e];
            in[7] = ends[e];
            in[9] = -ends[e];
            there_and_back((enum vkmoe_dtype) type, in, 256, out);
            for (int i = 0; i < 256; i++)
                assert_true(isfinite(out[i]) && fabsf(out[i]) / 1.25f <= fmaxf(ends[e], 0x1p-20f));
            if (ends[e] >= 1e9f)
                assert_true(out[7] >= 65504 * 7 && out[9] <= -65504 * 7);
        }
    }
}

// A row of fp8 may end anywhere; other rows and sizes are whole blocks.
static void ragged_rows(void **state)
{
    (void) state;
    float in[300], out[301];
    random_state = 8;
    for (int i = 0; i < 300; i++)
        in[i] = next_random();
    for (size_t n = 1; n <= 300; n++) {
        out[n] = 77;
        there_and_back(VKMOE_FP8, in, n, out);
        assert_true(out[n] == 77);
        assert_int_equal(moe_dtype_size(VKMOE_FP8, n), (n + 127) / 128 * 132);
        for (size_t i = 0; i < n; i++)
            check_near((double) out[i], (double) in[i], fabs((double) in[i]) / 15 + 1e-4);
    }
    uint32_t values, size;
    check_ok(vkmoe_dtype_block(VKMOE_Q6_K, &values, &size));
    assert_true(values == 256 && size == 210);
    check_fails(vkmoe_dtype_convert(VKMOE_Q4_0, in, 33, out), VKMOE_E_SHAPE, "33");
    check_fails(vkmoe_dtype_to_f32(VKMOE_Q4_K, in, 32, out), VKMOE_E_SHAPE, "256");
    check_fails(vkmoe_dtype_block((enum vkmoe_dtype) 11, NULL, NULL), VKMOE_E_ARGUMENT, "11");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zeros),
        cmocka_unit_test(error_of_even_steps),
        cmocka_unit_test(error_of_each_block),
        cmocka_unit_test(order_is_kept),
        cmocka_unit_test(rows_of_the_type),
        cmocka_unit_test(blocks_of_the_type),
        cmocka_unit_test(infinity_and_nan),
        cmocka_unit_test(ends_of_the_range),
        cmocka_unit_test(ragged_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
