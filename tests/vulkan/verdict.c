// SPDX-License-Identifier: MIT
// What becomes of a kernel variant that a driver gets wrong: the self-test finds it, the plan does
// without, the verdict is kept for the next process, and one that did not survive is remembered.
// The bugs are interpose.c's. On a device without f16 the variant is off, whatever the cache says.
#include "check.h"
#include "fixture.h"
#include "interpose.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "api/api.h"
#include "vulkan/plan.h"

static bool has_f16; // of the device
static const char *program_path;

// ---- a cache of the host's, and its log --------------------------------------------------------

static struct {
    char key[128]; // of the verdicts; pipelines are not kept
    unsigned char data[4096];
    size_t size;
    int n_sets;
    char log[4096];
} store;

static bool store_get(void *user, const char *key, void *data, size_t *size)
{
    (void) user;
    if (store.size == 0 || strcmp(key, store.key) != 0)
        return false;
    if (data)
        memcpy(data, store.data, store.size < *size ? store.size : *size);
    *size = store.size;
    return true;
}

static void store_set(void *user, const char *key, const void *data, size_t size)
{
    (void) user;
    if (strncmp(key, "verdicts-", 9) != 0)
        return;
    assert_true(size <= sizeof store.data && strlen(key) < sizeof store.key);
    memmove(store.key, key, strlen(key) + 1); // a test may pass the very key on
    memcpy(store.data, data, size);
    store.size = size;
    store.n_sets++;
}

static void keep_log(void *user, enum vkmoe_log_level level, const char *text)
{
    (void) user;
    size_t n = strlen(store.log);
    if (level <= VKMOE_LOG_WARN)
        snprintf(store.log + n, sizeof store.log - n, "%s\n", text);
}

static vkmoe_host services(void)
{
    vkmoe_host host = vkmoe_host_init();
    host.cache_get = store_get;
    host.cache_set = store_set;
    host.log = keep_log;
    return host;
}

// The stored verdict of a1. Changes it too, as another process might have left it.
static struct moe_vk_verdict *stored(struct moe_vk_record *record)
{
    enum { SEAL = 16 };
    assert_int_equal(store.size, SEAL + sizeof *record);
    memcpy(record, store.data + SEAL, sizeof *record);
    return &record->variants[MOE_VK_A1];
}

static void check_stored(enum moe_vk_state state, enum moe_vk_cause cause)
{
    struct moe_vk_record record;
    const struct moe_vk_verdict *verdict = stored(&record);
    assert_int_equal(verdict->state, state);
    assert_int_equal(verdict->cause, cause);
}

// ---- contexts and plans ------------------------------------------------------------------------

static vkmoe_context *open_context(const vkmoe_host *host, const char *cache_dir)
{
    vkmoe_context *context;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "vulkan";
    desc.host = host;
    desc.cache_dir = cache_dir;
    check_ok(vkmoe_context_create(&desc, &context));
    return context;
}

// A plan of precision half for f16 weights; the name of its variant, or NULL if it is refused.
static const char *plan_of(vkmoe_context *context, const char *variant)
{
    struct moe_layer layer;
    struct moe_graph graph;
    struct moe_program *program;
    vkmoe_layer_desc desc = full_layer();
    desc.in_type = desc.out_type = VKMOE_F16;
    check_ok(moe_layer_init(&layer, &desc));
    moe_graph_forward(&graph, &layer, false);
    struct moe_program_params params = {
        .max_tokens = 16, .precision = VKMOE_PRECISION_HALF, .variant = variant, .budget_ms = 50};
    if (moe_vk_program_create(context->device, &graph, &params, &program) != VKMOE_OK)
        return NULL;
    const char *name = ((struct moe_vk_program *) program)->variant->name;
    moe_vk_program_destroy(program);
    return name;
}

static void check_plan(vkmoe_context *context, const char *want)
{
    const char *got = plan_of(context, NULL);
    if (!got)
        fail_msg("no plan: %s", vkmoe_error_text());
    assert_string_equal(got, want);
}

