// SPDX-License-Identifier: MIT
#include "api/api.h"
#include "base/bits.h"
#include "base/desc.h"
#include "core/dtype.h"

enum { DEFAULT_BUDGET_MS = 50 };

static const char *const precision_names[] = {
    [VKMOE_PRECISION_EXACT] = "exact",
    [VKMOE_PRECISION_HALF] = "half",
    [VKMOE_PRECISION_INT8] = "int8",
};

const char *vkmoe_precision_name(enum vkmoe_precision precision)
{
    bool known = (uint32_t) precision < MOE_COUNT(precision_names);
    return known ? precision_names[precision] : "unknown";
}

enum vkmoe_status vkmoe_precision_from_name(const char *name, enum vkmoe_precision *out)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(name));
    TRY(NOT_NULL(out));
    for (uint32_t i = 0; i < MOE_COUNT(precision_names); i++) {
        if (strcmp(precision_names[i], name) == 0) {
            *out = (enum vkmoe_precision) i;
            return VKMOE_OK;
        }
    }
    return moe_fail(VKMOE_E_ARGUMENT, "no precision \"%.64s\"", name);
fail:
    return status;
}

static const char *const operation_names[] = {
    [VKMOE_OPERATION_LAYER] = "layer",
    [VKMOE_OPERATION_ROUTE] = "route",
    [VKMOE_OPERATION_GATHER] = "gather",
    [VKMOE_OPERATION_COMBINE] = "combine",
};

const char *vkmoe_operation_name(enum vkmoe_operation operation)
{
    bool known = (uint32_t) operation < MOE_COUNT(operation_names);
    return known ? operation_names[operation] : "unknown";
}

static enum vkmoe_status check_operation(const vkmoe_plan_desc *desc)
{
    const bool routes = desc->operation <= VKMOE_OPERATION_ROUTE;
    if ((uint32_t) desc->operation >= MOE_COUNT(operation_names))
        return moe_fail(VKMOE_E_ARGUMENT, "plan.operation = %u: must be below %zu",
                        (uint32_t) desc->operation, MOE_COUNT(operation_names));
    if (desc->scores && !routes)
        return moe_fail(VKMOE_E_ARGUMENT, "plan.scores: the operation %s has none",
                        operation_names[desc->operation]);
    return VKMOE_OK;
}

// Slots are counted in 31 bits, so that kernels and i32 tensors can index them.
static enum vkmoe_status check_plan(const vkmoe_plan_desc *desc, const struct moe_layer *layer)
{
    uint64_t n_slots = (uint64_t) desc->max_tokens * layer->desc.top_k;
    if (desc->max_tokens == 0)
        return moe_fail(VKMOE_E_ARGUMENT, "plan.max_tokens = 0: must be at least 1");
    if (n_slots > INT32_MAX)
        return moe_fail(VKMOE_E_UNSUPPORTED, "plan.max_tokens = %u with top_k = %u: more than %d "
                        "slots", desc->max_tokens, layer->desc.top_k, INT32_MAX);
    if ((uint32_t) desc->precision >= MOE_COUNT(precision_names))
        return moe_fail(VKMOE_E_ARGUMENT, "plan.precision = %u: must be below 3",
                        (uint32_t) desc->precision);
    if (desc->precision == VKMOE_PRECISION_INT8 && !moe_layer_has_blocks(&layer->desc))
        return moe_fail(VKMOE_E_UNSUPPORTED, "plan.precision = int8: for weights of blocks, and "
                        "these experts have none (layer.in_type is %s, layer.out_type %s)",
                        vkmoe_dtype_name(layer->desc.in_type),
                        vkmoe_dtype_name(layer->desc.out_type));
    if (!(desc->budget_ms >= 0.0f && desc->budget_ms <= 1e6f))
        return moe_fail(VKMOE_E_ARGUMENT, "plan.budget_ms = %g: must be 0 to 1e6",
                        (double) desc->budget_ms);
    if (!moe_dtype_is_float(desc->x_type))
        return moe_fail(VKMOE_E_ARGUMENT, "plan.x_type = %u: must be below %d",
                        (uint32_t) desc->x_type, MOE_N_FLOAT_DTYPES);
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_plan_create(vkmoe_context *context, const vkmoe_plan_desc *desc,
                                    vkmoe_plan **out)
{
    enum vkmoe_status status;
    vkmoe_plan_desc full = vkmoe_plan_desc_init();
    vkmoe_plan *plan = NULL;
    struct moe_layer layer;
    struct moe_graph graph;
    TRY(NOT_NULL(out));
    *out = NULL;
    TRY(NOT_NULL(context));
    TRY(NOT_NULL(desc));
    TRY(moe_desc_copy(&full, sizeof full, desc, "vkmoe_plan_desc"));
    TRY(moe_api_not_null(__func__, "desc->layer", full.layer));
    TRY(moe_layer_init(&layer, full.layer));
    TRY(check_plan(&full, &layer));
    TRY(check_operation(&full));
    TRY(moe_layer_check_operation(&layer.desc, full.operation));
    if (full.counters && !context->device->backend->counters)
        return moe_fail(VKMOE_E_UNSUPPORTED, "plan.counters: %s has no kernels that count",
                        context->device->info.name);
    TRY(moe_api_device_ok(context));

    TRY(moe_try_alloc(&context->host, sizeof *plan, "plan object", &plan));
    plan->context = context;
    plan->counters = full.counters;
    moe_graph_operation(&graph, &layer, full.operation, full.scores);
    struct moe_program_params params = {
        .max_tokens = full.max_tokens,
        .precision = full.precision,
        .x_type = full.x_type,
        .variant = full.variant,
        .budget_ms = full.budget_ms > 0 ? full.budget_ms : DEFAULT_BUDGET_MS,
        .counters = full.counters,
    };
    moe_trace(&context->host, "vkmoe compile", true);
    status = context->device->backend->program_create(context->device, &graph, &params,
                                                      &plan->program);
    moe_trace(&context->host, "vkmoe compile", false);
    TRY(status);
    *out = plan;
    return VKMOE_OK;
fail:
    vkmoe_plan_destroy(plan);
    return status;
}

void vkmoe_plan_destroy(vkmoe_plan *plan)
{
    if (!plan)
        return;
    if (plan->program)
        plan->context->device->backend->program_destroy(plan->program);
    moe_free(&plan->context->host, plan);
}
