// SPDX-License-Identifier: MIT
// What vkmoe_explain counts, against numbers worked out by hand.
#include "budget.h"
#include "check.h"
#include "model_fixture.h"
#include "scratch.h"

#include "model/explain.h"

#include <stdio.h>

enum { E = 2, IN = 3 };

static const char classify_config[] =
    "{\"task\":\"classify\",\"classes\":[\"no\",\"yes\",\"maybe\"],"
    "\"input\":{\"kind\":\"none\",\"n_features\":3},"
    "\"layers\":[{\"kind\":\"moe\",\"d_in\":3,\"d_ff\":1,\"d_out\":3,\"n_experts\":2,\"top_k\":1,"
    "\"router\":{\"score\":\"softmax\",\"order\":\"score_then_topk\",\"routed_scale\":2},"
    "\"expert\":{\"activation\":\"relu\"}}],\"head\":\"softmax\"}";

static const float router[E * IN] = {1, -2, 0.5f, 0, 0.25f, -8}, ones[E * IN] = {1, 1, 1, 1, 1, 1};

static vkmoe_model *open_model(const char *config, uint64_t width, const vkmoe_host *host)
{
    vkmoe_model *model;
    const struct moe_st_source tensors[] = {
        {"layers.0.router.weight", "F32", 2, {E, IN}, router},
        {"layers.0.experts.up.weight", "F32", 3, {E, 1, IN}, ones},
        {"layers.0.experts.down.weight", "F32", 3, {E, width, 1}, ones},
    };
    check_ok(vkmoe_model_open(host, write_model(config, tensors, 3), &model));
    return model;
}

// The same model with one number as its output, and two experts a row.
static const char *regress_config(void)
{
    static char config[2048];
    snprintf(config, sizeof config, "%s",
             edited(classify_config,
                    "\"task\":\"classify\",\"classes\":[\"no\",\"yes\",\"maybe\"],",
                    "\"task\":\"regress\","));
    snprintf(config, sizeof config, "%s", edited(config, "\"d_out\":3", "\"d_out\":1"));
    snprintf(config, sizeof config, "%s", edited(config, "\"top_k\":1", "\"top_k\":2"));
    return edited(config, "\"head\":\"softmax\"", "\"head\":\"identity\"");
}

// ---- classify --------------------------------------------------------------------------------

// Six rows, one of them undecided: expert 0 has no, no, yes; expert 1 has yes, yes.
enum { N = 6 };
static const int32_t ids[N] = {0, 0, 1, 0, 1, 1}, labels[N] = {0, 0, 1, 2, 1, 1};
static const float gates[N] = {0.5f, 1.75f, 2, NAN, 1, 1};
static const int32_t ids_b[N] = {0, 0, 1, 0, 0, 1};
static const float x[N * IN] = {0, 1, 4, 2, 1, 4, 0, 1, 4, NAN, 9, 9, 2, 1, 4, 1, 1, NAN};

static vkmoe_explain *explain_rows(const vkmoe_model *model, const vkmoe_explain_desc *desc)
{
    vkmoe_explain *explain;
    vkmoe_explain_batch batch = vkmoe_explain_batch_init();
    check_ok(vkmoe_explain_create(model, desc, &explain));
    for (int i = 0; i < N; i += 2) { // in pieces
        batch.ids = ids_b + i, batch.gates = gates + i, batch.labels = labels + i;
        batch.layer_x = x + (size_t) i * IN;
        check_ok(vkmoe_explain_add(explain, 2, &batch));
    }
    check_ok(vkmoe_explain_finish(explain));
    return explain;
}

