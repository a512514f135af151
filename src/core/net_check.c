// SPDX-License-Identifier: MIT
#include "core/net_check.h"

#include "core/layer.h"

#include <stddef.h>

// The text of the condition is what is wrong.
#define NEED(condition)        \
    do {                       \
        if (!(condition))      \
            return #condition; \
    } while (0)

typedef const struct moe_net_tensor *tensor;

struct check {
    const struct moe_net *net;
    const struct moe_net_op *op;
    tensor in[MOE_NET_OPERANDS], out[MOE_NET_RESULTS]; // NULL: none
};

// ---- shapes -----------------------------------------------------------------------------------

static bool is_f32(tensor t, uint32_t width)
{
    return t && t->type == MOE_NET_F32 && t->width == width;
}

static bool is_i32(tensor t)
{
    return t && t->type == MOE_NET_I32 && t->width == 1;
}

static bool is_scalar(tensor t)
{
    return is_f32(t, 1) && t->rows == MOE_NET_FIXED && t->n == 1;
}

static bool is_row(tensor t, uint32_t width)
{
    return is_f32(t, width) && t->rows == MOE_NET_FIXED && t->n == 1;
}

// Tokens and examples are the same where there is no pool.
static bool same_rows(tensor a, tensor b)
{
    return a->n == b->n && (a->rows == MOE_NET_FIXED) == (b->rows == MOE_NET_FIXED);
}

static bool same_shape(tensor a, tensor b)
{
    return a && b && same_rows(a, b) && a->type == b->type && a->width == b->width;
}

// Does `a` have a row r / q for every row r of b?
static bool reaches(const struct check *c, tensor a, uint32_t q, tensor b)
{
    const struct moe_net *net = c->net;
    if (a->rows == MOE_NET_FIXED)
        return moe_net_rows(b, net->max_tokens, net->max_examples) <= (uint64_t) a->n * q;
    return b->n <= (uint64_t) a->n * q;
}

// Neither starts nor members, or both, members for the rows of `rows`.
static bool is_grouping(tensor starts, tensor members, tensor rows)
{
    if (!starts || !members)
        return !starts && !members;
    return is_i32(starts) && is_i32(members) && starts->rows == MOE_NET_FIXED && starts->n > 1 &&
           (!rows || same_rows(members, rows));
}

static uint64_t n_groups(tensor starts)
{
    return starts ? starts->n - 1 : 1;
}

// (G * n_out, n_in)
static bool is_matrix(tensor w, tensor starts, uint32_t n_out, uint32_t n_in)
{
    return w && w->width == n_in && w->rows == MOE_NET_FIXED && w->n == n_groups(starts) * n_out;
}

// One that rows are multiplied by.
static bool is_weight(tensor w, tensor starts, uint32_t n_out, uint32_t n_in)
{
    return is_matrix(w, starts, n_out, n_in) && w->type != MOE_NET_I32;
}

static bool is_bias(tensor b, tensor starts, uint32_t n_out)
{
    return !b || (is_f32(b, n_out) && b->rows == MOE_NET_FIXED && b->n == n_groups(starts));
}

// ---- matrices ---------------------------------------------------------------------------------

static const char *check_matmul(const struct check *c)
{
    tensor a = c->in[0], w = c->in[1], b = c->in[2], starts = c->in[3], y = c->out[0];
    NEED(a && y && is_f32(a, a->width) && is_f32(y, y->width));
    NEED(is_grouping(starts, c->in[4], y));
    NEED(is_weight(w, starts, y->width, a->width) && is_bias(b, starts, y->width));
    NEED(reaches(c, a, c->op->div[0], y));
    return NULL;
}

static const char *check_matmul_dx(const struct check *c)
{
    tensor dy = c->in[0], w = c->in[1], starts = c->in[2], da = c->out[0];
    NEED(dy && da && is_f32(dy, dy->width) && is_f32(da, da->width));
    NEED(is_grouping(starts, c->in[3], da));
    NEED(is_weight(w, starts, dy->width, da->width));
    NEED(reaches(c, dy, c->op->div[0], da));
    return NULL;
}

