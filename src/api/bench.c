// SPDX-License-Identifier: MIT
// Measuring: limits of a device, kernels of a plan and what they counted, tuning.
#include "api/api.h"
#include "base/bits.h"
#include "base/desc.h"

struct vkmoe_probe {
    vkmoe_context *context;
    struct moe_device_probe *on_device;
};

static const char *const arithmetic_names[] = {
#define ARITHMETIC_NAME(name, value, spelling) [value] = spelling,
    VKMOE_ARITHMETIC_LIST(ARITHMETIC_NAME)
#undef ARITHMETIC_NAME
};
_Static_assert(MOE_COUNT(arithmetic_names) == VKMOE_N_ARITHMETICS, "the list and its length");

const char *vkmoe_arithmetic_name(enum vkmoe_arithmetic arithmetic)
{
    bool known = (uint32_t) arithmetic < MOE_COUNT(arithmetic_names);
    return known ? arithmetic_names[arithmetic] : "unknown";
}

// ---- limits ------------------------------------------------------------------------------------

enum { READ_UNIT = 1 << 20, READ_DEFAULT = 256 << 20 };

// What a back end gets: whole units, at least one.
static enum vkmoe_status read_size(const struct moe_device *device, uint64_t wanted, uint64_t *out)
{
    uint64_t most = device->info.memory_bytes;
    if (wanted == 0)
        wanted = most > 0 ? moe_max(moe_min(READ_DEFAULT, most / 8), READ_UNIT) : READ_DEFAULT;
    if (wanted < READ_UNIT)
        return moe_fail(VKMOE_E_ARGUMENT, "probe.read_size = %llu: must be at least %d",
                        (unsigned long long) wanted, READ_UNIT);
    if (most > 0 && wanted > most)
        return moe_fail(VKMOE_E_DEVICE_MEMORY, "probe.read_size = %llu: %s has %llu bytes",
                        (unsigned long long) wanted, device->info.name,
                        (unsigned long long) most);
    *out = wanted / READ_UNIT * READ_UNIT;
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_probe_create(vkmoe_context *context, const vkmoe_probe_desc *desc,
                                     vkmoe_probe **out)
{
    enum vkmoe_status status;
    vkmoe_probe_desc full = vkmoe_probe_desc_init();
    vkmoe_probe *probe = NULL;
    uint64_t size = 0;
    TRY(NOT_NULL(out));
    *out = NULL;
    TRY(NOT_NULL(context));
    if (desc)
        TRY(moe_desc_copy(&full, sizeof full, desc, "vkmoe_probe_desc"));
    struct moe_device *device = context->device;
    if (!device->backend->probe_create)
        return moe_fail(VKMOE_E_UNSUPPORTED, "%s has no probes", device->info.name);
    TRY(read_size(device, full.read_size, &size));
    TRY(moe_api_device_ok(context));
    TRY(moe_try_alloc(&context->host, sizeof *probe, "probe object", &probe));
    probe->context = context;
    TRY(device->backend->probe_create(device, size, &probe->on_device));
    *out = probe;
    return VKMOE_OK;
fail:
    vkmoe_probe_destroy(probe);
    return status;
}

void vkmoe_probe_destroy(vkmoe_probe *probe)
{
    if (!probe)
        return;
    vkmoe_context *context = probe->context;
    if (probe->on_device)
        context->device->backend->probe_destroy(probe->on_device);
    moe_free(&context->host, probe);
}

enum vkmoe_status vkmoe_probe_run(vkmoe_probe *probe, uint32_t what, vkmoe_limits *out)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(probe));
    TRY(NOT_NULL(out));
    *out = (vkmoe_limits){0};
    if (what == 0 || (what & ~(uint32_t) VKMOE_PROBE_ALL))
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_probe_run: what = 0x%x: must be bits of 0x%x",
                        what, VKMOE_PROBE_ALL);
    TRY(moe_api_device_ok(probe->context));
    const vkmoe_host *host = &probe->context->host;
    moe_trace(host, "vkmoe probe", true);
    status = probe->context->device->backend->probe_run(probe->on_device, what, out);
    moe_trace(host, "vkmoe probe", false);
fail:
    return status;
}

uint64_t vkmoe_context_cache_size(const vkmoe_context *context)
{
    if (!context || !context->device->backend->cache_size)
        return 0;
    return context->device->backend->cache_size(context->device);
}

uint32_t vkmoe_context_thread_count(const vkmoe_context *context)
{
    if (!context || !context->device->backend->thread_count)
        return 0;
    return context->device->backend->thread_count(context->device);
}

// ---- plans -------------------------------------------------------------------------------------

enum vkmoe_status vkmoe_plan_get_kernels(const vkmoe_plan *plan, vkmoe_plan_kernels *out)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(plan));
    TRY(NOT_NULL(out));
    plan->context->device->backend->program_kernels(plan->program, out);
fail:
    return status;
}

enum vkmoe_status vkmoe_bind_get_counters(const vkmoe_bind *bind, vkmoe_counters *out)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(bind));
    TRY(NOT_NULL(out));
    *out = (vkmoe_counters){0};
    if (!bind->plan->counters)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_bind_get_counters: the plan was made without "
                        "counters");
    if (!bind->counted)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_bind_get_counters: the bind's last run was no "
                        "vkmoe_run that came through");
    *out = bind->counters;
fail:
    return status;
}

// ---- choosing kernels --------------------------------------------------------------------------

enum vkmoe_status vkmoe_tune(vkmoe_context *context, const vkmoe_tune_desc *desc,
                             vkmoe_tune_verdict *out, uint32_t *n)
{
    enum vkmoe_status status;
    vkmoe_tune_desc full = vkmoe_tune_desc_init();
    TRY(NOT_NULL(context));
    TRY(NOT_NULL(n));
    if (desc)
        TRY(moe_desc_copy(&full, sizeof full, desc, "vkmoe_tune_desc"));
    struct moe_device *device = context->device;
    if (!device->backend->tune)
        return moe_fail(VKMOE_E_UNSUPPORTED, "%s has no kernels to choose from",
                        device->info.name);
    TRY(moe_api_device_ok(context));
    moe_trace(&context->host, "vkmoe tune", true);
    status = device->backend->tune(device, full.fresh, out, n);
    moe_trace(&context->host, "vkmoe tune", false);
fail:
    return status;
}

enum vkmoe_status vkmoe_context_kernels(vkmoe_context *context, vkmoe_kernel_info *out, uint32_t *n)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(context));
    TRY(NOT_NULL(n));
    struct moe_device *device = context->device;
    if (!device->backend->kernels)
        return moe_fail(VKMOE_E_UNSUPPORTED, "%s has no kernels to choose from",
                        device->info.name);
    status = device->backend->kernels(device, out, n);
fail:
    return status;
}
