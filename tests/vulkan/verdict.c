// SPDX-License-Identifier: MIT
// What becomes of a kernel variant that a driver gets wrong: the self-test finds it, the plan does
// without, and the verdict is kept for the next context. The bugs are interpose.c's. On a device
// without f16 the variant is off.
#include "check.h"
#include "verdicts.h"

#include <stdlib.h>

static bool has_f16; // of the device

static void without_f16_it_is_off(void **state)
{
    (void) state;
    vkmoe_host host = services();
    start(INTERPOSE_NO_BUG);
    vkmoe_context *context = open_context(&host, "");
    const struct moe_vk *vk = moe_vk(context->device);
    assert_int_equal(moe_vk_has(&vk->caps, MOE_VK_FLOAT16), has_f16);
    const char *tier = vk->base.info.tier; // of what the device has, also without this context
    assert_true(strcmp(tier, "T0 floor") == 0 ? !has_f16 : has_f16);
    assert_int_equal(strstr(vk->base.info.features, "shader_float16") != NULL, has_f16);
    if (!has_f16) {
        check_plan(context, "a0");
        check_refused(context, "shaderFloat16 is not there");
        assert_int_equal(interpose.n_pipelines, 0);
        assert_int_equal(store.n_sets, 0);
    }
    vkmoe_context_destroy(context);
    assert_int_equal(interpose.n_live, 0);
}

static void a_good_variant_is_tested_once(void **state)
{
    (void) state;
    vkmoe_host host = services();
    start(INTERPOSE_NO_BUG);
    vkmoe_context *context = open_context(&host, "");
    check_plan(context, "a1");
    check_stored(MOE_VK_GOOD, MOE_VK_NO_CAUSE);
    assert_int_equal(store.n_sets, 4); // a mark and the verdict, then the same for its pipelines
    check_plan(context, "a1");
    assert_string_equal(plan_of(context, "a1"), "a1");
    assert_string_equal(plan_of(context, "a0"), "a0");
    vkmoe_context_destroy(context);

    interpose.n_submits = 0;
    context = open_context(&host, "");
    check_plan(context, "a1");
    assert_int_equal(store.n_sets, 4); // the pipelines are known
    assert_int_equal(interpose.n_submits, 0); // making a plan submits nothing but tests
    vkmoe_context_destroy(context);
    assert_string_equal(store.log, "");
    assert_int_equal(interpose.n_live, 0);
}

// What the caller, or VKMOE_DISABLE, leaves out is neither tested nor used, and refused by name.
static void a_disabled_variant_is_not_used(void **state)
{
    (void) state;
    vkmoe_host host = services();
    vkmoe_context *context;
    vkmoe_kernel_info kernels[MOE_VK_N_VARIANTS];
    for (int by_variable = 0; by_variable < 2; by_variable++) {
        vkmoe_context_desc desc = vkmoe_context_desc_init();
        desc.device = "vulkan";
        desc.host = &host;
        desc.cache_dir = "";
        desc.disable = by_variable ? NULL : "fp16";
        assert_int_equal(setenv("VKMOE_DISABLE", by_variable ? "a1" : "no-such", 1), 0);
        start(INTERPOSE_NO_BUG);
        check_ok(vkmoe_context_create(&desc, &context));
        check_plan(context, "a0");
        check_refused(context, "disabled by VKMOE_DISABLE");
        assert_int_equal(interpose.n_pipelines, 0);
        assert_int_equal(store.n_sets, 0);
        uint32_t n = MOE_VK_N_VARIANTS;
        check_ok(vkmoe_context_kernels(context, kernels, &n));
        assert_int_equal(n, MOE_VK_N_VARIANTS);
        assert_int_equal(kernels[MOE_VK_A1].verdict.state, VKMOE_TUNE_DISABLED);
        assert_int_equal(kernels[MOE_VK_A0].verdict.state, VKMOE_TUNE_USED);
        vkmoe_context_destroy(context);
        desc.disable = "a1,no-such";
        check_fails(vkmoe_context_create(&desc, &context), VKMOE_E_ARGUMENT,
                    "'no-such' is no variant that can be disabled; there are: ");
        assert_int_equal(unsetenv("VKMOE_DISABLE"), 0);
        assert_int_equal(interpose.n_live, 0);
    }
}

