// SPDX-License-Identifier: MIT
// What times are made of: a queue without timestamps, stamps that wrap around, stamps a known time
// apart, submissions and waits counted.
#include "measured.h"

// ---- stamps ------------------------------------------------------------------------------------

static void without_timestamps_nothing_is_timed(void **state)
{
    (void) state;
    struct stack stack;
    vkmoe_host host;
    vkmoe_context_desc desc = context_desc(&host);
    vkmoe_probe *probe = NULL;
    vkmoe_net *net = NULL;
    uint32_t n = MAX_DISPATCHES;
    interpose = (struct interpose){.stamp_bits = UINT32_MAX};
    check_ok(stack_create(&stack, &desc, &data, N_TOKENS, false));
    check_ok(make_net(stack.context, &net));
    memset(&got, 0xff, sizeof got);
    check_fails(time_runs(stack.bind, got.y, 2, got.runs), VKMOE_E_UNSUPPORTED, "no timestamps");
    check_fails(time_dispatches(stack.bind, got.y, got.times, &n), VKMOE_E_UNSUPPORTED,
                "no timestamps");
    check_fails(make_probe(stack.context, &probe), VKMOE_E_UNSUPPORTED, "no timestamps");
    assert_null(probe);
    check_fails(vkmoe_net_time_runs(net, &net_data.batch, VKMOE_NET_PASS_FORWARD, 0, 1, got.pass),
                VKMOE_E_UNSUPPORTED, "no timestamps");
    check_ok(vkmoe_context_status(stack.context)); // all else goes on
    vkmoe_io io = io_of(got.y);
    check_ok(vkmoe_run(stack.bind, N_TOKENS, &io));
    assert_memory_equal(got.y, want.y, y_size());
    vkmoe_net_destroy(net);
    stack_destroy(&stack);
    assert_int_equal(interpose.n_live, 0);
}

// Stamps of few bits begin again at 0; the times between them do not.
static void stamps_wrap_around(void **state)
{
    static const uint32_t bits[] = {20, 36, 63, 0};
    (void) state;
    for (size_t b = 0; b < sizeof bits / sizeof *bits; b++) {
        interpose = (struct interpose){.stamp_bits = bits[b], .tick = 1500};
        check_ok(attempt(LAYER, &got));
        for (int i = 0; i < N_RUNS; i++) // a tick of both drivers is a nanosecond
            check_near(got.runs[i], 1.5e-6, 1e-12);
        for (uint32_t i = 0; i < got.n_times; i++)
            check_near(got.times[i].seconds, 1.5e-6, 1e-12);
    }
    interpose = (struct interpose){0};
}

// Each load is timed by two stamps, so with a tick of 100 ms the first one is long enough.
static void limits_follow_from_the_stamps(void **state)
{
    (void) state;
    interpose = (struct interpose){.stamp_bits = 40, .tick = 100000000};
    check_ok(attempt(LIMITS, &got));
    check_near(got.limits.read_rate, (1 << 20) / 0.1, 1);
    check_near(got.limits.dispatch_seconds, 0.1 / 64, 1e-9);
    // 16 workgroups of 128, 4 rounds of 8 steps of 8 chains of vec4, 2 operations each.
    check_near(got.limits.peak[VKMOE_ARITHMETIC_F32], 16 * 128 * 4 * 8 * 8 * 4 * 2 / 0.1, 1);
    interpose = (struct interpose){0};
}

// Windows within the limit of a binding: interpose.c ends the program at a larger one.
static void memory_is_read_in_windows(void **state)
{
    static const struct {
        uint32_t mib, max_range, submissions;
    } cases[] = {{3, 1 << 20, 1}, {3, (1 << 21) + 4096, 1}, {257, 0, 2}};
    (void) state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        vkmoe_host host;
        vkmoe_context_desc desc = context_desc(&host);
        vkmoe_probe_desc probe_desc = vkmoe_probe_desc_init();
        vkmoe_context *context;
        vkmoe_probe *probe;
        double size = cases[i].mib * 1048576.0;
        interpose = (struct interpose){.tick = 100000000, .max_range = cases[i].max_range};
        probe_desc.read_size = (uint64_t) cases[i].mib << 20;
        check_ok(vkmoe_context_create(&desc, &context));
        check_ok(vkmoe_probe_create(context, &probe_desc, &probe));
        interpose.n_submits = 0;
        check_ok(vkmoe_probe_run(probe, VKMOE_PROBE_READ, &got.limits));
        check_near(got.limits.read_rate, size / (0.1 * cases[i].submissions), size * 1e-6);
        assert_int_equal(interpose.n_submits, 5 * cases[i].submissions); // the best of five
        vkmoe_probe_destroy(probe);
        vkmoe_context_destroy(context);
        assert_int_equal(interpose.n_live, 0);
    }
}

