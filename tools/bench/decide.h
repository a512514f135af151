// SPDX-License-Identifier: MIT
// The decisions of the measuring loop, as functions of numbers alone. measure.h says why.
#ifndef BENCH_DECIDE_H
#define BENCH_DECIDE_H

#include <stdbool.h>
#include <stdint.h>

enum { BENCH_MAX_COLD = 4 };

#define BENCH_AGREEMENT 0.05 // two cold measurements that differ by less agree
#define BENCH_PLATEAU 0.02   // so do windows of the warm-up
// Of the peak of all cores, or of a thread's time: below it a core was taken away.
#define BENCH_CORE_SHARE 0.88

// Two times are within `share` of the lesser. NAN agrees with nothing.
bool bench_agree(double a, double b, double share);

// Of the medians of n <= BENCH_MAX_COLD measurements the two that are closest and agree, into
// pair[2], ascending; false: no two do.
bool bench_closest(const double *medians, uint32_t n, uint32_t pair[2]);

// The peak of n_threads, each with a core of its own: what a block's probes are held against.
//   one_thread  peak of one thread alone; 0 or NAN: not known
//   best        the best of n_threads seen so far on this device; 0: none
// With all cores busy, clocks are lower than with one, and cores may be of two kinds: so the best
// seen counts, if it is more than any pair of threads on one core could give.
double bench_full_peak(double one_thread, uint32_t n_threads, double best);

// A block whose probes before and after it measured these peaks had all its cores.
bool bench_block_whole(double before, double after, double full);

// How many runs fill `seconds` when one takes run_seconds, in 1..most.
uint32_t bench_runs_for(double seconds, double run_seconds, uint32_t most);

// The warm-up is over: the medians of the last two windows agree, or of the n_windows there have
// been as many as max_windows.
bool bench_warm(const double *medians, uint32_t n_windows, uint32_t max_windows);

#endif