// The list of kernels tells what plans will find, and tests nothing itself.
static void check_kernel(vkmoe_context *context, enum vkmoe_tune_state want, const char *why)
{
    vkmoe_kernel_info kernels[MOE_VK_N_VARIANTS];
    uint32_t n = MOE_VK_N_VARIANTS;
    long n_pipelines = interpose.n_pipelines, n_submits = interpose.n_submits;
    int n_sets = store.n_sets;
    check_ok(vkmoe_context_kernels(context, kernels, &n));
    assert_string_equal(kernels[MOE_VK_A1].verdict.kernel, "a1");
    assert_string_equal(kernels[MOE_VK_A1].kind, "fp16");
    assert_int_equal(kernels[MOE_VK_A1].verdict.state, want);
    if (!strstr(kernels[MOE_VK_A1].verdict.reason, why))
        fail_msg("'%s' does not say '%s'", kernels[MOE_VK_A1].verdict.reason, why);
    assert_int_equal(interpose.n_pipelines, n_pipelines);
    assert_int_equal(interpose.n_submits, n_submits);
    assert_int_equal(store.n_sets, n_sets);
}

static void the_list_of_kernels_follows_the_verdicts(void **state)
{
    static const struct {
        enum interpose_bug bug;
        enum vkmoe_tune_state want;
        const char *why;
    } cases[] = {{INTERPOSE_NO_BUG, VKMOE_TUNE_USED, ""},
                 {INTERPOSE_SHORT, VKMOE_TUNE_BAD, "wrong results"},
                 {INTERPOSE_NO_PIPELINE, VKMOE_TUNE_BAD, "did not make its pipeline"}};
    (void) state;
    vkmoe_host host = services();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        start(cases[i].bug);
        vkmoe_context *context = open_context(&host, "");
        check_kernel(context, VKMOE_TUNE_UNTESTED, "no plan has asked for it yet");
        assert_non_null(plan_of(context, NULL));
        check_kernel(context, cases[i].want, cases[i].why);
        vkmoe_context_destroy(context);
        context = open_context(&host, ""); // from the cache
        check_kernel(context, cases[i].want, cases[i].why);
        moe_vk(context->device)->caps.features &= ~MOE_VK_BIT(MOE_VK_FLOAT16);
        check_kernel(context, VKMOE_TUNE_UNAVAILABLE, "shaderFloat16 is not there");
        vkmoe_context_destroy(context);
        context = open_context(&host, "");
        moe_vk(context->device)->caps.max_shared = moe_vk_variants[MOE_VK_A1].shared - 1;
        check_kernel(context, VKMOE_TUNE_UNAVAILABLE, "of maxComputeSharedMemorySize, and there");
        check_refused(context, "of maxComputeSharedMemorySize, and there are");
        vkmoe_context_destroy(context);
    }
    start(INTERPOSE_NO_BUG);
    vkmoe_context *context = open_context(&host, "");
    moe_vk(context->device)->caps.driver_id = VK_DRIVER_ID_IMAGINATION_PROPRIETARY;
    check_kernel(context, VKMOE_TUNE_BAD, "this driver is known not to compute it: https://");
    vkmoe_context_destroy(context);
}

static void a_name_that_is_no_variant_is_refused(void **state)
{
    (void) state;
    start(INTERPOSE_NO_BUG);
    vkmoe_context *context = open_context(NULL, "");
    assert_null(plan_of(context, "a9"));
    assert_non_null(strstr(vkmoe_error_text(), "variant 'a9': there are only: "));
    assert_non_null(strstr(vkmoe_error_text(), "net-a0n (direct), a0 (fp32)"));
    vkmoe_context_destroy(context);
}

static void found_bad(enum interpose_bug kind, enum moe_vk_cause cause, const char *why)
{
    vkmoe_host host = services();
    start(kind);
    vkmoe_context *context = open_context(&host, "");
    check_plan(context, "a0");
    assert_true(interpose.n_pipelines > 0);
    check_stored(MOE_VK_BAD, cause);
    assert_non_null(strstr(store.log, why));
    check_refused(context, why);
    vkmoe_context_destroy(context);

    // Nobody tries again, not even when the driver would do it right now.
    bug(INTERPOSE_NO_BUG);
    int n_sets = store.n_sets;
    context = open_context(&host, "");
    check_plan(context, "a0");
    check_refused(context, why);
    assert_int_equal(interpose.n_pipelines, 0);
    assert_int_equal(store.n_sets, n_sets);
    vkmoe_context_destroy(context);
    assert_int_equal(interpose.n_live, 0);
}

