// SPDX-License-Identifier: MIT
// Networks on the CPU. net.c owns and runs them; net_compile.c turns ops into phases; the phases
// are in net_matrix.c and net_dw.c (matrices of groups), net_rows.c (rows and elements), net_step.c
// (sums over everything, steps) and net_text.c (what core/net_ops.h says well enough for a CPU).
//
// A phase is cut into tasks that never wait for each other. How it is cut depends on sizes alone,
// so results never depend on the number of threads.
#ifndef MOE_CPU_NET_H
#define MOE_CPU_NET_H

#include "core/net_call.h"
#include "cpu/cpu.h"

struct cpu_net;

// How a phase is cut: n things, `block` of them to a task.
// work: multiply-adds, or what takes as long. A phase of little work is left to one thread.
struct cpu_cut {
    uint64_t n, block, work;
    uint32_t n_tasks;
};

typedef void cpu_net_prepare_fn(struct cpu_net *net); // sets net->cut
typedef void cpu_net_task_fn(const struct cpu_net *net, uint32_t i);

struct cpu_net_phase {
    const struct moe_net_op *op;
    cpu_net_prepare_fn *prepare;
    cpu_net_task_fn *task;
};

struct cpu_net_phases {
    struct cpu_net_phase *phases;
    uint32_t n;
};

struct cpu_net {
    struct moe_device_net base;
    const struct cpu_kernels *kernels;
    float *arena;
    struct cpu_net_phases programs[MOE_NET_N_PROGRAMS];
    float *scratch;        // handed from one phase of an op to its next
    uint32_t *group_tasks; // first task of each group, and behind the last

    // The run, and the phase it is in.
    const struct cpu_net_phase *phase;
    struct moe_net_call call;
    struct cpu_cut cut;
};

// n things of so much work each; a task gets some of them.
struct cpu_cut moe_cpu_net_cut(uint64_t n, uint64_t work_each);

struct cpu_span {
    uint64_t begin, end;
};

// Block i of n things.
static inline struct cpu_span moe_cpu_span(uint64_t n, uint64_t block, uint64_t i)
{
    uint64_t begin = i * block, left = n - begin;
    return (struct cpu_span){begin, begin + (left < block ? left : block)};
}

// The things of task i.
static inline struct cpu_span moe_cpu_net_span(const struct cpu_net *net, uint32_t i)
{
    return moe_cpu_span(net->cut.n, net->cut.block, i);
}

static inline const float *moe_cpu_net_in(const struct cpu_net *net, uint32_t i)
{
    return net->call.in[i].data;
}

static inline float *moe_cpu_net_out(const struct cpu_net *net, uint32_t i)
{
    return net->call.out[i].data;
}

// ---- compilation -----------------------------------------------------------------------------

// What the phases of a net need besides the arena.
struct cpu_net_needs {
    uint64_t scratch_size; // floats
    uint64_t n_groups;
};

// Groups of a product with matrices, at most.
uint64_t moe_cpu_product_groups(const struct moe_net *net, const struct moe_net_op *op);

// Gives every program its phases, and says what they need.
enum vkmoe_status moe_cpu_net_compile(struct cpu_net *net, struct cpu_net_needs *needs);

// ---- groups ----------------------------------------------------------------------------------

// The rows of each group; without starts all of n_rows are in the only one.
struct cpu_grouping {
    const int32_t *starts, *members;
    uint64_t n_groups, n_rows;
};

// Operands i and i + 1: starts, members.
static inline struct cpu_grouping moe_cpu_net_grouping(const struct cpu_net *net, uint32_t i,
                                                       uint64_t n_rows)
{
    const struct moe_net_view *in = net->call.in;
    if (!in[i].data)
        return (struct cpu_grouping){NULL, NULL, 1, n_rows};
    return (struct cpu_grouping){in[i].data, in[i + 1].data, in[i].rows - 1, n_rows};
}

// Places of a group's rows in `members`.
static inline struct cpu_span moe_cpu_group_places(const struct cpu_grouping *of, uint64_t g)
{
    if (!of->starts)
        return (struct cpu_span){0, of->n_rows};
    return (struct cpu_span){(uint64_t) of->starts[g], (uint64_t) of->starts[g + 1]};
}

static inline uint64_t moe_cpu_group_row(const struct cpu_grouping *of, uint64_t place)
{
    return of->members ? (uint64_t) of->members[place] : place;
}

