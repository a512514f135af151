// SPDX-License-Identifier: MIT
// A moe layer built of ops of core/net.h, with its backward ops, against the layer's own oracle,
// core/ref.c and core/ref_backward.c. Both are f64, so they differ by roundings only.
#include "check.h"
#include "ref_problem.h"

#include "base/host.h"
#include "core/net_ref.h"

enum { NONE = (int) MOE_NET_NONE };

// Parameters and their gradients are tensors next to each other.
struct layer_net {
    struct moe_net *net;
    struct moe_ref_net *ref;
    const vkmoe_layer_desc *layer;
    uint32_t x, dx, y, dy;
    uint32_t router, router_bias, gate, gate_bias, up, up_bias, down, down_bias; // or NONE
    uint32_t logits, ids, gates, starts, members, pre_gate, pre_up, h;
};

static uint32_t tensor(struct layer_net *n, enum moe_net_role role, enum moe_net_type type,
                       enum moe_net_rows_of rows, uint32_t n_rows, uint32_t width)
{
    uint32_t t = moe_net_add_tensor(n->net, role, type, rows, n_rows, width, "t");
    n->net->tensors[t].keep = true;
    return t;
}

static uint32_t of_tokens(struct layer_net *n, uint32_t n_rows, uint32_t width)
{
    return tensor(n, MOE_NET_VALUE, MOE_NET_F32, MOE_NET_TOKENS, n_rows, width);
}

// A parameter and, behind it, its gradient; NONE where the layer has none.
static uint32_t param(struct layer_net *n, bool wanted, uint32_t n_rows, uint32_t width)
{
    if (!wanted)
        return NONE;
    uint32_t t = tensor(n, MOE_NET_PARAM, MOE_NET_F32, MOE_NET_FIXED, n_rows, width);
    tensor(n, MOE_NET_GRAD, MOE_NET_F32, MOE_NET_FIXED, n_rows, width);
    return t;
}

static uint32_t gradient_of(uint32_t t)
{
    return t == MOE_NET_NONE ? MOE_NET_NONE : t + 1;
}

static struct moe_net_op *add_op(struct layer_net *n, enum moe_net_program p,
                                 enum moe_net_op_kind kind, const uint32_t in[6],
                                 const uint32_t out[3])
{
    struct moe_net_op *op = moe_net_add_op(n->net, p, kind);
    memcpy(op->in, in, moe_net_n_in(kind) * sizeof *in);
    memcpy(op->out, out, moe_net_n_out(kind) * sizeof *out);
    op->layer = n->layer;
    op->top_k = n->layer->top_k;
    op->act = n->layer->act;
    op->beta = n->layer->act_alpha;
    return op;
}

#define LIST(...) ((const uint32_t[6]){__VA_ARGS__})

static void add_tensors(struct layer_net *n)
{
    const vkmoe_layer_desc *l = n->layer;
    n->x = tensor(n, MOE_NET_INPUT, MOE_NET_F32, MOE_NET_TOKENS, 1, l->d_model);
    n->dy = tensor(n, MOE_NET_INPUT, MOE_NET_F32, MOE_NET_TOKENS, 1, l->d_out);
    n->y = of_tokens(n, 1, l->d_out);
    n->dx = of_tokens(n, 1, l->d_model);
    n->router = param(n, true, l->n_experts, l->d_model);
    n->router_bias = param(n, l->router_bias, 1, l->n_experts);
    n->gate = param(n, l->gated, l->n_experts * l->d_ff, l->d_model);
    n->gate_bias = param(n, l->gate_bias, l->n_experts, l->d_ff);
    n->up = param(n, true, l->n_experts * l->d_ff, l->d_model);
    n->up_bias = param(n, l->up_bias, l->n_experts, l->d_ff);
    n->down = param(n, true, l->n_experts * l->d_out, l->d_ff);
    n->down_bias = param(n, l->down_bias, l->n_experts, l->d_out);
    n->logits = of_tokens(n, 1, l->n_experts);
    n->ids = tensor(n, MOE_NET_VALUE, MOE_NET_I32, MOE_NET_TOKENS, l->top_k, 1);
    n->gates = of_tokens(n, l->top_k, 1);
    n->starts = tensor(n, MOE_NET_VALUE, MOE_NET_I32, MOE_NET_FIXED, l->n_experts + 1, 1);
    n->members = tensor(n, MOE_NET_VALUE, MOE_NET_I32, MOE_NET_TOKENS, l->top_k, 1);
    n->pre_gate = of_tokens(n, l->top_k, l->d_ff);
    n->pre_up = of_tokens(n, l->top_k, l->d_ff);
    n->h = of_tokens(n, l->top_k, l->d_ff);
}

