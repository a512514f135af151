// SPDX-License-Identifier: MIT
// Speed of the kernels and of one layer, next to what this machine can do at all, measured in the
// same run: its rate of fused multiply-adds and of reading memory, on one core.
#include "kernels_test.h"

#include "base/bits.h"
#include "core/dtype.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef MOE_CPU_AVX2
#include <immintrin.h>

// 12 independent chains of 8 fused multiply-adds, in short rounds so that some are undisturbed.
__attribute__((target("avx2,fma"))) static double fma_gflops(void)
{
    enum { CHAINS = 12, STEPS = 40000, ROUNDS = 500 };
    __m256 sum[CHAINS], factor = _mm256_set1_ps(0.5f), result = _mm256_setzero_ps();
    for (int i = 0; i < CHAINS; i++)
        sum[i] = _mm256_set1_ps((float) i);
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        double start = seconds();
        for (int step = 0; step < STEPS; step++) {
#pragma GCC unroll 12
            for (int i = 0; i < CHAINS; i++)
                sum[i] = _mm256_fmadd_ps(sum[i], factor, factor);
        }
        double rate = 2.0 * 8 * CHAINS * STEPS / (seconds() - start) * 1e-9;
        best = rate > best ? rate : best;
    }
    for (int i = 0; i < CHAINS; i++)
        result = _mm256_add_ps(result, sum[i]);
    volatile float sink = _mm256_cvtss_f32(result);
    (void) sink;
    return best;
}

__attribute__((target("avx2"))) static uint64_t read_all(const char *memory, size_t size)
{
    __m256i sum[4] = {0};
    for (size_t i = 0; i < size; i += 128) {
        const __m256i *line = (const __m256i *) (const void *) (memory + i);
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            sum[j] = _mm256_xor_si256(sum[j], _mm256_load_si256(line + j));
    }
    for (int j = 1; j < 4; j++)
        sum[0] = _mm256_xor_si256(sum[0], sum[j]);
    return (uint64_t) _mm256_extract_epi64(sum[0], 0);
}
#else
static double fma_gflops(void)
{
    return 0;
}

static uint64_t read_all(const char *memory, size_t size)
{
    const uint64_t *words = (const uint64_t *) (const void *) memory;
    uint64_t sum = 0;
    for (size_t i = 0; i < size / sizeof *words; i++)
        sum ^= words[i];
    return sum;
}
#endif

enum { STREAM_SIZE = 256 << 20 }; // beyond every cache

static double read_gbs(const char *memory)
{
    double best = 0;
    for (int round = 0; round < 5; round++) {
        double start = seconds();
        volatile uint64_t sink = read_all(memory, STREAM_SIZE);
        (void) sink;
        double rate = STREAM_SIZE / (seconds() - start) * 1e-9;
        best = rate > best ? rate : best;
    }
    return best;
}

// Runs over n_panels panels again and again for a while; seconds for all panels once.
static double time_panels(const struct kernel *kernel, const char *panels, uint32_t n_panels,
                          const float *const *x, uint32_t n_rows, uint32_t k, float *out)
{
    const size_t panel_size = (size_t) moe_dtype_size(kernel->type, (uint64_t) k * CPU_PANEL);
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
    const float *rows[ROWS];
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
    if (peak > 0)
        printf(" (%.0f %% of the probe)", 100 * rate / peak);
    const size_t panel_size = (size_t) moe_dtype_size(kernel->type, K * CPU_PANEL);
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
    const uint32_t n = list_kernels(options, kernels);
    char *memory = aligned_memory(STREAM_SIZE);
    memset(memory, 1, STREAM_SIZE); // 0x01010101: a small number in every type
    double peak = fma_gflops(), read = read_gbs(memory);
    printf("one core: %.1f GFLOP/s of fused multiply-adds, reads %.1f GB/s\n", peak, read);
    for (uint32_t i = 0; i < n; i++)
        bench_kernel(&kernels[i], memory, peak, read);
    free(memory);
    const int layer_failed = bench_layer(options);
    return bench_net(options, peak) || layer_failed;
}
