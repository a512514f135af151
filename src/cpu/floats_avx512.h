// SPDX-License-Identifier: MIT
// What AVX-512's products with panels of floats share: weights as f32, and where rows of x are. For
// the files alone that are compiled for it.
#ifndef MOE_CPU_FLOATS_AVX512_H
#define MOE_CPU_FLOATS_AVX512_H

#include "cpu/fetch_avx512.h"
#include "cpu/kernels.h"
#include "cpu/unroll.h"

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    STEPS = 4,          // that kernels take at a time
    FEW_ROWS = 8,       // whose addresses have registers, or that share a set of a cache
    EVEN_ROWS = 12,     // whose addresses are one and multiples of the distance
    MAX_EVEN_ROWS = 24, // whose addresses are two and multiples
};

enum weight_type { W_F32, W_F16, W_BF16, W_N };

// Bytes of 16 columns of a step.
INLINE size_t step_size(enum weight_type type)
{
    return type == W_F32 ? 64 : 32;
}

// 16 columns of two steps as f32; exact.
INLINE void load_two(enum weight_type type, const char *panel, __m512 *w)
{
    switch (type) {
    case W_F32:
        w[0] = _mm512_loadu_ps(panel);
        w[1] = _mm512_loadu_ps(panel + 64);
        return;
    case W_F16:
        w[0] = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) panel));
        w[1] = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) panel + 1));
        return;
    case W_BF16:
    case W_N:
        break;
    }
    const __m512i pairs = _mm512_loadu_si512(panel);
    w[0] = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    w[1] = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(-65536)));
}

// The last step of an odd number of them.
INLINE __m512 load_last(enum weight_type type, const char *panel)
{
    if (type == W_F32)
        return _mm512_loadu_ps(panel);
    if (type == W_F16)
        return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *) panel));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(panel), 16));
}

// ---- rows of x ----------------------------------------------------------------------------------

// Rows of x from a step on: each one's address of FEW_ROWS, else the distance, times odd numbers,
// and the addresses of two rows. That and a factor of 1, 2, 4 or 8 is what an instruction adds up.
struct rows {
    const char *few[FEW_ROWS];
    const char *even[MAX_EVEN_ROWS / EVEN_ROWS];
    size_t odd[EVEN_ROWS / 2];
};

// n_rows is a constant where these are expanded.
INLINE void rows_init(uint32_t n_rows, const float *const *x, uint32_t first, struct rows *rows)
{
    if (n_rows <= FEW_ROWS) {
        UNROLL
        for (uint32_t r = 0; r < n_rows; r++)
            rows->few[r] = (const char *) (x[r] + first);
        return;
    }
    const size_t apart = (uintptr_t) x[1] - (uintptr_t) x[0];
    rows->even[0] = (const char *) (x[0] + first);
    rows->even[1] = rows->even[0] + EVEN_ROWS * apart;
    UNROLL
    for (uint32_t i = 0; i < EVEN_ROWS / 2; i++)
        rows->odd[i] = (2 * i + 1) * apart;
}

// Row r, which is a constant where this is expanded.
INLINE const float *row_of(uint32_t n_rows, const struct rows *rows, uint32_t r)
{
    if (n_rows <= FEW_ROWS)
        return (const float *) rows->few[r];
    const char *from = rows->even[r / EVEN_ROWS];
    const uint32_t i = r % EVEN_ROWS, shift = i % 2 ? 0 : i % 4 ? 1 : i % 8 ? 2 : 3;
    return (const float *) (i == 0 ? from : from + (rows->odd[(i >> shift) / 2] << shift));
}

// n_steps on.
INLINE void rows_advance(uint32_t n_rows, struct rows *rows, uint32_t n_steps)
{
    if (n_rows <= FEW_ROWS) {
        UNROLL
        for (uint32_t r = 0; r < n_rows; r++)
            rows->few[r] += n_steps * sizeof(float);
        return;
    }
    UNROLL
    for (uint32_t i = 0; i < MAX_EVEN_ROWS / EVEN_ROWS; i++)
        rows->even[i] += n_steps * sizeof(float);
}

// Are rows the same distance apart, and not whole pages? Those would share a set of the first-level
// cache.
INLINE bool evenly_apart(const float *const *x, uint32_t n_rows)
{
    enum { PAGE = 4096 };
    const uintptr_t apart = n_rows > 1 ? (uintptr_t) x[1] - (uintptr_t) x[0] : 0;
    for (uint32_t r = 2; r < n_rows; r++)
        if ((uintptr_t) x[r] - (uintptr_t) x[r - 1] != apart)
            return false;
    return apart % PAGE != 0;
}

#endif
