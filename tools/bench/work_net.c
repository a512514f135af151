// SPDX-License-Identifier: MIT
// Backward passes and steps: a network of the one layer, mean square error, AdamW.
#include "make.h"

#include "routing.h"

#include <stdlib.h>

#define ROUTER "layers.0.router.weight"
#define ROUTER_BIAS "layers.0.router.bias"
#define SELECTION_BIAS "layers.0.router.selection_bias"

enum vkmoe_status bench_net_create(const struct bench_case *what, vkmoe_context *context,
                                   vkmoe_net **out)
{
    vkmoe_net_layer layer = vkmoe_net_layer_init();
    const vkmoe_net_layer *layers[] = {&layer};
    vkmoe_net_desc desc = vkmoe_net_desc_init();
    layer.kind = VKMOE_NET_MOE;
    layer.layer = &what->layer;
    desc.layers = layers;
    desc.n_layers = 1;
    desc.d_in = what->layer.d_model;
    desc.max_tokens = what->key.n_tokens;
    desc.loss = VKMOE_LOSS_MSE;
    desc.optimiser = VKMOE_OPTIMISER_ADAMW;
    desc.weight_type = what->type;
    return vkmoe_net_create(context, &desc, out);
}

// Parameters are the net's own random ones, but for the router, which does what the case wants.
static enum vkmoe_status write_router(struct bench_work *work)
{
    enum vkmoe_status status;
    const vkmoe_layer_desc *layer = &work->what->layer;
    const size_t n = layer->n_experts, n_weight = n * layer->d_model;
    float *weight = NULL;
    CLI_TRY(cli_alloc(n + 2, layer->d_model, sizeof *weight, &weight));
    float *bias = weight + n_weight, *selection_bias = bias + layer->d_model;
    bench_router_fill(layer, work->material->noise, weight, bias, selection_bias);
    CLI_TRY(vkmoe_net_write(work->net, VKMOE_NET_VALUE, ROUTER, weight, n_weight));
    if (layer->router_bias)
        CLI_TRY(vkmoe_net_write(work->net, VKMOE_NET_VALUE, ROUTER_BIAS, bias, n));
    if (layer->selection_bias)
        CLI_TRY(vkmoe_net_write(work->net, VKMOE_NET_VALUE, SELECTION_BIAS, selection_bias, n));

fail:
    free(weight);
    return status;
}

static enum vkmoe_status make_batch(struct bench_work *work)
{
    enum vkmoe_status status;
    const struct bench_case *what = work->what;
    const vkmoe_layer_desc *layer = &what->layer;
    struct bench_material *material = work->material;
    const struct bench_draw draw = bench_case_draw(what, 0);
    const size_t n = what->key.n_tokens, n_targets = n * layer->d_out;
    CLI_TRY(cli_alloc(n, layer->d_model, sizeof *material->net_x, &material->net_x));
    CLI_TRY(cli_alloc(n, layer->d_out, sizeof *material->net_targets, &material->net_targets));
    CLI_TRY(cli_alloc(n, layer->top_k, sizeof *material->ids, &material->ids));
    bench_rows_fill(layer, material->noise, &draw, material->wanted, material->net_x);
    for (size_t i = 0; i < n_targets; i++)
        material->net_targets[i] = material->noise[(i + 104729) % BENCH_N_NOISE];
    work->batch = vkmoe_net_batch_init();
    work->batch.n_tokens = what->key.n_tokens;
    work->batch.x = material->net_x;
    work->batch.targets = material->net_targets;

fail:
    return status;
}

enum vkmoe_status bench_net_make(struct bench_work *work, double *first_call_ms)
{
    enum vkmoe_status status;
    uint64_t persistent, batch;
    CLI_TRY(bench_net_create(work->what, work->context, &work->net));
    CLI_TRY(vkmoe_net_init(work->net, work->what->key.seed));
    CLI_TRY(write_router(work));
    CLI_TRY(make_batch(work));
    CLI_TRY(vkmoe_net_get_size(work->net, &persistent, &batch));
    work->device_bytes = (double) (persistent + batch);
    double begin = cli_clock();
    CLI_TRY(vkmoe_net_eval(work->net, &work->batch, NULL, NULL));
    *first_call_ms = 1e3 * (cli_clock() - begin);
    CLI_TRY(vkmoe_net_routing(work->net, 0, work->material->ids, NULL));

fail:
    return status;
}
