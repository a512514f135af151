// SPDX-License-Identifier: MIT
// Fields of a layer that only make sense together, and those whose gradient is not computed.
#include "check.h"
#include "fixture.h"

#include "core/layer.h"

static vkmoe_layer_desc plain_layer(void)
{
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = 8;
    layer.top_k = 4;
    layer.d_model = layer.d_ff = 4;
    layer.gated = true;
    layer.norm = VKMOE_NORM_SUM_PLUS_EPS;
    check_ok(vkmoe_layer_check(&layer));
    return layer;
}

// The list says where a layer `l` differs from plain_layer().
#define BAD(status, text, ...)                                                                     \
    do {                                                                                           \
        vkmoe_layer_desc layer_ = plain_layer(), *l = &layer_;                                     \
        (void) (__VA_ARGS__);                                                                      \
        check_fails(vkmoe_layer_check(l), status, text);                                           \
    } while (0)
#define GOOD(...)                                                                                  \
    do {                                                                                           \
        vkmoe_layer_desc layer_ = plain_layer(), *l = &layer_;                                     \
        (void) (__VA_ARGS__);                                                                      \
        check_ok(vkmoe_layer_check(l));                                                            \
    } while (0)

static void test_pairs_of_router(void **state)
{
    (void) state;
    const enum vkmoe_status argument = VKMOE_E_ARGUMENT, shape = VKMOE_E_SHAPE;
    BAD(argument, "layer.norm_eps = -1", l->norm_eps = -1);
    BAD(argument, "layer.prenorm_eps = -1", l->prenorm_eps = -1);
    BAD(argument, "layer.logit_softcap = -1", l->logit_softcap = -1);
    BAD(argument, "layer.sparsemixer_eps = -1", l->sparsemixer_eps = -1);
    BAD(argument, "layer.norm_p = 0: must be above 0", l->norm_p = 0);
    BAD(argument, "layer.norm_p = -2", l->norm_p = -2);
    BAD(argument, "layer.select = table: needs n_token_ids", l->select = VKMOE_SELECT_TABLE);
    BAD(argument, "layer.n_token_ids = above 0: needs select = table", l->n_token_ids = 3);
    BAD(argument, "layer.selection_bias = true: needs a select that ranks",
        l->select = VKMOE_SELECT_TABLE, l->n_token_ids = 3, l->selection_bias = true);
    BAD(argument, "layer.n_token_ids = 16777217", l->select = VKMOE_SELECT_TABLE,
        l->n_token_ids = (1u << 24) + 1);
    GOOD(l->select = VKMOE_SELECT_TABLE, l->n_token_ids = 1u << 24);
    BAD(argument, "layer.n_group = above 1: needs select = top_k",
        l->select = VKMOE_SELECT_TOP_P, l->select_p = 1, l->n_group = 2, l->topk_group = 1);
    BAD(argument, "layer.select = sparsemixer: needs selection_bias = false",
        l->select = VKMOE_SELECT_SPARSEMIXER, l->selection_bias = true);
    BAD(argument, "layer.select = sparsemixer: needs selection_bias = false and n_zero = 0",
        l->select = VKMOE_SELECT_SPARSEMIXER, l->n_zero = 1);
    BAD(argument, "layer.select_p = 0: must be above 0", l->select = VKMOE_SELECT_TOP_P);
    GOOD(l->select = VKMOE_SELECT_THRESHOLD, l->select_p = -3);

    BAD(argument, "layer.n_group = above 1: needs n_zero = 0", l->n_group = 2, l->n_zero = 1);
    BAD(shape, "layer.n_group = 3: does not divide n_experts = 8", l->n_group = 3);
    BAD(argument, "layer.topk_group = 0: must be 1 to n_group = 2", l->n_group = 2);
    BAD(argument, "layer.topk_group = 3", l->n_group = 2, l->topk_group = 3);
    BAD(shape, "layer.group_score = top2_sum: a group has 1 expert", l->n_group = 8,
        l->topk_group = 4, l->group_score = VKMOE_GROUP_TOP2_SUM);
    BAD(shape, "top_k = 4 over topk_group = 3 is no whole number up to 2", l->n_group = 4,
        l->topk_group = 3, l->group_score = VKMOE_GROUP_TOP_SHARE_SUM);
    BAD(shape, "top_k = 4 over topk_group = 1 is no whole number up to 2", l->n_group = 4,
        l->topk_group = 1, l->group_score = VKMOE_GROUP_TOP_SHARE_SUM);
    BAD(shape, "layer.top_k = 4: topk_group = 1 groups have 2 experts", l->n_group = 4,
        l->topk_group = 1);
    GOOD(l->n_group = 4, l->topk_group = 1, l->group_fill_zero = true);
}

