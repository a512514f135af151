#version 450
// SPDX-License-Identifier: MIT
// Grouping, last pass, over blocks of p.block_slots slots: turns the blocks' counts into first
// positions and lists the slots by expert. The first workgroup also cuts each expert's rows into
// tiles, see tiles.h, and writes the arguments of the indirect dispatches.
//   counts (n_blocks, n_experts)  slots of e in a block
//   offsets (n_experts + 1)       out: position of an expert's first slot; slots of all experts
//   rows[i] = slot, positions[slot] = i, i counting up from an expert's first position; MOE_NONE
//                                 for a slot that is nobody's
//   full_tiles, small_tiles       MOE_TILE_WORDS words each: expert, first row, rows, 0
//   args                          MOE_ARGS_WORDS words each: x, y, z, first tile; for each chunk of
//                                 experts and tile size the pieces of the first matmul, then those
//                                 of the second
// LISTS = 0: no tiles. Dispatch: (ceil(slots / block_slots), 1, 1)
//
// Every workgroup adds up the counts of all blocks for itself: there are at most MOE_GROUP_BLOCKS,
// and a pass of its own for that would cost more.
#extension GL_GOOGLE_include_directive : require
#include "prelude.glsl"
#include "tiles.h"
layout(push_constant) uniform Push {
    head_params head;
    group_params p;
};
#define ROUTING_ACCESS
#include "buffers.glsl"
#include "counters.glsl"
#include "group.glsl"
layout(constant_id = 0) const uint LISTS = 1;
layout(constant_id = 2) const uint SMALL = MOE_TILE_SMALL; // rows of a small and of a full tile
layout(constant_id = 3) const uint FULL = MOE_TILE_FULL;
layout(constant_id = 4) const uint SMALL_IN_BLOCKS = 1; // row blocks of a workgroup of small tiles
layout(constant_id = 5) const uint SMALL_OUT_BLOCKS = 1;

shared uvec3 sums[MOE_LOCAL_SIZE]; // rows, full tiles, small tiles
// Full and small tiles before each expert; until those are known, x is the expert's rows.
shared uvec2 starts[MOE_GROUP_EXPERTS + 1];

// Rows of each expert, into starts, and those in blocks before this one, into next.
void add_blocks()
{
    uint block = gl_WorkGroupID.x;
    uint n_blocks = (token_count() * p.top_k + p.block_slots - 1) / p.block_slots;
    for (uint e = gl_LocalInvocationID.x; e < p.n_experts; e += MOE_LOCAL_SIZE) {
        uint before = 0, rows = 0;
        for (uint b = 0; b < n_blocks; b++) {
            uint n = routing(block_counts(b) + e);
            before += b < block ? n : 0;
            rows += n;
        }
        next[e] = before;
        starts[e].x = rows;
    }
    barrier();
}

uvec3 tiles_of(uint rows)
{
    return uvec3(rows, moe_full_tiles(rows, SMALL, FULL), moe_small_tiles(rows, SMALL));
}

