// SPDX-License-Identifier: MIT
// The kernels of networks' products: pieces of chains, and transposing.
//
// A chain of k products that begins with a number b holds the bound of panel.c with k + 1 terms:
// gamma_(k+1)(u) (|b| + sum |x w|).
#include "kernels_test.h"

#include "base/bits.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    MAX_ROWS = 32,
    MAX_K = 140,
    X_STRIDE = MAX_K + 9, // rows of x begin anywhere
    OUT_STRIDE = 19,      // rows of out too; what is between them must stay as it is
    OUT_SIZE = MAX_ROWS * OUT_STRIDE,
};

struct chain_case {
    float x[MAX_ROWS * X_STRIDE];
    _Alignas(64) float panel[MAX_K * CPU_PANEL];
    float begin[OUT_SIZE], out[OUT_SIZE];
    const float *rows[MAX_ROWS];
    float *to[MAX_ROWS];
};

static const struct kernels_options *options;

static void fill(struct chain_case *c, uint64_t seed)
{
    uint64_t state = seed;
    for (size_t i = 0; i < MOE_COUNT(c->x); i++)
        c->x[i] = random_value(&state);
    for (size_t i = 0; i < MOE_COUNT(c->panel); i++)
        c->panel[i] = random_value(&state);
    for (size_t i = 0; i < MOE_COUNT(c->begin); i++)
        c->begin[i] = random_value(&state);
    for (uint32_t r = 0; r < MAX_ROWS; r++) {
        c->rows[r] = c->x + (size_t) r * X_STRIDE + r % 7;
        c->to[(r + 5) % MAX_ROWS] = c->out + (size_t) r * OUT_STRIDE;
    }
}

// How many sums are beyond the bound, and floats between them changed.
static uint32_t count_wrong(const struct chain_case *c, uint32_t n_rows, uint32_t first,
                            uint32_t k, bool more)
{
    const double gamma = (k + 1) * 0x1p-24 / (1 - (k + 1) * 0x1p-24);
    bool ours[OUT_SIZE] = {false};
    uint32_t n_wrong = 0;
    for (uint32_t r = 0; r < n_rows; r++) {
        for (uint32_t column = 0; column < CPU_PANEL; column++) {
            const size_t at = (size_t) (c->to[r] - c->out) + column;
            double sum = more ? (double) c->begin[at] : 0, magnitude = fabs(sum);
            for (uint32_t i = 0; i < k; i++) {
                double product = (double) c->rows[r][first + i] *
                                 (double) c->panel[i * CPU_PANEL + column];
                sum += product;
                magnitude += fabs(product);
            }
            ours[at] = true;
            n_wrong += !(fabs((double) c->out[at] - sum) <= gamma * magnitude);
        }
    }
    for (size_t i = 0; i < OUT_SIZE; i++)
        n_wrong += !ours[i] && memcmp(&c->out[i], &c->begin[i], sizeof *c->out) != 0;
    return n_wrong;
}

static void check_chain(struct chain_case *c, const struct level *level, uint32_t n_rows,
                        uint32_t k, bool more)
{
    const uint32_t first = k % 3;
    memcpy(c->out, c->begin, sizeof c->out);
    level->kernels.chain(c->rows, n_rows, first, c->panel, k, more, c->to);
    if (count_wrong(c, n_rows, first, k, more) > 0)
        fail_msg("%s: %u rows, k %u, more %d: wrong", moe_cpu_isa_name(level->isa), n_rows, k,
                 more);
    if (count_wrong(c, n_rows, first, k, !more) == 0)
        fail_msg("the check does not see where chains begin");

    // In two pieces: the same bits.
    float whole[OUT_SIZE];
    const uint32_t half = k / 2;
    memcpy(whole, c->out, sizeof whole);
    memcpy(c->out, c->begin, sizeof c->out);
    if (half > 0)
        level->kernels.chain(c->rows, n_rows, first, c->panel, half, more, c->to);
    level->kernels.chain(c->rows, n_rows, first + half, c->panel + (size_t) half * CPU_PANEL,
                         k - half, more || half > 0, c->to);
    if (memcmp(whole, c->out, sizeof whole) != 0)
        fail_msg("%s: %u rows, k %u: other bits in pieces", moe_cpu_isa_name(level->isa), n_rows,
                 k);
}

static const uint32_t all_k[] = {1, 2, 3, 8, 31, MAX_K - 3};

static void chains_hold_their_bound(void **state)
{
    (void) state;
    static struct chain_case c;
    struct level levels[CPU_N_ISAS];
    const uint32_t n = list_levels(options, levels);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t n_rows = 1; n_rows <= MAX_ROWS; n_rows++) {
            fill(&c, options->seed + n_rows);
            for (size_t k = 0; k < MOE_COUNT(all_k); k++) {
                check_chain(&c, &levels[i], n_rows, all_k[k], false);
                check_chain(&c, &levels[i], n_rows, all_k[k], true);
            }
        }
    }
}

// ---- two panels ------------------------------------------------------------------------------

enum {
    TWO = 2 * CPU_PANEL,
    TWO_STRIDE = TWO + 3,
    TWO_SIZE = MAX_ROWS * TWO_STRIDE,
    PAGE = 1024, // floats
};

// Rows that are the same distance apart, in no order, and whole pages apart.
enum order { EVEN, SHUFFLED, PAGES, N_ORDERS };

struct two_case {
    float x[MAX_ROWS * PAGE];
    _Alignas(64) float panels[2][MAX_K * CPU_PANEL];
    float begin[TWO_SIZE], out[TWO_SIZE], want[TWO_SIZE];
    const float *rows[MAX_ROWS];
};

