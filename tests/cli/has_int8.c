// SPDX-License-Identifier: MIT
// Whether int8 makes a difference, by what the plans of any device could say: tools/cli_run.c over
// calls of our own, which it is compiled for (meson.build).
#include "check.h"

#include "../../tools/cli.h"

static vkmoe_device_info info;
static vkmoe_plan_kernels kernels;
static enum vkmoe_status created;

enum vkmoe_status vkmoe_plan_create(vkmoe_context *context, const vkmoe_plan_desc *desc,
                                    vkmoe_plan **out)
{
    (void) context;
    (void) out;
    assert_int_equal(desc->precision, VKMOE_PRECISION_INT8);
    return created;
}

void vkmoe_plan_destroy(vkmoe_plan *plan)
{
    (void) plan;
}

enum vkmoe_status vkmoe_plan_get_kernels(const vkmoe_plan *plan, vkmoe_plan_kernels *out)
{
    (void) plan;
    *out = kernels;
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_context_info(const vkmoe_context *context, vkmoe_device_info *out)
{
    (void) context;
    *out = info;
    return VKMOE_OK;
}

static bool has(enum vkmoe_device_type type, enum vkmoe_arithmetic arithmetic)
{
    info.type = type;
    kernels.arithmetic = arithmetic;
    return cli_has_int8(NULL);
}

static void a_gpu_has_what_multiplies_bytes(void **state)
{
    (void) state;
    for (int i = 0; i < VKMOE_N_ARITHMETICS; i++) {
        const enum vkmoe_arithmetic a = (enum vkmoe_arithmetic) i;
        const bool bytes = a == VKMOE_ARITHMETIC_INT8 || a == VKMOE_ARITHMETIC_INT8_MATRIX;
        assert_int_equal(has(VKMOE_DEVICE_DISCRETE, a), bytes);
        assert_int_equal(has(VKMOE_DEVICE_SOFTWARE, a), bytes);
        assert_true(has(VKMOE_DEVICE_CPU, a));
    }
}

static void what_has_no_plans_has_none(void **state)
{
    (void) state;
    created = VKMOE_E_UNSUPPORTED;
    assert_false(has(VKMOE_DEVICE_CPU, VKMOE_ARITHMETIC_INT8));
    created = VKMOE_E_MEMORY; // which its own plans will meet
    assert_true(has(VKMOE_DEVICE_DISCRETE, VKMOE_ARITHMETIC_F32));
    created = VKMOE_OK;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gpu_has_what_multiplies_bytes),
        cmocka_unit_test(what_has_no_plans_has_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
