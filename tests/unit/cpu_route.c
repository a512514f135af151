// SPDX-License-Identifier: MIT
// The CPU's selection on values where the answer is plain: ties, signed zeros, NaN, every top_k.
#include "check.h"
#include "fixture.h"

#include "core/ref_route.h"
#include "cpu/kernels.h"
#include "cpu/route.h"

enum { MAX_N = 64 };

static const float no_bias[MAX_N];
static struct cpu_arrays arrays;

// Selection by the logits themselves.
static vkmoe_layer_desc logit_layer(uint32_t n_experts, uint32_t top_k)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = n_experts;
    layer.top_k = top_k;
    layer.rank = VKMOE_RANK_LOGIT;
    layer.gate_source = VKMOE_GATE_SOFTMAX_SELECTED;
    return layer;
}

static void check_ids(const float *logits, uint32_t n_experts, const int32_t *want, uint32_t top_k)
{
    vkmoe_layer_desc layer = logit_layer(n_experts, top_k);
    int32_t ids[MAX_N];
    float gates[MAX_N], ranking[MAX_N], bias[MAX_N];
    for (uint32_t i = 0; i < n_experts; i++)
        bias[i] = -0.0f; // adds nothing, not even to -0
    moe_cpu_route(&layer, logits, &(struct cpu_route_rule){bias, .arrays = &arrays}, ids, gates,
                  ranking);
    assert_memory_equal(ids, want, top_k * sizeof *want);
}

static void equal_values_go_to_the_lower_index(void **state)
{
    (void) state;
    check_ids((float[]){1, 3, 3, 2, 3}, 5, (int32_t[]){1, 2, 4, 3, 0}, 5);
    check_ids((float[]){5, 5, 5, 5}, 4, (int32_t[]){0, 1}, 2);
    check_ids((float[]){-0.0f, 0.0f, -0.0f, 0.0f}, 4, (int32_t[]){0, 1, 2, 3}, 4);
    check_ids((float[]){-1, -0.0f, 0.0f}, 3, (int32_t[]){1, 2, 0}, 3);
    check_ids((float[]){-3, -1, -2, -1}, 4, (int32_t[]){1, 3, 2, 0}, 4);
}

static void nan_comes_last(void **state)
{
    (void) state;
    check_ids((float[]){NAN, -INFINITY, 1, -NAN, INFINITY}, 5, (int32_t[]){4, 2, 1, 0, 3}, 5);
    check_ids((float[]){NAN, -INFINITY, NAN}, 3, (int32_t[]){1}, 1);
    check_ids((float[]){NAN, NAN, NAN}, 3, (int32_t[]){0, 1}, 2);
}

// Every permutation-like input and every k: the answer is known because the values are ranks.
static void any_top_k_of_any_order(void **state)
{
    (void) state;
    for (uint32_t n = 1; n <= MAX_N - 1; n++) {
        for (uint32_t step = 1; step <= 5; step += 2) {
            float logits[MAX_N];
            int32_t want[MAX_N];
            uint32_t place = 0;
            memset(want, 0, sizeof want);
            bool taken[MAX_N] = {false};
            for (uint32_t rank = 0; rank < n; rank++) {
                place = (place + step) % n;
                while (taken[place])
                    place = (place + 1) % n;
                taken[place] = true;
                logits[place] = 10.0f - (float) rank * 0.5f;
                want[rank] = (int32_t) place;
            }
            for (uint32_t k = 1; k <= n; k++)
                check_ids(logits, n, want, k);
        }
    }
}

static void gates_of_a_token(const vkmoe_layer_desc *layer, const float *logits, const float *bias,
                             int32_t *ids, float *gates)
{
    float ranking[MAX_N];
    moe_cpu_route(layer, logits, &(struct cpu_route_rule){bias, .arrays = &arrays}, ids, gates,
                  ranking);
}

static void gate_weights_by_hand(void **state)
{
    (void) state;
    const float ln2 = 0.69314718f, logits[] = {0, ln2, 2 * ln2, ln2}; // weights 1 : 2 : 4 : 2
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    int32_t ids[4];
    float gates[4];
    layer.n_experts = 4;
    layer.top_k = 2;
    gates_of_a_token(&layer, logits, no_bias, ids, gates); // softmax over all
    check_near(gates[0], 4.0 / 9, 1e-6);
    check_near(gates[1], 2.0 / 9, 1e-6);
    layer.norm = VKMOE_NORM_SUM_PLUS_EPS;
    layer.routed_scale = 3;
    gates_of_a_token(&layer, logits, no_bias, ids, gates);
    check_near(gates[0], 3 * 2.0 / 3, 1e-6);
    layer.norm = VKMOE_NORM_MAX_SUM_EPS;
    layer.norm_eps = 2; // above the sum, which is 6 / 9
    gates_of_a_token(&layer, logits, no_bias, ids, gates);
    check_near(gates[0], 3 * 2.0 / 9, 1e-6);

    // The selection bias moves expert 0 to the front, its gate weight stays its own.
    const float bias[] = {9, 0, 0, 0};
    vkmoe_layer_desc sigmoid = vkmoe_layer_desc_init();
    sigmoid.n_experts = 4;
    sigmoid.top_k = 1;
    sigmoid.score = VKMOE_SCORE_SIGMOID;
    gates_of_a_token(&sigmoid, logits, bias, ids, gates);
    assert_int_equal(ids[0], 0);
    check_near(gates[0], 0.5, 1e-6);
}

