// SPDX-License-Identifier: MIT
// Losses of networks from what EVAL gives, as train.h defines them: of examples, over outputs, by
// class weights; auxiliary losses; which parameters decay. Argument: the device.
#include "check.h"
#include "fixture.h"
#include "net_cases.h"

static const char *device;
static vkmoe_context *context;

struct scene {
    struct net_case of;
    struct net_data data;
    vkmoe_net *net;
};

static void create(struct scene *s)
{
    net_data_init(&s->data, &s->of, 3);
    check_ok(vkmoe_net_create(context, &s->of.desc, &s->net));
    check_ok(vkmoe_net_init(s->net, 7));
}

static void scene_init(struct scene *s, const char *name)
{
    net_case_init(&s->of, net_case_find(name));
    create(s);
}

static void scene_finish(struct scene *s)
{
    vkmoe_net_destroy(s->net);
}

// ---- losses ----------------------------------------------------------------------------------

enum { WIDTH = 3 }; // of y

// One output's part of a loss that is a mean over outputs.
static double point(const struct scene *s, double y, double t)
{
    const double d = fabs(y - t), delta = (double) s->of.desc.huber_delta;
    switch (s->of.desc.loss) {
    case VKMOE_LOSS_BCE:
        return -t * log(y) - (1 - t) * log(1 - y);
    case VKMOE_LOSS_BCE_LOGITS:
        return -t * log(1 / (1 + exp(-y))) - (1 - t) * log(1 / (1 + exp(y)));
    case VKMOE_LOSS_MSE:
        return d * d;
    case VKMOE_LOSS_HUBER:
        return d <= delta ? d * d / 2 : delta * (d - delta / 2);
    case VKMOE_LOSS_CROSS_ENTROPY:
    case VKMOE_LOSS_MIXTURE:
        break;
    }
    return NAN;
}

static void test_means_over_outputs(void **state)
{
    (void) state;
    static const char *const names[] = {"bce", "bce_logits", "mse", "huber"};
    for (uint32_t i = 0; i < 4; i++) {
        struct scene s;
        float y[NET_TOKENS * WIDTH];
        double want = 0, eval, train;
        scene_init(&s, names[i]);
        check_ok(vkmoe_net_eval(s.net, &s.data.batch, y, &eval));
        check_ok(vkmoe_net_train(s.net, &s.data.batch, 0, &train));
        for (uint32_t j = 0; j < NET_TOKENS * WIDTH; j++)
            want += point(&s, (double) y[j], (double) s.data.targets[j]) / (NET_TOKENS * WIDTH);
        check_near(eval, want, 1e-6 * want);
        check_near(train, want, 1e-6 * want);
        scene_finish(&s);
    }
}

// sum_c v_c (t_c (1 - beta) + beta / C) -log p_c over examples, divided by the labels' weights.
static void test_class_weights(void **state)
{
    (void) state;
    struct scene s;
    float y[NET_TOKENS * WIDTH];
    double want = 0, weights = 0, loss;
    scene_init(&s, "weighted_classes");
    check_ok(vkmoe_net_eval(s.net, &s.data.batch, y, &loss));
    for (uint32_t t = 0; t < NET_TOKENS; t++) {
        const uint32_t label = (uint32_t) s.data.labels[t];
        double sum = 0;
        for (uint32_t c = 0; c < WIDTH; c++)
            sum += exp((double) y[t * WIDTH + c]);
        for (uint32_t c = 0; c < WIDTH; c++)
            want -= (double) s.of.class_weights[c] * ((c == label) * 0.875 + 0.125 / WIDTH) *
                    ((double) y[t * WIDTH + c] - log(sum));
        weights += (double) s.of.class_weights[label];
    }
    assert_true(fabs(weights - NET_TOKENS) > 0.5);
    check_near(loss, want / weights, 1e-6);
    check_ok(vkmoe_net_train(s.net, &s.data.batch, 0, &loss));
    check_near(loss, want / weights, 1e-6);
    scene_finish(&s);
}

