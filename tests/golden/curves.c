// SPDX-License-Identifier: MIT
// Loss curves against PyTorch's, from the same start on the same batches: curves DEVICE FILE, the
// file being what curves.py writes. Every loss of 50 steps has to agree to 1e-5, relative; with a
// rate that is 1 % higher they must not.
#include "unit/check.h"

#include "model/safetensors.h"

#include "base/host.h"
#include <math.h>
#include <string.h>
#include <vkmoe/train.h>

enum { N_BATCHES = 8, N_ROWS = 32, N_STEPS = 50, D = 16, N_CLASSES = 10 };
static const float rate = 3e-3f;
static const double max_error = 1e-5;

static const char *device, *path;
static struct moe_safetensors file;
static vkmoe_context *context;

// n numbers of 4 bytes.
static void read_stored(const char *name, const char *part, uint64_t n, void *out)
{
    char full[128];
    snprintf(full, sizeof full, "%s.%s", name, part);
    const struct moe_st_tensor *tensor = moe_safetensors_find(&file, full);
    if (!tensor || tensor->n_elements != n)
        fail_msg("%s: not of %llu elements", full, (unsigned long long) n);
    check_ok(moe_safetensors_read(&file, tensor, 0, (size_t) n * 4, out));
}

// The nets, as curves.py has them.

static vkmoe_net *make_net(const vkmoe_net_layer *const *layers, uint32_t n_layers,
                           vkmoe_net_desc *desc)
{
    vkmoe_net *net;
    desc->layers = layers;
    desc->n_layers = n_layers;
    desc->d_in = D;
    desc->max_tokens = N_ROWS;
    desc->decay = 0.01f;
    check_ok(vkmoe_net_create(context, desc, &net));
    return net;
}

static vkmoe_net *make_dense(void)
{
    vkmoe_layer_desc moe = vkmoe_layer_desc_init();
    moe.n_experts = moe.top_k = 4;
    moe.d_model = D;
    moe.d_ff = 32;
    moe.d_out = N_CLASSES;
    moe.act = VKMOE_ACT_GELU_ERF;
    moe.router_bias = moe.up_bias = moe.down_bias = true;
    vkmoe_net_layer layer = vkmoe_net_layer_init();
    layer.layer = &moe;
    const vkmoe_net_layer *layers[] = {&layer};
    vkmoe_net_desc desc = vkmoe_net_desc_init();
    desc.label_smoothing = 0.1f;
    desc.optimiser = VKMOE_OPTIMISER_ADAM;
    return make_net(layers, 1, &desc);
}

static vkmoe_net *make_top2(void)
{
    vkmoe_layer_desc moe = vkmoe_layer_desc_init();
    moe.n_experts = 8;
    moe.top_k = 2;
    moe.d_model = D;
    moe.d_ff = 24;
    moe.gated = true;
    moe.act = VKMOE_ACT_SILU;
    moe.norm = VKMOE_NORM_SUM_PLUS_EPS;
    moe.gate_bias = moe.up_bias = moe.down_bias = true;
    vkmoe_net_layer experts = vkmoe_net_layer_init(), norm = experts, linear = experts;
    experts.layer = &moe;
    experts.residual = true;
    experts.load_balance = 0.05f;
    experts.z_loss = 0.01f;
    norm.kind = VKMOE_NET_NORM;
    norm.bias = true;
    linear.kind = VKMOE_NET_LINEAR;
    linear.d_out = N_CLASSES;
    linear.bias = true;
    const vkmoe_net_layer *layers[] = {&experts, &norm, &linear};
    vkmoe_net_desc desc = vkmoe_net_desc_init();
    desc.optimiser = VKMOE_OPTIMISER_ADAMW;
    desc.clip_norm = 1.0f;
    return make_net(layers, 3, &desc);
}

static void set_start(vkmoe_net *net, const char *name)
{
    float data[8 * 24 * D];
    char part[128];
    for (uint32_t i = 0; i < vkmoe_net_param_count(net); i++) {
        vkmoe_net_param param;
        check_ok(vkmoe_net_get_param(net, i, &param));
        uint64_t n = (uint64_t) param.rows * param.width;
        assert_true(n <= sizeof data / sizeof *data);
        snprintf(part, sizeof part, "start.%s", param.name);
        read_stored(name, part, n, data);
        check_ok(vkmoe_net_write(net, VKMOE_NET_VALUE, param.name, data, n));
    }
}

// Trains; the largest relative error of a loss.
static double train(vkmoe_net *net, const char *name, float with_rate)
{
    static float x[N_BATCHES * N_ROWS * D], losses[N_STEPS];
    static int32_t labels[N_BATCHES * N_ROWS];
    double most = 0;
    read_stored(name, "x", N_BATCHES * N_ROWS * D, x);
    read_stored(name, "labels", N_BATCHES * N_ROWS, labels);
    read_stored(name, "losses", N_STEPS, losses);
    set_start(net, name);
    for (uint32_t step = 0; step < N_STEPS; step++) {
        vkmoe_net_batch batch = vkmoe_net_batch_init();
        double loss;
        batch.n_tokens = batch.n_examples = N_ROWS;
        batch.x = x + step % N_BATCHES * N_ROWS * D;
        batch.labels = labels + step % N_BATCHES * N_ROWS;
        check_ok(vkmoe_net_train(net, &batch, with_rate, &loss));
        double error = fabs(loss - (double) losses[step]) / (double) losses[step];
        if (!(error <= most))
            most = error;
    }
    vkmoe_net_destroy(net);
    return most;
}

static void check_curve(const char *name, vkmoe_net *(*make)(void))
{
    double error = train(make(), name, rate), control = train(make(), name, 1.01f * rate);
    print_message("%s on %s: %.2g from PyTorch's losses, %.2g with another rate\n", name, device,
                  error, control);
    assert_true(error <= max_error);
    assert_true(control > max_error);
}

static void test_dense(void **state)
{
    (void) state;
    check_curve("dense", make_dense);
}

static void test_top2(void **state)
{
    (void) state;
    check_curve("top2", make_top2);
}

static int setup(void **state)
{
    (void) state;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = device;
    check_ok(vkmoe_context_create(&desc, &context));
    check_ok(moe_safetensors_open(moe_host_default(), path, &file));
    return 0;
}

static int teardown(void **state)
{
    (void) state;
    moe_safetensors_close(&file);
    vkmoe_context_destroy(context);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: curves DEVICE FILE\n");
        return 2;
    }
    device = argv[1];
    path = argv[2];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense),
        cmocka_unit_test(test_top2),
    };
    return cmocka_run_group_tests(tests, setup, teardown) != 0;
}
