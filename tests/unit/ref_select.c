// SPDX-License-Identifier: MIT
// Rules of the router that few layers have, on cases worked out by hand. Logits are logarithms of
// small whole numbers where that gives simple fractions: sigmoid(ln n) = n / (n + 1).
#include "check.h"

#include "core/layer.h"
#include "core/ref_route.h"

enum { MAX_EXPERTS = 8 };

struct routing {
    double ids[MAX_EXPERTS], gates[MAX_EXPERTS], ranking[MAX_EXPERTS];
};

static vkmoe_layer_desc make_layer(uint32_t n_experts, uint32_t top_k)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = n_experts;
    layer.top_k = top_k;
    return layer;
}

// A layer whose ranking values and gate weights are the logits.
static vkmoe_layer_desc plain_layer(uint32_t n_experts, uint32_t top_k)
{
    vkmoe_layer_desc layer = make_layer(n_experts, top_k);
    layer.score = VKMOE_SCORE_NONE;
    return layer;
}

static struct routing route(const vkmoe_layer_desc *layer, const double *logits,
                            const struct moe_ref_rule *rule)
{
    struct routing out;
    for (int i = 0; i < MAX_EXPERTS; i++)
        out.ids[i] = out.gates[i] = out.ranking[i] = -77;
    const struct moe_ref_routing places = {out.ids, out.gates, out.ranking};
    moe_ref_route(layer, logits, rule ? rule : &(struct moe_ref_rule){0}, &places);
    return out;
}

static void check_ids(const struct routing *got, int n, const int *ids)
{
    for (int k = 0; k < n; k++)
        if ((int) got->ids[k] != ids[k])
            fail_msg("slot %d: expert %g, not %d", k, got->ids[k], ids[k]);
}
#define CHECK_IDS(got, ...)                                                                        \
    check_ids(&(got), sizeof((const int[]){__VA_ARGS__}) / sizeof(int), (const int[]){__VA_ARGS__})

static void check_gates(const struct routing *got, int n, const double *gates)
{
    for (int k = 0; k < n; k++)
        check_near(got->gates[k], gates[k], 1e-13);
}
#define CHECK_GATES(got, ...)                                                                      \
    check_gates(&(got), sizeof((const double[]){__VA_ARGS__}) / sizeof(double),                    \
                (const double[]){__VA_ARGS__})

// Softmax 0.1, 0.4, 0.2, 0.3; sigmoid 1/2, 4/5, 2/3, 3/4.
static const double l_1423[4] = {0, 1.3862943611198906, 0.6931471805599453, 1.0986122886681098};

static void test_scores(void **state)
{
    (void) state;
    const double far[5] = {1000, -40, -2, 3, NAN};
    double out[5];
    moe_ref_score(VKMOE_SCORE_SQRT_SOFTPLUS, far, 5, out);
    check_near(out[0], sqrt(1000), 1e-12); // e^1000 overflows
    check_near(out[1] / exp(-20), 1, 1e-12); // 1 + e^-40 is 1 in f64
    check_near(out[3], sqrt(log(1 + exp(3))), 1e-15);
    assert_true(isnan(out[4]));
    moe_ref_score(VKMOE_SCORE_RELU, far, 5, out);
    assert_true(out[1] == 0 && out[2] == 0 && out[3] == 3 && isnan(out[4]));
    moe_ref_score(VKMOE_SCORE_NONE, far, 5, out);
    assert_true(out[2] == -2 && out[3] == 3);

    vkmoe_layer_desc layer = make_layer(4, 4);
    layer.score = VKMOE_SCORE_SQRT_SOFTPLUS;
    struct routing got = route(&layer, l_1423, NULL);
    CHECK_IDS(got, 1, 3, 2, 0);
    CHECK_GATES(got, sqrt(log(5)), sqrt(log(4)), sqrt(log(3)), sqrt(log(2)));
}

// 2 tanh(ln 3 / 2) = 1: the cap is on what is scored, ranked and gathered.
static void test_softcap(void **state)
{
    (void) state;
    const double logits[2] = {1.0986122886681098, 1e9};
    vkmoe_layer_desc layer = plain_layer(2, 2);
    layer.logit_softcap = 2;
    struct routing got = route(&layer, logits, NULL);
    CHECK_GATES(got, 2, 1);
    check_near(got.ranking[0], 1, 1e-15);
    layer.gate_source = VKMOE_GATE_SOFTMAX_SELECTED;
    got = route(&layer, logits, NULL);
    CHECK_GATES(got, 1 / (1 + exp(-1)), 1 / (1 + exp(1)));
}

