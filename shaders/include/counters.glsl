// SPDX-License-Identifier: MIT
// What the kernels of a plan with `counters` did (vkmoe/bench.h): every invocation adds up its own
// and gives that to the head of the workspace at its end. Only by address, where routing can be
// written to beside what the kernel declares of it; with descriptors nothing is left of this.
// Included after buffers.glsl.
//   COUNT_WEIGHTS()              a uvec4 of an expert's weights was loaded
//   COUNT_ROUTER(n)              n words of the router's weights were loaded
//   COUNT_TILE(used, live, all)  a tile of weights was multiplied, if it was used, with `all` rows,
//                                `live` of them of slots
//   COUNT_END(busy)              the invocation ends; did its workgroup have something to do?
// The last two say the same on every invocation of a workgroup; the first one's is what counts.
#ifdef MOE_BDA
layout(constant_id = MOE_SPEC_COUNT) const uint COUNT = 0;

layout(buffer_reference, std430, buffer_reference_align = 4) buffer CountersRef {
    uint v[];
};

uint counted_weights = 0, counted_router = 0, counted_live = 0, counted_padded = 0;

// Low and high word of a counter: whose sum passes 32 bits carries.
void count_add(uint counter, uint n)
{
    if (n == 0)
        return;
    CountersRef counters = CountersRef(head.address[MOE_SLOT_ROUTING]);
    uint at = MOE_COUNTER_WORD + 2 * counter, low = atomicAdd(counters.v[at], n);
    if (low + n < low)
        atomicAdd(counters.v[at + 1], 1);
}

void count_tile(uint live, uint all)
{
    counted_live += live;
    counted_padded += all - live;
}

void count_end(bool busy)
{
    count_add(MOE_COUNT_WEIGHTS, counted_weights);
    count_add(MOE_COUNT_ROUTER, counted_router);
    if (gl_LocalInvocationID.x > 0)
        return;
    count_add(MOE_COUNT_LIVE, counted_live);
    count_add(MOE_COUNT_PADDED, counted_padded);
    count_add(busy ? MOE_COUNT_BUSY : MOE_COUNT_IDLE, 1);
}

#define COUNT_WEIGHTS() if (COUNT != 0) counted_weights++
#define COUNT_ROUTER(n) if (COUNT != 0) counted_router += n
#define COUNT_TILE(used, live, all) if (COUNT != 0 && (used)) count_tile(live, all)
#define COUNT_END(busy) if (COUNT != 0) count_end(busy)
#else
#define COUNT_WEIGHTS()
#define COUNT_ROUTER(n)
#define COUNT_TILE(used, live, all)
#define COUNT_END(busy)
#endif
