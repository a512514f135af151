// SPDX-License-Identifier: MIT
// Gradients of the ops on rows, of losses and of routing, by finite differences.
#include "check.h"
#include "op_gradient.h"

#include "core/ref_backward.h"
#include "core/ref_route.h"

#include <stdlib.h>

enum { TOP_K = 2, WIDTH = 4, NONE = (int) MOE_NET_NONE };

// ---- elements ---------------------------------------------------------------------------------

static void test_activations(void **state)
{
    (void) state;
    for (uint32_t kind = VKMOE_ACT_NONE; kind < VKMOE_ACT_SITU; kind++) {
        struct gradient g;
        uint32_t da, dy, dg, du, dh;
        gradient_begin(&g, "act %u", kind);
        uint32_t a = gradient_variable(&g, MOE_NET_TOKENS, 1, WIDTH, &da);
        uint32_t y = gradient_output(&g, MOE_NET_TOKENS, 1, WIDTH, &dy);
        uint32_t gate = gradient_variable(&g, MOE_NET_TOKENS, 1, WIDTH, &dg);
        uint32_t up = gradient_variable(&g, MOE_NET_TOKENS, 1, WIDTH, &du);
        uint32_t hidden = gradient_output(&g, MOE_NET_TOKENS, 1, WIDTH, &dh);
        FORWARD_OP(&g, MOE_NET_ACT, OPERANDS(a), RESULTS(y));
        FORWARD_OP(&g, MOE_NET_GLU, OPERANDS(gate, up), RESULTS(hidden));
        BACKWARD_OP(&g, MOE_NET_ACT_BACKWARD, OPERANDS(dy, a), RESULTS(da));
        BACKWARD_OP(&g, MOE_NET_GLU_BACKWARD, OPERANDS(dh, gate, up), RESULTS(dg, du));
        for (uint32_t i = 0; i < 4; i++) {
            enum moe_net_program program = i % 2 ? MOE_NET_BACKWARD : MOE_NET_FORWARD;
            struct moe_net_op *op = &g.net->programs[program].ops[i / 2];
            op->act = (enum vkmoe_act) kind;
            op->beta = 1.25f;
        }
        gradient_check(&g);
    }
}

static void test_noise_and_dropout(void **state)
{
    (void) state;
    struct gradient g;
    uint32_t dz, dy, da, dd;
    gradient_begin(&g, "noise, dropout");
    uint32_t x = gradient_input(&g, MOE_NET_TOKENS, 1, WIDTH);
    uint32_t z = gradient_variable(&g, MOE_NET_TOKENS, 1, WIDTH, &dz);
    uint32_t y = gradient_output(&g, MOE_NET_TOKENS, 1, WIDTH, &dy);
    uint32_t a = gradient_variable(&g, MOE_NET_TOKENS, 1, WIDTH, &da);
    uint32_t d = gradient_output(&g, MOE_NET_TOKENS, 1, WIDTH, &dd);
    FORWARD_OP(&g, MOE_NET_NOISE, OPERANDS(x, z), RESULTS(y))->alpha = 0.75f;
    BACKWARD_OP(&g, MOE_NET_NOISE_BACKWARD, OPERANDS(dy, z), RESULTS(dz))->alpha = 0.75f;
    FORWARD_OP(&g, MOE_NET_DROPOUT, OPERANDS(a), RESULTS(d))->alpha = 0.5f;
    BACKWARD_OP(&g, MOE_NET_DROPOUT, OPERANDS(dd), RESULTS(da))->alpha = 0.5f;
    gradient_check(&g);
}

// ---- rows -------------------------------------------------------------------------------------

static void test_softmax(void **state)
{
    (void) state;
    struct gradient g;
    uint32_t da, dp;
    gradient_begin(&g, "softmax");
    uint32_t a = gradient_variable(&g, MOE_NET_TOKENS, 1, WIDTH, &da);
    uint32_t p = gradient_output(&g, MOE_NET_TOKENS, 1, WIDTH, &dp);
    FORWARD_OP(&g, MOE_NET_SOFTMAX, OPERANDS(a), RESULTS(p))->alpha = 0.75f;
    BACKWARD_OP(&g, MOE_NET_SOFTMAX_BACKWARD, OPERANDS(dp, p), RESULTS(da))->alpha = 0.75f;
    gradient_check(&g);
}

