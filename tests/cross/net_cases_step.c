// SPDX-License-Identifier: MIT
// Cases of the optimiser's ops.
#include "net_case.h"

#include <math.h>

static const uint32_t widths[] = {1, 3, 16, 17, 64, 130};
enum { N_WIDTHS = sizeof widths / sizeof widths[0] };

// A tensor of one number.
static uint32_t scalar(struct net_case *c, float value)
{
    uint32_t tensor = case_f32(c, MOE_NET_FIXED, 1, 1);
    c->data[tensor].f32[0] = value;
    return tensor;
}

static void fill(struct case_sink *sink, uint32_t width, float value)
{
    struct net_case c;
    case_begin(&c, 5, 1, "fill with %g, width %u", (double) value, width);
    uint32_t a = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, 2, width);
    struct moe_net_op *op = case_op(&c, MOE_NET_FILL, MOE_NET_SET);
    op->out[0] = a;
    op->alpha = value;
    c.zero = value == 0;
    case_done(sink, &c);
}

static void clip(struct case_sink *sink, float sum, float most)
{
    struct net_case c;
    case_begin(&c, 5, 1, "clip a sum of %g to %g", (double) sum, (double) most);
    uint32_t s = scalar(&c, sum), factor = case_out(&c, MOE_NET_F32, MOE_NET_FIXED, 1, 1);
    struct moe_net_op *op = case_op(&c, MOE_NET_CLIP, MOE_NET_SET);
    op->in[0] = s, op->out[0] = factor;
    op->alpha = most;
    c.zero = !isfinite(sum);
    case_done(sink, &c);
}

// A kind of optimiser: 0 SGD, 1 with momentum, 2 Nesterov, 3 Adam, 4 AdamW.
enum { N_OPTIMISERS = 5 };

static struct moe_net_step *optimiser(struct net_case *c, uint32_t kind, bool decays)
{
    struct moe_net_step *rule = moe_net_own(c->net, sizeof *rule);
    *rule = (struct moe_net_step){.kind = kind < 3   ? MOE_NET_SGD
                                          : kind < 4 ? MOE_NET_ADAM
                                                     : MOE_NET_ADAMW,
                                  .rate_scale = 0.5f,
                                  .decay = decays ? 0.1f : 0,
                                  .momentum = kind == 1 || kind == 2 ? 0.9f : 0,
                                  .nesterov = kind == 2,
                                  .beta1 = 0.9f,
                                  .beta2 = 0.999f,
                                  .eps = 1e-8f};
    return rule;
}

// factor, loss: NULL for none.
static void step(struct case_sink *sink, uint32_t kind, uint32_t width, uint32_t number,
                 const float *factor, const float *loss)
{
    struct net_case c;
    case_begin(&c, 5, 1, "step %u by optimiser %u, width %u, factor %g, loss %g", number, kind,
               width, factor ? (double) *factor : 1, loss ? (double) *loss : 0);
    uint32_t g = case_f32(&c, MOE_NET_FIXED, 4, width);
    uint32_t f = factor ? scalar(&c, *factor) : MOE_NET_NONE;
    uint32_t l = loss ? scalar(&c, *loss) : MOE_NET_NONE;
    uint32_t p = case_out(&c, MOE_NET_F32, MOE_NET_FIXED, 4, width), m = MOE_NET_NONE;
    uint32_t v = MOE_NET_NONE;
    case_random(&c, p, -1, 1);
    if (kind > 0) {
        m = case_out(&c, MOE_NET_F32, MOE_NET_FIXED, 4, width);
        case_random(&c, m, -1, 1);
    }
    if (kind > 2) {
        v = case_out(&c, MOE_NET_F32, MOE_NET_FIXED, 4, width);
        case_random(&c, v, 0.01f, 1);
    }
    if (kind > 2 && number == 1) { // as at the first step
        case_random(&c, m, 0, 0);
        case_random(&c, v, 0, 0);
    }
    struct moe_net_op *op = case_op(&c, MOE_NET_STEP, MOE_NET_SET);
    op->in[0] = g, op->in[1] = f, op->in[2] = l;
    op->out[0] = p, op->out[1] = m, op->out[2] = v;
    op->step = optimiser(&c, kind, width % 2 == 1);
    c.args.step = number;
    case_done(sink, &c);
}

static void balance_bias(struct case_sink *sink, uint32_t n_experts, const float *loss)
{
    struct net_case c;
    case_begin(&c, 5, 1, "balance_bias of %u, loss %g", n_experts, loss ? (double) *loss : 0);
    uint32_t counts = case_f32(&c, MOE_NET_FIXED, 1, n_experts);
    for (uint32_t e = 0; e < n_experts; e++)
        c.data[counts].f32[e] = (float) case_next(&c, 9);
    uint32_t l = loss ? scalar(&c, *loss) : MOE_NET_NONE;
    uint32_t bias = case_out(&c, MOE_NET_F32, MOE_NET_FIXED, 1, n_experts);
    case_random(&c, bias, -1, 1);
    struct moe_net_op *op = case_op(&c, MOE_NET_BALANCE_BIAS, MOE_NET_SET);
    op->in[0] = counts, op->in[1] = l, op->out[0] = bias;
    op->alpha = 0.01f;
    c.linear = true; // a bias of whole steps; counts are exact
    case_done(sink, &c);
}

void list_step_cases(struct case_sink *sink)
{
    const float finite = 0.75f, nan = NAN, inf = INFINITY;
    for (uint32_t w = 0; w < N_WIDTHS; w++) {
        fill(sink, widths[w], w % 2 == 0 ? 0 : -1.5f);
        for (uint32_t kind = 0; kind < N_OPTIMISERS; kind++) {
            step(sink, kind, widths[w], 1, NULL, NULL);
            step(sink, kind, widths[w], 1000, &finite, &finite);
        }
        balance_bias(sink, widths[w], w % 2 == 0 ? NULL : &finite);
    }
    for (uint32_t kind = 0; kind < N_OPTIMISERS; kind++) {
        step(sink, kind, 17, 2, &nan, &finite);
        step(sink, kind, 17, 2, &finite, &nan);
        step(sink, kind, 17, 2, NULL, &inf);
    }
    balance_bias(sink, 5, &nan);
    clip(sink, 4, 1);
    clip(sink, 4, 3);
    clip(sink, 4, 0);
    clip(sink, 0, 1);
    clip(sink, NAN, 1);
    clip(sink, INFINITY, 1);
    clip(sink, NAN, 0);
}
