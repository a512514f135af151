// SPDX-License-Identifier: MIT
#include "core/ref.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "core/ref_route.h"
#include "core/ref_rows.h"

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
        if (value->rows == MOE_ROWS_ONE)
            n_rows = 1;
        if (moe_mul(n_rows, value->width, &n))
            run->values[i] = moe_alloc_array(host, n, sizeof(double));
        if (!run->values[i]) {
            status = moe_fail(VKMOE_E_MEMORY, "the oracle's %s: %llu rows of %u f64", value->name,
                              (unsigned long long) n_rows, value->width);
            goto fail;
        }
    }
    const uint64_t widest = moe_max(graph->layer.desc.d_model, graph->layer.desc.d_latent);
    TRY(moe_try_alloc(host, widest * sizeof(double), "the oracle's work row", &run->normed));
    TRY(moe_try_alloc(host, widest * sizeof(double), "the oracle's work row", &run->weighted));
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
    moe_free(run->host, run->normed);
    moe_free(run->host, run->weighted);
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
        return (double) layer->situ_beta * tanh(v / (double) layer->situ_beta) * moe_ref_sigmoid(v);
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

// ---- router -----------------------------------------------------------------------------------

// h = x, or x / sqrt(mean x^2 + eps) * scale * factor; scale NULL: 1.
static void rms_norm(const double *x, uint32_t n, float eps, const float *scale, float factor,
                     double *h)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    double by = sqrt(sum / n + (double) eps);
    for (uint32_t i = 0; i < n; i++)
        h[i] = x[i] / by * (scale ? (double) scale[i] : 1) * (double) factor;
}

// factor (n): of the shared expert, or of the routed sum and of the shared expert.
static void gate_shared(const vkmoe_layer_desc *layer, const struct moe_ref_weights *weights,
                        const double *x, double *factor)
{
    const uint32_t n = layer->shared_gate == VKMOE_SHARED_SOFTMAX2 ? 2 : 1;
    for (uint32_t i = 0; i < n; i++)
        factor[i] = moe_ref_dot(weights->shared_gate, weights->shared_gate_bias, i, layer->d_model,
                                x);
    moe_ref_score(n == 2 ? VKMOE_SCORE_SOFTMAX : VKMOE_SCORE_SIGMOID, factor, n, factor);
}

static void run_route(struct moe_ref_run *run, const struct moe_graph *graph,
                      const struct moe_ref_weights *weights, uint32_t n_tokens)
{
    const vkmoe_layer_desc *layer = &graph->layer.desc;
    const uint32_t n = moe_layer_n_scored(layer), d = layer->d_model, top_k = layer->top_k;
    double logits[MOE_MAX_EXPERTS], unasked[MOE_MAX_EXPERTS];
    double *scores = run->values[MOE_VALUE_SCORES];
    double *shared_gate = run->values[MOE_VALUE_SHARED_GATE];
    for (uint64_t t = 0; t < n_tokens; t++) {
        const double *x = run->values[MOE_VALUE_X] + t * d;
        const double *h = layer->router_input ? run->values[MOE_VALUE_ROUTER_X] + t * d : x;
        if (layer->router_prenorm) {
            rms_norm(h, d, layer->prenorm_eps, weights->prenorm_scale, layer->prenorm_const,
                     run->normed);
            h = run->normed;
        }
        for (uint32_t e = 0; e < n; e++)
            logits[e] = moe_ref_dot(weights->router, weights->router_bias, e, d, h);
        const struct moe_ref_routing routing = {
            .ids = run->values[MOE_VALUE_IDS] + t * top_k,
            .gates = run->values[MOE_VALUE_GATES] + t * top_k,
            .ranking = scores ? scores + t * n : unasked,
        };
        struct moe_ref_rule rule = {weights->selection_bias, weights->expert_scale, NULL};
        if (layer->select == VKMOE_SELECT_TABLE)
            rule.table_row =
                weights->table + (size_t) run->values[MOE_VALUE_TOKEN_IDS][t] * top_k;
        moe_ref_route(layer, logits, &rule, &routing);
        if (shared_gate)
            gate_shared(layer, weights, x,
                        shared_gate + t * graph->values[MOE_VALUE_SHARED_GATE].width);
    }
}

// ---- experts ----------------------------------------------------------------------------------

// The expert that runs for a slot; NULL: none, it is unused or an identity expert's.
static const struct moe_ref_expert *slot_expert(const struct moe_ref_run *run,
                                                const struct moe_ref_weights *weights,
                                                enum moe_bank bank, uint64_t slot)
{
    const vkmoe_layer_desc *layer = &weights->layer.desc;
    if (bank == MOE_BANK_SHARED)
        return &weights->shared;
    double id = run->values[MOE_VALUE_IDS][slot];
    if (id < 0 || id >= layer->n_experts)
        return NULL;
    return bank == MOE_BANK_ADJUGATE ? &weights->adjugates[(uint32_t) id / layer->adjugate_group]
                                     : &weights->experts[(uint32_t) id];
}

