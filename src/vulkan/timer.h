// SPDX-License-Identifier: MIT
// Timestamps of one submission at a time, by the device's own clock.
#ifndef MOE_VULKAN_TIMER_H
#define MOE_VULKAN_TIMER_H

#include "vulkan/vk.h"

enum { MOE_VK_STAMPS = 256 }; // of a submission, the first one included

struct moe_vk_timer {
    VkQueryPool pool;
    uint32_t n;    // stamps of the submission at hand
    uint64_t mask; // bits of a stamp that count
    double period; // seconds of a tick
    uint64_t ticks[MOE_VK_STAMPS];
};

// VKMOE_E_UNSUPPORTED: there is no queue, or it has no timestamps.
enum vkmoe_status moe_vk_timer_create(struct moe_vk *vk, struct moe_vk_timer *out);
void moe_vk_timer_destroy(struct moe_vk *vk, struct moe_vk_timer *timer);

// Records the first stamp, and later ones: each is taken when all that was recorded before has
// ended.
void moe_vk_timer_begin(const struct moe_vk *vk, struct moe_vk_timer *timer, VkCommandBuffer cmd);
void moe_vk_timer_stamp(const struct moe_vk *vk, struct moe_vk_timer *timer, VkCommandBuffer cmd);

static inline bool moe_vk_timer_full(const struct moe_vk_timer *timer)
{
    return timer->n == MOE_VK_STAMPS;
}

// Reads the stamps of a submission that has ended.
enum vkmoe_status moe_vk_timer_read(struct moe_vk *vk, struct moe_vk_timer *timer);
// From stamp i to stamp j > i.
double moe_vk_timer_seconds(const struct moe_vk_timer *timer, uint32_t i, uint32_t j);

#endif
