// SPDX-License-Identifier: MIT
// Cases of products with matrices of groups, of groupings and of sums over everything.
#include "net_case.h"

#include <math.h>
#include <stdlib.h>

static const char *const group_names[] = {"spread", "all in one", "one"};
static const char *const write_names[] = {"set", "add", "add later"};

// Widths of matrices, and tokens: the last two are cut into pieces in every way.
static const struct shape {
    uint32_t n_out, n_in, n_tokens;
} shapes[] = {{1, 1, 9},     {3, 16, 9},    {17, 3, 9},  {16, 17, 70},      {64, 130, 9},
              {130, 64, 70}, {5, 260, 9},   {300, 5, 9}, {100, 270, 160},   {270, 100, 160}};
enum { N_SHAPES = sizeof shapes / sizeof shapes[0], TOP_K = 2, N_GROUPS = 7 };

// Variant bits of one case, so that each option is met with every shape.
struct variant {
    uint32_t n_out, n_in, n_tokens, i;
    enum case_groups groups;
    bool grouped;
    enum moe_net_write write;
    enum moe_net_type type; // of the matrix
};

static struct case_grouping grouping_of(struct net_case *c, const struct variant *v)
{
    struct case_grouping none = {MOE_NET_NONE, MOE_NET_NONE, 1};
    return v->grouped ? case_group(c, v->groups, TOP_K, N_GROUPS) : none;
}

static void begin(struct net_case *c, const struct variant *v, const char *op, const char *more)
{
    static const char *const types[] = {"", "", ", f16", ", bf16"};
    case_begin(c, v->n_tokens, 1, "%s %ux%u %s %s%s%s", op, v->n_out, v->n_in,
               v->grouped ? group_names[v->groups] : "no groups", write_names[v->write], more,
               types[v->type]);
    c->linear = true;
}

static void matmul(struct case_sink *sink, const struct variant *v)
{
    struct net_case c;
    bool divides = v->i % 2 == 0, bias = v->i % 3 != 0;
    begin(&c, v, "matmul", divides ? ", div" : "");
    struct case_grouping g = grouping_of(&c, v);
    uint32_t a = case_f32(&c, MOE_NET_TOKENS, divides ? 1 : TOP_K, v->n_in);
    uint32_t w = case_weight(&c, v->type, g.n_groups * v->n_out, v->n_in);
    uint32_t b = bias ? case_f32(&c, MOE_NET_FIXED, g.n_groups, v->n_out) : MOE_NET_NONE;
    uint32_t y = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, TOP_K, v->n_out);
    struct moe_net_op *op = case_op(&c, MOE_NET_MATMUL, v->write);
    op->in[0] = a, op->in[1] = w, op->in[2] = b, op->in[3] = g.starts, op->in[4] = g.members;
    op->div[0] = divides ? TOP_K : 1;
    op->out[0] = y;
    c.terms = v->n_in + 1;
    case_done(sink, &c);
}

static void matmul_dx(struct case_sink *sink, const struct variant *v)
{
    struct net_case c;
    bool divides = v->i % 2 == 1;
    begin(&c, v, "matmul_dx", divides ? ", div" : "");
    struct case_grouping g = grouping_of(&c, v);
    uint32_t dy = case_f32(&c, MOE_NET_TOKENS, divides ? 1 : TOP_K, v->n_out);
    uint32_t w = case_weight(&c, v->type, g.n_groups * v->n_out, v->n_in);
    uint32_t da = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, TOP_K, v->n_in);
    struct moe_net_op *op = case_op(&c, MOE_NET_MATMUL_DX, v->write);
    op->in[0] = dy, op->in[1] = w, op->in[2] = g.starts, op->in[3] = g.members;
    op->div[0] = divides ? TOP_K : 1;
    op->out[0] = da;
    c.terms = v->n_out;
    case_done(sink, &c);
}

static void matmul_dw(struct case_sink *sink, const struct variant *v)
{
    struct net_case c;
    bool bias = v->i % 2 == 0, weighed = v->i % 3 != 0;
    uint32_t q0 = v->grouped && v->i % 2 == 1 ? TOP_K : 1;
    uint32_t q1 = v->grouped && v->i % 4 < 2 ? TOP_K : 1;
    begin(&c, v, "matmul_dw", weighed ? ", weighed" : "");
    struct case_grouping g = grouping_of(&c, v);
    uint32_t dy = case_f32(&c, MOE_NET_TOKENS, TOP_K / q0, v->n_out);
    uint32_t a = case_f32(&c, MOE_NET_TOKENS, TOP_K / q1, v->n_in);
    uint32_t s = weighed ? case_f32(&c, MOE_NET_TOKENS, TOP_K, 1) : MOE_NET_NONE;
    uint32_t dw = case_out(&c, MOE_NET_F32, MOE_NET_FIXED, g.n_groups * v->n_out, v->n_in);
    uint32_t db =
        bias ? case_out(&c, MOE_NET_F32, MOE_NET_FIXED, g.n_groups, v->n_out) : MOE_NET_NONE;
    struct moe_net_op *op = case_op(&c, MOE_NET_MATMUL_DW, v->write);
    op->in[0] = dy, op->in[1] = a, op->in[2] = s, op->in[3] = g.starts, op->in[4] = g.members;
    op->div[0] = q0, op->div[1] = q1;
    op->out[0] = dw, op->out[1] = db;
    c.terms = c.args.n_tokens * TOP_K;
    case_done(sink, &c);
}

