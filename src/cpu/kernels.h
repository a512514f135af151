// SPDX-License-Identifier: MIT
// The kernels of the CPU back end: one table, filled in scalar C first; each instruction-set level
// then overwrites the entries it does better.
//
// All matrix work is one kernel. A weight matrix (n_out, k) is stored as panels of 16 outputs. The
// bytes of a row, as it is stored, are cut into units, and the 16 rows' units of the same place lie
// side by side: panel[unit][row][byte]. So a panel has just the bytes of its rows; outputs beyond
// the matrix are zero. Units are what a vector instruction takes from one row at a time:
//   f32   a value
//   f16   a value
//   bf16  two values, the last of an odd k with a zero
//   types of blocks: a head (the scale of q8_0, q4_0 and mxfp4), then 4 bytes each, then what is
//         left of the block (2 bytes of q6_K); each block of 16 rows follows the one before
#ifndef MOE_CPU_KERNELS_H
#define MOE_CPU_KERNELS_H

#include "cpu/arrays.h"
#include "cpu/isa.h"

enum {
    CPU_PANEL = 16,    // outputs of a panel
    CPU_N_WEIGHTS = 11, // types of weights: entries are indexed by enum vkmoe_dtype
    CPU_N_FLOATS = 3,   // those that are f32, f16 and bf16
};

// How rows of x are stored for a kernel.
enum cpu_operand {
    CPU_OPERAND_F32,  // floats, 4-byte aligned
    CPU_OPERAND_BF16, // an even number of them, the last 0 if k is odd; 4-byte aligned
    CPU_OPERAND_INT8, // a struct cpu_int8_block for 32 values each; 4-byte aligned
    CPU_N_OPERANDS,
};

// 32 values as scale * codes[i]: codes are -127..127, to nearest even, scale the largest magnitude
// / 127. Instructions that multiply want one operand without a sign: they can take the weights'
// codes + 128, and start with what that adds. From `begin` on sums of int32 are, as the bits of
// f32, CPU_INT8_ZERO more than the sum: without an instruction that converts.
struct cpu_int8_block {
    float scale;
    float start_value; // start[2]
    int32_t start[3];  // -128 times the sum of codes 0..15, 16..31 and of all
    int32_t begin;     // start[2] + the bits of CPU_INT8_ZERO
    int8_t codes[32];
};

// A number of f32 with neighbours 1 away: sums are below 2^22.
#define CPU_INT8_ZERO 12582912.0f
enum { CPU_INT8_ZERO_BITS = 0x4b400000 };

// n values, a multiple of 32, as n / 32 blocks: the same bits at every level. A block with an
// infinity or NaN gets NaN as its scale and codes of 0; values so small that 127 / their largest is
// infinite become 0. values 4-byte aligned.
typedef void cpu_quantise_fn(const float *values, uint32_t n, struct cpu_int8_block *out);

// out[r][c] = sum over i < k of x[r][i] * w[c][i], for r < n_rows and c < 16
//
//   x       n_rows pointers to rows of k values, stored as the entry's operand says
//   n_rows  at least 1
//   panel   k steps in the entry's type, 32-byte aligned; of types of blocks 16-byte aligned. k is
//           at least 1 and whole blocks (fp8: any number)
//   out     (n_rows, 16), 64-byte aligned; may not overlap the inputs
//
// Of operands f32 each output is one chain of f32 multiply-adds in ascending i from zero. Of bf16
// it is of f32 multiply-adds, too, in an order that is the level's own, and denormal numbers may be
// 0. Of int8 the products of 32 values (of 16, where weights have scales for 16) are summed as
// integers and then, times the scale of the weights, less their minimum times the sum of codes,
// times the scale of x, added to a chain of f32 in ascending order; where a scale of the weights is
// an infinity, the sum is one or NaN.
// So a row's bits never depend on the other rows of the call; between levels they differ.
typedef void cpu_panel_fn(const void *const *x, uint32_t n_rows, const void *panel, uint32_t k,
                          float *out);

// The same, with the same bits, of two panels: out[p] is (n_rows, 16) of panels[p]. A number of x
// is loaded once for both; and of few rows a chain waits for itself about as long as for memory:
// two panels are twice as many chains.
typedef void cpu_pair_fn(const void *const *x, uint32_t n_rows, const char *const *panels,
                         uint32_t k, float *const *out);

// Steps first .. first + k - 1 of f32 chains, for products cut along their inner dimension:
// out[r][c] = sum over i < k of x[r][first + i] * panel[i][c], for r < n_rows and c < 16; with
// `more` out goes on from what it was. Rows of out are 4-byte aligned. As cpu_panel_fn else.
typedef void cpu_chain_fn(const float *const *x, uint32_t n_rows, uint32_t first,
                          const float *panel, uint32_t k, bool more, float *const *out);

// The same with rows of out that follow each other: (n_rows, 16). Types of blocks are decoded piece
// by piece, and multiplied by this.
typedef void cpu_steps_fn(const float *const *x, uint32_t n_rows, uint32_t first,
                          const float *panel, uint32_t k, bool more, float *out);

