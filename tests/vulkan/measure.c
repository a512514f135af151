// SPDX-License-Identifier: MIT
// Measuring on a Vulkan device: measure MODE, where MODE is bda, descriptors or floor. What is
// timed gives the bits of the plain calls, and times are of what was run. The validation layer is
// on, and any message of it fails.
#include "fixture.h"
#include "host.h"
#include "net_cases.h"

#include <stdlib.h>
#include <time.h>
#include <vkmoe/bench.h>

enum { N_BINDS = 3, MAX_TOKENS = 40, WIDTH = 64, TOP_K = 2, EXPERTS = 5 };

static vkmoe_context_desc context_desc;
static vkmoe_context *context;

// A layer with weights, bind and memory of its own, and what vkmoe_run makes of it.
static struct subject {
    struct layer_data data;
    struct stack stack; // without the context
    float x[MAX_TOKENS * WIDTH + 1];
    struct outputs {
        float y[MAX_TOKENS * WIDTH];
        int32_t ids[MAX_TOKENS * TOP_K];
        float gates[MAX_TOKENS * TOP_K], scores[MAX_TOKENS * EXPERTS];
    } want, got;
} subjects[N_BINDS];

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec + (double) t.tv_nsec * 1e-9;
}

static vkmoe_io io_of(const struct subject *s, struct outputs *out)
{
    vkmoe_io io = vkmoe_io_init();
    memset(out, 0xff, sizeof *out);
    io.x = s->x;
    io.y = out->y;
    io.ids = out->ids;
    io.gates = out->gates;
    io.scores = out->scores;
    return io;
}

static void subject_init(struct subject *s, uint32_t seed)
{
    vkmoe_layer_desc layer = full_layer();
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    layer_data_init(&s->data, &layer, seed);
    assert_true(layer.n_experts == EXPERTS && layer.top_k == TOP_K && s->data.layer.d_out <= WIDTH);
    plan.layer = &s->data.layer;
    plan.max_tokens = MAX_TOKENS;
    plan.scores = true;
    fill_random(s->x, MAX_TOKENS * WIDTH + 1, seed + 100);
    check_ok(vkmoe_weights_create(context, &s->data.desc, &s->stack.weights));
    check_ok(vkmoe_plan_create(context, &plan, &s->stack.plan));
    check_ok(vkmoe_bind_create(s->stack.plan, s->stack.weights, NULL, &s->stack.bind));
}

// What vkmoe_run gives for n_tokens. The device is left with results of another x.
static void run_plainly(struct subject *s, uint32_t n_tokens)
{
    vkmoe_io io = io_of(s, &s->got);
    io.x = s->x + 1;
    vkmoe_io plain = io_of(s, &s->want);
    check_ok(vkmoe_run(s->stack.bind, n_tokens, &plain));
    check_ok(vkmoe_run(s->stack.bind, n_tokens, &io));
}

static bool right(const struct subject *s)
{
    return memcmp(&s->got, &s->want, sizeof s->got) == 0;
}

static int set_up(void **state)
{
    (void) state;
    check_ok(vkmoe_context_create(&context_desc, &context));
    for (uint32_t i = 0; i < N_BINDS; i++)
        subject_init(&subjects[i], 7 + i);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    for (uint32_t i = 0; i < N_BINDS; i++) {
        stack_destroy(&subjects[i].stack);
        layer_data_finish(&subjects[i].data);
    }
    vkmoe_context_destroy(context);
    return 0;
}

// ---- layers ------------------------------------------------------------------------------------

struct job {
    vkmoe_bind *binds[N_BINDS];
    vkmoe_io ios[N_BINDS];
    vkmoe_time_desc desc;
};

static void job_init(struct job *job, uint32_t n_tokens)
{
    job->desc = vkmoe_time_desc_init();
    for (uint32_t i = 0; i < N_BINDS; i++) {
        run_plainly(&subjects[i], n_tokens);
        job->binds[i] = subjects[i].stack.bind;
        job->ios[i] = io_of(&subjects[i], &subjects[i].got);
        assert_false(right(&subjects[i]));
    }
    job->desc.binds = job->binds;
    job->desc.ios = job->ios;
    job->desc.n_binds = N_BINDS;
    job->desc.n_tokens = n_tokens;
}

