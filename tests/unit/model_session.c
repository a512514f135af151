// SPDX-License-Identifier: MIT
// A model of two layers with one expert each is a plain network: computed here by hand. Argument:
// the device.
#include "budget.h"
#include "check.h"
#include "model_fixture.h"
#include "scratch.h"

#include "base/bits.h"
#include "base/host.h"

#include <stdio.h>
#include <vkmoe/model.h>

static const char *device;

enum { N = 5, IN = 3, FF = 2, MID = 4, OUT = 2, N_TENSORS = 10 };

// Layer 0: relu, 3-2-4, biases. Layer 1: sigmoid with output tanh, 4-2-2, and selects 2 of 2 equal
// experts whose gate weights are renormalised, so it is one expert, too.
static const char config[] =
    "{\"task\":\"regress\",\"input\":{\"kind\":\"minmax\",\"n_features\":3},\"layers\":["
    "{\"kind\":\"moe\",\"d_in\":3,\"d_ff\":2,\"d_out\":4,\"n_experts\":1,\"top_k\":1,"
    "\"router\":{\"score\":\"softmax\",\"order\":\"score_then_topk\"},"
    "\"expert\":{\"activation\":\"relu\",\"bias\":true}},"
    "{\"kind\":\"moe\",\"d_in\":4,\"d_ff\":2,\"d_out\":2,\"n_experts\":2,\"top_k\":2,"
    "\"router\":{\"score\":\"sigmoid\",\"order\":\"score_then_topk\",\"renormalize\":true},"
    "\"expert\":{\"activation\":\"sigmoid\",\"output_activation\":\"tanh\"}}],"
    "\"head\":\"sigmoid\"}";

struct network {
    float min[IN], max[IN];
    float router0[IN], router1[2 * MID];
    float up0[FF * IN], up0_bias[FF], down0[MID * FF], down0_bias[MID];
    float up1[2 * FF * MID], down1[2 * OUT * FF]; // the same values for both experts
};

static void fill(float *out, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float) ((i * 7 + seed * 5) % 13) / 8 - 0.7f;
}

static struct network make_network(void)
{
    struct network w = {.min = {-1, 0, 2}, .max = {1, 16, 3}};
    fill(w.router0, MOE_COUNT(w.router0), 1);
    fill(w.router1, MOE_COUNT(w.router1), 2);
    fill(w.up0, MOE_COUNT(w.up0), 3);
    fill(w.up0_bias, MOE_COUNT(w.up0_bias), 4);
    fill(w.down0, MOE_COUNT(w.down0), 5);
    fill(w.down0_bias, MOE_COUNT(w.down0_bias), 6);
    fill(w.up1, FF * MID, 7);
    memcpy(w.up1 + FF * MID, w.up1, FF * MID * sizeof(float));
    fill(w.down1, OUT * FF, 8);
    memcpy(w.down1 + OUT * FF, w.down1, OUT * FF * sizeof(float));
    return w;
}

static const char *write_network(const struct network *w)
{
    const struct moe_st_source tensors[N_TENSORS] = {
        {"input.min", "F32", 1, {IN}, w->min},
        {"input.max", "F32", 1, {IN}, w->max},
        {"layers.0.router.weight", "F32", 2, {1, IN}, w->router0},
        {"layers.0.experts.up.weight", "F32", 3, {1, FF, IN}, w->up0},
        {"layers.0.experts.up.bias", "F32", 2, {1, FF}, w->up0_bias},
        {"layers.0.experts.down.weight", "F32", 3, {1, MID, FF}, w->down0},
        {"layers.0.experts.down.bias", "F32", 2, {1, MID}, w->down0_bias},
        {"layers.1.router.weight", "F32", 2, {2, MID}, w->router1},
        {"layers.1.experts.up.weight", "F32", 3, {2, FF, MID}, w->up1},
        {"layers.1.experts.down.weight", "F32", 3, {2, OUT, FF}, w->down1},
    };
    return write_model(config, tensors, N_TENSORS);
}

static double sigmoid(double v)
{
    return 1 / (1 + exp(-v));
}

