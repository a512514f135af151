// SPDX-License-Identifier: MIT
// Operands of int8: rows become the same blocks at every level, and panels times such blocks are
// near the f64 sum of what both hold.
//
// Bound: codes of x are exact, weights are those of core/dtype.c, each at most u |w| beside
// scale * code - minimum, u = 2^-24. A kernel sums products of a tile of 32 as integers, without
// error, so that scale * code and minimum are each rounded in at most 4 operations of their tile,
// in one with the scale of x, and in k / 32 additions: gamma_n(u) * sum |x| (|scale * code| +
// |minimum|), n = k / 32 + 5, and |scale * code| <= |w| + |minimum|. An operation below the
// smallest normal number loses up to 2^-150 more.
#include "kernels_test.h"

#include "base/bits.h"
#include "core/dtype.h"
#include "core/quant.h"
#include "cpu/cpu.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    MAX_ROWS = 50,
    MAX_K = 768,
    TILE = 32,
    MAX_TILES = MAX_K / TILE,
    MAX_ROW_SIZE = MAX_TILES * 34,
    GUARD = 64, // floats before and behind the output that must stay as they are
};

enum flavour {
    RANDOM,
    EXTREME, // all codes the largest there are: nothing may saturate
    SPECIAL, // scales of every third column, and one of x, that are infinities or NaN
    N_FLAVOURS,
};

// Where a type's scales of f16 are in a block, and the codes of those that have minima.
static const struct form {
    enum vkmoe_dtype type;
    uint8_t n_scales, scale[2], first_code, n_codes;
} forms[] = {
    {VKMOE_Q8_0, 1, {0}, 0, 0},       {VKMOE_Q4_0, 1, {0}, 0, 0},
    {VKMOE_Q4_K, 2, {0, 2}, 16, 128}, {VKMOE_Q5_K, 2, {0, 2}, 16, 160},
    {VKMOE_Q6_K, 1, {208}, 0, 0},     {VKMOE_Q2_K, 2, {80, 82}, 16, 64},
    {VKMOE_MXFP4, 0, {0}, 0, 0},
};

struct int8_case {
    enum flavour flavour;
    uint32_t n_rows, k, row_size, spoiled; // row of x
    uint64_t seed;
    struct cpu_int8_block x[MAX_ROWS][MAX_TILES];
    const void *rows[MAX_ROWS];
    unsigned char stored[CPU_PANEL][MAX_ROW_SIZE];
    float w[CPU_PANEL][MAX_K], minimum[CPU_PANEL][MAX_K];
    _Alignas(64) char panel[CPU_PANEL * MAX_ROW_SIZE];
    _Alignas(64) float memory[MAX_ROWS * CPU_PANEL + 2 * GUARD];
    float *out;
    struct cpu_kernels scalar;
};

static const struct kernels_options *options;

static const struct form *form_of(enum vkmoe_dtype type)
{
    for (size_t i = 0; i < MOE_COUNT(forms); i++)
        if (forms[i].type == type)
            return &forms[i];
    fail_msg("%s has a kernel, but no form", vkmoe_dtype_name(type));
    return NULL;
}

// ---- what is multiplied ----------------------------------------------------------------------

static void set_scales(const struct form *form, unsigned char *block, bool spoil, uint64_t *state)
{
    if (form->type == VKMOE_MXFP4)
        block[0] = (unsigned char) (spoil ? 255 : 120 + random_bits(state) % 12);
    for (uint32_t i = 0; i < form->n_scales; i++) {
        const uint16_t f16 = spoil ? (uint16_t) (random_bits(state) % 2 ? 0x7c00 : 0xfe00)
                                   : moe_f32_to_f16(random_value(state));
        memcpy(block + form->scale[i], &f16, sizeof f16);
    }
}

static void fill_row(struct int8_case *c, const struct form *form, uint32_t column, uint64_t *state)
{
    static const unsigned char extremes[] = {0xff, 0x00, 0x80, 0x7f, 0x77, 0x88};
    const struct moe_dtype_info *info = moe_dtype_info(form->type);
    unsigned char *row = c->stored[column], without[MAX_ROW_SIZE];
    for (uint32_t i = 0; i < c->row_size; i++)
        row[i] = c->flavour == EXTREME ? extremes[column % MOE_COUNT(extremes)]
                                       : (unsigned char) random_bits(state);
    for (uint32_t i = 0; i < c->row_size; i += info->block_size)
        set_scales(form, row + i, c->flavour == SPECIAL && column % 3 == 0, state);
    moe_dtype_decode(form->type, row, c->k, c->w[column]);
    // Minima are what codes of 0 mean.
    memset(c->minimum[column], 0, sizeof c->minimum[column]);
    if (form->n_codes == 0)
        return;
    memcpy(without, row, c->row_size);
    for (uint32_t i = 0; i < c->row_size; i += info->block_size)
        memset(without + i + form->first_code, 0, form->n_codes);
    moe_dtype_decode(form->type, without, c->k, c->minimum[column]);
}

