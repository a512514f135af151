// SPDX-License-Identifier: MIT
// FORWARD and BACKWARD of a net of the one layer, on the bind's device, with the values of the
// bind's weights. It is made by the first call and kept by the bind.
#include "api/layer_net.h"

#include "base/bits.h"
#include "core/dtype.h"
#include "train/train.h"

#include <stdio.h>

struct moe_layer_net {
    const vkmoe_host *host;
    const struct moe_layer *layer;
    const struct moe_backend *backend;
    struct moe_train *train;
    struct moe_device_net *on_device;
    float *rows;   // (max_tokens, the larger of d_model and d_out): x, dy or dx on its way
    float *tensor; // room for the largest parameter
};

// ---- tensors of experts ----------------------------------------------------------------------

// A tensor of the net holds one tensor of each expert, behind each other.
static const struct {
    const char *name;
    size_t member; // of vkmoe_expert_grads
} members[] = {
    {"gate.weight", offsetof(vkmoe_expert_grads, gate)},
    {"up.weight", offsetof(vkmoe_expert_grads, up)},
    {"down.weight", offsetof(vkmoe_expert_grads, down)},
    {"gate.bias", offsetof(vkmoe_expert_grads, gate_bias)},
    {"up.bias", offsetof(vkmoe_expert_grads, up_bias)},
    {"down.bias", offsetof(vkmoe_expert_grads, down_bias)},
};

static float *get_member(const vkmoe_expert_grads *expert, uint32_t i)
{
    float *value;
    memcpy(&value, (const char *) expert + members[i].member, sizeof(void *));
    return value;
}

static uint64_t n_elements(const struct moe_layer_net *net, uint32_t tensor)
{
    const struct moe_net_tensor *of = &net->train->net->tensors[tensor];
    return (uint64_t) of->n * of->width;
}

// Tensor "layers.0.<bank>.<name>" of a role; MOE_NET_NONE: the layer has none.
static uint32_t find(const struct moe_layer_net *net, enum moe_net_role role, const char *bank,
                     const char *name)
{
    char full[MOE_NET_NAME];
    snprintf(full, sizeof full, "layers.0.%s.%s", bank, name);
    return moe_net_find(net->train->net, role, full);
}

static enum vkmoe_status write_tensor(const struct moe_layer_net *net, uint32_t tensor)
{
    return net->backend->net_write(net->on_device, tensor, n_elements(net, tensor), net->tensor);
}

// The values of member i of `n` experts from `first` on.
static enum vkmoe_status load_experts(const struct moe_layer_net *net,
                                      struct moe_packed_weights *weights, const char *bank,
                                      uint32_t first, uint32_t n, uint32_t i)
{
    enum vkmoe_status status = VKMOE_OK;
    uint32_t tensor = find(net, MOE_NET_PARAM, bank, members[i].name);
    if (tensor == MOE_NET_NONE)
        return VKMOE_OK;
    uint64_t size = n_elements(net, tensor) / n;
    for (uint32_t e = 0; e < n; e++) {
        vkmoe_expert_grads to = {NULL};
        float *here = net->tensor + e * size;
        memcpy((char *) &to + members[i].member, &here, sizeof here);
        TRY(net->backend->read_expert(weights, first + e, &to));
    }
    TRY(write_tensor(net, tensor));
fail:
    return status;
}

static enum vkmoe_status load_router(const struct moe_layer_net *net,
                                     struct moe_packed_weights *weights)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct {
        uint32_t tensor;
        struct moe_router_copy to;
    } all[] = {
        {find(net, MOE_NET_PARAM, "router", "weight"), {.weight = net->tensor}},
        {find(net, MOE_NET_PARAM, "router", "bias"), {.bias = net->tensor}},
        {find(net, MOE_NET_STATE, "router", "selection_bias"), {.selection_bias = net->tensor}},
        {find(net, MOE_NET_PARAM, "shared", "gate_vector"), {.shared_gate = net->tensor}},
    };
    for (uint32_t i = 0; i < MOE_COUNT(all); i++) {
        if (all[i].tensor == MOE_NET_NONE)
            continue;
        TRY(net->backend->read_router(weights, &all[i].to));
        TRY(write_tensor(net, all[i].tensor));
    }
fail:
    return status;
}

static enum vkmoe_status load_weights(const struct moe_layer_net *net,
                                      struct moe_packed_weights *weights)
{
    enum vkmoe_status status;
    TRY(load_router(net, weights));
    for (uint32_t i = 0; i < MOE_COUNT(members); i++) {
        TRY(load_experts(net, weights, "experts", 0, net->layer->desc.n_experts, i));
        TRY(load_experts(net, weights, "shared", VKMOE_SHARED_EXPERT, 1, i));
    }
fail:
    return status;
}

// ---- create and destroy ----------------------------------------------------------------------