// ---- products --------------------------------------------------------------------------------

enum { CPU_MAX_STRIP = 2 };

// Panels that kernels take at once: a strip.
static inline uint32_t moe_cpu_net_strip(const struct cpu_net *net)
{
    return net->kernels->chain_two ? CPU_MAX_STRIP : 1;
}

// Chains of a strip, or of what is left of one: panels of k steps from `panel` on, panel_size
// floats apart. fetch: what is read behind it; NULL: nothing that is known.
static inline void moe_cpu_net_chains(const struct cpu_net *net, const float *const *x,
                                      uint32_t n_rows, uint32_t first, const float *panel,
                                      size_t panel_size, uint32_t n_panels, uint32_t k, bool more,
                                      float *const *out, struct cpu_fetch *fetch)
{
    const float *const panels[] = {panel, panel + (n_panels - 1) * panel_size};
    if (n_panels > 1)
        net->kernels->chain_two(x, n_rows, first, panels, k, more, out, fetch);
    else
        net->kernels->chain(x, n_rows, first, panel, k, more, out);
}

// ---- phases ----------------------------------------------------------------------------------

// net_text.c: any op.
cpu_net_prepare_fn moe_cpu_net_text_prepare;
cpu_net_task_fn moe_cpu_net_text_task;

// net_matrix.c. COMBINE first leaves what slots give, (rows, n_out), in scratch.
cpu_net_prepare_fn moe_cpu_net_matmul_prepare;
cpu_net_task_fn moe_cpu_net_matmul_task;
cpu_net_prepare_fn moe_cpu_net_sum_slots_prepare;
cpu_net_task_fn moe_cpu_net_sum_slots_task;

// net_dw.c
cpu_net_prepare_fn moe_cpu_net_dw_prepare;
cpu_net_task_fn moe_cpu_net_dw_task;
cpu_net_prepare_fn moe_cpu_net_column_sums_prepare;
cpu_net_task_fn moe_cpu_net_column_sums_task;
cpu_net_prepare_fn moe_cpu_net_group_prepare;
cpu_net_task_fn moe_cpu_net_group_task;

// net_rows.c
cpu_net_prepare_fn moe_cpu_net_elements_prepare;
cpu_net_task_fn moe_cpu_net_act_task;
cpu_net_task_fn moe_cpu_net_act_backward_task;
cpu_net_task_fn moe_cpu_net_glu_task;
cpu_net_task_fn moe_cpu_net_glu_backward_task;
cpu_net_task_fn moe_cpu_net_round_task;
cpu_net_prepare_fn moe_cpu_net_rows_prepare;
cpu_net_task_fn moe_cpu_net_scale_rows_task;
cpu_net_task_fn moe_cpu_net_row_dot_task;

// net_step.c. Sums leave those of blocks in scratch first.
cpu_net_prepare_fn moe_cpu_net_sum_prepare;
cpu_net_task_fn moe_cpu_net_sum_task;
cpu_net_task_fn moe_cpu_net_sum_squares_task;
cpu_net_prepare_fn moe_cpu_net_total_prepare;
cpu_net_task_fn moe_cpu_net_total_task;
cpu_net_prepare_fn moe_cpu_net_step_prepare;
cpu_net_task_fn moe_cpu_net_step_task;

enum { CPU_SUM_BLOCK = 4096 }; // elements of a partial sum

// ---- back end (net.c) ------------------------------------------------------------------------

enum vkmoe_status moe_cpu_net_create(struct moe_device *device, const struct moe_net *net,
                                     struct moe_device_net **out);
void moe_cpu_net_destroy(struct moe_device_net *net);
enum vkmoe_status moe_cpu_net_write(struct moe_device_net *net, uint32_t tensor, uint64_t n,
                                    const void *data);
enum vkmoe_status moe_cpu_net_read(struct moe_device_net *net, uint32_t tensor, uint64_t n,
                                   void *data);
enum vkmoe_status moe_cpu_net_run(struct moe_device_net *net, uint32_t programs,
                                  const struct moe_net_args *args);
enum vkmoe_status moe_cpu_net_time(struct moe_device_net *net, uint32_t programs,
                                   const struct moe_net_args *args, double *seconds,
                                   vkmoe_dispatch_time *times, uint32_t *n);

#endif
