// SPDX-License-Identifier: MIT
// Measuring networks: a pass that is timed does what the call does that it is the time of, and
// wrong arguments are refused. Argument: the device.
#include "check.h"
#include "fixture.h"
#include "net_cases.h"

#include <stdlib.h>
#include <vkmoe/bench.h>

enum { N_RUNS = 3, MAX_OPS = 512 };

static const char *device;

struct scene {
    vkmoe_context *context;
    struct net_case of;
    struct net_data data;
    vkmoe_net *net;
};

static void open_scene(struct scene *s, uint32_t i)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = device;
    desc.n_threads = 2;
    check_ok(vkmoe_context_create(&desc, &s->context));
    net_case_init(&s->of, i);
    net_data_init(&s->data, &s->of, 5);
    check_ok(vkmoe_net_create(s->context, &s->of.desc, &s->net));
    check_ok(vkmoe_net_init(s->net, 3));
}

static void close_scene(struct scene *s)
{
    vkmoe_net_destroy(s->net);
    vkmoe_context_destroy(s->context);
}

// Values, gradients and the state of two nets have the same bits.
static void check_same(vkmoe_net *a, vkmoe_net *b)
{
    vkmoe_net_state state_a, state_b;
    check_ok(vkmoe_net_get_state(a, &state_a));
    check_ok(vkmoe_net_get_state(b, &state_b));
    assert_true(state_a.pass == state_b.pass && state_a.steps == state_b.steps);
    for (uint32_t i = 0; i < vkmoe_net_param_count(a); i++) {
        vkmoe_net_param param;
        check_ok(vkmoe_net_get_param(a, i, &param));
        const size_t n = (size_t) param.rows * param.width;
        float *x = calloc(2 * n, sizeof *x), *y = x + n;
        assert_non_null(x);
        for (uint32_t what = 0; what <= (param.has_gradient ? 1u : 0u); what++) {
            check_ok(vkmoe_net_read(a, (enum vkmoe_net_what) what, param.name, x, n));
            check_ok(vkmoe_net_read(b, (enum vkmoe_net_what) what, param.name, y, n));
            if (memcmp(x, y, n * sizeof *x) != 0)
                fail_msg("%s, %u: not the same bits", param.name, what);
        }
        free(x);
    }
}

// The call that a pass is the time of.
static void plain_pass(struct scene *s, enum vkmoe_net_pass pass, float rate)
{
    if (pass == VKMOE_NET_PASS_TRAIN) {
        check_ok(vkmoe_net_train(s->net, &s->data.batch, rate, NULL));
        return;
    }
    check_ok(vkmoe_net_forward(s->net, &s->data.batch));
    if (pass == VKMOE_NET_PASS_BACKWARD)
        check_ok(vkmoe_net_backward(s->net, 1, NULL));
}

static bool differ(vkmoe_net *a, vkmoe_net *b, enum vkmoe_net_what what, const char *name, size_t n)
{
    float *x = calloc(2 * n, sizeof *x);
    assert_non_null(x);
    check_ok(vkmoe_net_read(a, what, name, x, n));
    check_ok(vkmoe_net_read(b, what, name, x + n, n));
    bool different = memcmp(x, x + n, n * sizeof *x) != 0;
    free(x);
    return different;
}

static void check_pass(uint32_t i, enum vkmoe_net_pass pass)
{
    struct scene timed, plain;
    double seconds[N_RUNS + 1] = {NAN, NAN, NAN, NAN};
    open_scene(&timed, i);
    open_scene(&plain, i);
    check_ok(vkmoe_net_time_runs(timed.net, &timed.data.batch, pass, 0.01f, N_RUNS, seconds));
    assert_true(isnan(seconds[N_RUNS]));
    for (uint32_t run = 0; run < N_RUNS; run++) {
        if (!(seconds[run] >= 0 && seconds[run] < 60))
            fail_msg("run %u: %g seconds", run, seconds[run]);
        if (run == N_RUNS - 1 && pass != VKMOE_NET_PASS_FORWARD) { // a control: one pass is missing
            vkmoe_net_param param;
            check_ok(vkmoe_net_get_param(plain.net, 0, &param));
            assert_true(differ(timed.net, plain.net,
                               pass == VKMOE_NET_PASS_TRAIN ? VKMOE_NET_VALUE : VKMOE_NET_GRADIENT,
                               param.name, (size_t) param.rows * param.width));
        }
        plain_pass(&plain, pass, 0.01f);
    }
    check_same(timed.net, plain.net);
    close_scene(&plain);
    close_scene(&timed);
}

static void test_timed_passes_count(void **state)
{
    (void) state;
    static const char *const names[] = {"biases", "pool_mean"};
    for (uint32_t i = 0; i < 2; i++)
        for (uint32_t pass = 0; pass < 3; pass++)
            check_pass(net_case_find(names[i]), (enum vkmoe_net_pass) pass);
}