// ---- submissions -------------------------------------------------------------------------------

static long submissions(float budget_ms, uint32_t n_runs, double *seconds)
{
    struct stack stack;
    vkmoe_host host;
    vkmoe_context_desc desc = context_desc(&host);
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.layer = &data.layer;
    plan.max_tokens = N_TOKENS;
    plan.budget_ms = budget_ms;
    interpose = (struct interpose){.tick = 1000};
    check_ok(stack_create_plan(&stack, &desc, &data, &plan));
    interpose.n_submits = 0;
    check_ok(time_runs(stack.bind, got.y, n_runs, seconds));
    long n = interpose.n_submits;
    assert_memory_equal(got.y, want.y, y_size());
    stack_destroy(&stack);
    return n;
}

static void runs_share_submissions(void **state)
{
    enum { N = 300 };
    double seconds[N];
    (void) state;
    assert_int_equal(submissions(1e6f, N_RUNS, seconds), 3); // x, the runs, the results
    assert_int_equal(submissions(1e6f, 255, seconds), 3);
    assert_int_equal(submissions(1e6f, 256, seconds), 4); // a submission has 256 stamps
    assert_int_equal(submissions(1e6f, N, seconds), 4);
    for (int i = 0; i < N; i++)
        check_near(seconds[i], 1e-6, 1e-12);
}

// A run that is longer than the budget takes as long as its slices: here a tick each.
static void a_long_run_is_sliced(void **state)
{
    double seconds[2];
    (void) state;
    long n = submissions(0.001f, 2, seconds);
    assert_true(n > 6);
    assert_true(seconds[0] >= 2.9e-6 && seconds[1] >= 0.9e-6);
    // Every stamp but the first of a submission ends a slice.
    assert_true(seconds[0] + seconds[1] >= 0.99e-6 * (double) (n - 2));
}

// ---- dispatches --------------------------------------------------------------------------------

// By address, where a plan leaves out the barriers that it does not need.
static void each_dispatch_waits_for_the_one_before(void **state)
{
    (void) state;
    struct stack stack;
    vkmoe_host host;
    vkmoe_context_desc desc = context_desc(&host);
    uint32_t n = MAX_DISPATCHES;
    desc.addressing = VKMOE_ADDRESSING_BDA;
    interpose = (struct interpose){0};
    check_ok(stack_create(&stack, &desc, &data, N_TOKENS, false));
    interpose.n_barriers = 0;
    check_ok(time_runs(stack.bind, got.y, 1, got.runs));
    long of_run = interpose.n_barriers;
    interpose.n_barriers = 0;
    check_ok(time_dispatches(stack.bind, got.y, got.times, &n));
    // And one for the host, each time.
    if (interpose.n_barriers <= (long) n || of_run > (long) n)
        fail_msg("%u dispatches: %ld barriers, of a run %ld", n, interpose.n_barriers, of_run);
    stack_destroy(&stack);
}

enum { MANY_LAYERS = 64 };

// A network with more dispatches in a pass than a submission has stamps for.
static enum vkmoe_status make_deep_net(vkmoe_context *context, vkmoe_net **out)
{
    vkmoe_net_desc desc = net_case.desc;
    const vkmoe_net_layer *layers[MANY_LAYERS];
    for (int i = 0; i < MANY_LAYERS; i++)
        layers[i] = i + 1 < MANY_LAYERS ? net_case.list[0] : net_case.list[NET_LAYERS - 1];
    desc.layers = layers;
    desc.n_layers = MANY_LAYERS;
    enum vkmoe_status status = vkmoe_net_create(context, &desc, out);
    return status == VKMOE_OK ? vkmoe_net_init(*out, 3) : status;
}

