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
//
// Words (one per thing, everywhere): n_tokens rows of input; d_model input width; d_ff hidden width
// of an expert; d_out output width; n_experts; top_k; a slot is one (token, k) pair; the router
// scores experts; a gate weight multiplies an expert's output.
//
// Rules that hold for every function:
//   - A failure returns a negative status; vkmoe_error_text() then says what, with the numbers.
//   - A create that fails leaves *out == NULL. Every destroy accepts NULL.
//   - Strings, arrays and descs are borrowed for the call only.
//   - Nothing aborts, exits, throws or prints. There is no global mutable state.
//   - Threads: a context may be used by any number of threads. Weights and plans are immutable and
//     may be shared by threads. A bind is used by one thread at a time. create and destroy of one
//     object never run at the same time as another use of it.
#ifndef VKMOE_VKMOE_H
#define VKMOE_VKMOE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(_WIN32) && !defined(VKMOE_STATIC)
#define VKMOE_API __declspec(dllexport)
#elif defined(__GNUC__)
#define VKMOE_API __attribute__((visibility("default")))
#else
#define VKMOE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define VKMOE_VERSION_MAJOR 0
#define VKMOE_VERSION_MINOR 1
#define VKMOE_VERSION_PATCH 0

// ---- status ----------------------------------------------------------------------------------

// X(name, value, meaning)
#define VKMOE_STATUS_LIST(X)                                                                       \
    X(VKMOE_OK, 0, "success")                                                                      \
    X(VKMOE_E_ARGUMENT, -1, "an argument is wrong")                                                \
    X(VKMOE_E_UNSUPPORTED, -2, "not supported here")                                               \
    X(VKMOE_E_SHAPE, -3, "a size or shape disagrees")                                              \
    X(VKMOE_E_MEMORY, -4, "out of host memory")                                                    \
    X(VKMOE_E_DEVICE_MEMORY, -5, "out of device memory")                                           \
    X(VKMOE_E_DEVICE_LOST, -6, "the device was lost")                                              \
    X(VKMOE_E_DEVICE, -7, "the device or its driver failed")                                       \
    X(VKMOE_E_NO_DEVICE, -8, "no such device")                                                     \
    X(VKMOE_E_IO, -9, "a file could not be read or written")                                       \
    X(VKMOE_E_DATA, -10, "a file's contents are wrong")                                            \
    X(VKMOE_E_CANCELLED, -11, "cancelled by the caller")

enum vkmoe_status {
#define VKMOE_STATUS_VALUE(name, value, meaning) name = (value),
    VKMOE_STATUS_LIST(VKMOE_STATUS_VALUE)
#undef VKMOE_STATUS_VALUE
};

// Name of a status, "VKMOE_OK" for instance; "unknown status" for any other number. Static text.
VKMOE_API const char *vkmoe_status_name(enum vkmoe_status status);

// Why the last failing call on this thread failed. Never NULL; valid until this thread's next call.
VKMOE_API const char *vkmoe_error_text(void);

// Sets this thread's error text: for libraries built on top of this one, so that their callers ask
// in one place. Text beyond 1023 bytes is cut.
VKMOE_API void vkmoe_error_set(const char *text);

// Version of the library at run time: major << 22 | minor << 12 | patch.
VKMOE_API uint32_t vkmoe_version(void);

// ---- host hooks ------------------------------------------------------------------------------

enum vkmoe_log_level {
    VKMOE_LOG_ERROR = 1,
    VKMOE_LOG_WARN = 2,
    VKMOE_LOG_INFO = 3,
    VKMOE_LOG_DEBUG = 4,
};