static void fill_x(struct int8_case *c, uint32_t r, uint64_t *state)
{
    float values[MAX_K];
    for (uint32_t i = 0; i < c->k; i++) {
        values[i] = random_value(state);
        if (c->flavour == EXTREME)
            values[i] = r % 3 == 0 || (r % 3 == 1 && i % 4 < 2) ? 1 : -1;
    }
    if (c->flavour == SPECIAL && r == c->spoiled)
        values[random_bits(state) % c->k] = random_bits(state) % 2 ? INFINITY : NAN;
    c->scalar.quantise(values, c->k, c->x[r]);
    c->rows[r] = c->x[r];
}

static void case_fill(struct int8_case *c, enum vkmoe_dtype type)
{
    const struct moe_dtype_info *info = moe_dtype_info(type);
    const char *rows[CPU_PANEL];
    uint64_t state = c->seed;
    c->row_size = c->k / info->block_elements * info->block_size;
    c->spoiled = (uint32_t) (random_bits(&state) % c->n_rows);
    for (uint32_t column = 0; column < CPU_PANEL; column++) {
        fill_row(c, form_of(type), column, &state);
        rows[column] = (const char *) c->stored[column];
    }
    moe_cpu_pack_panel(type, rows, CPU_PANEL, c->k, c->panel);
    for (uint32_t r = 0; r < c->n_rows; r++)
        fill_x(c, r, &state);
}

// ---- what comes out --------------------------------------------------------------------------

// Runs the kernel on `n` rows from `first` into poisoned memory between guards.
static void case_run(struct int8_case *c, cpu_panel_fn *panel, uint32_t first, uint32_t n)
{
    memset(c->memory, 0xff, sizeof c->memory);
    panel(c->rows + first, n, c->panel, c->k, c->out);
}

static bool rest_intact(const struct int8_case *c)
{
    const size_t begin = sizeof(float) * GUARD;
    return guards_intact(c->memory, sizeof c->memory, begin,
                         begin + sizeof(float) * c->n_rows * CPU_PANEL);
}

static bool within_bound(const struct int8_case *c, uint32_t r, uint32_t column)
{
    const double u = 0x1p-24, n = c->k / TILE + 5;
    double sum = 0, magnitude = 0, decoded = 0;
    for (uint32_t i = 0; i < c->k; i++) {
        const struct cpu_int8_block *b = &c->x[r][i / TILE];
        const double x = (double) b->scale * b->codes[i % TILE], w = (double) c->w[column][i];
        sum += x * w;
        decoded += fabs(x * w);
        magnitude += fabs(x) * (fabs(w) + 2 * fabs((double) c->minimum[column][i]));
    }
    const double bound = n * u / (1 - n * u) * magnitude + u * decoded + c->k * 0x1p-150;
    return fabs((double) c->out[r * CPU_PANEL + column] - sum) <= bound;
}

// Where something is an infinity or NaN the output is NaN, or the infinity that `want` says.
static bool special_ok(const struct int8_case *c, uint32_t r, uint32_t column, const float *want)
{
    const float got = c->out[r * CPU_PANEL + column], expected = want[r * CPU_PANEL + column];
    if (r == c->spoiled)
        return isnan(got);
    return isnan(got) || (isinf(got) && got == expected);
}

static uint32_t count_wrong(const struct int8_case *c, const float *want)
{
    uint32_t n = 0;
    for (uint32_t r = 0; r < c->n_rows; r++) {
        for (uint32_t column = 0; column < CPU_PANEL; column++) {
            const bool special = c->flavour == SPECIAL && (r == c->spoiled || column % 3 == 0);
            n += special ? !special_ok(c, r, column, want) : !within_bound(c, r, column);
        }
    }
    return n;
}

static void fail_case(const struct int8_case *c, const struct kernel *kernel, const char *what)
{
    fail_msg("%s %s, %u rows, k %u, flavour %d, seed %llu: %s", moe_cpu_isa_name(kernel->isa),
             vkmoe_dtype_name(kernel->type), c->n_rows, c->k, (int) c->flavour,
             (unsigned long long) c->seed, what);
}

static void swap_columns(struct int8_case *c)
{
    float first[MAX_K];
    for (uint32_t column = 0; column < CPU_PANEL; column += 2) {
        memcpy(first, c->w[column], sizeof first);
        memcpy(c->w[column], c->w[column + 1], sizeof first);
        memcpy(c->w[column + 1], first, sizeof first);
    }
}

