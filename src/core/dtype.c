// SPDX-License-Identifier: MIT
#include "core/dtype.h"

#include "core/quant.h"

#include <assert.h>
#include <math.h>

static const struct moe_dtype_info infos[MOE_N_DTYPES] = {
#define INFO(type, text, elements, size) [type] = {text, elements, size},
    MOE_DTYPE_LIST(INFO)
#undef INFO
};

bool moe_dtype_valid(enum vkmoe_dtype type)
{
    return (uint32_t) type < MOE_N_DTYPES;
}

const struct moe_dtype_info *moe_dtype_info(enum vkmoe_dtype type)
{
    assert(moe_dtype_valid(type));
    return &infos[type];
}

uint64_t moe_dtype_size(enum vkmoe_dtype type, uint64_t n)
{
    const struct moe_dtype_info *info = moe_dtype_info(type);
    assert(n % info->block_elements == 0 || type == VKMOE_FP8);
    return (n / info->block_elements + (n % info->block_elements != 0)) * info->block_size;
}

static uint32_t f32_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float bits_f32(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Drops the low `n` bits of `bits`, 0 < n < 32, rounding to nearest and ties to even. A carry moves
// into the exponent, which is what rounding up to the next power of two, or to infinity, asks for.
static uint32_t shift_nearest_even(uint32_t bits, uint32_t n)
{
    uint32_t half = 1u << (n - 1);
    uint32_t odd = bits >> n & 1;
    return (bits + half - 1 + odd) >> n;
}

// f32 is 1.8.23 with bias 127, f16 is 1.5.10 with bias 15.
uint16_t moe_f32_to_f16(float value)
{
    const uint32_t infinity = 0x7f800000u;
    const uint32_t first_overflow = 0x477ff000u; // 65520, the tie between 65504 and 65536
    const uint32_t first_normal = 0x38800000u;   // 2^-14
    const uint32_t half_of_least = 0x33000000u;  // 2^-25, rounds to the even 0

    uint32_t bits = f32_bits(value);
    uint32_t sign = bits >> 16 & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > infinity)
        return (uint16_t) (sign | 0x7e00u | (bits >> 13 & 0x3ffu)); // a quiet NaN
    if (bits >= first_overflow)
        return (uint16_t) (sign | 0x7c00u);
    if (bits >= first_normal)
        return (uint16_t) (sign | shift_nearest_even(bits - (112u << 23), 13));
    if (bits <= half_of_least)
        return (uint16_t) sign;
    // Subnormal: the significand counts units of 2^-24.
    uint32_t exponent = bits >> 23;
    uint32_t significand = (bits & 0x7fffffu) | 0x800000u;
    return (uint16_t) (sign | shift_nearest_even(significand, 126 - exponent));
}

float moe_f16_to_f32(uint16_t value)
{
    uint32_t sign = (uint32_t) (value & 0x8000u) << 16;
    uint32_t magnitude = value & 0x7fffu;
    if (magnitude >= 0x7c00u)
        return bits_f32(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    if (magnitude >= 0x400u)
        return bits_f32(sign | ((magnitude << 13) + (112u << 23)));
    float subnormal = (float) magnitude * 0x1p-24f;
    return bits_f32(sign | f32_bits(subnormal));
}

uint16_t moe_f32_to_bf16(float value)
{
    uint32_t bits = f32_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t) (bits >> 16 | 0x40u); // a quiet NaN
    return (uint16_t) shift_nearest_even(bits, 16);
}

float moe_bf16_to_f32(uint16_t value)
{
    return bits_f32((uint32_t) value << 16);
}

// ---- rows ------------------------------------------------------------------------------------

// Of types that have no blocks, neither is there.
static const struct {
    moe_block_decode_fn *decode;
    moe_block_encode_fn *encode;
} blocks[MOE_N_DTYPES] = {
    [VKMOE_Q8_0] = {moe_q8_0_decode, moe_q8_0_encode},
    [VKMOE_Q4_0] = {moe_q4_0_decode, moe_q4_0_encode},
    [VKMOE_Q4_K] = {moe_q4_K_decode, moe_q4_K_encode},
    [VKMOE_Q5_K] = {moe_q5_K_decode, moe_q5_K_encode},
    [VKMOE_Q6_K] = {moe_q6_K_decode, moe_q6_K_encode},
    [VKMOE_Q2_K] = {moe_q2_K_decode, moe_q2_K_encode},
    [VKMOE_MXFP4] = {moe_mxfp4_decode, moe_mxfp4_encode},
    [VKMOE_FP8] = {moe_fp8_decode, moe_fp8_encode},
};

