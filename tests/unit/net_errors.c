// SPDX-License-Identifier: MIT
// Every wrong description, batch and call of a network is refused with a text that names it, and
// memory may run out anywhere. Argument: the device.
#include "budget.h"
#include "check.h"
#include "fixture.h"
#include "net_cases.h"

static const char *device;

// ---- descriptions ----------------------------------------------------------------------------

static vkmoe_context *context;
static struct net_case of;

// The case with one change is refused; without it it is not.
#define REFUSED(name, change, status, text)                                                        \
    do {                                                                                           \
        vkmoe_net *net_;                                                                           \
        net_case_init(&of, net_case_find(name));                                                   \
        change;                                                                                    \
        check_fails(vkmoe_net_create(context, &of.desc, &net_), status, text);                     \
        assert_null(net_);                                                                         \
    } while (0)
#define REFUSED_FIELD(name, field, value, status, text)                                            \
    REFUSED(name, of.field = (value), status, text)
#define BAD VKMOE_E_ARGUMENT

static void test_sizes(void **state)
{
    (void) state;
    context = context_on(device, NULL);
    REFUSED_FIELD("biases", desc.struct_size, 0, BAD, "vkmoe_net_desc.struct_size = 0");
    REFUSED_FIELD("biases", desc.n_layers, 0, BAD, "net.n_layers = 0");
    REFUSED_FIELD("biases", desc.layers, NULL, BAD, "layers NULL");
    REFUSED_FIELD("biases", list[1], NULL, BAD, "net.layers[1]");
    REFUSED_FIELD("biases", desc.d_in, 0, BAD, "net.d_in = 0");
    REFUSED_FIELD("biases", desc.max_tokens, 0, BAD, "net.max_tokens = 0");
    REFUSED_FIELD("biases", desc.max_tokens, INT32_MAX, VKMOE_E_SHAPE, "max_tokens = 2147483647");
    REFUSED_FIELD("biases", desc.weight_type, 3, BAD, "net.weight_type = 3: must be below 3");
    REFUSED_FIELD("pool_mean", desc.max_examples, INT32_MAX - 1, VKMOE_E_SHAPE,
                  "net.layers[1]: max_examples = 2147483646 of 2 slots");
    REFUSED_FIELD("biases", desc.input_noise, -1, BAD, "net.input_noise = -1");
    REFUSED_FIELD("biases", desc.input_noise, NAN, BAD, "net.input_noise = nan");
    REFUSED_FIELD("biases", layers[0].struct_size, 1, BAD, "vkmoe_net_layer.struct_size = 1");
    REFUSED_FIELD("biases", layers[0].kind, 9, BAD, "net.layers[0].kind = 9");
    REFUSED_FIELD("biases", layers[0].d_out, 0, BAD, "net.layers[0].d_out = 0");
    REFUSED_FIELD("biases", layers[0].act, VKMOE_ACT_SITU, BAD, "net.layers[0].act = 8");
    REFUSED_FIELD("biases", layers[0].d_out, 5, VKMOE_E_SHAPE, "net.layers[1].layer.d_model = 4");
    REFUSED_FIELD("biases", layers[2].residual, true, VKMOE_E_SHAPE,
                  "net.layers[2].residual: a width of 4 in, 3 out");
    REFUSED_FIELD("norm", layers[0].eps, -1, BAD, "net.layers[0].eps = -1");
    REFUSED_FIELD("dropout", layers[1].rate, 1, BAD, "net.layers[1].rate = 1");
    REFUSED_FIELD("pool_max", layers[1].pool, 3, BAD, "net.layers[1].pool = 3");
    REFUSED_FIELD("pool_max", layers[1].residual, true, BAD, "net.layers[1].residual");
    REFUSED_FIELD("pool_max", layers[2].kind, VKMOE_NET_POOL, BAD, "there is a pool layer before");
    REFUSED_FIELD("embed", desc.d_in, 4, VKMOE_E_SHAPE, "net.d_in = 4: 1 with embed");
    REFUSED_FIELD("embed", layers[0].n_rows, 0, BAD, "net.layers[0].n_rows = 0");
    REFUSED_FIELD("embed", desc.input_noise, 1, BAD, "net.input_noise = 1");
    REFUSED_FIELD("embed", layers[2].kind, VKMOE_NET_EMBED, BAD, "only as the first layer");
    vkmoe_context_destroy(context);
}

