// SPDX-License-Identifier: MIT
// What this processor can do at best, on all threads of the device: reading memory, multiplying,
// and a phase that does nothing. Each is the best of a few tries: a try that lost its processor for
// a moment says nothing about the limit.
#include "cpu/cpu.h"

#include "base/bits.h"
#include "base/clock.h"
#include "base/host.h"
#include "base/status.h"

#include <math.h>
#include <string.h>

enum {
    N_TRIES = 5,
    PAGE = 4096,
    READ_TASK = 2 << 20,  // bytes: a large page, and long beside the cost of handing it out
    PEAK_TASKS = 8,       // of each thread, so that none waits long for the last
    UNIT_ROUNDS = CPU_PEAK_ROUNDS,  // rounds come in so many
    MOST_ROUNDS = 4096 * UNIT_ROUNDS, // f32 counts so far, in each of a few sums
    EMPTY_PHASES = 200,   // of one try
};

static const double peak_seconds = 100e-6; // of a task

// What is multiplied, and the limit that it is.
static const enum vkmoe_arithmetic arithmetic_of[CPU_N_OPERANDS] = {
    [CPU_OPERAND_F32] = VKMOE_ARITHMETIC_F32,
    [CPU_OPERAND_BF16] = VKMOE_ARITHMETIC_BF16,
    [CPU_OPERAND_INT8] = VKMOE_ARITHMETIC_INT8,
};

struct cpu_probe {
    struct moe_device_probe base;
    uint32_t *memory; // (read_size) ones
    uint64_t read_size;
    // Of a peak's task: its kernel, how many rounds, and what comes out of them.
    cpu_peak_fn *peak;
    uint64_t n_rounds;
    double count;
    // What tasks have computed, so that they have to: the sum of what was read, and how many tasks
    // of multiply-adds ended where they must.
    _Atomic uint64_t sum;
    _Atomic uint64_t n_right;
    uint64_t n_words, n_peaks; // what these two have to be
};

static const struct cpu_device *device_of(const struct cpu_probe *probe)
{
    return (const struct cpu_device *) probe->base.device;
}

void moe_cpu_probe_destroy(struct moe_device_probe *base)
{
    struct cpu_probe *probe = (struct cpu_probe *) base;
    if (!probe)
        return;
    const vkmoe_host *host = probe->base.device->host;
    moe_free(host, probe->memory);
    moe_free(host, probe);
}

// Memory as weights have it, from the host.
static enum vkmoe_status alloc_memory(const vkmoe_host *host, uint64_t size, uint32_t **out)
{
    if (size <= SIZE_MAX)
        *out = host->alloc(host->user, (size_t) size, PAGE);
    if (!*out)
        return moe_fail(VKMOE_E_MEMORY, "memory to read: %llu bytes", (unsigned long long) size);
    for (uint64_t i = 0; i < size / sizeof **out; i++)
        (*out)[i] = 1;
    return VKMOE_OK;
}

enum vkmoe_status moe_cpu_probe_create(struct moe_device *device, uint64_t read_size,
                                       struct moe_device_probe **out)
{
    enum vkmoe_status status;
    struct cpu_probe *probe = NULL;
    TRY(moe_try_alloc(device->host, sizeof *probe, "probe", &probe));
    probe->base.device = device;
    probe->read_size = read_size;
    TRY(alloc_memory(device->host, read_size, &probe->memory));
    *out = &probe->base;
    return VKMOE_OK;
fail:
    moe_cpu_probe_destroy(probe ? &probe->base : NULL);
    return status;
}

// ---- tasks -------------------------------------------------------------------------------------

static void read_task(void *arg, uint32_t i)
{
    struct cpu_probe *probe = arg;
    uint64_t begin = (uint64_t) i * READ_TASK, size = moe_min(READ_TASK, probe->read_size - begin);
    moe_cpu_count(&probe->sum, device_of(probe)->kernels.read(probe->memory + begin / 4,
                                                              (size_t) size / 4));
}

// Each step adds 1 * 1: the chains count.
static void peak_task(void *arg, uint32_t i)
{
    (void) i;
    struct cpu_probe *probe = arg;
    double count = (double) probe->peak(probe->n_rounds, 1, 1, 1);
    moe_cpu_count(&probe->n_right, fabs(count - probe->count) <= 1e-4 * probe->count);
}

