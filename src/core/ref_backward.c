// SPDX-License-Identifier: MIT
// The chain rule over core/ref.c, token by token. A capital D before a value is the derivative of
// the loss sum(dy * y) by it. What the forward run did not keep is computed again from x.
//
// Combine, y = out_scale (c_routed sum_k w_k f_k + c_shared g f_shared):
//   Df_k = out_scale c_routed w_k dy          Dw_k = out_scale c_routed <dy, f_k>
//   Df_shared = out_scale c_shared g dy       Dg   = out_scale c_shared <dy, f_shared>
//
// Expert, f = act_out(v), v = W_down h + b_down, h = act(z) u or act(u), z and u affine in x:
//   Dv = Df act_out'(v)    DW_down = Dv h^T    Db_down = Dv    Dh = W_down^T Dv
//   gated: Dz = Dh u act'(z), Du = Dh act(z)   plain: Du = Dh act'(u)
//   DW_up = Du x^T         Db_up = Du          Dx += W_up^T Du         (the same for gate with Dz)
//
// The router's rule is told at its functions below. The layer's definition is in vkmoe.h; its terms
// are those of Shazeer et al. 2017 (https://arxiv.org/abs/1701.06538), section 2 and appendix A.
#include "core/ref_backward.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "core/ref_route.h"

#include <math.h>

// ---- memory -----------------------------------------------------------------------------------

static double *take(double **next, bool wanted, uint64_t n)
{
    double *here = wanted ? *next : NULL;
    if (wanted)
        *next += n;
    return here;
}

static uint64_t count_expert(const vkmoe_layer_desc *layer, uint64_t d_ff)
{
    uint64_t n_hidden = (layer->gate_bias ? 1u : 0u) + (layer->up_bias ? 1u : 0u);
    n_hidden += (layer->gated ? 2u : 1u) * (uint64_t) layer->d_model + layer->d_out;
    return d_ff * n_hidden + (layer->down_bias ? layer->d_out : 0);
}

static struct moe_ref_expert_grads take_expert(const vkmoe_layer_desc *layer, uint64_t d_ff,
                                               double **next)
{
    struct moe_ref_expert_grads expert;
    expert.gate = take(next, layer->gated, d_ff * layer->d_model);
    expert.up = take(next, true, d_ff * layer->d_model);
    expert.down = take(next, true, d_ff * layer->d_out);
    expert.gate_bias = take(next, layer->gate_bias, d_ff);
    expert.up_bias = take(next, layer->up_bias, d_ff);
    expert.down_bias = take(next, layer->down_bias, layer->d_out);
    return expert;
}

// Below 2^62 elements, see core/layer.c.
static uint64_t count_params(const vkmoe_layer_desc *layer)
{
    uint64_t n = (uint64_t) layer->n_experts * layer->d_model;
    n += layer->router_bias ? layer->n_experts : 0;
    n += layer->shared_gate == VKMOE_SHARED_SIGMOID ? layer->d_model : 0;
    n += layer->n_experts * count_expert(layer, layer->d_ff);
    return n + (layer->d_shared_ff > 0 ? count_expert(layer, layer->d_shared_ff) : 0);
}

static void lay_out(struct moe_ref_grads *grads, const vkmoe_layer_desc *layer, uint64_t n_x)
{
    double *next = grads->memory;
    grads->x = take(&next, true, n_x);
    grads->router = take(&next, true, (uint64_t) layer->n_experts * layer->d_model);
    grads->router_bias = take(&next, layer->router_bias, layer->n_experts);
    grads->shared_gate = take(&next, layer->shared_gate == VKMOE_SHARED_SIGMOID, layer->d_model);
    for (uint32_t e = 0; e < layer->n_experts; e++)
        grads->experts[e] = take_expert(layer, layer->d_ff, &next);
    if (layer->d_shared_ff > 0)
        grads->shared = take_expert(layer, layer->d_shared_ff, &next);
}

enum vkmoe_status moe_ref_grads_create(const vkmoe_host *host, const struct moe_layer *layer,
                                       uint32_t max_tokens, struct moe_ref_grads **out)
{
    enum vkmoe_status status;
    struct moe_ref_grads *grads = NULL;
    const vkmoe_layer_desc *desc = &layer->desc;
    uint64_t n_x = (uint64_t) max_tokens * desc->d_model; // 32 bits by 25
    *out = NULL;
    TRY(moe_try_alloc(host, sizeof *grads, "the oracle's gradients", &grads));
    grads->host = host;
    grads->n_params = count_params(desc);
    TRY(moe_try_alloc(host, desc->n_experts * sizeof *grads->experts,
                      "the oracle's gradients of experts", &grads->experts));
    TRY(moe_try_alloc(host, desc->d_out * sizeof *grads->d_v, "the oracle's work memory",
                      &grads->d_v));
    grads->memory = moe_alloc_array(host, n_x + grads->n_params, sizeof *grads->memory);
    if (!grads->memory) {
        status = moe_fail(VKMOE_E_MEMORY, "the oracle's gradients: %llu f64",
                          (unsigned long long) (n_x + grads->n_params));
        goto fail;
    }
    lay_out(grads, desc, n_x);
    *out = grads;
    return VKMOE_OK;
fail:
    moe_ref_grads_destroy(grads);
    return status;
}