static void test_pairs_of_experts(void **state)
{
    (void) state;
    const enum vkmoe_status argument = VKMOE_E_ARGUMENT, shape = VKMOE_E_SHAPE;
    BAD(argument, "layer.gate_bias = true: needs gated", l->gated = false, l->gate_bias = true);
    BAD(argument, "layer.up_add = not 0: needs gated", l->gated = false, l->up_add = 1);
    BAD(argument, "layer.act_out = situ", l->act_out = VKMOE_ACT_SITU, l->situ_beta = 1);
    BAD(argument, "layer.situ_beta = 0", l->act = VKMOE_ACT_SITU);
    BAD(argument, "layer.clamp = not none: needs gated", l->gated = false, l->limit = 1,
        l->clamp = VKMOE_CLAMP_BEFORE_ACT);
    BAD(argument, "layer.limit = 0", l->clamp = VKMOE_CLAMP_AFTER_ACT);
    BAD(argument, "layer.limit_shared = 0", l->clamp = VKMOE_CLAMP_AFTER_ACT, l->limit = 1,
        l->d_shared_ff = 2);
    GOOD(l->clamp = VKMOE_CLAMP_AFTER_ACT, l->limit = 1);
    BAD(argument, "layer.adjugate_group = above 0: needs d_adjugate", l->adjugate_group = 2);
    BAD(argument, "layer.adjugate_group = above 0: needs n_zero = 0", l->adjugate_group = 2,
        l->d_adjugate = 2, l->n_zero = 1);
    BAD(shape, "layer.n_zero = 1: identity experts need d_out = 3", l->n_zero = 1, l->d_out = 3);
    GOOD(l->n_zero = 1, l->d_out = 3, l->d_latent = 2);
    BAD(argument, "layer.latent_norm = true: needs d_latent", l->latent_norm = true);
    BAD(argument, "layer.latent_norm_eps = -1", l->latent_norm_eps = -1);
    BAD(argument, "layer.n_zero = 1017: must be 0 to 1016", l->n_zero = 1017);
    GOOD(l->n_zero = 1016, l->top_k = 1024);
    BAD(shape, "layer.top_k = 10: there are n_experts = 9 with the identity", l->n_zero = 1,
        l->top_k = 10);
    BAD(argument, "layer.d_latent = 16777217", l->d_latent = (1u << 24) + 1);
    BAD(argument, "layer.d_adjugate = 16777217", l->d_adjugate = (1u << 24) + 1);
}

static void test_pairs_of_sums(void **state)
{
    (void) state;
    const enum vkmoe_status argument = VKMOE_E_ARGUMENT;
    BAD(argument, "layer.shared_gate = 2: needs d_shared_ff",
        l->shared_gate = VKMOE_SHARED_SOFTMAX2);
    BAD(argument, "layer.shared_gate_bias = true: needs a shared_gate", l->d_shared_ff = 2,
        l->shared_gate_bias = true);
    GOOD(l->d_shared_ff = 2, l->shared_gate_bias = true, l->shared_gate = VKMOE_SHARED_SOFTMAX2);
    BAD(argument, "layer.capacity_renorm = true: needs a capacity_mode",
        l->capacity_renorm = true);
    BAD(argument, "layer.capacity_factor = 0", l->capacity_mode = VKMOE_CAPACITY_BY_GATE);
    BAD(argument, "layer.capacity_renorm = true: needs a norm", l->capacity_renorm = true,
        l->capacity_mode = VKMOE_CAPACITY_BY_GATE, l->capacity = 1, l->norm = VKMOE_NORM_NONE);
    GOOD(l->capacity_renorm = true, l->capacity_mode = VKMOE_CAPACITY_BY_GATE, l->capacity = 1);
}