// With this bias expert 0 comes second by score, third by sigmoid.
static void test_rank_sigmoid(void **state)
{
    (void) state;
    const float bias[4] = {0.21875f, 0, 0, 0};
    const struct moe_ref_rule rule = {.selection_bias = bias};
    vkmoe_layer_desc layer = make_layer(4, 2);
    struct routing got = route(&layer, l_1423, &rule);
    CHECK_IDS(got, 1, 0);
    layer.rank = VKMOE_RANK_SIGMOID;
    got = route(&layer, l_1423, &rule);
    CHECK_IDS(got, 1, 3);
    CHECK_GATES(got, 0.4, 0.3);
    check_near(got.ranking[0], 0.71875, 1e-15);
}

static void test_groups(void **state)
{
    (void) state;
    const double logits[6] = {5, -9, 3, 3, 4, 0};
    vkmoe_layer_desc layer = plain_layer(6, 2);
    layer.n_group = 3;
    layer.topk_group = 2;
    struct routing got = route(&layer, logits, NULL); // groups 5, 3, 4
    CHECK_IDS(got, 0, 4);
    assert_true(got.ranking[2] == -INFINITY && got.ranking[1] == -9);
    layer.group_score = VKMOE_GROUP_TOP2_SUM; // -4, 6, 4
    got = route(&layer, logits, NULL);
    CHECK_IDS(got, 4, 2);
    layer.group_score = VKMOE_GROUP_TOP_SHARE_SUM;
    got = route(&layer, logits, NULL); // of one expert each
    CHECK_IDS(got, 0, 4);
    layer.top_k = 4; // of two
    got = route(&layer, logits, NULL);
    CHECK_IDS(got, 4, 2, 3, 5);

    const double thirds[6] = {5, 1, -9, 2, 2, 2};
    layer.n_group = 2;
    layer.topk_group = 1;
    layer.top_k = 3;
    got = route(&layer, thirds, NULL);
    CHECK_IDS(got, 3, 4, 5);
    layer.group_score = VKMOE_GROUP_TOP2_SUM;
    got = route(&layer, thirds, NULL);
    CHECK_IDS(got, 0, 1, 2);

    const float bias[6] = {0, 0, 0, 7, 0, 0}; // is part of a group's score
    got = route(&layer, thirds, &(struct moe_ref_rule){.selection_bias = bias});
    CHECK_IDS(got, 3, 4, 5);
}

static void test_group_fill_and_order(void **state)
{
    (void) state;
    const double negative[4] = {-5, -6, -1, -2};
    vkmoe_layer_desc layer = plain_layer(4, 2);
    layer.n_group = 2;
    layer.topk_group = 1;
    struct routing got = route(&layer, negative, NULL);
    CHECK_IDS(got, 2, 3);
    layer.group_fill_zero = true; // masked experts beat negative ones
    got = route(&layer, negative, NULL);
    CHECK_IDS(got, 0, 1);
    CHECK_GATES(got, -5, -6);
    assert_true(got.ranking[0] == 0 && got.ranking[3] == -2);

    layer.group_fill_zero = false;
    const double tie[4] = {1, 2, 2, 0};
    got = route(&layer, tie, NULL);
    CHECK_IDS(got, 1, 0);
    const double nan_first[4] = {NAN, NAN, -8, -9};
    got = route(&layer, nan_first, NULL);
    CHECK_IDS(got, 2, 3);
    const double half_nan[4] = {NAN, 3, 2, 2};
    got = route(&layer, half_nan, NULL); // the largest number of a group counts; a masked expert is
    CHECK_IDS(got, 1, 2);                // a number, the NaN is none
    const double nothing[4] = {NAN, NAN, NAN, NAN};
    got = route(&layer, nothing, NULL);
    assert_true(isnan(got.gates[0]) && isnan(got.gates[1]));
}

