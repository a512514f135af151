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

// Bytes of a block of an input or output; 0: the program does not have it.
static uint64_t array_size(const struct moe_vk_bound *b, const struct moe_vk_host_block *block,
                           enum moe_vk_buffer_id id)
{
    const struct moe_vk_array array = moe_vk_array(b->base.program, id);
    if (!array.is_input && !array.is_output)
        return 0;
    return array.per_token > 0
               ? (uint64_t) block->run.n_tokens * array.per_token * b->strides[id] * 4
               : array.n_elements * 4ull;
}

static uint64_t input_size(const struct moe_vk_bound *b, const struct moe_vk_host_block *block,
                           uint32_t i)
{
    const enum moe_vk_buffer_id id = (enum moe_vk_buffer_id) (MOE_VK_BUF_X + i);
    return moe_vk_array(b->base.program, id).is_input ? array_size(b, block, id) : 0;
}

enum vkmoe_status moe_vk_write_inputs(const struct moe_vk_bound *b,
                                      const struct moe_vk_host_block *block, const vkmoe_io *io)
{
    enum vkmoe_status status = VKMOE_OK;
    const uint32_t top_k = b->base.program->graph.layer.desc.top_k;
    const struct {
        const void *rows;
        size_t stride;
    } from[MOE_VK_N_INPUTS] = {{io->x, io->x_stride},
                               {io->router_x, io->router_x_stride},
                               {io->token_ids, sizeof *io->token_ids},
                               {io->rows, io->rows_stride},
                               {io->slots, top_k * sizeof *io->slots},
                               {io->ids, top_k * sizeof *io->ids},
                               {io->gates, top_k * sizeof *io->gates}};
    unsigned char *staged = b->upload.mapped;
    for (uint32_t i = 0; i < MOE_VK_N_INPUTS; i++) {
        struct moe_vk_array input =
            moe_vk_array(b->base.program, (enum moe_vk_buffer_id) (MOE_VK_BUF_X + i));
        if (!input.is_input)
            continue;
        size_t row = (size_t) moe_dtype_size(input.type, input.n_elements);
        size_t stride = (size_t) b->strides[MOE_VK_BUF_X + i] * 4;
        unsigned char *dst = b->inputs[i].mapped ? b->inputs[i].mapped : staged;
        const unsigned char *src =
            (const unsigned char *) from[i].rows +
            (size_t) moe_vk_array_rows(&input, block->first) * from[i].stride;
        for (uint64_t t = 0; t < moe_vk_array_rows(&input, block->run.n_tokens); t++)
            memcpy(dst + t * stride, src + t * from[i].stride, row);
        if (b->inputs[i].mapped)
            TRY(moe_vk_buffer_flush(moe_vk_of(&b->base), &b->inputs[i], 0,
                                    input_size(b, block, i)));
        else
            staged += input_size(b, block, i);
    }

fail:
    return status;
}

// What a layer tells besides y is in its workspace; operations have buffers for their outputs.
static struct moe_vk_result result_of(const struct moe_vk_bound *b,
                                      const struct moe_vk_host_block *block,
                                      enum moe_vk_buffer_id id, struct moe_vk_range work,
                                      uint64_t size, bool wanted)
{
    if (!wanted)
        return (struct moe_vk_result){.device = &b->work};
    if (b->base.program->graph.operation == VKMOE_OPERATION_LAYER && id != MOE_VK_BUF_Y)
        return (struct moe_vk_result){&b->work, work.offset, size, NULL};
    return (struct moe_vk_result){id == MOE_VK_BUF_Y ? &b->y : &b->outputs[id], 0,
                                  array_size(b, block, id), NULL};
}

