// SPDX-License-Identifier: MIT
// Weights of fixed experts, learned online: include/vkmoe/online.h has the formulas.
#include <vkmoe/online.h>

#include "base/desc.h"
#include "base/host.h"
#include "base/status.h"

#include <math.h>

struct vkmoe_online {
    vkmoe_host host;
    vkmoe_online_desc desc;
    double n_rows;
    double *log_weights; // (n_experts), of the weights for the next row; their exp sum to 1
    double *squares;     // (n_experts, n_outputs) of the errors so far; gaussian, else NULL
    double *log_p;       // (n_experts) of the row at hand
    double *log_route;   // (n_experts) log_weights with the row's prior
};

// How far a sum of probabilities may be from 1: those of a softmax in f16 are within it.
static const double probability_slack = 1e-3;

static const double tau = 6.283185307179586476925286766559;

// ---- sums of logarithms ----------------------------------------------------------------------

// ln(e^a + e^b)
static double log_add(double a, double b)
{
    double max = fmax(a, b);
    return max == -INFINITY ? max : max + log1p(exp(fmin(a, b) - max));
}

// ln sum_i e^(v_i); -INFINITY when there is nothing.
static double log_sum(const double *v, uint32_t n)
{
    double max = -INFINITY, sum = 0;
    for (uint32_t i = 0; i < n; i++)
        max = fmax(max, v[i]);
    if (max == -INFINITY)
        return max;
    for (uint32_t i = 0; i < n; i++)
        sum += exp(v[i] - max);
    return max + log(sum);
}

// ---- the object ------------------------------------------------------------------------------

static bool in_unit(double v)
{
    return v >= 0 && v <= 1;
}

// Variances of it, and of it and many rows, are normal numbers.
static bool in_range(double v)
{
    return v >= 1e-100 && v <= 1e100;
}

static enum vkmoe_status check_desc(const vkmoe_online_desc *d)
{
    if (d->kind != VKMOE_ONLINE_CATEGORICAL && d->kind != VKMOE_ONLINE_GAUSSIAN)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_online_desc.kind = %d", (int) d->kind);
    if (d->n_experts == 0 || d->n_outputs == 0)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_online_desc: %u experts, %u outputs: at least 1",
                        d->n_experts, d->n_outputs);
    if (!in_unit(d->lambda))
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_online_desc.lambda = %g: 0 to 1", d->lambda);
    if (!in_unit(d->alpha))
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_online_desc.alpha = %g: 0 to 1", d->alpha);
    if (!in_range(d->variance))
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_online_desc.variance = %g: 1e-100 to 1e100",
                        d->variance);
    if (!in_range(d->variance_rows))
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_online_desc.variance_rows = %g: 1e-100 to 1e100",
                        d->variance_rows);
    return VKMOE_OK;
}

