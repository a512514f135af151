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

// Written so that a NaN stays one.
static void relu(float *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        v[i] = v[i] <= 0.0f ? 0.0f : v[i];
}

void moe_cpu_act(enum vkmoe_act act, float alpha, float *v, size_t n)
{
    switch (act) {
    case VKMOE_ACT_NONE:
        return;
    case VKMOE_ACT_SILU:
        silu(alpha, v, n);
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
        break;
    }
    assert(!"an activation that core/layer.c refuses");
}
