// SPDX-License-Identifier: MIT
// Our own model files as checkpoints: the same layer, values and outputs as a session gives.
#include "check.h"
#include "fixture.h"
#include "model_fixture.h"
#include "scratch.h"

#include "base/bits.h"

#include <vkmoe/checkpoint.h>
#include <vkmoe/model.h>

enum { N = 4, D_IN = 3, D_OUT = 2 };

static const char *write_full(void)
{
    struct moe_st_source tensors[FULL_TENSORS];
    full_tensors(tensors);
    return write_model(full_config, tensors, FULL_TENSORS);
}

static void run_session(vkmoe_context *context, const char *path, const float *x, float *y)
{
    vkmoe_model *model;
    vkmoe_session *session;
    vkmoe_session_desc desc = vkmoe_session_desc_init();
    vkmoe_session_io io = vkmoe_session_io_init();
    desc.one_layer = true;
    desc.max_rows = N;
    check_ok(vkmoe_model_open(NULL, path, &model));
    check_ok(vkmoe_session_create(context, model, &desc, &session));
    io.x = x;
    io.y = y;
    check_ok(vkmoe_session_run(session, N, &io));
    vkmoe_session_destroy(session);
    vkmoe_model_destroy(model);
}

static void run_layer(vkmoe_context *context, const vkmoe_layer_desc *layer,
                      vkmoe_weights *weights, const float *x, float *y)
{
    vkmoe_plan *plan;
    vkmoe_bind *bind;
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    vkmoe_io io = vkmoe_io_init();
    desc.layer = layer;
    desc.max_tokens = N;
    check_ok(vkmoe_plan_create(context, &desc, &plan));
    check_ok(vkmoe_bind_create(plan, weights, NULL, &bind));
    io.x = x;
    io.y = y;
    check_ok(vkmoe_run(bind, N, &io));
    vkmoe_bind_destroy(bind);
    vkmoe_plan_destroy(plan);
}

static void test_same(void **state)
{
    const char *path = write_full();
    vkmoe_context *context = context_on("reference", NULL);
    vkmoe_checkpoint *checkpoint;
    vkmoe_checkpoint_info info;
    vkmoe_layer_desc layer;
    vkmoe_weights *weights;
    float x[N * D_IN], y[N * D_OUT], other[N * D_OUT];
    (void) state;
    fill_random(x, MOE_COUNT(x), 5);
    check_ok(vkmoe_checkpoint_open(path, NULL, &checkpoint));
    check_ok(vkmoe_checkpoint_get_info(checkpoint, &info));
    assert_int_equal(info.kind, VKMOE_CHECKPOINT_MODEL);
    assert_string_equal(info.family, "vkmoe-model/1");
    assert_int_equal(info.n_layers, 1);
    check_ok(vkmoe_checkpoint_load(checkpoint, context, 0, NULL, &layer, &weights, NULL));
    run_layer(context, &layer, weights, x, y);
    run_session(context, path, x, other);
    assert_memory_equal(y, other, sizeof y);
    x[0] += 1;
    run_layer(context, &layer, weights, x, other);
    assert_memory_not_equal(y, other, sizeof y);
    vkmoe_weights_destroy(weights);
    vkmoe_checkpoint_destroy(checkpoint);
    vkmoe_context_destroy(context);
}

static void test_values(void **state)
{
    struct moe_st_source tensors[FULL_TENSORS];
    vkmoe_checkpoint *checkpoint;
    vkmoe_checkpoint_part part;
    const float *up = NULL;
    float row[8];
    (void) state;
    full_tensors(tensors);
    for (int i = 0; i < FULL_TENSORS; i++) {
        if (strcmp(tensors[i].name, "layers.0.experts.up.weight") == 0)
            up = tensors[i].data;
    }
    check_ok(vkmoe_checkpoint_open(write_full(), NULL, &checkpoint));
    check_ok(vkmoe_checkpoint_get_part(checkpoint, 0, VKMOE_PART_UP, &part));
    assert_true(up && part.n == 2 && part.n_rows == 4 && part.n_columns == D_IN);
    check_ok(vkmoe_checkpoint_read(checkpoint, 0, VKMOE_PART_UP, 1, 2, 1, row));
    assert_memory_equal(row, up + (4 + 2) * D_IN, D_IN * sizeof *row);
    vkmoe_checkpoint_destroy(checkpoint);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_values),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
