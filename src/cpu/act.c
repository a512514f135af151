// SPDX-License-Identifier: MIT
#include "cpu/act.h"

#include <math.h>

float moe_cpu_sigmoid(float v)
{
    return 1.0f / (1.0f + expf(-v));
}

static void situ(float beta, float *v, size_t n)
{
    for (size_t i = 0; i < n; i++)
        v[i] = beta * tanhf(v[i] / beta) * moe_cpu_sigmoid(v[i]);
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

void moe_cpu_gated(const struct cpu_arrays *arrays, const vkmoe_layer_desc *layer, float limit,
                   float *gate, float *up, size_t n)
{
    const bool is_plain = layer->act != VKMOE_ACT_SITU && layer->clamp == VKMOE_CLAMP_NONE &&
                          layer->up_add == 0.0f;
    if (is_plain) {
        arrays->glu(layer->act, layer->act_alpha, gate, up, up, n);
        return;
    }
    if (layer->clamp == VKMOE_CLAMP_BEFORE_ACT)
        at_most(limit, gate, n);
    moe_cpu_act(arrays, layer, layer->act, gate, n);
    if (layer->clamp == VKMOE_CLAMP_AFTER_ACT)
        at_most(limit, gate, n);
    finish_up(layer, limit, up, n);
    arrays->glu(VKMOE_ACT_NONE, 0, gate, up, up, n);
}

void moe_cpu_act(const struct cpu_arrays *arrays, const vkmoe_layer_desc *layer,
                 enum vkmoe_act act, float *v, size_t n)
{
    if (act == VKMOE_ACT_SITU)
        situ(layer->situ_beta, v, n);
    else if (act != VKMOE_ACT_NONE)
        arrays->act(act, layer->act_alpha, v, v, n);
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