// One row through both layers: mid after the first, out after the second.
static void by_hand(const struct network *w, const float *x, bool scale, double *mid, double *out)
{
    double h[FF];
    for (int f = 0; f < FF; f++) {
        h[f] = (double) w->up0_bias[f];
        for (int i = 0; i < IN; i++) {
            double v = (double) x[i];
            if (scale)
                v = (v - (double) w->min[i]) / ((double) w->max[i] - (double) w->min[i]);
            h[f] += (double) w->up0[f * IN + i] * v;
        }
        h[f] = fmax(h[f], 0);
    }
    for (int m = 0; m < MID; m++) {
        mid[m] = (double) w->down0_bias[m];
        for (int f = 0; f < FF; f++)
            mid[m] += (double) w->down0[m * FF + f] * h[f];
    }
    for (int f = 0; f < FF; f++) {
        h[f] = 0;
        for (int m = 0; m < MID; m++)
            h[f] += (double) w->up1[f * MID + m] * mid[m];
        h[f] = sigmoid(h[f]);
    }
    for (int o = 0; o < OUT; o++) {
        out[o] = 0;
        for (int f = 0; f < FF; f++)
            out[o] += (double) w->down1[o * FF + f] * h[f];
        out[o] = tanh(out[o]);
    }
}

struct objects {
    struct network network;
    vkmoe_context *context;
    vkmoe_model *model;
    vkmoe_session *session;
    float x[N * IN];
};

static void create(struct objects *o, const vkmoe_session_desc *desc)
{
    vkmoe_context_desc context = vkmoe_context_desc_init();
    context.device = device;
    context.n_threads = 2;
    o->network = make_network();
    fill(o->x, N * IN, 9);
    check_ok(vkmoe_context_create(&context, &o->context));
    check_ok(vkmoe_model_open(NULL, write_network(&o->network), &o->model));
    check_ok(vkmoe_session_create(o->context, o->model, desc, &o->session));
}

static void destroy(struct objects *o)
{
    vkmoe_session_destroy(o->session);
    vkmoe_model_destroy(o->model);
    vkmoe_context_destroy(o->context);
}

static void test_whole_model(void **state)
{
    (void) state;
    struct objects o;
    float y[N * OUT], scores[N * OUT], gates[N * 2];
    int32_t ids[N * 2];
    vkmoe_session_io io = vkmoe_session_io_init();
    create(&o, NULL);
    io.x = o.x, io.y = y, io.scores = scores, io.layer = 1, io.ids = ids, io.gates = gates;
    check_ok(vkmoe_session_run(o.session, N, &io));
    for (int row = 0; row < N; row++) {
        double mid[MID], out[OUT];
        by_hand(&o.network, o.x + row * IN, true, mid, out);
        for (int i = 0; i < OUT; i++) {
            check_near((double) y[row * OUT + i], out[i], 1e-5);
            check_near((double) scores[row * OUT + i], sigmoid(out[i]), 1e-5);
        }
        assert_int_equal(ids[row * 2] + ids[row * 2 + 1], 1);
        check_near((double) gates[row * 2] + (double) gates[row * 2 + 1], 1, 1e-6);
        assert_true(gates[row * 2] >= gates[row * 2 + 1]);
    }
    // Without y the scores are the same.
    float again[N * OUT];
    io.y = NULL, io.scores = again;
    check_ok(vkmoe_session_run(o.session, N, &io));
    assert_memory_equal(again, scores, sizeof scores);
    destroy(&o);
}

