// SPDX-License-Identifier: MIT
// Metrics against numbers worked out by hand, and data sets of every format.
#include "check.h"
#include "model_fixture.h"
#include "scratch.h"

#include "base/host.h"

#include <stdio.h>
#include <vkmoe/model.h>

static vkmoe_model *open_edited(const char *from, const char *to)
{
    vkmoe_model *model;
    struct moe_st_source tensors[FULL_TENSORS];
    full_tensors(tensors);
    check_ok(vkmoe_model_open(NULL, write_model(edited(full_config, from, to), tensors,
                                                FULL_TENSORS), &model));
    return model;
}

// ---- metrics ---------------------------------------------------------------------------------

static void test_classify(void **state)
{
    (void) state;
    vkmoe_model *model = open_edited("softmax", "softmax");
    vkmoe_metrics *m;
    vkmoe_metrics_summary s;
    vkmoe_class_metrics c;
    // Answers: 0, 1, 1, none. Labels: 0, 1, 0, 1.
    const float y[8] = {2, 0, 0, 1, 1, 2, NAN, NAN};
    const int32_t labels[4] = {0, 1, 0, 1}, ids[4] = {1, 1, 0, 1}, bad = 2;
    check_ok(vkmoe_metrics_create(model, 0, &m));
    check_ok(vkmoe_metrics_add(m, 2, y, labels, NULL, ids));
    check_ok(vkmoe_metrics_add(m, 1, y + 4, labels + 2, NULL, ids + 2));
    check_ok(vkmoe_metrics_get(m, &s));
    assert_int_equal(s.n, 3);
    check_near(s.accuracy, 2.0 / 3, 1e-15);
    check_near(s.loss, (log1p(exp(-2)) + log1p(exp(-1)) + log1p(exp(1))) / 3, 1e-12);
    assert_true(isnan(s.rmse) && isnan(s.r2));

    check_ok(vkmoe_metrics_add(m, 1, y + 6, labels + 3, NULL, ids + 3));
    check_ok(vkmoe_metrics_get(m, &s));
    check_near(s.accuracy, 0.5, 0);
    assert_true(isnan(s.loss));
    check_ok(vkmoe_metrics_class(m, 0, &c));
    assert_int_equal(c.n, 2);
    check_near(c.precision, 1, 0);
    check_near(c.recall, 0.5, 0);
    check_near(c.f1, 2.0 / 3, 1e-15);
    check_ok(vkmoe_metrics_class(m, 1, &c));
    check_near(c.precision, 0.5, 0);
    check_near(c.recall, 0.5, 0);
    check_near(c.f1, 0.5, 0);
    assert_int_equal(vkmoe_metrics_load(m)[0], 1);
    assert_int_equal(vkmoe_metrics_load(m)[1], 3);

    check_fails(vkmoe_metrics_add(m, 1, y, &bad, NULL, ids), VKMOE_E_ARGUMENT, "label 2 of 2");
    check_fails(vkmoe_metrics_add(m, 1, y, NULL, NULL, ids), VKMOE_E_ARGUMENT, "labels is NULL");
    check_fails(vkmoe_metrics_class(m, 2, &c), VKMOE_E_ARGUMENT, "no such class");
    vkmoe_metrics *none;
    check_fails(vkmoe_metrics_create(model, 1, &none), VKMOE_E_ARGUMENT, "layer 1");
    assert_null(none);
    vkmoe_metrics_destroy(m);
    vkmoe_metrics_destroy(NULL);
    vkmoe_model_destroy(model);
}

static void test_sigmoid_loss(void **state)
{
    (void) state;
    vkmoe_model *model = open_edited("softmax", "sigmoid");
    vkmoe_metrics *m;
    vkmoe_metrics_summary s;
    const float y[2] = {2, -1};
    const int32_t label = 0;
    check_ok(vkmoe_metrics_create(model, 0, &m));
    check_ok(vkmoe_metrics_add(m, 1, y, &label, NULL, NULL));
    check_ok(vkmoe_metrics_get(m, &s));
    check_near(s.loss, (log1p(exp(-2)) + log1p(exp(-1))) / 2, 1e-12);
    assert_int_equal(vkmoe_metrics_load(m)[0], 0);
    vkmoe_metrics_destroy(m);
    vkmoe_model_destroy(model);
}

