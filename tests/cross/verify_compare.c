// SPDX-License-Identifier: MIT
// How `vkmoe verify` judges: what passes, what fails, what is exempt, and the bounds of scores.
#include "check.h"

#include "verify_check.h"

#include <float.h>
#include <stdlib.h>

enum { N = 3, E = 4, K = 2, O = 3 };

// Outputs of a device and of the oracle that agree, and bounds of 1e-6 for each score.
struct fixture {
    struct verify_outputs got, want;
    double bounds[N * E];
    bool exempt[N];
    struct verify_verdict verdict;
};

static void fill_outputs(struct verify_outputs *out)
{
    static const float scores[E] = {0.5f, 0.25f, 0.25f + 5e-7f, 0.125f};
    for (uint32_t t = 0; t < N; t++) {
        for (uint32_t i = 0; i < O; i++)
            out->y[t * out->y_stride + i] = (float) (1 + t + i);
        memcpy(out->scores + t * E, scores, sizeof scores);
        out->ids[t * K] = 0;
        out->ids[t * K + 1] = 2;
        out->gates[t * K] = 0.5f;
        out->gates[t * K + 1] = 0.25f;
    }
}

static int set_up(void **state)
{
    struct fixture *f = *state = calloc(1, sizeof *f);
    vkmoe_layer_desc desc = vkmoe_layer_desc_init();
    desc.n_experts = E;
    desc.top_k = K;
    desc.d_out = O;
    const struct verify_kind exact = {VKMOE_F32, VKMOE_PRECISION_EXACT};
    assert_true(f && verify_outputs_create(&desc, exact, N, true, &f->got) &&
                verify_outputs_create(&desc, exact, N, false, &f->want));
    fill_outputs(&f->got);
    fill_outputs(&f->want);
    for (uint32_t i = 0; i < N * E; i++)
        f->bounds[i] = 1e-6;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    verify_outputs_finish(&f->got);
    verify_outputs_finish(&f->want);
    free(f);
    return 0;
}

// Exactly the checks of `mask` fail.
static void check_failed(struct fixture *f, uint32_t mask)
{
    verify_compare(&f->got, &f->want, N, f->bounds, true, f->exempt, &f->verdict);
    if (f->verdict.failed != mask)
        fail_msg("failed checks %x, not %x: %s", f->verdict.failed, mask, f->verdict.text);
    assert_true(!mask || f->verdict.text[0]);
}

static float *got_y(struct fixture *f, uint32_t t, uint32_t i)
{
    return f->got.y + t * f->got.y_stride + i;
}

static void test_tolerance(void **state)
{
    struct fixture *f = *state;
    check_failed(f, 0);
    assert_int_equal(f->verdict.changed, 0);

    // The norm of y is sqrt(1 + 4 + 9 + 4 + 9 + 16 + 9 + 16 + 25).
    float allowed = (float) (VERIFY_TOLERANCE * sqrt(93));
    *got_y(f, 1, 1) += 0.9f * allowed;
    check_failed(f, 0);
    assert_int_equal(f->verdict.changed, 1u << VERIFY_CHECK_Y);
    *got_y(f, 1, 1) += 0.3f * allowed;
    check_failed(f, 1u << VERIFY_CHECK_Y);
    assert_non_null(strstr(f->verdict.text, "row 1 column 1"));

    fill_outputs(&f->got);
    f->got.gates[3] *= 1.0001f;
    check_failed(f, 1u << VERIFY_CHECK_GATES);
}

// An error is no smaller for being measured against nothing.
static void test_zero(void **state)
{
    struct fixture *f = *state;
    for (uint32_t i = 0; i < N * O; i++)
        f->want.y[i] = *got_y(f, i / O, i % O) = 0;
    check_failed(f, 0);
    *got_y(f, 0, 0) = 1e-30f;
    check_failed(f, 1u << VERIFY_CHECK_Y);
}

