// SPDX-License-Identifier: MIT
// The panel kernels: out[r][c] = sum over i of x[r][i] * panel[i][c].
//
// Bound against the f64 sum of the same products: each of the k terms is rounded at most k times,
// hence gamma_k(u) * sum |x w|, gamma_k = k u / (1 - k u), u = 2^-24; and each of the k products
// may lose up to 2^-150 more below the smallest normal number.
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
    MAX_K = 515,
    GUARD = 64, // floats before and behind the output that must stay as they are
};

enum flavour {
    NORMAL,
    DENORMAL, // weights below the type's smallest normal number
    SPECIAL,  // a few infinities and NaNs among x
    N_FLAVOURS,
};

struct panel_case {
    enum flavour flavour;
    uint32_t n_rows, k;
    uint64_t seed;
    float *x;              // (MAX_ROWS, MAX_K + 1); rows begin at odd multiples of 4 bytes
    const float *rows[MAX_ROWS];
    float *w;              // (k, 16): exactly what `panel` holds
    void *panel;
    char *stored;          // 16 rows
    float *memory, *out;   // out = memory + GUARD
};

static const struct kernels_options *options; // of this run of the program

static void case_create(struct panel_case *c)
{
    *c = (struct panel_case){
        .x = aligned_memory(sizeof(float) * MAX_ROWS * (MAX_K + 1)),
        .w = aligned_memory(sizeof(float) * MAX_K * CPU_PANEL),
        .panel = aligned_memory(sizeof(float) * MAX_K * CPU_PANEL),
        .stored = aligned_memory(sizeof(float) * MAX_K * CPU_PANEL),
        .memory = aligned_memory(sizeof(float) * (MAX_ROWS * CPU_PANEL + 2 * GUARD)),
    };
    c->out = c->memory + GUARD;
}

static void case_destroy(struct panel_case *c)
{
    free(c->x);
    free(c->w);
    free(c->panel);
    free(c->stored);
    free(c->memory);
}

// A random number of magnitude below the smallest normal of the type, or of its scales.
static float denormal(enum vkmoe_dtype type, uint64_t *state)
{
    const bool wide = type == VKMOE_F32 || type == VKMOE_BF16 || type == VKMOE_MXFP4 ||
                      type == VKMOE_FP8;
    return random_value(state) * (wide ? 0x1p-126f : type == VKMOE_F16 ? 0x1p-14f : 0x1p-10f);
}

// Every third row has one scale that is an infinity or NaN, so that all of its block is.
static void spoil_scale(enum vkmoe_dtype type, char *row, uint64_t *state)
{
    const float bad = INFINITY;
    if (type == VKMOE_FP8)
        memcpy(row, &bad, sizeof bad);
    else if (type == VKMOE_MXFP4)
        row[0] = (char) 255;
    else if (type == VKMOE_Q8_0 || type == VKMOE_Q4_0 || type == VKMOE_Q4_K)
        row[1] = (char) (random_bits(state) % 2 ? 0x7c : 0xfe);
}

// The 16 rows of w side by side: elements of floats, bytes of blocks. w becomes what they hold.
static void fill_panel(struct panel_case *c, enum vkmoe_dtype type, uint64_t *state)
{
    memset(c->panel, 0, sizeof(float) * MAX_K * CPU_PANEL);
    const char *rows[CPU_PANEL];
    for (uint32_t column = 0; column < CPU_PANEL; column++) {
        float row[MAX_K];
        char *stored = c->stored + column * sizeof(float) * MAX_K;
        rows[column] = stored;
        for (uint32_t i = 0; i < c->k; i++)
            row[i] = c->w[i * CPU_PANEL + column];
        moe_dtype_encode(type, row, c->k, stored);
        if (c->flavour == SPECIAL && column % 3 == 0)
            spoil_scale(type, stored, state);
        moe_dtype_decode(type, stored, c->k, row);
        for (uint32_t i = 0; i < c->k; i++)
            c->w[i * CPU_PANEL + column] = row[i];
    }
    moe_cpu_pack_panel(type, rows, CPU_PANEL, c->k, c->panel);
}

