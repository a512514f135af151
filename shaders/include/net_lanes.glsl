// SPDX-License-Identifier: MIT
// Rows that are shared by p.lanes neighbouring invocations, 1 .. MOE_LOCAL_SIZE, a power of two.
// Lane j has the elements j, j + lanes, ...; what the lanes have is combined in a fixed tree. All
// invocations of a workgroup call these functions together. Included after net.glsl.

shared float lane_values[MOE_LOCAL_SIZE];

uint lane_of()
{
    return gl_LocalInvocationID.x % p.lanes;
}

uint rows_of_workgroup()
{
    return MOE_LOCAL_SIZE / p.lanes;
}

float lanes_reduce(float v, bool maximum)
{
    uint lid = gl_LocalInvocationID.x;
    barrier(); // what was here before has been read
    lane_values[lid] = v;
    for (uint n = p.lanes / 2; n > 0; n /= 2) {
        barrier();
        if (lane_of() < n) {
            float a = lane_values[lid], b = lane_values[lid + n];
            lane_values[lid] = maximum ? (b > a ? b : a) : a + b;
        }
    }
    barrier();
    return lane_values[lid - lane_of()];
}

float lanes_sum(float v)
{
    return lanes_reduce(v, false);
}

// Passes over NaN.
float lanes_max(float v)
{
    return lanes_reduce(v, true);
}
