// SPDX-License-Identifier: MIT
// Speed of the kernels and of one layer, next to what this machine can do at all, measured in the
// same run by the best level: its rates of multiply-adds and of reading memory, on one core.
#include "kernels_test.h"

#include "base/bits.h"
#include "cpu/panel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STREAM_SIZE = 256 << 20 }; // beyond every cache

// In short rounds, so that some are undisturbed.
static double fma_gflops(const struct cpu_kernels *kernels)
{
    enum { STEPS = 40000, ROUNDS = 500 };
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        double start = seconds();
        volatile float sink = kernels->peak[CPU_OPERAND_F32](STEPS, 1, 0.5f, 0.5f);
        (void) sink;
        double rate = 2.0 * CPU_ROUND_MACS * STEPS / (seconds() - start) * 1e-9;
        best = rate > best ? rate : best;
    }
    return best;
}

static double read_gbs(const struct cpu_kernels *kernels, const void *memory)
{
    double best = 0;
    for (int round = 0; round < 5; round++) {
        double start = seconds();
        volatile uint32_t sink = kernels->read(memory, STREAM_SIZE / sizeof(uint32_t));
        (void) sink;
        double rate = STREAM_SIZE / (seconds() - start) * 1e-9;
        best = rate > best ? rate : best;
    }
    return best;
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

static void bench_kernel(const struct kernel *kernel, const char *memory, double peak, double read)
{
    enum { K = 1024, ROWS = 48, CACHED_PANELS = 2 };
    static const uint32_t n_rows[] = {1, 2, 4, 6, 12, ROWS};
    float *x = aligned_memory(sizeof(float) * ROWS * K);
    float *out = aligned_memory(sizeof(float) * ROWS * CPU_PANEL);
    const void *rows[ROWS];
    uint64_t state = 1;
    for (uint32_t i = 0; i < ROWS * K; i++)
        x[i] = random_value(&state);
    for (uint32_t r = 0; r < ROWS; r++)
        rows[r] = x + r * K;

    printf("%-7s %-5s GFLOP/s from the cache:", moe_cpu_isa_name(kernel->isa),
           vkmoe_dtype_name(kernel->type));
    double rate = 0;
    for (size_t i = 0; i < MOE_COUNT(n_rows); i++) {
        double t = time_panels(kernel, memory, CACHED_PANELS, rows, n_rows[i], K, out);
        rate = 2.0 * CACHED_PANELS * K * CPU_PANEL * n_rows[i] / t * 1e-9;
        printf("  %u row%s %.1f", n_rows[i], n_rows[i] > 1 ? "s" : "", rate);
    }
    printf(" (%.0f %% of the probe)", 100 * rate / peak);
    const size_t panel_size = (size_t) moe_cpu_panel_size(kernel->type, K);
    double t = time_panels(kernel, memory, (uint32_t) (STREAM_SIZE / panel_size), rows, 1, K, out);
    double stream = STREAM_SIZE / t * 1e-9;
    printf("\n              1 row from memory: %.1f GB/s (%.0f %% of the probe)\n", stream,
           100 * stream / read);
    free(x);
    free(out);
}

int run_bench(const struct kernels_options *options)
{
    struct kernel kernels[MAX_KERNELS];
    const uint32_t n = list_kernels(options, CPU_OPERAND_F32, kernels);
    char *memory = aligned_memory(STREAM_SIZE);
    memset(memory, 0x3c, STREAM_SIZE); // neither a small number nor a large one in any type
    struct level levels[CPU_N_ISAS];
    const struct cpu_kernels *best = &levels[list_levels(options, levels) - 1].kernels;
    const double peak = fma_gflops(best), read = read_gbs(best, memory);
    printf("one core: %.1f GFLOP/s of multiply-adds, reads %.1f GB/s\n", peak, read);
    for (uint32_t i = 0; i < n; i++)
        bench_kernel(&kernels[i], memory, peak, read);
    free(memory);
    const int layer_failed = bench_layer(options);
    return bench_net(options, peak) || layer_failed;
}
