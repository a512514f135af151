// SPDX-License-Identifier: MIT
// Asking for weights before they are needed, where they are read once. For the files alone that
// are compiled for AVX-512.
#ifndef MOE_CPU_FETCH_AVX512_H
#define MOE_CPU_FETCH_AVX512_H

#include <immintrin.h>

enum { FETCH_FAR = 6144, FETCH_NEAR = 1024 }; // bytes

// The hardware's own prefetch stops at every page. Kernels that compute while they read cannot make
// up for a line that comes late: each is asked for twice, from memory into the second-level cache,
// which waits for more lines at once than the first, and from there into the first.
static inline __attribute__((always_inline)) void fetch_line(const char *here)
{
    _mm_prefetch(here + FETCH_FAR, _MM_HINT_T1);
    _mm_prefetch(here + FETCH_NEAR, _MM_HINT_T0);
}

#endif
