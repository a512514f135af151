// SPDX-License-Identifier: MIT
// Every allocation and descriptor write of a program happens here.
#include "vulkan/bind.h"

#include <inttypes.h>

#include "base/bits.h"

static void set_buffer(struct moe_vk_bound *b, enum moe_vk_buffer_id id, VkBuffer handle,
                       uint64_t offset, uint64_t size, uint64_t address)
{
    b->buffers[id].handle = handle;
    b->buffers[id].offset = offset;
    b->buffers[id].size = size;
    b->buffers[id].address = address;
}

static void set_own(struct moe_vk_bound *b, enum moe_vk_buffer_id id,
                    const struct moe_vk_buffer *buffer)
{
    set_buffer(b, id, buffer->handle, 0, buffer->size, buffer->address);
}

static void set_callers(struct moe_vk *vk, struct moe_vk_bound *b, enum moe_vk_buffer_id id,
                        const vkmoe_vk_buffer *buffer)
{
    uint64_t address = 0;
    if (vk->bda) {
        VkBufferDeviceAddressInfo info = {.sType = VK_STRUCTURE_TYPE_BUFFER_DEVICE_ADDRESS_INFO,
                                          .buffer = buffer->buffer};
        address = vk->fn.vkGetBufferDeviceAddress(vk->device, &info) + buffer->offset;
    }
    set_buffer(b, id, buffer->buffer, buffer->offset, buffer->size, address);
}

// Buffers for x and y, and staging where the host cannot reach them or the results directly.
static enum vkmoe_status create_io(struct moe_vk *vk, struct moe_vk_bound *b)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_vk_program *program = (const struct moe_vk_program *) b->base.program;
    const vkmoe_layer_desc *desc = &program->base.graph.layer.desc;
    if (!vk->queue)
        return moe_fail(VKMOE_E_UNSUPPORTED, "this context only records: give the bind vk_io");
    uint64_t x_size = (uint64_t) program->base.max_tokens * desc->d_model * sizeof(float);
    uint64_t y_size = (uint64_t) program->base.max_tokens * desc->d_out * sizeof(float);
    TRY(moe_vk_buffer_create(vk, x_size, MOE_VK_DEVICE, "vkmoe x", &b->x));
    TRY(moe_vk_buffer_create(vk, y_size, MOE_VK_DEVICE, "vkmoe y", &b->y));
    if (!b->x.mapped)
        TRY(moe_vk_buffer_create(vk, x_size, MOE_VK_UPLOAD, "vkmoe upload", &b->upload));
    if (!b->y.mapped || !b->work.mapped) {
        uint64_t size = y_size + program->ids.size + program->gates.size + program->scores.size;
        TRY(moe_vk_buffer_create(vk, size, MOE_VK_READBACK, "vkmoe readback", &b->readback));
    }
    TRY(moe_vk_command_create(vk, &b->command));
    b->x_stride = desc->d_model;
    b->y_stride = desc->d_out;
    set_own(b, MOE_VK_BUF_X, &b->x);
    set_own(b, MOE_VK_BUF_Y, &b->y);
    return VKMOE_OK;

fail:
    return status;
}

// x and y are bound whole: their rows may have any stride.
static uint64_t bound_size(const struct moe_vk_bound *b, const struct moe_vk_range *range)
{
    bool whole = range->buffer == MOE_VK_BUF_X || range->buffer == MOE_VK_BUF_Y;
    return whole ? b->buffers[range->buffer].size : range->size;
}

static void write_set(struct moe_vk *vk, struct moe_vk_bound *b, const struct moe_vk_dispatch *d,
                      VkDescriptorSet set)
{
    VkDescriptorBufferInfo infos[4];
    VkWriteDescriptorSet writes[4];
    uint32_t n = 0;
    for (uint32_t slot = 0; slot < 4; slot++) {
        const struct moe_vk_range *range = &d->ranges[slot];
        if (!range->size)
            continue;
        infos[n] =
            (VkDescriptorBufferInfo){.buffer = b->buffers[range->buffer].handle,
                                     .offset = b->buffers[range->buffer].offset + range->offset,
                                     .range = bound_size(b, range)};
        writes[n] = (VkWriteDescriptorSet){.sType = VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET,
                                           .dstSet = set,
                                           .dstBinding = slot,
                                           .descriptorCount = 1,
                                           .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                           .pBufferInfo = &infos[n]};
        n++;
    }
    vk->fn.vkUpdateDescriptorSets(vk->device, n, writes, 0, NULL);
}

