// SPDX-License-Identifier: MIT
// vkmoe inside a program that speaks Vulkan itself: handles of a context, the caller's buffers, and
// recording into the caller's command buffer. Needs no Vulkan header; may come before or after one.
#ifndef VKMOE_VULKAN_H
#define VKMOE_VULKAN_H

#include <vkmoe/vkmoe.h>

#ifndef VULKAN_CORE_H_
typedef struct VkInstance_T *VkInstance;
typedef struct VkPhysicalDevice_T *VkPhysicalDevice;
typedef struct VkDevice_T *VkDevice;
typedef struct VkQueue_T *VkQueue;
typedef struct VkCommandBuffer_T *VkCommandBuffer;
#if UINTPTR_MAX == UINT64_MAX
typedef struct VkBuffer_T *VkBuffer;
#else
typedef uint64_t VkBuffer;
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

// Handles of a context's Vulkan device, borrowed until the context is destroyed. The queue is used
// by vkmoe_run and by the creation of weights: whoever submits to it too keeps those apart.
typedef struct vkmoe_vk_handles {
    void *get_instance_proc_addr; // PFN_vkGetInstanceProcAddr
    VkInstance instance;
    VkPhysicalDevice physical_device;
    VkDevice device;
    VkQueue queue;
    uint32_t queue_family;
    bool buffer_device_address; // enabled; buffers in vkmoe_vk_io then need that usage
} vkmoe_vk_handles;

// VKMOE_E_UNSUPPORTED: the context is not on a Vulkan device.
VKMOE_API enum vkmoe_status vkmoe_vk_get_handles(const vkmoe_context *context,
                                                 vkmoe_vk_handles *out);

// A range of a caller's buffer, with STORAGE_BUFFER usage, and SHADER_DEVICE_ADDRESS where
// vkmoe_vk_handles says so. offset is a multiple of 256, size is what the layer may touch.
typedef struct vkmoe_vk_buffer {
    VkBuffer buffer;
    uint64_t offset, size;
} vkmoe_vk_buffer;

// The caller's buffers for one bind, borrowed until it is destroyed. Strides as in vkmoe_io.
typedef struct vkmoe_vk_io {
    size_t struct_size;
    vkmoe_vk_buffer x; // (max_tokens, d_model) in
    vkmoe_vk_buffer y; // (max_tokens, d_out) out; may not overlap x
    size_t x_stride, y_stride;
} vkmoe_vk_io;

static inline vkmoe_vk_io vkmoe_vk_io_init(void)
{
    vkmoe_vk_io io;
    memset(&io, 0, sizeof io);
    io.struct_size = sizeof io;
    return io;
}

// Number of dispatches that vkmoe_vk_record records for n_tokens tokens.
VKMOE_API enum vkmoe_status vkmoe_vk_dispatch_count(const vkmoe_bind *bind, uint32_t n_tokens,
                                                    uint32_t *out);

// Records dispatches [first, first + n) of the layer into a command buffer of the context's device;
// n = UINT32_MAX means all that follow. Allocates, submits, waits and reads nothing.
//
// Contract. Outside a render pass; primary or secondary; a compute-capable family. The caller has
// made x visible to COMPUTE_SHADER / SHADER_READ, and earlier uses of y and of this bind's
// workspace are done before COMPUTE_SHADER. Each call begins with a barrier COMPUTE -> COMPUTE |
// DRAW_INDIRECT, so slices recorded in order need none between them. No transfer command and no
// queue transfer is recorded. On exit y is written at COMPUTE_SHADER / SHADER_WRITE and made
// visible by the caller's next barrier. Left changed: the compute pipeline, descriptor set 0, push
// constants.
// Threads: one call at a time per bind and per command buffer; a bind's workspace serves one
// submission at a time.
VKMOE_API enum vkmoe_status vkmoe_vk_record(vkmoe_bind *bind, VkCommandBuffer cmd,
                                            uint32_t n_tokens, uint32_t first, uint32_t n);

#ifdef __cplusplus
}
#endif
#endif
