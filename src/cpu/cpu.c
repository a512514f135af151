// SPDX-License-Identifier: MIT
// The CPU as a device. Opening it is cheap: a few CPUID instructions, no thread, no measurement.
#include "cpu/cpu.h"

#include "base/host.h"
#include "base/status.h"
#include "cpu/net.h"
#include "cpu/topology.h"
#include "cpu/tune.h"

#include <stdio.h>

enum { MAX_THREADS = 1024 };

static void fill_info(vkmoe_device_info *out, uint32_t features, enum cpu_isa isa)
{
    *out = (vkmoe_device_info){.type = VKMOE_DEVICE_CPU, .memory_bytes = moe_cpu_memory_bytes()};
    moe_cpu_name(out->name, sizeof out->name);
    snprintf(out->tier, sizeof out->tier, "%s", moe_cpu_isa_name(isa));
    moe_cpu_feature_names(features, out->features, sizeof out->features);
}

static enum vkmoe_status enumerate(const vkmoe_host *host, vkmoe_device_info *out, uint32_t *n)
{
    (void) host;
    if (out) {
        struct cpu_id id = moe_cpu_id();
        uint32_t features = moe_cpu_features(&id);
        fill_info(out, features,
                  moe_cpu_best(moe_cpu_worthwhile(&id, moe_cpu_levels(features))));
    }
    *n = 1;
    return VKMOE_OK;
}

// The best level that the system allows.
static enum cpu_isa best_isa(const struct cpu_id *id, uint32_t levels)
{
    enum cpu_isa best;
    for (;; levels &= ~(1u << best)) {
        best = moe_cpu_best(moe_cpu_worthwhile(id, levels));
        if (moe_cpu_allow(best))
            return best;
    }
}

// The level to use: the best there is, or the one asked for by name.
static enum vkmoe_status choose_isa(const char *name, const struct cpu_id *id, enum cpu_isa *out)
{
    const uint32_t levels = moe_cpu_levels(moe_cpu_features(id));
    char names[64];
    if (!name || !name[0]) {
        *out = best_isa(id, levels);
        return VKMOE_OK;
    }
    moe_cpu_level_names(levels, names, sizeof names);
    if (!moe_cpu_isa_from_name(name, out))
        return moe_fail(VKMOE_E_ARGUMENT, "cpu_isa \"%s\": no such level; this machine has: %s",
                        name, names);
    if (!(levels & 1u << *out))
        return moe_fail(VKMOE_E_UNSUPPORTED, "cpu_isa \"%s\": not here; this machine has: %s", name,
                        names);
    if (!moe_cpu_allow(*out))
        return moe_fail(VKMOE_E_UNSUPPORTED, "cpu_isa \"%s\": the system refuses it to this "
                        "process, as Linux does where a thread's stack for signals is too small",
                        name);
    return VKMOE_OK;
}

static void close_device(struct moe_device *device)
{
    struct cpu_device *dev = (struct cpu_device *) device;
    if (!dev)
        return;
    moe_pool_destroy(dev->pool);
    moe_free(dev->base.host, dev);
}

static enum vkmoe_status open_device(const vkmoe_host *host, const vkmoe_context_desc *desc,
                                     uint32_t i, struct moe_device **out)
{
    (void) i;
    *out = NULL;
    struct cpu_device *dev = NULL;
    struct cpu_id id = moe_cpu_id();
    uint32_t features = moe_cpu_features(&id);
    enum cpu_isa isa;
    enum vkmoe_status status;
    TRY(choose_isa(desc->cpu_isa, &id, &isa));
    if (desc->n_threads > MAX_THREADS)
        return moe_fail(VKMOE_E_ARGUMENT, "n_threads = %u: at most %d", desc->n_threads,
                        (int) MAX_THREADS);
    TRY(moe_try_alloc(host, sizeof *dev, "CPU device", &dev));
    dev->base.backend = &moe_backend_cpu;
    dev->base.host = host;
    fill_info(&dev->base.info, features, isa);
    dev->isa = isa;
    moe_cpu_kernels_init(&dev->kernels, isa);
    uint32_t n_threads = desc->n_threads > 0 ? desc->n_threads : moe_cpu_core_count();
    dev->n_threads = n_threads < MAX_THREADS ? n_threads : MAX_THREADS;
    TRY(moe_pool_create(host, dev->n_threads, &dev->pool));
    *out = &dev->base;
    return VKMOE_OK;

fail:
    if (dev)
        close_device(&dev->base);
    return status;
}

static uint64_t cache_size(const struct moe_device *device)
{
    (void) device;
    return moe_cpu_cache_size();
}

static uint32_t thread_count(const struct moe_device *device)
{
    return moe_pool_size(((const struct cpu_device *) device)->pool);
}

const struct moe_backend moe_backend_cpu = {
    .name = "cpu",
    .enumerate = enumerate,
    .open = open_device,
    .close = close_device,
    .weights_layout = moe_cpu_weights_layout,
    .pack_expert = moe_cpu_pack_expert,
    .weights_create = moe_cpu_weights_create,
    .weights_destroy = moe_cpu_weights_destroy,
    .read_router = moe_cpu_read_router,
    .read_expert = moe_cpu_read_expert,
    .program_create = moe_cpu_program_create,
    .program_destroy = moe_cpu_program_destroy,
    .bind_create = moe_cpu_bind_create,
    .bind_destroy = moe_cpu_bind_destroy,
    .run = moe_cpu_run,
    .net_create = moe_cpu_net_create,
    .net_destroy = moe_cpu_net_destroy,
    .net_write = moe_cpu_net_write,
    .net_read = moe_cpu_net_read,
    .net_run = moe_cpu_net_run,
    .program_kernels = moe_cpu_program_kernels,
    .cache_size = cache_size,
    .thread_count = thread_count,
    .probe_create = moe_cpu_probe_create,
    .probe_destroy = moe_cpu_probe_destroy,
    .probe_run = moe_cpu_probe_run,
    .time_dispatches = moe_cpu_time_phases,
    .counters = moe_cpu_counters,
    .net_time = moe_cpu_net_time,
    .tune = moe_cpu_tune,
    .kernels = moe_cpu_kernels,
};