// Times that are there, and no more than went by.
static double check_times(const double *seconds, uint32_t n, double most)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!(seconds[i] > 0))
            fail_msg("run %u took %g s", i, seconds[i]);
        sum += seconds[i];
    }
    if (sum > most)
        fail_msg("%u runs took %g s, but only %g s went by", n, sum, most);
    return sum;
}

static void timed_runs_give_the_same_bits(void **state)
{
    static const uint32_t tokens[] = {1, 3, MAX_TOKENS}; // both regimes
    (void) state;
    for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++) {
        double seconds[N_BINDS * 2 + 1], begin = now();
        struct job job;
        job_init(&job, tokens[t]);
        check_ok(vkmoe_time_runs(&job.desc, N_BINDS * 2 + 1, seconds));
        check_times(seconds, N_BINDS * 2 + 1, now() - begin);
        for (uint32_t i = 0; i < N_BINDS; i++)
            assert_true(right(&subjects[i]));
        assert_memory_not_equal(subjects[0].got.y, subjects[1].got.y, sizeof(float) * WIDTH);
    }
}

static void binds_that_are_not_run_keep_their_outputs(void **state)
{
    (void) state;
    double seconds[2], begin = now();
    struct job job;
    struct outputs untouched;
    job_init(&job, 2);
    memset(&untouched, 0xff, sizeof untouched);
    check_ok(vkmoe_time_runs(&job.desc, 2, seconds));
    check_times(seconds, 2, now() - begin);
    assert_true(right(&subjects[0]) && right(&subjects[1]));
    assert_memory_equal(&subjects[2].got, &untouched, sizeof untouched);
}

// More runs than a submission has stamps for.
static void many_runs_are_all_timed(void **state)
{
    enum { N = 600 };
    (void) state;
    double *seconds = malloc(N * sizeof *seconds), begin = now();
    struct job job;
    assert_non_null(seconds);
    for (uint32_t i = 0; i < N; i++)
        seconds[i] = NAN;
    job_init(&job, 1);
    check_ok(vkmoe_time_runs(&job.desc, N, seconds));
    check_times(seconds, N, now() - begin);
    assert_true(right(&subjects[0]) && right(&subjects[1]) && right(&subjects[2]));
    free(seconds);
}

// Of the first subject's plan.
static uint32_t dispatch_count(uint32_t n_tokens)
{
    uint32_t n;
    check_ok(vkmoe_vk_dispatch_count(subjects[0].stack.bind, n_tokens, &n));
    return n;
}

static void dispatches_are_those_of_the_plan(void **state)
{
    enum { MOST = 64 };
    static const uint32_t tokens[] = {2, MAX_TOKENS};
    (void) state;
    for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++) {
        vkmoe_dispatch_time times[MOST];
        uint32_t n = 0, room = MOST;
        struct job job;
        double begin = now(), sum = 0;
        job_init(&job, tokens[t]);
        check_ok(vkmoe_time_dispatches(&job.desc, NULL, &n));
        assert_false(right(&subjects[0])); // only counted
        assert_true(n > 3 && n <= MOST);
        check_ok(vkmoe_time_dispatches(&job.desc, times, &room));
        assert_int_equal(room, n);
        assert_int_equal(n, dispatch_count(tokens[t]));
        assert_true(right(&subjects[0]));
        assert_false(right(&subjects[1]));
        for (uint32_t i = 0; i < n; i++) {
            vkmoe_vk_dispatch info;
            check_ok(vkmoe_vk_get_dispatch(job.binds[0], tokens[t], i, &info));
            assert_string_equal(times[i].label, info.label);
            assert_true(times[i].seconds >= 0);
            sum += times[i].seconds;
        }
        assert_true(sum > 0 && sum <= now() - begin);
    }
}

static void room_for_some_dispatches_gets_the_first(void **state)
{
    (void) state;
    vkmoe_dispatch_time times[3] = {{0}};
    uint32_t n = 2;
    struct job job;
    job_init(&job, 2);
    check_ok(vkmoe_time_dispatches(&job.desc, times, &n));
    assert_int_equal(n, dispatch_count(2));
    assert_true(right(&subjects[0]));
    assert_non_null(times[1].label);
    assert_null(times[2].label);
}