static enum vkmoe_status create_sets(struct moe_vk *vk, struct moe_vk_bound *b)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_vk_program *program = (const struct moe_vk_program *) b->base.program;
    uint32_t n_sets = program->n_dispatches[MOE_VK_DECODE] + program->n_dispatches[MOE_VK_GROUPED];
    VkDescriptorPoolSize size = {.type = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                 .descriptorCount = 4 * n_sets};
    VkDescriptorPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO,
                                       .maxSets = n_sets,
                                       .poolSizeCount = 1,
                                       .pPoolSizes = &size};
    VK_TRY(vk, vk->fn.vkCreateDescriptorPool(vk->device, &pool, NULL, &b->pool));
    VkDescriptorSetAllocateInfo info = {.sType = VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO,
                                        .descriptorPool = b->pool,
                                        .descriptorSetCount = 1,
                                        .pSetLayouts = &vk->set_layout};
    for (int regime = 0; regime < MOE_VK_N_REGIMES; regime++)
        for (uint32_t i = 0; i < program->n_dispatches[regime]; i++) {
            VkDescriptorSet *set = &b->sets[regime][i];
            VK_TRY(vk, vk->fn.vkAllocateDescriptorSets(vk->device, &info, set));
            write_set(vk, b, &program->dispatches[regime][i], *set);
        }
    return VKMOE_OK;

fail:
    return status;
}

// What kernels cannot index or the device cannot bind is refused before anything is made.
static enum vkmoe_status check_vk_io(const struct moe_vk *vk, const vkmoe_vk_io *io)
{
    uint64_t limit = vk->bda ? MOE_VK_MAX_WORDS_SIZE : vk->caps.max_storage_range;
    uint64_t size = moe_max(io->x.size, io->y.size);
    if (size > limit)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "vk_io: a range of %" PRIu64 " bytes; this device binds at most %" PRIu64,
                        size, limit);
    return VKMOE_OK;
}

enum vkmoe_status moe_vk_bind_create(struct moe_program *program,
                                     struct moe_packed_weights *weights, const vkmoe_vk_io *vk_io,
                                     struct moe_bound **out)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(program->device);
    struct moe_vk_bound *b = NULL;
    if (vk_io)
        TRY(check_vk_io(vk, vk_io));
    TRY(moe_try_alloc(vk->base.host, sizeof *b, "bind", &b));
    b->base.program = program;
    b->base.weights = weights;
    TRY(moe_vk_buffer_create(vk, ((struct moe_vk_program *) program)->work_size, MOE_VK_DEVICE,
                             "vkmoe workspace", &b->work));
    set_own(b, MOE_VK_BUF_WEIGHTS, &((struct moe_vk_weights *) weights)->buffer);
    set_own(b, MOE_VK_BUF_WORK, &b->work);
    if (vk_io) {
        set_callers(vk, b, MOE_VK_BUF_X, &vk_io->x);
        set_callers(vk, b, MOE_VK_BUF_Y, &vk_io->y);
        b->x_stride = (uint32_t) (vk_io->x_stride / 4);
        b->y_stride = (uint32_t) (vk_io->y_stride / 4);
    } else {
        TRY(create_io(vk, b));
    }
    if (!vk->bda)
        TRY(create_sets(vk, b));
    *out = &b->base;
    return VKMOE_OK;

fail:
    if (b)
        moe_vk_bind_destroy(&b->base);
    return status;
}

void moe_vk_bind_destroy(struct moe_bound *bound)
{
    struct moe_vk_bound *b = (struct moe_vk_bound *) bound;
    struct moe_vk *vk = moe_vk_of(bound);
    moe_vk_command_destroy(vk, &b->command);
    if (b->pool)
        vk->fn.vkDestroyDescriptorPool(vk->device, b->pool, NULL);
    moe_vk_buffer_destroy(vk, &b->readback);
    moe_vk_buffer_destroy(vk, &b->upload);
    moe_vk_buffer_destroy(vk, &b->y);
    moe_vk_buffer_destroy(vk, &b->x);
    moe_vk_buffer_destroy(vk, &b->work);
    moe_free(vk->base.host, b);
}
