// SPDX-License-Identifier: MIT
// What a back end provides. The API layer checks arguments and calls through this table; nothing
// above it sees inside a back end, and back ends never see each other. backend.c lists them.
#ifndef MOE_BACKEND_BACKEND_H
#define MOE_BACKEND_BACKEND_H

#include "backend/source.h"
#include "core/graph.h"
#include "core/net.h"
#include <vkmoe/bench.h>
#include <vkmoe/vulkan.h>

struct moe_backend;

// First member of every back end's own struct.
struct moe_device {
    const struct moe_backend *backend;
    const vkmoe_host *host; // borrowed from the context
    vkmoe_device_info info;
};

struct moe_packed_weights { // on the device
    struct moe_device *device;
    struct moe_layer layer;
};

struct moe_program { // a compiled graph
    struct moe_device *device;
    struct moe_graph graph;
    uint32_t max_tokens;
    enum vkmoe_precision precision;
    enum vkmoe_dtype x_type; // of x and y
    // Static: what the variant that the plan names is called for networks; NULL: it names none, or
    // they have none like it.
    const char *net_variant;
};

struct moe_program_params {
    uint32_t max_tokens;
    enum vkmoe_precision precision;
    enum vkmoe_dtype x_type; // f32, f16 or bf16
    const char *variant; // or NULL
    double budget_ms;    // of one submission, above 0
    bool counters;       // the kernels are to count
};

struct moe_bound { // a program with its weights and memory
    struct moe_program *program;
    struct moe_packed_weights *weights;
};

// Where copies of a router's stored tensors go; NULL: not wanted, else the layer has it.
struct moe_router_copy {
    float *weight;         // (n_experts, d_model)
    float *bias;           // (n_experts)
    float *selection_bias; // (n_experts)
    float *shared_gate;    // (d_model)
};

struct moe_device_probe {
    struct moe_device *device;
};

struct moe_device_net { // a net on a device
    struct moe_device *device;
    const struct moe_net *net;
};

struct moe_backend {
    const char *name; // "cpu", "vulkan", "reference"

    // Devices of this back end on this machine. NULL: never listed.
    // out NULL: only counts. Finding none is no failure. `index` is filled in by the caller.
    enum vkmoe_status (*enumerate)(const vkmoe_host *host, vkmoe_device_info *out, uint32_t *n);

    // Opens the i-th device of this back end's own enumeration. The text fields of desc are filled
    // in: cpu_isa "" is the best level there is, cache_dir "" is no cache.
    enum vkmoe_status (*open)(const vkmoe_host *host, const vkmoe_context_desc *desc, uint32_t i,
                              struct moe_device **out);
    void (*close)(struct moe_device *device); // waits for the device's own work

    enum vkmoe_status (*device_status)(const struct moe_device *device);         // NULL: always OK
    uint32_t (*validation_count)(const struct moe_device *device);               // NULL: always 0

    // Packed blocks: any multiple of 256 bytes; pack writes all of them.
    enum vkmoe_status (*weights_layout)(const struct moe_device *device,
                                        const struct moe_layer *layer, vkmoe_weights_layout *out);
    enum vkmoe_status (*pack_expert)(const struct moe_device *device,
                                     const struct moe_layer *layer, uint32_t expert,
                                     const vkmoe_expert_tensors *tensors, void *dst);
    enum vkmoe_status (*weights_create)(struct moe_device *device, const struct moe_layer *layer,
                                        const struct moe_weights_source *source,
                                        struct moe_packed_weights **out);
    void (*weights_destroy)(struct moe_packed_weights *weights);
    // Stored values as f32; NULL where `backward` needs no copies. expert may be
    // VKMOE_SHARED_EXPERT. VKMOE_E_UNSUPPORTED: they cannot be read back.
    enum vkmoe_status (*read_router)(struct moe_packed_weights *weights,
                                     const struct moe_router_copy *out);
    enum vkmoe_status (*read_expert)(struct moe_packed_weights *weights, uint32_t expert,
                                     const vkmoe_expert_grads *out);

    enum vkmoe_status (*program_create)(struct moe_device *device, const struct moe_graph *graph,
                                        const struct moe_program_params *params,
                                        struct moe_program **out);
    void (*program_destroy)(struct moe_program *program);

    // vk_io is NULL but for Vulkan, or when the bind is to own its buffers.
    enum vkmoe_status (*bind_create)(struct moe_program *program,
                                     struct moe_packed_weights *weights,
                                     const vkmoe_vk_io *vk_io, struct moe_bound **out);
    void (*bind_destroy)(struct moe_bound *bound);

    // Checked arguments: 0 < n_tokens <= max_tokens, strides filled in. Waits for the result.
    enum vkmoe_status (*run)(struct moe_bound *bound, uint32_t n_tokens, const vkmoe_io *io);

