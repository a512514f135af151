// SPDX-License-Identifier: MIT
// Weights back from the device.
#include "vulkan/plan.h"

#include <inttypes.h>
#include <string.h>

#include "base/bits.h"
#include "core/dtype.h"
#include "vulkan/weight_row.h"

enum { VEC = 16 };

// ---- bytes -------------------------------------------------------------------------------------

static void record(struct moe_vk *vk, VkCommandBuffer cmd, const struct moe_vk_buffer *from,
                   uint64_t offset, const struct moe_vk_buffer *to)
{
    VkBufferCopy copy = {.srcOffset = offset, .size = to->size};
    moe_vk_barrier(vk, cmd, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
                   VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_READ_BIT);
    vk->fn.vkCmdCopyBuffer(cmd, from->handle, to->handle, 1, &copy);
    moe_vk_barrier(vk, cmd, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
                   VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_READ_BIT);
}

static enum vkmoe_status download(struct moe_vk *vk, const struct moe_vk_segment *segment,
                                  uint64_t offset, uint64_t size, void *out)
{
    enum vkmoe_status status;
    struct moe_vk_buffer staging = {0};
    struct moe_vk_command command = {0};
    TRY(moe_vk_buffer_create(vk, size, MOE_VK_READBACK, "vkmoe readback", &staging));
    TRY(moe_vk_command_create(vk, &command));
    TRY(moe_vk_command_begin(vk, &command));
    record(vk, command.buffer, &segment->buffer, offset, &staging);
    TRY(moe_vk_command_run(vk, &command));
    TRY(moe_vk_buffer_invalidate(vk, &staging, 0, size));
    memcpy(out, staging.mapped, size);

fail:
    moe_vk_command_destroy(vk, &command);
    moe_vk_buffer_destroy(vk, &staging);
    return status;
}

// Bytes of the weights that do not leave their segment.
static enum vkmoe_status read_bytes(const struct moe_vk_weights *weights, uint64_t offset,
                                    uint64_t size, void *out)
{
    struct moe_vk *vk = moe_vk(weights->base.device);
    const struct moe_vk_segment *segment = moe_vk_segment_of(weights, offset);
    uint64_t at = segment->offset + offset - segment->start;
    if (segment->buffer.mapped && (segment->buffer.cached || !vk->queue)) {
        memcpy(out, (const unsigned char *) segment->buffer.mapped + at, size);
        return VKMOE_OK;
    }
    if (weights->adopted || !vk->queue)
        return moe_fail(VKMOE_E_UNSUPPORTED, "weights %s cannot be read back",
                        weights->adopted ? "in the caller's buffer" : "without a queue");
    return download(vk, segment, at, size, out);
}

static enum vkmoe_status get_map(const struct moe_vk_weights *weights,
                                 struct moe_vk_weights_map *map)
{
    struct moe_vk_limits limits = moe_vk_limits(moe_vk(weights->base.device), 0);
    return moe_vk_weights_map(&weights->base.layer, &limits, map);
}

// ---- tensors -----------------------------------------------------------------------------------

// A matrix of a packed block.
struct matrix {
    struct moe_vk_row row;
    uint32_t width;
    const unsigned char *bytes;
    unsigned char *stored; // scratch for a row
};

// Row `packed`: its weights and its bias; NULL: not wanted.
static void unpack_row(const struct matrix *m, uint32_t packed, float *weights, float *bias)
{
    uint64_t panel = packed / MOE_PANEL_ROWS, i = packed % MOE_PANEL_ROWS;
    const unsigned char *begin =
        m->bytes + moe_vk_rows_size(m->row.stride, panel * MOE_PANEL_ROWS) * VEC;
    if (weights) {
        moe_vk_row_unpack(&m->row, begin + i * m->row.stride * VEC, m->stored);
        moe_dtype_decode(m->row.type, m->stored, m->width, weights);
    }
    if (bias)
        memcpy(bias, begin + (uint64_t) MOE_PANEL_ROWS * m->row.stride * VEC + i * sizeof *bias,
               sizeof *bias);
}

static float *row_of(float *tensor, uint32_t row, uint32_t width)
{
    return tensor ? tensor + (uint64_t) row * width : NULL;
}

