// SPDX-License-Identifier: MIT
// Packed experts on a Vulkan device. The layout depends on the layer alone, never on a kernel
// variant.
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
    uint64_t in_rows = desc->gated ? moe_align_up(d_ff, MOE_PANEL_ROWS) * 2 : d_ff;
    uint64_t in_bias = in_rows * in_stride;
    uint64_t out_weight = in_bias + moe_align_up(in_rows * sizeof(float), VEC);
    uint64_t out_bias = out_weight + desc->d_out * out_stride;
    uint64_t end = out_bias + moe_align_up(desc->d_out * sizeof(float), VEC);
    if (end / VEC > MOE_VK_MAX_INDEX)
        return too_large("an expert", end);
    *out = (struct moe_vk_block){
        .in_stride = (uint32_t) (in_stride / VEC),
        .in_rows = (uint32_t) in_rows,
        .in_bias = (uint32_t) (in_bias / VEC),
        .out_weight = (uint32_t) (out_weight / VEC),
        .out_stride = (uint32_t) (out_stride / VEC),
        .out_rows = desc->d_out,
        .out_bias = (uint32_t) (out_bias / VEC),
        .size = moe_align_up(end, BLOCK_ALIGN),
    };
    return VKMOE_OK;
}

enum vkmoe_status moe_vk_weights_map(const struct moe_layer *layer, struct moe_vk_weights_map *out)
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
    return VKMOE_OK;

fail:
    return status;
}

enum vkmoe_status moe_vk_weights_layout(const struct moe_device *device,
                                        const struct moe_layer *layer, vkmoe_weights_layout *out)
{
    (void) device;
    struct moe_vk_weights_map map;
    enum vkmoe_status status = moe_vk_weights_map(layer, &map);
    *out = (vkmoe_weights_layout){map.expert_size, map.shared_size, map.total};
    return status;
}

// Stores row `row` of a tensor as packed row `packed` of a matrix that starts at uvec4 `at`.
static void pack_row(const vkmoe_tensor *tensor, enum vkmoe_dtype type, uint32_t row,
                     uint32_t width, unsigned char *matrix, uint32_t stride, uint32_t packed,
                     float *scratch)
{
    void *dst = matrix + (uint64_t) packed * stride * VEC;
    if (tensor->type == type) {
        uint64_t size = moe_dtype_size(type, width);
        memcpy(dst, (const unsigned char *) tensor->data + row * size, size);
        return;
    }
    moe_tensor_row(tensor, row, width, scratch);
    moe_dtype_encode(type, scratch, width, dst);
}

static uint32_t packed_row(bool gated, bool up, uint32_t row)
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
    float *in_bias = (float *) (bytes + (uint64_t) block.in_bias * VEC);
    for (uint32_t row = 0; row < d_ff; row++) {
        uint32_t up = packed_row(desc->gated, true, row), gate = packed_row(true, false, row);
        pack_row(&tensors->up, desc->in_type, row, desc->d_model, bytes, block.in_stride, up,
                 scratch);
        in_bias[up] = tensors->up_bias ? tensors->up_bias[row] : 0.0f;
        if (!desc->gated)
            continue;
        pack_row(&tensors->gate, desc->in_type, row, desc->d_model, bytes, block.in_stride, gate,
                 scratch);
        in_bias[gate] = tensors->gate_bias ? tensors->gate_bias[row] : 0.0f;
    }
    unsigned char *down = bytes + (uint64_t) block.out_weight * VEC;
    for (uint32_t row = 0; row < desc->d_out; row++)
        pack_row(&tensors->down, desc->out_type, row, d_ff, down, block.out_stride, row, scratch);
    if (tensors->down_bias)
        memcpy(bytes + (uint64_t) block.out_bias * VEC, tensors->down_bias,
               desc->d_out * sizeof(float));
    moe_free(device->host, scratch);
    return VKMOE_OK;

fail:
    return status;
}

