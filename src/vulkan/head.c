// SPDX-License-Identifier: MIT
// The head of the weights: all that the router reads.
#include "vulkan/plan.h"

#include <inttypes.h>
#include <string.h>

#include "base/bits.h"

enum { VEC = 16, BLOCK_ALIGN = 256 };

static uint32_t n_gate_rows(const vkmoe_layer_desc *desc)
{
    switch (desc->shared_gate) {
    case VKMOE_SHARED_PLAIN:
        return 0;
    case VKMOE_SHARED_SIGMOID:
        return 1;
    case VKMOE_SHARED_SOFTMAX2:
        break;
    }
    return 2;
}

// uvec4 of a row of the table.
static uint64_t table_row(const vkmoe_layer_desc *desc)
{
    return moe_div_up(desc->top_k, 4);
}

enum vkmoe_status moe_vk_head_map(const struct moe_layer *layer, struct moe_vk_weights_map *map)
{
    const vkmoe_layer_desc *desc = &layer->desc;
    uint64_t quads = moe_div_up(moe_layer_n_scored(desc) + n_gate_rows(desc), 4);
    uint64_t weight = moe_div_up(moe_vk_n_blocks(layer) * sizeof(uint64_t), VEC);
    uint64_t vectors = weight + desc->d_model * quads;
    uint64_t prenorm = vectors + MOE_N_VECTORS * quads;
    uint64_t table = prenorm + (desc->router_prenorm ? moe_div_up(desc->d_model, 4) : 0);
    uint64_t end = table + desc->n_token_ids * table_row(desc);
    if (end > MOE_VK_MAX_INDEX)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "the router of %" PRIu64 " bytes: more than 32-bit indices reach",
                        end * VEC);
    map->quads = (uint32_t) quads;
    map->router_weight = (uint32_t) weight;
    map->router_vectors = (uint32_t) vectors;
    map->router_prenorm = (uint32_t) prenorm;
    map->router_table = (uint32_t) table;
    map->experts = moe_align_up(end * VEC, BLOCK_ALIGN);
    return VKMOE_OK;
}

static void *at(void *head, uint64_t vec)
{
    return (unsigned char *) head + vec * VEC;
}

static void pack_table(const vkmoe_layer_desc *desc, const int32_t *table, int32_t *out)
{
    for (uint64_t row = 0; row < desc->n_token_ids; row++)
        memcpy(out + row * table_row(desc) * 4, table + row * desc->top_k,
               desc->top_k * sizeof *out);
}

void moe_vk_pack_router(const struct moe_layer *layer, const struct moe_vk_weights_map *map,
                        const vkmoe_router_tensors *router, float *row, void *head)
{
    const vkmoe_layer_desc *desc = &layer->desc;
    const uint32_t n = moe_layer_n_scored(desc), n_gates = n_gate_rows(desc);
    const uint64_t stride = (uint64_t) map->quads * 4;
    float *weight = at(head, map->router_weight);
    for (uint32_t e = 0; e < n + n_gates; e++) {
        const float *from = row;
        if (e < n)
            moe_tensor_row(&router->weight, e, desc->d_model, row);
        else
            from = router->shared_gate + (uint64_t) (e - n) * desc->d_model;
        for (uint64_t i = 0; i < desc->d_model; i++)
            weight[i * stride + e] = from[i];
    }

    const struct {
        uint32_t vector, first, n;
        const float *from;
    } vectors[] = {{MOE_VECTOR_BIAS, 0, n, router->bias},
                   {MOE_VECTOR_BIAS, n, n_gates, router->shared_gate_bias},
                   {MOE_VECTOR_SELECTION, 0, n, router->selection_bias},
                   {MOE_VECTOR_EXPERT_SCALE, 0, n, router->expert_scale}};
    for (uint32_t i = 0; i < MOE_COUNT(vectors); i++) {
        float *to = at(head, map->router_vectors + (uint64_t) vectors[i].vector * map->quads);
        if (vectors[i].from)
            memcpy(to + vectors[i].first, vectors[i].from, vectors[i].n * sizeof *to);
    }
    if (router->prenorm_scale)
        memcpy(at(head, map->router_prenorm), router->prenorm_scale,
               desc->d_model * sizeof(float));
    if (router->table)
        pack_table(desc, router->table, at(head, map->router_table));
}