static void unpack_in(const struct matrix *m, bool gated, uint32_t n_rows,
                      const vkmoe_expert_grads *out)
{
    for (uint32_t row = 0; row < n_rows; row++) {
        unpack_row(m, moe_vk_packed_row(gated, true, row), row_of(out->up, row, m->width),
                   row_of(out->up_bias, row, 1));
        if (gated)
            unpack_row(m, moe_vk_packed_row(true, false, row), row_of(out->gate, row, m->width),
                       row_of(out->gate_bias, row, 1));
    }
}

static void matrix_init(struct matrix *m, enum vkmoe_dtype type, uint32_t width,
                        const unsigned char *bytes, unsigned char *stored)
{
    moe_vk_row_init(&m->row, type, width);
    m->width = width;
    m->bytes = bytes;
    m->stored = stored;
}

// stored: room for a row of either matrix.
static void unpack_expert(const struct moe_layer *layer, uint32_t expert,
                          const struct moe_vk_block *block, const unsigned char *bytes,
                          unsigned char *stored, const vkmoe_expert_grads *out)
{
    struct moe_expert_shape shape = moe_layer_expert_shape(layer, expert);
    struct matrix m;
    matrix_init(&m, shape.in_type, shape.d_in, bytes, stored);
    unpack_in(&m, layer->desc.gated, shape.d_ff, out);
    matrix_init(&m, shape.out_type, shape.d_ff, bytes + (uint64_t) block->out_weight * VEC, stored);
    for (uint32_t row = 0; row < shape.d_out; row++)
        unpack_row(&m, row, row_of(out->down, row, m.width), row_of(out->down_bias, row, 1));
}

enum vkmoe_status moe_vk_read_expert(struct moe_packed_weights *base, uint32_t expert,
                                     const vkmoe_expert_grads *out)
{
    enum vkmoe_status status;
    const struct moe_vk_weights *weights = (const struct moe_vk_weights *) base;
    const struct moe_layer *layer = &base->layer;
    struct moe_vk_weights_map map;
    struct moe_vk_block block;
    unsigned char *bytes = NULL;
    TRY(get_map(weights, &map));
    TRY(moe_vk_block(layer, expert, &block));
    // Behind it a row as it is stored, which takes no more than packed.
    uint64_t row_size = (uint64_t) moe_max(block.in_stride, block.out_stride) * VEC;
    TRY(moe_try_alloc(base->device->host, block.size + row_size, "packed expert", &bytes));
    uint64_t offset = moe_vk_placed(layer, &map, moe_vk_table_index(layer, expert)).offset;
    TRY(read_bytes(weights, offset, block.size, bytes));
    unpack_expert(layer, expert, &block, bytes, bytes + block.size, out);

fail:
    moe_free(base->device->host, bytes);
    return status;
}

static void unpack_vector(const struct moe_vk_weights_map *map, const unsigned char *head,
                          uint32_t vector, uint32_t n, float *out)
{
    uint64_t at = map->router_vectors + (uint64_t) vector * map->quads;
    if (out)
        memcpy(out, head + at * VEC, n * sizeof *out);
}

static void unpack_router(const vkmoe_layer_desc *desc, const struct moe_vk_weights_map *map,
                          const unsigned char *head, const struct moe_router_copy *out)
{
    const float *weight = (const float *) (head + (uint64_t) map->router_weight * VEC);
    const uint32_t n_scored = moe_layer_n_scored(desc);
    uint64_t stride = (uint64_t) map->quads * 4;
    for (uint64_t i = 0; i < desc->d_model; i++) {
        for (uint64_t e = 0; out->weight && e < n_scored; e++)
            out->weight[e * desc->d_model + i] = weight[i * stride + e];
        if (out->shared_gate)
            out->shared_gate[i] = weight[i * stride + n_scored];
    }
    unpack_vector(map, head, MOE_VECTOR_BIAS, n_scored, out->bias);
    unpack_vector(map, head, MOE_VECTOR_SELECTION, n_scored, out->selection_bias);
}

enum vkmoe_status moe_vk_read_router(struct moe_packed_weights *base,
                                     const struct moe_router_copy *out)
{
    enum vkmoe_status status;
    const struct moe_vk_weights *weights = (const struct moe_vk_weights *) base;
    struct moe_vk_weights_map map;
    unsigned char *head = NULL;
    TRY(get_map(weights, &map));
    TRY(moe_try_alloc(base->device->host, map.experts, "router weights", &head));
    TRY(read_bytes(weights, 0, map.experts, head));
    unpack_router(&base->layer.desc, &map, head, out);

fail:
    moe_free(base->device->host, head);
    return status;
}