static enum vkmoe_status alloc_room(struct moe_layer_net *net, uint32_t max_tokens)
{
    enum vkmoe_status status = VKMOE_OK;
    const vkmoe_layer_desc *desc = &net->layer->desc;
    uint64_t most = 0;
    uint32_t width = (uint32_t) moe_max(desc->d_model, desc->d_out);
    for (uint32_t i = 0; i < net->train->n_params; i++)
        most = moe_max(most, n_elements(net, net->train->params[i].value));
    net->tensor = moe_alloc_array(net->host, (size_t) most, sizeof *net->tensor);
    net->rows = moe_alloc_array(net->host, (size_t) max_tokens * width, sizeof *net->rows);
    if (!net->tensor || !net->rows)
        status = moe_fail(VKMOE_E_MEMORY, "gradients: %llu f32 of a tensor, %u rows of %u",
                          (unsigned long long) most, max_tokens, width);
    return status;
}

// With the plan's precision, of which networks have no int8, and its variant.
static enum vkmoe_status create_on_device(struct moe_layer_net *net,
                                          const struct moe_program *program)
{
    struct moe_net *made = net->train->net;
    const bool half = program->precision == VKMOE_PRECISION_HALF;
    made->precision = half ? VKMOE_PRECISION_HALF : VKMOE_PRECISION_EXACT;
    made->variant = program->net_variant;
    return net->backend->net_create(program->device, made, &net->on_device);
}

static enum vkmoe_status create(const vkmoe_bind *bind, struct moe_layer_net **out)
{
    enum vkmoe_status status;
    const struct moe_program *program = bind->plan->program;
    struct moe_device *device = program->device;
    struct moe_layer_net *net = NULL;
    const vkmoe_layer_desc *d = &program->graph.layer.desc;
    if ((uint64_t) d->n_experts * moe_max(d->d_ff, d->d_out) > INT32_MAX)
        return moe_fail(VKMOE_E_UNSUPPORTED, "gradients of n_experts = %u, d_ff = %u, d_out = %u: "
                        "more than %d rows", d->n_experts, d->d_ff, d->d_out, INT32_MAX);
    TRY(moe_try_alloc(device->host, sizeof *net, "gradients of a layer", &net));
    net->host = device->host;
    net->layer = &program->graph.layer;
    net->backend = device->backend;
    TRY(moe_train_create_layer(device->host, &net->layer->desc, program->max_tokens, &net->train));
    TRY(create_on_device(net, program));
    TRY(alloc_room(net, program->max_tokens));
    TRY(load_weights(net, bind->bound->weights));
    *out = net;
    return VKMOE_OK;
fail:
    moe_layer_net_destroy(net);
    return status;
}

void moe_layer_net_destroy(struct moe_layer_net *net)
{
    if (!net)
        return;
    if (net->on_device)
        net->backend->net_destroy(net->on_device);
    moe_train_destroy(net->train);
    moe_free(net->host, net->rows);
    moe_free(net->host, net->tensor);
    moe_free(net->host, net);
}

// ---- runs ------------------------------------------------------------------------------------

// What vkmoe_run gives; into scratch where y is not wanted.
static enum vkmoe_status run_outputs(vkmoe_bind *bind, uint32_t n_tokens, const vkmoe_io *io)
{
    vkmoe_io full = *io;
    void *y = NULL;
    const vkmoe_layer_desc *desc = &bind->plan->program->graph.layer.desc;
    const struct moe_device *device = bind->plan->program->device;
    if (!io->y && !io->ids && !io->gates && !io->scores)
        return VKMOE_OK;
    if (!io->y) {
        size_t row = (size_t) moe_dtype_size(bind->plan->program->x_type, desc->d_out);
        y = moe_alloc_array(device->host, n_tokens, row);
        if (!y)
            return moe_fail(VKMOE_E_MEMORY, "y: %u rows of %zu bytes", n_tokens, row);
        full.y = y;
        full.y_stride = row;
    }
    enum vkmoe_status status = device->backend->run(bind->bound, n_tokens, &full);
    moe_free(device->host, y);
    return status;
}

// Rows of a caller, to an input of the net.
static enum vkmoe_status write_rows(const struct moe_layer_net *net, enum vkmoe_dtype type,
                                    const void *from, size_t stride, uint32_t n_rows,
                                    uint32_t tensor)
{
    const uint32_t width = net->train->net->tensors[tensor].width;
    for (size_t t = 0; t < n_rows; t++)
        moe_dtype_decode(type, (const char *) from + t * stride, width, net->rows + t * width);
    return net->backend->net_write(net->on_device, tensor, (uint64_t) n_rows * width, net->rows);
}

