// SPDX-License-Identifier: MIT
// Measuring: how fast a layer or a network runs on a device, what its kernels did, and what the
// device could do at best. `vkmoe bench` and `vkmoe tune` are made of this.
//
// Times are seconds as double. Nothing here judges a number: samples come back as they were taken.
#ifndef VKMOE_BENCH_H
#define VKMOE_BENCH_H

#include <vkmoe/train.h>

#ifdef __cplusplus
extern "C" {
#endif

// ---- what a device can do ----------------------------------------------------------------------

// What a kernel multiplies, each with sums in f32 (i32 for int8): the peak that bounds it.
// X(name, value, spelling)
#define VKMOE_ARITHMETIC_LIST(X)                                                                   \
    X(VKMOE_ARITHMETIC_F32, 0, "f32")                                                              \
    X(VKMOE_ARITHMETIC_F16, 1, "f16")                                                              \
    X(VKMOE_ARITHMETIC_BF16, 2, "bf16")                                                            \
    X(VKMOE_ARITHMETIC_INT8, 3, "int8")                                                            \
    X(VKMOE_ARITHMETIC_F16_MATRIX, 4, "f16-matrix")                                                \
    X(VKMOE_ARITHMETIC_BF16_MATRIX, 5, "bf16-matrix")                                              \
    X(VKMOE_ARITHMETIC_INT8_MATRIX, 6, "int8-matrix")

enum vkmoe_arithmetic {
#define VKMOE_ARITHMETIC_VALUE(name, value, spelling) name = (value),
    VKMOE_ARITHMETIC_LIST(VKMOE_ARITHMETIC_VALUE)
#undef VKMOE_ARITHMETIC_VALUE
};
enum { VKMOE_N_ARITHMETICS = 7 };

// "f32", "int8-matrix" ...; "unknown" for any other number. Static text.
VKMOE_API const char *vkmoe_arithmetic_name(enum vkmoe_arithmetic arithmetic);

enum { // what vkmoe_probe_run is to measure, as bits
    VKMOE_PROBE_READ = 1,
    VKMOE_PROBE_ARITHMETIC = 2,
    VKMOE_PROBE_DISPATCH = 4,
    VKMOE_PROBE_ALL = 7,
};

// The limits of a device as they are just now. 0: not measured, or there is no such thing.
typedef struct vkmoe_limits {
    double read_rate; // bytes/s of one sequential read of memory that no cache holds
    double peak[VKMOE_N_ARITHMETICS]; // operations/s; a multiply-add is two
    // One empty dispatch that waits for the one before it (CPU: one empty phase on all threads).
    double dispatch_seconds;
} vkmoe_limits;

typedef struct vkmoe_probe vkmoe_probe;

typedef struct vkmoe_probe_desc {
    size_t struct_size;
    uint64_t read_size; // bytes to read, at least 1 MiB and beyond the last cache; 0: 256 MiB, or
                        // an eighth of the device's memory if that is less
} vkmoe_probe_desc;

static inline vkmoe_probe_desc vkmoe_probe_desc_init(void)
{
    vkmoe_probe_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.struct_size = sizeof desc;
    return desc;
}

// Memory and kernels to measure a device with, all threads of a CPU context. desc may be NULL. The
// context is borrowed until the probe is destroyed.
// VKMOE_E_UNSUPPORTED: the reference, and contexts without a queue.
// Threads: a probe is used by one thread at a time.
VKMOE_API enum vkmoe_status vkmoe_probe_create(vkmoe_context *context, const vkmoe_probe_desc *desc,
                                               vkmoe_probe **out);
VKMOE_API void vkmoe_probe_destroy(vkmoe_probe *probe);

// Measures what the bits of `what` ask for, in some milliseconds each; the rest of *out is 0. The
// best of a few tries each: these are limits.
VKMOE_API enum vkmoe_status vkmoe_probe_run(vkmoe_probe *probe, uint32_t what, vkmoe_limits *out);

// Bytes of the last-level cache that this process' threads share; 0: not known (GPUs do not tell).
VKMOE_API uint64_t vkmoe_context_cache_size(const vkmoe_context *context);

// Threads of a CPU context, the caller's among them: as many as were asked for, else one per
// physical core that this process may run on; after the first run or the first weights, as many as
// the system gave. 0 for other devices. Not while the context runs or packs something.
VKMOE_API uint32_t vkmoe_context_thread_count(const vkmoe_context *context);

// ---- layers ------------------------------------------------------------------------------------

// What computes a plan.
typedef struct vkmoe_plan_kernels {
    const char *name;                 // "a0", "avx2", "f64"; static text
    enum vkmoe_arithmetic arithmetic; // of the expert matmuls; the better one where they differ.
                                      // Vulkan: runs of up to 4 tokens are f32 in every plan
    uint64_t weights_size;            // bytes of one routed expert's packed weights, as kernels
                                      // read them
} vkmoe_plan_kernels;

VKMOE_API enum vkmoe_status vkmoe_plan_get_kernels(const vkmoe_plan *plan, vkmoe_plan_kernels *out);

// Time of one dispatch of a run; on a CPU, of one phase.
typedef struct vkmoe_dispatch_time {
    const char *label; // static text, or the net's
    double seconds;
} vkmoe_dispatch_time;

typedef struct vkmoe_time_desc {
    size_t struct_size;
    vkmoe_bind *const *binds; // (n_binds) of one context, with buffers of their own; each once
    const vkmoe_io *ios;      // (n_binds) as for vkmoe_run; x may be shared, outputs may not
    uint32_t n_binds;
    uint32_t n_tokens; // 1..max_tokens of each plan
} vkmoe_time_desc;

static inline vkmoe_time_desc vkmoe_time_desc_init(void)
{
    vkmoe_time_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.struct_size = sizeof desc;
    return desc;
}

// Runs the binds in turn, n_runs times in all, back to back: run i is bind i % n_binds. So with
// weights of their own, weights come from memory as they do in a model. Copies of x and of results
// are made before and after and are not timed; then the ios have the results of the last runs.
//   seconds  (n_runs) out; a GPU's own clock, else the host's
// VKMOE_E_UNSUPPORTED: the device's queue has no timestamps; n_tokens does not fit one block of
// tokens, which the text tells; a bind that records into the caller's buffers.
// Else as vkmoe_run.
VKMOE_API enum vkmoe_status vkmoe_time_runs(const vkmoe_time_desc *desc, uint32_t n_runs,
                                            double *seconds);

// Runs the first bind once and times each dispatch, with a wait between them, so their sum is more
// than a run takes.
//   out  room for *n entries, or NULL to ask for the count
//   n    in: room; out: number of dispatches
VKMOE_API enum vkmoe_status vkmoe_time_dispatches(const vkmoe_time_desc *desc,
                                                  vkmoe_dispatch_time *out, uint32_t *n);

// What the kernels of a plan made with `counters` did, counted by themselves.
typedef struct vkmoe_counters {
    uint64_t weight_loads;   // bytes of experts' weights, the shared one's too, as loaded; CPU:
                             // once for each call of a kernel, which may find them in L1 again
    uint64_t router_loads;   // bytes of router weights
    uint64_t live_columns;   // rows of an expert, times tiles of weights they were multiplied with
    uint64_t padded_columns; // the same for what was multiplied beside them, for no slot
    uint64_t workgroups;     // that had something to do; CPU: tasks
    uint64_t idle_workgroups; // launched for nothing
    uint32_t dispatches;     // CPU: phases
} vkmoe_counters;

// Counters of the bind's last vkmoe_run. VKMOE_E_ARGUMENT: the plan was made without `counters`, or
// the bind has run for vkmoe_time_runs or vkmoe_time_dispatches since.
VKMOE_API enum vkmoe_status vkmoe_bind_get_counters(const vkmoe_bind *bind, vkmoe_counters *out);

// ---- networks ----------------------------------------------------------------------------------

enum vkmoe_net_pass { // what is timed
    VKMOE_NET_PASS_FORWARD = 0,  // vkmoe_net_forward
    VKMOE_NET_PASS_BACKWARD = 1, // vkmoe_net_backward, after a forward pass that is not timed
    VKMOE_NET_PASS_TRAIN = 2,    // vkmoe_net_train
};

// Makes the pass n_runs times with the same batch and times each. The passes count: parameters
// change with TRAIN, gradients add up with BACKWARD.
//   seconds  (n_runs) out; a GPU's own clock, from the first dispatch to the end of the last, else
//            the host's
// VKMOE_E_UNSUPPORTED: the device's queue has no timestamps. Else as the pass itself.
VKMOE_API enum vkmoe_status vkmoe_net_time_runs(vkmoe_net *net, const vkmoe_net_batch *batch,
                                                enum vkmoe_net_pass pass, float rate,
                                                uint32_t n_runs, double *seconds);

// As vkmoe_time_dispatches, for a pass.
VKMOE_API enum vkmoe_status vkmoe_net_time_dispatches(vkmoe_net *net, const vkmoe_net_batch *batch,
                                                      enum vkmoe_net_pass pass, float rate,
                                                      vkmoe_dispatch_time *out, uint32_t *n);

// ---- choosing kernels --------------------------------------------------------------------------

enum vkmoe_tune_state {
    VKMOE_TUNE_USED = 0,        // right, and worth its place
    VKMOE_TUNE_NOT_FASTER = 1,  // right, but less than 3 % faster than without it
    VKMOE_TUNE_BAD = 2,         // computes wrongly, or the driver does not survive it
    VKMOE_TUNE_UNAVAILABLE = 3, // the device lacks something
    VKMOE_TUNE_DISABLED = 4,    // by VKMOE_DISABLE or a desc
    VKMOE_TUNE_UNTESTED = 5,    // used if its self-test passes, which the first plan for it makes
};

// What is known of one candidate kernel on one device.
typedef struct vkmoe_tune_verdict {
    char kernel[32]; // "a1", "avx2"
    enum vkmoe_tune_state state;
    char reason[192]; // of the state, in words; empty for USED
    double seconds, base_seconds; // median of a probe layer, and of what it has to beat in the same
                                  // interleaved probe; 0: not timed
    bool cached; // from an earlier tune or self-test of the same device, driver and kernels
} vkmoe_tune_verdict;

typedef struct vkmoe_tune_desc {
    size_t struct_size;
    bool fresh; // forget what is cached first
} vkmoe_tune_desc;

static inline vkmoe_tune_desc vkmoe_tune_desc_init(void)
{
    vkmoe_tune_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.struct_size = sizeof desc;
    return desc;
}

// Self-test and timed probe of every candidate kernel of the context's device; plans made after it,
// here or by other processes that share the cache, go by its verdicts. Software Vulkan devices are
// probed too: this was asked for. A second or so.
//   desc may be NULL
//   out  room for *n verdicts, best kernel first, or NULL to ask for the count
//   n    in: room; out: number of candidates
// VKMOE_E_UNSUPPORTED: the reference, and contexts without a queue.
VKMOE_API enum vkmoe_status vkmoe_tune(vkmoe_context *context, const vkmoe_tune_desc *desc,
                                       vkmoe_tune_verdict *out, uint32_t *n);

// One candidate kernel of a device, and whether plans of the context would use it now.
typedef struct vkmoe_kernel_info {
    vkmoe_tune_verdict verdict; // seconds as of the last tune
    char kind[32];              // what it is made of, in a word or two: "fp16"
    char computes[128]; // where it may: "precision half, weights f16, x f32 or f16"; may be empty
} vkmoe_kernel_info;

// What is known of every candidate kernel of the context's device: features, limits, what is
// disabled, the cached verdicts. Nothing is tested or timed. Contexts without a queue too.
//   out  room for *n, best kernel first, or NULL to ask for the count
//   n    in: room; out: number of candidates
// VKMOE_E_UNSUPPORTED: the reference, which has no kernels to choose from.
VKMOE_API enum vkmoe_status vkmoe_context_kernels(vkmoe_context *context, vkmoe_kernel_info *out,
                                                  uint32_t *n);

#ifdef __cplusplus
}
#endif
#endif
