// SPDX-License-Identifier: MIT
// Packed weights on a Vulkan device: their buffers, and how they get there.
#include "vulkan/plan.h"

#include <string.h>

#include "base/bits.h"

// Staging memory of which a part is filled while the other one is copied.
enum { N_PARTS = 2, PART_SIZE = 8 << 20 };
struct part {
    struct moe_vk_buffer staging;
    struct moe_vk_command command;
    bool submitted; // and not waited for
};

// Streams bytes to the segments in order: straight through their mappings, or by staging. Without a
// queue each segment's own staging holds them all, for the caller to upload.
struct upload {
    struct moe_vk *vk;
    struct moe_vk_segment *segment;
    struct part parts[N_PARTS]; // for all segments
    uint32_t current;
    uint64_t offset, fill; // written to the segment; waiting in staging
};

static enum vkmoe_status upload_begin(struct upload *u, struct moe_vk_segment *segment)
{
    u->segment = segment;
    u->offset = u->fill = 0;
    if (segment->buffer.mapped || u->vk->queue)
        return VKMOE_OK;
    return moe_vk_buffer_create(u->vk, segment->size, MOE_VK_UPLOAD, "vkmoe staging",
                                &segment->staging);
}

static enum vkmoe_status part_wait(struct moe_vk *vk, struct part *part)
{
    bool submitted = part->submitted;
    part->submitted = false;
    return submitted ? moe_vk_command_wait(vk, &part->command) : VKMOE_OK;
}

static enum vkmoe_status part_create(struct moe_vk *vk, uint64_t size, struct part *part)
{
    enum vkmoe_status status = VKMOE_OK;
    TRY(moe_vk_buffer_create(vk, size, MOE_VK_UPLOAD, "vkmoe staging", &part->staging));
    TRY(moe_vk_command_create(vk, &part->command));

fail:
    return status;
}

// The staging memory that may be written now.
static enum vkmoe_status get_staging(struct upload *u, const struct moe_vk_buffer **out)
{
    enum vkmoe_status status = VKMOE_OK;
    struct part *part = &u->parts[u->current];
    *out = u->vk->queue ? &part->staging : &u->segment->staging;
    if (!u->vk->queue)
        return VKMOE_OK;
    if (!part->staging.handle)
        TRY(part_create(u->vk, moe_min(u->segment->size, PART_SIZE), part));
    TRY(part_wait(u->vk, part));

fail:
    return status;
}

static void record_copy(struct moe_vk *vk, VkCommandBuffer cmd, const struct moe_vk_buffer *staging,
                        const struct moe_vk_segment *to, uint64_t offset, uint64_t size)
{
    VkBufferCopy copy = {.dstOffset = to->offset + offset, .size = size};
    vk->fn.vkCmdCopyBuffer(cmd, staging->handle, to->buffer.handle, 1, &copy);
    moe_vk_barrier(vk, cmd, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
                   VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_READ_BIT);
}

// Sends what waits in staging on its way.
static enum vkmoe_status upload_flush(struct upload *u)
{
    enum vkmoe_status status = VKMOE_OK;
    struct part *part = &u->parts[u->current];
    if (u->fill == 0 || !u->vk->queue)
        return VKMOE_OK;
    TRY(moe_vk_command_begin(u->vk, &part->command));
    record_copy(u->vk, part->command.buffer, &part->staging, u->segment, u->offset, u->fill);
    TRY(moe_vk_command_submit(u->vk, &part->command));
    part->submitted = true;
    u->current = (u->current + 1) % N_PARTS;
    u->offset += u->fill;
    u->fill = 0;

fail:
    return status;
}

static enum vkmoe_status upload_write(struct upload *u, const void *data, uint64_t size)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_vk_buffer *staging;
    if (u->segment->buffer.mapped) {
        memcpy((unsigned char *) u->segment->buffer.mapped + u->offset, data, size);
        u->offset += size;
        return VKMOE_OK;
    }
    for (uint64_t done = 0; done < size;) {
        TRY(get_staging(u, &staging));
        uint64_t n = moe_min(size - done, staging->size - u->fill);
        memcpy((unsigned char *) staging->mapped + u->fill, (const unsigned char *) data + done, n);
        u->fill += n;
        done += n;
        if (u->fill == staging->size)
            TRY(upload_flush(u));
    }
    return VKMOE_OK;

fail:
    return status;
}

