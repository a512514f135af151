// SPDX-License-Identifier: MIT
// Numbers from samples. A NAN among them is a sample that is not known: it is left out.
#ifndef BENCH_STATS_H
#define BENCH_STATS_H

#include <stdint.h>

// The p-quantile, 0 <= p <= 1, of n samples: linear interpolation between the two beside p (n - 1).
// The samples stay as they are. NAN: there are none, or no memory to sort them.
double bench_quantile(const double *samples, uint32_t n, double p);

double bench_median(const double *samples, uint32_t n);

// Median of |sample - median|.
double bench_mad(const double *samples, uint32_t n);

double bench_least(const double *samples, uint32_t n);

#endif
