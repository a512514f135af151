// SPDX-License-Identifier: MIT
// Walks a range of a program's dispatches into a command buffer. Allocates, submits and waits for
// nothing: the library's own run records through here too.
#include "vulkan/bind.h"

#include <assert.h>
#include <string.h>

#include "base/bits.h"

struct push {
    struct head_params head;
    uint8_t params[128 - sizeof(struct head_params)];
};
_Static_assert(sizeof(struct push) == 128, "push constants of the smallest device");
_Static_assert(sizeof(struct head_params) == 56, "GLSL aligns what follows to 8 bytes");

static void push_constants(const struct moe_vk *vk, const struct moe_vk_bound *b,
                           const struct moe_vk_dispatch *d, VkCommandBuffer cmd,
                           const struct moe_vk_block_run *run)
{
    struct push push;
    enum moe_vk_buffer_id input = d->ranges[MOE_SLOT_INPUT].buffer;
    push.head = (struct head_params){.n_tokens = run->n_tokens,
                                     .block_first = run->block_first,
                                     .first_token = run->first_token,
                                     .x_stride = b->strides[input == MOE_VK_BUF_ROUTER_X
                                                                ? input
                                                                : MOE_VK_BUF_X],
                                     .y_stride = b->strides[MOE_VK_BUF_Y]};
    for (int slot = 0; slot < 4 && vk->bda; slot++)
        if (d->ranges[slot].size)
            push.head.address[slot] =
                moe_vk_place(b, run->regime, run->window, &d->ranges[slot]).address;
    memcpy(push.params, d->params, d->params_size);
    if (d->rows_stride > 0)
        memcpy(push.params + d->rows_stride, &b->strides[MOE_VK_BUF_ROWS], sizeof *b->strides);
    vk->fn.vkCmdPushConstants(cmd, vk->pipeline_layout, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                              (uint32_t) offsetof(struct push, params) + d->params_size, &push);
}

static void record_one(const struct moe_vk *vk, const struct moe_vk_bound *b,
                       const struct moe_vk_dispatch *d, VkDescriptorSet set, VkCommandBuffer cmd,
                       const struct moe_vk_block_run *run)
{
    if (vk->labels) {
        VkDebugUtilsLabelEXT label = {.sType = VK_STRUCTURE_TYPE_DEBUG_UTILS_LABEL_EXT,
                                      .pLabelName = d->label};
        vk->fn.vkCmdBeginDebugUtilsLabelEXT(cmd, &label);
    }
    vk->fn.vkCmdBindPipeline(cmd, VK_PIPELINE_BIND_POINT_COMPUTE, d->pipeline);
    if (set)
        vk->fn.vkCmdBindDescriptorSets(cmd, VK_PIPELINE_BIND_POINT_COMPUTE, vk->pipeline_layout, 0,
                                       1, &set, 0, NULL);
    push_constants(vk, b, d, cmd, run);
    if (d->indirect.size) {
        struct moe_vk_place place = moe_vk_place(b, run->regime, run->window, &d->indirect);
        vk->fn.vkCmdDispatchIndirect(cmd, place.handle, place.offset);
    } else {
        vk->fn.vkCmdDispatch(cmd, (uint32_t) moe_vk_groups(d->x, run->n_tokens),
                             (uint32_t) moe_vk_groups(d->y, run->n_tokens), 1);
    }
    if (vk->labels)
        vk->fn.vkCmdEndDebugUtilsLabelEXT(cmd);
}

