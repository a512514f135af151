// SPDX-License-Identifier: MIT
// One atomic word, the ticket, says which phase is on and how many of its tasks nobody has claimed
// yet. Whoever takes one off it by compare-and-swap runs that task; the phase number in the upper
// half makes a claim on an older phase fail. So nobody waits for a worker that is asleep or off the
// processor: the caller goes on as soon as the claimed tasks are done, even if it did them all.
// Workers without work spin for a short while, since phases follow each other closely, then sleep.
#include "base/pool.h"

#include "base/host.h"
#include "base/status.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

enum {
    WORKER_SPINS = 2000, // about 30 microseconds
    WORKER_STACK = 1 << 20, // tasks take up to 160 KiB, sanitized ones more; some systems give 128
    CALLER_SPINS = 10000,
    CACHE_LINE = 64,
};

struct moe_pool {
    const vkmoe_host *host;
    uint32_t n_threads, n_workers;
    bool started;
    pthread_t *workers; // (n_threads - 1)
    atomic_bool busy;   // a caller is inside moe_pool_run

    // The phase: written while no task is left to claim, hence fixed while a claim can succeed.
    _Atomic(moe_task_fn *) task;
    _Atomic(void *) arg;
    atomic_uint n;

    _Alignas(CACHE_LINE) _Atomic uint64_t ticket; // phase << 32 | tasks not claimed
    _Alignas(CACHE_LINE) atomic_uint n_done;

    pthread_mutex_t mutex; // guards sleeping
    pthread_cond_t wake;
    atomic_uint n_asleep;
    atomic_bool stop;
};

static inline void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline uint32_t unclaimed(uint64_t ticket)
{
    return (uint32_t) ticket;
}

// Claims and runs tasks until the phase has none left. The phase is read before the claim: if
// another phase began meanwhile the claim fails and what was read is dropped.
static void work(struct moe_pool *pool)
{
    uint64_t ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    while (unclaimed(ticket) > 0) {
        moe_task_fn *task = atomic_load_explicit(&pool->task, memory_order_acquire);
        void *arg = atomic_load_explicit(&pool->arg, memory_order_acquire);
        uint32_t n = atomic_load_explicit(&pool->n, memory_order_acquire);
        if (!atomic_compare_exchange_weak_explicit(&pool->ticket, &ticket, ticket - 1,
                                                   memory_order_acq_rel, memory_order_acquire))
            continue;
        task(arg, n - unclaimed(ticket));
        atomic_fetch_add_explicit(&pool->n_done, 1, memory_order_release);
        ticket = atomic_load_explicit(&pool->ticket, memory_order_acquire);
    }
}

// Returns when there is something to claim (true) or the pool ends (false). The sleeper counts
// itself before it looks at the ticket, the caller writes the ticket before it looks at the count;
// both in sequentially consistent order, so one of them sees the other.
static bool wait_for_work(struct moe_pool *pool)
{
    for (int i = 0; i < WORKER_SPINS; i++) {
        if (unclaimed(atomic_load_explicit(&pool->ticket, memory_order_acquire)) > 0)
            return true;
        pause_cpu();
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->n_asleep, 1);
    while (!atomic_load(&pool->stop) && unclaimed(atomic_load(&pool->ticket)) == 0)
        pthread_cond_wait(&pool->wake, &pool->mutex);
    atomic_fetch_sub(&pool->n_asleep, 1);
    pthread_mutex_unlock(&pool->mutex);
    return !atomic_load(&pool->stop);
}

static void *worker_main(void *arg)
{
    struct moe_pool *pool = arg;
    while (wait_for_work(pool))
        work(pool);
    return NULL;
}

// The program's signals are for its own threads: workers start with all of them blocked but those
// that a faulting instruction raises.
static void start_workers(struct moe_pool *pool)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigset_t blocked, before;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, WORKER_STACK);
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&blocked, faults[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    while (pool->n_workers < pool->n_threads - 1 &&
           pthread_create(&pool->workers[pool->n_workers], &attr, worker_main, pool) == 0)
        pool->n_workers++;
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pool->n_workers < pool->n_threads - 1)
        moe_log(pool->host, VKMOE_LOG_WARN, "the system gave %u of %u threads",
                pool->n_workers + 1, pool->n_threads);
    pool->started = true;
}

static void wake_workers(struct moe_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

static void run_phase(struct moe_pool *pool, uint32_t n, moe_task_fn *task, void *arg)
{
    uint64_t phase = (atomic_load_explicit(&pool->ticket, memory_order_relaxed) >> 32) + 1;
    atomic_store_explicit(&pool->n_done, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->task, task, memory_order_release);
    atomic_store_explicit(&pool->arg, arg, memory_order_release);
    atomic_store_explicit(&pool->n, n, memory_order_release);
    atomic_store(&pool->ticket, phase << 32 | n);
    if (atomic_load(&pool->n_asleep) > 0)
        wake_workers(pool);

    work(pool);
    // A worker that lost its processor in the middle of a task needs ours to get on.
    for (int i = 0; atomic_load_explicit(&pool->n_done, memory_order_acquire) < n; i++) {
        if (i < CALLER_SPINS)
            pause_cpu();
        else
            sched_yield();
    }
}

void moe_pool_run(struct moe_pool *pool, uint32_t n, moe_task_fn *task, void *arg)
{
    if (n < 2 || pool->n_threads == 1 ||
        atomic_exchange_explicit(&pool->busy, true, memory_order_acquire)) {
        for (uint32_t i = 0; i < n; i++)
            task(arg, i);
        return;
    }
    if (!pool->started)
        start_workers(pool);
    run_phase(pool, n, task, arg);
    atomic_store_explicit(&pool->busy, false, memory_order_release);
}

uint32_t moe_pool_size(const struct moe_pool *pool)
{
    return pool->started ? pool->n_workers + 1 : pool->n_threads;
}

enum vkmoe_status moe_pool_create(const vkmoe_host *host, uint32_t n_threads,
                                  struct moe_pool **out)
{
    *out = NULL;
    struct moe_pool *pool = moe_alloc(host, sizeof *pool);
    pthread_t *workers = moe_alloc_array(host, n_threads, sizeof *workers);
    if (!pool || !workers) {
        moe_free(host, workers);
        moe_free(host, pool);
        return moe_fail(VKMOE_E_MEMORY, "a pool of %u threads", n_threads);
    }
    pool->host = host;
    pool->n_threads = n_threads;
    pool->workers = workers;
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    *out = pool;
    return VKMOE_OK;
}

void moe_pool_destroy(struct moe_pool *pool)
{
    if (!pool)
        return;
    atomic_store(&pool->stop, true);
    wake_workers(pool);
    for (uint32_t i = 0; i < pool->n_workers; i++)
        pthread_join(pool->workers[i], NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    moe_free(pool->host, pool->workers);
    moe_free(pool->host, pool);
}