// What dispatches take one by one is about what they take together: the waits are the difference,
// and the machine's other work, which the best of some tries leaves out. A unit that is wrong is
// off by more.
static void dispatches_add_up_to_a_run(void **state)
{
    enum { MOST = 64, TRIES = 40 };
    (void) state;
    vkmoe_dispatch_time times[MOST];
    double seconds, best_run = INFINITY, best_sum = INFINITY;
    struct job job;
    job_init(&job, MAX_TOKENS);
    job.desc.n_binds = 1;
    for (int i = 0; i < TRIES; i++) {
        uint32_t n = MOST;
        double sum = 0;
        check_ok(vkmoe_time_runs(&job.desc, 1, &seconds));
        check_ok(vkmoe_time_dispatches(&job.desc, times, &n));
        for (uint32_t k = 0; k < n; k++)
            sum += times[k].seconds;
        best_sum = fmin(best_sum, sum);
        best_run = fmin(best_run, seconds);
        if (i >= 4 && best_sum > 0.5 * best_run && best_sum < 2 * best_run)
            return;
    }
    fail_msg("a run takes %g s, its dispatches %g s", best_run, best_sum);
}

static void kernels_are_named(void **state)
{
    (void) state;
    vkmoe_plan_kernels kernels;
    vkmoe_weights_layout layout;
    const struct subject *s = &subjects[0];
    check_ok(vkmoe_plan_get_kernels(s->stack.plan, &kernels));
    check_ok(vkmoe_weights_get_layout(context, &s->data.layer, &layout));
    assert_string_equal(kernels.name, "a0");
    assert_int_equal(kernels.arithmetic, VKMOE_ARITHMETIC_F32);
    assert_int_equal(kernels.weights_size, layout.expert_size);
}

// ---- networks ----------------------------------------------------------------------------------

static struct net_case net_case;
static struct net_data net_data;

static vkmoe_net *make_net(void)
{
    vkmoe_net *net;
    check_ok(vkmoe_net_create(context, &net_case.desc, &net));
    check_ok(vkmoe_net_init(net, 3));
    return net;
}

// Both nets have the same parameters, as far as an evaluation tells.
static void check_same(vkmoe_net *a, vkmoe_net *b, bool same)
{
    float y[2][NET_TOKENS * NET_MAX_WIDTH] = {{0}};
    double loss[2];
    check_ok(vkmoe_net_eval(a, &net_data.batch, y[0], &loss[0]));
    check_ok(vkmoe_net_eval(b, &net_data.batch, y[1], &loss[1]));
    assert_int_equal(memcmp(y[0], y[1], sizeof y[0]) == 0 && loss[0] == loss[1], same);
}

static void timed_training_gives_the_same_bits(void **state)
{
    (void) state;
    vkmoe_net *plain = make_net(), *timed = make_net();
    double seconds[3], begin = now();
    check_same(plain, timed, true);
    for (int i = 0; i < 3; i++)
        check_ok(vkmoe_net_train(plain, &net_data.batch, 0.01f, NULL));
    check_same(plain, timed, false);
    check_ok(vkmoe_net_time_runs(timed, &net_data.batch, VKMOE_NET_PASS_TRAIN, 0.01f, 3, seconds));
    check_times(seconds, 3, now() - begin);
    check_same(plain, timed, true);
    vkmoe_net_destroy(plain);
    vkmoe_net_destroy(timed);
}

static void timed_passes_give_the_same_bits(void **state)
{
    (void) state;
    vkmoe_net *plain = make_net(), *timed = make_net();
    double seconds[2], begin = now();
    for (int i = 0; i < 2; i++) {
        check_ok(vkmoe_net_forward(plain, &net_data.batch));
        check_ok(vkmoe_net_backward(plain, 1, NULL));
    }
    check_ok(vkmoe_net_step(plain, 0.01f));
    check_ok(vkmoe_net_time_runs(timed, &net_data.batch, VKMOE_NET_PASS_BACKWARD, 0, 2, seconds));
    check_times(seconds, 2, now() - begin);
    check_same(plain, timed, false);
    check_ok(vkmoe_net_step(timed, 0.01f));
    check_same(plain, timed, true);
    begin = now();
    check_ok(vkmoe_net_time_runs(timed, &net_data.batch, VKMOE_NET_PASS_FORWARD, 0, 2, seconds));
    check_times(seconds, 2, now() - begin);
    vkmoe_net_destroy(plain);
    vkmoe_net_destroy(timed);
}

