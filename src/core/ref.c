// SPDX-License-Identifier: MIT
#include "core/ref.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "core/ref_route.h"

#include <math.h>

enum vkmoe_status moe_ref_run_create(const vkmoe_host *host, const struct moe_graph *graph,
                                     uint32_t max_tokens, struct moe_ref_run **out)
{
    enum vkmoe_status status;
    struct moe_ref_run *run = NULL;
    *out = NULL;
    TRY(moe_try_alloc(host, sizeof *run, "the oracle's run", &run));
    run->host = host;
    for (uint32_t i = 0; i < MOE_N_VALUES; i++) {
        const struct moe_value *value = &graph->values[i];
        if (!value->used || value->width == 0)
            continue;
        uint64_t n_rows = max_tokens, n;
        if (value->rows == MOE_ROWS_SLOT)
            n_rows *= graph->layer.desc.top_k; // 32 bits by 11
        if (moe_mul(n_rows, value->width, &n))
            run->values[i] = moe_alloc_array(host, n, sizeof(double));
        if (!run->values[i]) {
            status = moe_fail(VKMOE_E_MEMORY, "the oracle's %s: %llu rows of %u f64", value->name,
                              (unsigned long long) n_rows, value->width);
            goto fail;
        }
    }
    *out = run;
    return VKMOE_OK;
fail:
    moe_ref_run_destroy(run);
    return status;
}

void moe_ref_run_destroy(struct moe_ref_run *run)
{
    if (!run)
        return;
    for (uint32_t i = 0; i < MOE_N_VALUES; i++)
        moe_free(run->host, run->values[i]);
    moe_free(run->host, run);
}

double moe_ref_act(const vkmoe_layer_desc *layer, enum vkmoe_act act, double v)
{
    const double sqrt_half = 0.70710678118654752440, sqrt_2_over_pi = 0.79788456080286535588;
    double positive = v < 0 ? 0 : v; // NaN stays NaN
    switch (act) {
    case VKMOE_ACT_NONE:
        return v;
    case VKMOE_ACT_SILU:
        return v * moe_ref_sigmoid((double) layer->act_alpha * v);
    case VKMOE_ACT_GELU_ERF:
        return v / 2 * (1 + erf(v * sqrt_half));
    case VKMOE_ACT_GELU_TANH:
        return v / 2 * (1 + tanh(sqrt_2_over_pi * (v + 0.044715 * v * v * v)));
    case VKMOE_ACT_RELU:
        return positive;
    case VKMOE_ACT_RELU2:
        return positive * positive;
    case VKMOE_ACT_SIGMOID:
        return moe_ref_sigmoid(v);
    case VKMOE_ACT_TANH:
        return tanh(v);
    case VKMOE_ACT_SITU:
        break; // refused by moe_layer_init
    }
    return NAN;
}

double moe_ref_dot(const float *w, const float *bias, uint64_t row, uint32_t width,
                   const double *x)
{
    double sum = bias ? (double) bias[row] : 0;
    for (uint32_t i = 0; i < width; i++)
        sum += (double) w[row * width + i] * x[i];
    return sum;
}

static void run_route(struct moe_ref_run *run, const struct moe_graph *graph,
                      const struct moe_ref_weights *weights, uint32_t n_tokens)
{
    const vkmoe_layer_desc *layer = &graph->layer.desc;
    double logits[MOE_MAX_EXPERTS], unasked[MOE_MAX_EXPERTS];
    double *scores = run->values[MOE_VALUE_SCORES];
    double *shared_gate = run->values[MOE_VALUE_SHARED_GATE];
    for (uint64_t t = 0; t < n_tokens; t++) {
        const double *x = run->values[MOE_VALUE_X] + t * layer->d_model;
        for (uint32_t e = 0; e < layer->n_experts; e++)
            logits[e] = moe_ref_dot(weights->router, weights->router_bias, e, layer->d_model, x);
        struct moe_ref_routing routing = {
            .ids = run->values[MOE_VALUE_IDS] + t * layer->top_k,
            .gates = run->values[MOE_VALUE_GATES] + t * layer->top_k,
            .ranking = scores ? scores + t * layer->n_experts : unasked,
        };
        moe_ref_route(layer, logits, weights->selection_bias, &routing);
        if (shared_gate)
            shared_gate[t] =
                moe_ref_sigmoid(moe_ref_dot(weights->shared_gate, NULL, 0, layer->d_model, x));
    }
}

static const struct moe_ref_expert *slot_expert(const struct moe_ref_run *run,
                                                const struct moe_ref_weights *weights,
                                                enum moe_bank bank, uint64_t slot)
{
    if (bank == MOE_BANK_SHARED)
        return &weights->shared;
    return &weights->experts[(uint32_t) run->values[MOE_VALUE_IDS][slot]];
}

