// SPDX-License-Identifier: MIT
// vkmoe inside a program that speaks Vulkan itself: on the caller's device, with the caller's
// buffers, recorded into the caller's command buffer. tools/embed/record.c is a whole program that
// does so. Needs no Vulkan header; may come before or after one.
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

// ---- the caller's device -----------------------------------------------------------------------

// One feature of Vulkan: a member of a feature struct.
typedef struct vkmoe_vk_feature {
    const char *structure; // "VkPhysicalDeviceBufferDeviceAddressFeatures"
    const char *member;    // "bufferDeviceAddress"
    bool required;         // false: used where it is enabled
} vkmoe_vk_feature;

enum { VKMOE_VK_MAX_FEATURES = 32 };

// What to think of before vkCreateDevice. Texts are static; only what the physical device has is
// listed. Nothing but what is marked as required has to be enabled. The extensions are those of the
// features: an instance or a device below the version that made a feature core needs them, and with
// a newer one they may be enabled too.
typedef struct vkmoe_vk_requirements {
    uint32_t api_version; // of the instance and the device, at least
    uint32_t queue_flags; // VkQueueFlags of the family that command buffers are for
    uint32_t n_extensions, n_features;
    const char *extensions[VKMOE_VK_MAX_FEATURES]; // of the device, all optional
    vkmoe_vk_feature features[VKMOE_VK_MAX_FEATURES];
} vkmoe_vk_requirements;

// Asks a physical device, with the caller's vkGetInstanceProcAddr.
// VKMOE_E_UNSUPPORTED: no layer can run there; the text says which limit is too small.
VKMOE_API enum vkmoe_status vkmoe_vk_get_requirements(void *get_instance_proc_addr,
                                                      VkInstance instance,
                                                      VkPhysicalDevice physical_device,
                                                      vkmoe_vk_requirements *out);

// A device that the caller made and owns. Without a queue the context only records: it never
// submits, and weights are uploaded by vkmoe_vk_weights_record_upload. The disk and the environment
// are never touched; pipelines and kernel verdicts are cached where the host has cache_get and
// cache_set. With a queue, the first plan that would use kernels in f16 tests them by a small
// layer; without one they are used unless the cache, or the library's list of drivers, says that
// they fail.
typedef struct vkmoe_vk_import_desc {
    size_t struct_size;
    const vkmoe_host *host; // NULL: the library's own services

    void *get_instance_proc_addr; // PFN_vkGetInstanceProcAddr; every function is loaded through it
    VkInstance instance;
    VkPhysicalDevice physical_device;
    VkDevice device;
    uint32_t api_version;          // VkApplicationInfo.apiVersion of the instance
    const char *const *extensions; // enabled on the device
    uint32_t n_extensions;
    // The pNext chain that vkCreateDevice got; NULL: no feature is enabled. A feature counts in the
    // struct of its own or in that of a core version. What is not enabled is not used;
    // vulkanMemoryModel without vulkanMemoryModelDeviceScope is refused.
    const void *features;

    VkQueue queue;         // NULL: record only
    uint32_t queue_family; // that command buffers are for
    // Taken around every use of the queue, if given: both or none.
    void (*lock_queue)(void *queue_user);
    void (*unlock_queue)(void *queue_user);
    void *queue_user;

    enum vkmoe_addressing addressing; // VKMOE_ADDRESSING_BDA is refused where it is not enabled
    bool floor;        // keep to the least limits of Vulkan 1.1
    bool debug_labels; // names and labels, where the instance has VK_EXT_debug_utils

    const char *disable; // as in vkmoe_context_desc
} vkmoe_vk_import_desc;

static inline vkmoe_vk_import_desc vkmoe_vk_import_desc_init(void)
{
    vkmoe_vk_import_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.struct_size = sizeof desc;
    return desc;
}

// Makes a context on the caller's device, which stays the caller's: it has to outlive the context,
// and vkmoe_context_destroy neither destroys it nor waits for it. Before anything of the context is
// destroyed, the caller sees to it that no submitted work uses it any more.
// VKMOE_E_UNSUPPORTED: something needed is not enabled; the text names it.
VKMOE_API enum vkmoe_status vkmoe_context_import_vk(const vkmoe_vk_import_desc *desc,
                                                    vkmoe_context **out);

// Records the upload of weights that were made on a context without a queue; to be submitted before
// the first run that uses them, once. Ends with a barrier to COMPUTE_SHADER / SHADER_READ. Records
// nothing where the weights' memory is within the host's sight. Transfer commands: a compute queue
// may execute them.
VKMOE_API enum vkmoe_status vkmoe_vk_weights_record_upload(vkmoe_weights *weights,
                                                           VkCommandBuffer cmd);

// Frees the host's copy of such weights, when the recorded upload has been executed. Otherwise it
// lives as long as the weights.
VKMOE_API void vkmoe_vk_weights_release_staging(vkmoe_weights *weights);

// ---- handles, buffers, recording ---------------------------------------------------------------

// Handles of a context's Vulkan device, borrowed until the context is destroyed. The queue is used
// by vkmoe_run and by the creation of weights: whoever submits to it too keeps those apart.
typedef struct vkmoe_vk_handles {
    void *get_instance_proc_addr; // PFN_vkGetInstanceProcAddr
    VkInstance instance;
    VkPhysicalDevice physical_device;
    VkDevice device;
    VkQueue queue; // NULL on a context that only records
    uint32_t queue_family;
    bool buffer_device_address; // enabled; the caller's buffers then need that usage
} vkmoe_vk_handles;

// VKMOE_E_UNSUPPORTED: the context is not on a Vulkan device.
VKMOE_API enum vkmoe_status vkmoe_vk_get_handles(const vkmoe_context *context,
                                                 vkmoe_vk_handles *out);

