// SPDX-License-Identifier: MIT
// Measuring on devices that are not as one would wish: without timestamps, with ones that wrap
// around, out of memory, or that fail in each call once. interpose.c plays them.
#include "budget.h"
#include "check.h"
#include "fixture.h"
#include "host.h"
#include "interpose.h"
#include "net_cases.h"

#include <vkmoe/bench.h>

enum { N_TOKENS = 6, N_RUNS = 5, WIDTH = 64, MAX_DISPATCHES = 512 };

static struct layer_data data;
static struct net_case net_case;
static struct net_data net_data;
static struct budget budget;
static float x[N_TOKENS * WIDTH + 1]; // x + 1: another one

// What one goes through, of which each call can fail.
struct measured {
    float y[N_TOKENS * WIDTH], y_of_next[N_TOKENS * WIDTH]; // of x and of x + 1
    double runs[N_RUNS], pass[2];
    vkmoe_dispatch_time times[MAX_DISPATCHES];
    uint32_t n_times;
    vkmoe_limits limits;
};
static struct measured want, got;

static size_t y_size(void)
{
    return (size_t) N_TOKENS * data.layer.d_out * sizeof(float);
}

// ---- the pieces --------------------------------------------------------------------------------

static vkmoe_io io_of(float *y)
{
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.y = y;
    return io;
}

static enum vkmoe_status time_runs(vkmoe_bind *bind, float *y, uint32_t n, double *seconds)
{
    vkmoe_io io = io_of(y);
    vkmoe_time_desc desc = vkmoe_time_desc_init();
    desc.binds = &bind;
    desc.ios = &io;
    desc.n_binds = 1;
    desc.n_tokens = N_TOKENS;
    return vkmoe_time_runs(&desc, n, seconds);
}

static enum vkmoe_status time_dispatches(vkmoe_bind *bind, float *y, vkmoe_dispatch_time *times,
                                         uint32_t *n)
{
    vkmoe_io io = io_of(y);
    vkmoe_time_desc desc = vkmoe_time_desc_init();
    io.x = x + 1; // so that a result of time_runs is not taken for one of this
    desc.binds = &bind;
    desc.ios = &io;
    desc.n_binds = 1;
    desc.n_tokens = N_TOKENS;
    return vkmoe_time_dispatches(&desc, times, n);
}

static enum vkmoe_status make_probe(vkmoe_context *context, vkmoe_probe **out)
{
    vkmoe_probe_desc desc = vkmoe_probe_desc_init();
    desc.read_size = 1 << 20;
    return vkmoe_probe_create(context, &desc, out);
}

static enum vkmoe_status make_net(vkmoe_context *context, vkmoe_net **out)
{
    enum vkmoe_status status = vkmoe_net_create(context, &net_case.desc, out);
    return status == VKMOE_OK ? vkmoe_net_init(*out, 3) : status;
}

static vkmoe_context_desc context_desc(vkmoe_host *host)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    *host = vkmoe_host_init();
    budget_host(host, &budget);
    desc.host = host;
    desc.device = "vulkan";
    desc.cache_dir = "";
    desc.addressing = VKMOE_ADDRESSING_DESCRIPTORS; // makes more calls
    return desc;
}

// ---- everything once ---------------------------------------------------------------------------

static enum vkmoe_status measure_layer(vkmoe_bind *bind, struct measured *out)
{
    out->n_times = MAX_DISPATCHES;
    enum vkmoe_status status = time_runs(bind, out->y, N_RUNS, out->runs);
    return status == VKMOE_OK ? time_dispatches(bind, out->y_of_next, out->times, &out->n_times)
                              : status;
}

static enum vkmoe_status measure_limits(vkmoe_context *context, struct measured *out)
{
    vkmoe_probe *probe = NULL;
    enum vkmoe_status status = make_probe(context, &probe);
    if (status == VKMOE_OK)
        status = vkmoe_probe_run(probe, VKMOE_PROBE_ALL, &out->limits);
    vkmoe_probe_destroy(probe);
    return status;
}

static enum vkmoe_status measure_net(vkmoe_context *context, struct measured *out)
{
    vkmoe_net *net = NULL;
    static vkmoe_dispatch_time times[MAX_DISPATCHES];
    uint32_t n = MAX_DISPATCHES;
    enum vkmoe_status status = make_net(context, &net);
    if (status == VKMOE_OK)
        status =
            vkmoe_net_time_runs(net, &net_data.batch, VKMOE_NET_PASS_TRAIN, 0.01f, 2, out->pass);
    if (status == VKMOE_OK)
        status =
            vkmoe_net_time_dispatches(net, &net_data.batch, VKMOE_NET_PASS_FORWARD, 0, times, &n);
    vkmoe_net_destroy(net);
    return status;
}

enum { LAYER = 1, LIMITS = 2, NET = 4 };

