// SPDX-License-Identifier: MIT
// What a step does to each parameter: groups, decay, clipping, momentum; and what a net takes of
// memory. Gradients are written, so that the numbers can be told in advance. Argument: the device.
#include "check.h"
#include "fixture.h"
#include "net_cases.h"

static const char *device;

enum { WEIGHTS = 12, BIASES = 3 }; // of layers.2

struct scene {
    struct net_case of;
    struct net_data data;
    vkmoe_context *context;
    vkmoe_net *net;
    float weight[WEIGHTS], bias[BIASES]; // before the step
};

static void open_scene(struct scene *s)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = device;
    check_ok(vkmoe_context_create(&desc, &s->context));
    net_case_init(&s->of, net_case_find("biases"));
    net_data_init(&s->data, &s->of, 3);
}

static void create(struct scene *s)
{
    check_ok(vkmoe_net_create(s->context, &s->of.desc, &s->net));
    check_ok(vkmoe_net_init(s->net, 7));
    check_ok(vkmoe_net_read(s->net, VKMOE_NET_VALUE, "layers.2.weight", s->weight, WEIGHTS));
    check_ok(vkmoe_net_read(s->net, VKMOE_NET_VALUE, "layers.2.bias", s->bias, BIASES));
}

static void close_scene(struct scene *s)
{
    vkmoe_net_destroy(s->net);
    vkmoe_context_destroy(s->context);
}

// A step with a gradient of `slope` in every element of layers.2, and 0 elsewhere.
static void step(struct scene *s, float slope, float rate)
{
    float values[64 * NET_MAX_WIDTH];
    check_ok(vkmoe_net_forward(s->net, &s->data.batch));
    check_ok(vkmoe_net_backward(s->net, 1, NULL));
    for (uint32_t i = 0; i < vkmoe_net_param_count(s->net); i++) {
        vkmoe_net_param param;
        check_ok(vkmoe_net_get_param(s->net, i, &param));
        uint32_t n = param.rows * param.width;
        for (uint32_t j = 0; j < n; j++)
            values[j] = strstr(param.name, "layers.2") ? slope : 0;
        check_ok(vkmoe_net_write(s->net, VKMOE_NET_GRADIENT, param.name, values, n));
    }
    check_ok(vkmoe_net_step(s->net, rate));
}

// Each element became scale * before + shift, within the rounding of a few operations.
static void check_change(const struct scene *s, double weight_scale, double weight_shift,
                         double bias_scale, double bias_shift)
{
    float weight[WEIGHTS], bias[BIASES];
    check_ok(vkmoe_net_read(s->net, VKMOE_NET_VALUE, "layers.2.weight", weight, WEIGHTS));
    check_ok(vkmoe_net_read(s->net, VKMOE_NET_VALUE, "layers.2.bias", bias, BIASES));
    for (uint32_t i = 0; i < WEIGHTS; i++)
        check_near((double) weight[i], weight_scale * (double) s->weight[i] + weight_shift, 1e-6);
    for (uint32_t i = 0; i < BIASES; i++)
        check_near((double) bias[i], bias_scale * (double) s->bias[i] + bias_shift, 1e-6);
}

static void sgd(struct scene *s)
{
    open_scene(s);
    s->of.desc.optimiser = VKMOE_OPTIMISER_SGD;
    s->of.desc.decay = 0;
}

// p -= rate (g + decay p); the bias has no decay.
static void test_decay(void **state)
{
    (void) state;
    struct scene s;
    sgd(&s);
    s.of.desc.decay = 0.5f;
    create(&s);
    step(&s, 0.25f, 0.1f);
    check_change(&s, 1 - 0.1 * 0.5, -0.1 * 0.25, 1, -0.1 * 0.25);
    close_scene(&s);
}

// The first match counts, for a bias too.
static void test_groups(void **state)
{
    (void) state;
    struct scene s;
    const vkmoe_net_group groups[] = {{"2.bias", 4, 0.125f}, {"layers.2", 0, 0}, {"bias", 9, 9}};
    sgd(&s);
    s.of.desc.decay = 0.5f;
    s.of.desc.groups = groups;
    s.of.desc.n_groups = 3;
    create(&s);
    step(&s, 0.25f, 0.1f);
    check_change(&s, 1, 0, 1 - 0.4 * 0.125, -0.4 * 0.25);
    close_scene(&s);
}

