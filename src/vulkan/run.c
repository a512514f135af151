// SPDX-License-Identifier: MIT
// One run on host memory: x in, record, submit, wait, results out.
#include "vulkan/bind.h"

#include <string.h>

// A result on its way to the host: bytes at `offset` of a device buffer, and where the host reads.
struct result {
    const struct moe_vk_buffer *device;
    uint64_t offset, size;
    const unsigned char *host;
};

static void write_x(struct moe_vk_bound *b, uint32_t n_tokens, const vkmoe_io *io)
{
    size_t row = (size_t) b->x_stride * sizeof(float);
    unsigned char *dst = b->x.mapped ? b->x.mapped : b->upload.mapped;
    for (uint32_t t = 0; t < n_tokens; t++)
        memcpy(dst + t * row, (const unsigned char *) io->x + t * io->x_stride, row);
}

// Where each asked-for result is, and where it will be read from; returns how many.
static uint32_t plan_results(const struct moe_vk_bound *b, uint32_t n_tokens, const vkmoe_io *io,
                             struct result results[4])
{
    const struct moe_vk_program *program = (const struct moe_vk_program *) b->base.program;
    const vkmoe_layer_desc *desc = &program->base.graph.layer.desc;
    uint64_t slots = (uint64_t) n_tokens * desc->top_k * 4;
    results[0] = (struct result){&b->y, 0, (uint64_t) n_tokens * b->y_stride * 4, NULL};
    results[1] = (struct result){&b->work, program->ids.offset, io->ids ? slots : 0, NULL};
    results[2] = (struct result){&b->work, program->gates.offset, io->gates ? slots : 0, NULL};
    results[3] = (struct result){&b->work, program->scores.offset,
                                 io->scores ? (uint64_t) n_tokens * desc->n_experts * 4 : 0, NULL};
    uint32_t n_staged = 0;
    uint64_t at = 0;
    for (int i = 0; i < 4; i++) {
        struct result *r = &results[i];
        if (r->device->mapped) {
            r->host = (const unsigned char *) r->device->mapped + r->offset;
        } else if (r->size) {
            r->host = (const unsigned char *) b->readback.mapped + at;
            at += r->size;
            n_staged++;
        }
    }
    return n_staged;
}

static void record_readback(const struct moe_vk *vk, const struct moe_vk_bound *b,
                            const struct result results[4], uint32_t n_staged)
{
    VkCommandBuffer cmd = b->command.buffer;
    if (n_staged > 0) {
        moe_vk_barrier(vk, cmd, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
                       VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_READ_BIT);
        for (int i = 0; i < 4; i++) {
            if (!results[i].size || results[i].device->mapped)
                continue;
            VkBufferCopy copy = {
                .srcOffset = results[i].offset,
                .dstOffset =
                    (uint64_t) (results[i].host - (const unsigned char *) b->readback.mapped),
                .size = results[i].size};
            vk->fn.vkCmdCopyBuffer(cmd, results[i].device->handle, b->readback.handle, 1, &copy);
        }
    }
    moe_vk_barrier(vk, cmd, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
                   VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
                   VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_READ_BIT);
}

static void read_results(const struct moe_vk_bound *b, uint32_t n_tokens,
                         const struct result results[4], const vkmoe_io *io)
{
    size_t row = (size_t) b->y_stride * sizeof(float);
    for (uint32_t t = 0; t < n_tokens; t++)
        memcpy((unsigned char *) io->y + t * io->y_stride, results[0].host + t * row, row);
    if (io->ids)
        memcpy(io->ids, results[1].host, results[1].size);
    if (io->gates)
        memcpy(io->gates, results[2].host, results[2].size);
    if (io->scores)
        memcpy(io->scores, results[3].host, results[3].size);
}

enum vkmoe_status moe_vk_run(struct moe_bound *bound, uint32_t n_tokens, const vkmoe_io *io)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk_of(bound);
    struct moe_vk_bound *b = (struct moe_vk_bound *) bound;
    struct result results[4];
    uint32_t n_staged = plan_results(b, n_tokens, io, results);
    write_x(b, n_tokens, io);
    TRY(moe_vk_command_begin(vk, &b->command));
    if (!b->x.mapped) {
        VkBufferCopy copy = {.size = (uint64_t) n_tokens * b->x_stride * sizeof(float)};
        vk->fn.vkCmdCopyBuffer(b->command.buffer, b->upload.handle, b->x.handle, 1, &copy);
        moe_vk_barrier(vk, b->command.buffer, VK_PIPELINE_STAGE_TRANSFER_BIT,
                       VK_ACCESS_TRANSFER_WRITE_BIT, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                       VK_ACCESS_SHADER_READ_BIT);
    }
    TRY(moe_vk_record(bound, b->command.buffer, n_tokens, 0,
                      moe_vk_dispatch_count(bound, n_tokens)));
    record_readback(vk, b, results, n_staged);
    TRY(moe_vk_command_run(vk, &b->command));
    if (n_staged > 0)
        TRY(moe_vk_buffer_invalidate(vk, &b->readback));
    read_results(b, n_tokens, results, io);
    return VKMOE_OK;

fail:
    return status;
}