static void test_moe(void **state)
{
    (void) state;
    context = context_on(device, NULL);
    REFUSED_FIELD("biases", layers[1].layer, NULL, BAD, "net.layers[1].layer: is NULL");
    REFUSED_FIELD("biases", moe[1].struct_size, 3, BAD, "net.layers[1].vkmoe_layer_desc");
    REFUSED_FIELD("biases", moe[1].top_k, 5, VKMOE_E_SHAPE,
                  "net.layers[1].layer.top_k = 5: there are n_experts = 4");
    REFUSED_FIELD("biases", moe[1].expert_kind, 2, BAD, "net.layers[1].layer.expert_kind = 2");
    REFUSED_FIELD("biases", moe[1].n_group, 2, VKMOE_E_UNSUPPORTED, "net.layers[1].layer.n_group");
    REFUSED_FIELD("biases", layers[1].scorer, 6, BAD, "net.layers[1].scorer = 6");
    REFUSED_FIELD("biases", layers[1].combine, 6, BAD, "net.layers[1].combine = 6");
    REFUSED_FIELD("biases", layers[1].pairing, 3, BAD, "net.layers[1].pairing = 3");
    REFUSED_FIELD("biases", layers[1].hidden_dropout, 1, BAD, "net.layers[1].hidden_dropout = 1");
    REFUSED_FIELD("biases", layers[1].load_balance, -1, BAD, "net.layers[1].load_balance = -1");
    REFUSED_FIELD("biases", layers[1].z_loss, NAN, BAD, "net.layers[1].z_loss = nan");
    REFUSED_FIELD("biases", layers[1].bias_rate, 1, BAD, "needs layer.selection_bias");
    REFUSED_FIELD("biases", layers[1].pairing, 1, BAD, "net.layers[1]");
    REFUSED_FIELD("additive", layers[1].d_score, 0, BAD, "net.layers[1].d_score = 0");
    REFUSED_FIELD("additive", moe[1].router_bias, true, BAD, "this scorer has no bias");
    REFUSED_FIELD("kernel", layers[1].score_width, 0, BAD, "net.layers[1].score_width = 0");
    REFUSED_FIELD("share", layers[1].d_query, 0, BAD, "net.layers[1].d_query = 0");
    REFUSED_FIELD("share", moe[1].d_model, 4, VKMOE_E_SHAPE, "d_query = 2");
    REFUSED("mean", of.moe[1].top_k = 0; of.moe[1].n_experts = 1024; of.moe[1].d_ff = 1 << 22,
            VKMOE_E_SHAPE, "net.layers[1].layer.d_ff = 4194304 of n_experts = 1024: more than");
    REFUSED("share", of.moe[1].n_experts = 512;
            of.layers[1].d_query = of.moe[1].d_model = 1 << 23, VKMOE_E_SHAPE,
            "net.layers[1].d_query = 8388608 of n_experts = 512: more than");
    REFUSED("linear_experts", of.moe[1].n_experts = 1024; of.moe[1].d_out = 1 << 22,
            VKMOE_E_SHAPE, "net.layers[1].layer.d_out = 4194304 of n_experts = 1024: more than");
    REFUSED_FIELD("mean", moe[1].top_k, 2, BAD, "net.layers[1].layer.top_k = 2: without a router");
    REFUSED_FIELD("mean", layers[1].noisy, true, BAD, "net.layers[1].noisy: this combine has no");
    REFUSED_FIELD("mean", layers[1].load_balance, 1, BAD, "net.layers[1].load_balance");
    REFUSED_FIELD("mean", moe[1].router_bias, true, BAD, "net.layers[1].layer.router_bias");
    REFUSED_FIELD("linear_experts", moe[1].gated, true, BAD, "net.layers[1].layer.gated");
    REFUSED_FIELD("linear_experts", moe[1].down_bias, true, BAD, "linear experts have up_bias");
    REFUSED_FIELD("linear_experts", layers[1].hidden_dropout, 0.5f, BAD, "hidden_dropout");
    vkmoe_context_destroy(context);
}

