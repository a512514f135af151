// SPDX-License-Identifier: MIT
// Rows of groups, cut into tiles of MOE_NET_TILE_ROWS. Tile t is found from `starts` by the
// workgroup itself: every invocation counts the tiles of a run of neighbouring groups, then the one
// whose run has the tile says where it is. Included after net.glsl by kernels of net_matmul_params.
#include "net_groups.glsl"

shared uint tiles_of_run[MOE_LOCAL_SIZE];
shared uint n_tiles, tile_group, tile_first, tile_rows;

uint tiles_of(uint g)
{
    return (group_start(g + 1) - group_start(g) + MOE_NET_TILE_ROWS - 1) / MOE_NET_TILE_ROWS;
}

// The run of groups of this invocation: x to y - 1.
uvec2 run_of_groups()
{
    uint n = (p.n_groups + MOE_LOCAL_SIZE - 1) / MOE_LOCAL_SIZE;
    uint first = min(gl_LocalInvocationID.x * n, p.n_groups);
    return uvec2(first, min(first + n, p.n_groups));
}

// Sets n_tiles.
void count_tiles()
{
    uint lid = gl_LocalInvocationID.x, n = 0;
    uvec2 run = run_of_groups();
    for (uint g = run.x; g < run.y; g++)
        n += tiles_of(g);
    tiles_of_run[lid] = n;
    barrier();
    if (lid == 0) {
        uint all = 0;
        for (uint i = 0; i < MOE_LOCAL_SIZE; i++)
            all += tiles_of_run[i];
        n_tiles = all;
    }
    barrier();
}

// Sets tile_group, and the tile's rows: group_member(tile_first) and the tile_rows - 1 after it.
void find_tile(uint tile)
{
    uint lid = gl_LocalInvocationID.x, before = 0;
    for (uint i = 0; i < lid; i++)
        before += tiles_of_run[i];
    barrier(); // the tile before has been used
    if (tile >= before && tile - before < tiles_of_run[lid]) {
        uint g = run_of_groups().x;
        for (uint n = tiles_of(g); tile - before >= n; n = tiles_of(g)) {
            before += n;
            g++;
        }
        uint start = group_start(g);
        tile_group = g;
        tile_first = start + (tile - before) * MOE_NET_TILE_ROWS;
        tile_rows = min(MOE_NET_TILE_ROWS, group_start(g + 1) - tile_first);
    }
    barrier();
}