static void test_identity_experts(void **state)
{
    (void) state;
    const float scale[4] = {1, 1, 1, 10};
    vkmoe_layer_desc layer = make_layer(2, 2);
    layer.n_zero = 2;
    struct routing got = route(&layer, l_1423, &(struct moe_ref_rule){.expert_scale = scale});
    CHECK_IDS(got, 1, 3);
    CHECK_GATES(got, 0.4, 3); // softmax is over all four
}

static void test_table(void **state)
{
    (void) state;
    const int32_t row[3] = {0, 3, 1};
    const struct moe_ref_rule rule = {.table_row = row};
    vkmoe_layer_desc layer = make_layer(4, 3);
    layer.select = VKMOE_SELECT_TABLE;
    struct routing got = route(&layer, l_1423, &rule);
    CHECK_IDS(got, 0, 3, 1);
    CHECK_GATES(got, 0.1, 0.3, 0.4);
    layer.gate_source = VKMOE_GATE_SOFTMAX_SELECTED;
    got = route(&layer, l_1423, &rule);
    CHECK_GATES(got, 1.0 / 8, 3.0 / 8, 4.0 / 8);
}

static void test_top_p(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = make_layer(4, 3);
    layer.select = VKMOE_SELECT_TOP_P;
    layer.norm = VKMOE_NORM_SUM_PLUS_EPS; // over the slots that are used
    layer.select_p = 0.65f;
    struct routing got = route(&layer, l_1423, NULL);
    CHECK_IDS(got, 1, 3, -1);
    CHECK_GATES(got, 4.0 / 7, 3.0 / 7, 0);
    layer.gate_source = VKMOE_GATE_SOFTMAX_SELECTED;
    got = route(&layer, l_1423, NULL);
    CHECK_GATES(got, 4.0 / 7, 3.0 / 7, 0);
    layer.select_p = 0.75f;
    got = route(&layer, l_1423, NULL);
    CHECK_IDS(got, 1, 3, 2);
    layer.select_p = 0.01f;
    got = route(&layer, l_1423, NULL);
    CHECK_IDS(got, 1, -1, -1);
    layer.select_p = 2; // never reached: top_k of them
    got = route(&layer, l_1423, NULL);
    CHECK_IDS(got, 1, 3, 2);

    // Ordered by what the bias makes of the scores, summed without it.
    const float bias[4] = {5, 0, 0, 0};
    layer.select_p = 0.45f;
    got = route(&layer, l_1423, &(struct moe_ref_rule){.selection_bias = bias});
    CHECK_IDS(got, 0, 1, -1);

    const double nothing[4] = {NAN, NAN, NAN, NAN};
    got = route(&layer, nothing, NULL);
    assert_true(got.ids[0] == 0 && isnan(got.gates[0]));
}

static void test_threshold(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = make_layer(4, 3);
    layer.select = VKMOE_SELECT_THRESHOLD;
    layer.score = VKMOE_SCORE_SIGMOID;
    layer.select_p = 0.75f; // sigmoid(ln 3) is this or a little less in f64
    layer.rank = VKMOE_RANK_LOGIT;
    struct routing got = route(&layer, l_1423, NULL); // ln 3 and ln 4 are above 0.75
    CHECK_IDS(got, 1, 3, -1);
    CHECK_GATES(got, 0.8, 0.75, 0);
    layer.select_p = 100;
    got = route(&layer, l_1423, NULL);
    CHECK_IDS(got, 1, -1, -1);
    layer.select_p = -1;
    got = route(&layer, l_1423, NULL);
    CHECK_IDS(got, 1, 3, 2);
    const float bias[4] = {50, 0, 0, 0}; // is part of the rank
    layer.select_p = 50;
    got = route(&layer, l_1423, &(struct moe_ref_rule){.selection_bias = bias});
    CHECK_IDS(got, 0, -1, -1);
    const double two[4] = {50, 50, NAN, 3}; // at least: equal is enough
    got = route(&layer, two, NULL);
    CHECK_IDS(got, 0, 1, -1);
    const double nothing[4] = {NAN, NAN, NAN, NAN};
    got = route(&layer, nothing, NULL);
    CHECK_IDS(got, 0, -1, -1);
    assert_true(isnan(got.gates[0]) && got.gates[1] == 0);
}