static void check_refused(vkmoe_context *context, const char *why)
{
    assert_null(plan_of(context, "a1"));
    if (!strstr(vkmoe_error_text(), why) || !strstr(vkmoe_error_text(), "'a1'"))
        fail_msg("'%s' does not say '%s'", vkmoe_error_text(), why);
}

static void bug(enum interpose_bug kind)
{
    interpose = (struct interpose){
        .recycle = kind == INTERPOSE_SKIP,
        .kernel = moe_spv_table[MOE_SPV_EXPERT_GEMM_F16_BDA].words,
        .bug = kind,
        .word = (sizeof(struct head_params) + offsetof(struct gemm_params, d_in)) / 4,
    };
}

static void start(enum interpose_bug kind)
{
    memset(&store, 0, sizeof store);
    bug(kind);
}

// ---- tests -------------------------------------------------------------------------------------

static void without_f16_it_is_off(void **state)
{
    (void) state;
    vkmoe_host host = services();
    start(INTERPOSE_NO_BUG);
    vkmoe_context *context = open_context(&host, "");
    const struct moe_vk *vk = moe_vk(context->device);
    assert_int_equal(moe_vk_has(&vk->caps, MOE_VK_FLOAT16), has_f16);
    assert_string_equal(vk->base.info.tier, has_f16 ? "T1 fp16" : "T0 floor");
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
    assert_int_equal(store.n_sets, 2); // the mark, and the verdict
    check_plan(context, "a1");
    assert_string_equal(plan_of(context, "a1"), "a1");
    assert_string_equal(plan_of(context, "a0"), "a0");
    vkmoe_context_destroy(context);

    interpose.n_submits = 0;
    context = open_context(&host, "");
    check_plan(context, "a1");
    assert_int_equal(store.n_sets, 2);
    assert_int_equal(interpose.n_submits, 0); // making a plan submits nothing but tests
    vkmoe_context_destroy(context);
    assert_string_equal(store.log, "");
    assert_int_equal(interpose.n_live, 0);
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

// ---- a record of another time ------------------------------------------------------------------

// Writes a1's verdict into the store as a context would have.
static void store_verdict(vkmoe_context *context, enum moe_vk_state state, enum moe_vk_cause cause,
                          int64_t age)
{
    struct moe_vk_record record;
    struct moe_vk_verdict *verdict = stored(&record);
    verdict->state = state;
    verdict->cause = cause;
    verdict->since = (uint64_t) ((int64_t) time(NULL) - age);
    moe_vk_entry_write(moe_vk(context->device), store.key, &record, sizeof record);
}

static void damaged_records_are_absent(void **state)
{
    (void) state;
    vkmoe_host host = services();
    start(INTERPOSE_NO_BUG);
    vkmoe_context *context = open_context(&host, "");
    check_plan(context, "a1");
    for (int kind = 0; kind < 4; kind++) {
        store_verdict(context, MOE_VK_BAD, MOE_VK_WRONG, 0);
        struct moe_vk_record record;
        (void) stored(&record);
        if (kind == 0)
            store.data[store.size - 1] ^= 1;
        if (kind == 1)
            store.size -= 8;
        if (kind == 2)
            record.shaders ^= 1; // of another build
        if (kind == 3)
            record.variants[MOE_VK_A1].state = MOE_VK_N_STATES;
        if (kind >= 2)
            moe_vk_entry_write(moe_vk(context->device), store.key, &record, sizeof record);
        vkmoe_context *other = open_context(&host, "");
        check_plan(other, "a1"); // tested anew
        vkmoe_context_destroy(other);
        check_stored(MOE_VK_GOOD, MOE_VK_NO_CAUSE);
    }
    vkmoe_context_destroy(context);
}

static vkmoe_context *import(vkmoe_context *owner, const vkmoe_host *host)
{
    vkmoe_context *context;
    vkmoe_vk_handles handles;
    VkPhysicalDeviceVulkan12Features v12 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_2_FEATURES,
        .bufferDeviceAddress = VK_TRUE,
        .shaderFloat16 = VK_TRUE};
    check_ok(vkmoe_vk_get_handles(owner, &handles));
    vkmoe_vk_import_desc desc = vkmoe_vk_import_desc_init();
    desc.host = host;
    desc.get_instance_proc_addr = handles.get_instance_proc_addr;
    desc.instance = handles.instance;
    desc.physical_device = handles.physical_device;
    desc.device = handles.device;
    desc.queue_family = handles.queue_family;
    desc.api_version = VK_API_VERSION_1_3;
    desc.features = &v12;
    check_ok(vkmoe_context_import_vk(&desc, &context));
    return context;
}

