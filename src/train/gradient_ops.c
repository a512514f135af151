// SPDX-License-Identifier: MIT
// The backward ops of each op. `g` is the pass, `op` the forward op, `dy` its result's gradient.
#include "train/gradient.h"

#include <assert.h>

// An op whose first result is the next part of the gradient of `tensor`.
static struct moe_net_op *emit_to(struct moe_gradient *g, enum moe_net_op_kind kind,
                                  uint32_t tensor, uint32_t in0, uint32_t in1, uint32_t in2)
{
    struct moe_train_target to = moe_gradient_target(g, tensor);
    struct moe_net_op *op = moe_emit_op(&g->emit, kind, to.tensor, in0, in1, in2);
    op->write = to.write;
    return op;
}

// A finished part.
static void add_part(struct moe_gradient *g, uint32_t tensor, uint32_t part)
{
    emit_to(g, MOE_NET_SCALE_ROWS, tensor, part, MOE_NET_NONE, MOE_NET_NONE);
}

// ---- products --------------------------------------------------------------------------------

// dw_G = sum_r s_r dy[r/q0]^T a[r/q1], db_G = sum_r s_r dy[r/q0], of parameters or values.
struct product {
    uint32_t dy, q0, a, q1, s;
    uint32_t w, b, starts, members;
};

static void bias_gradient(struct moe_gradient *g, const struct product *p)
{
    assert(p->q0 == 1 && p->s == MOE_NET_NONE);
    emit_to(g, MOE_NET_GROUP_SUM, p->b, p->dy, p->starts, p->members);
}

static void product_gradient(struct moe_gradient *g, const struct product *p)
{
    bool of_b = moe_gradient_needs(g, p->b);
    if (!moe_gradient_needs(g, p->w)) {
        if (of_b)
            bias_gradient(g, p);
        return;
    }
    uint32_t a = moe_gradient_saved(g, p->a);
    struct moe_train_target dw = moe_gradient_target(g, p->w);
    struct moe_train_target db = {MOE_NET_NONE, dw.write};
    bool b_is_param = of_b && g->train->net->tensors[p->b].role == MOE_NET_PARAM;
    if (b_is_param)
        db = moe_gradient_target(g, p->b);
    assert(db.write == dw.write); // a weight and its bias are used together
    struct moe_net_op *op = moe_emit_op(&g->emit, MOE_NET_MATMUL_DW, dw.tensor, p->dy, a, p->s);
    op->in[3] = p->starts;
    op->in[4] = p->members;
    op->out[1] = db.tensor;
    op->div[0] = p->q0;
    op->div[1] = p->q1;
    op->write = dw.write;
    if (of_b && !b_is_param)
        bias_gradient(g, p);
}

static void matmul(struct moe_gradient *g, const struct moe_net_op *op, uint32_t dy)
{
    uint32_t a = op->in[0], w = op->in[1];
    if (moe_gradient_needs(g, a)) {
        struct moe_train_target to = op->div[0] == 1 ? moe_gradient_target(g, a)
                                                     : moe_gradient_slots(g, a, op->div[0]);
        struct moe_net_op *dx =
            moe_emit_op(&g->emit, MOE_NET_MATMUL_DX, to.tensor, dy, w, op->in[3]);
        dx->in[3] = op->in[4];
        dx->write = to.write;
    }
    const struct product p = {dy, 1, a, op->div[0], MOE_NET_NONE, w, op->in[2], op->in[3],
                              op->in[4]};
    product_gradient(g, &p);
}

// The ids that made a grouping.
static uint32_t ids_of(const struct moe_gradient *g, uint32_t starts)
{
    const struct moe_net_ops *forward = &g->train->net->programs[MOE_NET_FORWARD];
    for (uint32_t i = 0; i < forward->n; i++)
        if (forward->ops[i].kind == MOE_NET_GROUP && forward->ops[i].out[0] == starts)
            return forward->ops[i].in[0];
    return MOE_NET_NONE;
}

