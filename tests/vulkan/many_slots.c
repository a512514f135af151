// SPDX-License-Identifier: MIT
// More slots in one block of tokens than grouping has blocks of the usual size for, and on a device
// that has too few workgroups for the usual ones of quantise.comp: the same bits as the same tokens
// by a hundred, of which each workgroup has the usual number. many_slots VARIANT; 77 with the
// reason where the device lacks that.
#include "check.h"
#include "fixture.h"

#include "api/api.h"
#include "base/bits.h"
#include "vulkan/bind.h"

#include <stdio.h>
#include <stdlib.h>

enum { N = 2200, PIECE = 100, GROUPS = 2300, WIDTH = 32, N_EXPERTS = 32, TOP_K = 16 };
_Static_assert(N * TOP_K > 32768, "blocks of grouping are larger");
_Static_assert(N * TOP_K > GROUPS * MOE_QUANTISE_ROWS, "too few workgroups for all");
_Static_assert(N % PIECE == 0, "whole pieces");

static const struct moe_vk_variant *variant;
static vkmoe_context *device;

static enum vkmoe_precision precision(void)
{
    return variant->quantises ? VKMOE_PRECISION_INT8 : VKMOE_PRECISION_EXACT;
}

static vkmoe_layer_desc layer_of(void)
{
    vkmoe_layer_desc layer = full_layer();
    layer.n_experts = N_EXPERTS;
    layer.top_k = TOP_K;
    layer.d_model = layer.d_ff = layer.d_out = WIDTH;
    layer.d_shared_ff = 0;
    layer.shared_gate = VKMOE_SHARED_PLAIN;
    layer.in_type = layer.out_type = variant->quantises ? VKMOE_Q8_0 : VKMOE_F32;
    return layer;
}

// Runs all tokens with a plan for max_tokens; expects that the plan takes those at once.
static void run(const struct layer_data *data, uint32_t max_tokens, const float *x, float *y)
{
    struct stack stack = {0};
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    plan.layer = &data->layer;
    plan.max_tokens = max_tokens;
    plan.variant = variant->name;
    plan.precision = precision();
    check_ok(vkmoe_weights_create(device, &data->desc, &stack.weights));
    check_ok(vkmoe_plan_create(device, &plan, &stack.plan));
    check_ok(vkmoe_bind_create(stack.plan, stack.weights, NULL, &stack.bind));
    const struct moe_vk_program *program = (struct moe_vk_program *) stack.plan->program;
    assert_int_equal(program->sequences[MOE_VK_GROUPED].block_tokens, max_tokens);
    for (uint32_t t = 0; t < N; t += max_tokens) {
        vkmoe_io io = vkmoe_io_init();
        io.x = x + (size_t) t * WIDTH;
        io.y = y + (size_t) t * WIDTH;
        check_ok(vkmoe_run(stack.bind, max_tokens, &io));
    }
    stack_destroy(&stack);
}

static void many_slots_are_as_few(void **state)
{
    (void) state;
    const size_t n = (size_t) N * WIDTH;
    float *x = malloc(3 * n * sizeof *x), *whole = x + n, *pieces = whole + n;
    struct layer_data data;
    const vkmoe_layer_desc layer = layer_of();
    assert_non_null(x);
    layer_data_init(&data, &layer, 3);
    fill_random(x, n, 7);
    memset(whole, 0xff, 2 * n * sizeof *whole);
    run(&data, N, x, whole);
    run(&data, PIECE, x, pieces);
    for (uint32_t t = 0; t < N; t++) {
        const float *got = whole + (size_t) t * WIDTH;
        if (memcmp(got, pieces + (size_t) t * WIDTH, WIDTH * sizeof *got) != 0)
            fail_msg("token %u is another one", t);
        if (t > 0 && memcmp(got, got - WIDTH, WIDTH * sizeof *got) == 0)
            fail_msg("token %u is as the one before", t);
    }
    layer_data_finish(&data);
    free(x);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(many_slots_are_as_few)};
    char why[160];
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "vulkan";
    desc.cache_dir = "";
    check_ok(vkmoe_context_create(&desc, &device));
    for (uint32_t i = 0; i < MOE_VK_N_VARIANTS; i++)
        if (argc == 2 && strcmp(moe_vk_variants[i].name, argv[1]) == 0)
            variant = &moe_vk_variants[i];
    assert_non_null(variant);
    const vkmoe_layer_desc layer = layer_of();
    const struct moe_program_params params = {.precision = precision()};
    const bool missing =
        moe_vk_why_not(variant, &moe_vk(device->device)->caps, &layer, &params, why);
    moe_vk(device->device)->caps.max_groups[0] = GROUPS;
    if (missing)
        printf("skip: no variant '%s': %s\n", variant->name, why);
    int code = missing ? 77 : cmocka_run_group_tests(tests, NULL, NULL) != 0;
    vkmoe_context_destroy(device);
    return code;
}