    // NULL: by a net of the layer. Checked arguments: n_tokens <= max_tokens, strides are filled
    // in, io->y may be NULL. Waits for the result.
    enum vkmoe_status (*backward)(struct moe_bound *bound, uint32_t n_tokens, const vkmoe_io *io,
                                  const vkmoe_backward_io *out);

    // Networks; NULL: none. The net is planned and outlives what is made of it. All memory of the
    // arena begins as zero, and all ops that can be prepared are.
    enum vkmoe_status (*net_create)(struct moe_device *device, const struct moe_net *net,
                                    struct moe_device_net **out);
    void (*net_destroy)(struct moe_device_net *net);
    // The first n elements of a tensor. What is written is there for the next run or read.
    enum vkmoe_status (*net_write)(struct moe_device_net *net, uint32_t tensor, uint64_t n,
                                   const void *data);
    enum vkmoe_status (*net_read)(struct moe_device_net *net, uint32_t tensor, uint64_t n,
                                  void *data);
    // Runs the programs whose bits (1 << enum moe_net_program) are set, in the order of the enum,
    // and waits.
    enum vkmoe_status (*net_run)(struct moe_device_net *net, uint32_t programs,
                                 const struct moe_net_args *args);

    // Measuring: the rules of vkmoe/bench.h, arguments checked.
    void (*program_kernels)(const struct moe_program *program, vkmoe_plan_kernels *out);
    uint64_t (*cache_size)(const struct moe_device *device); // NULL: not known
    uint32_t (*thread_count)(const struct moe_device *device); // NULL: none of its own
    // NULL: no probes. A probe's first member is struct moe_device_probe. read_size: whole MiB, not
    // 0.
    enum vkmoe_status (*probe_create)(struct moe_device *device, uint64_t read_size,
                                      struct moe_device_probe **out);
    void (*probe_destroy)(struct moe_device_probe *probe);
    enum vkmoe_status (*probe_run)(struct moe_device_probe *probe, uint32_t what,
                                   vkmoe_limits *out);
    // NULL: the API times `run` by the host's clock.
    enum vkmoe_status (*time_runs)(struct moe_bound *const *bounds, const vkmoe_io *ios,
                                   uint32_t n_bounds, uint32_t n_tokens, uint32_t n_runs,
                                   double *seconds);
    // NULL: refused. times NULL: only counts. *n: in room, out how many there are.
    enum vkmoe_status (*time_dispatches)(struct moe_bound *bound, uint32_t n_tokens,
                                         const vkmoe_io *io, vkmoe_dispatch_time *times,
                                         uint32_t *n);
    void (*counters)(const struct moe_bound *bound, vkmoe_counters *out); // NULL: counts nothing
    // As net_run. seconds: of all dispatches together, or NULL; times: as time_dispatches, or n
    // NULL for none. NULL: the API times `net_run` by the host's clock.
    enum vkmoe_status (*net_time)(struct moe_device_net *net, uint32_t programs,
                                  const struct moe_net_args *args, double *seconds,
                                  vkmoe_dispatch_time *times, uint32_t *n);
    // NULL: refused.
    enum vkmoe_status (*tune)(struct moe_device *device, bool fresh, vkmoe_tune_verdict *out,
                              uint32_t *n);
    enum vkmoe_status (*kernels)(struct moe_device *device, vkmoe_kernel_info *out, uint32_t *n);

    // Vulkan only, NULL elsewhere. import and record_upload get checked arguments.
    enum vkmoe_status (*vk_requirements)(void *get_instance_proc_addr, VkInstance instance,
                                         VkPhysicalDevice physical, vkmoe_vk_requirements *out);
    enum vkmoe_status (*vk_import)(const vkmoe_host *host, const vkmoe_vk_import_desc *desc,
                                   struct moe_device **out);
    enum vkmoe_status (*vk_record_upload)(struct moe_packed_weights *weights, VkCommandBuffer cmd);
    void (*vk_release_staging)(struct moe_packed_weights *weights);
    void (*vk_handles)(const struct moe_device *device, vkmoe_vk_handles *out);
    uint64_t (*vk_workspace_size)(const struct moe_program *program);
    uint32_t (*vk_dispatch_count)(const struct moe_bound *bound, uint32_t n_tokens);
    void (*vk_dispatch_info)(const struct moe_bound *bound, uint32_t n_tokens, uint32_t i,
                             vkmoe_vk_dispatch *out);
    enum vkmoe_status (*vk_record)(struct moe_bound *bound, VkCommandBuffer cmd, uint32_t n_tokens,
                                   uint32_t first, uint32_t n);
};

// Every back end of this build, ended by NULL; listing order is device order.
extern const struct moe_backend *const moe_backends[];

#endif
