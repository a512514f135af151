// SPDX-License-Identifier: MIT
// What a verdict on the outputs leaves of the note on the times.
#include "check.h"

#include "bench/check.h"

static void verdicts(void **state)
{
    (void) state;
    struct bench_row row = {0};
    bench_check_impossible(&row, "%s", "--no-verify");
    assert_string_equal(row.reason, "--no-verify");
    assert_int_equal(row.status, BENCH_UNVERIFIED);
    struct bench_row noted = {.reason = "every block lost a core"};
    bench_check_failed(&noted, "y differs by %d", 3);
    assert_string_equal(noted.reason, "y differs by 3; every block lost a core");
    assert_int_equal(noted.status, BENCH_ERROR);
    // What does not fit is cut, the note first.
    char long_text[300];
    memset(long_text, 'x', sizeof long_text);
    long_text[299] = '\0';
    bench_check_failed(&noted, "%s", long_text);
    assert_int_equal(strlen(noted.reason), sizeof noted.reason - 1);
    assert_null(strchr(noted.reason, ';'));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(verdicts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
