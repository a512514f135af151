// SPDX-License-Identifier: MIT
// Layers and types that variants are chosen for, without a device.
#ifndef VKMOE_TEST_CHOOSE_CASES_H
#define VKMOE_TEST_CHOOSE_CASES_H

#include "core/dtype.h"
#include "vulkan/choose.h"

static inline vkmoe_layer_desc layer_of(enum vkmoe_dtype in_type, enum vkmoe_dtype out_type)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = 7;
    layer.top_k = 3;
    layer.d_model = layer.d_out = 33;
    layer.d_ff = 20;
    layer.in_type = in_type;
    layer.out_type = out_type;
    return layer;
}

// Blocks of integers, and those of fp4: fp8 is no integer of 8 bits.
static inline bool for_a2(enum vkmoe_dtype weights)
{
    return (int) weights >= MOE_N_FLOAT_DTYPES && weights != VKMOE_FP8;
}

enum { N_X = MOE_N_FLOAT_DTYPES, N_W = MOE_N_DTYPES }; // types of x and of weights

#endif