static void dispatches_of_a_pass_are_timed(void **state)
{
    enum { MOST = 512 };
    (void) state;
    static vkmoe_dispatch_time times[MOST];
    vkmoe_net *plain = make_net(), *timed = make_net();
    for (int pass = VKMOE_NET_PASS_FORWARD; pass <= VKMOE_NET_PASS_TRAIN; pass++) {
        uint32_t n = 0, room = MOST;
        double sum = 0, begin = now();
        if (pass == VKMOE_NET_PASS_TRAIN)
            check_ok(vkmoe_net_step(timed, 0.01f));
        check_ok(vkmoe_net_time_dispatches(timed, &net_data.batch, pass, 0.01f, NULL, &n));
        assert_true(n > 3 && n <= MOST);
        check_ok(vkmoe_net_time_dispatches(timed, &net_data.batch, pass, 0.01f, times, &room));
        assert_int_equal(room, n);
        for (uint32_t i = 0; i < n; i++) {
            assert_true(times[i].label && strlen(times[i].label) > 0);
            assert_true(times[i].seconds >= 0);
            sum += times[i].seconds;
        }
        assert_true(sum > 0 && sum <= now() - begin);
    }
    check_ok(vkmoe_net_forward(plain, &net_data.batch)); // passes count, for they may be random
    check_ok(vkmoe_net_forward(plain, &net_data.batch));
    check_ok(vkmoe_net_backward(plain, 1, NULL));
    check_ok(vkmoe_net_step(plain, 0.01f));
    check_ok(vkmoe_net_train(plain, &net_data.batch, 0.01f, NULL));
    check_same(plain, timed, true);
    vkmoe_net_destroy(plain);
    vkmoe_net_destroy(timed);
}

// ---- limits ------------------------------------------------------------------------------------

static vkmoe_device_info device_info(void)
{
    vkmoe_device_info info;
    check_ok(vkmoe_context_info(context, &info));
    return info;
}

static void limits_are_measured(void **state)
{
    (void) state;
    vkmoe_probe *probe;
    vkmoe_limits limits;
    vkmoe_probe_desc desc = vkmoe_probe_desc_init();
    desc.read_size = 3 << 20;
    check_ok(vkmoe_probe_create(context, &desc, &probe));
    double begin = now();
    check_ok(vkmoe_probe_run(probe, VKMOE_PROBE_ALL, &limits));
    double wall = now() - begin;
    // What was done took at most all of the time.
    assert_true(limits.read_rate >= (double) desc.read_size / wall);
    assert_true(limits.peak[VKMOE_ARITHMETIC_F32] >= 4e6 / wall);
    assert_true(limits.dispatch_seconds > 0 && limits.dispatch_seconds <= wall / 64);
    bool f16 = strstr(device_info().features, "shader_float16") != NULL;
    assert_int_equal(limits.peak[VKMOE_ARITHMETIC_F16] > 0, f16);
    bool dot = strstr(device_info().features, "integer_dot_product") != NULL;
    assert_int_equal(limits.peak[VKMOE_ARITHMETIC_INT8] > 0, dot);
    for (int a = VKMOE_ARITHMETIC_BF16; a < VKMOE_N_ARITHMETICS; a++)
        assert_true(a == VKMOE_ARITHMETIC_INT8 || limits.peak[a] == 0);
    print_message("read %.3g GB/s, f32 %.3g Gflop/s, f16 %.3g Gflop/s, int8 %.3g Gop/s, "
                  "dispatch %.3g us\n", limits.read_rate * 1e-9,
                  limits.peak[VKMOE_ARITHMETIC_F32] * 1e-9,
                  limits.peak[VKMOE_ARITHMETIC_F16] * 1e-9,
                  limits.peak[VKMOE_ARITHMETIC_INT8] * 1e-9, limits.dispatch_seconds * 1e6);
    vkmoe_probe_destroy(probe);
}

