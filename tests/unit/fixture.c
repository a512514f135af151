// SPDX-License-Identifier: MIT
#include "fixture.h"

#include "check.h"

#include <stdlib.h>

void fill_random(float *out, size_t n, uint32_t seed)
{
    uint32_t state = seed * 2654435761u + 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        out[i] = (float) (int32_t) (state & 0xffffff00u) * 0x1p-31f;
    }
}

vkmoe_layer_desc full_layer(void)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = 5;
    layer.top_k = 2;
    layer.d_model = 6;
    layer.d_ff = 7;
    layer.d_out = 3;
    layer.d_shared_ff = 4;
    layer.shared_gate = VKMOE_SHARED_SIGMOID;
    layer.router_bias = layer.selection_bias = true;
    layer.gated = layer.gate_bias = layer.up_bias = layer.down_bias = true;
    layer.act = VKMOE_ACT_SILU;
    return layer;
}

static const float *take(float **next, bool wanted, size_t n)
{
    const float *here = wanted ? *next : NULL;
    *next += n; // even when it is not wanted: one size for all layers
    return here;
}

static vkmoe_expert_tensors take_expert(const vkmoe_layer_desc *layer, uint32_t d_ff, float **next)
{
    size_t n_in = (size_t) d_ff * layer->d_model, n_out = (size_t) d_ff * layer->d_out;
    vkmoe_expert_tensors expert = {
        .gate = {take(next, layer->gated, n_in), VKMOE_F32},
        .up = {take(next, true, n_in), VKMOE_F32},
        .down = {take(next, true, n_out), VKMOE_F32},
        .gate_bias = take(next, layer->gate_bias, d_ff),
        .up_bias = take(next, layer->up_bias, d_ff),
        .down_bias = take(next, layer->down_bias, layer->d_out),
    };
    return expert;
}

void layer_data_init(struct layer_data *data, const vkmoe_layer_desc *layer, uint32_t seed)
{
    memset(data, 0, sizeof *data);
    data->layer = *layer;
    if (data->layer.d_out == 0)
        data->layer.d_out = layer->d_model;
    layer = &data->layer;

    size_t widths = (size_t) layer->d_model * 2 + layer->d_out + 3;
    size_t n = layer->n_experts * (layer->d_model + 2 + layer->d_ff * widths + layer->d_out) +
               layer->d_model + layer->d_shared_ff * widths + layer->d_out;
    float *next = data->memory = malloc(n * sizeof *next);
    data->experts = calloc(layer->n_experts, sizeof *data->experts);
    if (!data->memory || !data->experts)
        abort();
    fill_random(data->memory, n, seed);

    data->router.weight.data = take(&next, true, (size_t) layer->n_experts * layer->d_model);
    data->router.bias = take(&next, layer->router_bias, layer->n_experts);
    data->router.selection_bias = take(&next, layer->selection_bias, layer->n_experts);
    data->router.shared_gate =
        take(&next, layer->shared_gate == VKMOE_SHARED_SIGMOID, layer->d_model);
    for (uint32_t e = 0; e < layer->n_experts; e++)
        data->experts[e] = take_expert(layer, layer->d_ff, &next);
    if (layer->d_shared_ff > 0)
        data->shared = take_expert(layer, layer->d_shared_ff, &next);

    data->desc = vkmoe_weights_desc_init();
    data->desc.layer = &data->layer;
    data->desc.router = &data->router;
    data->desc.experts = data->experts;
    data->desc.shared = layer->d_shared_ff > 0 ? &data->shared : NULL;
}

void layer_data_finish(struct layer_data *data)
{
    free(data->memory);
    free(data->experts);
}

vkmoe_context *context_on(const char *device, const vkmoe_host *host)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_context *context;
    desc.device = device;
    desc.host = host;
    check_ok(vkmoe_context_create(&desc, &context));
    return context;
}

enum vkmoe_status stack_create(struct stack *stack, const vkmoe_context_desc *context,
                               const struct layer_data *data, uint32_t max_tokens, bool scores)
{
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.max_tokens = max_tokens;
    plan.scores = scores;
    return stack_create_plan(stack, context, data, &plan);
}

enum vkmoe_status stack_create_plan(struct stack *stack, const vkmoe_context_desc *context,
                                    const struct layer_data *data, const vkmoe_plan_desc *desc)
{
    memset(stack, 0, sizeof *stack);
    vkmoe_plan_desc plan = *desc;
    plan.layer = &data->layer;
    enum vkmoe_status status = vkmoe_context_create(context, &stack->context);
    if (status == VKMOE_OK)
        status = vkmoe_weights_create(stack->context, &data->desc, &stack->weights);
    if (status == VKMOE_OK)
        status = vkmoe_plan_create(stack->context, &plan, &stack->plan);
    if (status == VKMOE_OK)
        status = vkmoe_bind_create(stack->plan, stack->weights, NULL, &stack->bind);
    return status;
}

void stack_destroy(struct stack *stack)
{
    vkmoe_bind_destroy(stack->bind);
    vkmoe_plan_destroy(stack->plan);
    vkmoe_weights_destroy(stack->weights);
    vkmoe_context_destroy(stack->context);
    memset(stack, 0, sizeof *stack);
}
