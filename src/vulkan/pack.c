// SPDX-License-Identifier: MIT
// How weights are packed and where they are. A packed expert depends on the layer alone, never on a
// kernel variant or a device's limits.
#include "vulkan/plan.h"

#include <inttypes.h>
#include <string.h>

#include "base/bits.h"
#include "core/dtype.h"
#include "vulkan/weight_row.h"

enum { VEC = 16, BLOCK_ALIGN = 256 };

static enum vkmoe_status too_large(const char *what, uint64_t size)
{
    return moe_fail(VKMOE_E_UNSUPPORTED, "%s of %" PRIu64 " bytes: more than 32-bit indices reach",
                    what, size);
}

struct moe_expert_shape moe_vk_block_shape(const struct moe_layer *layer, uint32_t expert)
{
    const vkmoe_layer_desc *d = &layer->desc;
    if (expert == MOE_VK_LATENT)
        return (struct moe_expert_shape){d->d_model, d->d_latent, d->d_out, d->latent_type,
                                         d->latent_type};
    return moe_layer_expert_shape(layer, expert);
}

enum vkmoe_status moe_vk_block(const struct moe_layer *layer, uint32_t expert,
                               struct moe_vk_block *out)
{
    *out = (struct moe_vk_block){0};
    struct moe_expert_shape shape = moe_vk_block_shape(layer, expert);
    bool gated = layer->desc.gated && expert != MOE_VK_LATENT;
    uint64_t in_stride = moe_vk_row_size(shape.in_type, shape.d_in);
    uint64_t out_stride = moe_vk_row_size(shape.out_type, shape.d_ff);
    uint64_t in_rows = moe_align_up(shape.d_ff, MOE_PANEL_ROWS) * (gated ? 2 : 1);
    uint64_t out_rows = moe_align_up(shape.d_out, MOE_PANEL_ROWS);
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

// ---- where blocks are --------------------------------------------------------------------------

uint32_t moe_vk_n_blocks(const struct moe_layer *layer)
{
    const vkmoe_layer_desc *desc = &layer->desc;
    return moe_layer_n_packed(desc) + moe_layer_n_adjugates(desc) +
           (moe_layer_has_shared(layer) ? 1 : 0) + (desc->d_latent > 0 ? 1 : 0);
}

struct moe_vk_placed moe_vk_placed(const struct moe_layer *layer,
                                   const struct moe_vk_weights_map *map, uint32_t i)
{
    const uint32_t n_experts = moe_layer_n_packed(&layer->desc);
    const uint32_t n_adjugates = moe_layer_n_adjugates(&layer->desc);
    if (i < n_experts)
        return (struct moe_vk_placed){i, map->experts + i * map->expert_size, map->expert_size};
    i -= n_experts;
    if (i < n_adjugates)
        return (struct moe_vk_placed){VKMOE_ADJUGATE_EXPERT + i,
                                      map->adjugates + i * map->adjugate_size,
                                      map->adjugate_size};
    i -= n_adjugates;
    if (i == 0 && moe_layer_has_shared(layer))
        return (struct moe_vk_placed){VKMOE_SHARED_EXPERT, map->shared, map->shared_size};
    return (struct moe_vk_placed){MOE_VK_LATENT, map->latent, map->latent_size};
}

uint32_t moe_vk_table_index(const struct moe_layer *layer, uint32_t expert)
{
    const uint32_t n_experts = moe_layer_n_packed(&layer->desc);
    if (expert == MOE_VK_LATENT)
        return moe_vk_n_blocks(layer) - 1;
    if (expert == VKMOE_SHARED_EXPERT)
        return n_experts + moe_layer_n_adjugates(&layer->desc);
    return moe_expert_is_adjugate(expert) ? n_experts + (expert - VKMOE_ADJUGATE_EXPERT) : expert;
}

static uint32_t segments(uint32_t n_experts, uint32_t of_a_segment)
{
    return of_a_segment == 0 ? 0 : (uint32_t) moe_div_up(n_experts, of_a_segment);
}

// Experts or adjugates of a buffer that can be allocated, with `rest` beside them; `chunk` of them
// stay together, as many as can be bound.
static uint32_t cut_bank(uint64_t rest, uint64_t size, uint32_t n, bool whole,
                         const struct moe_vk_limits *limits, uint32_t *chunk)
{
    uint64_t room = (limits->allocation - rest) / size;
    *chunk = n;
    if (!whole) {
        uint64_t fit = moe_min(room, limits->range / size);
        *chunk = (uint32_t) moe_min(moe_max(fit, 1), n);
        room -= room % *chunk;
    }
    return (uint32_t) moe_min(room, n);
}

// Chunks of whole experts that can be bound, segments of whole chunks that can be allocated.
static enum vkmoe_status cut(struct moe_vk_weights_map *map, const vkmoe_layer_desc *desc,
                             const struct moe_vk_limits *limits)
{
    uint32_t n_adjugates = moe_layer_n_adjugates(desc), own;
    // What is neither routed experts nor adjugates.
    uint64_t rest = map->experts + map->shared_size + map->latent_size + map->vectors_size;
    uint64_t largest = moe_max(map->expert_size, map->adjugate_size);
    if (rest + largest > limits->allocation)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "router, shared expert and one expert: %" PRIu64 " bytes; the device "
                        "allows %" PRIu64 " in one allocation",
                        rest + largest, limits->allocation);
    map->whole = limits->bda || map->total <= moe_min(limits->range, limits->allocation);
    if (!map->whole && map->experts > limits->range)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "a router of %" PRIu64 " bytes; this device binds at most %" PRIu64
                        " without buffer device address", map->experts, limits->range);
    if (!map->whole && map->total / VEC > UINT32_MAX)
        return too_large("all weights", map->total);
    if (n_adjugates > 0) {
        own = cut_bank(rest, map->adjugate_size, n_adjugates, map->whole, limits,
                       &map->chunk_adjugates);
        uint64_t all = n_adjugates * map->adjugate_size;
        if (all <= limits->allocation - rest - map->expert_size)
            rest += all;
        else
            map->segment_adjugates = own;
    }
    if (moe_layer_n_packed(desc) == 0) { // the head alone
        map->n_segments = map->n_expert_segments = 1;
        return VKMOE_OK;
    }
    map->segment_experts = cut_bank(rest, map->expert_size, desc->n_experts, map->whole, limits,
                                    &map->chunk_experts);
    map->n_expert_segments = segments(desc->n_experts, map->segment_experts);
    map->n_segments = map->n_expert_segments + segments(n_adjugates, map->segment_adjugates);
    return VKMOE_OK;
}

