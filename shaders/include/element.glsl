// SPDX-License-Identifier: MIT
// Elements of x and y, in 32-bit words: an f32, or two of f16 or bf16, the first in the low half.
// TYPE is a value of enum vkmoe_dtype.
const uint TYPE_F32 = 0, TYPE_F16 = 1, TYPE_BF16 = 2;

uint elements_per_word(uint type)
{
    return type == TYPE_F32 ? 1 : 2;
}

// The i-th element of a row, from the word that holds it.
float element_from(uint type, uint word, uint i)
{
    if (type == TYPE_F32)
        return uintBitsToFloat(word);
    if (type == TYPE_F16)
        return unpackHalf2x16(word)[i & 1];
    return uintBitsToFloat((i & 1) == 0 ? word << 16 : word & 0xffff0000u);
}

// By bits: a compiler may assume that no float is NaN.
bool is_nan(float v)
{
    return (floatBitsToUint(v) & 0x7fffffffu) > 0x7f800000u;
}

// Nearest even, by integers: GLSL leaves open how packHalf2x16 rounds.
uint f16_bits(float v)
{
    uint bits = floatBitsToUint(v), sign = bits >> 16 & 0x8000u, a = bits & 0x7fffffffu;
    if (a > 0x7f800000u)
        return sign | 0x7e00u;
    if (a >= 0x477ff000u) // 65520: halfway to what would be 2^16
        return sign | 0x7c00u;
    if (a >= 0x38800000u) // 2^-14, the least normal number
        return sign | (a + 0xfffu + (a >> 13 & 1) - 0x38000000u) >> 13;
    uint exponent = a >> 23;
    if (exponent < 102) // below 2^-25
        return sign;
    uint mantissa = (a & 0x7fffffu) | 0x800000u, shift = 126 - exponent;
    uint kept = mantissa >> shift, rest = mantissa & ((1u << shift) - 1), tie = 1u << (shift - 1);
    return sign | (kept + (rest > tie || (rest == tie && (kept & 1) != 0) ? 1 : 0));
}

uint bf16_bits(float v)
{
    uint bits = floatBitsToUint(v);
    return is_nan(v) ? bits >> 16 | 0x40u : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}

// The word of one element, or of two.
uint element_pack(uint type, float lo, float hi)
{
    if (type == TYPE_F32)
        return floatBitsToUint(lo);
    return type == TYPE_F16 ? f16_bits(lo) | f16_bits(hi) << 16
                            : bf16_bits(lo) | bf16_bits(hi) << 16;
}