// All gradients together have the norm 2 sqrt(15), and keep 1 of it.
static void test_clipping(void **state)
{
    (void) state;
    struct scene s;
    sgd(&s);
    s.of.desc.clip_norm = 1;
    create(&s);
    step(&s, 2, 1);
    check_change(&s, 1, -1 / sqrt(15), 1, -1 / sqrt(15));
    close_scene(&s);
    sgd(&s);
    s.of.desc.clip_norm = 100; // more than there is
    create(&s);
    step(&s, 2, 0.5f);
    check_change(&s, 1, -1, 1, -1);
    close_scene(&s);
}

// m = g, then momentum m + g; Nesterov goes g + momentum m.
static void test_momentum(void **state)
{
    (void) state;
    for (uint32_t nesterov = 0; nesterov < 2; nesterov++) {
        struct scene s;
        sgd(&s);
        s.of.desc.momentum = 0.5f;
        s.of.desc.nesterov = nesterov;
        create(&s);
        step(&s, 1, 0.125f);
        step(&s, 1, 0.125f);
        double way = nesterov ? (1 + 0.5) + (1 + 0.5 * 1.5) : 1 + 1.5;
        check_change(&s, 1, -0.125 * way, 1, -0.125 * way);
        close_scene(&s);
    }
}

// The first step of Adam is the rate, whatever the gradient's size; AdamW decays apart from it.
static void test_adam(void **state)
{
    (void) state;
    struct scene s;
    open_scene(&s);
    s.of.desc.decay = 0.5f;
    s.of.desc.adam_eps = 1e-12f;
    create(&s);
    step(&s, 1e-3f, 0.125f);
    check_change(&s, 1 - 0.125 * 0.5, -0.125, 1, -0.125);
    close_scene(&s);
}

// Bytes of a batch of a net of moe layers alone.
static uint64_t batch_size(struct scene *s, uint32_t n_layers, bool recompute)
{
    uint64_t persistent, batch;
    open_scene(s);
    s->of.desc.max_tokens = 1000;
    s->of.desc.n_layers = n_layers;
    for (uint32_t i = 0; i < n_layers; i++) {
        s->of.layers[i].kind = VKMOE_NET_MOE;
        s->of.moe[i].d_ff = 64;
        s->of.moe[i].gated = true;
        s->of.layers[i].recompute = recompute;
    }
    check_ok(vkmoe_net_create(s->context, &s->of.desc, &s->net));
    check_ok(vkmoe_net_get_size(s->net, &persistent, &batch));
    close_scene(s);
    return batch;
}

// A layer keeps two rows of d_ff for each slot, its gate and up; its way back takes three more: h
// and its gradient, then the gradients of gate and up beside that of h. All else is narrow: rows of
// d_model and d_out, and routing, eight rows' worth for each slot at most.
static void test_memory(void **state)
{
    (void) state;
    struct scene s;
    const uint64_t row = 2000 * 64 * sizeof(float), narrow = 2000 * 4 * sizeof(float);
    for (uint32_t n = 1; n <= NET_LAYERS; n++) {
        uint64_t kept = batch_size(&s, n, false), again = batch_size(&s, n, true);
        assert_in_range(kept, (2 * n + 3) * row, (2 * n + 3) * row + 8 * narrow);
        assert_in_range(again, 5 * row, 5 * row + 8 * narrow);
    }
}

// What is computed again has the same bits.
static void test_recompute(void **state)
{
    (void) state;
    float gradients[2][64 * NET_MAX_WIDTH];
    uint32_t n = 0;
    for (uint32_t again = 0; again < 2; again++) {
        struct scene s;
        open_scene(&s);
        net_case_init(&s.of, net_case_find("recompute"));
        s.of.layers[1].recompute = again;
        create(&s);
        check_ok(vkmoe_net_forward(s.net, &s.data.batch));
        check_ok(vkmoe_net_backward(s.net, 1, NULL));
        n = 0;
        for (uint32_t i = 0; i < vkmoe_net_param_count(s.net); i++) {
            vkmoe_net_param param;
            check_ok(vkmoe_net_get_param(s.net, i, &param));
            uint32_t size = param.rows * param.width;
            check_ok(vkmoe_net_read(s.net, VKMOE_NET_GRADIENT, param.name, gradients[again] + n,
                                    size));
            n += size;
        }
        close_scene(&s);
    }
    assert_memory_equal(gradients[0], gradients[1], n * sizeof(float));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decay),    cmocka_unit_test(test_groups),
        cmocka_unit_test(test_clipping), cmocka_unit_test(test_momentum),
        cmocka_unit_test(test_adam),     cmocka_unit_test(test_memory),
        cmocka_unit_test(test_recompute),
    };
    if (argc != 2)
        return 2;
    device = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
