// SPDX-License-Identifier: MIT
// 16-bit types: every value decoded, and numbers at and around every boundary between two values
// encoded, have the bits that core/dtype.h gives. A NaN stays one.
#include "kernels_test.h"

#include "base/bits.h"
#include "core/dtype.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N_VALUES = 65536, MAX_PIECE = 19 };

static const struct kernels_options *options;
static const enum vkmoe_dtype types[] = {VKMOE_F16, VKMOE_BF16};

struct half_case {
    uint16_t stored[N_VALUES + 1], got[N_VALUES + 1];
    float values[N_VALUES + 1], decoded[N_VALUES + 1];
};

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static void expect_same(const struct level *level, enum vkmoe_dtype type, uint32_t i, uint32_t want,
                        uint32_t got)
{
    if (want != got)
        fail_msg("%s, %s, element %u: %#x, not %#x", moe_cpu_isa_name(level->isa),
                 moe_dtype_info(type)->name, i, got, want);
}

// Every value, in pieces of all sizes at all alignments.
static void check_decode(struct half_case *c, const struct level *level, enum vkmoe_dtype type)
{
    uint32_t piece = 0;
    for (uint32_t i = 0; i < N_VALUES; i++)
        c->stored[i] = (uint16_t) i;
    for (uint32_t i = 0; i < N_VALUES; i += piece) {
        piece = i % MAX_PIECE + 1;
        const uint32_t n = (uint32_t) moe_min(piece, N_VALUES - i);
        c->decoded[i + n] = 7;
        level->kernels.decode[type](c->stored + i, c->decoded + i, n);
        assert_true(c->decoded[i + n] == 7); // nothing behind
    }
    moe_dtype_decode(type, c->stored, N_VALUES, c->values);
    for (uint32_t i = 0; i < N_VALUES; i++)
        if (!isnan(c->values[i]) || !isnan(c->decoded[i]))
            expect_same(level, type, i, bits_of(c->values[i]), bits_of(c->decoded[i]));
}

// values: between value i of the type and the next, `steps` floats from the middle.
static void check_encode(struct half_case *c, const struct level *level, enum vkmoe_dtype type,
                         int steps)
{
    uint32_t piece = 0;
    for (uint32_t i = 0; i < N_VALUES; i++) {
        const uint16_t two[] = {(uint16_t) i, (uint16_t) (i + 1)};
        float ends[2];
        moe_dtype_decode(type, two, 2, ends);
        c->values[i] = isfinite(ends[0]) && isinf(ends[1]) ? ends[0] * (1 + 0x1p-9f)
                                                           : ends[0] + (ends[1] - ends[0]) / 2;
        for (int step = 0; step < abs(steps); step++)
            c->values[i] = nextafterf(c->values[i], steps < 0 ? -INFINITY : INFINITY);
    }
    moe_dtype_encode(type, c->values, N_VALUES, c->stored);
    for (uint32_t i = 0; i < N_VALUES; i += piece) {
        piece = i % MAX_PIECE + 1;
        const uint32_t n = (uint32_t) moe_min(piece, N_VALUES - i);
        c->got[i + n] = 7;
        level->kernels.encode[type](c->values + i, c->got + i, n);
        assert_int_equal(c->got[i + n], 7);
    }
    for (uint32_t i = 0; i < N_VALUES; i++)
        expect_same(level, type, i, c->stored[i], c->got[i]);
}

static void halves_have_their_bits(void **state)
{
    (void) state;
    static struct half_case c;
    struct level levels[CPU_N_ISAS];
    const uint32_t n = list_levels(options, levels);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t t = 0; t < MOE_COUNT(types); t++) {
            check_decode(&c, &levels[i], types[t]);
            for (int steps = options->few ? 1 : -1; steps <= 1; steps++)
                check_encode(&c, &levels[i], types[t], steps);
        }
    }
}

int run_half_tests(const struct kernels_options *given)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(halves_have_their_bits)};
    options = given;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
