// SPDX-License-Identifier: MIT
// From a description to a net: forward ops of every kind of layer, loss, gradients, optimiser.
//
//   layers.c, moe.c, router.c, combine.c   FORWARD, and EVAL, which is the same without noise
//   loss.c, gradient.c, gradient_ops.c     BACKWARD
//   step.c                                 STEP
//   train.c                                ROUND
//   init.c                                 first values of parameters
#ifndef MOE_TRAIN_TRAIN_H
#define MOE_TRAIN_TRAIN_H

#include "core/layer.h"
#include "core/net.h"
#include "train/emit.h"

#include <vkmoe/train.h>

// A checked description: every desc is full, d_out and max_examples are filled in.
struct moe_train_spec {
    vkmoe_net_desc desc;     // desc.layers is not used
    vkmoe_net_layer *layers; // (n_layers); `layer` points into `moe`
    vkmoe_layer_desc *moe;   // (n_layers)
};

// What a parameter begins as.
enum moe_train_init {
    MOE_TRAIN_UNIFORM, // U(-1, 1) / sqrt(fan_in)
    MOE_TRAIN_NORMAL,  // N(0, 1) * 0.1
    MOE_TRAIN_FILL,    // `fill`
};

struct moe_train_param {
    uint32_t value;                  // PARAM, or the STATE that is a selection bias
    uint32_t rounded;                // copy that products read; MOE_NET_NONE: value itself
    uint32_t grad, moment1, moment2; // MOE_NET_NONE: it has none
    enum moe_train_init init;
    uint32_t fan_in;
    float fill;
    bool decays; // by the net's own decay
};

// Who served the rows of a moe layer, in EVAL.
struct moe_train_routing {
    uint32_t ids;   // of (row, k); MOE_NET_NONE: k itself
    uint32_t gates; // likewise; MOE_NET_NONE: a mean, or no moe layer
    uint32_t top_k;
};

// What the auxiliary losses of a moe layer are made of, in FORWARD.
struct moe_train_aux {
    uint32_t p, starts, logits;
    uint32_t top_k;
    float load_balance, z_loss;
};

// A selection bias that is balanced after each step.
struct moe_train_balance {
    uint32_t bias, starts, counts;
    float rate;
};

struct moe_train_constant {
    uint32_t tensor;
    const float *data; // (n), owned by the net
    uint64_t n;
};

// Ends of FORWARD or EVAL.
struct moe_train_ends {
    uint32_t y;
    uint32_t f, gates, top_k; // slots of the last layer, for VKMOE_LOSS_MIXTURE
};

struct moe_train {
    const vkmoe_host *host; // borrowed
    struct moe_net *net; // owned
    struct moe_train_param *params;
    uint32_t n_params;
    struct moe_train_routing *routing; // (n_layers)
    uint32_t n_layers;
    struct moe_train_aux *aux;         // (n_aux), one for each layer at most
    uint32_t n_aux;
    struct moe_train_balance *balances; // likewise
    uint32_t n_balances;
    struct moe_train_constant *constants;
    uint32_t n_constants;
    uint32_t *transient; // FORWARD values that BACKWARD computes again
    uint32_t n_transient;
    uint32_t n_streams; // of random numbers

    // Tensors; MOE_NET_NONE where the net has none.
    uint32_t x, token_ids, offsets, labels, targets, class_weights;
    uint32_t eval_y, eval_loss;
    uint32_t batch_loss, step_loss; // of the last BACKWARD; of all since the last STEP
    uint32_t guard;                 // not finite: the last STEP changed nothing
    uint32_t y_width;
    bool pools;                     // examples are several tokens

    uint32_t dy, dx; // of a net made by moe_train_create_layer
};

// Width of a layer's output.
uint32_t moe_train_width(const vkmoe_net_layer *layer, uint32_t width);

// The net of a description, planned. Everything of spec is borrowed for the call.
enum vkmoe_status moe_train_create(const vkmoe_host *host, const struct moe_train_spec *spec,
                                   struct moe_train **out);

// The net of one layer: x and dy come in, dx can be read after FORWARD and BACKWARD. No optimiser.
enum vkmoe_status moe_train_create_layer(const vkmoe_host *host, const vkmoe_layer_desc *layer,
                                         uint32_t max_tokens, struct moe_train **out);
void moe_train_destroy(struct moe_train *train);

// NULL: not a layer that weighs its experts.
const struct moe_train_routing *moe_train_routing(const struct moe_train *train, uint32_t layer);

// First value of parameter i: as many elements as its tensor has. Same seed, same bits.
void moe_train_init_param(const struct moe_train *train, uint32_t i, uint64_t seed, float *data);