static void case_fill(struct panel_case *c, enum vkmoe_dtype type)
{
    uint64_t state = c->seed;
    for (uint32_t r = 0; r < c->n_rows; r++) {
        float *row = c->x + (size_t) r * (MAX_K + 1) + 1;
        c->rows[c->n_rows - 1 - r] = row;
        for (uint32_t i = 0; i < c->k; i++)
            row[i] = random_value(&state) * (c->flavour == DENORMAL ? 0x1p10f : 1.0f);
    }
    c->rows[0] = c->rows[c->n_rows - 1]; // a row may come twice
    if (c->flavour == SPECIAL) {
        const float special[] = {INFINITY, -INFINITY, NAN};
        float *row = c->x + (size_t) (random_bits(&state) % c->n_rows) * (MAX_K + 1) + 1;
        row[random_bits(&state) % c->k] = special[random_bits(&state) % 3];
        row[random_bits(&state) % c->k] = special[random_bits(&state) % 3];
    }
    for (size_t i = 0; i < (size_t) c->k * CPU_PANEL; i++)
        c->w[i] = c->flavour == DENORMAL ? denormal(type, &state) : random_value(&state);
    fill_panel(c, type, &state);
}

// Runs the kernel on `n` rows from `first` into poisoned memory between guards.
static void case_run(struct panel_case *c, const struct kernel *kernel, uint32_t first, uint32_t n)
{
    memset(c->memory, 0xff, sizeof(float) * (MAX_ROWS * CPU_PANEL + 2 * GUARD));
    kernel->panel((const void *const *) c->rows + first, n, c->panel, c->k, c->out);
}

static bool rest_intact(const struct panel_case *c, uint32_t n_rows)
{
    const size_t begin = sizeof(float) * GUARD;
    return guards_intact(c->memory, sizeof(float) * (MAX_ROWS * CPU_PANEL + 2 * GUARD), begin,
                         begin + sizeof(float) * n_rows * CPU_PANEL);
}

// Is one output what the definition allows? Infinities and NaNs have to be exactly those.
static bool output_ok(const struct panel_case *c, uint32_t r, uint32_t column, double *want,
                      double *bound)
{
    const double u = 0x1p-24, k = c->k;
    double sum = 0, magnitude = 0, got = (double) c->out[r * CPU_PANEL + column];
    for (uint32_t i = 0; i < c->k; i++) {
        double product = (double) c->rows[r][i] * (double) c->w[i * CPU_PANEL + column];
        sum += product;
        magnitude += fabs(product);
    }
    *want = sum;
    *bound = k * u / (1 - k * u) * magnitude + k * 0x1p-150;
    if (!isfinite(sum))
        return isnan(sum) ? isnan(got) : got == sum;
    return fabs(got - sum) <= *bound;
}

static uint32_t count_wrong(const struct panel_case *c)
{
    uint32_t n = 0;
    double want, bound;
    for (uint32_t r = 0; r < c->n_rows; r++)
        for (uint32_t column = 0; column < CPU_PANEL; column++)
            n += !output_ok(c, r, column, &want, &bound);
    return n;
}

static void fail_case(const struct panel_case *c, const struct kernel *kernel, const char *what)
{
    print_error("%s %s, %u rows, k %u, flavour %d, seed %llu: %s\n", moe_cpu_isa_name(kernel->isa),
                vkmoe_dtype_name(kernel->type), c->n_rows, c->k, (int) c->flavour,
                (unsigned long long) c->seed, what);
    for (uint32_t i = 0; i < c->n_rows * CPU_PANEL; i++) {
        double want, bound;
        if (!output_ok(c, i / CPU_PANEL, i % CPU_PANEL, &want, &bound)) {
            print_error("row %u column %u: got %.9g, want %.9g, bound %.3g\n", i / CPU_PANEL,
                        i % CPU_PANEL, (double) c->out[i], want, bound);
            break;
        }
    }
    fail();
}