static float out_factor(const vkmoe_layer_desc *layer)
{
    return layer->c_routed * layer->out_scale;
}

static void add_forward(struct layer_net *n, uint32_t selection_bias)
{
    const enum moe_net_program f = MOE_NET_FORWARD;
    const vkmoe_layer_desc *l = n->layer;
    add_op(n, f, MOE_NET_MATMUL, LIST(n->x, n->router, n->router_bias, NONE, NONE),
           LIST(n->logits));
    add_op(n, f, MOE_NET_SELECT, LIST(n->logits, selection_bias), LIST(n->ids, n->gates));
    add_op(n, f, MOE_NET_GROUP, LIST(n->ids), LIST(n->starts, n->members));
    if (l->gated)
        add_op(n, f, MOE_NET_MATMUL, LIST(n->x, n->gate, n->gate_bias, n->starts, n->members),
               LIST(n->pre_gate))
            ->div[0] = l->top_k;
    add_op(n, f, MOE_NET_MATMUL, LIST(n->x, n->up, n->up_bias, n->starts, n->members),
           LIST(n->pre_up))
        ->div[0] = l->top_k;
    if (l->gated)
        add_op(n, f, MOE_NET_GLU, LIST(n->pre_gate, n->pre_up), LIST(n->h));
    else
        add_op(n, f, MOE_NET_ACT, LIST(n->pre_up), LIST(n->h));
    add_op(n, f, MOE_NET_MATMUL_COMBINE,
           LIST(n->h, n->down, n->down_bias, n->gates, n->starts, n->members), LIST(n->y))
        ->alpha = out_factor(l);
}

// One half of the first matrices: dz, of slots, to the gradients of w, b and of x by slot.
static void add_half_backward(struct layer_net *n, uint32_t dz, uint32_t w, uint32_t b,
                              uint32_t d_slots, enum moe_net_write write)
{
    const enum moe_net_program p = MOE_NET_BACKWARD;
    add_op(n, p, MOE_NET_MATMUL_DW, LIST(dz, n->x, NONE, n->starts, n->members),
           LIST(gradient_of(w), gradient_of(b)))
        ->div[1] = n->layer->top_k;
    add_op(n, p, MOE_NET_MATMUL_DX, LIST(dz, w, n->starts, n->members), LIST(d_slots))->write =
        write;
}

static void add_experts_backward(struct layer_net *n, uint32_t e)
{
    const enum moe_net_program p = MOE_NET_BACKWARD;
    const vkmoe_layer_desc *l = n->layer;
    uint32_t v = of_tokens(n, l->top_k, l->d_ff), dh = of_tokens(n, l->top_k, l->d_ff);
    uint32_t d_gate = of_tokens(n, l->top_k, l->d_ff), d_up = of_tokens(n, l->top_k, l->d_ff);
    uint32_t d_slots = of_tokens(n, l->top_k, l->d_model);
    add_op(n, p, MOE_NET_MATMUL_DX, LIST(e, n->down, n->starts, n->members), LIST(v))->div[0] =
        l->top_k;
    add_op(n, p, MOE_NET_SCALE_ROWS, LIST(v, n->gates, NONE), LIST(dh));
    add_op(n, p, MOE_NET_MATMUL_DW, LIST(e, n->h, n->gates, n->starts, n->members),
           LIST(gradient_of(n->down), gradient_of(n->down_bias)))
        ->div[0] = l->top_k;
    if (l->gated) {
        add_op(n, p, MOE_NET_GLU_BACKWARD, LIST(dh, n->pre_gate, n->pre_up), LIST(d_gate, d_up));
        add_half_backward(n, d_gate, n->gate, n->gate_bias, d_slots, MOE_NET_SET);
    } else {
        add_op(n, p, MOE_NET_ACT_BACKWARD, LIST(dh, n->pre_up), LIST(d_up));
    }
    add_half_backward(n, d_up, n->up, n->up_bias, d_slots, l->gated ? MOE_NET_ADD : MOE_NET_SET);
    add_op(n, p, MOE_NET_SUM_SLOTS, LIST(d_slots, NONE), LIST(n->dx));
}