static void all_nan_gives_nan(void **state)
{
    (void) state;
    const float logits[] = {NAN, NAN, NAN}, one_nan[] = {1, NAN, 2};
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    int32_t ids[2];
    float gates[2];
    layer.n_experts = 3;
    layer.top_k = 2;
    gates_of_a_token(&layer, logits, no_bias, ids, gates);
    assert_true(isnan(gates[0]) && isnan(gates[1]));
    // One NaN among the logits is in the sum of every softmax score.
    gates_of_a_token(&layer, one_nan, no_bias, ids, gates);
    assert_true(isnan(gates[0]) && isnan(gates[1]));
    // A sigmoid keeps it to itself.
    layer.score = VKMOE_SCORE_SIGMOID;
    gates_of_a_token(&layer, one_nan, no_bias, ids, gates);
    assert_int_equal(ids[0], 2);
    assert_int_equal(ids[1], 0);
    assert_false(isnan(gates[0]) || isnan(gates[1]));
}

// ---- many experts ------------------------------------------------------------------------------

enum { MANY = 1024 };

// The oracle's choice among n experts, of logits that f32 and f64 order alike.
static void check_many(const vkmoe_layer_desc *layer, uint32_t seed)
{
    static float logits[MANY], bias[MANY], gates[MANY], ranking[MANY];
    static double as_f64[MANY], want_ids[MANY], want_gates[MANY], want_ranking[MANY];
    static int32_t ids[MANY];
    const uint32_t n = moe_layer_n_scored(layer);
    fill_random(logits, n, seed);
    for (uint32_t e = 0; e < n; e++) {
        logits[e] *= 4;
        as_f64[e] = (double) logits[e];
    }
    memset(bias, 0, sizeof bias);
    moe_cpu_route(layer, logits, &(struct cpu_route_rule){bias, .arrays = &arrays}, ids, gates,
                  ranking);
    moe_ref_route(layer, as_f64, &(struct moe_ref_rule){0},
                  &(struct moe_ref_routing){want_ids, want_gates, want_ranking});
    for (uint32_t k = 0; k < layer->top_k; k++) {
        if (ids[k] != (int32_t) want_ids[k])
            fail_msg("%u experts, top_k %u, slot %u: expert %d, not %g", n, layer->top_k, k, ids[k],
                     want_ids[k]);
        check_near((double) gates[k], want_gates[k], 1e-5 * fabs(want_gates[k]));
    }
}

static void as_the_oracle_with_many_experts(void **state)
{
    (void) state;
    static const uint32_t sizes[][2] = {{60, 7},   {160, 6},   {512, 22},  {512, 64},
                                        {896, 16}, {1000, 64}, {1024, 64}, {1024, 1024}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (int select = VKMOE_SELECT_TOP_K; select <= VKMOE_SELECT_THRESHOLD; select++) {
            vkmoe_layer_desc layer = vkmoe_layer_desc_init();
            layer.n_experts = sizes[i][0];
            layer.top_k = sizes[i][1];
            layer.rank = VKMOE_RANK_LOGIT;
            layer.gate_source = VKMOE_GATE_SOFTMAX_SELECTED;
            layer.select = (enum vkmoe_select) select;
            layer.select_p = select == VKMOE_SELECT_TOP_P ? 0.3f : 3.5f;
            layer.sparsemixer_eps = 0.1f;
            if (select != VKMOE_SELECT_TABLE)
                check_many(&layer, (uint32_t) i);
        }
    }
}

static void as_the_oracle_with_many_groups(void **state)
{
    (void) state;
    for (uint32_t n_group = 2; n_group <= 512; n_group *= 2) {
        for (int rule = VKMOE_GROUP_MAX; rule <= VKMOE_GROUP_TOP_SHARE_SUM; rule++) {
            vkmoe_layer_desc layer = vkmoe_layer_desc_init();
            layer.n_experts = 1024;
            layer.n_zero = 0;
            layer.n_group = n_group;
            layer.topk_group = (n_group + 1) / 2;
            layer.top_k = 2 * layer.topk_group < 64 ? 2 * layer.topk_group : layer.topk_group;
            layer.rank = VKMOE_RANK_LOGIT;
            layer.gate_source = VKMOE_GATE_SOFTMAX_SELECTED;
            layer.group_score = (enum vkmoe_group_score) rule;
            check_many(&layer, n_group);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_values_go_to_the_lower_index),
        cmocka_unit_test(nan_comes_last),
        cmocka_unit_test(any_top_k_of_any_order),
        cmocka_unit_test(gate_weights_by_hand),
        cmocka_unit_test(all_nan_gives_nan),
        cmocka_unit_test(as_the_oracle_with_many_experts),
        cmocka_unit_test(as_the_oracle_with_many_groups),
    };
    moe_cpu_arrays_scalar(&arrays);
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