// With identity the outputs are probabilities; one of 0 costs 100, not infinitely much.
static void test_probability_loss(void **state)
{
    (void) state;
    vkmoe_model *model = open_edited("\"softmax\"", "\"identity\"");
    vkmoe_metrics *m;
    vkmoe_metrics_summary s;
    const float y[6] = {0.25f, 0.75f, 0.5f, 0.125f, 0, 1};
    const int32_t labels[3] = {0, 1, 0};
    check_ok(vkmoe_metrics_create(model, 0, &m));
    check_ok(vkmoe_metrics_add(m, 2, y, labels, NULL, NULL));
    check_ok(vkmoe_metrics_get(m, &s));
    check_near(s.loss, -(log(0.25) + log(0.125)) / 2, 1e-12);
    check_near(s.accuracy, 0, 0);
    check_ok(vkmoe_metrics_add(m, 1, y + 4, labels + 2, NULL, NULL));
    check_ok(vkmoe_metrics_get(m, &s));
    check_near(s.loss, (100 - log(0.25) - log(0.125)) / 3, 1e-12);
    vkmoe_metrics_destroy(m);
    vkmoe_model_destroy(model);
}

static void test_predict(void **state)
{
    (void) state;
    vkmoe_model *model = open_edited("softmax", "softmax");
    const float tie[2] = {1, 1}, nan_first[2] = {NAN, -5}, nan[2] = {NAN, NAN};
    const float low[2] = {-INFINITY, -INFINITY};
    assert_int_equal(vkmoe_predict_class(model, tie), 0);
    assert_int_equal(vkmoe_predict_class(model, nan_first), 1);
    assert_int_equal(vkmoe_predict_class(model, nan), -1);
    assert_int_equal(vkmoe_predict_class(model, low), 0);
    vkmoe_model_destroy(model);
}

static void test_regress(void **state)
{
    (void) state;
    char config[2048];
    snprintf(config, sizeof config, "%s",
             edited(full_config, "\"task\":\"classify\",\"classes\":[\"no\",\"yes\"],",
                    "\"task\":\"regress\","));
    struct moe_st_source tensors[FULL_TENSORS];
    full_tensors(tensors);
    vkmoe_model *model;
    vkmoe_metrics *m;
    vkmoe_metrics_summary s;
    check_ok(vkmoe_model_open(NULL, write_model(edited(config, "softmax", "identity"), tensors,
                                                FULL_TENSORS), &model));
    // Output 0: targets 1 2 3, errors 1 0 -1. Output 1: targets 1e6 + (0 2 4), errors 2 2 2.
    const float values[6] = {1, 1e6f, 2, 1e6f + 2, 3, 1e6f + 4};
    const float y[6] = {2, 1e6f + 2, 2, 1e6f + 4, 2, 1e6f + 6};
    check_ok(vkmoe_metrics_create(model, 0, &m));
    check_ok(vkmoe_metrics_add(m, 1, y, NULL, values, NULL));
    check_ok(vkmoe_metrics_add(m, 2, y + 2, NULL, values + 2, NULL));
    check_ok(vkmoe_metrics_get(m, &s));
    check_near(s.loss, 14.0 / 6, 1e-12);
    check_near(s.rmse, sqrt(14.0 / 6), 1e-12);
    check_near(s.r2, ((1 - 2.0 / 2) + (1 - 12.0 / 8)) / 2, 1e-9);
    assert_true(isnan(s.accuracy));
    vkmoe_metrics_destroy(m);

    check_ok(vkmoe_metrics_create(model, 0, &m));
    check_ok(vkmoe_metrics_add(m, 1, y, NULL, values, NULL)); // one row: targets do not vary
    check_ok(vkmoe_metrics_get(m, &s));
    assert_true(isnan(s.r2));
    vkmoe_metrics_destroy(m);
    vkmoe_model_destroy(model);
}

// ---- data sets -------------------------------------------------------------------------------

static const char *const classes[] = {"no", "yes"};

