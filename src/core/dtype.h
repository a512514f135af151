// SPDX-License-Identifier: MIT
// Types of weights, and of x and y, which have one of the first three. Adding a weight type of
// blocks is a line in MOE_DTYPE_LIST and one in MOE_BLOCK_LIST (quant.h), its decoder and encoder,
// a kernel entry on the CPU, a row of shaders/include/weight_types.h and its cases in weight.glsl.
#ifndef MOE_CORE_DTYPE_H
#define MOE_CORE_DTYPE_H

#include <vkmoe/vkmoe.h>

// X(enum value, name, elements a block, bytes a block)
#define MOE_DTYPE_LIST(X)                                                                          \
    X(VKMOE_F32, "f32", 1, 4)                                                                      \
    X(VKMOE_F16, "f16", 1, 2)                                                                      \
    X(VKMOE_BF16, "bf16", 1, 2)                                                                    \
    X(VKMOE_Q8_0, "q8_0", 32, 34)                                                                  \
    X(VKMOE_Q4_0, "q4_0", 32, 18)                                                                  \
    X(VKMOE_Q4_K, "q4_K", 256, 144)                                                                \
    X(VKMOE_Q5_K, "q5_K", 256, 176)                                                                \
    X(VKMOE_Q6_K, "q6_K", 256, 210)                                                                \
    X(VKMOE_Q2_K, "q2_K", 256, 84)                                                                 \
    X(VKMOE_MXFP4, "mxfp4", 32, 17)                                                                \
    X(VKMOE_FP8, "fp8", 128, 132)

enum {
    MOE_N_DTYPES = 11,
    MOE_N_FLOAT_DTYPES = 3, // f32, f16, bf16: those of x and y, and of what is trained
};

struct moe_dtype_info {
    const char *name;
    uint32_t block_elements, block_size;
};

bool moe_dtype_valid(enum vkmoe_dtype type);
const struct moe_dtype_info *moe_dtype_info(enum vkmoe_dtype type); // a valid type

// Is it one that x and y, and weights of networks, may have?
static inline bool moe_dtype_is_float(enum vkmoe_dtype type)
{
    return (uint32_t) type < MOE_N_FLOAT_DTYPES;
}

// Bytes of a row of n elements: whole blocks, of fp8 any number.
uint64_t moe_dtype_size(enum vkmoe_dtype type, uint64_t n);

// Between a row of n stored elements at any alignment and f32. Encoding rounds to nearest even, or
// to the scales and codes that quant.h tells of.
void moe_dtype_decode(enum vkmoe_dtype type, const void *src, size_t n, float *dst);
void moe_dtype_encode(enum vkmoe_dtype type, const float *src, size_t n, void *dst);

// The same from f64 for types of floats, rounded once: by way of f32 a tie could be made that was
// none.
void moe_dtype_encode_f64(enum vkmoe_dtype type, const double *src, size_t n, void *dst);

uint16_t moe_f32_to_f16(float value);
float moe_f16_to_f32(uint16_t value);
uint16_t moe_f32_to_bf16(float value);
float moe_bf16_to_f32(uint16_t value);

#endif
