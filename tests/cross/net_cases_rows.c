// SPDX-License-Identifier: MIT
// Cases of ops on rows and elements.
#include "net_case.h"

#include <math.h>

static const uint32_t widths[] = {1, 3, 16, 17, 64, 130};
static const char *const write_names[] = {"set", "add", "add later"};
enum { N_WIDTHS = sizeof widths / sizeof widths[0], N_TOKENS = 5, TOP_K = 3 };

// A row op with n_in operands of one shape and n_out results of it.
static struct moe_net_op *alike(struct net_case *c, enum moe_net_op_kind kind, uint32_t n_in,
                                uint32_t n_out, uint32_t width, enum moe_net_write write)
{
    uint32_t in[3], out[2];
    for (uint32_t i = 0; i < n_in; i++)
        in[i] = case_f32(c, MOE_NET_TOKENS, 1, width);
    for (uint32_t i = 0; i < n_out; i++)
        out[i] = case_out(c, MOE_NET_F32, MOE_NET_TOKENS, 1, width);
    struct moe_net_op *op = case_op(c, kind, write);
    for (uint32_t i = 0; i < n_in; i++)
        op->in[i] = in[i];
    for (uint32_t i = 0; i < n_out; i++)
        op->out[i] = out[i];
    c->terms = width;
    return op;
}

// ---- activations ------------------------------------------------------------------------------

static const struct {
    enum moe_net_op_kind kind;
    uint32_t n_in, n_out;
} act_ops[] = {{MOE_NET_ACT, 1, 1},
               {MOE_NET_ACT_BACKWARD, 2, 1},
               {MOE_NET_GLU, 2, 1},
               {MOE_NET_GLU_BACKWARD, 3, 2}};

static void act(struct case_sink *sink, uint32_t k, enum vkmoe_act kind, uint32_t width, float size)
{
    struct net_case c;
    enum moe_net_write write = act_ops[k].kind == MOE_NET_ACT_BACKWARD ? width % 3 : MOE_NET_SET;
    case_begin(&c, N_TOKENS, 1, "%s of kind %d up to %g, width %u, %s",
               moe_net_op_name(act_ops[k].kind), kind, (double) size, width, write_names[write]);
    struct moe_net_op *op =
        alike(&c, act_ops[k].kind, act_ops[k].n_in, act_ops[k].n_out, width, write);
    op->act = kind;
    op->beta = kind == VKMOE_ACT_SILU && width == 17 ? 1.702f : 1;
    uint32_t argument = op->in[act_ops[k].n_in > 1 && act_ops[k].kind != MOE_NET_GLU ? 1 : 0];
    case_random(&c, argument, -size, size);
    c.data[argument].f32[0] = 0;
    c.terms = 1;
    c.zero = width == 1;
    case_done(sink, &c);
}

// (t E, 1) <-> (t, E)
static void reshape(struct case_sink *sink, bool backward)
{
    struct net_case c;
    case_begin(&c, N_TOKENS, 1, "%s to another shape", backward ? "act_backward" : "act");
    uint32_t a = case_f32(&c, MOE_NET_TOKENS, 6, 1);
    uint32_t dy = case_f32(&c, MOE_NET_TOKENS, 1, 6);
    uint32_t y = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, backward ? 6 : 1, backward ? 1 : 6);
    struct moe_net_op *op = case_op(&c, backward ? MOE_NET_ACT_BACKWARD : MOE_NET_ACT, MOE_NET_SET);
    op->in[0] = backward ? dy : a;
    op->in[1] = backward ? a : MOE_NET_NONE;
    op->out[0] = y;
    op->act = VKMOE_ACT_NONE;
    case_done(sink, &c);
}

// ---- weighed rows -----------------------------------------------------------------------------

