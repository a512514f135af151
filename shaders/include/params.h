// SPDX-License-Identifier: MIT
// Push constants, read by C and by GLSL. Every kernel's block is head_params, then its own struct:
// 128 bytes at most. The runtime fills head_params when it records; the rest is fixed by compile.c.
//
// Offsets: weights count in uvec4 (16 bytes) from the start of an expert's block or of the weights
// buffer; everything else counts in 32-bit words from the start of the bound range.
#ifndef MOE_PARAMS_H
#define MOE_PARAMS_H

#ifdef VULKAN // GLSL
#define MOE_UINT uint
#define MOE_FLOAT float
#define MOE_ADDRESS uvec2
#else
#include <stdint.h>
#define MOE_UINT uint32_t
#define MOE_FLOAT float
#define MOE_ADDRESS uint64_t
#endif

#define MOE_SLOT_WEIGHTS 0 // bindings, and indices of head_params.address
#define MOE_SLOT_INPUT 1
#define MOE_SLOT_ROUTING 2
#define MOE_SLOT_OUTPUT 3

#define MOE_LOCAL_SIZE 128 // invocations of every kernel: the specified minimum of the limit
#define MOE_GROUP_EXPERTS 1024 // of group_*.comp: all that a layer may have
#define MOE_GROUP_BLOCK 256 // fewest slots that one workgroup of group_*.comp has
#define MOE_GROUP_BLOCKS 128 // most workgroups
#define MOE_TILE_FULL 32 // most rows of a full and of a small tile, see tiles.h
#define MOE_TILE_SMALL 16
#define MOE_TILE_WIDE 128 // most rows of a full tile where experts have many
#define MOE_GEMM_DEPTH 32 // most k of a step of expert_gemm.comp
#define MOE_MATVEC_BLOCKS 2 // row blocks of a workgroup of expert_gemv_tile.comp
#define MOE_TILE_LANES 8 // invocations that share a tile's rows
#define MOE_TILE_ROWS 64 // packed weight rows of a tile: a row block
#define MOE_TILE_WORDS 4 // words of a tile list entry: expert, first row, number of rows, unused
#define MOE_ARGS_WORDS 4 // words of an indirect dispatch: x, y, z, first tile of the list
#define MOE_PANEL_ROWS 16 // packed rows of a panel; gate and up panels alternate
#define MOE_ROUTE_VALUES 1040 // f32 of shared memory for one workgroup of route.comp
#define MOE_ROUTE_TOKENS 2 // tokens of a workgroup of route.comp when they fit
#define MOE_COPY_WORDS 1024 // words that a workgroup of copy.comp, of lists or of places has
#define MOE_GATHER_ROWS 16 // rows of a workgroup of gather.comp
#define MOE_COMBINE_TOKENS 8 // tokens of a workgroup of combine_rows.comp
#define MOE_INT8_VALUES 32 // of a row that quantise.comp gives one scale
#define MOE_INT8_WORDS 10 // of them: codes, the scale, the sums of the codes of both halves
#define MOE_QUANTISE_BLOCKS 16 // of a row, that a workgroup of quantise.comp has
#define MOE_QUANTISE_ROWS 8 // that it has such blocks of, or a multiple
#define MOE_PROBE_CHUNK 2048 // uvec4 that a workgroup of probe_read.comp reads
#define MOE_PROBE_STEPS 8 // of probe_math.comp in a round

// Where the routing range of every kernel begins: the number of tokens, if the host does not know
// it, then with descriptors the table of experts: where in the weights each begins, in uvec4.
#define MOE_COUNT_WORD 0
#define MOE_COUNTER_WORD 8 // of a plan with `counters`: two words each, the low one first
#define MOE_TABLE_WORD 64

// The specialisation constant that makes a kernel count, in the same place in all of them, and its
// counters: see counters.glsl.
#define MOE_SPEC_COUNT 7
#define MOE_COUNT_WEIGHTS 0
#define MOE_COUNT_ROUTER 1
#define MOE_COUNT_LIVE 2
#define MOE_COUNT_PADDED 3
#define MOE_COUNT_BUSY 4
#define MOE_COUNT_IDLE 5
#define MOE_N_COUNTERS 6

// Specialisation constants of kernels by matrices beside those of the same without: a matrix of the
// device, or its units, and the subgroups of a workgroup.
#define MOE_SPEC_M 14
#define MOE_SPEC_N 15
#define MOE_SPEC_K 16
#define MOE_SPEC_SUBGROUPS 17
#define MOE_SPEC_PACKED_IS_N 18
#define MOE_SPEC_SCOPE 19 // of a matrix, as SPIR-V numbers it; where it may be of any size
#define MOE_COOP_DEPTH 32 // values of k of a step: K divides it
#define MOE_COOP_SHARED 17808 // bytes of shared memory
#define MOE_FLEX_SHARED 9360
#define MOE_COOP_INT8_SHARED 24576

