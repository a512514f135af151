// SPDX-License-Identifier: MIT
// What tests of one kernel variant share: a device under the validation layer and the oracle, and
// runs of a layer, on the device by that variant alone.
#ifndef VULKAN_FORCED_H
#define VULKAN_FORCED_H

#include "check.h"
#include "fixture.h"

#include "vulkan/bind.h"

enum { N_TOKENS = 45, WIDTH = 256, MAX_Y = N_TOKENS * WIDTH, TOP_K = 2 };

// The program's variant, at a precision that allows it.
struct forced {
    enum moe_vk_variant_id variant;
    enum vkmoe_precision precision;
    const char *kernel, *small_kernel; // of its expert matmuls, and of those over small tiles
};

extern const struct forced forced;
extern vkmoe_context *device, *oracle; // while forced_main runs

struct result {
    float y[MAX_Y]; // (N_TOKENS, d_out)
    int32_t ids[N_TOKENS * TOP_K];
    uint64_t columns; // device: rows of slots and tokens, times tiles that kernels multiplied
};

// x (N_TOKENS, d_model), rounded to x_type. Fails where a matmul does not go to the kernel.
void run(vkmoe_context *context, const struct layer_data *data, enum vkmoe_dtype x_type,
         const float *x, struct result *out);
// The first of them alone: their outputs are the first of `out`.
void run_some(vkmoe_context *context, const struct layer_data *data, enum vkmoe_dtype x_type,
              const float *x, uint32_t n_tokens, struct result *out);
// Of one expert: are the first rows of f32 the same bits in a small tile as they are in `all`?
void check_small_tile(const struct layer_data *data, const float *x, const struct result *all);

// Relative L2 error of n values; 0 where both are 0.
double error_of(const float *got, const float *want, size_t n);

// Opens both, and runs the tests; 77 with the reason where the device cannot compute the layer so.
int forced_main(const vkmoe_layer_desc *layer, int (*all_tests)(void));

#endif
