// SPDX-License-Identifier: MIT
// Gradients of a layer of a model: what the file holds, rows in batches, and every way to fail.
// What the gradients are is tested in ref_backward.c, and from outside in tests/cli/run.py.
// Argument: the device.
#include "check.h"
#include "model_fixture.h"
#include "scratch.h"

#include "base/bits.h"
#include "base/host.h"

#include <vkmoe/model.h>

enum { N = 5, IN = 3, OUT = 2 };

struct objects {
    vkmoe_context *context;
    vkmoe_model *model;
    vkmoe_session *session;
    float x[N * IN], dy[N * OUT];
};

static const char *device;

static void create(struct objects *o, bool one_layer)
{
    struct moe_st_source tensors[FULL_TENSORS];
    vkmoe_context_desc context = vkmoe_context_desc_init();
    vkmoe_session_desc session = vkmoe_session_desc_init();
    context.device = device;
    session.one_layer = one_layer;
    session.max_rows = N;
    full_tensors(tensors);
    for (int i = 0; i < N * IN; i++)
        o->x[i] = (float) (i * 5 % 11) / 8 - 0.7f;
    for (int i = 0; i < N * OUT; i++)
        o->dy[i] = (float) (i * 3 % 7) / 4 - 0.8f;
    check_ok(vkmoe_context_create(&context, &o->context));
    check_ok(vkmoe_model_open(NULL, write_model(full_config, tensors, FULL_TENSORS), &o->model));
    check_ok(vkmoe_session_create(o->context, o->model, &session, &o->session));
}

static void destroy(struct objects *o)
{
    vkmoe_session_destroy(o->session);
    vkmoe_model_destroy(o->model);
    vkmoe_context_destroy(o->context);
}

// Writes the gradients of all rows, `batch` at a time.
static const char *write_gradients(struct objects *o, const char *name, uint32_t batch)
{
    const char *path = scratch_path(name);
    vkmoe_gradients *g;
    vkmoe_io io = vkmoe_io_init();
    check_ok(vkmoe_gradients_create(o->session, path, &g));
    for (uint32_t row = 0; row < N; row += batch) {
        io.x = o->x + (size_t) row * IN;
        check_ok(vkmoe_gradients_add(g, (uint32_t) moe_min(batch, N - row), &io,
                                     o->dy + (size_t) row * OUT));
    }
    check_ok(vkmoe_gradients_add(g, 0, &io, NULL));
    check_ok(vkmoe_gradients_finish(g));
    check_fails(vkmoe_gradients_finish(g), VKMOE_E_ARGUMENT, "they are finished");
    check_fails(vkmoe_gradients_add(g, 1, &io, o->dy), VKMOE_E_ARGUMENT, "they are finished");
    vkmoe_gradients_destroy(g);
    return path;
}

// Every tensor of the layer's part of the model file, in its shape, and x; in any batches the same
// values, but for the rounding of sums.
static void test_file(void **state)
{
    (void) state;
    struct objects o;
    struct moe_st_source sources[FULL_TENSORS];
    struct moe_safetensors whole, parts;
    create(&o, true);
    full_tensors(sources);
    check_ok(moe_safetensors_open(moe_host_default(), write_gradients(&o, "a", N), &whole));
    check_ok(moe_safetensors_open(moe_host_default(), write_gradients(&o, "b", 2), &parts));
    assert_int_equal(whole.n_tensors, FULL_TENSORS - 3 + 1); // no input, no selection bias; x
    assert_null(moe_safetensors_find(&whole, "router.selection_bias"));
    const struct moe_st_tensor *x = moe_safetensors_find(&whole, "x");
    assert_true(x && x->n_dims == 2 && x->dims[0] == N && x->dims[1] == IN);
    for (size_t i = 0; i < whole.n_tensors; i++) {
        const struct moe_st_tensor *a = &whole.tensors[i], *b = &parts.tensors[i];
        assert_string_equal(a->name, b->name);
        double sum = 0;
        for (uint64_t j = 0; j < a->n_elements; j++) {
            float p, q;
            check_ok(moe_safetensors_read_f32(&whole, a, j, 1, &p));
            check_ok(moe_safetensors_read_f32(&parts, b, j, 1, &q));
            check_near((double) p, (double) q, 1e-5);
            sum += fabs((double) p);
        }
        assert_true(sum > 0);
    }
    for (int i = 3; i < FULL_TENSORS; i++) {
        const char *name = sources[i].name + strlen("layers.0.");
        const struct moe_st_tensor *got = moe_safetensors_find(&whole, name);
        if (strcmp(name, "router.selection_bias") == 0)
            continue;
        if (!got || got->n_dims != sources[i].n_dims ||
            memcmp(got->dims, sources[i].dims, got->n_dims * sizeof *got->dims) != 0)
            fail_msg("%s is missing or of another shape", name);
    }
    moe_safetensors_close(&whole);
    moe_safetensors_close(&parts);
    destroy(&o);
}

static void test_failures(void **state)
{
    (void) state;
    struct objects o;
    vkmoe_gradients *g;
    vkmoe_io io = vkmoe_io_init();
    create(&o, true);
    int n_files = scratch_count();
    const char *path = scratch_path("c");
    check_fails(vkmoe_gradients_create(NULL, path, &g), VKMOE_E_ARGUMENT, "session is NULL");
    check_fails(vkmoe_gradients_create(o.session, NULL, &g), VKMOE_E_ARGUMENT, "path is NULL");
    check_fails(vkmoe_gradients_create(o.session, path, NULL), VKMOE_E_ARGUMENT, "out is NULL");
    check_fails(vkmoe_gradients_create(o.session, scratch_path("no/c"), &g), VKMOE_E_IO, "no/c");
    assert_null(g);
    const vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    check_fails(vkmoe_gradients_create_bound(NULL, NULL, &layer, path, &g), VKMOE_E_ARGUMENT,
                "bind is NULL");
    check_fails(vkmoe_gradients_add(NULL, 1, &io, o.dy), VKMOE_E_ARGUMENT, "gradients is NULL");
    check_fails(vkmoe_gradients_finish(NULL), VKMOE_E_ARGUMENT, "gradients is NULL");
    vkmoe_gradients_destroy(NULL);

    check_ok(vkmoe_gradients_create(o.session, path, &g));
    check_fails(vkmoe_gradients_add(g, 1, NULL, o.dy), VKMOE_E_ARGUMENT, "io is NULL");
    check_fails(vkmoe_gradients_add(g, 1, &io, o.dy), VKMOE_E_ARGUMENT, "io->x is NULL");
    io.x = o.x;
    check_fails(vkmoe_gradients_add(g, 1, &io, NULL), VKMOE_E_ARGUMENT, "dy is NULL");
    check_fails(vkmoe_gradients_add(g, N + 1, &io, o.dy), VKMOE_E_SHAPE, "n_tokens = 6");
    check_ok(vkmoe_gradients_add(g, N, &io, o.dy));
    vkmoe_gradients_destroy(g); // not finished: nothing is left
    assert_int_equal(scratch_count(), n_files);
    destroy(&o);

    create(&o, false);
    check_fails(vkmoe_gradients_create(o.session, path, &g), VKMOE_E_ARGUMENT, "one_layer");
    assert_null(g);
    assert_int_equal(scratch_count(), n_files);
    destroy(&o);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file),
        cmocka_unit_test(test_failures),
    };
    if (argc != 2)
        return 2;
    device = argv[1];
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown) != 0;
}
