// SPDX-License-Identifier: MIT
// Which kernel computes a product of a network, and which variant a network gets.
#include "base/bits.h"
#include "vulkan/net.h"

// What rounds operands is for products that precision half allows it for.
static bool may_compute(const struct moe_vk_net_compiler *c, uint32_t weight)
{
    const struct moe_vk_variant *variant = c->variant;
    return variant && variant->nets && (!variant->rounds_x || c->net->tensors[weight].half);
}

void moe_vk_net_by_variant(const struct moe_vk_net_compiler *c, struct moe_vk_net_dispatch *d,
                           uint32_t weight)
{
    const struct moe_vk_variant *variant = c->variant;
    if (!may_compute(c, weight))
        return;
    if (d->spv == MOE_SPV_NET_MATMUL || d->spv == MOE_SPV_NET_MATMUL_BDA)
        d->spv = c->bda ? variant->gemm_bda : variant->gemm;
    else
        d->spv = c->bda ? variant->dw_bda : variant->dw;
    if (variant->shape > 0)
        moe_vk_matrix_spec(variant, &c->shape, c->subgroups, d->spec);
}

static bool wants_memory(enum vkmoe_status status)
{
    return status == VKMOE_E_MEMORY || status == VKMOE_E_DEVICE_MEMORY;
}

// As moe_vk_program_create.
enum vkmoe_status moe_vk_net_create(struct moe_device *device, const struct moe_net *net,
                                    struct moe_device_net **out)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk(device);
    const struct moe_program_params params = {
        .precision = net->precision, .x_type = VKMOE_F32, .variant = net->variant};
    *out = NULL;
    if (!vk->queue)
        return moe_fail(VKMOE_E_UNSUPPORTED, "this context only records: a network needs a queue");
    for (;;) {
        const struct moe_vk_variant *variant;
        bool own;
        TRY(moe_vk_choose(vk, NULL, &params, &variant));
        status = moe_vk_net_make(vk, net, variant, true, out, &own);
        if (!own || variant->id == MOE_VK_A0)
            return status;
        if (status == VKMOE_E_DEVICE) {
            moe_vk_condemn(vk, variant, MOE_VK_NO_PIPELINE);
        } else if (wants_memory(status) && !params.variant) {
            moe_log(vk->base.host, VKMOE_LOG_WARN, "a network does without variant '%s': %s",
                    variant->name, vkmoe_error_text());
            return moe_vk_net_make(vk, net, &moe_vk_variants[MOE_VK_A0], true, out, &own);
        } else {
            return status;
        }
    }

fail:
    return status;
}