static void test_sparsemixer(void **state)
{
    (void) state;
    const double logits[4] = {0.99, 1, -3, 0.5};
    vkmoe_layer_desc layer = make_layer(4, 3);
    layer.select = VKMOE_SELECT_SPARSEMIXER;
    layer.sparsemixer_eps = 0.01f;
    struct routing got = route(&layer, logits, NULL);
    CHECK_IDS(got, 1, 0, 3);
    CHECK_GATES(got, 1 / (1 + exp(-0.01)), 1, 1);
    check_near(got.ranking[2], -3, 0);
    layer.sparsemixer_eps = 0.3f; // 0.5 of 1 is in, -3 at a distance of 4/3 is not
    got = route(&layer, logits, NULL);
    CHECK_GATES(got, 1 / (1 + exp(-0.01) + exp(-0.5)), 1 / (1 + exp(-0.49)), 1);
    layer.sparsemixer_eps = 0.7f; // now it is, as distances are by the larger of |l| and the most
    got = route(&layer, logits, NULL);
    CHECK_GATES(got, 1 / (1 + exp(-0.01) + exp(-0.5) + exp(-4)));
    const double nothing[4] = {NAN, NAN, NAN, NAN};
    got = route(&layer, nothing, NULL);
    CHECK_IDS(got, 0, 1, 2);
    assert_true(isnan(got.gates[0]));
}

static void test_norm_p(void **state)
{
    (void) state;
    const double logits[3] = {-4, 3, -9};
    vkmoe_layer_desc layer = plain_layer(3, 2);
    layer.norm = VKMOE_NORM_SUM_PLUS_EPS;
    layer.norm_p = 2;
    struct routing got = route(&layer, logits, NULL);
    CHECK_GATES(got, 0.6, -0.8);
    layer.norm_eps = 5;
    got = route(&layer, logits, NULL);
    CHECK_GATES(got, 0.3, -0.4);
    layer.norm = VKMOE_NORM_MAX_SUM_EPS;
    got = route(&layer, logits, NULL);
    CHECK_GATES(got, 0.6, -0.8);
    layer.norm_p = 1; // a plain sum, which is -1
    layer.norm = VKMOE_NORM_SUM_PLUS_EPS;
    layer.norm_eps = 0;
    got = route(&layer, logits, NULL);
    CHECK_GATES(got, -3, 4);
}

static void test_expert_scale(void **state)
{
    (void) state;
    const float scale[4] = {7, 3, 7, -2};
    vkmoe_layer_desc layer = make_layer(4, 2);
    layer.norm = VKMOE_NORM_SUM_PLUS_EPS;
    layer.routed_scale = 7;
    struct routing got = route(&layer, l_1423, &(struct moe_ref_rule){.expert_scale = scale});
    CHECK_GATES(got, 12, -6); // after the norm
    layer.capacity_renorm = true; // then it waits for the slots that are kept
    got = route(&layer, l_1423, &(struct moe_ref_rule){.expert_scale = scale});
    CHECK_GATES(got, 0.4, 0.3);
}

// ---- capacity ---------------------------------------------------------------------------------

static void check_capacity(const vkmoe_layer_desc *layer, uint32_t n_tokens, const double *ids,
                           const double *gates, const double *want)
{
    double got_ids[12], got_gates[12];
    uint32_t n = n_tokens * layer->top_k;
    memcpy(got_ids, ids, n * sizeof *ids);
    memcpy(got_gates, gates, n * sizeof *gates);
    moe_ref_capacity(layer, NULL, n_tokens, got_ids, got_gates);
    for (uint32_t i = 0; i < n; i++) {
        if (got_ids[i] != want[i])
            fail_msg("slot %u: expert %g, not %g", i, got_ids[i], want[i]);
        assert_true(want[i] < 0 ? got_gates[i] == 0 : got_gates[i] == gates[i]);
    }
}

