// SPDX-License-Identifier: MIT
// Measuring while each call that can fail fails once, at each time it is made, and while memory
// runs out: a clean error, never an object left over. A lost device stays lost.
#include "measured.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_call_of_timing_fails_once),
        cmocka_unit_test(every_call_of_a_probe_fails_once),
        cmocka_unit_test(memory_runs_out),
        cmocka_unit_test(a_device_lost_while_timing_stays_lost),
    };
    return cmocka_run_group_tests(tests, measured_set_up, measured_tear_down) != 0;
}
