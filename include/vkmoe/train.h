// SPDX-License-Identifier: MIT
// vkmoe training: the gradients of a layer. The rules of vkmoe.h hold here too.
//
// The first piece: one call that runs a layer forward and backward on host memory. Only the device
// "reference" computes it so far, slowly and in f64.
//
//     vkmoe_backward_io out = vkmoe_backward_io_init();
//     out.dy = dy;
//     out.experts = expert_grads;                 // (n_experts), NULL where not wanted
//     vkmoe_backward(bind, n_tokens, &io, &out);  // io as for vkmoe_run
#ifndef VKMOE_TRAIN_H
#define VKMOE_TRAIN_H

#include <vkmoe/vkmoe.h>

#ifdef __cplusplus
extern "C" {
#endif

// Gradients of one expert's parameters: f32, row-major, shapes as in vkmoe_expert_tensors. NULL:
// not wanted.
typedef struct vkmoe_expert_grads {
    float *gate;       // (d_ff, d_model)
    float *up;         // (d_ff, d_model)
    float *down;       // (d_out, d_ff)
    float *gate_bias;  // (d_ff)
    float *up_bias;    // (d_ff)
    float *down_bias;  // (d_out)
} vkmoe_expert_grads;

// The router's, likewise. The selection bias has none: it decides who is selected, and no gradient
// flows through a decision.
typedef struct vkmoe_router_grads {
    float *weight;       // (n_experts, d_model)
    float *bias;         // (n_experts)
    float *shared_gate;  // (d_model)
} vkmoe_router_grads;

// Host memory of one backward pass, of a loss with gradient dy. Elements of dy and dx have the
// plan's x_type. Strides are bytes from row to row; 0 means rows follow each other.
typedef struct vkmoe_backward_io {
    size_t struct_size;
    const void *dy;    // (n_tokens, d_out) in, aligned to its elements
    size_t dy_stride;  // multiple of an element's size, at least a row
    void *dx;          // (n_tokens, d_model) out, aligned to its elements; or NULL
    size_t dx_stride;
    const vkmoe_router_grads *router;   // where gradients of parameters go; NULL: none wanted
    const vkmoe_expert_grads *experts;  // (n_experts)
    const vkmoe_expert_grads *shared;
    bool accumulate;   // gradients of parameters are added to what is there; dx never is
} vkmoe_backward_io;

static inline vkmoe_backward_io vkmoe_backward_io_init(void)
{
    vkmoe_backward_io io;
    memset(&io, 0, sizeof io);
    io.struct_size = sizeof io;
    return io;
}

// Runs the layer forward and backward on host memory and waits for the result: the gradients of
// sum(dy * y) by x and by the parameters, at the weights' stored values.
//   n_tokens  0..max_tokens; with 0 the gradients of parameters are 0
//   io        as for vkmoe_run, but that y may be NULL too; what is not NULL is written
//   out       no written memory may overlap with any other, in io and out together
//
// Selected experts are taken as constants. With one expert a token, whose gate weight is divided by
// itself (a norm with norm_eps 0) or is a softmax over the selected alone, the router's gradient is
// exactly 0. An expert without a token has gradients of exactly 0. A token with NaN has a dx of
// NaN, and so have the parameters that it uses.
//
// On failure the outputs hold no promise; a wrong argument leaves them as they are.
// VKMOE_E_UNSUPPORTED: this device does not compute gradients yet.  VKMOE_E_SHAPE: n_tokens above
// the plan's max_tokens.  VKMOE_E_ARGUMENT: NULL, misaligned, overlapping, a stride below a row, or
// a gradient of what the layer does not have.  VKMOE_E_MEMORY: the call allocates its work memory.
// Threads: as vkmoe_run, one at a time per bind.
VKMOE_API enum vkmoe_status vkmoe_backward(vkmoe_bind *bind, uint32_t n_tokens, const vkmoe_io *io,
                                           const vkmoe_backward_io *out);

#ifdef __cplusplus
}
#endif
#endif
