// SPDX-License-Identifier: MIT
// How many slots an expert keeps of n_tokens tokens: p.capacity, or, where that is 0,
// ceil(capacity_factor * top_k * n_tokens / n_experts), by integers, exactly. Included after the
// push-constant block, whose capacity_params is called p.

// A number of two words, shifted to the right; what falls out is added to *rest.
uvec2 shift_right(uvec2 v, uint shift, inout bool rest)
{
    for (; shift > 0 && (v.x | v.y) != 0; shift--) {
        rest = rest || (v.x & 1) != 0;
        v = uvec2(v.x >> 1 | v.y << 31, v.y >> 1);
    }
    return v;
}

uint expert_capacity(uint n_tokens)
{
    if (p.capacity > 0)
        return p.capacity;
    uint bits = floatBitsToUint(p.capacity_factor); // a positive number
    int exponent = int(bits >> 23) - 150; // factor = mantissa 2^exponent
    uint mantissa = (bits & 0x7fffffu) | 0x800000u;
    uvec2 v;
    umulExtended(mantissa, n_tokens * p.top_k, v.y, v.x);
    bool rest = false;
    if (exponent > 0) // 2^24 and above: all of them
        return n_tokens;
    v = shift_right(v, uint(-exponent), rest);
    // Long division of 16-bit digits: n_experts is below 2^16.
    uint digits[4] = uint[4](v.y >> 16, v.y & 0xffffu, v.x >> 16, v.x & 0xffffu);
    uint quotient = 0, remainder = 0, above = 0;
    for (uint i = 0; i < 4; i++) {
        uint part = remainder << 16 | digits[i];
        above |= quotient >> 16;
        quotient = quotient << 16 | part / p.n_experts;
        remainder = part % p.n_experts;
    }
    if (above != 0)
        return n_tokens;
    return min(quotient + (rest || remainder > 0 ? 1 : 0), n_tokens);
}
