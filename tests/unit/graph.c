// SPDX-License-Identifier: MIT
// The forward graph: its ops in a runnable order, each value written once before it is read.
#include "check.h"
#include "fixture.h"

#include "core/graph.h"

#include <stdio.h>

static void make(struct moe_graph *graph, const vkmoe_layer_desc *desc, bool scores)
{
    struct moe_layer layer;
    check_ok(moe_layer_init(&layer, desc));
    moe_graph_forward(graph, &layer, scores);
}

static void check_order(const struct moe_graph *graph)
{
    uint32_t used = 0, written = 1u << MOE_VALUE_X, read = 0;
    for (uint32_t i = 0; i < MOE_N_VALUES; i++)
        used |= (uint32_t) graph->values[i].used << i;
    for (uint32_t i = 0; i < graph->n_ops; i++) {
        const struct moe_op *op = &graph->ops[i];
        if (op->reads & ~written)
            fail_msg("op %u (%s) reads what nobody wrote", i, moe_op_name(op->kind));
        if (op->writes & written)
            fail_msg("op %u (%s) writes a value again", i, moe_op_name(op->kind));
        written |= op->writes;
        read |= op->reads;
    }
    assert_int_equal(written, used);
    uint32_t outputs = 1u << MOE_VALUE_Y | 1u << MOE_VALUE_SCORES;
    assert_int_equal(used & ~read & ~outputs, 0);
}

static void check_ops(const struct moe_graph *graph, const char *want)
{
    char got[256] = "";
    size_t n = 0;
    for (uint32_t i = 0; i < graph->n_ops; i++)
        n += (size_t) snprintf(got + n, sizeof got - n, "%s%s%s", i > 0 ? " " : "",
                               moe_op_name(graph->ops[i].kind),
                               graph->ops[i].bank == MOE_BANK_SHARED ? "/shared" : "");
    assert_string_equal(got, want);
}

static void test_routed_only(void **state)
{
    (void) state;
    struct moe_graph graph;
    vkmoe_layer_desc desc = full_layer();
    desc.d_shared_ff = 0;
    desc.shared_gate = VKMOE_SHARED_PLAIN;
    make(&graph, &desc, false);
    check_order(&graph);
    check_ops(&graph, "route group expert_in expert_out combine");
    assert_false(moe_graph_uses(&graph, MOE_VALUE_SCORES));
    assert_false(moe_graph_uses(&graph, MOE_VALUE_SHARED_GATE));
    assert_false(moe_graph_uses(&graph, MOE_VALUE_H_SHARED));
    assert_int_equal(graph.values[MOE_VALUE_H].width, 7);
    assert_int_equal(graph.values[MOE_VALUE_H].rows, MOE_ROWS_SLOT);
    assert_int_equal(graph.values[MOE_VALUE_Y].width, 3);
    assert_int_equal(graph.values[MOE_VALUE_Y].rows, MOE_ROWS_TOKEN);
}

static void test_everything(void **state)
{
    (void) state;
    struct moe_graph graph;
    vkmoe_layer_desc desc = full_layer();
    make(&graph, &desc, true);
    check_order(&graph);
    check_ops(&graph,
              "route group expert_in expert_out expert_in/shared expert_out/shared combine");
    assert_int_equal(graph.values[MOE_VALUE_SCORES].width, 5);
    assert_int_equal(graph.values[MOE_VALUE_SHARED_GATE].width, 1);
    assert_int_equal(graph.values[MOE_VALUE_H_SHARED].width, 4);
    assert_true(graph.ops[0].writes & 1u << MOE_VALUE_SCORES);
}

static void test_plain_shared(void **state)
{
    (void) state;
    struct moe_graph graph;
    vkmoe_layer_desc desc = full_layer();
    desc.shared_gate = VKMOE_SHARED_PLAIN;
    make(&graph, &desc, false);
    check_order(&graph);
    assert_true(moe_graph_uses(&graph, MOE_VALUE_F_SHARED));
    assert_false(moe_graph_uses(&graph, MOE_VALUE_SHARED_GATE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routed_only),
        cmocka_unit_test(test_everything),
        cmocka_unit_test(test_plain_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