// The segment is written.
static enum vkmoe_status upload_end(struct upload *u)
{
    const struct moe_vk_buffer *buffer = &u->segment->buffer;
    return buffer->mapped ? moe_vk_buffer_flush(u->vk, buffer, 0, buffer->size) : upload_flush(u);
}

// All of it has arrived. After an error too nothing may be on its way: its memory goes away.
static enum vkmoe_status upload_finish(struct upload *u, enum vkmoe_status status)
{
    for (uint32_t i = 0; i < N_PARTS; i++) {
        enum vkmoe_status waited = part_wait(u->vk, &u->parts[i]);
        status = status == VKMOE_OK ? waited : status;
    }
    for (uint32_t i = 0; i < N_PARTS; i++) {
        moe_vk_command_destroy(u->vk, &u->parts[i].command);
        moe_vk_buffer_destroy(u->vk, &u->parts[i].staging);
    }
    return status;
}

static enum vkmoe_status write_packed(void *user, const void *data, uint64_t size)
{
    return upload_write(user, data, size);
}

static enum vkmoe_status upload_block(struct upload *u, const struct moe_layer *layer,
                                      const struct moe_weights_source *source,
                                      const struct moe_vk_placed *block)
{
    enum vkmoe_status status;
    const struct moe_device *device = &u->vk->base;
    const struct moe_vk_sink sink = {write_packed, u};
    struct moe_source_expert from;
    if (block->expert == MOE_VK_LATENT)
        return moe_vk_pack_latent(device, layer, source->latent, source->out_bias, &sink);
    TRY(moe_source_get(source, layer, block->expert, &from));
    if (from.packed)
        TRY(upload_write(u, from.packed, block->size));
    else
        TRY(moe_vk_pack_block(device, layer, block->expert, &from.tensors, &sink));

fail:
    return status;
}

// Scratch of an upload: the head or the vectors, a row of the router.
struct scratch {
    unsigned char *block;
    float *row;
};

// A segment's contents: the first one begins with the head, the last one ends with the vectors.
// *next: the first block that is not in those before it.
static enum vkmoe_status upload_segment(struct upload *u, struct moe_vk_weights *weights,
                                        const struct moe_vk_weights_map *map,
                                        const struct moe_weights_source *source, uint32_t i,
                                        const struct scratch *scratch, uint32_t *next)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_layer *layer = &weights->base.layer;
    struct moe_vk_segment *segment = &weights->segments[i];
    TRY(upload_begin(u, segment));
    if (i == 0) {
        moe_vk_pack_head(weights, map, source->router, scratch->row, scratch->block);
        TRY(upload_write(u, scratch->block, map->experts));
    }
    for (; *next < moe_vk_n_blocks(layer); ++*next) {
        struct moe_vk_placed block = moe_vk_placed(layer, map, *next);
        if (block.offset >= segment->start + segment->size)
            break;
        TRY(upload_block(u, layer, source, &block));
    }
    if (i + 1 == weights->n_segments && map->vectors_size > 0) {
        memset(scratch->block, 0, map->vectors_size);
        moe_vk_pack_vectors(layer, map, source, scratch->block);
        TRY(upload_write(u, scratch->block, map->vectors_size));
    }
    TRY(upload_end(u));
    return VKMOE_OK;

fail:
    return status;
}

static enum vkmoe_status upload_all(struct moe_vk *vk, struct moe_vk_weights *weights,
                                    const struct moe_vk_weights_map *map,
                                    const struct moe_weights_source *source)
{
    enum vkmoe_status status = VKMOE_OK;
    struct upload u = {.vk = vk};
    struct scratch scratch = {0};
    uint32_t next = 0;
    size_t row_size = weights->base.layer.desc.d_model * sizeof *scratch.row;
    TRY(moe_try_alloc(vk->base.host, moe_max(map->experts, map->vectors_size), "router",
                      &scratch.block));
    TRY(moe_try_alloc(vk->base.host, row_size, "router row", &scratch.row));
    for (uint32_t i = 0; i < weights->n_segments; i++)
        TRY(upload_segment(&u, weights, map, source, i, &scratch, &next));

fail:
    status = upload_finish(&u, status);
    moe_free(vk->base.host, scratch.row);
    moe_free(vk->base.host, scratch.block);
    return status;
}

// ---- without a queue ---------------------------------------------------------------------------

// Each segment for itself: where the heap that the host sees was full, some are out of its sight.
static bool in_sight(const struct moe_vk_weights *weights)
{
    for (uint32_t i = 0; i < weights->n_segments; i++)
        if (!weights->segments[i].buffer.mapped)
            return false;
    return true;
}

