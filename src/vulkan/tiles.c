// SPDX-License-Identifier: MIT
// How many rows the full tiles of a plan have.
#include "base/bits.h"
#include "core/dtype.h"
#include "vulkan/compile.h"

// A full tile is twice as wide where the block's experts have half as many rows again as that: most
// tiles have more rows than a narrower one then, and weights go through shared memory less often.
uint32_t moe_vk_tokens_for(const vkmoe_layer_desc *layer, uint32_t full)
{
    const uint64_t slots = (uint64_t) full / 2 * 3 * layer->n_experts;
    return (uint32_t) moe_min(moe_div_up(slots, layer->top_k), UINT32_MAX);
}

// As expert_gemm.comp has it: a step's weights and rows, and two words a row. a1's has rows twice,
// and more than a0's where that computes a matmul of the same weights.
uint32_t moe_vk_tile_shared(const struct moe_vk_variant *variant, enum vkmoe_dtype weights,
                            uint32_t n_rows)
{
    const bool f16 = variant->id == MOE_VK_A1 && weights == VKMOE_F16;
    const uint32_t depth = (int) weights < MOE_N_FLOAT_DTYPES ? MOE_GEMM_DEPTH / 2 : MOE_GEMM_DEPTH;
    const uint32_t of_weight = f16 ? 2 : 4, of_input = f16 ? 2 + 4 : 4;
    return depth * (of_weight * MOE_TILE_ROWS + of_input * n_rows) + 8 * n_rows;
}

// For each matmul of a layer, which all have tiles of one width?
static bool has_room(const struct moe_vk_variant *variant, const vkmoe_layer_desc *layer,
                     const struct moe_vk_limits *limits, uint32_t n_rows)
{
    const bool shared = layer->d_shared_ff > 0;
    const enum vkmoe_dtype types[] = {
        layer->in_type,
        layer->out_type,
        shared ? layer->shared_in_type : layer->in_type,
        shared ? layer->shared_out_type : layer->in_type,
        layer->d_latent > 0 ? layer->latent_type : layer->in_type,
    };
    for (size_t i = 0; i < MOE_COUNT(types); i++)
        if (moe_vk_tile_shared(variant, types[i], n_rows) > limits->shared)
            return false;
    return true;
}

uint32_t moe_vk_full_rows(const struct moe_vk_variant *variant, const vkmoe_layer_desc *layer,
                          const struct moe_vk_limits *limits, uint32_t tokens)
{
    uint32_t full = MOE_TILE_FULL;
    while (2 * full <= variant->full_rows && tokens >= moe_vk_tokens_for(layer, 2 * full) &&
           has_room(variant, layer, limits, 2 * full))
        full *= 2;
    return full;
}

struct moe_vk_tiles moe_vk_tiles_of(const struct moe_vk_compiler *c)
{
    const struct moe_vk_variant *variant = c->variant ? c->variant : &moe_vk_variants[MOE_VK_A0];
    return (struct moe_vk_tiles){variant->small_rows,
                                 moe_vk_full_rows(variant, c->desc, c->limits, c->tokens)};
}
