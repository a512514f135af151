// SPDX-License-Identifier: MIT
// Integer helpers.
#ifndef MOE_BASE_BITS_H
#define MOE_BASE_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOE_COUNT(array) (sizeof(array) / sizeof *(array))

static inline uint64_t moe_div_up(uint64_t n, uint64_t d)
{
    return n / d + (n % d != 0);
}

// Rounds n up to a multiple of `to`, any positive number.
static inline uint64_t moe_align_up(uint64_t n, uint64_t to)
{
    return moe_div_up(n, to) * to;
}

static inline uint64_t moe_min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static inline uint64_t moe_max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

// *out = a * b; false when that overflows.
static inline bool moe_mul(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

#endif
