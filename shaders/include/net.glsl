// SPDX-License-Identifier: MIT
// The arena of a network, as kernels see it. All tensors lie in one buffer, which is bound as a
// whole (binding 0), or reached by address (-DMOE_BDA). Before including it a kernel defines
// NET_PARAMS, the struct of its push constants. `k` is the number of an operand or result, `i` an
// element of it. An operand that is not there reads as the arena's first words.
#include "prelude.glsl"
#include "net_params.h"
layout(push_constant) uniform Push {
    net_head head;
    NET_PARAMS p;
};
#include "element.glsl"
#include "act.glsl"

#ifdef MOE_BDA
layout(buffer_reference, std430, buffer_reference_align = 4) buffer NetRef {
    uint v[];
};
uvec2 net_address(uint at) // of 256 bytes each
{
    uint carry;
    uint low = uaddCarry(head.arena.x, at << 8, carry);
    return uvec2(low, head.arena.y + (at >> 24) + carry);
}
#define net_word(at, i) NetRef(net_address(at)).v[i]
#else
layout(std430, set = 0, binding = 0) buffer Net {
    uint v[];
} net_buffer;
#define net_word(at, i) net_buffer.v[(at) * MOE_NET_UNIT + (i)]
#endif

bool has_in(uint k)
{
    return (head.has & 1u << k) != 0;
}

bool has_out(uint k)
{
    return (head.has & 64u << k) != 0;
}

float in_at(uint k, uint i)
{
    return uintBitsToFloat(net_word(head.in_at[k], i));
}

uint in_uint(uint k, uint i)
{
    return net_word(head.in_at[k], i);
}

float out_at(uint k, uint i)
{
    return uintBitsToFloat(net_word(head.out_at[k], i));
}

void set_uint(uint k, uint i, uint v)
{
    net_word(head.out_at[k], i) = v;
}

void set(uint k, uint i, float v)
{
    set_uint(k, i, floatBitsToUint(v));
}

// Sets, or adds where the op does.
void put(uint k, uint i, float v)
{
    set(k, i, (head.add & 1u << k) != 0 ? out_at(k, i) + v : v);
}

// By bits, as is_nan.
bool is_finite(float v)
{
    return (floatBitsToUint(v) & 0x7f800000u) != 0x7f800000u;
}

#define NET_INFINITY uintBitsToFloat(0x7f800000u)
