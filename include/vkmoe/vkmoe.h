// SPDX-License-Identifier: MIT
// vkmoe: Mixture-of-Experts layers on Vulkan and on CPU.
//
// Life of a layer, every object destroyed in reverse order:
//
//     vkmoe_context *context;  vkmoe_weights *weights;  vkmoe_plan *plan;  vkmoe_bind *bind;
//     vkmoe_context_create(NULL, &context);                  // a device and its kernels
//     vkmoe_weights_create(context, &weights_desc, &weights);  // immutable, shareable
//     vkmoe_plan_create(context, &plan_desc, &plan);         // a layer compiled for that device
//     vkmoe_bind_create(plan, weights, NULL, &bind);         // every allocation happens here
//     vkmoe_run(bind, n_tokens, &io);                        // as often as you like
#ifndef VKMOE_VKMOE_H
#define VKMOE_VKMOE_H

#include <vkmoe/layer.h>

#ifdef __cplusplus
extern "C" {
#endif

// ---- devices ---------------------------------------------------------------------------------

enum vkmoe_device_type {
    VKMOE_DEVICE_DISCRETE = 0,
    VKMOE_DEVICE_INTEGRATED = 1,
    VKMOE_DEVICE_SOFTWARE = 2, // a Vulkan driver that computes on the CPU
    VKMOE_DEVICE_CPU = 3,      // the CPU back end
    VKMOE_DEVICE_REFERENCE = 4, // the f64 oracle; never listed, opened by the name "reference"
};

// What one device is. Text fields are empty where the system does not tell.
typedef struct vkmoe_device_info {
    uint32_t index;              // position in vkmoe_device_list
    enum vkmoe_device_type type;
    char name[256];
    char uuid[33];               // 32 hex digits
    char pci[16];                // "0000:03:00.0"
    uint32_t vendor_id, device_id;
    char driver[64], driver_version[64];
    char api[16];                // "1.3.239"; CPU: empty
    uint64_t memory_bytes;       // device-local heaps; CPU: physical memory
    char tier[32];               // "T0 floor", "T1 fp16", "T2 int8" ...; CPU: the ISA level in
                                 // use, as "avx2"
    char features[512];          // names separated by spaces
    // How the host reaches the device's memory: "unified" or "resizable BAR": weights and inputs
    // are written in place; "discrete": by copies. CPU: empty.
    char memory[32];
} vkmoe_device_info;

// Lists the devices of this machine: Vulkan devices in the loader's order, then the CPU.
//   out   room for *n entries, or NULL to ask for the count
//   n     in: room; out: number of devices there are
// Never fails for want of a GPU, a driver or a loader: then it lists the CPU alone.
VKMOE_API enum vkmoe_status vkmoe_device_list(vkmoe_device_info *out, uint32_t *n);

// ---- context ---------------------------------------------------------------------------------

typedef struct vkmoe_context vkmoe_context;

enum vkmoe_addressing {
    VKMOE_ADDRESSING_AUTO = 0,        // buffer device address where the device has it
    VKMOE_ADDRESSING_DESCRIPTORS = 1,
    VKMOE_ADDRESSING_BDA = 2,         // refused where the device lacks it
};

// Opens a device that the library owns.
typedef struct vkmoe_context_desc {
    size_t struct_size;
    const vkmoe_host *host; // NULL: the library's own services

    // Which device: "auto" (the best GPU, else the CPU; never a software Vulkan device), "cpu",
    // "reference", "vulkan" (the first Vulkan device, software too), an index of vkmoe_device_list
    // (up to 3 digits), "vvvv:dddd" (hex vendor:device), a UUID prefix of at least 4 digits, part
    // of a name; tried in this order, whatever the letter case. The last three must match exactly
    // one device. NULL: the variable VKMOE_DEVICE if it is set, else "auto".
    const char *device;

    // CPU: number of threads, the caller's among them. 0: one per physical core.
    uint32_t n_threads;
    // CPU: highest instruction set to use: "scalar", "avx2", "avx512", "avx512_vnni",
    // "avx512_bf16" or "amx"; "neon", "dotprod" or "i8mm" on 64-bit ARM. NULL: the variable
    // VKMOE_CPU_ISA if it is set, else the best the machine has ("avx512_bf16" is left out where it
    // is slower). For "amx" Linux is asked for the process's use of tiles, for good: stacks for
    // signals then have to hold getauxval(AT_MINSIGSTKSZ) bytes. Where a thread has a smaller one,
    // the level is not there.
    const char *cpu_isa;

    // Vulkan: where pipelines and verdicts go. NULL: $VKMOE_CACHE_DIR, else $XDG_CACHE_HOME/vkmoe,
    // else $HOME/.cache/vkmoe. "": nowhere. Not used when the host has cache_get and cache_set.
    const char *cache_dir;
    enum vkmoe_addressing addressing;
    bool floor;        // Vulkan 1.1, no extension, no feature, every limit at the specified minimum
    bool validation;   // the Khronos layer with core and synchronisation checks; messages are
                       // logged as errors and counted by vkmoe_context_validation_count
    bool debug_labels; // names and labels for debuggers, where VK_EXT_debug_utils is there

    // Vulkan: kernel variants not to use, "NAME,NAME,...", by name or kind as `vkmoe info -v` lists
    // them ("fp16"). NULL: the variable VKMOE_DISABLE if it is set, else "", which is none.
    // VKMOE_E_ARGUMENT: a name that is none; the text lists what there is.
    const char *disable;
} vkmoe_context_desc;

static inline vkmoe_context_desc vkmoe_context_desc_init(void)
{
    vkmoe_context_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.struct_size = sizeof desc;
    return desc;
}

// Opens a device. desc may be NULL for all defaults.
// VKMOE_E_NO_DEVICE: nothing matches `device`; the text lists what there is.
VKMOE_API enum vkmoe_status vkmoe_context_create(const vkmoe_context_desc *desc,
                                                 vkmoe_context **out);

// Waits for the device's own work, then closes it.
VKMOE_API void vkmoe_context_destroy(vkmoe_context *context);

// VKMOE_OK, or VKMOE_E_DEVICE_LOST for ever after the device was lost.
VKMOE_API enum vkmoe_status vkmoe_context_status(const vkmoe_context *context);

// Copies the facts about the context's device.
VKMOE_API enum vkmoe_status vkmoe_context_info(const vkmoe_context *context,
                                               vkmoe_device_info *out);

// Number of validation messages (warnings and errors) since the context was created.
VKMOE_API uint32_t vkmoe_context_validation_count(const vkmoe_context *context);

// ---- weights ---------------------------------------------------------------------------------

typedef struct vkmoe_weights vkmoe_weights;
struct vkmoe_vk_buffer; // vkmoe/vulkan.h

// Sizes of packed blocks on one context, in bytes; all multiples of 256.
typedef struct vkmoe_weights_layout {
    uint64_t expert_size; // one packed routed expert
    uint64_t shared_size; // the packed shared expert; 0 if there is none
    uint64_t adjugate_size; // one packed adjugate expert; 0 if there are none
    uint64_t total_size;  // all that vkmoe_weights_create puts on the device
} vkmoe_weights_layout;

typedef struct vkmoe_weights_desc {
    size_t struct_size;
    const vkmoe_layer_desc *layer;
    const vkmoe_router_tensors *router;
    // Routed experts: either tensors, or blocks made by vkmoe_weights_pack_expert on this context.
    const vkmoe_expert_tensors *experts;  // (n_experts)
    const void *const *packed_experts;    // (n_experts)
    const vkmoe_expert_tensors *shared;   // when the layer has a shared expert
    const void *packed_shared;
    // Vulkan: at least total_size bytes of the caller's buffer to keep the weights in, borrowed
    // until the weights are destroyed; see vkmoe/vulkan.h. NULL: in the library's own buffers.
    const struct vkmoe_vk_buffer *vk_buffer;

    // n_adjugates = ceil(n_experts / adjugate_group) of them, as `experts`.
    const vkmoe_expert_tensors *adjugates;
    const void *const *packed_adjugates;
    const vkmoe_latent_tensors *latent; // when the layer has a latent width
    const float *out_bias;              // (d_out), when the layer has it
    // Instead of all arrays of experts above, for weights that are read as they are packed: called
    // once for each expert that there is (index, VKMOE_ADJUGATE_EXPERT + i, VKMOE_SHARED_EXPERT),
    // in any order, one call at a time, on the calling thread. What it gives must last until the
    // next call. A failure ends the creation with that status.
    enum vkmoe_status (*load_expert)(void *load_user, uint32_t expert, vkmoe_expert_tensors *out);
    void *load_user;
} vkmoe_weights_desc;

static inline vkmoe_weights_desc vkmoe_weights_desc_init(void)
{
    vkmoe_weights_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.struct_size = sizeof desc;
    return desc;
}

// How large packed weights are on this context.
VKMOE_API enum vkmoe_status vkmoe_weights_get_layout(const vkmoe_context *context,
                                                     const vkmoe_layer_desc *layer,
                                                     vkmoe_weights_layout *out);

// Packs one expert into host memory in the context's own layout.
//   expert    index < n_experts, VKMOE_SHARED_EXPERT, or VKMOE_ADJUGATE_EXPERT + the adjugate's
//             index
//   dst       at least expert_size (shared_size, adjugate_size) bytes, 4-byte aligned; written in
//             full
// The layout depends on the layer and the device's kind, and may come to depend on a CPU's ISA
// level: pack and use on equal contexts. Threads: any number of calls at once, with different dst.
VKMOE_API enum vkmoe_status vkmoe_weights_pack_expert(const vkmoe_context *context,
                                                      const vkmoe_layer_desc *layer,
                                                      uint32_t expert,
                                                      const vkmoe_expert_tensors *tensors,
                                                      void *dst, size_t dst_size);

// Packs what is not packed yet, uploads, and waits until it is there (but see vkmoe/vulkan.h for
// contexts without a queue). Only vk_buffer is borrowed after. NaN and infinity are legal weights.
// On the CPU the context's threads pack together what lies in memory, so that its pages are on
// their NUMA nodes.
VKMOE_API enum vkmoe_status vkmoe_weights_create(vkmoe_context *context,
                                                 const vkmoe_weights_desc *desc,
                                                 vkmoe_weights **out);
VKMOE_API void vkmoe_weights_destroy(vkmoe_weights *weights);

// ---- plan ------------------------------------------------------------------------------------

typedef struct vkmoe_plan vkmoe_plan;

// What a plan may do to the operands of the experts. The router and every accumulation are f32 in
// each class, whatever x is, and y is rounded once, to nearest even.
//
// HALF permits operands rounded to the 16-bit type that the weights or x have, never bf16 to f16,
// and requires nothing: a device without such kernels computes exactly, which is within the class.
// With f16 weights a value beyond 65504, of x or inside an expert, may become infinite there.
//
// INT8 is for experts with weights of blocks. What those are multiplied with may be rounded to
// blocks of 32 values: the largest magnitude / 127 as the scale, and codes of 8 bits; an infinity
// makes its whole block NaN. Other matrices of the layer, and types of blocks without such kernels
// (fp8), are computed as in EXACT. On Vulkan so are few tokens, and all tokens where products of
// bytes are not there, not fast (and no variant was named or found faster), or buffers have no
// addresses. VKMOE_E_UNSUPPORTED: no expert has weights of blocks, or the device is the reference.
//
// The promise for y, as the distance from the oracle relative to the length of y, before y is
// rounded to its type: EXACT 1e-5, HALF 4e-3, INT8 1.5e-2 (of n numbers, 1 + 3 / sqrt(n) times
// that: few of them scatter).
enum vkmoe_precision {
    VKMOE_PRECISION_EXACT = 0, // f32 operands
    VKMOE_PRECISION_HALF = 1,  // of 16 bits
    VKMOE_PRECISION_INT8 = 2,  // of blocks of 8 bits
};

// "exact", "half", "int8"; "unknown" for any other number. Static text.
VKMOE_API const char *vkmoe_precision_name(enum vkmoe_precision precision);

// One letter case, as vkmoe_precision_name spells it. VKMOE_E_ARGUMENT: no such precision.
VKMOE_API enum vkmoe_status vkmoe_precision_from_name(const char *name, enum vkmoe_precision *out);

// What a plan computes: a layer, or a part of one for those whose experts are their own
// (convolutions, recurrent nets, shaders). An expert gets its rows of x and gives as many of y:
//
//     int32_t ids[T * K], slots[T * K];  uint32_t counts[E], offsets[E + 1];  float gates[T * K];
//     io.x = x;  io.ids = ids;  io.gates = gates;
//     vkmoe_run(route, T, &io);
//     io.gates = NULL;  io.rows = rows;  io.slots = slots;
//     io.counts = counts;  io.offsets = offsets;
//     vkmoe_run(gather, T, &io);
//     for (uint32_t e = 0; e < E; e++) // outputs[i] = expert e of rows[i]
//         my_expert(e, rows + offsets[e] * D, counts[e], outputs + offsets[e] * D_OUT);
//     io = vkmoe_io_init();
//     io.rows = outputs;  io.slots = slots;  io.gates = gates;  io.y = y;
//     vkmoe_run(combine, T, &io);
//
// All that an operation reads or writes has to be given, but the scores, and nothing else. GATHER
// and COMBINE go over all tokens at once: more than a device can hold of one run are refused with
// VKMOE_E_UNSUPPORTED. They have no weights: their binds may be made with weights NULL. A layer
// with n_zero > 0 has identity experts in COMBINE too; what else a layer adds to its routed experts
// (d_shared_ff, d_latent, adjugate_group, out_bias, weight_on_input) these two refuse with
// VKMOE_E_UNSUPPORTED.
enum vkmoe_operation {
    VKMOE_OPERATION_LAYER = 0,
    // x (or router_x, and token_ids) -> ids, gates [, scores]: the router, the capacity included.
    VKMOE_OPERATION_ROUTE = 1,
    // x, ids -> rows, slots, counts, offsets: the rows of x in the order of experts, those of an
    // expert in the order of slots. Slots of no expert (-1, identity experts) have no row.
    VKMOE_OPERATION_GATHER = 2,
    // rows, slots, gates [, x, ids] -> y = out_scale c_routed sum_k w_k row_k in ascending k, where
    // row_k is that of the slot; a slot that has none adds nothing. With n_zero > 0 x and ids are
    // read, and the slots of identity experts add w_k x.
    VKMOE_OPERATION_COMBINE = 3,
};

// "layer", "route", "gather", "combine"; "unknown" for any other number. Static text.
VKMOE_API const char *vkmoe_operation_name(enum vkmoe_operation operation);

typedef struct vkmoe_plan_desc {
    size_t struct_size;
    const vkmoe_layer_desc *layer;
    uint32_t max_tokens;    // largest n_tokens of a run, at least 1
    enum vkmoe_precision precision;
    enum vkmoe_dtype x_type; // type of x and of y: f32, f16 or bf16
    // Vulkan: force a kernel variant by name or kind, "a0" (f32 arithmetic), "a0n" (the same for
    // weights of f32, f16 and bf16, without shared memory), "a1" (f16 weights, and x rounded to
    // f16: precision HALF), "a2" (weights of blocks times x and hidden rows as codes of 8 bits:
    // precision INT8), "a3i" (the same by cooperative matrices of bytes), "a3" (cooperative
    // matrices of f16, of f32 weights too, each row scaled to f16's range: precision HALF; "a3b" to
    // "a3d", "a3ib": the device's other shapes of them) or "a4" (as "a3" by matrices of any size,
    // VK_NV_cooperative_matrix2; "a4b": in other units of the device's). Refused where the device,
    // its driver, the precision or the types do not allow it, and so is "net-...", of networks
    // (vkmoe_net_desc.variant); the text says what is missing. NULL: the best that is allowed and
    // was not found bad or slow.
    const char *variant;
    bool scores;             // the plan also yields what selection ranked by
    bool counters;           // kernels count what they do; slower: vkmoe_bind_get_counters
    float budget_ms; // Vulkan: vkmoe_run submits slices that take about this long at most, so that
                     // other work on the device gets its turn; 0: 50. With 2 there is time for it
                     // in each frame of graphics. Results do not depend on it
    enum vkmoe_operation operation; // 0: the layer
} vkmoe_plan_desc;

static inline vkmoe_plan_desc vkmoe_plan_desc_init(void)
{
    vkmoe_plan_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.struct_size = sizeof desc;
    return desc;
}

// Compiles a layer for the context's device: slow, once. The plan keeps a copy of the layer.
// VKMOE_E_UNSUPPORTED: not computed on this device; the text names what.
VKMOE_API enum vkmoe_status vkmoe_plan_create(vkmoe_context *context, const vkmoe_plan_desc *desc,
                                              vkmoe_plan **out);
VKMOE_API void vkmoe_plan_destroy(vkmoe_plan *plan);

// ---- bind and run ----------------------------------------------------------------------------

typedef struct vkmoe_bind vkmoe_bind;
struct vkmoe_vk_io; // vkmoe/vulkan.h

typedef struct vkmoe_bind_desc {
    size_t struct_size;
    // Vulkan: the caller's buffers to record with. NULL: the bind owns buffers for vkmoe_run.
    const struct vkmoe_vk_io *vk_io;
} vkmoe_bind_desc;

static inline vkmoe_bind_desc vkmoe_bind_desc_init(void)
{
    vkmoe_bind_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.struct_size = sizeof desc;
    return desc;
}

// Joins a plan with its weights and makes everything a run needs: buffers, workspace, descriptors.
// Running and recording allocate nothing. desc may be NULL. Plan and weights are borrowed until the
// bind is destroyed. VKMOE_E_SHAPE: the weights were made for another layer. weights may be NULL
// for the operations GATHER and COMBINE alone.
VKMOE_API enum vkmoe_status vkmoe_bind_create(vkmoe_plan *plan, vkmoe_weights *weights,
                                              const vkmoe_bind_desc *desc, vkmoe_bind **out);
VKMOE_API void vkmoe_bind_destroy(vkmoe_bind *bind);

// Host memory of one run. Elements of x and y have the plan's x_type. Strides are bytes from row to
// row; 0 means rows follow each other. In and out are those of a layer; for a plan of an operation
// see enum vkmoe_operation.
typedef struct vkmoe_io {
    size_t struct_size;
    const void *x;    // (n_tokens, d_model) in, aligned to its elements
    size_t x_stride;  // multiple of an element's size, at least a row
    void *y;          // (n_tokens, d_out) out, aligned to its elements; may not overlap x
    size_t y_stride;
    int32_t *ids;     // (n_tokens, top_k) out, descending selection order, -1: unused; or NULL
    float *gates;     // (n_tokens, top_k) out, the weights of `ids`; or NULL
    float *scores;    // (n_tokens, n_experts + n_zero) out, what selection ranked by; or NULL.
                      // Only for plans made with `scores`
    const void *router_x; // (n_tokens, d_model) in, as x, when the layer has router_input
    size_t router_x_stride;
    const int32_t *token_ids; // (n_tokens) in, each 0..n_token_ids - 1, when select is
                              // VKMOE_SELECT_TABLE

    // For operations alone. ids are -1..n_experts + n_zero - 1 where they are read.
    void *rows;         // GATHER out: (n_tokens * top_k, d_model), those from offsets[n_experts] on
                        // are left as they are. COMBINE in: (n_tokens * top_k, d_out). Elements as
                        // x, aligned to them
    size_t rows_stride; // as x_stride
    int32_t *slots;     // (n_tokens * top_k): which slot a row is of, token * top_k + k; -1 from
                        // offsets[n_experts] on. COMBINE in: in any order, no slot twice
    uint32_t *counts;   // (n_experts): rows of an expert
    uint32_t *offsets;  // (n_experts + 1): its first row; behind them how many rows there are
} vkmoe_io;

static inline vkmoe_io vkmoe_io_init(void)
{
    vkmoe_io io;
    memset(&io, 0, sizeof io);
    io.struct_size = sizeof io;
    return io;
}

// Runs the layer on host memory and waits for the result. n_tokens is 0..max_tokens; 0 is a no-op.
// On failure the outputs hold no promise.
// VKMOE_E_SHAPE: n_tokens above the plan's max_tokens.  VKMOE_E_ARGUMENT: NULL, misaligned, or a
// stride below a row.  VKMOE_E_DATA: an id or a slot that there is not; the text names it.
// VKMOE_E_DEVICE_LOST: now and for ever after.
VKMOE_API enum vkmoe_status vkmoe_run(vkmoe_bind *bind, uint32_t n_tokens, const vkmoe_io *io);

#ifdef __cplusplus
}
#endif
#endif