// The objects stay from one attempt to the next, pipelines too, until the device is lost.
static struct stack session;
static vkmoe_host session_host;

static enum vkmoe_status open_session(void)
{
    vkmoe_context_desc desc = context_desc(&session_host);
    return stack_create(&session, &desc, &data, N_TOKENS, false);
}

static void close_session(void)
{
    stack_destroy(&session);
    session = (struct stack){0};
    assert_int_equal(budget.live, 0);
}

static enum vkmoe_status measure(int what, struct measured *out)
{
    enum vkmoe_status status = VKMOE_OK;
    memset(out, 0xff, sizeof *out);
    if (what & LAYER)
        status = measure_layer(session.bind, out);
    if (status == VKMOE_OK && (what & LIMITS))
        status = measure_limits(session.context, out);
    if (status == VKMOE_OK && (what & NET))
        status = measure_net(session.context, out);
    return status;
}

// In a session of its own.
static enum vkmoe_status attempt(int what, struct measured *out)
{
    vkmoe_error_set("");
    enum vkmoe_status status = open_session();
    if (status == VKMOE_OK)
        status = measure(what, out);
    assert_true(status == VKMOE_OK || strlen(vkmoe_error_text()) > 0);
    close_session();
    return status;
}

static void check_layer(const struct measured *m)
{
    assert_memory_equal(m->y, want.y, y_size());
    assert_memory_equal(m->y_of_next, want.y_of_next, y_size());
    assert_int_equal(m->n_times, want.n_times);
    for (int i = 0; i < N_RUNS; i++)
        assert_true(m->runs[i] > 0);
}

// ---- calls that fail ---------------------------------------------------------------------------

static struct interpose device_kind; // what the device looks like while calls fail

// A session in which all pipelines are there.
static void warm_up(int what)
{
    if (session.context && vkmoe_context_status(session.context) == VKMOE_OK)
        return;
    interpose = device_kind;
    interpose.tick = 100000000; // no probe takes long
    close_session();
    check_ok(open_session());
    check_ok(measure(what, &got));
}

// Each call of measuring, with all else there already.
static void inject(int what, const char *name, VkResult result)
{
    close_session();
    for (long n = 1;; n++) {
        warm_up(what);
        interpose = device_kind;
        interpose.fail_name = name;
        interpose.fail_at = n;
        interpose.fail_result = result;
        long live = budget.live;
        vkmoe_error_set("");
        enum vkmoe_status status = measure(what, &got);
        assert_true(status == VKMOE_OK || strlen(vkmoe_error_text()) > 0);
        if (interpose.n_live != 0 || budget.live != live)
            fail_msg("%s failed at call %ld with %d: %ld objects and %ld allocations left", name, n,
                     result, interpose.n_live, budget.live - live);
        if (status == VKMOE_OK && (what & LAYER))
            check_layer(&got);
        if (interpose.failed)
            continue;
        assert_int_equal(status, VKMOE_OK); // every call has had its turn
        assert_true(n > 1);                 // and there was one
        return;
    }
}

// The same for calls that a device makes once.
static void inject_afresh(int what, const char *name, VkResult result)
{
    close_session();
    for (long n = 1;; n++) {
        interpose = device_kind;
        interpose.fail_name = name;
        interpose.fail_at = n;
        interpose.fail_result = result;
        enum vkmoe_status status = attempt(what, &got);
        assert_int_equal(interpose.n_live, 0);
        if (interpose.failed)
            continue;
        assert_int_equal(status, VKMOE_OK);
        assert_true(n > 1);
        return;
    }
}

static void every_call_of_timing_fails_once(void **state)
{
    static const char *const names[] = {
        "vkCreateQueryPool", "vkGetQueryPoolResults", "vkBeginCommandBuffer", "vkEndCommandBuffer",
        "vkQueueSubmit",     "vkResetFences",         "vkWaitForFences",      NULL};
    (void) state;
    for (int i = 0; names[i]; i++)
        inject(LAYER | NET, names[i], VK_ERROR_OUT_OF_HOST_MEMORY);
    inject(LAYER | NET, "vkGetQueryPoolResults", VK_ERROR_DEVICE_LOST);
    inject(LAYER | NET, "vkGetQueryPoolResults", VK_NOT_READY);
    device_kind = (struct interpose){.discrete = true};
    inject(LAYER, "vkQueueSubmit", VK_ERROR_OUT_OF_DEVICE_MEMORY);
    inject(LAYER, "vkEndCommandBuffer", VK_ERROR_OUT_OF_DEVICE_MEMORY);
    device_kind = (struct interpose){0};
}

