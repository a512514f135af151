// SPDX-License-Identifier: MIT
// The private structs of the Vulkan back end. Vulkan functions are reached through `fn` only.
#ifndef MOE_VULKAN_VK_H
#define MOE_VULKAN_VK_H

#include "vulkan/newer.h"

#include <pthread.h>
#include <stdatomic.h>

#include "backend/backend.h"
#include "base/file.h"
#include "base/host.h"
#include "base/status.h"
#include "spv_table.h"
#include "vulkan/functions.h"

struct moe_vk_fn {
    PFN_vkGetInstanceProcAddr vkGetInstanceProcAddr;
#define MOE_VK_MEMBER(name) PFN_##name name;
    MOE_VK_GLOBAL_FUNCTIONS(MOE_VK_MEMBER)
    MOE_VK_INSTANCE_FUNCTIONS(MOE_VK_MEMBER)
    MOE_VK_DEBUG_FUNCTIONS(MOE_VK_MEMBER)
    MOE_VK_MATRIX_FUNCTIONS(MOE_VK_MEMBER)
    MOE_VK_DEVICE_FUNCTIONS(MOE_VK_MEMBER)
    MOE_VK_ADDRESS_FUNCTIONS(MOE_VK_MEMBER)
#undef MOE_VK_MEMBER
};

// The optional features that we know; feature_table.c has a row for each.
enum moe_vk_feature {
    MOE_VK_BDA,     // bufferDeviceAddress
    MOE_VK_FLOAT16, // shaderFloat16
    MOE_VK_MEMORY_MODEL,   // vulkanMemoryModel
    MOE_VK_DEVICE_SCOPE,   // vulkanMemoryModelDeviceScope
    MOE_VK_SUBGROUP_SIZE,  // subgroupSizeControl
    MOE_VK_FULL_SUBGROUPS, // computeFullSubgroups
    MOE_VK_DOT,            // shaderIntegerDotProduct
    MOE_VK_INT8,           // shaderInt8
    MOE_VK_MATRIX,         // cooperativeMatrix
    MOE_VK_FLEXIBLE,       // cooperativeMatrixFlexibleDimensions
    MOE_VK_PER_ELEMENT,    // cooperativeMatrixPerElementOperations
    MOE_VK_WORKGROUP,      // cooperativeMatrixWorkgroupScope
    MOE_VK_N_FEATURES,
};
#define MOE_VK_BIT(i) (1u << (i))

// A product of cooperative matrices by a subgroup: M x K by K x N, both of f16 and sums in f32, or
// both of signed bytes and sums of 32 bits. Of those of any size: what m, n, k are multiples of.
struct moe_vk_shape {
    uint32_t m, n, k;
    uint32_t packed_is_n; // rows of weights are on n, rows of the input on m: else 0, as for n <= m
    uint32_t workgroup;   // by a workgroup of MOE_LOCAL_SIZE: 1, else 0
};
enum { MOE_VK_MAX_SHAPES = 16 };

// How the host reaches the memory that a device calls its own.
enum moe_vk_memory_kind {
    MOE_VK_DISCRETE, // by copies: it sees none of it, or a small window
    MOE_VK_REBAR,    // it writes to all of it through a resizable BAR
    MOE_VK_UNIFIED,  // it is the host's memory
};

// What planning may use. Filled by caps.c, the only place that asks a physical device.
struct moe_vk_caps {
    uint32_t api_version; // of the device, as far as the instance goes along
    uint32_t features;    // bits; what a context does not enable is taken away
    uint32_t extensions;  // bits of the features whose extension the device has
    uint32_t driver_id;   // VkDriverId; 0 where the device does not tell
    uint32_t driver_version;
    uint64_t max_storage_range, max_allocation, memory_bytes;
    uint32_t max_groups[3];
    uint32_t max_invocations, max_size_x; // of a workgroup
    uint32_t max_shared, max_push, max_storage_buffers, storage_align;
    uint64_t atom_size; // nonCoherentAtomSize
    enum moe_vk_memory_kind memory_kind;
    uint32_t disabled; // bits 1 << enum moe_vk_variant_id: variants that the user does without
    float timestamp_period;  // ns of a tick
    bool portability_subset; // the device demands VK_KHR_portability_subset
    bool pci_bus_info;       // the device tells where it is plugged in
    bool dot_accelerated;    // the device has instructions for four products of signed bytes
    // Invocations of a subgroup where a kernel needs to know; 0: it cannot. Pinned: kernels ask for
    // that many.
    uint32_t subgroup_size;
    bool subgroup_pinned;
    uint32_t n_shapes; // of cooperative matrices of f16, each once, in the device's order
    struct moe_vk_shape shapes[MOE_VK_MAX_SHAPES];
    uint32_t n_byte_shapes; // and those of bytes
    struct moe_vk_shape byte_shapes[MOE_VK_MAX_SHAPES];
    // Those of any size, the ones of workgroups first; the largest size; what a driver takes of a
    // workgroup's shared memory for them.
    uint32_t n_flexible;
    struct moe_vk_shape flexible[MOE_VK_MAX_SHAPES];
    uint32_t max_dimension, shared_reserved;
};