// Services of the program around the library. Every callback may be NULL (then the library's own
// is used), may be called from any thread, and gets `user` as its first argument.
typedef struct vkmoe_host {
    size_t struct_size;
    void *user;

    // Host memory: `align` is a power of two <= 4096. NULL means out of memory. Give both or none.
    void *(*alloc)(void *user, size_t size, size_t align);
    void (*free)(void *user, void *memory);

    // One line without a line end. Without it messages are dropped.
    void (*log)(void *user, enum vkmoe_log_level level, const char *text);

    // Job system for the CPU back end: calls task(arg, i) once for each i < n, in any order, on any
    // threads, and returns when all are done. A serial loop is fine. Without it: own thread pool.
    void (*parallel_for)(void *user, uint32_t n, void (*task)(void *arg, uint32_t i), void *arg);

    // Store for pipelines and kernel verdicts, instead of files in cache_dir. `key` is a short
    // printable name. get: *size is the room in `data` on entry, the entry's size on return; data
    // may be NULL to ask for the size; false if there is no such entry.
    bool (*cache_get)(void *user, const char *key, void *data, size_t *size);
    void (*cache_set)(void *user, const char *key, const void *data, size_t size);

    // Zones for a profiler: called with begin = true and false around compile, upload and run.
    void (*trace)(void *user, const char *zone, bool begin);
} vkmoe_host;

static inline vkmoe_host vkmoe_host_init(void)
{
    vkmoe_host host;
    memset(&host, 0, sizeof host);
    host.struct_size = sizeof host;
    return host;
}

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
    char tier[32];               // "T0 floor", "T1 fp16"; CPU: the ISA level in use, as "avx2"
    char features[512];          // names separated by spaces
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
    // CPU: highest instruction set to use: "scalar" or "avx2". NULL: the variable VKMOE_CPU_ISA if
    // it is set, else the best the machine has.
    const char *cpu_isa;

    // Vulkan: where pipelines and verdicts go. NULL: $VKMOE_CACHE_DIR, else $XDG_CACHE_HOME/vkmoe,
    // else $HOME/.cache/vkmoe. "": nowhere. Not used when the host has cache_get and cache_set.
    const char *cache_dir;
    enum vkmoe_addressing addressing;
    bool floor;        // Vulkan 1.1, no extension, no feature, every limit at the specified minimum
    bool validation;   // the Khronos layer with core and synchronisation checks; messages are
                       // logged as errors and counted by vkmoe_context_validation_count
    bool debug_labels; // names and labels for debuggers, where VK_EXT_debug_utils is there
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

// ---- layer -----------------------------------------------------------------------------------

enum vkmoe_dtype {
    VKMOE_F32 = 0,
    VKMOE_F16 = 1,
    VKMOE_BF16 = 2,
};

// "f32", "f16", "bf16"; "unknown" for any other number. Static text.
VKMOE_API const char *vkmoe_dtype_name(enum vkmoe_dtype type);

// One letter case, as vkmoe_dtype_name spells it. VKMOE_E_ARGUMENT: no such type.
VKMOE_API enum vkmoe_status vkmoe_dtype_from_name(const char *name, enum vkmoe_dtype *out);

// Rounds n f32 values to `type`, nearest even; dst holds n elements of that type.
VKMOE_API enum vkmoe_status vkmoe_dtype_convert(enum vkmoe_dtype type, const float *src, size_t n,
                                                void *dst);

enum vkmoe_expert_kind {
    VKMOE_EXPERT_MLP = 0,    // act_out(W_down h + b_down), h = act(W_up x + b_up), or
                             // h = act(W_gate x + b_gate) * (W_up x + b_up) when gated
    VKMOE_EXPERT_LINEAR = 1, // act(W x + b)
};

enum vkmoe_act {
    VKMOE_ACT_NONE = 0,
    VKMOE_ACT_SILU = 1,      // v * sigmoid(act_alpha * v)
    VKMOE_ACT_GELU_ERF = 2,  // v / 2 * (1 + erf(v / sqrt 2))
    VKMOE_ACT_GELU_TANH = 3, // v / 2 * (1 + tanh(sqrt(2 / pi) * (v + 0.044715 v^3)))
    VKMOE_ACT_RELU = 4,
    VKMOE_ACT_RELU2 = 5, // relu(v)^2
    VKMOE_ACT_SIGMOID = 6,
    VKMOE_ACT_TANH = 7,
    VKMOE_ACT_SITU = 8, // beta tanh(v / beta) sigmoid(v), the up half lambda tanh(u / lambda)
};