static void fill_two(struct two_case *c, enum order order, uint64_t seed)
{
    for (size_t i = 0; i < MOE_COUNT(c->x); i++)
        c->x[i] = random_value(&seed);
    for (size_t i = 0; i < 2 * MOE_COUNT(c->panels[0]); i++)
        c->panels[i % 2][i / 2] = random_value(&seed);
    for (size_t i = 0; i < MOE_COUNT(c->begin); i++)
        c->begin[i] = random_value(&seed);
    for (uint32_t r = 0; r < MAX_ROWS; r++)
        c->rows[r] = c->x + (size_t) (order == SHUFFLED ? r * 7 % MAX_ROWS : r) *
                                (order == PAGES ? PAGE : X_STRIDE);
}

// Of both panels, by the kernel of one.
static void want_two(struct two_case *c, const struct level *level, uint32_t n_rows, uint32_t k,
                     bool more, bool swapped)
{
    float *to[MAX_ROWS];
    memcpy(c->want, c->begin, sizeof c->want);
    for (uint32_t p = 0; p < 2; p++) {
        for (uint32_t r = 0; r < n_rows; r++)
            to[r] = c->want + (size_t) r * TWO_STRIDE + p * CPU_PANEL;
        level->kernels.chain(c->rows, n_rows, k % 3, c->panels[swapped ? 1 - p : p], k, more, to);
    }
}

static void check_two(struct two_case *c, const struct level *level, uint32_t n_rows, uint32_t k,
                      bool more)
{
    enum { N_LINES = 2 };
    const float *const panels[] = {c->panels[0], c->panels[1]};
    struct cpu_fetch fetch = {.row = (const char *) c->x, .stride = 3 * CPU_LINE, .n_rows = 3,
                              .n_lines = N_LINES, .each = k % 4};
    float *to[MAX_ROWS];
    for (uint32_t r = 0; r < n_rows; r++)
        to[r] = c->out + (size_t) r * TWO_STRIDE;
    memcpy(c->out, c->begin, sizeof c->out);
    level->kernels.chain_two(c->rows, n_rows, k % 3, panels, k, more, to, k % 2 ? &fetch : NULL);
    want_two(c, level, n_rows, k, more, false);
    if (memcmp(c->out, c->want, sizeof c->out) != 0)
        fail_msg("%s, %u rows, k %u, more %d: not the bits of one panel after the other",
                 moe_cpu_isa_name(level->isa), n_rows, k, more);
    want_two(c, level, n_rows, k, more, true);
    if (memcmp(c->out, c->want, sizeof c->out) == 0)
        fail_msg("the check does not see which panel is which");
    const uint64_t n_asked = (3 - fetch.n_rows) * N_LINES + fetch.line;
    const uint64_t least = k % 2 ? moe_min(3 * N_LINES, (uint64_t) k / CPU_FETCH_STEPS * (k % 4))
                                 : 0;
    if (fetch.n_rows > 3 || fetch.line >= N_LINES || n_asked < least)
        fail_msg("%s, %u rows, k %u: row %u, line %u were asked for last",
                 moe_cpu_isa_name(level->isa), n_rows, k, 3 - fetch.n_rows, fetch.line);
}

static void two_chains_have_the_bits_of_one(void **state)
{
    (void) state;
    static struct two_case c;
    struct level levels[CPU_N_ISAS];
    const uint32_t n = list_levels(options, levels);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t order = 0; levels[i].kernels.chain_two && order < N_ORDERS; order++) {
            fill_two(&c, (enum order) order, options->seed + order);
            for (uint32_t j = 0; j < MOE_COUNT(all_k) * MAX_ROWS; j++) {
                check_two(&c, &levels[i], j % MAX_ROWS + 1, all_k[j / MAX_ROWS], false);
                check_two(&c, &levels[i], j % MAX_ROWS + 1, all_k[j / MAX_ROWS], true);
            }
        }
    }
}

// ---- transposing -----------------------------------------------------------------------------

enum { MAX_N = 70, MAX_STRIDE = 48 };

static void check_transpose(struct chain_case *c, const struct level *level, uint32_t n_rows,
                            uint32_t n, uint32_t stride)
{
    _Alignas(64) static float out[MAX_N * MAX_STRIDE];
    const uint32_t first = n % 5;
    memset(out, 0xff, sizeof out);
    level->kernels.transpose(c->rows, n_rows, first, n, out, stride);
    for (uint32_t i = 0; i < MOE_COUNT(out); i++) {
        const uint32_t row = i / stride, column = i % stride;
        const bool ours = row < n && column < CPU_PANEL;
        const float want = column < n_rows ? c->rows[column % MAX_ROWS][first + row % MAX_N] : 0;
        if (ours ? !(out[i] == want) : !isnan(out[i]))
            fail_msg("%s: %u rows, n %u, stride %u: [%u][%u] is %g", moe_cpu_isa_name(level->isa),
                     n_rows, n, stride, row, column, (double) out[i]);
    }
}

static void transposes_are_exact(void **state)
{
    (void) state;
    static struct chain_case c;
    struct level levels[CPU_N_ISAS];
    const uint32_t n_levels = list_levels(options, levels);
    fill(&c, options->seed);
    for (uint32_t i = 0; i < n_levels; i++) {
        for (uint32_t n_rows = 1; n_rows <= CPU_PANEL; n_rows += options->few ? 5 : 1) {
            for (uint32_t n = 1; n <= MAX_N; n += n < 20 ? 1 : 25) {
                check_transpose(&c, &levels[i], n_rows, n, CPU_PANEL);
                check_transpose(&c, &levels[i], n_rows, n, MAX_STRIDE);
            }
        }
    }
}

int run_chain_tests(const struct kernels_options *given)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chains_hold_their_bound),
        cmocka_unit_test(two_chains_have_the_bits_of_one),
        cmocka_unit_test(transposes_are_exact),
    };
    options = given;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
