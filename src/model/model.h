// SPDX-License-Identifier: MIT
// A model in memory: what its configuration says and where its tensors lie.
#ifndef MOE_MODEL_MODEL_H
#define MOE_MODEL_MODEL_H

#include <vkmoe/model.h>

#include "model/description.h"
#include "model/safetensors.h"

// A moe layer as plans know it.
struct moe_model_layer {
    bool planned; // a plan computes this layer, but for `residual`; only then there are tensors
                  // here
    vkmoe_layer_desc desc;
    vkmoe_router_tensors router;
    vkmoe_expert_tensors *experts; // (n_experts)
    vkmoe_expert_tensors shared;   // when desc.d_shared_ff > 0
};

struct vkmoe_model {
    vkmoe_host host;
    const char *path; // borrowed while opening, for messages
    struct moe_safetensors file;
    struct moe_description d;
    struct moe_tensor_spec *specs; // (n_tensors)
    vkmoe_tensor *tensors;         // (n_tensors), aligned to their elements
    uint32_t n_tensors;
    struct moe_model_layer *layers; // (d.info.n_layers)
    struct moe_input_stats stats;
    void **copies;               // of tensors
    size_t n_copies;
};

// Does the layer have inputs or tensors that sessions do not pass on? vkmoe_checkpoint_load does.
bool moe_layer_needs_more(const vkmoe_layer_desc *desc);

// The one layer that a session with one_layer runs.
struct moe_session_layer {
    vkmoe_bind *bind;
    const vkmoe_layer_desc *desc; // the model's
    const vkmoe_host *host;       // the model's
};

// false: the session is of a whole model, of one expert, or its layer is no plan's.
bool moe_session_get_layer(const vkmoe_session *session, struct moe_session_layer *out);

// The layer with nothing but this expert, as vkmoe_session_desc.experts says. Its pointers are the
// layer's own and `zeros`, which the caller moe_free's after use, also on failure.
// VKMOE_E_ARGUMENT: no such expert.
enum vkmoe_status moe_layer_one_expert(const vkmoe_host *host, const struct moe_model_layer *layer,
                                       enum vkmoe_experts experts, uint32_t expert,
                                       struct moe_model_layer *out, float **zeros);

// model->file -> tensors, layers and stats; every tensor must have its place.
enum vkmoe_status moe_model_read_tensors(vkmoe_model *model);

// The same for a layer of a network: `out` points at `one`. VKMOE_E_UNSUPPORTED: experts that are
// stacked or have queries.
enum vkmoe_status moe_net_one_expert(const vkmoe_net_layer *layer, const vkmoe_session_desc *desc,
                                     vkmoe_layer_desc *one, vkmoe_net_layer *out);

// What such a layer has of a model's tensor, by its name.
enum moe_use {
    MOE_USE_WHOLE,
    MOE_USE_SLICE, // of the expert
    MOE_USE_ZEROS, // a row of the router, whatever is there
    MOE_USE_NONE,
};

enum moe_use moe_tensor_use(const char *name, const vkmoe_session_desc *desc);

// Writes tensors into a network of what a session with this (full) desc runs.
enum vkmoe_status moe_model_load_session(const vkmoe_model *model, const vkmoe_session_desc *desc,
                                         vkmoe_net *net);

#endif