static void test_share(void **state)
{
    (void) state;
    struct gradient g;
    uint32_t dr, dw;
    gradient_begin(&g, "share");
    uint32_t r = gradient_variable(&g, MOE_NET_TOKENS, TOP_K, WIDTH, &dr);
    uint32_t w = gradient_output(&g, MOE_NET_TOKENS, TOP_K, 1, &dw);
    struct moe_net_op *op = FORWARD_OP(&g, MOE_NET_SHARE, OPERANDS(r), RESULTS(w));
    op->top_k = TOP_K, op->eps = 0.125f;
    op = BACKWARD_OP(&g, MOE_NET_SHARE_BACKWARD, OPERANDS(dw, r), RESULTS(dr));
    op->top_k = TOP_K, op->eps = 0.125f;
    gradient_check(&g);
}

static void test_norms(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < 4; i++) {
        struct gradient g;
        uint32_t da, dy, d_gain = NONE, d_bias = NONE, gain = NONE, bias = NONE;
        gradient_begin(&g, "norm %u", i);
        uint32_t a = gradient_variable(&g, MOE_NET_TOKENS, 1, WIDTH, &da);
        if (i & 2) {
            gain = gradient_variable(&g, MOE_NET_FIXED, 1, WIDTH, &d_gain);
            bias = gradient_variable(&g, MOE_NET_FIXED, 1, WIDTH, &d_bias);
        }
        uint32_t y = gradient_output(&g, MOE_NET_TOKENS, 1, WIDTH, &dy);
        uint32_t stats = gradient_value(&g, MOE_NET_TOKENS, 1, 2);
        struct moe_net_op *op =
            FORWARD_OP(&g, MOE_NET_NORM, OPERANDS(a, gain, bias), RESULTS(y, stats));
        op->n = i & 1, op->eps = 0.25f;
        op = BACKWARD_OP(&g, MOE_NET_NORM_BACKWARD, OPERANDS(dy, a, gain, stats), RESULTS(da));
        op->n = i & 1;
        if (i & 2)
            BACKWARD_OP(&g, MOE_NET_NORM_DGAIN, OPERANDS(dy, a, stats), RESULTS(d_gain, d_bias));
        gradient_check(&g);
    }
}

// The two largest of each column of each example are apart.
static bool maxima_are_clear(struct gradient *g)
{
    const double *a = gradient_values(g, 0);
    for (uint32_t i = 0; i < gradient_size(g, 0); i++) {
        for (uint32_t j = i % WIDTH; j < i; j += WIDTH) {
            if (fabs(a[i] - a[j]) < gradient_margin)
                return false;
        }
    }
    return true;
}

static void test_pools(void **state)
{
    (void) state;
    for (uint32_t kind = 0; kind <= MOE_NET_POOL_MAX; kind++) {
        struct gradient g;
        uint32_t da, dy, best = NONE;
        gradient_begin(&g, "pool %u", kind);
        uint32_t a = gradient_variable(&g, MOE_NET_TOKENS, 1, WIDTH, &da);
        uint32_t y = gradient_output(&g, MOE_NET_EXAMPLES, 1, WIDTH, &dy);
        uint32_t o = gradient_ints(&g, MOE_NET_I32, MOE_NET_FIXED, 5, // 1, 0 and 3 tokens
                                   (const int32_t[]){0, 1, 1, 4, 4});
        if (kind == MOE_NET_POOL_MAX)
            best = gradient_value_i32(&g, MOE_NET_EXAMPLES, 1, WIDTH);
        FORWARD_OP(&g, MOE_NET_POOL, OPERANDS(a, o), RESULTS(y, best))->n = kind;
        BACKWARD_OP(&g, MOE_NET_POOL_BACKWARD, OPERANDS(dy, o, best), RESULTS(da))->n = kind;
        g.is_smooth = maxima_are_clear;
        gradient_check(&g);
    }
}

// ---- losses -----------------------------------------------------------------------------------

