// SPDX-License-Identifier: MIT
// How `vkmoe verify` judges gradients, and which it compares.
#include "check.h"

#include "verify_cases.h"
#include "verify_gradients.h"

#include <float.h>
#include <stdlib.h>

enum { N = 3, E = 2, D = 4, F = 5, O = 3, D_SHARED = 6 };

struct fixture {
    struct verify_gradients got, want;
    struct verify_verdict verdict;
};

// Numbers from 1 to 2 everywhere.
static void fill_all(struct verify_gradients *g)
{
    verify_gradients_poison(g);
    for (uint32_t i = 0; i < VERIFY_N_GRADS; i++) {
        struct verify_grad *t = &g->tensors[i];
        for (uint32_t row = 0; t->data && row < t->n_rows; row++) {
            for (size_t k = 0; k < t->width; k++)
                t->data[row * t->stride + k] = 1 + (float) ((row + k + i) % 8) / 8;
        }
    }
}

static int set_up(void **state)
{
    struct fixture *f = *state = calloc(1, sizeof *f);
    vkmoe_layer_desc desc = vkmoe_layer_desc_init();
    desc.n_experts = E;
    desc.d_model = D;
    desc.d_ff = F;
    desc.d_out = O;
    desc.d_shared_ff = D_SHARED;
    desc.shared_gate = VKMOE_SHARED_SIGMOID;
    desc.gated = desc.gate_bias = desc.up_bias = desc.down_bias = desc.router_bias = true;
    assert_true(f && verify_gradients_create(&desc, VKMOE_F32, N, true, &f->got) &&
                verify_gradients_create(&desc, VKMOE_F32, N, false, &f->want));
    fill_all(&f->got);
    fill_all(&f->want);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    verify_gradients_finish(&f->got);
    verify_gradients_finish(&f->want);
    free(f);
    return 0;
}

// Exactly the checks of `mask` fail.
static void check_failed(struct fixture *f, uint32_t mask)
{
    verify_gradients_compare(&f->got, &f->want, &f->verdict);
    if (f->verdict.failed != mask)
        fail_msg("failed checks %x, not %x: %s", f->verdict.failed, mask, f->verdict.text);
}

static double norm(const struct verify_grad *t)
{
    double sum = 0;
    for (size_t k = 0; k < t->n_rows * t->width; k++)
        sum += (double) t->data[k] * (double) t->data[k];
    return sqrt(sum);
}

// 1e-5 of the tensor and eight roundings of the largest parameter's.
static void test_tolerance(void **state)
{
    struct fixture *f = *state;
    double largest = 0;
    check_failed(f, 0);
    for (uint32_t i = VERIFY_GRAD_ROUTER; i < VERIFY_N_GRADS; i++)
        largest = fmax(largest, norm(&f->want.tensors[i]));
    for (uint32_t i = 0; i < VERIFY_N_GRADS; i++) {
        double bound = 1e-5 * norm(&f->want.tensors[i]) + 4 * FLT_EPSILON * largest;
        float *at = &f->got.tensors[i].data[1], before = *at;
        *at = before + (float) (0.97 * bound);
        check_failed(f, 0);
        *at = before + (float) (1.03 * bound);
        check_failed(f, 1u << i);
        assert_non_null(strstr(f->verdict.text, verify_gradient_name(i)));
        *at = before;
    }
}

static void test_no_numbers(void **state)
{
    struct fixture *f = *state;
    float *at = f->got.tensors[VERIFY_GRAD_EXPERTS].data;
    *at = NAN;
    check_failed(f, 1u << VERIFY_GRAD_EXPERTS);
    f->want.tensors[VERIFY_GRAD_EXPERTS].data[0] = NAN;
    check_failed(f, 0);
    *at = 1;
    check_failed(f, 1u << VERIFY_GRAD_EXPERTS);
    verify_gradients_poison(&f->got); // not written
    check_failed(f, (1u << VERIFY_N_GRADS) - 1);
}

static void test_untouched(void **state)
{
    struct fixture *f = *state;
    uint32_t what;
    assert_true(verify_gradients_untouched(&f->got, &what));
    f->got.tensors[VERIFY_GRAD_DX].data[D] = 0; // between its rows
    assert_false(verify_gradients_untouched(&f->got, &what));
    assert_int_equal(what, VERIFY_GRAD_DX);
    for (uint32_t i = VERIFY_GRAD_ROUTER; i < VERIFY_N_GRADS; i++) {
        struct verify_grad *t = &f->got.tensors[i];
        fill_all(&f->got);
        t->data[t->n_rows * t->width] = 0;
        assert_false(verify_gradients_untouched(&f->got, &what));
        assert_int_equal(what, i);
    }
}

