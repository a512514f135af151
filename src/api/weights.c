// SPDX-License-Identifier: MIT
#include "api/api.h"
#include "base/bits.h"
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

static enum vkmoe_status check_index(const struct moe_layer *layer, uint32_t expert)
{
    const uint32_t n_adjugates = moe_layer_n_adjugates(&layer->desc);
    if (expert == VKMOE_SHARED_EXPERT) {
        if (!moe_layer_has_shared(layer))
            return moe_fail(VKMOE_E_ARGUMENT, "the layer has no shared expert");
    } else if (moe_expert_is_adjugate(expert)) {
        if (expert - VKMOE_ADJUGATE_EXPERT >= n_adjugates)
            return moe_fail(VKMOE_E_ARGUMENT, "adjugate expert %u: there are %u",
                            expert - VKMOE_ADJUGATE_EXPERT, n_adjugates);
    } else if (expert >= moe_layer_n_packed(&layer->desc)) {
        return moe_fail(VKMOE_E_ARGUMENT, "expert %u: there are %u", expert,
                        moe_layer_n_packed(&layer->desc));
    }
    return VKMOE_OK;
}

static uint64_t packed_size(const vkmoe_weights_layout *layout, uint32_t expert)
{
    if (expert == VKMOE_SHARED_EXPERT)
        return layout->shared_size;
    return moe_expert_is_adjugate(expert) ? layout->adjugate_size : layout->expert_size;
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
    TRY(check_index(&checked, expert));
    TRY(moe_layer_check_expert(&checked, expert, tensors));

    TRY(get_layout(context, &checked, &layout));
    uint64_t size = packed_size(&layout, expert);
    if (dst_size < size)
        return moe_fail(VKMOE_E_SHAPE, "dst_size = %zu: a packed expert takes %llu bytes", dst_size,
                        (unsigned long long) size);
    if ((uintptr_t) dst % 4 != 0)
        return moe_fail(VKMOE_E_ARGUMENT, "dst at %p is not aligned to 4 bytes", dst);
    return context->device->backend->pack_expert(context->device, &checked, expert, tensors, dst);
fail:
    return status;
}

static enum vkmoe_status check_packed(const char *name, uint32_t i, const void *packed)
{
    if (!packed || (uintptr_t) packed % 4 != 0)
        return moe_fail(VKMOE_E_ARGUMENT, "weights.%s: packed expert %u at %p: %s", name, i,
                        packed, packed ? "not aligned to 4 bytes" : "is NULL");
    return VKMOE_OK;
}

// A kind of experts: their names in the desc, where they are given, how many there are.
struct bank {
    const char *name, *packed_name;
    const vkmoe_expert_tensors *tensors;
    const void *const *packed;
    uint32_t n, first; // `first` is the index of the first one
};

static enum vkmoe_status check_bank(const struct moe_layer *layer, const vkmoe_weights_desc *desc,
                                    const struct bank *bank)
{
    enum vkmoe_status status = VKMOE_OK;
    bool given = bank->tensors || bank->packed;
    if (given && (bank->n == 0 || desc->load_expert))
        return moe_fail(VKMOE_E_ARGUMENT, "weights.%s is given, %s",
                        bank->tensors ? bank->name : bank->packed_name,
                        bank->n == 0 ? "the layer has none" : "and weights.load_expert too");
    if (bank->n == 0 || desc->load_expert)
        return VKMOE_OK;
    if (!bank->tensors == !bank->packed)
        return moe_fail(VKMOE_E_ARGUMENT, "weights.%s and weights.%s are %s", bank->name,
                        bank->packed_name,
                        given ? "both given: one of them" : "both NULL, the layer has them");
    for (uint32_t i = 0; i < bank->n; i++) {
        if (bank->tensors)
            TRY(moe_layer_check_expert(layer, bank->first + i, &bank->tensors[i]));
        else
            TRY(check_packed(bank->packed_name, i, bank->packed[i]));
    }
fail:
    return status;
}

static enum vkmoe_status check_experts(const struct moe_layer *layer,
                                       const vkmoe_weights_desc *desc)
{
    const struct bank banks[] = {
        {"experts", "packed_experts", desc->experts, desc->packed_experts,
         moe_layer_n_packed(&layer->desc), 0},
        {"adjugates", "packed_adjugates", desc->adjugates, desc->packed_adjugates,
         moe_layer_n_adjugates(&layer->desc), VKMOE_ADJUGATE_EXPERT},
        {"shared", "packed_shared", desc->shared,
         desc->packed_shared ? &desc->packed_shared : NULL, moe_layer_has_shared(layer) ? 1 : 0,
         VKMOE_SHARED_EXPERT},
    };
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t i = 0; i < MOE_COUNT(banks); i++)
        TRY(check_bank(layer, desc, &banks[i]));
fail:
    return status;
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
    TRY(moe_layer_check_around(&layer, full.latent, full.out_bias));
    TRY(check_buffer(context, &layer, full.vk_buffer));
    TRY(moe_api_device_ok(context));

    TRY(moe_try_alloc(&context->host, sizeof *weights, "weights object", &weights));
    weights->context = context;
    const struct moe_weights_source source = {
        .router = full.router,
        .experts = full.experts,
        .shared = full.shared,
        .adjugates = full.adjugates,
        .packed_experts = full.packed_experts,
        .packed_adjugates = full.packed_adjugates,
        .packed_shared = full.packed_shared,
        .latent = full.latent,
        .out_bias = full.out_bias,
        .load_expert = full.load_expert,
        .load_user = full.load_user,
        .vk_buffer = full.vk_buffer,
    };
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
