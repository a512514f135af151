#version 450
// SPDX-License-Identifier: MIT
// Sums over the rows of each group, or over all rows.
//   OP 0: e[g, c] = alpha sum_{r in g} [s[r]] d[r / div, c]
//   OP 1: e[0, c] = sum_r d[r, c] (a[r, c] - mean[r]) scale[r],  f[0, c] = sum_r d[r, c]
// Operands: d, [s] or a, stats (rows, 2), [starts, members]. Results: e (G, width), [f].
// Dispatch: (ceil(width / MOE_NET_COLUMNS), G, 1), or fewer: a workgroup takes every so many.
//
// 8 lanes a column: lane j adds rows j, j + 8, ...; then the lanes are added in their order.
#extension GL_GOOGLE_include_directive : require
#define NET_PARAMS net_columns_params
#include "net.glsl"
layout(constant_id = 0) const uint OP = MOE_NET_COLUMNS_SUM;

const uint LANES = MOE_LOCAL_SIZE / MOE_NET_COLUMNS;
shared vec2 sums[MOE_LOCAL_SIZE];

vec2 term(uint row, uint c)
{
    float d = in_at(0, row / p.div * p.width + c);
    if (OP == MOE_NET_COLUMNS_NORM)
        return vec2(d * (in_at(1, row * p.width + c) - in_at(2, row * 2)) * in_at(2, row * 2 + 1),
                    d);
    return vec2(has_in(1) ? in_at(1, row) * d : d, 0.0);
}

void add_up(uint g, uint first)
{
    uint lid = gl_LocalInvocationID.x;
    uint c = first + lid % MOE_NET_COLUMNS, lane = lid / MOE_NET_COLUMNS;
    uint i = (has_in(3) ? in_uint(3, g) : 0) + lane;
    uint end = c < p.width ? (has_in(3) ? in_uint(3, g + 1) : head.rows) : 0;
    vec2 sum = vec2(0);
    for (; i < end; i += LANES)
        sum += term(has_in(4) ? in_uint(4, i) : i, c);
    barrier(); // the sums before have been read
    sums[lid] = sum;
    barrier();
    if (lane == 0 && c < p.width) {
        for (uint j = 1; j < LANES; j++)
            sum += sums[lid + j * MOE_NET_COLUMNS];
        if (has_out(0))
            put(0, g * p.width + c, p.alpha * sum.x);
        if (has_out(1))
            put(1, g * p.width + c, p.alpha * sum.y);
    }
}

void main()
{
    for (uint g = gl_WorkGroupID.y; g < p.n_groups; g += gl_NumWorkGroups.y)
        for (uint c = gl_WorkGroupID.x * MOE_NET_COLUMNS; c < p.width;
             c += gl_NumWorkGroups.x * MOE_NET_COLUMNS)
            add_up(min(g, p.n_groups - 1), c); // see buffers.glsl: the loop's next one
}