// The sizes of all blocks.
static enum vkmoe_status size_blocks(const struct moe_layer *layer, struct moe_vk_weights_map *map)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk_block routed = {0}, adjugate = {0}, shared = {0}, latent = {0};
    if (moe_layer_n_packed(&layer->desc) > 0)
        TRY(moe_vk_block(layer, 0, &routed));
    if (layer->desc.adjugate_group > 0)
        TRY(moe_vk_block(layer, VKMOE_ADJUGATE_EXPERT, &adjugate));
    if (moe_layer_has_shared(layer))
        TRY(moe_vk_block(layer, VKMOE_SHARED_EXPERT, &shared));
    if (layer->desc.d_latent > 0)
        TRY(moe_vk_block(layer, MOE_VK_LATENT, &latent));
    map->expert_size = routed.size;
    map->adjugate_size = adjugate.size;
    map->shared_size = shared.size;
    map->latent_size = latent.size;

fail:
    return status;
}

// Everything behind the head, one after the other.
static void place_blocks(const vkmoe_layer_desc *desc, struct moe_vk_weights_map *map)
{
    bool has_bias = desc->out_bias && desc->d_latent == 0;
    uint64_t bias = has_bias ? moe_align_up(desc->d_out, MOE_PANEL_ROWS) * sizeof(float) : 0;
    uint64_t norm = desc->latent_norm ? desc->d_latent * sizeof(float) : 0;
    map->adjugates = map->experts + moe_layer_n_packed(desc) * map->expert_size;
    map->shared = map->adjugates + moe_layer_n_adjugates(desc) * map->adjugate_size;
    map->latent = map->shared + map->shared_size;
    map->vectors = map->latent + map->latent_size;
    map->out_bias = map->vectors;
    map->latent_norm = map->vectors + bias;
    map->vectors_size = moe_align_up(bias + norm, BLOCK_ALIGN);
    map->total = map->vectors + map->vectors_size;
}

