// SPDX-License-Identifier: MIT
// Part of core/net_ops.h: ops on elements and rows.
#ifndef MOE_CORE_NET_OPS_ROWS_H
#define MOE_CORE_NET_OPS_ROWS_H

// sum a[i] b[i]
static MOE_REAL dot(const MOE_REAL *a, const MOE_REAL *b, uint32_t n)
{
    MOE_REAL sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

// ---- activations ------------------------------------------------------------------------------

// As moe_ref_act, alpha being the factor inside silu.
static MOE_REAL act_value(enum vkmoe_act kind, MOE_REAL alpha, MOE_REAL v)
{
    const MOE_REAL sqrt_half = R(0.70710678118654752440), c = R(0.79788456080286535588);
    MOE_REAL positive = v < 0 ? 0 : v; // NaN stays NaN
    switch (kind) {
    case VKMOE_ACT_NONE:
        return v;
    case VKMOE_ACT_SILU:
        return v * sigmoid(alpha * v);
    case VKMOE_ACT_GELU_ERF:
        return v / 2 * (1 + MOE_MATH(erf)(v * sqrt_half));
    case VKMOE_ACT_GELU_TANH:
        return v / 2 * (1 + MOE_MATH(tanh)(c * (v + R(0.044715) * v * v * v)));
    case VKMOE_ACT_RELU:
        return positive;
    case VKMOE_ACT_RELU2:
        return positive * positive;
    case VKMOE_ACT_SIGMOID:
        return sigmoid(v);
    case VKMOE_ACT_TANH:
        return MOE_MATH(tanh)(v);
    case VKMOE_ACT_SITU:
        break; // no net has it
    }
    return NAN;
}

// sigmoid'(v) = s (1 - s), with 1 - s = sigmoid(-v) so that nothing cancels.
static MOE_REAL sigmoid_derivative(MOE_REAL v)
{
    return sigmoid(v) * sigmoid(-v);
}

// gelu_tanh = v / 2 (1 + tanh u), u = c (v + a v^3), with Dtanh = 4 sigmoid'(2u):
// (1 + tanh u) / 2 + v / 2 * 4 sigmoid'(2u) * c (1 + 3 a v^2).
static MOE_REAL gelu_tanh_derivative(MOE_REAL v)
{
    const MOE_REAL a = R(0.044715), c = R(0.79788456080286535588);
    MOE_REAL u = c * (v + a * v * v * v);
    MOE_REAL du = c * (1 + 3 * a * v * v);
    return (1 + MOE_MATH(tanh)(u)) / 2 + 2 * v * sigmoid_derivative(2 * u) * du;
}

// As moe_ref_act_derivative: at a kink the derivative from below.
static MOE_REAL act_derivative(enum vkmoe_act kind, MOE_REAL alpha, MOE_REAL v)
{
    const MOE_REAL sqrt_half = R(0.70710678118654752440), phi_0 = R(0.39894228040143267794);
    switch (kind) {
    case VKMOE_ACT_NONE:
        return 1;
    case VKMOE_ACT_SILU:
        return sigmoid(alpha * v) + v * alpha * sigmoid_derivative(alpha * v);
    case VKMOE_ACT_GELU_ERF:
        return (1 + MOE_MATH(erf)(v * sqrt_half)) / 2 + v * MOE_MATH(exp)(-v * v / 2) * phi_0;
    case VKMOE_ACT_GELU_TANH:
        return gelu_tanh_derivative(v);
    case VKMOE_ACT_RELU:
        return isnan(v) ? v : R(v > 0);
    case VKMOE_ACT_RELU2:
        return v < 0 ? 0 : 2 * v; // NaN stays NaN
    case VKMOE_ACT_SIGMOID:
        return sigmoid_derivative(v);
    case VKMOE_ACT_TANH:
        return 4 * sigmoid_derivative(2 * v);
    case VKMOE_ACT_SITU:
        break;
    }
    return NAN;
}

// Flat: the operands may have another shape.
static void act(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const struct moe_net_op *op = call->op;
    const uint32_t width = call->out[0].width;
    for (uint64_t i = begin * width; i < end * width; i++)
        out_row(call, 0, 0)[i] = act_value(op->act, R(op->beta), in_row(call, 0, 0)[i]);
}

static void act_backward(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const struct moe_net_op *op = call->op;
    const uint32_t width = call->out[0].width;
    const MOE_REAL *dy = in_row(call, 0, 0), *a = in_row(call, 1, 0);
    for (uint64_t i = begin * width; i < end * width; i++)
        put(call, dy[i] * act_derivative(op->act, R(op->beta), a[i]), out_row(call, 0, 0) + i);
}

static void glu(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const struct moe_net_op *op = call->op;
    for (uint64_t r = begin; r < end; r++) {
        const MOE_REAL *g = in_row(call, 0, r), *u = in_row(call, 1, r);
        for (uint32_t c = 0; c < call->out[0].width; c++)
            out_row(call, 0, r)[c] = act_value(op->act, R(op->beta), g[c]) * u[c];
    }
}

static void glu_backward(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const struct moe_net_op *op = call->op;
    for (uint64_t r = begin; r < end; r++) {
        const MOE_REAL *dh = in_row(call, 0, r), *g = in_row(call, 1, r), *u = in_row(call, 2, r);
        for (uint32_t c = 0; c < call->out[0].width; c++) {
            out_row(call, 0, r)[c] = dh[c] * u[c] * act_derivative(op->act, R(op->beta), g[c]);
            out_row(call, 1, r)[c] = dh[c] * act_value(op->act, R(op->beta), g[c]);
        }
    }
}

// ---- rows -------------------------------------------------------------------------------------

// The row that in[2] names, or `otherwise` without it.
static uint64_t row_index(const struct moe_net_call *call, uint64_t r, uint64_t otherwise)
{
    return call->in[2].data ? (uint64_t) in_int(call, 2)[r] : otherwise;
}

static void scale_rows(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const uint32_t *div = call->op->div;
    for (uint64_t r = begin; r < end; r++) {
        const MOE_REAL *a = in_row(call, 0, row_index(call, r / div[2], r / div[0]));
        MOE_REAL scale = R(call->op->alpha);
        if (call->in[1].data)
            scale *= *in_row(call, 1, r / div[1]);
        for (uint32_t c = 0; c < call->out[0].width; c++)
            put(call, scale * a[c], out_row(call, 0, r) + c);
    }
}

static void row_dot(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const uint32_t *div = call->op->div;
    for (uint64_t r = begin; r < end; r++) {
        const MOE_REAL *b = in_row(call, 1, row_index(call, r, r / div[1]));
        MOE_REAL sum = dot(in_row(call, 0, r / div[0]), b, call->in[0].width);
        put(call, R(call->op->alpha) * sum, out_row(call, 0, r));
    }
}

static void sum_slots(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const uint32_t top_k = call->op->top_k;
    for (uint64_t t = begin; t < end; t++) {
        for (uint32_t c = 0; c < call->out[0].width; c++) {
            MOE_REAL sum = 0;
            for (uint64_t slot = t * top_k; slot < (t + 1) * top_k; slot++) {
                MOE_REAL f = in_row(call, 0, slot)[c];
                sum += call->in[1].data ? *in_row(call, 1, slot / call->op->div[1]) * f : f;
            }
            put(call, R(call->op->alpha) * sum, out_row(call, 0, t) + c);
        }
    }
}

// p = softmax(scale a). The maximum passes over NaN; the sum does not, so one NaN reaches all of p.
static void softmax_row(const MOE_REAL *a, MOE_REAL scale, uint32_t n, MOE_REAL *p)
{
    MOE_REAL most = scale * a[0], sum = 0;
    for (uint32_t i = 1; i < n; i++)
        most = MOE_MATH(fmax)(most, scale * a[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += p[i] = MOE_MATH(exp)(scale * a[i] - most);
    for (uint32_t i = 0; i < n; i++)
        p[i] /= sum;
}

static void softmax(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    for (uint64_t r = begin; r < end; r++)
        softmax_row(in_row(call, 0, r), R(call->op->alpha), call->in[0].width, out_row(call, 0, r));
}

static void softmax_backward(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const uint32_t n = call->out[0].width;
    for (uint64_t r = begin; r < end; r++) {
        const MOE_REAL *dp = in_row(call, 0, r), *p = in_row(call, 1, r);
        MOE_REAL mean = dot(p, dp, n);
        for (uint32_t c = 0; c < n; c++)
            put(call, R(call->op->alpha) * p[c] * (dp[c] - mean), out_row(call, 0, r) + c);
    }
}

// ---- response share ---------------------------------------------------------------------------

// |r|_1 of a slot
static MOE_REAL response(const struct moe_net_view *r, uint64_t slot)
{
    MOE_REAL sum = 0;
    for (uint32_t i = 0; i < r->width; i++)
        sum += MOE_MATH(fabs)(row_of(r, slot)[i]);
    return sum;
}

static MOE_REAL responses(const struct moe_net_view *r, uint64_t t, uint32_t top_k)
{
    MOE_REAL sum = 0;
    for (uint64_t slot = t * top_k; slot < (t + 1) * top_k; slot++)
        sum += response(r, slot);
    return sum;
}

// Part: a token.
static void share(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const uint32_t top_k = call->op->top_k;
    for (uint64_t t = begin; t < end; t++) {
        MOE_REAL sum = responses(&call->in[0], t, top_k);
        for (uint64_t slot = t * top_k; slot < (t + 1) * top_k; slot++)
            *out_row(call, 0, slot) =
                sum == 0 ? 1 / R(top_k) : response(&call->in[0], slot) / (sum + R(call->op->eps));
    }
}

// w_k = n_k / D, D = sum n + eps: Dn_k = (Dw_k - sum_j Dw_j n_j / D) / D, Dr = Dn_k sign(r).
static void share_backward(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const uint32_t top_k = call->op->top_k, width = call->out[0].width;
    for (uint64_t t = begin; t < end; t++) {
        MOE_REAL sum = responses(&call->in[1], t, top_k), mean = 0;
        MOE_REAL divisor = sum + R(call->op->eps);
        for (uint64_t slot = t * top_k; slot < (t + 1) * top_k && sum != 0; slot++)
            mean += *in_row(call, 0, slot) * response(&call->in[1], slot) / divisor;
        for (uint64_t slot = t * top_k; slot < (t + 1) * top_k; slot++) {
            MOE_REAL dn = sum == 0 ? 0 : (*in_row(call, 0, slot) - mean) / divisor;
            const MOE_REAL *r = in_row(call, 1, slot);
            for (uint32_t c = 0; c < width; c++)
                put(call, dn * R((r[c] > 0) - (r[c] < 0)), out_row(call, 0, slot) + c);
        }
    }
}

// ---- norms ------------------------------------------------------------------------------------

static void norm(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const uint32_t n = call->in[0].width;
    const MOE_REAL *gain = in_row(call, 1, 0), *bias = in_row(call, 2, 0);
    for (uint64_t r = begin; r < end; r++) {
        const MOE_REAL *a = in_row(call, 0, r);
        MOE_REAL mean = 0, variance = 0;
        for (uint32_t c = 0; c < n && call->op->n != 1; c++)
            mean += a[c] / R(n);
        for (uint32_t c = 0; c < n; c++)
            variance += (a[c] - mean) * (a[c] - mean) / R(n);
        MOE_REAL inverse = 1 / MOE_MATH(sqrt)(variance + R(call->op->eps));
        for (uint32_t c = 0; c < n; c++)
            out_row(call, 0, r)[c] =
                (a[c] - mean) * inverse * (gain ? gain[c] : 1) + (bias ? bias[c] : 0);
        out_row(call, 1, r)[0] = mean;
        out_row(call, 1, r)[1] = inverse;
    }
}

// x = (a - mean) i, e = gain dy: Da = i (e - mean(e) - x mean(e x)); an RMS norm has no mean(e).
static void norm_backward(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const uint32_t n = call->out[0].width;
    const MOE_REAL *gain = in_row(call, 2, 0);
    for (uint64_t r = begin; r < end; r++) {
        const MOE_REAL *dy = in_row(call, 0, r), *a = in_row(call, 1, r);
        const MOE_REAL mean = in_row(call, 3, r)[0], inverse = in_row(call, 3, r)[1];
        MOE_REAL mean_e = 0, mean_ex = 0;
        for (uint32_t c = 0; c < n; c++) {
            MOE_REAL e = gain ? gain[c] * dy[c] : dy[c];
            mean_e += call->op->n == 1 ? 0 : e / R(n);
            mean_ex += e * ((a[c] - mean) * inverse) / R(n);
        }
        for (uint32_t c = 0; c < n; c++) {
            MOE_REAL e = gain ? gain[c] * dy[c] : dy[c], x = (a[c] - mean) * inverse;
            put(call, inverse * (e - mean_e - x * mean_ex), out_row(call, 0, r) + c);
        }
    }
}

// Part: a column.
static void norm_dgain(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    for (uint64_t c = begin; c < end; c++) {
        MOE_REAL d_gain = 0, d_bias = 0;
        for (uint64_t r = 0; r < call->in[0].rows; r++) {
            const MOE_REAL dy = in_row(call, 0, r)[c], *stats = in_row(call, 2, r);
            d_gain += dy * ((in_row(call, 1, r)[c] - stats[0]) * stats[1]);
            d_bias += dy;
        }
        put(call, d_gain, out_row(call, 0, 0) + c);
        if (call->out[1].data)
            put(call, d_bias, out_row(call, 1, 0) + c);
    }
}

// ---- pools ------------------------------------------------------------------------------------

// The token of the maximum in column c, the first of equal ones, -1 without tokens. The first NaN
// counts as the maximum.
static int64_t best_token(const struct moe_net_view *a, uint64_t first, uint64_t last, uint32_t c)
{
    int64_t best = -1;
    MOE_REAL most = 0;
    for (uint64_t t = first; t < last; t++) {
        MOE_REAL v = row_of(a, t)[c];
        if (best >= 0 && (v <= most || isnan(most)))
            continue;
        best = (int64_t) t;
        most = v;
    }
    return best;
}

static void pool(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const uint32_t width = call->out[0].width;
    const MOE_INT *offsets = in_int(call, 1);
    for (uint64_t x = begin; x < end; x++) {
        const uint64_t first = (uint64_t) offsets[x], last = (uint64_t) offsets[x + 1];
        MOE_REAL scale = call->op->n == MOE_NET_POOL_MEAN && last > first ? R(last - first) : 1;
        for (uint32_t c = 0; c < width; c++) {
            MOE_REAL sum = 0;
            int64_t best = best_token(&call->in[0], first, last, c);
            for (uint64_t t = first; t < last; t++)
                sum += in_row(call, 0, t)[c];
            if (call->op->n == MOE_NET_POOL_MAX && best >= 0)
                sum = in_row(call, 0, (uint64_t) best)[c];
            out_row(call, 0, x)[c] = sum / scale;
            if (call->out[1].data)
                out_int(call, 1)[x * width + c] = (MOE_INT) best;
        }
    }
}

// Part: an example.
static void pool_backward(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const uint32_t width = call->out[0].width;
    const MOE_INT *offsets = in_int(call, 1), *best = in_int(call, 2);
    for (uint64_t x = begin; x < end; x++) {
        const uint64_t first = (uint64_t) offsets[x], last = (uint64_t) offsets[x + 1];
        const MOE_REAL scale = call->op->n == MOE_NET_POOL_MEAN ? R(last - first) : 1;
        for (uint64_t t = first; t < last; t++) {
            for (uint32_t c = 0; c < width; c++) {
                bool takes = call->op->n != MOE_NET_POOL_MAX || (uint64_t) best[x * width + c] == t;
                out_row(call, 0, t)[c] = takes ? in_row(call, 0, x)[c] / scale : 0;
            }
        }
    }
}

#endif
