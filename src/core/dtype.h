// SPDX-License-Identifier: MIT
// Types of weights, and of x and y. Adding a weight type is a line in MOE_DTYPE_LIST, its
// conversion in dtype.c, a kernel entry on the CPU and a case in shaders/include/weight.glsl.
#ifndef MOE_CORE_DTYPE_H
#define MOE_CORE_DTYPE_H

#include <vkmoe/vkmoe.h>

// X(enum value, name, elements a block, bytes a block)
#define MOE_DTYPE_LIST(X)                                                                          \
    X(VKMOE_F32, "f32", 1, 4)                                                                      \
    X(VKMOE_F16, "f16", 1, 2)                                                                      \
    X(VKMOE_BF16, "bf16", 1, 2)

enum { MOE_N_DTYPES = 3 };

struct moe_dtype_info {
    const char *name;
    uint32_t block_elements, block_size;
};

bool moe_dtype_valid(enum vkmoe_dtype type);
const struct moe_dtype_info *moe_dtype_info(enum vkmoe_dtype type); // a valid type

// Bytes of n elements; n is a multiple of the block.
uint64_t moe_dtype_size(enum vkmoe_dtype type, uint64_t n);

// Between a row of n stored elements and f32; encoding rounds to nearest even.
void moe_dtype_decode(enum vkmoe_dtype type, const void *src, size_t n, float *dst);
void moe_dtype_encode(enum vkmoe_dtype type, const float *src, size_t n, void *dst);

// The same from f64, rounded once: by way of f32 a tie could be made that was none.
void moe_dtype_encode_f64(enum vkmoe_dtype type, const double *src, size_t n, void *dst);

uint16_t moe_f32_to_f16(float value);
float moe_f16_to_f32(uint16_t value);
uint16_t moe_f32_to_bf16(float value);
float moe_bf16_to_f32(uint16_t value);

#endif
