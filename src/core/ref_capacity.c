// SPDX-License-Identifier: MIT
#include "core/layer.h"
#include "core/ref_route.h"
#include "core/ref_select.h"

#include "base/bits.h"

// Rows of some tokens whose slots compete for the same places.
struct block {
    uint32_t n_tokens, top_k;
    uint32_t n_places; // of each expert
    double *ids, *gates;
};

static bool is_experts(const vkmoe_layer_desc *layer, double id)
{
    return id >= 0 && id < layer->n_experts; // identity experts have no capacity
}

static void drop(const struct block *block, uint64_t slot)
{
    block->ids[slot] = -1;
    block->gates[slot] = 0;
}

static void drop_by_position(const vkmoe_layer_desc *layer, const struct block *block)
{
    uint32_t n_kept[MOE_MAX_EXPERTS] = {0};
    for (uint32_t k = 0; k < block->top_k; k++) {
        for (uint64_t t = 0; t < block->n_tokens; t++) {
            uint64_t slot = t * block->top_k + k;
            if (is_experts(layer, block->ids[slot]) &&
                ++n_kept[(uint32_t) block->ids[slot]] > block->n_places)
                drop(block, slot);
        }
    }
}

// A slot is one too many if n_places of its expert come before it. Those that do are never dropped,
// so the order in which slots are looked at does not matter.
static bool is_too_many(const struct block *block, uint64_t slot)
{
    uint64_t n_before = 0;
    for (uint64_t other = 0; other < (uint64_t) block->n_tokens * block->top_k; other++)
        n_before += block->ids[other] == block->ids[slot] &&
                    moe_ref_comes_before(block->gates, other, slot);
    return n_before >= block->n_places;
}

static void drop_by_gate(const vkmoe_layer_desc *layer, const struct block *block)
{
    for (uint64_t slot = 0; slot < (uint64_t) block->n_tokens * block->top_k; slot++) {
        if (is_experts(layer, block->ids[slot]) && is_too_many(block, slot))
            drop(block, slot);
    }
}

void moe_ref_capacity(const vkmoe_layer_desc *layer, const float *expert_scale, uint32_t n_tokens,
                      double *ids, double *gates)
{
    const uint32_t n_rows = layer->capacity_rows ? layer->capacity_rows : n_tokens;
    for (uint64_t first = 0; first < n_tokens; first += n_rows) {
        struct block block = {(uint32_t) moe_min(n_rows, n_tokens - first), layer->top_k, 0,
                              ids + first * layer->top_k, gates + first * layer->top_k};
        block.n_places = moe_layer_capacity(layer, block.n_tokens);
        if (layer->capacity_mode == VKMOE_CAPACITY_BY_POSITION)
            drop_by_position(layer, &block);
        else
            drop_by_gate(layer, &block);
    }
    for (uint64_t t = 0; t < n_tokens && layer->capacity_renorm; t++)
        moe_ref_normalise(layer, expert_scale, ids + t * layer->top_k, gates + t * layer->top_k);
}
