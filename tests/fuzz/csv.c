// SPDX-License-Identifier: MIT
// Bytes: a CSV file. What is accepted, with its last column as the target, is written without a
// header and read again.
#include "fuzz.h"

#include "model/csv.h"

#include <stdio.h>
#include <stdlib.h>

// The next row's features in memory of just their size; NULL: no more rows, or *good is false.
static float *next_row(struct moe_csv *csv, bool *good)
{
    bool more;
    if (!(*good = fuzz_accepted(moe_csv_next(csv, &more))) || !more)
        return NULL;
    size_t n = moe_csv_n_features(csv);
    float *row = malloc(n * sizeof *row + !n);
    FUZZ_CHECK(row);
    if (!(*good = fuzz_accepted(moe_csv_features(csv, row)))) {
        free(row);
        return NULL;
    }
    for (size_t i = 0; i < n; i++)
        FUZZ_CHECK(isfinite(row[i]));
    return row;
}

static void write_row(const struct moe_csv *csv, const float *row, FILE *out)
{
    for (uint32_t i = 0; i < moe_csv_n_features(csv); i++)
        fprintf(out, "%.9g,", (double) row[i]);
    for (uint32_t i = 0; i < csv->n_targets; i++) {
        fputs(i ? ",\"" : "\"", out);
        for (const char *c = moe_csv_target(csv, i); *c; c++)
            fprintf(out, *c == '"' ? "\"\"" : "%c", *c);
        fputc('"', out);
    }
    fputc('\n', out);
}

// Reads all rows, writes them to `out` unless that is NULL, and counts them.
static bool read_all(const char *path, const char *targets, FILE *out, uint64_t *n_rows)
{
    struct moe_csv csv;
    bool good;
    *n_rows = 0;
    if (!fuzz_accepted(moe_csv_open(fuzz_host(), path, targets, &csv))) {
        FUZZ_CHECK(!csv.lines.file && !csv.lines.buffer);
        return false;
    }
    FUZZ_CHECK(csv.n_targets <= csv.n_columns);
    for (float *row; (row = next_row(&csv, &good)); free(row)) {
        for (uint32_t i = 0; i < csv.n_targets; i++) {
            float number;
            fuzz_touch(moe_csv_target(&csv, i), strlen(moe_csv_target(&csv, i)));
            FUZZ_CHECK(!fuzz_accepted(moe_csv_target_number(&csv, i, &number)) ||
                       isfinite(number));
        }
        if (out)
            write_row(&csv, row, out);
        ++*n_rows;
    }
    FUZZ_CHECK(!good || *n_rows > 0);
    moe_csv_close(&csv);
    return good;
}

static void check_again(const char *path, const char *again)
{
    struct moe_csv a, b;
    bool good;
    FUZZ_CHECK(moe_csv_open(fuzz_host(), path, NULL, &a) == VKMOE_OK);
    FUZZ_CHECK(moe_csv_open(fuzz_host(), again, NULL, &b) == VKMOE_OK);
    FUZZ_CHECK(a.n_columns == b.n_columns);
    for (float *row; (row = next_row(&a, &good)); ) {
        float *row_again = next_row(&b, &good);
        FUZZ_CHECK(row_again);
        FUZZ_CHECK(memcmp(row, row_again, moe_csv_n_features(&a) * sizeof *row) == 0);
        FUZZ_CHECK(strcmp(moe_csv_target(&a, 0), moe_csv_target(&b, 0)) == 0);
        free(row_again);
        free(row);
    }
    FUZZ_CHECK(!next_row(&b, &good) && good);
    moe_csv_close(&a);
    moe_csv_close(&b);
}

bool fuzz_target(const uint8_t *data, size_t size)
{
    char path[512], again[512];
    uint64_t n_rows, n_other;
    snprintf(path, sizeof path, "%s", scratch_file("a.csv", data, size));
    snprintf(again, sizeof again, "%s", scratch_path("again.csv"));
    FILE *out = fopen(again, "wb");
    FUZZ_CHECK(out);
    bool accepted = read_all(path, NULL, out, &n_rows);
    FUZZ_CHECK(fclose(out) == 0);
    if (accepted)
        check_again(path, again);
    // Without targets the first row must be just as much of a header; but a lone column tells one
    // only when it is no target.
    if (read_all(path, "", NULL, &n_other) && accepted)
        FUZZ_CHECK(n_other == n_rows || n_other + 1 == n_rows);
    // A target that may be a name: then the first row is a header.
    read_all(path, "a,1", NULL, &n_other);
    return accepted;
}
