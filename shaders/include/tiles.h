// SPDX-License-Identifier: MIT
// How the rows of one expert are cut into tiles, read by C and by GLSL. An expert of few rows has
// one small tile, any other one full tiles alone. So all tiles of an expert are neighbours in one
// list, and an expert that fits into a tile reads its weights once. `small` and `full` are how many
// rows each may have, in a plan.
//
// A tile multiplies no more columns than its rows need: those of invocations that have none are
// left out, by pairs of MOE_TILE_LANES, which a subgroup of 32 has in common. A tile of more than
// MOE_TILE_FULL rows has so many at once, and what its rows lack is as little. A matvec over a tile
// takes its rows two by two.
#ifndef MOE_TILES_H
#define MOE_TILES_H

#include "params.h"

#ifdef VULKAN // GLSL
#define MOE_TILES_FN MOE_UINT
#else
#define MOE_TILES_FN static inline MOE_UINT
#endif

MOE_TILES_FN moe_small_tiles(MOE_UINT n_rows, MOE_UINT small)
{
    return n_rows > 0 && n_rows <= small ? 1 : 0;
}

MOE_TILES_FN moe_full_tiles(MOE_UINT n_rows, MOE_UINT small, MOE_UINT full)
{
    return n_rows <= small ? 0 : (n_rows + full - 1) / full;
}

// Columns that a tile of `size` multiplies for n_rows.
MOE_TILES_FN moe_tile_columns(MOE_UINT n_rows, MOE_UINT size)
{
    MOE_UINT step = 2 * (size < MOE_TILE_FULL ? size : MOE_TILE_FULL) / MOE_TILE_LANES;
    return (n_rows + step - 1) / step * step;
}

MOE_TILES_FN moe_matvec_columns(MOE_UINT n_rows)
{
    return (n_rows + 1) / 2 * 2;
}

#endif