// i: its bits choose the options.
static void scale_rows(struct case_sink *sink, uint32_t i, uint32_t width)
{
    struct net_case c;
    enum moe_net_write write = i % 3;
    bool weighed = i & 1, indexed = i & 2;
    uint32_t q0 = i & 4 ? TOP_K : 1, q1 = i & 8 ? TOP_K : 1, q2 = i & 4 ? TOP_K : 1;
    case_begin(&c, N_TOKENS, 1, "scale_rows %u, width %u, %s", i, width, write_names[write]);
    uint32_t a = indexed ? case_f32(&c, MOE_NET_FIXED, 7, width)
                         : case_f32(&c, MOE_NET_TOKENS, TOP_K / q0, width);
    uint32_t s = weighed ? case_f32(&c, MOE_NET_TOKENS, TOP_K / q1, 1) : MOE_NET_NONE;
    uint32_t index = indexed ? case_i32(&c, MOE_NET_TOKENS, TOP_K / q2, 1) : MOE_NET_NONE;
    for (uint64_t j = 0; indexed && j < case_size(&c, index); j++)
        c.data[index].i32[j] = (int32_t) case_next(&c, 7);
    uint32_t y = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, TOP_K, width);
    struct moe_net_op *op = case_op(&c, MOE_NET_SCALE_ROWS, write);
    op->in[0] = a, op->in[1] = s, op->in[2] = index, op->out[0] = y;
    op->div[0] = indexed ? 1 : q0, op->div[1] = q1, op->div[2] = q2;
    op->alpha = i % 5 == 0 ? -0.7f : 1;
    c.linear = true;
    case_done(sink, &c);
}

static void row_dot(struct case_sink *sink, uint32_t i, uint32_t width)
{
    struct net_case c;
    enum moe_net_write write = i % 3;
    bool indexed = i & 2;
    uint32_t q0 = i & 1 ? TOP_K : 1, q1 = i & 4 ? TOP_K : 1;
    case_begin(&c, N_TOKENS, 1, "row_dot %u, width %u, %s", i, width, write_names[write]);
    uint32_t a = case_f32(&c, MOE_NET_TOKENS, TOP_K / q0, width);
    uint32_t b = indexed ? case_f32(&c, MOE_NET_FIXED, 7, width)
                         : case_f32(&c, MOE_NET_TOKENS, TOP_K / q1, width);
    uint32_t index = indexed ? case_i32(&c, MOE_NET_TOKENS, TOP_K, 1) : MOE_NET_NONE;
    for (uint64_t j = 0; indexed && j < case_size(&c, index); j++)
        c.data[index].i32[j] = (int32_t) case_next(&c, 7);
    uint32_t d = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, TOP_K, 1);
    struct moe_net_op *op = case_op(&c, MOE_NET_ROW_DOT, write);
    op->in[0] = a, op->in[1] = b, op->in[2] = index, op->out[0] = d;
    op->div[0] = q0, op->div[1] = indexed ? 1 : q1;
    op->alpha = i % 5 == 0 ? -0.7f : 1;
    c.terms = width;
    c.linear = true;
    case_done(sink, &c);
}

static void sum_slots(struct case_sink *sink, uint32_t i, uint32_t width)
{
    struct net_case c;
    enum moe_net_write write = i % 3;
    bool weighed = i & 1;
    uint32_t q1 = i & 2 ? TOP_K : 1;
    case_begin(&c, N_TOKENS, 1, "sum_slots %u, width %u, %s", i, width, write_names[write]);
    uint32_t f = case_f32(&c, MOE_NET_TOKENS, TOP_K, width);
    uint32_t s = weighed ? case_f32(&c, MOE_NET_TOKENS, TOP_K / q1, 1) : MOE_NET_NONE;
    uint32_t y = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, 1, width);
    struct moe_net_op *op = case_op(&c, MOE_NET_SUM_SLOTS, write);
    op->in[0] = f, op->in[1] = s, op->out[0] = y;
    op->div[1] = q1;
    op->top_k = TOP_K;
    op->alpha = i % 4 == 0 ? 0.6f : 1;
    c.terms = TOP_K;
    c.linear = true;
    case_done(sink, &c);
}