static void test_no_numbers(void **state)
{
    struct fixture *f = *state;
    *got_y(f, 0, 0) = NAN;
    check_failed(f, 1u << VERIFY_CHECK_Y);
    f->want.y[0] = -NAN;
    check_failed(f, 0);
    *got_y(f, 0, 0) = 1;
    check_failed(f, 1u << VERIFY_CHECK_Y);
    f->want.y[0] = *got_y(f, 0, 0) = INFINITY;
    check_failed(f, 0);
    *got_y(f, 0, 0) = -INFINITY;
    check_failed(f, 1u << VERIFY_CHECK_Y);
    f->want.y[0] = 1;
    check_failed(f, 1u << VERIFY_CHECK_Y);
}

static void test_unwritten(void **state)
{
    struct fixture *f = *state;
    verify_poison(&f->got);
    check_failed(f, (1u << VERIFY_N_CHECKS) - 1);
    assert_non_null(strstr(f->verdict.text, "not written"));

    // Not even where the oracle has a NaN.
    assert_true(isnan(*got_y(f, 0, 0)));
    fill_outputs(&f->got);
    memcpy(got_y(f, 0, 0), f->got.y + f->got.y_stride * N, sizeof(float));
    f->want.y[0] = NAN;
    check_failed(f, 1u << VERIFY_CHECK_Y);
}

static void test_ids(void **state)
{
    struct fixture *f = *state;
    static const struct {
        int32_t first, second;
        const char *text;
    } rows[] = {
        {0, 3, "row 1 place 1 is wrong: got 3, want 2"},
        {2, 0, "row 1 place 0 is wrong"},
        {0, 0, "twice"},
        {0, -1, "row 1 place 1 is wrong: got -1, want 2"},
        {0, -2, "out of range"},
        {0, E, "out of range"},
        {0, INT32_MAX, "not written"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        f->got.ids[K] = rows[i].first;
        f->got.ids[K + 1] = rows[i].second;
        check_failed(f, 1u << VERIFY_CHECK_IDS);
        assert_non_null(strstr(f->verdict.text, rows[i].text));
    }
}

// Experts 1 and 2 are 5e-7 apart, the bounds together 2e-6.
static void test_exempt(void **state)
{
    struct fixture *f = *state;
    f->got.ids[K + 1] = 1;
    *got_y(f, 1, 0) = 1000;
    f->got.gates[K + 1] = 1000;
    check_failed(f, 0);
    assert_int_equal(f->verdict.n_exempt, 1);
    assert_true(!f->exempt[0] && f->exempt[1] && !f->exempt[2]);

    // Exempt is no licence to write nothing.
    memcpy(got_y(f, 1, 0), f->got.y + f->got.y_stride * N, sizeof(float));
    check_failed(f, 1u << VERIFY_CHECK_Y);

    *got_y(f, 1, 0) = 1000;
    for (uint32_t i = 0; i < N * E; i++)
        f->bounds[i] = 2e-7;
    check_failed(f, 1u << VERIFY_CHECK_IDS | 1u << VERIFY_CHECK_Y | 1u << VERIFY_CHECK_GATES);
    f->bounds[E + 1] = NAN;
    check_failed(f, 1u << VERIFY_CHECK_IDS | 1u << VERIFY_CHECK_Y | 1u << VERIFY_CHECK_GATES);
}

static void test_scores(void **state)
{
    struct fixture *f = *state;
    f->got.scores[5] += 5e-7f;
    check_failed(f, 0);
    f->got.scores[5] += 2e-6f;
    check_failed(f, 1u << VERIFY_CHECK_SCORES);
    assert_non_null(strstr(f->verdict.text, "row 1 expert 1"));
    verify_compare(&f->got, &f->want, N, f->bounds, false, f->exempt, &f->verdict);
    assert_int_equal(f->verdict.failed, 0);
}

static void test_untouched(void **state)
{
    struct fixture *f = *state;
    struct verify_outputs *o = &f->got;
    const char *what;
    assert_true(verify_untouched(o, N, &what));
    assert_false(verify_untouched(o, N - 1, &what));
    float *const places[] = {
        o->y + O, o->y + N * o->y_stride - 1, o->y + N * o->y_stride, o->gates + N * K,
        o->scores + (N + 1) * E - 1, (float *) (void *) (o->ids + N * K),
    };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        float before;
        memcpy(&before, places[i], sizeof before);
        *places[i] = 1;
        assert_false(verify_untouched(o, N, &what));
        memcpy(places[i], &before, sizeof before);
        assert_true(verify_untouched(o, N, &what));
    }
}

