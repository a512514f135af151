// SPDX-License-Identifier: MIT
#include "api/api.h"

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
