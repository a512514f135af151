// SPDX-License-Identifier: MIT
// One run on host memory: block by block x in, slices of dispatches, results out.
#include "vulkan/run.h"

#include <string.h>

#include "base/bits.h"
#include "core/dtype.h"

_Static_assert(MOE_SPEC_COUNT < MOE_VK_MAX_SPEC, "kernels are told to count");
_Static_assert(MOE_COUNTER_WORD + 2 * MOE_N_COUNTERS <= MOE_TABLE_WORD, "room for the counters");

static bool counts(const struct moe_vk_bound *b)
{
    return ((const struct moe_vk_program *) b->base.program)->counters;
}

// Bytes of a block of an input; 0: the layer does not have it.
static uint64_t input_size(const struct moe_vk_bound *b, const struct moe_vk_host_block *block,
                           uint32_t i)
{
    return (uint64_t) block->run.n_tokens * b->strides[MOE_VK_BUF_X + i] * 4;
}

void moe_vk_write_inputs(const struct moe_vk_bound *b, const struct moe_vk_host_block *block,
                         const vkmoe_io *io)
{
    const struct {
        const void *rows;
        size_t stride;
    } from[MOE_VK_N_INPUTS] = {{io->x, io->x_stride},
                               {io->router_x, io->router_x_stride},
                               {io->token_ids, sizeof *io->token_ids}};
    unsigned char *staged = b->upload.mapped;
    for (uint32_t i = 0; i < MOE_VK_N_INPUTS; i++) {
        struct moe_vk_input input = moe_vk_input(b->base.program, i);
        if (input.n_elements == 0)
            continue;
        size_t row = (size_t) moe_dtype_size(input.type, input.n_elements);
        size_t stride = (size_t) b->strides[MOE_VK_BUF_X + i] * 4;
        unsigned char *dst = b->inputs[i].mapped ? b->inputs[i].mapped : staged;
        const unsigned char *src =
            (const unsigned char *) from[i].rows + block->first * from[i].stride;
        for (uint32_t t = 0; t < block->run.n_tokens; t++)
            memcpy(dst + t * stride, src + t * from[i].stride, row);
        if (!b->inputs[i].mapped)
            staged += input_size(b, block, i);
    }
}

void moe_vk_plan_results(const struct moe_vk_bound *b, struct moe_vk_host_block *block,
                         const vkmoe_io *io)
{
    const struct moe_vk_sequence *sequence = moe_vk_sequence_of(b, block->run.regime);
    const vkmoe_layer_desc *desc = &b->base.program->graph.layer.desc;
    uint64_t n_tokens = block->run.n_tokens, slots = n_tokens * desc->top_k * 4;
    struct moe_vk_result *results = block->results;
    results[0] = (struct moe_vk_result){&b->y, 0, n_tokens * b->strides[MOE_VK_BUF_Y] * 4, NULL};
    results[1] = (struct moe_vk_result){&b->work, sequence->ids.offset, io->ids ? slots : 0, NULL};
    results[2] =
        (struct moe_vk_result){&b->work, sequence->gates.offset, io->gates ? slots : 0, NULL};
    uint64_t scores_size = n_tokens * moe_layer_n_scored(desc) * 4;
    results[3] = (struct moe_vk_result){&b->work, sequence->scores.offset,
                                        io->scores ? scores_size : 0, NULL};
    results[4] = (struct moe_vk_result){&b->work, MOE_COUNTER_WORD * 4,
                                        counts(b) ? MOE_VK_COUNTERS_SIZE : 0, NULL};
    block->n_staged = 0;
    uint64_t at = 0;
    for (int i = 0; i < MOE_VK_N_RESULTS; i++) {
        struct moe_vk_result *r = &results[i];
        if (r->device->mapped) {
            r->host = (const unsigned char *) r->device->mapped + r->offset;
        } else if (r->size) {
            r->host = (const unsigned char *) b->readback.mapped + at;
            at += r->size;
            block->n_staged++;
        }
    }
}

void moe_vk_record_inputs(const struct moe_vk *vk, const struct moe_vk_bound *b,
                          const struct moe_vk_host_block *block)
{
    VkBufferCopy copy = {0};
    for (uint32_t i = 0; i < MOE_VK_N_INPUTS; i++) {
        copy.size = input_size(b, block, i);
        if (copy.size == 0 || b->inputs[i].mapped)
            continue;
        vk->fn.vkCmdCopyBuffer(b->command.buffer, b->upload.handle, b->inputs[i].handle, 1, &copy);
        copy.srcOffset += copy.size;
    }
    if (copy.srcOffset > 0)
        moe_vk_barrier(vk, b->command.buffer, VK_PIPELINE_STAGE_TRANSFER_BIT,
                       VK_ACCESS_TRANSFER_WRITE_BIT, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                       VK_ACCESS_SHADER_READ_BIT);
}

