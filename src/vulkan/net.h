// SPDX-License-Identifier: MIT
// Networks on a device. net_compile.c makes of each program of a net an array of dispatches, for
// the numbers of tokens and examples at hand; what follows walks that array and knows no op.
//
// All tensors lie in one buffer, the arena, with scratch memory of single ops behind them. Kernels
// reach it by address, or as one binding.
#ifndef MOE_VULKAN_NET_H
#define MOE_VULKAN_NET_H

#include "net_params.h"
#include "vulkan/plan.h"
#include "vulkan/timer.h"

enum { MOE_VK_NET_RANGES = MOE_NET_OPERANDS + MOE_NET_RESULTS };

// Words of the arena that a dispatch reads, or writes and perhaps reads.
struct moe_vk_net_range {
    uint64_t offset, n;
    bool written;
};

struct moe_vk_net_dispatch {
    const char *label; // static
    enum moe_spv_id spv;
    uint32_t spec[MOE_VK_MAX_SPEC];
    uint32_t x, y; // workgroups; 0: there is nothing to do
    struct moe_vk_net_range ranges[MOE_VK_NET_RANGES];
    uint32_t n_ranges;
    bool barrier; // before this dispatch
    double work;  // as in plan.h
    struct net_head head;
    uint32_t params_size;
    uint8_t params[128 - sizeof(struct net_head)];
};

// What the files of the compiler share.
struct moe_vk_net_compiler {
    const struct moe_net *net;
    const struct moe_net_args *args;
    const struct moe_net_op *op; // at hand
    bool bda;
    uint32_t max_groups; // workgroups along an axis
    double max_work;     // of one dispatch, where it can be cut
    uint64_t scratch;    // where it begins in the arena, in elements
    const struct moe_vk_variant *variant; // of products; NULL: a0
    struct moe_vk_shape shape;            // of its matrices
    uint32_t subgroups;                   // of a workgroup, as in plan.h

    struct moe_vk_net_dispatch *dispatches; // NULL: they are only counted
    uint32_t n;
    uint64_t scratch_size; // out: the most that an op so far needs, in elements
    struct moe_vk_net_dispatch spare;
};

// net_compile.c: device-free. Appends the dispatches of a program: their number, kernels and
// specialisation constants depend on the net alone, all else on args too.
void moe_vk_net_compile(struct moe_vk_net_compiler *c, enum moe_net_program program);
// Sets `barrier` of each dispatch that must wait for one before it; `all`: of each.
void moe_vk_net_barriers(struct moe_vk_net_dispatch *dispatches, uint32_t n, bool all);

// net_emit.c: what the compiler's files are made of. An operand or result that is MOE_NET_NONE is
// left out of the dispatch.
struct moe_vk_net_dispatch *moe_vk_net_add(struct moe_vk_net_compiler *c, enum moe_spv_id spv,
                                           uint32_t kind, const void *params, size_t params_size);
void moe_vk_net_read(const struct moe_vk_net_compiler *c, struct moe_vk_net_dispatch *d,
                     uint32_t slot, uint32_t tensor);
void moe_vk_net_write(const struct moe_vk_net_compiler *c, struct moe_vk_net_dispatch *d,
                      uint32_t slot, uint32_t tensor);
// The same for a result marked *, which is perhaps added to.
void moe_vk_net_put(const struct moe_vk_net_compiler *c, struct moe_vk_net_dispatch *d,
                    uint32_t slot, uint32_t tensor);
// n elements of scratch memory from `offset` on, a multiple of MOE_NET_UNIT.
void moe_vk_net_read_scratch(struct moe_vk_net_compiler *c, struct moe_vk_net_dispatch *d,
                             uint32_t slot, uint64_t offset, uint64_t n);
void moe_vk_net_write_scratch(struct moe_vk_net_compiler *c, struct moe_vk_net_dispatch *d,
                              uint32_t slot, uint64_t offset, uint64_t n);
// Workgroups for n_x by n_y pieces of work; kernels loop where there are more than groups.
void moe_vk_net_grid(const struct moe_vk_net_compiler *c, struct moe_vk_net_dispatch *d,
                     uint64_t n_x, uint64_t n_y);
// Of a tensor in this run; 0 for MOE_NET_NONE.
uint64_t moe_vk_net_rows(const struct moe_vk_net_compiler *c, uint32_t tensor);
uint32_t moe_vk_net_width(const struct moe_vk_net_compiler *c, uint32_t tensor);
uint64_t moe_vk_net_elements(const struct moe_vk_net_compiler *c, uint32_t tensor);

// net_variant.c: gives a dispatch of MOE_SPV_NET_MATMUL or MOE_SPV_NET_MATMUL_DW to the variant's
// kernel, if that may compute it. weight: the tensor that is multiplied by, or whose gradient is
// made.
void moe_vk_net_by_variant(const struct moe_vk_net_compiler *c, struct moe_vk_net_dispatch *d,
                           uint32_t weight);

