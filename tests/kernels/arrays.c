// SPDX-License-Identifier: MIT
// The array kernels: every level has the bits of scalar C, and scalar C is right. tests/cross
// compares all ops with the oracle on common values; here are the ends of their ranges.
#include "kernels_test.h"

#include "base/bits.h"
#include "core/net.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { MAX_N = 1000, N_INPUTS = 3 };

// What a kernel reads and writes. Outputs begin with the inputs, for those that add.
struct arrays {
    float in[N_INPUTS][MAX_N];
    float out[N_INPUTS][MAX_N];
    float scalar; // of kernels that return one
};

static const struct kernels_options *options;

static void fill(struct arrays *a, uint64_t seed, bool specials)
{
    static const float special[] = {0.0f,     -0.0f,  INFINITY, -INFINITY, NAN,   87.5f, -87.5f,
                                    1e-40f,   -104.0f, 104.0f,  1e38f,    -1e38f, 88.7f, -88.7f};
    uint64_t state = seed;
    for (uint32_t i = 0; i < N_INPUTS; i++) {
        for (uint32_t j = 0; j < MAX_N; j++) {
            const uint64_t dice = random_bits(&state);
            const float scale = dice % 3 == 0 ? 1.0f : dice % 3 == 1 ? 20.0f : 150.0f;
            a->in[i][j] = random_value(&state) * scale;
            if (specials && dice % 41 == 0)
                a->in[i][j] = special[dice / 41 % MOE_COUNT(special)];
        }
    }
    memcpy(a->out, a->in, sizeof a->out);
    a->scalar = 0;
}

// Equal bits; two NaNs are equal.
static bool same(const struct arrays *a, const struct arrays *b)
{
    const float *x = a->out[0], *y = b->out[0];
    for (size_t i = 0; i < sizeof a->out / sizeof *x; i++)
        if (memcmp(&x[i], &y[i], sizeof *x) != 0 && !(isnan(x[i]) && isnan(y[i])))
            return false;
    return memcmp(&a->scalar, &b->scalar, sizeof a->scalar) == 0 ||
           (isnan(a->scalar) && isnan(b->scalar));
}

// ---- one call of each kernel -----------------------------------------------------------------

enum { N_ACTS = VKMOE_ACT_TANH + 1, N_COLUMNS = 4 };

typedef void run_fn(const struct cpu_arrays *k, struct arrays *a, uint32_t variant, size_t n);

static void run_act(const struct cpu_arrays *k, struct arrays *a, uint32_t variant, size_t n)
{
    k->act((enum vkmoe_act) variant, 1.7f, a->in[0], a->out[0], n);
}

static void run_act_backward(const struct cpu_arrays *k, struct arrays *a, uint32_t variant,
                             size_t n)
{
    k->act_backward((enum vkmoe_act) (variant % N_ACTS), 1.7f, a->in[0], a->in[1], a->out[0], n,
                    variant >= N_ACTS);
}

static void run_glu(const struct cpu_arrays *k, struct arrays *a, uint32_t variant, size_t n)
{
    k->glu((enum vkmoe_act) variant, 0.5f, a->in[0], a->in[1], a->out[0], n);
}

static void run_glu_backward(const struct cpu_arrays *k, struct arrays *a, uint32_t variant,
                             size_t n)
{
    k->glu_backward((enum vkmoe_act) variant, 0.5f, a->in[0], a->in[1], a->in[2], a->out[0],
                    a->out[1], n);
}

static void run_softmax(const struct cpu_arrays *k, struct arrays *a, uint32_t variant, size_t n)
{
    memcpy(a->out[0], a->in[0], sizeof a->out[0]);
    k->softmax(variant ? a->in[0] : a->out[0], a->out[0], n);
}

static void run_scale(const struct cpu_arrays *k, struct arrays *a, uint32_t variant, size_t n)
{
    k->scale(0.3f, a->in[0], a->out[1], n, variant > 0);
}

