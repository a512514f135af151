// SPDX-License-Identifier: MIT
// Kernels on arrays of f32, what layers and networks do between products of matrices. They give
// the same bits at every level: nothing is fused, and sums have lanes of their own. A NaN's bits
// are its own. Arrays do not overlap, but where it is said; n may be 0. add: results are added to
// what is there.
#ifndef MOE_CPU_ARRAYS_H
#define MOE_CPU_ARRAYS_H

#include <vkmoe/vkmoe.h>

struct moe_net_step;

// What a step does to n parameters. debias1 and debias2 are 1 - beta^step.
struct cpu_step {
    const struct moe_net_step *rule;
    float rate, factor;
    bool first; // step of this parameter
    float debias1, debias2;
};

struct cpu_arrays {
    // y = act(a), alpha being the factor inside VKMOE_ACT_SILU; y may be a
    void (*act)(enum vkmoe_act act, float alpha, const float *a, float *y, size_t n);
    // da = dy act'(a); at a kink the derivative from below
    void (*act_backward)(enum vkmoe_act act, float alpha, const float *dy, const float *a,
                         float *da, size_t n, bool add);
    // h = act(g) u; h may be g or u
    void (*glu)(enum vkmoe_act act, float alpha, const float *g, const float *u, float *h,
                size_t n);
    // dg = dh u act'(g), du = dh act(g)
    void (*glu_backward)(enum vkmoe_act act, float alpha, const float *dh, const float *g,
                         const float *u, float *dg, float *du, size_t n);
    // y = exp(a - max a) / their sum; y may be a. A NaN makes all of y NaN.
    void (*softmax)(const float *a, float *y, size_t n);
    void (*scale)(float s, const float *a, float *y, size_t n, bool add); // y = s a
    float (*dot)(const float *a, const float *b, size_t n);
    float (*sum)(const float *a, size_t n);
    float (*sum_squares)(const float *a, size_t n);
    // m and v may be NULL where the rule has none.
    void (*step)(const struct cpu_step *step, const float *g, float *p, float *m, float *v,
                 size_t n);
    // v[r][c] = v[r][c] weights[r] + bias[c] of (n_rows, 16); each NULL: there is none
    void (*finish_rows)(const float *bias, const float *weights, float *v, uint32_t n_rows);
    // sums[r][first + c] += factors[r] v[r][c] of (n_rows, 16), c < n_columns <= 16; a row of sums
    // may come twice
    void (*add_rows)(const float *v, const float *factors, float *const *sums, uint32_t n_rows,
                     uint32_t first, uint32_t n_columns);
    // panels[p size + 16 r + c] = factors[r] rows[r][first + 16 p + c] (NULL: 1 for each), those of
    // n_columns beginning with `first`; what their last panel has behind them is 0
    void (*to_panels)(const float *const *rows, const float *factors, uint32_t n_rows,
                      uint32_t first, uint32_t n_columns, float *panels, size_t size);
};

#endif
