// SPDX-License-Identifier: MIT
// Speed of the kernels and of one layer, next to what this machine can do at all, measured in the
// same run by the best level: its rates of multiply-adds and of reading memory, on one core.
#include "kernels_test.h"

#include "base/bits.h"
#include "cpu/panel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PIECE = 1 << 20,
    N_PIECES = 256, // beyond every cache
    STREAM_SIZE = N_PIECES * PIECE,
};

// In short rounds, so that some are undisturbed. Operands without instructions of their own are
// held against f32's.
static double peak_gops(const struct cpu_kernels *kernels, enum cpu_operand operand)
{
    enum { STEPS = 40000, ROUNDS = 500 };
    cpu_peak_fn *peak = kernels->peak[kernels->peak[operand] ? operand : CPU_OPERAND_F32];
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        double start = seconds();
        volatile float sink = peak(STEPS, 1, 0.5f, 0.5f);
        (void) sink;
        double rate = 2.0 * CPU_ROUND_MACS * STEPS / (seconds() - start) * 1e-9;
        best = rate > best ? rate : best;
    }
    return best;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

// Memory is read in pieces, which are shorter than what a disturbance takes: the median piece.
static double median(double *times)
{
    qsort(times, N_PIECES, sizeof *times, compare);
    return times[N_PIECES / 2];
}

static double read_gbs(const struct cpu_kernels *kernels, const char *memory)
{
    double times[N_PIECES];
    for (uint32_t i = 0; i < N_PIECES; i++) {
        const double start = seconds();
        volatile uint32_t sink = kernels->read((const uint32_t *) (memory + i * PIECE),
                                               PIECE / sizeof(uint32_t));
        (void) sink;
        times[i] = seconds() - start;
    }
    return PIECE / median(times) * 1e-9;
}

static double stream_gbs(const struct kernel *kernel, const char *memory, const void *const *x,
                         uint32_t k, float *out)
{
    const size_t panel_size = (size_t) moe_cpu_panel_size(kernel->type, k);
    const size_t n_panels = PIECE / panel_size;
    double times[N_PIECES];
    for (uint32_t i = 0; i < N_PIECES; i++) {
        const double start = seconds();
        for (size_t p = 0; p < n_panels; p++)
            kernel->panel(x, 1, memory + i * PIECE + p * panel_size, k, out);
        times[i] = seconds() - start;
    }
    return (double) (n_panels * panel_size) / median(times) * 1e-9;
}

// Runs over n_panels panels again and again for a while; seconds for all panels once.
static double time_panels(const struct kernel *kernel, const char *panels, uint32_t n_panels,
                          const void *const *x, uint32_t n_rows, uint32_t k, float *out)
{
    const size_t panel_size = (size_t) moe_cpu_panel_size(kernel->type, k);
    double best = 1e9;
    for (double began = seconds(); seconds() - began < 0.15;) {
        double start = seconds();
        for (uint32_t p = 0; p < n_panels; p++)
            kernel->panel(x, n_rows, panels + p * panel_size, k, out);
        double t = seconds() - start;
        best = t < best ? t : best;
    }
    return best;
}

// n values as the kernel's operand.
static void store_row(enum cpu_operand operand, const float *values, uint32_t n, void *out)
{
    struct cpu_kernels scalar;
    moe_cpu_kernels_init(&scalar, CPU_ISA_SCALAR);
    if (operand == CPU_OPERAND_F32)
        memcpy(out, values, n * sizeof *values);
    else if (operand == CPU_OPERAND_BF16)
        scalar.encode[VKMOE_BF16](values, out, n);
    else
        scalar.quantise(values, n, out);
}

static void bench_kernel(const struct kernel *kernel, const char *memory, double peak, double read)
{
    static const char *const names[CPU_N_OPERANDS] = {"f32", "bf16", "int8"};
    // Rows as the back end stores them: not a multiple of a page apart (cpu/operand.c).
    enum { K = 1024, STRIDE = K + 16, ROWS = 48, CACHED_PANELS = 2 };
    static const uint32_t n_rows[] = {1, 2, 4, 6, 12, ROWS};
    float *x = aligned_memory(sizeof(float) * ROWS * STRIDE);
    float *out = aligned_memory(sizeof(float) * ROWS * CPU_PANEL);
    const void *rows[ROWS];
    uint64_t state = 1;
    for (uint32_t r = 0; r < ROWS; r++) {
        float values[K];
        for (uint32_t i = 0; i < K; i++)
            values[i] = random_value(&state);
        rows[r] = x + r * STRIDE;
        store_row(kernel->operand, values, K, x + r * STRIDE);
    }

    printf("%-7s %-5s x %-4s GOP/s from the cache:", moe_cpu_isa_name(kernel->isa),
           vkmoe_dtype_name(kernel->type), names[kernel->operand]);
    double rate = 0;
    for (size_t i = 0; i < MOE_COUNT(n_rows); i++) {
        double t = time_panels(kernel, memory, CACHED_PANELS, rows, n_rows[i], K, out);
        rate = 2.0 * CACHED_PANELS * K * CPU_PANEL * n_rows[i] / t * 1e-9;
        printf("  %u row%s %.1f", n_rows[i], n_rows[i] > 1 ? "s" : "", rate);
    }
    printf(" (%.0f %% of the probe)", 100 * rate / peak);
    const double stream = stream_gbs(kernel, memory, rows, K, out);
    printf("\n              1 row from memory: %.1f GB/s (%.0f %% of the probe)\n", stream,
           100 * stream / read);
    free(x);
    free(out);
}

int run_bench(const struct kernels_options *options)
{
    struct kernel kernels[MAX_KERNELS];
    char *memory = aligned_memory(STREAM_SIZE);
    memset(memory, 0x3c, STREAM_SIZE); // neither a small number nor a large one in any type
    struct level levels[CPU_N_ISAS];
    const struct cpu_kernels *best = &levels[list_levels(options, levels) - 1].kernels;
    double peak[CPU_N_OPERANDS];
    for (uint32_t operand = 0; operand < CPU_N_OPERANDS; operand++)
        peak[operand] = peak_gops(best, (enum cpu_operand) operand);
    printf("one core: %.1f GOP/s of multiply-adds of f32, %.1f of bf16, %.1f of int8\n", peak[0],
           peak[1], peak[2]);
    for (uint32_t operand = 0; operand < CPU_N_OPERANDS; operand++) {
        const uint32_t n = list_kernels(options, (enum cpu_operand) operand, kernels);
        for (uint32_t i = 0; i < n; i++)
            bench_kernel(&kernels[i], memory, peak[operand], read_gbs(best, memory));
    }
    free(memory);
    const int layer_failed = bench_layer(options);
    return bench_net(options, peak[CPU_OPERAND_F32]) || layer_failed;
}