// y[t] = alpha sum_k s (W_g h + b_g). With dY = alpha dy[t] and dA' = dY W_g, made once for slots:
//   ds = <dA', h> + <dY, b_g>,  dh = s dA',  dW_g = sum s dY^T h,  db_g = sum s dY
static void matmul_combine(struct moe_gradient *g, const struct moe_net_op *op, uint32_t dy)
{
    const struct moe_emit *emit = &g->emit;
    uint32_t h = op->in[0], w = op->in[1], b = op->in[2], s = op->in[3];
    uint32_t starts = op->in[4], members = op->in[5];
    if (op->alpha != 1) {
        uint32_t scaled = moe_emit_like(emit, dy, "scaled");
        moe_emit_op(emit, MOE_NET_SCALE_ROWS, scaled, dy, MOE_NET_NONE, MOE_NET_NONE)->alpha =
            op->alpha;
        dy = scaled;
    }
    uint32_t again = moe_gradient_saved(g, h);
    uint32_t da = moe_emit_like(emit, h, "gradient of slots");
    struct moe_net_op *dx = moe_emit_op(emit, MOE_NET_MATMUL_DX, da, dy, w, starts);
    dx->in[3] = members;
    dx->div[0] = op->top_k;
    if (moe_gradient_needs(g, s)) {
        emit_to(g, MOE_NET_ROW_DOT, s, da, again, MOE_NET_NONE);
        if (b != MOE_NET_NONE)
            emit_to(g, MOE_NET_ROW_DOT, s, dy, b, ids_of(g, starts))->div[0] = op->top_k;
    }
    const struct product p = {dy, op->top_k, h, 1, s, w, b, starts, members};
    product_gradient(g, &p);
    if (moe_gradient_needs(g, h))
        emit_to(g, MOE_NET_SCALE_ROWS, h, da, s, MOE_NET_NONE);
}

// ---- rows ------------------------------------------------------------------------------------

// Every row by the index that chose it: dA[i] = sum of alpha dy over rows of index i.
static void gathered_rows(struct moe_gradient *g, const struct moe_net_op *op, uint32_t dy)
{
    uint32_t a = op->in[0], index = op->in[2];
    uint32_t n = moe_emit_rows(&g->emit, a).n;
    assert(op->in[1] == MOE_NET_NONE && op->div[2] == 1);
    struct moe_emit_groups groups = MOE_EMIT_NO_GROUPS; // of one row
    if (n > 1)
        groups = moe_emit_group(&g->emit, index, n);
    emit_to(g, MOE_NET_GROUP_SUM, a, dy, groups.starts, groups.members)->alpha = op->alpha;
}

// y[r] = alpha s[r/q1] a[r/q0]
static void scale_rows(struct moe_gradient *g, const struct moe_net_op *op, uint32_t dy)
{
    uint32_t a = op->in[0], s = op->in[1];
    if (moe_gradient_needs(g, s)) {
        assert(op->div[1] == 1 && op->in[2] == MOE_NET_NONE);
        struct moe_net_op *ds =
            emit_to(g, MOE_NET_ROW_DOT, s, dy, moe_gradient_saved(g, a), MOE_NET_NONE);
        ds->div[1] = op->div[0];
        ds->alpha = op->alpha;
    }
    if (!moe_gradient_needs(g, a))
        return;
    if (op->in[2] != MOE_NET_NONE) {
        gathered_rows(g, op, dy);
        return;
    }
    bool spread = op->div[0] > 1;
    struct moe_net_op *da = emit_to(g, spread ? MOE_NET_SUM_SLOTS : MOE_NET_SCALE_ROWS, a, dy, s,
                                    MOE_NET_NONE);
    da->div[1] = op->div[1];
    da->alpha = op->alpha;
    if (spread)
        da->top_k = op->div[0];
}

// da of d[r] = alpha <a[r], b[r/q]>: rows of the other operand, spread or added up.
static void row_dot(struct moe_gradient *g, const struct moe_net_op *op, uint32_t dd)
{
    uint32_t a = op->in[0], b = op->in[1], q = op->div[1];
    assert(op->div[0] == 1 && op->in[2] == MOE_NET_NONE);
    if (moe_gradient_needs(g, a)) {
        struct moe_net_op *da =
            emit_to(g, MOE_NET_SCALE_ROWS, a, moe_gradient_saved(g, b), dd, MOE_NET_NONE);
        da->div[0] = q;
        da->alpha = op->alpha;
    }
    if (moe_gradient_needs(g, b)) {
        struct moe_net_op *db = emit_to(g, q > 1 ? MOE_NET_SUM_SLOTS : MOE_NET_SCALE_ROWS, b,
                                        moe_gradient_saved(g, a), dd, MOE_NET_NONE);
        db->alpha = op->alpha;
        if (q > 1)
            db->top_k = q;
    }
}