// ---- softmax, shares, norms -------------------------------------------------------------------

static void softmax(struct case_sink *sink, bool backward, uint32_t width, float size)
{
    struct net_case c;
    enum moe_net_write write = backward ? width % 3 : MOE_NET_SET;
    case_begin(&c, N_TOKENS, 1, "softmax%s up to %g, width %u, %s", backward ? "_backward" : "",
               (double) size, width, write_names[write]);
    struct moe_net_op *op = alike(&c, backward ? MOE_NET_SOFTMAX_BACKWARD : MOE_NET_SOFTMAX,
                                  backward ? 2 : 1, 1, width, write);
    op->alpha = width == 17 ? 0.125f : 1;
    if (backward)
        case_random(&c, op->in[1], 0, 1 / (float) width);
    else
        case_random(&c, op->in[0], -size, size);
    case_done(sink, &c);
}

static void share(struct case_sink *sink, bool backward, uint32_t width)
{
    struct net_case c;
    enum moe_net_write write = backward ? width % 3 : MOE_NET_SET;
    case_begin(&c, N_TOKENS, 1, "share%s, width %u, %s", backward ? "_backward" : "", width,
               write_names[write]);
    uint32_t r = case_f32(&c, MOE_NET_TOKENS, TOP_K, width);
    for (uint32_t i = 0; i < TOP_K * width; i++)
        c.data[r].f32[TOP_K * width + i] = 0; // token 1: all are 0
    c.data[r].f32[0] = 0;
    uint32_t dw = backward ? case_f32(&c, MOE_NET_TOKENS, TOP_K, 1) : MOE_NET_NONE;
    uint32_t y = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, TOP_K, backward ? width : 1);
    struct moe_net_op *op = case_op(&c, backward ? MOE_NET_SHARE_BACKWARD : MOE_NET_SHARE, write);
    op->in[0] = backward ? dw : r;
    op->in[1] = backward ? r : MOE_NET_NONE;
    op->out[0] = y;
    op->top_k = TOP_K;
    op->eps = 1e-12f;
    c.terms = TOP_K * width;
    case_done(sink, &c);
}

// i: bit 0 RMS, bits 1 and 2 gain and bias
static void norm(struct case_sink *sink, uint32_t i, uint32_t width)
{
    struct net_case c;
    case_begin(&c, N_TOKENS, 1, "norm %u, width %u", i, width);
    uint32_t a = case_f32(&c, MOE_NET_TOKENS, 1, width);
    uint32_t gain = i & 2 ? case_f32(&c, MOE_NET_FIXED, 1, width) : MOE_NET_NONE;
    uint32_t bias = i & 4 ? case_f32(&c, MOE_NET_FIXED, 1, width) : MOE_NET_NONE;
    uint32_t y = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, 1, width);
    uint32_t stats = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, 1, 2);
    struct moe_net_op *op = case_op(&c, MOE_NET_NORM, MOE_NET_SET);
    op->in[0] = a, op->in[1] = gain, op->in[2] = bias, op->out[0] = y, op->out[1] = stats;
    op->n = i & 1;
    op->eps = 1e-2f;
    c.terms = width;
    case_done(sink, &c);
}

static uint32_t random_stats(struct net_case *c, bool rms)
{
    uint32_t stats = case_f32(c, MOE_NET_TOKENS, 1, 2);
    for (uint64_t r = 0; r < case_size(c, stats) / 2; r++) {
        c->data[stats].f32[2 * r] = rms ? 0 : c->data[stats].f32[2 * r] / 4;
        c->data[stats].f32[2 * r + 1] = 1.5f + c->data[stats].f32[2 * r + 1];
    }
    return stats;
}