// A batch of classes without weight: nothing to divide by, and nothing to learn.
static void test_no_weight(void **state)
{
    (void) state;
    struct scene s;
    double loss;
    net_case_init(&s.of, net_case_find("weighted_classes"));
    s.of.desc.label_smoothing = 0;
    s.of.class_weights[1] = 0;
    create(&s);
    for (uint32_t t = 0; t < NET_TOKENS; t++)
        s.data.labels[t] = 1;
    check_ok(vkmoe_net_train(s.net, &s.data.batch, 0.1f, &loss));
    assert_true(loss == 0);
    scene_finish(&s);
}

// ---- auxiliary losses ------------------------------------------------------------------------

// The case with nothing but its moe layer behind x.
static void bare_scene_init(struct scene *s, const char *name)
{
    net_case_init(&s->of, net_case_find(name));
    s->of.layers[0] = vkmoe_net_layer_init();
    s->of.layers[0].kind = VKMOE_NET_DROPOUT;
    s->of.desc.n_layers = 2;
    s->of.layers[1].noisy = false;
}

static void bare_scene_create(struct scene *s)
{
    create(s);
}

// What the batch's loss is in training beyond that of EVAL.
static double auxiliary_loss(struct scene *s)
{
    double all, own;
    check_ok(vkmoe_net_eval(s->net, &s->data.batch, NULL, &own));
    check_ok(vkmoe_net_train(s->net, &s->data.batch, 0, &all));
    check_ok(vkmoe_net_eval(s->net, &s->data.batch, NULL, NULL)); // for routing
    return all - own;
}

// |x - c_e|^2 of token t, whose centres are c.
static double distance(const struct scene *s, const float *c, uint32_t t, uint32_t e)
{
    double square = 0;
    for (uint32_t i = 0; i < NET_D_IN; i++) {
        double d = (double) s->data.x[t * NET_D_IN + i] - (double) c[e * NET_D_IN + i];
        square += d * d;
    }
    return square;
}

// Where scores are no softmax all of the distance is in the gate weight.
static void test_gates_of_kernels(void **state)
{
    (void) state;
    struct scene s;
    float c[4 * NET_D_IN], gates[NET_TOKENS * 2];
    int32_t ids[NET_TOKENS * 2];
    bare_scene_init(&s, "kernel_sigmoid");
    create(&s);
    check_ok(vkmoe_net_read(s.net, VKMOE_NET_VALUE, "layers.1.router.weight", c, 4 * NET_D_IN));
    check_ok(vkmoe_net_eval(s.net, &s.data.batch, NULL, NULL));
    check_ok(vkmoe_net_routing(s.net, 1, ids, gates));
    for (uint32_t slot = 0; slot < NET_TOKENS * 2; slot++) {
        double square = distance(&s, c, slot / 2, (uint32_t) ids[slot]);
        check_near((double) gates[slot], 1 / (1 + exp(square / (2 * 0.75 * 0.75))), 1e-6);
    }
    scene_finish(&s);
}

// mean_t (log sum_e exp(-|x - c_e|^2 / (2 width^2)))^2, all of the distance in it.
static void test_z_loss_of_kernels(void **state)
{
    (void) state;
    struct scene s;
    float c[4 * NET_D_IN];
    double want = 0;
    bare_scene_init(&s, "z_loss");
    s.of.layers[1].load_balance = 0;
    bare_scene_create(&s);
    check_ok(vkmoe_net_read(s.net, VKMOE_NET_VALUE, "layers.1.router.weight", c, 4 * NET_D_IN));
    for (uint32_t t = 0; t < NET_TOKENS; t++) {
        double sum = 0;
        for (uint32_t e = 0; e < 4; e++)
            sum += exp(-distance(&s, c, t, e) / (2 * 0.75 * 0.75));
        want += log(sum) * log(sum) / NET_TOKENS;
    }
    assert_true(want > 0.1);
    check_near(auxiliary_loss(&s), 0.25 * want, 1e-5 * want);
    scene_finish(&s);
}

