// SPDX-License-Identifier: MIT
// A device whose networks derive wrongly, for the test of `vkmoe verify`: loaded before the
// library, it makes gradients too large by a thousandth, but not those of the reference.
#include <vkmoe/train.h>

#include <dlfcn.h>
#include <stdlib.h>

static const vkmoe_net *reference; // the last one made

static void *next(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        abort();
    return found;
}

static bool is_reference(const vkmoe_context *context)
{
    vkmoe_device_info info;
    return vkmoe_context_info(context, &info) == VKMOE_OK && info.type == VKMOE_DEVICE_REFERENCE;
}

enum vkmoe_status vkmoe_net_create(vkmoe_context *context, const vkmoe_net_desc *desc,
                                   vkmoe_net **out)
{
    enum vkmoe_status (*create)(vkmoe_context *, const vkmoe_net_desc *, vkmoe_net **);
    *(void **) &create = next("vkmoe_net_create");
    enum vkmoe_status status = create(context, desc, out);
    if (status == VKMOE_OK && is_reference(context))
        reference = *out;
    return status;
}

enum vkmoe_status vkmoe_net_read(vkmoe_net *net, enum vkmoe_net_what what, const char *name,
                                 float *data, uint64_t n)
{
    enum vkmoe_status (*read)(vkmoe_net *, enum vkmoe_net_what, const char *, float *, uint64_t);
    *(void **) &read = next("vkmoe_net_read");
    enum vkmoe_status status = read(net, what, name, data, n);
    if (status == VKMOE_OK && what == VKMOE_NET_GRADIENT && net != reference)
        for (uint64_t i = 0; i < n; i++)
            data[i] *= 1.001f;
    return status;
}