static const char *check_matmul_dw(const struct check *c)
{
    tensor dy = c->in[0], a = c->in[1], s = c->in[2], starts = c->in[3], members = c->in[4];
    NEED(dy && a && is_f32(dy, dy->width) && is_f32(a, a->width));
    NEED(is_grouping(starts, members, NULL));
    NEED(!s || is_f32(s, 1));
    NEED(is_matrix(c->out[0], starts, dy->width, a->width) && c->out[0]->type == MOE_NET_F32);
    NEED(is_bias(c->out[1], starts, dy->width));
    NEED(starts || same_rows(dy, a));
    NEED(!starts || (reaches(c, dy, c->op->div[0], members) &&
                     reaches(c, a, c->op->div[1], members) && (!s || reaches(c, s, 1, members))));
    return NULL;
}

static const char *check_combine(const struct check *c)
{
    tensor h = c->in[0], s = c->in[3], starts = c->in[4], y = c->out[0];
    NEED(h && y && starts && is_f32(h, h->width) && is_f32(y, y->width));
    NEED(is_grouping(starts, c->in[5], h));
    NEED(is_weight(c->in[1], starts, y->width, h->width) && is_bias(c->in[2], starts, y->width));
    NEED(!s || (is_f32(s, 1) && same_rows(s, h)));
    NEED(c->op->top_k > 0 && h->n == (uint64_t) y->n * c->op->top_k);
    return NULL;
}

static const char *check_group(const struct check *c)
{
    NEED(is_i32(c->in[0]) && c->out[0] && c->out[1]);
    NEED(is_grouping(c->out[0], c->out[1], c->in[0]));
    return NULL;
}

static const char *check_group_sum(const struct check *c)
{
    tensor d = c->in[0], starts = c->in[1], e = c->out[0];
    NEED(d && is_f32(d, d->width) && is_f32(e, d->width) && e->rows == MOE_NET_FIXED &&
         e->n == n_groups(starts));
    NEED(is_grouping(starts, c->in[2], d));
    return NULL;
}

// ---- routing ----------------------------------------------------------------------------------

static const char *check_select(const struct check *c)
{
    const vkmoe_layer_desc *layer = c->op->layer;
    bool backward = c->op->kind == MOE_NET_SELECT_BACKWARD;
    tensor logits = c->in[0], ids = backward ? c->in[1] : c->out[0];
    tensor gates = backward ? c->in[2] : c->out[1];
    NEED(layer && layer->n_experts > 0 && layer->n_experts <= MOE_MAX_EXPERTS);
    NEED(layer->top_k > 0 && layer->top_k <= layer->n_experts);
    NEED(logits && is_f32(logits, layer->n_experts));
    NEED(is_i32(ids) && is_f32(gates, 1) && same_rows(ids, gates));
    NEED(ids->n == (uint64_t) logits->n * layer->top_k);
    NEED(!backward || same_shape(logits, c->out[0]));
    NEED(backward || !c->in[1] || is_row(c->in[1], layer->n_experts));
    return NULL;
}

static const char *check_count(const struct check *c)
{
    NEED(is_i32(c->in[0]) && c->in[0]->rows == MOE_NET_FIXED);
    NEED(is_row(c->out[0], c->in[0]->n - 1));
    return NULL;
}

static const char *check_router_loss(const struct check *c)
{
    tensor p = c->in[0], starts = c->in[1];
    NEED(p && is_f32(p, p->width) && is_scalar(c->out[0]));
    NEED(!c->out[1] || same_shape(c->out[1], p));
    if (c->op->kind == MOE_NET_BALANCE) {
        NEED(is_i32(starts) && starts->rows == MOE_NET_FIXED && starts->n == p->width + 1);
        NEED(c->op->top_k > 0);
    }
    return NULL;
}

static const char *check_balance_bias(const struct check *c)
{
    tensor counts = c->in[0];
    NEED(counts && is_row(counts, counts->width) && same_shape(counts, c->out[0]));
    NEED(!c->in[1] || is_scalar(c->in[1]));
    return NULL;
}

// ---- rows -------------------------------------------------------------------------------------