static void check_case(struct int8_case *c, const struct kernel *kernel)
{
    float want[MAX_ROWS * CPU_PANEL] = {0};
    if (c->flavour == SPECIAL) {
        case_run(c, c->scalar.panel[CPU_OPERAND_INT8][kernel->type], 0, c->n_rows);
        memcpy(want, c->out, c->n_rows * CPU_PANEL * sizeof(float));
    }
    case_run(c, kernel->panel, 0, c->n_rows);
    if (!rest_intact(c))
        fail_case(c, kernel, "wrote outside its output");
    if (count_wrong(c, want) > 0)
        fail_case(c, kernel, "beyond the bound");
    if (c->flavour == RANDOM && c->n_rows <= 8) {
        swap_columns(c);
        if (count_wrong(c, want) == 0)
            fail_case(c, kernel, "swapped columns pass the check");
        swap_columns(c);
    }
}

// Some rows, among them the first and the last.
static void check_rows_alone(struct int8_case *c, const struct kernel *kernel)
{
    float together[MAX_ROWS * CPU_PANEL];
    const size_t row_size = CPU_PANEL * sizeof(float);
    case_run(c, kernel->panel, 0, c->n_rows);
    memcpy(together, c->out, c->n_rows * row_size);
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t r = i * (c->n_rows - 1) / 3;
        case_run(c, kernel->panel, r, 1);
        if (memcmp(c->out, together + r * CPU_PANEL, row_size) != 0)
            fail_case(c, kernel, "a row alone has other bits than among others");
    }
}

// Two panels at once, the second with the columns of the first in reverse, have the bits of each.
static void check_pair(struct int8_case *c, const struct kernel *kernel)
{
    enum { OUT = MAX_ROWS * CPU_PANEL + GUARD };
    _Alignas(64) static char reversed[sizeof c->panel];
    _Alignas(64) static float pair[2 * OUT], want[2 * OUT];
    const char *rows[CPU_PANEL], *const panels[] = {c->panel, reversed};
    for (uint32_t column = 0; column < CPU_PANEL; column++)
        rows[column] = (const char *) c->stored[CPU_PANEL - 1 - column];
    moe_cpu_pack_panel(kernel->type, rows, CPU_PANEL, c->k, reversed);
    memset(pair, 0xff, sizeof pair);
    memset(want, 0xff, sizeof want);
    for (uint32_t p = 0; p < 2; p++)
        kernel->panel(c->rows, c->n_rows, panels[p], c->k, want + p * OUT);
    kernel->pair(c->rows, c->n_rows, panels, c->k, (float *[]){pair, pair + OUT});
    if (memcmp(pair, want, sizeof pair) != 0)
        fail_case(c, kernel, "two panels have other bits than one after the other");
    kernel->pair(c->rows, c->n_rows, panels, c->k, (float *[]){pair + OUT, pair});
    if (memcmp(pair, want, sizeof pair) == 0)
        fail_case(c, kernel, "the check does not see which panel is which");
}

static void check_kernel(struct int8_case *c, const struct kernel *kernel)
{
    static const uint32_t all_k[] = {32, 64, 96, 256, 288, 512, MAX_K};
    const uint32_t values = moe_dtype_info(kernel->type)->block_elements;
    const uint32_t step = options->few ? 24 : 1;
    for (c->n_rows = 1; c->n_rows <= MAX_ROWS; c->n_rows += c->n_rows < 8 ? 1 : step) {
        for (uint32_t flavour = 0; flavour < N_FLAVOURS; flavour++) {
            c->flavour = (enum flavour) flavour;
            c->k = all_k[(c->n_rows + flavour) % MOE_COUNT(all_k)];
            c->k = (uint32_t) moe_align_up(c->k, values);
            c->seed++;
            case_fill(c, kernel->type);
            check_case(c, kernel);
            if (c->flavour == RANDOM)
                check_rows_alone(c, kernel);
            if (c->flavour == RANDOM && kernel->pair)
                check_pair(c, kernel);
        }
    }
}

static void int8_panels_hold_their_bound(void **state)
{
    (void) state;
    struct kernel kernels[MAX_KERNELS];
    struct int8_case *c = aligned_memory(sizeof *c);
    const uint32_t n = list_kernels(options, CPU_OPERAND_INT8, kernels);
    memset(c, 0, sizeof *c);
    moe_cpu_kernels_init(&c->scalar, CPU_ISA_SCALAR);
    c->out = c->memory + GUARD;
    c->seed = options->seed;
    for (uint32_t i = 0; i < n; i++)
        check_kernel(c, &kernels[i]);
    free(c);
}