// One expert a row whose weight is always 1: the router would never be trained.
static void test_constant_gates(void **state)
{
    (void) state;
    vkmoe_net *net;
    context = context_on(device, NULL);
    REFUSED_FIELD("top_1_balanced", layers[1].load_balance, 0, BAD,
                  "net.layers[1].layer.top_k = 1: with this gate_source every gate weight is "
                  "constant");
    REFUSED_FIELD("top_1", moe[1].norm, VKMOE_NORM_SUM_PLUS_EPS, BAD,
                  "net.layers[1].layer.top_k = 1: with this norm");
    of.layers[1].z_loss = 0.1f; // something trains it
    check_ok(vkmoe_net_create(context, &of.desc, &net));
    vkmoe_net_destroy(net);
    of.layers[1].z_loss = 0;
    of.desc.evaluation_only = true; // nobody trains
    check_ok(vkmoe_net_create(context, &of.desc, &net));
    vkmoe_net_destroy(net);
    vkmoe_context_destroy(context);
}

static void test_losses(void **state)
{
    (void) state;
    const vkmoe_net_group no_match = {NULL, 1, 0}, negative = {"a", -1, 0};
    context = context_on(device, NULL);
    REFUSED_FIELD("biases", desc.loss, 6, BAD, "net.loss = 6");
    REFUSED_FIELD("biases", desc.label_smoothing, 1.5f, BAD, "net.label_smoothing = 1.5");
    REFUSED_FIELD("weighted_classes", class_weights[1], -1, BAD, "net.class_weights[1] = -1");
    REFUSED("weighted_classes", memset(of.class_weights, 0, sizeof of.class_weights), BAD,
            "net.class_weights: all 3 are 0");
    REFUSED_FIELD("mse", desc.soft_targets, true, BAD, "net.soft_targets: of cross entropy only");
    REFUSED_FIELD("mse", desc.labels, true, BAD, "net.labels: of mixture only");
    REFUSED_FIELD("huber", desc.huber_delta, 0, BAD, "net.huber_delta = 0");
    REFUSED_FIELD("mixture_labels", desc.variance, 0, BAD, "net.variance = 0");
    REFUSED_FIELD("mixture_labels", moe[1].d_shared_ff, 2, BAD, "net.loss = mixture: layers[1]");
    REFUSED_FIELD("mixture_labels", moe[1].score, VKMOE_SCORE_NONE, BAD,
                  "layers[1].layer.score = none: gate weights may be negative");
    REFUSED_FIELD("biases", desc.loss, VKMOE_LOSS_MIXTURE, BAD, "must be a moe layer");
    REFUSED_FIELD("biases", desc.optimiser, 3, BAD, "net.optimiser = 3");
    REFUSED_FIELD("biases", desc.momentum, 1, BAD, "net.momentum = 1");
    REFUSED_FIELD("biases", desc.beta1, 1, BAD, "net.beta1 = 1");
    REFUSED_FIELD("biases", desc.beta2, -1, BAD, "net.beta2 = -1");
    REFUSED_FIELD("biases", desc.adam_eps, NAN, BAD, "net.adam_eps = nan");
    REFUSED_FIELD("biases", desc.adam_eps, 0, BAD, "net.adam_eps = 0: must be above 0");
    REFUSED_FIELD("biases", desc.decay, -1, BAD, "net.decay = -1");
    REFUSED_FIELD("biases", desc.clip_norm, -1, BAD, "net.clip_norm = -1");
    REFUSED_FIELD("biases", desc.nesterov, true, BAD, "net.nesterov: needs momentum");
    REFUSED_FIELD("biases", desc.n_groups, 1, BAD, "net.groups is NULL, n_groups = 1");
    REFUSED("biases", of.desc.groups = &no_match; of.desc.n_groups = 1, BAD,
            "net.groups[0].match is NULL");
    REFUSED("biases", of.desc.groups = &negative; of.desc.n_groups = 1, BAD,
            "net.groups[0]: rate_scale = -1");
    vkmoe_context_destroy(context);
}

// ---- batches and calls -----------------------------------------------------------------------

struct scene {
    struct net_data data;
    vkmoe_net *net;
};

static void scene_init(struct scene *s, const char *name)
{
    context = context_on(device, NULL);
    net_case_init(&of, net_case_find(name));
    net_data_init(&s->data, &of, 3);
    check_ok(vkmoe_net_create(context, &of.desc, &s->net));
}

static void scene_finish(struct scene *s)
{
    vkmoe_net_destroy(s->net);
    vkmoe_context_destroy(context);
}