// The last element of each sum is lost.
static void wrong_results_are_found(void **state)
{
    (void) state;
    found_bad(INTERPOSE_SHORT, MOE_VK_WRONG, "wrong results");
}

// And where only the shared expert's are wrong, which is computed without lists of tiles, or those
// for x in f16, or those of wide tiles, which plans for many tokens have.
static void wrong_results_of_a_few_pipelines_are_found(void **state)
{
    (void) state;
    enum { TILE = 1, LISTED = 3, INPUT_TYPE = 5 }; // in shaders/expert_gemm.comp
    static const uint32_t cases[][2] = {{LISTED, 0},
                                        {INPUT_TYPE, VKMOE_F16},
                                        {TILE, MOE_TILE_FULL},
                                        {TILE, 2 * MOE_TILE_FULL},
                                        {TILE, MOE_TILE_WIDE}};
    vkmoe_host host = services();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        start(INTERPOSE_SHORT);
        interpose.by_spec = true;
        interpose.spec = cases[i][0];
        interpose.value = cases[i][1];
        vkmoe_context *context = open_context(&host, "");
        check_plan(context, "a0");
        assert_true(interpose.n_pipelines > 0);
        check_stored(MOE_VK_BAD, MOE_VK_WRONG);
        vkmoe_context_destroy(context);
        assert_int_equal(interpose.n_live, 0);
    }
}

// And the memory that the results are read from holds those of a0.
static void missing_results_are_found(void **state)
{
    (void) state;
    found_bad(INTERPOSE_SKIP, MOE_VK_WRONG, "wrong results");
}

static void a_pipeline_that_fails_is_found(void **state)
{
    (void) state;
    found_bad(INTERPOSE_NO_PIPELINE, MOE_VK_NO_PIPELINE, "did not make its pipeline");
}

// The self-test's pipelines were made, then one of a plan's is not.
static void a_plans_pipeline_that_fails_is_found(void **state)
{
    (void) state;
    vkmoe_host host = services();
    start(INTERPOSE_NO_BUG);
    vkmoe_context *context = open_context(&host, "");
    check_plan(context, "a1");
    vkmoe_context_destroy(context);
    bug(INTERPOSE_NO_PIPELINE);
    context = open_context(&host, "");
    check_plan(context, "a0");
    check_stored(MOE_VK_BAD, MOE_VK_NO_PIPELINE);
    check_refused(context, "did not make its pipeline");
    vkmoe_context_destroy(context);
    assert_int_equal(interpose.n_live, 0);
}

static void without_memory_for_its_pipeline_a_plan_does_without(void **state)
{
    (void) state;
    vkmoe_host host = services();
    start(INTERPOSE_NO_BUG);
    vkmoe_context *context = open_context(&host, "");
    check_plan(context, "a1");
    vkmoe_context_destroy(context);
    bug(INTERPOSE_NO_PIPELINE);
    interpose.fail_result = VK_ERROR_OUT_OF_DEVICE_MEMORY;
    context = open_context(&host, "");
    check_plan(context, "a0");
    assert_true(interpose.n_pipelines > 0);
    assert_non_null(strstr(store.log, "does without variant 'a1'"));
    assert_null(plan_of(context, "a1")); // what is named is not replaced
    assert_non_null(strstr(vkmoe_error_text(), "VK_ERROR_OUT_OF_DEVICE_MEMORY"));
    interpose.bug = INTERPOSE_NO_BUG;
    check_plan(context, "a1");
    check_stored(MOE_VK_GOOD, MOE_VK_NO_CAUSE);
    vkmoe_context_destroy(context);
    assert_int_equal(interpose.n_live, 0);
}

// Routing is a0's: without its pipeline there is no plan, and a1 is as good as before.
static void a_pipeline_of_a0_that_fails_says_nothing_of_a1(void **state)
{
    (void) state;
    vkmoe_host host = services();
    for (int tested = 0; tested < 2; tested++) {
        start(INTERPOSE_NO_BUG);
        vkmoe_context *context = open_context(&host, "");
        if (tested) {
            check_plan(context, "a1");
            vkmoe_context_destroy(context);
            context = open_context(&host, "");
        }
        interpose.bug = INTERPOSE_NO_PIPELINE;
        interpose.n_pipelines = 0;
        interpose.kernel = moe_spv_table[MOE_SPV_ROUTE_BDA].words;
        assert_null(plan_of(context, NULL));
        assert_true(interpose.n_pipelines > 0);
        interpose.bug = INTERPOSE_NO_BUG;
        check_plan(context, "a1");
        check_stored(MOE_VK_GOOD, MOE_VK_NO_CAUSE);
        vkmoe_context_destroy(context);
        assert_int_equal(interpose.n_live, 0);
    }
}