static inline bool moe_vk_has(const struct moe_vk_caps *caps, enum moe_vk_feature feature)
{
    return caps->features & MOE_VK_BIT(feature);
}

struct moe_vk_buffer {
    VkBuffer handle;
    VkDeviceMemory memory;
    uint64_t size;
    uint64_t allocated; // bytes of the memory
    uint64_t address;   // with buffer device address
    void *mapped;       // NULL: reach it through staging
    bool cached;        // the host may read from `mapped`; else that takes long
    bool coherent;
};

// A compute pipeline, shared by all programs of a device and kept until the device closes.
enum { MOE_VK_MAX_SPEC = 20 };
struct moe_vk_pipeline {
    enum moe_spv_id spv;
    uint32_t spec[MOE_VK_MAX_SPEC];
    VkPipeline handle;
    struct moe_vk_pipeline *next;
};

// What a context knows of a kernel variant: see choose.h.
struct moe_vk_verdict {
    uint64_t since;        // when its self-test began, seconds of the system's clock
    uint32_t state, cause; // enum moe_vk_state, enum moe_vk_cause
    double seconds, base_seconds; // of a tune, and of what is used without it; 0: not timed
};
enum { MOE_VK_MAX_VARIANTS = 24 };

// An instance alone: enough to enumerate devices.
struct moe_vk_instance {
    const vkmoe_host *host;
    struct moe_vk_fn fn;
    VkInstance handle;
    uint32_t api_version;
    bool imported; // the handle is the caller's
    bool debug_utils;
    VkDebugUtilsMessengerEXT messenger;
    atomic_uint n_messages; // from validation
};

struct moe_vk {
    struct moe_device base;
    struct moe_vk_instance *instance;
    struct moe_vk_fn fn; // instance and device level
    VkPhysicalDevice physical;
    VkDevice device;
    VkPhysicalDeviceMemoryProperties memory;
    struct moe_vk_caps caps;
    bool bda;    // this context addresses buffers by address
    bool labels; // names and labels for debuggers

    bool imported; // instance and device are the caller's
    VkQueue queue; // NULL: nothing is ever submitted
    uint32_t queue_family;
    pthread_mutex_t queue_lock;
    void (*lock_queue)(void *user); // the caller's, with its own lock; or NULL
    void (*unlock_queue)(void *user);
    void *queue_user;
    atomic_bool lost;

    VkDescriptorSetLayout set_layout;
    VkPipelineLayout pipeline_layout;
    VkPipelineCache pipeline_cache;
    size_t cache_size_on_disk;
    char *cache_dir; // NULL: nowhere
    char cache_key[96];
    pthread_mutex_t pipelines_lock;
    struct moe_vk_pipeline *pipelines;
    pthread_mutex_t verdicts_lock;                       // held through a self-test
    struct moe_vk_verdict verdicts[MOE_VK_MAX_VARIANTS]; // by enum moe_vk_variant_id
    uint32_t suspects; // bits of those in whose making a process has ended
    bool probes;     // plans have variants timed: the device is a GPU, and ours
    uint32_t probed; // bits of the variants whose times this context has taken, or tried to
};

static inline struct moe_vk *moe_vk(const struct moe_device *device)
{
    return (struct moe_vk *) device;
}

// Says which call failed with which VkResult, and remembers a lost device.
enum vkmoe_status moe_vk_fail(struct moe_vk *vk, VkResult result, const char *what);
const char *moe_vk_result_name(VkResult result);