void moe_vk_record_readback(const struct moe_vk *vk, const struct moe_vk_bound *b,
                            const struct moe_vk_host_block *block)
{
    VkCommandBuffer cmd = b->command.buffer;
    if (block->n_staged > 0) {
        moe_vk_barrier(vk, cmd, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
                       VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_READ_BIT);
        for (int i = 0; i < MOE_VK_N_RESULTS; i++) {
            const struct moe_vk_result *r = &block->results[i];
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

enum vkmoe_status moe_vk_read_results(const struct moe_vk_bound *b,
                                      const struct moe_vk_host_block *block, const vkmoe_io *io)
{
    enum vkmoe_status status = VKMOE_OK;
    if (block->n_staged > 0)
        TRY(moe_vk_buffer_invalidate(moe_vk_of(&b->base), &b->readback));
    const vkmoe_layer_desc *desc = &b->base.program->graph.layer.desc;
    const struct moe_vk_result *results = block->results;
    size_t row = (size_t) moe_dtype_size(b->base.program->x_type, desc->d_out);
    size_t stride = (size_t) b->strides[MOE_VK_BUF_Y] * 4, first = block->first;
    unsigned char *y = (unsigned char *) io->y + first * io->y_stride;
    for (uint32_t t = 0; t < block->run.n_tokens; t++)
        memcpy(y + t * io->y_stride, results[0].host + t * stride, row);
    if (io->ids)
        memcpy(io->ids + first * desc->top_k, results[1].host, results[1].size);
    if (io->gates)
        memcpy(io->gates + first * desc->top_k, results[2].host, results[2].size);
    if (io->scores)
        memcpy(io->scores + first * moe_layer_n_scored(desc), results[3].host, results[3].size);

fail:
    return status;
}

// ---- counters ----------------------------------------------------------------------------------

// Before the first dispatch of a run.
static void record_zero(const struct moe_vk *vk, const struct moe_vk_bound *b)
{
    VkCommandBuffer cmd = b->command.buffer;
    vk->fn.vkCmdFillBuffer(cmd, b->work.handle, MOE_COUNTER_WORD * 4, MOE_VK_COUNTERS_SIZE, 0);
    moe_vk_barrier(vk, cmd, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
                   VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT,
                   VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT);
}

// What the kernels have counted since the run began.
static void read_counters(struct moe_vk_bound *b, const struct moe_vk_host_block *block)
{
    uint64_t counted[MOE_N_COUNTERS];
    uint32_t words[2 * MOE_N_COUNTERS];
    memcpy(words, block->results[4].host, sizeof words);
    for (int i = 0; i < MOE_N_COUNTERS; i++)
        counted[i] = (uint64_t) words[2 * i + 1] << 32 | words[2 * i];
    b->counters.weight_loads = counted[MOE_COUNT_WEIGHTS] * 16;
    b->counters.router_loads = counted[MOE_COUNT_ROUTER] * 4;
    b->counters.live_columns = counted[MOE_COUNT_LIVE];
    b->counters.padded_columns = counted[MOE_COUNT_PADDED];
    b->counters.workgroups = counted[MOE_COUNT_BUSY];
    b->counters.idle_workgroups = counted[MOE_COUNT_IDLE];
}

void moe_vk_counters(const struct moe_bound *bound, vkmoe_counters *out)
{
    *out = ((const struct moe_vk_bound *) bound)->counters;
}

// ---- slices ------------------------------------------------------------------------------------

uint32_t moe_vk_next_slice(const struct moe_vk_bound *b, const struct moe_vk_host_block *block,
                           uint32_t first, double ns_per_work, double *work)
{
    const struct moe_vk_sequence *sequence = moe_vk_sequence_of(b, block->run.regime);
    double budget = ((const struct moe_vk_program *) b->base.program)->budget_ms * 1e6;
    uint32_t n = 0;
    *work = 0;
    for (uint32_t i = first; i < sequence->n; i++, n++) {
        double more = *work + moe_vk_work(&sequence->dispatches[i], block->run.n_tokens);
        if (n > 0 && more * ns_per_work > budget)
            break;
        *work = more;
    }
    return n;
}

static enum vkmoe_status run_block(struct moe_vk *vk, struct moe_vk_bound *b,
                                   const struct moe_vk_host_block *block)
{
    enum vkmoe_status status = VKMOE_OK;
    double budget = ((const struct moe_vk_program *) b->base.program)->budget_ms * 1e6;
    uint32_t begin = moe_vk_first_dispatch(b);
    uint32_t end = moe_vk_sequence_of(b, block->run.regime)->n;
    for (uint32_t first = begin, n; first < end; first += n) {
        double work;
        n = moe_vk_next_slice(b, block, first, b->ns_per_work, &work);
        TRY(moe_vk_command_begin(vk, &b->command));
        if (first == begin && block->first == 0 && counts(b))
            record_zero(vk, b);
        if (first == begin)
            moe_vk_record_inputs(vk, b, block);
        moe_vk_record_block(b, b->command.buffer, &block->run, first, n);
        if (first + n == end)
            moe_vk_record_readback(vk, b, block);
        double start = moe_vk_now_ns();
        TRY(moe_vk_command_run(vk, &b->command));
        moe_vk_learn(&b->ns_per_work, budget, work, moe_vk_now_ns() - start);
        b->counters.dispatches += n;
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
    struct moe_vk_host_block block = {
        .run = {.regime = moe_vk_choose_regime(n_tokens), .block_first = MOE_NONE}};
    uint32_t block_tokens = b->blocks[block.run.regime].block_tokens;
    b->counters = (vkmoe_counters){0};
    for (; block.first < n_tokens; block.first += block.run.n_tokens) {
        block.run.n_tokens = (uint32_t) moe_min(block_tokens, n_tokens - block.first);
        moe_vk_plan_results(b, &block, io);
        moe_vk_write_inputs(b, &block, io);
        TRY(run_block(vk, b, &block));
        TRY(moe_vk_read_results(b, &block, io));
        if (counts(b))
            read_counters(b, &block);
    }
    return VKMOE_OK;

fail:
    return status;
}