#define BAD_BATCH(field, value, status, text)                                                      \
    do {                                                                                           \
        vkmoe_net_batch batch_ = s.data.batch;                                                     \
        batch_.field = (value);                                                                    \
        check_fails(vkmoe_net_forward(s.net, &batch_), status, text);                              \
        check_fails(vkmoe_net_eval(s.net, &batch_, NULL, NULL), status, text);                     \
    } while (0)

static void test_batches(void **state)
{
    (void) state;
    struct scene s;
    scene_init(&s, "biases");
    BAD_BATCH(struct_size, 0, BAD, "vkmoe_net_batch.struct_size = 0");
    BAD_BATCH(n_tokens, 0, VKMOE_E_SHAPE, "batch.n_tokens = 0: must be 1 to 6");
    BAD_BATCH(n_tokens, 7, VKMOE_E_SHAPE, "batch.n_tokens = 7: must be 1 to 6");
    BAD_BATCH(n_examples, 5, VKMOE_E_SHAPE, "batch.n_examples = 5: without a pool layer");
    BAD_BATCH(x, NULL, BAD, "batch: x is NULL");
    s.data.labels[4] = 3;
    BAD_BATCH(n_tokens, NET_TOKENS, BAD, "batch.labels[4] = 3: must be 0 to 2");
    s.data.labels[4] = -1;
    BAD_BATCH(n_tokens, NET_TOKENS, BAD, "batch.labels[4] = -1");
    scene_finish(&s);

    scene_init(&s, "pool_max");
    BAD_BATCH(n_examples, 4, VKMOE_E_SHAPE, "batch.n_examples = 4: must be 1 to 3");
    BAD_BATCH(offsets, NULL, BAD, "batch: offsets is NULL");
    s.data.offsets[2] = 1;
    BAD_BATCH(n_examples, 3, BAD, "batch.offsets[2] = 1, behind 2: must ascend");
    s.data.offsets[2] = 2, s.data.offsets[3] = 5;
    BAD_BATCH(n_examples, 3, BAD, "batch.offsets[3] = 5: the last one must be n_tokens = 6");
    s.data.offsets[0] = 1;
    BAD_BATCH(n_examples, 3, BAD, "batch.offsets[0] = 1");
    scene_finish(&s);

    scene_init(&s, "embed");
    BAD_BATCH(token_ids, NULL, BAD, "batch: token_ids is NULL");
    s.data.token_ids[2] = 5;
    BAD_BATCH(n_tokens, NET_TOKENS, BAD, "batch.token_ids[2] = 5: must be 0 to 4");
    scene_finish(&s);

    scene_init(&s, "bce");
    s.data.targets[4] = 1.5f;
    BAD_BATCH(n_tokens, NET_TOKENS, BAD, "batch.targets, example 1, output 1: 1.5");
    scene_finish(&s);
}

static void test_order(void **state)
{
    (void) state;
    struct scene s;
    double loss;
    scene_init(&s, "biases");
    vkmoe_net_batch batch = s.data.batch, no_labels = batch;
    no_labels.labels = NULL;
    check_fails(vkmoe_net_backward(s.net, 1, NULL), BAD, "the last run was no vkmoe_net_forward");
    check_fails(vkmoe_net_step(s.net, 1), BAD, "no vkmoe_net_backward since");
    check_fails(vkmoe_net_routing(s.net, 1, NULL, NULL), BAD, "the last run was no vkmoe_net_eval");
    check_ok(vkmoe_net_forward(s.net, &no_labels));
    check_fails(vkmoe_net_backward(s.net, 1, NULL), BAD, "the batch has no labels");
    check_fails(vkmoe_net_train(s.net, &no_labels, 0, NULL), BAD, "the batch has no labels");
    check_fails(vkmoe_net_eval(s.net, &no_labels, NULL, &loss), BAD, "the batch has no labels");
    check_ok(vkmoe_net_forward(s.net, &batch));
    check_ok(vkmoe_net_eval(s.net, &no_labels, NULL, NULL)); // in the same memory
    check_fails(vkmoe_net_backward(s.net, 1, NULL), BAD, "the last run was no vkmoe_net_forward");
    check_fails(vkmoe_net_routing(s.net, 0, NULL, NULL), BAD, "layer = 0: not a moe layer");
    check_fails(vkmoe_net_routing(s.net, 3, NULL, NULL), BAD, "layer = 3: not a moe layer");
    check_ok(vkmoe_net_forward(s.net, &batch));
    check_fails(vkmoe_net_backward(s.net, 0, NULL), BAD, "n_micro = 0");
    check_ok(vkmoe_net_backward(s.net, 1, NULL));
    check_fails(vkmoe_net_train(s.net, &batch, 0, NULL), BAD, "gradients of 1 batches wait");
    check_fails(vkmoe_net_step(s.net, -1), BAD, "rate = -1");
    check_fails(vkmoe_net_step(s.net, NAN), BAD, "rate = nan");
    check_ok(vkmoe_net_step(s.net, 0.1f));
    scene_finish(&s);
}

