// SPDX-License-Identifier: MIT
// What runs on host memory are made of: x in, slices of dispatches, results out.
#ifndef MOE_VULKAN_RUN_H
#define MOE_VULKAN_RUN_H

#include "vulkan/bind.h"

enum moe_vk_result_id {
    MOE_VK_RESULT_Y,
    MOE_VK_RESULT_IDS,
    MOE_VK_RESULT_GATES,
    MOE_VK_RESULT_SCORES,
    MOE_VK_RESULT_COUNTERS,
    MOE_VK_RESULT_ROWS,
    MOE_VK_RESULT_SLOTS,
    MOE_VK_RESULT_COUNTS,
    MOE_VK_RESULT_OFFSETS,
    MOE_VK_N_RESULTS,
};

// A result on its way to the host: bytes at `offset` of a device buffer, and where the host reads.
struct moe_vk_result {
    const struct moe_vk_buffer *device;
    uint64_t offset, size;
    const unsigned char *host;
};

// A block of a run: tokens [first, first + run.n_tokens) of the caller's arrays.
struct moe_vk_host_block {
    uint32_t first;
    struct moe_vk_block_run run;
    struct moe_vk_result results[MOE_VK_N_RESULTS];
    uint64_t staged_size; // bytes of the readback memory; 0: nothing passes through it
};

// Where each asked-for result is, and where it will be read from.
void moe_vk_plan_results(const struct moe_vk_bound *b, struct moe_vk_host_block *block,
                         const vkmoe_io *io);
// A block's inputs into memory that the device sees; then, where that is staging, on to the device.
enum vkmoe_status moe_vk_write_inputs(const struct moe_vk_bound *b,
                                      const struct moe_vk_host_block *block, const vkmoe_io *io);
void moe_vk_record_inputs(const struct moe_vk *vk, const struct moe_vk_bound *b,
                          const struct moe_vk_host_block *block);
// Results into memory that the host sees; then, when the device is done, to the caller.
void moe_vk_record_readback(const struct moe_vk *vk, const struct moe_vk_bound *b,
                            const struct moe_vk_host_block *block);
enum vkmoe_status moe_vk_read_results(const struct moe_vk_bound *b,
                                      const struct moe_vk_host_block *block, const vkmoe_io *io);

// How many dispatches from `first` on should take no longer than the budget, at least one; *work is
// theirs.
uint32_t moe_vk_next_slice(const struct moe_vk_bound *b, const struct moe_vk_host_block *block,
                           uint32_t first, double ns_per_work, double *work);

#endif
