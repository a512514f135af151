// SPDX-License-Identifier: MIT
// The routing rule on cases worked out by hand. Logits are logarithms of small whole numbers, so
// that softmax gives simple fractions and sigmoid(ln n) = n / (n + 1).
#include "check.h"

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

static struct routing route(const vkmoe_layer_desc *layer, const double *logits, const float *bias)
{
    struct routing out;
    for (int i = 0; i < MAX_EXPERTS; i++)
        out.ids[i] = out.gates[i] = out.ranking[i] = -77;
    const struct moe_ref_routing places = {out.ids, out.gates, out.ranking};
    moe_ref_route(layer, logits, &(struct moe_ref_rule){.selection_bias = bias}, &places);
    return out;
}

static void check_slot(const struct routing *got, int k, int id, double gate)
{
    assert_int_equal((int) got->ids[k], id);
    check_near(got->gates[k], gate, 1e-14);
}

// ln 1, ln 4, ln 2, ln 3: softmax 0.1, 0.4, 0.2, 0.3.
static void logits_1423(double *out)
{
    out[0] = log(1), out[1] = log(4), out[2] = log(2), out[3] = log(3);
}

static void test_softmax(void **state)
{
    (void) state;
    double logits[4];
    logits_1423(logits);
    vkmoe_layer_desc layer = make_layer(4, 2);
    struct routing got = route(&layer, logits, NULL);
    check_slot(&got, 0, 1, 0.4);
    check_slot(&got, 1, 3, 0.3);
    assert_true(got.ids[2] == -77 && got.gates[2] == -77);
    check_near(got.ranking[0], 0.1, 1e-15);
    check_near(got.ranking[2], 0.2, 1e-15);

    for (int e = 0; e < 4; e++)
        logits[e] += 5000; // exp overflows unless the maximum is subtracted
    got = route(&layer, logits, NULL);
    check_near(got.gates[0], 0.4, 1e-11);
    logits[0] = -5000; // nor is the first one the maximum
    got = route(&layer, logits, NULL);
    check_near(got.gates[0], 4.0 / 9, 1e-11);
    check_near(got.gates[1], 3.0 / 9, 1e-11);
}

static void test_norms(void **state)
{
    (void) state;
    static const struct {
        enum vkmoe_norm norm;
        float eps, scale;
        double gates[2];
    } cases[] = {
        {VKMOE_NORM_NONE, 0, 2.5f, {1, 0.75}},
        {VKMOE_NORM_SUM_PLUS_EPS, 0, 1, {4.0 / 7, 3.0 / 7}},
        {VKMOE_NORM_SUM_PLUS_EPS, 0.125f, 1, {0.4 / 0.825, 0.3 / 0.825}},
        {VKMOE_NORM_MAX_SUM_EPS, 0.5f, 1, {4.0 / 7, 3.0 / 7}},
        {VKMOE_NORM_MAX_SUM_EPS, 2, 1, {0.2, 0.15}},
        {VKMOE_NORM_SUM_PLUS_EPS, 0, 7, {4, 3}},
    };
    double logits[4];
    logits_1423(logits);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vkmoe_layer_desc layer = make_layer(4, 2);
        layer.norm = cases[i].norm;
        layer.norm_eps = cases[i].eps;
        layer.routed_scale = cases[i].scale;
        struct routing got = route(&layer, logits, NULL);
        check_slot(&got, 0, 1, cases[i].gates[0]);
        check_slot(&got, 1, 3, cases[i].gates[1]);
    }
}

static void test_sigmoid_and_ranks(void **state)
{
    (void) state;
    double logits[4];
    logits_1423(logits);
    vkmoe_layer_desc layer = make_layer(4, 3);
    layer.score = VKMOE_SCORE_SIGMOID;
    struct routing got = route(&layer, logits, NULL);
    check_slot(&got, 0, 1, 0.8);
    check_slot(&got, 1, 3, 0.75);
    check_slot(&got, 2, 2, 2.0 / 3);
    check_near(got.ranking[0], 0.5, 1e-15);

    layer.rank = VKMOE_RANK_LOGIT;
    got = route(&layer, logits, NULL);
    check_slot(&got, 0, 1, 0.8);
    check_near(got.ranking[3], log(3), 1e-15);
}

