// SPDX-License-Identifier: MIT
// Where things are in the workspace of a block of tokens.
#include "base/bits.h"
#include "vulkan/compile.h"

struct moe_vk_range moe_vk_take(uint64_t *end, uint64_t n_words)
{
    struct moe_vk_range range = {MOE_VK_BUF_WORK, *end, moe_align_up(n_words * 4, 256)};
    *end += range.size;
    return range;
}

struct moe_vk_range moe_vk_join(struct moe_vk_range first, struct moe_vk_range last)
{
    if (!first.size)
        return last;
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

uint64_t moe_vk_group_block(uint64_t slots)
{
    return moe_align_up(moe_max(moe_div_up(slots, MOE_GROUP_BLOCKS), 1), MOE_GROUP_BLOCK);
}

// A small tile has a row at least. Full ones: an expert's last one may have a row alone; where
// experts are many, the fewest rows for each tile are those of one or two tiles of an expert.
uint64_t moe_vk_most_tiles(struct moe_vk_tiles tiles, uint32_t n_experts, uint64_t slots,
                           bool small)
{
    if (small)
        return moe_min(n_experts, slots);
    uint64_t by_rows = moe_max(slots / (tiles.small + 1), 2 * slots / (tiles.full + 1));
    return moe_min(slots / tiles.full + n_experts, by_rows);
}

uint32_t moe_vk_listed_dispatches(const struct moe_vk_bank *bank)
{
    return bank->n_chunks * 2 * (bank->in.pieces + bank->out.pieces);
}

// Without grouping for matmuls it is that of the capacity, which needs no tiles.
static void lay_out_grouping(struct moe_vk_compiler *c, uint32_t bank, uint64_t slots,
                             uint64_t *end)
{
    struct moe_vk_grouping *g = &c->ws.groupings[bank];
    uint32_t n = moe_vk_bank_experts(c, bank);
    uint64_t blocks = moe_div_up(slots, moe_vk_group_block(slots));
    g->offsets = moe_vk_take(end, (1 + blocks) * n + 1); // then the counts of blocks
    g->rows = moe_vk_take(end, slots);
    g->positions = moe_vk_take(end, slots);
    if (c->regime != MOE_VK_GROUPED || c->graph->operation != VKMOE_OPERATION_LAYER)
        return;
    uint64_t n_args = moe_vk_listed_dispatches(&c->banks[bank]);
    g->args = moe_vk_take(end, n_args * MOE_ARGS_WORDS);
    g->full = moe_vk_take(end, moe_vk_most_tiles(c->tiles, n, slots, false) * MOE_TILE_WORDS);
    g->small = moe_vk_take(end, moe_vk_most_tiles(c->tiles, n, slots, true) * MOE_TILE_WORDS);
}

// Hidden rows and outputs, each in the order in which kernels read several as one.
static void lay_out_rows(struct moe_vk_compiler *c, uint64_t slots, uint64_t *end)
{
    const vkmoe_layer_desc *desc = c->desc;
    struct moe_vk_workspace *ws = &c->ws;
    uint64_t tokens = c->tokens;
    ws->h[MOE_BANK_ROUTED] = moe_vk_take(end, slots * desc->d_ff);
    if (moe_vk_has_bank(c, MOE_BANK_ADJUGATE))
        ws->h[MOE_BANK_ADJUGATE] = moe_vk_take(end, slots * desc->d_adjugate);
    ws->h[MOE_BANK_SHARED] = moe_vk_take(end, tokens * desc->d_shared_ff);
    ws->h[MOE_VK_BANK_LATENT] = moe_vk_take(end, tokens * desc->d_latent);
    if (c->regime == MOE_VK_DECODE && moe_vk_out_is_fused(c))
        return;
    uint64_t d_to = moe_layer_routed_out(desc);
    ws->f[MOE_BANK_ROUTED] = moe_vk_take(end, slots * d_to);
    if (moe_vk_has_bank(c, MOE_BANK_ADJUGATE))
        ws->f[MOE_BANK_ADJUGATE] = moe_vk_take(end, slots * d_to);
    if (moe_vk_sums_twice(c))
        ws->f[MOE_VK_BANK_LATENT] = moe_vk_take(end, tokens * desc->d_out);
    if (moe_vk_has_bank(c, MOE_BANK_SHARED))
        ws->f[MOE_BANK_SHARED] = moe_vk_take(end, tokens * desc->d_out);
    ws->r = moe_vk_take(end, tokens * desc->d_latent);
}

void moe_vk_lay_out(struct moe_vk_compiler *c)
{
    const vkmoe_layer_desc *desc = c->desc;
    struct moe_vk_workspace *ws = &c->ws;
    uint64_t slots = (uint64_t) c->tokens * desc->top_k, end = 0;
    *ws = (struct moe_vk_workspace){0};
    ws->count = moe_vk_take(&end, 1);
    bool has_table = !c->limits->bda && !moe_operation_is_whole(c->graph->operation);
    ws->table = moe_vk_take(&end, has_table ? moe_vk_n_blocks(&c->graph->layer) : 0);
    ws->ids = moe_vk_take(&end, slots);
    ws->gates = moe_vk_take(&end, slots);
    if (moe_graph_uses(c->graph, MOE_VALUE_SHARED_GATE))
        ws->shared_gate = moe_vk_take(
            &end, (uint64_t) c->tokens * c->graph->values[MOE_VALUE_SHARED_GATE].width);
    if (moe_graph_uses(c->graph, MOE_VALUE_SCORES))
        ws->scores =
            moe_vk_take(&end, (uint64_t) c->tokens * c->graph->values[MOE_VALUE_SCORES].width);
    if (moe_graph_uses(c->graph, MOE_VALUE_POSITIONS))
        ws->positions = moe_vk_take(&end, slots + 1); // a loop's next iteration may look there
    bool is_layer = c->graph->operation == VKMOE_OPERATION_LAYER;
    bool groups = is_layer ? c->regime == MOE_VK_GROUPED
                           : moe_graph_uses(c->graph, MOE_VALUE_GROUPING);
    bool drops = desc->capacity_mode != VKMOE_CAPACITY_NONE &&
                 !moe_operation_is_whole(c->graph->operation);
    for (uint32_t bank = 0; bank < MOE_VK_N_BANKS; bank++)
        if (moe_vk_is_slotted(bank) && moe_vk_has_bank(c, bank) &&
            (groups || (drops && bank == MOE_BANK_ROUTED)))
            lay_out_grouping(c, bank, slots, &end);
    if (is_layer) {
        lay_out_rows(c, slots, &end);
        moe_vk_lay_out_codes(c, &end);
    }
    ws->size = end;
}
