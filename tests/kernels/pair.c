// SPDX-License-Identifier: MIT
// Two panels at once: the bits of one panel after the other.
#include "kernels_test.h"

#include "core/dtype.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    MAX_K = 260,
    GUARD = 16, // floats between and behind the outputs that must stay as they are
    MAX_ROWS = 37,
    PAGE = 1024, // floats
    OUT = MAX_ROWS * CPU_PANEL,
};

struct pair_case {
    float x[MAX_ROWS * PAGE];
    const void *rows[MAX_ROWS];
    char *panels[2];
    float *out, *want; // (2, OUT + GUARD) each
};

static const struct kernels_options *options; // of this run of the program

// Rows that are the same distance apart, the last one first, in no order, and whole pages apart.
enum order { EVEN, REVERSED, SHUFFLED, PAGES, N_ORDERS };

static void place_rows(struct pair_case *c, enum order order)
{
    const size_t stride = order == PAGES ? PAGE : MAX_K + 1; // odd multiples of 4 bytes
    for (uint32_t r = 0; r < MAX_ROWS; r++) {
        const uint32_t at = order == REVERSED ? MAX_ROWS - 1 - r
                            : order == SHUFFLED ? r * 7 % MAX_ROWS : r;
        c->rows[r] = c->x + at * stride;
    }
}

static void fill(struct pair_case *c, enum vkmoe_dtype type, uint64_t seed)
{
    float values[CPU_PANEL];
    for (uint32_t i = 0; i < MAX_ROWS * PAGE; i++)
        c->x[i] = random_value(&seed);
    for (uint32_t i = 0; i < 2 * MAX_K; i++) {
        for (uint32_t j = 0; j < CPU_PANEL; j++)
            values[j] = random_value(&seed);
        moe_dtype_encode(type, values, CPU_PANEL,
                         c->panels[i % 2] + i / 2 * moe_dtype_size(type, CPU_PANEL));
    }
}

static void check(struct pair_case *c, const struct cpu_kernels *kernels, enum vkmoe_dtype type,
                  uint32_t n_rows, uint32_t k)
{
    const size_t size = 2 * (OUT + GUARD) * sizeof *c->out;
    const char *const swapped[] = {c->panels[1], c->panels[0]};
    float *const out[] = {c->out, c->out + OUT + GUARD};
    memset(c->want, 0xff, size);
    for (uint32_t p = 0; p < 2; p++)
        kernels->panel[CPU_OPERAND_F32][type](c->rows, n_rows, c->panels[p], k,
                                              c->want + p * (OUT + GUARD));
    memset(c->out, 0xff, size);
    kernels->pair[CPU_OPERAND_F32][type](c->rows, n_rows, (const char *const *) c->panels, k, out);
    if (memcmp(c->out, c->want, size) != 0)
        fail_msg("%s, %u rows of %u: not the bits of one panel after the other",
                 vkmoe_dtype_name(type), n_rows, k);
    kernels->pair[CPU_OPERAND_F32][type](c->rows, n_rows, swapped, k, out);
    if (memcmp(c->out, c->want, size) == 0)
        fail_msg("the check does not see which panel is which");
}

static void pairs_have_the_bits_of_panels(void **state)
{
    static const uint32_t all_k[] = {1, 2, 3, 8, 33, 64, 257, MAX_K};
    static struct level levels[CPU_N_ISAS];
    static struct pair_case c;
    const size_t panel_size = MAX_K * CPU_PANEL * sizeof(float);
    (void) state;
    c.panels[0] = aligned_memory(panel_size);
    c.panels[1] = aligned_memory(panel_size);
    c.out = aligned_memory(2 * (OUT + GUARD) * sizeof *c.out);
    c.want = aligned_memory(2 * (OUT + GUARD) * sizeof *c.want);
    const uint32_t n = list_levels(options, levels);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t type = 0; type < CPU_N_FLOATS; type++) {
            if (!levels[i].kernels.pair[CPU_OPERAND_F32][type])
                continue;
            fill(&c, (enum vkmoe_dtype) type, options->seed + type);
            for (uint32_t order = 0; order < N_ORDERS; order++) {
                place_rows(&c, (enum order) order);
                for (uint32_t j = 0; j < sizeof all_k / sizeof *all_k * MAX_ROWS; j++)
                    check(&c, &levels[i].kernels, (enum vkmoe_dtype) type, j % MAX_ROWS + 1,
                          all_k[j / MAX_ROWS]);
            }
        }
    }
    free(c.panels[0]);
    free(c.panels[1]);
    free(c.out);
    free(c.want);
}

int run_pair_tests(const struct kernels_options *given)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pairs_have_the_bits_of_panels)};
    options = given;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
