// SPDX-License-Identifier: MIT
// The array kernels, as text that each arrays_<level>.c compiles for its level.
// Loops over independent elements without calls: compilers turn them into vectors. For the same
// reason exp is written out here.
#ifndef MOE_CPU_ARRAYS_TEXT_H
#define MOE_CPU_ARRAYS_TEXT_H

#include "core/net.h"
#include "cpu/arrays.h"
#include "cpu/unroll.h"

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

INLINE float float_of(uint32_t bits)
{
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

// exp(x) = 2^n exp(r), n the integer nearest to x / ln 2, |r| <= ln 2 / 2, and
// exp(r) = 1 + r + r^2 q(r), q interpolating at Chebyshev's points: its error is 2^-26, that of the
// whole below 2^-23. Adding 1.5 * 2^23 rounds to an integer, which then stands in the low bits.
// ln 2 is taken off in two parts, n times the first being exact. 2^n is the product of two powers
// that exist for all n here: beyond that the result is infinity or 0 anyway. NaN stays NaN.
INLINE float exp_of(float x)
{
    const float round = 12582912.0f, ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    float shifted = x * 1.44269504f + round, n = shifted - round;
    float r = x - n * ln2_high - n * ln2_low;
    float q = 0.00139265507f;
    q = q * r + 0.0083634723f;
    q = q * r + 0.0416665524f;
    q = q * r + 0.166665748f;
    q = q * r + 0.5f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    uint32_t power = bits - 0x4b400000u + 256, half = power >> 1; // 256: no negative numbers
    float a = float_of((half - 1) << 23), b = float_of((power - half - 1) << 23);
    return (q * (r * r) + r + 1.0f) * a * b;
}

INLINE float sigmoid_of(float v)
{
    return 1.0f / (1.0f + exp_of(-v));
}

// sigmoid'(v) = s (1 - s), with 1 - s = sigmoid(-v) so that nothing cancels.
INLINE float sigmoid_slope(float v)
{
    return sigmoid_of(v) * sigmoid_of(-v);
}

// gelu_tanh = v / 2 (1 + tanh u) = v sigmoid(2 u), 2 u = c (v + a v^3)
#define GELU_A 0.044715f
#define GELU_C 1.59576912f // 2 sqrt(2 / pi)

INLINE float act_of(enum vkmoe_act act, float alpha, float v)
{
    const float sqrt_half = 0.70710678f;
    float positive = v < 0.0f ? 0.0f : v; // NaN stays NaN
    switch (act) {
    case VKMOE_ACT_NONE:
        return v;
    case VKMOE_ACT_SILU:
        return v * sigmoid_of(alpha * v);
    case VKMOE_ACT_GELU_ERF:
        return 0.5f * v * (1.0f + erff(v * sqrt_half));
    case VKMOE_ACT_GELU_TANH:
        return v * sigmoid_of(GELU_C * (v + GELU_A * v * v * v));
    case VKMOE_ACT_RELU:
        return positive;
    case VKMOE_ACT_RELU2:
        return positive * positive;
    case VKMOE_ACT_SIGMOID:
        return sigmoid_of(v);
    case VKMOE_ACT_TANH:
        return tanhf(v);
    case VKMOE_ACT_SITU: // no network has it
        break;
    }
    return NAN;
}

INLINE float slope_of(enum vkmoe_act act, float alpha, float v)
{
    const float sqrt_half = 0.70710678f, phi_0 = 0.39894228f;
    float u;
    switch (act) {
    case VKMOE_ACT_NONE:
        return 1.0f;
    case VKMOE_ACT_SILU:
        return sigmoid_of(alpha * v) + v * alpha * sigmoid_slope(alpha * v);
    case VKMOE_ACT_GELU_ERF:
        return 0.5f * (1.0f + erff(v * sqrt_half)) + v * exp_of(-v * v * 0.5f) * phi_0;
    case VKMOE_ACT_GELU_TANH:
        u = GELU_C * (v + GELU_A * v * v * v);
        return sigmoid_of(u) + v * sigmoid_slope(u) * GELU_C * (1.0f + 3.0f * GELU_A * v * v);
    case VKMOE_ACT_RELU:
        return v > 0.0f ? 1.0f : v <= 0.0f ? 0.0f : v;
    case VKMOE_ACT_RELU2:
        return v < 0.0f ? 0.0f : 2.0f * v;
    case VKMOE_ACT_SIGMOID:
        return sigmoid_slope(v);
    case VKMOE_ACT_TANH:
        return 4.0f * sigmoid_slope(2.0f * v);
    case VKMOE_ACT_SITU:
        break;
    }
    return NAN;
}

// In a loop of its own for each activation. CALL(act) is a statement that uses the constant.
#define FOR_ACT(act, CALL)                                                                         \
    switch (act) {                                                                                 \
    case VKMOE_ACT_NONE:                                                                           \
        CALL(VKMOE_ACT_NONE);                                                                      \
        break;                                                                                     \
    case VKMOE_ACT_SILU:                                                                           \
        CALL(VKMOE_ACT_SILU);                                                                      \
        break;                                                                                     \
    case VKMOE_ACT_GELU_ERF:                                                                       \
        CALL(VKMOE_ACT_GELU_ERF);                                                                  \
        break;                                                                                     \
    case VKMOE_ACT_GELU_TANH:                                                                      \
        CALL(VKMOE_ACT_GELU_TANH);                                                                 \
        break;                                                                                     \
    case VKMOE_ACT_RELU:                                                                           \
        CALL(VKMOE_ACT_RELU);                                                                      \
        break;                                                                                     \
    case VKMOE_ACT_RELU2:                                                                          \
        CALL(VKMOE_ACT_RELU2);                                                                     \
        break;                                                                                     \
    case VKMOE_ACT_SIGMOID:                                                                        \
        CALL(VKMOE_ACT_SIGMOID);                                                                   \
        break;                                                                                     \
    case VKMOE_ACT_TANH:                                                                           \
        CALL(VKMOE_ACT_TANH);                                                                      \
        break;                                                                                     \
    case VKMOE_ACT_SITU:                                                                           \
        break;                                                                                     \
    }

static void act_array(enum vkmoe_act act, float alpha, const float *a, float *y, size_t n)
{
#define CALL(kind)                                                                                 \
    IVDEP for (size_t i = 0; i < n; i++)                                                           \
        y[i] = act_of(kind, alpha, a[i])
    FOR_ACT(act, CALL)
#undef CALL
}

INLINE void backward_loop(enum vkmoe_act act, float alpha, const float *restrict dy,
                          const float *restrict a, float *restrict da, size_t n, bool add)
{
    if (add) {
        for (size_t i = 0; i < n; i++)
            da[i] += dy[i] * slope_of(act, alpha, a[i]);
    } else {
        for (size_t i = 0; i < n; i++)
            da[i] = dy[i] * slope_of(act, alpha, a[i]);
    }
}

static void act_backward_array(enum vkmoe_act act, float alpha, const float *dy, const float *a,
                               float *da, size_t n, bool add)
{
#define CALL(kind) backward_loop(kind, alpha, dy, a, da, n, add)
    FOR_ACT(act, CALL)
#undef CALL
}

static void glu_array(enum vkmoe_act act, float alpha, const float *g, const float *u, float *h,
                      size_t n)
{
#define CALL(kind)                                                                                 \
    IVDEP for (size_t i = 0; i < n; i++)                                                           \
        h[i] = act_of(kind, alpha, g[i]) * u[i]
    FOR_ACT(act, CALL)
#undef CALL
}

static void glu_backward_array(enum vkmoe_act act, float alpha, const float *restrict dh,
                               const float *restrict g, const float *restrict u,
                               float *restrict dg, float *restrict du, size_t n)
{
#define CALL(kind)                                                                                 \
    for (size_t i = 0; i < n; i++) {                                                               \
        dg[i] = dh[i] * u[i] * slope_of(kind, alpha, g[i]);                                        \
        du[i] = dh[i] * act_of(kind, alpha, g[i]);                                                 \
    }
    FOR_ACT(act, CALL)
#undef CALL
}

// ---- sums ------------------------------------------------------------------------------------

static void scale_array(float s, const float *restrict a, float *restrict y, size_t n, bool add)
{
    if (add) {
        for (size_t i = 0; i < n; i++)
            y[i] += s * a[i];
    } else {
        for (size_t i = 0; i < n; i++)
            y[i] = s * a[i];
    }
}

// Lane l has the terms l, l + LANES, ...; then lanes ascend. So the order is the same at any level.
enum { LANES = 32 };

INLINE float lanes_total(const float *lanes)
{
    float total = 0.0f;
    for (int l = 0; l < LANES; l++)
        total += lanes[l];
    return total;
}

static float dot_arrays(const float *restrict a, const float *restrict b, size_t n)
{
    float lanes[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t l = 0; l < LANES; l++)
            lanes[l] += a[i + l] * b[i + l];
    for (size_t l = 0; i + l < n; l++)
        lanes[l] += a[i + l] * b[i + l];
    return lanes_total(lanes);
}

static float sum_array(const float *a, size_t n)
{
    float lanes[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t l = 0; l < LANES; l++)
            lanes[l] += a[i + l];
    for (size_t l = 0; i + l < n; l++)
        lanes[l] += a[i + l];
    return lanes_total(lanes);
}

static void softmax_array(const float *a, float *y, size_t n)
{
    float lanes[LANES], most;
    size_t i = 0;
    for (size_t l = 0; l < LANES; l++)
        lanes[l] = -INFINITY;
    for (; i + LANES <= n; i += LANES)
        for (size_t l = 0; l < LANES; l++)
            lanes[l] = a[i + l] > lanes[l] ? a[i + l] : lanes[l];
    for (size_t l = 0; i + l < n; l++)
        lanes[l] = a[i + l] > lanes[l] ? a[i + l] : lanes[l];
    most = lanes[0];
    for (size_t l = 1; l < LANES; l++)
        most = lanes[l] > most ? lanes[l] : most;
    for (i = 0; i < n; i++)
        y[i] = exp_of(a[i] - most);
    const float sum = sum_array(y, n);
    for (i = 0; i < n; i++)
        y[i] /= sum;
}

static float sum_squares_array(const float *a, size_t n)
{
    return dot_arrays(a, a, n);
}

// ---- steps -----------------------------------------------------------------------------------

INLINE void sgd_loop(const struct cpu_step *step, const float *restrict g, float *restrict p,
                     float *restrict m, size_t n, bool nesterov)
{
    const float momentum = step->rule->momentum, decay = step->rule->decay;
    const float rate = step->rate, factor = step->factor, keep = step->first ? 0.0f : momentum;
    for (size_t i = 0; i < n; i++) {
        float d = g[i] * factor + decay * p[i];
        m[i] = (step->first ? 0.0f : keep * m[i]) + d;
        p[i] -= rate * (nesterov ? d + momentum * m[i] : m[i]);
    }
}

static void sgd_array(const struct cpu_step *step, const float *restrict g, float *restrict p,
                      float *restrict m, size_t n)
{
    const float decay = step->rule->decay, rate = step->rate, factor = step->factor;
    if (m && step->rule->nesterov) {
        sgd_loop(step, g, p, m, n, true);
    } else if (m) {
        sgd_loop(step, g, p, m, n, false);
    } else {
        for (size_t i = 0; i < n; i++)
            p[i] -= rate * (g[i] * factor + decay * p[i]);
    }
}

INLINE void adam_loop(const struct cpu_step *step, const float *restrict g, float *restrict p,
                      float *restrict m, float *restrict v, size_t n, bool decoupled)
{
    const float beta1 = step->rule->beta1, beta2 = step->rule->beta2, eps = step->rule->eps;
    const float decay = step->rule->decay, rate = step->rate, factor = step->factor;
    const float debias1 = step->debias1, debias2 = step->debias2, less = rate * decay;
    for (size_t i = 0; i < n; i++) {
        float x = decoupled ? p[i] - less * p[i] : p[i];
        float d = decoupled ? g[i] * factor : g[i] * factor + decay * p[i];
        float m_i = beta1 * m[i] + (1.0f - beta1) * d;
        float v_i = beta2 * v[i] + (1.0f - beta2) * d * d;
        m[i] = m_i;
        v[i] = v_i;
        p[i] = x - rate * (m_i / debias1) / (sqrtf(v_i / debias2) + eps);
    }
}

static void step_array(const struct cpu_step *step, const float *g, float *p, float *m, float *v,
                       size_t n)
{
    switch (step->rule->kind) {
    case MOE_NET_SGD:
        sgd_array(step, g, p, m, n);
        return;
    case MOE_NET_ADAM:
        adam_loop(step, g, p, m, v, n, false);
        return;
    case MOE_NET_ADAMW:
        adam_loop(step, g, p, m, v, n, true);
        return;
    }
}

// ---- rows of 16, what panels give ---------------------------------------------------------------

static void finish_rows(const float *restrict bias, const float *restrict weights,
                        float *restrict v, uint32_t n_rows)
{
    for (uint32_t r = 0; weights && r < n_rows; r++)
        for (uint32_t c = 0; c < 16; c++)
            v[r * 16 + c] *= weights[r];
    for (uint32_t r = 0; bias && r < n_rows; r++)
        for (uint32_t c = 0; c < 16; c++)
            v[r * 16 + c] += bias[c];
}

static void add_rows(const float *restrict v, const float *restrict factors, float *const *sums,
                     uint32_t n_rows, uint32_t first, uint32_t n_columns)
{
    for (uint32_t r = 0; r < n_rows; r++) {
        float *restrict sum = sums[r] + first;
        if (n_columns == 16) {
            for (uint32_t c = 0; c < 16; c++)
                sum[c] += factors[r] * v[r * 16 + c];
        } else {
            for (uint32_t c = 0; c < n_columns; c++)
                sum[c] += factors[r] * v[r * 16 + c];
        }
    }
}

static void to_panels(const float *const *rows, const float *factors, uint32_t n_rows,
                      uint32_t first, uint32_t n_columns, float *restrict panels, size_t size)
{
    enum { AHEAD = 8 }; // rows that are asked for before they are needed
    const uint32_t n_whole = n_columns / 16, n_left = n_columns % 16;
    for (uint32_t r = 0; r < n_rows; r++) {
        const float *row = rows[r] + first, f = factors ? factors[r] : 1.0f;
        const float *later = rows[r + AHEAD < n_rows ? r + AHEAD : n_rows - 1] + first;
        float *restrict to = panels + (size_t) r * 16;
        for (uint32_t p = 0; p < n_whole; p++) {
            __builtin_prefetch(later + (size_t) p * 16);
            for (uint32_t c = 0; c < 16; c++)
                to[p * size + c] = f * row[p * 16 + c];
        }
        for (uint32_t c = 0; n_left > 0 && c < 16; c++)
            to[n_whole * size + c] = c < n_left ? f * row[n_whole * 16 + c] : 0.0f;
    }
}

static const struct cpu_arrays level_arrays = {
    .act = act_array,
    .act_backward = act_backward_array,
    .glu = glu_array,
    .glu_backward = glu_backward_array,
    .scale = scale_array,
    .dot = dot_arrays,
    .softmax = softmax_array,
    .sum = sum_array,
    .sum_squares = sum_squares_array,
    .step = step_array,
    .finish_rows = finish_rows,
    .add_rows = add_rows,
    .to_panels = to_panels,
};

#undef FOR_ACT
#undef GELU_A
#undef GELU_C
#undef INLINE

#endif
