// SPDX-License-Identifier: MIT
// Gradients of the ops on groups and of those that spread and gather rows, by finite differences.
// Each backward pass is what src/train builds of the same ops.
#include "check.h"
#include "op_gradient.h"

enum { TOP_K = 2, N_OUT = 3, N_IN = 4, N_GROUPS = 4, NONE = (int) MOE_NET_NONE };

// Groups of the slots of 4 tokens: 2, 0, 1 and 5 of them. As ids, and grouped.
static const int32_t group_ids[5 * TOP_K] = {3, 0, 3, 3, 2, 3, 0, 3};

struct groups {
    uint32_t ids, starts, members, n;
};

static struct groups add_groups(struct gradient *g, bool grouped)
{
    struct groups none = {NONE, NONE, NONE, 1};
    if (!grouped)
        return none;
    struct groups out = {gradient_ints(g, MOE_NET_I32, MOE_NET_TOKENS, TOP_K, group_ids),
                         gradient_value_i32(g, MOE_NET_FIXED, N_GROUPS + 1, 1),
                         gradient_value_i32(g, MOE_NET_TOKENS, TOP_K, 1), N_GROUPS};
    FORWARD_OP(g, MOE_NET_GROUP, OPERANDS(out.ids), RESULTS(out.starts, out.members));
    return out;
}

// i: bit 0 grouped, bit 1 one row of a for all slots of a token
static void check_matmul(uint32_t i)
{
    struct gradient g;
    uint32_t da, dw, db, dy, per_token = i & 2 ? 1 : TOP_K, q = TOP_K / per_token;
    gradient_begin(&g, "matmul %u", i);
    struct groups of = add_groups(&g, i & 1);
    uint32_t a = gradient_variable(&g, MOE_NET_TOKENS, per_token, N_IN, &da);
    uint32_t w = gradient_variable(&g, MOE_NET_FIXED, of.n * N_OUT, N_IN, &dw);
    uint32_t b = gradient_variable(&g, MOE_NET_FIXED, of.n, N_OUT, &db);
    uint32_t y = gradient_output(&g, MOE_NET_TOKENS, TOP_K, N_OUT, &dy);
    FORWARD_OP(&g, MOE_NET_MATMUL, OPERANDS(a, w, b, of.starts, of.members), RESULTS(y))->div[0] =
        q;
    uint32_t d_slots = q > 1 ? gradient_value(&g, MOE_NET_TOKENS, TOP_K, N_IN) : da;
    BACKWARD_OP(&g, MOE_NET_MATMUL_DX, OPERANDS(dy, w, of.starts, of.members), RESULTS(d_slots));
    if (q > 1)
        BACKWARD_OP(&g, MOE_NET_SUM_SLOTS, OPERANDS(d_slots, NONE), RESULTS(da))->top_k = TOP_K;
    uint32_t spread = a;
    if (q > 1 && !(i & 1)) { // without a grouping both have as many rows
        spread = gradient_value(&g, MOE_NET_TOKENS, TOP_K, N_IN);
        BACKWARD_OP(&g, MOE_NET_SCALE_ROWS, OPERANDS(a), RESULTS(spread))->div[0] = q;
        q = 1;
    }
    BACKWARD_OP(&g, MOE_NET_MATMUL_DW, OPERANDS(dy, spread, NONE, of.starts, of.members),
                RESULTS(dw, db))
        ->div[1] = q;
    gradient_check(&g);
}

static void test_matmul(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < 4; i++)
        check_matmul(i);
}

// dh[slot] = alpha s dy W, ds = alpha <dy, f>, dW = alpha sum s dy^T h: alpha in e = alpha dy.
static void test_matmul_combine(void **state)
{
    (void) state;
    struct gradient g;
    uint32_t dh, dw, db, ds, dy;
    const float alpha = 0.75f;
    gradient_begin(&g, "matmul_combine");
    struct groups of = add_groups(&g, true);
    uint32_t h = gradient_variable(&g, MOE_NET_TOKENS, TOP_K, N_IN, &dh);
    uint32_t w = gradient_variable(&g, MOE_NET_FIXED, of.n * N_OUT, N_IN, &dw);
    uint32_t b = gradient_variable(&g, MOE_NET_FIXED, of.n, N_OUT, &db);
    uint32_t s = gradient_variable(&g, MOE_NET_TOKENS, TOP_K, 1, &ds);
    uint32_t y = gradient_output(&g, MOE_NET_TOKENS, 1, N_OUT, &dy);
    struct moe_net_op *op = FORWARD_OP(&g, MOE_NET_MATMUL_COMBINE,
                                       OPERANDS(h, w, b, s, of.starts, of.members), RESULTS(y));
    op->top_k = TOP_K;
    op->alpha = alpha;

    uint32_t e = gradient_value(&g, MOE_NET_TOKENS, 1, N_OUT);
    uint32_t f = gradient_value(&g, MOE_NET_TOKENS, TOP_K, N_OUT);
    uint32_t v = gradient_value(&g, MOE_NET_TOKENS, TOP_K, N_IN);
    BACKWARD_OP(&g, MOE_NET_SCALE_ROWS, OPERANDS(dy), RESULTS(e))->alpha = alpha;
    BACKWARD_OP(&g, MOE_NET_MATMUL, OPERANDS(h, w, b, of.starts, of.members), RESULTS(f));
    BACKWARD_OP(&g, MOE_NET_ROW_DOT, OPERANDS(e, f), RESULTS(ds))->div[0] = TOP_K;
    BACKWARD_OP(&g, MOE_NET_MATMUL_DX, OPERANDS(e, w, of.starts, of.members), RESULTS(v))->div[0] =
        TOP_K;
    BACKWARD_OP(&g, MOE_NET_SCALE_ROWS, OPERANDS(v, s), RESULTS(dh));
    BACKWARD_OP(&g, MOE_NET_MATMUL_DW, OPERANDS(e, h, s, of.starts, of.members), RESULTS(dw, db))
        ->div[0] = TOP_K;
    gradient_check(&g);
}

