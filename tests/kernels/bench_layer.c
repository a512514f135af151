// SPDX-License-Identifier: MIT
// One layer of a small sparse transformer on the CPU, by tokens at once.
#include "kernels_test.h"

#include "base/bits.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N_EXPERTS = 16, TOP_K = 8, D_MODEL = 2048, D_FF = 768, MAX_TOKENS = 128 };

static float *random_array(size_t n, uint64_t *state)
{
    float *array = aligned_memory(n * sizeof *array);
    for (size_t i = 0; i < n; i++)
        array[i] = random_value(state) * 0.05f;
    return array;
}

// Best time of a run of n_tokens.
static double time_run(vkmoe_bind *bind, uint32_t n_tokens, const vkmoe_io *io)
{
    double best = 1e9;
    for (double began = seconds(); seconds() - began < 0.5;) {
        double start = seconds();
        if (vkmoe_run(bind, n_tokens, io) != VKMOE_OK)
            return 0;
        double t = seconds() - start;
        best = t < best ? t : best;
    }
    return best;
}

// All experts are the same matrices: speed does not see it, and packing them costs less.
static enum vkmoe_status create(vkmoe_context *context, const vkmoe_layer_desc *layer,
                                const float *matrix, vkmoe_weights **weights, vkmoe_plan **plan,
                                vkmoe_bind **bind)
{
    static vkmoe_expert_tensors experts[N_EXPERTS];
    for (uint32_t e = 0; e < N_EXPERTS; e++)
        experts[e].gate = experts[e].up = experts[e].down =
            (vkmoe_tensor){.data = matrix, .type = VKMOE_F32};
    vkmoe_router_tensors router = {.weight = {.data = matrix, .type = VKMOE_F32}};
    vkmoe_weights_desc weights_desc = vkmoe_weights_desc_init();
    weights_desc.layer = layer;
    weights_desc.router = &router;
    weights_desc.experts = experts;
    vkmoe_plan_desc plan_desc = vkmoe_plan_desc_init();
    plan_desc.layer = layer;
    plan_desc.max_tokens = MAX_TOKENS;
    enum vkmoe_status status = vkmoe_weights_create(context, &weights_desc, weights);
    if (status == VKMOE_OK)
        status = vkmoe_plan_create(context, &plan_desc, plan);
    if (status == VKMOE_OK)
        status = vkmoe_bind_create(*plan, *weights, NULL, bind);
    return status;
}

static void print_rates(vkmoe_bind *bind, const float *x, float *y, int32_t *ids)
{
    static const uint32_t n_tokens[] = {1, 8, MAX_TOKENS};
    const double expert_macs = 3.0 * D_MODEL * D_FF;
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.y = y;
    io.ids = ids;
    for (size_t i = 0; i < MOE_COUNT(n_tokens); i++) {
        const uint32_t n = n_tokens[i];
        double t = time_run(bind, n, &io);
        bool used[N_EXPERTS] = {false};
        uint32_t n_used = 0;
        for (uint32_t slot = 0; slot < n * TOP_K; slot++) {
            n_used += !used[ids[slot]];
            used[ids[slot]] = true;
        }
        printf("  %3u tokens: %8.3f ms  %6.1f GFLOP/s  %5.1f GB/s of weights\n", n, t * 1e3,
               2 * expert_macs * n * TOP_K / t * 1e-9, 2 * expert_macs * n_used / t * 1e-9);
    }
}

int bench_layer(const struct kernels_options *options)
{
    uint64_t state = options->seed;
    float *matrix = random_array((size_t) D_MODEL * D_FF, &state);
    float *x = random_array((size_t) MAX_TOKENS * D_MODEL, &state);
    float *y = aligned_memory(sizeof *y * MAX_TOKENS * D_MODEL);
    int32_t *ids = aligned_memory(sizeof *ids * MAX_TOKENS * TOP_K);
    vkmoe_layer_desc layer = vkmoe_layer_desc_init();
    layer.n_experts = N_EXPERTS;
    layer.top_k = TOP_K;
    layer.d_model = D_MODEL;
    layer.d_ff = D_FF;
    layer.in_type = layer.out_type = VKMOE_BF16;
    layer.gated = true;
    layer.act = VKMOE_ACT_SILU;

    vkmoe_context_desc desc = vkmoe_context_desc_init();
    desc.device = "cpu";
    desc.cpu_isa = options->isa;
    vkmoe_context *context = NULL;
    vkmoe_weights *weights = NULL;
    vkmoe_plan *plan = NULL;
    vkmoe_bind *bind = NULL;
    enum vkmoe_status status = vkmoe_context_create(&desc, &context);
    if (status == VKMOE_OK)
        status = create(context, &layer, matrix, &weights, &plan, &bind);
    printf("layer %d,%d,%d,%d bf16, gated, all cores:\n", N_EXPERTS, TOP_K, D_MODEL, D_FF);
    if (status == VKMOE_OK)
        print_rates(bind, x, y, ids);
    else
        fprintf(stderr, "%s\n", vkmoe_error_text());
    vkmoe_bind_destroy(bind);
    vkmoe_plan_destroy(plan);
    vkmoe_weights_destroy(weights);
    vkmoe_context_destroy(context);
    free(ids);
    free(y);
    free(x);
    free(matrix);
    return status != VKMOE_OK;
}
