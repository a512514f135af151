// SPDX-License-Identifier: MIT
// BACKWARD ops from FORWARD ops. A tensor's gradient begins with the first part that reaches it and
// grows by others; since ops are taken in reverse, it is complete when the op that made the tensor
// has its turn.
#ifndef MOE_TRAIN_GRADIENT_H
#define MOE_TRAIN_GRADIENT_H

#include "train/train.h"

// What is known of one tensor of FORWARD.
struct moe_gradient_place {
    bool needed;      // a parameter depends on its gradient, or is it
    bool begun;       // a part has been written
    uint32_t grad;    // MOE_NET_NONE: no part yet
    uint32_t slots;   // parts of slots, to be added up for each row; MOE_NET_NONE: none
    uint32_t per_row; // slots of a row
    uint32_t again;   // the value, computed again; the tensor itself where it is kept
};

struct moe_gradient {
    struct moe_train *train;
    struct moe_emit emit; // BACKWARD
    struct moe_gradient_place *places; // (n)
    uint32_t n;
};

// Does a gradient of the tensor make sense and serve anything?
bool moe_gradient_needs(const struct moe_gradient *gradient, uint32_t tensor);
// The value of a FORWARD tensor: kept, or made again by the ops that made it.
uint32_t moe_gradient_saved(struct moe_gradient *gradient, uint32_t tensor);
// A place for gradients of n slots for each row of the tensor, which are added up.
struct moe_train_target moe_gradient_slots(struct moe_gradient *gradient, uint32_t tensor,
                                           uint32_t n);

// gradient_ops.c: adds the backward ops of one op. dy: the gradient of its result; of SELECT of
// its gates.
void moe_gradient_op(struct moe_gradient *gradient, const struct moe_net_op *op, uint32_t dy);

#endif