// The head of the buffer: expert table, transposed router, biases.
static void pack_head(const struct moe_vk_weights *weights, const struct moe_vk_weights_map *map,
                      const vkmoe_router_tensors *router, float *row, unsigned char *head)
{
    const vkmoe_layer_desc *desc = &weights->base.layer.desc;
    uint64_t *table = (uint64_t *) head;
    uint64_t base = weights->buffer.address;
    for (uint64_t e = 0; e < desc->n_experts; e++) {
        uint64_t offset = map->experts + e * map->expert_size;
        table[e] = base ? base + offset : offset / VEC;
    }
    if (map->shared_size)
        table[desc->n_experts] = base ? base + map->shared : map->shared / VEC;

    float *weight = (float *) (head + (uint64_t) map->router_weight * VEC);
    float *bias = (float *) (head + (uint64_t) map->router_bias * VEC);
    float *selection = (float *) (head + (uint64_t) map->router_selection * VEC);
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

// Streams bytes to the buffer in order: straight through its mapping, or by staging. Without a
// queue staging holds them all, for the caller to upload.
struct upload {
    struct moe_vk *vk;
    struct moe_vk_weights *to;
    struct moe_vk_command command;
    uint64_t offset, fill; // written to the buffer; waiting in staging
};

static enum vkmoe_status upload_begin(struct upload *u)
{
    enum { STAGING_SIZE = 16 << 20 };
    enum vkmoe_status status = VKMOE_OK;
    if (u->to->buffer.mapped)
        return VKMOE_OK;
    uint64_t size = u->to->buffer.size;
    if (u->vk->queue)
        size = moe_min(size, STAGING_SIZE);
    TRY(moe_vk_buffer_create(u->vk, size, MOE_VK_UPLOAD, "vkmoe staging", &u->to->staging));
    if (u->vk->queue)
        TRY(moe_vk_command_create(u->vk, &u->command));
    return VKMOE_OK;

fail:
    return status;
}

static void record_copy(struct moe_vk *vk, VkCommandBuffer cmd, const struct moe_vk_weights *to,
                        uint64_t offset, uint64_t size)
{
    VkBufferCopy copy = {.dstOffset = offset, .size = size};
    vk->fn.vkCmdCopyBuffer(cmd, to->staging.handle, to->buffer.handle, 1, &copy);
    moe_vk_barrier(vk, cmd, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
                   VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_READ_BIT);
}

static enum vkmoe_status upload_flush(struct upload *u)
{
    enum vkmoe_status status = VKMOE_OK;
    if (u->fill == 0 || !u->vk->queue)
        return VKMOE_OK;
    TRY(moe_vk_command_begin(u->vk, &u->command));
    record_copy(u->vk, u->command.buffer, u->to, u->offset, u->fill);
    TRY(moe_vk_command_run(u->vk, &u->command));
    u->offset += u->fill;
    u->fill = 0;
    return VKMOE_OK;

fail:
    return status;
}

static enum vkmoe_status upload_write(struct upload *u, const void *data, uint64_t size)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_vk_buffer *staging = &u->to->staging;
    if (u->to->buffer.mapped) {
        memcpy((unsigned char *) u->to->buffer.mapped + u->offset, data, size);
        u->offset += size;
        return VKMOE_OK;
    }
    for (uint64_t done = 0; done < size;) {
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

static void upload_end(struct upload *u)
{
    moe_vk_command_destroy(u->vk, &u->command);
    if (u->vk->queue)
        moe_vk_buffer_destroy(u->vk, &u->to->staging);
}

enum vkmoe_status moe_vk_record_upload(struct moe_packed_weights *base, VkCommandBuffer cmd)
{
    struct moe_vk_weights *weights = (struct moe_vk_weights *) base;
    if (!moe_vk(base->device)->queue && !weights->buffer.mapped && !weights->staging.handle)
        return moe_fail(VKMOE_E_ARGUMENT, "the weights' staging is released: nothing to upload");
    if (weights->staging.handle)
        record_copy(moe_vk(base->device), cmd, weights, 0, weights->staging.size);
    weights->upload_recorded = true;
    return VKMOE_OK;
}

void moe_vk_release_staging(struct moe_packed_weights *base)
{
    moe_vk_buffer_destroy(moe_vk(base->device), &((struct moe_vk_weights *) base)->staging);
}

static enum vkmoe_status upload_block(struct upload *u, const struct moe_layer *layer,
                                      uint32_t expert, const vkmoe_expert_tensors *tensors,
                                      const void *packed, uint64_t size, void *scratch)
{
    if (!packed) {
        enum vkmoe_status status =
            moe_vk_pack_expert(&u->vk->base, layer, expert, tensors, scratch);
        if (status != VKMOE_OK)
            return status;
        packed = scratch;
    }
    return upload_write(u, packed, size);
}

static enum vkmoe_status upload_all(struct moe_vk *vk, struct moe_vk_weights *weights,
                                    const struct moe_vk_weights_map *map,
                                    const struct moe_weights_source *source)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_layer *layer = &weights->base.layer;
    struct upload u = {.vk = vk, .to = weights};
    uint64_t room = moe_max(moe_max(map->expert_size, map->shared_size), map->experts);
    unsigned char *block = NULL;
    float *row = NULL;
    TRY(moe_try_alloc(vk->base.host, room, "packed expert", &block));
    TRY(moe_try_alloc(vk->base.host, layer->desc.d_model * sizeof *row, "router row", &row));
    TRY(upload_begin(&u));
    pack_head(weights, map, source->router, row, block);
    TRY(upload_write(&u, block, map->experts));
    for (uint32_t e = 0; e < layer->desc.n_experts; e++)
        TRY(upload_block(&u, layer, e, source->experts ? &source->experts[e] : NULL,
                         source->packed_experts ? source->packed_experts[e] : NULL,
                         map->expert_size, block));
    if (map->shared_size)
        TRY(upload_block(&u, layer, VKMOE_SHARED_EXPERT, source->shared, source->packed_shared,
                         map->shared_size, block));
    TRY(upload_flush(&u));

fail:
    upload_end(&u);
    moe_free(vk->base.host, row);
    moe_free(vk->base.host, block);
    return status;
}

enum vkmoe_status moe_vk_weights_create(struct moe_device *device, const struct moe_layer *layer,
                                        const struct moe_weights_source *source,
                                        struct moe_packed_weights **out)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(device);
    struct moe_vk_weights_map map;
    struct moe_vk_weights *weights = NULL;
    TRY(moe_vk_weights_map(layer, &map));
    if (!vk->bda && map.total > vk->caps.max_storage_range)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "weights of %" PRIu64 " bytes; %s binds at most %" PRIu64
                        " without buffer device address",
                        map.total, device->info.name, vk->caps.max_storage_range);
    TRY(moe_try_alloc(device->host, sizeof *weights, "weights object", &weights));
    weights->base.device = device;
    weights->base.layer = *layer;
    TRY(moe_vk_buffer_create(vk, map.total, MOE_VK_DEVICE, "vkmoe weights", &weights->buffer));
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
    struct moe_vk_weights *weights = (struct moe_vk_weights *) base;
    moe_vk_buffer_destroy(moe_vk(base->device), &weights->staging);
    moe_vk_buffer_destroy(moe_vk(base->device), &weights->buffer);
    moe_free(base->device->host, weights);
}
