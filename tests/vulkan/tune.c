// SPDX-License-Identifier: MIT
// vkmoe_tune on a device whose driver makes a kernel slow, or gets it wrong (interpose.c): what it
// says, what it keeps, and which plans go by it. Only where there is f16: on lavapipe.
#include "check.h"
#include "verdicts.h"

#include <stdlib.h>

enum { A0N = MOE_VK_A0N, A1 = MOE_VK_A1, A0 = MOE_VK_A0, N_VERDICTS = MOE_VK_N_VARIANTS };

static void tune(vkmoe_context *context, bool fresh, vkmoe_tune_verdict out[N_VERDICTS])
{
    uint32_t n = N_VERDICTS;
    check_ok(context->device->backend->tune(context->device, fresh, out, &n));
    assert_int_equal(n, N_VERDICTS);
    assert_string_equal(out[A1].kernel, "a1");
    assert_string_equal(out[A0].kernel, "a0");
    assert_int_equal(out[A0].state, VKMOE_TUNE_USED); // whatever else
    assert_string_equal(out[A0].reason, "");
}

// A driver that makes a0 slow, so that a1 is faster; or the other way round.
static void start_slow(enum moe_vk_variant_id variant)
{
    start(INTERPOSE_NO_BUG);
    slow(variant);
}

static void check_times(const vkmoe_tune_verdict *v, bool faster)
{
    assert_true(v->seconds > 0 && v->base_seconds > 0 && v->seconds < 10);
    assert_int_equal(v->seconds <= v->base_seconds * 0.97, faster);
    struct moe_vk_record record;
    const struct moe_vk_verdict *kept = stored(&record);
    assert_true(kept->seconds == v->seconds && kept->base_seconds == v->base_seconds);
}

static void a_faster_kernel_is_used(void **state)
{
    (void) state;
    vkmoe_host host = services();
    vkmoe_tune_verdict v[N_VERDICTS];
    start_slow(MOE_VK_A0);
    vkmoe_context *context = open_context(&host, "");
    tune(context, false, v);
    assert_int_equal(v[A1].state, VKMOE_TUNE_USED);
    assert_string_equal(v[A1].reason, "");
    assert_false(v[A1].cached);
    check_times(&v[A1], true);
    check_stored(MOE_VK_GOOD, MOE_VK_NO_CAUSE);
    check_plan(context, "a1");
    vkmoe_context_destroy(context);
    assert_string_equal(store.log, "");
    assert_int_equal(interpose.n_live, 0);
}

// By plans that name none; here, in the next context, and until somebody asks afresh.
static void a_slower_kernel_is_not_used(void **state)
{
    (void) state;
    vkmoe_host host = services();
    vkmoe_tune_verdict v[N_VERDICTS], again[N_VERDICTS];
    start_slow(MOE_VK_A1);
    vkmoe_context *context = open_context(&host, "");
    check_plan(context, "a1"); // nobody has timed it
    tune(context, false, v);
    assert_int_equal(v[A1].state, VKMOE_TUNE_NOT_FASTER);
    assert_non_null(strstr(v[A1].reason, "not 3 % faster"));
    assert_false(v[A1].cached);
    check_times(&v[A1], false);
    check_stored(MOE_VK_NOT_FASTER, MOE_VK_SLOWER);
    check_plan(context, "a0");
    assert_string_equal(plan_of(context, "a1"), "a1"); // it is not wrong
    vkmoe_context_destroy(context);

    slow(MOE_VK_A0);
    interpose.n_submits = 0;
    context = open_context(&host, "");
    check_plan(context, "a0");
    tune(context, false, again);
    assert_true(again[A1].cached);
    assert_int_equal(again[A1].state, VKMOE_TUNE_NOT_FASTER);
    assert_true(again[A1].seconds == v[A1].seconds);
    assert_int_equal(interpose.n_submits, 0);
    tune(context, true, again);
    assert_false(again[A1].cached);
    assert_int_equal(again[A1].state, VKMOE_TUNE_USED);
    check_times(&again[A1], true);
    check_plan(context, "a1");
    vkmoe_context_destroy(context);
    assert_int_equal(interpose.n_live, 0);
}

