// SPDX-License-Identifier: MIT
// The part of a tile of MOE_NET_TILE_ROWS rows by MOE_NET_TILE_COLUMNS columns that is an
// invocation's own where nothing is staged: 4 rows by 4 columns, as in net_tile_product.glsl.
//
// The loops of a step have fixed lengths and are unrolled: lavapipe of Mesa 22 ends the loops of an
// invocation silently after 65535 iterations of them all.
const uint STEP = 16; // values of k

uint cell_row()
{
    return gl_LocalInvocationID.x / 16 * 4;
}

uint cell_column()
{
    return gl_LocalInvocationID.x % 16 * 4;
}

// How many of the invocation's 4 are among the first n.
uint own_of(uint first, uint n)
{
    return first < n ? min(4, n - first) : 0;
}
