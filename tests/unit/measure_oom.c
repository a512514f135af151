// SPDX-License-Identifier: MIT
// Memory runs out at the first allocation, at the second, ... of everything that measures. Each
// time: a clean error, nothing left over. Argument: the device.
#include "budget.h"
#include "check.h"
#include "fixture.h"

#include <vkmoe/bench.h>

enum { N_TOKENS = 8 };

static const char *device;

struct scene {
    struct stack stack;
    float x[N_TOKENS * 6], y[N_TOKENS * 3];
    vkmoe_io io;
    vkmoe_time_desc time;
};

static enum vkmoe_status probe(struct scene *s)
{
    vkmoe_probe_desc desc = vkmoe_probe_desc_init();
    vkmoe_probe *probe;
    vkmoe_limits limits;
    desc.read_size = 1 << 20;
    enum vkmoe_status status = vkmoe_probe_create(s->stack.context, &desc, &probe);
    assert_int_equal(status == VKMOE_OK, probe != NULL);
    if (status == VKMOE_OK)
        status = vkmoe_probe_run(probe, VKMOE_PROBE_DISPATCH, &limits);
    vkmoe_probe_destroy(probe);
    return status;
}

static enum vkmoe_status time_runs(struct scene *s)
{
    double seconds[2];
    return vkmoe_time_runs(&s->time, 2, seconds);
}

static enum vkmoe_status time_dispatches(struct scene *s)
{
    vkmoe_dispatch_time times[32];
    uint32_t n = 32;
    return vkmoe_time_dispatches(&s->time, times, &n);
}

static enum vkmoe_status counted_run(struct scene *s)
{
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    vkmoe_plan *plan = NULL;
    vkmoe_bind *bind = NULL;
    const vkmoe_layer_desc layer = full_layer();
    desc.layer = &layer, desc.max_tokens = N_TOKENS, desc.counters = true;
    enum vkmoe_status status = vkmoe_plan_create(s->stack.context, &desc, &plan);
    if (status == VKMOE_OK)
        status = vkmoe_bind_create(plan, s->stack.weights, NULL, &bind);
    if (status == VKMOE_OK)
        status = vkmoe_run(bind, N_TOKENS, &s->io);
    vkmoe_bind_destroy(bind);
    vkmoe_plan_destroy(plan);
    return status;
}

static enum vkmoe_status tune(struct scene *s)
{
    vkmoe_tune_verdict verdicts[32];
    uint32_t n = 32;
    if (strcmp(device, "vulkan") == 0) // a second, for each of hundreds of allocations
        return VKMOE_E_UNSUPPORTED;
    return vkmoe_tune(s->stack.context, NULL, verdicts, &n);
}

static enum vkmoe_status (*const calls[])(struct scene *) = {probe, time_runs, time_dispatches,
                                                             counted_run, tune};

// Makes the stack, and from then on counts down to the failure. True when the call came through.
static bool attempt(const struct layer_data *data, enum vkmoe_status (*call)(struct scene *),
                    long fail_at, bool once)
{
    struct budget budget = {.fail_at = -1};
    vkmoe_host host = vkmoe_host_init();
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    struct scene s = {.io = vkmoe_io_init(), .time = vkmoe_time_desc_init()};
    budget_host(&host, &budget);
    desc.device = device, desc.host = &host, desc.n_threads = 2;
    check_ok(stack_create(&s.stack, &desc, data, N_TOKENS, false));
    fill_random(s.x, N_TOKENS * 6, 2);
    s.io.x = s.x, s.io.y = s.y;
    s.time.binds = &s.stack.bind, s.time.ios = &s.io;
    s.time.n_binds = 1, s.time.n_tokens = N_TOKENS;

    budget.fail_at = budget.n + fail_at;
    budget.once = once;
    vkmoe_error_set("");
    enum vkmoe_status status = call(&s);
    if (status != VKMOE_OK && status != VKMOE_E_UNSUPPORTED) {
        assert_int_equal(status, VKMOE_E_MEMORY);
        assert_true(strlen(vkmoe_error_text()) > 0);
    }
    stack_destroy(&s.stack);
    assert_int_equal(budget.live, 0);
    return status != VKMOE_E_MEMORY;
}

static void test_every_allocation_may_fail(void **state)
{
    (void) state;
    const vkmoe_layer_desc layer = full_layer();
    struct layer_data data;
    layer_data_init(&data, &layer, 1);
    long total = 0;
    for (uint32_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        for (uint32_t once = 0; once < 2; once++) {
            long n = 0;
            while (!attempt(&data, calls[i], n, once))
                assert_true(n++ < 1000);
            total += n;
        }
    }
    assert_true(total >= 6); // the lists of time_runs and of time_dispatches
    print_message("%s: %ld allocations\n", device, total / 2);
    layer_data_finish(&data);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_allocation_may_fail)};
    if (argc != 2)
        return 2;
    device = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
