// SPDX-License-Identifier: MIT
// How many rows the full tiles of a plan have.
#include "base/bits.h"
#include "vulkan/compile.h"

// A full tile is twice as wide where the block's experts have half as many rows again as that: most
// tiles have more rows than a narrower one then, and weights go through shared memory less often.
uint32_t moe_vk_tokens_for(const vkmoe_layer_desc *layer, uint32_t full)
{
    const uint64_t slots = (uint64_t) full / 2 * 3 * layer->n_experts;
    return (uint32_t) moe_min(moe_div_up(slots, layer->top_k), UINT32_MAX);
}

// The most shared memory of expert_gemm.comp, that of codes: a step's weights and rows, and two
// words a row. Others take half as much, but one layer's matrices have tiles of one width.
static uint32_t tile_shared(uint32_t n_rows)
{
    return 4 * (MOE_GEMM_DEPTH * (MOE_TILE_ROWS + n_rows) + 2 * n_rows);
}

uint32_t moe_vk_full_rows(const struct moe_vk_variant *variant, const vkmoe_layer_desc *layer,
                          const struct moe_vk_limits *limits, uint32_t tokens)
{
    uint32_t full = MOE_TILE_FULL;
    while (2 * full <= variant->full_rows && tokens >= moe_vk_tokens_for(layer, 2 * full) &&
           tile_shared(2 * full) <= limits->shared)
        full *= 2;
    return full;
}

struct moe_vk_tiles moe_vk_tiles_of(const struct moe_vk_compiler *c)
{
    const struct moe_vk_variant *variant = c->variant ? c->variant : &moe_vk_variants[MOE_VK_A0];
    return (struct moe_vk_tiles){variant->small_rows,
                                 moe_vk_full_rows(variant, c->desc, c->limits, c->tokens)};
}
