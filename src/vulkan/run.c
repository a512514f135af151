// SPDX-License-Identifier: MIT
// One run on host memory: block by block x in, slices of dispatches, results out.
#include "vulkan/bind.h"

#include <string.h>

#include "base/bits.h"
#include "core/dtype.h"

// A result on its way to the host: bytes at `offset` of a device buffer, and where the host reads.
struct result {
    const struct moe_vk_buffer *device;
    uint64_t offset, size;
    const unsigned char *host;
};

// A block of a run: tokens [first, first + run.n_tokens) of the caller's arrays.
struct block {
    uint32_t first;
    struct moe_vk_block_run run;
    struct result results[4]; // y, ids, gates, scores
    uint32_t n_staged;
};

static void write_x(struct moe_vk_bound *b, const struct block *block, const vkmoe_io *io)
{
    const struct moe_program *program = b->base.program;
    size_t row = (size_t) moe_dtype_size(program->x_type, program->graph.layer.desc.d_model);
    size_t stride = (size_t) b->x_stride * 4;
    unsigned char *dst = b->x.mapped ? b->x.mapped : b->upload.mapped;
    const unsigned char *src = (const unsigned char *) io->x + block->first * io->x_stride;
    for (uint32_t t = 0; t < block->run.n_tokens; t++)
        memcpy(dst + t * stride, src + t * io->x_stride, row);
}

// Where each asked-for result is, and where it will be read from.
static void plan_results(const struct moe_vk_bound *b, struct block *block, const vkmoe_io *io)
{
    const struct moe_vk_sequence *sequence = moe_vk_sequence_of(b, block->run.regime);
    const vkmoe_layer_desc *desc = &b->base.program->graph.layer.desc;
    uint64_t n_tokens = block->run.n_tokens, slots = n_tokens * desc->top_k * 4;
    struct result *results = block->results;
    results[0] = (struct result){&b->y, 0, n_tokens * b->y_stride * 4, NULL};
    results[1] = (struct result){&b->work, sequence->ids.offset, io->ids ? slots : 0, NULL};
    results[2] = (struct result){&b->work, sequence->gates.offset, io->gates ? slots : 0, NULL};
    results[3] = (struct result){&b->work, sequence->scores.offset,
                                 io->scores ? n_tokens * desc->n_experts * 4 : 0, NULL};
    block->n_staged = 0;
    uint64_t at = 0;
    for (int i = 0; i < 4; i++) {
        struct result *r = &results[i];
        if (r->device->mapped) {
            r->host = (const unsigned char *) r->device->mapped + r->offset;
        } else if (r->size) {
            r->host = (const unsigned char *) b->readback.mapped + at;
            at += r->size;
            block->n_staged++;
        }
    }
}

static void record_upload(const struct moe_vk *vk, const struct moe_vk_bound *b,
                          const struct block *block)
{
    if (b->x.mapped)
        return;
    VkBufferCopy copy = {.size = (uint64_t) block->run.n_tokens * b->x_stride * 4};
    vk->fn.vkCmdCopyBuffer(b->command.buffer, b->upload.handle, b->x.handle, 1, &copy);
    moe_vk_barrier(vk, b->command.buffer, VK_PIPELINE_STAGE_TRANSFER_BIT,
                   VK_ACCESS_TRANSFER_WRITE_BIT, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                   VK_ACCESS_SHADER_READ_BIT);
}

static void record_readback(const struct moe_vk *vk, const struct moe_vk_bound *b,
                            const struct block *block)
{
    VkCommandBuffer cmd = b->command.buffer;
    if (block->n_staged > 0) {
        moe_vk_barrier(vk, cmd, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
                       VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_READ_BIT);
        for (int i = 0; i < 4; i++) {
            const struct result *r = &block->results[i];
            if (!r->size || r->device->mapped)
                continue;
            VkBufferCopy copy = {
                .srcOffset = r->offset,
                .dstOffset = (uint64_t) (r->host - (const unsigned char *) b->readback.mapped),
                .size = r->size};
            vk->fn.vkCmdCopyBuffer(cmd, r->device->handle, b->readback.handle, 1, &copy);
        }
    }
    moe_vk_barrier(vk, cmd, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT,
                   VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_WRITE_BIT,
                   VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_READ_BIT);
}