static void test_one_layer(void **state)
{
    (void) state;
    struct objects o;
    vkmoe_session_desc desc = vkmoe_session_desc_init();
    float y[N * MID];
    int32_t ids[N];
    vkmoe_session_io io = vkmoe_session_io_init();
    desc.one_layer = true;
    desc.max_rows = N;
    create(&o, &desc);
    io.x = o.x, io.y = y, io.ids = ids;
    check_ok(vkmoe_session_run(o.session, N, &io));
    for (int row = 0; row < N; row++) {
        double mid[MID], out[OUT];
        by_hand(&o.network, o.x + row * IN, false, mid, out);
        for (int i = 0; i < MID; i++)
            check_near((double) y[row * MID + i], mid[i], 1e-5);
        assert_int_equal(ids[row], 0);
    }
    check_fails(vkmoe_session_run(o.session, N + 1, &io), VKMOE_E_SHAPE, "6 rows");
    io.layer = 1;
    check_fails(vkmoe_session_run(o.session, N, &io), VKMOE_E_ARGUMENT, "runs 0..0");
    io.layer = 0, io.x = NULL;
    check_fails(vkmoe_session_run(o.session, N, &io), VKMOE_E_ARGUMENT, "x is NULL");
    check_ok(vkmoe_session_run(o.session, 0, &io));
    check_fails(vkmoe_session_run(NULL, N, &io), VKMOE_E_ARGUMENT, "session is NULL");

    vkmoe_session *none;
    desc.layer = 2;
    check_fails(vkmoe_session_create(o.context, o.model, &desc, &none), VKMOE_E_ARGUMENT,
                "layer 2 of a model with 2");
    assert_null(none);
    desc.layer = 1, desc.precision = VKMOE_PRECISION_INT8;
    check_fails(vkmoe_session_create(o.context, o.model, &desc, &none), VKMOE_E_UNSUPPORTED,
                "plan.precision = int8");
    desc.precision = VKMOE_PRECISION_HALF;
    check_ok(vkmoe_session_create(o.context, o.model, &desc, &none));
    vkmoe_session_destroy(none);
    desc.variant = "a0";
    check_fails(vkmoe_session_create(o.context, o.model, &desc, &none), VKMOE_E_UNSUPPORTED,
                "plan.variant = \"a0\": the ");
    desc.variant = NULL;
    desc.max_rows = 0;
    check_fails(vkmoe_session_create(o.context, o.model, &desc, &none), VKMOE_E_ARGUMENT,
                "max_rows");
    check_fails(vkmoe_session_create(NULL, o.model, &desc, &none), VKMOE_E_ARGUMENT, "context");
    vkmoe_session_destroy(NULL);
    destroy(&o);
}

// ---- memory that runs out --------------------------------------------------------------------

// Opens model, data and output through the host; true when all could be had.
static bool attempt(vkmoe_context *context, const char *path, const char *data_path,
                    struct budget *budget)
{
    vkmoe_host host = vkmoe_host_init();
    vkmoe_model *model = NULL;
    vkmoe_session *session = NULL;
    vkmoe_dataset *data = NULL;
    vkmoe_metrics *metrics = NULL;
    vkmoe_array_writer *writer = NULL;
    vkmoe_dataset_desc desc = vkmoe_dataset_desc_init();
    budget_host(&host, budget);
    desc.host = &host;
    desc.targets = VKMOE_TARGETS_VALUES;
    enum vkmoe_status status = vkmoe_model_open(&host, path, &model);
    if (status == VKMOE_OK)
        status = vkmoe_session_create(context, model, NULL, &session);
    if (status == VKMOE_OK)
        status = vkmoe_metrics_create(model, 1, &metrics);
    if (status == VKMOE_OK)
        status = vkmoe_dataset_open(data_path, &desc, &data);
    if (status == VKMOE_OK)
        status = vkmoe_array_create(&host, scratch_path("o.npy"), VKMOE_ARRAY_F32, 1, &writer);
    if (status != VKMOE_OK)
        assert_int_equal(status, VKMOE_E_MEMORY);
    vkmoe_array_destroy(writer);
    vkmoe_dataset_destroy(data);
    vkmoe_metrics_destroy(metrics);
    vkmoe_session_destroy(session);
    vkmoe_model_destroy(model);
    assert_int_equal(budget->live, 0);
    return status == VKMOE_OK;
}

static void test_out_of_memory(void **state)
{
    (void) state;
    struct objects o;
    create(&o, NULL);
    char path[512], data[512];
    snprintf(path, sizeof path, "%s", write_network(&o.network));
    snprintf(data, sizeof data, "%s", scratch_text("d.csv", "a,b\n1,2\n"));
    int before = scratch_count();
    long n = 0;
    for (struct budget budget = {0}; !attempt(o.context, path, data, &budget);)
        budget = (struct budget){.fail_at = ++n};
    assert_true(n >= 10);
    assert_int_equal(scratch_count(), before);
    destroy(&o);
}

int main(int argc, char **argv)
{
    device = argc > 1 ? argv[1] : "reference";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_model),
        cmocka_unit_test(test_one_layer),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown) != 0;
}
