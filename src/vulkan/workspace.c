// SPDX-License-Identifier: MIT
// Where things are in the workspace of a block of tokens.
#include "base/bits.h"
#include "vulkan/compile.h"

static struct moe_vk_range take(uint64_t *end, uint64_t n_words)
{
    struct moe_vk_range range = {MOE_VK_BUF_WORK, *end, moe_align_up(n_words * 4, 256)};
    *end += range.size;
    return range;
}

static struct moe_vk_range join(struct moe_vk_range first, struct moe_vk_range last)
{
    if (last.size)
        first.size = last.offset + last.size - first.offset;
    return first;
}

struct moe_vk_range moe_vk_routing_range(struct moe_vk_range last)
{
    return (struct moe_vk_range){MOE_VK_BUF_WORK, 0, last.offset + last.size};
}

uint32_t moe_vk_word(struct moe_vk_range outer, struct moe_vk_range inner)
{
    return inner.size ? (uint32_t) ((inner.offset - outer.offset) / 4) : MOE_NONE;
}

// An expert's rest makes one more full tile, if it has more than half of its rows, or as many small
// ones as cover half of it. Tiles are never empty.
uint64_t moe_vk_most_tiles(const vkmoe_layer_desc *desc, uint64_t slots, bool small)
{
    enum { HALF = MOE_TILE_FULL / 2 };
    return small ? moe_min(desc->n_experts * (uint64_t) (HALF / MOE_TILE_SMALL), slots)
                 : moe_min(slots / MOE_TILE_FULL + desc->n_experts, slots / (HALF + 1));
}

uint32_t moe_vk_listed_dispatches(const struct moe_vk_bank *bank)
{
    return bank->n_chunks * 2 * (bank->in.pieces + bank->out.pieces);
}

void moe_vk_lay_out(struct moe_vk_compiler *c)
{
    const vkmoe_layer_desc *desc = c->desc;
    struct moe_vk_workspace *ws = &c->ws;
    uint64_t slots = (uint64_t) c->tokens * desc->top_k, end = 0;
    bool shared = moe_layer_has_shared(&c->graph->layer);
    *ws = (struct moe_vk_workspace){0};
    ws->count = take(&end, 1);
    ws->table = take(&end, c->limits->bda ? 0 : desc->n_experts + 1);
    ws->ids = take(&end, slots);
    ws->gates = take(&end, slots);
    if (moe_graph_uses(c->graph, MOE_VALUE_SHARED_GATE))
        ws->shared_gate = take(&end, c->tokens);
    if (moe_graph_uses(c->graph, MOE_VALUE_SCORES))
        ws->scores = take(&end, (uint64_t) c->tokens * desc->n_experts);
    if (c->regime == MOE_VK_GROUPED) {
        ws->counts = take(&end, moe_div_up(slots, MOE_GROUP_BLOCK) * desc->n_experts);
        ws->rows = take(&end, slots);
        ws->positions = take(&end, slots);
        ws->args = take(&end, moe_vk_listed_dispatches(&c->banks[MOE_BANK_ROUTED]) *
                                  (uint64_t) MOE_ARGS_WORDS);
        ws->full = take(&end, moe_vk_most_tiles(desc, slots, false) * MOE_TILE_WORDS);
        ws->small = take(&end, moe_vk_most_tiles(desc, slots, true) * MOE_TILE_WORDS);
    }
    ws->h = take(&end, slots * desc->d_ff);
    if (shared)
        ws->h_shared = take(&end, (uint64_t) c->tokens * desc->d_shared_ff);
    ws->h = join(ws->h, ws->h_shared);
    if (c->regime == MOE_VK_GROUPED || !moe_vk_out_is_fused(c)) {
        ws->f = take(&end, slots * desc->d_out);
        if (shared)
            ws->f_shared = take(&end, (uint64_t) c->tokens * desc->d_out);
        ws->f = join(ws->f, ws->f_shared);
    }
    ws->size = end;
}