static void test_capacity(void **state)
{
    (void) state;
    const double ids[8] = {1, 0, 1, 2, 0, 1, 1, 0}; // four tokens; 3 is an identity expert
    const double gates[8] = {0.5, 0.9, 0.7, 0.1, 0.6, 0.8, 0.7, 0.2};
    vkmoe_layer_desc layer = make_layer(3, 2);
    layer.n_zero = 1;
    layer.capacity = 2;
    layer.capacity_mode = VKMOE_CAPACITY_BY_POSITION; // expert 1 has two first choices, 0 one
    check_capacity(&layer, 4, ids, gates, (double[]){1, 0, 1, 2, 0, -1, -1, -1});
    layer.capacity_mode = VKMOE_CAPACITY_BY_GATE;
    check_capacity(&layer, 4, ids, gates, (double[]){-1, 0, 1, 2, 0, 1, -1, -1});
    layer.capacity_rows = 3; // tokens 0 to 2, then token 3
    check_capacity(&layer, 4, ids, gates, (double[]){-1, 0, 1, 2, 0, 1, 1, 0});
    layer.capacity_mode = VKMOE_CAPACITY_BY_POSITION;
    check_capacity(&layer, 4, ids, gates, (double[]){1, 0, 1, 2, 0, -1, 1, 0});

    layer.capacity = layer.capacity_rows = 0;
    layer.capacity_factor = 0.5f; // ceil(0.5 * 2 * 4 / 3) = 2
    check_capacity(&layer, 4, ids, gates, (double[]){1, 0, 1, 2, 0, -1, -1, -1});
    layer.capacity_rows = 3; // ceil(1) = 1, then ceil(1/3) = 1
    check_capacity(&layer, 4, ids, gates, (double[]){1, -1, -1, 2, 0, -1, 1, 0});

    // Neither identity experts nor unused slots have places; a NaN is the last.
    const double others[8] = {3, -1, 3, -1, 3, 1, 1, 3}, nan[8] = {1, 0, 1, 0, 1, NAN, -5, 1};
    layer.capacity = 1;
    layer.capacity_rows = 0;
    layer.capacity_mode = VKMOE_CAPACITY_BY_GATE;
    check_capacity(&layer, 4, others, nan, (double[]){3, -1, 3, -1, 3, -1, 1, 3});
}

static void test_capacity_renorm(void **state)
{
    (void) state;
    const float scale[3] = {1, 3, 1};
    double ids[4] = {1, 0, 1, 2}, gates[4] = {0.5, 0.25, 0.5, 0.25};
    vkmoe_layer_desc layer = make_layer(3, 2);
    layer.capacity_mode = VKMOE_CAPACITY_BY_POSITION;
    layer.capacity = 1;
    layer.capacity_renorm = true;
    layer.norm = VKMOE_NORM_SUM_PLUS_EPS;
    layer.routed_scale = 2;
    moe_ref_capacity(&layer, scale, 2, ids, gates);
    assert_true(ids[0] == 1 && ids[1] == 0 && ids[2] == -1 && ids[3] == 2);
    check_near(gates[0], 4, 1e-15);
    check_near(gates[1], 2.0 / 3, 1e-15);
    assert_true(gates[2] == 0);
    check_near(gates[3], 2, 1e-15);
}

static void test_capacity_of_many(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = make_layer(8, 2);
    layer.capacity = 5;
    assert_int_equal(moe_layer_capacity(&layer, 100), 5);
    assert_int_equal(moe_layer_capacity(&layer, 3), 3);
    layer.capacity = 0;
    layer.capacity_factor = 1.25f;
    assert_int_equal(moe_layer_capacity(&layer, 64), 20);
    assert_int_equal(moe_layer_capacity(&layer, 65), 21);
    layer.capacity_factor = 3e38f;
    assert_int_equal(moe_layer_capacity(&layer, UINT32_MAX), UINT32_MAX);
    layer.capacity_factor = 1e-30f;
    assert_int_equal(moe_layer_capacity(&layer, 64), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scores),           cmocka_unit_test(test_softcap),
        cmocka_unit_test(test_rank_sigmoid),     cmocka_unit_test(test_groups),
        cmocka_unit_test(test_group_fill_and_order), cmocka_unit_test(test_identity_experts),
        cmocka_unit_test(test_table),            cmocka_unit_test(test_top_p),
        cmocka_unit_test(test_threshold),        cmocka_unit_test(test_sparsemixer),
        cmocka_unit_test(test_norm_p),           cmocka_unit_test(test_expert_scale),
        cmocka_unit_test(test_capacity),         cmocka_unit_test(test_capacity_renorm),
        cmocka_unit_test(test_capacity_of_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