// ---- y of 16 bits, and `half` ------------------------------------------------------------------

// f->got becomes outputs of another kind, filled, y stored with one number of `row 1 column 1` off
// by `error`; everything else is exact in each type.
static void store_y(struct fixture *f, struct verify_kind kind, float error)
{
    vkmoe_layer_desc desc = vkmoe_layer_desc_init();
    desc.n_experts = E;
    desc.top_k = K;
    desc.d_out = O;
    verify_outputs_finish(&f->got);
    assert_true(verify_outputs_create(&desc, kind, N, true, &f->got));
    fill_outputs(&f->got);
    *got_y(f, 1, 1) += error;
    for (uint32_t t = 0; t < N; t++)
        check_ok(vkmoe_dtype_convert(kind.y_type, got_y(f, t, 0), O,
                                     (uint16_t *) f->got.stored_y + t * f->got.y_stride));
    verify_read_y(&f->got);
}

// The norm of y is sqrt(93); u |y| is what each number may be rounded by.
static void test_rounded_tolerance(void **state)
{
    struct fixture *f = *state;
    static const struct verify_kind kinds[] = {
        {VKMOE_F16, VKMOE_PRECISION_EXACT},
        {VKMOE_BF16, VKMOE_PRECISION_EXACT},
        {VKMOE_F16, VKMOE_PRECISION_HALF},
        {VKMOE_BF16, VKMOE_PRECISION_HALF},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const double u = kinds[i].y_type == VKMOE_F16 ? 0x1p-11 : 0x1p-8;
        const bool half = kinds[i].precision == VKMOE_PRECISION_HALF;
        const double promise = half ? VERIFY_TOLERANCE_HALF : VERIFY_TOLERANCE;
        // An error that is a multiple of what numbers from 2 to 4 are apart: it is stored as it is.
        const double allowed = (promise * (1 + u) + u) * sqrt(93), step = 4 * u;
        store_y(f, kinds[i], (float) (floor(allowed / step) * step));
        check_failed(f, 0);
        store_y(f, kinds[i], (float) (ceil(allowed / step) * step));
        check_failed(f, 1u << VERIFY_CHECK_Y);
    }
    // `half` is no licence for gate weights.
    store_y(f, kinds[2], 0);
    f->got.gates[3] *= 1.0001f;
    check_failed(f, 1u << VERIFY_CHECK_GATES);
}

static void test_half_tolerance(void **state)
{
    struct fixture *f = *state;
    float allowed = (float) (VERIFY_TOLERANCE_HALF * sqrt(93));
    f->got.kind.precision = VKMOE_PRECISION_HALF;
    *got_y(f, 1, 1) += 0.99f * allowed;
    check_failed(f, 0);
    *got_y(f, 1, 1) += 0.02f * allowed;
    check_failed(f, 1u << VERIFY_CHECK_Y);
}

// Three times the scatter of so few numbers.
static void test_int8_tolerance(void **state)
{
    struct fixture *f = *state;
    const double promise = VERIFY_TOLERANCE_INT8 * (1 + 3 / sqrt(N * O));
    const float allowed = (float) (promise * sqrt(93));
    f->got.kind.precision = VKMOE_PRECISION_INT8;
    *got_y(f, 1, 1) += 0.99f * allowed;
    check_failed(f, 0);
    *got_y(f, 1, 1) += 0.02f * allowed;
    check_failed(f, 1u << VERIFY_CHECK_Y);
    *got_y(f, 1, 1) -= 1.01f * allowed;
    f->got.gates[3] *= 1.0001f;
    check_failed(f, 1u << VERIFY_CHECK_GATES);
    assert_true(verify_promise(VKMOE_PRECISION_INT8, 1e6) < 1.005 * VERIFY_TOLERANCE_INT8);
    assert_true(verify_promise(VKMOE_PRECISION_HALF, 1) == VERIFY_TOLERANCE_HALF);
}

