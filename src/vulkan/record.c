// SPDX-License-Identifier: MIT
// Walks a range of a program's dispatches into a command buffer. Allocates, submits and waits for
// nothing: the library's own run records through here too.
#include "vulkan/bind.h"

#include <assert.h>
#include <string.h>

struct push {
    struct head_params head;
    uint8_t params[128 - sizeof(struct head_params)];
};
_Static_assert(sizeof(struct push) == 128, "push constants of the smallest device");

static void push_constants(const struct moe_vk *vk, const struct moe_vk_bound *b,
                           const struct moe_vk_dispatch *d, VkCommandBuffer cmd, uint32_t n_tokens)
{
    struct push push;
    push.head = (struct head_params){
        .n_tokens = n_tokens, .x_stride = b->x_stride, .y_stride = b->y_stride};
    for (int slot = 0; slot < 4; slot++)
        if (d->ranges[slot].size)
            push.head.address[slot] =
                b->buffers[d->ranges[slot].buffer].address + d->ranges[slot].offset;
    memcpy(push.params, d->params, d->params_size);
    vk->fn.vkCmdPushConstants(cmd, vk->pipeline_layout, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                              (uint32_t) sizeof push.head + d->params_size, &push);
}

static void record_one(const struct moe_vk *vk, const struct moe_vk_bound *b,
                       const struct moe_vk_dispatch *d, VkDescriptorSet set, VkCommandBuffer cmd,
                       uint32_t n_tokens)
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
    push_constants(vk, b, d, cmd, n_tokens);
    if (d->indirect.size)
        vk->fn.vkCmdDispatchIndirect(cmd, b->buffers[d->indirect.buffer].handle,
                                     b->buffers[d->indirect.buffer].offset + d->indirect.offset);
    else
        vk->fn.vkCmdDispatch(cmd, (uint32_t) moe_vk_groups(d->x, n_tokens),
                             (uint32_t) moe_vk_groups(d->y, n_tokens), 1);
    if (vk->labels)
        vk->fn.vkCmdEndDebugUtilsLabelEXT(cmd);
}

uint32_t moe_vk_dispatch_count(const struct moe_bound *bound, uint32_t n_tokens)
{
    const struct moe_vk_program *program = (const struct moe_vk_program *) bound->program;
    return n_tokens == 0 ? 0 : program->n_dispatches[moe_vk_choose_regime(n_tokens)];
}

enum vkmoe_status moe_vk_record(struct moe_bound *bound, VkCommandBuffer cmd, uint32_t n_tokens,
                                uint32_t first, uint32_t n)
{
    const struct moe_vk *vk = moe_vk_of(bound);
    const struct moe_vk_bound *b = (const struct moe_vk_bound *) bound;
    const struct moe_vk_program *program = (const struct moe_vk_program *) bound->program;
    const struct moe_vk_weights *weights = (const struct moe_vk_weights *) bound->weights;
    if (!vk->queue && !weights->buffer.mapped && !weights->upload_recorded)
        return moe_fail(VKMOE_E_ARGUMENT,
                        "the weights are not uploaded: vkmoe_vk_weights_record_upload first");
    assert(first + n <= moe_vk_dispatch_count(bound, n_tokens));
    enum moe_vk_regime regime = moe_vk_choose_regime(n_tokens);
    for (uint32_t i = first; i < first + n; i++) {
        const struct moe_vk_dispatch *d = &program->dispatches[regime][i];
        if (d->barrier || i == first)
            moe_vk_barrier(
                vk, cmd, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_WRITE_BIT,
                VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_DRAW_INDIRECT_BIT,
                VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT |
                    VK_ACCESS_INDIRECT_COMMAND_READ_BIT);
        record_one(vk, b, d, b->sets[regime][i], cmd, n_tokens);
    }
    return VKMOE_OK;
}