void moe_ref_grads_destroy(struct moe_ref_grads *grads)
{
    if (!grads)
        return;
    moe_free(grads->host, grads->memory);
    moe_free(grads->host, grads->d_v);
    moe_free(grads->host, grads->experts);
    moe_free(grads->host, grads);
}

// ---- activations ------------------------------------------------------------------------------

// sigmoid'(v) = s (1 - s), with 1 - s = sigmoid(-v) so that nothing cancels.
static double sigmoid_derivative(double v)
{
    return moe_ref_sigmoid(v) * moe_ref_sigmoid(-v);
}

// gelu_tanh = v / 2 (1 + tanh u), u = c (v + a v^3), with Dtanh = 1 / cosh^2 = 4 sigmoid'(2u):
// (1 + tanh u) / 2 + v / 2 * 4 sigmoid'(2u) * c (1 + 3 a v^2).
static double gelu_tanh_derivative(double v)
{
    const double a = 0.044715, c = 0.79788456080286535588; // sqrt(2 / pi)
    double u = c * (v + a * v * v * v);
    return (1 + tanh(u)) / 2 + 2 * v * sigmoid_derivative(2 * u) * c * (1 + 3 * a * v * v);
}

double moe_ref_act_derivative(const vkmoe_layer_desc *layer, enum vkmoe_act act, double v)
{
    const double sqrt_half = 0.70710678118654752440, one_over_sqrt_2_pi = 0.39894228040143267794;
    double alpha = (double) layer->act_alpha;
    switch (act) {
    case VKMOE_ACT_NONE:
        return 1;
    case VKMOE_ACT_SILU: // s + v alpha s (1 - s), s = sigmoid(alpha v)
        return moe_ref_sigmoid(alpha * v) + v * alpha * sigmoid_derivative(alpha * v);
    case VKMOE_ACT_GELU_ERF: // Phi(v) + v phi(v) of the normal distribution
        return (1 + erf(v * sqrt_half)) / 2 + v * exp(-v * v / 2) * one_over_sqrt_2_pi;
    case VKMOE_ACT_GELU_TANH:
        return gelu_tanh_derivative(v);
    case VKMOE_ACT_RELU:
        return isnan(v) ? v : v > 0;
    case VKMOE_ACT_RELU2:
        return v < 0 ? 0 : 2 * v; // NaN stays NaN
    case VKMOE_ACT_SIGMOID:
        return sigmoid_derivative(v);
    case VKMOE_ACT_TANH:
        return 4 * sigmoid_derivative(2 * v);
    case VKMOE_ACT_SITU:
        break; // refused by moe_layer_init
    }
    return NAN;
}

// ---- experts ----------------------------------------------------------------------------------

// to += factor * from
static void add_scaled(double factor, const double *from, uint32_t n, double *to)
{
    for (uint32_t i = 0; i < n; i++)
        to[i] += factor * from[i];
}

// A row of an affine map, z = <w, x> + b with derivative d_z: Dw += d_z x, Db += d_z, Dx += d_z w.
// w, d_w (n_rows, n); d_b NULL: no bias.
static void affine_row(const float *w, uint64_t row, uint32_t n, const double *x, double d_z,
                       double *d_w, double *d_b, double *d_x)
{
    add_scaled(d_z, x, n, d_w + row * n);
    if (d_b)
        d_b[row] += d_z;
    for (uint32_t i = 0; i < n; i++)
        d_x[i] += d_z * (double) w[row * n + i];
}

// One expert on one token.
struct use {
    const vkmoe_layer_desc *layer;
    const struct moe_ref_expert *weights;
    struct moe_ref_expert_grads *grads;
    uint32_t d_ff;
    const double *x, *h; // in: token, hidden activations
    double factor;       // f's in y, so that Df = factor * dy
    double *d_x;
};

// Df -> Dv in d_v, and the gradients of the down half.
static void expert_out(const struct use *use, const double *dy, double *d_v)
{
    const vkmoe_layer_desc *layer = use->layer;
    for (uint32_t o = 0; o < layer->d_out; o++) {
        double v = moe_ref_dot(use->weights->down, use->weights->down_bias, o, use->d_ff, use->h);
        d_v[o] = use->factor * dy[o] * moe_ref_act_derivative(layer, layer->act_out, v);
        add_scaled(d_v[o], use->h, use->d_ff, use->grads->down + (uint64_t) o * use->d_ff);
        if (use->grads->down_bias)
            use->grads->down_bias[o] += d_v[o];
    }
}