static void empty_task(void *arg, uint32_t i)
{
    (void) arg, (void) i;
}

// ---- tries -------------------------------------------------------------------------------------

static void size_peak(struct cpu_probe *probe)
{
    (void) probe->peak(UNIT_ROUNDS, 1, 1, 1); // the first use of registers may cost more
    probe->n_rounds = UNIT_ROUNDS;
    for (double seconds = 0; probe->n_rounds < MOST_ROUNDS; probe->n_rounds *= 2) {
        double begin = moe_seconds();
        (void) probe->peak(probe->n_rounds, 1, 1, 1);
        if ((seconds = moe_seconds() - begin) >= peak_seconds / 2)
            break;
    }
    // How far a unit counts is the kernel's own, and that each counts as far as another its duty.
    double one = (double) probe->peak(UNIT_ROUNDS, 1, 1, 1);
    double step = (double) probe->peak(2 * UNIT_ROUNDS, 1, 1, 1) - one;
    double more = (double) (probe->n_rounds / UNIT_ROUNDS - 1);
    probe->count = step > 0 ? one + more * step : NAN;
}

static double try_read(struct cpu_probe *probe)
{
    const uint32_t n = (uint32_t) moe_div_up(probe->read_size, READ_TASK);
    double begin = moe_seconds();
    probe->n_words += probe->read_size / 4;
    moe_cpu_parallel(device_of(probe), n, read_task, probe);
    return (double) probe->read_size / (moe_seconds() - begin);
}

static double try_peak(struct cpu_probe *probe)
{
    const uint32_t n = PEAK_TASKS * device_of(probe)->n_threads;
    double begin = moe_seconds();
    probe->n_peaks += n;
    moe_cpu_parallel(device_of(probe), n, peak_task, probe);
    return 2.0 * CPU_ROUND_MACS * (double) probe->n_rounds * n / (moe_seconds() - begin);
}

static double try_empty(struct cpu_probe *probe)
{
    const struct cpu_device *device = device_of(probe);
    double begin = moe_seconds();
    for (int i = 0; i < EMPTY_PHASES; i++)
        moe_cpu_parallel(device, device->n_threads, empty_task, NULL);
    return EMPTY_PHASES / (moe_seconds() - begin);
}

static double best_rate(struct cpu_probe *probe, double (*try)(struct cpu_probe *probe))
{
    double best = 0;
    for (int i = 0; i < N_TRIES; i++) {
        double rate = try(probe);
        best = rate > best ? rate : best;
    }
    return best;
}

// All that this level has instructions for.
static void measure_peaks(struct cpu_probe *probe, vkmoe_limits *out)
{
    for (uint32_t i = 0; i < CPU_N_OPERANDS; i++) {
        probe->peak = device_of(probe)->kernels.peak[i];
        if (!probe->peak)
            continue;
        size_peak(probe);
        out->peak[arithmetic_of[i]] = best_rate(probe, try_peak);
    }
}

// Kernels that do not do what is timed would make every limit a lie.
static enum vkmoe_status check(const struct cpu_probe *probe)
{
    if (probe->sum != probe->n_words || probe->n_right != probe->n_peaks)
        return moe_fail(VKMOE_E_DEVICE, "probe: %llu words were read of %llu, and %llu of %llu "
                        "products are right", (unsigned long long) probe->sum,
                        (unsigned long long) probe->n_words, (unsigned long long) probe->n_right,
                        (unsigned long long) probe->n_peaks);
    return VKMOE_OK;
}

enum vkmoe_status moe_cpu_probe_run(struct moe_device_probe *base, uint32_t what,
                                    vkmoe_limits *out)
{
    struct cpu_probe *probe = (struct cpu_probe *) base;
    probe->sum = probe->n_right = 0;
    probe->n_words = probe->n_peaks = 0;
    *out = (vkmoe_limits){0};
    if (what & VKMOE_PROBE_READ)
        out->read_rate = best_rate(probe, try_read);
    if (what & VKMOE_PROBE_ARITHMETIC)
        measure_peaks(probe, out);
    if (what & VKMOE_PROBE_DISPATCH)
        out->dispatch_seconds = 1 / best_rate(probe, try_empty);
    return check(probe);
}