// The same kernel on both sides is not 3 % faster than itself. What is timed in turn differs by
// what the machine does meanwhile: so one try of some has to say so.
static void as_fast_is_not_faster(void **state)
{
    (void) state;
    vkmoe_tune_verdict v[N_VERDICTS];
    vkmoe_host host = services();
    start(INTERPOSE_OTHER);
    interpose.other = moe_spv_table[MOE_SPV_EXPERT_GEMM_BDA].words;
    interpose.other_size = moe_spv_table[MOE_SPV_EXPERT_GEMM_BDA].size;
    for (int i = 0; i < 10; i++) {
        vkmoe_context *context = open_context(&host, "");
        tune(context, true, v);
        vkmoe_context_destroy(context);
        if (v[A1].state == VKMOE_TUNE_NOT_FASTER)
            return;
    }
    fail_msg("%g s, %g s", v[A1].seconds, v[A1].base_seconds);
}

static void found_bad(enum interpose_bug kind, enum moe_vk_cause cause, const char *why)
{
    vkmoe_host host = services();
    vkmoe_tune_verdict v[N_VERDICTS];
    start(kind);
    vkmoe_context *context = open_context(&host, "");
    for (int i = 0; i < 3; i++) { // untested, cached, afresh
        tune(context, i == 2, v);
        assert_int_equal(v[A1].state, VKMOE_TUNE_BAD);
        assert_non_null(strstr(v[A1].reason, why));
        assert_true(v[A1].seconds == 0 && v[A1].base_seconds == 0);
        assert_int_equal(v[A1].cached, i == 1);
        check_stored(MOE_VK_BAD, cause);
        check_plan(context, "a0");
    }
    vkmoe_context_destroy(context);
    assert_int_equal(interpose.n_live, 0);
}

static void a_wrong_kernel_is_bad(void **state)
{
    (void) state;
    found_bad(INTERPOSE_SHORT, MOE_VK_WRONG, "wrong results");
    found_bad(INTERPOSE_SKIP, MOE_VK_WRONG, "wrong results"); // however fast that is
}

static void without_a_pipeline_it_is_bad(void **state)
{
    (void) state;
    found_bad(INTERPOSE_NO_PIPELINE, MOE_VK_NO_PIPELINE, "did not make its pipeline");
}

// The self-test's pipelines were made, those of the layer that is timed are not.
static void a_pipeline_that_fails_later_is_bad(void **state)
{
    (void) state;
    vkmoe_host host = services();
    vkmoe_tune_verdict v[N_VERDICTS];
    start(INTERPOSE_NO_BUG);
    vkmoe_context *context = open_context(&host, "");
    check_plan(context, "a1");
    vkmoe_context_destroy(context);
    bug(INTERPOSE_NO_PIPELINE);
    context = open_context(&host, "");
    tune(context, false, v);
    assert_int_equal(v[A1].state, VKMOE_TUNE_BAD);
    check_stored(MOE_VK_BAD, MOE_VK_NO_PIPELINE);
    vkmoe_context_destroy(context);
    assert_int_equal(interpose.n_live, 0);
}

// ---- what is kept ------------------------------------------------------------------------------

static void spoil(struct moe_vk_record *record, int kind)
{
    switch (kind) {
    case 0:
        record->driver_version++; // of another driver
        break;
    case 1:
        record->shaders ^= 1; // of other kernels
        break;
    case 2:
        memcpy(record->magic, "verdict", 8); // of a version without times
        break;
    case 3:
        record->device[0] ^= 1;
        break;
    case 4:
        record->variants[MOE_VK_A1].seconds = NAN;
        break;
    }
}

