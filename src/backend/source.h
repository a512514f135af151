// SPDX-License-Identifier: MIT
// Where a back end takes the experts of one weights object from: the caller's tensors, blocks that
// it packed before, or a function that reads one expert at a time.
#ifndef MOE_BACKEND_SOURCE_H
#define MOE_BACKEND_SOURCE_H

#include "core/layer.h"

// The checked fields of vkmoe_weights_desc.
struct moe_weights_source {
    const vkmoe_router_tensors *router;
    const vkmoe_expert_tensors *experts, *shared, *adjugates;
    const void *const *packed_experts, *const *packed_adjugates;
    const void *packed_shared;
    const vkmoe_latent_tensors *latent;
    const float *out_bias;
    enum vkmoe_status (*load_expert)(void *load_user, uint32_t expert, vkmoe_expert_tensors *out);
    void *load_user;
    const struct vkmoe_vk_buffer *vk_buffer; // Vulkan: where they go; or NULL
};

// One expert: a packed block, or tensors where that is NULL.
struct moe_source_expert {
    const void *packed;
    vkmoe_expert_tensors tensors;
};

// expert: an index, VKMOE_SHARED_EXPERT or VKMOE_ADJUGATE_EXPERT + i, each asked for once. What is
// given lasts until the next call. Tensors that were read just now are checked here.
enum vkmoe_status moe_source_get(const struct moe_weights_source *source,
                                 const struct moe_layer *layer, uint32_t expert,
                                 struct moe_source_expert *out);

#endif