// Dv -> gradients of the gate and up half and of x.
static void expert_in(const struct use *use, const double *d_v)
{
    const vkmoe_layer_desc *layer = use->layer;
    const struct moe_ref_expert *w = use->weights;
    struct moe_ref_expert_grads *g = use->grads;
    uint32_t n = layer->d_model;
    for (uint32_t i = 0; i < use->d_ff; i++) {
        double d_h = 0, d_up;
        for (uint32_t o = 0; o < layer->d_out; o++)
            d_h += d_v[o] * (double) w->down[(uint64_t) o * use->d_ff + i];
        double up = moe_ref_dot(w->up, w->up_bias, i, n, use->x);
        if (layer->gated) {
            double gate = moe_ref_dot(w->gate, w->gate_bias, i, n, use->x);
            double d_gate = d_h * up * moe_ref_act_derivative(layer, layer->act, gate);
            affine_row(w->gate, i, n, use->x, d_gate, g->gate, g->gate_bias, use->d_x);
            d_up = d_h * moe_ref_act(layer, layer->act, gate);
        } else {
            d_up = d_h * moe_ref_act_derivative(layer, layer->act, up);
        }
        affine_row(w->up, i, n, use->x, d_up, g->up, g->up_bias, use->d_x);
    }
}

// ---- the router -------------------------------------------------------------------------------

bool moe_ref_gates_are_constant(const vkmoe_layer_desc *layer)
{
    bool divided_by_itself = layer->norm != VKMOE_NORM_NONE && layer->norm_eps == 0;
    return layer->top_k == 1 &&
           (layer->gate_source == VKMOE_GATE_SOFTMAX_SELECTED || divided_by_itself);
}

// p = softmax(l) with derivative d_p: Dl_i = p_i (Dp_i - sum_j p_j Dp_j). Works in place.
static void softmax_backward(const double *p, uint32_t n, const double *d_p, double *d_l)
{
    double mean = 0;
    for (uint32_t i = 0; i < n; i++)
        mean += p[i] * d_p[i];
    for (uint32_t i = 0; i < n; i++)
        d_l[i] = p[i] * (d_p[i] - mean);
}

// w_k = routed_scale q_k / D with D = 1, S + eps or max(S, eps), S = sum q:
//   D constant:  Dq_k = routed_scale Dw_k / D
//   otherwise:   Dq_k = routed_scale (Dw_k - sum_j Dw_j q_j / D) / D
// At S = eps the maximum is S, as in the forward run. q is before the norm; d: Dw in, Dq out.
static void normalise_backward(const vkmoe_layer_desc *layer, const double *q, double *d)
{
    double sum = 0, mean = 0, eps = (double) layer->norm_eps, divisor = 1;
    bool constant = true;
    for (uint32_t k = 0; k < layer->top_k; k++)
        sum += q[k];
    switch (layer->norm) {
    case VKMOE_NORM_NONE:
        break;
    case VKMOE_NORM_SUM_PLUS_EPS:
        divisor = sum + eps;
        constant = false;
        break;
    case VKMOE_NORM_MAX_SUM_EPS:
        constant = sum < eps;
        divisor = constant ? eps : sum;
        break;
    }
    for (uint32_t k = 0; k < layer->top_k && !constant; k++)
        mean += d[k] * q[k] / divisor;
    for (uint32_t k = 0; k < layer->top_k; k++)
        d[k] = (double) layer->routed_scale * (d[k] - mean) / divisor;
}

void moe_ref_route_backward(const vkmoe_layer_desc *layer, const double *logits, const double *ids,
                            double *d_gates, double *d_logits)
{
    double scores[MOE_MAX_EXPERTS], q[MOE_MAX_EXPERTS];
    const bool of_selected = layer->gate_source == VKMOE_GATE_SOFTMAX_SELECTED;
    for (uint32_t e = 0; e < layer->n_experts; e++)
        d_logits[e] = 0;
    if (moe_ref_gates_are_constant(layer))
        return;
    moe_ref_score(layer->score, logits, layer->n_experts, scores);
    for (uint32_t k = 0; k < layer->top_k; k++)
        q[k] = (of_selected ? logits : scores)[(uint32_t) ids[k]];
    if (of_selected)
        moe_ref_score(VKMOE_SCORE_SOFTMAX, q, layer->top_k, q);

    normalise_backward(layer, q, d_gates);
    if (of_selected)
        softmax_backward(q, layer->top_k, d_gates, d_gates);
    for (uint32_t k = 0; k < layer->top_k; k++)
        d_logits[(uint32_t) ids[k]] = d_gates[k];
    if (of_selected)
        return;
    if (layer->score == VKMOE_SCORE_SOFTMAX) { // unselected scores count in the sum
        softmax_backward(scores, layer->n_experts, d_logits, d_logits);
        return;
    }
    for (uint32_t e = 0; e < layer->n_experts && layer->score == VKMOE_SCORE_SIGMOID; e++)
        d_logits[e] *= sigmoid_derivative(logits[e]);
}