// The same bits; bit 2: dbias.
static void norm_backward(struct case_sink *sink, bool of_gain, uint32_t i, uint32_t width)
{
    struct net_case c;
    enum moe_net_write write = (i + width) % 3;
    case_begin(&c, N_TOKENS, 1, "norm_%s %u, width %u, %s", of_gain ? "dgain" : "backward", i,
               width, write_names[write]);
    uint32_t dy = case_f32(&c, MOE_NET_TOKENS, 1, width);
    uint32_t a = case_f32(&c, MOE_NET_TOKENS, 1, width);
    uint32_t gain = i & 2 && !of_gain ? case_f32(&c, MOE_NET_FIXED, 1, width) : MOE_NET_NONE;
    uint32_t stats = random_stats(&c, i & 1);
    uint32_t y = of_gain ? case_out(&c, MOE_NET_F32, MOE_NET_FIXED, 1, width)
                         : case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, 1, width);
    uint32_t d_bias =
        of_gain && i & 4 ? case_out(&c, MOE_NET_F32, MOE_NET_FIXED, 1, width) : MOE_NET_NONE;
    struct moe_net_op *op =
        case_op(&c, of_gain ? MOE_NET_NORM_DGAIN : MOE_NET_NORM_BACKWARD, write);
    op->in[0] = dy, op->in[1] = a, op->in[2] = of_gain ? stats : gain;
    op->in[3] = of_gain ? MOE_NET_NONE : stats;
    op->out[0] = y, op->out[1] = d_bias;
    op->n = i & 1;
    c.terms = of_gain ? N_TOKENS : width;
    case_done(sink, &c);
}

// ---- pools ------------------------------------------------------------------------------------

// Examples of 0 to 4 tokens, a long last one.
static uint32_t random_offsets(struct net_case *c)
{
    uint32_t offsets = case_i32(c, MOE_NET_FIXED, c->net->max_examples + 1, 1), at = 0;
    for (uint32_t x = 1; x < c->args.n_examples; x++) {
        at += x == 1 ? 0 : 1 + case_next(c, 4);
        c->data[offsets].i32[x] = (int32_t) at;
    }
    c->data[offsets].i32[c->args.n_examples] = (int32_t) c->args.n_tokens;
    return offsets;
}

static void pool(struct case_sink *sink, enum moe_net_pool kind, uint32_t width)
{
    struct net_case c;
    case_begin(&c, 30, 5, "pool of kind %d, width %u", kind, width);
    uint32_t a = case_f32(&c, MOE_NET_TOKENS, 1, width), offsets = random_offsets(&c);
    for (uint64_t i = 0; kind == MOE_NET_POOL_MAX && i < case_size(&c, a); i++)
        c.data[a].f32[i] = floorf(4 * c.data[a].f32[i]); // with equal ones
    uint32_t y = case_out(&c, MOE_NET_F32, MOE_NET_EXAMPLES, 1, width);
    uint32_t best = kind == MOE_NET_POOL_MAX ? case_out(&c, MOE_NET_I32, MOE_NET_EXAMPLES, 1, width)
                                             : MOE_NET_NONE;
    struct moe_net_op *op = case_op(&c, MOE_NET_POOL, MOE_NET_SET);
    op->in[0] = a, op->in[1] = offsets, op->out[0] = y, op->out[1] = best;
    op->n = kind;
    c.terms = 30;
    case_done(sink, &c);
}

static void pool_backward(struct case_sink *sink, enum moe_net_pool kind, uint32_t width)
{
    struct net_case c;
    case_begin(&c, 30, 5, "pool_backward of kind %d, width %u", kind, width);
    uint32_t dy = case_f32(&c, MOE_NET_EXAMPLES, 1, width), offsets = random_offsets(&c);
    uint32_t best =
        kind == MOE_NET_POOL_MAX ? case_i32(&c, MOE_NET_EXAMPLES, 1, width) : MOE_NET_NONE;
    for (uint32_t x = 0; best != MOE_NET_NONE && x < c.args.n_examples; x++) {
        const int32_t *range = &c.data[offsets].i32[x];
        for (uint32_t i = 0; i < width; i++)
            c.data[best].i32[x * width + i] =
                range[1] > range[0]
                    ? range[0] + (int32_t) case_next(&c, (uint32_t) (range[1] - range[0]))
                    : -1;
    }
    uint32_t da = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, 1, width);
    struct moe_net_op *op = case_op(&c, MOE_NET_POOL_BACKWARD, MOE_NET_SET);
    op->in[0] = dy, op->in[1] = offsets, op->in[2] = best, op->out[0] = da;
    op->n = kind;
    c.linear = true;
    case_done(sink, &c);
}

