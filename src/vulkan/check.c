// SPDX-License-Identifier: MIT
// A program against a device's limits, before any of it reaches the driver.
#include <inttypes.h>

#include "vulkan/plan.h"

static enum vkmoe_status check_groups(const struct moe_vk_caps *caps,
                                      const struct moe_vk_dispatch *d, uint32_t n_tokens)
{
    uint64_t x = d->indirect.size ? d->max_x : moe_vk_groups(d->x, n_tokens);
    uint64_t y = moe_vk_groups(d->y, n_tokens);
    if (x > caps->max_groups[0] || y > caps->max_groups[1])
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "%s: %u tokens make %" PRIu64 " x %" PRIu64
                        " workgroups; the device allows %u x %u",
                        d->label, n_tokens, x, y, caps->max_groups[0], caps->max_groups[1]);
    return VKMOE_OK;
}

static enum vkmoe_status check_ranges(const struct moe_vk_caps *caps, bool bda,
                                      const struct moe_vk_dispatch *d, uint32_t max_tokens)
{
    static const char *const names[] = {"weights", "input", "routing", "output"};
    for (int i = 0; i < 4; i++) {
        const struct moe_vk_range *range = &d->ranges[i];
        uint64_t limit = bda ? MOE_VK_MAX_WORDS_SIZE : caps->max_storage_range;
        if (bda && i == MOE_SLOT_WEIGHTS)
            continue; // reached by 64-bit addresses
        if (range->size > limit)
            return moe_fail(VKMOE_E_UNSUPPORTED,
                            "%s: %s of %" PRIu64 " bytes with max_tokens = %u; %s addressing "
                            "allows %" PRIu64, d->label, names[i], range->size, max_tokens,
                            bda ? "32-bit" : "descriptor", limit);
    }
    return VKMOE_OK;
}

enum vkmoe_status moe_vk_check(const struct moe_vk_caps *caps, bool bda,
                               const struct moe_vk_program *program, enum moe_vk_regime regime)
{
    enum vkmoe_status status = VKMOE_OK;
    uint32_t max_tokens = program->base.max_tokens;
    for (uint32_t i = 0; i < program->n_dispatches[regime]; i++) {
        const struct moe_vk_dispatch *d = &program->dispatches[regime][i];
        TRY(check_groups(caps, d, moe_vk_regime_tokens(regime, max_tokens)));
        TRY(check_ranges(caps, bda, d, max_tokens));
    }
    return VKMOE_OK;

fail:
    return status;
}