// A record that says of a faster kernel that it is slower is not believed if it is stale, and where
// it is sound it is.
static void a_stale_record_is_not_believed(void **state)
{
    enum { OTHER_KERNELS = 1, DAMAGED = 5, SHORTER, SOUND };
    (void) state;
    vkmoe_host host = services();
    vkmoe_tune_verdict v[N_VERDICTS];
    struct moe_vk_record record;
    start_slow(MOE_VK_A0);
    vkmoe_context *owner = open_context(&host, "");
    tune(owner, false, v);
    for (int kind = 0; kind <= SOUND; kind++) {
        struct moe_vk_verdict *kept = stored(&record);
        kept->state = MOE_VK_NOT_FASTER;
        kept->cause = MOE_VK_SLOWER;
        kept->seconds = kept->base_seconds = 1;
        spoil(&record, kind);
        store_record(owner, &record);
        if (kind == DAMAGED)
            store.data[store.size - 40] ^= 1;
        if (kind == SHORTER)
            store.size -= 2 * sizeof(double);
        vkmoe_context *context = open_context(&host, "");
        check_plan(context, kind == SOUND ? "a0" : "a1");
        if (kind == OTHER_KERNELS || kind == SOUND) {
            tune(context, false, v);
            assert_int_equal(v[A1].cached, kind == SOUND);
            assert_int_equal(v[A1].state, kind == SOUND ? VKMOE_TUNE_NOT_FASTER : VKMOE_TUNE_USED);
        }
        vkmoe_context_destroy(context);
    }
    vkmoe_context_destroy(owner);
    assert_int_equal(interpose.n_live, 0);
}

// The name of a record is of its driver's version too.
static void another_driver_begins_anew(void **state)
{
    (void) state;
    vkmoe_host host = services();
    vkmoe_tune_verdict v[N_VERDICTS];
    start_slow(MOE_VK_A1);
    vkmoe_context *context = open_context(&host, "");
    tune(context, false, v);
    assert_int_equal(v[A1].state, VKMOE_TUNE_NOT_FASTER);
    vkmoe_context_destroy(context);
    context = open_context(&host, "");
    moe_vk(context->device)->caps.driver_version++;
    check_plan(context, "a1");
    vkmoe_context_destroy(context);
}

// ---- the call itself ---------------------------------------------------------------------------

static void the_count_and_the_room(void **state)
{
    (void) state;
    vkmoe_host host = services();
    vkmoe_tune_verdict v[N_VERDICTS] = {[A1] = {.kernel = "none"}, [A0] = {.kernel = "none"}};
    uint32_t n = 99;
    start_slow(MOE_VK_A0);
    vkmoe_context *context = open_context(&host, "");
    const struct moe_backend *backend = context->device->backend;
    interpose.n_submits = 0;
    check_ok(backend->tune(context->device, true, NULL, &n));
    assert_int_equal(n, N_VERDICTS);
    assert_int_equal(interpose.n_submits, 0); // only asked
    n = A0;
    check_ok(backend->tune(context->device, false, v, &n));
    assert_int_equal(n, N_VERDICTS);
    assert_string_equal(v[A1].kernel, "a1");
    assert_string_equal(v[A0].kernel, "none");
    vkmoe_context_destroy(context);
}

static void what_the_device_lacks_is_unavailable(void **state)
{
    (void) state;
    vkmoe_host host = services();
    vkmoe_tune_verdict v[N_VERDICTS];
    vkmoe_context *context;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "vulkan";
    desc.host = &host;
    desc.addressing = VKMOE_ADDRESSING_DESCRIPTORS;
    desc.disable = "direct";
    start(INTERPOSE_NO_BUG);
    check_ok(vkmoe_context_create(&desc, &context));
    tune(context, false, v);
    assert_int_equal(v[A1].state, VKMOE_TUNE_UNAVAILABLE);
    assert_non_null(strstr(v[A1].reason, "bufferDeviceAddress"));
    assert_int_equal(store.n_sets, 0);
    vkmoe_context_destroy(context);
}

