// SPDX-License-Identifier: MIT
// A file of results in which every field is set, to something of its own.
#ifndef TESTS_UNIT_BENCH_SAMPLE_H
#define TESTS_UNIT_BENCH_SAMPLE_H

#include "bench/fields.h"

enum { BENCH_SAMPLE_ITEMS = 2 }; // devices, rows, dispatches of a row

// bench_file_finish it. Fails the test without memory.
void bench_sample_make(struct bench_file *file);

#endif
