#version 450
// SPDX-License-Identifier: MIT
// Sums of everything, in chunks: out[i] = alpha * sum of the terms of chunk i.
//   OP 0: a[j]   OP 1: a[j]^2   OP 2: a[j] (starts[j + 1] - starts[j])
// Operands: a (n), [starts (n + 1)]. Result: out (ceil(n / chunk), at least 1).
// Dispatch: (chunks, 1, 1), or fewer: a workgroup takes every so many.
//
// Lane j adds terms j, j + 128, ... of the chunk; the lanes are added in a fixed tree.
#extension GL_GOOGLE_include_directive : require
#define NET_PARAMS net_total_params
#include "net.glsl"
layout(constant_id = 0) const uint OP = MOE_NET_TOTAL_SUM;

shared float sums[MOE_LOCAL_SIZE];

float term(uint i)
{
    float v = in_at(0, i);
    if (OP == MOE_NET_TOTAL_SQUARES)
        return v * v;
    if (OP == MOE_NET_TOTAL_BALANCE)
        return v * float(in_uint(1, i + 1) - in_uint(1, i));
    return v;
}

void add_up(uint chunk)
{
    uint lid = gl_LocalInvocationID.x, first = chunk * p.chunk;
    uint end = first + min(p.chunk, p.n - first);
    float sum = 0.0;
    for (uint i = first + lid; i < end; i += MOE_LOCAL_SIZE)
        sum += term(i);
    barrier(); // the sums before have been read
    sums[lid] = sum;
    for (uint n = MOE_LOCAL_SIZE / 2; n > 0; n /= 2) {
        barrier();
        if (lid < n)
            sums[lid] += sums[lid + n];
    }
    if (lid == 0)
        put(0, chunk, p.alpha * sums[0]);
}

void main()
{
    uint chunks = max(p.n / p.chunk + (p.n % p.chunk != 0 ? 1 : 0), 1);
    for (uint chunk = gl_WorkGroupID.x; chunk < chunks; chunk += gl_NumWorkGroups.x)
        add_up(chunk);
}
