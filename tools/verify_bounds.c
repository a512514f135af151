// SPDX-License-Identifier: MIT
// How far f32 arithmetic may take a score. What Vulkan promises of functions is the looser one of
// all devices: exp(v) 3 + 2|v| ulp, a division 2.5 ulp, a square root and what is made of them.
#include "verify_check.h"

#include <float.h>
#include <math.h>

#define U (FLT_EPSILON / 2) // unit roundoff of f32
#define ULP FLT_EPSILON

// Logits of a token, one for each expert and identity expert, with a bound for the error of each.
struct scores {
    const struct verify_weights *weights;
    uint32_t n;
    double logits[1024];
    double *bounds;
};

static double gamma_n(double n)
{
    return n * U / (1 - n * U);
}

// 1 / sqrt(mean x^2 + eps) of the pre-norm, and 1 without one.
static double norm_factor(const vkmoe_layer_desc *desc, const float *x)
{
    double sum = 0;
    if (!desc->router_prenorm)
        return 1;
    for (uint32_t i = 0; i < desc->d_model; i++)
        sum += (double) x[i] * x[i];
    return (double) desc->prenorm_const / sqrt(sum / desc->d_model + (double) desc->prenorm_eps);
}

// d_model products and the bias are d_model + 1 terms, so gamma_{d_model+1} * sum|terms|. A
// pre-norm makes each of them wrong by half of what its own sum is, and by some roundings more.
static void find_logits(struct scores *s, const float *x)
{
    const vkmoe_layer_desc *desc = &s->weights->desc;
    const float *router = s->weights->router.weight.data;
    const float *scale = s->weights->router.prenorm_scale;
    const double factor = norm_factor(desc, x);
    const double n_norm = desc->router_prenorm ? desc->d_model / 2.0 + 8 : 0;
    for (uint32_t e = 0; e < s->n; e++) {
        const float *w = router + (size_t) e * desc->d_model;
        double sum = s->weights->router.bias ? s->weights->router.bias[e] : 0, terms = fabs(sum);
        for (uint32_t i = 0; i < desc->d_model; i++) {
            double term = factor * x[i] * w[i] * (scale ? (double) scale[i] : 1);
            sum += term;
            terms += fabs(term);
        }
        s->logits[e] = sum;
        s->bounds[e] = gamma_n(desc->d_model + 1.0 + n_norm) * terms;
    }
}

// Forming v loses up to |v| / 2 ulp more.
static double exp_error(double v)
{
    return (3 + 2.5 * fabs(v)) * ULP;
}

// c tanh(l / c) moves no more than l; tanh is made of two exponentials and a division.
static void cap_logits(struct scores *s)
{
    const double c = (double) s->weights->desc.logit_softcap;
    for (uint32_t e = 0; c > 0 && e < s->n; e++) {
        double t = tanh(s->logits[e] / c);
        s->bounds[e] += c * ((1 - t * t) * exp_error(2 * s->logits[e] / c) + 8 * ULP);
        s->logits[e] = c * t;
    }
}

// s_i = exp(l_i - max) / sum. Errors d of the logits move it by at most
// s_i (1 - s_i) d_i + s_i sum_{j != i} s_j d_j <= 2 s_i max d.
static void softmax_bounds(struct scores *s)
{
    double max = -INFINITY, sum = 0, sum_error = 0, error = 0;
    for (uint32_t e = 0; e < s->n; e++) {
        max = fmax(max, s->logits[e]);
        error = fmax(error, s->bounds[e]);
    }
    for (uint32_t e = 0; e < s->n; e++) {
        sum += exp(s->logits[e] - max);
        sum_error += exp(s->logits[e] - max) * exp_error(s->logits[e] - max);
    }
    for (uint32_t e = 0; e < s->n; e++) {
        double p = exp(s->logits[e] - max) / sum;
        double relative = exp_error(s->logits[e] - max) + sum_error / sum + gamma_n(s->n) +
                          2.5 * ULP;
        s->bounds[e] = p * (2 * error + relative) + FLT_MIN;
    }
}

// s = 1 / (1 + exp(-l)); ds/dl = s (1 - s), also what an error of the exponential meets.
static void sigmoid_bounds(struct scores *s)
{
    for (uint32_t e = 0; e < s->n; e++) {
        double p = 1 / (1 + exp(-s->logits[e]));
        s->bounds[e] = p * (1 - p) * (s->bounds[e] + exp_error(s->logits[e])) +
                       p * (2.5 * ULP + U) + FLT_MIN;
    }
}

// s = sqrt(v), v = ln(1 + exp(l)): ds/dl = sigmoid(l) / (2 s). The logarithm of what is near 1 is
// off by 2^-21 at most, of others by 3 ulp.
static void sqrt_softplus_bounds(struct scores *s)
{
    for (uint32_t e = 0; e < s->n; e++) {
        double l = s->logits[e], p = 1 / (1 + exp(-l)), v = log1p(exp(-fabs(l))) + fmax(l, 0);
        double error = p * s->bounds[e] + (1 - p) * exp_error(l) + 0x1p-21 + 4 * ULP * v;
        s->bounds[e] = error / (2 * sqrt(v)) + 3 * ULP * sqrt(v) + FLT_MIN;
    }
}

static void score_bounds(struct scores *s)
{
    const vkmoe_layer_desc *desc = &s->weights->desc;
    if (desc->select == VKMOE_SELECT_SPARSEMIXER || desc->rank == VKMOE_RANK_LOGIT)
        return;
    if (desc->rank == VKMOE_RANK_SIGMOID) {
        sigmoid_bounds(s);
        return;
    }
    switch (desc->score) {
    case VKMOE_SCORE_SOFTMAX:
        softmax_bounds(s);
        return;
    case VKMOE_SCORE_SIGMOID:
        sigmoid_bounds(s);
        return;
    case VKMOE_SCORE_SQRT_SOFTPLUS:
        sqrt_softplus_bounds(s);
        return;
    case VKMOE_SCORE_RELU: // moves no more than the logit
    case VKMOE_SCORE_NONE:
        return;
    }
}

// No score is larger.
static double most(const vkmoe_layer_desc *desc, double logit)
{
    const bool by_logit =
        desc->select == VKMOE_SELECT_SPARSEMIXER || desc->rank == VKMOE_RANK_LOGIT;
    const bool by_score = !by_logit && desc->rank == VKMOE_RANK_SCORE;
    if (by_score && desc->score == VKMOE_SCORE_SQRT_SOFTPLUS)
        return 1 + fabs(logit);
    if (by_logit || (by_score && desc->score >= VKMOE_SCORE_RELU))
        return fabs(logit);
    return 1;
}

// The sum with the selection bias rounds once, the oracle's result in f32 too.
static void rank_bounds(struct scores *s)
{
    const float *bias = s->weights->router.selection_bias;
    for (uint32_t e = 0; e < s->n; e++) {
        s->bounds[e] += 2 * U * (most(&s->weights->desc, s->logits[e]) +
                                 (bias ? fabs((double) bias[e]) : 0));
    }
}

void verify_score_bounds(const struct verify_weights *weights, const float *x, size_t stride,
                         uint32_t n_tokens, double *bounds)
{
    struct scores s = {.weights = weights, .n = weights->desc.n_experts + weights->desc.n_zero};
    for (uint32_t t = 0; t < n_tokens; t++) {
        s.bounds = bounds + (size_t) t * s.n;
        find_logits(&s, x + t * stride);
        cap_logits(&s);
        score_bounds(&s);
        rank_bounds(&s);
    }
}
