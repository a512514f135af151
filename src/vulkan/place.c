// SPDX-License-Identifier: MIT
// Where things are when they are bound: segments of the weights, windows of x and y.
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

static uint64_t range_limit(const struct moe_vk *vk)
{
    return vk->bda ? MOE_VK_MAX_WORDS_SIZE : vk->caps.max_storage_range;
}

enum vkmoe_status moe_vk_choose_blocks(struct moe_vk_bound *b, enum moe_vk_regime regime)
{
    const struct moe_vk *vk = moe_vk_of(&b->base);
    struct moe_vk_blocks *blocks = &b->blocks[regime];
    uint64_t limit = range_limit(vk);
    uint64_t x_stride = (uint64_t) b->x_stride * 4, y_stride = (uint64_t) b->y_stride * 4;
    *blocks = (struct moe_vk_blocks){.block_tokens = moe_vk_sequence_of(b, regime)->block_tokens,
                                     .n_windows = 1,
                                     .window_step = 1};
    if (moe_max(b->buffers[MOE_VK_BUF_X].size, b->buffers[MOE_VK_BUF_Y].size) <= limit)
        return VKMOE_OK;
    uint64_t rows = limit / moe_max(x_stride, y_stride);
    uint32_t step = (uint32_t) moe_max(step_of(x_stride), step_of(y_stride));
    uint32_t most = b->base.program->max_tokens;
    if (rows < step)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "vk_io: %u rows of strides %" PRIu64 " and %" PRIu64 " bytes, so that an "
                        "offset is a multiple of %d; this device binds at most %" PRIu64 " bytes",
                        step, x_stride, y_stride, BIND_ALIGN, limit);
    // Blocks of whole steps begin where a window can; shorter ones need rows before them.
    uint64_t fit = rows >= 2 * step ? rows / step * step : rows - step + 1;
    blocks->block_tokens = (uint32_t) moe_min(blocks->block_tokens, fit);
    if (blocks->block_tokens > step)
        blocks->block_tokens -= blocks->block_tokens % step;
    blocks->window_step = step;
    blocks->n_windows = (uint32_t) moe_div_up(most, blocks->block_tokens);
    if (regime == MOE_VK_DECODE)
        blocks->n_windows = (uint32_t) moe_div_up(moe_min(most, MOE_VK_DECODE_TOKENS),
                                                  blocks->block_tokens);
    return VKMOE_OK;
}

// Rows of x or y for a window: from its begin to what a block can reach.
static struct moe_vk_place rows_place(const struct moe_vk_bound *b, enum moe_vk_regime regime,
                                      uint32_t window, enum moe_vk_buffer_id id)
{
    const struct moe_vk_blocks *blocks = &b->blocks[regime];
    struct moe_vk_place place = b->buffers[id];
    if (blocks->n_windows == 1)
        return place;
    uint64_t stride = (uint64_t) (id == MOE_VK_BUF_X ? b->x_stride : b->y_stride) * 4;
    uint64_t first = (uint64_t) window * blocks->block_tokens;
    uint64_t begin = first - first % blocks->window_step;
    uint64_t n_rows = first - begin + blocks->block_tokens;
    uint64_t at = begin * stride;
    place.offset += at;
    place.address += at;
    place.size = moe_min(place.size - at, n_rows * stride);
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
    if (range->buffer == MOE_VK_BUF_X || range->buffer == MOE_VK_BUF_Y)
        return rows_place(b, regime, window, range->buffer);
    struct moe_vk_place place = b->buffers[range->buffer];
    place.offset += range->offset;
    place.address += range->offset;
    place.size = range->size;
    return place;
}