static void run_sums(const struct cpu_arrays *k, struct arrays *a, uint32_t variant, size_t n)
{
    a->scalar = variant == 0 ? k->dot(a->in[0], a->in[1], n)
                : variant == 1 ? k->sum(a->in[0], n) : k->sum_squares(a->in[0], n);
}

// SGD, momentum, Nesterov, Adam, AdamW; the first step and a later one.
static void run_step(const struct cpu_arrays *k, struct arrays *a, uint32_t variant, size_t n)
{
    const uint32_t rule = variant % 5;
    const struct moe_net_step step_rule = {
        .kind = rule < 3 ? MOE_NET_SGD : rule == 3 ? MOE_NET_ADAM : MOE_NET_ADAMW,
        .decay = 0.01f,
        .momentum = 0.9f,
        .nesterov = rule == 2,
        .beta1 = 0.9f,
        .beta2 = 0.99f,
        .eps = 1e-8f,
    };
    const struct cpu_step step = {&step_rule, 0.1f, 0.7f, variant >= 5, 0.1f, 0.01f};
    k->step(&step, a->in[0], a->out[0], rule > 0 ? a->out[1] : NULL, rule > 2 ? a->out[2] : NULL,
            n);
}

// Rows of 16 that go into out[0]; what is left of n stays.
static void run_finish(const struct cpu_arrays *k, struct arrays *a, uint32_t variant, size_t n)
{
    k->finish_rows(variant & 1 ? a->in[0] : NULL, variant & 2 ? a->in[1] : NULL, a->out[0],
                   (uint32_t) n / 16);
}

// Rows of the sum lie at every 17th place, the second row's is the first's again.
static void run_add(const struct cpu_arrays *k, struct arrays *a, uint32_t variant, size_t n)
{
    float *sums[MAX_N / 17];
    const uint32_t n_rows = (uint32_t) n / 17;
    for (uint32_t r = 0; r < n_rows; r++)
        sums[r] = a->out[0] + 17 * (r == 1 ? 0 : r);
    k->add_rows(a->in[0], a->in[1], sums, n_rows, variant % 2, variant);
}

// Panels of n / 16 rows, as far as there is room, with factors and without; rows overlap, the last
// one first.
static void run_panels(const struct cpu_arrays *k, struct arrays *a, uint32_t variant, size_t n)
{
    static const uint32_t columns[N_COLUMNS] = {1, 16, 17, 47};
    const float *rows[MAX_N / 16];
    const uint32_t n_columns = columns[variant / 2];
    const uint32_t most = MAX_N / 16 / ((n_columns + 15) / 16);
    const uint32_t n_rows = n / 16 < most ? (uint32_t) n / 16 : most;
    for (uint32_t r = 0; r < n_rows; r++)
        rows[r] = a->in[0] + (size_t) (n_rows - 1 - r) * 16;
    k->to_panels(rows, variant % 2 ? a->in[1] : NULL, n_rows, variant, n_columns, a->out[0],
                 (size_t) most * 16);
}

static const struct {
    const char *name;
    run_fn *run;
    uint32_t n_variants;
    uint32_t row; // elements that are computed together
} runs[] = {
    {"act", run_act, N_ACTS, 1},
    {"act_backward", run_act_backward, 2 * N_ACTS, 1},
    {"glu", run_glu, N_ACTS, 1},
    {"glu_backward", run_glu_backward, N_ACTS, 1},
    {"softmax", run_softmax, 2, 1},
    {"scale", run_scale, 2, 1},
    {"sums", run_sums, 3, 1},
    {"step", run_step, 10, 1},
    {"finish_rows", run_finish, 4, 16},
    {"add_rows", run_add, 17, 17},
    {"to_panels", run_panels, 2 * N_COLUMNS, 16},
};