void moe_vk_plan_results(const struct moe_vk_bound *b, struct moe_vk_host_block *block,
                         const vkmoe_io *io)
{
    const struct moe_vk_sequence *sequence = moe_vk_sequence_of(b, block->run.regime);
    const struct moe_graph *graph = &b->base.program->graph;
    const uint64_t n_tokens = block->run.n_tokens, slots = n_tokens * graph->layer.desc.top_k * 4;
    const uint64_t scores = n_tokens * moe_layer_n_scored(&graph->layer.desc) * 4;
    const struct moe_vk_range none = {0};
    struct moe_vk_result *results = block->results;
    const struct {
        enum moe_vk_buffer_id id;
        enum moe_value_id value;
        struct moe_vk_range work;
        uint64_t size;
        const void *to;
    } all[MOE_VK_N_RESULTS] = {
        [MOE_VK_RESULT_Y] = {MOE_VK_BUF_Y, MOE_VALUE_Y, none, 0, io->y},
        [MOE_VK_RESULT_IDS] = {MOE_VK_BUF_IDS, MOE_VALUE_IDS, sequence->ids, slots, io->ids},
        [MOE_VK_RESULT_GATES] = {MOE_VK_BUF_GATES, MOE_VALUE_GATES, sequence->gates, slots,
                                 io->gates},
        [MOE_VK_RESULT_SCORES] = {MOE_VK_BUF_SCORES, MOE_VALUE_SCORES, sequence->scores, scores,
                                  io->scores},
        [MOE_VK_RESULT_ROWS] = {MOE_VK_BUF_ROWS, MOE_VALUE_ROWS, none, 0, io->rows},
        [MOE_VK_RESULT_SLOTS] = {MOE_VK_BUF_SLOTS, MOE_VALUE_SLOTS, none, 0, io->slots},
        [MOE_VK_RESULT_COUNTS] = {MOE_VK_BUF_COUNTS, MOE_VALUE_COUNTS, none, 0, io->counts},
        [MOE_VK_RESULT_OFFSETS] = {MOE_VK_BUF_OFFSETS, MOE_VALUE_OFFSETS, none, 0, io->offsets},
    };
    for (int i = 0; i < MOE_VK_N_RESULTS; i++)
        results[i] = result_of(b, block, all[i].id, all[i].work, all[i].size,
                               all[i].to && moe_graph_has_output(graph, all[i].value));
    results[MOE_VK_RESULT_COUNTERS] =
        (struct moe_vk_result){&b->work, MOE_COUNTER_WORD * 4,
                               counts(b) ? MOE_VK_COUNTERS_SIZE : 0, NULL};
    block->staged_size = 0;
    for (int i = 0; i < MOE_VK_N_RESULTS; i++) {
        struct moe_vk_result *r = &results[i];
        if (r->device->mapped) {
            r->host = (const unsigned char *) r->device->mapped + r->offset;
        } else if (r->size) {
            r->host = (const unsigned char *) b->readback.mapped + block->staged_size;
            block->staged_size += r->size;
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
    if (block->staged_size > 0) {
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

// Results that are nothing but 4-byte elements.
static void read_words(const struct moe_vk_bound *b, const struct moe_vk_host_block *block,
                       const vkmoe_io *io)
{
    const vkmoe_layer_desc *desc = &b->base.program->graph.layer.desc;
    const size_t first = block->first, first_slot = first * desc->top_k;
    const struct {
        enum moe_vk_result_id id;
        void *to;
        size_t at;
    } all[] = {{MOE_VK_RESULT_IDS, io->ids, first_slot},
               {MOE_VK_RESULT_GATES, io->gates, first_slot},
               {MOE_VK_RESULT_SCORES, io->scores, first * moe_layer_n_scored(desc)},
               {MOE_VK_RESULT_SLOTS, io->slots, first_slot},
               {MOE_VK_RESULT_COUNTS, io->counts, 0},
               {MOE_VK_RESULT_OFFSETS, io->offsets, 0}};
    for (uint32_t i = 0; i < MOE_COUNT(all); i++) {
        const struct moe_vk_result *result = &block->results[all[i].id];
        if (result->size > 0)
            memcpy((uint32_t *) all[i].to + all[i].at, result->host, result->size);
    }
}

enum vkmoe_status moe_vk_read_results(const struct moe_vk_bound *b,
                                      const struct moe_vk_host_block *block, const vkmoe_io *io)
{
    enum vkmoe_status status = VKMOE_OK;
    if (block->staged_size > 0)
        TRY(moe_vk_buffer_invalidate(moe_vk_of(&b->base), &b->readback, 0, block->staged_size));
    const struct moe_vk_result *results = block->results;
    const uint32_t n_experts = b->base.program->graph.layer.desc.n_experts;
    const struct {
        enum moe_vk_result_id id;
        enum moe_vk_buffer_id buffer;
        void *to;
        size_t stride;
    } rows[] = {{MOE_VK_RESULT_Y, MOE_VK_BUF_Y, io->y, io->y_stride},
                {MOE_VK_RESULT_ROWS, MOE_VK_BUF_ROWS, io->rows, io->rows_stride}};
    for (uint32_t i = 0; i < MOE_COUNT(rows); i++) {
        const struct moe_vk_array array = moe_vk_array(b->base.program, rows[i].buffer);
        if (results[rows[i].id].size == 0)
            continue;
        const size_t row = (size_t) moe_dtype_size(array.type, array.n_elements);
        const size_t stride = (size_t) b->strides[rows[i].buffer] * 4;
        uint64_t n = moe_vk_array_rows(&array, block->run.n_tokens);
        if (rows[i].buffer == MOE_VK_BUF_ROWS) // those that there are
            n = ((const uint32_t *) results[MOE_VK_RESULT_OFFSETS].host)[n_experts];
        unsigned char *to = (unsigned char *) rows[i].to + block->first * rows[i].stride;
        for (uint64_t t = 0; t < n; t++)
            memcpy(to + t * rows[i].stride, results[rows[i].id].host + t * stride, row);
    }
    read_words(b, block, io);

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
    memcpy(words, block->results[MOE_VK_RESULT_COUNTERS].host, sizeof words);
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
        TRY(moe_vk_write_inputs(b, &block, io));
        TRY(run_block(vk, b, &block));
        TRY(moe_vk_read_results(b, &block, io));
        if (counts(b))
            read_counters(b, &block);
    }
    return VKMOE_OK;

fail:
    return status;
}
