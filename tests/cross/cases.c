// SPDX-License-Identifier: MIT
#include "cases.h"

#include "check.h"

#include <stdio.h>
#include <stdlib.h>

static struct layer_case layer_case(const char *name, uint32_t n_experts, uint32_t top_k,
                                    uint32_t d_model, uint32_t d_ff, uint32_t d_out)
{
    struct layer_case c = {name, vkmoe_layer_desc_init()};
    c.layer.n_experts = n_experts;
    c.layer.top_k = top_k;
    c.layer.d_model = d_model;
    c.layer.d_ff = d_ff;
    c.layer.d_out = d_out;
    c.layer.act = VKMOE_ACT_SILU;
    c.layer.gated = true;
    return c;
}

static void all_biases(vkmoe_layer_desc *layer)
{
    layer->router_bias = layer->selection_bias = true;
    layer->gate_bias = layer->up_bias = layer->down_bias = true;
}

static void types(vkmoe_layer_desc *layer, enum vkmoe_dtype in, enum vkmoe_dtype out)
{
    layer->in_type = in;
    layer->out_type = out;
}

static void shared(vkmoe_layer_desc *layer, uint32_t d_shared_ff, enum vkmoe_shared_gate gate)
{
    layer->d_shared_ff = d_shared_ff;
    layer->shared_gate = gate;
}

static void select_then_softmax(vkmoe_layer_desc *layer)
{
    layer->rank = VKMOE_RANK_LOGIT;
    layer->gate_source = VKMOE_GATE_SOFTMAX_SELECTED;
}

static void sigmoid_router(vkmoe_layer_desc *layer)
{
    layer->score = VKMOE_SCORE_SIGMOID;
    layer->selection_bias = true;
    layer->norm = VKMOE_NORM_SUM_PLUS_EPS;
    layer->norm_eps = 1e-20f;
    layer->routed_scale = 2.5f;
}

static void ungated(vkmoe_layer_desc *layer, enum vkmoe_act act, enum vkmoe_act act_out)
{
    layer->gated = false;
    layer->act = act;
    layer->act_out = act_out;
}

uint32_t list_cases(struct layer_case out[MAX_CASES])
{
    struct layer_case *c = out;
    *c++ = layer_case("all sizes 1", 1, 1, 1, 1, 1);
    *c++ = layer_case("classifier", 8, 2, 64, 32, 10);
    *c = layer_case("biases, shared with gate", 7, 3, 33, 20, 5);
    all_biases(&c->layer);
    shared(&c++->layer, 13, VKMOE_SHARED_SIGMOID);
    *c = layer_case("f16, relu", 4, 2, 48, 40, 48);
    types(&c->layer, VKMOE_F16, VKMOE_F16);
    ungated(&c++->layer, VKMOE_ACT_RELU, VKMOE_ACT_NONE);
    *c = layer_case("bf16, relu2, plain shared", 16, 4, 40, 24, 70);
    types(&c->layer, VKMOE_BF16, VKMOE_BF16);
    ungated(&c->layer, VKMOE_ACT_RELU2, VKMOE_ACT_NONE);
    shared(&c++->layer, 50, VKMOE_SHARED_PLAIN);
    *c = layer_case("f16 in, bf16 out, gelu", 5, 5, 17, 15, 16);
    types(&c->layer, VKMOE_F16, VKMOE_BF16);
    c++->layer.act = VKMOE_ACT_GELU_TANH;
    *c = layer_case("dense, sigmoid router", 12, 12, 30, 18, 30);
    sigmoid_router(&c++->layer);
    *c = layer_case("many experts, select then softmax", 60, 6, 48, 24, 48);
    select_then_softmax(&c++->layer);
    *c = layer_case("1024 experts", 1024, 8, 16, 3, 4);
    sigmoid_router(&c++->layer);
    *c = layer_case("top 64 of 100", 100, 64, 20, 5, 7);
    c->layer.norm = VKMOE_NORM_MAX_SUM_EPS;
    c++->layer.norm_eps = 0.5f;
    *c = layer_case("gelu with erf, tanh out", 6, 2, 24, 31, 17);
    ungated(&c++->layer, VKMOE_ACT_GELU_ERF, VKMOE_ACT_TANH);
    *c = layer_case("sigmoid, sigmoid out, constants", 6, 2, 24, 31, 33);
    ungated(&c->layer, VKMOE_ACT_SIGMOID, VKMOE_ACT_SIGMOID);
    shared(&c->layer, 9, VKMOE_SHARED_PLAIN);
    c->layer.c_routed = 0.75f;
    c->layer.c_shared = -0.5f;
    c++->layer.out_scale = 3.0f;
    *c = layer_case("tanh, silu out", 3, 2, 100, 7, 1);
    ungated(&c->layer, VKMOE_ACT_TANH, VKMOE_ACT_SILU);
    c++->layer.act_alpha = 1.702f;
    *c = layer_case("no activation", 9, 1, 257, 20, 40);
    ungated(&c++->layer, VKMOE_ACT_NONE, VKMOE_ACT_NONE);
    *c = layer_case("wide", 4, 2, 520, 130, 130);
    all_biases(&c->layer);
    shared(&c++->layer, 70, VKMOE_SHARED_SIGMOID);
    return (uint32_t) (c - out);
}