// All of n_in operands, the first `needed` of which there must be, and of n_out results look alike.
static const char *check_alike(const struct check *c, uint32_t n_in, uint32_t needed,
                               uint32_t n_out)
{
    tensor first = c->out[0];
    NEED(first && first->type == MOE_NET_F32);
    for (uint32_t i = 0; i < n_in; i++)
        NEED(c->in[i] ? same_shape(c->in[i], first) : i >= needed);
    for (uint32_t i = 1; i < n_out; i++)
        NEED(same_shape(c->out[i], first));
    return NULL;
}

// As many elements, whatever the shape.
static bool same_elements(tensor a, tensor b)
{
    return a && b && (a->rows == MOE_NET_FIXED) == (b->rows == MOE_NET_FIXED) &&
           (uint64_t) a->n * a->width == (uint64_t) b->n * b->width;
}

static const char *check_act(const struct check *c)
{
    bool backward = c->op->kind == MOE_NET_ACT_BACKWARD;
    tensor a = c->in[backward ? 1 : 0], y = backward ? c->in[0] : c->out[0];
    NEED(same_elements(a, y) && is_f32(a, a->width) && is_f32(y, y->width));
    NEED(!backward || same_shape(a, c->out[0]));
    return NULL;
}

static const char *check_scale_rows(const struct check *c)
{
    const uint32_t *div = c->op->div;
    tensor a = c->in[0], s = c->in[1], index = c->in[2], y = c->out[0];
    NEED(a && y && is_f32(a, y->width) && is_f32(y, a->width));
    NEED(!s || (is_f32(s, 1) && reaches(c, s, div[1], y)));
    NEED(!index || (is_i32(index) && reaches(c, index, div[2], y)));
    NEED(index || reaches(c, a, div[0], y));
    return NULL;
}

static const char *check_row_dot(const struct check *c)
{
    tensor a = c->in[0], b = c->in[1], index = c->in[2], d = c->out[0];
    NEED(a && b && is_f32(a, b->width) && is_f32(b, a->width) && is_f32(d, 1));
    NEED(reaches(c, a, c->op->div[0], d));
    NEED(!index || (is_i32(index) && reaches(c, index, 1, d)));
    NEED(index || reaches(c, b, c->op->div[1], d));
    return NULL;
}

static const char *check_sum_slots(const struct check *c)
{
    tensor f = c->in[0], s = c->in[1], y = c->out[0];
    NEED(f && y && is_f32(f, y->width) && is_f32(y, f->width));
    NEED(c->op->top_k > 0 && f->n == (uint64_t) y->n * c->op->top_k);
    NEED(!s || (is_f32(s, 1) && reaches(c, s, c->op->div[1], f)));
    return NULL;
}

static const char *check_share(const struct check *c)
{
    bool backward = c->op->kind == MOE_NET_SHARE_BACKWARD;
    tensor r = c->in[backward ? 1 : 0], w = backward ? c->in[0] : c->out[0];
    NEED(r && is_f32(r, r->width) && is_f32(w, 1) && same_rows(r, w));
    NEED(c->op->top_k > 0 && r->n % c->op->top_k == 0);
    NEED(!backward || same_shape(c->out[0], r));
    return NULL;
}

static const char *check_norm(const struct check *c)
{
    tensor a = c->in[0], y = c->out[0], stats = c->out[1];
    NEED(a && is_f32(a, a->width) && same_shape(a, y));
    NEED(!c->in[1] || is_row(c->in[1], a->width));
    NEED(!c->in[2] || is_row(c->in[2], a->width));
    NEED(is_f32(stats, 2) && same_rows(stats, a));
    return NULL;
}

static const char *check_norm_backward(const struct check *c)
{
    bool of_gain = c->op->kind == MOE_NET_NORM_DGAIN;
    tensor dy = c->in[0], a = c->in[1], stats = c->in[of_gain ? 2 : 3];
    NEED(same_shape(dy, a) && is_f32(stats, 2) && same_rows(stats, a));
    if (of_gain) {
        NEED(is_row(c->out[0], a->width) && (!c->out[1] || is_row(c->out[1], a->width)));
        return NULL;
    }
    NEED(!c->in[2] || is_row(c->in[2], a->width));
    NEED(same_shape(c->out[0], a));
    return NULL;
}

