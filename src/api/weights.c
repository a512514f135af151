// SPDX-License-Identifier: MIT
#include "api/api.h"
#include "base/desc.h"

static enum vkmoe_status get_layout(const vkmoe_context *context, const struct moe_layer *layer,
                                    vkmoe_weights_layout *out)
{
    *out = (vkmoe_weights_layout){0};
    return context->device->backend->weights_layout(context->device, layer, out);
}

enum vkmoe_status vkmoe_weights_get_layout(const vkmoe_context *context,
                                           const vkmoe_layer_desc *layer, vkmoe_weights_layout *out)
{
    enum vkmoe_status status;
    struct moe_layer checked;
    TRY(NOT_NULL(context));
    TRY(NOT_NULL(layer));
    TRY(NOT_NULL(out));
    TRY(moe_layer_init(&checked, layer));
    return get_layout(context, &checked, out);
fail:
    return status;
}

enum vkmoe_status vkmoe_weights_pack_expert(const vkmoe_context *context,
                                            const vkmoe_layer_desc *layer, uint32_t expert,
                                            const vkmoe_expert_tensors *tensors, void *dst,
                                            size_t dst_size)
{
    enum vkmoe_status status;
    struct moe_layer checked;
    vkmoe_weights_layout layout;
    TRY(NOT_NULL(context));
    TRY(NOT_NULL(layer));
    TRY(NOT_NULL(tensors));
    TRY(NOT_NULL(dst));
    TRY(moe_layer_init(&checked, layer));
    if (expert == VKMOE_SHARED_EXPERT && !moe_layer_has_shared(&checked))
        return moe_fail(VKMOE_E_ARGUMENT, "the layer has no shared expert");
    if (expert != VKMOE_SHARED_EXPERT && expert >= checked.desc.n_experts)
        return moe_fail(VKMOE_E_ARGUMENT, "expert %u: there are %u", expert,
                        checked.desc.n_experts);
    TRY(moe_layer_check_expert(&checked, expert, tensors));

    TRY(get_layout(context, &checked, &layout));
    uint64_t size = expert == VKMOE_SHARED_EXPERT ? layout.shared_size : layout.expert_size;
    if (dst_size < size)
        return moe_fail(VKMOE_E_SHAPE, "dst_size = %zu: a packed expert takes %llu bytes", dst_size,
                        (unsigned long long) size);
    if ((uintptr_t) dst % 4 != 0)
        return moe_fail(VKMOE_E_ARGUMENT, "dst at %p is not aligned to 4 bytes", dst);
    return context->device->backend->pack_expert(context->device, &checked, expert, tensors, dst);
fail:
    return status;
}

static enum vkmoe_status check_packed(uint32_t expert, const void *packed)
{
    if (!packed || (uintptr_t) packed % 4 != 0)
        return moe_fail(VKMOE_E_ARGUMENT, "packed expert %u at %p: %s", expert, packed,
                        packed ? "not aligned to 4 bytes" : "is NULL");
    return VKMOE_OK;
}

static enum vkmoe_status check_experts(const struct moe_layer *layer,
                                       const vkmoe_weights_desc *desc)
{
    enum vkmoe_status status;
    if (!desc->experts == !desc->packed_experts)
        return moe_fail(VKMOE_E_ARGUMENT, "weights.experts and weights.packed_experts are %s",
                        desc->experts ? "both given: one of them" : "both NULL");
    for (uint32_t e = 0; e < layer->desc.n_experts; e++) {
        if (desc->experts)
            TRY(moe_layer_check_expert(layer, e, &desc->experts[e]));
        else
            TRY(check_packed(e, desc->packed_experts[e]));
    }
    return VKMOE_OK;
fail:
    return status;
}

static enum vkmoe_status check_shared(const struct moe_layer *layer,
                                      const vkmoe_weights_desc *desc)
{
    bool given = desc->shared || desc->packed_shared;
    if (!moe_layer_has_shared(layer)) {
        if (given)
            return moe_fail(VKMOE_E_ARGUMENT, "weights.shared is given, the layer has none");
        return VKMOE_OK;
    }
    if (!desc->shared == !desc->packed_shared)
        return moe_fail(VKMOE_E_ARGUMENT, "weights.shared and weights.packed_shared are %s",
                        given ? "both given: one of them" : "both NULL, the layer has one");
    return desc->shared ? moe_layer_check_expert(layer, VKMOE_SHARED_EXPERT, desc->shared)
                        : check_packed(VKMOE_SHARED_EXPERT, desc->packed_shared);
}

// The caller's buffer for the weights, if one is given.
static enum vkmoe_status check_buffer(const vkmoe_context *context, const struct moe_layer *layer,
                                      const vkmoe_vk_buffer *buffer)
{
    enum vkmoe_status status;
    vkmoe_weights_layout layout;
    if (!buffer)
        return VKMOE_OK;
    if (!context->device->backend->vk_record)
        return moe_fail(VKMOE_E_UNSUPPORTED, "weights.vk_buffer on %s: needs a Vulkan device",
                        context->device->info.name);
    TRY(moe_api_vk_buffer("weights.vk_buffer", buffer));
    TRY(get_layout(context, layer, &layout));
    if (buffer->size < layout.total_size)
        return moe_fail(VKMOE_E_SHAPE, "weights.vk_buffer.size = %llu: they take %llu bytes",
                        (unsigned long long) buffer->size,
                        (unsigned long long) layout.total_size);
fail:
    return status;
}

enum vkmoe_status vkmoe_weights_create(vkmoe_context *context, const vkmoe_weights_desc *desc,
                                       vkmoe_weights **out)
{
    enum vkmoe_status status;
    vkmoe_weights_desc full = vkmoe_weights_desc_init();
    vkmoe_weights *weights = NULL;
    struct moe_layer layer;
    TRY(NOT_NULL(out));
    *out = NULL;
    TRY(NOT_NULL(context));
    TRY(NOT_NULL(desc));
    TRY(moe_desc_copy(&full, sizeof full, desc, "vkmoe_weights_desc"));
    TRY(moe_api_not_null(__func__, "desc->layer", full.layer));
    TRY(moe_api_not_null(__func__, "desc->router", full.router));
    TRY(moe_layer_init(&layer, full.layer));
    TRY(moe_layer_check_router(&layer, full.router));
    TRY(check_experts(&layer, &full));
    TRY(check_shared(&layer, &full));
    TRY(check_buffer(context, &layer, full.vk_buffer));
    TRY(moe_api_device_ok(context));

    TRY(moe_try_alloc(&context->host, sizeof *weights, "weights object", &weights));
    weights->context = context;
    struct moe_weights_source source = {full.router, full.experts, full.packed_experts, full.shared,
                                        full.packed_shared, full.vk_buffer};
    moe_trace(&context->host, "vkmoe upload", true);
    status = context->device->backend->weights_create(context->device, &layer, &source,
                                                      &weights->packed);
    moe_trace(&context->host, "vkmoe upload", false);
    TRY(status);
    *out = weights;
    return VKMOE_OK;
fail:
    vkmoe_weights_destroy(weights);
    return status;
}

void vkmoe_weights_destroy(vkmoe_weights *weights)
{
    if (!weights)
        return;
    if (weights->packed)
        weights->context->device->backend->weights_destroy(weights->packed);
    moe_free(&weights->context->host, weights);
}
