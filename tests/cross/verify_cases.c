// SPDX-License-Identifier: MIT
// The cases of `vkmoe verify`: random numbers, names, the covering set and the product.
#include "check.h"

#include "rng.h"
#include "verify_cases.h"

#include <stdlib.h>

// ---- random numbers ----------------------------------------------------------------------------

// Known answers published with the algorithm.
static void test_philox(void **state)
{
    (void) state;
    static const struct {
        struct rng_block counter;
        uint64_t key;
        struct rng_block want;
    } rows[] = {
        {{{0}}, 0, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
        {{{UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX}},
         UINT64_MAX,
         {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
        {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
         0x299f31d0a4093822,
         {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct rng_block got = rng_philox(rows[i].counter, rows[i].key);
        assert_memory_equal(&got, &rows[i].want, sizeof got);
    }
}

// Five standard errors for the mean and the variance of n numbers.
static void test_normal(void **state)
{
    (void) state;
    enum { N = 1 << 16 };
    double sum = 0, squares = 0, largest = 0;
    for (uint64_t i = 0; i < N; i++) {
        double v = rng_normal(7, 1, 2, i);
        sum += v;
        squares += v * v;
        largest = fmax(largest, fabs(v));
    }
    check_near(sum / N, 0, 5 / sqrt(N));
    check_near(squares / N, 1, 5 * sqrt(2.0 / N));
    assert_true(largest > 3 && largest < 3.4642);
    assert_true(rng_normal(7, 1, 2, 0) != rng_normal(8, 1, 2, 0));
    assert_true(rng_normal(7, 1, 2, 0) != rng_normal(7, 2, 2, 0));
    assert_true(rng_normal(7, 1, 2, 0) != rng_normal(7, 1, 3, 0));
    assert_true(rng_normal(7, 1, 2, 0) != rng_normal(7, 1, 2, UINT64_C(1) << 32));
}

// ---- the covering set --------------------------------------------------------------------------

// Said here once more, so that the set is not measured by its own rule.
static bool may_meet(uint32_t f, uint32_t a, uint32_t g, uint32_t b)
{
    struct verify_case c = verify_first();
    c.level[f] = (uint8_t) a;
    c.level[g] = (uint8_t) b;
    vkmoe_layer_desc layer = verify_layer(&c);
    bool about_rows = f == VERIFY_SHAPE && g == VERIFY_TOKENS;
    return !about_rows || verify_tokens(&c) < 300 ||
           (layer.d_model <= 64 && layer.n_experts <= 128);
}

// Pairs of levels that meet in no case; `without` is left out. A case without rows shows nothing of
// its layer, so there only pairs with the token count itself count.
static uint32_t count_missing(const struct verify_case *cases, uint32_t n, uint32_t without)
{
    uint32_t n_missing = 0;
    for (uint32_t f = 0; f < VERIFY_N_FACTORS; f++) {
        for (uint32_t g = f + 1; g < VERIFY_N_FACTORS; g++) {
            for (uint32_t a = 0; a < verify_n_levels(f); a++) {
                for (uint32_t b = 0; b < verify_n_levels(g); b++) {
                    bool met = !may_meet(f, a, g, b);
                    for (uint32_t i = 0; i < n && !met; i++) {
                        met = i != without && cases[i].level[f] == a && cases[i].level[g] == b &&
                              (verify_tokens(&cases[i]) > 0 || g >= VERIFY_TOKENS);
                    }
                    n_missing += !met;
                }
            }
        }
    }
    return n_missing;
}

// Levels of all factors that are not of the plan.
static uint32_t count_levels(void)
{
    uint32_t n = 0;
    for (uint32_t f = 0; f < VERIFY_N_FACTORS; f++)
        n += f == VERIFY_X_TYPE || f == VERIFY_PRECISION ? 0 : verify_n_levels(f);
    return n;
}

static void test_cover(void **state)
{
    (void) state;
    struct verify_case *cases;
    uint32_t n = verify_cover(&cases), n_needed = 0;
    assert_true(n > 0);
    assert_int_equal(count_missing(cases, n, UINT32_MAX), 0);
    for (uint32_t i = 0; i < n; i++) {
        assert_true(verify_quick(&cases[i]));
        n_needed += count_missing(cases, n, i) > 0;
    }
    // Control: the count does see a pair that is missing. And few cases are there for nothing.
    assert_true(n_needed > n * 9 / 10);
    free(cases);
}

// Cases with x in f32 that are exact cover everything else by themselves: a device that refuses the
// other types of x is still verified in full.
static void test_cover_without_halves(void **state)
{
    (void) state;
    struct verify_case *cases;
    uint32_t n = verify_cover(&cases), n_base = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!cases[i].level[VERIFY_X_TYPE] && !cases[i].level[VERIFY_PRECISION])
            cases[n_base++] = cases[i];
    }
    assert_true(n_base > 0 && n_base < n);
    // Only pairs with a level above 0 of x_type or precision are missing.
    uint32_t x = verify_n_levels(VERIFY_X_TYPE), p = verify_n_levels(VERIFY_PRECISION);
    uint32_t n_missing = (x - 1 + p - 1) * count_levels() + x * p - 1;
    assert_int_equal(count_missing(cases, n_base, UINT32_MAX), n_missing);
    free(cases);
}

// The largest two factors alone need 94 cases: 10 shapes, 10 token counts, less 2 each of 3 shapes.
static void test_cover_small_and_stable(void **state)
{
    (void) state;
    struct verify_case *a, *b;
    uint32_t n = verify_cover(&a);
    assert_in_range(n, 94, 140);
    assert_int_equal(verify_cover(&b), n);
    assert_memory_equal(a, b, n * sizeof *a);

    uint32_t n_layers = 1;
    for (uint32_t i = 1; i < n; i++)
        n_layers += !verify_same_plan(&a[i], &a[i - 1]);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t k = i + 1; k < n; k++) {
            assert_memory_not_equal(&a[i], &a[k], sizeof *a);
            // Cases of one layer are neighbours.
            if (verify_same_plan(&a[i], &a[k]))
                assert_true(verify_same_plan(&a[i], &a[i + 1]));
        }
    }
    assert_true(n_layers < n);
    free(a);
    free(b);
}

// ---- all cases ---------------------------------------------------------------------------------

static void test_product(void **state)
{
    (void) state;
    uint64_t n = 0, want = 1, n_wide = 0, n_long = 0;
    struct verify_case c = verify_first();
    for (uint32_t f = 0; f < VERIFY_N_FACTORS; f++)
        want *= verify_n_levels(f);
    do {
        n++;
    } while (verify_next(&c));

    c = verify_first();
    for (uint32_t i = 0; i < verify_n_levels(VERIFY_SHAPE); i++) {
        c.level[VERIFY_SHAPE] = (uint8_t) i;
        n_wide += verify_layer(&c).d_model > 64;
    }
    for (uint32_t i = 0; i < verify_n_levels(VERIFY_TOKENS); i++) {
        c.level[VERIFY_TOKENS] = (uint8_t) i;
        n_long += verify_tokens(&c) >= 300;
    }
    uint64_t n_pairs = (uint64_t) verify_n_levels(VERIFY_SHAPE) * verify_n_levels(VERIFY_TOKENS);
    assert_true(n_wide > 0 && n_long > 0);
    assert_int_equal(n, want / n_pairs * (n_pairs - n_wide * n_long));
}

static void check_layer(const struct verify_case *c)
{
    vkmoe_layer_desc desc = verify_layer(c);
    char name[VERIFY_NAME_SIZE];
    verify_name(c, name);
    if (vkmoe_layer_check(&desc) != VKMOE_OK)
        fail_msg("%s: %s", name, vkmoe_error_text());
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(a, b);
}

// What the other types of x and precisions add leaves the cases without them as they were before.
static void test_old_names(void **state)
{
    (void) state;
    static const char *const old[] = {
        "E8K2D64F32O10/bf16/select-softmax/relu/shared-sigmoid/bias-scores/n1000/packed",
        "E1024K2D8F4O8/bf16/softmax/relu/routed/bias-scores/n2/packed",
        "E8K2D256F96O256/f32/softmax/gated-quick_gelu-relu/routed/bias-scores/n2/packed",
    };
    struct verify_case *cases;
    uint32_t n = verify_cover(&cases), n_found = 0;
    char name[VERIFY_NAME_SIZE];
    for (uint32_t i = 0; i < n; i++) {
        verify_name(&cases[i], name);
        for (size_t k = 0; k < sizeof old / sizeof *old; k++)
            n_found += strcmp(name, old[k]) == 0;
    }
    assert_int_equal(n_found, sizeof old / sizeof *old);
    free(cases);
}

// Each form is a layer that the library accepts, with a name of its own and runs that follow each
// other; and together they have each value that the factors do not have.
static void test_forms(void **state)
{
    (void) state;
    enum { MAX_FORMS = 256 };
    static char names[MAX_FORMS][VERIFY_NAME_SIZE];
    uint32_t n = 0, score = 0, rank = 0, select = 0, groups = 0, clamp = 0, gate = 0, capacity = 0;
    uint32_t others = 0;
    struct verify_case c, last = verify_first();
    for (; verify_form_case(n, &c); n++, last = c) {
        assert_true(n < MAX_FORMS && c.form > 0 && verify_tokens(&c) > 0);
        check_layer(&c);
        verify_name(&c, names[n]);
        assert_int_equal(verify_same_plan(&c, &last), n % 2);
        const vkmoe_layer_desc d = verify_layer(&c);
        score |= 1u << d.score, rank |= 1u << d.rank, select |= 1u << d.select;
        groups |= d.n_group > 1 ? 1u << d.group_score : 0, clamp |= 1u << d.clamp;
        gate |= 1u << d.shared_gate, capacity |= 1u << d.capacity_mode;
        const bool has[] = {
            d.router_input, d.router_prenorm, d.logit_softcap > 0, d.norm_p != 1, d.expert_scale,
            d.n_zero > 0, d.weight_on_input, d.up_add != 0, d.act == VKMOE_ACT_SITU,
            d.d_latent > 0, d.latent_norm, d.adjugate_group > 0, d.out_bias, d.shared_gate_bias,
            d.own_shared_types, d.capacity_rows > 0, d.capacity_renorm, d.group_fill_zero,
        };
        for (uint32_t i = 0; i < sizeof has / sizeof *has; i++)
            others |= (uint32_t) has[i] << i;
    }
    assert_int_equal(score, 31);
    assert_int_equal(rank, 7);
    assert_int_equal(select, 31);
    assert_int_equal(groups, 7);
    assert_int_equal(clamp, 7);
    assert_int_equal(gate, 7);
    assert_int_equal(capacity, 7);
    assert_int_equal(others, (1u << 18) - 1);
    qsort(names, n, sizeof *names, compare_names);
    for (uint32_t i = 1; i < n; i++)
        assert_true(strcmp(names[i - 1], names[i]) != 0);
}

// Forms with int8 have each type of blocks but fp8, in and down, and each other bank; the factors
// that meet each other do not have it.
static void test_int8(void **state)
{
    (void) state;
    struct verify_case c;
    uint32_t n = 0, in = 0, out = 0, others = 0;
    char name[VERIFY_NAME_SIZE];
    for (uint32_t i = 0; verify_form_case(i, &c); i++) {
        const vkmoe_layer_desc d = verify_layer(&c);
        verify_name(&c, name);
        assert_int_equal(verify_precision(&c) == VKMOE_PRECISION_INT8,
                         strstr(name, "/int8") != NULL);
        if (verify_precision(&c) != VKMOE_PRECISION_INT8)
            continue;
        n++;
        in |= 1u << d.in_type, out |= 1u << d.out_type;
        others |= d.d_latent > 0 ? 1 : d.adjugate_group > 0 ? 2 : d.own_shared_types ? 4 : 0;
    }
    const uint32_t blocks = ((1u << VKMOE_FP8) - 1) & ~(uint32_t) 7;
    assert_true(n > 20 && n < 40);
    assert_int_equal(in & blocks, blocks);
    assert_int_equal(out & blocks, blocks);
    assert_int_equal(others, 7);
    assert_int_equal(verify_n_levels(VERIFY_PRECISION), 2);
}

// Every layer is one the library accepts, every case has a name of its own.
static void test_names_and_layers(void **state)
{
    (void) state;
    struct verify_case *cases, special;
    uint32_t n = verify_cover(&cases), n_names = 0;
    char (*names)[VERIFY_NAME_SIZE] = calloc(n + 64, sizeof *names);
    assert_non_null(names);
    for (uint32_t i = 0; i < n; i++) {
        check_layer(&cases[i]);
        verify_name(&cases[i], names[n_names++]);
    }
    for (uint32_t i = 0; verify_special(i, &special); i++) {
        assert_true(i < 64);
        assert_true(special.twist != VERIFY_PLAIN && verify_allowed(&special));
        check_layer(&special);
        verify_name(&special, names[n_names++]);
    }
    qsort(names, n_names, sizeof *names, compare_names);
    for (uint32_t i = 0; i < n_names; i++) {
        assert_true(strlen(names[i]) < VERIFY_NAME_SIZE - 1);
        assert_true(i == 0 || strcmp(names[i - 1], names[i]) != 0);
    }
    free(names);
    free(cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox),
        cmocka_unit_test(test_normal),
        cmocka_unit_test(test_cover),
        cmocka_unit_test(test_cover_without_halves),
        cmocka_unit_test(test_cover_small_and_stable),
        cmocka_unit_test(test_product),
        cmocka_unit_test(test_old_names),
        cmocka_unit_test(test_names_and_layers),
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_int8),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
