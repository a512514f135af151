// SPDX-License-Identifier: MIT
// The thread pool: every task of every phase exactly once, and its writes seen by the caller.
#include "check.h"

#include "base/host.h"
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <time.h>

enum { MAX_TASKS = 1000 };

struct phase {
    struct moe_pool *pool;
    uint32_t runs[MAX_TASKS]; // plain on purpose: a task run twice or unseen shows, and in TSan too
    pthread_t thread[MAX_TASKS];
};

static void count_task(void *arg, uint32_t i)
{
    struct phase *phase = arg;
    phase->runs[i]++;
    phase->thread[i] = pthread_self();
}

static void check_counts(const struct phase *phase, uint32_t n, uint32_t want)
{
    for (uint32_t i = 0; i < MAX_TASKS; i++)
        assert_int_equal(phase->runs[i], i < n ? want : 0);
}

static void each_task_runs_once(void **state)
{
    (void) state;
    static const uint32_t n_threads[] = {1, 2, 3, 8}, n_tasks[] = {0, 1, 2, 3, 7, 100, MAX_TASKS};
    for (size_t t = 0; t < sizeof n_threads / sizeof *n_threads; t++) {
        struct moe_pool *pool;
        check_ok(moe_pool_create(moe_host_default(), n_threads[t], &pool));
        assert_int_equal(moe_pool_size(pool), n_threads[t]);
        for (size_t i = 0; i < sizeof n_tasks / sizeof *n_tasks; i++) {
            static struct phase phase;
            memset(&phase, 0, sizeof phase);
            moe_pool_run(pool, n_tasks[i], count_task, &phase);
            check_counts(&phase, n_tasks[i], 1);
        }
        assert_int_equal(moe_pool_size(pool), n_threads[t]);
        moe_pool_destroy(pool);
    }
}

// Long enough for workers to claim some; pauses now and then so that they fall asleep in between.
static void phases_follow_each_other(void **state)
{
    (void) state;
    enum { PHASES = 10000, TASKS = 20 };
    static struct phase phase;
    struct moe_pool *pool;
    memset(&phase, 0, sizeof phase);
    check_ok(moe_pool_create(moe_host_default(), 4, &pool));
    for (uint32_t i = 1; i <= PHASES; i++) {
        if (i % 1000 == 0)
            nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        moe_pool_run(pool, TASKS, count_task, &phase);
        for (uint32_t t = 0; t < TASKS; t++)
            assert_int_equal(phase.runs[t], i);
    }
    moe_pool_destroy(pool);
}

// Spins until a second thread is in a task too: ends only if tasks do run at the same time.
static void meet_task(void *arg, uint32_t i)
{
    atomic_uint *n_inside = arg;
    (void) i;
    atomic_fetch_add(n_inside, 1);
    while (atomic_load(n_inside) < 2)
        sched_yield();
}

static void tasks_run_at_the_same_time(void **state)
{
    (void) state;
    struct moe_pool *pool;
    atomic_uint n_inside = 0;
    check_ok(moe_pool_create(moe_host_default(), 2, &pool));
    moe_pool_run(pool, 2, meet_task, &n_inside);
    assert_int_equal(atomic_load(&n_inside), 2);
    moe_pool_destroy(pool);
}

static void one_thread_is_the_callers(void **state)
{
    (void) state;
    static struct phase phase;
    struct moe_pool *pool;
    memset(&phase, 0, sizeof phase);
    check_ok(moe_pool_create(moe_host_default(), 1, &pool));
    moe_pool_run(pool, MAX_TASKS, count_task, &phase);
    for (uint32_t i = 0; i < MAX_TASKS; i++)
        assert_true(pthread_equal(phase.thread[i], pthread_self()));
    moe_pool_destroy(pool);
}

struct nested {
    struct moe_pool *pool;
    struct phase inner[8];
};

static void nested_task(void *arg, uint32_t i)
{
    struct nested *nested = arg;
    moe_pool_run(nested->pool, MAX_TASKS, count_task, &nested->inner[i]);
}

static void tasks_may_run_phases(void **state)
{
    (void) state;
    static struct nested nested;
    memset(&nested, 0, sizeof nested);
    check_ok(moe_pool_create(moe_host_default(), 3, &nested.pool));
    moe_pool_run(nested.pool, 8, nested_task, &nested);
    for (uint32_t i = 0; i < 8; i++)
        check_counts(&nested.inner[i], MAX_TASKS, 1);
    moe_pool_destroy(nested.pool);
}

static void *caller_main(void *arg)
{
    struct phase *phase = arg;
    for (uint32_t i = 0; i < 500; i++)
        moe_pool_run(phase->pool, 50, count_task, phase);
    return NULL;
}

static void several_callers_share_a_pool(void **state)
{
    (void) state;
    enum { CALLERS = 3 };
    static struct phase phases[CALLERS];
    pthread_t threads[CALLERS];
    struct moe_pool *pool;
    memset(phases, 0, sizeof phases);
    check_ok(moe_pool_create(moe_host_default(), 3, &pool));
    for (uint32_t i = 0; i < CALLERS; i++) {
        phases[i].pool = pool;
        assert_int_equal(pthread_create(&threads[i], NULL, caller_main, &phases[i]), 0);
    }
    for (uint32_t i = 0; i < CALLERS; i++) {
        pthread_join(threads[i], NULL);
        check_counts(&phases[i], 50, 500);
    }
    moe_pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_task_runs_once),
        cmocka_unit_test(phases_follow_each_other),
        cmocka_unit_test(tasks_run_at_the_same_time),
        cmocka_unit_test(one_thread_is_the_callers),
        cmocka_unit_test(tasks_may_run_phases),
        cmocka_unit_test(several_callers_share_a_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