// Turns the sums into those of the invocations before; returns all of them, on the first one.
uvec3 scan_sums()
{
    uvec3 total = uvec3(0);
    barrier();
    for (uint i = 0; i < MOE_LOCAL_SIZE && gl_LocalInvocationID.x == 0; i++) {
        uvec3 own = sums[i];
        sums[i] = total;
        total += own;
    }
    barrier();
    return total;
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

// Pieces [0, n_pieces) of one matmul over the tiles [first_tile, first_tile + n_tiles), whose
// workgroups have `group_blocks` row blocks each.
void write_args(uint entry, uint first_tile, uint n_tiles, uint n_pieces, uint row_blocks,
                uint piece_blocks, uint group_blocks)
{
    for (uint piece = 0; piece < n_pieces; piece++) {
        uint at = p.args + (entry + piece) * MOE_ARGS_WORDS;
        uint n_blocks = min(piece_blocks, row_blocks - piece * piece_blocks);
        routing(at) = n_tiles;
        routing(at + 1) = (n_blocks + group_blocks - 1) / group_blocks;
        routing(at + 2) = 1;
        routing(at + 3) = first_tile;
    }
}

// The positions of expert e begin at at.x, its tiles at at.yz of the lists.
void write_expert(uint e, uvec3 at, uvec3 own)
{
    routing(p.offsets + e) = at.x;
    if (LISTS == 0)
        return;
    write_tiles(p.full_tiles, at.y, own.y, FULL, e, at.x, own.x);
    write_tiles(p.small_tiles, at.z, own.z, SMALL, e, at.x, own.x);
}

void write_chunk(uint chunk)
{
    uint first = chunk * p.chunk_experts, end = min(first + p.chunk_experts, p.n_experts);
    for (uint small = 0; small < 2; small++) {
        uint first_tile = starts[first][small], n_tiles = starts[end][small] - first_tile;
        uint entry = (chunk * 2 + small) * (p.in_pieces + p.out_pieces);
        write_args(entry, first_tile, n_tiles, p.in_pieces, p.in_row_blocks, p.in_piece_blocks,
                   small != 0 ? SMALL_IN_BLOCKS : 1);
        write_args(entry + p.in_pieces, first_tile, n_tiles, p.out_pieces, p.out_row_blocks,
                   p.out_piece_blocks, small != 0 ? SMALL_OUT_BLOCKS : 1);
    }
}

// First positions of all experts; every invocation has a run of neighbouring ones.
void scan_experts(bool writes)
{
    uint lid = gl_LocalInvocationID.x;
    uint run = (p.n_experts + MOE_LOCAL_SIZE - 1) / MOE_LOCAL_SIZE;
    uint begin = min(lid * run, p.n_experts), end = min(begin + run, p.n_experts);
    uvec3 sum = uvec3(0);
    for (uint e = begin; e < end; e++)
        sum += tiles_of(starts[e].x);
    sums[lid] = sum;
    uvec3 total = scan_sums(), at = sums[lid];
    if (lid == 0) {
        starts[p.n_experts] = total.yz;
        if (writes)
            routing(p.offsets + p.n_experts) = total.x;
    }
    for (uint e = begin; e < end; e++) {
        uvec3 own = tiles_of(starts[e].x);
        next[e] += at.x;
        starts[e] = at.yz;
        if (writes)
            write_expert(e, at, own);
        at += own;
    }
    barrier();
}

void scatter_step(uint first, uint n)
{
    uint lid = gl_LocalInvocationID.x;
    for (uint e = lid; e < p.n_experts; e += MOE_LOCAL_SIZE) {
        uint at = next[e];
        for (uint i = 0; i < n; i++) {
            if (step_ids[i] != e)
                continue;
            routing(p.rows + at) = first + i;
            routing(p.positions + first + i) = at;
            at++;
        }
        next[e] = at;
    }
    for (uint i = lid; i < n; i += MOE_LOCAL_SIZE)
        if (step_ids[i] >= p.n_experts)
            routing(p.positions + first + i) = MOE_NONE;
}

void main()
{
    bool writes = gl_WorkGroupID.x == 0; // what is not of a block
    uint end = block_end();
    bool busy = writes || block_first() < end;
    if (!busy) { // the whole workgroup
        COUNT_END(false);
        return;
    }
    add_blocks();
    scan_experts(writes);
    for (uint first = block_first(); first < end; first += STEP) {
        uint n = min(STEP, end - first);
        load_step(first, n);
        scatter_step(first, n);
        barrier();
    }
    uint n_chunks = LISTS != 0 ? (p.n_experts + p.chunk_experts - 1) / p.chunk_experts : 0;
    for (uint chunk = gl_LocalInvocationID.x; chunk < n_chunks && writes; chunk += MOE_LOCAL_SIZE)
        write_chunk(chunk);
    COUNT_END(true);
}