static enum vkmoe_status set_weights(vkmoe_online *o, const double *weights)
{
    const uint32_t n = o->desc.n_experts;
    for (uint32_t i = 0; i < n; i++) {
        double w = weights ? weights[i] : 1;
        if (!(w >= 0 && isfinite(w)))
            return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_online_desc.weights[%u] = %g: at least 0", i,
                            w);
        o->log_weights[i] = log(w);
    }
    const double sum = log_sum(o->log_weights, n);
    if (sum == -INFINITY)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_online_desc.weights: all %u are 0", n);
    for (uint32_t i = 0; i < n; i++)
        o->log_weights[i] -= sum;
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_online_create(const vkmoe_online_desc *desc, vkmoe_online **out)
{
    enum vkmoe_status status;
    vkmoe_online *o = NULL;
    vkmoe_online_desc d = vkmoe_online_desc_init();
    vkmoe_host host;
    if (!desc || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_online_create: %s is NULL", desc ? "out" : "desc");
    *out = NULL;
    TRY(moe_desc_copy(&d, sizeof d, desc, "vkmoe_online_desc"));
    TRY(check_desc(&d));
    TRY(moe_host_init(&host, d.host));
    TRY(moe_try_alloc(&host, sizeof *o, "online weights", &o));
    o->host = host;
    o->desc = d;
    size_t n = d.n_experts;
    TRY(moe_try_alloc(&host, n * sizeof(double), "online weights", &o->log_weights));
    TRY(moe_try_alloc(&host, n * sizeof(double), "online weights", &o->log_p));
    TRY(moe_try_alloc(&host, n * sizeof(double), "online weights", &o->log_route));
    if (d.kind == VKMOE_ONLINE_GAUSSIAN) {
        size_t size;
        if (__builtin_mul_overflow(n * sizeof(double), (size_t) d.n_outputs, &size))
            size = SIZE_MAX; // no memory for that, says the allocation
        TRY(moe_try_alloc(&host, size, "running variances", &o->squares));
    }
    TRY(set_weights(o, d.weights));
    o->desc.host = NULL;
    o->desc.weights = NULL;
    *out = o;
    return VKMOE_OK;

fail:
    vkmoe_online_destroy(o);
    return status;
}

void vkmoe_online_destroy(vkmoe_online *online)
{
    if (!online)
        return;
    const vkmoe_host host = online->host;
    moe_free(&host, online->log_weights);
    moe_free(&host, online->log_p);
    moe_free(&host, online->log_route);
    moe_free(&host, online->squares);
    moe_free(&host, online);
}

// ---- weights and predictions -----------------------------------------------------------------

// The logarithms of the weights of a row with this prior.
static enum vkmoe_status route(const vkmoe_online *o, const double *prior, double *log_weights)
{
    const uint32_t n = o->desc.n_experts;
    memcpy(log_weights, o->log_weights, n * sizeof *log_weights);
    if (!prior)
        return VKMOE_OK;
    for (uint32_t i = 0; i < n; i++) {
        if (!(prior[i] >= 0 && isfinite(prior[i])))
            return moe_fail(VKMOE_E_DATA, "the prior of expert %u is %g: at least 0", i, prior[i]);
        log_weights[i] += log(prior[i]);
    }
    double sum = log_sum(log_weights, n);
    if (sum == -INFINITY)
        return moe_fail(VKMOE_E_DATA, "the prior is 0 for every expert that has a weight");
    for (uint32_t i = 0; i < n; i++)
        log_weights[i] -= sum;
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_online_route(const vkmoe_online *online, const double *prior,
                                     double *weights)
{
    if (!online || !weights)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_online_route: %s is NULL",
                        online ? "weights" : "online");
    enum vkmoe_status status = route(online, prior, online->log_route);
    for (uint32_t i = 0; i < online->desc.n_experts && status == VKMOE_OK; i++)
        weights[i] = exp(online->log_route[i]);
    return status;
}

static enum vkmoe_status check_outputs(const vkmoe_online *o, const double *outputs)
{
    const bool categorical = o->desc.kind == VKMOE_ONLINE_CATEGORICAL;
    for (uint32_t i = 0; i < o->desc.n_experts; i++) {
        double sum = 0;
        for (uint32_t d = 0; d < o->desc.n_outputs; d++) {
            double v = *outputs++;
            if (!isfinite(v) || (categorical && v < 0))
                return moe_fail(VKMOE_E_DATA, "output %u of expert %u is %g: no %s", d, i, v,
                                categorical ? "probability" : "mean");
            sum += v;
        }
        if (categorical && !(fabs(sum - 1) <= probability_slack))
            return moe_fail(VKMOE_E_DATA, "the probabilities of expert %u have the sum %g", i, sum);
    }
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_online_predict(const vkmoe_online *online, const double *outputs,
                                       const double *prior, double *y)
{
    enum vkmoe_status status;
    if (!online || !outputs || !y)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_online_predict: %s is NULL",
                        !online ? "online" : !outputs ? "outputs" : "y");
    const vkmoe_online_desc *desc = &online->desc;
    TRY(check_outputs(online, outputs));
    TRY(route(online, prior, online->log_route));
    memset(y, 0, desc->n_outputs * sizeof *y);
    for (uint32_t i = 0; i < desc->n_experts; i++) {
        double weight = exp(online->log_route[i]);
        for (uint32_t d = 0; d < desc->n_outputs; d++)
            y[d] += weight * outputs[(size_t) i * desc->n_outputs + d];
    }

fail:
    return status;
}

// ---- learning --------------------------------------------------------------------------------

// ln p_i(y) of a row whose outputs and target are finite.
static enum vkmoe_status log_density(const vkmoe_online *o, uint32_t i, const double *outputs,
                                     const double *target, double *out)
{
    const vkmoe_online_desc *desc = &o->desc;
    const double rows = desc->variance_rows + o->n_rows;
    const size_t at = (size_t) i * desc->n_outputs;
    *out = 0;
    for (uint32_t d = 0; d < desc->n_outputs; d++) {
        double error = target[d] - outputs[at + d], before = o->squares[at + d];
        if (!isfinite(before + error * error))
            return moe_fail(VKMOE_E_DATA, "expert %u: the square of its error %g overflows", i,
                            error);
        double variance = (desc->variance_rows * desc->variance + before) / rows;
        *out -= (log(tau) + log(variance) + error * error / variance) / 2;
    }
    return VKMOE_OK;
}

static enum vkmoe_status fill_log_p(vkmoe_online *o, const vkmoe_online_row *row)
{
    enum vkmoe_status status = VKMOE_OK;
    const vkmoe_online_desc *desc = &o->desc;
    if (desc->kind == VKMOE_ONLINE_CATEGORICAL) {
        if (row->label < 0 || (uint32_t) row->label >= desc->n_outputs)
            return moe_fail(VKMOE_E_DATA, "label %d of %u classes", (int) row->label,
                            desc->n_outputs);
        for (uint32_t i = 0; i < desc->n_experts; i++)
            o->log_p[i] = log(row->outputs[(size_t) i * desc->n_outputs + (uint32_t) row->label]);
        return VKMOE_OK;
    }
    if (!row->target)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_online_row.target is NULL");
    for (uint32_t d = 0; d < desc->n_outputs; d++) {
        if (!isfinite(row->target[d]))
            return moe_fail(VKMOE_E_DATA, "target %u is %g", d, row->target[d]);
    }
    for (uint32_t i = 0; i < desc->n_experts; i++)
        TRY(log_density(o, i, row->outputs, row->target, &o->log_p[i]));

fail:
    return status;
}

// w_i^lambda p_i over its sum. 0^0 is 1. Without any p_i the weights stay.
static void apply_bayes(vkmoe_online *o)
{
    const uint32_t n = o->desc.n_experts;
    for (uint32_t i = 0; i < n; i++) {
        double power = o->desc.lambda > 0 ? o->desc.lambda * o->log_weights[i] : 0;
        o->log_p[i] += power;
    }
    const double sum = log_sum(o->log_p, n);
    for (uint32_t i = 0; i < n && sum > -INFINITY; i++)
        o->log_weights[i] = o->log_p[i] - sum;
}

static void apply_share(vkmoe_online *o)
{
    const double keep = log1p(-o->desc.alpha), part = log(o->desc.alpha / o->desc.n_experts);
    for (uint32_t i = 0; i < o->desc.n_experts && o->desc.alpha > 0; i++)
        o->log_weights[i] = log_add(o->log_weights[i] + keep, part);
}

static void add_squares(vkmoe_online *o, const vkmoe_online_row *row)
{
    const uint32_t width = o->desc.n_outputs;
    for (uint32_t i = 0; i < o->desc.n_experts && o->squares; i++) {
        for (uint32_t d = 0; d < width; d++) {
            double error = row->target[d] - row->outputs[(size_t) i * width + d];
            o->squares[(size_t) i * width + d] += error * error;
        }
    }
    o->n_rows++;
}

enum vkmoe_status vkmoe_online_update_weights(vkmoe_online *online, const vkmoe_online_row *row,
                                              double *loss)
{
    enum vkmoe_status status;
    vkmoe_online_row r = vkmoe_online_row_init();
    if (!online || !row)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_online_update_weights: %s is NULL",
                        online ? "row" : "online");
    TRY(moe_desc_copy(&r, sizeof r, row, "vkmoe_online_row"));
    if (!r.outputs)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_online_row.outputs is NULL");
    TRY(check_outputs(online, r.outputs));
    TRY(route(online, r.prior, online->log_route));
    TRY(fill_log_p(online, &r));
    for (uint32_t i = 0; i < online->desc.n_experts; i++) {
        online->log_route[i] += online->log_p[i];
        if (r.expert_losses)
            r.expert_losses[i] = 0 - online->log_p[i]; // never -0
    }
    if (loss)
        *loss = 0 - log_sum(online->log_route, online->desc.n_experts);
    apply_bayes(online);
    apply_share(online);
    add_squares(online, &r);

fail:
    return status;
}