static enum vkmoe_status read_dx(const struct moe_layer_net *net, enum vkmoe_dtype type,
                                 uint32_t n_rows, const vkmoe_backward_io *out)
{
    const uint32_t width = net->layer->desc.d_model;
    enum vkmoe_status status = VKMOE_OK;
    if (!out->dx)
        return VKMOE_OK;
    TRY(net->backend->net_read(net->on_device, net->train->dx, (uint64_t) n_rows * width,
                               net->rows));
    for (size_t t = 0; t < n_rows; t++)
        moe_dtype_encode(type, net->rows + t * width, width, (char *) out->dx + t * out->dx_stride);
fail:
    return status;
}

// to = from, or to += from; from NULL: zeros, to NULL: not wanted.
static void put(const float *from, uint64_t n, bool add, float *to)
{
    for (uint64_t i = 0; to && i < n; i++)
        to[i] = (add ? to[i] : 0) + (from ? from[i] : 0);
}

// The gradient of a tensor in net->tensor; n_tokens 0: zeros.
static enum vkmoe_status read_gradient(const struct moe_layer_net *net, uint32_t n_tokens,
                                       uint32_t tensor)
{
    uint64_t n = n_elements(net, tensor);
    if (n_tokens > 0)
        return net->backend->net_read(net->on_device, tensor, n, net->tensor);
    memset(net->tensor, 0, (size_t) n * sizeof *net->tensor);
    return VKMOE_OK;
}

// Member i of n experts, where the caller wants it.
static enum vkmoe_status store_experts(const struct moe_layer_net *net, uint32_t n_tokens,
                                       const char *bank, uint32_t n, uint32_t i, bool add,
                                       const vkmoe_expert_grads *to)
{
    uint32_t tensor = find(net, MOE_NET_GRAD, bank, members[i].name);
    bool wanted = false;
    for (uint32_t e = 0; to && tensor != MOE_NET_NONE && e < n; e++)
        wanted = wanted || get_member(&to[e], i);
    if (!wanted)
        return VKMOE_OK;
    enum vkmoe_status status = read_gradient(net, n_tokens, tensor);
    uint64_t size = n_elements(net, tensor) / n;
    for (uint32_t e = 0; status == VKMOE_OK && e < n; e++)
        put(net->tensor + e * size, size, add, get_member(&to[e], i));
    return status;
}

static enum vkmoe_status store_router(const struct moe_layer_net *net, uint32_t n_tokens, bool add,
                                      const vkmoe_router_grads *to)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct {
        const char *bank, *name;
        float *to;
    } all[] = {
        {"router", "weight", to->weight},
        {"router", "bias", to->bias},
        {"shared", "gate_vector", to->shared_gate},
    };
    for (uint32_t i = 0; i < MOE_COUNT(all); i++) {
        if (!all[i].to)
            continue;
        uint32_t tensor = find(net, MOE_NET_GRAD, all[i].bank, all[i].name);
        TRY(read_gradient(net, n_tokens, tensor));
        put(net->tensor, n_elements(net, tensor), add, all[i].to);
    }
fail:
    return status;
}

static enum vkmoe_status store_gradients(const struct moe_layer_net *net, uint32_t n_tokens,
                                         const vkmoe_backward_io *out)
{
    enum vkmoe_status status = VKMOE_OK;
    bool add = out->accumulate;
    if (out->router)
        TRY(store_router(net, n_tokens, add, out->router));
    for (uint32_t i = 0; i < MOE_COUNT(members); i++) {
        TRY(store_experts(net, n_tokens, "experts", net->layer->desc.n_experts, i, add,
                          out->experts));
        TRY(store_experts(net, n_tokens, "shared", 1, i, add, out->shared));
    }
fail:
    return status;
}

enum vkmoe_status moe_layer_net_backward(vkmoe_bind *bind, uint32_t n_tokens, const vkmoe_io *io,
                                         const vkmoe_backward_io *out)
{
    enum vkmoe_status status;
    const enum vkmoe_dtype type = bind->plan->program->x_type;
    const struct moe_net_args args = {
        .n_tokens = n_tokens, .n_examples = n_tokens, .loss_scale = 1, .aux_scale = 1};
    if (!bind->layer_net)
        TRY(create(bind, &bind->layer_net));
    const struct moe_layer_net *net = bind->layer_net;
    if (n_tokens > 0) {
        TRY(run_outputs(bind, n_tokens, io));
        TRY(write_rows(net, type, io->x, io->x_stride, n_tokens, net->train->x));
        TRY(write_rows(net, type, out->dy, out->dy_stride, n_tokens, net->train->dy));
        TRY(net->backend->net_run(net->on_device, 1u << MOE_NET_FORWARD | 1u << MOE_NET_BACKWARD,
                                  &args));
        TRY(read_dx(net, type, n_tokens, out));
    }
    TRY(store_gradients(net, n_tokens, out));
fail:
    return status;
}