static void a_pass_of_many_dispatches(void **state)
{
    (void) state;
    vkmoe_host host;
    vkmoe_context_desc desc = context_desc(&host);
    vkmoe_context *context;
    vkmoe_net *plain, *timed;
    static vkmoe_dispatch_time times[4 * MAX_DISPATCHES];
    float y[2][NET_TOKENS * NET_MAX_WIDTH] = {{0}};
    uint32_t n = 4 * MAX_DISPATCHES, count;
    desc.addressing = VKMOE_ADDRESSING_BDA;
    interpose = (struct interpose){.tick = 1000};
    check_ok(vkmoe_context_create(&desc, &context));
    check_ok(make_deep_net(context, &plain));
    check_ok(make_deep_net(context, &timed));
    check_ok(vkmoe_net_train(plain, &net_data.batch, 0.01f, NULL));
    check_ok(vkmoe_net_time_dispatches(timed, &net_data.batch, VKMOE_NET_PASS_TRAIN, 0.01f, NULL,
                                       &count));
    interpose.n_barriers = 0;
    check_ok(
        vkmoe_net_time_dispatches(timed, &net_data.batch, VKMOE_NET_PASS_TRAIN, 0.01f, times, &n));
    assert_true(interpose.n_barriers >= (long) n);
    assert_int_equal(n, count);
    assert_true(n > 256 && n <= 4 * MAX_DISPATCHES);
    for (uint32_t i = 0; i < n; i++)
        check_near(times[i].seconds, 1e-6, 1e-12);
    check_ok(vkmoe_net_eval(plain, &net_data.batch, y[0], NULL));
    check_ok(vkmoe_net_eval(timed, &net_data.batch, y[1], NULL));
    assert_memory_equal(y[0], y[1], sizeof y[0]);
    assert_true(y[0][0] != 0);
    vkmoe_net_destroy(plain);
    vkmoe_net_destroy(timed);
    vkmoe_context_destroy(context);
    assert_int_equal(interpose.n_live, 0);
}

// ---- a small device ----------------------------------------------------------------------------

// Where tokens take several blocks, runs are refused, and dispatches are those of all blocks.
static void blocks_are_not_timed_back_to_back(void **state)
{
    enum { MANY = 200 };
    (void) state;
    static float many_x[MANY * WIDTH], plain[MANY * WIDTH], y[MANY * WIDTH];
    struct stack stack;
    vkmoe_host host;
    vkmoe_context_desc context = context_desc(&host);
    vkmoe_time_desc desc = vkmoe_time_desc_init();
    vkmoe_io io = vkmoe_io_init();
    uint32_t n = MAX_DISPATCHES, count, few;
    fill_random(many_x, MANY * WIDTH, 6);
    interpose = (struct interpose){.max_range = 3 << 10};
    check_ok(stack_create(&stack, &context, &data, MANY, false));
    io.x = many_x;
    io.y = plain;
    check_ok(vkmoe_run(stack.bind, MANY, &io));
    io.y = y;
    desc.binds = &stack.bind;
    desc.ios = &io;
    desc.n_binds = 1;
    desc.n_tokens = MANY;
    check_fails(vkmoe_time_runs(&desc, N_RUNS, got.runs), VKMOE_E_UNSUPPORTED,
                "200 tokens take more than one block of bind 0");
    check_ok(vkmoe_time_dispatches(&desc, got.times, &n));
    check_ok(vkmoe_vk_dispatch_count(stack.bind, MANY, &count));
    check_ok(vkmoe_vk_dispatch_count(stack.bind, 5, &few));
    assert_int_equal(n, count);
    assert_true(n > few && n <= MAX_DISPATCHES);
    for (uint32_t i = 0; i < n; i++)
        assert_true(got.times[i].label && got.times[i].seconds >= 0);
    assert_memory_equal(y, plain, MANY * data.layer.d_out * sizeof *y);
    stack_destroy(&stack);
    assert_int_equal(interpose.n_live, 0);
    interpose = (struct interpose){0};
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_timestamps_nothing_is_timed),
        cmocka_unit_test(stamps_wrap_around),
        cmocka_unit_test(limits_follow_from_the_stamps),
        cmocka_unit_test(memory_is_read_in_windows),
        cmocka_unit_test(runs_share_submissions),
        cmocka_unit_test(a_long_run_is_sliced),
        cmocka_unit_test(each_dispatch_waits_for_the_one_before),
        cmocka_unit_test(a_pass_of_many_dispatches),
        cmocka_unit_test(blocks_are_not_timed_back_to_back),
    };
    return cmocka_run_group_tests(tests, measured_set_up, measured_tear_down) != 0;
}