static void without_a_cache_the_context_remembers(void **state)
{
    (void) state;
    start(INTERPOSE_NO_PIPELINE);
    vkmoe_context *context = open_context(NULL, "");
    check_plan(context, "a0");
    long n = interpose.n_pipelines;
    assert_true(n > 0);
    check_plan(context, "a0");
    assert_int_equal(interpose.n_pipelines, n);
    vkmoe_context_destroy(context);
    bug(INTERPOSE_NO_BUG); // the next context knows nothing of it
    context = open_context(NULL, "");
    check_plan(context, "a1");
    vkmoe_context_destroy(context);
}

// ---- calls that fail ---------------------------------------------------------------------------

// At any call of the self-test: a plan or a clean error, never an object left, and no verdict about
// the variant when something ran out.
static void inject(const char *name, VkResult result)
{
    vkmoe_host host = services();
    for (long n = 1;; n++) {
        start(INTERPOSE_NO_BUG);
        vkmoe_context *context = open_context(&host, "");
        // Too little for the widest tiles, whose runs are as the others.
        moe_vk(context->device)->caps.max_shared = moe_vk_variants[MOE_VK_A0].shared;
        interpose.fail_name = name;
        interpose.fail_at = n;
        interpose.fail_result = result;
        interpose.n_calls = 0;
        const char *variant = plan_of(context, NULL);
        bool failed = interpose.failed, lost = result == VK_ERROR_DEVICE_LOST;
        interpose.fail_name = NULL;
        if (failed && lost)
            assert_true(!variant || strcmp(variant, "a0") == 0);
        else if (failed)
            check_plan(context, "a1"); // asks again
        vkmoe_context_destroy(context);
        if (interpose.n_live != 0)
            fail_msg("%s failed at call %ld with %d: %ld objects left", name, n, result,
                     interpose.n_live);
        if (!failed)
            return;
    }
}

static void failures_in_the_self_test_are_clean(void **state)
{
    (void) state;
    inject("vkAllocateMemory", VK_ERROR_OUT_OF_DEVICE_MEMORY);
    inject("vkCreateComputePipelines", VK_ERROR_OUT_OF_HOST_MEMORY);
    inject("vkMapMemory", VK_ERROR_MEMORY_MAP_FAILED);
    inject("vkAllocateMemory", VK_ERROR_TOO_MANY_OBJECTS);
    inject("vkCreateBuffer", VK_ERROR_UNKNOWN); // before the run: a0 would have met it too
    inject("vkQueueSubmit", VK_ERROR_OUT_OF_DEVICE_MEMORY);
    inject("vkQueueSubmit", VK_ERROR_DEVICE_LOST);
    inject("vkWaitForFences", VK_ERROR_DEVICE_LOST);
}

int main(void)
{
    const struct CMUnitTest always[] = {cmocka_unit_test(without_f16_it_is_off),
                                        cmocka_unit_test(a_name_that_is_no_variant_is_refused)};
    const struct CMUnitTest with_f16[] = {
        cmocka_unit_test(a_disabled_variant_is_not_used),
        cmocka_unit_test(the_list_of_kernels_follows_the_verdicts),
        cmocka_unit_test(a_good_variant_is_tested_once),
        cmocka_unit_test(wrong_results_are_found),
        cmocka_unit_test(wrong_results_of_a_few_pipelines_are_found),
        cmocka_unit_test(missing_results_are_found),
        cmocka_unit_test(a_pipeline_that_fails_is_found),
        cmocka_unit_test(a_plans_pipeline_that_fails_is_found),
        cmocka_unit_test(without_memory_for_its_pipeline_a_plan_does_without),
        cmocka_unit_test(a_pipeline_of_a0_that_fails_says_nothing_of_a1),
        cmocka_unit_test(without_a_cache_the_context_remembers),
        cmocka_unit_test(failures_in_the_self_test_are_clean),
    };
    has_f16 = device_has_f16();
    int failed = cmocka_run_group_tests(always, NULL, NULL);
    if (has_f16)
        failed += cmocka_run_group_tests(with_f16, NULL, NULL);
    return failed != 0;
}
