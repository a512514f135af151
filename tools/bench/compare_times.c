// SPDX-License-Identifier: MIT
// The ratio of two medians and how sure it is. The interval is a bootstrap: both sets of samples
// are drawn anew, with replacement, a thousand times; the middle 95 % of the ratios of their
// medians are the interval. It says how well these runs know their medians. What drifts between two
// runs, clocks and neighbours, it cannot see, so a ratio must also differ from 1 by more than the
// samples scatter.
#include "compare.h"
#include "rng.h"
#include "stats.h"

#include <math.h>
#include <stdlib.h>

enum { N_DRAWS = 1000 };

struct samples {
    double *sorted;   // (n)
    uint32_t *drawn;  // (n) how often
    uint32_t n;
};

static int by_value(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static enum vkmoe_status sort(const struct bench_times *times, struct samples *out)
{
    enum vkmoe_status status;
    CLI_TRY(cli_alloc(times->n, 1, sizeof *out->sorted, &out->sorted));
    CLI_TRY(cli_alloc(times->n, 1, sizeof *out->drawn, &out->drawn));
    for (uint32_t i = 0; i < times->n; i++) {
        if (isfinite(times->samples_us[i]))
            out->sorted[out->n++] = times->samples_us[i];
    }
    qsort(out->sorted, out->n, sizeof *out->sorted, by_value);

fail:
    return status;
}

// The value at a rank, from 0, among those drawn.
static double at_rank(const struct samples *s, uint32_t rank)
{
    uint32_t below = 0, i = 0;
    while (below + s->drawn[i] <= rank)
        below += s->drawn[i++];
    return s->sorted[i];
}

// The median of n values drawn from the samples. The draw is a function of its number alone.
static double draw_median(struct samples *s, uint32_t file, uint32_t draw)
{
    memset(s->drawn, 0, s->n * sizeof *s->drawn);
    for (uint32_t i = 0; i < s->n; i += 4) {
        struct rng_block block = rng_philox((struct rng_block){{i, draw, file, 0}}, 0);
        for (uint32_t j = 0; j < 4 && i + j < s->n; j++)
            s->drawn[(uint64_t) block.v[j] * s->n >> 32]++;
    }
    return (at_rank(s, (s->n - 1) / 2) + at_rank(s, s->n / 2)) / 2;
}

static double relative_mad(const struct bench_times *times)
{
    return times->mad_us / times->median_us;
}

static enum compare_verdict judge(const struct compare_row *row)
{
    if (row->low > 1 && row->ratio > 1 + row->noise)
        return COMPARE_SLOWER;
    // As much faster as the same factor is slower.
    if (row->high < 1 && row->ratio < 1 / (1 + row->noise))
        return COMPARE_FASTER;
    return COMPARE_SAME;
}

enum vkmoe_status compare_times(const struct bench_times *a, const struct bench_times *b,
                                double scale, double noise, struct compare_row *row)
{
    enum vkmoe_status status;
    struct samples x = {0}, y = {0};
    double *ratios = NULL;
    CLI_TRY(sort(a, &x));
    CLI_TRY(sort(b, &y));
    CLI_TRY(cli_alloc(N_DRAWS, 1, sizeof *ratios, &ratios));
    for (uint32_t i = 0; i < N_DRAWS; i++)
        ratios[i] = scale * draw_median(&y, 1, i) / draw_median(&x, 0, i);
    row->ratio = scale * b->median_us / a->median_us;
    row->low = bench_quantile(ratios, N_DRAWS, 0.025);
    row->high = bench_quantile(ratios, N_DRAWS, 0.975);
    row->noise = fmax(noise, fmax(relative_mad(a), relative_mad(b)));
    row->verdict = judge(row);

fail:
    free(ratios);
    free(x.sorted);
    free(x.drawn);
    free(y.sorted);
    free(y.drawn);
    return status;
}
