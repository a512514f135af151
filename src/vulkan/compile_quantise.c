// SPDX-License-Identifier: MIT
// Rows of values to codes of 8 bits, for variants whose matmuls read those.
#include "base/bits.h"
#include "vulkan/compile.h"

uint32_t moe_vk_code_words(uint32_t d_in)
{
    return d_in / MOE_INT8_VALUES * MOE_INT8_WORDS; // weights of blocks have whole ones
}

// Of a workgroup: more of them where the device has too few workgroups for a block of tokens, so
// that this never cuts tokens which the matmuls would take at once.
static uint32_t group_rows(const struct moe_vk_compiler *c, uint32_t rows)
{
    const uint64_t at_once = c->limits->groups[0] * MOE_QUANTISE_ROWS;
    return (uint32_t) (MOE_QUANTISE_ROWS * moe_div_up((uint64_t) c->tokens * rows, at_once));
}

// Matmuls share what they read.
static bool is_quantised(const struct moe_vk_compiler *c, struct moe_vk_range codes)
{
    for (uint32_t i = 0; i < c->sequence->n; i++) {
        const struct moe_vk_dispatch *d = &c->sequence->dispatches[i];
        if (d->spv == MOE_SPV_QUANTISE_BDA && d->ranges[MOE_SLOT_OUTPUT].offset == codes.offset)
            return true;
    }
    return false;
}

void moe_vk_add_quantise(struct moe_vk_compiler *c, struct moe_vk_range input, bool of_x,
                         uint32_t rows, uint32_t d_in, struct moe_vk_range codes)
{
    if (is_quantised(c, codes))
        return;
    struct quantise_params p = {
        .n_blocks = d_in / MOE_INT8_VALUES,
        .input_stride = of_x ? 0 : d_in,
        .rows = rows,
        .group_rows = group_rows(c, rows),
    };
    struct moe_vk_dispatch *d =
        moe_vk_add(c, of_x ? "quantise x" : "quantise", MOE_SPV_QUANTISE_BDA, &p, sizeof p);
    d->spv = MOE_SPV_QUANTISE_BDA; // by address only
    d->spec[0] = of_x ? c->x_type : VKMOE_F32;
    moe_vk_use(d, MOE_SLOT_INPUT, input, MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_ROUTING, moe_vk_routing_range(c->ws.count), MOE_VK_READ);
    moe_vk_use(d, MOE_SLOT_OUTPUT, codes, MOE_VK_WRITE);
    d->x = (struct moe_vk_count){.per_token = rows, .divisor = p.group_rows};
    d->y.fixed = (uint32_t) moe_div_up(p.n_blocks, MOE_QUANTISE_BLOCKS);
    d->work_per_token = (double) rows * d_in;
}