static void add_backward(struct layer_net *n)
{
    const enum moe_net_program p = MOE_NET_BACKWARD;
    const vkmoe_layer_desc *l = n->layer;
    uint32_t e = of_tokens(n, 1, l->d_out), f = of_tokens(n, l->top_k, l->d_out);
    uint32_t d_gates = of_tokens(n, l->top_k, 1), d_logits = of_tokens(n, 1, l->n_experts);
    add_op(n, p, MOE_NET_SCALE_ROWS, LIST(n->dy, NONE, NONE), LIST(e))->alpha = out_factor(l);
    add_experts_backward(n, e);
    add_op(n, p, MOE_NET_MATMUL, LIST(n->h, n->down, n->down_bias, n->starts, n->members), LIST(f));
    add_op(n, p, MOE_NET_ROW_DOT, LIST(e, f, NONE), LIST(d_gates))->div[0] = l->top_k;
    add_op(n, p, MOE_NET_SELECT_BACKWARD, LIST(n->logits, n->ids, d_gates), LIST(d_logits));
    add_op(n, p, MOE_NET_MATMUL_DX, LIST(d_logits, n->router, NONE, NONE), LIST(n->dx))->write =
        MOE_NET_ADD;
    add_op(n, p, MOE_NET_MATMUL_DW, LIST(d_logits, n->x, NONE, NONE, NONE),
           LIST(gradient_of(n->router), gradient_of(n->router_bias)));
}

// ---- numbers ----------------------------------------------------------------------------------

static void put_f32(struct layer_net *n, uint32_t t, uint64_t at, const float *from, uint64_t size)
{
    for (uint64_t i = 0; t != MOE_NET_NONE && i < size; i++)
        moe_ref_net_values(n->ref, t)[at + i] = (double) from[i];
}

static void put_problem(struct layer_net *n, const struct problem *p, uint32_t selection_bias)
{
    const vkmoe_layer_desc *l = n->layer;
    put_f32(n, n->router, 0, p->weights.router, l->n_experts * l->d_model);
    put_f32(n, n->router_bias, 0, p->weights.router_bias, l->n_experts);
    put_f32(n, selection_bias, 0, p->weights.selection_bias, l->n_experts);
    for (uint32_t e = 0; e < l->n_experts; e++) {
        const struct moe_ref_expert *from = &p->weights.experts[e];
        put_f32(n, n->gate, e * l->d_ff * l->d_model, from->gate, l->d_ff * l->d_model);
        put_f32(n, n->gate_bias, e * l->d_ff, from->gate_bias, l->d_ff);
        put_f32(n, n->up, e * l->d_ff * l->d_model, from->up, l->d_ff * l->d_model);
        put_f32(n, n->up_bias, e * l->d_ff, from->up_bias, l->d_ff);
        put_f32(n, n->down, e * l->d_out * l->d_ff, from->down, l->d_out * l->d_ff);
        put_f32(n, n->down_bias, e * l->d_out, from->down_bias, l->d_out);
    }
    memcpy(moe_ref_net_values(n->ref, n->x), p->run->values[MOE_VALUE_X],
           N_TOKENS * l->d_model * sizeof(double));
    memcpy(moe_ref_net_values(n->ref, n->dy), p->dy, N_TOKENS * l->d_out * sizeof(double));
}

// How far apart, against the largest; some 64 roundings of sums of fewer than 64 terms.
static double apart(struct layer_net *n, uint32_t t, uint64_t at, const double *want, uint64_t size)
{
    double most = 0, largest = 0x1p-20;
    for (uint64_t i = 0; t != MOE_NET_NONE && i < size; i++) {
        most = fmax(most, fabs(moe_ref_net_values(n->ref, t)[at + i] - want[i]));
        largest = fmax(largest, fabs(want[i]));
    }
    return most / largest;
}