enum vkmoe_status moe_vk_weights_map(const struct moe_layer *layer,
                                     const struct moe_vk_limits *limits,
                                     struct moe_vk_weights_map *out)
{
    enum vkmoe_status status = VKMOE_OK;
    const vkmoe_layer_desc *desc = &layer->desc;
    *out = (struct moe_vk_weights_map){0};
    TRY(moe_vk_head_map(layer, out));
    TRY(size_blocks(layer, out));
    place_blocks(desc, out);
    TRY(cut(out, desc, limits));
    return VKMOE_OK;

fail:
    return status;
}

uint64_t moe_vk_segment_start(const struct moe_vk_weights_map *map, uint32_t i)
{
    if (i == 0)
        return 0;
    if (i >= map->n_segments)
        return map->total;
    if (i < map->n_expert_segments)
        return map->experts + (uint64_t) i * map->segment_experts * map->expert_size;
    return map->adjugates + (uint64_t) (i - map->n_expert_segments) * map->segment_adjugates *
                                map->adjugate_size;
}

enum vkmoe_status moe_vk_weights_layout(const struct moe_device *device,
                                        const struct moe_layer *layer, vkmoe_weights_layout *out)
{
    struct moe_vk_weights_map map;
    struct moe_vk_limits limits = moe_vk_limits(moe_vk(device), 0);
    enum vkmoe_status status = moe_vk_weights_map(layer, &limits, &map);
    *out = (vkmoe_weights_layout){.expert_size = map.expert_size,
                                  .shared_size = map.shared_size,
                                  .adjugate_size = map.adjugate_size,
                                  .total_size = map.total};
    return status;
}

// ---- packing -----------------------------------------------------------------------------------

// A matrix of a block, as it is packed.
struct packing {
    struct moe_vk_row row;
    uint32_t width;        // values of a row
    float *values;         // scratch for a row
    unsigned char *stored; // for the same as it is stored
    unsigned char *given;  // for a panel's rows from the tensor
    unsigned char *panel;  // and for the panel
};

// Scratch for matrices of a block with rows of at most `width` values. A row from a tensor or as it
// is stored is never more than f32, or fp8 where one block of it is more.
static enum vkmoe_status alloc_scratch(const vkmoe_host *host, const struct moe_vk_block *block,
                                       uint32_t width, struct packing *out)
{
    const uint32_t stride = (uint32_t) moe_max(block->in_stride, block->out_stride);
    const uint64_t panel = moe_vk_rows_size(stride, MOE_PANEL_ROWS) * VEC;
    const uint64_t row = moe_rows_room(VKMOE_FP8, 1, width);
    enum vkmoe_status status =
        moe_try_alloc(host, panel + width * sizeof(float) + (1 + MOE_PANEL_ROWS) * row,
                      "rows to pack", &out->panel);
    if (status != VKMOE_OK)
        return status;
    out->values = (float *) (out->panel + panel);
    out->stored = (unsigned char *) (out->values + width);
    out->given = out->stored + row;
    return VKMOE_OK;
}

// Row i of the panel. given: as the tensor has it.
static void pack_row(const struct packing *m, enum vkmoe_dtype type, const char *given, uint32_t i)
{
    const void *stored = given;
    if (type != m->row.type) {
        moe_dtype_decode(type, given, m->width, m->values);
        moe_dtype_encode(m->row.type, m->values, m->width, m->stored);
        stored = m->stored;
    }
    moe_vk_row_pack(&m->row, stored, m->panel + (uint64_t) i * m->row.stride * VEC);
}

// The panel of rows `first` and on of a tensor of n_rows, with their biases.
static enum vkmoe_status pack_panel(const struct packing *m, const vkmoe_tensor *tensor,
                                    const float *bias, uint32_t first, uint32_t n_rows,
                                    const struct moe_vk_sink *sink)
{
    enum vkmoe_status status;
    const char *rows;
    const uint32_t n = (uint32_t) moe_min(n_rows - first, MOE_PANEL_ROWS);
    const uint64_t size = moe_vk_rows_size(m->row.stride, MOE_PANEL_ROWS) * VEC;
    const uint64_t given_size = moe_dtype_size(tensor->type, m->width);
    memset(m->panel, 0, size);
    TRY(moe_tensor_rows(tensor, first, n, m->width, m->given, &rows));
    for (uint32_t i = 0; i < n; i++)
        pack_row(m, tensor->type, rows + i * given_size, i);
    if (bias)
        memcpy(m->panel + (uint64_t) MOE_PANEL_ROWS * m->row.stride * VEC, bias + first,
               n * sizeof *bias);
    TRY(sink->write(sink->user, m->panel, size));

fail:
    return status;
}

