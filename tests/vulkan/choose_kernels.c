// SPDX-License-Identifier: MIT
// Plans by variants, without a device: which kernel computes which matmul, and how tokens are cut.
#include "check.h"
#include "choose_cases.h"

#include <stdlib.h>

#include "base/bits.h"
#include "vulkan/plan.h"

static const char *kernel(const struct moe_vk_dispatch *d)
{
    return moe_spv_table[d->spv].name;
}

// The label of the dispatch that makes what the i-th one reads, if that is quantised.
static const char *quantised_from(const struct moe_vk_sequence *sequence, uint32_t i)
{
    const struct moe_vk_range *input = &sequence->dispatches[i].ranges[MOE_SLOT_INPUT];
    for (uint32_t k = 0; k < i; k++) {
        const struct moe_vk_dispatch *d = &sequence->dispatches[k];
        if (strcmp(kernel(d), "quantise_bda") == 0 && input->buffer == MOE_VK_BUF_WORK &&
            input->offset == d->ranges[MOE_SLOT_OUTPUT].offset)
            return d->label;
    }
    return NULL;
}

// A matmul's kernel is that of its own weights' type: f16 alone goes to the kernel in f16, where x
// is rounded and the hidden rows are not, and blocks go to the one that reads codes.
static void check_kernels(const struct moe_vk_variant *variant, const vkmoe_layer_desc *desc,
                          enum vkmoe_dtype x_type, bool bda)
{
    struct moe_vk_program *program = calloc(1, sizeof *program);
    struct moe_layer layer;
    uint32_t n = 0, n_x = 0;
    assert_non_null(program);
    check_ok(moe_layer_init(&layer, desc));
    moe_graph_forward(&program->base.graph, &layer, false);
    program->base.max_tokens = 300;
    program->base.x_type = x_type;
    program->variant = variant;
    struct moe_vk_limits limits = {bda, UINT64_MAX, UINT64_MAX, {UINT32_MAX, UINT32_MAX}, 1e18,
                                   {8, 16, 32, 1, 0}, 4, 0}; // and no room for wide tiles
    check_ok(moe_vk_compile(program, &limits));
    const struct moe_vk_sequence *sequence = &program->sequences[MOE_VK_GROUPED];
    for (uint32_t i = 0; i < sequence->n; i++) {
        const struct moe_vk_dispatch *d = &sequence->dispatches[i];
        const bool small = strstr(d->label, "small tiles") != NULL;
        if (strncmp(kernel(d), "expert_gem", strlen("expert_gem")) != 0)
            continue;
        const char *quantised = quantised_from(sequence, i);
        bool coded = variant && variant->quantises && for_a2((enum vkmoe_dtype) d->spec[0]);
        bool from_x = coded ? strcmp(quantised, "quantise x") == 0
                            : d->ranges[MOE_SLOT_INPUT].buffer == MOE_VK_BUF_X;
        assert_int_equal(quantised != NULL, coded);
        bool matrix = variant && variant->shape > 0 && coded == variant->quantises;
        bool f16 = variant && variant->id == MOE_VK_A1 && d->spec[0] == VKMOE_F16 &&
                   !(from_x && x_type == VKMOE_BF16);
        const char *kernels[][2] = {{"expert_gemm", "expert_gemv_tile"},
                                    {"expert_gemm_bda", "expert_gemv_tile_bda"},
                                    {"expert_gemm_int8_bda", "expert_gemv_tile_int8_bda"},
                                    {"expert_gemm_f16_bda", "expert_gemv_tile_f16_bda"},
                                    {"expert_gemm_coop_bda", "expert_gemm_coop_bda"},
                                    {"expert_gemm_flex_bda", "expert_gemm_flex_bda"},
                                    {"expert_gemm_coop_int8_bda", "expert_gemm_coop_int8_bda"}};
        int of_matrix = coded ? 6 : 4 + (matrix && variant->flexible);
        int kind = matrix ? of_matrix : f16 ? 3 : coded ? 2 : bda;
        assert_string_equal(kernel(d), kernels[kind][small]);
        const uint32_t small_rows = variant && variant->shape > 0 ? 8 : MOE_TILE_SMALL;
        assert_int_equal(d->spec[1], small ? small_rows : MOE_TILE_FULL);
        assert_int_equal(d->spec[MOE_SPEC_M], matrix ? 8 : 0);
        assert_int_equal(d->spec[MOE_SPEC_N], matrix ? 16 : 0);
        assert_int_equal(d->spec[MOE_SPEC_K], matrix ? 32 : 0);
        assert_int_equal(d->spec[MOE_SPEC_SUBGROUPS], matrix ? 4 : 0);
        assert_int_equal(d->spec[MOE_SPEC_PACKED_IS_N], matrix);
        assert_int_equal(d->spec[MOE_SPEC_SCOPE], matrix && variant->flexible ? 3 : 0);
        assert_int_equal(d->spec[6], f16 && from_x);
        n_x += from_x;
        n++;
    }
    assert_int_equal(n, 6); // in and out, full and small tiles, and the shared expert's two
    assert_int_equal(n_x, 3);
    moe_vk_sequences_finish(program);
    free(program);
}