static const char *check_pool(const struct check *c)
{
    bool backward = c->op->kind == MOE_NET_POOL_BACKWARD, most = c->op->n == MOE_NET_POOL_MAX;
    tensor a = backward ? c->out[0] : c->in[0], y = backward ? c->in[0] : c->out[0];
    tensor offsets = c->in[1], best = backward ? c->in[2] : c->out[1];
    const struct moe_net *net = c->net;
    NEED(a && y && is_f32(a, y->width) && is_f32(y, a->width) && c->op->n <= MOE_NET_POOL_MAX);
    NEED(a->rows == MOE_NET_TOKENS && a->n == 1 && y->rows == MOE_NET_EXAMPLES && y->n == 1);
    NEED(is_i32(offsets));
    NEED(moe_net_rows(offsets, net->max_tokens, net->max_examples) > net->max_examples);
    NEED(best ? best->type == MOE_NET_I32 && best->width == y->width && same_rows(best, y)
              : !(backward && most));
    return NULL;
}

// ---- losses -----------------------------------------------------------------------------------

static const char *check_cross_entropy(const struct check *c)
{
    tensor logits = c->in[0], target = c->in[1], loss = c->out[0];
    NEED(logits && target && is_f32(logits, logits->width));
    NEED(is_i32(target) || is_f32(target, logits->width));
    NEED(same_rows(logits, target) && is_f32(loss, 1) && same_rows(loss, logits));
    NEED(!c->in[2] || is_row(c->in[2], logits->width));
    NEED(!c->out[1] || same_shape(c->out[1], logits));
    return NULL;
}

static const char *check_point_loss(const struct check *c)
{
    tensor y = c->in[0], loss = c->out[0];
    NEED(y && is_f32(y, y->width) && same_shape(y, c->in[1]));
    NEED(is_f32(loss, 1) && same_rows(loss, y) && c->op->n <= MOE_NET_POINT_BCE_LOGITS);
    NEED(!c->out[1] || same_shape(c->out[1], y));
    return NULL;
}

static const char *check_mixture(const struct check *c)
{
    tensor f = c->in[0], s = c->in[1], target = c->in[2], loss = c->out[0];
    NEED(f && target && is_f32(f, f->width) && is_f32(s, 1) && same_rows(f, s));
    NEED(is_f32(loss, 1) && same_rows(loss, target) && c->op->n <= 1);
    NEED(c->op->n == 0 ? is_i32(target) : is_f32(target, f->width));
    NEED(c->op->top_k > 0 && f->n == (uint64_t) target->n * c->op->top_k);
    NEED(!c->out[1] || same_shape(c->out[1], f));
    NEED(!c->out[2] || same_shape(c->out[2], s));
    return NULL;
}

// ---- steps ------------------------------------------------------------------------------------

static const char *check_sum(const struct check *c)
{
    NEED(c->in[0] && is_f32(c->in[0], c->in[0]->width) && is_scalar(c->out[0]));
    return NULL;
}

static const char *check_step(const struct check *c)
{
    const struct moe_net_step *rule = c->op->step;
    tensor g = c->in[0], p = c->out[0], m = c->out[1], v = c->out[2];
    NEED(rule && same_shape(g, p) && g->type == MOE_NET_F32);
    NEED((!c->in[1] || is_scalar(c->in[1])) && (!c->in[2] || is_scalar(c->in[2])));
    NEED(rule->kind == MOE_NET_SGD ? (m != NULL) == (rule->momentum != 0) : m && v);
    NEED((!m || same_shape(m, p)) && (!v || same_shape(v, p)));
    return NULL;
}

static const char *check_round(const struct check *c)
{
    tensor p = c->in[0], q = c->out[0];
    NEED(p && q && is_f32(p, q->width) && same_rows(p, q) && moe_net_type_is_half(q->type));
    return NULL;
}

// ---- all --------------------------------------------------------------------------------------

