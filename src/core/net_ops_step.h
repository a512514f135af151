// SPDX-License-Identifier: MIT
// Part of core/net_ops.h: what makes a step of the optimiser.
#ifndef MOE_CORE_NET_OPS_STEP_H
#define MOE_CORE_NET_OPS_STEP_H

static void fill(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const uint32_t width = call->out[0].width;
    for (uint64_t i = begin * width; i < end * width; i++) {
        if (call->out[0].type == MOE_NET_I32)
            out_int(call, 0)[i] = (MOE_INT) call->op->alpha;
        else
            out_row(call, 0, 0)[i] = R(call->op->alpha);
    }
}

static void clip(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    (void) begin, (void) end;
    const MOE_REAL sum = *in_row(call, 0, 0), most = R(call->op->alpha);
    MOE_REAL factor = most > 0 ? most / (MOE_MATH(sqrt)(sum) + R(1e-6)) : 1;
    if (!isfinite(sum))
        factor = NAN;
    *out_row(call, 0, 0) = factor > 1 ? 1 : factor;
}

// 1 - beta^n, in f64: for a beta near 1 it is a small difference.
static MOE_REAL debias(float beta, uint32_t n)
{
    return R(1 - pow((double) beta, (double) n));
}

static void step_sgd(const struct moe_net_call *call, uint64_t i, MOE_REAL g, MOE_REAL rate)
{
    const struct moe_net_step *rule = call->op->step;
    MOE_REAL *p = out_row(call, 0, 0), *m = out_row(call, 1, 0);
    const MOE_REAL momentum = R(rule->momentum);
    MOE_REAL d = g + R(rule->decay) * p[i];
    if (m) {
        m[i] = call->args->step == 1 ? d : momentum * m[i] + d;
        d = rule->nesterov ? d + momentum * m[i] : m[i];
    }
    p[i] -= rate * d;
}

static void step_adam(const struct moe_net_call *call, uint64_t i, MOE_REAL g, MOE_REAL rate)
{
    const struct moe_net_step *rule = call->op->step;
    MOE_REAL *p = out_row(call, 0, 0), *m = out_row(call, 1, 0), *v = out_row(call, 2, 0);
    const MOE_REAL beta1 = R(rule->beta1), beta2 = R(rule->beta2), decay = R(rule->decay);
    if (rule->kind == MOE_NET_ADAM)
        g += decay * p[i];
    else
        p[i] -= rate * decay * p[i];
    m[i] = beta1 * m[i] + (1 - beta1) * g;
    v[i] = beta2 * v[i] + (1 - beta2) * g * g;
    p[i] -= rate * (m[i] / debias(rule->beta1, call->args->step)) /
            (MOE_MATH(sqrt)(v[i] / debias(rule->beta2, call->args->step)) + R(rule->eps));
}

static void step(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const struct moe_net_step *rule = call->op->step;
    const uint32_t width = call->out[0].width;
    const MOE_REAL *factor = in_row(call, 1, 0), *loss = in_row(call, 2, 0);
    const MOE_REAL rate = R(call->args->rate) * R(rule->rate_scale);
    if ((factor && isnan(*factor)) || (loss && !isfinite(*loss)))
        return;
    for (uint64_t i = begin * width; i < end * width; i++) {
        MOE_REAL g = in_row(call, 0, 0)[i] * (factor ? *factor : 1);
        if (rule->kind == MOE_NET_SGD)
            step_sgd(call, i, g, rate);
        else
            step_adam(call, i, g, rate);
    }
}

static void round_to_half(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const uint32_t width = call->out[0].width;
    uint16_t *q = call->out[0].data;
    for (uint64_t i = begin * width; i < end * width; i++) {
        const double p = (double) in_row(call, 0, 0)[i];
        moe_dtype_encode_f64(moe_net_type_dtype(call->out[0].type), &p, 1, q + i);
    }
}

#endif