static void test_classify(void **state)
{
    (void) state;
    vkmoe_model *model = open_model(classify_config, 3, NULL);
    vkmoe_explain *explain = explain_rows(model, NULL);
    vkmoe_explain_summary s;
    vkmoe_explain_expert a, b;
    check_ok(vkmoe_explain_get(explain, &s));
    assert_int_equal(s.n_rows, 5);
    assert_int_equal(s.n_undecided, 1);
    assert_int_equal(s.n_groups, 3);
    assert_int_equal(s.n_used, 2);
    check_near(s.gate_limit, 2, 0);
    // Groups 2 no, 3 yes; slots (expert 0: 2 no, 1 yes), (expert 1: 2 yes).
    const double h = 0.4 * log2(2.5) + 0.6 * log2(5.0 / 3);
    check_near(s.group_entropy, h, 1e-14);
    const double i = 0.4 * log2(0.4 / (0.6 * 0.4)) + 0.2 * log2(0.2 / (0.6 * 0.6)) +
                     0.4 * log2(0.4 / (0.4 * 0.6));
    check_near(s.information, i, 1e-14);
    check_near(s.information_first, i, 1e-14);
    check_near(s.load_entropy, h, 1e-14);
    check_near(s.chance_first, 1.0 / (10 * log(2)), 1e-15);
    // By gate weight: expert 0: 2.25 no, 1 yes; expert 1: 3 yes. Total 6.25.
    check_near(s.information_gates,
               2.25 / 6.25 * log2(6.25 / 3.25) + 1 / 6.25 * log2(6.25 / (3.25 * 4)) +
                   3 / 6.25 * log2(6.25 / 4), 1e-14);

    check_ok(vkmoe_explain_get_expert(explain, 0, &a));
    check_ok(vkmoe_explain_get_expert(explain, 1, &b));
    assert_true(a.n_slots == 3 && a.n_first == 3 && b.n_slots == 2 && b.n_first == 2);
    check_near(a.share, 0.6, 1e-15);
    check_near(a.gate_mean, 3.25 / 3, 1e-15);
    assert_true(a.slots[0] == 2 && a.slots[1] == 1 && a.slots[2] == 0 && b.slots[1] == 2);
    check_near(a.gates[0], 2.25, 1e-15);
    check_near(0.6 * a.information + 0.4 * b.information, s.information, 1e-14);
    check_near(b.information, log2(5.0 / 3), 1e-14);
    // Bins of 0.1: 0.5, 1 and 1.75; the limit itself belongs to the last one.
    assert_true(a.histogram[5] == 1 && a.histogram[10] == 1 && a.histogram[17] == 1);
    assert_true(b.histogram[19] == 1 && b.histogram[10] == 1);
    assert_true(isnan(a.quantiles[0]));

    vkmoe_explain_group group;
    check_ok(vkmoe_explain_get_group(explain, 1, &group));
    assert_string_equal(group.name, "yes");
    assert_int_equal(group.n_rows, 3);
    assert_true(isnan(group.low));
    check_fails(vkmoe_explain_get_group(explain, 3, &group), VKMOE_E_ARGUMENT, "group 3 of 3");
    check_fails(vkmoe_explain_get_expert(explain, 2, &a), VKMOE_E_ARGUMENT, "expert 2 of 2");
    vkmoe_explain_destroy(explain);
    vkmoe_explain_destroy(NULL);
    vkmoe_model_destroy(model);
}

static void test_certain(void **state)
{
    (void) state;
    vkmoe_model *model = open_model(classify_config, 3, NULL);
    vkmoe_explain_desc desc = vkmoe_explain_desc_init();
    desc.n_certain = 2;
    vkmoe_explain *explain = explain_rows(model, &desc);
    vkmoe_explain_certain c;
    uint32_t n;
    check_ok(vkmoe_explain_get_certain(explain, 0, 0, &n, &c));
    assert_int_equal(n, 2);
    assert_true(c.row == 2 && c.label == 0 && c.gate == 1.75f && isnan(c.value));
    check_ok(vkmoe_explain_get_certain(explain, 0, 1, NULL, &c));
    assert_true(c.row == 5 && c.label == 1 && c.gate == 1);
    check_fails(vkmoe_explain_get_certain(explain, 0, 2, &n, &c), VKMOE_E_ARGUMENT, "input 2 of 2");
    vkmoe_explain_destroy(explain);

    desc.n_certain = 0;
    explain = explain_rows(model, &desc);
    check_fails(vkmoe_explain_get_certain(explain, 0, 0, &n, &c), VKMOE_E_ARGUMENT, "input 0 of 0");
    vkmoe_explain_destroy(explain);
    vkmoe_model_destroy(model);
}

// Over the decided rows feature 0 has the values 0 2 0 2 1, feature 1 is constant, feature 2 has a
// NaN.
static void test_features(void **state)
{
    (void) state;
    vkmoe_model *model = open_model(classify_config, 3, NULL);
    vkmoe_explain *explain = explain_rows(model, NULL);
    vkmoe_explain_feature f;
    check_ok(vkmoe_explain_get_feature(explain, 0, 0, &f));
    assert_int_equal(f.feature, 0);
    check_near(f.weight, 1, 0);
    check_near(f.std, sqrt(0.8), 1e-15);
    check_near(f.effect, sqrt(0.8), 1e-15);
    check_ok(vkmoe_explain_get_feature(explain, 1, 1, &f));
    assert_int_equal(f.feature, 1); // 0 * std is as weak as 0.25 * 0
    check_near(f.effect, 0, 0);
    check_ok(vkmoe_explain_get_feature(explain, 1, 2, &f));
    assert_int_equal(f.feature, 2);
    assert_true(isnan(f.effect));
    check_fails(vkmoe_explain_get_feature(explain, 1, 3, &f), VKMOE_E_ARGUMENT, "feature 3 of 3");
    vkmoe_explain_destroy(explain);

    // Without the layer's input there are none.
    vkmoe_explain_batch batch = vkmoe_explain_batch_init();
    batch.ids = ids, batch.gates = gates, batch.labels = labels;
    check_ok(vkmoe_explain_create(model, NULL, &explain));
    check_ok(vkmoe_explain_add(explain, N, &batch));
    batch.layer_x = x;
    check_fails(vkmoe_explain_add(explain, N, &batch), VKMOE_E_ARGUMENT, "all rows or for none");
    check_ok(vkmoe_explain_finish(explain));
    check_fails(vkmoe_explain_get_feature(explain, 0, 0, &f), VKMOE_E_ARGUMENT, "feature 0 of 0");
    vkmoe_explain_destroy(explain);
    vkmoe_model_destroy(model);
}