// ---- random numbers ---------------------------------------------------------------------------

static void noise(struct case_sink *sink, bool scaled, uint32_t width)
{
    struct net_case c;
    case_begin(&c, N_TOKENS, 1, "noise%s, width %u", scaled ? " scaled" : "", width);
    struct moe_net_op *op = alike(&c, MOE_NET_NOISE, scaled ? 2 : 1, 1, width, MOE_NET_SET);
    op->alpha = 0.5f;
    op->stream = 7;
    if (scaled)
        case_random(&c, op->in[1], -6, 6);
    c.terms = 32; // log, cos
    case_done(sink, &c);
}

static void noise_backward(struct case_sink *sink, uint32_t width)
{
    struct net_case c;
    case_begin(&c, N_TOKENS, 1, "noise_backward, width %u", width);
    struct moe_net_op *op = alike(&c, MOE_NET_NOISE_BACKWARD, 2, 1, width, width % 3);
    op->alpha = 0.5f;
    op->stream = 7;
    c.terms = 32;
    case_done(sink, &c);
}

static void dropout(struct case_sink *sink, float rate, uint32_t width)
{
    struct net_case c;
    case_begin(&c, N_TOKENS, 1, "dropout of %g, width %u", (double) rate, width);
    struct moe_net_op *op = alike(&c, MOE_NET_DROPOUT, 1, 1, width, width % 3);
    op->alpha = rate;
    op->stream = 1;
    c.zero = width <= 3;
    case_done(sink, &c);
}

void list_row_cases(struct case_sink *sink)
{
    reshape(sink, false);
    reshape(sink, true);
    for (uint32_t w = 0; w < N_WIDTHS; w++) {
        for (uint32_t k = 0; k < 4; k++) {
            for (uint32_t kind = w % 2; kind < VKMOE_ACT_SITU; kind += 2) {
                act(sink, k, (enum vkmoe_act) kind, widths[w], 2);
                if (k < 2 && w >= 2)
                    act(sink, k, (enum vkmoe_act) kind, widths[w], 100);
            }
        }
        for (uint32_t i = w; i < 16; i += 2)
            scale_rows(sink, i, widths[w]);
        for (uint32_t i = w % 2; i < 8; i += 2)
            row_dot(sink, i, widths[w]);
        for (uint32_t i = 0; i < 4; i++)
            sum_slots(sink, i + w, widths[w]);
        for (uint32_t backward = 0; backward < 2; backward++) {
            softmax(sink, backward, widths[w], 3);
            softmax(sink, backward, widths[w], 60);
            share(sink, backward, widths[w]);
        }
        for (uint32_t i = w % 2; i < 8; i += 2) {
            norm(sink, i, widths[w]);
            norm_backward(sink, false, i, widths[w]);
            norm_backward(sink, true, i, widths[w]);
        }
        for (uint32_t kind = 0; kind <= MOE_NET_POOL_MAX; kind++) {
            pool(sink, (enum moe_net_pool) kind, widths[w]);
            pool_backward(sink, (enum moe_net_pool) kind, widths[w]);
        }
        noise(sink, false, widths[w]);
        noise(sink, true, widths[w]);
        noise_backward(sink, widths[w]);
        dropout(sink, 0.5f, widths[w]);
        dropout(sink, 0, widths[w]);
        dropout(sink, 0.9f, widths[w]);
    }
}
