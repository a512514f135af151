// SPDX-License-Identifier: MIT
// Samples that become more.
#ifndef BENCH_SERIES_H
#define BENCH_SERIES_H

#include <stdbool.h>
#include <stdint.h>

struct bench_series {
    double *values; // (n), free()
    uint32_t n, room;
};

// Room for n more values, which now count as there; NULL: no memory, nothing changed.
double *bench_series_grow(struct bench_series *series, uint32_t n);

bool bench_series_append(struct bench_series *series, const double *values, uint32_t n);

double bench_series_sum(const struct bench_series *series);

void bench_series_finish(struct bench_series *series);

#endif
