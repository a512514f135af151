// SPDX-License-Identifier: MIT
#include "forced.h"

#include "api/api.h"
#include "base/bits.h"
#include "core/dtype.h"

#include <stdio.h>

vkmoe_context *device, *oracle;

// Every matmul of the plan goes to the variant's kernel; of one that quantises, x and the hidden
// rows of each bank are made codes once.
static void check_kernels(const struct moe_vk_program *program)
{
    const struct moe_vk_variant *variant = &moe_vk_variants[forced.variant];
    const struct moe_vk_sequence *sequence = &program->sequences[MOE_VK_GROUPED];
    const bool shared = program->base.graph.layer.desc.d_shared_ff > 0;
    uint32_t n = 0, n_quantise = 0;
    assert_ptr_equal(program->variant, variant);
    for (uint32_t i = 0; i < sequence->n; i++) {
        const char *name = moe_spv_table[sequence->dispatches[i].spv].name;
        n_quantise += strcmp(name, "quantise_bda") == 0;
        if (strncmp(name, "expert_gem", strlen("expert_gem")) != 0)
            continue;
        bool small = strstr(sequence->dispatches[i].label, "small") != NULL;
        assert_string_equal(name, small ? forced.small_kernel : forced.kernel);
        n++;
    }
    // In and out, full and small tiles, and the shared expert's two.
    assert_int_equal(n, shared ? 6 : 4);
    assert_int_equal(n_quantise, !variant->quantises ? 0 : shared ? 3 : 2);
}

void run(vkmoe_context *context, const struct layer_data *data, enum vkmoe_dtype x_type,
         const float *x, struct result *out)
{
    run_some(context, data, x_type, x, N_TOKENS, out);
}

void check_small_tile(const struct layer_data *data, const float *x, const struct result *all)
{
    struct result few;
    const uint32_t n = moe_vk_variants[forced.variant].small_rows - 1;
    assert_true(data->layer.n_experts == 1 && N_TOKENS > MOE_TILE_FULL);
    run_some(device, data, VKMOE_F32, x, n, &few);
    assert_memory_equal(few.y, all->y, n * data->layer.d_out * sizeof *few.y);
}

void run_some(vkmoe_context *context, const struct layer_data *data, enum vkmoe_dtype x_type,
              const float *x, uint32_t n_tokens, struct result *out)
{
    struct stack stack = {0};
    vkmoe_plan_desc plan = vkmoe_plan_desc_init();
    vkmoe_io io = vkmoe_io_init();
    float rows[MAX_Y], values[MAX_Y]; // of any type
    plan.layer = &data->layer;
    plan.max_tokens = N_TOKENS;
    plan.x_type = x_type;
    if (context == device) {
        plan.precision = forced.precision;
        plan.variant = moe_vk_variants[forced.variant].name;
        plan.counters = true;
    }
    memset(out, 0xff, sizeof *out);
    memset(values, 0xff, sizeof values);
    moe_dtype_encode(x_type, x, (size_t) N_TOKENS * data->layer.d_model, rows);
    io.x = rows;
    io.x_stride = (size_t) moe_dtype_size(x_type, data->layer.d_model);
    io.y = values;
    io.y_stride = (size_t) moe_dtype_size(x_type, data->layer.d_out);
    io.ids = out->ids;
    check_ok(vkmoe_weights_create(context, &data->desc, &stack.weights));
    check_ok(vkmoe_plan_create(context, &plan, &stack.plan));
    check_ok(vkmoe_bind_create(stack.plan, stack.weights, NULL, &stack.bind));
    check_ok(vkmoe_run(stack.bind, n_tokens, &io));
    for (uint32_t t = 0; t < n_tokens; t++)
        check_ok(vkmoe_dtype_to_f32(x_type, (const char *) values + t * io.y_stride,
                                    data->layer.d_out, out->y + t * data->layer.d_out));
    if (context == device) {
        vkmoe_counters counters;
        check_kernels((struct moe_vk_program *) stack.plan->program);
        check_ok(vkmoe_bind_get_counters(stack.bind, &counters));
        out->columns = counters.live_columns;
    }
    stack_destroy(&stack);
}

double error_of(const float *got, const float *want, size_t n)
{
    double error = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        error += ((double) got[i] - want[i]) * ((double) got[i] - want[i]);
        norm += (double) want[i] * want[i];
    }
    return error == 0 ? 0 : sqrt(error / norm);
}

int forced_main(const vkmoe_layer_desc *layer, int (*all_tests)(void))
{
    const struct moe_vk_variant *variant = &moe_vk_variants[forced.variant];
    const struct moe_program_params params = {.precision = forced.precision};
    char why[160];
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "reference";
    check_ok(vkmoe_context_create(&desc, &oracle));
    desc.device = "vulkan";
    desc.cache_dir = "";
    desc.validation = true;
    check_ok(vkmoe_context_create(&desc, &device));
    bool missing = moe_vk_why_not(variant, &moe_vk(device->device)->caps, layer, &params, why);
    if (missing)
        printf("skip: no variant '%s': %s\n", variant->name, why);
    int code = missing ? 77 : all_tests();
    vkmoe_context_destroy(device);
    vkmoe_context_destroy(oracle);
    return code;
}
