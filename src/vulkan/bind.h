// SPDX-License-Identifier: MIT
// A program with its weights, buffers and descriptors: everything a recording needs.
#ifndef MOE_VULKAN_BIND_H
#define MOE_VULKAN_BIND_H

#include "vulkan/plan.h"

struct moe_vk_bound {
    struct moe_bound base;
    // Handle, offset and address of each buffer the dispatches name.
    struct {
        VkBuffer handle;
        uint64_t offset, size, address;
    } buffers[MOE_VK_N_BUFS];
    uint32_t x_stride, y_stride; // words
    VkDescriptorPool pool;
    VkDescriptorSet sets[MOE_VK_N_REGIMES][MOE_VK_MAX_DISPATCHES];

    struct moe_vk_buffer work;
    // For run: x, y and staging of our own. Unused when the caller gave buffers.
    struct moe_vk_buffer x, y, upload, readback;
    struct moe_vk_command command;
};

static inline struct moe_vk *moe_vk_of(const struct moe_bound *bound)
{
    return moe_vk(bound->program->device);
}

// bind.c
enum vkmoe_status moe_vk_bind_create(struct moe_program *program,
                                     struct moe_packed_weights *weights, const vkmoe_vk_io *vk_io,
                                     struct moe_bound **out);
void moe_vk_bind_destroy(struct moe_bound *bound);

// record.c
uint32_t moe_vk_dispatch_count(const struct moe_bound *bound, uint32_t n_tokens);
enum vkmoe_status moe_vk_record(struct moe_bound *bound, VkCommandBuffer cmd, uint32_t n_tokens,
                                uint32_t first, uint32_t n);

// run.c
enum vkmoe_status moe_vk_run(struct moe_bound *bound, uint32_t n_tokens, const vkmoe_io *io);

#endif