// y[t] = alpha sum_k s[tK+k] f[tK+k]
static void sum_slots(struct moe_gradient *g, const struct moe_net_op *op, uint32_t dy)
{
    uint32_t f = op->in[0], s = op->in[1];
    assert(op->div[1] == 1);
    if (moe_gradient_needs(g, s)) {
        struct moe_net_op *ds =
            emit_to(g, MOE_NET_ROW_DOT, s, moe_gradient_saved(g, f), dy, MOE_NET_NONE);
        ds->div[1] = op->top_k;
        ds->alpha = op->alpha;
    }
    if (moe_gradient_needs(g, f)) {
        struct moe_net_op *df = emit_to(g, MOE_NET_SCALE_ROWS, f, dy, s, MOE_NET_NONE);
        df->div[0] = op->top_k;
        df->alpha = op->alpha;
    }
}

// ---- elements --------------------------------------------------------------------------------

static void act(struct moe_gradient *g, const struct moe_net_op *op, uint32_t dy)
{
    uint32_t a = op->in[0];
    if (!moe_gradient_needs(g, a))
        return;
    if (op->act != VKMOE_ACT_NONE) {
        uint32_t again = moe_gradient_saved(g, a);
        struct moe_net_op *da = emit_to(g, MOE_NET_ACT_BACKWARD, a, dy, again, MOE_NET_NONE);
        da->act = op->act;
        da->beta = op->beta;
        return;
    }
    // another shape: `a` itself is not needed
    uint32_t shaped = moe_emit_reshape(&g->emit, dy, moe_emit_rows(&g->emit, a),
                                       moe_emit_width(&g->emit, a));
    add_part(g, a, shaped);
}

static void glu(struct moe_gradient *g, const struct moe_net_op *op, uint32_t dh)
{
    uint32_t gate = moe_gradient_saved(g, op->in[0]), up = moe_gradient_saved(g, op->in[1]);
    struct moe_train_target d_gate = moe_gradient_target(g, op->in[0]);
    struct moe_train_target d_up = moe_gradient_target(g, op->in[1]);
    assert(d_gate.write == MOE_NET_SET && d_up.write == MOE_NET_SET); // halves serve h alone
    struct moe_net_op *back =
        moe_emit_op(&g->emit, MOE_NET_GLU_BACKWARD, d_gate.tensor, dh, gate, up);
    back->out[1] = d_up.tensor;
    back->act = op->act;
    back->beta = op->beta;
}

static void noise(struct moe_gradient *g, const struct moe_net_op *op, uint32_t dy)
{
    uint32_t a = op->in[0], z = op->in[1];
    if (moe_gradient_needs(g, a))
        add_part(g, a, dy);
    if (!moe_gradient_needs(g, z))
        return;
    struct moe_net_op *dz =
        emit_to(g, MOE_NET_NOISE_BACKWARD, z, dy, moe_gradient_saved(g, z), MOE_NET_NONE);
    dz->alpha = op->alpha;
    dz->stream = op->stream;
}

static void dropout(struct moe_gradient *g, const struct moe_net_op *op, uint32_t dy)
{
    if (!moe_gradient_needs(g, op->in[0]))
        return;
    struct moe_net_op *da = emit_to(g, MOE_NET_DROPOUT, op->in[0], dy, MOE_NET_NONE, MOE_NET_NONE);
    da->alpha = op->alpha;
    da->stream = op->stream;
}

static void norm(struct moe_gradient *g, const struct moe_net_op *op, uint32_t dy)
{
    uint32_t a = op->in[0], gain = op->in[1], bias = op->in[2], stats = op->out[1];
    uint32_t again = moe_gradient_saved(g, a);
    struct moe_train_target d_gain = moe_gradient_target(g, gain);
    struct moe_net_op *back =
        moe_emit_op(&g->emit, MOE_NET_NORM_DGAIN, d_gain.tensor, dy, again, stats);
    back->write = d_gain.write;
    back->n = op->n;
    if (bias != MOE_NET_NONE)
        back->out[1] = moe_gradient_target(g, bias).tensor;
    if (!moe_gradient_needs(g, a))
        return;
    back = emit_to(g, MOE_NET_NORM_BACKWARD, a, dy, again, gain);
    back->in[3] = stats;
    back->n = op->n;
    back->eps = op->eps;
}

