// SPDX-License-Identifier: MIT
// The product of two tiles in shared memory: MOE_NET_TILE_ROWS rows by MOE_NET_TILE_COLUMNS
// columns, 4 by 4 of them for each invocation, in one chain of fma each.
//
// The loops of a step have fixed lengths and are unrolled: lavapipe of Mesa 22 ends the loops of an
// invocation silently after 65535 iterations of them all.
const uint TILE_DEPTH = 16;                       // of one step
const uint TILE_A_STRIDE = MOE_NET_TILE_ROWS + 1; // so that writing along k meets other banks

shared float tile_a[TILE_DEPTH * TILE_A_STRIDE];        // (k, row)
shared float tile_b[TILE_DEPTH * MOE_NET_TILE_COLUMNS]; // (k, column)

uint cell_row()
{
    return gl_LocalInvocationID.x / 16 * 4;
}

uint cell_column()
{
    return gl_LocalInvocationID.x % 16 * 4;
}

// Every invocation calls this once the tiles are written.
void tile_multiply(inout vec4 sum[4])
{
    barrier();
    [[unroll]] for (uint k = 0; k < TILE_DEPTH; k++) {
        uint b = k * MOE_NET_TILE_COLUMNS + cell_column(), a = k * TILE_A_STRIDE + cell_row();
        vec4 columns = vec4(tile_b[b], tile_b[b + 1], tile_b[b + 2], tile_b[b + 3]);
        [[unroll]] for (uint r = 0; r < 4; r++)
            sum[r] = fma(vec4(tile_a[a + r]), columns, sum[r]);
    }
    barrier();
}