// Every column of the weights takes the place of its neighbour: then the check has to fail.
static void swap_columns(struct panel_case *c)
{
    for (size_t i = 0; i < (size_t) c->k * CPU_PANEL; i += 2) {
        float first = c->w[i];
        c->w[i] = c->w[i + 1];
        c->w[i + 1] = first;
    }
}

static void check_case(struct panel_case *c, const struct kernel *kernel)
{
    case_fill(c, kernel->type);
    case_run(c, kernel, 0, c->n_rows);
    if (!rest_intact(c, c->n_rows))
        fail_case(c, kernel, "wrote outside its output");
    if (count_wrong(c) > 0)
        fail_case(c, kernel, "beyond the bound");
    if (c->flavour != SPECIAL) {
        swap_columns(c);
        if (count_wrong(c) == 0)
            fail_case(c, kernel, "swapped columns pass the check");
        swap_columns(c);
    }
}

static void check_rows_alone(struct panel_case *c, const struct kernel *kernel)
{
    float together[MAX_ROWS * CPU_PANEL];
    const size_t row_size = CPU_PANEL * sizeof(float);
    case_run(c, kernel, 0, c->n_rows);
    memcpy(together, c->out, c->n_rows * row_size);
    for (uint32_t r = 0; r < c->n_rows; r++) {
        case_run(c, kernel, r, 1);
        if (memcmp(c->out, together + r * CPU_PANEL, row_size) != 0)
            fail_case(c, kernel, "a row alone has other bits than among others");
    }
}

static const uint32_t all_k[] = {1, 2, 3, 7, 8, 15, 16, 17, 64, 100, 255, 256, 257, 513, MAX_K};
static const uint32_t few_k[] = {1, 7, 259};

// Rows of blocks have whole ones, fp8 any number of values.
static uint32_t whole_blocks(enum vkmoe_dtype type, uint32_t k)
{
    const uint32_t block = type == VKMOE_FP8 ? 1 : moe_dtype_info(type)->block_elements;
    return k < block ? block : k / block * block;
}

static uint32_t next_rows(uint32_t n_rows)
{
    return n_rows < (options->few ? 7 : 25) ? 1 : options->few ? 24 : 17;
}

static void each_case(void (*check)(struct panel_case *c, const struct kernel *kernel))
{
    struct kernel kernels[MAX_KERNELS];
    const uint32_t n = list_kernels(options, CPU_OPERAND_F32, kernels);
    const uint32_t *ks = options->few ? few_k : all_k;
    const size_t n_ks = options->few ? MOE_COUNT(few_k) : MOE_COUNT(all_k);
    struct panel_case c;
    case_create(&c);
    c.seed = options->seed;
    for (uint32_t i = 0; i < n; i++) {
        for (size_t k = 0; k < n_ks; k++) {
            // All small numbers of rows, then some that are several blocks.
            for (c.n_rows = 1; c.n_rows <= MAX_ROWS; c.n_rows += next_rows(c.n_rows)) {
                c.k = whole_blocks(kernels[i].type, ks[k]);
                c.flavour = (enum flavour)((c.n_rows + k) % N_FLAVOURS);
                c.seed++;
                check(&c, &kernels[i]);
            }
        }
    }
    case_destroy(&c);
}

static void panels_hold_their_bound(void **state)
{
    (void) state;
    each_case(check_case);
}

static void check_filled_rows_alone(struct panel_case *c, const struct kernel *kernel)
{
    c->flavour = NORMAL;
    case_fill(c, kernel->type);
    check_rows_alone(c, kernel);
}

static void rows_do_not_depend_on_each_other(void **state)
{
    (void) state;
    each_case(check_filled_rows_alone);
}

int run_panel_tests(const struct kernels_options *given)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(panels_hold_their_bound),
        cmocka_unit_test(rows_do_not_depend_on_each_other),
    };
    options = given;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
