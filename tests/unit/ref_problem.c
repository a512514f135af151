// SPDX-License-Identifier: MIT
#include "ref_problem.h"

#include "check.h"

#include "base/host.h"

#include <stdlib.h>

static void add_place(struct problem *p, const char *name, const float *weights, uint32_t n)
{
    if (!weights)
        return;
    assert_true(p->n_places < MAX_PLACES);
    p->places[p->n_places++] = (struct place){name, (float *) weights, n};
    p->n_grads += n;
}

static struct moe_ref_expert add_expert(struct problem *p, const vkmoe_expert_tensors *from,
                                        uint32_t d_ff)
{
    const vkmoe_layer_desc *layer = &p->data.layer;
    add_place(p, "gate", from->gate.data, d_ff * layer->d_model);
    add_place(p, "up", from->up.data, d_ff * layer->d_model);
    add_place(p, "down", from->down.data, d_ff * layer->d_out);
    add_place(p, "gate_bias", from->gate_bias, d_ff);
    add_place(p, "up_bias", from->up_bias, d_ff);
    add_place(p, "down_bias", from->down_bias, layer->d_out);
    return (struct moe_ref_expert){
        (float *) from->gate.data, (float *) from->up.data,   (float *) from->down.data,
        (float *) from->gate_bias, (float *) from->up_bias, (float *) from->down_bias};
}

void problem_init(struct problem *p, const vkmoe_layer_desc *desc, uint32_t seed)
{
    memset(p, 0, sizeof *p);
    layer_data_init(&p->data, desc, seed);
    const vkmoe_layer_desc *layer = &p->data.layer;
    const vkmoe_router_tensors *router = &p->data.router;
    struct moe_ref_weights *w = &p->weights;
    check_ok(moe_layer_init(&w->layer, layer));
    moe_graph_forward(&p->graph, &w->layer, true);
    p->places[p->n_places++] = (struct place){"x", NULL, N_TOKENS * layer->d_model};
    p->n_grads = N_TOKENS * layer->d_model;
    add_place(p, "router", router->weight.data, layer->n_experts * layer->d_model);
    add_place(p, "router_bias", router->bias, layer->n_experts);
    add_place(p, "shared_gate", router->shared_gate, layer->d_model);
    w->router = (float *) router->weight.data;
    w->router_bias = (float *) router->bias;
    w->selection_bias = (float *) router->selection_bias;
    w->shared_gate = (float *) router->shared_gate;
    w->experts = calloc(layer->n_experts, sizeof *w->experts);
    assert_non_null(w->experts);
    for (uint32_t e = 0; e < layer->n_experts; e++)
        w->experts[e] = add_expert(p, &p->data.experts[e], layer->d_ff);
    if (layer->d_shared_ff > 0)
        w->shared = add_expert(p, &p->data.shared, layer->d_shared_ff);
    assert_true(p->n_grads <= MAX_GRADS);

    check_ok(moe_ref_run_create(moe_host_default(), &p->graph, N_TOKENS, &p->run));
    check_ok(moe_ref_grads_create(moe_host_default(), &w->layer, N_TOKENS, &p->grads));
    assert_int_equal(p->grads->n_params, p->n_grads - N_TOKENS * layer->d_model);
    float random[N_TOKENS * 16];
    fill_random(random, N_TOKENS * 16, seed + 1000);
    for (uint32_t i = 0; i < N_TOKENS * layer->d_model; i++)
        p->run->values[MOE_VALUE_X][i] = (double) random[i];
    for (uint32_t i = 0; i < N_TOKENS * layer->d_out; i++)
        p->dy[i] = 2 * (double) random[N_TOKENS * 8 + i];
}

void problem_finish(struct problem *p)
{
    moe_ref_grads_destroy(p->grads);
    moe_ref_run_destroy(p->run);
    free(p->weights.experts);
    layer_data_finish(&p->data);
}

void problem_run(struct problem *p)
{
    moe_ref_run(p->run, &p->graph, &p->weights, N_TOKENS);
}

void problem_backward(struct problem *p)
{
    for (uint32_t i = 0; i < p->n_grads; i++)
        p->grads->memory[i] = NAN; // every one is written
    moe_ref_backward(p->run, &p->graph, &p->weights, N_TOKENS, p->dy, p->grads);
}

vkmoe_layer_desc small_layer(uint32_t i)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = 4;
    layer.top_k = 2;
    layer.d_model = 3;
    layer.d_ff = 4;
    layer.d_out = 2;
    layer.d_shared_ff = i % 3 == 0 ? 0 : 3;
    layer.shared_gate = i % 3 == 1 ? VKMOE_SHARED_SIGMOID : VKMOE_SHARED_PLAIN;
    layer.router_bias = i % 2 == 0;
    layer.selection_bias = i % 5 == 0;
    layer.act = VKMOE_ACT_SILU;
    layer.act_alpha = i % 4 == 3 ? 1.702f : 1;
    layer.gated = i % 7 < 4;
    layer.gate_bias = layer.gated && i % 5 != 1;
    layer.up_bias = i % 5 != 2;
    layer.down_bias = i % 5 != 3;
    layer.routed_scale = i % 2 == 0 ? 1 : 2.5f;
    layer.c_routed = i % 3 == 2 ? 0.75f : 1;
    layer.c_shared = i % 7 == 1 ? -1.5f : 1;
    layer.out_scale = i % 5 == 4 ? 1.25f : 1;
    return layer;
}