// What no f16 can hold becomes infinite, and only that.
static void test_overflow(void **state)
{
    struct fixture *f = *state;
    const struct verify_kind kind = {VKMOE_F16, VKMOE_PRECISION_EXACT};
    store_y(f, kind, 70000);
    check_failed(f, 1u << VERIFY_CHECK_Y);
    f->want.y[f->want.y_stride + 1] = 70000;
    check_failed(f, 0);
    f->want.y[f->want.y_stride + 1] = -70000;
    check_failed(f, 1u << VERIFY_CHECK_Y);
    f->want.y[f->want.y_stride + 1] = 65000;
    check_failed(f, 1u << VERIFY_CHECK_Y);
}

// Where all of y is subnormal its rounding is no share of it.
static void test_subnormal(void **state)
{
    struct fixture *f = *state;
    const struct verify_kind kind = {VKMOE_F16, VKMOE_PRECISION_EXACT};
    store_y(f, kind, 0);
    for (uint32_t i = 0; i < N * O; i++) {
        f->want.y[i] = 100.49f * 0x1p-24f;
        *got_y(f, i / O, i % O) = 100 * 0x1p-24f;
    }
    check_failed(f, 0);
    for (uint32_t i = 0; i < N * O; i++)
        f->want.y[i] = 100.51f * 0x1p-24f;
    check_failed(f, 1u << VERIFY_CHECK_Y);
}

static void test_stored_halves(void **state)
{
    struct fixture *f = *state;
    const char *what;
    for (int t = VKMOE_F16; t <= VKMOE_BF16; t++) {
        const struct verify_kind kind = {(enum vkmoe_dtype) t, VKMOE_PRECISION_EXACT};
        store_y(f, kind, 0);
        assert_true(verify_untouched(&f->got, N, &what));
        check_failed(f, 0);
        uint16_t *stored = f->got.stored_y;
        for (uint32_t i = 0; i < (N + 1) * f->got.y_stride; i++) {
            const uint16_t before = stored[i];
            bool outside = i / f->got.y_stride == N || i % f->got.y_stride >= O;
            stored[i] = 0x3c00;
            verify_read_y(&f->got);
            assert_int_equal(verify_untouched(&f->got, N, &what), !outside);
            stored[i] = before;
        }
        verify_poison(&f->got);
        assert_int_equal(stored[0], stored[(N + 1) * f->got.y_stride - 1]);
        verify_read_y(&f->got);
        check_failed(f, (1u << VERIFY_N_CHECKS) - 1);
        assert_non_null(strstr(f->verdict.text, "not written"));
    }
}

// Every pattern there and back; only what a NaN carries is lost.
static void test_decode(void **state)
{
    (void) state;
    for (int t = VKMOE_F16; t <= VKMOE_BF16; t++) {
        const uint32_t infinity = t == VKMOE_F16 ? 0x7c00 : 0x7f80;
        for (uint32_t i = 0; i <= UINT16_MAX; i++) {
            uint16_t stored = (uint16_t) i, again;
            float value;
            verify_decode((enum vkmoe_dtype) t, &stored, 1, &value);
            assert_int_equal(isnan(value), (i & 0x7fff) > infinity);
            check_ok(vkmoe_dtype_convert((enum vkmoe_dtype) t, &value, 1, &again));
            if (!isnan(value))
                assert_int_equal(again, stored);
        }
    }
}

// ---- bounds of scores --------------------------------------------------------------------------