enum vkmoe_score {
    VKMOE_SCORE_SOFTMAX = 0, // over all experts, maximum subtracted
    VKMOE_SCORE_SIGMOID = 1,
    VKMOE_SCORE_SQRT_SOFTPLUS = 2,
    VKMOE_SCORE_RELU = 3,
    VKMOE_SCORE_NONE = 4,
};

enum vkmoe_rank { // what selection orders by, before the selection bias
    VKMOE_RANK_SCORE = 0,
    VKMOE_RANK_LOGIT = 1,
    VKMOE_RANK_SIGMOID = 2,
};

enum vkmoe_select {
    VKMOE_SELECT_TOP_K = 0,
    VKMOE_SELECT_TABLE = 1,       // expert ids from a table indexed by token id
    VKMOE_SELECT_SPARSEMIXER = 2,
    VKMOE_SELECT_TOP_P = 3,
    VKMOE_SELECT_THRESHOLD = 4,
};

enum vkmoe_gate_source {
    VKMOE_GATE_SCORE = 0,            // the selected experts' scores
    VKMOE_GATE_SOFTMAX_SELECTED = 1, // softmax over the selected experts' logits
};

enum vkmoe_norm {
    VKMOE_NORM_NONE = 0,
    VKMOE_NORM_SUM_PLUS_EPS = 1, // w / (sum w + norm_eps)
    VKMOE_NORM_MAX_SUM_EPS = 2,  // w / max(sum w, norm_eps)
};

enum vkmoe_group_score {
    VKMOE_GROUP_MAX = 0,
    VKMOE_GROUP_TOP2_SUM = 1,
    VKMOE_GROUP_TOP_SHARE_SUM = 2, // sum of the top_k / topk_group best of a group
};

enum vkmoe_clamp {
    VKMOE_CLAMP_NONE = 0,
    VKMOE_CLAMP_BEFORE_ACT = 1,
    VKMOE_CLAMP_AFTER_ACT = 2,
};

enum vkmoe_shared_gate {
    VKMOE_SHARED_PLAIN = 0,
    VKMOE_SHARED_SIGMOID = 1,  // sigmoid(w . x) multiplies the shared expert
    VKMOE_SHARED_SOFTMAX2 = 2, // [a, b] = softmax(W x + b) mixes routed and shared
};

enum vkmoe_capacity {
    VKMOE_CAPACITY_NONE = 0,
    VKMOE_CAPACITY_BY_POSITION = 1,
    VKMOE_CAPACITY_BY_GATE = 2,
};

