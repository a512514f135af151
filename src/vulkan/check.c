// SPDX-License-Identifier: MIT
// A program against a device's limits, before any of it reaches the driver.
#include <inttypes.h>

#include "vulkan/plan.h"

static enum vkmoe_status check_groups(const struct moe_vk_caps *caps,
                                      const struct moe_vk_dispatch *d, uint32_t max_tokens)
{
    uint64_t x = d->indirect.size ? d->max_x : moe_vk_groups(d->x, max_tokens);
    uint64_t y = moe_vk_groups(d->y, max_tokens);
    if (x > caps->max_groups[0] || y > caps->max_groups[1])
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "%s: max_tokens = %u makes %" PRIu64 " x %" PRIu64
                        " workgroups; the device allows %u x %u",
                        d->label, max_tokens, x, y, caps->max_groups[0], caps->max_groups[1]);
    return VKMOE_OK;
}

static enum vkmoe_status check_ranges(const struct moe_vk_caps *caps, bool bda,
                                      const struct moe_vk_dispatch *d)
{
    static const char *const names[] = {"weights", "input", "routing", "output"};
    for (int i = 0; i < 4; i++) {
        const struct moe_vk_range *range = &d->ranges[i];
        uint64_t limit = bda ? UINT64_C(16) << 30 : caps->max_storage_range;
        if (i != MOE_SLOT_WEIGHTS && limit > UINT64_C(16) << 30)
            limit = UINT64_C(16) << 30; // 32-bit indices of words
        if (bda && i == MOE_SLOT_WEIGHTS)
            continue; // reached by 64-bit addresses
        if (range->size > limit)
            return moe_fail(VKMOE_E_UNSUPPORTED,
                            "%s: %s of %" PRIu64 " bytes; %s addressing allows %" PRIu64, d->label,
                            names[i], range->size, bda ? "32-bit" : "descriptor", limit);
    }
    return VKMOE_OK;
}

enum vkmoe_status moe_vk_check(const struct moe_vk_caps *caps, bool bda,
                               const struct moe_vk_dispatch *dispatches, uint32_t n,
                               uint32_t max_tokens)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t i = 0; i < n; i++) {
        TRY(check_groups(caps, &dispatches[i], max_tokens));
        TRY(check_ranges(caps, bda, &dispatches[i]));
    }
    return VKMOE_OK;

fail:
    return status;
}
