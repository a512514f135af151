// SPDX-License-Identifier: MIT
// The oracle's gradients: cases worked out by hand, gate weights that are constants, NaN, and
// experts and layers without a row.
#include "check.h"
#include "ref_problem.h"

#include "base/host.h"

// ---- by hand ----------------------------------------------------------------------------------

static void test_act_derivatives(void **state)
{
    (void) state;
    static const struct {
        enum vkmoe_act act;
        double at_1, at_minus_2;
    } cases[] = {
        {VKMOE_ACT_NONE, 1, 1},
        {VKMOE_ACT_SILU, 0.92767051187148675, -0.090784248784895480},
        {VKMOE_ACT_GELU_ERF, 1.0833154705876864, -0.085231801078196903},
        {VKMOE_ACT_GELU_TANH, 1.0829640838457826, -0.086099256623618378},
        {VKMOE_ACT_RELU, 1, 0},
        {VKMOE_ACT_RELU2, 2, 0},
        {VKMOE_ACT_SIGMOID, 0.19661193324148185, 0.10499358540350653},
        {VKMOE_ACT_TANH, 0.41997434161402608, 0.070650824853164471},
    };
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        enum vkmoe_act act = cases[i].act;
        check_near(moe_ref_act_derivative(&layer, act, 1), cases[i].at_1, 2e-16);
        check_near(moe_ref_act_derivative(&layer, act, -2), cases[i].at_minus_2, 2e-16);
        assert_true(act == VKMOE_ACT_NONE || isnan(moe_ref_act_derivative(&layer, act, NAN)));
    }
    // At the kink, and where 1 - tanh^2 would be 0.
    assert_true(moe_ref_act_derivative(&layer, VKMOE_ACT_RELU, 0) == 0);
    assert_true(moe_ref_act_derivative(&layer, VKMOE_ACT_RELU2, 0) == 0);
    check_near(moe_ref_act_derivative(&layer, VKMOE_ACT_TANH, 20) / (4 * exp(-40)), 1, 1e-15);
    layer.act_alpha = 1.5f;
    check_near(moe_ref_act_derivative(&layer, VKMOE_ACT_SILU, 1), 1.0412941542991429, 2e-16);
}

// Layers on one number: expert e multiplies by a_e, the logits are the router's biases.
struct by_hand {
    struct moe_graph graph;
    struct moe_ref_weights weights;
    struct moe_ref_expert experts[3];
    float zeros[3], up, shared_up;
    struct moe_ref_run *run;
    struct moe_ref_grads *grads;
};

static void by_hand_run(struct by_hand *b, vkmoe_layer_desc layer, float *bias, float *a, double x,
                        double dy)
{
    memset(b, 0, sizeof *b);
    layer.d_model = layer.d_ff = 1;
    layer.router_bias = true;
    check_ok(moe_layer_init(&b->weights.layer, &layer));
    moe_graph_forward(&b->graph, &b->weights.layer, false);
    b->up = b->shared_up = 1;
    b->weights.router = b->zeros;
    b->weights.router_bias = bias;
    b->weights.experts = b->experts;
    for (uint32_t e = 0; e < layer.n_experts; e++)
        b->experts[e] = (struct moe_ref_expert){.up = &b->up, .down = &a[e]};
    b->weights.shared = (struct moe_ref_expert){.up = &b->shared_up, .down = &a[layer.n_experts]};
    check_ok(moe_ref_run_create(moe_host_default(), &b->graph, 1, &b->run));
    check_ok(moe_ref_grads_create(moe_host_default(), &b->weights.layer, 1, &b->grads));
    b->run->values[MOE_VALUE_X][0] = x;
    moe_ref_run(b->run, &b->graph, &b->weights, 1);
    moe_ref_backward(b->run, &b->graph, &b->weights, 1, &dy, b->grads);
}

static void by_hand_finish(struct by_hand *b)
{
    moe_ref_run_destroy(b->run);
    moe_ref_grads_destroy(b->grads);
}

