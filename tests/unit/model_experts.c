// SPDX-License-Identifier: MIT
// Sessions in which one expert of a layer does all the work: what they give, weighted and summed,
// is what the whole layer gives. Argument: the device.
#include "budget.h"
#include "check.h"
#include "model_fixture.h"
#include "scratch.h"

#include "base/bits.h"

#include <stdio.h>
#include <vkmoe/model.h>

static const char *device;

enum { N = 4, IN = 3, OUT = 2, N_EXPERTS = 2 };

static const float rows[N * IN] = {1, -2, 0.5f, 0, 3, -1, 0.25f, 0.5f, 2, -1, -1, -1};

static vkmoe_context *open_context(void)
{
    vkmoe_context *context;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = device;
    check_ok(vkmoe_context_create(&desc, &context));
    return context;
}

// The classifier with every part, in which both experts work on every row. A dropout layer behind
// it, which does nothing, makes it a network.
static vkmoe_model *open_model(const vkmoe_host *host, bool net)
{
    vkmoe_model *model = NULL;
    struct moe_st_source tensors[FULL_TENSORS];
    char config[4096];
    full_tensors(tensors);
    snprintf(config, sizeof config, "%s", edited(full_config, "\"top_k\":1", "\"top_k\":2"));
    if (net)
        snprintf(config, sizeof config, "%s",
                 edited(config, "\"residual\":false}",
                        "\"residual\":false},{\"kind\":\"dropout\",\"rate\":0.5}"));
    check_ok(vkmoe_model_open(host, write_model(config, tensors, FULL_TENSORS), &model));
    return model;
}

static void run(vkmoe_context *context, const vkmoe_model *model, const vkmoe_session_desc *desc,
                const vkmoe_session_io *io)
{
    vkmoe_session *session;
    check_ok(vkmoe_session_create(context, model, desc, &session));
    check_ok(vkmoe_session_run(session, N, io));
    vkmoe_session_destroy(session);
}

// y = sum_e w_e f_e + shared, with f_e from ALONE; ONE is scale f_e + shared.
static void check_sum(bool net)
{
    const double scale = 2.5; // routed_scale
    vkmoe_context *context = open_context();
    vkmoe_model *model = open_model(NULL, net);
    float y[N * OUT], one[N_EXPERTS][N * OUT], alone[N_EXPERTS][N * OUT], gates[N * N_EXPERTS];
    float layer_x[N * IN], mean[IN], std[IN];
    int32_t ids[N * N_EXPERTS], ids_one[N];
    vkmoe_session_desc desc = vkmoe_session_desc_init();
    vkmoe_session_io io = vkmoe_session_io_init();
    io.x = rows, io.y = y, io.ids = ids, io.gates = gates, io.layer_x = layer_x;
    run(context, model, &desc, &io);
    for (uint32_t e = 0; e < N_EXPERTS; e++) {
        desc.expert = e, desc.experts = VKMOE_EXPERTS_ONE;
        io.y = one[e], io.ids = ids_one, io.gates = NULL, io.layer_x = NULL;
        run(context, model, &desc, &io);
        assert_int_equal(ids_one[N - 1], 0);
        desc.experts = VKMOE_EXPERTS_ALONE;
        io.y = alone[e];
        run(context, model, &desc, &io);
        // The same, fed with what the layer was given.
        float fed[N * OUT];
        desc.one_layer = true;
        io.x = layer_x, io.y = fed;
        run(context, model, &desc, &io);
        for (int i = 0; i < N * OUT; i++)
            check_near((double) fed[i], (double) alone[e][i], 2e-6);
        desc.one_layer = false;
        io.x = rows;
    }
    double difference = 0;
    for (int i = 0; i < N * OUT; i++) {
        const int row = i / OUT;
        double sum = 0, shared = (double) one[0][i] - scale * (double) alone[0][i];
        for (int k = 0; k < N_EXPERTS; k++)
            sum += (double) gates[row * N_EXPERTS + k] *
                   (double) alone[ids[row * N_EXPERTS + k]][i];
        check_near((double) y[i], sum + shared, 2e-6);
        check_near((double) one[1][i] - scale * (double) alone[1][i], shared, 2e-6);
        difference += fabs((double) alone[0][i] - (double) alone[1][i]);
    }
    assert_true(difference > 1e-3); // a control: the experts are not the same
    struct moe_st_source tensors[FULL_TENSORS];
    full_tensors(tensors);
    memcpy(mean, tensors[0].data, sizeof mean);
    memcpy(std, tensors[1].data, sizeof std);
    for (int i = 0; i < N * IN; i++)
        check_near((double) layer_x[i], ((double) rows[i] - (double) mean[i % IN]) /
                   (double) std[i % IN], 1e-5);
    vkmoe_model_destroy(model);
    vkmoe_context_destroy(context);
}

