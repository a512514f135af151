// SPDX-License-Identifier: MIT
#include "vulkan/timer.h"

enum vkmoe_status moe_vk_timer_create(struct moe_vk *vk, struct moe_vk_timer *out)
{
    *out = (struct moe_vk_timer){.period = vk->caps.timestamp_period * 1e-9};
    if (!vk->queue)
        return moe_fail(VKMOE_E_UNSUPPORTED, "this context only records: to time needs a queue");
    uint32_t bits = moe_vk_timestamp_bits(vk);
    if (bits == 0 || !(out->period > 0))
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "the queue of %s has no timestamps: %u valid bits, a period of %g ns",
                        vk->base.info.name, bits, vk->caps.timestamp_period);
    out->mask = bits >= 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
    VkQueryPoolCreateInfo info = {.sType = VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO,
                                  .queryType = VK_QUERY_TYPE_TIMESTAMP,
                                  .queryCount = MOE_VK_STAMPS};
    VkResult result = vk->fn.vkCreateQueryPool(vk->device, &info, NULL, &out->pool);
    return result < 0 ? moe_vk_fail(vk, result, "vkCreateQueryPool") : VKMOE_OK;
}

void moe_vk_timer_destroy(struct moe_vk *vk, struct moe_vk_timer *timer)
{
    if (timer->pool)
        vk->fn.vkDestroyQueryPool(vk->device, timer->pool, NULL);
    *timer = (struct moe_vk_timer){0};
}

void moe_vk_timer_begin(const struct moe_vk *vk, struct moe_vk_timer *timer, VkCommandBuffer cmd)
{
    vk->fn.vkCmdResetQueryPool(cmd, timer->pool, 0, MOE_VK_STAMPS);
    timer->n = 0;
    moe_vk_timer_stamp(vk, timer, cmd);
}

void moe_vk_timer_stamp(const struct moe_vk *vk, struct moe_vk_timer *timer, VkCommandBuffer cmd)
{
    vk->fn.vkCmdWriteTimestamp(cmd, VK_PIPELINE_STAGE_BOTTOM_OF_PIPE_BIT, timer->pool, timer->n++);
}

enum vkmoe_status moe_vk_timer_read(struct moe_vk *vk, struct moe_vk_timer *timer)
{
    VkResult result = vk->fn.vkGetQueryPoolResults(vk->device, timer->pool, 0, timer->n,
                                                   timer->n * sizeof *timer->ticks, timer->ticks,
                                                   sizeof *timer->ticks, VK_QUERY_RESULT_64_BIT);
    // Of work that has ended no stamp is missing.
    return result == VK_SUCCESS ? VKMOE_OK : moe_vk_fail(vk, result, "vkGetQueryPoolResults");
}

double moe_vk_timer_seconds(const struct moe_vk_timer *timer, uint32_t i, uint32_t j)
{
    return (double) ((timer->ticks[j] - timer->ticks[i]) & timer->mask) * timer->period;
}