// ---- state -----------------------------------------------------------------------------------

// n_rows, log_weights, squares
static size_t n_squares(const vkmoe_online *o)
{
    return o->squares ? (size_t) o->desc.n_experts * o->desc.n_outputs : 0;
}

size_t vkmoe_online_state_size(const vkmoe_online *online)
{
    return online ? 1 + online->desc.n_experts + n_squares(online) : 0;
}

enum vkmoe_status vkmoe_online_save(const vkmoe_online *online, double *state)
{
    if (!online || !state)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_online_save: %s is NULL",
                        online ? "state" : "online");
    const uint32_t n = online->desc.n_experts;
    state[0] = online->n_rows;
    memcpy(state + 1, online->log_weights, n * sizeof *state);
    if (online->squares)
        memcpy(state + 1 + n, online->squares, n_squares(online) * sizeof *state);
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_online_restore(vkmoe_online *online, const double *state)
{
    if (!online || !state)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_online_restore: %s is NULL",
                        online ? "state" : "online");
    const uint32_t n = online->desc.n_experts;
    const double *weights = state + 1, *squares = weights + n;
    if (!(state[0] >= 0 && isfinite(state[0]) && state[0] == floor(state[0])))
        return moe_fail(VKMOE_E_DATA, "online state: %g rows", state[0]);
    for (uint32_t i = 0; i < n; i++) {
        if (isnan(weights[i]) || weights[i] == INFINITY)
            return moe_fail(VKMOE_E_DATA, "online state: the weight of expert %u is e^%g", i,
                            weights[i]);
    }
    // Their logarithms are off by a few roundings each.
    if (!(fabs(log_sum(weights, n)) <= 1e-9))
        return moe_fail(VKMOE_E_DATA, "online state: the weights have the sum e^%g",
                        log_sum(weights, n));
    for (size_t i = 0; i < n_squares(online); i++) {
        if (!(squares[i] >= 0 && isfinite(squares[i])))
            return moe_fail(VKMOE_E_DATA, "online state: sum of squares %zu is %g", i, squares[i]);
    }
    online->n_rows = state[0];
    memcpy(online->log_weights, weights, n * sizeof *weights);
    if (online->squares)
        memcpy(online->squares, squares, n_squares(online) * sizeof *squares);
    return VKMOE_OK;
}
