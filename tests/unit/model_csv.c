// SPDX-License-Identifier: MIT
#include "check.h"
#include "scratch.h"

#include "base/bits.h"
#include "base/host.h"
#include "model/csv.h"

#include <stdio.h>
#include <stdlib.h>

static enum vkmoe_status open_text(const char *text, const char *targets, struct moe_csv *out)
{
    return moe_csv_open(moe_host_default(), scratch_text("x.csv", text), targets, out);
}

// Reads all rows; *sum is that of all features, *n their rows.
static enum vkmoe_status read_all(struct moe_csv *csv, double *sum, int *n)
{
    float features[16];
    *sum = 0;
    *n = 0;
    while (true) {
        bool more;
        enum vkmoe_status status = moe_csv_next(csv, &more);
        if (status != VKMOE_OK || !more)
            return status;
        if ((status = moe_csv_features(csv, features)) != VKMOE_OK)
            return status;
        for (uint32_t i = 0; i < moe_csv_n_features(csv); i++)
            *sum += (double) features[i];
        (*n)++;
    }
}

static enum vkmoe_status open_and_read(const char *text, const char *targets, double *sum, int *n)
{
    struct moe_csv csv;
    enum vkmoe_status status = open_text(text, targets, &csv);
    if (status == VKMOE_OK)
        status = read_all(&csv, sum, n);
    moe_csv_close(&csv);
    return status;
}

static void test_accepts(void **state)
{
    (void) state;
    static const struct {
        const char *text, *targets;
        double sum;
        int n;
    } cases[] = {
        {"1,2,9\n3,4,9\n", NULL, 10, 2},
        {"1,2,9\n3,4,9", NULL, 10, 2},                 // no last line end
        {"1,2,9\r\n3,4,9\r\n", NULL, 10, 2},
        {"\xef\xbb\xbf" "1,2,9\n", NULL, 3, 1},
        {"# text\n\n1,2,9\n  # more, text\n \n3,4,9\n", NULL, 10, 2},
        {" 1 ,\t2,9\n", NULL, 3, 1},
        {"a,b,c\n1,2,9\n", NULL, 3, 1},                // a header
        {"\"a\",\"b\",\"c\"\n1,2,9\n", NULL, 3, 1},
        {"1,2,cat\n3,4,dog\n", NULL, 10, 2},           // labels do not make a header
        {"\"1\",2,9\n", NULL, 3, 1},
        {"9,1,2\n", "1", 3, 1},
        {"9,1,8,2\n", "1,3", 3, 1},
        {"t,a,u,b\n9,1,8,2\n", "u,t", 3, 1},
        {"t,1,2\n9,3,4\n", "t", 7, 1},                 // a name makes a header
        {"1,2\n", "", 3, 1},                           // no targets
        {"-1.5,+2.25,0\n", NULL, 0.75, 1},
        {"1e2,2E-1,0\n", NULL, (double) 100.0f + (double) 0.2f, 1},
        {".5,5.,0\n", NULL, 5.5, 1},
        {".12345678901234567,0\n", NULL, (double) .12345678901234567f, 1}, // the long way
        {"0000000000000000000000001,1.00000000000000000000,0\n", NULL, 2, 1},
    };
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        double sum;
        int n;
        print_message("%s\n", cases[i].text);
        check_ok(open_and_read(cases[i].text, cases[i].targets, &sum, &n));
        assert_int_equal(n, cases[i].n);
        check_near(sum, cases[i].sum, 0);
    }
}

