// SPDX-License-Identifier: MIT
// A program that speaks Vulkan itself, on the device of a context: its own buffers and its own
// command buffer.
#ifndef TESTS_VULKAN_HOST_H
#define TESTS_VULKAN_HOST_H

#include "check.h"

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan_core.h>

#include <vkmoe/vulkan.h>

#define HOST_FUNCTIONS(X)                  \
    X(vkGetPhysicalDeviceMemoryProperties) \
    X(vkCreateBuffer)                      \
    X(vkDestroyBuffer)                     \
    X(vkGetBufferMemoryRequirements)       \
    X(vkAllocateMemory)                    \
    X(vkFreeMemory)                        \
    X(vkBindBufferMemory)                  \
    X(vkMapMemory)                         \
    X(vkCreateCommandPool)                 \
    X(vkDestroyCommandPool)                \
    X(vkAllocateCommandBuffers)            \
    X(vkBeginCommandBuffer)                \
    X(vkEndCommandBuffer)                  \
    X(vkCmdPipelineBarrier)                \
    X(vkCmdCopyBuffer)                     \
    X(vkCmdExecuteCommands)                \
    X(vkQueueSubmit)                       \
    X(vkQueueWaitIdle)

// A context on the first Vulkan device, under validation, with its messages on stderr and without a
// cache. The program's one argument says how it addresses buffers: bda, descriptors or floor; false
// if it does not. Borrows `services`.
bool host_context_desc(int argc, char **argv, vkmoe_host *services, vkmoe_context_desc *out);

// Can plans of the context name this kernel variant?
bool host_has_variant(vkmoe_context *context, const char *name);

struct host {
    vkmoe_vk_handles handles;
#define HOST_MEMBER(name) PFN_##name name;
    HOST_FUNCTIONS(HOST_MEMBER)
#undef HOST_MEMBER
    VkCommandPool pool;
};

struct host_buffer {
    VkBuffer handle;
    VkDeviceMemory memory;
    float *mapped;
    uint64_t size;
};

void host_init(struct host *host, const vkmoe_context *context);
void host_finish(struct host *host);

// Describes the device as one that somebody else made, for a context that only records and uses no
// feature: queue, features and what else differs is the caller's to set.
vkmoe_vk_import_desc host_import_desc(const vkmoe_vk_handles *handles);

void host_buffer_init(struct host *host, uint64_t size, struct host_buffer *out);
void host_buffer_finish(struct host *host, struct host_buffer *buffer);

VkCommandBuffer host_begin(struct host *host, VkCommandBufferLevel level);
void host_submit(struct host *host, VkCommandBuffer cmd); // ends, submits and waits
void host_submit_again(struct host *host, VkCommandBuffer cmd); // what host_submit has ended

// Does the driver hand out pipeline caches with their whole header? lavapipe 26 does not.
bool host_driver_has_caches(const vkmoe_context *context);

#endif