static void test_sum(void **state)
{
    (void) state;
    check_sum(false);
    check_sum(true);
}

static void test_bad(void **state)
{
    (void) state;
    vkmoe_context *context = open_context();
    vkmoe_model *model = open_model(NULL, false);
    vkmoe_session *session;
    vkmoe_gradients *gradients;
    vkmoe_session_desc desc = vkmoe_session_desc_init();
    desc.experts = VKMOE_EXPERTS_ONE, desc.expert = 2;
    check_fails(vkmoe_session_create(context, model, &desc, &session), VKMOE_E_ARGUMENT,
                "expert 2 of a layer with 2");
    desc.expert = 0, desc.layer = 1;
    check_fails(vkmoe_session_create(context, model, &desc, &session), VKMOE_E_ARGUMENT,
                "layer 1 of a model with 1");
    desc.layer = 0, desc.experts = (enum vkmoe_experts) 3;
    check_fails(vkmoe_session_create(context, model, &desc, &session), VKMOE_E_ARGUMENT,
                "experts = 3");
    // What is given to a layer of a network is known of the first one only.
    vkmoe_model *net = open_model(NULL, true);
    float x[N * OUT];
    vkmoe_session_io io = vkmoe_session_io_init();
    io.x = rows, io.layer = 1, io.layer_x = x;
    check_ok(vkmoe_session_create(context, net, NULL, &session));
    assert_true(vkmoe_session_gives_layer_x(session, 0));
    assert_false(vkmoe_session_gives_layer_x(session, 1));
    assert_false(vkmoe_session_gives_layer_x(session, 2));
    check_fails(vkmoe_session_run(session, N, &io), VKMOE_E_UNSUPPORTED, "layer 1 is not kept");
    vkmoe_session_destroy(session);
    desc.layer = 1, desc.experts = VKMOE_EXPERTS_ONE;
    check_fails(vkmoe_session_create(context, net, &desc, &session), VKMOE_E_ARGUMENT,
                "layer 1 has no experts");
    desc.layer = 0, desc.expert = 2;
    check_fails(vkmoe_session_create(context, net, &desc, &session), VKMOE_E_ARGUMENT,
                "expert 2 of a layer with 2");
    vkmoe_model_destroy(net);
    desc.expert = 0;
    // One expert has no gradients of the layer.
    desc.experts = VKMOE_EXPERTS_ALONE, desc.one_layer = true;
    check_ok(vkmoe_session_create(context, model, &desc, &session));
    check_fails(vkmoe_gradients_create(session, scratch_path("g.safetensors"), &gradients),
                VKMOE_E_ARGUMENT, "");
    vkmoe_session_destroy(session);
    vkmoe_model_destroy(model);
    vkmoe_context_destroy(context);
}

static void check_out_of_memory(bool net)
{
    vkmoe_context *context = open_context();
    vkmoe_session_desc desc = vkmoe_session_desc_init();
    vkmoe_host host = vkmoe_host_init();
    struct budget budget = {.fail_at = -1};
    budget_host(&host, &budget);
    vkmoe_model *model = open_model(&host, net);
    const long live = budget.live;
    long n = 0;
    desc.experts = VKMOE_EXPERTS_ALONE;
    for (bool done = false; !done; n++) {
        vkmoe_session *session;
        budget.n = 0, budget.fail_at = n;
        enum vkmoe_status status = vkmoe_session_create(context, model, &desc, &session);
        done = status == VKMOE_OK;
        assert_true(done || status == VKMOE_E_MEMORY);
        vkmoe_session_destroy(session);
        assert_int_equal(budget.live, live);
    }
    assert_true(n > 4);
    vkmoe_model_destroy(model);
    vkmoe_context_destroy(context);
}

static void test_out_of_memory(void **state)
{
    (void) state;
    check_out_of_memory(false);
    check_out_of_memory(true);
}

int main(int argc, char **argv)
{
    device = argc > 1 ? argv[1] : "reference";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown) != 0;
}