static void pool(struct moe_gradient *g, const struct moe_net_op *op, uint32_t dy)
{
    uint32_t a = op->in[0];
    if (!moe_gradient_needs(g, a))
        return;
    uint32_t part = moe_emit_like(&g->emit, a, "gradient"); // POOL_BACKWARD cannot add
    moe_emit_op(&g->emit, MOE_NET_POOL_BACKWARD, part, dy, op->in[1], op->out[1])->n = op->n;
    add_part(g, a, part);
}

static void softmax(struct moe_gradient *g, const struct moe_net_op *op, uint32_t dp)
{
    if (moe_gradient_needs(g, op->in[0]))
        emit_to(g, MOE_NET_SOFTMAX_BACKWARD, op->in[0], dp, moe_gradient_saved(g, op->out[0]),
                MOE_NET_NONE)->alpha = op->alpha;
}

static void share(struct moe_gradient *g, const struct moe_net_op *op, uint32_t dw)
{
    if (!moe_gradient_needs(g, op->in[0]))
        return;
    uint32_t r = moe_gradient_saved(g, op->in[0]);
    struct moe_net_op *dr = emit_to(g, MOE_NET_SHARE_BACKWARD, op->in[0], dw, r, MOE_NET_NONE);
    dr->top_k = op->top_k;
    dr->eps = op->eps;
}

static void select_experts(struct moe_gradient *g, const struct moe_net_op *op, uint32_t d_gates)
{
    if (!moe_gradient_needs(g, op->in[0]))
        return;
    struct moe_net_op *back =
        emit_to(g, MOE_NET_SELECT_BACKWARD, op->in[0], op->in[0], op->out[0], d_gates);
    back->layer = op->layer;
    back->top_k = op->top_k;
}

void moe_gradient_op(struct moe_gradient *gradient, const struct moe_net_op *op, uint32_t dy)
{
    switch (op->kind) {
#define OP_CASE(kind, function)                                                                    \
    case MOE_NET_##kind:                                                                           \
        function(gradient, op, dy);                                                                \
        return
        OP_CASE(MATMUL, matmul);
        OP_CASE(MATMUL_COMBINE, matmul_combine);
        OP_CASE(SELECT, select_experts);
        OP_CASE(NOISE, noise);
        OP_CASE(ACT, act);
        OP_CASE(GLU, glu);
        OP_CASE(SCALE_ROWS, scale_rows);
        OP_CASE(ROW_DOT, row_dot);
        OP_CASE(SUM_SLOTS, sum_slots);
        OP_CASE(SOFTMAX, softmax);
        OP_CASE(SHARE, share);
        OP_CASE(NORM, norm);
        OP_CASE(DROPOUT, dropout);
        OP_CASE(POOL, pool);
#undef OP_CASE
    case MOE_NET_GROUP: // of integers or constants
    case MOE_NET_IOTA:
    case MOE_NET_FILL:
        return;
    case MOE_NET_MATMUL_DX: // no layer is made of these
    case MOE_NET_MATMUL_DW:
    case MOE_NET_GROUP_SUM:
    case MOE_NET_SELECT_BACKWARD:
    case MOE_NET_NOISE_BACKWARD:
    case MOE_NET_ACT_BACKWARD:
    case MOE_NET_GLU_BACKWARD:
    case MOE_NET_SOFTMAX_BACKWARD:
    case MOE_NET_SHARE_BACKWARD:
    case MOE_NET_NORM_BACKWARD:
    case MOE_NET_NORM_DGAIN:
    case MOE_NET_POOL_BACKWARD:
    case MOE_NET_CROSS_ENTROPY:
    case MOE_NET_POINT_LOSS:
    case MOE_NET_MIXTURE_NLL:
    case MOE_NET_BALANCE:
    case MOE_NET_Z_LOSS:
    case MOE_NET_REDUCE:
    case MOE_NET_SUM_SQUARES:
    case MOE_NET_CLIP:
    case MOE_NET_STEP:
    case MOE_NET_ROUND:
    case MOE_NET_COUNT:
    case MOE_NET_BALANCE_BIAS:
        assert(false);
        return;
    }
}
