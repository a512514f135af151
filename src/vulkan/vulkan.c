// SPDX-License-Identifier: MIT
// The Vulkan back end's table, and enumeration.
#include "vulkan/bind.h"
#include "vulkan/measure.h"
#include "vulkan/net.h"

// Finding no loader, no driver or no device is not a failure: there is just nothing to list.
static enum vkmoe_status enumerate(const vkmoe_host *host, vkmoe_device_info *out, uint32_t *n)
{
    uint32_t room = *n;
    *n = 0;
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    struct moe_vk_instance *instance = NULL;
    enum vkmoe_status status = moe_vk_instance_create(host, &desc, &instance);
    if (status == VKMOE_E_NO_DEVICE)
        return VKMOE_OK;
    if (status != VKMOE_OK)
        return status;
    VkPhysicalDevice physical = VK_NULL_HANDLE;
    TRY(moe_vk_physical_device(instance, 0, NULL, n));
    for (uint32_t i = 0; out && i < *n && i < room; i++) {
        uint32_t all;
        struct moe_vk_caps caps;
        TRY(moe_vk_physical_device(instance, i, &physical, &all));
        TRY(moe_vk_caps_query(instance, physical, &caps));
        moe_vk_describe(&instance->fn, physical, &caps, &out[i]);
    }

fail:
    moe_vk_instance_destroy(instance);
    return status;
}

static enum vkmoe_status device_status(const struct moe_device *device)
{
    return atomic_load(&moe_vk(device)->lost) ? VKMOE_E_DEVICE_LOST : VKMOE_OK;
}

static uint32_t validation_count(const struct moe_device *device)
{
    return atomic_load(&moe_vk(device)->instance->n_messages);
}

static void vk_handles(const struct moe_device *device, vkmoe_vk_handles *out)
{
    const struct moe_vk *vk = moe_vk(device);
    *out = (vkmoe_vk_handles){
        .get_instance_proc_addr = (void *) vk->fn.vkGetInstanceProcAddr,
        .instance = vk->instance->handle,
        .physical_device = vk->physical,
        .device = vk->device,
        .queue = vk->queue,
        .queue_family = vk->queue_family,
        .buffer_device_address = vk->bda,
    };
}

const struct moe_backend moe_backend_vulkan = {
    .name = "vulkan",
    .enumerate = enumerate,
    .open = moe_vk_open,
    .close = moe_vk_close,
    .device_status = device_status,
    .validation_count = validation_count,
    .weights_layout = moe_vk_weights_layout,
    .pack_expert = moe_vk_pack_expert,
    .weights_create = moe_vk_weights_create,
    .weights_destroy = moe_vk_weights_destroy,
    .read_router = moe_vk_read_router,
    .read_expert = moe_vk_read_expert,
    .program_create = moe_vk_program_create,
    .program_destroy = moe_vk_program_destroy,
    .bind_create = moe_vk_bind_create,
    .bind_destroy = moe_vk_bind_destroy,
    .run = moe_vk_run,
    .counters = moe_vk_counters,
    .tune = moe_vk_tune,
    .kernels = moe_vk_kernels,
    .net_create = moe_vk_net_create,
    .net_destroy = moe_vk_net_destroy,
    .net_write = moe_vk_net_upload,
    .net_read = moe_vk_net_download,
    .net_run = moe_vk_net_run,
    .program_kernels = moe_vk_program_kernels,
    .probe_create = moe_vk_probe_create,
    .probe_destroy = moe_vk_probe_destroy,
    .probe_run = moe_vk_probe_run,
    .time_runs = moe_vk_time_runs,
    .time_dispatches = moe_vk_time_dispatches,
    .net_time = moe_vk_net_time,
    .vk_requirements = moe_vk_requirements,
    .vk_import = moe_vk_import,
    .vk_record_upload = moe_vk_record_upload,
    .vk_release_staging = moe_vk_release_staging,
    .vk_handles = vk_handles,
    .vk_workspace_size = moe_vk_workspace_size,
    .vk_dispatch_count = moe_vk_dispatch_count,
    .vk_dispatch_info = moe_vk_dispatch_info,
    .vk_record = moe_vk_record,
};
