// SPDX-License-Identifier: MIT
// What the files of the compiler share: the layer at hand, its workspace, and how a dispatch is
// added. compile.c has the ops, compile_experts.c the two expert matmuls, workspace.c the ranges.
#ifndef MOE_VULKAN_COMPILE_H
#define MOE_VULKAN_COMPILE_H

#include "vulkan/plan.h"

// The workspace, in bytes: [choice: count table ids gates shared_gate] [scores] [grouping]
// [h h_shared] [f f_shared]. What one kernel reads through one binding is adjacent; what it reads
// as `routing` begins with the workspace.
struct moe_vk_workspace {
    struct moe_vk_range count, table, ids, gates, shared_gate, scores;
    struct moe_vk_range counts, rows, positions, args, full, small;
    struct moe_vk_range h, h_shared, f, f_shared; // h and f include what is shared
    uint64_t size;
};

// How a matrix of an expert is cut into dispatches: pieces of so many row blocks (MOE_TILE_ROWS
// packed rows), the last one shorter.
struct moe_vk_cut {
    uint32_t row_blocks, piece_blocks, pieces;
};

// A bank of experts: where their matrices are, how they are cut, how many chunks there are.
struct moe_vk_bank {
    struct moe_vk_block block;
    struct moe_vk_cut in, out;
    uint32_t n_chunks;
};

struct moe_vk_compiler {
    const struct moe_graph *graph;
    const vkmoe_layer_desc *desc;
    const struct moe_vk_limits *limits;
    const struct moe_vk_variant *variant;
    enum vkmoe_dtype x_type;
    bool counters;
    enum moe_vk_regime regime;
    uint32_t tokens; // of a block
    struct moe_vk_weights_map map;
    struct moe_vk_bank banks[2]; // by enum moe_bank
    struct moe_vk_workspace ws;
    struct moe_vk_sequence *sequence;
    uint32_t capacity; // of its dispatches
};

// Adds a dispatch of one workgroup, without ranges. `spv` is the kernel with descriptors.
struct moe_vk_dispatch *moe_vk_add(struct moe_vk_compiler *c, const char *label,
                                   enum moe_spv_id spv, const void *params, size_t params_size);
void moe_vk_use(struct moe_vk_dispatch *d, int slot, struct moe_vk_range range, uint8_t access);
// x and y: the rows of a block, if they follow each other.
struct moe_vk_range moe_vk_x_range(const struct moe_vk_compiler *c);
struct moe_vk_range moe_vk_y_range(const struct moe_vk_compiler *c);

// workspace.c
void moe_vk_lay_out(struct moe_vk_compiler *c);
// The workspace from its begin to the end of `last`.
struct moe_vk_range moe_vk_routing_range(struct moe_vk_range last);
// Word where `inner` starts inside `outer`; MOE_NONE if there is no such range.
uint32_t moe_vk_word(struct moe_vk_range outer, struct moe_vk_range inner);
// The most tiles that group_scan.comp cuts.
uint64_t moe_vk_most_tiles(const vkmoe_layer_desc *desc, uint64_t slots, bool small);
// Dispatches that matmuls over tile lists take: for each chunk and tile size, the pieces.
uint32_t moe_vk_listed_dispatches(const struct moe_vk_bank *bank);

// compile_experts.c
enum vkmoe_status moe_vk_cut_banks(struct moe_vk_compiler *c);
void moe_vk_add_expert_in(struct moe_vk_compiler *c, enum moe_bank bank);
void moe_vk_add_expert_out(struct moe_vk_compiler *c, enum moe_bank bank);
// Decode: does one kernel do the down projections and the combination?
bool moe_vk_out_is_fused(const struct moe_vk_compiler *c);
void moe_vk_add_fused_out(struct moe_vk_compiler *c);

#endif
