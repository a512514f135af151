// SPDX-License-Identifier: MIT
// Parameters of a network, their gradients and moments, and its state.
#include "api/net.h"

#include "core/dtype.h"

#include <math.h>

static const struct moe_net_tensor *tensor(const vkmoe_net *net, uint32_t i)
{
    return &net->train->net->tensors[i];
}

static uint64_t n_elements(const vkmoe_net *net, uint32_t i)
{
    return moe_net_rows(tensor(net, i), net->n_tokens, net->n_examples) * tensor(net, i)->width;
}

uint32_t vkmoe_net_param_count(const vkmoe_net *net)
{
    return net ? net->train->n_params : 0;
}

enum vkmoe_status vkmoe_net_get_param(const vkmoe_net *net, uint32_t i, vkmoe_net_param *out)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(net));
    TRY(NOT_NULL(out));
    if (i >= net->train->n_params)
        return moe_fail(VKMOE_E_ARGUMENT, "parameter %u: the net has %u", i, net->train->n_params);
    const struct moe_train_param *param = &net->train->params[i];
    const struct moe_net_tensor *value = tensor(net, param->value);
    *out = (vkmoe_net_param){value->name, value->n, value->width, param->grad != MOE_NET_NONE,
                             param->moment1 != MOE_NET_NONE, param->moment2 != MOE_NET_NONE};
fail:
    return status;
}

static const struct moe_train_param *find(const vkmoe_net *net, const char *name)
{
    for (uint32_t i = 0; i < net->train->n_params; i++)
        if (strcmp(tensor(net, net->train->params[i].value)->name, name) == 0)
            return &net->train->params[i];
    return NULL;
}

static uint32_t tensor_of(const struct moe_train_param *param, enum vkmoe_net_what what)
{
    switch (what) {
    case VKMOE_NET_VALUE:
        return param->value;
    case VKMOE_NET_GRADIENT:
        return param->grad;
    case VKMOE_NET_MOMENT1:
        return param->moment1;
    case VKMOE_NET_MOMENT2:
        return param->moment2;
    }
    return MOE_NET_NONE;
}

// The tensor that a caller asks for, with n elements.
static enum vkmoe_status look_up(const vkmoe_net *net, enum vkmoe_net_what what, const char *name,
                                 uint64_t n, uint32_t *out)
{
    static const char *const names[] = {"value", "gradient", "first moment", "second moment"};
    if ((uint32_t) what > VKMOE_NET_MOMENT2)
        return moe_fail(VKMOE_E_ARGUMENT, "what = %u: must be below %d", (uint32_t) what,
                        VKMOE_NET_MOMENT2 + 1);
    const struct moe_train_param *param = find(net, name);
    if (!param)
        return moe_fail(VKMOE_E_ARGUMENT, "no parameter '%.64s'", name);
    *out = tensor_of(param, what);
    if (*out == MOE_NET_NONE)
        return moe_fail(VKMOE_E_ARGUMENT, "%s has no %s", name, names[what]);
    if (n_elements(net, *out) != n)
        return moe_fail(VKMOE_E_SHAPE, "%s: n = %llu, it is (%u, %u)", name,
                        (unsigned long long) n, tensor(net, *out)->n, tensor(net, *out)->width);
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_net_read(vkmoe_net *net, enum vkmoe_net_what what, const char *name,
                                 float *data, uint64_t n)
{
    enum vkmoe_status status;
    uint32_t i;
    TRY(NOT_NULL(net));
    TRY(NOT_NULL(name));
    TRY(NOT_NULL(data));
    TRY(look_up(net, what, name, n, &i));
    TRY(moe_api_device_ok(net->context));
    TRY(net->context->device->backend->net_read(net->on_device, i, n, data));
fail:
    return status;
}

enum vkmoe_status vkmoe_net_write(vkmoe_net *net, enum vkmoe_net_what what, const char *name,
                                  const float *data, uint64_t n)
{
    enum vkmoe_status status;
    uint32_t i;
    TRY(NOT_NULL(net));
    TRY(NOT_NULL(name));
    TRY(NOT_NULL(data));
    TRY(look_up(net, what, name, n, &i));
    TRY(moe_api_device_ok(net->context));
    net->rounded = false;
    TRY(net->context->device->backend->net_write(net->on_device, i, n, data));
fail:
    return status;
}

// ---- state -----------------------------------------------------------------------------------

enum vkmoe_status vkmoe_net_get_state(const vkmoe_net *net, vkmoe_net_state *out)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(net));
    TRY(NOT_NULL(out));
    *out = net->state;
fail:
    return status;
}

enum vkmoe_status vkmoe_net_set_state(vkmoe_net *net, const vkmoe_net_state *state)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(net));
    TRY(NOT_NULL(state));
    net->state = *state;
    net->n_backward = 0;
    net->ran = MOE_API_RAN_NOTHING;
fail:
    return status;
}

static enum vkmoe_status write_zeros(vkmoe_net *net, uint32_t i, const float *zeros)
{
    if (i == MOE_NET_NONE)
        return VKMOE_OK;
    return net->context->device->backend->net_write(net->on_device, i, n_elements(net, i), zeros);
}