static void run_expert_in(struct moe_ref_run *run, const struct moe_graph *graph,
                          const struct moe_ref_weights *weights, enum moe_bank bank,
                          uint32_t n_tokens)
{
    const vkmoe_layer_desc *layer = &graph->layer.desc;
    bool shared = bank == MOE_BANK_SHARED;
    uint32_t per_token = shared ? 1 : layer->top_k;
    uint32_t d_ff = shared ? layer->d_shared_ff : layer->d_ff;
    double *h = run->values[shared ? MOE_VALUE_H_SHARED : MOE_VALUE_H];
    for (uint64_t slot = 0; slot < (uint64_t) n_tokens * per_token; slot++) {
        const struct moe_ref_expert *expert = slot_expert(run, weights, bank, slot);
        const double *x = run->values[MOE_VALUE_X] + slot / per_token * layer->d_model;
        for (uint32_t i = 0; i < d_ff; i++) {
            double up = moe_ref_dot(expert->up, expert->up_bias, i, layer->d_model, x);
            double gate = 0;
            if (layer->gated)
                gate = moe_ref_dot(expert->gate, expert->gate_bias, i, layer->d_model, x);
            h[slot * d_ff + i] = layer->gated ? moe_ref_act(layer, layer->act, gate) * up
                                              : moe_ref_act(layer, layer->act, up);
        }
    }
}

static void run_expert_out(struct moe_ref_run *run, const struct moe_graph *graph,
                           const struct moe_ref_weights *weights, enum moe_bank bank,
                           uint32_t n_tokens)
{
    const vkmoe_layer_desc *layer = &graph->layer.desc;
    bool shared = bank == MOE_BANK_SHARED;
    uint32_t per_token = shared ? 1 : layer->top_k;
    uint32_t d_ff = shared ? layer->d_shared_ff : layer->d_ff;
    const double *h = run->values[shared ? MOE_VALUE_H_SHARED : MOE_VALUE_H];
    double *f = run->values[shared ? MOE_VALUE_F_SHARED : MOE_VALUE_F];
    for (uint64_t slot = 0; slot < (uint64_t) n_tokens * per_token; slot++) {
        const struct moe_ref_expert *expert = slot_expert(run, weights, bank, slot);
        for (uint32_t o = 0; o < layer->d_out; o++) {
            double v = moe_ref_dot(expert->down, expert->down_bias, o, d_ff, h + slot * d_ff);
            f[slot * layer->d_out + o] = moe_ref_act(layer, layer->act_out, v);
        }
    }
}

static void run_combine(struct moe_ref_run *run, const struct moe_graph *graph, uint32_t n_tokens)
{
    const vkmoe_layer_desc *layer = &graph->layer.desc;
    const double *gates = run->values[MOE_VALUE_GATES], *f = run->values[MOE_VALUE_F];
    const double *f_shared = run->values[MOE_VALUE_F_SHARED];
    const double *shared_gate = run->values[MOE_VALUE_SHARED_GATE];
    double c_routed = (double) layer->c_routed, c_shared = (double) layer->c_shared;
    uint32_t d_out = layer->d_out, top_k = layer->top_k;
    for (uint64_t t = 0; t < n_tokens; t++) {
        for (uint32_t o = 0; o < d_out; o++) {
            double y = 0;
            for (uint64_t slot = t * top_k; slot < (t + 1) * top_k; slot++)
                y += gates[slot] * f[slot * d_out + o];
            y *= c_routed;
            if (f_shared)
                y += c_shared * (shared_gate ? shared_gate[t] : 1) * f_shared[t * d_out + o];
            run->values[MOE_VALUE_Y][t * d_out + o] = (double) layer->out_scale * y;
        }
    }
}

void moe_ref_run(struct moe_ref_run *run, const struct moe_graph *graph,
                 const struct moe_ref_weights *weights, uint32_t n_tokens)
{
    for (uint32_t i = 0; i < graph->n_ops; i++) {
        const struct moe_op *op = &graph->ops[i];
        switch (op->kind) {
        case MOE_OP_ROUTE:
            run_route(run, graph, weights, n_tokens);
            break;
        case MOE_OP_CAPACITY:
        case MOE_OP_LATENT_IN:
        case MOE_OP_LATENT_OUT:
            break;
        case MOE_OP_GROUP:
            break; // the order of work has no meaning here
        case MOE_OP_EXPERT_IN:
            run_expert_in(run, graph, weights, op->bank, n_tokens);
            break;
        case MOE_OP_EXPERT_OUT:
            run_expert_out(run, graph, weights, op->bank, n_tokens);
            break;
        case MOE_OP_COMBINE:
            run_combine(run, graph, n_tokens);
            break;
        }
    }
}