// Dense softmax, logits 0 and ln 3, so w = 1/4, 3/4; experts 2x and 3x, shared -x; x = 2, dy = 1.
// f = 4, 6; sum w f = 5.5; Dl = (1/4 (4 - 5.5), 3/4 (6 - 5.5)) = (-3/8, 3/8).
static void test_dense_by_hand(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = layer.top_k = 2;
    layer.d_shared_ff = 1;
    float bias[2] = {0, 1.0986123f}, a[3] = {2, 3, -1};
    struct by_hand b;
    by_hand_run(&b, layer, bias, a, 2, 1);
    const struct moe_ref_grads *g = b.grads;
    check_near(g->x[0], 2 * 0.25 + 3 * 0.75 - 1, 1e-7);
    check_near(g->router_bias[0], -0.375, 1e-7);
    check_near(g->router_bias[1], 0.375, 1e-7);
    check_near(g->router[0], -0.75, 1e-7);
    check_near(g->router[1], 0.75, 1e-7);
    check_near(g->experts[0].down[0], 0.5, 1e-7);
    check_near(g->experts[1].down[0], 1.5, 1e-7);
    check_near(g->experts[0].up[0], 1, 1e-7);
    check_near(g->experts[1].up[0], 4.5, 1e-7);
    check_near(g->shared.down[0], 2, 0);
    check_near(g->shared.up[0], -2, 0);
    by_hand_finish(&b);
}

// Sigmoid scores 1/2, 3/4, 1/4; two selected and renormalised: w_1 = 0.6, w_0 = 0.4. f = 2, 1 with
// sum w f = 1.6; Dq = (2 - 1.6) / 1.25, (1 - 1.6) / 1.25; Dl_1 = 0.32 * 3/16, Dl_0 = -0.48 * 1/4.
static void test_sigmoid_by_hand(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = 3;
    layer.top_k = 2;
    layer.score = VKMOE_SCORE_SIGMOID;
    layer.norm = VKMOE_NORM_SUM_PLUS_EPS;
    float bias[3] = {0, 1.0986123f, -1.0986123f}, a[4] = {1, 2, 5, 0};
    struct by_hand b;
    by_hand_run(&b, layer, bias, a, 1, 1);
    check_near(b.grads->router_bias[0], -0.12, 1e-7);
    check_near(b.grads->router_bias[1], 0.06, 1e-7);
    assert_true(b.grads->router_bias[2] == 0 && b.grads->router[2] == 0);
    assert_true(b.grads->experts[2].up[0] == 0 && b.grads->experts[2].down[0] == 0);
    by_hand_finish(&b);
}

// ---- one expert a token -----------------------------------------------------------------------

static bool router_is_zero(const struct problem *p)
{
    const vkmoe_layer_desc *layer = &p->data.layer;
    bool zero = true;
    for (uint32_t i = 0; i < layer->n_experts * layer->d_model; i++)
        zero = zero && p->grads->router[i] == 0;
    for (uint32_t e = 0; e < layer->n_experts; e++)
        zero = zero && p->grads->router_bias[e] == 0;
    return zero;
}

// With w = 1 the router's gradient is 0, not a rounding error and not NaN from an infinite dy.
static void test_one_expert(void **state)
{
    (void) state;
    static const struct {
        uint32_t top_k;
        enum vkmoe_gate_source source;
        enum vkmoe_norm norm;
        float eps;
        bool zero;
    } cases[] = {
        {1, VKMOE_GATE_SCORE, VKMOE_NORM_SUM_PLUS_EPS, 0, true},
        {1, VKMOE_GATE_SCORE, VKMOE_NORM_MAX_SUM_EPS, 0, true},
        {1, VKMOE_GATE_SOFTMAX_SELECTED, VKMOE_NORM_NONE, 0, true},
        {1, VKMOE_GATE_SOFTMAX_SELECTED, VKMOE_NORM_SUM_PLUS_EPS, 0.5f, true},
        {1, VKMOE_GATE_SOFTMAX_SELECTED, VKMOE_NORM_MAX_SUM_EPS, 3, true},
        {1, VKMOE_GATE_SCORE, VKMOE_NORM_NONE, 0, false},
        {1, VKMOE_GATE_SCORE, VKMOE_NORM_SUM_PLUS_EPS, 0.5f, false},
        {1, VKMOE_GATE_SCORE, VKMOE_NORM_MAX_SUM_EPS, 3, false},
        {2, VKMOE_GATE_SCORE, VKMOE_NORM_SUM_PLUS_EPS, 0, false},
        {2, VKMOE_GATE_SOFTMAX_SELECTED, VKMOE_NORM_NONE, 0, false},
    };
    for (uint32_t c = 0; c < 2 * sizeof cases / sizeof *cases; c++) {
        vkmoe_layer_desc layer = small_layer(0);
        layer.score = (enum vkmoe_score) (c % 2);
        layer.top_k = cases[c / 2].top_k;
        layer.gate_source = cases[c / 2].source;
        layer.norm = cases[c / 2].norm;
        layer.norm_eps = cases[c / 2].eps;
        struct problem p;
        problem_init(&p, &layer, c);
        assert_int_equal(moe_ref_gates_are_constant(&layer), cases[c / 2].zero);
        problem_run(&p);
        problem_backward(&p);
        assert_int_equal(router_is_zero(&p), cases[c / 2].zero);
        p.dy[0] = INFINITY;
        problem_backward(&p);
        assert_int_equal(router_is_zero(&p), cases[c / 2].zero);
        problem_finish(&p);
    }
}

