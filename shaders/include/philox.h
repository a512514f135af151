// SPDX-License-Identifier: MIT
// Random numbers as a pure function of where they stand, read by C and by GLSL:
//
//   key (2)      the seed, low word first
//   counter (4)  column, row, stream, pass
//
// Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
#ifndef MOE_PHILOX_H
#define MOE_PHILOX_H

#ifdef VULKAN // GLSL
#define MOE_PHILOX_MUL(a, b, high, low) umulExtended(a, b, high, low)
#define MOE_PHILOX_FN
#define MOE_PHILOX_IO(name) inout uint name[4]
#define MOE_PHILOX_WORD uint
#else
#include <stdint.h>
#define MOE_PHILOX_MUL(a, b, high, low)                                                            \
    do {                                                                                           \
        uint64_t product = (uint64_t) (a) * (b);                                                   \
        (high) = (uint32_t) (product >> 32);                                                       \
        (low) = (uint32_t) product;                                                                \
    } while (0)
#define MOE_PHILOX_FN static inline
#define MOE_PHILOX_IO(name) uint32_t name[4]
#define MOE_PHILOX_WORD uint32_t
#endif

// v: in the counter, out four random words.
MOE_PHILOX_FN void moe_philox(MOE_PHILOX_IO(v), MOE_PHILOX_WORD k0, MOE_PHILOX_WORD k1)
{
    for (int i = 0; i < 10; i++) {
        MOE_PHILOX_WORD a_high, a_low, b_high, b_low;
        MOE_PHILOX_MUL(0xD2511F53u, v[0], a_high, a_low);
        MOE_PHILOX_MUL(0xCD9E8D57u, v[2], b_high, b_low);
        v[0] = b_high ^ v[1] ^ k0;
        v[1] = b_low;
        v[2] = a_high ^ v[3] ^ k1;
        v[3] = a_low;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

// Of the first words of a block:
//   u(row, column) = (v[0] >> 8) / 2^24, in [0, 1)
//   n(row, column) = sqrt(-2 ln a) cos(2 pi b), a = ((v[0] >> 8) + 1) / 2^24,
//                    b = (v[1] >> 8) / 2^24
#define MOE_PHILOX_UNIT 5.9604644775390625e-8f // 2^-24

#endif
