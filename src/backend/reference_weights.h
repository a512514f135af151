// SPDX-License-Identifier: MIT
// Weights of the oracle as a back end.
#ifndef MOE_BACKEND_REFERENCE_WEIGHTS_H
#define MOE_BACKEND_REFERENCE_WEIGHTS_H

#include "backend/backend.h"
#include "core/ref.h"

struct moe_reference_weights {
    struct moe_packed_weights base;
    struct moe_ref_weights ref; // everything in it points into `memory` or `tables`
    float *memory;
    struct moe_ref_expert *tables;
};

// Bytes of a packed expert: an index, VKMOE_SHARED_EXPERT or VKMOE_ADJUGATE_EXPERT + i.
uint64_t moe_reference_expert_size(const struct moe_layer *layer, uint32_t expert);

// Entries of struct moe_backend.
enum vkmoe_status moe_reference_layout(const struct moe_device *device,
                                       const struct moe_layer *layer, vkmoe_weights_layout *out);
enum vkmoe_status moe_reference_pack(const struct moe_device *device, const struct moe_layer *layer,
                                     uint32_t expert, const vkmoe_expert_tensors *tensors,
                                     void *dst);
enum vkmoe_status moe_reference_weights_create(struct moe_device *device,
                                               const struct moe_layer *layer,
                                               const struct moe_weights_source *source,
                                               struct moe_packed_weights **out);
void moe_reference_weights_destroy(struct moe_packed_weights *base);

#endif