static bool staged(const struct moe_vk_weights *weights)
{
    for (uint32_t i = 0; i < weights->n_segments; i++)
        if (!weights->segments[i].buffer.mapped && !weights->segments[i].staging.handle)
            return false;
    return true;
}

bool moe_vk_weights_ready(const struct moe_vk_weights *weights)
{
    return weights->upload_recorded || moe_vk(weights->base.device)->queue || in_sight(weights);
}

enum vkmoe_status moe_vk_record_upload(struct moe_packed_weights *base, VkCommandBuffer cmd)
{
    struct moe_vk *vk = moe_vk(base->device);
    struct moe_vk_weights *weights = (struct moe_vk_weights *) base;
    if (!vk->queue && !staged(weights))
        return moe_fail(VKMOE_E_ARGUMENT, "the weights' staging is released: nothing to upload");
    for (uint32_t i = 0; i < weights->n_segments; i++) {
        const struct moe_vk_segment *segment = &weights->segments[i];
        if (segment->staging.handle)
            record_copy(vk, cmd, &segment->staging, segment, 0, segment->size);
    }
    weights->upload_recorded = true;
    return VKMOE_OK;
}

void moe_vk_release_staging(struct moe_packed_weights *base)
{
    struct moe_vk_weights *weights = (struct moe_vk_weights *) base;
    for (uint32_t i = 0; i < weights->n_segments; i++)
        moe_vk_buffer_destroy(moe_vk(base->device), &weights->segments[i].staging);
}

// ---- create and destroy ------------------------------------------------------------------------

// All of the weights in the caller's buffer.
static void adopt(const struct moe_vk *vk, struct moe_vk_weights *weights,
                  const struct moe_vk_weights_map *map, const vkmoe_vk_buffer *buffer)
{
    struct moe_vk_segment *segment = &weights->segments[0];
    weights->adopted = true;
    segment->size = map->total;
    segment->offset = buffer->offset;
    segment->buffer = (struct moe_vk_buffer){.handle = buffer->buffer, .size = buffer->size};
    if (vk->bda)
        segment->buffer.address = moe_vk_buffer_address(vk, buffer->buffer) + buffer->offset;
}

static enum vkmoe_status create_segments(struct moe_vk *vk, struct moe_vk_weights *weights,
                                         const struct moe_vk_weights_map *map)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t i = 0; i < weights->n_segments; i++) {
        struct moe_vk_segment *segment = &weights->segments[i];
        segment->start = moe_vk_segment_start(map, i);
        segment->size = moe_vk_segment_start(map, i + 1) - segment->start;
        TRY(moe_vk_buffer_create(vk, segment->size, MOE_VK_INPUT, "vkmoe weights",
                                 &segment->buffer));
    }
    return VKMOE_OK;

fail:
    return status;
}

enum vkmoe_status moe_vk_weights_create(struct moe_device *device, const struct moe_layer *layer,
                                        const struct moe_weights_source *source,
                                        struct moe_packed_weights **out)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(device);
    struct moe_vk_weights_map map;
    struct moe_vk_limits limits = moe_vk_limits(vk, 0);
    struct moe_vk_weights *weights = NULL;
    TRY(moe_vk_weights_map(layer, &limits, &map));
    TRY(moe_try_alloc(device->host, sizeof *weights, "weights object", &weights));
    weights->base.device = device;
    weights->base.layer = *layer;
    uint32_t n = source->vk_buffer ? 1 : map.n_segments;
    TRY(moe_try_alloc(device->host, n * sizeof *weights->segments, "weights segments",
                      &weights->segments));
    weights->n_segments = n;
    if (source->vk_buffer)
        adopt(vk, weights, &map, source->vk_buffer);
    else
        TRY(create_segments(vk, weights, &map));
    TRY(upload_all(vk, weights, &map, source));
    *out = &weights->base;
    return VKMOE_OK;

fail:
    if (weights)
        moe_vk_weights_destroy(&weights->base);
    return status;
}

void moe_vk_weights_destroy(struct moe_packed_weights *base)
{
    struct moe_vk *vk = moe_vk(base->device);
    struct moe_vk_weights *weights = (struct moe_vk_weights *) base;
    moe_vk_release_staging(base);
    for (uint32_t i = 0; i < weights->n_segments; i++)
        if (!weights->adopted)
            moe_vk_buffer_destroy(vk, &weights->segments[i].buffer);
    moe_free(base->device->host, weights->segments);
    moe_free(base->device->host, weights);
}
