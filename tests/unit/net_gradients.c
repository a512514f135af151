// SPDX-License-Identifier: MIT
// Gradients of whole networks, for every option, by finite differences in f64: the backward ops
// that train/gradient.c derives, over the oracle of ops.
#include "api/net.h"
#include "base/bits.h"
#include "check.h"
#include "core/net_ref.h"
#include "fixture.h"
#include "net_random.h"

#include <stdlib.h>

// A network of a case in the oracle, with parameters, inputs and arguments of a run.
struct scene {
    struct net_case of;
    struct net_data data;
    struct moe_train_spec spec;
    struct moe_train *train;
    struct moe_ref_net *ref;
    struct moe_net_args args;
};

static void put(struct scene *s, uint32_t tensor, const float *values, uint32_t n)
{
    for (uint32_t i = 0; tensor != MOE_NET_NONE && i < n; i++)
        moe_ref_net_values(s->ref, tensor)[i] = (double) values[i];
}

static void put_ints(struct scene *s, uint32_t tensor, const int32_t *values, uint32_t n)
{
    for (uint32_t i = 0; tensor != MOE_NET_NONE && i < n; i++)
        moe_ref_net_values(s->ref, tensor)[i] = values[i];
}

static uint32_t n_elements(const struct moe_train *train, uint32_t tensor)
{
    return train->net->tensors[tensor].n * train->net->tensors[tensor].width;
}

static void put_inputs(struct scene *s)
{
    const vkmoe_net_batch *batch = &s->data.batch;
    put(s, s->train->x, batch->x, batch->n_tokens * s->spec.desc.d_in);
    put(s, s->train->targets, batch->targets, batch->n_examples * s->train->y_width);
    put_ints(s, s->train->token_ids, batch->token_ids, batch->n_tokens);
    put_ints(s, s->train->offsets, batch->offsets, batch->n_examples + 1);
    put_ints(s, s->train->labels, batch->labels, batch->n_examples);
    for (uint32_t i = 0; i < s->train->n_constants; i++)
        put(s, s->train->constants[i].tensor, s->train->constants[i].data,
            (uint32_t) s->train->constants[i].n);
}

// Random parameters: gains, W_noise and the like too, so that nothing hides behind 0 and 1.
static void put_params(struct scene *s, uint32_t seed)
{
    float values[64 * NET_MAX_WIDTH];
    for (uint32_t i = 0; i < s->train->n_params; i++) {
        uint32_t tensor = s->train->params[i].value, n = n_elements(s->train, tensor);
        assert_true(n <= MOE_COUNT(values));
        fill_random(values, n, seed + i);
        put(s, tensor, values, n);
    }
}

// The scene of s->of and s->spec.
static void scene_init(struct scene *s)
{
    net_data_init(&s->data, &s->of, 3);
    check_ok(moe_train_create(moe_host_default(), &s->spec, &s->train));
    check_ok(moe_ref_net_create(moe_host_default(), s->train->net, &s->ref));
    s->args = (struct moe_net_args){
        .n_tokens = s->data.batch.n_tokens,
        .n_examples = s->data.batch.n_examples,
        .seed = 11,
        .pass = 5,
        .loss_scale = 0.5f,
        .aux_scale = 0.25f,
        .step = 1,
        .rate = 0.1f,
    };
    put_inputs(s);
    put_params(s, 100);
}

static void scene_finish(struct scene *s)
{
    moe_ref_net_destroy(s->ref);
    moe_train_destroy(s->train);
    moe_api_net_spec_finish(moe_host_default(), &s->spec);
}

enum { FORWARD_BACKWARD = 1 << MOE_NET_FORWARD | 1 << MOE_NET_BACKWARD };

static double run(struct scene *s)
{
    moe_ref_net_run(s->ref, FORWARD_BACKWARD, &s->args);
    return *moe_ref_net_values(s->ref, s->train->batch_loss);
}

// (loss(p + h) - loss(p - h)) / 2h
static double slope(struct scene *s, double *p, double h)
{
    double before = *p;
    *p = before + h;
    double above = run(s);
    *p = before - h;
    double below = run(s);
    *p = before;
    return (above - below) / (2 * h);
}

// Two steps tell what the difference is worth: its error falls with h^2, until rounding takes over.
// The bound is their distance and what is left of 16 digits of the loss.
static void check_slope(struct scene *s, const char *name, double *p, double gradient)
{
    const double h = 1e-4;
    double wide = slope(s, p, h), narrow = slope(s, p, h / 2);
    double bound = fabs(wide - narrow) + 64 * 0x1p-53 * (fabs(run(s)) + 1) / h;
    if (!(fabs(gradient - narrow) <= bound) || bound > 1e-5)
        fail_msg("%s, %s: gradient %.12g, difference %.12g within %g", s->of.name, name, gradient,
                 narrow, bound);
}

static void check_gradients(struct scene *s)
{
    double *gradient = calloc(64 * NET_MAX_WIDTH, sizeof *gradient);
    assert_non_null(gradient);
    for (uint32_t j = 0; j < s->train->n_params; j++) {
        const struct moe_train_param *param = &s->train->params[j];
        if (param->grad == MOE_NET_NONE)
            continue;
        run(s);
        uint32_t n = n_elements(s->train, param->value);
        memcpy(gradient, moe_ref_net_values(s->ref, param->grad), n * sizeof *gradient);
        for (uint32_t k = 0; k < n; k++)
            check_slope(s, s->train->net->tensors[param->value].name,
                        moe_ref_net_values(s->ref, param->value) + k, gradient[k]);
    }
    free(gradient);
}

static void test_differences(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < net_case_count(); i++) {
        struct scene s;
        net_case_init(&s.of, i);
        check_ok(moe_api_net_spec(moe_host_default(), &s.of.desc, &s.spec));
        scene_init(&s);
        check_gradients(&s);
        scene_finish(&s);
    }
}

// Combinations of options; those that contradict each other are refused.
static void test_random(void **state)
{
    (void) state;
    uint32_t n = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        struct scene s;
        net_random_init(&s.of, i);
        if (moe_api_net_spec(moe_host_default(), &s.of.desc, &s.spec) != VKMOE_OK) {
            moe_api_net_spec_finish(moe_host_default(), &s.spec);
            continue;
        }
        n++;
        scene_init(&s);
        check_gradients(&s);
        scene_finish(&s);
    }
    print_message("%u networks\n", n);
    assert_true(n >= 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_differences),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