static vkmoe_dataset_desc labelled(void)
{
    vkmoe_dataset_desc desc = vkmoe_dataset_desc_init();
    desc.targets = VKMOE_TARGETS_LABELS;
    desc.classes = classes;
    desc.n_classes = 2;
    return desc;
}

// Reads two rows at a time; checks x against 1, 2, 3 ... and returns the number of rows.
static uint32_t read_all(vkmoe_dataset *data, int32_t *labels)
{
    uint32_t total = 0, n;
    do {
        float x[4];
        n = 2;
        check_ok(vkmoe_dataset_read(data, &n, x, labels ? labels + total : NULL, NULL));
        for (uint32_t i = 0; i < n * 2; i++)
            assert_true(x[i] == (float) (total * 2 + i + 1));
        total += n;
    } while (n > 0);
    return total;
}

static void write_array(const char *name, enum vkmoe_array_type type, uint32_t n_columns,
                        uint32_t n_rows, const void *rows)
{
    vkmoe_array_writer *writer;
    check_ok(vkmoe_array_create(NULL, scratch_path(name), type, n_columns, &writer));
    check_ok(vkmoe_array_append(writer, n_rows, rows));
    check_ok(vkmoe_array_finish(writer));
    check_fails(vkmoe_array_finish(writer), VKMOE_E_ARGUMENT, "finished");
    check_fails(vkmoe_array_append(writer, n_rows, rows), VKMOE_E_ARGUMENT, "finished");
    vkmoe_array_destroy(writer);
}

static void test_formats(void **state)
{
    (void) state;
    vkmoe_dataset *data;
    vkmoe_dataset_desc desc = labelled();
    vkmoe_dataset_info info;
    int32_t got[8];
    const float x[6] = {1, 2, 3, 4, 5, 6};
    const int32_t labels[3] = {1, 0, 1};
    check_ok(vkmoe_dataset_open(scratch_text("a.csv", "1,2,yes\n3,4,no\n5,6,yes\n"), &desc, &data));
    assert_int_equal(read_all(data, got), 3);
    assert_memory_equal(got, labels, sizeof labels);
    assert_null(vkmoe_dataset_feature(data, 0)); // no header
    vkmoe_dataset_destroy(data);
    desc.target = "2";
    check_ok(vkmoe_dataset_open(scratch_text("h.csv", "a,it,b\n1,yes,2\n"), &desc, &data));
    assert_int_equal(read_all(data, got), 1);
    assert_string_equal(vkmoe_dataset_feature(data, 0), "a");
    assert_string_equal(vkmoe_dataset_feature(data, 1), "b"); // the target is none
    assert_null(vkmoe_dataset_feature(data, 2));
    assert_null(vkmoe_dataset_feature(NULL, 0));
    vkmoe_dataset_destroy(data);
    desc.target = NULL;

    write_array("X.npy", VKMOE_ARRAY_F32, 2, 3, x);
    write_array("Y.npy", VKMOE_ARRAY_I32, 1, 3, labels);
    write_array("X_more.npy", VKMOE_ARRAY_F32, 2, 3, x);
    write_array("y_more.npy", VKMOE_ARRAY_I32, 1, 3, labels);
    static const char *const names[] = {"X.npy", "X_more.npy"};
    for (int i = 0; i < 2; i++) {
        uint32_t one = 1;
        float row[2];
        memset(got, 0, sizeof got);
        check_ok(vkmoe_dataset_open(scratch_path(names[i]), &desc, &data));
        check_fails(vkmoe_dataset_read(data, &one, row, NULL, NULL), VKMOE_E_ARGUMENT,
                    "opened with labels");
        assert_null(vkmoe_dataset_feature(data, 0));
        check_ok(vkmoe_dataset_get_info(data, &info));
        assert_true(info.n_rows == 3 && info.n_features == 2 && info.n_targets == 1);
        assert_int_equal(read_all(data, got), 3);
        assert_memory_equal(got, labels, sizeof labels);
        vkmoe_dataset_destroy(data);
    }

    const struct moe_st_source tensor = {"x", "F32", 2, {3, 2}, x};
    desc = vkmoe_dataset_desc_init();
    check_ok(moe_safetensors_write(moe_host_default(), scratch_path("a.safetensors"), &tensor, 1,
                                   NULL));
    check_ok(vkmoe_dataset_open(scratch_path("a.safetensors"), &desc, &data));
    assert_int_equal(read_all(data, NULL), 3);
    float row[2];
    uint32_t n = 1;
    check_fails(vkmoe_dataset_read(data, &n, row, got, NULL), VKMOE_E_ARGUMENT, "without labels");
    vkmoe_dataset_destroy(data);
    vkmoe_dataset_destroy(NULL);
}