// A MoE layer in full. Fields are orthogonal; a value that this version does not compute is refused
// with VKMOE_E_UNSUPPORTED and a text that names the field. For token x:
//
//   l = router x + router_bias;  s = score(l);  q = rank(l, s) + selection_bias
//   e = the top_k largest q, ties to the lower index, NaN last
//   w = gate_source(s, l)[e];  w = norm(w) * routed_scale
//   y = out_scale * (c_routed * sum_k w_k expert_{e_k}(x) + c_shared * shared_gate(x) * shared(x))
typedef struct vkmoe_layer_desc {
    size_t struct_size;

    // Sizes.
    uint32_t n_experts;    // 1..1024
    uint32_t top_k;        // 1..n_experts; n_experts is dense routing
    uint32_t d_model;
    uint32_t d_ff;
    uint32_t d_out;        // 0: d_model
    uint32_t d_shared_ff;  // hidden width of the shared expert (several merged into one); 0: none
    uint32_t n_zero;       // identity experts behind the real ones
    uint32_t d_latent;     // width the routed experts work in; 0: d_model
    enum vkmoe_dtype in_type;  // stored type of gate and up, the shared expert's too
    enum vkmoe_dtype out_type; // stored type of down, the shared expert's too

    // Router.
    bool router_input;   // the router reads a tensor of its own
    bool router_prenorm; // the router reads rms(h) * scale * prenorm_const
    float prenorm_const, prenorm_eps;
    bool router_bias;
    bool selection_bias; // enters the ranking only, never the gate weight
    float logit_softcap; // l = c tanh(l / c); 0: none
    enum vkmoe_score score;
    enum vkmoe_rank rank;
    enum vkmoe_select select;
    float select_p;         // VKMOE_SELECT_TOP_P, VKMOE_SELECT_THRESHOLD
    float sparsemixer_eps;
    uint32_t n_group;       // 0 or 1: no groups
    uint32_t topk_group;
    enum vkmoe_group_score group_score;
    bool group_fill_zero;   // masked experts rank as 0 instead of -infinity
    enum vkmoe_gate_source gate_source;
    enum vkmoe_norm norm;
    float norm_p;           // exponent of the norm; init sets 1
    float norm_eps;
    float routed_scale;     // init sets 1
    bool expert_scale;      // a factor per expert on the normalised gate weight

    // Experts.
    enum vkmoe_expert_kind expert_kind;
    bool gated;
    enum vkmoe_act act;
    enum vkmoe_act act_out;
    float act_alpha;        // init sets 1
    float up_add;           // added to the up half
    enum vkmoe_clamp clamp;
    float limit, limit_shared;
    float situ_beta, situ_lambda;
    bool gate_bias, up_bias, down_bias; // the shared expert has the same ones
    bool weight_on_input;   // the gate weight multiplies the expert's input
    bool latent_norm;
    bool out_bias;          // one bias of d_out on the routed sum
    uint32_t adjugate_group, d_adjugate;
    float adjugate_scale;
    const uint32_t *expert_d_ff;       // (n_experts) or NULL: all d_ff
    const enum vkmoe_act *expert_act;  // (n_experts) or NULL: all act
    const uint32_t *expert_alias;      // (n_experts) or NULL: expert i has the weights of alias[i]

    // Combine.
    enum vkmoe_shared_gate shared_gate;
    float c_routed, c_shared, out_scale; // init sets 1

    // Training only.
    enum vkmoe_capacity capacity_mode;
    uint32_t capacity, capacity_rows;
    float jitter;           // router input times U(1 - jitter, 1 + jitter)
    float aux_coef, z_coef, bias_rate;
} vkmoe_layer_desc;

static inline vkmoe_layer_desc vkmoe_layer_desc_init(void)
{
    vkmoe_layer_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.struct_size = sizeof desc;
    desc.norm_p = desc.routed_scale = desc.act_alpha = 1.0f;
    desc.c_routed = desc.c_shared = desc.out_scale = 1.0f;
    return desc;
}

// Checks a layer without a device. VKMOE_E_ARGUMENT, VKMOE_E_SHAPE or VKMOE_E_UNSUPPORTED with the
// field's name and value in the text.
VKMOE_API enum vkmoe_status vkmoe_layer_check(const vkmoe_layer_desc *layer);

// ---- weights ---------------------------------------------------------------------------------

typedef struct vkmoe_weights vkmoe_weights;
struct vkmoe_vk_buffer; // vkmoe/vulkan.h

// A dense row-major array; the shape is the one its place asks for. `type` is the stored type of
// that place, or VKMOE_F32, which is then rounded (nearest even) when packed.
typedef struct vkmoe_tensor {
    const void *data;
    enum vkmoe_dtype type;
} vkmoe_tensor;

// One expert. Bias pointers are NULL exactly where the layer has no such bias.
typedef struct vkmoe_expert_tensors {
    vkmoe_tensor gate;       // (d_ff, d_model); data NULL when not gated
    vkmoe_tensor up;         // (d_ff, d_model)
    vkmoe_tensor down;       // (d_out, d_ff)
    const float *gate_bias;  // (d_ff)
    const float *up_bias;    // (d_ff)
    const float *down_bias;  // (d_out)
} vkmoe_expert_tensors;

typedef struct vkmoe_router_tensors {
    vkmoe_tensor weight;          // (n_experts, d_model); kept as f32
    const float *bias;            // (n_experts)
    const float *selection_bias;  // (n_experts)
    const float *shared_gate;     // (d_model), when shared_gate is VKMOE_SHARED_SIGMOID
} vkmoe_router_tensors;

#define VKMOE_SHARED_EXPERT UINT32_MAX // in place of an expert index