// A context that only records asks the cache, tests nothing and submits nothing.
static void a_recording_context_reads_the_verdict(void **state)
{
    static const struct {
        enum moe_vk_state state;
        enum moe_vk_cause cause;
        int64_t age;
        const char *want, *why;
    } cases[] = {
        {MOE_VK_UNTESTED, MOE_VK_NO_CAUSE, 0, "a1", NULL}, // the table does not name this driver
        {MOE_VK_GOOD, MOE_VK_NO_CAUSE, 0, "a1", NULL},
        {MOE_VK_BAD, MOE_VK_WRONG, 0, "a0", "wrong results"},
        {MOE_VK_TRYING, MOE_VK_NO_CAUSE, 0, "a0", "has begun elsewhere"},
        {MOE_VK_TRYING, MOE_VK_NO_CAUSE, 3600, "a0", "an earlier process ended"},
        {MOE_VK_TRYING_AGAIN, MOE_VK_NO_CAUSE, 0, "a0", "has begun elsewhere"},
        {MOE_VK_TRYING_AGAIN, MOE_VK_NO_CAUSE, 3600, "a0", "an earlier process ended"},
    };
    (void) state;
    vkmoe_host host = services();
    start(INTERPOSE_NO_BUG);
    vkmoe_context *owner = open_context(&host, "");
    check_plan(owner, "a1");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        store_verdict(owner, cases[i].state, cases[i].cause, cases[i].age);
        int n_sets = store.n_sets;
        interpose.n_submits = 0;
        vkmoe_context *context = import(owner, &host);
        check_plan(context, cases[i].want);
        if (cases[i].why)
            check_refused(context, cases[i].why);
        assert_int_equal(interpose.n_submits, 0);
        assert_int_equal(store.n_sets, n_sets);
        vkmoe_context_destroy(context);
    }
    vkmoe_context_destroy(owner);
}

// The table comes before a good verdict where a context could test, and after it where it cannot.
static void a_listed_driver_is_bad(void **state)
{
    (void) state;
    vkmoe_host host = services();
    start(INTERPOSE_NO_BUG);
    vkmoe_context *owner = open_context(&host, "");
    check_plan(owner, "a1");
    for (int untested = 0; untested < 2; untested++)
        for (int queue = 0; queue < 2; queue++) {
            enum moe_vk_state stored_state = untested ? MOE_VK_UNTESTED : MOE_VK_GOOD;
            store_verdict(owner, stored_state, MOE_VK_NO_CAUSE, 0);
            int n_sets = store.n_sets;
            interpose.n_submits = 0;
            vkmoe_context *context = queue ? open_context(&host, "") : import(owner, &host);
            moe_vk(context->device)->caps.driver_id = VK_DRIVER_ID_IMAGINATION_PROPRIETARY;
            if (queue || untested)
                check_refused(context, "known not to compute");
            check_plan(context, queue || untested ? "a0" : "a1");
            assert_int_equal(interpose.n_submits, 0);
            assert_int_equal(store.n_sets, n_sets);
            vkmoe_context_destroy(context);
            check_stored(stored_state, MOE_VK_NO_CAUSE);
        }
    vkmoe_context_destroy(owner);
}

// ---- the process ends in the self-test ---------------------------------------------------------

static void run_to_the_crash(const char *cache_dir)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        execl(program_path, program_path, cache_dir, (char *) NULL);
        _exit(127);
    }
    int code;
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_true(WIFEXITED(code));
    assert_int_equal(WEXITSTATUS(code), 9);
}

// In the child.
static int crash(const char *cache_dir)
{
    bug(INTERPOSE_CRASH);
    vkmoe_context *context = open_context(NULL, cache_dir);
    return plan_of(context, NULL) ? 0 : 1; // not reached
}

