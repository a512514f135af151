// SPDX-License-Identifier: MIT
// The choice of a network's kernels, on a driver that gets one wrong (interpose.c): who gets the
// variant without shared memory, that its self-test finds each of its kernels' errors, what is kept
// of that, and that failures leave nothing.
#include "check.h"
#include "net_cases.h"
#include "verdicts.h"

#include "api/net.h"
#include "vulkan/net.h"

#include <stdlib.h>

static struct net_case of;
static enum vkmoe_status status; // of the last network

static const char *const own = "net-a0n";

// As a GPU of Arm's, where that variant is worth a try, or as the device is.
static vkmoe_context *open_arm(const vkmoe_host *host, bool arm)
{
    vkmoe_context *context = open_context(host, "");
    struct moe_vk_caps *caps = &moe_vk(context->device)->caps;
    caps->disabled = 0;
    caps->driver_id = arm ? VK_DRIVER_ID_ARM_PROPRIETARY : caps->driver_id;
    return context;
}

// The variant of a network; NULL where there is none.
static const char *net_of(vkmoe_context *context, const char *variant)
{
    vkmoe_net *net;
    of.desc.variant = variant;
    status = vkmoe_net_create(context, &of.desc, &net);
    if (status != VKMOE_OK)
        return NULL;
    const char *name = ((const struct moe_vk_net *) net->on_device)->variant->name;
    vkmoe_net_destroy(net);
    return name;
}

static void check_net(vkmoe_context *context, const char *want)
{
    const char *got = net_of(context, NULL);
    if (!got)
        fail_msg("no network: %s", vkmoe_error_text());
    assert_string_equal(got, want);
}

static void check_no_net(vkmoe_context *context, const char *why)
{
    assert_null(net_of(context, own));
    if (!strstr(vkmoe_error_text(), why) || !strstr(vkmoe_error_text(), own))
        fail_msg("'%s' does not say '%s'", vkmoe_error_text(), why);
}

static void check_state(enum moe_vk_state state, enum moe_vk_cause cause)
{
    struct moe_vk_record record;
    stored(&record);
    assert_int_equal(record.variants[MOE_VK_NET_A0N].state, state);
    assert_int_equal(record.variants[MOE_VK_NET_A0N].cause, cause);
}

static void the_device_decides(void **state)
{
    (void) state;
    vkmoe_host host = services();
    start(INTERPOSE_NO_BUG);
    vkmoe_context *context = open_arm(&host, false);
    check_net(context, "a0"); // it waits for times
    assert_string_equal(net_of(context, own), own);
    check_state(MOE_VK_GOOD, MOE_VK_NO_CAUSE); // and no mark of pipelines is left
    vkmoe_context_destroy(context);

    context = open_arm(&host, true);
    check_net(context, own);
    check_plan(context, "a0n"); // layers have another
    moe_vk(context->device)->caps.disabled = MOE_VK_BIT(MOE_VK_NET_A0N);
    check_net(context, "a0");
    check_no_net(context, "disabled by VKMOE_DISABLE");
    vkmoe_context_destroy(context);
    assert_int_equal(interpose.n_live, 0);
}

enum { ANY_TYPE = -1 };

// type: of the weights that the kernel gets wrong.
static void found_bad(enum moe_spv_id kernel, uint32_t word, int type, enum interpose_bug kind,
                      enum moe_vk_cause cause, const char *why)
{
    enum { W_TYPE = 1 }; // in shaders/net_matmul_direct.comp
    vkmoe_host host = services();
    start(kind);
    interpose.kernel = moe_spv_table[kernel].words;
    interpose.word = word;
    interpose.by_spec = type != ANY_TYPE;
    interpose.spec = W_TYPE;
    interpose.value = (uint32_t) type;
    vkmoe_context *context = open_arm(&host, true);
    check_net(context, "a0");
    assert_true(interpose.n_pipelines > 0);
    check_state(MOE_VK_BAD, cause);
    assert_non_null(strstr(store.log, why));
    check_no_net(context, why);
    vkmoe_context_destroy(context);

