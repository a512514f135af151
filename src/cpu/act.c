// SPDX-License-Identifier: MIT
#include "cpu/act.h"

#include <assert.h>
#include <math.h>

float moe_cpu_sigmoid(float v)
{
    return 1.0f / (1.0f + expf(-v));
}

static void silu(float alpha, float *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        v[i] *= moe_cpu_sigmoid(alpha * v[i]);
}

static void gelu_erf(float *v, size_t n)
{
    const float sqrt_half = 0.70710678f;
    for (size_t i = 0; i < n; i++)
        v[i] = 0.5f * v[i] * (1.0f + erff(v[i] * sqrt_half));
}

static void gelu_tanh(float *v, size_t n)
{
    const float sqrt_2_over_pi = 0.79788456f, cubic = 0.044715f;
    for (size_t i = 0; i < n; i++) {
        float inner = sqrt_2_over_pi * (v[i] + cubic * v[i] * v[i] * v[i]);
        v[i] = 0.5f * v[i] * (1.0f + tanhf(inner));
    }
}

static void situ(float beta, float *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        v[i] = beta * tanhf(v[i] / beta) * moe_cpu_sigmoid(v[i]);
}

// Written so that a NaN stays one.
static void relu(float *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        v[i] = v[i] <= 0.0f ? 0.0f : v[i];
}

static void at_most(float limit, float *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        v[i] = v[i] > limit ? limit : v[i];
}

// The up half before it is multiplied with the gate half.
static void finish_up(const vkmoe_layer_desc *layer, float limit, float *v, size_t n)
{
    const float lambda = layer->situ_lambda;
    if (layer->clamp != VKMOE_CLAMP_NONE) {
        at_most(limit, v, n);
        for (size_t i = 0; i < n; i++)
            v[i] = v[i] < -limit ? -limit : v[i];
    }
    for (size_t i = 0; layer->act == VKMOE_ACT_SITU && lambda > 0.0f && i < n; i++)
        v[i] = lambda * tanhf(v[i] / lambda);
    for (size_t i = 0; layer->up_add != 0.0f && i < n; i++)
        v[i] += layer->up_add;
}

void moe_cpu_gated(const vkmoe_layer_desc *layer, float limit, float *gate, float *up, size_t n)
{
    if (layer->clamp == VKMOE_CLAMP_BEFORE_ACT)
        at_most(limit, gate, n);
    moe_cpu_act(layer, layer->act, gate, n);
    if (layer->clamp == VKMOE_CLAMP_AFTER_ACT)
        at_most(limit, gate, n);
    finish_up(layer, limit, up, n);
    for (size_t i = 0; i < n; i++)
        up[i] *= gate[i];
}

void moe_cpu_act(const vkmoe_layer_desc *layer, enum vkmoe_act act, float *v, size_t n)
{
    switch (act) {
    case VKMOE_ACT_NONE:
        return;
    case VKMOE_ACT_SILU:
        silu(layer->act_alpha, v, n);
        return;
    case VKMOE_ACT_GELU_ERF:
        gelu_erf(v, n);
        return;
    case VKMOE_ACT_GELU_TANH:
        gelu_tanh(v, n);
        return;
    case VKMOE_ACT_RELU:
        relu(v, n);
        return;
    case VKMOE_ACT_RELU2:
        relu(v, n);
        for (size_t i = 0; i < n; i++)
            v[i] *= v[i];
        return;
    case VKMOE_ACT_SIGMOID:
        for (size_t i = 0; i < n; i++)
            v[i] = moe_cpu_sigmoid(v[i]);
        return;
    case VKMOE_ACT_TANH:
        for (size_t i = 0; i < n; i++)
            v[i] = tanhf(v[i]);
        return;
    case VKMOE_ACT_SITU:
        situ(layer->situ_beta, v, n);
        return;
    }
    assert(!"not an activation");
}

void moe_cpu_rms_norm(float eps, const float *scale, float factor, float *v, size_t n)
{
    double sum = 0; // of many terms, and it is in all of the row
    for (size_t i = 0; i < n; i++)
        sum += (double) v[i] * (double) v[i];
    const double by = (double) factor / sqrt(sum / (double) n + (double) eps);
    for (size_t i = 0; i < n; i++)
        v[i] = (float) ((double) v[i] * by) * scale[i];
}
