// SPDX-License-Identifier: MIT
// Whole networks on a device against the oracle: y, loss and every gradient of one pass, for every
// option of a layer and a loss. Each op is within some 1e-6 of the norm of its result (net_ops),
// and a network here is a chain of at most a hundred; so 1e-4 of a tensor's norm.
//
// Arguments: device [mode]; of Vulkan, words of bda, descriptors, floor, and validation, whose
// messages then fail.
#include "check.h"
#include "net_cases.h"

#include <vkmoe/vkmoe.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { MAX_PARAMS = 64 };

static const char *device, *mode;

// What a device makes of a case.
struct outcome {
    double loss;
    float y[NET_TOKENS * NET_MAX_WIDTH];
    struct {
        char name[96];
        uint32_t n;
        float *data;
    } grads[MAX_PARAMS];
    uint32_t n_grads;
};

static void read_grads(vkmoe_net *net, struct outcome *out)
{
    for (uint32_t i = 0; i < vkmoe_net_param_count(net); i++) {
        vkmoe_net_param param;
        check_ok(vkmoe_net_get_param(net, i, &param));
        if (!param.has_gradient)
            continue;
        assert_true(out->n_grads < MAX_PARAMS);
        uint32_t n = param.rows * param.width, at = out->n_grads++;
        snprintf(out->grads[at].name, sizeof out->grads[at].name, "%s", param.name);
        out->grads[at].n = n;
        out->grads[at].data = calloc(n, sizeof(float));
        assert_non_null(out->grads[at].data);
        check_ok(vkmoe_net_read(net, VKMOE_NET_GRADIENT, param.name, out->grads[at].data, n));
    }
}

static void compute(vkmoe_context *context, uint32_t i, struct outcome *out)
{
    struct net_case of;
    struct net_data data;
    vkmoe_net *net;
    net_case_init(&of, i);
    net_data_init(&data, &of, 6);
    memset(out, 0, sizeof *out);
    check_ok(vkmoe_net_create(context, &of.desc, &net));
    check_ok(vkmoe_net_init(net, 21));
    for (int pass = 0; pass < 2; pass++) { // gradients add up
        check_ok(vkmoe_net_forward(net, &data.batch));
        check_ok(vkmoe_net_backward(net, 2, &out->loss));
    }
    read_grads(net, out);
    check_ok(vkmoe_net_eval(net, &data.batch, out->y, NULL));
    vkmoe_net_destroy(net);
}

static void outcome_finish(struct outcome *out)
{
    for (uint32_t i = 0; i < out->n_grads; i++)
        free(out->grads[i].data);
}

// |got - want| <= 1e-4 |want|, and not all is 0, where `want` is not.
static bool near(const float *got, const float *want, uint32_t n)
{
    double difference = 0, norm = 0;
    for (uint32_t i = 0; i < n; i++) {
        double d = (double) got[i] - (double) want[i];
        difference += d * d;
        norm += (double) want[i] * (double) want[i];
    }
    return sqrt(difference) <= 1e-4 * sqrt(norm) + 1e-9;
}

// The comparison has to notice a thousandth of the tensor's norm in one element.
static bool control_is_seen(const float *want, uint32_t n)
{
    float *moved = malloc(n * sizeof *moved);
    double norm = 0;
    assert_non_null(moved);
    memcpy(moved, want, n * sizeof *moved);
    for (uint32_t i = 0; i < n; i++)
        norm += (double) want[i] * (double) want[i];
    moved[0] += (float) (1e-3 * sqrt(norm) + 1e-6);
    bool seen = !near(moved, want, n);
    free(moved);
    return seen;
}

static uint32_t compare(const struct net_case *of, const struct outcome *got,
                        const struct outcome *want)
{
    uint32_t n_y = NET_TOKENS * NET_MAX_WIDTH, n_wrong = 0;
    n_wrong += fabs(got->loss - want->loss) > 1e-5 * fabs(want->loss);
    n_wrong += !near(got->y, want->y, n_y) || !control_is_seen(want->y, n_y);
    if (n_wrong)
        print_message("%s: y, or loss %.9g, not %.9g\n", of->name, got->loss, want->loss);
    assert_int_equal(got->n_grads, want->n_grads);
    for (uint32_t i = 0; i < want->n_grads; i++) {
        uint32_t n = want->grads[i].n;
        if (near(got->grads[i].data, want->grads[i].data, n) &&
            control_is_seen(want->grads[i].data, n))
            continue;
        print_message("%s: gradient of %s\n", of->name, want->grads[i].name);
        n_wrong++;
    }
    return n_wrong;
}

static vkmoe_context *open_context(const char *name, const char *how)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_context *context;
    desc.device = name;
    desc.floor = strstr(how, "floor");
    desc.validation = strstr(how, "validation");
    if (strstr(how, "bda"))
        desc.addressing = VKMOE_ADDRESSING_BDA;
    if (strstr(how, "descriptors"))
        desc.addressing = VKMOE_ADDRESSING_DESCRIPTORS;
    check_ok(vkmoe_context_create(&desc, &context));
    return context;
}

static void test_every_option(void **state)
{
    (void) state;
    vkmoe_context *reference = open_context("reference", ""), *other = open_context(device, mode);
    uint32_t n_wrong = 0;
    for (uint32_t i = 0; i < net_case_count(); i++) {
        struct net_case of;
        struct outcome want, got;
        net_case_init(&of, i);
        compute(reference, i, &want);
        compute(other, i, &got);
        n_wrong += compare(&of, &got, &want);
        outcome_finish(&want);
        outcome_finish(&got);
    }
    assert_int_equal(n_wrong, 0);
    assert_int_equal(vkmoe_context_validation_count(other), 0);
    vkmoe_context_destroy(reference);
    vkmoe_context_destroy(other);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_option)};
    if (argc < 2)
        return 2;
    device = argv[1];
    mode = argc > 2 ? argv[2] : "";
    return cmocka_run_group_tests_name(device, tests, NULL, NULL);
}
