// SPDX-License-Identifier: MIT
// Types that only files have, and what their rows become.
#include "core/quant.h"

#include "base/bits.h"
#include "core/dtype.h"

#include <assert.h>
#include <string.h>

static const struct moe_block_format formats[] = {
    {"q4_1", 3, 32, 20, moe_q4_1_decode, VKMOE_Q8_0, NULL},
    {"q5_0", 6, 32, 22, moe_q5_0_decode, VKMOE_Q8_0, moe_q5_0_to_q8_0},
    {"q5_1", 7, 32, 24, moe_q5_1_decode, VKMOE_Q8_0, NULL},
    {"q3_K", 11, 256, 110, moe_q3_K_decode, VKMOE_Q6_K, moe_q3_K_to_q6_K},
    {"iq4_nl", 20, 32, 18, moe_iq4_nl_decode, VKMOE_Q8_0, moe_iq4_nl_to_q8_0},
    {"iq4_xs", 23, 256, 136, moe_iq4_xs_decode, VKMOE_Q8_0, NULL},
    {"nvfp4", 40, 64, 36, moe_nvfp4_decode, VKMOE_Q8_0, NULL},
};

const struct moe_block_format *moe_block_format_find(uint32_t ggml_type)
{
    for (uint32_t i = 0; i < MOE_COUNT(formats); i++) {
        if (formats[i].ggml_type == ggml_type)
            return &formats[i];
    }
    return NULL;
}

const struct moe_block_format *moe_block_format_named(const char *name)
{
    for (uint32_t i = 0; i < MOE_COUNT(formats); i++) {
        if (strcmp(formats[i].name, name) == 0)
            return &formats[i];
    }
    return NULL;
}

void moe_block_format_decode(const struct moe_block_format *format, const void *src, size_t n,
                             float *dst)
{
    const unsigned char *block = src;
    assert(n % format->values == 0);
    for (size_t i = 0; i < n; i += format->values, block += format->bytes)
        format->decode(block, dst + i);
}

void moe_block_format_convert(const struct moe_block_format *format, const void *src, size_t n,
                              void *dst)
{
    const size_t size = (size_t) moe_dtype_size(format->to, format->values);
    const unsigned char *block = src;
    unsigned char *out = dst;
    float values[MOE_MAX_BLOCK];
    assert(n % format->values == 0);
    for (size_t i = 0; i < n; i += format->values, block += format->bytes, out += size) {
        if (format->repack) {
            format->repack(block, out);
            continue;
        }
        format->decode(block, values);
        moe_dtype_encode(format->to, values, format->values, out);
    }
}
