// SPDX-License-Identifier: MIT
// A command buffer with its pool and fence; submission to the device's one queue; barriers; names.
#include "vulkan/vk.h"

enum vkmoe_status moe_vk_command_create(struct moe_vk *vk, struct moe_vk_command *out)
{
    enum vkmoe_status status = VKMOE_OK;
    *out = (struct moe_vk_command){0};
    VkCommandPoolCreateInfo pool = {.sType = VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO,
                                    .flags = VK_COMMAND_POOL_CREATE_RESET_COMMAND_BUFFER_BIT,
                                    .queueFamilyIndex = vk->queue_family};
    VkFenceCreateInfo fence = {.sType = VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    VK_TRY(vk, vk->fn.vkCreateCommandPool(vk->device, &pool, NULL, &out->pool));
    VkCommandBufferAllocateInfo buffer = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO,
                                          .commandPool = out->pool,
                                          .level = VK_COMMAND_BUFFER_LEVEL_PRIMARY,
                                          .commandBufferCount = 1};
    VK_TRY(vk, vk->fn.vkAllocateCommandBuffers(vk->device, &buffer, &out->buffer));
    VK_TRY(vk, vk->fn.vkCreateFence(vk->device, &fence, NULL, &out->fence));
    return VKMOE_OK;

fail:
    moe_vk_command_destroy(vk, out);
    return status;
}

void moe_vk_command_destroy(struct moe_vk *vk, struct moe_vk_command *command)
{
    if (command->fence)
        vk->fn.vkDestroyFence(vk->device, command->fence, NULL);
    if (command->pool)
        vk->fn.vkDestroyCommandPool(vk->device, command->pool, NULL); // frees the buffer
    *command = (struct moe_vk_command){0};
}

enum vkmoe_status moe_vk_command_begin(struct moe_vk *vk, struct moe_vk_command *command)
{
    VkCommandBufferBeginInfo info = {.sType = VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO,
                                     .flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT};
    VkResult result = vk->fn.vkBeginCommandBuffer(command->buffer, &info);
    return result < 0 ? moe_vk_fail(vk, result, "vkBeginCommandBuffer") : VKMOE_OK;
}

static void lock_queue(struct moe_vk *vk)
{
    pthread_mutex_lock(&vk->queue_lock);
    if (vk->lock_queue)
        vk->lock_queue(vk->queue_user);
}

static void unlock_queue(struct moe_vk *vk)
{
    if (vk->unlock_queue)
        vk->unlock_queue(vk->queue_user);
    pthread_mutex_unlock(&vk->queue_lock);
}

// Waits for submitted work. When that fails the work may still run, and its memory is not to be
// touched before it ends: the second wait. A device that fails both is lost.
enum vkmoe_status moe_vk_command_wait(struct moe_vk *vk, struct moe_vk_command *command)
{
    VkResult result =
        vk->fn.vkWaitForFences(vk->device, 1, &command->fence, VK_TRUE, UINT64_MAX);
    if (result == VK_SUCCESS)
        return VKMOE_OK;
    if (result != VK_ERROR_DEVICE_LOST) {
        lock_queue(vk);
        if (vk->fn.vkQueueWaitIdle(vk->queue) != VK_SUCCESS)
            result = VK_ERROR_DEVICE_LOST;
        unlock_queue(vk);
    }
    return moe_vk_fail(vk, result, "vkWaitForFences");
}

enum vkmoe_status moe_vk_command_submit(struct moe_vk *vk, struct moe_vk_command *command)
{
    enum vkmoe_status status = VKMOE_OK;
    VkSubmitInfo submit = {.sType = VK_STRUCTURE_TYPE_SUBMIT_INFO,
                           .commandBufferCount = 1,
                           .pCommandBuffers = &command->buffer};
    VK_TRY(vk, vk->fn.vkEndCommandBuffer(command->buffer));
    VK_TRY(vk, vk->fn.vkResetFences(vk->device, 1, &command->fence));
    lock_queue(vk);
    VkResult result = vk->fn.vkQueueSubmit(vk->queue, 1, &submit, command->fence);
    unlock_queue(vk);
    if (result < 0)
        return moe_vk_fail(vk, result, "vkQueueSubmit");

fail:
    return status;
}

enum vkmoe_status moe_vk_command_run(struct moe_vk *vk, struct moe_vk_command *command)
{
    enum vkmoe_status status = moe_vk_command_submit(vk, command);
    return status == VKMOE_OK ? moe_vk_command_wait(vk, command) : status;
}

void moe_vk_barrier(const struct moe_vk *vk, VkCommandBuffer cmd, VkPipelineStageFlags from_stage,
                    VkAccessFlags from, VkPipelineStageFlags to_stage, VkAccessFlags to)
{
    VkMemoryBarrier barrier = {
        .sType = VK_STRUCTURE_TYPE_MEMORY_BARRIER, .srcAccessMask = from, .dstAccessMask = to};
    vk->fn.vkCmdPipelineBarrier(cmd, from_stage, to_stage, 0, 1, &barrier, 0, NULL, 0, NULL);
}

void moe_vk_name(struct moe_vk *vk, VkObjectType type, uint64_t handle, const char *name)
{
    if (!vk->labels)
        return;
    VkDebugUtilsObjectNameInfoEXT info = {.sType =
                                              VK_STRUCTURE_TYPE_DEBUG_UTILS_OBJECT_NAME_INFO_EXT,
                                          .objectType = type,
                                          .objectHandle = handle,
                                          .pObjectName = name};
    vk->fn.vkSetDebugUtilsObjectNameEXT(vk->device, &info);
}