// ---- tokens -----------------------------------------------------------------------------------

struct pass {
    const struct moe_ref_run *run;
    const vkmoe_layer_desc *layer;
    const struct moe_ref_weights *weights;
    struct moe_ref_grads *grads;
};

static double dot(const double *a, const double *b, uint32_t n)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

// The routed experts of token t, then its router.
static void routed_backward(const struct pass *pass, uint64_t t, const double *dy)
{
    const vkmoe_layer_desc *layer = pass->layer;
    double *const *values = pass->run->values;
    const double *x = values[MOE_VALUE_X] + t * layer->d_model;
    const double *ids = values[MOE_VALUE_IDS] + t * layer->top_k;
    double *d_x = pass->grads->x + t * layer->d_model;
    double scale = (double) layer->out_scale * (double) layer->c_routed;
    double d_gates[MOE_MAX_EXPERTS], logits[MOE_MAX_EXPERTS], d_logits[MOE_MAX_EXPERTS];
    for (uint32_t k = 0; k < layer->top_k; k++) {
        uint64_t slot = t * layer->top_k + k;
        uint32_t e = (uint32_t) ids[k];
        struct use use = {layer, &pass->weights->experts[e], &pass->grads->experts[e], layer->d_ff,
                          x, values[MOE_VALUE_H] + slot * layer->d_ff,
                          scale * values[MOE_VALUE_GATES][slot], d_x};
        expert_out(&use, dy, pass->grads->d_v);
        expert_in(&use, pass->grads->d_v);
        d_gates[k] = scale * dot(dy, values[MOE_VALUE_F] + slot * layer->d_out, layer->d_out);
    }
    if (moe_ref_gates_are_constant(layer))
        return; // exactly 0, whatever dy is
    for (uint32_t e = 0; e < layer->n_experts; e++)
        logits[e] = moe_ref_dot(pass->weights->router, pass->weights->router_bias, e,
                                layer->d_model, x);
    moe_ref_route_backward(layer, logits, ids, d_gates, d_logits);
    for (uint32_t e = 0; e < layer->n_experts; e++)
        affine_row(pass->weights->router, e, layer->d_model, x, d_logits[e], pass->grads->router,
                   pass->grads->router_bias, d_x);
}

// g = sigmoid(<w, x>): D<w, x> = Dg g (1 - g).
static void shared_backward(const struct pass *pass, uint64_t t, const double *dy)
{
    const vkmoe_layer_desc *layer = pass->layer;
    double *const *values = pass->run->values;
    const double *x = values[MOE_VALUE_X] + t * layer->d_model;
    const double *gate = values[MOE_VALUE_SHARED_GATE];
    double *d_x = pass->grads->x + t * layer->d_model;
    double scale = (double) layer->out_scale * (double) layer->c_shared;
    struct use use = {layer, &pass->weights->shared, &pass->grads->shared, layer->d_shared_ff, x,
                      values[MOE_VALUE_H_SHARED] + t * layer->d_shared_ff,
                      scale * (gate ? gate[t] : 1), d_x};
    expert_out(&use, dy, pass->grads->d_v);
    expert_in(&use, pass->grads->d_v);
    if (!gate)
        return;
    double d_gate = scale * dot(dy, values[MOE_VALUE_F_SHARED] + t * layer->d_out, layer->d_out);
    double z = moe_ref_dot(pass->weights->shared_gate, NULL, 0, layer->d_model, x);
    affine_row(pass->weights->shared_gate, 0, layer->d_model, x, d_gate * sigmoid_derivative(z),
               pass->grads->shared_gate, NULL, d_x);
}

void moe_ref_backward(const struct moe_ref_run *run, const struct moe_graph *graph,
                      const struct moe_ref_weights *weights, uint32_t n_tokens, const double *dy,
                      struct moe_ref_grads *grads)
{
    const vkmoe_layer_desc *layer = &graph->layer.desc;
    const struct pass pass = {run, layer, weights, grads};
    for (uint64_t i = 0; i < (uint64_t) n_tokens * layer->d_model; i++)
        grads->x[i] = 0;
    for (uint64_t i = 0; i < grads->n_params; i++)
        grads->router[i] = 0; // where the parameters begin
    for (uint64_t t = 0; t < n_tokens; t++) {
        routed_backward(&pass, t, dy + t * layer->d_out);
        if (layer->d_shared_ff > 0)
            shared_backward(&pass, t, dy + t * layer->d_out);
    }
}
