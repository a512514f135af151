// SPDX-License-Identifier: MIT
// Floats as integers in the order of selection: the larger one first, -0 as +0, NaN after every
// number. Included after element.glsl.

// Keys below those of all numbers.
const uint KEY_TAKEN = 0, KEY_NAN = 1;

#define NEGATIVE_INFINITY uintBitsToFloat(0xff800000u)
#define NOT_A_NUMBER uintBitsToFloat(0x7fc00000u)

uint order_key(float v)
{
    if (is_nan(v))
        return KEY_NAN;
    uint bits = floatBitsToUint(v);
    bits = bits == 0x80000000u ? 0 : bits; // `v == 0.0 ? 0.0 : v` is v to some compilers
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

// The bits of the float with that key.
uint key_bits(uint key)
{
    if (key == KEY_NAN)
        return 0x7fc00000u;
    return (key & 0x80000000u) != 0 ? key ^ 0x80000000u : ~key;
}
