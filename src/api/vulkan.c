// SPDX-License-Identifier: MIT
#include "api/api.h"
#include "api/env.h"
#include "base/desc.h"

static enum vkmoe_status fail_not_vulkan(const struct moe_device *device)
{
    return moe_fail(VKMOE_E_UNSUPPORTED, "%s is not a Vulkan device", device->info.name);
}

static enum vkmoe_status check_tokens(const vkmoe_bind *bind, uint32_t n_tokens)
{
    const struct moe_program *program = bind->plan->program;
    if (n_tokens > program->max_tokens)
        return moe_fail(VKMOE_E_SHAPE, "n_tokens = %u: the plan has max_tokens = %u", n_tokens,
                        program->max_tokens);
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_vk_get_handles(const vkmoe_context *context, vkmoe_vk_handles *out)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(context));
    TRY(NOT_NULL(out));
    if (!context->device->backend->vk_handles)
        return fail_not_vulkan(context->device);
    context->device->backend->vk_handles(context->device, out);
    return VKMOE_OK;
fail:
    return status;
}

enum vkmoe_status vkmoe_vk_dispatch_count(const vkmoe_bind *bind, uint32_t n_tokens, uint32_t *out)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(bind));
    TRY(NOT_NULL(out));
    const struct moe_device *device = bind->plan->context->device;
    if (!device->backend->vk_dispatch_count)
        return fail_not_vulkan(device);
    TRY(check_tokens(bind, n_tokens));
    *out = n_tokens > 0 ? device->backend->vk_dispatch_count(bind->bound, n_tokens) : 0;
    return VKMOE_OK;
fail:
    return status;
}

enum vkmoe_status vkmoe_vk_get_dispatch(const vkmoe_bind *bind, uint32_t n_tokens, uint32_t i,
                                        vkmoe_vk_dispatch *out)
{
    enum vkmoe_status status;
    uint32_t n_dispatches;
    TRY(NOT_NULL(bind));
    TRY(NOT_NULL(out));
    TRY(vkmoe_vk_dispatch_count(bind, n_tokens, &n_dispatches));
    if (i >= n_dispatches)
        return moe_fail(VKMOE_E_ARGUMENT, "dispatch %u: there are %u", i, n_dispatches);
    bind->plan->context->device->backend->vk_dispatch_info(bind->bound, n_tokens, i, out);
    return VKMOE_OK;
fail:
    return status;
}

enum vkmoe_status vkmoe_vk_get_workspace_size(const vkmoe_plan *plan, uint64_t *out)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(plan));
    TRY(NOT_NULL(out));
    const struct moe_device *device = plan->context->device;
    if (!device->backend->vk_workspace_size)
        return fail_not_vulkan(device);
    *out = device->backend->vk_workspace_size(plan->program);
    return VKMOE_OK;
fail:
    return status;
}

enum vkmoe_status vkmoe_vk_record(vkmoe_bind *bind, VkCommandBuffer cmd, uint32_t n_tokens,
                                  uint32_t first, uint32_t n)
{
    enum vkmoe_status status;
    uint32_t n_dispatches;
    TRY(NOT_NULL(bind));
    TRY(NOT_NULL(cmd));
    TRY(vkmoe_vk_dispatch_count(bind, n_tokens, &n_dispatches));
    if (first > n_dispatches)
        return moe_fail(VKMOE_E_ARGUMENT, "first = %u: there are %u dispatches", first,
                        n_dispatches);
    if (n == UINT32_MAX)
        n = n_dispatches - first;
    if (n > n_dispatches - first)
        return moe_fail(VKMOE_E_ARGUMENT, "n = %u from %u: there are %u dispatches", n, first,
                        n_dispatches);
    if (n == 0)
        return VKMOE_OK;
    const struct moe_device *device = bind->plan->context->device;
    return device->backend->vk_record(bind->bound, cmd, n_tokens, first, n);
fail:
    return status;
}

// ---- the caller's device -----------------------------------------------------------------------