// The bias decides who is selected, and is no part of the gate weight.
static void test_selection_bias(void **state)
{
    (void) state;
    const float bias[4] = {0.5f, -1, 0, 0.0625f};
    double logits[4];
    logits_1423(logits);
    vkmoe_layer_desc layer = make_layer(4, 2);
    struct routing got = route(&layer, logits, bias); // ranks 0.6, -0.6, 0.2, 0.3625
    check_slot(&got, 0, 0, 0.1);
    check_slot(&got, 1, 3, 0.3);
    check_near(got.ranking[1], -0.6, 1e-15);

    layer.gate_source = VKMOE_GATE_SOFTMAX_SELECTED;
    got = route(&layer, logits, bias);
    check_slot(&got, 0, 0, 0.25);
    check_slot(&got, 1, 3, 0.75);

    layer.rank = VKMOE_RANK_LOGIT; // ranks 0.5, 0.386, 0.693, 1.161
    got = route(&layer, logits, bias);
    check_slot(&got, 0, 3, 0.6);
    check_slot(&got, 1, 2, 0.4);
}

static void test_softmax_selected(void **state)
{
    (void) state;
    double logits[4];
    logits_1423(logits);
    vkmoe_layer_desc layer = make_layer(4, 2);
    layer.gate_source = VKMOE_GATE_SOFTMAX_SELECTED;
    layer.score = VKMOE_SCORE_SIGMOID; // ranks only: the gate weights come from the logits
    struct routing got = route(&layer, logits, NULL);
    check_slot(&got, 0, 1, 4.0 / 7);
    check_slot(&got, 1, 3, 3.0 / 7);
    layer.norm = VKMOE_NORM_SUM_PLUS_EPS;
    layer.norm_eps = 1;
    got = route(&layer, logits, NULL);
    check_slot(&got, 0, 1, 2.0 / 7);
}

static void test_dense_is_sorted(void **state)
{
    (void) state;
    double logits[4];
    logits_1423(logits);
    vkmoe_layer_desc layer = make_layer(4, 4);
    struct routing got = route(&layer, logits, NULL);
    check_slot(&got, 0, 1, 0.4);
    check_slot(&got, 1, 3, 0.3);
    check_slot(&got, 2, 2, 0.2);
    check_slot(&got, 3, 0, 0.1);

    layer = make_layer(1, 1);
    got = route(&layer, logits, NULL);
    check_slot(&got, 0, 0, 1);
}

static void test_ties(void **state)
{
    (void) state;
    const double logits[6] = {-0.0, 1, 0.0, 1, -0.0, 1};
    vkmoe_layer_desc layer = make_layer(6, 6);
    layer.rank = VKMOE_RANK_LOGIT;
    static const int order[6] = {1, 3, 5, 0, 2, 4};
    struct routing got = route(&layer, logits, NULL);
    for (int k = 0; k < 6; k++)
        assert_int_equal((int) got.ids[k], order[k]);
}

static void test_nan(void **state)
{
    (void) state;
    const double logits[5] = {NAN, log(1), NAN, log(3), -INFINITY};
    vkmoe_layer_desc layer = make_layer(5, 5);
    layer.score = VKMOE_SCORE_SIGMOID;
    struct routing got = route(&layer, logits, NULL);
    check_slot(&got, 0, 3, 0.75);
    check_slot(&got, 1, 1, 0.5);
    check_slot(&got, 2, 4, 0);
    assert_int_equal((int) got.ids[3], 0);
    assert_int_equal((int) got.ids[4], 2);
    assert_true(isnan(got.gates[3]) && isnan(got.gates[4]));

    layer.score = VKMOE_SCORE_SOFTMAX; // one NaN reaches every score
    layer.top_k = 2;
    got = route(&layer, logits, NULL);
    assert_int_equal((int) got.ids[0], 0);
    assert_int_equal((int) got.ids[1], 1);
    assert_true(isnan(got.gates[0]) && isnan(got.gates[1]));

    layer.gate_source = VKMOE_GATE_SOFTMAX_SELECTED;
    layer.rank = VKMOE_RANK_LOGIT; // but not when the NaN is not selected
    got = route(&layer, logits, NULL);
    check_slot(&got, 0, 3, 0.75);
    check_slot(&got, 1, 1, 0.25);

    const double nothing[5] = {NAN, NAN, NAN, NAN, NAN};
    for (int norm = 0; norm < 3; norm++) {
        layer.norm = (enum vkmoe_norm) norm;
        layer.norm_eps = 1;
        got = route(&layer, nothing, NULL);
        assert_true(got.ids[0] == 0 && got.ids[1] == 1);
        assert_true(isnan(got.gates[0]) && isnan(got.gates[1]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_softmax),          cmocka_unit_test(test_norms),
        cmocka_unit_test(test_sigmoid_and_ranks), cmocka_unit_test(test_selection_bias),
        cmocka_unit_test(test_softmax_selected), cmocka_unit_test(test_dense_is_sorted),
        cmocka_unit_test(test_ties),             cmocka_unit_test(test_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