// Jumps to `fail:` when a Vulkan call fails. Needs a variable `status`.
#define VK_TRY(vk, call)                                   \
    do {                                                   \
        VkResult vk_result_ = (call);                      \
        if (vk_result_ < 0) {                              \
            status = moe_vk_fail((vk), vk_result_, #call); \
            goto fail;                                     \
        }                                                  \
    } while (0)

// loader.c: the loader's entry point, or NULL when the machine has no loader. Whoever got one gives
// it back; with the last one the loader is closed.
PFN_vkGetInstanceProcAddr moe_vk_loader(void);
void moe_vk_loader_release(void);

// instance.c
enum vkmoe_status moe_vk_instance_create(const vkmoe_host *host, const vkmoe_context_desc *desc,
                                         struct moe_vk_instance **out);
// The caller's instance.
enum vkmoe_status moe_vk_instance_import(const vkmoe_host *host, PFN_vkGetInstanceProcAddr get_proc,
                                         VkInstance handle, uint32_t api_version,
                                         struct moe_vk_instance **out);
void moe_vk_instance_destroy(struct moe_vk_instance *instance);
// The i-th usable physical device (Vulkan 1.1 and a compute queue), in the loader's order, and
// their number. physical may be NULL.
enum vkmoe_status moe_vk_physical_device(struct moe_vk_instance *instance, uint32_t i,
                                         VkPhysicalDevice *physical, uint32_t *n);
enum { MOE_VK_MAX_FAMILIES = 32 }; // that we look at
// The first compute-capable queue family; UINT32_MAX if there is none.
uint32_t moe_vk_compute_family(const struct moe_vk_fn *fn, VkPhysicalDevice physical);

// caps.c
enum vkmoe_status moe_vk_caps_query(const struct moe_vk_instance *instance,
                                    VkPhysicalDevice physical, struct moe_vk_caps *out);
// caps_matrix.c: the shapes of cooperative matrices, where the features that are there have any.
enum vkmoe_status moe_vk_query_shapes(const struct moe_vk_instance *instance,
                                      VkPhysicalDevice physical, struct moe_vk_caps *out);
// Bits of a timestamp of the context's queue; 0: it has none.
uint32_t moe_vk_timestamp_bits(const struct moe_vk *vk);
// Clamps to what every Vulkan 1.1 device has.
void moe_vk_caps_floor(struct moe_vk_caps *caps);
void moe_vk_describe(const struct moe_vk_fn *fn, VkPhysicalDevice physical,
                     const struct moe_vk_caps *caps, vkmoe_device_info *out);

// device.c
enum vkmoe_status moe_vk_open(const vkmoe_host *host, const vkmoe_context_desc *desc, uint32_t i,
                              struct moe_device **out);
void moe_vk_close(struct moe_device *device);
// What opening and importing share: an empty object of this back end, the device's functions, and
// the least limits.
extern const struct moe_backend moe_backend_vulkan;
enum vkmoe_status moe_vk_object(const vkmoe_host *host, struct moe_vk **out);
enum vkmoe_status moe_vk_load_device(struct moe_vk *vk);
enum vkmoe_status moe_vk_check_limits(const struct moe_vk_caps *caps, const char *name);

// import.c
enum vkmoe_status moe_vk_requirements(void *get_instance_proc_addr, VkInstance instance,
                                      VkPhysicalDevice physical, vkmoe_vk_requirements *out);
enum vkmoe_status moe_vk_import(const vkmoe_host *host, const vkmoe_vk_import_desc *desc,
                                struct moe_device **out);

// memory.c
enum moe_vk_memory_use {
    MOE_VK_DEVICE,   // kernels read and write it; mapped only where the host reads it fast too
    MOE_VK_INPUT,    // the host writes, kernels read; mapped but on discrete memory
    MOE_VK_UPLOAD,   // the host writes, the device copies from it
    MOE_VK_READBACK, // the device copies to it, the host reads
};
// integrated: the device is no card with memory of its own. Pure, as the three below it.
enum moe_vk_memory_kind moe_vk_memory_kind(const VkPhysicalDeviceMemoryProperties *memory,
                                           bool integrated);
const char *moe_vk_memory_kind_name(enum moe_vk_memory_kind kind);
// The memory type for a use among the `allowed` bits; UINT32_MAX if none fits.
uint32_t moe_vk_memory_type(const VkPhysicalDeviceMemoryProperties *memory,
                            enum moe_vk_memory_kind kind, enum moe_vk_memory_use use,
                            uint32_t allowed);
// Bytes of a mapping in whole atoms, for flushes and invalidations.
VkMappedMemoryRange moe_vk_mapped_range(const struct moe_vk_buffer *buffer, uint64_t atom_size,
                                        uint64_t offset, uint64_t size);
enum vkmoe_status moe_vk_buffer_create(struct moe_vk *vk, uint64_t size, enum moe_vk_memory_use use,
                                       const char *name, struct moe_vk_buffer *out);
void moe_vk_buffer_destroy(struct moe_vk *vk, struct moe_vk_buffer *buffer);
// Of any buffer with that usage; 0 if this context does not address buffers by address.
uint64_t moe_vk_buffer_address(const struct moe_vk *vk, VkBuffer buffer);
// Makes writes through `mapped` visible to what is submitted from then on; and the device's writes
// to reads through `mapped`. Of the bytes given.
enum vkmoe_status moe_vk_buffer_flush(struct moe_vk *vk, const struct moe_vk_buffer *buffer,
                                      uint64_t offset, uint64_t size);
enum vkmoe_status moe_vk_buffer_invalidate(struct moe_vk *vk, const struct moe_vk_buffer *buffer,
                                           uint64_t offset, uint64_t size);

// command.c: one command buffer with its pool and fence, used by one thread at a time.
struct moe_vk_command {
    VkCommandPool pool;
    VkCommandBuffer buffer;
    VkFence fence;
};
enum vkmoe_status moe_vk_command_create(struct moe_vk *vk, struct moe_vk_command *out);
void moe_vk_command_destroy(struct moe_vk *vk, struct moe_vk_command *command);
enum vkmoe_status moe_vk_command_begin(struct moe_vk *vk, struct moe_vk_command *command);
// Submits, for a wait later on; and both at once.
enum vkmoe_status moe_vk_command_submit(struct moe_vk *vk, struct moe_vk_command *command);
enum vkmoe_status moe_vk_command_wait(struct moe_vk *vk, struct moe_vk_command *command);
enum vkmoe_status moe_vk_command_run(struct moe_vk *vk, struct moe_vk_command *command);
void moe_vk_barrier(const struct moe_vk *vk, VkCommandBuffer cmd, VkPipelineStageFlags from_stage,
                    VkAccessFlags from, VkPipelineStageFlags to_stage, VkAccessFlags to);
void moe_vk_name(struct moe_vk *vk, VkObjectType type, uint64_t handle, const char *name);

// store.c: what outlives the process, in the host's store or in files of cache_dir.
struct moe_vk_entry {
    const unsigned char *data; // NULL: there is none, or not whole
    size_t size;
    void *memory;
    struct moe_file_map map;
};
bool moe_vk_store_exists(const struct moe_vk *vk);
void moe_vk_entry_read(const struct moe_vk *vk, const char *key, struct moe_vk_entry *entry);
void moe_vk_entry_finish(const struct moe_vk *vk, struct moe_vk_entry *entry);
// What cannot be written is logged: then false, and an old entry stays. Some hundred bytes take no
// memory on their way to the host's store.
bool moe_vk_entry_write(const struct moe_vk *vk, const char *key, const void *data, size_t size);
void moe_vk_entry_remove(const struct moe_vk *vk, const char *key); // a file; takes no memory
uint64_t moe_vk_checksum(const void *data, size_t size);

// cache.c
enum vkmoe_status moe_vk_cache_open(struct moe_vk *vk);
void moe_vk_cache_save(struct moe_vk *vk);

// specialise.c: the words of a kernel with the values of its specialisation constants in place,
// which the caller frees, and their size in bytes. Many drivers fold what follows from them; where
// one does not, it compiles every branch that is not taken, and takes several times as long.
enum vkmoe_status moe_vk_specialise(const vkmoe_host *host, const struct moe_spv *spv,
                                    const uint32_t spec[MOE_VK_MAX_SPEC], uint32_t **out,
                                    size_t *size);

// pipeline.c
enum vkmoe_status moe_vk_layouts_create(struct moe_vk *vk);
// The pipeline of a kernel with specialisation constants 0..MOE_VK_MAX_SPEC-1; made at first use.
enum vkmoe_status moe_vk_pipeline_get(struct moe_vk *vk, enum moe_spv_id spv,
                                      const uint32_t spec[MOE_VK_MAX_SPEC], VkPipeline *out);
void moe_vk_pipelines_destroy(struct moe_vk *vk);

#endif