// Sizes of packed blocks on one context, in bytes; all multiples of 256.
typedef struct vkmoe_weights_layout {
    uint64_t expert_size; // one packed routed expert
    uint64_t shared_size; // the packed shared expert; 0 if there is none
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
//   expert    index < n_experts, or VKMOE_SHARED_EXPERT
//   dst       at least expert_size (shared_size) bytes, 4-byte aligned; written in full
// The layout depends on the layer, the device's kind and, on a CPU, its ISA level: pack and use on
// equal contexts. Threads: any number of calls at once, with different dst.
VKMOE_API enum vkmoe_status vkmoe_weights_pack_expert(const vkmoe_context *context,
                                                      const vkmoe_layer_desc *layer,
                                                      uint32_t expert,
                                                      const vkmoe_expert_tensors *tensors,
                                                      void *dst, size_t dst_size);

// Packs what is not packed yet, uploads, and waits until it is there (but see vkmoe/vulkan.h for
// contexts without a queue). Only vk_buffer is borrowed after. NaN and infinity are legal weights.
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
enum vkmoe_precision {
    VKMOE_PRECISION_EXACT = 0, // f32 operands
    VKMOE_PRECISION_HALF = 1,
    VKMOE_PRECISION_INT8 = 2,  // block-quantised activations for block-quantised weights; refused
                               // by this version
};

// "exact", "half", "int8"; "unknown" for any other number. Static text.
VKMOE_API const char *vkmoe_precision_name(enum vkmoe_precision precision);

// One letter case, as vkmoe_precision_name spells it. VKMOE_E_ARGUMENT: no such precision.
VKMOE_API enum vkmoe_status vkmoe_precision_from_name(const char *name, enum vkmoe_precision *out);

typedef struct vkmoe_plan_desc {
    size_t struct_size;
    const vkmoe_layer_desc *layer;
    uint32_t max_tokens;    // largest n_tokens of a run, at least 1
    enum vkmoe_precision precision;
    enum vkmoe_dtype x_type; // type of x and of y: f32, f16 or bf16
    // Vulkan: force a kernel variant by name, "a0" (f32 arithmetic) or "a1" (f16 weights, and x
    // rounded to f16: precision HALF). Refused where the device, its driver, the precision or the
    // types do not allow it. NULL: the best that is allowed and was not found bad.
    const char *variant;
    bool scores;             // the plan also yields what selection ranked by
    bool counters;           // kernels count what they do; slower: vkmoe_bind_get_counters
    float budget_ms; // Vulkan: vkmoe_run submits slices that take about this long at most, so that
                     // other work on the device gets its turn; 0: 50. Results do not depend on it
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
// bind is destroyed. VKMOE_E_SHAPE: the weights were made for another layer.
VKMOE_API enum vkmoe_status vkmoe_bind_create(vkmoe_plan *plan, vkmoe_weights *weights,
                                              const vkmoe_bind_desc *desc, vkmoe_bind **out);
VKMOE_API void vkmoe_bind_destroy(vkmoe_bind *bind);

// Host memory of one run. Elements of x and y have the plan's x_type. Strides are bytes from row to
// row; 0 means rows follow each other.
typedef struct vkmoe_io {
    size_t struct_size;
    const void *x;    // (n_tokens, d_model) in, aligned to its elements
    size_t x_stride;  // multiple of an element's size, at least a row
    void *y;          // (n_tokens, d_out) out, aligned to its elements; may not overlap x
    size_t y_stride;
    int32_t *ids;     // (n_tokens, top_k) out, descending selection order; or NULL
    float *gates;     // (n_tokens, top_k) out, the weights of `ids`; or NULL
    float *scores;    // (n_tokens, n_experts) out, what selection ranked by; or NULL.
                      // Only for plans made with `scores`
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
// stride below a row.  VKMOE_E_DEVICE_LOST: now and for ever after.
VKMOE_API enum vkmoe_status vkmoe_run(vkmoe_bind *bind, uint32_t n_tokens, const vkmoe_io *io);

#ifdef __cplusplus
}
#endif
#endif
