// SPDX-License-Identifier: MIT
// The measuring loop over anything that can be timed and probed; measure.c has layers and networks.
//
// A measurement begins cold: after a probe, which reads more memory than caches hold, and a pause.
// Runs warm up until the medians of two windows agree. Then blocks of runs follow, each between two
// probes. One whose probes say that a core was taken away does not count, nor one in which another
// program had the processor for a part of the time: probes are short, and fit in between. Whole
// measurements are made until two agree, and those two are kept.
#ifndef BENCH_LOOP_H
#define BENCH_LOOP_H

#include "measure.h"

// What is measured. Every function gets `user`.
struct bench_target {
    void *user;
    // Make n runs one after the other and time each: seconds (n) out. time_device may be NULL, or
    // fail with VKMOE_E_UNSUPPORTED the first time: then there is the wall's clock alone.
    enum vkmoe_status (*time_device)(void *user, uint32_t n, double *seconds);
    enum vkmoe_status (*time_wall)(void *user, uint32_t n, double *seconds);
    enum vkmoe_status (*probe)(void *user, vkmoe_limits *out); // NULL: no limits, no blocks
    void (*watch)(void *user, bool begin); // around runs that are timed
    void (*pause)(void *user, double seconds);
    bool (*interrupted)(void *user);
    // The share of the time since a call with `begin` that this thread had a processor, 0..1; the
    // call with `begin` returns anything. NULL: not known.
    double (*processor_share)(void *user, bool begin);
};

struct bench_loop {
    const struct bench_measure_options *options;
    uint32_t n_copies;     // so many runs at least, that each of them has run
    bool blocks;           // a CPU: blocks of 30 ms, those that lost a core are dropped
    uint32_t n_threads;    // of the CPU
    double one_thread;     // its f32 peak with one thread
    const double *best;    // its best f32 peak of all threads so far; probes may raise it
};

struct bench_loop_result {
    vkmoe_limits limits; // medians over the blocks that count
    bool every_block_lost;
    char no_device_clock[160]; // why there is the wall's clock alone; "" if it is not
};

// Fills in the row's device_times, wall_times, first_call_ms, n_cold, plateau, n_blocks and
// n_dropped_blocks. VKMOE_E_CANCELLED: interrupted. Else the first failure of the target.
enum vkmoe_status bench_loop_run(const struct bench_target *target, const struct bench_loop *loop,
                                 struct bench_row *row, struct bench_loop_result *out);

#endif
