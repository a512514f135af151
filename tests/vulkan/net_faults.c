// SPDX-License-Identifier: MIT
// A network trains while each Vulkan call that can fail fails once, at each time it is made, and
// while memory runs out: a clean error, never an object left over. And it is sliced.
#include "base/status.h"
#include "budget.h"
#include "check.h"
#include "fixture.h"
#include "host.h"
#include "interpose.h"
#include "net_cases.h"

static struct net_case of;
static struct net_data data;
static struct interpose device_kind; // what the device looks like while calls fail
static struct budget budget;

struct outcome {
    double loss;
    float y[NET_TOKENS * NET_MAX_WIDTH];
};
static struct outcome want; // when nothing fails

static enum vkmoe_status train(vkmoe_context *context, struct outcome *out)
{
    enum vkmoe_status status = VKMOE_OK;
    vkmoe_net *net = NULL;
    TRY(vkmoe_net_create(context, &of.desc, &net));
    TRY(vkmoe_net_init(net, 3));
    for (int i = 0; i < 2; i++)
        TRY(vkmoe_net_train(net, &data.batch, 0.01f, &out->loss));
    TRY(vkmoe_net_eval(net, &data.batch, out->y, NULL));

fail:
    vkmoe_net_destroy(net);
    return status;
}

static enum vkmoe_status attempt(struct outcome *out)
{
    vkmoe_host host = vkmoe_host_init();
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_context *context;
    budget_host(&host, &budget);
    desc.host = &host;
    desc.device = "vulkan";
    desc.cache_dir = "";
    desc.addressing = VKMOE_ADDRESSING_DESCRIPTORS; // makes more calls
    memset(out, 0, sizeof *out);
    vkmoe_error_set("");
    enum vkmoe_status status = vkmoe_context_create(&desc, &context);
    if (status == VKMOE_OK)
        status = train(context, out);
    assert_true(status == VKMOE_OK || strlen(vkmoe_error_text()) > 0);
    vkmoe_context_destroy(context);
    assert_int_equal(budget.live, 0);
    return status;
}

static void check_outcome(const struct outcome *got)
{
    assert_memory_equal(&got->loss, &want.loss, sizeof want.loss);
    assert_memory_equal(got->y, want.y, sizeof want.y);
}

static void inject(const char *name, VkResult result)
{
    struct outcome got;
    for (long n = 1;; n++) {
        interpose = device_kind;
        interpose.fail_name = name;
        interpose.fail_at = n;
        interpose.fail_result = result;
        enum vkmoe_status status = attempt(&got);
        if (interpose.n_live != 0)
            fail_msg("%s failed at call %ld with %d: %ld objects left", name, n, result,
                     interpose.n_live);
        if (status == VKMOE_OK)
            check_outcome(&got);
        if (interpose.failed)
            continue;
        assert_int_equal(status, VKMOE_OK); // every call has had its turn
        return;
    }
}

static void inject_all(const char *const *names)
{
    for (int i = 0; names[i]; i++)
        inject(names[i], VK_ERROR_OUT_OF_HOST_MEMORY);
}

// Of the calls that a network makes, not those of a device.
static void test_every_call_fails_once(void **state)
{
    static const char *const names[] = {
        "vkAllocateMemory",         "vkMapMemory",              "vkCreateBuffer",
        "vkBindBufferMemory",       "vkCreateCommandPool",      "vkAllocateCommandBuffers",
        "vkCreateFence",            "vkBeginCommandBuffer",     "vkEndCommandBuffer",
        "vkQueueSubmit",            "vkCreateDescriptorPool",   "vkAllocateDescriptorSets",
        "vkCreateComputePipelines", NULL};
    static const char *const staged[] = {"vkAllocateMemory", "vkEndCommandBuffer", NULL};
    (void) state;
    inject_all(names);
    device_kind = (struct interpose){.discrete = true};
    inject_all(staged);
    inject("vkQueueSubmit", VK_ERROR_DEVICE_LOST);
    device_kind = (struct interpose){0};
}

static void test_memory_runs_out(void **state)
{
    struct outcome got;
    (void) state;
    long n = 0;
    for (;; n++) {
        interpose = device_kind;
        budget = (struct budget){.fail_at = n};
        enum vkmoe_status status = attempt(&got);
        assert_int_equal(interpose.n_live, 0);
        if (status == VKMOE_OK)
            break;
        assert_int_equal(status, VKMOE_E_MEMORY);
        assert_true(n < 2000);
    }
    budget = (struct budget){.fail_at = -1};
    check_outcome(&got);
    assert_true(n >= 10);
}

// A slow device gets its work in more submissions, with the same result.
static void test_slices(void **state)
{
    struct outcome got;
    (void) state;
    interpose = (struct interpose){0};
    check_ok(attempt(&got));
    long n_quick = interpose.n_submits;
    interpose = (struct interpose){.submit_ms = 100};
    check_ok(attempt(&got));
    assert_true(interpose.n_submits > n_quick);
    check_outcome(&got);
    interpose = (struct interpose){0};
}

static int set_up(void **state)
{
    (void) state;
    budget = (struct budget){.fail_at = -1};
    net_case_init(&of, net_case_find("gated"));
    net_data_init(&data, &of, 4);
    check_ok(attempt(&want));
    assert_true(want.loss > 0 && want.y[0] != 0);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_call_fails_once),
        cmocka_unit_test(test_memory_runs_out),
        cmocka_unit_test(test_slices),
    };
    return cmocka_run_group_tests(tests, set_up, NULL) != 0;
}
