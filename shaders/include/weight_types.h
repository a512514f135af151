// SPDX-License-Identifier: MIT
// How a row of packed weights is laid out on the device, read by C and by GLSL. A row is blocks,
// one behind the other, then the blocks' tails, padded with zeros to 16 bytes. A block is
//   head  uvec4 of the stored block as they are: a K type's scales (q4_K, q5_K: with d and dmin)
//   low   the low bits of the values' codes (or a float type's values)
//   high  the bits above them
// and a tail is what else a stored block has: d, d and dmin, an exponent, a scale.
//
// The values of a plane of `bits` a value are taken by fours, whose bits are in the four bytes of a
// 32-bit word; 8 / bits fours follow each other from the low bits of a word to its high ones.
#ifndef MOE_WEIGHT_TYPES_H
#define MOE_WEIGHT_TYPES_H

// X(type, enum vkmoe_dtype, values of a block, uvec4 of its head, bits a value of low and of high,
//   bytes of its tail)
#define MOE_WEIGHT_TYPES(X)                                                                        \
    X(F32, 0u, 4u, 0u, 32u, 0u, 0u)                                                                \
    X(F16, 1u, 8u, 0u, 16u, 0u, 0u)                                                                \
    X(BF16, 2u, 8u, 0u, 16u, 0u, 0u)                                                               \
    X(Q8_0, 3u, 32u, 0u, 8u, 0u, 2u)                                                               \
    X(Q4_0, 4u, 32u, 0u, 4u, 0u, 2u)                                                               \
    X(Q4_K, 5u, 256u, 1u, 4u, 0u, 0u)                                                              \
    X(Q5_K, 6u, 256u, 1u, 4u, 1u, 0u)                                                              \
    X(Q6_K, 7u, 256u, 1u, 4u, 2u, 2u)                                                              \
    X(Q2_K, 8u, 256u, 1u, 2u, 0u, 4u)                                                              \
    X(MXFP4, 9u, 32u, 0u, 4u, 0u, 1u)                                                              \
    X(FP8, 10u, 128u, 0u, 8u, 0u, 4u)

#endif