// net_matrix.c
void moe_vk_net_matmul(struct moe_vk_net_compiler *c);
void moe_vk_net_matmul_dx(struct moe_vk_net_compiler *c);
void moe_vk_net_matmul_dw(struct moe_vk_net_compiler *c);
void moe_vk_net_matmul_combine(struct moe_vk_net_compiler *c);
void moe_vk_net_group(struct moe_vk_net_compiler *c);
void moe_vk_net_group_sum(struct moe_vk_net_compiler *c);
void moe_vk_net_norm_dgain(struct moe_vk_net_compiler *c);
void moe_vk_net_balance(struct moe_vk_net_compiler *c);
// kind: MOE_NET_TOTAL_SUM or MOE_NET_TOTAL_SQUARES
void moe_vk_net_total(struct moe_vk_net_compiler *c, uint32_t kind);
// alpha times the sum of n elements of scratch memory, the op's first result.
void moe_vk_net_scratch_total(struct moe_vk_net_compiler *c, uint64_t n, uint64_t max_n,
                              float alpha);

// ---- on a device -------------------------------------------------------------------------------

enum {
    MOE_VK_NET_STAGING = 4 << 20, // bytes, of each way
    MOE_VK_NET_PENDING = 32,      // writes that wait for the next submission
    MOE_VK_NET_BUDGET_MS = 50,    // of one submission
};

struct moe_vk_net_program {
    struct moe_vk_net_dispatch *dispatches; // of the last run
    VkPipeline *pipelines;
    uint32_t n;
};

struct moe_vk_net {
    struct moe_device_net base;
    const struct moe_vk_variant *variant;
    uint64_t scratch; // where it begins in the arena
    struct moe_vk_buffer arena, upload, readback;
    struct moe_vk_net_program programs[MOE_NET_N_PROGRAMS];
    VkDescriptorPool pool;
    VkDescriptorSet set; // with descriptors
    struct moe_vk_command command;
    VkBufferCopy pending[MOE_VK_NET_PENDING]; // from `upload`, which is full up to upload_end
    uint32_t n_pending;
    uint64_t upload_end;
    double ns_per_work; // as measured by runs
};

// Who may use the arena after a copy or a fill.
#define MOE_VK_NET_USERS                                                     \
    (VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_TRANSFER_BIT | \
     VK_PIPELINE_STAGE_HOST_BIT)
#define MOE_VK_NET_ACCESS                                                                   \
    (VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT | VK_ACCESS_TRANSFER_READ_BIT | \
     VK_ACCESS_TRANSFER_WRITE_BIT | VK_ACCESS_HOST_READ_BIT | VK_ACCESS_HOST_WRITE_BIT)

// net.c
struct moe_vk_net_compiler moe_vk_net_compiler_of(const struct moe_vk_net *n,
                                                  const struct moe_net_args *args);
enum vkmoe_status moe_vk_net_create(struct moe_device *device, const struct moe_net *net,
                                    struct moe_device_net **out);
void moe_vk_net_destroy(struct moe_device_net *net);
// By a variant, whatever is known of it; mark and own are those of moe_vk_program_make.
enum vkmoe_status moe_vk_net_make(struct moe_vk *vk, const struct moe_net *net,
                                  const struct moe_vk_variant *variant, bool mark,
                                  struct moe_device_net **out, bool *own);

// selftest_net.c: products of experts, as a network that has in FORWARD
//   y[r, o] = sum_c a[r, c] w[g, o, c]    da[r, c] = sum_o dy[r, o] w[g, o, c]
//   dw[g, o, c] = sum_r dy[r, o] a[r, c]
// with w of a type, of as many rows as there are tokens; starts and members are the grouping.
struct moe_vk_products {
    struct moe_net *net;
    uint32_t a, w, dy, starts, members, y, da, dw; // tensors
};
// `out` is to be zeroed before, and destroyed after a failure too.
enum vkmoe_status moe_vk_products_create(const vkmoe_host *host, uint32_t n_rows,
                                         uint32_t n_groups, uint32_t n_in, uint32_t n_out,
                                         enum moe_net_type type, enum vkmoe_precision precision,
                                         struct moe_vk_products *out);

// moe_vk_self_test of a variant for networks.
enum vkmoe_status moe_vk_net_self_test(struct moe_vk *vk, const struct moe_vk_variant *variant,
                                       enum moe_vk_cause *cause);

// tune_net.c: times products by a variant and by `base` in turn for about share_ns, after pipelines
// are made, and gives the medians; zeros where one of them could not be made, and then is bad.
enum vkmoe_status moe_vk_net_probe(struct moe_vk *vk, const struct moe_vk_variant *variant,
                                   const struct moe_vk_variant *base, double share_ns,
                                   double medians[2]);

// What is timed of a run.
struct moe_vk_net_timing {
    struct moe_vk_timer timer;
    double seconds;             // of all dispatches
    bool each;                  // dispatch by itself too, with a wait between them
    vkmoe_dispatch_time *times; // (room)
    uint32_t room, n;           // n: timed or on their way, may pass room
};

// net_run.c
enum vkmoe_status moe_vk_net_upload(struct moe_device_net *net, uint32_t tensor, uint64_t n,
                                    const void *data);
enum vkmoe_status moe_vk_net_download(struct moe_device_net *net, uint32_t tensor, uint64_t n,
                                      void *data);
enum vkmoe_status moe_vk_net_run(struct moe_device_net *net, uint32_t programs,
                                 const struct moe_net_args *args);
// timing NULL: nothing is timed.
enum vkmoe_status moe_vk_net_run_timed(struct moe_vk_net *n, uint32_t programs,
                                       const struct moe_net_args *args,
                                       struct moe_vk_net_timing *timing);
// Compiles a program for args: its dispatches, with barriers.
void moe_vk_net_prepare(struct moe_vk_net *n, enum moe_net_program which,
                        const struct moe_net_args *args);

#endif
