// SPDX-License-Identifier: MIT
// Training on the CPU gives the same bits for any number of threads and for a caller's job system
// that runs tasks one by one from the last to the first. The net is large enough that every kind of
// phase is cut into tasks.
#include "cases.h"
#include "check.h"

#include <vkmoe/train.h>

#include <stdlib.h>

enum {
    N_TOKENS = 600,
    D_IN = 160,
    D_FF = 144,
    N_EXPERTS = 8,
    TOP_K = 2,
    N_CLASSES = 37,
    N_STEPS = 2,
};

static const char *isa; // the level under test
static bool few;         // settings, for an emulated processor

static void reversed_for(void *user, uint32_t n, void (*task)(void *arg, uint32_t i), void *arg)
{
    uint32_t *n_phases = user;
    ++*n_phases;
    while (n-- > 0)
        task(arg, n);
}

// norm -> noisy gated experts -> dropout -> linear, cross entropy, clipped AdamW.
static vkmoe_net *create(vkmoe_context *context)
{
    static vkmoe_net_layer layers[4];
    static vkmoe_layer_desc moe;
    static const vkmoe_net_layer *const list[] = {&layers[0], &layers[1], &layers[2], &layers[3]};
    for (uint32_t i = 0; i < 4; i++)
        layers[i] = vkmoe_net_layer_init();
    layers[0].kind = VKMOE_NET_NORM;
    moe = vkmoe_layer_desc_init();
    moe.n_experts = N_EXPERTS;
    moe.top_k = TOP_K;
    moe.d_model = moe.d_out = D_IN;
    moe.d_ff = D_FF;
    moe.act = VKMOE_ACT_SILU;
    moe.gated = moe.gate_bias = moe.up_bias = moe.down_bias = true;
    layers[1].layer = &moe;
    layers[1].residual = layers[1].noisy = true;
    layers[1].load_balance = 0.01f;
    layers[1].z_loss = 0.001f;
    layers[2].kind = VKMOE_NET_DROPOUT;
    layers[2].rate = 0.1f;
    layers[3].kind = VKMOE_NET_LINEAR;
    layers[3].d_out = N_CLASSES;
    layers[3].bias = true;

    vkmoe_net_desc desc = vkmoe_net_desc_init();
    desc.layers = list;
    desc.n_layers = 4;
    desc.d_in = D_IN;
    desc.max_tokens = N_TOKENS;
    desc.optimiser = VKMOE_OPTIMISER_ADAMW;
    desc.clip_norm = 0.5f;
    vkmoe_net *net;
    check_ok(vkmoe_net_create(context, &desc, &net));
    check_ok(vkmoe_net_init(net, 5));
    return net;
}

// What training left: all parameters one behind the other, and the losses.
struct trained {
    float *params;
    uint64_t n;
    double losses[N_STEPS];
};

static uint64_t param_size(const vkmoe_net *net, uint32_t i, vkmoe_net_param *param)
{
    check_ok(vkmoe_net_get_param(net, i, param));
    return (uint64_t) param->rows * param->width;
}

static void read_params(vkmoe_net *net, struct trained *out)
{
    vkmoe_net_param param;
    const uint32_t n_params = vkmoe_net_param_count(net);
    out->n = 0;
    for (uint32_t i = 0; i < n_params; i++)
        out->n += param_size(net, i, &param);
    out->params = malloc(out->n * sizeof *out->params);
    assert_non_null(out->params);
    float *at = out->params;
    for (uint32_t i = 0; i < n_params; i++) {
        const uint64_t n = param_size(net, i, &param);
        check_ok(vkmoe_net_read(net, VKMOE_NET_VALUE, param.name, at, n));
        at += n;
    }
}

// Returns the number of phases that a caller's job system has seen.
static uint32_t train(uint32_t n_threads, bool reversed, float rate, struct trained *out)
{
    uint32_t n_phases = 0;
    vkmoe_host host = vkmoe_host_init();
    host.user = &n_phases;
    host.parallel_for = reversed_for;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "cpu";
    desc.cpu_isa = isa;
    desc.n_threads = n_threads;
    desc.host = reversed ? &host : NULL;
    vkmoe_context *context;
    check_ok(vkmoe_context_create(&desc, &context));
    vkmoe_net *net = create(context);

    static float x[N_TOKENS * D_IN];
    static int32_t labels[N_TOKENS];
    fill_random(x, N_TOKENS * D_IN, 3);
    for (int32_t i = 0; i < N_TOKENS; i++)
        labels[i] = i * 7 % N_CLASSES;
    vkmoe_net_batch batch = vkmoe_net_batch_init();
    batch.n_tokens = batch.n_examples = N_TOKENS;
    batch.x = x;
    batch.labels = labels;
    for (uint32_t i = 0; i < N_STEPS; i++)
        check_ok(vkmoe_net_train(net, &batch, rate, &out->losses[i]));
    read_params(net, out);
    vkmoe_net_destroy(net);
    vkmoe_context_destroy(context);
    return n_phases;
}

static bool same_bits(const struct trained *a, const struct trained *b)
{
    return a->n == b->n && memcmp(a->params, b->params, a->n * sizeof *a->params) == 0 &&
           memcmp(a->losses, b->losses, sizeof a->losses) == 0;
}

static void bits_do_not_depend_on_scheduling(void **state)
{
    (void) state;
    static const struct {
        const char *name;
        uint32_t n_threads;
        bool reversed;
    } settings[] = {{"1 thread again", 1, false}, {"2 threads", 2, false}, {"3 threads", 3, false},
                    {"7 threads", 7, false},      {"reversed", 0, true}};
    struct trained all, other;
    train(1, false, 0.01f, &all);
    for (size_t i = few ? 2 : 0; i < sizeof settings / sizeof *settings; i += few ? 2 : 1) {
        uint32_t n_phases = train(settings[i].n_threads, settings[i].reversed, 0.01f, &other);
        if (!same_bits(&all, &other))
            fail_msg("%s, %s: other bits", isa, settings[i].name);
        assert_int_equal(n_phases > 40, settings[i].reversed);
        free(other.params);
    }
    train(1, false, 0.01001f, &other);
    assert_false(same_bits(&all, &other));
    free(other.params);
    free(all.params);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(bits_do_not_depend_on_scheduling)};
    isa = argc > 1 ? argv[1] : "scalar";
    few = argc > 2;
    if (!have_isa(isa))
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