static void matmul_combine(struct case_sink *sink, const struct variant *v)
{
    struct net_case c;
    bool bias = v->i % 2 == 0, weighed = v->i % 3 != 0;
    begin(&c, v, "matmul_combine", weighed ? ", weighed" : "");
    struct case_grouping g = grouping_of(&c, v);
    uint32_t h = case_f32(&c, MOE_NET_TOKENS, TOP_K, v->n_in);
    uint32_t w = case_weight(&c, v->type, g.n_groups * v->n_out, v->n_in);
    uint32_t b = bias ? case_f32(&c, MOE_NET_FIXED, g.n_groups, v->n_out) : MOE_NET_NONE;
    uint32_t s = weighed ? case_f32(&c, MOE_NET_TOKENS, TOP_K, 1) : MOE_NET_NONE;
    uint32_t y = case_out(&c, MOE_NET_F32, MOE_NET_TOKENS, 1, v->n_out);
    struct moe_net_op *op = case_op(&c, MOE_NET_MATMUL_COMBINE, v->write);
    op->in[0] = h, op->in[1] = w, op->in[2] = b, op->in[3] = s;
    op->in[4] = g.starts, op->in[5] = g.members;
    op->out[0] = y;
    op->top_k = TOP_K;
    op->alpha = v->i % 2 == 1 ? 0.75f : 1;
    c.terms = (v->n_in + 1) * TOP_K;
    case_done(sink, &c);
}

static void group_sum(struct case_sink *sink, const struct variant *v)
{
    struct net_case c;
    begin(&c, v, "group_sum", "");
    struct case_grouping g = grouping_of(&c, v);
    uint32_t d = case_f32(&c, MOE_NET_TOKENS, TOP_K, v->n_in);
    uint32_t e = case_out(&c, MOE_NET_F32, MOE_NET_FIXED, g.n_groups, v->n_in);
    struct moe_net_op *op = case_op(&c, MOE_NET_GROUP_SUM, v->write);
    op->in[0] = d, op->in[1] = g.starts, op->in[2] = g.members;
    op->out[0] = e;
    op->alpha = v->i % 2 == 1 ? -0.3f : 1;
    c.terms = c.args.n_tokens * TOP_K;
    case_done(sink, &c);
}

// n_ids: of 0 .. n_groups - 1; how: 0 spread, 1 all the same, 2 every second group.
static void group(struct case_sink *sink, uint32_t n_tokens, uint32_t n_groups, uint32_t how)
{
    struct net_case c;
    case_begin(&c, n_tokens, 1, "group %u rows, %u groups, how %u", n_tokens * 3, n_groups, how);
    uint32_t ids = case_i32(&c, MOE_NET_TOKENS, 3, 1);
    for (uint64_t i = 0; i < case_size(&c, ids); i++)
        c.data[ids].i32[i] = (int32_t) (how == 1   ? n_groups - 1
                                        : how == 2 ? case_next(&c, n_groups) / 2 * 2
                                                   : case_next(&c, n_groups));
    uint32_t starts = case_out(&c, MOE_NET_I32, MOE_NET_FIXED, n_groups + 1, 1);
    uint32_t members = case_out(&c, MOE_NET_I32, MOE_NET_TOKENS, 3, 1);
    struct moe_net_op *op = case_op(&c, MOE_NET_GROUP, MOE_NET_SET);
    op->in[0] = ids, op->out[0] = starts, op->out[1] = members;
    case_done(sink, &c);
}

static void iota(struct case_sink *sink, uint32_t n)
{
    struct net_case c;
    case_begin(&c, 9, 1, "iota of %u", n);
    struct moe_net_op *op = case_op(&c, MOE_NET_IOTA, MOE_NET_SET);
    op->out[0] = case_out(&c, MOE_NET_I32, MOE_NET_TOKENS, 5, 1);
    op->n = n;
    c.zero = n == 1;
    case_done(sink, &c);
}

static void whole_sum(struct case_sink *sink, enum moe_net_op_kind kind, enum moe_net_rows_of rows,
                      uint32_t n, uint32_t width, enum moe_net_write write)
{
    struct net_case c;
    case_begin(&c, 9, 4, "%s of %ux%u, rows of %d, %s", moe_net_op_name(kind), n, width, rows,
               write_names[write]);
    uint32_t a = case_f32(&c, rows, n, width);
    case_random(&c, a, 0, 1); // so that little cancels
    struct moe_net_op *op = case_op(&c, kind, write);
    op->in[0] = a;
    op->out[0] = case_out(&c, MOE_NET_F32, MOE_NET_FIXED, 1, 1);
    c.terms = (double) (moe_net_rows(&c.net->tensors[a], 9, 4) * width);
    c.linear = true;
    case_done(sink, &c);
}