static const struct moe_backend *vulkan_backend(void)
{
    for (uint32_t i = 0; moe_backends[i]; i++)
        if (moe_backends[i]->vk_import)
            return moe_backends[i];
    return NULL;
}

static enum vkmoe_status fail_no_backend(void)
{
    return moe_fail(VKMOE_E_UNSUPPORTED, "this build of vkmoe has no Vulkan back end");
}

enum vkmoe_status vkmoe_vk_get_requirements(void *get_instance_proc_addr, VkInstance instance,
                                            VkPhysicalDevice physical_device,
                                            vkmoe_vk_requirements *out)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(get_instance_proc_addr));
    TRY(NOT_NULL(instance));
    TRY(NOT_NULL(physical_device));
    TRY(NOT_NULL(out));
    const struct moe_backend *backend = vulkan_backend();
    if (!backend)
        return fail_no_backend();
    return backend->vk_requirements(get_instance_proc_addr, instance, physical_device, out);
fail:
    return status;
}

static enum vkmoe_status check_import(const vkmoe_vk_import_desc *desc)
{
    enum { API_1_1 = 1u << 22 | 1u << 12 }; // VK_API_VERSION_1_1
    enum vkmoe_status status;
    TRY(NOT_NULL(desc->get_instance_proc_addr));
    TRY(NOT_NULL(desc->instance));
    TRY(NOT_NULL(desc->physical_device));
    TRY(NOT_NULL(desc->device));
    if (desc->n_extensions > 0)
        TRY(NOT_NULL(desc->extensions));
    if (desc->api_version < API_1_1)
        return moe_fail(VKMOE_E_UNSUPPORTED, "import.api_version = %u.%u: 1.1 is needed",
                        desc->api_version >> 22, desc->api_version >> 12 & 1023);
    if (!desc->lock_queue != !desc->unlock_queue)
        return moe_fail(VKMOE_E_ARGUMENT, "import.%s is NULL: give both locks or none",
                        desc->lock_queue ? "unlock_queue" : "lock_queue");
    if ((uint32_t) desc->addressing > VKMOE_ADDRESSING_BDA)
        return moe_fail(VKMOE_E_ARGUMENT, "import.addressing = %u: must be below 3",
                        (uint32_t) desc->addressing);
    return VKMOE_OK;
fail:
    return status;
}

enum vkmoe_status vkmoe_context_import_vk(const vkmoe_vk_import_desc *desc, vkmoe_context **out)
{
    enum vkmoe_status status;
    vkmoe_vk_import_desc full = vkmoe_vk_import_desc_init();
    vkmoe_context *context = NULL;
    vkmoe_host host;
    struct moe_env env;
    TRY(NOT_NULL(out));
    *out = NULL;
    TRY(NOT_NULL(desc));
    TRY(moe_desc_copy(&full, sizeof full, desc, "vkmoe_vk_import_desc"));
    TRY(check_import(&full));
    TRY(moe_host_init(&host, full.host));
    moe_env_read(&env);
    full.disable = full.disable ? full.disable : env.disable;
    const struct moe_backend *backend = vulkan_backend();
    if (!backend)
        return fail_no_backend();
    TRY(moe_try_alloc(&host, sizeof *context, "context", &context));
    context->host = host;
    TRY(backend->vk_import(&context->host, &full, &context->device));
    *out = context;
    return VKMOE_OK;
fail:
    vkmoe_context_destroy(context);
    return status;
}

enum vkmoe_status vkmoe_vk_weights_record_upload(vkmoe_weights *weights, VkCommandBuffer cmd)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(weights));
    TRY(NOT_NULL(cmd));
    const struct moe_device *device = weights->context->device;
    if (!device->backend->vk_record_upload)
        return fail_not_vulkan(device);
    return device->backend->vk_record_upload(weights->packed, cmd);
fail:
    return status;
}

void vkmoe_vk_weights_release_staging(vkmoe_weights *weights)
{
    if (weights && weights->context->device->backend->vk_release_staging)
        weights->context->device->backend->vk_release_staging(weights->packed);
}
