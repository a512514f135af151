// SPDX-License-Identifier: MIT
// Runs of networks by the device's clock.
#include "vulkan/measure.h"
#include "vulkan/net.h"

// Those that have something to do.
static uint32_t count_dispatches(struct moe_vk_net *n, uint32_t programs,
                                 const struct moe_net_args *args)
{
    uint32_t count = 0;
    for (int p = 0; p < MOE_NET_N_PROGRAMS; p++) {
        if (!(programs & (1u << p)))
            continue;
        moe_vk_net_prepare(n, (enum moe_net_program) p, args);
        for (uint32_t i = 0; i < n->programs[p].n; i++)
            count += n->programs[p].dispatches[i].x > 0 && n->programs[p].dispatches[i].y > 0;
    }
    return count;
}

enum vkmoe_status moe_vk_net_time(struct moe_device_net *net, uint32_t programs,
                                  const struct moe_net_args *args, double *seconds,
                                  vkmoe_dispatch_time *times, uint32_t *n)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(net->device);
    struct moe_vk_net *on_device = (struct moe_vk_net *) net;
    struct moe_vk_net_timing timing = {.each = n, .times = times, .room = n ? *n : 0};
    if (n && !times) {
        *n = count_dispatches(on_device, programs, args);
        return VKMOE_OK;
    }
    TRY(moe_vk_timer_create(vk, &timing.timer));
    TRY(moe_vk_net_run_timed(on_device, programs, args, &timing));
    if (seconds)
        *seconds = timing.seconds;
    if (n)
        *n = timing.n;

fail:
    moe_vk_timer_destroy(vk, &timing.timer);
    return status;
}
