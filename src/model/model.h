// SPDX-License-Identifier: MIT
// A model in memory: what its configuration says and where its tensors lie.
#ifndef MOE_MODEL_MODEL_H
#define MOE_MODEL_MODEL_H

#include <vkmoe/model.h>

#include "model/safetensors.h"

struct moe_model_layer {
    vkmoe_layer_desc desc;
    vkmoe_router_tensors router;
    vkmoe_expert_tensors *experts; // (n_experts)
    vkmoe_expert_tensors shared;   // when desc.d_shared_ff > 0
};

struct vkmoe_model {
    vkmoe_host host;
    const char *path; // borrowed while opening, for messages
    struct moe_safetensors file; // tensors stay mapped, weights point into it
    json_t *config;
    vkmoe_model_info info;
    const char **classes; // (n_classes), texts of `config`
    struct moe_model_layer *layers;
    // The input of the first layer is (x - in_offset) / in_range; NULL: it is x.
    float *in_offset, *in_range; // (n_features)
    void **copies;               // tensors that could not be used in place
    size_t n_copies;
};

// The one layer that a session with one_layer runs.
struct moe_session_layer {
    vkmoe_bind *bind;
    const vkmoe_layer_desc *desc; // the model's
    const vkmoe_host *host;       // the model's
};

// false: the session is of a whole model.
bool moe_session_get_layer(const vkmoe_session *session, struct moe_session_layer *out);

// model->config -> info, classes, layers[].desc.
enum vkmoe_status moe_model_read_config(vkmoe_model *model);

// model->file -> the tensors of every layer and of the input; every tensor must have its place.
enum vkmoe_status moe_model_read_tensors(vkmoe_model *model);

#endif
