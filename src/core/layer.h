// SPDX-License-Identifier: MIT
// A layer description, checked and completed. Everything below the API works on this one.
#ifndef MOE_CORE_LAYER_H
#define MOE_CORE_LAYER_H

#include <vkmoe/vkmoe.h>

enum {
    MOE_MAX_EXPERTS = 1024,
    MOE_MAX_WIDTH = 1 << 24, // of d_model, d_ff, d_out, d_shared_ff
};

struct moe_layer {
    vkmoe_layer_desc desc; // checked; d_out filled in; the optional arrays are NULL
};

// Copies a caller's description (of any struct_size), checks it and fills in defaults.
enum vkmoe_status moe_layer_init(struct moe_layer *out, const vkmoe_layer_desc *desc);

// Do weights made for `a` fit a plan made for `b`? Compares what packed blocks depend on.
bool moe_layer_same_weights(const struct moe_layer *a, const struct moe_layer *b);

// Stable text of an enum value for messages and JSON; "unknown" when out of range.
const char *moe_act_name(enum vkmoe_act act);
const char *moe_score_name(enum vkmoe_score score);

static inline bool moe_layer_has_shared(const struct moe_layer *layer)
{
    return layer->desc.d_shared_ff > 0;
}

// Checks that tensors are there exactly where the layer has them, and of a type it can take.
// `expert` is only for the text.
enum vkmoe_status moe_layer_check_expert(const struct moe_layer *layer, uint32_t expert,
                                         const vkmoe_expert_tensors *tensors);
enum vkmoe_status moe_layer_check_router(const struct moe_layer *layer,
                                         const vkmoe_router_tensors *tensors);

// One row of a tensor as f32: row `row` of (n_rows, width). The data may have any alignment.
void moe_tensor_row(const vkmoe_tensor *tensor, uint64_t row, uint32_t width, float *out);

// Hidden width of an expert: d_ff, or d_shared_ff for VKMOE_SHARED_EXPERT.
static inline uint32_t moe_layer_d_ff(const struct moe_layer *layer, uint32_t expert)
{
    return expert == VKMOE_SHARED_EXPERT ? layer->desc.d_shared_ff : layer->desc.d_ff;
}

#endif
