// SPDX-License-Identifier: MIT
// A program with its weights, buffers and descriptors: everything a recording needs.
#ifndef MOE_VULKAN_BIND_H
#define MOE_VULKAN_BIND_H

#include "vulkan/plan.h"

// Bytes of a buffer, as they are bound.
struct moe_vk_place {
    VkBuffer handle;
    uint64_t offset, size, address;
};

// How a bind runs one regime: blocks of tokens, and what of x and y is bound for each: all rows
// that the regime is for, or each block's own.
struct moe_vk_blocks {
    uint32_t block_tokens;
    bool whole;           // there is one window, all rows
    uint32_t n_windows;
    uint32_t window_step; // a window begins at a row that is a multiple of this
    VkDescriptorSet *sets; // (n_windows, n of the sequence); with descriptors
};

struct moe_vk_bound {
    struct moe_bound base;
    struct moe_vk_place buffers[MOE_VK_N_BUFS]; // not the weights
    uint32_t strides[MOE_VK_N_BUFS]; // words of a row: inputs and outputs with rows
    bool counted; // the token count is in the caller's buffer
    struct moe_vk_blocks blocks[MOE_VK_N_REGIMES];
    VkDescriptorPool pool;

    struct moe_vk_buffer work; // unused when the caller gave one
    // For run: inputs, y and staging of our own, for a block. Unused when the caller gave buffers.
    // In `upload` the inputs follow each other.
    struct moe_vk_buffer inputs[MOE_VK_N_INPUTS], y, upload, readback;
    struct moe_vk_buffer outputs[MOE_VK_N_BUFS]; // of operations, but y
    struct moe_vk_command command;
    double ns_per_work; // as measured by runs
    vkmoe_counters counters; // of the last run
};

// A block of tokens, to be recorded.
struct moe_vk_block_run {
    enum moe_vk_regime regime;
    uint32_t n_tokens;    // at most
    uint32_t block_first; // tokens before it; MOE_NONE: there are exactly n_tokens
    uint32_t first_token; // row of the window
    uint32_t window;
};

static inline struct moe_vk *moe_vk_of(const struct moe_bound *bound)
{
    return moe_vk(bound->program->device);
}

static inline const struct moe_vk_sequence *moe_vk_sequence_of(const struct moe_vk_bound *b,
                                                               enum moe_vk_regime regime)
{
    return &((const struct moe_vk_program *) b->base.program)->sequences[regime];
}

// The first dispatch that is recorded: the one that reads the count is left out without a count.
static inline uint32_t moe_vk_first_dispatch(const struct moe_vk_bound *b)
{
    return b->counted ? 0 : 1;
}

// bind.c
enum vkmoe_status moe_vk_bind_create(struct moe_program *program,
                                     struct moe_packed_weights *weights, const vkmoe_vk_io *vk_io,
                                     struct moe_bound **out);
void moe_vk_bind_destroy(struct moe_bound *bound);
uint64_t moe_vk_workspace_size(const struct moe_program *program);

// An input or output of a program outside its workspace. Small numbers of slots are one row a
// token.
struct moe_vk_array {
    const char *name; // of its buffer
    bool is_input, is_output; // neither: the program does not have it
    uint32_t n_elements;      // of a row
    uint32_t per_token;       // rows; 0: there is one row
    enum vkmoe_dtype type;    // i32 has the size of f32
};
struct moe_vk_array moe_vk_array(const struct moe_program *program, enum moe_vk_buffer_id id);
// All rows for n_tokens.
static inline uint64_t moe_vk_array_rows(const struct moe_vk_array *array, uint64_t n_tokens)
{
    return array->per_token > 0 ? n_tokens * array->per_token : 1;
}

// place.c: where a dispatch's range is, in a window of a regime.
struct moe_vk_place moe_vk_place(const struct moe_vk_bound *b, enum moe_vk_regime regime,
                                 uint32_t window, const struct moe_vk_range *range);
// The blocks for x and y of these strides; VKMOE_E_UNSUPPORTED if not even one row can be bound.
enum vkmoe_status moe_vk_choose_blocks(struct moe_vk_bound *b, enum moe_vk_regime regime);

// record.c
uint32_t moe_vk_dispatch_count(const struct moe_bound *bound, uint32_t n_tokens);
void moe_vk_dispatch_info(const struct moe_bound *bound, uint32_t n_tokens, uint32_t i,
                          vkmoe_vk_dispatch *out);
enum vkmoe_status moe_vk_record(struct moe_bound *bound, VkCommandBuffer cmd, uint32_t n_tokens,
                                uint32_t first, uint32_t n);
// Dispatches [first, first + n) of the sequence, for one block.
void moe_vk_record_block(const struct moe_vk_bound *b, VkCommandBuffer cmd,
                         const struct moe_vk_block_run *run, uint32_t first, uint32_t n);

// run.c
enum vkmoe_status moe_vk_run(struct moe_bound *bound, uint32_t n_tokens, const vkmoe_io *io);
void moe_vk_counters(const struct moe_bound *bound, vkmoe_counters *out);

#endif