static void test_refuses(void **state)
{
    (void) state;
    static const struct {
        const char *text, *targets;
        enum vkmoe_status status;
        const char *part;
    } cases[] = {
        {"", NULL, VKMOE_E_DATA, "no rows"},
        {"# only\n\n", NULL, VKMOE_E_DATA, "no rows"},
        {"a,b,c\n", NULL, VKMOE_E_DATA, "no rows"},
        {"1,2,9\n3,9\n", NULL, VKMOE_E_DATA, "line 2: 2 columns, line 1 has 3"},
        {"#\n1,2,9\n\n3,4,5,9\n", NULL, VKMOE_E_DATA, "line 4: 4 columns, line 2 has 3"},
        {"a,b\n1,2,9\n", NULL, VKMOE_E_DATA, "line 2: 3 columns, line 1 has 2"},
        {"1,2,9\n1,x2,9\n", NULL, VKMOE_E_DATA, "line 2, column 2: 'x2' is not a finite"},
        {"1,x2,9\n", NULL, VKMOE_E_DATA, "line 1, column 2: 'x2'"}, // no header by one wrong field
        {"x,,9\n1,2,9\n", NULL, VKMOE_E_DATA, "line 1, column 1: 'x'"},
        {"1,,9\n", NULL, VKMOE_E_DATA, "line 1, column 2: '' is empty"},
        {"1,2,9\n1,nan,9\n", NULL, VKMOE_E_DATA, "line 2, column 2: 'nan'"},
        {"nan,nan,9\n1,2,9\n", NULL, VKMOE_E_DATA, "line 1, column 1: 'nan'"},
        {"1,2,9\ninf,1,9\n", NULL, VKMOE_E_DATA, "line 2, column 1: 'inf'"},
        {"1,0x10,9\n", NULL, VKMOE_E_DATA, "line 1, column 2: '0x10'"},
        {"1,1e39,9\n", NULL, VKMOE_E_DATA, "line 1, column 2: '1e39' is too large"},
        {"1,1e999,9\n", NULL, VKMOE_E_DATA, "line 1, column 2: '1e999' is too large"},
        {"1,2 3,9\n", NULL, VKMOE_E_DATA, "line 1, column 2: '2 3'"},
        {"1,-,9\n", NULL, VKMOE_E_DATA, "line 1, column 2: '-'"},
        {"1,.,9\n", NULL, VKMOE_E_DATA, "line 1, column 2: '.'"},
        {"1,1.2.3,9\n", NULL, VKMOE_E_DATA, "line 1, column 2: '1.2.3'"},
        {"1,\"2,9\n", NULL, VKMOE_E_DATA, "line 1, column 2"},
        {"1,\"2\"3,9\n", NULL, VKMOE_E_DATA, "after its closing quote"},
        {"1,2,9\n", "4", VKMOE_E_ARGUMENT, "no column '4' among 3"},
        {"1,2,9\n", "0", VKMOE_E_ARGUMENT, "no column '0'"},
        {"0,2,9\n1,2,9\n", "0", VKMOE_E_ARGUMENT, "no column '0'"}, // a value is no name
        {"1,2.5,9\n1,2,9\n", "2.5", VKMOE_E_ARGUMENT, "no column '2.5'"},
        {"a,b,c\n1,2,9\n", "d", VKMOE_E_ARGUMENT, "no column 'd'"},
        {"1,2,9\n", "1,1", VKMOE_E_ARGUMENT, "column 1 is a target twice"},
    };
    for (size_t i = 0; i < MOE_COUNT(cases); i++) {
        double sum;
        int n;
        print_message("%s\n", cases[i].text);
        check_fails(open_and_read(cases[i].text, cases[i].targets, &sum, &n), cases[i].status,
                    cases[i].part);
    }
    struct moe_csv csv;
    const char zero[] = "1,2\n3\0,4\n";
    check_ok(moe_csv_open(moe_host_default(), scratch_file("x.csv", zero, sizeof zero - 1), NULL,
                          &csv));
    double sum;
    int n;
    check_fails(read_all(&csv, &sum, &n), VKMOE_E_DATA, "line 2: a zero byte");
    moe_csv_close(&csv);
    check_fails(moe_csv_open(moe_host_default(), scratch_path("absent"), NULL, &csv), VKMOE_E_IO,
                "No such file");
}

static void test_targets(void **state)
{
    (void) state;
    struct moe_csv csv;
    bool more;
    float value;
    check_ok(open_text("x,first,second\n1,\"a \"\"b\"\", c\",7.5\n", "second,first", &csv));
    check_ok(moe_csv_next(&csv, &more));
    assert_true(more);
    assert_int_equal(csv.n_targets, 2);
    check_ok(moe_csv_target_number(&csv, 0, &value));
    assert_true(value == 7.5f);
    assert_string_equal(moe_csv_target(&csv, 1), "a \"b\", c");
    check_fails(moe_csv_target_number(&csv, 1, &value), VKMOE_E_DATA, "line 2, column 2");
    moe_csv_close(&csv);
}

// Both ways to a number give the nearest f32 of what the C library reads.
static void test_numbers(void **state)
{
    (void) state;
    enum { N = 2000, LINE = 64 };
    static char text[N * LINE];
    float want[N], got;
    struct moe_csv csv;
    unsigned seed = 1;
    char *at = text;
    for (int i = 0; i < N; i++) {
        int digits = 1 + i % 17;
        seed = seed * 1664525 + 1013904223;
        int n = snprintf(at, LINE, "%s%.*f", i % 3 ? "" : "-", digits % 9,
                         ldexp((double) seed, digits - 30));
        want[i] = (float) strtod(at, NULL);
        strcpy(at + n, ",0\n");
        at += n + 3;
    }
    check_ok(open_text(text, NULL, &csv));
    for (int i = 0; i < N; i++) {
        bool more;
        check_ok(moe_csv_next(&csv, &more));
        check_ok(moe_csv_features(&csv, &got));
        assert_true(more && got == want[i]);
    }
    moe_csv_close(&csv);
}

// Lines longer than the buffer, and one that is too long for any.
static void test_long_lines(void **state)
{
    (void) state;
    struct moe_csv csv;
    const size_t n_columns = 50000, limit = (size_t) 17 << 20;
    char *text = malloc(limit + 1);
    assert_non_null(text);
    for (size_t i = 0; i < n_columns; i++)
        memcpy(text + i * 4, "1.5,", 4);
    strcpy(text + n_columns * 4, "9\n1\n");
    check_ok(open_text(text, NULL, &csv));
    assert_int_equal(csv.n_columns, n_columns + 1);
    float *features = malloc(n_columns * sizeof *features);
    bool more;
    check_ok(moe_csv_next(&csv, &more));
    check_ok(moe_csv_features(&csv, features));
    assert_true(features[n_columns - 1] == 1.5f);
    check_fails(moe_csv_next(&csv, &more), VKMOE_E_DATA, "line 2: 1 columns");
    moe_csv_close(&csv);
    free(features);

    memset(text, '1', limit);
    text[limit] = '\0';
    check_fails(open_text(text, NULL, &csv), VKMOE_E_DATA, "line 1: longer than");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_accepts), cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_targets), cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_long_lines),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown) != 0;
}