static void read_results(const struct moe_vk_bound *b, const struct block *block,
                         const vkmoe_io *io)
{
    const vkmoe_layer_desc *desc = &b->base.program->graph.layer.desc;
    const struct result *results = block->results;
    size_t row = (size_t) moe_dtype_size(b->base.program->x_type, desc->d_out);
    size_t stride = (size_t) b->y_stride * 4, first = block->first;
    unsigned char *y = (unsigned char *) io->y + first * io->y_stride;
    for (uint32_t t = 0; t < block->run.n_tokens; t++)
        memcpy(y + t * io->y_stride, results[0].host + t * stride, row);
    if (io->ids)
        memcpy(io->ids + first * desc->top_k, results[1].host, results[1].size);
    if (io->gates)
        memcpy(io->gates + first * desc->top_k, results[2].host, results[2].size);
    if (io->scores)
        memcpy(io->scores + first * desc->n_experts, results[3].host, results[3].size);
}

// ---- slices ------------------------------------------------------------------------------------

// Dispatches from `first` on that should take no longer than the budget, at least one; *work is
// theirs.
static uint32_t next_slice(const struct moe_vk_bound *b, const struct block *block, uint32_t first,
                           double *work)
{
    const struct moe_vk_sequence *sequence = moe_vk_sequence_of(b, block->run.regime);
    double budget = ((const struct moe_vk_program *) b->base.program)->budget_ms * 1e6;
    uint32_t n = 0;
    *work = 0;
    for (uint32_t i = first; i < sequence->n; i++, n++) {
        double more = *work + moe_vk_work(&sequence->dispatches[i], block->run.n_tokens);
        if (n > 0 && more * b->ns_per_work > budget)
            break;
        *work = more;
    }
    return n;
}

static enum vkmoe_status run_block(struct moe_vk *vk, struct moe_vk_bound *b,
                                   const struct block *block)
{
    enum vkmoe_status status = VKMOE_OK;
    double budget = ((const struct moe_vk_program *) b->base.program)->budget_ms * 1e6;
    uint32_t begin = moe_vk_first_dispatch(b);
    uint32_t end = moe_vk_sequence_of(b, block->run.regime)->n;
    for (uint32_t first = begin, n; first < end; first += n) {
        double work;
        n = next_slice(b, block, first, &work);
        TRY(moe_vk_command_begin(vk, &b->command));
        if (first == begin)
            record_upload(vk, b, block);
        moe_vk_record_block(b, b->command.buffer, &block->run, first, n);
        if (first + n == end)
            record_readback(vk, b, block);
        double start = moe_vk_now_ns();
        TRY(moe_vk_command_run(vk, &b->command));
        moe_vk_learn(&b->ns_per_work, budget, work, moe_vk_now_ns() - start);
    }
    return VKMOE_OK;

fail:
    return status;
}

enum vkmoe_status moe_vk_run(struct moe_bound *bound, uint32_t n_tokens, const vkmoe_io *io)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk_of(bound);
    struct moe_vk_bound *b = (struct moe_vk_bound *) bound;
    struct block block = {
        .run = {.regime = moe_vk_choose_regime(n_tokens), .block_first = MOE_NONE}};
    uint32_t block_tokens = b->blocks[block.run.regime].block_tokens;
    for (; block.first < n_tokens; block.first += block.run.n_tokens) {
        block.run.n_tokens = (uint32_t) moe_min(block_tokens, n_tokens - block.first);
        plan_results(b, &block, io);
        write_x(b, &block, io);
        TRY(run_block(vk, b, &block));
        if (block.n_staged > 0)
            TRY(moe_vk_buffer_invalidate(vk, &b->readback));
        read_results(b, &block, io);
    }
    return VKMOE_OK;

fail:
    return status;
}
