#version 450
// SPDX-License-Identifier: MIT
// Rows sorted by their group, stable: a radix sort by `bits` bits of the group number a pass, least
// significant first; then the groups' starts. One step each:
//   OP 0  counts[digit, block] = rows of the block with that digit      Dispatch: (n_blocks, 1, 1)
//   OP 1  counts: instead of them, where the first of those rows goes   Dispatch: (1, 1, 1)
//   OP 2  to[...] = from[...], each row to its place                    Dispatch: (n_blocks, 1, 1)
//   OP 3  starts[g] = number of rows with groups below g                Dispatch: by 128 starts
// Operands: ids (rows), [from (rows)]: without it, rows in their order. Results: OP 0 to 2: counts
// (2^bits, n_blocks), [to (rows)]; OP 3, whose `from` is sorted by all bits: starts (G + 1).
// Blocks have MOE_NET_SORT_ROWS rows. Workgroups may be fewer: each takes every so many.
#extension GL_GOOGLE_include_directive : require
#define NET_PARAMS net_group_params
#include "net.glsl"
layout(constant_id = 0) const uint OP = MOE_NET_SORT_COUNT;

shared uint counters[1 << MOE_NET_SORT_BITS]; // OP 0: by digit; OP 1: by invocation
shared uint digits[MOE_NET_SORT_ROWS];

uint row_at(uint i)
{
    return has_in(1) ? in_uint(1, i) : i;
}

uint digit_of(uint row)
{
    return in_uint(0, row) >> p.shift & (1 << p.bits) - 1;
}

uint counts(uint i)
{
    return net_word(head.out_at[0], i);
}

void count(uint block)
{
    uint lid = gl_LocalInvocationID.x, i = block * MOE_NET_SORT_ROWS + lid;
    for (uint d = lid; d < 1 << p.bits; d += MOE_LOCAL_SIZE)
        counters[d] = 0;
    barrier();
    if (i < head.rows)
        atomicAdd(counters[digit_of(row_at(i))], 1);
    barrier();
    for (uint d = lid; d < 1 << p.bits; d += MOE_LOCAL_SIZE)
        set_uint(0, d * p.n_blocks + block, counters[d]);
    barrier();
}

void scan()
{
    uint lid = gl_LocalInvocationID.x, all = p.n_blocks << p.bits;
    uint run = (all + MOE_LOCAL_SIZE - 1) / MOE_LOCAL_SIZE;
    uint first = min(lid * run, all), end = min(first + run, all), n = 0;
    for (uint i = first; i < end; i++)
        n += counts(i);
    counters[lid] = n;
    barrier();
    uint before = 0;
    for (uint i = 0; i < lid; i++)
        before += counters[i];
    for (uint i = first; i < end; i++) {
        uint own = counts(i);
        set_uint(0, i, before);
        before += own;
    }
}

void move(uint block)
{
    uint lid = gl_LocalInvocationID.x, i = block * MOE_NET_SORT_ROWS + lid;
    uint row = 0, digit = 0;
    if (i < head.rows) {
        row = row_at(i);
        digit = digit_of(row);
    }
    barrier(); // the digits before have been read
    digits[lid] = digit;
    barrier();
    if (i < head.rows) {
        uint place = counts(digit * p.n_blocks + block);
        for (uint j = 0; j < lid; j++)
            place += digits[j] == digit ? 1 : 0;
        set_uint(1, place, row);
    }
}

// Rows of groups below g.
uint rows_below(uint g)
{
    uint first = 0, end = head.rows;
    while (first < end) {
        uint middle = first + (end - first) / 2;
        if (in_uint(0, row_at(middle)) < g)
            first = middle + 1;
        else
            end = middle;
    }
    return first;
}

void main()
{
    if (OP == MOE_NET_SORT_SCAN) {
        scan();
    } else if (OP == MOE_NET_SORT_STARTS) {
        for (uint g = gl_GlobalInvocationID.x; g <= p.n_groups;
             g += gl_NumWorkGroups.x * MOE_LOCAL_SIZE)
            set_uint(0, g, g < p.n_groups ? rows_below(g) : head.rows);
    } else {
        for (uint block = gl_WorkGroupID.x; block < p.n_blocks; block += gl_NumWorkGroups.x) {
            if (OP == MOE_NET_SORT_COUNT)
                count(block);
            else
                move(block);
        }
    }
}
