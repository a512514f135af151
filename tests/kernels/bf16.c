// SPDX-License-Identifier: MIT
// Operands of bf16: panels times rows of bf16 are near the f64 sum of the same products.
//
// Bound: both operands are exact, and so is a product of two in f32. Each product of a pair is
// added to the sum and rounded, which is at most n roundings of a term, n being k made even; or
// both are added first, which is n / 2 + 1; or, of AMX, 16 even and 16 odd ones apart, their two
// sums to one of two others, and these at the end, which is no more than n. Each is gamma_n(u) *
// sum |x w|, gamma_n = n u / (1 - n u), u = 2^-24. Numbers below 2^-126 are 0 to a processor: of a
// sum that can take 2^-126 at each of n roundings, of a product with such an operand all.
#include "kernels_test.h"

#include "base/bits.h"
#include "core/dtype.h"
#include "cpu/cpu.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    MAX_ROWS = 50,
    MAX_K = 1031,
    STRIDE = MAX_K + 3, // bf16 numbers: rows begin at any multiple of 4 bytes
    GUARD = 64,         // floats before and behind the output that must stay as they are
};

enum flavour {
    NORMAL,
    DENORMAL, // numbers of both operands that are below 2^-126
    SPECIAL,  // a few infinities and NaNs among x
    N_FLAVOURS,
};

struct bf16_case {
    enum flavour flavour;
    uint32_t n_rows, k;
    uint64_t seed;
    _Alignas(4) uint16_t x[MAX_ROWS * STRIDE];
    const void *rows[MAX_ROWS];
    float decoded[MAX_ROWS][MAX_K], w[CPU_PANEL][MAX_K]; // what operands hold
    uint16_t stored[CPU_PANEL][MAX_K];
    _Alignas(64) char panel[(MAX_K + 1) * CPU_PANEL * sizeof(uint16_t)];
    _Alignas(64) float memory[MAX_ROWS * CPU_PANEL + 2 * GUARD];
    float *out;
};

static const struct kernels_options *options;

static void fill_row(const struct bf16_case *c, uint64_t *state, uint16_t *stored, float *decoded)
{
    float values[MAX_K];
    for (uint32_t i = 0; i < c->k; i++) {
        values[i] = random_value(state);
        if (c->flavour == DENORMAL)
            values[i] *= random_bits(state) % 4 == 0 ? 0x1p-126f : 0x1p-62f;
    }
    if (c->flavour == SPECIAL && random_bits(state) % 8 == 0) {
        const float special[] = {INFINITY, -INFINITY, NAN};
        values[random_bits(state) % c->k] = special[random_bits(state) % 3];
    }
    moe_dtype_encode(VKMOE_BF16, values, c->k, stored);
    moe_dtype_decode(VKMOE_BF16, stored, c->k, decoded);
}

static void case_fill(struct bf16_case *c)
{
    const char *stored[CPU_PANEL];
    uint64_t state = c->seed;
    c->out = c->memory + GUARD;
    for (uint32_t r = 0; r < c->n_rows; r++) {
        uint16_t *row = c->x + (size_t) r * STRIDE;
        fill_row(c, &state, row, c->decoded[r]);
        if (c->k % 2 > 0)
            row[c->k] = 0;
        c->rows[r] = row;
    }
    const enum flavour flavour = c->flavour;
    c->flavour = flavour == SPECIAL ? NORMAL : flavour;
    for (uint32_t column = 0; column < CPU_PANEL; column++) {
        fill_row(c, &state, c->stored[column], c->w[column]);
        stored[column] = (const char *) c->stored[column];
    }
    c->flavour = flavour;
    moe_cpu_pack_panel(VKMOE_BF16, stored, CPU_PANEL, c->k, c->panel);
}

static void case_run(struct bf16_case *c, const struct kernel *kernel, uint32_t first, uint32_t n)
{
    memset(c->memory, 0xff, sizeof c->memory);
    kernel->panel(c->rows + first, n, c->panel, c->k, c->out);
}

static bool rest_intact(const struct bf16_case *c)
{
    const size_t begin = sizeof(float) * GUARD;
    return guards_intact(c->memory, sizeof c->memory, begin,
                         begin + sizeof(float) * c->n_rows * CPU_PANEL);
}

// Is an output the sum of row r times column `column`? Infinities and NaNs have to be just those.
static bool output_ok(const struct bf16_case *c, uint32_t r, uint32_t column, double got)
{
    const double smallest = 0x1p-126, n = c->k + c->k % 2, gamma = n * 0x1p-24 / (1 - n * 0x1p-24);
    double sum = 0, magnitude = 0, lost = n * smallest;
    for (uint32_t i = 0; i < c->k; i++) {
        const double x = (double) c->decoded[r][i], w = (double) c->w[column][i];
        sum += x * w;
        magnitude += fabs(x * w);
        if (fabs(x) < smallest || fabs(w) < smallest)
            lost += fabs(x * w);
    }
    if (!isfinite(sum))
        return isnan(sum) ? isnan(got) : got == sum;
    return fabs(got - sum) <= gamma * magnitude + lost;
}

// Columns `shift` further than they should be.
static uint32_t count_wrong(const struct bf16_case *c, uint32_t shift)
{
    uint32_t n = 0;
    for (uint32_t r = 0; r < c->n_rows; r++)
        for (uint32_t column = 0; column < CPU_PANEL; column++)
            n += !output_ok(c, r, (column + shift) % CPU_PANEL,
                            (double) c->out[r * CPU_PANEL + column]);
    return n;
}

