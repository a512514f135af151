// SPDX-License-Identifier: MIT
// Numbers from samples: known answers.
#include "check.h"

#include "bench/row.h"
#include "bench/stats.h"

static struct bench_times sum_up(double *samples, uint32_t n)
{
    struct bench_times times = {.n = n, .samples_us = samples};
    bench_times_sum_up(&times);
    assert_int_equal(times.n, n);
    return times;
}

static void check_times(const struct bench_times *times, double median, double p5, double p95,
                        double mad)
{
    check_near(times->median_us, median, 1e-12);
    check_near(times->p5_us, p5, 1e-12);
    check_near(times->p95_us, p95, 1e-12);
    check_near(times->mad_us, mad, 1e-12);
}

static void check_unknown(const struct bench_times *times)
{
    assert_true(isnan(times->median_us) && isnan(times->p5_us));
    assert_true(isnan(times->p95_us) && isnan(times->mad_us));
}

static void few_samples(void **state)
{
    (void) state;
    struct bench_times none = sum_up(NULL, 0);
    check_unknown(&none);
    double one[] = {7};
    struct bench_times single = sum_up(one, 1);
    check_times(&single, 7, 7, 7, 0);
    double two[] = {30, 10};
    struct bench_times pair = sum_up(two, 2);
    check_times(&pair, 20, 11, 29, 10);
}

// 1..21 out of order, and one far away in place of 21: median and MAD do not see it.
static void many_samples(void **state)
{
    (void) state;
    double samples[21];
    for (uint32_t i = 0; i < 21; i++)
        samples[i] = (i * 8) % 21 + 1;
    double first = samples[0], last = samples[20];
    struct bench_times times = sum_up(samples, 21);
    check_times(&times, 11, 2, 20, 5);
    assert_true(samples[0] == first && samples[20] == last);
    for (uint32_t i = 0; i < 21; i++)
        samples[i] = samples[i] == 21 ? 1e9 : samples[i];
    times = sum_up(samples, 21);
    check_times(&times, 11, 2, 20, 5);
}

static void unknown_samples(void **state)
{
    (void) state;
    double samples[] = {NAN, 3, NAN, 1, 2};
    struct bench_times times = sum_up(samples, 5);
    check_times(&times, 2, 1.1, 2.9, 1);
    double unknown[] = {NAN, NAN};
    times = sum_up(unknown, 2);
    check_unknown(&times);
    double endless[] = {1, INFINITY, INFINITY};
    assert_true(isinf(bench_median(endless, 3)));
}

static void quantiles(void **state)
{
    (void) state;
    const double samples[] = {4, 1, 3, 2};
    check_near(bench_quantile(samples, 4, 0), 1, 0);
    check_near(bench_quantile(samples, 4, 1), 4, 0);
    check_near(bench_quantile(samples, 4, 0.25), 1.75, 1e-12);
    check_near(bench_median(samples, 4), 2.5, 1e-12);
    check_near(bench_least(samples, 4), 1, 0);
    check_near(bench_mad(samples, 4), 1, 1e-12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_samples),
        cmocka_unit_test(many_samples),
        cmocka_unit_test(unknown_samples),
        cmocka_unit_test(quantiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
