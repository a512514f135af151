// SPDX-License-Identifier: MIT
// A sequence against a device's limits, before any of it reaches the driver.
#include <inttypes.h>

#include "base/bits.h"
#include "vulkan/plan.h"

static uint64_t groups_x(const struct moe_vk_dispatch *d, uint32_t n_tokens)
{
    return d->indirect.size ? d->max_x : moe_vk_groups(d->x, n_tokens);
}

static bool is_limited(const struct moe_vk_limits *limits, int slot)
{
    return !limits->bda || slot != MOE_SLOT_WEIGHTS; // those are reached by 64-bit addresses
}

static bool dispatch_fits(const struct moe_vk_limits *limits, const struct moe_vk_dispatch *d,
                          uint32_t n_tokens)
{
    for (int slot = 0; slot < 4; slot++)
        if (is_limited(limits, slot) &&
            d->ranges[slot].size > moe_min(limits->range, limits->allocation))
            return false;
    return groups_x(d, n_tokens) <= limits->groups[0] &&
           moe_vk_groups(d->y, n_tokens) <= limits->groups[1];
}

bool moe_vk_fits(const struct moe_vk_limits *limits, const struct moe_vk_sequence *sequence,
                 const struct moe_vk_dispatch **which)
{
    *which = NULL;
    if (sequence->work_size > limits->allocation)
        return false;
    for (uint32_t i = 0; i < sequence->n; i++) {
        *which = &sequence->dispatches[i];
        if (!dispatch_fits(limits, *which, sequence->block_tokens))
            return false;
    }
    return true;
}

enum vkmoe_status moe_vk_too_large(const struct moe_vk_limits *limits,
                                   const struct moe_vk_sequence *sequence,
                                   const struct moe_vk_dispatch *which)
{
    static const char *const names[] = {"weights", "input", "routing", "output"};
    uint32_t n_tokens = sequence->block_tokens;
    if (!which)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "a workspace of %" PRIu64 " bytes for a block of %u tokens; the device "
                        "allows %" PRIu64 " in one allocation",
                        sequence->work_size, n_tokens, limits->allocation);
    for (int slot = 0; slot < 4; slot++) {
        uint64_t size = which->ranges[slot].size;
        if (is_limited(limits, slot) && size > moe_min(limits->range, limits->allocation))
            return moe_fail(VKMOE_E_UNSUPPORTED,
                            "%s: %s of %" PRIu64 " bytes for a block of %u tokens; %s addressing "
                            "allows %" PRIu64 ", an allocation %" PRIu64,
                            which->label, names[slot], size, n_tokens,
                            limits->bda ? "32-bit" : "descriptor", limits->range,
                            limits->allocation);
    }
    return moe_fail(VKMOE_E_UNSUPPORTED,
                    "%s: a block of %u tokens makes %" PRIu64 " x %" PRIu64
                    " workgroups; the device allows %" PRIu64 " x %" PRIu64,
                    which->label, n_tokens, groups_x(which, n_tokens),
                    moe_vk_groups(which->y, n_tokens), limits->groups[0], limits->groups[1]);
}
