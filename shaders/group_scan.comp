#version 450
// SPDX-License-Identifier: MIT
// Grouping, middle pass, one workgroup: turns the blocks' counts into first positions, cuts each
// expert's rows into tiles and writes the arguments of the indirect dispatches.
//   counts (n_blocks, n_experts)  in: slots of e in a block; out: position of the first of them;
//                                 one more word: out: the number of slots of all experts
//   full_tiles, small_tiles       MOE_TILE_WORDS words each: expert, first row, rows, 0
//   args                          MOE_ARGS_WORDS words each: x, y, z, first tile; for each chunk of
//                                 experts and tile size the pieces of the first matmul, then those
//                                 of the second
// LISTS = 0: nothing but the counts. Dispatch: (1, 1, 1)
//
// Rows of an expert: full tiles of MOE_TILE_FULL first; what is left goes into one more full tile
// when it fills more than half of it, else into small tiles.
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
layout(push_constant) uniform Push {
    head_params head;
    group_params p;
};
#define ROUTING_ACCESS
#include "buffers.glsl"
#include "counters.glsl"
layout(constant_id = 0) const uint LISTS = 1;

shared uvec3 sums[MOE_LOCAL_SIZE]; // rows, full tiles, small tiles
shared uvec2 starts[MOE_SCAN_EXPERTS + 1]; // full and small tiles before each expert

uint expert_rows(uint e, uint n_blocks)
{
    uint rows = 0;
    for (uint b = 0; b < n_blocks; b++)
        rows += routing(p.counts + b * p.n_experts + e);
    return rows;
}

uvec3 tiles_of(uint rows)
{
    uint full = rows / MOE_TILE_FULL, rest = rows % MOE_TILE_FULL;
    if (rest > MOE_TILE_FULL / 2)
        return uvec3(rows, full + 1, 0);
    return uvec3(rows, full, (rest + MOE_TILE_SMALL - 1) / MOE_TILE_SMALL);
}

void write_tiles(uint list, uint first_tile, uint n, uint size, uint e, uint first, uint rows)
{
    for (uint i = 0; i < n; i++) {
        uint at = list + (first_tile + i) * MOE_TILE_WORDS;
        routing(at) = p.first_expert + e;
        routing(at + 1) = first + i * size;
        routing(at + 2) = min(size, rows - i * size);
    }
}

// Pieces [0, n_pieces) of one matmul over the tiles [first_tile, first_tile + n_tiles).
void write_args(uint entry, uint first_tile, uint n_tiles, uint n_pieces, uint row_blocks,
                uint piece_blocks)
{
    for (uint piece = 0; piece < n_pieces; piece++) {
        uint at = p.args + (entry + piece) * MOE_ARGS_WORDS;
        routing(at) = n_tiles;
        routing(at + 1) = min(piece_blocks, row_blocks - piece * piece_blocks);
        routing(at + 2) = 1;
        routing(at + 3) = first_tile;
    }
}

void write_chunk(uint chunk)
{
    uint first = chunk * p.chunk_experts, end = min(first + p.chunk_experts, p.n_experts);
    for (uint small = 0; small < 2; small++) {
        uint first_tile = starts[first][small], n_tiles = starts[end][small] - first_tile;
        uint entry = (chunk * 2 + small) * (p.in_pieces + p.out_pieces);
        write_args(entry, first_tile, n_tiles, p.in_pieces, p.in_row_blocks, p.in_piece_blocks);
        write_args(entry + p.in_pieces, first_tile, n_tiles, p.out_pieces, p.out_row_blocks,
                   p.out_piece_blocks);
    }
}

void main()
{
    uint lid = gl_LocalInvocationID.x;
    uint slots = token_count() * p.top_k;
    uint n_blocks = (slots + MOE_GROUP_BLOCK - 1) / MOE_GROUP_BLOCK;

    // Every invocation owns a run of neighbouring experts.
    uint run = (p.n_experts + MOE_LOCAL_SIZE - 1) / MOE_LOCAL_SIZE;
    uint begin = min(lid * run, p.n_experts), end = min(begin + run, p.n_experts);
    uvec3 sum = uvec3(0);
    for (uint e = begin; e < end; e++)
        sum += tiles_of(expert_rows(e, n_blocks));
    sums[lid] = sum;
    barrier();
    if (lid == 0) {
        uvec3 total = uvec3(0);
        for (uint i = 0; i < MOE_LOCAL_SIZE; i++) {
            uvec3 own = sums[i];
            sums[i] = total;
            total += own;
        }
        starts[p.n_experts] = total.yz;
        routing(p.counts + n_blocks * p.n_experts) = total.x;
    }
    barrier();

    uvec3 at = sums[lid];
    for (uint e = begin; e < end; e++) {
        uint position = at.x;
        starts[e] = at.yz;
        for (uint b = 0; b < n_blocks; b++) {
            uint i = p.counts + b * p.n_experts + e;
            uint count = routing(i);
            routing(i) = position;
            position += count;
        }
        uvec3 own = tiles_of(position - at.x);
        if (LISTS == 0) {
            at.x = position;
            continue;
        }
        uint in_full = min(own.x, own.y * MOE_TILE_FULL);
        write_tiles(p.full_tiles, at.y, own.y, MOE_TILE_FULL, e, at.x, own.x);
        write_tiles(p.small_tiles, at.z, own.z, MOE_TILE_SMALL, e, at.x + in_full, own.x - in_full);
        at += own;
    }
    barrier();
    uint n_chunks = LISTS != 0 ? (p.n_experts + p.chunk_experts - 1) / p.chunk_experts : 0;
    for (uint chunk = lid; chunk < n_chunks; chunk += MOE_LOCAL_SIZE)
        write_chunk(chunk);
    COUNT_END(true);
}
