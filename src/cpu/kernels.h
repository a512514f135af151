// SPDX-License-Identifier: MIT
// The kernels of the CPU back end: one table, filled in scalar C first; each instruction-set level
// then overwrites the entries it does better.
//
// All matrix work is one kernel. A weight matrix (n_out, k) is stored as panels of 16 outputs,
// k-major: panel[i][c] = w[16 p + c][i], outputs beyond the matrix being zero. Of a type of blocks
// i counts the bytes of a row as it is stored, so that what 16 rows have in the same place of their
// blocks is side by side, and a panel has just the bytes of its rows.
#ifndef MOE_CPU_KERNELS_H
#define MOE_CPU_KERNELS_H

#include "cpu/arrays.h"
#include "cpu/isa.h"

enum {
    CPU_PANEL = 16,    // outputs of a panel
    CPU_N_WEIGHTS = 11, // types of weights: entries are indexed by enum vkmoe_dtype
    CPU_N_FLOATS = 3,   // those that are f32, f16 and bf16
};

// out[r][c] = sum over i < k of x[r][i] * panel[i][c], for r < n_rows and c < 16
//
//   x       n_rows pointers to rows of k floats, 4-byte aligned
//   n_rows  at least 1
//   panel   k steps in the entry's type, 32-byte aligned; of types of blocks 16-byte aligned. k is
//           at least 1 and whole blocks (fp8: any number)
//   out     (n_rows, 16), 64-byte aligned; may not overlap the inputs
//
// Each output is one chain of f32 multiply-adds in ascending i from zero. So a row's bits never
// depend on the other rows of the call; between levels they differ (fused or not).
typedef void cpu_panel_fn(const float *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                          float *out);

// Steps first .. first + k - 1 of f32 chains, for products cut along their inner dimension:
// out[r][c] = sum over i < k of x[r][first + i] * panel[i][c], for r < n_rows and c < 16; with
// `more` out goes on from what it was. Rows of out are 4-byte aligned. As cpu_panel_fn else.
typedef void cpu_chain_fn(const float *const *x, uint32_t n_rows, uint32_t first,
                          const float *panel, uint32_t k, bool more, float *const *out);

// The same with rows of out that follow each other: (n_rows, 16). Types of blocks are decoded piece
// by piece, and multiplied by this.
typedef void cpu_steps_fn(const float *const *x, uint32_t n_rows, uint32_t first,
                          const float *panel, uint32_t k, bool more, float *out);

// out[i * stride + r] = rows[r][first + i] for r < n_rows <= 16 and i < n; the other r < 16 of
// each i become 0. rows 4-byte aligned, out 32-byte aligned, stride a multiple of 16.
typedef void cpu_transpose_fn(const float *const *rows, uint32_t n_rows, uint32_t first, uint32_t n,
                              float *out, uint32_t stride);

// n elements of a 16-bit type to f32, and back by rounding to nearest even: bits as those of
// core/dtype.h at every level. Arrays have the alignment of their elements; n may be 0.
typedef void cpu_decode_fn(const uint16_t *stored, float *out, size_t n);
typedef void cpu_encode_fn(const float *values, uint16_t *out, size_t n);

// Probes: what a level can do at best, for time to be held against.
//
// The sum of n 32-bit words, modulo 2^32, by one sequential read. memory 64-byte aligned, n a
// multiple of CPU_READ_WORDS.
typedef uint32_t cpu_read_fn(const uint32_t *memory, size_t n);
// n_rounds times CPU_ROUND_MACS multiply-adds of f32 in registers, in chains that do not wait for
// each other: v = v * factor + term in each of them, from multiples of `start`. The mean of all v.
typedef float cpu_peak_fn(uint64_t n_rounds, float start, float factor, float term);

enum { CPU_READ_WORDS = 64, CPU_ROUND_MACS = 96 };

struct cpu_kernels {
    cpu_panel_fn *panel[CPU_N_WEIGHTS];
    cpu_decode_fn *decode[CPU_N_FLOATS]; // NULL for f32
    cpu_encode_fn *encode[CPU_N_FLOATS]; // likewise
    cpu_chain_fn *chain;
    cpu_transpose_fn *transpose;
    cpu_read_fn *read;
    cpu_peak_fn *peak;
    struct cpu_arrays arrays;
};

// Fills the table for a level that this machine has.
void moe_cpu_kernels_init(struct cpu_kernels *kernels, enum cpu_isa isa);

// The levels' own parts, in order. The scalar one fills every entry.
void moe_cpu_kernels_scalar(struct cpu_kernels *kernels);
void moe_cpu_kernels_avx2(struct cpu_kernels *kernels);

// Their panels of types of blocks, and what those multiply with.
void moe_cpu_blocks_scalar(struct cpu_kernels *kernels);
void moe_cpu_blocks_avx2(struct cpu_kernels *kernels);
cpu_steps_fn moe_cpu_steps_scalar, moe_cpu_steps_avx2;

// Their arrays: the same text (arrays_text.h), compiled for each level.
void moe_cpu_arrays_scalar(struct cpu_arrays *arrays);
void moe_cpu_arrays_avx2(struct cpu_arrays *arrays);

#endif