// ---- regress ---------------------------------------------------------------------------------

static void test_regress(void **state)
{
    (void) state;
    enum { ROWS = 2000 }; // more than room at first
    static int32_t two[ROWS * 2];
    static float weights[ROWS * 2], values[ROWS];
    vkmoe_model *model = open_model(regress_config(), 1, NULL);
    vkmoe_explain *explain;
    vkmoe_explain_batch batch = vkmoe_explain_batch_init();
    check_ok(vkmoe_explain_create(model, NULL, &explain));
    for (int i = 0; i < ROWS; i++) { // targets 0 .. 1999 in another order; all goes to one expert
        int value = i * 7 % ROWS;
        values[i] = (float) value;
        two[2 * i] = value >= ROWS / 2;
        two[2 * i + 1] = !two[2 * i];
        weights[2 * i] = 2;
    }
    batch.ids = two, batch.gates = weights, batch.values = values;
    check_ok(vkmoe_explain_add(explain, ROWS, &batch));
    vkmoe_explain_expert a;
    check_fails(vkmoe_explain_get_expert(explain, 0, &a), VKMOE_E_ARGUMENT, "comes first");
    check_ok(vkmoe_explain_finish(explain));
    vkmoe_explain_summary s;
    vkmoe_explain_group group;
    check_ok(vkmoe_explain_get(explain, &s));
    check_near(s.group_entropy, 2, 1e-14);
    check_near(s.information, 0, 1e-14); // both experts serve every row
    check_near(s.information_gates, 1, 1e-14);
    check_near(s.information_first, 1, 1e-14);
    check_near(s.load_entropy, 1, 1e-14);
    check_ok(vkmoe_explain_get_group(explain, 1, &group));
    assert_null(group.name);
    assert_true(group.n_rows == 500 && group.low == 500 && group.high == 999);
    check_ok(vkmoe_explain_get_expert(explain, 1, &a));
    assert_true(a.n_slots == ROWS && a.n_first == ROWS / 2);
    for (int q = 0; q < 5; q++)
        check_near(a.quantiles[q], q * 1999 / 4.0, 1e-12);
    vkmoe_explain_certain c;
    check_ok(vkmoe_explain_get_certain(explain, 0, 0, NULL, &c));
    assert_true(c.row == 1 && c.label == -1 && c.value == 0);
    vkmoe_explain_destroy(explain);

    // One target only: there is nothing to know.
    memset(values, 0, sizeof values);
    check_ok(vkmoe_explain_create(model, NULL, &explain));
    check_ok(vkmoe_explain_add(explain, ROWS, &batch));
    check_ok(vkmoe_explain_finish(explain));
    check_ok(vkmoe_explain_get(explain, &s));
    check_near(s.group_entropy, 0, 0);
    check_near(s.information_first, 0, 0);
    check_ok(vkmoe_explain_get_group(explain, 3, &group));
    assert_true(group.n_rows == 0 && isnan(group.low));
    vkmoe_explain_destroy(explain);
    vkmoe_model_destroy(model);
}

// ---- measures --------------------------------------------------------------------------------

static void test_information(void **state)
{
    (void) state;
    const double diagonal[4] = {1, 0, 0, 1}, even[4] = {3, 1, 6, 2}, negative[2] = {1, -1};
    check_near(moe_information(diagonal, 2, 2), 1, 1e-15);
    check_near(moe_information(even, 2, 2), 0, 1e-15);
    assert_true(isnan(moe_information(negative, 1, 2)));
}

// ---- bad input -------------------------------------------------------------------------------

