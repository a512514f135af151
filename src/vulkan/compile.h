// SPDX-License-Identifier: MIT
// What the files of the compiler share: the layer at hand, its workspace, and how a dispatch is
// added. compile.c has the ops, compile_route.c the router and the capacity, compile_experts.c the
// matmuls, compile_sum.c what comes after them, workspace.c the ranges.
#ifndef MOE_VULKAN_COMPILE_H
#define MOE_VULKAN_COMPILE_H

#include "vulkan/plan.h"

// Banks of experts, as enum moe_bank, and the latent matrices as a bank of one expert.
enum {
    MOE_VK_BANK_LATENT = MOE_N_BANKS,
    MOE_VK_N_BANKS,
    // What there may be as codes, see compile_quantise.c: h of each bank, and
    MOE_VK_CODES_X = MOE_VK_N_BANKS,
    MOE_VK_CODES_R,
    MOE_VK_N_CODES,
};

// The slots of a bank by expert: positions is in the order of slots, rows in that of experts, and
// offsets are an expert's first ones. args are those of the indirect dispatches over the tile lists
// full and small, which there are in the grouped regime. See group_*.comp.
struct moe_vk_grouping {
    struct moe_vk_range offsets, rows, positions, args, full, small;
};

// The workspace, in bytes: [choice: count table ids gates shared_gate] [scores] [groupings] [h]
// [f] [r] [codes]. What one kernel reads through one binding is adjacent; what it reads as
// `routing` begins with the workspace.
struct moe_vk_workspace {
    struct moe_vk_range count, table, ids, gates, shared_gate, scores;
    struct moe_vk_grouping groupings[MOE_VK_N_BANKS];
    // What a bank's first matmul makes (of the latent: its x) and its second one (of the latent:
    // the routed sum, also without a matmul where combining takes two steps).
    struct moe_vk_range h[MOE_VK_N_BANKS], f[MOE_VK_N_BANKS];
    struct moe_vk_range r; // the combined latent
    // What quantise.comp makes of h, of x and of r, where matmuls read that.
    struct moe_vk_range codes[MOE_VK_N_CODES];
    struct moe_vk_range positions; // of an operation that combines
    uint64_t size;
};

// Most rows of tiles, see tiles.h.
struct moe_vk_tiles {
    uint32_t small, full;
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
    struct moe_vk_tiles tiles;
    struct moe_vk_weights_map map;
    struct moe_vk_bank banks[MOE_VK_N_BANKS];
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
// The router's input, which may be x, and the token ids.
struct moe_vk_range moe_vk_router_range(const struct moe_vk_compiler *c);
struct moe_vk_range moe_vk_token_ids_range(const struct moe_vk_compiler *c);
// The passes of group_count.comp and group_scatter.comp, where `shared_by` experts in a row count
// as one; without lists of tiles, or with them. The last dispatch of them.
struct moe_vk_dispatch *moe_vk_add_grouping(struct moe_vk_compiler *c,
                                            const char *const labels[2], struct group_params p,
                                            struct moe_vk_range routing, uint32_t shared_by,
                                            bool lists);

// workspace.c
struct moe_vk_range moe_vk_take(uint64_t *end, uint64_t n_words); // the next one
void moe_vk_lay_out(struct moe_vk_compiler *c);
// The workspace from its begin to the end of `last`.
struct moe_vk_range moe_vk_routing_range(struct moe_vk_range last);
// From one range to another behind it; either may have size 0.
struct moe_vk_range moe_vk_join(struct moe_vk_range first, struct moe_vk_range last);
// Word where `inner` starts inside `outer`; MOE_NONE if there is no such range.
uint32_t moe_vk_word(struct moe_vk_range outer, struct moe_vk_range inner);
// Slots of a block of grouping where there are so many, or fewer.
uint64_t moe_vk_group_block(uint64_t slots);
// The most tiles that tiles.h cuts.
uint64_t moe_vk_most_tiles(struct moe_vk_tiles tiles, uint32_t n_experts, uint64_t slots,
                           bool small);
// Dispatches that matmuls over tile lists take: for each chunk and tile size, the pieces.
uint32_t moe_vk_listed_dispatches(const struct moe_vk_bank *bank);

// compile_route.c
void moe_vk_add_route(struct moe_vk_compiler *c);
void moe_vk_add_capacity(struct moe_vk_compiler *c);
// About half as many tokens for a block; 0: there is none, as slots compete over more.
uint32_t moe_vk_smaller_block(const vkmoe_layer_desc *desc, uint32_t tokens);
// The failure that says so. which: as moe_vk_fits says it.
enum vkmoe_status moe_vk_no_block(const struct moe_vk_compiler *c,
                                  const struct moe_vk_dispatch *which);

// compile_rows.c: the operations that have no experts.
void moe_vk_add_group_slots(struct moe_vk_compiler *c);
void moe_vk_add_gather(struct moe_vk_compiler *c);
void moe_vk_add_place(struct moe_vk_compiler *c);
void moe_vk_add_combine_rows(struct moe_vk_compiler *c);
// What routing has found, from the workspace to the caller's buffers.
void moe_vk_add_route_outputs(struct moe_vk_compiler *c);

// compile_experts.c
enum vkmoe_status moe_vk_cut_banks(struct moe_vk_compiler *c);
// Room for what matmuls read as codes.
void moe_vk_lay_out_codes(struct moe_vk_compiler *c, uint64_t *end);
bool moe_vk_has_bank(const struct moe_vk_compiler *c, uint32_t bank);
// Experts of a bank; those that are chosen by slots; the place of the first one in the table.
uint32_t moe_vk_bank_experts(const struct moe_vk_compiler *c, uint32_t bank);
bool moe_vk_is_slotted(uint32_t bank);
uint32_t moe_vk_bank_first(const struct moe_vk_compiler *c, uint32_t bank);
void moe_vk_add_matmul(struct moe_vk_compiler *c, uint32_t bank, bool is_out);
// Row blocks that a workgroup over small tiles has, of one of the matmuls.
uint32_t moe_vk_small_blocks(const struct moe_vk_compiler *c, uint32_t bank, bool is_out);
// What multiplying with a bank's output matrix costs for a token.
double moe_vk_out_work(const struct moe_vk_compiler *c, uint32_t bank);

// tiles.c: the tiles of the plan.
struct moe_vk_tiles moe_vk_tiles_of(const struct moe_vk_compiler *c);

// compile_quantise.c
// Words of a row of d_in values as codes.
uint32_t moe_vk_code_words(uint32_t d_in);
// From `input`, which has so many rows for each token, of f32 or, if `of_x`, those of x, to
// `codes`. Adds nothing if an earlier dispatch has done that.
void moe_vk_add_quantise(struct moe_vk_compiler *c, struct moe_vk_range input, bool of_x,
                         uint32_t rows, uint32_t d_in, struct moe_vk_range codes);

// compile_sum.c
// Decode: does one kernel do the down projections and the combination?
bool moe_vk_out_is_fused(const struct moe_vk_compiler *c);
// The routed sum is written before y is made of it: because the latent matrix comes between, or
// because one kernel cannot bind all that goes into both.
bool moe_vk_sums_twice(const struct moe_vk_compiler *c);
void moe_vk_add_combine(struct moe_vk_compiler *c);
void moe_vk_add_latent_out(struct moe_vk_compiler *c);
// The range of the routing results, which end the choice.
struct moe_vk_range moe_vk_choice_range(const struct moe_vk_compiler *c, bool with_scores);

#endif