// Memory that is read soon, which a kernel asks for while it computes: n_rows rows of n_lines
// lines, the rows `stride` bytes apart. Each call goes on where the one before it stopped.
struct cpu_fetch {
    const char *row; // the first of those left
    size_t stride;
    uint32_t n_rows, n_lines;
    uint32_t line; // the next of that row
    uint32_t each; // lines for CPU_FETCH_STEPS steps of at most CPU_FETCH_ROWS rows
};

enum { CPU_LINE = 64, CPU_FETCH_STEPS = 4, CPU_FETCH_ROWS = 12 };

// The same as cpu_chain_fn, with the same bits, of two panels: rows of out have 32 columns. fetch
// may be NULL.
typedef void cpu_chain_two_fn(const float *const *x, uint32_t n_rows, uint32_t first,
                              const float *const *panels, uint32_t k, bool more,
                              float *const *out, struct cpu_fetch *fetch);

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
// n_rounds times CPU_ROUND_MACS multiply-adds in registers, in chains that do not wait for each
// other, n_rounds a multiple of CPU_PEAK_ROUNDS. Of f32: v = v * factor + term in each chain, from
// multiples of `start`; the mean of all v. Of bf16: v = v + factor * term in each sum, likewise. Of
// int8: the same, all of them small whole numbers.
typedef float cpu_peak_fn(uint64_t n_rounds, float start, float factor, float term);

enum { CPU_READ_WORDS = 64, CPU_ROUND_MACS = 96, CPU_PEAK_ROUNDS = 2048 };

struct cpu_kernels {
    // Every type has one for operands of f32; types of blocks but fp8 have one for int8; bf16 has
    // one for bf16 where there are instructions for it. Others are NULL.
    cpu_panel_fn *panel[CPU_N_OPERANDS][CPU_N_WEIGHTS];
    cpu_pair_fn *pair[CPU_N_OPERANDS][CPU_N_WEIGHTS]; // NULL: two are no faster at once
    cpu_quantise_fn *quantise;
    cpu_decode_fn *decode[CPU_N_FLOATS]; // NULL for f32
    cpu_encode_fn *encode[CPU_N_FLOATS]; // likewise
    cpu_chain_fn *chain;
    cpu_chain_two_fn *chain_two; // NULL: two are no faster at once
    cpu_transpose_fn *transpose;
    cpu_read_fn *read;
    cpu_peak_fn *peak[CPU_N_OPERANDS]; // NULL: no instructions of their own
    bool even_rows[CPU_N_OPERANDS]; // read faster where they are the same distance apart
    struct cpu_arrays arrays;
};

// X(name, type, values of a block, its bytes): types of blocks, those that int8 multiplies and all.
#define CPU_INT8_LIST(X)                                                                           \
    X(q8_0, VKMOE_Q8_0, 32, 34)                                                                    \
    X(q4_0, VKMOE_Q4_0, 32, 18)                                                                    \
    X(q4_K, VKMOE_Q4_K, 256, 144)                                                                  \
    X(q5_K, VKMOE_Q5_K, 256, 176)                                                                  \
    X(q6_K, VKMOE_Q6_K, 256, 210)                                                                  \
    X(q2_K, VKMOE_Q2_K, 256, 84)                                                                   \
    X(mxfp4, VKMOE_MXFP4, 32, 17)
#define CPU_BLOCK_LIST(X) CPU_INT8_LIST(X) X(fp8, VKMOE_FP8, 128, 132)

// Fills the table for a level that this machine has; moe_cpu_allow comes before its use.
void moe_cpu_kernels_init(struct cpu_kernels *kernels, enum cpu_isa isa);

// The levels' own parts, in order; each overwrites what it does better. The scalar one fills every
// entry that a level has to have.
typedef void cpu_fill_fn(struct cpu_kernels *kernels);
cpu_fill_fn moe_cpu_kernels_scalar, moe_cpu_kernels_avx2, moe_cpu_kernels_avx512,
    moe_cpu_kernels_avx512_bf16, moe_cpu_kernels_amx, moe_cpu_kernels_neon;
cpu_fill_fn moe_cpu_pairs_avx512; // of kernels_avx512.c's level
// Their panels of types of blocks, and what those multiply with.
cpu_fill_fn moe_cpu_blocks_scalar, moe_cpu_blocks_avx2, moe_cpu_blocks_avx512,
    moe_cpu_blocks_neon;
cpu_steps_fn moe_cpu_steps_scalar, moe_cpu_steps_avx2, moe_cpu_steps_avx512, moe_cpu_steps_neon;
// Their panels of types of blocks with operands of int8.
cpu_fill_fn moe_cpu_int8_scalar, moe_cpu_int8_avx2, moe_cpu_int8_avx512_vnni;
cpu_fill_fn moe_cpu_int8_neon, moe_cpu_int8_dotprod, moe_cpu_int8_i8mm;

// Their arrays: the same text (arrays_text.h), compiled for each level.
void moe_cpu_arrays_scalar(struct cpu_arrays *arrays);
void moe_cpu_arrays_avx2(struct cpu_arrays *arrays);
void moe_cpu_arrays_avx512(struct cpu_arrays *arrays);
void moe_cpu_arrays_neon(struct cpu_arrays *arrays);

#endif
