// SPDX-License-Identifier: MIT
// Cases of losses.
#include "net_case.h"

static const uint32_t widths[] = {1, 3, 16, 17, 64, 130};
static const char *const write_names[] = {"set", "add", "add later"};
enum { N_WIDTHS = sizeof widths / sizeof widths[0], N_TOKENS = 5, N_EXAMPLES = 4, TOP_K = 3 };

static void random_labels(struct net_case *c, uint32_t tensor, uint32_t n_classes)
{
    for (uint64_t i = 0; i < case_size(c, tensor); i++)
        c->data[tensor].i32[i] = (int32_t) case_next(c, n_classes);
}

// i: bit 0 shares instead of labels, 1 class weights, 2 smoothing, 3 no gradient.
static void cross_entropy(struct case_sink *sink, uint32_t i, uint32_t width, float size)
{
    struct net_case c;
    enum moe_net_write write = (i + width) % 3;
    case_begin(&c, N_TOKENS, N_EXAMPLES, "cross_entropy %u up to %g, width %u, %s", i,
               (double) size, width, write_names[write]);
    uint32_t logits = case_f32(&c, MOE_NET_EXAMPLES, 1, width), target;
    case_random(&c, logits, -size, size);
    if (i & 1) {
        target = case_f32(&c, MOE_NET_EXAMPLES, 1, width);
        case_random(&c, target, 0, 2 / (float) width);
    } else {
        target = case_i32(&c, MOE_NET_EXAMPLES, 1, 1);
        random_labels(&c, target, width);
    }
    uint32_t weights = i & 2 ? case_f32(&c, MOE_NET_FIXED, 1, width) : MOE_NET_NONE;
    if (i & 2)
        case_random(&c, weights, 0.5f, 2);
    uint32_t loss = case_out(&c, MOE_NET_F32, MOE_NET_EXAMPLES, 1, 1);
    uint32_t d = i & 8 ? MOE_NET_NONE : case_out(&c, MOE_NET_F32, MOE_NET_EXAMPLES, 1, width);
    struct moe_net_op *op = case_op(&c, MOE_NET_CROSS_ENTROPY, write);
    op->in[0] = logits, op->in[1] = target, op->in[2] = weights;
    op->out[0] = loss, op->out[1] = d;
    op->alpha = i & 4 ? 0.75f : 1;
    op->beta = i & 4 ? 0.1f : 0;
    c.terms = width;
    c.zero = width == 1;
    case_done(sink, &c);
}

static void point_loss(struct case_sink *sink, enum moe_net_point kind, uint32_t width, bool d)
{
    struct net_case c;
    enum moe_net_write write = (kind + width) % 3;
    case_begin(&c, N_TOKENS, N_EXAMPLES, "point_loss of kind %d, width %u, %s%s", kind, width,
               write_names[write], d ? "" : ", no gradient");
    uint32_t y = case_f32(&c, MOE_NET_EXAMPLES, 1, width);
    uint32_t target = case_f32(&c, MOE_NET_EXAMPLES, 1, width);
    if (kind == MOE_NET_POINT_BCE)
        case_random(&c, y, 0.02f, 0.98f);
    if (kind == MOE_NET_POINT_BCE_LOGITS)
        case_random(&c, y, -30, 30);
    if (kind >= MOE_NET_POINT_BCE)
        case_random(&c, target, 0, 1);
    uint32_t loss = case_out(&c, MOE_NET_F32, MOE_NET_EXAMPLES, 1, 1);
    uint32_t dy = d ? case_out(&c, MOE_NET_F32, MOE_NET_EXAMPLES, 1, width) : MOE_NET_NONE;
    struct moe_net_op *op = case_op(&c, MOE_NET_POINT_LOSS, write);
    op->in[0] = y, op->in[1] = target, op->out[0] = loss, op->out[1] = dy;
    op->n = kind;
    op->alpha = 0.5f;
    op->beta = 0.4f;
    c.terms = width;
    case_done(sink, &c);
}

// Probabilities of exactly 0 and 1: the logarithm ends at -100, the derivative at 1e12. Those that
// are rounded past them are the same.
static void sure_probabilities(struct case_sink *sink)
{
    struct net_case c;
    case_begin(&c, N_TOKENS, N_EXAMPLES, "point_loss of probabilities 0 and 1");
    uint32_t y = case_f32(&c, MOE_NET_EXAMPLES, 1, 2);
    uint32_t target = case_f32(&c, MOE_NET_EXAMPLES, 1, 2);
    for (uint64_t i = 0; i < case_size(&c, y); i++) {
        float rounding = i / 4 % 2 == 0 || i == 6 ? 0 : i % 2 == 0 ? -1e-7f : 1.1920929e-7f;
        c.data[y].f32[i] = (float) (i % 2) + rounding;
        c.data[target].f32[i] = (float) (i / 2 % 2);
    }
    struct moe_net_op *op;
    uint32_t loss = case_out(&c, MOE_NET_F32, MOE_NET_EXAMPLES, 1, 1);
    uint32_t dy = case_out(&c, MOE_NET_F32, MOE_NET_EXAMPLES, 1, 2);
    op = case_op(&c, MOE_NET_POINT_LOSS, MOE_NET_SET);
    op->in[0] = y, op->in[1] = target, op->out[0] = loss, op->out[1] = dy;
    op->n = MOE_NET_POINT_BCE;
    c.linear = true; // not quite, but the operands are exact
    case_done(sink, &c);
}