static void decode_blocks(enum vkmoe_dtype type, const unsigned char *src, size_t n, float *dst)
{
    const size_t values = infos[type].block_elements, left = n % values;
    float last[MOE_MAX_BLOCK];
    for (size_t i = 0; i < n / values; i++, src += infos[type].block_size)
        blocks[type].decode(src, dst + i * values);
    if (left > 0) {
        blocks[type].decode(src, last);
        memcpy(dst + n - left, last, left * sizeof *dst);
    }
}

static void encode_blocks(enum vkmoe_dtype type, const float *src, size_t n, unsigned char *dst)
{
    const size_t values = infos[type].block_elements, left = n % values;
    float last[MOE_MAX_BLOCK] = {0};
    for (size_t i = 0; i < n / values; i++, dst += infos[type].block_size)
        blocks[type].encode(src + i * values, dst);
    if (left > 0) {
        memcpy(last, src + n - left, left * sizeof *src);
        blocks[type].encode(last, dst);
    }
}

// Rows come from mapped files too, at any alignment: elements are copied, never pointed at.
void moe_dtype_decode(enum vkmoe_dtype type, const void *src, size_t n, float *dst)
{
    const unsigned char *bytes = src;
    uint16_t half;
    assert(n % infos[type].block_elements == 0 || type == VKMOE_FP8);
    if (blocks[type].decode) {
        decode_blocks(type, bytes, n, dst);
    } else if (type == VKMOE_F32 && n > 0) {
        memcpy(dst, src, n * sizeof *dst);
    } else if (type == VKMOE_F16) {
        for (size_t i = 0; i < n; i++) {
            memcpy(&half, bytes + 2 * i, sizeof half);
            dst[i] = moe_f16_to_f32(half);
        }
    } else if (type == VKMOE_BF16) {
        for (size_t i = 0; i < n; i++) {
            memcpy(&half, bytes + 2 * i, sizeof half);
            dst[i] = moe_bf16_to_f32(half);
        }
    }
}

void moe_dtype_encode(enum vkmoe_dtype type, const float *src, size_t n, void *dst)
{
    unsigned char *bytes = dst;
    uint16_t half;
    assert(n % infos[type].block_elements == 0 || type == VKMOE_FP8);
    if (blocks[type].encode) {
        encode_blocks(type, src, n, bytes);
    } else if (type == VKMOE_F32 && n > 0) {
        memcpy(dst, src, n * sizeof *src);
    } else if (type == VKMOE_F16 || type == VKMOE_BF16) {
        for (size_t i = 0; i < n; i++) {
            half = type == VKMOE_F16 ? moe_f32_to_f16(src[i]) : moe_f32_to_bf16(src[i]);
            memcpy(bytes + 2 * i, &half, sizeof half);
        }
    }
}

// f64 -> f32 rounded to odd: towards zero, and where something was cut off the last bit is set. f32
// has at least two bits more than a 16-bit type everywhere, so that bit stands for all that was cut
// off, and rounding the result to nearest gives what rounding the f64 itself would. Beyond the
// largest f32 the odd neighbour of infinity is that largest number, and still beyond either type.
// Boldo and Melquiond, Emulation of FMA and correctly rounded sums, 2008, prove it.
static float f64_to_odd(double value)
{
    float nearest = (float) value;
    if ((double) nearest == value || isnan(value))
        return nearest;
    uint32_t bits = f32_bits(nearest);
    if (fabs((double) nearest) > fabs(value))
        bits--;
    return bits_f32(bits | 1);
}

void moe_dtype_encode_f64(enum vkmoe_dtype type, const double *src, size_t n, void *dst)
{
    assert(moe_dtype_is_float(type));
    const size_t size = (size_t) moe_dtype_size(type, 1);
    unsigned char *bytes = dst;
    for (size_t i = 0; i < n; i++) {
        float value = type == VKMOE_F32 ? (float) src[i] : f64_to_odd(src[i]);
        moe_dtype_encode(type, &value, 1, bytes + i * size);
    }
}
