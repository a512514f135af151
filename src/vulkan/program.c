// SPDX-License-Identifier: MIT
// A compiled graph with its pipelines, within the device's limits.
#include "vulkan/plan.h"

#include <time.h>

// Work per millisecond that even a slow device of a kind does.
static double slow_device(enum vkmoe_device_type type)
{
    switch (type) {
    case VKMOE_DEVICE_DISCRETE:
        return 1e9;
    case VKMOE_DEVICE_INTEGRATED:
        return 1e8;
    default:
        return 4e6;
    }
}

double moe_vk_ns_per_work(enum vkmoe_device_type type)
{
    return 1e6 / slow_device(type);
}

double moe_vk_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double) t.tv_sec * 1e9 + (double) t.tv_nsec;
}

// Half of what was expected, half of what was seen: a slow moment does not last. Submissions that
// are short either way tell more about submissions than about work.
void moe_vk_learn(double *ns_per_work, double budget_ns, double work, double ns)
{
    if (work > 0 && (work * *ns_per_work > budget_ns / 20 || ns > budget_ns / 20))
        *ns_per_work = (*ns_per_work + ns / work) / 2;
}

struct moe_vk_limits moe_vk_limits(const struct moe_vk *vk, double budget_ms)
{
    const struct moe_vk_caps *caps = &vk->caps;
    return (struct moe_vk_limits){
        .bda = vk->bda,
        .range = vk->bda ? MOE_VK_MAX_WORDS_SIZE : caps->max_storage_range,
        .allocation = caps->max_allocation,
        .groups = {caps->max_groups[0], caps->max_groups[1]},
        .work = budget_ms / 4 * slow_device(vk->base.info.type),
        .subgroups = caps->subgroup_size > 0 ? MOE_LOCAL_SIZE / caps->subgroup_size : 0,
        .shared = caps->max_shared,
    };
}

static struct moe_vk_own own_pipelines(const struct moe_vk_program *program)
{
    struct moe_vk_own own = {.variant = program->variant};
    for (int regime = 0; regime < MOE_VK_N_REGIMES; regime++) {
        const struct moe_vk_sequence *sequence = &program->sequences[regime];
        for (uint32_t i = 0; i < sequence->n; i++)
            moe_vk_own_add(&own, sequence->dispatches[i].spv, sequence->dispatches[i].spec);
    }
    return own;
}

enum vkmoe_status moe_vk_program_make(struct moe_vk *vk, const struct moe_graph *graph,
                                      const struct moe_program_params *params,
                                      const struct moe_vk_variant *variant, bool mark,
                                      struct moe_program **out, bool *own)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk_program *program = NULL;
    struct moe_vk_own made = {0};
    bool marked = false;
    *own = false;
    TRY(moe_try_alloc(vk->base.host, sizeof *program, "Vulkan program", &program));
    program->base = (struct moe_program){&vk->base, *graph, params->max_tokens, params->precision,
                                         params->x_type};
    program->variant = variant;
    if (params->variant)
        program->base.net_variant = moe_vk_net_name(variant);
    program->budget_ms = params->budget_ms;
    program->counters = params->counters;
    struct moe_vk_limits limits = moe_vk_limits(vk, program->budget_ms);
    limits.shape = moe_vk_variant_shape(variant, &vk->caps);
    TRY(moe_vk_compile(program, &limits));
    made = own_pipelines(program);
    marked = mark && moe_vk_begin_making(vk, &made);
    for (int regime = 0; regime < MOE_VK_N_REGIMES; regime++) {
        struct moe_vk_sequence *sequence = &program->sequences[regime];
        for (uint32_t i = 0; i < sequence->n; i++) {
            struct moe_vk_dispatch *d = &sequence->dispatches[i];
            *own = moe_vk_is_own(variant, d->spv);
            TRY(moe_vk_pipeline_get(vk, d->spv, d->spec, &d->pipeline));
            *own = false;
        }
    }
    *out = &program->base;

fail:
    if (marked)
        moe_vk_end_making(vk, &made, status == VKMOE_OK);
    if (program && status != VKMOE_OK)
        moe_vk_program_destroy(&program->base);
    return status;
}

static bool wants_memory(enum vkmoe_status status)
{
    return status == VKMOE_E_MEMORY || status == VKMOE_E_DEVICE_MEMORY;
}

enum vkmoe_status moe_vk_program_create(struct moe_device *device, const struct moe_graph *graph,
                                        const struct moe_program_params *params,
                                        struct moe_program **out)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(device);
    if (params->counters && !vk->bda)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "plan.counters: kernels count by buffer device address only, and this "
                        "context addresses %s by descriptors", vk->base.info.name);
    for (;;) {
        const struct moe_vk_variant *variant;
        bool own;
        TRY(moe_vk_choose(vk, &graph->layer.desc, params, &variant));
        status = moe_vk_program_make(vk, graph, params, variant, true, out, &own);
        if (!own || variant->id == MOE_VK_A0)
            return status;
        // A driver that cannot make a pipeline loses the variant, not the plan. For want of memory
        // this plan alone does without; one that is named is not replaced.
        if (status == VKMOE_E_DEVICE) {
            moe_vk_condemn(vk, variant, MOE_VK_NO_PIPELINE);
        } else if (wants_memory(status) && !params->variant) {
            moe_log(vk->base.host, VKMOE_LOG_WARN, "a plan does without variant '%s': %s",
                    variant->name, vkmoe_error_text());
            variant = &moe_vk_variants[MOE_VK_A0];
            return moe_vk_program_make(vk, graph, params, variant, true, out, &own);
        } else {
            return status;
        }
    }

fail:
    return status;
}

void moe_vk_program_destroy(struct moe_program *program)
{
    moe_vk_sequences_finish((struct moe_vk_program *) program);
    moe_free(program->device->host, program);
}
