// SPDX-License-Identifier: MIT
// Every kernel of every level this machine has: against exact sums, or timed with --bench.
#include "kernels_test.h"

#include "base/bits.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t random_bits(uint64_t *state)
{
    // splitmix64
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

float random_value(uint64_t *state)
{
    int32_t v = (int32_t) (random_bits(state) >> 32);
    return ldexpf((float) v, -31);
}

double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec + (double) now.tv_nsec * 1e-9;
}

void *aligned_memory(size_t size)
{
    void *memory = aligned_alloc(64, (size_t) moe_align_up(size, 64));
    if (!memory) {
        fprintf(stderr, "no memory: %zu bytes\n", size);
        exit(1);
    }
    return memory;
}

bool guards_intact(const void *memory, size_t size, size_t begin, size_t end)
{
    const unsigned char *bytes = memory;
    for (size_t i = 0; i < size; i++)
        if ((i < begin || i >= end) && bytes[i] != 0xff)
            return false;
    return true;
}

uint32_t list_levels(const struct kernels_options *options, struct level out[CPU_N_ISAS])
{
    struct cpu_id id = moe_cpu_id();
    uint32_t levels = moe_cpu_levels(moe_cpu_features(&id)), n = 0;
    for (uint32_t i = 0; i < CPU_N_ISAS; i++) {
        if (!(levels & 1u << i) || !moe_cpu_allow((enum cpu_isa) i))
            continue;
        if (options->isa && strcmp(options->isa, moe_cpu_isa_name((enum cpu_isa) i)) != 0)
            continue;
        out[n] = (struct level){.isa = (enum cpu_isa) i};
        moe_cpu_kernels_init(&out[n++].kernels, (enum cpu_isa) i);
    }
    return n;
}

// Has the level before it the same kernel? Then its test is enough where there is little time.
static bool is_repeated(const struct level *level, enum cpu_operand operand, uint32_t type)
{
    const struct cpu_id id = moe_cpu_id();
    const uint32_t before = moe_cpu_levels(moe_cpu_features(&id)) & ((1u << level->isa) - 1);
    struct cpu_kernels kernels;
    if (before == 0)
        return false;
    moe_cpu_kernels_init(&kernels, moe_cpu_best(before));
    return kernels.panel[operand][type] == level->kernels.panel[operand][type];
}

uint32_t list_kernels(const struct kernels_options *options, enum cpu_operand operand,
                      struct kernel out[MAX_KERNELS])
{
    struct level levels[CPU_N_ISAS];
    const uint32_t n_levels = list_levels(options, levels);
    uint32_t n = 0;
    for (uint32_t i = 0; i < n_levels; i++)
        for (uint32_t type = 0; type < CPU_N_WEIGHTS; type++)
            if (levels[i].kernels.panel[operand][type] &&
                !(options->few && is_repeated(&levels[i], operand, type)))
                out[n++] = (struct kernel){levels[i].isa, operand, (enum vkmoe_dtype) type,
                                           levels[i].kernels.panel[operand][type],
                                           levels[i].kernels.pair[operand][type]};
    return n;
}

static int usage(void)
{
    fputs("usage: kernels [--bench | --bench-layers] [--isa LEVEL] [--seed N] [--few]\n", stderr);
    return 2;
}

int main(int argc, char **argv)
{
    struct kernels_options options = {.seed = 1};
    bool bench = false, layers = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--bench") == 0)
            bench = true;
        else if (strcmp(argv[i], "--few") == 0)
            options.few = true;
        else if (strcmp(argv[i], "--bench-layers") == 0)
            layers = true;
        else if (strcmp(argv[i], "--isa") == 0 && i + 1 < argc)
            options.isa = argv[++i];
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            options.seed = strtoull(argv[++i], NULL, 10);
        else
            return usage();
    }
    struct level levels[CPU_N_ISAS];
    if (list_levels(&options, levels) == 0) {
        fprintf(stderr, "skip: this machine or build has no level \"%s\"\n", options.isa);
        return 77;
    }
    if (layers)
        return bench_layer(&options);
    if (bench)
        return run_bench(&options);
    int n_failed = run_panel_tests(&options);
    n_failed += run_pair_tests(&options);
    n_failed += run_bf16_tests(&options);
    n_failed += run_int8_tests(&options);
    n_failed += run_chain_tests(&options);
    n_failed += run_array_tests(&options);
    n_failed += run_half_tests(&options);
    n_failed += run_probe_tests(&options);
    return n_failed != 0;
}