// ---- special tokens ---------------------------------------------------------------------------

// Counts NaN in a tensor.
static uint32_t count_nan(const double *values, uint32_t n)
{
    uint32_t n_nan = 0;
    for (uint32_t i = 0; i < n; i++)
        n_nan += isnan(values[i]) ? 1 : 0;
    return n_nan;
}

// A token of NaN, or a NaN in dy: its dx is NaN, dx of the others keep their bits; experts that it
// does not use are clean.
static void test_nan(void **state)
{
    (void) state;
    for (int in_dy = 0; in_dy < 2; in_dy++) {
        struct problem p;
        vkmoe_layer_desc layer = small_layer(1);
        double clean[N_TOKENS * 3];
        bool used[4] = {false};
        problem_init(&p, &layer, 5);
        problem_run(&p);
        problem_backward(&p);
        memcpy(clean, p.grads->x, sizeof clean);
        if (in_dy)
            p.dy[layer.d_out] = NAN;
        for (uint32_t i = 0; i < layer.d_model && !in_dy; i++)
            p.run->values[MOE_VALUE_X][layer.d_model + i] = NAN;
        problem_run(&p);
        problem_backward(&p);
        for (uint32_t k = 0; k < layer.top_k; k++)
            used[(int) p.run->values[MOE_VALUE_IDS][layer.top_k + k]] = true;
        assert_memory_equal(p.grads->x, clean, 3 * sizeof *clean);
        assert_memory_equal(p.grads->x + 6, clean + 6, 3 * sizeof *clean);
        assert_int_equal(count_nan(p.grads->x + 3, 3), 3);
        for (uint32_t e = 0; e < layer.n_experts; e++)
            assert_int_equal(count_nan(p.grads->experts[e].up, 12), used[e] ? 12 : 0);
        problem_finish(&p);
    }
}

// Experts without a row have gradients of 0, and without a token all parameters have.
static void test_no_rows(void **state)
{
    (void) state;
    struct problem p;
    vkmoe_layer_desc layer = small_layer(2);
    problem_init(&p, &layer, 9);
    p.weights.router_bias[2] = 99; // every token to experts 2 and 0
    p.weights.router_bias[0] = 50;
    problem_run(&p);
    problem_backward(&p);
    for (uint32_t e = 0; e < layer.n_experts; e++) {
        double sum = 0;
        for (uint32_t i = 0; i < layer.d_ff * layer.d_model; i++)
            sum += fabs(p.grads->experts[e].up[i]);
        assert_int_equal(sum > 0, e == 2 || e == 0);
        assert_false(isnan(sum));
    }
    moe_ref_backward(p.run, &p.graph, &p.weights, 0, p.dy, p.grads);
    for (uint64_t i = 0; i < p.grads->n_params; i++)
        assert_true(p.grads->router[i] == 0);
    problem_finish(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_act_derivatives), cmocka_unit_test(test_dense_by_hand),
        cmocka_unit_test(test_sigmoid_by_hand), cmocka_unit_test(test_one_expert),
        cmocka_unit_test(test_nan),             cmocka_unit_test(test_no_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