    // Nobody tries again.
    bug(INTERPOSE_NO_BUG);
    interpose.kernel = moe_spv_table[kernel].words;
    context = open_arm(&host, true);
    check_net(context, "a0");
    check_no_net(context, why);
    assert_int_equal(interpose.n_pipelines, 0);
    vkmoe_context_destroy(context);
    assert_int_equal(interpose.n_live, 0);
}

// Words of push constants.
enum {
    DEPTH = (sizeof(struct net_head) + offsetof(struct net_matmul_params, depth)) / 4,
    WIDTH = (sizeof(struct net_head) + offsetof(struct net_matmul_params, width)) / 4,
};

static void errors_of_either_kernel_are_found(void **state)
{
    (void) state;
    static const int types[] = {ANY_TYPE, VKMOE_F32, VKMOE_F16, VKMOE_BF16};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        found_bad(MOE_SPV_NET_MATMUL_DIRECT_BDA, DEPTH, types[i], INTERPOSE_SHORT, MOE_VK_WRONG,
                  "wrong results");
    found_bad(MOE_SPV_NET_MATMUL_DW_DIRECT_BDA, WIDTH, ANY_TYPE, INTERPOSE_SHORT, MOE_VK_WRONG,
              "wrong results");
    found_bad(MOE_SPV_NET_MATMUL_DIRECT_BDA, 0, VKMOE_BF16, INTERPOSE_NO_PIPELINE,
              MOE_VK_NO_PIPELINE, "the driver did not make its pipeline");
    found_bad(MOE_SPV_NET_MATMUL_DW_DIRECT_BDA, 0, ANY_TYPE, INTERPOSE_NO_PIPELINE,
              MOE_VK_NO_PIPELINE, "the driver did not make its pipeline");
}

// A network that names a variant by matrices, whose kernel gets a word one too small.
static void matrices_found_bad(enum moe_vk_variant_id id, enum moe_spv_id kernel, uint32_t word)
{
    const struct moe_vk_variant *variant = &moe_vk_variants[id];
    vkmoe_host host = services();
    struct moe_vk_record record;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_context *context;
    start(word > 0 ? INTERPOSE_SHORT : INTERPOSE_NO_BUG);
    interpose.kernel = moe_spv_table[kernel].words;
    interpose.word = word;
    desc.device = "vulkan";
    desc.host = &host;
    desc.cache_dir = "";
    check_ok(vkmoe_context_create(&desc, &context));
    const char *got = net_of(context, variant->name);
    stored(&record);
    if (word > 0) {
        assert_null(got);
        assert_non_null(strstr(vkmoe_error_text(), "wrong results"));
        assert_int_equal(record.variants[id].cause, MOE_VK_WRONG);
    } else {
        assert_string_equal(got, variant->name);
        assert_int_equal(record.variants[id].state, MOE_VK_GOOD);
    }
    vkmoe_context_destroy(context);
    assert_int_equal(interpose.n_live, 0);
}

// Can the device have it?
static bool has_variant(enum moe_vk_variant_id id)
{
    const struct moe_program_params half = {.precision = VKMOE_PRECISION_HALF};
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_context *context;
    char why[160];
    desc.device = "vulkan";
    desc.cache_dir = "";
    check_ok(vkmoe_context_create(&desc, &context));
    const struct moe_vk_caps *caps = &moe_vk(context->device)->caps;
    const bool has = !moe_vk_why_not(&moe_vk_variants[id], caps, NULL, &half, why) &&
                     !moe_vk_known_bad(caps, id);
    vkmoe_context_destroy(context);
    return has;
}

// On lavapipe of Mesa 26, where there are such matrices.
static void errors_of_matrices_are_found(void **state)
{
    (void) state;
    static const enum moe_vk_variant_id ids[] = {MOE_VK_NET_A4, MOE_VK_NET_A3};
    uint32_t n = 0;
    of.desc.precision = VKMOE_PRECISION_HALF;
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        const struct moe_vk_variant *variant = &moe_vk_variants[ids[i]];
        if (!has_variant(ids[i]))
            continue;
        matrices_found_bad(ids[i], variant->gemm_bda, 0);
        matrices_found_bad(ids[i], variant->gemm_bda, DEPTH);
        matrices_found_bad(ids[i], variant->dw_bda, WIDTH);
        n++;
    }
    of.desc.precision = VKMOE_PRECISION_EXACT;
    if (n == 0)
        skip();
}

