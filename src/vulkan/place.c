// SPDX-License-Identifier: MIT
// Where things are when they are bound: segments of the weights, windows of the inputs and y.
#include <inttypes.h>

#include "base/bits.h"
#include "vulkan/bind.h"

enum { BIND_ALIGN = 256 }; // no device asks for more

// Rows from one possible begin of a window to the next, for a stride in bytes, a multiple of 4.
static uint32_t step_of(uint64_t stride)
{
    uint32_t step = 1;
    while (stride * step % BIND_ALIGN != 0)
        step *= 2;
    return step;
}

static uint32_t regime_tokens(const struct moe_vk_bound *b, enum moe_vk_regime regime)
{
    return moe_vk_regime_tokens(regime, b->base.program->max_tokens);
}

static uint64_t stride_of(const struct moe_vk_bound *b, enum moe_vk_buffer_id id)
{
    return (uint64_t) b->strides[id] * 4;
}

// Bytes of an input or y from row `first` on that `n_rows` rows take, to the end of the last row.
static uint64_t rows_size(const struct moe_vk_bound *b, enum moe_vk_buffer_id id, uint64_t first,
                          uint64_t n_rows)
{
    uint64_t stride = stride_of(b, id);
    return moe_min(b->buffers[id].size - first * stride, n_rows * stride);
}

// Has an array as many rows as there are tokens? The rows of an operation are those of all slots.
static bool follows_tokens(const struct moe_vk_bound *b, enum moe_vk_buffer_id id)
{
    return b->strides[id] > 0 && id != MOE_VK_BUF_ROWS;
}

// Of a plan's inputs and outputs, for `most` rows: the largest extent and stride in bytes, the
// largest step.
struct extents {
    uint64_t size, stride;
    uint32_t step;
};

static struct extents extents_of(const struct moe_vk_bound *b, uint32_t most)
{
    struct extents all = {.step = 1};
    for (int id = 0; id < MOE_VK_N_BUFS; id++) {
        if (!follows_tokens(b, (enum moe_vk_buffer_id) id))
            continue;
        uint64_t stride = stride_of(b, (enum moe_vk_buffer_id) id);
        all.size = moe_max(all.size, rows_size(b, (enum moe_vk_buffer_id) id, 0, most));
        all.stride = moe_max(all.stride, stride);
        all.step = (uint32_t) moe_max(all.step, step_of(stride));
    }
    return all;
}

enum vkmoe_status moe_vk_choose_blocks(struct moe_vk_bound *b, enum moe_vk_regime regime)
{
    struct moe_vk_blocks *blocks = &b->blocks[regime];
    uint64_t limit = moe_vk_limits(moe_vk_of(&b->base), 0).range;
    const vkmoe_layer_desc *desc = &b->base.program->graph.layer.desc;
    uint32_t most = regime_tokens(b, regime);
    struct extents all = extents_of(b, most);
    *blocks = (struct moe_vk_blocks){.block_tokens = moe_vk_sequence_of(b, regime)->block_tokens,
                                     .whole = all.size <= limit,
                                     .n_windows = 1,
                                     .window_step = 1};
    if (b->buffers[MOE_VK_BUF_ROWS].size > limit)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "rows of %" PRIu64 " bytes for %u tokens; this device binds at most "
                        "%" PRIu64, b->buffers[MOE_VK_BUF_ROWS].size, most, limit);
    if (blocks->whole)
        return VKMOE_OK;
    if (moe_operation_is_whole(b->base.program->graph.operation))
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "%u rows of up to %" PRIu64 " bytes, which an operation goes over at once; "
                        "this device binds at most %" PRIu64 " bytes", most, all.stride, limit);
    if (desc->capacity_mode != VKMOE_CAPACITY_NONE)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "vk_io: %u rows of up to %" PRIu64 " bytes, which share their experts' "
                        "capacity; this device binds at most %" PRIu64 " bytes",
                        most, all.stride, limit);
    uint64_t rows = limit / all.stride;
    uint32_t step = all.step;
    if (rows < step)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "vk_io: %u rows of strides up to %" PRIu64 " bytes, so that an offset is "
                        "a multiple of %d; this device binds at most %" PRIu64 " bytes",
                        step, all.stride, BIND_ALIGN, limit);
    // Blocks of whole steps begin where a window can; shorter ones need rows before them.
    uint64_t fit = rows >= 2 * step ? rows / step * step : rows - step + 1;
    blocks->block_tokens = (uint32_t) moe_min(blocks->block_tokens, fit);
    if (blocks->block_tokens > step)
        blocks->block_tokens -= blocks->block_tokens % step;
    blocks->window_step = step;
    blocks->n_windows = (uint32_t) moe_div_up(most, blocks->block_tokens);
    return VKMOE_OK;
}

// Rows of an input or y for a window: all of the regime's, or from its begin to what a block can
// reach.
static struct moe_vk_place rows_place(const struct moe_vk_bound *b, enum moe_vk_regime regime,
                                      uint32_t window, enum moe_vk_buffer_id id)
{
    const struct moe_vk_blocks *blocks = &b->blocks[regime];
    struct moe_vk_place place = b->buffers[id];
    uint64_t first = (uint64_t) window * blocks->block_tokens;
    uint64_t begin = first - first % blocks->window_step;
    uint64_t n_rows = blocks->whole ? regime_tokens(b, regime)
                                    : first - begin + blocks->block_tokens;
    place.size = rows_size(b, id, begin, n_rows);
    place.offset += begin * stride_of(b, id);
    place.address += begin * stride_of(b, id);
    return place;
}

static struct moe_vk_place weights_place(const struct moe_vk_bound *b,
                                         const struct moe_vk_range *range)
{
    const struct moe_vk_weights *weights = (const struct moe_vk_weights *) b->base.weights;
    const struct moe_vk_segment *segment = moe_vk_segment_of(weights, range->offset);
    uint64_t at = range->offset - segment->start;
    return (struct moe_vk_place){segment->buffer.handle, segment->offset + at, range->size,
                                 segment->buffer.address + at};
}

struct moe_vk_place moe_vk_place(const struct moe_vk_bound *b, enum moe_vk_regime regime,
                                 uint32_t window, const struct moe_vk_range *range)
{
    if (range->buffer == MOE_VK_BUF_WEIGHTS)
        return weights_place(b, range);
    if (follows_tokens(b, range->buffer))
        return rows_place(b, regime, window, range->buffer);
    struct moe_vk_place place = b->buffers[range->buffer];
    if (range->buffer == MOE_VK_BUF_ROWS)
        return place;
    place.offset += range->offset;
    place.address += range->offset;
    place.size = range->size;
    return place;
}