enum vkmoe_status moe_api_net_fill(vkmoe_net *net, uint64_t seed, bool all)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_train *train = net->train;
    const vkmoe_host *host = &net->context->host;
    float *data = NULL;
    for (uint32_t i = 0; i < train->n_params; i++) {
        const struct moe_train_param *param = &train->params[i];
        uint64_t n = n_elements(net, param->value);
        if (!all && (param->init != MOE_TRAIN_FILL || param->fill == 0))
            continue;
        data = moe_alloc_array(host, (size_t) n, sizeof *data);
        if (!data)
            return moe_fail(VKMOE_E_MEMORY, "first values of %s: %llu elements",
                            tensor(net, param->value)->name, (unsigned long long) n);
        TRY(write_zeros(net, param->moment1, data));
        TRY(write_zeros(net, param->moment2, data));
        moe_train_init_param(train, i, seed, data);
        net->rounded = false;
        TRY(net->context->device->backend->net_write(net->on_device, param->value, n, data));
        moe_free(host, data);
        data = NULL;
    }
fail:
    moe_free(host, data);
    return status;
}

enum vkmoe_status vkmoe_net_init(vkmoe_net *net, uint64_t seed)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(net));
    TRY(moe_api_device_ok(net->context));
    TRY(moe_api_net_fill(net, seed, true));
    net->state = (vkmoe_net_state){.seed = seed};
    net->n_backward = 0;
    net->ran = MOE_API_RAN_NOTHING;
fail:
    return status;
}

enum vkmoe_status vkmoe_net_get_size(const vkmoe_net *net, uint64_t *persistent, uint64_t *batch)
{
    enum vkmoe_status status;
    TRY(NOT_NULL(net));
    TRY(NOT_NULL(persistent));
    TRY(NOT_NULL(batch));
    uint64_t n = 0; // words
    for (uint32_t i = 0; i < net->train->n_params; i++) {
        const struct moe_train_param *param = &net->train->params[i];
        uint32_t copies = 1u + (param->grad != MOE_NET_NONE) + (param->moment1 != MOE_NET_NONE) +
                          (param->moment2 != MOE_NET_NONE);
        n += copies * n_elements(net, param->value);
        if (param->rounded != MOE_NET_NONE)
            n += moe_net_words(tensor(net, param->rounded)->type, n_elements(net, param->rounded));
    }
    *persistent = n * sizeof(float);
    *batch = (net->train->net->arena_size - n) * sizeof(float);
fail:
    return status;
}

// ---- what is not finite ----------------------------------------------------------------------

static bool is_finite_as(enum vkmoe_dtype type, float value)
{
    unsigned char stored[sizeof value];
    moe_dtype_encode(type, &value, 1, stored);
    moe_dtype_decode(type, stored, 1, &value);
    return isfinite(value);
}

// VKMOE_E_DATA and the tensor's name when one of its elements is not finite, or not in `type`.
static enum vkmoe_status check_finite(vkmoe_net *net, uint32_t i, enum vkmoe_dtype type,
                                      const char *prefix)
{
    const vkmoe_host *host = &net->context->host;
    if (i == MOE_NET_NONE)
        return VKMOE_OK;
    uint64_t n = n_elements(net, i), bad = 0;
    uint32_t width = tensor(net, i)->width;
    float *data = moe_alloc_array(host, (size_t) n, sizeof *data);
    if (!data)
        return moe_fail(VKMOE_E_MEMORY, "%s: %llu elements to look at", tensor(net, i)->name,
                        (unsigned long long) n);
    enum vkmoe_status status =
        net->context->device->backend->net_read(net->on_device, i, n, data);
    while (status == VKMOE_OK && bad < n && is_finite_as(type, data[bad]))
        bad++;
    if (status == VKMOE_OK && bad < n)
        status = moe_fail(VKMOE_E_DATA, "step %u: %s%s, row %llu, column %llu: %g%s%s",
                          net->state.steps + 1, prefix, tensor(net, i)->name,
                          (unsigned long long) (bad / width), (unsigned long long) (bad % width),
                          (double) data[bad], isfinite(data[bad]) ? " is beyond " : "",
                          isfinite(data[bad]) ? moe_dtype_info(type)->name : "");
    moe_free(host, data);
    return status;
}

enum vkmoe_status moe_api_net_not_finite(vkmoe_net *net)
{
    enum vkmoe_status status;
    const struct moe_train *train = net->train;
    TRY(check_finite(net, train->x, VKMOE_F32, ""));
    TRY(check_finite(net, train->targets, VKMOE_F32, ""));
    for (uint32_t i = 0; i < train->n_params; i++) {
        const struct moe_train_param *param = &train->params[i];
        const bool rounds = param->rounded != MOE_NET_NONE;
        TRY(check_finite(net, param->value,
                         rounds ? moe_net_type_dtype(tensor(net, param->rounded)->type) : VKMOE_F32,
                         ""));
    }
    for (uint32_t i = 0; i < train->n_params; i++)
        TRY(check_finite(net, train->params[i].grad, VKMOE_F32, "gradient of "));
    const bool bce = net->loss == VKMOE_LOSS_BCE;
    return moe_fail(VKMOE_E_DATA, "step %u: the loss or the gradients' norm overflows%s",
                    net->state.steps + 1,
                    bce ? ", or an output is no probability, which loss BCE needs" : "");
fail:
    return status;
}