// Times come of products of a network, not of a layer.
static void tune_times_it(void **state)
{
    (void) state;
    vkmoe_host host = services();
    vkmoe_tune_verdict v[MOE_VK_N_VARIANTS];
    uint32_t n = MOE_VK_N_VARIANTS;
    start(INTERPOSE_NO_BUG);
    vkmoe_context *context = open_arm(&host, false);
    moe_vk(context->device)->caps.disabled = MOE_VK_BIT(MOE_VK_A0N) | MOE_VK_BIT(MOE_VK_A1);
    check_ok(context->device->backend->tune(context->device, false, v, &n));
    assert_string_equal(v[MOE_VK_NET_A0N].kernel, own);
    assert_true(v[MOE_VK_NET_A0N].seconds > 0 && v[MOE_VK_NET_A0N].base_seconds > 0);
    const bool faster = v[MOE_VK_NET_A0N].seconds <= 0.97 * v[MOE_VK_NET_A0N].base_seconds;
    assert_int_equal(v[MOE_VK_NET_A0N].state, faster ? VKMOE_TUNE_USED : VKMOE_TUNE_NOT_FASTER);
    check_net(context, faster ? own : "a0");
    assert_string_equal(net_of(context, own), own);
    vkmoe_context_destroy(context);
    assert_int_equal(interpose.n_live, 0);
}

// ---- failures ----------------------------------------------------------------------------------

// In a self-test too: then the network does without the variant, or there is none.
static void allocations_may_fail(void **state)
{
    (void) state;
    vkmoe_host host = limited_services();
    uint32_t n_failed = 0;
    for (long n = 0, done = 0; !done; n += 1 + n / 6) {
        start(INTERPOSE_NO_BUG);
        n_allocations_left = 10000;
        vkmoe_context *context = open_arm(&host, true);
        n_allocations_left = n;
        const char *name = net_of(context, NULL);
        done = n_allocations_left >= 0;
        n_failed += !name;
        if (!name && status != VKMOE_E_MEMORY)
            fail_msg("%ld allocations: %s", n, vkmoe_error_text());
        if (done)
            assert_string_equal(name, own);
        vkmoe_context_destroy(context);
        assert_int_equal(interpose.n_live, 0);
        assert_true(n < 5000);
    }
    assert_true(n_failed > 5);
}

static void device_calls_may_fail(void **state)
{
    (void) state;
    static const struct {
        const char *name;
        VkResult result;
    } calls[] = {{"vkAllocateMemory", VK_ERROR_OUT_OF_DEVICE_MEMORY},
                 {"vkCreateComputePipelines", VK_ERROR_OUT_OF_HOST_MEMORY},
                 {"vkQueueSubmit", VK_ERROR_DEVICE_LOST}};
    vkmoe_host host = services();
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        bool failed = true;
        for (long at = 1; failed; at += 1 + at / 2) {
            start(INTERPOSE_NO_BUG);
            vkmoe_context *context = open_arm(&host, true);
            interpose.fail_name = calls[i].name;
            interpose.fail_at = at;
            interpose.fail_result = calls[i].result;
            interpose.n_calls = 0;
            const char *name = net_of(context, NULL);
            failed = interpose.failed;
            assert_true(name || failed);
            if (!failed)
                assert_string_equal(name, own);
            interpose.fail_name = NULL;
            vkmoe_context_destroy(context);
            assert_int_equal(interpose.n_live, 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_device_decides),
        cmocka_unit_test(errors_of_either_kernel_are_found),
        cmocka_unit_test(errors_of_matrices_are_found),
        cmocka_unit_test(tune_times_it),
        cmocka_unit_test(allocations_may_fail),
        cmocka_unit_test(device_calls_may_fail),
    };
    net_case_init(&of, net_case_find("gated"));
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