static void test_bad_data(void **state)
{
    (void) state;
    vkmoe_dataset *data;
    vkmoe_dataset_desc desc = labelled();
    float x[8];
    int32_t labels[4];
    uint32_t n = 4;
    check_ok(vkmoe_dataset_open(scratch_text("b.csv", "1,2,yes\n3,4,maybe\n"), &desc, &data));
    check_fails(vkmoe_dataset_read(data, &n, x, labels, NULL), VKMOE_E_DATA,
                "line 2, column 3: 'maybe'");
    vkmoe_dataset_destroy(data);

    desc.n_features = 3;
    check_fails(vkmoe_dataset_open(scratch_path("b.csv"), &desc, &data), VKMOE_E_SHAPE,
                "2 features beside 1 targets, needs 3");
    desc = labelled();
    desc.target = "1,2";
    check_fails(vkmoe_dataset_open(scratch_path("b.csv"), &desc, &data), VKMOE_E_SHAPE,
                "2 targets; labels are one");
    desc.target = "1,2,3";
    check_fails(vkmoe_dataset_open(scratch_path("b.csv"), &desc, &data), VKMOE_E_SHAPE,
                "3 targets");
    desc = labelled();
    check_fails(vkmoe_dataset_open(scratch_text("c.txt", "1"), &desc, &data), VKMOE_E_DATA,
                "not named");
    check_fails(vkmoe_dataset_open(scratch_path("a.safetensors"), &desc, &data), VKMOE_E_DATA,
                "targets");

    const int32_t out_of_range[3] = {0, 1, 2};
    write_array("Xr.npy", VKMOE_ARRAY_F32, 2, 3, (const float[6]){0});
    check_fails(vkmoe_dataset_open(scratch_path("Xr.npy"), &desc, &data), VKMOE_E_IO, "Yr.npy");
    write_array("Yr.npy", VKMOE_ARRAY_I32, 1, 3, out_of_range);
    n = 4;
    check_ok(vkmoe_dataset_open(scratch_path("Xr.npy"), &desc, &data));
    check_fails(vkmoe_dataset_read(data, &n, x, labels, NULL), VKMOE_E_DATA, "row 2: class 2 of 2");
    vkmoe_dataset_destroy(data);
    desc.target = "1";
    check_fails(vkmoe_dataset_open(scratch_path("Xr.npy"), &desc, &data), VKMOE_E_ARGUMENT,
                "target '1'");
    desc.target = NULL;
    write_array("Yr.npy", VKMOE_ARRAY_I32, 1, 2, out_of_range);
    check_fails(vkmoe_dataset_open(scratch_path("Xr.npy"), &desc, &data), VKMOE_E_SHAPE, "2 rows");
    write_array("Yr.npy", VKMOE_ARRAY_F32, 1, 3, (const float[3]){0});
    check_fails(vkmoe_dataset_open(scratch_path("Xr.npy"), &desc, &data), VKMOE_E_DATA,
                "must be integers");
    write_array("r.npy", VKMOE_ARRAY_F32, 2, 3, (const float[6]){0});
    check_fails(vkmoe_dataset_open(scratch_path("r.npy"), &desc, &data), VKMOE_E_DATA,
                "begins with 'r'");
    assert_null(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classify), cmocka_unit_test(test_sigmoid_loss),
        cmocka_unit_test(test_probability_loss),
        cmocka_unit_test(test_predict),  cmocka_unit_test(test_regress),
        cmocka_unit_test(test_formats),  cmocka_unit_test(test_bad_data),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown) != 0;
}