// Of the probe's loads only so many calls are made, as stamps here tell that they take long.
static void every_call_of_a_probe_fails_once(void **state)
{
    static const char *const names[] = {"vkCreateQueryPool",
                                        "vkGetQueryPoolResults",
                                        "vkAllocateMemory",
                                        "vkCreateBuffer",
                                        "vkBindBufferMemory",
                                        "vkCreateCommandPool",
                                        "vkCreateFence",
                                        "vkCreateDescriptorPool",
                                        "vkAllocateDescriptorSets",
                                        "vkBeginCommandBuffer",
                                        "vkEndCommandBuffer",
                                        "vkQueueSubmit",
                                        NULL};
    (void) state;
    device_kind = (struct interpose){.tick = 100000000};
    for (int i = 0; names[i]; i++)
        inject(LIMITS, names[i], VK_ERROR_OUT_OF_HOST_MEMORY);
    inject_afresh(LIMITS, "vkCreateShaderModule", VK_ERROR_OUT_OF_HOST_MEMORY);
    inject_afresh(LIMITS, "vkCreateComputePipelines", VK_ERROR_OUT_OF_HOST_MEMORY);
    inject(LIMITS, "vkGetQueryPoolResults", VK_NOT_READY);
    inject(LIMITS, "vkQueueSubmit", VK_ERROR_DEVICE_LOST);
    device_kind = (struct interpose){0};
}

static void memory_runs_out(void **state)
{
    (void) state;
    int n = 0;
    close_session();
    warm_up(LAYER | LIMITS | NET);
    interpose = (struct interpose){.tick = 100000000};
    for (;; n++) {
        long live = budget.live;
        budget = (struct budget){.fail_at = n, .once = true, .live = live};
        enum vkmoe_status status = measure(LAYER | LIMITS | NET, &got);
        bool failed = budget_failed(&budget);
        assert_int_equal(interpose.n_live, 0);
        assert_int_equal(budget.live, live);
        if (!failed)
            break;
        assert_true(status == VKMOE_OK || status == VKMOE_E_MEMORY);
        assert_true(n < 4000);
    }
    budget.fail_at = -1;
    check_layer(&got);
    assert_true(n >= 10);
}

static void a_device_lost_while_timing_stays_lost(void **state)
{
    (void) state;
    struct stack stack;
    vkmoe_host host;
    vkmoe_context_desc desc = context_desc(&host);
    vkmoe_probe *probe, *other = NULL;
    close_session();
    interpose = (struct interpose){0};
    check_ok(stack_create(&stack, &desc, &data, N_TOKENS, false));
    check_ok(make_probe(stack.context, &probe));
    check_ok(time_runs(stack.bind, got.y, 2, got.runs));
    interpose.fail_name = "vkGetQueryPoolResults";
    interpose.fail_at = 1;
    interpose.fail_result = VK_ERROR_DEVICE_LOST;
    check_fails(time_runs(stack.bind, got.y, 2, got.runs), VKMOE_E_DEVICE_LOST,
                "vkGetQueryPoolResults");
    interpose.fail_name = NULL; // whatever the driver says from now on
    assert_int_equal(vkmoe_context_status(stack.context), VKMOE_E_DEVICE_LOST);
    check_fails(time_runs(stack.bind, got.y, 2, got.runs), VKMOE_E_DEVICE_LOST, "lost");
    check_fails(vkmoe_probe_run(probe, VKMOE_PROBE_ALL, &got.limits), VKMOE_E_DEVICE_LOST, "lost");
    check_fails(make_probe(stack.context, &other), VKMOE_E_DEVICE_LOST, "lost");
    vkmoe_probe_destroy(probe);
    stack_destroy(&stack);
    assert_int_equal(interpose.n_live, 0);
}

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

static int set_up(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = full_layer();
    struct stack stack;
    vkmoe_host host;
    vkmoe_context_desc desc = context_desc(&host);
    budget = (struct budget){.fail_at = -1};
    layer_data_init(&data, &layer, 9);
    assert_true(layer.d_model <= WIDTH && data.layer.d_out <= WIDTH);
    fill_random(x, N_TOKENS * WIDTH + 1, 5);
    net_case_init(&net_case, net_case_find("gated"));
    net_data_init(&net_data, &net_case, 4);
    check_ok(stack_create(&stack, &desc, &data, N_TOKENS, false));
    vkmoe_io io = io_of(want.y);
    check_ok(vkmoe_run(stack.bind, N_TOKENS, &io));
    io.x = x + 1;
    io.y = want.y_of_next;
    check_ok(vkmoe_run(stack.bind, N_TOKENS, &io));
    assert_memory_not_equal(want.y, want.y_of_next, y_size());
    check_ok(vkmoe_vk_dispatch_count(stack.bind, N_TOKENS, &want.n_times));
    stack_destroy(&stack);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    close_session();
    layer_data_finish(&data);
    return 0;
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
        cmocka_unit_test(every_call_of_timing_fails_once),
        cmocka_unit_test(every_call_of_a_probe_fails_once),
        cmocka_unit_test(memory_runs_out),
        cmocka_unit_test(a_device_lost_while_timing_stays_lost),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down) != 0;
}
