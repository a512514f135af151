// SPDX-License-Identifier: MIT
// Lists of token counts: "1,2,4-512*2" and "1-8+1" are 1 2 4 8 .. 512 and 1 2 3 .. 8.
#ifndef BENCH_TOKENS_H
#define BENCH_TOKENS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BENCH_MAX_TOKENS = 256 }; // counts in a list

struct bench_tokens {
    uint32_t counts[BENCH_MAX_TOKENS]; // all different, in the order of the text
    uint32_t n;
};

// Appends the list. A range A-B goes up by 1, "+N" by N, "*N" from each to its N-fold; B is in it
// only if it is reached. false: not such a list, and `reason` says what is wrong.
bool bench_tokens_parse(const char *text, struct bench_tokens *out, char *reason, size_t size);

#endif