static void test_params(void **state)
{
    (void) state;
    struct scene s;
    vkmoe_net_param param;
    float data[64];
    uint64_t persistent, batch;
    scene_init(&s, "sigmoid_balance");
    const char *weight = "layers.1.router.weight", *bias = "layers.1.router.selection_bias";
    check_fails(vkmoe_net_get_param(s.net, vkmoe_net_param_count(s.net), &param), BAD,
                "the net has");
    check_fails(vkmoe_net_read(s.net, VKMOE_NET_VALUE, "no", data, 1), BAD, "no parameter 'no'");
    check_fails(vkmoe_net_read(s.net, VKMOE_NET_VALUE, weight, data, 3), VKMOE_E_SHAPE,
                "layers.1.router.weight: n = 3, it is (4, 4)");
    check_fails(vkmoe_net_write(s.net, VKMOE_NET_GRADIENT, bias, data, 4), BAD,
                "layers.1.router.selection_bias has no gradient");
    check_fails(vkmoe_net_read(s.net, (enum vkmoe_net_what) 4, weight, data, 16), BAD, "what = 4");
    check_fails(vkmoe_net_read(s.net, VKMOE_NET_VALUE, NULL, data, 1), BAD, "name is NULL");
    check_fails(vkmoe_net_init(NULL, 1), BAD, "net is NULL");
    uint64_t n = 0;
    for (uint32_t i = 0; i < vkmoe_net_param_count(s.net); i++) {
        check_ok(vkmoe_net_get_param(s.net, i, &param));
        bool is_bias = strcmp(param.name, bias) == 0;
        assert_int_equal(param.has_gradient && param.has_moment1 && param.has_moment2, !is_bias);
        n += (uint64_t) param.rows * param.width * (is_bias ? 1 : 4);
    }
    check_ok(vkmoe_net_get_size(s.net, &persistent, &batch));
    assert_int_equal(persistent, n * sizeof(float));
    assert_true(batch > 0);
    vkmoe_net_destroy(NULL);
    scene_finish(&s);
}

// ---- memory ----------------------------------------------------------------------------------

// True when all of it ran. Nothing is left over in any case.
static bool attempt(long fail_at)
{
    vkmoe_host host = vkmoe_host_init();
    struct budget budget = {.fail_at = -1};
    struct net_data data;
    vkmoe_net *net;
    double loss;
    budget_host(&host, &budget);
    vkmoe_context *on = context_on(device, &host);
    net_case_init(&of, net_case_find("shared"));
    net_data_init(&data, &of, 3);
    of.desc.weight_type = VKMOE_BF16;
    budget.n = 0;
    budget.fail_at = fail_at;
    enum vkmoe_status status = vkmoe_net_create(on, &of.desc, &net);
    assert_int_equal(status == VKMOE_OK, net != NULL);
    if (status == VKMOE_OK)
        status = vkmoe_net_init(net, 1);
    if (status == VKMOE_OK)
        status = vkmoe_net_train(net, &data.batch, 0.1f, &loss);
    if (status != VKMOE_OK)
        assert_int_equal(status, VKMOE_E_MEMORY);
    vkmoe_net_destroy(net);
    vkmoe_context_destroy(on);
    assert_int_equal(budget.live, 0);
    return status == VKMOE_OK;
}

static void test_every_allocation_may_fail(void **state)
{
    (void) state;
    long n = 0;
    while (!attempt(n))
        assert_true(++n < 10000);
    assert_true(n > 20); // there were allocations to fail
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),   cmocka_unit_test(test_moe),
        cmocka_unit_test(test_constant_gates), cmocka_unit_test(test_losses),
        cmocka_unit_test(test_batches), cmocka_unit_test(test_order),
        cmocka_unit_test(test_params),  cmocka_unit_test(test_every_allocation_may_fail),
    };
    if (argc != 2)
        return 2;
    device = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
