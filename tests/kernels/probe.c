// SPDX-License-Identifier: MIT
// Probes do the work that their rates are of: every word is read once, and a round is as many
// multiply-adds as it says.
#include "kernels_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct kernels_options *options;
// Multiply-adds of a step of 12 chains, a twelfth. NEON's are 24 and take two for each step.
static const uint32_t lanes[CPU_N_ISAS] = {
    [CPU_ISA_SCALAR] = 4,       [CPU_ISA_AVX2] = 8,         [CPU_ISA_AVX512] = 16,
    [CPU_ISA_AVX512_VNNI] = 16, [CPU_ISA_AVX512_BF16] = 16, [CPU_ISA_AMX] = 16,
    [CPU_ISA_NEON] = 16,        [CPU_ISA_DOTPROD] = 16,     [CPU_ISA_I8MM] = 16,
};
// Where a step of int8 has fewer sums than that.
static const uint32_t int8_lanes[CPU_N_ISAS] = {
    [CPU_ISA_AVX512] = 8, [CPU_ISA_DOTPROD] = 4, [CPU_ISA_I8MM] = 4};

static void check_read(const struct level *level, uint32_t *memory, uint32_t n)
{
    memset(memory, 0, 2 * n * sizeof *memory);
    assert_int_equal(level->kernels.read(memory, n), 0);
    for (uint32_t i = 0; i < 2 * n; i++) {
        uint32_t value = i * 2654435761u | 1;
        memory[i] = value;
        assert_int_equal(level->kernels.read(memory, n), i < n ? value : 0);
        memory[i] = 0;
    }
}

static void every_word_is_read_once(void **state)
{
    (void) state;
    struct level levels[CPU_N_ISAS];
    const uint32_t n = list_levels(options, levels);
    uint32_t *memory = aligned_memory(8 * CPU_READ_WORDS * sizeof *memory);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t blocks = 0; blocks <= 4; blocks++)
            check_read(&levels[i], memory, blocks * CPU_READ_WORDS);
    free(memory);
}

// v + 1 counts the products of each sum; chain j of 12 begins with j. AMX has 4 chains of 256.
static void check_peak(const struct level *level, enum cpu_operand operand)
{
    cpu_peak_fn *const peak = level->kernels.peak[operand];
    const bool fewer = operand == CPU_OPERAND_INT8 && int8_lanes[level->isa] > 0;
    const bool tiles = operand == CPU_OPERAND_BF16 && level->isa == CPU_ISA_AMX;
    const uint32_t n_sums = tiles ? 4 * 256 : 12 * (fewer ? int8_lanes : lanes)[level->isa];
    const float first = tiles ? 1.5f : 5.5f;
    for (uint64_t rounds = 0; rounds < 10 * CPU_PEAK_ROUNDS; rounds += 3 * CPU_PEAK_ROUNDS)
        assert_true(peak(rounds, 1, 1, 1) == first + (float) (rounds * CPU_ROUND_MACS / n_sums));
    if (operand == CPU_OPERAND_F32)
        assert_true(peak(CPU_PEAK_ROUNDS, 1, 0, 3) == 3);
}

static void a_round_is_what_it_says(void **state)
{
    (void) state;
    struct level levels[CPU_N_ISAS];
    const uint32_t n = list_levels(options, levels);
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t operand = 0; operand < CPU_N_OPERANDS; operand++)
            if (levels[i].kernels.peak[operand])
                check_peak(&levels[i], (enum cpu_operand) operand);
}

int run_probe_tests(const struct kernels_options *given)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_word_is_read_once),
        cmocka_unit_test(a_round_is_what_it_says),
    };
    options = given;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
