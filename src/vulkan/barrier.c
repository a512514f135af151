// SPDX-License-Identifier: MIT
// Barriers from the ranges that dispatches declare.
#include "vulkan/plan.h"

static bool overlap(const struct moe_vk_range *a, const struct moe_vk_range *b)
{
    return a->size && b->size && a->buffer == b->buffer && a->offset < b->offset + b->size &&
           b->offset < a->offset + a->size;
}

// Must `later` wait for `earlier`? Yes when they share bytes and one of them writes those.
static bool conflict(const struct moe_vk_dispatch *earlier, const struct moe_vk_dispatch *later)
{
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 4; j++)
            if (((earlier->access[i] | later->access[j]) & MOE_VK_WRITE) &&
                overlap(&earlier->ranges[i], &later->ranges[j]))
                return true;
        if ((earlier->access[i] & MOE_VK_WRITE) && overlap(&earlier->ranges[i], &later->indirect))
            return true;
        if ((later->access[i] & MOE_VK_WRITE) && overlap(&later->ranges[i], &earlier->indirect))
            return true;
    }
    return false;
}

void moe_vk_derive_barriers(struct moe_vk_dispatch *dispatches, uint32_t n)
{
    uint32_t since = 0; // first dispatch after the last barrier
    for (uint32_t i = 0; i < n; i++) {
        dispatches[i].barrier = false;
        for (uint32_t j = since; j < i && !dispatches[i].barrier; j++)
            dispatches[i].barrier = conflict(&dispatches[j], &dispatches[i]);
        if (dispatches[i].barrier)
            since = i;
    }
}