// Zeros behind the panels of a matrix.
static enum vkmoe_status pad(const struct moe_vk_sink *sink, uint64_t from, uint64_t to)
{
    static const unsigned char zeros[BLOCK_ALIGN];
    return sink->write(sink->user, zeros, to - from);
}

uint32_t moe_vk_packed_row(bool gated, bool up, uint32_t row)
{
    if (!gated)
        return row;
    return row / MOE_PANEL_ROWS * 2 * MOE_PANEL_ROWS + row % MOE_PANEL_ROWS +
           (up ? MOE_PANEL_ROWS : 0);
}

enum vkmoe_status moe_vk_pack_block(const struct moe_device *device, const struct moe_layer *layer,
                                    uint32_t expert, const vkmoe_expert_tensors *tensors,
                                    const struct moe_vk_sink *sink)
{
    enum vkmoe_status status;
    const struct moe_expert_shape shape = moe_vk_block_shape(layer, expert);
    const bool gated = moe_tensor_given(&tensors->gate);
    struct moe_vk_block block;
    struct packing in = {.width = shape.d_in}, out;
    TRY(moe_vk_block(layer, expert, &block));
    TRY(alloc_scratch(device->host, &block, (uint32_t) moe_max(shape.d_in, shape.d_ff), &in));
    out = in;
    out.width = shape.d_ff;
    moe_vk_row_init(&in.row, shape.in_type, in.width);
    moe_vk_row_init(&out.row, shape.out_type, out.width);
    for (uint32_t row = 0; row < shape.d_ff; row += MOE_PANEL_ROWS) {
        if (gated)
            TRY(pack_panel(&in, &tensors->gate, tensors->gate_bias, row, shape.d_ff, sink));
        TRY(pack_panel(&in, &tensors->up, tensors->up_bias, row, shape.d_ff, sink));
    }
    TRY(pad(sink, moe_vk_rows_size(block.in_stride, block.in_rows) * VEC,
            (uint64_t) block.out_weight * VEC));
    for (uint32_t row = 0; row < shape.d_out; row += MOE_PANEL_ROWS)
        TRY(pack_panel(&out, &tensors->down, tensors->down_bias, row, shape.d_out, sink));
    TRY(pad(sink, (block.out_weight + moe_vk_rows_size(block.out_stride, block.out_rows)) * VEC,
            block.size));

fail:
    moe_free(device->host, in.panel);
    return status;
}

// A sink that is memory.
static enum vkmoe_status append(void *user, const void *data, uint64_t size)
{
    unsigned char **end = user;
    memcpy(*end, data, size);
    *end += size;
    return VKMOE_OK;
}

enum vkmoe_status moe_vk_pack_expert(const struct moe_device *device, const struct moe_layer *layer,
                                     uint32_t expert, const vkmoe_expert_tensors *tensors,
                                     void *dst)
{
    unsigned char *end = dst;
    const struct moe_vk_sink sink = {append, &end};
    return moe_vk_pack_block(device, layer, expert, tensors, &sink);
}

enum vkmoe_status moe_vk_pack_latent(const struct moe_device *device, const struct moe_layer *layer,
                                     const vkmoe_latent_tensors *tensors, const float *out_bias,
                                     const struct moe_vk_sink *sink)
{
    const vkmoe_expert_tensors block = {
        .up = tensors->down, .down = tensors->up, .down_bias = out_bias};
    return moe_vk_pack_block(device, layer, MOE_VK_LATENT, &block, sink);
}

void moe_vk_pack_vectors(const struct moe_layer *layer, const struct moe_vk_weights_map *map,
                         const struct moe_weights_source *source, void *vectors)
{
    const vkmoe_layer_desc *desc = &layer->desc;
    unsigned char *bytes = vectors;
    if (desc->out_bias && desc->d_latent == 0)
        memcpy(bytes + (map->out_bias - map->vectors), source->out_bias,
               desc->d_out * sizeof(float));
    if (desc->latent_norm)
        memcpy(bytes + (map->latent_norm - map->vectors), source->latent->norm,
               desc->d_latent * sizeof(float));
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
    const struct moe_layer *layer = &weights->base.layer;
    uint64_t *table = head;
    for (uint32_t i = 0; i < moe_vk_n_blocks(layer); i++)
        table[i] = table_entry(weights, moe_vk_placed(layer, map, i).offset);
    moe_vk_pack_router(layer, map, router, row, head);
}