#define MOE_NONE 0xffffffffu

struct head_params {
    MOE_ADDRESS address[4]; // of the bound ranges; unused with descriptors
    MOE_UINT n_tokens; // of this block of tokens, at most
    MOE_UINT block_first; // tokens before this block; MOE_NONE: there are exactly n_tokens
    MOE_UINT first_token; // row of x and y where this block begins
    MOE_UINT x_stride, y_stride; // words
};

// Specialisation constants of route.comp and capacity_drop.comp beside 0, the type of the router's
// input. Enums are numbered as in vkmoe/layer.h, floats are named as there.
#define MOE_SPEC_SCORE 1
#define MOE_SPEC_RANK 2
#define MOE_SPEC_SELECT 3
#define MOE_SPEC_GATE_SOURCE 4
#define MOE_SPEC_NORM 5
#define MOE_SPEC_FLAGS 6 // MOE_ROUTE_*
#define MOE_SPEC_NORM_P 8
#define MOE_SPEC_NORM_EPS 9
#define MOE_SPEC_ROUTED_SCALE 10
#define MOE_SPEC_SOFTCAP 11
#define MOE_SPEC_PRENORM_CONST 12
#define MOE_SPEC_PRENORM_EPS 13
#define MOE_SPEC_SELECT_P 14 // sparsemixer: twice its eps
#define MOE_SPEC_TABLE 15 // entries of the table that the first workgroup copies
#define MOE_SPEC_N_GROUP 16
#define MOE_SPEC_TOPK_GROUP 17
#define MOE_SPEC_GROUP_COUNTED 18 // experts of a group that make its score
#define MOE_SPEC_GATE_ROWS 19 // router rows of the shared expert's gate: 0, 1 or 2

#define MOE_ROUTE_PRENORM 1u // the input is normed
#define MOE_ROUTE_SCORES 2u // write what selection ranked by
#define MOE_ROUTE_EXPERT_SCALE 4u
#define MOE_ROUTE_FILL_ZERO 8u // experts outside the best groups rank as 0, else as -infinity
#define MOE_ROUTE_KEPT 16u // gates are normalised when slots beyond the capacity are dropped

struct route_params {
    MOE_UINT n_scored, top_k, d_model; // experts and identity experts
    MOE_UINT quads, parts, part_size; // quads of router rows; parts of d_model and their size
    MOE_UINT tokens, span; // of a workgroup; lanes of a token, a power of two
    // In the weights: the router, then vectors of `quads` each (see plan.h), the scale of the norm,
    // a table of experts by token id whose rows are whole uvec4.
    MOE_UINT weight, vectors, prenorm, table;
    MOE_UINT n_token_ids;
    MOE_UINT ids, gates, shared_gate, scores; // in the routing range
};

// Vectors of route_params.vectors.
#define MOE_VECTOR_BIAS 0
#define MOE_VECTOR_SELECTION 1
#define MOE_VECTOR_EXPERT_SCALE 2
#define MOE_N_VECTORS 3

struct capacity_params {
    MOE_UINT n_experts, top_k;
    MOE_UINT ids, gates, offsets, rows, positions; // in the routing range
    MOE_UINT capacity, capacity_rows; // as in vkmoe/layer.h
    MOE_FLOAT capacity_factor;
    MOE_UINT expert_scale; // in the weights
};

struct group_params {
    MOE_UINT n_experts, top_k;
    MOE_UINT block_slots;
    MOE_UINT ids, offsets, rows, positions; // in the routing range
    MOE_UINT full_tiles, small_tiles, args;
    MOE_UINT chunk_experts; // experts of a chunk
    MOE_UINT first_expert; // what the tiles call the first one: its place in the table
    MOE_UINT in_pieces, in_row_blocks, in_piece_blocks; // of the first expert matmul
    MOE_UINT out_pieces, out_row_blocks, out_piece_blocks; // of the second one
};

struct gemm_params {
    MOE_UINT d_in, n_out, packed_rows; // packed_rows: both halves when gated
    MOE_UINT weight, weight_stride; // in the expert's block
    MOE_UINT window; // uvec4 of the weights before the bound ones; 0 by address
    MOE_UINT first_row_block;
    MOE_UINT expert; // when tiles are not listed
    MOE_UINT rows, tiles, args; // in the routing range
    MOE_UINT input_stride, output_stride; // words; input 0: x, of stride head.x_stride
    MOE_UINT top_k;
    MOE_UINT gates; // in the routing range; with WEIGHTED
    MOE_UINT act;
    MOE_FLOAT act_alpha;
};

