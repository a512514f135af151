// SPDX-License-Identifier: MIT
// A pool of threads that runs phases: n independent tasks, all done when the call returns.
#ifndef MOE_BASE_POOL_H
#define MOE_BASE_POOL_H

#include <vkmoe/vkmoe.h>

struct moe_pool;

typedef void moe_task_fn(void *arg, uint32_t i);

// A pool of n_threads >= 1, the caller's own among them. Workers start at the first phase that can
// use them; where the system refuses a thread the pool goes on with fewer.
enum vkmoe_status moe_pool_create(const vkmoe_host *host, uint32_t n_threads,
                                  struct moe_pool **out);
void moe_pool_destroy(struct moe_pool *pool); // NULL is fine; no phase may be running

// Threads of the pool: as many as were asked for, or, after the first phase, as the system gave.
// Not while a phase is running.
uint32_t moe_pool_size(const struct moe_pool *pool);

// Calls task(arg, i) once for each i < n, on any threads in any order, and returns when all are
// done; what they wrote is then visible to the caller. Allocates nothing.
// Threads: any. A call made while another one runs, or from inside a task, does all its tasks on
// the calling thread.
void moe_pool_run(struct moe_pool *pool, uint32_t n, moe_task_fn *task, void *arg);

#endif
