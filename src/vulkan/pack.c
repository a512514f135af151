// SPDX-License-Identifier: MIT
// How weights are packed and where they are. A packed expert depends on the layer alone, never on a
// kernel variant or a device's limits.
#include "vulkan/plan.h"

#include <inttypes.h>
#include <string.h>

#include "base/bits.h"
#include "core/dtype.h"

enum { VEC = 16, BLOCK_ALIGN = 256 };

// Bytes of a row of `width` weights, padded to whole uvec4.
static uint64_t row_size(enum vkmoe_dtype type, uint32_t width)
{
    return moe_align_up(moe_dtype_size(type, width), VEC);
}

static enum vkmoe_status too_large(const char *what, uint64_t size)
{
    return moe_fail(VKMOE_E_UNSUPPORTED, "%s of %" PRIu64 " bytes: more than 32-bit indices reach",
                    what, size);
}

enum vkmoe_status moe_vk_block(const struct moe_layer *layer, uint32_t expert,
                               struct moe_vk_block *out)
{
    const vkmoe_layer_desc *desc = &layer->desc;
    *out = (struct moe_vk_block){0};
    uint32_t d_ff = moe_layer_d_ff(layer, expert);
    uint64_t in_stride = row_size(desc->in_type, desc->d_model);
    uint64_t out_stride = row_size(desc->out_type, d_ff);
    uint64_t in_rows = moe_align_up(d_ff, MOE_PANEL_ROWS) * (desc->gated ? 2 : 1);
    uint64_t out_rows = moe_align_up(desc->d_out, MOE_PANEL_ROWS);
    uint64_t in_size = in_rows * in_stride + in_rows * sizeof(float);
    uint64_t out_weight = moe_align_up(in_size, BLOCK_ALIGN);
    uint64_t end = out_weight + out_rows * out_stride + out_rows * sizeof(float);
    if (end / VEC > MOE_VK_MAX_INDEX)
        return too_large("an expert", end);
    *out = (struct moe_vk_block){
        .in_stride = (uint32_t) (in_stride / VEC),
        .in_rows = (uint32_t) in_rows,
        .out_weight = (uint32_t) (out_weight / VEC),
        .out_stride = (uint32_t) (out_stride / VEC),
        .out_rows = (uint32_t) out_rows,
        .size = moe_align_up(end, BLOCK_ALIGN),
    };
    return VKMOE_OK;
}

// Chunks of whole experts that can be bound, segments of whole chunks that can be allocated.
static enum vkmoe_status cut(struct moe_vk_weights_map *map, const vkmoe_layer_desc *desc,
                             const struct moe_vk_limits *limits)
{
    uint64_t rest = map->experts + map->shared_size; // what is not routed experts
    if (rest + map->expert_size > limits->allocation)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "router, shared expert and one expert: %" PRIu64 " bytes; the device "
                        "allows %" PRIu64 " in one allocation",
                        rest + map->expert_size, limits->allocation);
    uint64_t room = (limits->allocation - rest) / map->expert_size;
    map->whole = limits->bda || map->total <= moe_min(limits->range, limits->allocation);
    map->chunk_experts = desc->n_experts;
    if (!map->whole) {
        uint64_t fit = moe_min(room, limits->range / map->expert_size);
        map->chunk_experts = (uint32_t) moe_min(moe_max(fit, 1), desc->n_experts);
        room -= room % map->chunk_experts;
        if (map->experts > limits->range)
            return moe_fail(VKMOE_E_UNSUPPORTED,
                            "a router of %" PRIu64 " bytes; this device binds at most %" PRIu64
                            " without buffer device address", map->experts, limits->range);
        if (map->total / VEC > UINT32_MAX)
            return too_large("all weights", map->total);
    }
    map->segment_experts = (uint32_t) moe_min(room, desc->n_experts);
    map->n_segments = (uint32_t) moe_div_up(desc->n_experts, map->segment_experts);
    return VKMOE_OK;
}