// The record of a folder, as far as it tells of a1; older by `age` seconds from now on.
static struct moe_vk_verdict kept(const char *folder, uint64_t age)
{
    struct moe_vk_entry entry;
    struct moe_vk_record record;
    vkmoe_context *context = open_context(NULL, folder);
    const struct moe_vk *vk = moe_vk(context->device);
    moe_vk_entry_read(vk, store.key, &entry); // an earlier test's: the same device and build
    assert_non_null(entry.data);
    assert_int_equal(entry.size, sizeof record);
    memcpy(&record, entry.data, sizeof record);
    moe_vk_entry_finish(vk, &entry);
    record.variants[MOE_VK_A1].since -= age;
    if (age > 0)
        moe_vk_entry_write(vk, store.key, &record, sizeof record);
    vkmoe_context_destroy(context);
    return record.variants[MOE_VK_A1];
}

static void check_later(const char *folder, const char *variant, const char *why)
{
    vkmoe_context *context = open_context(NULL, folder);
    check_plan(context, variant);
    if (why)
        check_refused(context, why);
    vkmoe_context_destroy(context);
}

static void make_folder(char folder[])
{
    assert_true(store.size > 0);
    assert_non_null(mkdtemp(folder));
    bug(INTERPOSE_NO_BUG);
}

static void remove_folder(const char *folder)
{
    char command[160];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    assert_int_equal(system(command), 0);
}

static void a_second_crash_is_remembered(void **state)
{
    (void) state;
    char folder[] = "vkmoe-verdict-XXXXXX";
    make_folder(folder);
    run_to_the_crash(folder);
    // Just now: perhaps that process is still at it.
    check_later(folder, "a0", "has begun elsewhere");
    assert_int_equal(kept(folder, 3600).state, MOE_VK_TRYING);
    // Long ago: it is not, and the next one tries again.
    run_to_the_crash(folder);
    check_later(folder, "a0", "has begun elsewhere");
    assert_int_equal(kept(folder, 3600).state, MOE_VK_TRYING_AGAIN);
    check_later(folder, "a0", "an earlier process ended");
    assert_int_equal(kept(folder, 0).state, MOE_VK_BAD);
    assert_int_equal(kept(folder, 0).cause, MOE_VK_CRASHED);
    assert_int_equal(interpose.n_pipelines, 0);
    remove_folder(folder);
}

static void a_process_that_is_killed_condemns_nothing(void **state)
{
    (void) state;
    char folder[] = "vkmoe-verdict-XXXXXX";
    make_folder(folder);
    run_to_the_crash(folder);
    kept(folder, 3600);
    check_later(folder, "a1", NULL);
    assert_int_equal(kept(folder, 0).state, MOE_VK_GOOD);
    remove_folder(folder);
}

// Two contexts begin without a verdict. One is testing when the other is asked for a plan.
static void a_mark_is_not_written_over(void **state)
{
    (void) state;
    vkmoe_host host = services();
    start(INTERPOSE_NO_BUG);
    vkmoe_context *other = open_context(&host, ""), *context = import(other, &host);
    check_plan(other, "a1"); // so that there is a record
    store_verdict(other, MOE_VK_UNTESTED, MOE_VK_NO_CAUSE, 0);
    check_plan(context, "a1"); // it may not test: that stays undecided
    store_verdict(other, MOE_VK_TRYING, MOE_VK_NO_CAUSE, 0);
    int n_sets = store.n_sets;
    check_plan(context, "a0");
    check_refused(context, "has begun elsewhere");
    assert_int_equal(store.n_sets, n_sets);
    check_stored(MOE_VK_TRYING, MOE_VK_NO_CAUSE);
    vkmoe_context_destroy(context);
    vkmoe_context_destroy(other);
}

