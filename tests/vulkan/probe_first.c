// SPDX-License-Identifier: MIT
// The first plan on a GPU of our own times what it would use: here a CPU that counts as one, and
// whose driver makes a kernel slow (interpose.c). Only where there is f16: on lavapipe.
#include "check.h"
#include "verdicts.h"

static vkmoe_context *open_gpu(const vkmoe_host *host)
{
    vkmoe_context *context = open_context(host, "");
    assert_false(moe_vk(context->device)->probes); // it is a CPU
    moe_vk(context->device)->probes = true;
    return context;
}

static void start_slow(enum moe_vk_variant_id variant)
{
    start(INTERPOSE_NO_BUG);
    slow(variant);
}

// Here and in the next context, which times nothing again.
static void check_probed(const vkmoe_host *host, const char *want, enum moe_vk_state state,
                         enum moe_vk_cause cause)
{
    struct moe_vk_record record;
    vkmoe_context *context = open_gpu(host);
    check_plan(context, want);
    check_stored(state, cause);
    const struct moe_vk_verdict *verdict = stored(&record);
    assert_true(verdict->seconds > 0 && verdict->base_seconds > 0);
    assert_int_equal(verdict->seconds <= 0.97 * verdict->base_seconds, state == MOE_VK_GOOD);
    for (int again = 0; again < 2; again++) {
        int n_sets = store.n_sets;
        interpose.n_submits = 0;
        check_plan(context, want);
        assert_int_equal(interpose.n_submits, 0);
        assert_int_equal(store.n_sets, n_sets);
        vkmoe_context_destroy(context);
        context = open_gpu(host);
    }
    vkmoe_context_destroy(context);
    assert_string_equal(store.log, "");
    assert_int_equal(interpose.n_live, 0);
}

static void a_slower_variant_is_left_out(void **state)
{
    (void) state;
    vkmoe_host host = services();
    start_slow(MOE_VK_A1);
    check_probed(&host, "a0", MOE_VK_NOT_FASTER, MOE_VK_SLOWER);
}

static void a_faster_variant_stays(void **state)
{
    (void) state;
    vkmoe_host host = services();
    start_slow(MOE_VK_A0);
    check_probed(&host, "a1", MOE_VK_GOOD, MOE_VK_NO_CAUSE);
}

// A plan that names its variant gets it, and times nothing.
static void what_is_named_is_not_timed(void **state)
{
    (void) state;
    struct moe_vk_record record;
    vkmoe_host host = services();
    start_slow(MOE_VK_A1);
    vkmoe_context *context = open_gpu(&host);
    assert_string_equal(plan_of(context, "a1"), "a1");
    assert_true(stored(&record)->seconds == 0);
    vkmoe_context_destroy(context);
}

// Nor is anything on a device that is a CPU's, or the caller's.
static void others_are_not_timed(void **state)
{
    (void) state;
    struct moe_vk_record record;
    vkmoe_host host = services();
    for (int imported = 0; imported < 2; imported++) {
        start_slow(MOE_VK_A1);
        vkmoe_context *owner = open_context(&host, "");
        vkmoe_context *context = imported ? import_of(owner, &host, true) : owner;
        check_plan(context, "a1");
        check_stored(MOE_VK_GOOD, MOE_VK_NO_CAUSE);
        assert_true(stored(&record)->seconds == 0);
        if (imported)
            vkmoe_context_destroy(context);
        vkmoe_context_destroy(owner);
        assert_int_equal(interpose.n_live, 0);
    }
}

// A probe that fails says nothing of the variant, and is not made again.
static void a_probe_that_fails_is_no_verdict(void **state)
{
    (void) state;
    vkmoe_host host = services();
    start_slow(MOE_VK_A1);
    vkmoe_context *context = open_gpu(&host);
    interpose.fail_name = "vkCreateQueryPool"; // a probe alone has stamps
    interpose.fail_at = 1;
    interpose.fail_result = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    check_plan(context, "a1");
    assert_true(interpose.failed);
    assert_non_null(strstr(store.log, "variant 'a1' is not timed on"));
    check_stored(MOE_VK_GOOD, MOE_VK_NO_CAUSE);
    interpose.fail_name = NULL;
    interpose.n_submits = 0;
    check_plan(context, "a1");
    assert_int_equal(interpose.n_submits, 0);
    vkmoe_context_destroy(context);
    assert_int_equal(interpose.n_live, 0);
}

static void a_device_that_is_lost_fails_the_plan(void **state)
{
    (void) state;
    vkmoe_host host = services();
    start(INTERPOSE_NO_BUG);
    vkmoe_context *context = open_gpu(&host);
    interpose.fail_name = "vkGetQueryPoolResults";
    interpose.fail_at = 1;
    interpose.fail_result = VK_ERROR_DEVICE_LOST;
    assert_null(plan_of(context, NULL));
    assert_true(interpose.failed);
    vkmoe_context_destroy(context);
    assert_int_equal(interpose.n_live, 0);
}

// The times are to take less than a second in total. Where a submission takes 100 ms each run is
// one, and all rounds of all batches would be more than 90.
static void a_slow_device_makes_fewer_rounds(void **state)
{
    (void) state;
    vkmoe_host host = services();
    struct moe_vk_record record;
    bool good;
    start(INTERPOSE_NO_BUG);
    vkmoe_context *context = open_gpu(&host);
    struct moe_vk *vk = moe_vk(context->device);
    check_ok(moe_vk_judge(vk, &moe_vk_variants[MOE_VK_A1], &good));
    interpose.submit_ms = 100;
    interpose.n_submits = 0;
    check_ok(moe_vk_probe(vk, &moe_vk_variants[MOE_VK_A1]));
    if (interpose.n_submits > 60)
        fail_msg("%ld submissions", interpose.n_submits);
    assert_true(stored(&record)->seconds > 0); // there is a result all the same
    vkmoe_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slower_variant_is_left_out),
        cmocka_unit_test(a_faster_variant_stays),
        cmocka_unit_test(what_is_named_is_not_timed),
        cmocka_unit_test(others_are_not_timed),
        cmocka_unit_test(a_probe_that_fails_is_no_verdict),
        cmocka_unit_test(a_device_that_is_lost_fails_the_plan),
        cmocka_unit_test(a_slow_device_makes_fewer_rounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