static double at_most(double v, double limit)
{
    return v > limit ? limit : v; // NaN stays NaN
}

double moe_ref_hidden(const vkmoe_layer_desc *layer, enum moe_bank bank, double gate, double up)
{
    const double limit =
        (double) (bank == MOE_BANK_SHARED ? layer->limit_shared : layer->limit);
    const double lambda = (double) layer->situ_lambda;
    if (!layer->gated)
        return moe_ref_act(layer, layer->act, up);
    if (layer->clamp != VKMOE_CLAMP_NONE)
        up = -at_most(-at_most(up, limit), limit);
    if (layer->act == VKMOE_ACT_SITU && lambda > 0)
        up = lambda * tanh(up / lambda);
    if (layer->clamp == VKMOE_CLAMP_BEFORE_ACT)
        gate = at_most(gate, limit);
    double activated = moe_ref_act(layer, layer->act, gate);
    if (layer->clamp == VKMOE_CLAMP_AFTER_ACT)
        activated = at_most(activated, limit);
    return activated * (up + (double) layer->up_add);
}

static void run_expert_in(struct moe_ref_run *run, const struct moe_graph *graph,
                          const struct moe_ref_weights *weights, enum moe_bank bank,
                          uint32_t n_tokens)
{
    const vkmoe_layer_desc *layer = &graph->layer.desc;
    const struct moe_bank_values v = moe_graph_bank(graph, bank);
    const uint32_t per_token = bank == MOE_BANK_SHARED ? 1 : layer->top_k;
    const uint32_t d_in = graph->values[v.in].width, d_ff = graph->values[v.h].width;
    const bool is_weighted = layer->weight_on_input && bank != MOE_BANK_SHARED;
    double *h = run->values[v.h];
    for (uint64_t slot = 0; slot < (uint64_t) n_tokens * per_token; slot++) {
        const struct moe_ref_expert *expert = slot_expert(run, weights, bank, slot);
        for (uint32_t i = 0; i < d_in; i++)
            run->weighted[i] = run->values[v.in][slot / per_token * d_in + i] *
                               (is_weighted ? run->values[MOE_VALUE_GATES][slot] : 1);
        for (uint32_t i = 0; i < d_ff; i++) {
            h[slot * d_ff + i] = 0;
            if (!expert)
                continue;
            double up = moe_ref_dot(expert->up, expert->up_bias, i, d_in, run->weighted);
            double gate = 0;
            if (layer->gated)
                gate = moe_ref_dot(expert->gate, expert->gate_bias, i, d_in, run->weighted);
            h[slot * d_ff + i] = moe_ref_hidden(layer, bank, gate, up);
        }
    }
}

static void run_expert_out(struct moe_ref_run *run, const struct moe_graph *graph,
                           const struct moe_ref_weights *weights, enum moe_bank bank,
                           uint32_t n_tokens)
{
    const vkmoe_layer_desc *layer = &graph->layer.desc;
    const struct moe_bank_values v = moe_graph_bank(graph, bank);
    const uint32_t per_token = bank == MOE_BANK_SHARED ? 1 : layer->top_k;
    const uint32_t d_ff = graph->values[v.h].width, d_to = graph->values[v.f].width;
    const double *h = run->values[v.h];
    double *f = run->values[v.f];
    for (uint64_t slot = 0; slot < (uint64_t) n_tokens * per_token; slot++) {
        const struct moe_ref_expert *expert = slot_expert(run, weights, bank, slot);
        for (uint32_t o = 0; o < d_to; o++) {
            f[slot * d_to + o] = 0;
            if (!expert)
                continue;
            double sum = moe_ref_dot(expert->down, expert->down_bias, o, d_ff, h + slot * d_ff);
            f[slot * d_to + o] = moe_ref_act(layer, layer->act_out, sum);
        }
    }
}

// ---- sums -------------------------------------------------------------------------------------