static void expect(bool ok, const struct bf16_case *c, const struct kernel *kernel,
                   const char *what)
{
    if (!ok)
        fail_msg("%s, %u rows, k %u, flavour %d, seed %llu: %s", moe_cpu_isa_name(kernel->isa),
                 c->n_rows, c->k, (int) c->flavour, (unsigned long long) c->seed, what);
}

// Rows that are not evenly apart, or backwards, or the same one: each as among the others.
static void check_orders(struct bf16_case *c, const struct kernel *kernel, const float *together)
{
    const size_t row_size = CPU_PANEL * sizeof(float);
    const void *rows[MAX_ROWS];
    memcpy(rows, c->rows, sizeof rows);
    for (uint32_t order = 0; order < 3; order++) {
        uint32_t of[MAX_ROWS];
        for (uint32_t r = 0; r < c->n_rows; r++) {
            const uint32_t odd = r / 2 * 2 + 1, even = r / 2 * 2;
            of[r] = order == 0 ? (r % 2 ? even : odd < c->n_rows ? odd : even)
                  : order == 1 ? c->n_rows - 1 - r : 0;
            c->rows[r] = rows[of[r]];
        }
        case_run(c, kernel, 0, c->n_rows);
        for (uint32_t r = 0; r < c->n_rows; r++)
            expect(memcmp(c->out + r * CPU_PANEL, together + of[r] * CPU_PANEL, row_size) == 0, c,
                   kernel, "rows in another order have other bits");
    }
    memcpy(c->rows, rows, sizeof rows);
}

static void check_case(struct bf16_case *c, const struct kernel *kernel)
{
    float together[MAX_ROWS * CPU_PANEL];
    const size_t row_size = CPU_PANEL * sizeof(float);
    case_fill(c);
    case_run(c, kernel, 0, c->n_rows);
    expect(rest_intact(c), c, kernel, "wrote outside its output");
    expect(count_wrong(c, 0) == 0, c, kernel, "beyond the bound");
    if (c->flavour == NORMAL)
        expect(count_wrong(c, 1) > 0, c, kernel, "columns of their neighbours pass the check");
    memcpy(together, c->out, c->n_rows * row_size);
    check_orders(c, kernel, together);
    for (uint32_t r = 0; r < c->n_rows; r++) {
        case_run(c, kernel, r, 1);
        expect(memcmp(c->out, together + r * CPU_PANEL, row_size) == 0, c, kernel,
               "a row alone has other bits than among others");
    }
}

// Two panels at once, the second a step further, have the bits of each.
static void check_pair(struct bf16_case *c, const struct kernel *kernel)
{
    _Alignas(64) static float pair[2][MAX_ROWS * CPU_PANEL], want[2][MAX_ROWS * CPU_PANEL];
    const uint32_t k = c->k - 2;
    const char *const panels[] = {c->panel, c->panel + 2 * CPU_PANEL * sizeof(uint16_t)};
    memset(pair, 0xff, sizeof pair);
    memset(want, 0xff, sizeof want);
    kernel->panel(c->rows, c->n_rows, panels[0], k, want[0]);
    kernel->panel(c->rows, c->n_rows, panels[1], k, want[1]);
    kernel->pair(c->rows, c->n_rows, panels, k, (float *[]){pair[0], pair[1]});
    expect(memcmp(pair, want, sizeof pair) == 0, c, kernel,
           "two panels have other bits than one after the other");
    kernel->pair(c->rows, c->n_rows, panels, k, (float *[]){pair[1], pair[0]});
    expect(memcmp(pair, want, sizeof pair) != 0, c, kernel,
           "the check does not see which panel is which");
}

static void panels_hold_their_bound(void **state)
{
    (void) state;
    static const uint32_t more_rows[] = {31, 32, 33, 47, 48, 49, MAX_ROWS};
    static const uint32_t all_k[] = {1, 2, 3, 7, 8, 9, 64, 101, 511, 512, 513, MAX_K};
    static struct bf16_case c;
    struct kernel kernels[MAX_KERNELS];
    struct level levels[CPU_N_ISAS];
    const uint32_t n = list_kernels(options, CPU_OPERAND_BF16, kernels);
    const uint32_t n_levels = list_levels(options, levels);
    for (uint32_t i = 0; i < n_levels; i++) {
        assert_true(levels[i].isa != CPU_ISA_AVX512_BF16 || n > 0);
        struct cpu_kernels before;
        if (levels[i].isa != CPU_ISA_AMX)
            continue;
        moe_cpu_kernels_init(&before, CPU_ISA_AVX512_BF16);
        assert_true(levels[i].kernels.panel[CPU_OPERAND_BF16][VKMOE_BF16] !=
                    before.panel[CPU_OPERAND_BF16][VKMOE_BF16]);
        assert_true(levels[i].kernels.even_rows[CPU_OPERAND_BF16]);
    }
    c.seed = options->seed;
    for (uint32_t i = 0; i < n; i++) {
        assert_int_equal(kernels[i].type, VKMOE_BF16);
        for (size_t k = 0; k < MOE_COUNT(all_k); k++) {
            // Every block of rows there can be, then some that are several.
            for (uint32_t j = 0; j < 25 + MOE_COUNT(more_rows); j++) {
                c.n_rows = j < 25 ? j + 1 : more_rows[j - 25];
                c.k = all_k[k];
                c.flavour = (enum flavour)((c.n_rows + k) % N_FLAVOURS);
                c.seed++;
                check_case(&c, &kernels[i]);
                if (c.k > 2 && c.flavour == NORMAL && kernels[i].pair)
                    check_pair(&c, &kernels[i]);
            }
        }
    }
}

int run_bf16_tests(const struct kernels_options *given)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(panels_hold_their_bound)};
    options = given;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