// e_g = alpha sum of the rows of g; dd[r] = alpha de[g(r)].
static void test_group_sum(void **state)
{
    (void) state;
    struct gradient g;
    uint32_t dd, de;
    gradient_begin(&g, "group_sum");
    struct groups of = add_groups(&g, true);
    uint32_t d = gradient_variable(&g, MOE_NET_TOKENS, TOP_K, N_IN, &dd);
    uint32_t e = gradient_output(&g, MOE_NET_FIXED, N_GROUPS, N_IN, &de);
    FORWARD_OP(&g, MOE_NET_GROUP_SUM, OPERANDS(d, of.starts, of.members), RESULTS(e))->alpha = -2;
    BACKWARD_OP(&g, MOE_NET_SCALE_ROWS, OPERANDS(de, NONE, of.ids), RESULTS(dd))->alpha = -2;
    gradient_check(&g);
}

// y[r] = alpha s[r / K] table[ids[r]], of a table of one row a group.
static void test_gather(void **state)
{
    (void) state;
    struct gradient g;
    uint32_t d_table, ds, dy;
    gradient_begin(&g, "scale_rows, a gather");
    struct groups of = add_groups(&g, true);
    uint32_t table = gradient_variable(&g, MOE_NET_FIXED, N_GROUPS, N_IN, &d_table);
    uint32_t s = gradient_variable(&g, MOE_NET_TOKENS, 1, 1, &ds);
    uint32_t y = gradient_output(&g, MOE_NET_TOKENS, TOP_K, N_IN, &dy);
    struct moe_net_op *op =
        FORWARD_OP(&g, MOE_NET_SCALE_ROWS, OPERANDS(table, s, of.ids), RESULTS(y));
    op->div[1] = TOP_K;
    op->alpha = 0.5f;
    uint32_t weighed = gradient_value(&g, MOE_NET_TOKENS, TOP_K, N_IN);
    uint32_t dots = gradient_value(&g, MOE_NET_TOKENS, TOP_K, 1);
    op = BACKWARD_OP(&g, MOE_NET_SCALE_ROWS, OPERANDS(dy, s), RESULTS(weighed));
    op->div[1] = TOP_K;
    op->alpha = 0.5f;
    BACKWARD_OP(&g, MOE_NET_GROUP_SUM, OPERANDS(weighed, of.starts, of.members), RESULTS(d_table));
    BACKWARD_OP(&g, MOE_NET_ROW_DOT, OPERANDS(dy, table, of.ids), RESULTS(dots))->alpha = 0.5f;
    BACKWARD_OP(&g, MOE_NET_SUM_SLOTS, OPERANDS(dots, NONE), RESULTS(ds))->top_k = TOP_K;
    gradient_check(&g);
}

// d[r] = alpha <a[r / K], b[r]>
static void test_row_dot(void **state)
{
    (void) state;
    struct gradient g;
    uint32_t da, db, dd;
    gradient_begin(&g, "row_dot");
    uint32_t a = gradient_variable(&g, MOE_NET_TOKENS, 1, N_IN, &da);
    uint32_t b = gradient_variable(&g, MOE_NET_TOKENS, TOP_K, N_IN, &db);
    uint32_t d = gradient_output(&g, MOE_NET_TOKENS, TOP_K, 1, &dd);
    struct moe_net_op *op = FORWARD_OP(&g, MOE_NET_ROW_DOT, OPERANDS(a, b), RESULTS(d));
    op->div[0] = TOP_K;
    op->alpha = 0.5f;
    op = BACKWARD_OP(&g, MOE_NET_SUM_SLOTS, OPERANDS(b, dd), RESULTS(da));
    op->top_k = TOP_K;
    op->alpha = 0.5f;
    op = BACKWARD_OP(&g, MOE_NET_SCALE_ROWS, OPERANDS(a, dd), RESULTS(db));
    op->div[0] = TOP_K;
    op->alpha = 0.5f;
    gradient_check(&g);
}

// y[t] = alpha sum_k s f
static void test_sum_slots(void **state)
{
    (void) state;
    struct gradient g;
    uint32_t df, ds, dy;
    gradient_begin(&g, "sum_slots");
    uint32_t f = gradient_variable(&g, MOE_NET_TOKENS, TOP_K, N_IN, &df);
    uint32_t s = gradient_variable(&g, MOE_NET_TOKENS, TOP_K, 1, &ds);
    uint32_t y = gradient_output(&g, MOE_NET_TOKENS, 1, N_IN, &dy);
    struct moe_net_op *op = FORWARD_OP(&g, MOE_NET_SUM_SLOTS, OPERANDS(f, s), RESULTS(y));
    op->top_k = TOP_K;
    op->alpha = 0.5f;
    op = BACKWARD_OP(&g, MOE_NET_SCALE_ROWS, OPERANDS(dy, s), RESULTS(df));
    op->div[0] = TOP_K;
    op->alpha = 0.5f;
    op = BACKWARD_OP(&g, MOE_NET_ROW_DOT, OPERANDS(dy, f), RESULTS(ds));
    op->div[0] = TOP_K;
    op->alpha = 0.5f;
    gradient_check(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matmul),    cmocka_unit_test(test_matmul_combine),
        cmocka_unit_test(test_group_sum), cmocka_unit_test(test_gather),
        cmocka_unit_test(test_row_dot),   cmocka_unit_test(test_sum_slots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