static void without_timestamps_nothing_is_timed(void **state)
{
    (void) state;
    vkmoe_host host = services();
    vkmoe_tune_verdict v[N_VERDICTS];
    for (int coarse = 0; coarse < 2; coarse++) { // or none ticks in a run
        start_slow(MOE_VK_A1);
        interpose.stamp_bits = coarse ? 1 : UINT32_MAX;
        interpose.tick = coarse ? 2 : 0;
        vkmoe_context *context = open_context(&host, "");
        tune(context, false, v);
        assert_int_equal(v[A1].state, VKMOE_TUNE_USED);
        assert_true(v[A1].seconds == 0 && v[A1].base_seconds == 0);
        check_stored(MOE_VK_GOOD, MOE_VK_NO_CAUSE);
        check_plan(context, "a1");
        vkmoe_context_destroy(context);
        assert_int_equal(interpose.n_live, 0);
    }
}

// A listed driver is bad without a test; that is no result to keep.
static void a_listed_driver_is_bad(void **state)
{
    (void) state;
    vkmoe_host host = services();
    vkmoe_tune_verdict v[N_VERDICTS];
    start(INTERPOSE_NO_BUG);
    vkmoe_context *context = open_context(&host, "");
    moe_vk(context->device)->caps.driver_id = VK_DRIVER_ID_IMAGINATION_PROPRIETARY;
    tune(context, false, v);
    assert_int_equal(v[A1].state, VKMOE_TUNE_BAD);
    assert_non_null(strstr(v[A1].reason, "known not to compute"));
    assert_int_equal(interpose.n_pipelines, 0);
    vkmoe_context_destroy(context);
}

// What is left to do is to time it.
static void start_tested(void)
{
    vkmoe_host host = services();
    start(INTERPOSE_NO_BUG);
    vkmoe_context *context = open_context(&host, "");
    check_plan(context, "a1");
    vkmoe_context_destroy(context);
}

// Back to that.
static void forget_times(vkmoe_context *context)
{
    struct moe_vk_record record;
    struct moe_vk_verdict *kept = stored(&record);
    *kept = (struct moe_vk_verdict){.since = kept->since, .state = MOE_VK_GOOD};
    store_record(context, &record);
}

// Verdicts or a clean error, and nothing left; at calls further and further into it.
static void inject(const char *name, VkResult result)
{
    vkmoe_host host = services();
    bool failed = true;
    start_tested();
    for (long at = 1; failed; at += 1 + at / 3) {
        interpose.failed = false;
        vkmoe_context *context = open_context(&host, "");
        vkmoe_tune_verdict v[N_VERDICTS];
        uint32_t n = N_VERDICTS;
        interpose.fail_name = name;
        interpose.fail_at = at;
        interpose.fail_result = result;
        interpose.n_calls = 0;
        enum vkmoe_status status =
            context->device->backend->tune(context->device, false, v, &n);
        failed = interpose.failed;
        interpose.fail_name = NULL;
        assert_int_equal(status != VKMOE_OK, failed);
        if (failed)
            check_stored(MOE_VK_GOOD, MOE_VK_NO_CAUSE);
        else
            forget_times(context);
        vkmoe_context_destroy(context);
        if (interpose.n_live != 0)
            fail_msg("%s failed at call %ld with %d: %ld objects left", name, at, result,
                     interpose.n_live);
    }
}

static void failures_are_clean(void **state)
{
    (void) state;
    inject("vkAllocateMemory", VK_ERROR_OUT_OF_DEVICE_MEMORY);
    inject("vkCreateComputePipelines", VK_ERROR_OUT_OF_HOST_MEMORY);
    inject("vkCreateBuffer", VK_ERROR_UNKNOWN);
    inject("vkQueueSubmit", VK_ERROR_DEVICE_LOST);
    inject("vkCreateQueryPool", VK_ERROR_OUT_OF_HOST_MEMORY);
}