static void test_cross_entropy(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < 8; i++) {
        struct gradient g;
        uint32_t d, target, weights = NONE;
        gradient_begin(&g, "cross entropy %u", i);
        uint32_t logits = gradient_variable(&g, MOE_NET_EXAMPLES, 1, WIDTH, &d);
        if (i & 1)
            target = gradient_input(&g, MOE_NET_EXAMPLES, 1, WIDTH);
        else
            target =
                gradient_ints(&g, MOE_NET_I32, MOE_NET_EXAMPLES, 1, (const int32_t[]){2, 0, 3});
        if (i & 2)
            weights = gradient_input(&g, MOE_NET_FIXED, 1, WIDTH);
        uint32_t loss = gradient_loss(&g, MOE_NET_EXAMPLES, 1);
        struct moe_net_op *op = BACKWARD_OP(&g, MOE_NET_CROSS_ENTROPY,
                                            OPERANDS(logits, target, weights), RESULTS(loss, d));
        op->alpha = 0.75f;
        op->beta = i & 4 ? 0.125f : 0;
        gradient_check(&g);
    }
}

static const float huber_delta = 0.75f;

static bool huber_is_smooth(struct gradient *g)
{
    const double *y = gradient_values(g, 0), *t = gradient_values(g, 2);
    for (uint32_t i = 0; i < gradient_size(g, 0); i++) {
        if (fabs(fabs(y[i] - t[i]) - (double) huber_delta) < gradient_margin)
            return false;
    }
    return true;
}

static void test_point_losses(void **state)
{
    (void) state;
    for (uint32_t kind = 0; kind <= MOE_NET_POINT_BCE_LOGITS; kind++) {
        struct gradient g;
        uint32_t d;
        gradient_begin(&g, "point loss %u", kind);
        uint32_t y = gradient_variable(&g, MOE_NET_EXAMPLES, 1, WIDTH, &d);
        uint32_t t = gradient_input(&g, MOE_NET_EXAMPLES, 1, WIDTH);
        uint32_t loss = gradient_loss(&g, MOE_NET_EXAMPLES, 1);
        struct moe_net_op *op =
            BACKWARD_OP(&g, MOE_NET_POINT_LOSS, OPERANDS(y, t), RESULTS(loss, d));
        op->n = kind;
        op->beta = huber_delta;
        op->alpha = 0.75f;
        if (kind == MOE_NET_POINT_BCE)
            gradient_range(&g, y, 0.2, 0.8);
        if (kind == MOE_NET_POINT_HUBER)
            g.is_smooth = huber_is_smooth;
        gradient_check(&g);
    }
}

static void test_mixtures(void **state)
{
    (void) state;
    for (uint32_t gaussian = 0; gaussian < 2; gaussian++) {
        struct gradient g;
        uint32_t df, ds;
        gradient_begin(&g, "mixture %u", gaussian);
        uint32_t f = gradient_variable(&g, MOE_NET_TOKENS, TOP_K, WIDTH, &df);
        uint32_t s = gradient_variable(&g, MOE_NET_TOKENS, TOP_K, 1, &ds);
        uint32_t t = gaussian ? gradient_input(&g, MOE_NET_TOKENS, 1, WIDTH)
                              : gradient_ints(&g, MOE_NET_I32, MOE_NET_TOKENS, 1,
                                              (const int32_t[]){2, 0, 3, 3});
        uint32_t loss = gradient_loss(&g, MOE_NET_TOKENS, 1);
        struct moe_net_op *op =
            BACKWARD_OP(&g, MOE_NET_MIXTURE_NLL, OPERANDS(f, s, t), RESULTS(loss, df, ds));
        op->n = gaussian;
        op->top_k = TOP_K;
        op->beta = 0.75f;
        gradient_range(&g, s, 0.25, 1);
        gradient_check(&g);
    }
}

static void test_router_losses(void **state)
{
    (void) state;
    struct gradient g;
    uint32_t dp, dl;
    gradient_begin(&g, "balance and z loss");
    uint32_t p = gradient_variable(&g, MOE_NET_TOKENS, 1, WIDTH, &dp);
    uint32_t l = gradient_variable(&g, MOE_NET_TOKENS, 1, WIDTH, &dl);
    uint32_t starts =
        gradient_ints(&g, MOE_NET_I32, MOE_NET_FIXED, WIDTH + 1, (const int32_t[]){0, 3, 3, 7, 8});
    uint32_t balance = gradient_loss(&g, MOE_NET_FIXED, 1);
    uint32_t z = gradient_loss(&g, MOE_NET_FIXED, 1);
    struct moe_net_op *op =
        BACKWARD_OP(&g, MOE_NET_BALANCE, OPERANDS(p, starts), RESULTS(balance, dp));
    op->top_k = TOP_K;
    op->alpha = 0.75f;
    BACKWARD_OP(&g, MOE_NET_Z_LOSS, OPERANDS(l), RESULTS(z, dl))->alpha = 0.75f;
    gradient_check(&g);
}

