// SPDX-License-Identifier: MIT
#include "fixture.h"

#include "check.h"

#include "core/layer.h"

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

// Places of floats, one behind the other; of no memory, only their number.
struct cursor {
    float *memory;
    size_t n;
};

// Even when it is not wanted: the same seed gives the others the same values.
static const float *take(struct cursor *next, bool wanted, size_t n)
{
    const float *here = wanted && next->memory ? next->memory + next->n : NULL;
    next->n += n;
    return here;
}

static vkmoe_expert_tensors take_expert(const struct moe_layer *layer, uint32_t expert,
                                        struct cursor *next)
{
    const vkmoe_layer_desc *desc = &layer->desc;
    const struct moe_expert_shape shape = moe_layer_expert_shape(layer, expert);
    const size_t n_in = (size_t) shape.d_ff * shape.d_in, n_out = (size_t) shape.d_ff * shape.d_out;
    vkmoe_expert_tensors tensors = {
        .gate = {.data = take(next, desc->gated, n_in), .type = VKMOE_F32},
        .up = {.data = take(next, true, n_in), .type = VKMOE_F32},
        .down = {.data = take(next, true, n_out), .type = VKMOE_F32},
        .gate_bias = take(next, desc->gate_bias, shape.d_ff),
        .up_bias = take(next, desc->up_bias, shape.d_ff),
        .down_bias = take(next, desc->down_bias, shape.d_out),
    };
    return tensors;
}

static void take_all(struct layer_data *data, struct cursor *next)
{
    const vkmoe_layer_desc *layer = &data->layer;
    const struct moe_layer shapes = {*layer};
    const size_t n = moe_layer_n_scored(layer), d = layer->d_model, d_latent = layer->d_latent;
    const bool has_gate = layer->shared_gate != VKMOE_SHARED_PLAIN;
    const bool two_gates = layer->shared_gate == VKMOE_SHARED_SOFTMAX2;
    data->router.weight.data = take(next, true, n * d);
    data->router.bias = take(next, layer->router_bias, n);
    data->router.selection_bias = take(next, layer->selection_bias, n);
    data->router.shared_gate = take(next, has_gate, two_gates ? 2 * d : d);
    for (uint32_t e = 0; e < layer->n_experts; e++)
        data->experts[e] = take_expert(&shapes, e, next);
    if (layer->d_shared_ff > 0)
        data->shared = take_expert(&shapes, VKMOE_SHARED_EXPERT, next);
    data->router.shared_gate_bias = take(next, layer->shared_gate_bias, 2);
    data->router.expert_scale = take(next, layer->expert_scale, n);
    data->router.prenorm_scale = take(next, layer->router_prenorm, d);
    for (uint32_t a = 0; a < moe_layer_n_adjugates(layer); a++)
        data->adjugates[a] = take_expert(&shapes, VKMOE_ADJUGATE_EXPERT + a, next);
    data->latent.down.data = take(next, d_latent > 0, d_latent * d);
    data->latent.up.data = take(next, d_latent > 0, d_latent * layer->d_out);
    data->latent.norm = take(next, layer->latent_norm, d_latent);
    data->desc.out_bias = take(next, layer->out_bias, layer->d_out);
}

// Rows of different experts, in no order.
static int32_t *make_table(const vkmoe_layer_desc *layer, uint32_t seed)
{
    const uint32_t n = moe_layer_n_scored(layer);
    int32_t *table = calloc((size_t) layer->n_token_ids * layer->top_k + 1, sizeof *table);
    if (!table)
        abort();
    for (uint32_t t = 0; t < layer->n_token_ids; t++) {
        float value;
        fill_random(&value, 1, seed + t);
        uint32_t first = (uint32_t) ((value + 1) / 2 * (float) n);
        for (uint32_t k = 0; k < layer->top_k; k++) // backwards on odd rows
            table[t * layer->top_k + k] =
                (int32_t) ((t % 2 ? first + n - k : first + k) % n);
    }
    return table;
}

void layer_data_init(struct layer_data *data, const vkmoe_layer_desc *layer, uint32_t seed)
{
    memset(data, 0, sizeof *data);
    data->layer = *layer;
    if (data->layer.d_out == 0)
        data->layer.d_out = layer->d_model;
    if (!data->layer.own_shared_types) {
        data->layer.shared_in_type = layer->in_type;
        data->layer.shared_out_type = layer->out_type;
    }
    layer = &data->layer;
    data->experts = calloc(layer->n_experts, sizeof *data->experts);
    data->adjugates = calloc(moe_layer_n_adjugates(layer) + 1, sizeof *data->adjugates);
    if (!data->experts || !data->adjugates)
        abort();
    struct cursor next = {0};
    take_all(data, &next);
    data->memory = malloc(next.n * sizeof *data->memory);
    if (!data->memory)
        abort();
    fill_random(data->memory, next.n, seed);

    data->desc = vkmoe_weights_desc_init();
    next = (struct cursor){data->memory, 0};
    take_all(data, &next);
    if (layer->select == VKMOE_SELECT_TABLE)
        data->router.table = data->table = make_table(layer, seed);
    data->desc.layer = &data->layer;
    data->desc.router = &data->router;
    data->desc.experts = data->experts;
    data->desc.shared = layer->d_shared_ff > 0 ? &data->shared : NULL;
    data->desc.adjugates = layer->adjugate_group > 0 ? data->adjugates : NULL;
    data->desc.latent = layer->d_latent > 0 ? &data->latent : NULL;
}

void layer_data_finish(struct layer_data *data)
{
    free(data->memory);
    free(data->experts);
    free(data->adjugates);
    free(data->table);
}

void fill_inputs(const vkmoe_layer_desc *layer, uint32_t n, uint32_t seed, float *router_x,
                 int32_t *token_ids)
{
    if (layer->router_input)
        fill_random(router_x, (size_t) n * layer->d_model, seed);
    for (uint32_t t = 0; t < n && layer->select == VKMOE_SELECT_TABLE; t++) {
        float value;
        fill_random(&value, 1, seed + 1 + t);
        token_ids[t] = (int32_t) ((value + 1) / 2 * (float) layer->n_token_ids);
    }
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