// far: experts' probabilities differ by more than f32 holds.
static void mixture(struct case_sink *sink, bool gaussian, uint32_t width, bool far)
{
    struct net_case c;
    enum moe_net_write write = width % 3;
    case_begin(&c, N_TOKENS, 1, "mixture_nll %s, width %u, %s%s",
               gaussian ? "gaussian" : "of labels", width, write_names[write], far ? ", far" : "");
    uint32_t f = case_f32(&c, MOE_NET_TOKENS, TOP_K, width), target;
    uint32_t s = case_f32(&c, MOE_NET_TOKENS, TOP_K, 1);
    case_random(&c, s, 0.1f, 0.5f);
    if (far)
        case_random(&c, f, -40, 40);
    if (gaussian) {
        target = case_f32(&c, MOE_NET_TOKENS, 1, width);
    } else {
        target = case_i32(&c, MOE_NET_TOKENS, 1, 1);
        random_labels(&c, target, width);
    }
    uint32_t loss = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, 1, 1);
    uint32_t df = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, TOP_K, width);
    uint32_t ds = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, TOP_K, 1);
    struct moe_net_op *op = case_op(&c, MOE_NET_MIXTURE_NLL, write);
    op->in[0] = f, op->in[1] = s, op->in[2] = target;
    op->out[0] = loss, op->out[1] = df, op->out[2] = ds;
    op->n = gaussian;
    op->top_k = TOP_K;
    op->beta = 0.5f;
    c.terms = width + TOP_K;
    c.zero = width == 1 && !gaussian;
    case_done(sink, &c);
}

static void balance(struct case_sink *sink, uint32_t n_experts, enum moe_net_write write, bool d)
{
    struct net_case c;
    case_begin(&c, N_TOKENS, 1, "balance of %u, %s%s", n_experts, write_names[write],
               d ? "" : ", no gradient");
    uint32_t p = case_f32(&c, MOE_NET_TOKENS, 1, n_experts);
    case_random(&c, p, 0, 1);
    uint32_t starts = case_i32(&c, MOE_NET_FIXED, n_experts + 1, 1);
    for (uint32_t e = 1; e <= n_experts; e++) {
        int32_t left = N_TOKENS * TOP_K - c.data[starts].i32[e - 1];
        c.data[starts].i32[e] =
            c.data[starts].i32[e - 1] +
            (e == n_experts ? left : (int32_t) case_next(&c, (uint32_t) left / 2 + 1));
    }
    uint32_t loss = case_out(&c, MOE_NET_F32, MOE_NET_FIXED, 1, 1);
    uint32_t dp = d ? case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, 1, n_experts) : MOE_NET_NONE;
    struct moe_net_op *op = case_op(&c, MOE_NET_BALANCE, write);
    op->in[0] = p, op->in[1] = starts, op->out[0] = loss, op->out[1] = dp;
    op->top_k = TOP_K;
    op->alpha = 0.3f;
    c.terms = N_TOKENS + n_experts;
    c.linear = true;
    case_done(sink, &c);
}

static void z_loss(struct case_sink *sink, uint32_t n_experts, enum moe_net_write write, bool d)
{
    struct net_case c;
    case_begin(&c, N_TOKENS, 1, "z_loss of %u, %s%s", n_experts, write_names[write],
               d ? "" : ", no gradient");
    uint32_t logits = case_f32(&c, MOE_NET_TOKENS, 1, n_experts);
    case_random(&c, logits, -6, 6);
    uint32_t loss = case_out(&c, MOE_NET_F32, MOE_NET_FIXED, 1, 1);
    uint32_t dl = d ? case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, 1, n_experts) : MOE_NET_NONE;
    struct moe_net_op *op = case_op(&c, MOE_NET_Z_LOSS, write);
    op->in[0] = logits, op->out[0] = loss, op->out[1] = dl;
    op->alpha = 0.3f;
    c.terms = N_TOKENS + n_experts;
    case_done(sink, &c);
}

void list_loss_cases(struct case_sink *sink)
{
    sure_probabilities(sink);
    for (uint32_t w = 0; w < N_WIDTHS; w++) {
        for (uint32_t i = w % 2; i < 16; i += 2)
            cross_entropy(sink, i, widths[w], w % 3 == 2 ? 60 : 4);
        for (uint32_t kind = 0; kind <= MOE_NET_POINT_BCE_LOGITS; kind++) {
            point_loss(sink, (enum moe_net_point) kind, widths[w], true);
            if (w == 1)
                point_loss(sink, (enum moe_net_point) kind, widths[w], false);
        }
        for (uint32_t gaussian = 0; gaussian < 2; gaussian++) {
            mixture(sink, gaussian, widths[w], false);
            mixture(sink, gaussian, widths[w], true);
        }
        balance(sink, widths[w], w % 3, true);
        balance(sink, widths[w], (w + 1) % 3, w % 2);
        z_loss(sink, widths[w], w % 3, true);
        z_loss(sink, widths[w], (w + 1) % 3, w % 2);
    }
}
