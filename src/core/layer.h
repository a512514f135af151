// SPDX-License-Identifier: MIT
// A layer description, checked and completed. Everything below the API works on this one.
#ifndef MOE_CORE_LAYER_H
#define MOE_CORE_LAYER_H

#include <vkmoe/vkmoe.h>

enum {
    MOE_MAX_EXPERTS = 1024, // identity experts among them
    MOE_MAX_WIDTH = 1 << 24, // of d_model, d_ff, d_out, d_shared_ff
};

struct moe_layer {
    // Checked; d_out, shared_in_type and shared_out_type filled in; the optional arrays are NULL.
    vkmoe_layer_desc desc;
};

// Copies a caller's description (of any struct_size), checks it and fills in defaults.
enum vkmoe_status moe_layer_init(struct moe_layer *out, const vkmoe_layer_desc *desc);

// Can a plan of this operation compute the layer? VKMOE_E_UNSUPPORTED names the field.
enum vkmoe_status moe_layer_check_operation(const vkmoe_layer_desc *desc,
                                            enum vkmoe_operation operation);

// Is the gradient of all that the layer does computed? VKMOE_E_UNSUPPORTED names the field.
enum vkmoe_status moe_layer_check_gradients(const vkmoe_layer_desc *desc);

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
enum vkmoe_status moe_layer_check_around(const struct moe_layer *layer,
                                         const vkmoe_latent_tensors *latent,
                                         const float *out_bias);

// Is there such a tensor, in memory or to be read?
static inline bool moe_tensor_given(const vkmoe_tensor *tensor)
{
    return tensor->data || tensor->read;
}

// One row of a tensor in memory as f32: row `row` of (n_rows, width). Any alignment.
void moe_tensor_row(const vkmoe_tensor *tensor, uint64_t row, uint32_t width, float *out);

// *rows: n rows of the tensor from `first` on, one behind the other: its data, or `room`, which
// they are read to.
enum vkmoe_status moe_tensor_rows(const vkmoe_tensor *tensor, uint64_t first, uint64_t n,
                                  uint32_t width, void *room, const char **rows);

// Bytes of n rows of a type or, where that is more, of f32: room for a matrix of either.
uint64_t moe_rows_room(enum vkmoe_dtype type, uint64_t n, uint32_t width);

// Experts and identity experts: what the router scores.
static inline uint32_t moe_layer_n_scored(const vkmoe_layer_desc *desc)
{
    return desc->n_experts + desc->n_zero;
}

// Slots that an expert takes of n_tokens tokens, which are capacity_rows or fewer; no more than
// tokens, as no expert has two slots of one. Computed in f64 as written in vkmoe_layer_desc.
uint32_t moe_layer_capacity(const vkmoe_layer_desc *desc, uint32_t n_tokens);

static inline uint32_t moe_layer_n_adjugates(const vkmoe_layer_desc *desc)
{
    return desc->adjugate_group == 0
               ? 0
               : (desc->n_experts + desc->adjugate_group - 1) / desc->adjugate_group;
}

static inline bool moe_expert_is_adjugate(uint32_t expert)
{
    return expert >= VKMOE_ADJUGATE_EXPERT && expert != VKMOE_SHARED_EXPERT;
}

static inline bool moe_layer_is_external(const vkmoe_layer_desc *desc)
{
    return desc->expert_kind == VKMOE_EXPERT_EXTERNAL;
}

// Routed experts that have weights here.
static inline uint32_t moe_layer_n_packed(const vkmoe_layer_desc *desc)
{
    return moe_layer_is_external(desc) ? 0 : desc->n_experts;
}

// Width of what the routed experts read, and of what they write.
static inline uint32_t moe_layer_routed_in(const vkmoe_layer_desc *desc)
{
    return desc->d_latent ? desc->d_latent : desc->d_model;
}

static inline uint32_t moe_layer_routed_out(const vkmoe_layer_desc *desc)
{
    return desc->d_latent ? desc->d_latent : desc->d_out;
}

// Has any expert a matrix of a type of blocks?
bool moe_layer_has_blocks(const vkmoe_layer_desc *desc);

// Shape and stored types of one expert: an index, VKMOE_SHARED_EXPERT or VKMOE_ADJUGATE_EXPERT + i.
struct moe_expert_shape {
    uint32_t d_in, d_ff, d_out;
    enum vkmoe_dtype in_type, out_type;
};
static inline struct moe_expert_shape moe_layer_expert_shape(const struct moe_layer *layer,
                                                             uint32_t expert)
{
    const vkmoe_layer_desc *d = &layer->desc;
    if (expert == VKMOE_SHARED_EXPERT)
        return (struct moe_expert_shape){d->d_model, d->d_shared_ff, d->d_out, d->shared_in_type,
                                         d->shared_out_type};
    return (struct moe_expert_shape){moe_layer_routed_in(d),
                                     moe_expert_is_adjugate(expert) ? d->d_adjugate : d->d_ff,
                                     moe_layer_routed_out(d), d->in_type, d->out_type};
}

static inline uint32_t moe_layer_d_ff(const struct moe_layer *layer, uint32_t expert)
{
    return moe_layer_expert_shape(layer, expert).d_ff;
}

#endif
