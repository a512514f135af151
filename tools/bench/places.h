// SPDX-License-Identifier: MIT
// Small system files below a root folder.
#ifndef BENCH_PLACES_H
#define BENCH_PLACES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

// NULL: there is none, or it may not be read.
FILE *bench_open_text(const char *root, const char *path);

// The first line without its end; false: no such file, or it is empty.
bool bench_read_text(const char *root, const char *path, char *out, size_t size);

// A number that a file holds, times `unit`; NAN: none.
double bench_read_number(const char *root, const char *path, double unit);

#endif
