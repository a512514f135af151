// SPDX-License-Identifier: MIT
#include "decide.h"

#include <math.h>

bool bench_agree(double a, double b, double share)
{
    return fabs(a - b) <= share * fmin(fabs(a), fabs(b));
}

bool bench_closest(const double *medians, uint32_t n, uint32_t pair[2])
{
    double least = INFINITY;
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t j = i + 1; j < n; j++) {
            double distance = fabs(medians[i] - medians[j]) / fmin(medians[i], medians[j]);
            if (!bench_agree(medians[i], medians[j], BENCH_AGREEMENT) || !(distance < least))
                continue;
            least = distance;
            pair[0] = i;
            pair[1] = j;
        }
    return least < INFINITY;
}

double bench_full_peak(double one_thread, uint32_t n_threads, double best)
{
    // Two threads on one core give half of two cores, and a little.
    const double plausible = 0.55;
    double product = one_thread * n_threads;
    if (!(product > 0))
        return best;
    return best >= plausible * product ? best : product;
}

bool bench_block_whole(double before, double after, double full)
{
    double least = BENCH_CORE_SHARE * full;
    return before >= least && after >= least;
}

uint32_t bench_runs_for(double seconds, double run_seconds, uint32_t most)
{
    double n = ceil(seconds / run_seconds);
    if (!(n >= 1)) // NAN too
        return 1;
    return n < most ? (uint32_t) n : most;
}

bool bench_warm(const double *medians, uint32_t n_windows, uint32_t max_windows)
{
    if (n_windows >= max_windows)
        return true;
    return n_windows >= 2 &&
           bench_agree(medians[n_windows - 1], medians[n_windows - 2], BENCH_PLATEAU);
}