static void only_what_is_asked_for_is_measured(void **state)
{
    (void) state;
    vkmoe_probe *probe;
    vkmoe_limits limits;
    vkmoe_probe_desc desc = vkmoe_probe_desc_init();
    desc.read_size = 1 << 20;
    check_ok(vkmoe_probe_create(context, &desc, &probe));
    check_ok(vkmoe_probe_run(probe, VKMOE_PROBE_READ, &limits));
    assert_true(limits.read_rate > 0 && limits.dispatch_seconds == 0);
    assert_true(limits.peak[VKMOE_ARITHMETIC_F32] == 0);
    check_ok(vkmoe_probe_run(probe, VKMOE_PROBE_DISPATCH, &limits));
    assert_true(limits.read_rate == 0 && limits.dispatch_seconds > 0);
    vkmoe_probe_destroy(probe);
}

// ---- a device that somebody else owns ----------------------------------------------------------

static void an_imported_queue_is_timed(void **state)
{
    (void) state;
    struct host host;
    struct stack stack = {0};
    struct subject *s = &subjects[0];
    double seconds[4], begin = now();
    vkmoe_time_desc desc = vkmoe_time_desc_init();
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    vkmoe_probe *probe = NULL;
    host_init(&host, context);
    vkmoe_vk_import_desc import = host_import_desc(&host.handles);
    check_ok(vkmoe_context_import_vk(&import, &stack.context));
    check_fails(vkmoe_probe_create(stack.context, NULL, &probe), VKMOE_E_UNSUPPORTED, "queue");
    assert_null(probe);
    vkmoe_context_destroy(stack.context);

    import.queue = host.handles.queue;
    plan.layer = &s->data.layer;
    plan.max_tokens = MAX_TOKENS;
    plan.scores = true;
    check_ok(vkmoe_context_import_vk(&import, &stack.context));
    check_ok(vkmoe_weights_create(stack.context, &s->data.desc, &stack.weights));
    check_ok(vkmoe_plan_create(stack.context, &plan, &stack.plan));
    check_ok(vkmoe_bind_create(stack.plan, stack.weights, NULL, &stack.bind));
    run_plainly(s, 3);
    vkmoe_io io = io_of(s, &s->got);
    desc.binds = &stack.bind;
    desc.ios = &io;
    desc.n_binds = 1;
    desc.n_tokens = 3;
    check_ok(vkmoe_time_runs(&desc, 4, seconds));
    check_times(seconds, 4, now() - begin);
    assert_true(right(s));
    stack_destroy(&stack);
    host_finish(&host);
}

// The last test: a group's tear-down that fails does not fail a cmocka program.
static void validation_found_nothing(void **state)
{
    (void) state;
    assert_int_equal(vkmoe_context_validation_count(context), 0);
}

int main(int argc, char **argv)
{
    vkmoe_host services;
    if (!host_context_desc(argc, argv, &services, &context_desc))
        return 2;
    context_desc.debug_labels = true;
    net_case_init(&net_case, net_case_find("gated"));
    net_data_init(&net_data, &net_case, 4);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timed_runs_give_the_same_bits),
        cmocka_unit_test(binds_that_are_not_run_keep_their_outputs),
        cmocka_unit_test(many_runs_are_all_timed),
        cmocka_unit_test(dispatches_are_those_of_the_plan),
        cmocka_unit_test(room_for_some_dispatches_gets_the_first),
        cmocka_unit_test(dispatches_add_up_to_a_run),
        cmocka_unit_test(kernels_are_named),
        cmocka_unit_test(timed_training_gives_the_same_bits),
        cmocka_unit_test(timed_passes_give_the_same_bits),
        cmocka_unit_test(dispatches_of_a_pass_are_timed),
        cmocka_unit_test(limits_are_measured),
        cmocka_unit_test(only_what_is_asked_for_is_measured),
        cmocka_unit_test(an_imported_queue_is_timed),
        cmocka_unit_test(validation_found_nothing),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down) != 0;
}
