// SPDX-License-Identifier: MIT
// Quantised types: what the bytes of a block mean, and the block that comes closest to given
// values. Blocks have any alignment; fields of more than a byte are little-endian.
//
// Decoding is exact: a scale times a code fits an f32, so that at most one subtraction or one
// multiplication rounds (q4_K, q5_K, q2_K, the types with a minimum; fp8 scales of 21 bits and
// more). A scale that is infinite or NaN has the values that IEEE arithmetic gives: 0 times
// infinity is NaN. Encoding takes the scales and codes of least squared error that a search finds.
// A block with a NaN or an infinity in it becomes NaN as a whole, as no code can say so for one
// value; values beyond what a type can hold become the largest it has.
#ifndef MOE_CORE_QUANT_H
#define MOE_CORE_QUANT_H

#include <vkmoe/vkmoe.h>

enum {
    MOE_MAX_BLOCK = 256,      // values of the largest block
    MOE_MAX_BLOCK_SIZE = 210, // its bytes
};

typedef void moe_block_decode_fn(const unsigned char *block, float *out);
typedef void moe_block_encode_fn(const float *values, unsigned char *block);

// X(name): the types that are computed on.
#define MOE_BLOCK_LIST(X)                                                                          \
    X(q8_0) X(q4_0) X(q4_K) X(q5_K) X(q6_K) X(q2_K) X(mxfp4) X(fp8)
// X(name): those that only files have.
#define MOE_FILE_BLOCK_LIST(X)                                                                     \
    X(q4_1) X(q5_0) X(q5_1) X(q3_K) X(iq4_nl) X(iq4_xs) X(nvfp4)

#define DECODER(name) moe_block_decode_fn moe_##name##_decode;
#define ENCODER(name) moe_block_encode_fn moe_##name##_encode;
MOE_BLOCK_LIST(DECODER)
MOE_BLOCK_LIST(ENCODER)
MOE_FILE_BLOCK_LIST(DECODER)
#undef DECODER
#undef ENCODER

// Blocks of other types that mean the same, value by value.
typedef void moe_block_repack_fn(const unsigned char *block, unsigned char *out);
moe_block_repack_fn moe_q5_0_to_q8_0, moe_iq4_nl_to_q8_0, moe_q3_K_to_q6_K;

// ---- types of files --------------------------------------------------------------------------

// A type that only files have: it is converted when it is read.
struct moe_block_format {
    const char *name;
    uint32_t ggml_type; // its number in GGUF files
    uint32_t values, bytes;
    moe_block_decode_fn *decode;
    enum vkmoe_dtype to;         // what its rows are converted to
    moe_block_repack_fn *repack; // exactly; NULL: to the closest values
};

// The formats of MOE_FILE_BLOCK_LIST; NULL: it is none of them.
const struct moe_block_format *moe_block_format_find(uint32_t ggml_type);
const struct moe_block_format *moe_block_format_named(const char *name);

// A row of n values, whole blocks, as format->to.
void moe_block_format_convert(const struct moe_block_format *format, const void *src, size_t n,
                              void *dst);

// And as f32.
void moe_block_format_decode(const struct moe_block_format *format, const void *src, size_t n,
                             float *dst);

// ---- small floats ----------------------------------------------------------------------------

// E4M3 without infinities: bias 7, 0x7f and 0xff are NaN. Encoding rounds to nearest even and to
// the largest, 448, what is beyond it; NaN becomes 0x7f with its sign.
float moe_e4m3_to_f32(uint8_t code);
uint8_t moe_f32_to_e4m3(float value);
float moe_e5m2_to_f32(uint8_t code); // the upper half of an f16
float moe_e8m0_to_f32(uint8_t code); // 2^(code - 127); 255 is NaN
float moe_e2m1_to_f32(uint8_t code); // 4 bits; code 8 is +0 too

#endif