// ---- memory ------------------------------------------------------------------------------------

static void every_allocation_may_fail(void **state)
{
    (void) state;
    vkmoe_host host = limited_services();
    enum vkmoe_status status = VKMOE_E_MEMORY;
    start_tested();
    for (long n = 0; status != VKMOE_OK || n_allocations_left < 0; n++) {
        vkmoe_tune_verdict v[N_VERDICTS];
        uint32_t room = N_VERDICTS;
        n_allocations_left = 1000;
        vkmoe_context *context = open_context(&host, "");
        n_allocations_left = n;
        status = context->device->backend->tune(context->device, false, v, &room);
        if (status != VKMOE_OK && status != VKMOE_E_MEMORY)
            fail_msg("%ld allocations: %s", n, vkmoe_error_text());
        if (status == VKMOE_OK)
            forget_times(context);
        vkmoe_context_destroy(context);
        assert_int_equal(interpose.n_live, 0);
        assert_true(n < 1000);
    }
}

// ---- the kernel without shared memory ----------------------------------------------------------

// A context that may use it, on a GPU of Arm's or on the device as it is.
static vkmoe_context *open_direct(const vkmoe_host *host, bool arm)
{
    vkmoe_context *context = open_context(host, "");
    struct moe_vk_caps *caps = &moe_vk(context->device)->caps;
    caps->disabled &= ~MOE_VK_BIT(MOE_VK_A0N);
    caps->driver_id = arm ? VK_DRIVER_ID_ARM_PROPRIETARY : caps->driver_id;
    return context;
}

// Until times have shown it faster no plan has it that does not name it.
static void elsewhere_the_direct_kernel_waits_for_times(void **state)
{
    (void) state;
    vkmoe_host host = services();
    for (int faster = 0; faster < 2; faster++) {
        start(INTERPOSE_NO_BUG);
        vkmoe_context *context = open_direct(&host, false);
        check_plan(context, "a1");
        assert_string_equal(plan_of(context, "a0n"), "a0n");
        check_plan(context, "a1");
        moe_vk_set_times(moe_vk(context->device), &moe_vk_variants[A0N], faster ? 0.5 : 2, 1);
        check_plan(context, faster ? "a0n" : "a1");
        vkmoe_context_destroy(context);
    }
}

static void on_arm_the_direct_kernel_is_used(void **state)
{
    (void) state;
    vkmoe_host host = services();
    start(INTERPOSE_NO_BUG);
    vkmoe_context *context = open_direct(&host, true);
    check_plan(context, "a0n");
    vkmoe_context_destroy(context);
    start(INTERPOSE_SHORT); // unless it is wrong
    interpose.kernel = moe_spv_table[MOE_SPV_EXPERT_GEMM_DIRECT_BDA].words;
    context = open_direct(&host, true);
    check_plan(context, "a1");
    assert_null(plan_of(context, "a0n"));
    assert_non_null(strstr(vkmoe_error_text(), "its self-test gave wrong results"));
    vkmoe_context_destroy(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_faster_kernel_is_used),
        cmocka_unit_test(a_slower_kernel_is_not_used),
        cmocka_unit_test(as_fast_is_not_faster),
        cmocka_unit_test(a_wrong_kernel_is_bad),
        cmocka_unit_test(without_a_pipeline_it_is_bad),
        cmocka_unit_test(a_pipeline_that_fails_later_is_bad),
        cmocka_unit_test(a_stale_record_is_not_believed),
        cmocka_unit_test(another_driver_begins_anew),
        cmocka_unit_test(the_count_and_the_room),
        cmocka_unit_test(what_the_device_lacks_is_unavailable),
        cmocka_unit_test(without_timestamps_nothing_is_timed),
        cmocka_unit_test(a_listed_driver_is_bad),
        cmocka_unit_test(failures_are_clean),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(elsewhere_the_direct_kernel_waits_for_times),
        cmocka_unit_test(on_arm_the_direct_kernel_is_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
