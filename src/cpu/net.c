// SPDX-License-Identifier: MIT
// Networks as objects: their memory, and the walk over the phases.
#include "cpu/net.h"

#include "base/bits.h"
#include "base/clock.h"
#include "base/host.h"
#include "base/status.h"

#include <string.h>

enum {
    TASK_WORK = 131072, // multiply-adds of a task: some microseconds
    // Of a phase that is worth waking others for: they may sleep, which costs tens of microseconds.
    SHARED_WORK = 524288,
};

struct cpu_cut moe_cpu_net_cut(uint64_t n, uint64_t work_each)
{
    struct cpu_cut cut = {.n = n, .work = n * work_each};
    if (n == 0)
        return cut;
    cut.block = moe_min(moe_div_up(TASK_WORK, moe_max(work_each, 1)), n);
    cut.block = moe_max(cut.block, moe_div_up(n, UINT32_MAX));
    cut.n_tasks = (uint32_t) moe_div_up(n, cut.block);
    return cut;
}

// ---- memory ----------------------------------------------------------------------------------

enum vkmoe_status moe_cpu_net_create(struct moe_device *device, const struct moe_net *net,
                                     struct moe_device_net **out)
{
    const vkmoe_host *host = device->host;
    struct cpu_net *self = NULL;
    struct cpu_net_needs needs = {0};
    enum vkmoe_status status;
    *out = NULL;
    TRY(moe_try_alloc(host, sizeof *self, "a network on the CPU", &self));
    self->base = (struct moe_device_net){device, net};
    self->kernels = &((const struct cpu_device *) device)->kernels;
    TRY(moe_cpu_net_compile(self, &needs));
    if (net->arena_size > SIZE_MAX / sizeof(float) ||
        needs.scratch_size > SIZE_MAX / sizeof(float) - 1 ||
        needs.n_groups > SIZE_MAX / sizeof(uint32_t) - 1) {
        status = moe_fail(VKMOE_E_MEMORY, "a network is beyond the address space");
        goto fail;
    }
    TRY(moe_try_alloc(host, (size_t) net->arena_size * sizeof(float), "a network's tensors",
                      &self->arena));
    TRY(moe_try_alloc(host, (size_t) needs.scratch_size * sizeof(float), "a network's work memory",
                      &self->scratch));
    TRY(moe_try_alloc(host, (size_t) (needs.n_groups + 1) * sizeof(uint32_t),
                      "a network's work memory", &self->group_tasks));
    *out = &self->base;
    return VKMOE_OK;

fail:
    if (self)
        moe_cpu_net_destroy(&self->base);
    return status;
}

void moe_cpu_net_destroy(struct moe_device_net *net)
{
    struct cpu_net *self = (struct cpu_net *) net;
    if (!self)
        return;
    const vkmoe_host *host = net->device->host;
    for (uint32_t p = 0; p < MOE_NET_N_PROGRAMS; p++)
        moe_free(host, self->programs[p].phases);
    moe_free(host, self->group_tasks);
    moe_free(host, self->scratch);
    moe_free(host, self->arena);
    moe_free(host, self);
}

enum vkmoe_status moe_cpu_net_write(struct moe_device_net *net, uint32_t tensor, uint64_t n,
                                    const void *data)
{
    struct cpu_net *self = (struct cpu_net *) net;
    const struct moe_net_tensor *to = &net->net->tensors[tensor];
    if (n > 0)
        memcpy(self->arena + to->offset, data, (size_t) n * moe_net_type_size(to->type));
    return VKMOE_OK;
}

enum vkmoe_status moe_cpu_net_read(struct moe_device_net *net, uint32_t tensor, uint64_t n,
                                   void *data)
{
    const struct cpu_net *self = (const struct cpu_net *) net;
    const struct moe_net_tensor *from = &net->net->tensors[tensor];
    if (n > 0)
        memcpy(data, self->arena + from->offset, (size_t) n * moe_net_type_size(from->type));
    return VKMOE_OK;
}

// ---- runs ------------------------------------------------------------------------------------

static void run_task(void *arg, uint32_t i)
{
    const struct cpu_net *net = arg;
    net->phase->task(net, i);
}

static void run_phase(struct cpu_net *net, const struct cpu_net_phase *phase)
{
    net->phase = phase;
    phase->prepare(net);
    if (net->cut.work >= SHARED_WORK && net->cut.n_tasks > 1) {
        moe_cpu_parallel((const struct cpu_device *) net->base.device, net->cut.n_tasks, run_task,
                         net);
        return;
    }
    for (uint32_t i = 0; i < net->cut.n_tasks; i++)
        phase->task(net, i);
}

// Runs the phases of one op, the first of which is phase i; returns the next op's first.
static uint32_t run_op(struct cpu_net *net, const struct cpu_net_phases *program, uint32_t i,
                       const struct moe_net_args *args)
{
    const struct moe_net_op *op = program->phases[i].op;
    moe_net_call_init(&net->call, net->base.net, op, args, net->arena, sizeof(float));
    for (; i < program->n && program->phases[i].op == op; i++)
        run_phase(net, &program->phases[i]);
    return i;
}

enum vkmoe_status moe_cpu_net_run(struct moe_device_net *net, uint32_t programs,
                                  const struct moe_net_args *args)
{
    struct cpu_net *self = (struct cpu_net *) net;
    for (uint32_t p = 0; p < MOE_NET_N_PROGRAMS; p++)
        for (uint32_t i = 0; programs & 1u << p && i < self->programs[p].n;)
            i = run_op(self, &self->programs[p], i, args);
    return VKMOE_OK;
}

static uint32_t count_ops(const struct cpu_net *net, uint32_t programs)
{
    uint32_t n = 0;
    for (uint32_t p = 0; p < MOE_NET_N_PROGRAMS; p++) {
        const struct cpu_net_phase *phases = net->programs[p].phases;
        for (uint32_t i = 0; programs & 1u << p && i < net->programs[p].n; i++)
            n += i == 0 || phases[i].op != phases[i - 1].op;
    }
    return n;
}

// Each op with its time.
static void time_ops(struct cpu_net *net, uint32_t programs, const struct moe_net_args *args,
                     vkmoe_dispatch_time *times, uint32_t room)
{
    uint32_t n = 0;
    for (uint32_t p = 0; p < MOE_NET_N_PROGRAMS; p++) {
        const struct cpu_net_phases *program = &net->programs[p];
        for (uint32_t i = 0; programs & 1u << p && i < program->n; n++) {
            const char *name = moe_net_op_name(program->phases[i].op->kind);
            double begin = moe_seconds();
            i = run_op(net, program, i, args);
            if (n < room)
                times[n] = (vkmoe_dispatch_time){name, moe_seconds() - begin};
        }
    }
}

enum vkmoe_status moe_cpu_net_time(struct moe_device_net *net, uint32_t programs,
                                   const struct moe_net_args *args, double *seconds,
                                   vkmoe_dispatch_time *times, uint32_t *n)
{
    struct cpu_net *self = (struct cpu_net *) net;
    enum vkmoe_status status = VKMOE_OK;
    const double begin = moe_seconds();
    if (times)
        time_ops(self, programs, args, times, *n);
    else if (!n)
        status = moe_cpu_net_run(net, programs, args);
    if (seconds)
        *seconds = moe_seconds() - begin;
    if (n)
        *n = count_ops(self, programs);
    return status;
}