// One input, one expert: a product and, in the bound, a bias; then two roundings of the result.
static void test_bound_by_hand(void **state)
{
    (void) state;
    float w = 3, x = 2;
    double u = FLT_EPSILON / 2, bound;
    struct verify_weights weights = {.desc = vkmoe_layer_desc_init()};
    weights.desc.n_experts = weights.desc.d_model = 1;
    weights.desc.rank = VKMOE_RANK_LOGIT;
    weights.router.weight.data = &w;
    verify_score_bounds(&weights, &x, 1, 1, &bound);
    check_near(bound, 2 * u / (1 - 2 * u) * 6 + 2 * u * 6, 1e-15);
}

// f32 sums in two orders stay within the bound, which is not far above what they need.
static void test_bound_holds(void **state)
{
    (void) state;
    struct verify_case c = verify_first(); // 8 experts, d_model 64, softmax
    vkmoe_layer_desc desc = verify_layer(&c);
    uint32_t n = verify_tokens(&c), d = desc.d_model, n_experts = desc.n_experts;
    struct verify_weights weights;
    assert_true(verify_weights_create(&c, 3, &weights));
    weights.desc.rank = VKMOE_RANK_LOGIT;
    float *x = calloc((size_t) n * d, sizeof *x);
    double *bounds = calloc((size_t) n * n_experts, sizeof *bounds), worst = 0;
    assert_true(x && bounds);
    verify_fill_x(&c, 3, x, d);
    verify_score_bounds(&weights, x, d, n, bounds);
    const float *router = weights.router.weight.data;
    for (uint32_t i = 0; i < n * n_experts; i++) {
        const float *w = router + (size_t) (i % n_experts) * d;
        const float *row = x + (size_t) (i / n_experts) * d;
        float up = 0, down = 0;
        double exact = 0;
        for (uint32_t k = 0; k < d; k++) {
            up += w[k] * row[k];
            down += w[d - 1 - k] * row[d - 1 - k];
            exact += (double) w[k] * row[k];
        }
        check_near(up, exact, bounds[i]);
        check_near(down, exact, bounds[i]);
        worst = fmax(worst, fabs(up - exact) / bounds[i]);
    }
    assert_true(worst > 0.005);
    free(bounds);
    free(x);
    verify_weights_finish(&weights);
}

// ---- perturbations -----------------------------------------------------------------------------

// Each changes the weights, touches no more than two rows, and is undone by itself.
static void test_perturbations(void **state)
{
    (void) state;
    struct verify_case c = verify_first();
    c.level[VERIFY_TYPE] = 1; // f16
    struct verify_weights a, b;
    assert_true(verify_weights_create(&c, 5, &a) && verify_weights_create(&c, 5, &b));
    const size_t up = (size_t) a.desc.d_ff * a.desc.d_model * 2;
    const size_t down = (size_t) a.desc.d_out * a.desc.d_ff * 4;
    const size_t router = (size_t) a.desc.n_experts * a.desc.d_model * 4;
    for (uint32_t p = 0; p < VERIFY_N_PERTURBATIONS; p++) {
        assert_true(verify_perturb(&a, p, 3, a.desc.d_out - 1));
        bool same_up = memcmp(a.experts[3].up.data, b.experts[3].up.data, up) == 0;
        bool same_down = memcmp(a.experts[3].down.data, b.experts[3].down.data, down) == 0;
        bool same_router = memcmp(a.router.weight.data, b.router.weight.data, router) == 0;
        assert_int_equal(same_up + same_down + same_router, 2);
        assert_true(verify_perturb(&a, p, 3, a.desc.d_out - 1));
        assert_memory_equal(a.experts[3].up.data, b.experts[3].up.data, up);
        assert_memory_equal(a.experts[3].down.data, b.experts[3].down.data, down);
        assert_memory_equal(a.router.weight.data, b.router.weight.data, router);
    }
    verify_weights_finish(&a);
    verify_weights_finish(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tolerance, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_zero, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_numbers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unwritten, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_ids, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_exempt, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_scores, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_untouched, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_rounded_tolerance, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_half_tolerance, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_int8_tolerance, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_overflow, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_subnormal, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stored_halves, set_up, tear_down),
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_bound_by_hand),
        cmocka_unit_test(test_bound_holds),
        cmocka_unit_test(test_perturbations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
