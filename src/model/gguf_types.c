// SPDX-License-Identifier: MIT
// What there is in GGUF files: types of tensors and of values, with their sizes.
#include "model/gguf_part.h"

#include "base/bits.h"

#include <stdio.h>

// No file is larger, so that products of checked dimensions stay far from 64 bits.
static const uint64_t max_dim = (uint64_t) 1 << 48;

static const struct moe_gguf_type types[] = {
    [MOE_GGML_F32] = {"f32", MOE_GGUF_WEIGHTS, 1, 4},
    [MOE_GGML_F16] = {"f16", MOE_GGUF_WEIGHTS, 1, 2},
    [MOE_GGML_Q4_0] = {"q4_0", MOE_GGUF_WEIGHTS, 32, 18},
    [MOE_GGML_Q4_1] = {"q4_1", MOE_GGUF_WEIGHTS, 32, 20},
    [4] = {"q4_2", MOE_GGUF_REMOVED, 0, 0},
    [5] = {"q4_3", MOE_GGUF_REMOVED, 0, 0},
    [MOE_GGML_Q5_0] = {"q5_0", MOE_GGUF_WEIGHTS, 32, 22},
    [MOE_GGML_Q5_1] = {"q5_1", MOE_GGUF_WEIGHTS, 32, 24},
    [MOE_GGML_Q8_0] = {"q8_0", MOE_GGUF_WEIGHTS, 32, 34},
    [9] = {"q8_1", MOE_GGUF_UNREAD, 32, 36},
    [MOE_GGML_Q2_K] = {"q2_K", MOE_GGUF_WEIGHTS, 256, 84},
    [MOE_GGML_Q3_K] = {"q3_K", MOE_GGUF_WEIGHTS, 256, 110},
    [MOE_GGML_Q4_K] = {"q4_K", MOE_GGUF_WEIGHTS, 256, 144},
    [MOE_GGML_Q5_K] = {"q5_K", MOE_GGUF_WEIGHTS, 256, 176},
    [MOE_GGML_Q6_K] = {"q6_K", MOE_GGUF_WEIGHTS, 256, 210},
    [15] = {"q8_K", MOE_GGUF_UNREAD, 256, 292},
    [16] = {"iq2_xxs", MOE_GGUF_UNREAD, 256, 66},
    [17] = {"iq2_xs", MOE_GGUF_UNREAD, 256, 74},
    [18] = {"iq3_xxs", MOE_GGUF_UNREAD, 256, 98},
    [19] = {"iq1_s", MOE_GGUF_UNREAD, 256, 50},
    [MOE_GGML_IQ4_NL] = {"iq4_nl", MOE_GGUF_WEIGHTS, 32, 18},
    [21] = {"iq3_s", MOE_GGUF_UNREAD, 256, 110},
    [22] = {"iq2_s", MOE_GGUF_UNREAD, 256, 82},
    [MOE_GGML_IQ4_XS] = {"iq4_xs", MOE_GGUF_WEIGHTS, 256, 136},
    [24] = {"i8", MOE_GGUF_INTEGERS, 1, 1},
    [25] = {"i16", MOE_GGUF_INTEGERS, 1, 2},
    [MOE_GGML_I32] = {"i32", MOE_GGUF_INTEGERS, 1, 4},
    [27] = {"i64", MOE_GGUF_INTEGERS, 1, 8},
    [28] = {"f64", MOE_GGUF_UNREAD, 1, 8},
    [29] = {"iq1_m", MOE_GGUF_UNREAD, 256, 56},
    [MOE_GGML_BF16] = {"bf16", MOE_GGUF_WEIGHTS, 1, 2},
    [31] = {"q4_0_4_4", MOE_GGUF_REMOVED, 0, 0},
    [32] = {"q4_0_4_8", MOE_GGUF_REMOVED, 0, 0},
    [33] = {"q4_0_8_8", MOE_GGUF_REMOVED, 0, 0},
    [34] = {"tq1_0", MOE_GGUF_UNREAD, 256, 54},
    [35] = {"tq2_0", MOE_GGUF_UNREAD, 256, 66},
    [36] = {"iq4_nl_4_4", MOE_GGUF_REMOVED, 0, 0},
    [37] = {"iq4_nl_4_8", MOE_GGUF_REMOVED, 0, 0},
    [38] = {"iq4_nl_8_8", MOE_GGUF_REMOVED, 0, 0},
    [MOE_GGML_MXFP4] = {"mxfp4", MOE_GGUF_WEIGHTS, 32, 17},
    [MOE_GGML_NVFP4] = {"nvfp4", MOE_GGUF_WEIGHTS, 64, 36},
    [41] = {"q1_0", MOE_GGUF_UNREAD, 128, 18},
    [42] = {"q2_0", MOE_GGUF_UNREAD, 64, 18},
};

static const struct moe_gguf_value_kind value_kinds[] = {
    [MOE_GGUF_U8] = {"u8", 1},     [MOE_GGUF_I8] = {"i8", 1},
    [MOE_GGUF_U16] = {"u16", 2},   [MOE_GGUF_I16] = {"i16", 2},
    [MOE_GGUF_U32] = {"u32", 4},   [MOE_GGUF_I32] = {"i32", 4},
    [MOE_GGUF_F32] = {"f32", 4},   [MOE_GGUF_BOOL] = {"bool", 1},
    [MOE_GGUF_STRING] = {"string", 0}, [MOE_GGUF_ARRAY] = {"array", 0},
    [MOE_GGUF_U64] = {"u64", 8},   [MOE_GGUF_I64] = {"i64", 8},
    [MOE_GGUF_F64] = {"f64", 8},
};

const struct moe_gguf_type *moe_gguf_type_of(uint32_t id)
{
    return id < MOE_COUNT(types) ? &types[id] : NULL;
}

const struct moe_gguf_value_kind *moe_gguf_value_kind(uint32_t type)
{
    return type < MOE_COUNT(value_kinds) ? &value_kinds[type] : NULL;
}

bool moe_gguf_measure(struct moe_gguf_tensor *tensor)
{
    const struct moe_gguf_type *type = tensor->type;
    uint64_t n = 1;
    for (uint32_t i = 0; i < MOE_GGUF_MAX_DIMS; i++) {
        if (i >= tensor->n_dims)
            tensor->dims[i] = 1;
        if (tensor->dims[i] > max_dim || !moe_mul(n, tensor->dims[i], &n))
            return false;
    }
    tensor->n_elements = n;
    return moe_mul(n / type->block_elements, type->block_size, &tensor->size);
}

const char *moe_gguf_describe(const struct moe_gguf_tensor *tensor, char text[192])
{
    int n = snprintf(text, 192, "%s (", tensor->type->name);
    for (uint32_t i = 0; i < tensor->n_dims; i++)
        n += snprintf(text + n, (size_t) (192 - n), "%s%llu", i ? ", " : "",
                      (unsigned long long) tensor->dims[i]);
    snprintf(text + n, (size_t) (192 - n), ")");
    return text;
}

uint64_t moe_gguf_number(const unsigned char *bytes, uint32_t size)
{
    uint64_t number = 0;
    for (uint32_t i = size; i > 0; i--)
        number = number << 8 | bytes[i - 1];
    return number;
}
