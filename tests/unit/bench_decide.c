// SPDX-License-Identifier: MIT
// When a warm-up ends, measurements agree, and a block counts.
#include "check.h"

#include "bench/decide.h"

static void agreement(void **state)
{
    (void) state;
    assert_true(bench_agree(100, 105, 0.05) && bench_agree(105, 100, 0.05));
    assert_false(bench_agree(100, 105.1, 0.05) || bench_agree(105.1, 100, 0.05));
    assert_false(bench_agree(NAN, 100, 0.05) || bench_agree(100, NAN, 0.05));
    assert_false(bench_agree(NAN, NAN, 0.05));
}

static void closest_pair(void **state)
{
    (void) state;
    uint32_t pair[2] = {9, 9};
    assert_false(bench_closest(NULL, 0, pair));
    assert_false(bench_closest((double[]){5}, 1, pair));
    assert_false(bench_closest((double[]){100, 110, 121, 133}, 4, pair));
    assert_int_equal(pair[0], 9);
    assert_true(bench_closest((double[]){200, 104, 100, 101}, 4, pair));
    assert_int_equal(pair[0], 2);
    assert_int_equal(pair[1], 3);
    // The first of a slow clock: the two that follow agree with each other, not with it.
    assert_true(bench_closest((double[]){150, 100, 102}, 3, pair));
    assert_int_equal(pair[0], 1);
    assert_int_equal(pair[1], 2);
    assert_true(bench_closest((double[]){NAN, 100, 102}, 3, pair));
    assert_int_equal(pair[0], 1);
}

static void lost_core(void **state)
{
    (void) state;
    // Two threads at 115 each. Both on one core give 117.
    double full = bench_full_peak(115, 2, 117);
    check_near(full, 230, 0);
    assert_false(bench_block_whole(117, 117, full));
    assert_false(bench_block_whole(230, 117, full));
    assert_false(bench_block_whole(117, 230, full));
    assert_true(bench_block_whole(204, 230, full));
    assert_false(bench_block_whole(202, 230, full));
    // 16 cores whose clock is a fifth lower when all are busy have not lost one.
    full = bench_full_peak(180, 16, 2304);
    check_near(full, 2304, 0);
    assert_true(bench_block_whole(2280, 2250, full));
    assert_false(bench_block_whole(2000, 2304, full));
    // A faster block than all before sets the mark.
    check_near(bench_full_peak(115, 2, 240), 240, 0);
    // Without a peak of one thread, or of any, nothing is known against a block.
    check_near(bench_full_peak(NAN, 2, 200), 200, 0);
    assert_false(bench_block_whole(100, 200, bench_full_peak(0, 2, 200)));
    assert_true(bench_block_whole(0, 0, bench_full_peak(0, 2, 0)));
    assert_false(bench_block_whole(NAN, 230, 230));
}

static void runs_of_a_block(void **state)
{
    (void) state;
    assert_int_equal(bench_runs_for(0.03, 0.001, 1000), 30);
    assert_int_equal(bench_runs_for(0.03, 0.0007, 1000), 43);
    assert_int_equal(bench_runs_for(0.03, 2, 1000), 1);
    assert_int_equal(bench_runs_for(0.03, 1e-9, 1000), 1000);
    assert_int_equal(bench_runs_for(0.03, 0, 1000), 1000);
    assert_int_equal(bench_runs_for(0, 0, 1000), 1);
    assert_int_equal(bench_runs_for(0.03, NAN, 1000), 1);
}

static void warm_up(void **state)
{
    (void) state;
    const double medians[] = {180, 130, 108, 101, 100.5, 100};
    for (uint32_t n = 0; n < 5; n++)
        assert_false(bench_warm(medians, n, 100));
    assert_true(bench_warm(medians, 5, 100));
    assert_true(bench_warm(medians, 3, 3));
    assert_true(bench_warm(medians, 0, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agreement),      cmocka_unit_test(closest_pair),
        cmocka_unit_test(lost_core),      cmocka_unit_test(runs_of_a_block),
        cmocka_unit_test(warm_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