static void each_matmul_has_the_kernel_of_its_types(void **state)
{
    (void) state;
    static const enum moe_vk_variant_id matrices[] = {MOE_VK_A3, MOE_VK_A4, MOE_VK_A3I};
    for (int types = 0; types < N_X * N_W * N_W; types++) {
        int weights = types / N_X;
        enum vkmoe_dtype x_type = (enum vkmoe_dtype)(types % N_X);
        vkmoe_layer_desc layer = layer_of((enum vkmoe_dtype)(weights % N_W),
                                          (enum vkmoe_dtype)(weights / N_W));
        layer.d_model = 256;
        layer.d_ff = layer.d_shared_ff = 512;
        for (size_t i = 0; i < MOE_COUNT(matrices); i++)
            if ((int) moe_vk_variants[matrices[i]].gemm_bda < (int) MOE_N_SPV)
                check_kernels(&moe_vk_variants[matrices[i]], &layer, x_type, true);
        check_kernels(&moe_vk_variants[MOE_VK_A2], &layer, x_type, true);
        check_kernels(&moe_vk_variants[MOE_VK_A1], &layer, x_type, true);
        check_kernels(&moe_vk_variants[MOE_VK_A0], &layer, x_type, true);
        check_kernels(&moe_vk_variants[MOE_VK_A0], &layer, x_type, false);
        check_kernels(NULL, &layer, x_type, false);
    }
}

// The block of tokens of 300 by a variant, of which a workgroup has `rows` rows of x or of slots.
static uint32_t block_of(enum moe_vk_variant_id variant, uint64_t groups, uint32_t *rows)
{
    struct moe_vk_program *program = calloc(1, sizeof *program);
    struct moe_layer layer;
    vkmoe_layer_desc desc = layer_of(VKMOE_Q8_0, VKMOE_Q8_0);
    assert_non_null(program);
    desc.n_experts = 32;
    desc.top_k = 16;
    desc.d_model = desc.d_ff = desc.d_shared_ff = 64;
    check_ok(moe_layer_init(&layer, &desc));
    moe_graph_forward(&program->base.graph, &layer, false);
    program->base.max_tokens = 300;
    program->variant = &moe_vk_variants[variant];
    struct moe_vk_limits limits = {true, UINT64_MAX, UINT64_MAX, {groups, 65535}, 1e18,
                                   {8, 16, 32, 1}, 4};
    check_ok(moe_vk_compile(program, &limits));
    const struct moe_vk_sequence *sequence = &program->sequences[MOE_VK_GROUPED];
    const uint32_t block = sequence->block_tokens;
    for (uint32_t i = 0; i < sequence->n; i++) {
        const struct moe_vk_dispatch *d = &sequence->dispatches[i];
        struct quantise_params p;
        if (strcmp(kernel(d), "quantise_bda") != 0)
            continue;
        memcpy(&p, d->params, sizeof p);
        assert_true(moe_vk_groups(d->x, block) <= groups);
        assert_true(moe_vk_groups(d->x, block) * p.group_rows >= block * p.rows);
        *rows = (uint32_t) moe_max(*rows, p.group_rows);
    }
    moe_vk_sequences_finish(program);
    free(program);
    return block;
}

// A workgroup makes more codes where there are too few workgroups.
static void codes_cut_no_tokens(void **state)
{
    (void) state;
    uint32_t rows = 0;
    assert_int_equal(block_of(MOE_VK_A2, 65535, &rows), 300);
    assert_int_equal(rows, MOE_QUANTISE_ROWS);
    assert_int_equal(block_of(MOE_VK_A0, 310, &rows), 300);
    assert_int_equal(block_of(MOE_VK_A2, 310, &rows), 300); // 4800 slots
    assert_int_equal(rows, 2 * MOE_QUANTISE_ROWS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_matmul_has_the_kernel_of_its_types),
        cmocka_unit_test(codes_cut_no_tokens),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) != 0;
}
