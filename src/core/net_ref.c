// SPDX-License-Identifier: MIT
#include "core/net_ref.h"

#include "base/host.h"
#include "base/status.h"

#define MOE_REAL double
#define MOE_INT double
#define MOE_MATH(name) name
#include "core/net_ops.h"

enum vkmoe_status moe_ref_net_create(const vkmoe_host *host, const struct moe_net *net,
                                     struct moe_ref_net **out)
{
    enum vkmoe_status status;
    struct moe_ref_net *ref = NULL;
    TRY(moe_try_alloc(host, sizeof *ref, "the oracle's network", &ref));
    ref->host = host;
    ref->net = net;
    ref->arena = moe_alloc_array(host, net->arena_size, sizeof *ref->arena);
    if (!ref->arena) {
        status = moe_fail(VKMOE_E_MEMORY, "the oracle's network: %llu f64",
                          (unsigned long long) net->arena_size);
        goto fail;
    }
    *out = ref;
    return VKMOE_OK;
fail:
    moe_ref_net_destroy(ref);
    return status;
}

void moe_ref_net_destroy(struct moe_ref_net *ref)
{
    if (!ref)
        return;
    moe_free(ref->host, ref->arena);
    moe_free(ref->host, ref);
}

void moe_ref_net_run(struct moe_ref_net *ref, uint32_t programs, const struct moe_net_args *args)
{
    for (uint32_t p = 0; p < MOE_NET_N_PROGRAMS; p++) {
        const struct moe_net_ops *ops = &ref->net->programs[p];
        for (uint32_t i = 0; i < ops->n && (programs >> p & 1); i++) {
            struct moe_net_call call;
            moe_net_call_init(&call, ref->net, &ops->ops[i], args, ref->arena, sizeof *ref->arena);
            net_op_compute(&call, 0, moe_net_call_parts(&call));
        }
    }
}

double *moe_ref_net_values(struct moe_ref_net *ref, uint32_t tensor)
{
    return ref->arena + ref->net->tensors[tensor].offset;
}
