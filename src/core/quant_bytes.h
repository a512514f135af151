// SPDX-License-Identifier: MIT
// Fields of blocks, little-endian and at any alignment.
#ifndef MOE_CORE_QUANT_BYTES_H
#define MOE_CORE_QUANT_BYTES_H

#include "core/dtype.h"

#include <math.h>
#include <string.h>

static inline uint16_t load_u16(const unsigned char *at)
{
    return (uint16_t) (at[0] | at[1] << 8);
}

static inline uint32_t load_u32(const unsigned char *at)
{
    return load_u16(at) | (uint32_t) load_u16(at + 2) << 16;
}

static inline void store_u16(unsigned char *at, uint16_t value)
{
    at[0] = (unsigned char) value;
    at[1] = (unsigned char) (value >> 8);
}

static inline void store_u32(unsigned char *at, uint32_t value)
{
    store_u16(at, (uint16_t) value);
    store_u16(at + 2, (uint16_t) (value >> 16));
}

static inline float load_f16(const unsigned char *at)
{
    return moe_f16_to_f32(load_u16(at));
}

// A scale as it can be stored: the nearest finite f16.
static inline float f16_scale(float scale)
{
    const float most = 65504;
    return moe_f16_to_f32(moe_f32_to_f16(fminf(fmaxf(scale, -most), most)));
}

// The nearest integer in least..most, ties to even: a sum with 1.5 * 2^52 has no room for halves.
// Without a call of rint or fmin, this takes a third of the time.
static inline double nearest_in(double value, double least, double most)
{
    const double no_halves = 0x1.8p52;
    value = value > least ? value : least;
    value = value < most ? value : most;
    return (value + no_halves) - no_halves;
}

enum { F16_NAN = 0x7e00 };

// Not for NaN: finite values have a largest magnitude, and it is found. *most gets the value that
// has it, with its sign. false: one of the values is an infinity or NaN.
static inline bool find_most(const float *values, uint32_t n, float *most)
{
    *most = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!isfinite(values[i]))
            return false;
        if (fabsf(values[i]) > fabsf(*most))
            *most = values[i];
    }
    return true;
}

#endif
