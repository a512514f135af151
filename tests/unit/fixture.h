// SPDX-License-Identifier: MIT
// A layer with random f32 weights, and the objects that run it.
#ifndef TESTS_UNIT_FIXTURE_H
#define TESTS_UNIT_FIXTURE_H

#include <vkmoe/vkmoe.h>

// Everything vkmoe_weights_desc points at. Owned; values in [-1, 1), the same for the same seed.
struct layer_data {
    vkmoe_layer_desc layer; // d_out filled in
    vkmoe_router_tensors router;
    vkmoe_expert_tensors *experts, *adjugates;
    vkmoe_expert_tensors shared;
    vkmoe_latent_tensors latent;
    vkmoe_weights_desc desc;
    float *memory;
    int32_t *table;
};

void layer_data_init(struct layer_data *data, const vkmoe_layer_desc *layer, uint32_t seed);
void layer_data_finish(struct layer_data *data);

// Inputs that only some layers read, for n tokens; of other layers they are not written.
//   router_x    (n, d_model)
//   token_ids   (n)
void fill_inputs(const vkmoe_layer_desc *layer, uint32_t n, uint32_t seed, float *router_x,
                 int32_t *token_ids);

// A layer with anything in any field, small, and valid. `n_types`: as many of the first types.
vkmoe_layer_desc random_layer(uint32_t seed, uint32_t n_types);

// A gated layer with every bias, 5 experts of which 2, and a shared expert with a sigmoid gate.
vkmoe_layer_desc full_layer(void);

// n values in [-1, 1).
void fill_random(float *out, size_t n, uint32_t seed);

// A context on a device; the test fails if there is none. host may be NULL.
vkmoe_context *context_on(const char *device, const vkmoe_host *host);

// The objects of one layer on one device.
struct stack {
    vkmoe_context *context;
    vkmoe_weights *weights;
    vkmoe_plan *plan;
    vkmoe_bind *bind;
};

// Creates all four, up to the first failure; what there is then is NULL or has to be destroyed.
enum vkmoe_status stack_create(struct stack *stack, const vkmoe_context_desc *context,
                               const struct layer_data *data, uint32_t max_tokens, bool scores);
// The same with any plan; its layer is that of `data`.
enum vkmoe_status stack_create_plan(struct stack *stack, const vkmoe_context_desc *context,
                                    const struct layer_data *data, const vkmoe_plan_desc *plan);
void stack_destroy(struct stack *stack);

#endif
