// SPDX-License-Identifier: MIT
#include "api/api.h"
#include "api/devices.h"
#include "api/env.h"
#include "base/desc.h"

static enum vkmoe_status check_desc(const vkmoe_context_desc *desc)
{
    if ((uint32_t) desc->addressing > VKMOE_ADDRESSING_BDA)
        return moe_fail(VKMOE_E_ARGUMENT, "context.addressing = %u: must be below 3",
                        (uint32_t) desc->addressing);
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_context_create(const vkmoe_context_desc *desc, vkmoe_context **out)
{
    enum vkmoe_status status;
    vkmoe_context_desc full = vkmoe_context_desc_init();
    vkmoe_host host;
    struct moe_env env;
    vkmoe_context *context = NULL;
    const struct moe_backend *backend;
    uint32_t i;
    TRY(NOT_NULL(out));
    *out = NULL;
    if (desc)
        TRY(moe_desc_copy(&full, sizeof full, desc, "vkmoe_context_desc"));
    TRY(check_desc(&full));
    TRY(moe_host_init(&host, full.host));
    moe_env_read(&env);
    full.device = full.device ? full.device : env.device;
    full.cpu_isa = full.cpu_isa ? full.cpu_isa : env.cpu_isa;
    full.cache_dir = full.cache_dir ? full.cache_dir : env.cache_dir;
    full.disable = full.disable ? full.disable : env.disable;

    TRY(moe_try_alloc(&host, sizeof *context, "context", &context));
    context->host = host;
    full.host = &context->host;
    TRY(moe_device_choose(&context->host, full.device, &backend, &i));
    TRY(backend->open(&context->host, &full, i, &context->device));
    *out = context;
    return VKMOE_OK;
fail:
    vkmoe_context_destroy(context);
    return status;
}

void vkmoe_context_destroy(vkmoe_context *context)
{
    if (!context)
        return;
    if (context->device)
        context->device->backend->close(context->device);
    vkmoe_host host = context->host; // lives in the memory it is about to free
    moe_free(&host, context);
}

enum vkmoe_status moe_api_not_null(const char *function, const char *name, const void *argument)
{
    if (!argument)
        return moe_fail(VKMOE_E_ARGUMENT, "%s: %s is NULL", function, name);
    return VKMOE_OK;
}

enum vkmoe_status moe_api_device_ok(const vkmoe_context *context)
{
    const struct moe_backend *backend = context->device->backend;
    if (backend->device_status && backend->device_status(context->device) != VKMOE_OK)
        return moe_fail(VKMOE_E_DEVICE_LOST, "%s was lost; make a new context",
                        context->device->info.name);
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_context_status(const vkmoe_context *context)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(context));
    TRY(moe_api_device_ok(context));
    return VKMOE_OK;
fail:
    return status;
}

enum vkmoe_status vkmoe_context_info(const vkmoe_context *context, vkmoe_device_info *out)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(context));
    TRY(NOT_NULL(out));
    *out = context->device->info;
    return VKMOE_OK;
fail:
    return status;
}

uint32_t vkmoe_context_validation_count(const vkmoe_context *context)
{
    if (!context || !context->device->backend->validation_count)
        return 0;
    return context->device->backend->validation_count(context->device);
}
