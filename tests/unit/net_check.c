// SPDX-License-Identifier: MIT
// Shapes of a network's ops: each op of tests/cross is right, and nothing of it may change.
#include "check.h"
#include "../cross/net_case.h"

#include "core/net_check.h"

struct tally {
    struct case_sink sink;
    uint32_t n, n_missed;
};

static void expect_wrong(struct tally *tally, const struct net_case *c, const char *what,
                         uint32_t i)
{
    tally->n++;
    if (moe_net_check_op(c->net, &c->net->programs[MOE_NET_FORWARD].ops[0]))
        return;
    tally->n_missed++;
    print_message("%s: %s %u may change\n", c->name, what, i);
}

// Is nothing of the op as wide as this tensor? Sums, and losses without gradients.
static bool may_be_wider(const struct moe_net_op *op, uint32_t tensor)
{
    bool sums =
        op->kind == MOE_NET_REDUCE || op->kind == MOE_NET_SUM_SQUARES || op->kind == MOE_NET_SHARE;
    bool losses = op->kind == MOE_NET_CROSS_ENTROPY || op->kind == MOE_NET_Z_LOSS;
    return op->kind == MOE_NET_FILL ||
           (tensor == op->in[0] && (sums || (losses && op->out[1] == MOE_NET_NONE)));
}

// Matrices that rows are multiplied by are of 16 bits or not.
static bool may_be_half(const struct moe_net_op *op, uint32_t tensor)
{
    const enum moe_net_op_kind kind = op->kind;
    return (tensor == op->in[1] && (kind == MOE_NET_MATMUL || kind == MOE_NET_MATMUL_DX ||
                                    kind == MOE_NET_MATMUL_COMBINE)) ||
           (tensor == op->out[0] && kind == MOE_NET_ROUND);
}

static bool is_used(const struct moe_net_op *op, uint32_t tensor)
{
    bool used = false;
    for (uint32_t i = 0; i < MOE_NET_OPERANDS; i++)
        used = used || op->in[i] == tensor;
    for (uint32_t i = 0; i < MOE_NET_RESULTS; i++)
        used = used || op->out[i] == tensor;
    return used;
}

static void change_tensors(struct tally *tally, const struct net_case *c)
{
    struct moe_net_op *op = &c->net->programs[MOE_NET_FORWARD].ops[0];
    for (uint32_t i = 0; i < c->net->n_tensors; i++) {
        struct moe_net_tensor *tensor = &c->net->tensors[i], before = *tensor;
        if (!is_used(op, i))
            continue;
        tensor->width++;
        if (!may_be_wider(op, i))
            expect_wrong(tally, c, "the width of tensor", i);
        *tensor = before;
        if (op->kind == MOE_NET_FILL)
            continue; // of any type
        if (op->kind == MOE_NET_CROSS_ENTROPY && i == op->in[1] && before.width == 1 &&
            c->net->tensors[op->in[0]].width == 1)
            continue; // a label or a share
        tensor->type = before.type == MOE_NET_F32 ? MOE_NET_I32 : MOE_NET_F32;
        if (!may_be_half(op, i) || tensor->type == MOE_NET_I32)
            expect_wrong(tally, c, "the type of tensor", i);
        tensor->type = MOE_NET_BF16;
        if (!may_be_half(op, i))
            expect_wrong(tally, c, "the type of tensor", i);
        *tensor = before;
    }
}

static void change_op(struct tally *tally, const struct net_case *c)
{
    struct moe_net_op *op = &c->net->programs[MOE_NET_FORWARD].ops[0], before = *op;
    op->out[0] = MOE_NET_NONE;
    expect_wrong(tally, c, "result", 0);
    *op = before;
    if (op->in[0] != MOE_NET_NONE) {
        op->in[0] = MOE_NET_NONE;
        expect_wrong(tally, c, "operand", 0);
        op->in[0] = before.out[0];
        expect_wrong(tally, c, "operand", 0);
        *op = before;
    }
    op->in[0] = c->net->n_tensors;
    expect_wrong(tally, c, "operand", 0);
    *op = before;
    if (moe_net_n_in(op->kind) < MOE_NET_OPERANDS) {
        op->in[moe_net_n_in(op->kind)] = 0;
        expect_wrong(tally, c, "operand", moe_net_n_in(op->kind));
        *op = before;
    }
    op->div[2] = 0;
    expect_wrong(tally, c, "div", 2);
    *op = before;
}

static void take(struct case_sink *sink, const struct net_case *c)
{
    const char *wrong = moe_net_check_op(c->net, &c->net->programs[MOE_NET_FORWARD].ops[0]);
    if (wrong)
        fail_msg("%s: %s", c->name, wrong);
    change_tensors((struct tally *) sink, c);
    change_op((struct tally *) sink, c);
}

static void test_shapes(void **state)
{
    (void) state;
    struct tally tally = {.sink = {take}};
    list_matrix_cases(&tally.sink);
    list_route_cases(&tally.sink);
    list_row_cases(&tally.sink);
    list_loss_cases(&tally.sink);
    list_step_cases(&tally.sink);
    list_half_cases(&tally.sink);
    print_message("%u changes\n", tally.n);
    assert_true(tally.n > 5000);
    assert_int_equal(tally.n_missed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_shapes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
