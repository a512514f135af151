// SPDX-License-Identifier: MIT
// Part of core/net_ops.h: routing, noise, and what balances experts. Selection works in f64 for
// any MOE_REAL.
#ifndef MOE_CORE_NET_OPS_ROUTE_H
#define MOE_CORE_NET_OPS_ROUTE_H

#include "core/layer.h"
#include "core/ref_backward.h"
#include "core/ref_route.h"

#include "philox.h"

static void to_f64(const MOE_REAL *from, uint32_t n, double *to)
{
    for (uint32_t i = 0; i < n; i++)
        to[i] = (double) from[i];
}

// Part: a token.
static void select_experts(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const vkmoe_layer_desc *layer = call->op->layer;
    double logits[MOE_MAX_EXPERTS], bias[MOE_MAX_EXPERTS], ids[MOE_MAX_EXPERTS];
    double gates[MOE_MAX_EXPERTS], ranking[MOE_MAX_EXPERTS];
    const struct moe_ref_routing routing = {ids, gates, ranking};
    if (call->in[1].data)
        to_f64(in_row(call, 1, 0), layer->n_experts, bias);
    for (uint64_t t = begin; t < end; t++) {
        to_f64(in_row(call, 0, t), layer->n_experts, logits);
        moe_ref_select(layer, logits, call->in[1].data ? bias : NULL, &routing);
        for (uint32_t k = 0; k < layer->top_k; k++) {
            out_int(call, 0)[t * layer->top_k + k] = (MOE_INT) ids[k];
            *out_row(call, 1, t * layer->top_k + k) = R(gates[k]);
        }
    }
}

static void select_backward(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const vkmoe_layer_desc *layer = call->op->layer;
    double logits[MOE_MAX_EXPERTS], ids[MOE_MAX_EXPERTS], d_gates[MOE_MAX_EXPERTS];
    double d_logits[MOE_MAX_EXPERTS];
    for (uint64_t t = begin; t < end; t++) {
        to_f64(in_row(call, 0, t), layer->n_experts, logits);
        to_f64(in_row(call, 2, t * layer->top_k), layer->top_k, d_gates);
        for (uint32_t k = 0; k < layer->top_k; k++)
            ids[k] = (double) in_int(call, 1)[t * layer->top_k + k];
        moe_ref_route_backward(layer, logits, ids, d_gates, d_logits);
        for (uint32_t e = 0; e < layer->n_experts; e++)
            put(call, R(d_logits[e]), out_row(call, 0, t) + e);
    }
}

// ---- random numbers ---------------------------------------------------------------------------

static void random_words(const struct moe_net_call *call, uint64_t row, uint32_t column,
                         uint32_t words[4])
{
    words[0] = column;
    words[1] = (uint32_t) row;
    words[2] = call->op->stream;
    words[3] = call->args->pass;
    moe_philox(words, (uint32_t) call->args->seed, (uint32_t) (call->args->seed >> 32));
}

// u(row, column) of philox.h
static MOE_REAL uniform(const struct moe_net_call *call, uint64_t row, uint32_t column)
{
    uint32_t words[4];
    random_words(call, row, column, words);
    return R(words[0] >> 8) * R(MOE_PHILOX_UNIT);
}

// n(row, column) of philox.h
static MOE_REAL normal(const struct moe_net_call *call, uint64_t row, uint32_t column)
{
    const MOE_REAL two_pi = R(6.28318530717958647693);
    uint32_t words[4];
    random_words(call, row, column, words);
    MOE_REAL a = R((words[0] >> 8) + 1) * R(MOE_PHILOX_UNIT);
    MOE_REAL b = R(words[1] >> 8) * R(MOE_PHILOX_UNIT);
    return MOE_MATH(sqrt)(-2 * MOE_MATH(log)(a)) * MOE_MATH(cos)(two_pi * b);
}

static void noise(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    for (uint64_t r = begin; r < end; r++) {
        const MOE_REAL *a = in_row(call, 0, r), *z = in_row(call, 1, r);
        for (uint32_t c = 0; c < call->out[0].width; c++)
            out_row(call, 0, r)[c] =
                a[c] + R(call->op->alpha) * normal(call, r, c) * (z ? softplus(z[c]) : 1);
    }
}

static void noise_backward(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    for (uint64_t r = begin; r < end; r++) {
        const MOE_REAL *dy = in_row(call, 0, r), *z = in_row(call, 1, r);
        for (uint32_t c = 0; c < call->out[0].width; c++)
            put(call, dy[c] * R(call->op->alpha) * normal(call, r, c) * sigmoid(z[c]),
                out_row(call, 0, r) + c);
    }
}

static void dropout(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const MOE_REAL rate = R(call->op->alpha);
    for (uint64_t r = begin; r < end; r++) {
        const MOE_REAL *a = in_row(call, 0, r);
        for (uint32_t c = 0; c < call->out[0].width; c++)
            put(call, uniform(call, r, c) >= rate ? a[c] / (1 - rate) : 0, out_row(call, 0, r) + c);
    }
}

// ---- balance ----------------------------------------------------------------------------------

static void count(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    (void) begin, (void) end;
    const MOE_INT *starts = in_int(call, 0);
    for (uint32_t g = 0; g < call->out[0].width; g++)
        put(call, R(starts[g + 1] - starts[g]), out_row(call, 0, 0) + g);
}

static void balance(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    (void) begin, (void) end;
    const MOE_INT *starts = in_int(call, 1);
    const uint64_t n_tokens = call->in[0].rows;
    const uint32_t n_experts = call->in[0].width;
    const MOE_REAL per_token = n_tokens > 0 ? 1 / R(n_tokens) : 0;
    const MOE_REAL scale = R(call->args->aux_scale) * R(call->op->alpha) * R(n_experts);
    MOE_REAL sum = 0;
    for (uint32_t e = 0; e < n_experts; e++) {
        MOE_REAL part = R(starts[e + 1] - starts[e]) / R(call->op->top_k) * per_token, p = 0;
        for (uint64_t t = 0; t < n_tokens; t++) {
            p += in_row(call, 0, t)[e];
            if (call->out[1].data)
                put(call, scale * part * per_token, out_row(call, 1, t) + e);
        }
        sum += part * (p * per_token);
    }
    put(call, scale * sum, out_row(call, 0, 0));
}

static void balance_bias(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    (void) begin, (void) end;
    const MOE_REAL *counts = in_row(call, 0, 0), *loss = in_row(call, 1, 0);
    const uint32_t n_experts = call->in[0].width;
    MOE_REAL sum = 0;
    if (loss && !isfinite(*loss))
        return;
    for (uint32_t e = 0; e < n_experts; e++)
        sum += counts[e];
    for (uint32_t e = 0; e < n_experts; e++) {
        MOE_REAL missing = sum / R(n_experts) - counts[e];
        out_row(call, 0, 0)[e] += R(call->op->alpha) * R((missing > 0) - (missing < 0));
    }
}

#endif