// Row i of the table of all shapes and groupings.
static struct variant variant(uint32_t i, enum moe_net_type type)
{
    const uint32_t shape = i / (N_CASE_GROUPS + 1), g = i % (N_CASE_GROUPS + 1);
    const struct shape *of = &shapes[shape];
    return (struct variant){of->n_out, of->n_in, of->n_tokens, i, g % N_CASE_GROUPS,
                            g < N_CASE_GROUPS, (enum moe_net_write)((i + shape) % 3), type};
}

// ---- 16 bits ---------------------------------------------------------------------------------

// kind 0: random numbers; 1: those that are halfway between two of the type, or beside that, from
// the least it can hold on; 2: beyond the largest.
static void rounding(struct case_sink *sink, enum moe_net_type type, uint32_t n, uint32_t width,
                     uint32_t kind)
{
    struct net_case c;
    case_begin(&c, 2, 1, "round %ux%u to type %d, kind %u", n, width, type, kind);
    uint32_t p = case_f32(&c, MOE_NET_FIXED, n, width);
    uint32_t q = case_out(&c, type, MOE_NET_FIXED, n, width);
    for (uint64_t i = 0; i < case_size(&c, p) && kind > 0; i++) {
        const float sign = i % 2 == 0 ? 1 : -1, largest = type == MOE_NET_F16 ? 65504.0f : 3e38f;
        const float spacing = type == MOE_NET_F16 ? 0x1p-10f : 0x1p-7f;
        const float one = ldexpf(1, type == MOE_NET_F16 ? (int) case_next(&c, 40) - 25
                                                        : (int) case_next(&c, 200) - 100);
        const float steps = (float) case_next(&c, 128) + 0.5f;
        c.data[p].f32[i] = sign * one * (1 + steps * spacing);
        if (i % 3 > 0)
            c.data[p].f32[i] = nextafterf(c.data[p].f32[i], i % 3 == 1 ? 0 : INFINITY);
        if (kind == 2)
            c.data[p].f32[i] =
                sign * (i % 5 == 0 ? INFINITY : largest * (1 + 0x1p-13f * (float) i));
    }
    struct moe_net_op *op = case_op(&c, MOE_NET_ROUND, MOE_NET_SET);
    op->in[0] = p, op->out[0] = q;
    c.linear = true;
    case_done(sink, &c);
}

void list_half_cases(struct case_sink *sink)
{
    static const enum moe_net_type types[] = {MOE_NET_F16, MOE_NET_BF16};
    for (uint32_t t = 0; t < 2; t++) {
        for (uint32_t i = 0; i < N_SHAPES * (N_CASE_GROUPS + 1); i++) {
            const struct variant v = variant(i, types[t]);
            matmul(sink, &v);
            matmul_dx(sink, &v);
            if (v.grouped)
                matmul_combine(sink, &v);
        }
        for (uint32_t kind = 0; kind < 3; kind++) {
            rounding(sink, types[t], 1, 1, kind);
            rounding(sink, types[t], 3, 17, kind);
            rounding(sink, types[t], 64, 130, kind);
        }
    }
}

// ---- lists -----------------------------------------------------------------------------------

void list_matrix_cases(struct case_sink *sink)
{
    for (uint32_t i = 0; i < N_SHAPES * (N_CASE_GROUPS + 1); i++) {
        const struct variant v = variant(i, MOE_NET_F32);
        matmul(sink, &v);
        matmul_dx(sink, &v);
        matmul_dw(sink, &v);
        group_sum(sink, &v);
        if (v.grouped)
            matmul_combine(sink, &v);
    }
    for (uint32_t how = 0; how < 3; how++) {
        group(sink, 5, 4, how);
        group(sink, 1, 1, how);
        group(sink, 200, 130, how);
        group(sink, 3, 1024, how);
    }
    iota(sink, 1);
    iota(sink, 3);
    iota(sink, 100);
    static const enum moe_net_op_kind sums[] = {MOE_NET_REDUCE, MOE_NET_SUM_SQUARES};
    for (uint32_t k = 0; k < 2; k++) {
        whole_sum(sink, sums[k], MOE_NET_FIXED, 1, 1, MOE_NET_SET);
        whole_sum(sink, sums[k], MOE_NET_EXAMPLES, 1, 1, MOE_NET_ADD);
        whole_sum(sink, sums[k], MOE_NET_TOKENS, 2, 17, MOE_NET_SET);
        whole_sum(sink, sums[k], MOE_NET_FIXED, 130, 64, MOE_NET_ADD);
    }
}
