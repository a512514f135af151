// SPDX-License-Identifier: MIT
// Functions for which Vulkan promises too little: log near 1 and cos lose most of their digits
// on some devices. These are within a few 2^-24 of the true value, relative. Included after
// net.glsl.

#include "softplus.glsl"

// log v = e log 2 + log m, m in [sqrt(1/2), sqrt(2)).
float net_log(float v)
{
    uint bits = floatBitsToUint(v);
    if (is_nan(v) || bits == 0x7f800000u)
        return v;
    if ((bits & 0x7fffffffu) == 0)
        return -NET_INFINITY;
    if ((bits & 0x80000000u) != 0)
        return uintBitsToFloat(0x7fc00000u);
    int e = 0;
    if (bits < 0x00800000u) { // subnormal; a device may take it for 0, so its bits are counted
        int top = findMSB(bits);
        bits <<= 23 - top;
        e = top - 23;
        bits = (bits & 0x7fffffu) | 0x00800000u;
    }
    e += int(bits >> 23) - 127;
    uint mantissa = bits & 0x7fffffu;
    bool high = mantissa > 0x3504f3u; // above sqrt(2)
    float m = uintBitsToFloat(mantissa | (high ? 0x3f000000u : 0x3f800000u));
    float n = float(high ? e + 1 : e);
    // log 2 in two parts, the first of few bits.
    float rest = fma(n, 1.42860682030941723e-6, two_atanh((m - 1.0) / (m + 1.0)));
    return fma(n, 0.693145751953125, rest);
}

// cos(2 pi b), 0 <= b <= 1: a quarter turn and what is left of at most an eighth.
float cos_turn(float b)
{
    float quarter = floor(4.0 * b + 0.5);
    float a = 6.28318530717958648 * (b - 0.25 * quarter), q = a * a;
    float cosine = fma(q, fma(q, fma(q, fma(q, 1.0 / 40320, -1.0 / 720), 1.0 / 24), -0.5), 1.0);
    float sine =
        a * fma(q, fma(q, fma(q, fma(q, 1.0 / 362880, -1.0 / 5040), 1.0 / 120), -1.0 / 6), 1.0);
    uint turn = uint(quarter) & 3;
    float v = (turn & 1) == 0 ? cosine : sine;
    return turn == 1 || turn == 2 ? -v : v;
}
