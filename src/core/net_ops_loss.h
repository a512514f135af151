// SPDX-License-Identifier: MIT
// Part of core/net_ops.h: losses. A gradient that is not wanted has no tensor.
#ifndef MOE_CORE_NET_OPS_LOSS_H
#define MOE_CORE_NET_OPS_LOSS_H

static MOE_REAL loss_scale(const struct moe_net_call *call)
{
    return R(call->args->loss_scale) * R(call->op->alpha);
}

// The largest of n logits, and log sum exp(l - largest).
static void log_sum(const MOE_REAL *l, uint32_t n, MOE_REAL *most, MOE_REAL *log_of_sum)
{
    MOE_REAL sum = 0;
    *most = l[0];
    for (uint32_t i = 1; i < n; i++)
        *most = MOE_MATH(fmax)(*most, l[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += MOE_MATH(exp)(l[i] - *most);
    *log_of_sum = MOE_MATH(log)(sum);
}

// v_c t_c of cross entropy's row r, smoothed.
static MOE_REAL class_target(const struct moe_net_call *call, uint64_t r, uint32_t c)
{
    const MOE_REAL beta = R(call->op->beta);
    MOE_REAL t = call->in[1].type == MOE_NET_I32 ? R((uint32_t) in_int(call, 1)[r] == c)
                                                 : in_row(call, 1, r)[c];
    MOE_REAL v = call->in[2].data ? in_row(call, 2, 0)[c] : 1;
    return v * (t * (1 - beta) + beta / R(call->in[0].width));
}

// With u_c = v_c t_c: loss = -sum_c u_c log p_c, d_c = p_c sum_j u_j - u_c.
static void cross_entropy(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const MOE_REAL scale = loss_scale(call);
    const uint32_t n = call->in[0].width;
    for (uint64_t r = begin; r < end; r++) {
        const MOE_REAL *l = in_row(call, 0, r);
        MOE_REAL most, log_of_sum, loss = 0, sum = 0;
        log_sum(l, n, &most, &log_of_sum);
        for (uint32_t c = 0; c < n; c++) {
            MOE_REAL u = class_target(call, r, c);
            loss -= u * (l[c] - most - log_of_sum);
            sum += u;
        }
        *out_row(call, 0, r) = scale * loss;
        for (uint32_t c = 0; c < n && call->out[1].data; c++) {
            MOE_REAL p = MOE_MATH(exp)(l[c] - most - log_of_sum);
            put(call, scale * (p * sum - class_target(call, r, c)), out_row(call, 1, r) + c);
        }
    }
}

// A weighted mean of ones may be rounded past 1: that is 1. What is further out is no probability,
// and no number.
static MOE_REAL as_probability(MOE_REAL y)
{
    const MOE_REAL rounding = R(1e-3);
    if (y > 1)
        return y <= 1 + rounding ? 1 : R(NAN);
    if (y < 0)
        return y >= -rounding ? 0 : R(NAN);
    return y;
}

static MOE_REAL point_value(enum moe_net_point kind, MOE_REAL delta, MOE_REAL y, MOE_REAL t)
{
    const MOE_REAL d = y - t, size = MOE_MATH(fabs)(d);
    switch (kind) {
    case MOE_NET_POINT_MSE:
        return d * d;
    case MOE_NET_POINT_HUBER:
        return size <= delta ? d * d / 2 : delta * (size - delta / 2);
    case MOE_NET_POINT_BCE: {
        MOE_REAL p = as_probability(y);
        MOE_REAL log_y = MOE_MATH(log)(p), log_not = MOE_MATH(log1p)(-p);
        return -(t * (log_y < -100 ? -100 : log_y) + (1 - t) * (log_not < -100 ? -100 : log_not));
    }
    case MOE_NET_POINT_BCE_LOGITS: // -t log s(y) - (1 - t) log s(-y)
        return t * softplus(-y) + (1 - t) * softplus(y);
    }
    return NAN;
}

// Of the binary cross entropy of probabilities y (1 - y) is at least 1e-12, as in PyTorch.
static MOE_REAL point_derivative(enum moe_net_point kind, MOE_REAL delta, MOE_REAL y, MOE_REAL t)
{
    const MOE_REAL d = y - t;
    switch (kind) {
    case MOE_NET_POINT_MSE:
        return 2 * d;
    case MOE_NET_POINT_HUBER:
        return d > delta ? delta : d < -delta ? -delta : d;
    case MOE_NET_POINT_BCE: {
        MOE_REAL p = as_probability(y), variance = p * (1 - p);
        return (p - t) / (variance < R(1e-12) ? R(1e-12) : variance);
    }
    case MOE_NET_POINT_BCE_LOGITS:
        return sigmoid(y) - t;
    }
    return NAN;
}

static void point_loss(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const MOE_REAL scale = loss_scale(call), delta = R(call->op->beta);
    const enum moe_net_point kind = (enum moe_net_point) call->op->n;
    for (uint64_t r = begin; r < end; r++) {
        const MOE_REAL *y = in_row(call, 0, r), *t = in_row(call, 1, r);
        MOE_REAL sum = 0;
        for (uint32_t c = 0; c < call->in[0].width; c++) {
            sum += point_value(kind, delta, y[c], t[c]);
            if (call->out[1].data)
                put(call, scale * point_derivative(kind, delta, y[c], t[c]),
                    out_row(call, 1, r) + c);
        }
        *out_row(call, 0, r) = scale * sum;
    }
}

// ---- mixtures ---------------------------------------------------------------------------------

// log p of the target of token t by a slot: of softmax(f), or of a Gaussian around f.
static MOE_REAL slot_log_p(const struct moe_net_call *call, uint64_t t, uint64_t slot)
{
    const MOE_REAL *f = in_row(call, 0, slot);
    const uint32_t n = call->in[0].width;
    const MOE_REAL variance = R(call->op->beta), two_pi = R(6.28318530717958647693);
    if (call->op->n == 0) {
        MOE_REAL most, log_of_sum;
        log_sum(f, n, &most, &log_of_sum);
        return f[(uint32_t) in_int(call, 2)[t]] - most - log_of_sum;
    }
    MOE_REAL squares = 0;
    for (uint32_t c = 0; c < n; c++)
        squares += (in_row(call, 2, t)[c] - f[c]) * (in_row(call, 2, t)[c] - f[c]);
    return -squares / (2 * variance) - R(n) / 2 * MOE_MATH(log)(two_pi * variance);
}

// The gradient by f of a slot: factor times d log p / df.
static void slot_gradient(const struct moe_net_call *call, uint64_t t, uint64_t slot,
                          MOE_REAL factor)
{
    const MOE_REAL *f = in_row(call, 0, slot);
    const uint32_t n = call->in[0].width;
    MOE_REAL most = 0, log_of_sum = 0;
    if (call->op->n == 0)
        log_sum(f, n, &most, &log_of_sum);
    for (uint32_t c = 0; c < n; c++) {
        MOE_REAL d = call->op->n == 0 ? R((uint32_t) in_int(call, 2)[t] == c) -
                                            MOE_MATH(exp)(f[c] - most - log_of_sum)
                                      : (in_row(call, 2, t)[c] - f[c]) / R(call->op->beta);
        put(call, factor * d, out_row(call, 1, slot) + c);
    }
}

static MOE_REAL slot_q(const struct moe_net_call *call, uint64_t t, uint64_t slot, MOE_REAL most)
{
    const MOE_REAL log_q = slot_log_p(call, t, slot) - most;
    return MOE_MATH(exp)(log_q > 80 ? 80 : log_q);
}

// Around the largest log(s_k p_k) = m, so that nothing underflows: q_k = p_k exp(-m), S = sum s_k
// q_k, loss = -m - log S, Ds_k = -q_k / S, Df_k = -(s_k q_k / S) D log p_k. A q_k of a slot whose s
// is about 0 may be large; it ends at e^80, an f32 number. Part: a token.
static void mixture_nll(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const MOE_REAL scale = loss_scale(call);
    const uint32_t top_k = call->op->top_k;
    for (uint64_t t = begin; t < end; t++) {
        MOE_REAL most = -INFINITY, sum = 0;
        for (uint64_t slot = t * top_k; slot < (t + 1) * top_k; slot++)
            most = MOE_MATH(fmax)(most, slot_log_p(call, t, slot) +
                                            MOE_MATH(log)(*in_row(call, 1, slot)));
        for (uint64_t slot = t * top_k; slot < (t + 1) * top_k; slot++)
            sum += *in_row(call, 1, slot) * slot_q(call, t, slot, most);
        *out_row(call, 0, t) = -scale * (most + MOE_MATH(log)(sum));
        for (uint64_t slot = t * top_k; slot < (t + 1) * top_k; slot++) {
            MOE_REAL d_s = -scale * slot_q(call, t, slot, most) / sum;
            if (call->out[1].data)
                slot_gradient(call, t, slot, d_s * *in_row(call, 1, slot));
            if (call->out[2].data)
                put(call, d_s, out_row(call, 2, slot));
        }
    }
}

// ---- of the router ----------------------------------------------------------------------------

static void z_loss(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    (void) begin, (void) end;
    const uint64_t n_tokens = call->in[0].rows;
    const uint32_t n = call->in[0].width;
    const MOE_REAL scale =
        R(call->args->aux_scale) * R(call->op->alpha) / R(n_tokens > 0 ? n_tokens : 1);
    MOE_REAL sum = 0;
    for (uint64_t t = 0; t < n_tokens; t++) {
        const MOE_REAL *l = in_row(call, 0, t);
        MOE_REAL most, log_of_sum;
        log_sum(l, n, &most, &log_of_sum);
        MOE_REAL lse = most + log_of_sum;
        sum += lse * lse;
        for (uint32_t c = 0; c < n && call->out[1].data; c++)
            put(call, 2 * scale * lse * MOE_MATH(exp)(l[c] - most - log_of_sum),
                out_row(call, 1, t) + c);
    }
    put(call, scale * sum, out_row(call, 0, 0));
}

#endif
