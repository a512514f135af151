// SPDX-License-Identifier: MIT
// Weight types: every 16-bit pattern there and back, and every tie between neighbours.
#include "check.h"

#include "core/dtype.h"

// A 16-bit type: sign, exponent, mantissa; bias as in IEEE 754.
struct half_type {
    enum vkmoe_dtype type;
    uint32_t mantissa_bits;
    int bias;
    uint16_t infinity;
    uint16_t (*encode)(float value);
    float (*decode)(uint16_t value);
};

static const struct half_type f16 = {VKMOE_F16, 10, 15, 0x7c00, moe_f32_to_f16, moe_f16_to_f32};
static const struct half_type bf16 = {VKMOE_BF16, 7, 127, 0x7f80, moe_f32_to_bf16,
                                      moe_bf16_to_f32};

// The value of a finite pattern by the definition of the format.
static double value_of(const struct half_type *type, uint16_t pattern)
{
    uint32_t magnitude = pattern & 0x7fffu;
    uint32_t exponent = magnitude >> type->mantissa_bits;
    uint32_t mantissa = magnitude & ((1u << type->mantissa_bits) - 1);
    if (exponent > 0)
        mantissa |= 1u << type->mantissa_bits;
    int scale = (int) (exponent > 0 ? exponent : 1) - type->bias - (int) type->mantissa_bits;
    double value = ldexp(mantissa, scale);
    return pattern & 0x8000u ? -value : value;
}

static uint16_t encode_f64(const struct half_type *type, double value)
{
    uint16_t pattern;
    moe_dtype_encode_f64(type->type, &value, 1, &pattern);
    return pattern;
}

static void check_patterns(const struct half_type *type)
{
    const uint16_t quiet = (uint16_t) (1u << (type->mantissa_bits - 1));
    for (uint32_t i = 0; i <= UINT16_MAX; i++) {
        uint16_t pattern = (uint16_t) i;
        float decoded = type->decode(pattern);
        if ((pattern & 0x7fffu) > type->infinity) {
            assert_true(isnan(decoded));
            assert_int_equal(type->encode(decoded), pattern | quiet);
            assert_int_equal(encode_f64(type, (double) decoded), pattern | quiet);
            continue;
        }
        if ((pattern & 0x7fffu) == type->infinity)
            assert_true(isinf(decoded));
        else
            assert_true((double) decoded == value_of(type, pattern));
        assert_int_equal(!signbit(decoded), !(pattern & 0x8000u));
        assert_int_equal(type->encode(decoded), pattern);
        assert_int_equal(encode_f64(type, (double) decoded), pattern);
    }
}

// Between two neighbours lies one tie, exact in f32: it goes to the even pattern, and the f32 next
// to it on either side to the nearer one. So does the f64 next to it, which no f32 can tell from
// the tie. The last tie lies below infinity.
static void check_ties(const struct half_type *type)
{
    for (uint32_t low = 0; low < type->infinity; low++) {
        double step = value_of(type, 1);
        if (low >= 1u << type->mantissa_bits) {
            int exponent;
            frexp(value_of(type, (uint16_t) low), &exponent);
            step = ldexp(1, exponent - 1 - (int) type->mantissa_bits);
        }
        float tie = (float) (value_of(type, (uint16_t) low) + step / 2);
        uint32_t even = low + (low & 1);
        for (uint32_t sign = 0; sign <= 0x8000u; sign += 0x8000u) {
            float direction = sign ? -1.0f : 1.0f;
            assert_int_equal(type->encode(direction * tie), sign | even);
            assert_int_equal(type->encode(direction * nextafterf(tie, 0)), sign | low);
            assert_int_equal(type->encode(direction * nextafterf(tie, INFINITY)), sign | (low + 1));
            double exact = (double) (direction * tie), far = (double) (direction * INFINITY);
            assert_int_equal(encode_f64(type, exact), sign | even);
            assert_int_equal(encode_f64(type, nextafter(exact, 0)), sign | low);
            assert_int_equal(encode_f64(type, nextafter(exact, far)), sign | (low + 1));
        }
    }
}