// ---- inside src/train ------------------------------------------------------------------------

// A net under construction.
struct moe_build {
    struct moe_train *train;
    const struct moe_train_spec *spec;
    struct moe_emit emit;       // FORWARD or EVAL
    uint32_t layer;             // that is built
    struct moe_emit_rows rows;  // of its x
    struct moe_train_ends ends;
    bool has_steps;             // of an optimiser
    bool one_layer;             // moe_train_create_layer
};

struct moe_train_target {
    uint32_t tensor;
    enum moe_net_write write;
};

struct moe_train_shape {
    uint32_t rows, width, fan_in;
};

// A parameter of the layer that is built: made by the first program, found again by the second.
__attribute__((format(printf, 5, 6)))
uint32_t moe_build_param(struct moe_build *build, struct moe_train_shape shape,
                         enum moe_train_init init, float fill, const char *name, ...);
// A matrix of U(-1, 1) / sqrt(width) that rows are multiplied by, in the net's weight type: what
// products read.
__attribute__((format(printf, 4, 5)))
uint32_t moe_build_weight(struct moe_build *build, uint32_t rows, uint32_t width, const char *name,
                          ...);
// Its selection bias, which is not trained.
uint32_t moe_build_selection_bias(struct moe_build *build, uint32_t n_experts);
// A tensor whose elements never change; *data: where they go, NULL when there is no memory.
uint32_t moe_build_constant(struct moe_build *build, uint32_t rows, uint32_t width, float **data);

// BACKWARD computes the value again instead of keeping it.
void moe_build_transient(struct moe_build *build, uint32_t tensor);
// The value can be read after the run.
void moe_build_keep(struct moe_build *build, uint32_t tensor);

static inline bool moe_build_training(const struct moe_build *build)
{
    return build->emit.program == MOE_NET_FORWARD;
}

// layers.c: x of the layer -> its y.
uint32_t moe_build_layer(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t x);
uint32_t moe_build_dropout(struct moe_build *build, uint32_t a, float rate); // a, where none is
uint32_t moe_build_noise(struct moe_build *build, uint32_t a, uint32_t z, float scale);

// moe.c. Slots: work of one expert on one row of the layer's input, or on one of its queries.
struct moe_build_slots {
    struct moe_emit_groups groups;
    uint32_t per_row;
    uint32_t gates;           // of slots; MOE_NET_NONE: there is no router
    uint32_t h;               // hidden rows of slots; MOE_NET_NONE: linear experts
    uint32_t down, down_bias; // what makes outputs of them
    uint32_t f;               // outputs of slots; MOE_NET_NONE: not made, as h gives y at once
};
uint32_t moe_build_moe(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t x);

// router.c: logits as selection sees them, noise included; P of load balancing.
uint32_t moe_build_logits(struct moe_build *build, const vkmoe_net_layer *layer, uint32_t x);
uint32_t moe_build_shares(struct moe_build *build, const vkmoe_layer_desc *layer, uint32_t logits);

// combine.c: the routed half of y.
uint32_t moe_build_combine(struct moe_build *build, const vkmoe_net_layer *layer,
                           struct moe_build_slots *slots);
// Must the outputs of slots be there?
bool moe_build_needs_outputs(const struct moe_build *build, const vkmoe_net_layer *layer);

// loss.c: the loss of `ends` by rows, added up in `sum`; where its gradients go.
struct moe_train_loss {
    struct moe_train_ends ends;
    uint32_t sum;
    uint32_t d_y;          // or
    uint32_t d_f, d_gates; // with VKMOE_LOSS_MIXTURE
};
void moe_build_loss(struct moe_build *build, enum moe_net_program program,
                    const struct moe_train_loss *loss);
// BACKWARD, after FORWARD has been built.
enum vkmoe_status moe_build_backward(struct moe_build *build);

void moe_build_step(struct moe_build *build);

// gradient.c
struct moe_gradient;
enum vkmoe_status moe_gradient_create(struct moe_train *train, bool of_x,
                                      struct moe_gradient **out);
void moe_gradient_destroy(struct moe_gradient *gradient);
// Where the next part of a tensor's gradient goes: SET at first, then ADD.
struct moe_train_target moe_gradient_target(struct moe_gradient *gradient, uint32_t tensor);
// Adds the backward op of every FORWARD op, the last one first.
void moe_gradient_run(struct moe_gradient *gradient);
// The gradient of a tensor so far; MOE_NET_NONE: none reaches it.
uint32_t moe_gradient_of(struct moe_gradient *gradient, uint32_t tensor);

#endif