static void scale(const void *array, size_t n)
{
    float *v = (float *) array;
    for (size_t i = 0; v && i < n; i++)
        v[i] *= 0.25f;
}

void case_weights(struct layer_data *data, const vkmoe_layer_desc *layer, uint32_t seed)
{
    layer_data_init(data, layer, seed);
    const size_t n_in = (size_t) layer->d_ff * layer->d_model;
    scale(data->router.weight.data, (size_t) layer->n_experts * layer->d_model);
    scale(data->router.selection_bias, layer->n_experts);
    for (uint32_t e = 0; e < layer->n_experts; e++) {
        scale(data->experts[e].gate.data, n_in);
        scale(data->experts[e].up.data, n_in);
        scale(data->experts[e].down.data, (size_t) layer->d_out * layer->d_ff);
    }
}

static void spoil_matrix(const vkmoe_tensor *tensor, uint32_t n_rows, uint32_t width)
{
    float *w = (float *) tensor->data;
    for (uint32_t i = 0; w && i < width; i++) {
        float first = w[i];
        w[i] = n_rows > 1 ? w[width + i] : 2 * first;
        if (n_rows > 1)
            w[width + i] = first;
    }
}

void spoil_weights(struct layer_data *data)
{
    const vkmoe_layer_desc *layer = &data->layer;
    for (uint32_t e = 0; e < layer->n_experts; e++) {
        spoil_matrix(&data->experts[e].gate, layer->d_ff, layer->d_model);
        spoil_matrix(&data->experts[e].up, layer->d_ff, layer->d_model);
        spoil_matrix(&data->experts[e].down, layer->d_out, layer->d_ff);
    }
}

static void *poisoned(size_t size)
{
    void *memory = malloc(size + 1); // 0 tokens are legal
    if (!memory)
        abort();
    return memset(memory, 0xff, size + 1);
}

void outputs_init(struct outputs *out, const vkmoe_layer_desc *layer, enum vkmoe_dtype x_type,
                  uint32_t n_tokens)
{
    const size_t size = x_type == VKMOE_F32 ? 4 : 2;
    const size_t n_slots = (size_t) n_tokens * layer->top_k;
    *out = (struct outputs){
        .n_tokens = n_tokens,
        .top_k = layer->top_k,
        .d_out = layer->d_out,
        .n_experts = layer->n_experts,
        .x_type = x_type,
        .element_size = size,
        .y = poisoned((size_t) n_tokens * layer->d_out * size),
        .gates = poisoned(n_slots * sizeof(float)),
        .scores = poisoned((size_t) n_tokens * layer->n_experts * sizeof(float)),
        .ids = poisoned(n_slots * sizeof(int32_t)),
    };
}

void outputs_finish(struct outputs *out)
{
    free(out->y);
    free(out->gates);
    free(out->scores);
    free(out->ids);
}

void run_rows(const struct stack *stack, const vkmoe_layer_desc *layer, const float *x,
              uint32_t first, struct outputs *out)
{
    enum { X_PAD = 5, Y_PAD = 3 };
    const size_t n = out->n_tokens, size = out->element_size, y_row = out->d_out * size;
    const size_t x_stride = (layer->d_model + X_PAD) * size, y_stride = y_row + Y_PAD * size;
    char *padded_x = poisoned(n * x_stride), *padded_y = poisoned(n * y_stride);
    const unsigned char *guard = poisoned(Y_PAD * size);
    for (size_t r = 0; r < n; r++)
        check_ok(vkmoe_dtype_convert(out->x_type, x + (first + r) * layer->d_model, layer->d_model,
                                     padded_x + r * x_stride));

    vkmoe_io io = vkmoe_io_init();
    io.x = padded_x;
    io.x_stride = x_stride;
    io.y = padded_y;
    io.y_stride = y_stride;
    io.ids = out->ids;
    io.gates = out->gates;
    io.scores = out->scores;
    check_ok(vkmoe_run(stack->bind, out->n_tokens, &io));
    for (size_t r = 0; r < n; r++) {
        memcpy(out->y + r * y_row, padded_y + r * y_stride, y_row);
        assert_memory_equal(padded_y + r * y_stride + y_row, guard, Y_PAD * size);
    }
    free((void *) guard);
    free(padded_y);
    free(padded_x);
}

bool have_isa(const char *isa)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_context *context;
    desc.device = "cpu";
    desc.cpu_isa = isa;
    enum vkmoe_status status = vkmoe_context_create(&desc, &context);
    vkmoe_context_destroy(context);
    if (status == VKMOE_E_UNSUPPORTED)
        fprintf(stderr, "skip: %s\n", vkmoe_error_text());
    return status != VKMOE_E_UNSUPPORTED;
}