static void test_nothing(void **state)
{
    struct fixture *f = *state;
    struct verify_grad *router = &f->want.tensors[VERIFY_GRAD_ROUTER];
    assert_int_equal(verify_gradients_nothing(&f->want), 0);
    assert_false(verify_gradients_none(&f->got, 1));
    for (uint32_t i = 0; i < E * D; i++)
        router->data[i] = 1e-8f;
    assert_int_equal(verify_gradients_nothing(&f->want), 1u << VERIFY_GRAD_ROUTER);
    for (uint32_t i = 0; i < VERIFY_GRADS_PER_EXPERT; i++) {
        struct verify_grad *t = &f->got.tensors[VERIFY_GRAD_EXPERTS + i];
        for (size_t k = 0; k < t->width; k++)
            t->data[t->width + k] = 0;
    }
    assert_true(verify_gradients_none(&f->got, 1));
    assert_false(verify_gradients_none(&f->got, 0));
}

// dx of 16 bits is rounded once more than the oracle's, and no further.
static void test_rounded_dx(void **state)
{
    (void) state;
    vkmoe_layer_desc desc = vkmoe_layer_desc_init();
    struct fixture f;
    desc.n_experts = desc.d_ff = desc.d_out = 1;
    desc.d_model = D;
    assert_true(verify_gradients_create(&desc, VKMOE_F16, N, true, &f.got) &&
                verify_gradients_create(&desc, VKMOE_F32, N, false, &f.want));
    fill_all(&f.got);
    fill_all(&f.want);
    const size_t stride = f.got.tensors[VERIFY_GRAD_DX].stride;
    for (uint32_t t = 0; t < N; t++)
        check_ok(vkmoe_dtype_convert(VKMOE_F16, f.got.values + t * stride, D,
                                     (uint16_t *) f.got.stored_dx + t * stride));
    verify_gradients_read_dx(&f.got);
    check_failed(&f, 0);
    for (uint32_t i = 0; i < N * D; i++)
        f.want.values[i] *= 1 + 0x0.fp-11f;
    check_failed(&f, 0);
    for (uint32_t i = 0; i < N * D; i++)
        f.want.values[i] *= 1 + 0x1p-11f;
    check_failed(&f, 1u << VERIFY_GRAD_DX);
    verify_gradients_finish(&f.got);
    verify_gradients_finish(&f.want);
}

// The gradients of the covering set are of each level that a layer's factors have, but of shapes
// with many experts, which are left to special cases.
static void test_cover(void **state)
{
    (void) state;
    struct verify_case *cases, c;
    bool met[VERIFY_N_PLAN_FACTORS][16] = {{false}};
    uint32_t n = verify_cover(&cases), n_gradients = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (!verify_gradients_case(&cases[i], &c) || !verify_gradients_quick(&c))
            continue;
        n_gradients++;
        assert_true(verify_tokens(&c) > 0);
        assert_int_equal(verify_precision(&c), VKMOE_PRECISION_EXACT);
        for (uint32_t f = 0; f < VERIFY_N_PLAN_FACTORS; f++)
            met[f][c.level[f]] = true;
    }
    free(cases);
    assert_in_range(n_gradients, 40, 100);
    for (uint32_t f = 0; f < VERIFY_PRECISION; f++) {
        for (uint32_t i = 0; i < verify_n_levels(f); i++) {
            c = verify_first();
            c.level[f] = (uint8_t) i;
            if (!met[f][i] && verify_layer(&c).n_experts <= 60)
                fail_msg("no gradients of level %u of factor %u", i, f);
        }
    }
    uint32_t n_large = 0;
    for (uint32_t i = 0; verify_special(i, &c); i++)
        n_large += verify_gradients_case(&c, &c) && verify_layer(&c).n_experts > 60;
    assert_true(n_large > 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_tolerance, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_numbers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_untouched, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nothing, set_up, tear_down),
        cmocka_unit_test(test_rounded_dx),
        cmocka_unit_test(test_cover),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