// A range of a caller's buffer, with STORAGE_BUFFER usage, and SHADER_DEVICE_ADDRESS where
// vkmoe_vk_handles says so. offset is a multiple of 256, size is what the layer may touch.
// In vkmoe_weights_desc: TRANSFER_DST usage too; the weights are copied there by the library's
// queue, or by what vkmoe_vk_weights_record_upload records, and nothing else may write there while
// a bind uses them.
typedef struct vkmoe_vk_buffer {
    VkBuffer buffer;
    uint64_t offset, size;
} vkmoe_vk_buffer;

// The caller's buffers for one bind, borrowed until it is destroyed. Elements have the plan's
// x_type.
//
// Strides are bytes from row to row. Kernels move 32-bit words: a stride is a multiple of 4 in
// every type, and 0, which means rows follow each other, is refused where a row is no multiple of
// 4. Where a 16-bit row is of odd width, the other half of its last word is touched too: in x it is
// read and does not matter, in y it becomes 0. So `size` holds rows rounded up to 4 bytes, the last
// included.
typedef struct vkmoe_vk_io {
    size_t struct_size;
    vkmoe_vk_buffer x; // (max_tokens, d_model) in
    vkmoe_vk_buffer y; // (max_tokens, d_out) out; may not overlap x
    size_t x_stride, y_stride;
    // A u32: the number of tokens, read when the recorded dispatches run. What is recorded for
    // n_tokens then serves any count up to that; a larger one counts as n_tokens, and rows of y
    // beyond the count are not written. buffer NULL: there are as many as is recorded.
    vkmoe_vk_buffer n_tokens;
    // vkmoe_vk_get_workspace_size bytes, with INDIRECT_BUFFER usage too; any contents. Binds
    // may share one as long as their dispatches do not run at the same time; the barrier that every
    // vkmoe_vk_record begins with sees to that within a queue. buffer NULL: the bind has its own.
    vkmoe_vk_buffer workspace;
    vkmoe_vk_buffer router_x; // (max_tokens, d_model) in, when the layer has router_input
    size_t router_x_stride;
    // (max_tokens) i32 in, when select is VKMOE_SELECT_TABLE. A token whose id is not in the table
    // gets NaN.
    vkmoe_vk_buffer token_ids;

    // For plans of an operation, as enum vkmoe_operation and vkmoe_io say, for max_tokens; nothing
    // else is given, but the count and the workspace. Recorded one behind the other, with the
    // caller's own dispatches and barriers between them, they are a layer without a way to the
    // host. Of what is read, an id or a slot that there is not counts as -1. With fewer tokens
    // than are recorded, what belongs to the others is not written: slots and rows from
    // n_tokens * top_k on.
    vkmoe_vk_buffer ids, gates, scores;
    vkmoe_vk_buffer rows; // (max_tokens * top_k, d_model or d_out)
    size_t rows_stride;
    vkmoe_vk_buffer slots, counts, offsets;
} vkmoe_vk_io;

static inline vkmoe_vk_io vkmoe_vk_io_init(void)
{
    vkmoe_vk_io io;
    memset(&io, 0, sizeof io);
    io.struct_size = sizeof io;
    return io;
}

// Bytes of workspace that a bind of this plan takes. VKMOE_E_UNSUPPORTED: not on a Vulkan device.
VKMOE_API enum vkmoe_status vkmoe_vk_get_workspace_size(const vkmoe_plan *plan, uint64_t *out);

// Number of dispatches that vkmoe_vk_record records for n_tokens tokens. VKMOE_E_SHAPE: more tokens
// than the plan has. VKMOE_E_UNSUPPORTED: not on a Vulkan device.
VKMOE_API enum vkmoe_status vkmoe_vk_dispatch_count(const vkmoe_bind *bind, uint32_t n_tokens,
                                                    uint32_t *out);

// One dispatch of a recording.
typedef struct vkmoe_vk_dispatch {
    const char *label; // what it does; static text
    double work; // an estimate, in floating-point operations: to cut a recording into slices of
                 // about equal time
} vkmoe_vk_dispatch;

// Dispatch i of the vkmoe_vk_dispatch_count ones for n_tokens tokens. VKMOE_E_ARGUMENT: there is no
// such dispatch; else as vkmoe_vk_dispatch_count.
VKMOE_API enum vkmoe_status vkmoe_vk_get_dispatch(const vkmoe_bind *bind, uint32_t n_tokens,
                                                  uint32_t i, vkmoe_vk_dispatch *out);

// Records dispatches [first, first + n) of the layer into a command buffer of the context's device;
// n = UINT32_MAX means all that follow. Allocates, submits, waits and reads nothing.
//
// Contract. Outside a render pass; primary or secondary; a compute-capable family. The caller has
// made all that is read (x, the token count) visible to COMPUTE_SHADER / SHADER_READ, and earlier
// uses of what is written (y) and of this bind's workspace are done before COMPUTE_SHADER. Each
// call begins with a barrier COMPUTE -> COMPUTE | DRAW_INDIRECT, so slices recorded in order, and
// operations that follow each other, need none between them. No transfer command and no queue
// transfer is recorded. On exit y, or what else is written, is so at COMPUTE_SHADER / SHADER_WRITE
// and made visible by the caller's next barrier. Left changed: the compute pipeline, descriptor set
// 0, push constants.
// Threads: one call at a time per bind and per command buffer; a bind's workspace serves one
// submission at a time.
VKMOE_API enum vkmoe_status vkmoe_vk_record(vkmoe_bind *bind, VkCommandBuffer cmd,
                                            uint32_t n_tokens, uint32_t first, uint32_t n);

#ifdef __cplusplus
}
#endif
#endif