static const char *check_shapes(const struct check *c)
{
    switch (c->op->kind) {
    case MOE_NET_MATMUL:
        return check_matmul(c);
    case MOE_NET_MATMUL_DX:
        return check_matmul_dx(c);
    case MOE_NET_MATMUL_DW:
        return check_matmul_dw(c);
    case MOE_NET_MATMUL_COMBINE:
        return check_combine(c);
    case MOE_NET_GROUP:
        return check_group(c);
    case MOE_NET_GROUP_SUM:
        return check_group_sum(c);
    case MOE_NET_IOTA:
        return is_i32(c->out[0]) && c->op->n > 0 ? NULL : "ids, n";
    case MOE_NET_SELECT:
    case MOE_NET_SELECT_BACKWARD:
        return check_select(c);
    case MOE_NET_NOISE:
        return check_alike(c, 2, 1, 1);
    case MOE_NET_ACT:
    case MOE_NET_ACT_BACKWARD:
        return check_act(c);
    case MOE_NET_SOFTMAX:
    case MOE_NET_DROPOUT:
        return check_alike(c, 1, 1, 1);
    case MOE_NET_NOISE_BACKWARD:
    case MOE_NET_GLU:
    case MOE_NET_SOFTMAX_BACKWARD:
        return check_alike(c, 2, 2, 1);
    case MOE_NET_GLU_BACKWARD:
        return check_alike(c, 3, 3, 2);
    case MOE_NET_SCALE_ROWS:
        return check_scale_rows(c);
    case MOE_NET_ROW_DOT:
        return check_row_dot(c);
    case MOE_NET_SUM_SLOTS:
        return check_sum_slots(c);
    case MOE_NET_SHARE:
    case MOE_NET_SHARE_BACKWARD:
        return check_share(c);
    case MOE_NET_NORM:
        return check_norm(c);
    case MOE_NET_NORM_BACKWARD:
    case MOE_NET_NORM_DGAIN:
        return check_norm_backward(c);
    case MOE_NET_POOL:
    case MOE_NET_POOL_BACKWARD:
        return check_pool(c);
    case MOE_NET_CROSS_ENTROPY:
        return check_cross_entropy(c);
    case MOE_NET_POINT_LOSS:
        return check_point_loss(c);
    case MOE_NET_MIXTURE_NLL:
        return check_mixture(c);
    case MOE_NET_BALANCE:
    case MOE_NET_Z_LOSS:
        return check_router_loss(c);
    case MOE_NET_REDUCE:
    case MOE_NET_SUM_SQUARES:
        return check_sum(c);
    case MOE_NET_FILL:
        return c->out[0] && !moe_net_type_is_half(c->out[0]->type) ? NULL : "a";
    case MOE_NET_CLIP:
        return is_scalar(c->in[0]) && is_scalar(c->out[0]) ? NULL : "sum, factor: (1, 1)";
    case MOE_NET_STEP:
        return check_step(c);
    case MOE_NET_ROUND:
        return check_round(c);
    case MOE_NET_COUNT:
        return check_count(c);
    case MOE_NET_BALANCE_BIAS:
        return check_balance_bias(c);
    }
    return "kind";
}

const char *moe_net_check_op(const struct moe_net *net, const struct moe_net_op *op)
{
    struct check c = {.net = net, .op = op};
    for (uint32_t i = 0; i < MOE_NET_OPERANDS; i++) {
        NEED(op->in[i] == MOE_NET_NONE ||
             (op->in[i] < net->n_tensors && i < moe_net_n_in(op->kind)));
        c.in[i] = op->in[i] == MOE_NET_NONE ? NULL : &net->tensors[op->in[i]];
    }
    for (uint32_t i = 0; i < MOE_NET_RESULTS; i++) {
        NEED(op->out[i] == MOE_NET_NONE ||
             (op->out[i] < net->n_tensors && i < moe_net_n_out(op->kind)));
        c.out[i] = op->out[i] == MOE_NET_NONE ? NULL : &net->tensors[op->out[i]];
        for (uint32_t j = 0; j < MOE_NET_OPERANDS; j++)
            NEED(!c.out[i] || op->in[j] != op->out[i]);
    }
    for (uint32_t i = 0; i < 3; i++)
        NEED(op->div[i] > 0);
    return check_shapes(&c);
}