// sum_k w_k f_k + sum_k (w_k adjugate_scale) a_k of element o of a token. What no expert runs for
// is left out: 0 times infinity is no 0.
static double routed_sum(const struct moe_ref_run *run, const struct moe_graph *graph, uint64_t t,
                         uint32_t o)
{
    const vkmoe_layer_desc *layer = &graph->layer.desc;
    const enum moe_value_id in = moe_graph_bank(graph, MOE_BANK_ROUTED).in;
    const double *ids = run->values[MOE_VALUE_IDS], *gates = run->values[MOE_VALUE_GATES];
    const double *a = run->values[MOE_VALUE_F_ADJUGATE];
    const uint32_t d_to = graph->values[MOE_VALUE_F].width, top_k = layer->top_k;
    double sum = 0;
    for (uint64_t slot = t * top_k; slot < (t + 1) * top_k; slot++) {
        double w = layer->weight_on_input ? 1 : gates[slot];
        if (ids[slot] >= layer->n_experts)
            sum += gates[slot] * run->values[in][t * d_to + o]; // of the same width
        else if (ids[slot] >= 0)
            sum += w * run->values[MOE_VALUE_F][slot * d_to + o];
    }
    for (uint64_t slot = t * top_k; a && slot < (t + 1) * top_k; slot++) {
        double w = layer->weight_on_input ? 1 : gates[slot];
        if (ids[slot] >= 0)
            sum += w * (double) layer->adjugate_scale * a[slot * d_to + o];
    }
    return sum;
}

// y of one element from the routed sum r.
static double finish(const struct moe_ref_run *run, const struct moe_graph *graph,
                     const struct moe_ref_weights *weights, uint64_t t, uint32_t o, double r)
{
    const vkmoe_layer_desc *layer = &graph->layer.desc;
    const double *f_shared = run->values[MOE_VALUE_F_SHARED];
    const double *shared_gate = run->values[MOE_VALUE_SHARED_GATE];
    double routed = (double) layer->c_routed, shared = (double) layer->c_shared;
    if (layer->shared_gate == VKMOE_SHARED_SOFTMAX2) {
        routed *= shared_gate[2 * t];
        shared *= shared_gate[2 * t + 1];
    } else if (shared_gate) {
        shared *= shared_gate[t];
    }
    if (weights->out_bias)
        r += (double) weights->out_bias[o];
    double y = routed * r;
    if (f_shared)
        y += shared * f_shared[t * layer->d_out + o];
    return (double) layer->out_scale * y;
}

static void run_combine(struct moe_ref_run *run, const struct moe_graph *graph,
                        const struct moe_ref_weights *weights, uint32_t n_tokens)
{
    const uint32_t d_to = graph->values[MOE_VALUE_F].width;
    double *r_latent = run->values[MOE_VALUE_R_LATENT];
    for (uint64_t t = 0; t < n_tokens; t++) {
        for (uint32_t o = 0; o < d_to; o++) {
            double r = routed_sum(run, graph, t, o);
            if (r_latent)
                r_latent[t * d_to + o] = r;
            else
                run->values[MOE_VALUE_Y][t * d_to + o] = finish(run, graph, weights, t, o, r);
        }
    }
}

static void run_latent_in(struct moe_ref_run *run, const struct moe_graph *graph,
                          const struct moe_ref_weights *weights, uint32_t n_tokens)
{
    const uint32_t d_model = graph->layer.desc.d_model, d_latent = graph->layer.desc.d_latent;
    for (uint64_t t = 0; t < n_tokens; t++) {
        for (uint32_t i = 0; i < d_latent; i++)
            run->values[MOE_VALUE_X_LATENT][t * d_latent + i] =
                moe_ref_dot(weights->latent_down, NULL, i, d_model,
                            run->values[MOE_VALUE_X] + t * d_model);
    }
}

static void run_latent_out(struct moe_ref_run *run, const struct moe_graph *graph,
                           const struct moe_ref_weights *weights, uint32_t n_tokens)
{
    const vkmoe_layer_desc *layer = &graph->layer.desc;
    const uint32_t d_latent = layer->d_latent, d_out = layer->d_out;
    for (uint64_t t = 0; t < n_tokens; t++) {
        const double *r = run->values[MOE_VALUE_R_LATENT] + t * d_latent;
        if (layer->latent_norm) {
            rms_norm(r, d_latent, layer->latent_norm_eps, weights->latent_norm, 1, run->normed);
            r = run->normed;
        }
        for (uint32_t o = 0; o < d_out; o++) {
            double up = moe_ref_dot(weights->latent_up, NULL, o, d_latent, r);
            run->values[MOE_VALUE_Y][t * d_out + o] = finish(run, graph, weights, t, o, up);
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
            moe_ref_capacity(&graph->layer.desc, weights->expert_scale, n_tokens,
                             run->values[MOE_VALUE_IDS], run->values[MOE_VALUE_GATES]);
            break;
        case MOE_OP_LATENT_IN:
            run_latent_in(run, graph, weights, n_tokens);
            break;
        case MOE_OP_LATENT_OUT:
            run_latent_out(run, graph, weights, n_tokens);
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
            run_combine(run, graph, weights, n_tokens);
            break;
        case MOE_OP_GATHER:
            moe_ref_gather(run, graph, n_tokens);
            break;
        case MOE_OP_PLACE:
            moe_ref_place(run, graph, n_tokens);
            break;
        case MOE_OP_COMBINE_ROWS:
            moe_ref_combine_rows(run, graph, n_tokens);
            break;
        }
    }
}
