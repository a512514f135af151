// SPDX-License-Identifier: MIT
// A compiled graph with its pipelines, checked against the device.
#include <string.h>

#include "vulkan/plan.h"

static const char variant_name[] = "a0"; // f32 arithmetic, no optional feature

enum vkmoe_status moe_vk_program_create(struct moe_device *device, const struct moe_graph *graph,
                                        const struct moe_program_params *params,
                                        struct moe_program **out)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(device);
    struct moe_vk_program *program = NULL;
    if (params->variant && strcmp(params->variant, variant_name) != 0)
        return moe_fail(VKMOE_E_UNSUPPORTED, "variant '%s': %s has only '%s'", params->variant,
                        device->info.name, variant_name);
    TRY(moe_try_alloc(device->host, sizeof *program, "Vulkan program", &program));
    program->base = (struct moe_program){device, *graph, params->max_tokens};
    TRY(moe_vk_compile(program, vk->bda));
    for (int regime = 0; regime < MOE_VK_N_REGIMES; regime++) {
        struct moe_vk_dispatch *all = program->dispatches[regime];
        uint32_t n = program->n_dispatches[regime];
        TRY(moe_vk_check(&vk->caps, vk->bda, program, (enum moe_vk_regime) regime));
        for (uint32_t i = 0; i < n; i++)
            TRY(moe_vk_pipeline_get(vk, all[i].spv, all[i].spec, &all[i].pipeline));
    }
    *out = &program->base;
    return VKMOE_OK;

fail:
    moe_free(device->host, program);
    return status;
}

void moe_vk_program_destroy(struct moe_program *program)
{
    moe_free(program->device->host, program);
}