// Fields whose gradient is not computed, one by one; and a layer with all those whose is.
static void test_gradients(void **state)
{
    (void) state;
#define NONE(field, value, text)                                                                   \
    do {                                                                                           \
        vkmoe_layer_desc layer = full_layer();                                                     \
        check_ok(moe_layer_check_gradients(&layer));                                               \
        layer.field = (value);                                                                     \
        check_fails(moe_layer_check_gradients(&layer), VKMOE_E_UNSUPPORTED,                        \
                    "layer." text ": the gradient of this is not computed");                       \
    } while (0)
    NONE(n_zero, 1, "n_zero = 1");
    NONE(d_latent, 2, "d_latent = 2");
    NONE(in_type, VKMOE_Q8_0, "in_type = 3");
    NONE(out_type, VKMOE_FP8, "out_type = 10");
    NONE(shared_in_type, VKMOE_Q4_K, "shared_in_type = 5");
    NONE(shared_out_type, VKMOE_Q4_0, "shared_out_type = 4");
    NONE(router_input, true, "router_input = true");
    NONE(router_prenorm, true, "router_prenorm = true");
    NONE(logit_softcap, 30.0f, "logit_softcap = 30");
    NONE(score, VKMOE_SCORE_NONE, "score = 4");
    NONE(rank, VKMOE_RANK_SIGMOID, "rank = 2");
    NONE(select, VKMOE_SELECT_TOP_P, "select = 3");
    NONE(n_group, 2, "n_group = 2");
    NONE(norm_p, 2.0f, "norm_p = 2");
    NONE(norm_p, 1.5f, "norm_p = 1.5");
    NONE(expert_scale, true, "expert_scale = true");
    NONE(act, VKMOE_ACT_SITU, "act = 8");
    NONE(act_out, VKMOE_ACT_SITU, "act_out = 8");
    NONE(up_add, 1.0f, "up_add = 1");
    NONE(clamp, VKMOE_CLAMP_BEFORE_ACT, "clamp = 1");
    NONE(weight_on_input, true, "weight_on_input = true");
    NONE(out_bias, true, "out_bias = true");
    NONE(adjugate_group, 2, "adjugate_group = 2");
    NONE(shared_gate, VKMOE_SHARED_SOFTMAX2, "shared_gate = 2");
    NONE(capacity_mode, VKMOE_CAPACITY_BY_GATE, "capacity_mode = 2");
    NONE(shared_gate_bias, true, "shared_gate_bias = true");
#undef NONE
}

// Do the weights of these two fit each other's plans?
static bool same(const vkmoe_layer_desc *p, const vkmoe_layer_desc *q)
{
    struct moe_layer a, b;
    check_ok(moe_layer_init(&a, p));
    check_ok(moe_layer_init(&b, q));
    assert_int_equal(moe_layer_same_weights(&a, &b), moe_layer_same_weights(&b, &a));
    return moe_layer_same_weights(&a, &b);
}

#define SAME(want, ...)                                                                            \
    do {                                                                                           \
        vkmoe_layer_desc base = plain_layer(), layer_ = base, *l = &layer_;                        \
        (void) (__VA_ARGS__);                                                                      \
        assert_int_equal(same(&base, l), want);                                                    \
    } while (0)

static void test_same_weights(void **state)
{
    (void) state;
    SAME(true, l->norm_eps = 1);
    SAME(true, l->select = VKMOE_SELECT_TOP_P, l->select_p = 1);
    SAME(true, l->latent_type = VKMOE_F16); // without a latent width
    SAME(false, l->n_zero = 1);
    SAME(false, l->select = VKMOE_SELECT_TABLE, l->n_token_ids = 5);
    SAME(false, l->router_prenorm = true, l->prenorm_const = 1);
    SAME(false, l->adjugate_group = 2, l->d_adjugate = 2);
    SAME(false, l->d_latent = 2);
    vkmoe_layer_desc a = plain_layer(), b;
    a.select = VKMOE_SELECT_TABLE;
    a.n_token_ids = 5;
    b = a;
    assert_true(same(&a, &b));
    b.top_k = 3; // a column of the table less
    assert_false(same(&a, &b));
    b = a;
    b.n_token_ids = 6;
    assert_false(same(&a, &b));
    a = b = plain_layer();
    a.d_latent = b.d_latent = 4;
    b.latent_type = VKMOE_F16;
    assert_false(same(&a, &b));
    b = a;
    b.latent_norm = true;
    assert_false(same(&a, &b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs_of_router), cmocka_unit_test(test_pairs_of_experts),
        cmocka_unit_test(test_pairs_of_sums),   cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_same_weights),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