static double all_apart(struct layer_net *n, const struct problem *p)
{
    const vkmoe_layer_desc *l = n->layer;
    const struct moe_ref_grads *g = p->grads;
    double most = apart(n, n->y, 0, p->run->values[MOE_VALUE_Y], N_TOKENS * l->d_out);
    most = fmax(most, apart(n, n->dx, 0, g->x, N_TOKENS * l->d_model));
    most = fmax(most, apart(n, gradient_of(n->router), 0, g->router, l->n_experts * l->d_model));
    most = fmax(most, apart(n, gradient_of(n->router_bias), 0, g->router_bias, l->n_experts));
    for (uint32_t e = 0; e < l->n_experts; e++) {
        const struct moe_ref_expert_grads *from = &g->experts[e];
        uint64_t in = l->d_ff * l->d_model, out = l->d_out * l->d_ff;
        most = fmax(most, apart(n, gradient_of(n->gate), e * in, from->gate, in));
        most = fmax(most, apart(n, gradient_of(n->up), e * in, from->up, in));
        most = fmax(most, apart(n, gradient_of(n->down), e * out, from->down, out));
        most =
            fmax(most, apart(n, gradient_of(n->gate_bias), e * l->d_ff, from->gate_bias, l->d_ff));
        most = fmax(most, apart(n, gradient_of(n->up_bias), e * l->d_ff, from->up_bias, l->d_ff));
        most = fmax(most,
                    apart(n, gradient_of(n->down_bias), e * l->d_out, from->down_bias, l->d_out));
    }
    return most;
}

static void check_layer(uint32_t i)
{
    vkmoe_layer_desc layer = small_layer(i);
    struct problem p;
    struct layer_net n = {.layer = &p.data.layer};
    struct moe_net_args args = {.n_tokens = N_TOKENS};
    layer.d_shared_ff = 0;
    layer.shared_gate = VKMOE_SHARED_PLAIN;
    layer.act = (enum vkmoe_act)(i % VKMOE_ACT_SITU);
    layer.score = i % 2 ? VKMOE_SCORE_SIGMOID : VKMOE_SCORE_SOFTMAX;
    layer.gate_source = i % 3 ? VKMOE_GATE_SCORE : VKMOE_GATE_SOFTMAX_SELECTED;
    layer.norm = (enum vkmoe_norm)(i / 2 % 3);
    layer.norm_eps = i % 5 ? 0.25f : 0;
    layer.top_k = i % 4 ? 2 : 1 + i / 4 % 4;
    problem_init(&p, &layer, i + 1);
    problem_run(&p);
    problem_backward(&p);

    check_ok(moe_net_create(moe_host_default(), N_TOKENS + 1, 1, &n.net));
    add_tensors(&n);
    uint32_t bias = layer.selection_bias
                        ? tensor(&n, MOE_NET_STATE, MOE_NET_F32, MOE_NET_FIXED, 1, layer.n_experts)
                        : MOE_NET_NONE;
    add_forward(&n, bias);
    add_backward(&n);
    check_ok(moe_net_plan(n.net));
    check_ok(moe_ref_net_create(moe_host_default(), n.net, &n.ref));
    put_problem(&n, &p, bias);
    moe_ref_net_run(n.ref, 1 << MOE_NET_FORWARD | 1 << MOE_NET_BACKWARD, &args);
    double most = all_apart(&n, &p);
    if (!(most <= 64 * 0x1p-53))
        fail_msg("layer %u: %g apart", i, most);

    moe_ref_net_values(n.ref, n.gates)[0] *= 1 + 0x1p-20; // the control
    moe_ref_net_run(n.ref, 1 << MOE_NET_BACKWARD, &args);
    assert_true(all_apart(&n, &p) > 64 * 0x1p-53);
    moe_ref_net_destroy(n.ref);
    moe_net_destroy(n.net);
    problem_finish(&p);
}

static void test_layers(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < 128; i++)
        check_layer(i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_layers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