void moe_vk_record_block(const struct moe_vk_bound *b, VkCommandBuffer cmd,
                         const struct moe_vk_block_run *run, uint32_t first, uint32_t n)
{
    const struct moe_vk *vk = moe_vk_of(&b->base);
    const struct moe_vk_sequence *sequence = moe_vk_sequence_of(b, run->regime);
    const VkDescriptorSet *sets = b->blocks[run->regime].sets;
    for (uint32_t i = first; i < first + n; i++) {
        const struct moe_vk_dispatch *d = &sequence->dispatches[i];
        if (d->barrier || i == first)
            moe_vk_barrier(
                vk, cmd, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
                VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_DRAW_INDIRECT_BIT,
                VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                    VK_ACCESS_INDIRECT_COMMAND_READ_BIT);
        VkDescriptorSet set =
            sets ? sets[(size_t) run->window * sequence->n + i] : VK_NULL_HANDLE;
        record_one(vk, b, d, set, cmd, run);
    }
}

// ---- all blocks --------------------------------------------------------------------------------

// Dispatches are numbered block by block.
struct numbering {
    enum moe_vk_regime regime;
    uint32_t block_tokens, n_blocks, per_block;
};

static struct numbering numbering_of(const struct moe_vk_bound *b, uint32_t n_tokens)
{
    struct numbering n = {.regime = moe_vk_choose_regime(n_tokens)};
    n.block_tokens = b->blocks[n.regime].block_tokens;
    n.n_blocks = (uint32_t) moe_div_up(n_tokens, n.block_tokens);
    n.per_block = moe_vk_sequence_of(b, n.regime)->n - moe_vk_first_dispatch(b);
    return n;
}

static struct moe_vk_block_run block_run(const struct moe_vk_bound *b, const struct numbering *n,
                                         uint32_t block, uint32_t n_tokens)
{
    const struct moe_vk_blocks *blocks = &b->blocks[n->regime];
    uint32_t first = block * n->block_tokens;
    return (struct moe_vk_block_run){
        .regime = n->regime,
        .n_tokens = (uint32_t) moe_min(n->block_tokens, n_tokens - first),
        .block_first = b->counted ? first : MOE_NONE,
        .first_token = blocks->whole ? first : first % blocks->window_step,
        .window = blocks->whole ? 0 : block,
    };
}

uint32_t moe_vk_dispatch_count(const struct moe_bound *bound, uint32_t n_tokens)
{
    struct numbering n = numbering_of((const struct moe_vk_bound *) bound, n_tokens);
    return n_tokens == 0 ? 0 : n.n_blocks * n.per_block;
}

void moe_vk_dispatch_info(const struct moe_bound *bound, uint32_t n_tokens, uint32_t i,
                          vkmoe_vk_dispatch *out)
{
    const struct moe_vk_bound *b = (const struct moe_vk_bound *) bound;
    struct numbering n = numbering_of(b, n_tokens);
    struct moe_vk_block_run run = block_run(b, &n, i / n.per_block, n_tokens);
    const struct moe_vk_dispatch *d =
        &moe_vk_sequence_of(b, n.regime)
             ->dispatches[moe_vk_first_dispatch(b) + i % n.per_block];
    *out = (vkmoe_vk_dispatch){.label = d->label, .work = moe_vk_work(d, run.n_tokens)};
}

enum vkmoe_status moe_vk_record(struct moe_bound *bound, VkCommandBuffer cmd, uint32_t n_tokens,
                                uint32_t first, uint32_t n)
{
    const struct moe_vk_bound *b = (const struct moe_vk_bound *) bound;
    if (bound->weights &&
        !moe_vk_weights_ready((const struct moe_vk_weights *) bound->weights))
        return moe_fail(VKMOE_E_ARGUMENT,
                        "the weights are not uploaded: vkmoe_vk_weights_record_upload first");
    struct numbering all = numbering_of(b, n_tokens);
    assert(first + n <= all.n_blocks * all.per_block);
    for (uint32_t i = first, end = first + n; i < end;) {
        struct moe_vk_block_run run = block_run(b, &all, i / all.per_block, n_tokens);
        uint32_t at = i % all.per_block;
        uint32_t count = (uint32_t) moe_min(all.per_block - at, end - i);
        moe_vk_record_block(b, cmd, &run, moe_vk_first_dispatch(b) + at, count);
        i += count;
    }
    return VKMOE_OK;
}