static void test_bad(void **state)
{
    (void) state;
    vkmoe_model *model = open_model(classify_config, 3, NULL);
    vkmoe_explain *explain;
    vkmoe_explain_desc desc = vkmoe_explain_desc_init();
    vkmoe_explain_batch batch = vkmoe_explain_batch_init();
    desc.layer = 1;
    check_fails(vkmoe_explain_create(model, &desc, &explain), VKMOE_E_ARGUMENT, "layer 1");
    assert_null(explain);
    check_fails(vkmoe_explain_create(NULL, NULL, &explain), VKMOE_E_ARGUMENT, "model is NULL");
    check_ok(vkmoe_explain_create(model, NULL, &explain));
    check_fails(vkmoe_explain_finish(explain), VKMOE_E_DATA, "no row to explain: 0 rows");
    check_fails(vkmoe_explain_add(explain, 1, &batch), VKMOE_E_ARGUMENT, "ids is NULL");
    batch.ids = ids, batch.gates = gates;
    check_fails(vkmoe_explain_add(explain, 1, &batch), VKMOE_E_ARGUMENT, "labels is NULL");
    const int32_t wrong[2] = {3, -1}, none[1] = {2};
    batch.labels = wrong;
    check_fails(vkmoe_explain_add(explain, 1, &batch), VKMOE_E_ARGUMENT, "row 1: label 3 of 3");
    batch.labels = wrong + 1;
    check_fails(vkmoe_explain_add(explain, 1, &batch), VKMOE_E_ARGUMENT, "label -1");
    batch.labels = labels, batch.ids = none;
    check_fails(vkmoe_explain_add(explain, 1, &batch), VKMOE_E_ARGUMENT, "row 1: expert 2 of 2");
    check_fails(vkmoe_explain_add(NULL, 1, &batch), VKMOE_E_ARGUMENT, "explain is NULL");
    // Undecided rows alone explain nothing.
    batch.gates = gates + 3, batch.ids = ids;
    check_ok(vkmoe_explain_add(explain, 1, &batch));
    check_fails(vkmoe_explain_finish(explain), VKMOE_E_DATA, "no row to explain: 1 rows");
    batch.gates = gates;
    check_ok(vkmoe_explain_add(explain, 1, &batch));
    check_ok(vkmoe_explain_finish(explain));
    check_fails(vkmoe_explain_finish(explain), VKMOE_E_ARGUMENT, "finished");
    check_fails(vkmoe_explain_add(explain, 1, &batch), VKMOE_E_ARGUMENT, "finished");
    check_fails(vkmoe_explain_get(explain, NULL), VKMOE_E_ARGUMENT, "out is NULL");
    vkmoe_explain_destroy(explain);
    vkmoe_model_destroy(model);

    model = open_model(regress_config(), 1, NULL);
    const int32_t both[2] = {0, 1};
    const float half[2] = {1, 1}, infinite = INFINITY;
    batch = vkmoe_explain_batch_init();
    batch.ids = both, batch.gates = half;
    check_ok(vkmoe_explain_create(model, NULL, &explain));
    check_fails(vkmoe_explain_add(explain, 1, &batch), VKMOE_E_ARGUMENT, "values is NULL");
    batch.values = &infinite;
    check_fails(vkmoe_explain_add(explain, 1, &batch), VKMOE_E_DATA, "row 1: the target is inf");
    vkmoe_explain_destroy(explain);
    vkmoe_model_destroy(model);
}

// ---- memory that runs out --------------------------------------------------------------------

static bool attempt(const vkmoe_model *model, const vkmoe_explain_batch *batch)
{
    vkmoe_explain *explain;
    vkmoe_explain_summary summary;
    enum vkmoe_status status = vkmoe_explain_create(model, NULL, &explain);
    if (status == VKMOE_OK)
        status = vkmoe_explain_add(explain, 1, batch);
    if (status == VKMOE_OK)
        status = vkmoe_explain_finish(explain);
    if (status == VKMOE_OK)
        status = vkmoe_explain_get(explain, &summary);
    assert_true(status == VKMOE_OK || status == VKMOE_E_MEMORY);
    vkmoe_explain_destroy(explain);
    return status == VKMOE_OK;
}

static void test_out_of_memory(void **state)
{
    (void) state;
    const int32_t both[2] = {0, 1};
    const float half[2] = {1, 1}, value = 5;
    vkmoe_explain_batch batch = vkmoe_explain_batch_init();
    vkmoe_host host = vkmoe_host_init();
    struct budget budget = {.fail_at = -1};
    batch.ids = both, batch.gates = half, batch.values = &value, batch.layer_x = x;
    budget_host(&host, &budget);
    vkmoe_model *model = open_model(regress_config(), 1, &host);
    const long live = budget.live;
    long n = 0;
    for (bool done = false; !done; n++) {
        budget.n = 0, budget.fail_at = n;
        done = attempt(model, &batch);
        assert_int_equal(budget.live, live);
    }
    assert_true(n > 15);
    budget.fail_at = -1;
    vkmoe_model_destroy(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classify),     cmocka_unit_test(test_certain),
        cmocka_unit_test(test_features),     cmocka_unit_test(test_regress),
        cmocka_unit_test(test_information),  cmocka_unit_test(test_bad),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown) != 0;
}