// What somebody else wrote of another variant meanwhile is still there.
static void a_verdict_changes_its_own_entry(void **state)
{
    (void) state;
    vkmoe_host host = services();
    struct moe_vk_record record;
    start(INTERPOSE_NO_BUG);
    vkmoe_context *context = open_context(&host, "");
    check_plan(context, "a1");
    (void) stored(&record);
    record.variants[MOE_VK_A0] = (struct moe_vk_verdict){5, MOE_VK_BAD, MOE_VK_WRONG};
    moe_vk_entry_write(moe_vk(context->device), store.key, &record, sizeof record);
    moe_vk_condemn(moe_vk(context->device), &moe_vk_variants[MOE_VK_A1], MOE_VK_NO_PIPELINE);
    check_stored(MOE_VK_BAD, MOE_VK_NO_PIPELINE);
    (void) stored(&record);
    assert_int_equal(record.variants[MOE_VK_A0].since, 5);
    assert_int_equal(record.variants[MOE_VK_A0].cause, MOE_VK_WRONG);
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

static struct {
    long n, fail_at; // allocations, from 1
} memory;

static void *allocate(void *user, size_t size, size_t align)
{
    (void) user;
    size_t whole = (size + align - 1) / align * align; // of the alignment, as aligned_alloc wants
    return ++memory.n == memory.fail_at ? NULL : aligned_alloc(align, whole);
}

static void release(void *user, void *p)
{
    (void) user;
    free(p);
}

// Nor when the host's memory ran out.
static void an_allocation_that_fails_says_nothing(void **state)
{
    (void) state;
    vkmoe_host host = services();
    host.alloc = allocate;
    host.free = release;
    for (long n = 1;; n++) {
        start(INTERPOSE_NO_BUG);
        memory.fail_at = 0;
        vkmoe_context *context = open_context(&host, "");
        memory.n = 0;
        memory.fail_at = n;
        (void) plan_of(context, NULL);
        bool failed = memory.n >= n;
        memory.fail_at = 0;
        check_plan(context, "a1");
        vkmoe_context_destroy(context);
        if (!failed)
            return;
    }
}

static int set_up(void **state)
{
    (void) state;
    vkmoe_context *context = open_context(NULL, "");
    VkPhysicalDeviceShaderFloat16Int8Features float16 = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_FLOAT16_INT8_FEATURES};
    VkPhysicalDeviceFeatures2 features = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2,
                                          .pNext = &float16};
    struct moe_vk *vk = moe_vk(context->device);
    vk->fn.vkGetPhysicalDeviceFeatures2(vk->physical, &features);
    has_f16 = float16.shaderFloat16;
    vkmoe_context_destroy(context);
    return 0;
}

int main(int argc, char **argv)
{
    program_path = argv[0];
    if (argc > 1)
        return crash(argv[1]);
    const struct CMUnitTest always[] = {cmocka_unit_test(without_f16_it_is_off)};
    const struct CMUnitTest with_f16[] = {
        cmocka_unit_test(a_good_variant_is_tested_once),
        cmocka_unit_test(wrong_results_are_found),
        cmocka_unit_test(missing_results_are_found),
        cmocka_unit_test(a_pipeline_that_fails_is_found),
        cmocka_unit_test(a_plans_pipeline_that_fails_is_found),
        cmocka_unit_test(without_memory_for_its_pipeline_a_plan_does_without),
        cmocka_unit_test(a_pipeline_of_a0_that_fails_says_nothing_of_a1),
        cmocka_unit_test(without_a_cache_the_context_remembers),
        cmocka_unit_test(damaged_records_are_absent),
        cmocka_unit_test(a_recording_context_reads_the_verdict),
        cmocka_unit_test(a_listed_driver_is_bad),
        cmocka_unit_test(a_second_crash_is_remembered),
        cmocka_unit_test(a_process_that_is_killed_condemns_nothing),
        cmocka_unit_test(a_mark_is_not_written_over),
        cmocka_unit_test(a_verdict_changes_its_own_entry),
        cmocka_unit_test(failures_in_the_self_test_are_clean),
        cmocka_unit_test(an_allocation_that_fails_says_nothing),
    };
    int failed = cmocka_run_group_tests(always, set_up, NULL);
    if (has_f16)
        failed += cmocka_run_group_tests(with_f16, NULL, NULL);
    return failed != 0;
}
