// SPDX-License-Identifier: MIT
#include "backend/reference_net.h"

#include "base/host.h"
#include "base/status.h"
#include "core/net_ref.h"

#include <string.h>

struct reference_net {
    struct moe_device_net base;
    struct moe_ref_net *ref;
};

void moe_reference_net_destroy(struct moe_device_net *base)
{
    struct reference_net *net = (struct reference_net *) base;
    if (!net)
        return;
    moe_ref_net_destroy(net->ref);
    moe_free(base->device->host, net);
}

enum vkmoe_status moe_reference_net_create(struct moe_device *device, const struct moe_net *net,
                                           struct moe_device_net **out)
{
    enum vkmoe_status status;
    struct reference_net *made = NULL;
    TRY(moe_try_alloc(device->host, sizeof *made, "the oracle's network", &made));
    made->base = (struct moe_device_net){device, net};
    TRY(moe_ref_net_create(device->host, net, &made->ref));
    *out = &made->base;
    return VKMOE_OK;
fail:
    moe_reference_net_destroy(made ? &made->base : NULL);
    return status;
}

enum vkmoe_status moe_reference_net_write(struct moe_device_net *net, uint32_t tensor, uint64_t n,
                                          const void *data)
{
    double *to = moe_ref_net_values(((struct reference_net *) net)->ref, tensor);
    bool is_int = net->net->tensors[tensor].type == MOE_NET_I32;
    if (moe_net_type_is_half(net->net->tensors[tensor].type)) {
        memcpy(to, data, (size_t) n * sizeof(uint16_t));
        return VKMOE_OK;
    }
    for (uint64_t i = 0; i < n; i++)
        to[i] = is_int ? (double) ((const int32_t *) data)[i] : (double) ((const float *) data)[i];
    return VKMOE_OK;
}

enum vkmoe_status moe_reference_net_read(struct moe_device_net *net, uint32_t tensor, uint64_t n,
                                         void *data)
{
    const double *from = moe_ref_net_values(((struct reference_net *) net)->ref, tensor);
    bool is_int = net->net->tensors[tensor].type == MOE_NET_I32;
    if (moe_net_type_is_half(net->net->tensors[tensor].type)) {
        memcpy(data, from, (size_t) n * sizeof(uint16_t));
        return VKMOE_OK;
    }
    for (uint64_t i = 0; i < n; i++) {
        if (is_int)
            ((int32_t *) data)[i] = (int32_t) from[i];
        else
            ((float *) data)[i] = (float) from[i];
    }
    return VKMOE_OK;
}

enum vkmoe_status moe_reference_net_run(struct moe_device_net *net, uint32_t programs,
                                        const struct moe_net_args *args)
{
    moe_ref_net_run(((struct reference_net *) net)->ref, programs, args);
    return VKMOE_OK;
}