// The count makes no pass, the times make one.
static void check_dispatches(enum vkmoe_net_pass pass)
{
    struct scene timed, plain;
    static vkmoe_dispatch_time times[MAX_OPS];
    uint32_t n = 0, count;
    double sum = 0;
    open_scene(&timed, net_case_find("biases"));
    open_scene(&plain, net_case_find("biases"));
    const vkmoe_net_batch *batch = &timed.data.batch;
    check_ok(vkmoe_net_time_dispatches(timed.net, batch, pass, 0.01f, NULL, &n));
    assert_in_range(n, 2, MAX_OPS - 1);
    check_same(timed.net, plain.net);
    memset(times, 0, sizeof times);
    count = n - 1;
    check_ok(vkmoe_net_time_dispatches(timed.net, batch, pass, 0.01f, times, &count));
    assert_int_equal(count, n);
    for (uint32_t i = 0; i < n - 1; i++) {
        assert_true(times[i].label && times[i].label[0]);
        assert_true(times[i].seconds >= 0);
        sum += times[i].seconds;
    }
    assert_true(sum > 0 && sum < 60);
    assert_null(times[n - 1].label);
    plain_pass(&plain, pass, 0.01f);
    check_same(timed.net, plain.net);
    close_scene(&plain);
    close_scene(&timed);
}

static void test_dispatches(void **state)
{
    (void) state;
    struct scene s;
    uint32_t n = 0;
    if (strcmp(device, "reference") == 0) {
        open_scene(&s, 0);
        check_fails(vkmoe_net_time_dispatches(s.net, &s.data.batch, VKMOE_NET_PASS_FORWARD, 0, NULL,
                                              &n), VKMOE_E_UNSUPPORTED, "reference");
        close_scene(&s);
        return;
    }
    for (uint32_t pass = 0; pass < 3; pass++)
        check_dispatches((enum vkmoe_net_pass) pass);
}

#define BAD VKMOE_E_ARGUMENT
#define REFUSED(net, batch, pass, rate, status, text)                                              \
    do {                                                                                           \
        double seconds_;                                                                           \
        uint32_t n_ = 0;                                                                           \
        check_fails(vkmoe_net_time_runs(net, batch, (enum vkmoe_net_pass) (pass), rate, 1,         \
                                        &seconds_), status, text);                                 \
        if (strcmp(device, "reference") != 0)                                                      \
            check_fails(vkmoe_net_time_dispatches(net, batch, (enum vkmoe_net_pass) (pass), rate,  \
                                                  NULL, &n_), status, text);                       \
    } while (0)

static void test_bad_arguments(void **state)
{
    (void) state;
    struct scene s;
    double seconds;
    open_scene(&s, net_case_find("biases"));
    const vkmoe_net_batch *batch = &s.data.batch;
    vkmoe_net_batch other = *batch;
    REFUSED(NULL, batch, 0, 0, BAD, "net is NULL");
    REFUSED(s.net, NULL, 0, 0, BAD, "batch is NULL");
    REFUSED(s.net, batch, 3, 0, BAD, "pass = 3");
    REFUSED(s.net, batch, VKMOE_NET_PASS_TRAIN, -1, BAD, "rate = -1");
    REFUSED(s.net, batch, VKMOE_NET_PASS_TRAIN, NAN, BAD, "rate = ");
    other.n_tokens = NET_TOKENS + 1;
    for (uint32_t pass = 0; pass < 3; pass++)
        REFUSED(s.net, &other, pass, 0, VKMOE_E_SHAPE, "batch.n_tokens = 7");
    other = *batch;
    other.labels = NULL, other.targets = NULL;
    REFUSED(s.net, &other, VKMOE_NET_PASS_BACKWARD, 0, BAD, "the batch has no ");
    REFUSED(s.net, &other, VKMOE_NET_PASS_TRAIN, 0, BAD, "the batch has no ");
    check_fails(vkmoe_net_time_runs(s.net, batch, 0, 0, 1, NULL), BAD, "seconds is NULL");
    check_fails(vkmoe_net_time_runs(s.net, batch, 0, 0, 0, &seconds), BAD, "n_runs = 0");
    check_fails(vkmoe_net_time_dispatches(s.net, batch, 0, 0, NULL, NULL), BAD, "n is NULL");
    check_ok(vkmoe_net_time_runs(s.net, batch, VKMOE_NET_PASS_BACKWARD, 0, 1, &seconds));
    REFUSED(s.net, batch, VKMOE_NET_PASS_TRAIN, 0, BAD, "gradients of 1 batches wait");
    close_scene(&s);

    open_scene(&s, net_case_find("biases"));
    vkmoe_net_destroy(s.net);
    s.of.desc.evaluation_only = true;
    check_ok(vkmoe_net_create(s.context, &s.of.desc, &s.net));
    for (uint32_t pass = 0; pass < 3; pass++)
        REFUSED(s.net, &s.data.batch, pass, 0, BAD, "for evaluation only");
    close_scene(&s);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timed_passes_count),
        cmocka_unit_test(test_dispatches),
        cmocka_unit_test(test_bad_arguments),
    };
    if (argc != 2)
        return 2;
    device = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
