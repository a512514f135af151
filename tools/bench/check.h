// SPDX-License-Identifier: MIT
// Are the outputs that were timed right?
#ifndef BENCH_CHECK_H
#define BENCH_CHECK_H

#include "make.h"

// Looks at the outputs that bench_measure left: all experts are the ones that were wanted, all of y
// is finite, and a few rows of it are those of the oracle, a context of "reference". Fills in
// verify, status and reason of the row: ok; error; unverified, if it could not be told.
void bench_check(const struct bench_work *work, vkmoe_context *oracle, struct bench_row *row);

// check_net.c: the same of a network, whose gradients are compared.
void bench_check_net(const struct bench_work *work, vkmoe_context *oracle, struct bench_row *row);

// Ends with what was found; `format` is for people.
__attribute__((format(printf, 2, 3)))
void bench_check_failed(struct bench_row *row, const char *format, ...);
__attribute__((format(printf, 2, 3)))
void bench_check_impossible(struct bench_row *row, const char *format, ...);

// false: a token went to other experts than wanted; the row says which.
bool bench_check_ids(const struct bench_work *work, struct bench_row *row);

#endif