// ---- rows to blocks --------------------------------------------------------------------------

enum { N_BLOCKS = 32768 };

struct rows_case {
    float values[N_BLOCKS * TILE + 1]; // from the second on: aligned to 4 bytes alone
    struct cpu_int8_block want[N_BLOCKS], got[N_BLOCKS + 1];
};

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// The largest of block i has i as its upper 15 bits. Others are less: anything, 0, or half a code
// beside a code; beside infinities and NaNs anything finite.
static void fill_values(struct rows_case *c)
{
    uint64_t state = options->seed;
    for (uint32_t i = 0; i < N_BLOCKS; i++) {
        float *block = c->values + 1 + i * TILE;
        const uint32_t lower = i % 4 == 0 ? 0 : (uint32_t) (random_bits(&state) & 0x1ffff);
        const float most = float_of(i << 17 | lower); // of multiples of 4: 0, powers of 2, infinity
        for (uint32_t j = 0; j < TILE; j++) {
            const float tie = ((float) (random_bits(&state) % 254) - 126.5f) / 127;
            const float part = j % 3 == 0 ? tie : random_value(&state);
            block[j] = j % 8 == 7 ? -0.0f : part * (isfinite(most) ? most : 1);
        }
        block[random_bits(&state) % TILE] = most;
    }
    // A scale of 1 has ties that are exact.
    for (uint32_t j = 0; j < TILE; j++)
        c->values[1 + j] = j == 5 ? 127 : (float) j - 15.5f;
}

static void check_definition(const float *values, const struct cpu_int8_block *b)
{
    int32_t sums[2] = {0, 0};
    float most = 0;
    bool finite = true;
    for (uint32_t i = 0; i < TILE; i++) {
        finite = finite && isfinite(values[i]);
        most = fmaxf(most, fabsf(values[i]));
        sums[i / 16] += b->codes[i];
        assert_true(b->codes[i] >= -127 && b->codes[i] <= 127);
    }
    assert_int_equal(b->start[0], -128 * sums[0]);
    assert_int_equal(b->start[1], -128 * sums[1]);
    assert_int_equal(b->start[2], -128 * (sums[0] + sums[1]));
    assert_true(b->start_value == (float) b->start[2]);
    const int32_t begin = b->begin;
    float as_f32;
    memcpy(&as_f32, &begin, sizeof as_f32);
    assert_true(as_f32 == CPU_INT8_ZERO + (float) b->start[2]);
    assert_true(finite ? isfinite(b->scale) : isnan(b->scale) && sums[0] == 0 && sums[1] == 0);
    if (!finite || !isfinite(127 / most)) // too small: 0
        return;
    for (uint32_t i = 0; i < TILE; i++) {
        const double off = fabs((double) values[i] - (double) b->scale * b->codes[i]);
        // Rounding of the scale, its inverse and the product, of 127 at most.
        assert_true(off <= (double) b->scale * (0.5 + 127 * 4 * 0x1p-24) + 127 * 0x1p-149);
    }
}

static void rows_become_the_same_blocks(void **state)
{
    (void) state;
    struct level levels[CPU_N_ISAS];
    const uint32_t n = list_levels(options, levels);
    struct rows_case *c = aligned_memory(sizeof *c);
    struct cpu_kernels scalar;
    moe_cpu_kernels_init(&scalar, CPU_ISA_SCALAR);
    fill_values(c);
    scalar.quantise(c->values + 1, N_BLOCKS * TILE, c->want);
    for (uint32_t i = 0; i < N_BLOCKS; i++)
        check_definition(c->values + 1 + i * TILE, &c->want[i]);
    for (uint32_t l = 0; l < n; l++) {
        memset(c->got, 0xff, sizeof c->got);
        for (uint32_t i = 0, piece; i < N_BLOCKS; i += piece) {
            piece = (uint32_t) moe_min(i % 5 + 1, N_BLOCKS - i);
            levels[l].kernels.quantise(c->values + 1 + i * TILE, piece * TILE, &c->got[i]);
            assert_int_equal(c->got[i + piece].start[2], -1); // nothing behind
        }
        for (uint32_t i = 0; i < N_BLOCKS; i++)
            if (memcmp(&c->got[i], &c->want[i], sizeof c->got[i]) != 0)
                fail_msg("%s: block %u has other bits", moe_cpu_isa_name(levels[l].isa), i);
    }
    free(c);
}

int run_int8_tests(const struct kernels_options *given)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_become_the_same_blocks),
        cmocka_unit_test(int8_panels_hold_their_bound),
    };
    options = given;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
