// SPDX-License-Identifier: MIT
// What the kernel tests share: the levels and weight types to go through, and random data.
#ifndef KERNELS_TEST_H
#define KERNELS_TEST_H

#include "cpu/kernels.h"

#include <vkmoe/vkmoe.h>

struct kernels_options {
    uint64_t seed;
    const char *isa; // only this level, or NULL
    bool few;        // cases for an emulated processor, which takes a hundred times as long
};

// A kernel under test.
struct kernel {
    enum cpu_isa isa;
    enum cpu_operand operand;
    enum vkmoe_dtype type;
    cpu_panel_fn *panel;
    cpu_pair_fn *pair; // or NULL
};

enum { MAX_KERNELS = CPU_N_ISAS * CPU_N_WEIGHTS };

// Every kernel for such operands that this machine can run and the options allow, with `few` those
// that a level does not have from the one before; returns their number.
uint32_t list_kernels(const struct kernels_options *options, enum cpu_operand operand,
                      struct kernel out[MAX_KERNELS]);

// The kernel tables of the same levels; returns their number.
struct level {
    enum cpu_isa isa;
    struct cpu_kernels kernels;
};
uint32_t list_levels(const struct kernels_options *options, struct level out[CPU_N_ISAS]);

// Random numbers that depend on the state alone.
uint64_t random_bits(uint64_t *state);
float random_value(uint64_t *state); // in (-1, 1), mantissas full

// Is all memory of `size` bytes 0xff, but those from begin on to end?
bool guards_intact(const void *memory, size_t size, size_t begin, size_t end);

// Aligned memory for kernels, or the program ends.
void *aligned_memory(size_t size);

int run_panel_tests(const struct kernels_options *options); // number of failed tests
int run_pair_tests(const struct kernels_options *options);
int run_bf16_tests(const struct kernels_options *options);
int run_int8_tests(const struct kernels_options *options);
int run_chain_tests(const struct kernels_options *options);
int run_array_tests(const struct kernels_options *options);
int run_half_tests(const struct kernels_options *options);
int run_probe_tests(const struct kernels_options *options);
int run_bench(const struct kernels_options *options);       // exit code
int bench_layer(const struct kernels_options *options);     // exit code
// peak: GFLOP/s of one core's probe. Exit code.
int bench_net(const struct kernels_options *options, double peak);
double seconds(void); // monotonic

#endif
