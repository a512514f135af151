// SPDX-License-Identifier: MIT
// Two files of results, row by row: which cases became slower.
#ifndef BENCH_COMPARE_H
#define BENCH_COMPARE_H

#include "fields.h"

enum compare_verdict {
    COMPARE_SAME,
    COMPARE_FASTER,
    COMPARE_SLOWER,
};

enum compare_fate { // of a row
    COMPARE_NO_PARTNER, // no row of the other file has its key
    COMPARE_NOT_OK,     // one of the two has no times that are verified, or too few, or no floor
    COMPARE_DONE,
};

// A row of A with its partner in B, or a row of one file alone.
struct compare_row {
    const struct bench_row *a, *b; // NULL: there is none
    const struct bench_device *device; // of the row
    enum compare_fate fate;
    const struct bench_row *nearest; // NO_PARTNER: of the other file's same device; NULL: none
    char why[192];                   // NOT_OK
    double a_us, b_us; // DONE: the medians
    // B/A of the medians, above 1 for slower, and its 95 % interval; `noise` is what a ratio must
    // differ from 1 by, whatever the interval says.
    double ratio, low, high, noise;
    enum compare_verdict verdict;
    bool failed; // slower by more than the limit, or no longer right
};

struct compare_devices { // those that are compared, as indices
    uint32_t a, b;
};

struct compare {
    const struct bench_file *a, *b;
    bool by_floor; // of the times over their floors, not of the times
    double limit;  // a fraction: 0.05; NAN: none
    bool across;   // two devices of different names: the only one of each file
    struct compare_devices *devices; // (n_devices)
    struct compare_row *rows;        // (n_rows) of A in its order, then those of B alone
    uint32_t n_devices, n_rows;
    uint32_t n_done, n_faster, n_slower, n_failed;
    double mean; // geometric, of the ratios; NAN: none
};

// The files are borrowed. VKMOE_E_DATA: they have no device or no key in common, or no pair of rows
// that are ok; the text says what differs. compare_finish it in any case.
enum vkmoe_status compare_make(const struct bench_file *a, const struct bench_file *b,
                               bool by_floor, double limit, struct compare *out);
void compare_finish(struct compare *compare);

// A member of a key, a device or a file as JSON text, "?" without memory.
void compare_member_text(const struct bench_field *field, const void *object, char *out,
                         size_t size);

// The next member, from *field on, in which two devices or files differ and that tells what was
// measured with; NULL: none. *field is moved behind it.
const struct bench_field *compare_next_difference(const struct bench_field **field, const void *a,
                                                  const void *b);

const char *compare_verdict_name(enum compare_verdict verdict);

// Whether the keys name the same case. The number of threads is compared between CPUs only.
bool compare_same_case(const struct bench_key *a, const struct bench_key *b);

// Fills in ratio, low, high, noise and verdict from samples; `scale` multiplies the ratio, `noise`
// is the least there is.
enum vkmoe_status compare_times(const struct bench_times *a, const struct bench_times *b,
                                double scale, double noise, struct compare_row *row);

// compare_print.c
void compare_print(const struct compare *compare);
int compare_print_json(const struct compare *compare); // an exit code

#endif
