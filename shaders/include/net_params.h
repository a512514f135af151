// SPDX-License-Identifier: MIT
// Push constants of the kernels of networks (net_*.comp), read by C and by GLSL: net_head, then the
// kernel's own struct, 128 bytes at most. net_compile.c fills in all but the arena's address.
#ifndef MOE_NET_PARAMS_H
#define MOE_NET_PARAMS_H

#include "params.h"

// Tensors begin at multiples of so many 32-bit words of the arena, and are told by that multiple.
#define MOE_NET_UNIT 64

// Of the result of one step of net_matmul.comp and net_matmul_dw.comp; products by matrices are
// written once for tiles of layers and of networks.
#define MOE_NET_TILE_ROWS MOE_TILE_FULL
#define MOE_NET_TILE_COLUMNS MOE_TILE_ROWS
#define MOE_NET_COOP_SHARED 18208 // bytes of shared memory of those by cooperative matrices
#define MOE_NET_FLEX_SHARED 9504 // by those of any size
#define MOE_NET_COLUMNS 16 // that one workgroup of net_columns.comp adds up
#define MOE_NET_CHUNK 4096 // elements that one workgroup of net_total.comp adds up
#define MOE_NET_SORT_ROWS MOE_LOCAL_SIZE // rows of a block of net_group.comp
#define MOE_NET_SORT_BITS 10 // of a group number that one pass sorts by, at most
#define MOE_NET_SHARED_EXPERTS 1024 // of net_select.comp, and slots of a token of net_loss.comp

struct net_head {
    MOE_ADDRESS arena; // unused with descriptors
    MOE_UINT in_at[6], out_at[3]; // where operands and results begin; 0 for those there are not
    MOE_UINT has; // bits: 1 << i for operand i, 64 << i for result i
    MOE_UINT add; // bits 1 << i: result i is added to
    MOE_UINT rows;
};

struct net_matmul_params { // of net_matmul_dw.comp too, where rows of a group are summed over
    MOE_UINT width, depth; // of a group's matrix, as it is multiplied: (depth, width)
    MOE_UINT n_groups;
    MOE_UINT div0, div1; // rows for each row of operand 0 and 1
    MOE_UINT first_tile, end_tile; // of columns; of net_matmul_dw.comp: of rows of all groups,
    MOE_UINT tile_step;            // of which every so many is taken
};

struct net_columns_params {
    MOE_UINT width, n_groups, div;
    MOE_FLOAT alpha;
};

struct net_total_params {
    MOE_UINT n, chunk; // elements; of a workgroup
    MOE_FLOAT alpha;
};

struct net_group_params {
    MOE_UINT n_groups, n_blocks;
    MOE_UINT shift, bits; // which bits of the group number this pass sorts by
};

struct net_select_params {
    MOE_UINT n_experts, top_k;
    MOE_UINT lanes; // of a token, a power of two
    MOE_UINT constant_gates; // then no gradient flows
    MOE_FLOAT norm_eps, routed_scale;
};

struct net_elements_params {
    MOE_UINT n, width; // elements of the result; of its rows. Of ROUND its words; its elements
    MOE_UINT div0, div1, div2;
    MOE_UINT top_k, kind; // kind: op.n; of ROUND the type
    MOE_UINT key0, key1, stream, pass; // of random numbers
    MOE_FLOAT alpha, beta;
};

struct net_rows_params { // of net_loss.comp too
    MOE_UINT width, lanes; // lanes of a row, a power of two
    MOE_UINT div0, div1, top_k;
    MOE_FLOAT alpha, beta, eps;
    MOE_FLOAT scale; // of losses
};

struct net_step_params {
    MOE_UINT n;
    MOE_UINT flags; // MOE_NET_STEP_*
    MOE_FLOAT rate, decay;
    MOE_FLOAT beta1, beta2, eps; // beta1 of SGD: momentum
    MOE_FLOAT correction1, correction2; // 1 - beta^step
};
#define MOE_NET_STEP_FIRST 1u
#define MOE_NET_STEP_NESTEROV 2u

// Specialisation constant 0 of the kernels that compute several ops.
#define MOE_NET_SORT_COUNT 0 // net_group.comp
#define MOE_NET_SORT_SCAN 1
#define MOE_NET_SORT_MOVE 2
#define MOE_NET_SORT_STARTS 3

#define MOE_NET_COLUMNS_SUM 0 // net_columns.comp
#define MOE_NET_COLUMNS_NORM 1

#define MOE_NET_TOTAL_SUM 0 // net_total.comp
#define MOE_NET_TOTAL_SQUARES 1
#define MOE_NET_TOTAL_BALANCE 2

#define MOE_NET_EL_IOTA 0 // net_elements.comp
#define MOE_NET_EL_FILL 1
#define MOE_NET_EL_NOISE 2
#define MOE_NET_EL_NOISE_BACKWARD 3
#define MOE_NET_EL_DROPOUT 4
#define MOE_NET_EL_ACT 5
#define MOE_NET_EL_ACT_BACKWARD 6
#define MOE_NET_EL_GLU 7
#define MOE_NET_EL_GLU_BACKWARD 8
#define MOE_NET_EL_SCALE_ROWS 9
#define MOE_NET_EL_SUM_SLOTS 10
#define MOE_NET_EL_POOL 11
#define MOE_NET_EL_POOL_BACKWARD 12
#define MOE_NET_EL_BALANCE 13
#define MOE_NET_EL_CLIP 14
#define MOE_NET_EL_COUNT 15
#define MOE_NET_EL_BALANCE_BIAS 16
#define MOE_NET_EL_ROUND 17

#define MOE_NET_ROW_DOT_OP 0 // net_rows.comp
#define MOE_NET_ROW_SOFTMAX 1
#define MOE_NET_ROW_SOFTMAX_BACKWARD 2
#define MOE_NET_ROW_SHARE 3
#define MOE_NET_ROW_SHARE_BACKWARD 4
#define MOE_NET_ROW_NORM 5
#define MOE_NET_ROW_NORM_BACKWARD 6

#define MOE_NET_LOSS_CROSS_ENTROPY 0 // net_loss.comp
#define MOE_NET_LOSS_POINT 1
#define MOE_NET_LOSS_MIXTURE 2
#define MOE_NET_LOSS_Z 3

#endif
