// SPDX-License-Identifier: MIT
// What an earlier process left in the cache about a kernel variant: good or bad, damaged, of
// another build, or the mark of a self-test that never ended. Only where there is f16: on lavapipe.
#include "check.h"
#include "verdicts.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *program_path;

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
        {MOE_VK_NOT_FASTER, MOE_VK_SLOWER, 0, "a0", NULL},
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
        vkmoe_context *context = import_of(owner, &host, false);
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
            vkmoe_context *context =
                queue ? open_context(&host, "") : import_of(owner, &host, false);
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

// A self-test is good; then the driver does not survive the pipelines of a plan, which are others.
static void leave_good(const char *folder)
{
    bool good;
    vkmoe_context *context = open_context(NULL, folder);
    check_ok(moe_vk_judge(moe_vk(context->device), &moe_vk_variants[MOE_VK_A1], &good));
    assert_true(good);
    vkmoe_context_destroy(context);
    assert_int_equal(kept(folder, 0).state, MOE_VK_GOOD);
}

static void a_crash_at_a_plans_pipelines_is_remembered(void **state)
{
    (void) state;
    char folder[] = "vkmoe-verdict-XXXXXX";
    make_folder(folder);
    leave_good(folder);
    run_to_the_crash(folder);
    check_later(folder, "a0", "has begun elsewhere");
    assert_int_equal(kept(folder, 3600).state, MOE_VK_MAKING);
    run_to_the_crash(folder);
    check_later(folder, "a0", "has begun elsewhere");
    assert_int_equal(kept(folder, 3600).state, MOE_VK_MAKING_AGAIN);
    interpose.n_pipelines = 0;
    check_later(folder, "a0", "an earlier process ended");
    assert_int_equal(kept(folder, 0).state, MOE_VK_BAD);
    assert_int_equal(kept(folder, 0).cause, MOE_VK_CRASHED);
    check_later(folder, "a0", "an earlier process ended");
    assert_int_equal(interpose.n_pipelines, 0);
    remove_folder(folder);
}

// Who was killed has not condemned it.
static void check_killed(bool at_pipelines)
{
    char folder[] = "vkmoe-verdict-XXXXXX";
    make_folder(folder);
    if (at_pipelines)
        leave_good(folder);
    run_to_the_crash(folder);
    kept(folder, 3600);
    check_later(folder, "a1", NULL);
    assert_int_equal(kept(folder, 0).state, MOE_VK_GOOD);
    remove_folder(folder);
}

static void a_process_that_is_killed_condemns_nothing(void **state)
{
    (void) state;
    check_killed(false);
}

static void a_process_that_is_killed_at_pipelines_condemns_nothing(void **state)
{
    (void) state;
    check_killed(true);
}

// Two contexts begin without a verdict. One is testing when the other is asked for a plan.
static void a_mark_is_not_written_over(void **state)
{
    (void) state;
    vkmoe_host host = services();
    start(INTERPOSE_NO_BUG);
    vkmoe_context *other = open_context(&host, ""), *context = import_of(other, &host, false);
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
    record.variants[MOE_VK_A0] =
        (struct moe_vk_verdict){.since = 5, .state = MOE_VK_BAD, .cause = MOE_VK_WRONG};
    moe_vk_entry_write(moe_vk(context->device), store.key, &record, sizeof record);
    moe_vk_condemn(moe_vk(context->device), &moe_vk_variants[MOE_VK_A1], MOE_VK_NO_PIPELINE);
    check_stored(MOE_VK_BAD, MOE_VK_NO_PIPELINE);
    (void) stored(&record);
    assert_int_equal(record.variants[MOE_VK_A0].since, 5);
    assert_int_equal(record.variants[MOE_VK_A0].cause, MOE_VK_WRONG);
    vkmoe_context_destroy(context);
}

int main(int argc, char **argv)
{
    program_path = argv[0];
    if (argc > 1)
        return crash(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_records_are_absent),
        cmocka_unit_test(a_recording_context_reads_the_verdict),
        cmocka_unit_test(a_listed_driver_is_bad),
        cmocka_unit_test(a_second_crash_is_remembered),
        cmocka_unit_test(a_process_that_is_killed_condemns_nothing),
        cmocka_unit_test(a_crash_at_a_plans_pipelines_is_remembered),
        cmocka_unit_test(a_process_that_is_killed_at_pipelines_condemns_nothing),
        cmocka_unit_test(a_mark_is_not_written_over),
        cmocka_unit_test(a_verdict_changes_its_own_entry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
