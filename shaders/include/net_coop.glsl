// SPDX-License-Identifier: MIT
// The product of MOE_NET_TILE_ROWS rows and MOE_NET_TILE_COLUMNS columns by matrices of f16, for
// kernels of networks, see products.glsl: all but weights may be beyond f16, gradients below. A
// kernel defines SCALES_PACKED, a constant: of the columns. It stages a line of a column, or of
// FIRST_ROW and a row, with stage_pair. Included after net.glsl.
const uint TILE = MOE_NET_TILE_ROWS;
const bool SCALES_ROWS = true;
#include "products.glsl"

// The kernel's: what becomes of a sum. `at`: as write_sums has it.
void write_sum(uint row, uint column, float sum, uvec2 at);

void coop_begin()
{
    barrier(); // the sums before have been read
    begin_products();
    barrier();
}

// After the last step: sums of n_rows rows, which are those of the tile that are there.
#ifdef MOE_FLEXIBLE
// tile: its rows, then `at`.
float write_element(const in uint row, const in uint column, const in float sum,
                    const in uvec2 first, const in uvec3 tile)
{
    uvec2 place = place_of(first, row, column);
    if (place.y < tile.x)
        write_sum(place.y, place.x, unscaled(sum, place.x, place.y), tile.yz);
    return sum;
}

void write_sums(uint n_rows, uvec2 at)
{
    if (!has_products())
        return;
    for (uint i = 0; i < A_OWN; i++)
        for (uint j = 0; j < B_OWN; j++) {
            SUM_MATRIX unused;
            coopMatPerElementNV(unused, acc[i * B_OWN + j], write_element, first_of(i, j),
                                uvec3(n_rows, at));
        }
}
#else
void write_sums(uint n_rows, uvec2 at)
{
    store_sums();
    for (uint i = gl_LocalInvocationID.x; i < n_rows * MOE_NET_TILE_COLUMNS;
         i += MOE_LOCAL_SIZE) {
        uint row = i / MOE_NET_TILE_COLUMNS, column = i % MOE_NET_TILE_COLUMNS;
        write_sum(row, column, unscaled(sums[row * SUMS_STRIDE + column], column, row), at);
    }
}
#endif