struct quantise_params {
    MOE_UINT n_blocks; // of a row
    MOE_UINT input_stride; // words; 0: x, of stride head.x_stride
    MOE_UINT rows; // of the input for each token
    MOE_UINT group_rows; // that a workgroup has
};

struct gemv_params {
    MOE_UINT d_in, n_out;
    MOE_UINT weight, weight_stride, window;
    MOE_UINT first_panel; // of 16 outputs
    MOE_UINT expert; // MOE_NONE: from the routing range
    MOE_UINT first_expert, n_experts; // slots of other experts are left to other dispatches
    MOE_UINT ids, gates; // in the routing range
    MOE_UINT input_stride; // words; 0: x, of stride head.x_stride
    MOE_UINT slots; // a token; 1 for one fixed expert
    MOE_UINT rows_per_input; // slots that share a row of the input
    MOE_UINT act;
    MOE_FLOAT act_alpha;
};

// Bits of the constant SUM of expert_gemv_out.comp and combine.comp.
#define MOE_SUM_SKIPS 1u // slots may be unused: their id is MOE_NONE
#define MOE_SUM_IDENTITY 2u // an id of n_experts or more is the expert that returns its input
#define MOE_SUM_WEIGHTED 4u // gate weights are in the experts' outputs already
#define MOE_SUM_ADJUGATES 8u
#define MOE_SUM_BIAS 16u // out_bias is added
#define MOE_SUM_SOFTMAX2 32u // shared_gate has two values a token: routed, shared
#define MOE_SUM_ROWS 64u // no slots: a row of the input for each token is the routed sum

struct gemv_out_params {
    MOE_UINT n_out, top_k;
    MOE_UINT d_ff, weight, weight_stride;
    // The shared expert, index MOE_NONE if there is none; its input follows the routed one.
    MOE_UINT shared_expert, shared_d_ff, shared_weight, shared_weight_stride;
    MOE_UINT shared_input;
    MOE_UINT ids, gates, shared_gate; // in the routing range; shared_gate MOE_NONE: the factor is 1
    MOE_UINT act;
    MOE_FLOAT act_alpha, routed_scale, shared_scale;
    MOE_UINT out_bias; // uvec4 of the weights
};

struct combine_params {
    MOE_UINT d_out, top_k;
    MOE_UINT gates, positions, shared_gate; // in the routing range; shared_gate MOE_NONE: factor 1,
                                            // positions MOE_NONE: rows are in slot order
    MOE_UINT shared_input; // in the input range; MOE_NONE: no shared expert
    MOE_FLOAT routed_scale, shared_scale;
    MOE_UINT output_stride; // words; 0: y, of stride head.y_stride
    MOE_UINT ids, n_experts; // with skipped and identity slots
    MOE_UINT identity_stride; // words; 0: x, of stride head.x_stride
    MOE_UINT adjugate_positions, adjugate_input; // as positions and shared_input
    MOE_FLOAT adjugate_scale;
    MOE_UINT out_bias; // in the extra range
};

struct copy_params {
    MOE_UINT n; // words of a token
    MOE_UINT input_words, output_words; // n on the caller's side, 0 on the other one
};

// The constant LIST of gather_lists.comp.
#define MOE_LIST_SLOTS 0
#define MOE_LIST_COUNTS 1
#define MOE_LIST_OFFSETS 2

struct gather_params {
    MOE_UINT n_experts, top_k, words; // words of a row
    MOE_UINT offsets, rows; // in the routing range
    MOE_UINT output_stride; // words; filled in when it is recorded
};

struct place_params {
    MOE_UINT top_k, positions; // in the routing range
};

struct combine_rows_params {
    MOE_UINT d_out, top_k;
    MOE_UINT ids, gates, positions; // in the routing range; without IDENTITY ids are those of gates
    MOE_UINT n_experts, n_scored;
    MOE_UINT rows_stride; // words; filled in when it is recorded
    MOE_FLOAT routed_scale;
};

struct norm_params {
    MOE_UINT width;
    MOE_FLOAT eps;
    MOE_UINT scale; // in the extra range
};

struct probe_params {
    MOE_UINT n; // rounds
    MOE_UINT never; // what no result is
    MOE_FLOAT a, b;
};

#endif
