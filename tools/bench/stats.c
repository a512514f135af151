// SPDX-License-Identifier: MIT
#include "stats.h"

#include "row.h"

#include <math.h>
#include <stdlib.h>

static int compare(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

// The samples that are known, ascending; free() them. NULL: none, or no memory.
static double *sorted(const double *samples, uint32_t n, uint32_t *n_known)
{
    double *known = malloc(((size_t) n + 1) * sizeof *known);
    *n_known = 0;
    for (uint32_t i = 0; known && i < n; i++)
        if (!isnan(samples[i]))
            known[(*n_known)++] = samples[i];
    if (*n_known == 0) {
        free(known);
        return NULL;
    }
    qsort(known, *n_known, sizeof *known, compare);
    return known;
}

static double quantile_of_sorted(const double *known, uint32_t n, double p)
{
    double place = p * (n - 1);
    uint32_t below = (uint32_t) place, above = below + 1 < n ? below + 1 : below;
    double share = place - below;
    // A share of 0 is not multiplied: the sample above could be infinite.
    return share > 0 ? (1 - share) * known[below] + share * known[above] : known[below];
}

double bench_quantile(const double *samples, uint32_t n, double p)
{
    uint32_t n_known;
    double *known = sorted(samples, n, &n_known);
    double value = known ? quantile_of_sorted(known, n_known, p) : NAN;
    free(known);
    return value;
}

double bench_median(const double *samples, uint32_t n)
{
    return bench_quantile(samples, n, 0.5);
}

double bench_least(const double *samples, uint32_t n)
{
    return bench_quantile(samples, n, 0);
}

static double deviation_of_sorted(double *known, uint32_t n)
{
    double median = quantile_of_sorted(known, n, 0.5);
    for (uint32_t i = 0; i < n; i++)
        known[i] = fabs(known[i] - median);
    qsort(known, n, sizeof *known, compare);
    return quantile_of_sorted(known, n, 0.5);
}

double bench_mad(const double *samples, uint32_t n)
{
    uint32_t n_known;
    double *known = sorted(samples, n, &n_known);
    double value = known ? deviation_of_sorted(known, n_known) : NAN;
    free(known);
    return value;
}

void bench_times_sum_up(struct bench_times *times)
{
    uint32_t n;
    double *known = sorted(times->samples_us, times->n, &n);
    times->median_us = known ? quantile_of_sorted(known, n, 0.5) : NAN;
    times->p5_us = known ? quantile_of_sorted(known, n, 0.05) : NAN;
    times->p95_us = known ? quantile_of_sorted(known, n, 0.95) : NAN;
    times->mad_us = known ? deviation_of_sorted(known, n) : NAN;
    free(known);
}