static void test_f16(void **state)
{
    (void) state;
    check_patterns(&f16);
    check_ties(&f16);
    assert_int_equal(moe_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(moe_f32_to_f16(65520), 0x7c00);
    assert_int_equal(moe_f32_to_f16(3.4e38f), 0x7c00);
    assert_int_equal(moe_f32_to_f16(1e-40f), 0);
}

static void test_bf16(void **state)
{
    (void) state;
    check_patterns(&bf16);
    check_ties(&bf16);
    assert_int_equal(moe_f32_to_bf16(1.00390625f), 0x3f80); // 1 + 2^-8, a tie
    assert_int_equal(moe_f32_to_bf16(1.01171875f), 0x3f82); // 1 + 3 * 2^-8
}

// What f32 cannot hold at all, and f32 itself, which rounds like any conversion.
static void test_f64(void **state)
{
    (void) state;
    const double beyond[4] = {1e300, -1e300, 1e-300, -1e-300}, third = 1.0 / 3;
    uint16_t out[4];
    float out_f32;
    moe_dtype_encode_f64(VKMOE_F16, beyond, 4, out);
    assert_true(out[0] == 0x7c00 && out[1] == 0xfc00 && out[2] == 0 && out[3] == 0x8000);
    moe_dtype_encode_f64(VKMOE_BF16, beyond, 4, out);
    assert_true(out[0] == 0x7f80 && out[1] == 0xff80 && out[2] == 0 && out[3] == 0x8000);
    moe_dtype_encode_f64(VKMOE_F32, &third, 1, &out_f32);
    assert_true(out_f32 == (float) third);
}

// Rows at any alignment, and nothing beyond n elements.
static void test_rows(void **state)
{
    (void) state;
    const float in[5] = {1, -2.5f, 0, 65504, 0.333251953125f};
    for (int t = 0; t < MOE_N_FLOAT_DTYPES; t++) {
        enum vkmoe_dtype type = (enum vkmoe_dtype) t;
        unsigned char stored[32];
        float out[6] = {0, 0, 0, 0, 0, 77};
        memset(stored, 0xa5, sizeof stored);
        moe_dtype_encode(type, in, 5, stored + 1);
        size_t size = moe_dtype_size(type, 5);
        assert_int_equal(stored[0], 0xa5);
        assert_int_equal(stored[1 + size], 0xa5);
        moe_dtype_decode(type, stored + 1, 5, out);
        for (int i = 0; i < 5; i++)
            check_near((double) out[i], (double) in[i], fabs((double) in[i]) / 256);
        assert_true(out[1] == -2.5f && out[5] == 77);
    }
}

static void test_names(void **state)
{
    (void) state;
    static const char *const names[MOE_N_DTYPES] = {"f32",  "f16",  "bf16", "q8_0",
                                                    "q4_0", "q4_K", "q5_K", "q6_K",
                                                    "q2_K", "mxfp4", "fp8"};
    for (int t = 0; t < MOE_N_DTYPES; t++) {
        enum vkmoe_dtype type;
        check_ok(vkmoe_dtype_from_name(names[t], &type));
        assert_int_equal(type, t);
        assert_string_equal(vkmoe_dtype_name(type), names[t]);
    }
    enum vkmoe_dtype type;
    assert_string_equal(vkmoe_dtype_name((enum vkmoe_dtype) 99), "unknown");
    check_fails(vkmoe_dtype_from_name("F32", &type), VKMOE_E_ARGUMENT, "F32");
    check_fails(vkmoe_dtype_from_name(NULL, &type), VKMOE_E_ARGUMENT, "name");
    check_fails(vkmoe_dtype_from_name("f32", NULL), VKMOE_E_ARGUMENT, "out");
}

static void test_convert(void **state)
{
    (void) state;
    const float in[2] = {1, 65520};
    uint16_t out[2];
    check_ok(vkmoe_dtype_convert(VKMOE_F16, in, 2, out));
    assert_int_equal(out[0], 0x3c00);
    assert_int_equal(out[1], 0x7c00);
    check_ok(vkmoe_dtype_convert(VKMOE_F16, NULL, 0, NULL));
    check_fails(vkmoe_dtype_convert((enum vkmoe_dtype) 11, in, 2, out), VKMOE_E_ARGUMENT,
                "type 11");
    check_fails(vkmoe_dtype_convert(VKMOE_BF16, NULL, 2, out), VKMOE_E_ARGUMENT, "src");
    check_fails(vkmoe_dtype_convert(VKMOE_BF16, in, 2, NULL), VKMOE_E_ARGUMENT, "dst");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_f16),  cmocka_unit_test(test_bf16),  cmocka_unit_test(test_f64),
        cmocka_unit_test(test_rows), cmocka_unit_test(test_names), cmocka_unit_test(test_convert),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