// ---- routing ----------------------------------------------------------------------------------

enum { N_EXPERTS = 5 };

static vkmoe_layer_desc rule;

// What experts are ranked by is apart, and so are the sum of the selected and its least value.
static bool selection_is_clear(struct gradient *g)
{
    const double *logits = gradient_values(g, 0);
    for (uint32_t t = 0; t < g->args.n_tokens; t++) {
        double ids[N_EXPERTS], gates[N_EXPERTS], ranking[N_EXPERTS], scores[N_EXPERTS], sum = 0;
        moe_ref_select(&rule, logits + t * N_EXPERTS, NULL,
                       &(struct moe_ref_routing){ids, gates, ranking});
        moe_ref_score(rule.score, logits + t * N_EXPERTS, N_EXPERTS, scores);
        for (uint32_t k = 0; k < rule.top_k; k++)
            sum += scores[(int) ids[k]];
        if (rule.gate_source == VKMOE_GATE_SOFTMAX_SELECTED)
            sum = 1;
        if (rule.norm == VKMOE_NORM_MAX_SUM_EPS &&
            fabs(sum - (double) rule.norm_eps) < gradient_margin)
            return false;
        if (rule.norm == VKMOE_NORM_SUM_PLUS_EPS && fabs(sum + (double) rule.norm_eps) < 0.25)
            return false; // a pole
        for (uint32_t e = 0; e < N_EXPERTS; e++) {
            for (uint32_t other = 0; other < e; other++) {
                if (fabs(ranking[e] - ranking[other]) < gradient_margin)
                    return false;
            }
        }
    }
    return true;
}

static void check_selection(uint32_t i, uint32_t top_k)
{
    static const enum vkmoe_score scores[] = {VKMOE_SCORE_SOFTMAX, VKMOE_SCORE_SIGMOID,
                                              VKMOE_SCORE_NONE};
    struct gradient g;
    uint32_t d_logits, d_gates;
    rule = vkmoe_layer_desc_init();
    rule.n_experts = N_EXPERTS;
    rule.top_k = top_k;
    rule.score = scores[i % 3];
    rule.rank = i / 3 % 2 == 0 ? VKMOE_RANK_SCORE : VKMOE_RANK_LOGIT;
    rule.gate_source = i / 6 % 2 == 0 ? VKMOE_GATE_SCORE : VKMOE_GATE_SOFTMAX_SELECTED;
    rule.norm = (enum vkmoe_norm)(i / 12 % 3);
    rule.norm_eps = i / 36 == 0 ? 0.25f : rule.norm == VKMOE_NORM_MAX_SUM_EPS ? 4 : 0;
    rule.routed_scale = 1.5f;
    gradient_begin(&g, "select %u, top_k %u", i, top_k);
    uint32_t logits = gradient_variable(&g, MOE_NET_TOKENS, 1, N_EXPERTS, &d_logits);
    uint32_t ids = gradient_value_i32(&g, MOE_NET_TOKENS, top_k, 1);
    uint32_t gates = gradient_output(&g, MOE_NET_TOKENS, top_k, 1, &d_gates);
    FORWARD_OP(&g, MOE_NET_SELECT, OPERANDS(logits), RESULTS(ids, gates))->layer = &rule;
    BACKWARD_OP(&g, MOE_NET_SELECT_BACKWARD, OPERANDS(logits, ids, d_gates), RESULTS(d_logits))
        ->layer = &rule;
    g.is_smooth = selection_is_clear;
    g.is_zero = moe_ref_gates_are_constant(&rule);
    g.may_be_zero = top_k == 1 && rule.norm == VKMOE_NORM_MAX_SUM_EPS; // w = s / s
    gradient_check(&g);
}

static void test_selections(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < 72; i++) {
        check_selection(i, 1);
        check_selection(i, 2);
        check_selection(i, N_EXPERTS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_activations),   cmocka_unit_test(test_noise_and_dropout),
        cmocka_unit_test(test_softmax),       cmocka_unit_test(test_share),
        cmocka_unit_test(test_norms),         cmocka_unit_test(test_pools),
        cmocka_unit_test(test_cross_entropy), cmocka_unit_test(test_point_losses),
        cmocka_unit_test(test_mixtures),      cmocka_unit_test(test_router_losses),
        cmocka_unit_test(test_selections),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