enum vkmoe_status moe_vk_weights_map(const struct moe_layer *layer,
                                     const struct moe_vk_limits *limits,
                                     struct moe_vk_weights_map *out)
{
    enum vkmoe_status status = VKMOE_OK;
    const vkmoe_layer_desc *desc = &layer->desc;
    struct moe_vk_block routed, shared = {0};
    *out = (struct moe_vk_weights_map){0};
    TRY(moe_vk_block(layer, 0, &routed));
    if (moe_layer_has_shared(layer))
        TRY(moe_vk_block(layer, VKMOE_SHARED_EXPERT, &shared));

    uint64_t rows = desc->n_experts + (desc->shared_gate == VKMOE_SHARED_SIGMOID);
    uint64_t quads = moe_div_up(rows, 4);
    uint64_t weight = moe_align_up((desc->n_experts + 1) * sizeof(uint64_t), VEC) / VEC;
    uint64_t bias = weight + desc->d_model * quads;
    uint64_t end = (bias + 2 * quads) * VEC;
    if (end / VEC > MOE_VK_MAX_INDEX)
        return too_large("the router", end);
    *out = (struct moe_vk_weights_map){
        .quads = (uint32_t) quads,
        .router_weight = (uint32_t) weight,
        .router_bias = (uint32_t) bias,
        .router_selection = (uint32_t) (bias + quads),
        .experts = moe_align_up(end, BLOCK_ALIGN),
        .expert_size = routed.size,
        .shared_size = shared.size,
    };
    out->shared = out->experts + desc->n_experts * out->expert_size;
    out->total = out->shared + out->shared_size;
    TRY(cut(out, desc, limits));
    return VKMOE_OK;

fail:
    return status;
}

uint64_t moe_vk_segment_start(const struct moe_vk_weights_map *map, uint32_t i)
{
    if (i == 0)
        return 0;
    return i >= map->n_segments
               ? map->total
               : map->experts + (uint64_t) i * map->segment_experts * map->expert_size;
}

enum vkmoe_status moe_vk_weights_layout(const struct moe_device *device,
                                        const struct moe_layer *layer, vkmoe_weights_layout *out)
{
    struct moe_vk_weights_map map;
    struct moe_vk_limits limits = moe_vk_limits(moe_vk(device), 0);
    enum vkmoe_status status = moe_vk_weights_map(layer, &limits, &map);
    *out = (vkmoe_weights_layout){map.expert_size, map.shared_size, map.total};
    return status;
}

// A matrix of a block, as it is packed.
struct packing {
    enum vkmoe_dtype type;
    uint32_t width, stride; // of a row: weights, uvec4
    unsigned char *bytes;
    float *scratch; // a row
};

// Stores a row of a tensor and its bias as packed row `packed`.
static void pack_row(const struct packing *m, const vkmoe_tensor *tensor, const float *bias,
                     uint32_t row, uint32_t packed)
{
    uint64_t panel = packed / MOE_PANEL_ROWS, i = packed % MOE_PANEL_ROWS;
    unsigned char *begin =
        m->bytes + moe_vk_rows_size(m->stride, panel * MOE_PANEL_ROWS) * VEC;
    unsigned char *dst = begin + i * m->stride * VEC;
    float *biases = (float *) (begin + (uint64_t) MOE_PANEL_ROWS * m->stride * VEC);
    if (bias)
        biases[i] = bias[row];
    if (tensor->type == m->type) {
        uint64_t size = moe_dtype_size(m->type, m->width);
        memcpy(dst, (const unsigned char *) tensor->data + row * size, size);
        return;
    }
    moe_tensor_row(tensor, row, m->width, m->scratch);
    moe_dtype_encode(m->type, m->scratch, m->width, dst);
}

uint32_t moe_vk_packed_row(bool gated, bool up, uint32_t row)
{
    if (!gated)
        return row;
    return row / MOE_PANEL_ROWS * 2 * MOE_PANEL_ROWS + row % MOE_PANEL_ROWS +
           (up ? MOE_PANEL_ROWS : 0);
}

