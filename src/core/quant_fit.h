// SPDX-License-Identifier: MIT
// The scales, minima and codes of a block of 256 values that are of least squared error.
#ifndef MOE_CORE_QUANT_FIT_H
#define MOE_CORE_QUANT_FIT_H

#include "core/quant.h"

struct moe_k_shape {
    uint32_t n_parts; // 8 or 16, of as many values each
    int most_code;    // codes are 0..most_code
    int most_scale;   // and so are scales and minima of parts
};

// Value i of part p is d scales[p] codes[i] - m minima[p].
struct moe_k_block {
    uint16_t d, m; // f16
    int16_t scales[16];
    uint8_t minima[16];
    uint8_t codes[256];
};

void moe_k_fit_minimum(const struct moe_k_shape *shape, const float *values,
                       struct moe_k_block *out);

// q6_K: value i of 16 parts p is d scales[p] (codes[i] - 32), scales -128..127, codes 0..63.
void moe_k_fit_signed(const float *values, struct moe_k_block *out);

#endif