// E sum_e c_e / (K T) mean_t P_te, P the softmax of the logits, c_e of the experts that serve.
static void test_load_balance(void **state)
{
    (void) state;
    struct scene s;
    float w[4 * NET_D_IN];
    int32_t ids[NET_TOKENS * 2];
    double want = 0;
    bare_scene_init(&s, "noisy");
    bare_scene_create(&s);
    check_ok(vkmoe_net_read(s.net, VKMOE_NET_VALUE, "layers.1.router.weight", w, 4 * NET_D_IN));
    for (uint32_t i = 0; i < 4 * NET_D_IN; i++)
        w[i] *= 4; // so that P is far from even
    check_ok(vkmoe_net_write(s.net, VKMOE_NET_VALUE, "layers.1.router.weight", w, 4 * NET_D_IN));
    double got = auxiliary_loss(&s);
    check_ok(vkmoe_net_routing(s.net, 1, ids, NULL));
    for (uint32_t t = 0; t < NET_TOKENS; t++) {
        double p[4] = {0}, sum = 0;
        for (uint32_t e = 0; e < 4; e++) {
            for (uint32_t i = 0; i < NET_D_IN; i++)
                p[e] += (double) s.data.x[t * NET_D_IN + i] * (double) w[e * NET_D_IN + i];
            sum += p[e] = exp(p[e]);
        }
        for (uint32_t slot = 0; slot < NET_TOKENS * 2; slot++)
            want += 4 * p[ids[slot]] / sum / (2 * NET_TOKENS) / NET_TOKENS;
    }
    check_near(got, 0.25 * want, 1e-6);
    assert_true(fabs(want - 1) > 0.01); // which even P give to any routing
    scene_finish(&s);
}

// ---- decay -----------------------------------------------------------------------------------

static bool ends_with(const char *name, const char *end)
{
    return strlen(name) >= strlen(end) && strcmp(name + strlen(name) - strlen(end), end) == 0;
}

static bool is_matrix(const char *name)
{
    static const char *const vectors[] = {".bias", ".gain", ".noise", ".vector", ".gate_vector",
                                          ".combine.weight", ".selection_bias"};
    for (uint32_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
        if (ends_with(name, vectors[i]))
            return false;
    return true;
}

// Values of a parameter become all 1, its gradients 0.
static void set_ones(const struct scene *s, const vkmoe_net_param *param)
{
    float data[64 * NET_MAX_WIDTH] = {0};
    const uint32_t n = param->rows * param->width;
    if (param->has_gradient)
        check_ok(vkmoe_net_write(s->net, VKMOE_NET_GRADIENT, param->name, data, n));
    for (uint32_t i = 0; i < n; i++)
        data[i] = 1;
    check_ok(vkmoe_net_write(s->net, VKMOE_NET_VALUE, param->name, data, n));
}

// A step without gradients shrinks matrices and nothing else, in every case.
static void test_what_decays(void **state)
{
    (void) state;
    float data[64 * NET_MAX_WIDTH];
    vkmoe_net_param param;
    for (uint32_t k = 0; k < net_case_count(); k++) {
        struct scene s;
        net_case_init(&s.of, k);
        s.of.desc.decay = 0.5f;
        s.of.layers[1].bias_rate = 0;
        create(&s);
        check_ok(vkmoe_net_forward(s.net, &s.data.batch));
        check_ok(vkmoe_net_backward(s.net, 1, NULL));
        for (uint32_t i = 0; i < vkmoe_net_param_count(s.net); i++) {
            check_ok(vkmoe_net_get_param(s.net, i, &param));
            set_ones(&s, &param);
        }
        check_ok(vkmoe_net_step(s.net, 0.5f));
        for (uint32_t i = 0; i < vkmoe_net_param_count(s.net); i++) {
            check_ok(vkmoe_net_get_param(s.net, i, &param));
            check_ok(vkmoe_net_read(s.net, VKMOE_NET_VALUE, param.name, data,
                                    param.rows * param.width));
            if (data[0] != (is_matrix(param.name) ? 0.75f : 1.0f))
                fail_msg("%s: %s: %g", s.of.name, param.name, (double) data[0]);
        }
        scene_finish(&s);
    }
}

static int open_context(void **state)
{
    (void) state;
    context = context_on(device, NULL);
    return 0;
}

static int close_context(void **state)
{
    (void) state;
    vkmoe_context_destroy(context);
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_means_over_outputs), cmocka_unit_test(test_class_weights),
        cmocka_unit_test(test_no_weight),          cmocka_unit_test(test_z_loss_of_kernels),
        cmocka_unit_test(test_gates_of_kernels),   cmocka_unit_test(test_load_balance),
        cmocka_unit_test(test_what_decays),
    };
    if (argc != 2)
        return 2;
    device = argv[1];
    return cmocka_run_group_tests(tests, open_context, close_context) != 0;
}