enum vkmoe_status moe_vk_pack_expert(const struct moe_device *device, const struct moe_layer *layer,
                                     uint32_t expert, const vkmoe_expert_tensors *tensors,
                                     void *dst)
{
    enum vkmoe_status status = VKMOE_OK;
    const vkmoe_layer_desc *desc = &layer->desc;
    uint32_t d_ff = moe_layer_d_ff(layer, expert);
    struct moe_vk_block block;
    TRY(moe_vk_block(layer, expert, &block));
    float *scratch = moe_alloc_array(device->host, moe_max(desc->d_model, d_ff), sizeof *scratch);
    if (!scratch)
        return moe_fail(VKMOE_E_MEMORY, "a row of %u weights",
                        (uint32_t) moe_max(desc->d_model, d_ff));

    unsigned char *bytes = dst;
    memset(bytes, 0, block.size);
    struct packing in = {desc->in_type, desc->d_model, block.in_stride, bytes, scratch};
    for (uint32_t row = 0; row < d_ff; row++) {
        pack_row(&in, &tensors->up, tensors->up_bias, row,
                 moe_vk_packed_row(desc->gated, true, row));
        if (desc->gated)
            pack_row(&in, &tensors->gate, tensors->gate_bias, row,
                     moe_vk_packed_row(true, false, row));
    }
    struct packing out = {desc->out_type, d_ff, block.out_stride,
                          bytes + (uint64_t) block.out_weight * VEC, scratch};
    for (uint32_t row = 0; row < desc->d_out; row++)
        pack_row(&out, &tensors->down, tensors->down_bias, row, row);
    moe_free(device->host, scratch);
    return VKMOE_OK;

fail:
    return status;
}

const struct moe_vk_segment *moe_vk_segment_of(const struct moe_vk_weights *weights,
                                               uint64_t offset)
{
    uint32_t i = 0;
    while (i + 1 < weights->n_segments && weights->segments[i + 1].start <= offset)
        i++;
    return &weights->segments[i];
}

// What stands in the table for a block at an offset of the weights.
static uint64_t table_entry(const struct moe_vk_weights *weights, uint64_t offset)
{
    const struct moe_vk_segment *segment = moe_vk_segment_of(weights, offset);
    return segment->buffer.address ? segment->buffer.address + (offset - segment->start)
                                   : offset / VEC;
}

void moe_vk_pack_head(const struct moe_vk_weights *weights, const struct moe_vk_weights_map *map,
                      const vkmoe_router_tensors *router, float *row, void *head)
{
    const vkmoe_layer_desc *desc = &weights->base.layer.desc;
    uint64_t *table = (uint64_t *) head;
    for (uint64_t e = 0; e < desc->n_experts; e++)
        table[e] = table_entry(weights, map->experts + e * map->expert_size);
    if (map->shared_size)
        table[desc->n_experts] = table_entry(weights, map->shared);

    float *weight = (float *) ((unsigned char *) head + (uint64_t) map->router_weight * VEC);
    float *bias = (float *) ((unsigned char *) head + (uint64_t) map->router_bias * VEC);
    float *selection =
        (float *) ((unsigned char *) head + (uint64_t) map->router_selection * VEC);
    uint64_t stride = (uint64_t) map->quads * 4;
    for (uint32_t e = 0; e < desc->n_experts; e++) {
        moe_tensor_row(&router->weight, e, desc->d_model, row);
        for (uint64_t i = 0; i < desc->d_model; i++)
            weight[i * stride + e] = row[i];
        bias[e] = router->bias ? router->bias[e] : 0.0f;
        selection[e] = router->selection_bias ? router->selection_bias[e] : 0.0f;
    }
    if (router->shared_gate)
        for (uint64_t i = 0; i < desc->d_model; i++)
            weight[i * stride + desc->n_experts] = router->shared_gate[i];
}
