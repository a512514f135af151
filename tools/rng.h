// SPDX-License-Identifier: MIT
// Counter-based random numbers: a number is a pure function of where it stands, so any of them can
// be made again alone, on any machine.
//
// Philox4x32-10 of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
#ifndef RNG_H
#define RNG_H

#include <stdint.h>

struct rng_block {
    uint32_t v[4];
};

static inline struct rng_block rng_philox(struct rng_block counter, uint64_t key)
{
    uint32_t k0 = (uint32_t) key, k1 = (uint32_t) (key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = 0xD2511F53ull * counter.v[0];
        uint64_t b = 0xCD9E8D57ull * counter.v[2];
        counter = (struct rng_block){{
            (uint32_t) (b >> 32) ^ counter.v[1] ^ k0,
            (uint32_t) b,
            (uint32_t) (a >> 32) ^ counter.v[3] ^ k1,
            (uint32_t) a,
        }};
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return counter;
}

// Word `index` of one stream.
static inline uint32_t rng_word(uint64_t key, uint32_t stream, uint32_t part, uint64_t index)
{
    return rng_philox((struct rng_block){{(uint32_t) index, (uint32_t) (index >> 32), part,
                                          stream}}, key).v[0];
}

// Number `index` of one stream: nearly N(0, 1), within +-3.5. The sum of four uniform numbers has
// variance 1/3; it needs no libm, so every machine gets the same bits.
static inline float rng_normal(uint64_t key, uint32_t stream, uint32_t part, uint64_t index)
{
    struct rng_block block = rng_philox(
        (struct rng_block){{(uint32_t) index, (uint32_t) (index >> 32), part, stream}}, key);
    int64_t sum = (int64_t) block.v[0] + block.v[1] + block.v[2] + block.v[3] - (INT64_C(2) << 32);
    return (float) ((double) sum * (0x1p-32 * 1.7320508075688772));
}

#endif