static void levels_have_the_same_bits(void **state)
{
    (void) state;
    static struct arrays got, want;
    struct level levels[CPU_N_ISAS];
    struct cpu_kernels scalar;
    moe_cpu_kernels_init(&scalar, CPU_ISA_SCALAR);
    const uint32_t n_levels = list_levels(options, levels);
    for (uint32_t i = 0; i < n_levels; i++) {
        for (size_t r = 0; r < MOE_COUNT(runs); r++) {
            for (uint32_t v = 0; v < runs[r].n_variants; v++) {
                for (size_t n = 0; n <= MAX_N; n += n < 70 ? options->few ? 7 : 1 : 309) {
                    fill(&got, options->seed + n, n % 2);
                    fill(&want, options->seed + n, n % 2);
                    runs[r].run(&levels[i].kernels.arrays, &got, v, n);
                    runs[r].run(&scalar.arrays, &want, v, n);
                    if (!same(&got, &want))
                        fail_msg("%s %s, variant %u, n %zu: other bits than scalar C",
                                 moe_cpu_isa_name(levels[i].isa), runs[r].name, v, n);
                }
            }
        }
    }
}

// An element beyond n stays, one below it does not: each kernel writes what it should.
static void kernels_write_n_elements(void **state)
{
    (void) state;
    static struct arrays all, less;
    struct level levels[CPU_N_ISAS];
    const uint32_t n_levels = list_levels(options, levels);
    for (uint32_t i = 0; i < n_levels; i++) {
        for (size_t r = 0; r < MOE_COUNT(runs); r++) {
            fill(&all, options->seed, false);
            fill(&less, options->seed, false);
            runs[r].run(&levels[i].kernels.arrays, &all, 1, MAX_N);
            runs[r].run(&levels[i].kernels.arrays, &less, 1, MAX_N - runs[r].row);
            const uint32_t last = (MAX_N / runs[r].row - 1) * runs[r].row;
            for (uint32_t o = 0; o < N_INPUTS; o++)
                assert_true(memcmp(&less.out[o][last], &less.in[o][last],
                                   runs[r].row * sizeof(float)) == 0);
            assert_false(same(&all, &less));
        }
    }
}

// ---- exp, through the sigmoid ----------------------------------------------------------------

// 1 / (1 + e^-v): e^-v is off by at most 2 u for what exp_of adds up and 1 ulp of its argument's
// reduction, 4 u in all, the sum and the quotient by u each.
static void sigmoid_is_right_everywhere(void **state)
{
    (void) state;
    enum { N = 200001 };
    const double u = 0x1p-24, tiny = 0x1p-126;
    float *v = aligned_memory(N * sizeof *v), *s = aligned_memory(N * sizeof *s);
    struct level levels[CPU_N_ISAS];
    const uint32_t n_levels = list_levels(options, levels);
    for (int i = 0; i < N; i++)
        v[i] = (float) (i - N / 2) * (130.0f / N);
    v[0] = -INFINITY;
    v[N - 1] = INFINITY;
    v[1] = NAN;
    for (uint32_t level = 0; level < n_levels; level++) {
        uint32_t n_moved = 0;
        levels[level].kernels.arrays.act(VKMOE_ACT_SIGMOID, 1.0f, v, s, N);
        assert_true(isnan(s[1]));
        for (int i = 0; i < N; i++) {
            const double want = 1 / (1 + exp(-(double) v[i])), bound = 6 * u * want + tiny;
            if (i != 1 && !(fabs((double) s[i] - want) <= bound))
                fail_msg("sigmoid(%g) = %.9g, not %.9g", (double) v[i], (double) s[i], want);
            n_moved += fabs((double) (s[i] * (1 + 0x1p-20f)) - want) > bound;
        }
        assert_true(n_moved > N / 2);
    }
    free(v);
    free(s);
}

int run_array_tests(const struct kernels_options *given)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(levels_have_the_same_bits),
        cmocka_unit_test(kernels_write_n_elements),
        cmocka_unit_test(sigmoid_is_right_everywhere),
    };
    options = given;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
