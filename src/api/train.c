// SPDX-License-Identifier: MIT
#include <vkmoe/train.h>

#include "api/api.h"
#include "api/layer_net.h"
#include "base/desc.h"
#include "core/dtype.h"

enum { EXPERT_TENSORS = 6, ROUTER_TENSORS = 3, IN_AND_OUT = 2 };

// A place for a gradient of n elements.
struct tensor {
    const char *name;
    float *data;
    bool has; // does the layer have it?
    uint64_t n;
};

// Turns wanted gradients into ranges behind `next`, which it moves on.
static enum vkmoe_status add_tensors(const char *owner, uint32_t index,
                                     const struct tensor *tensors, uint32_t n,
                                     struct moe_range **next)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t i = 0; i < n; i++) {
        struct moe_range *range = (*next)++;
        *range = (struct moe_range){owner, tensors[i].name, index, .written = true};
        size_t size = (size_t) tensors[i].n * sizeof(float);
        if (tensors[i].data && !tensors[i].has)
            return moe_fail(VKMOE_E_ARGUMENT, "%s: a gradient of %s is wanted, the layer has none",
                            owner, tensors[i].name);
        TRY(moe_range_set(range, tensors[i].data, 1, size, size, sizeof(float)));
    }
fail:
    return status;
}

static enum vkmoe_status add_expert(const struct moe_layer *layer, uint32_t expert,
                                    const vkmoe_expert_grads *g, struct moe_range **next)
{
    const vkmoe_layer_desc *desc = &layer->desc;
    bool is_shared = expert == VKMOE_SHARED_EXPERT;
    bool has = !is_shared || moe_layer_has_shared(layer);
    uint64_t d_ff = moe_layer_d_ff(layer, expert);
    const struct tensor tensors[EXPERT_TENSORS] = {
        {"gate", g->gate, has && desc->gated, d_ff * desc->d_model},
        {"up", g->up, has, d_ff * desc->d_model},
        {"down", g->down, has, d_ff * desc->d_out},
        {"gate_bias", g->gate_bias, has && desc->gate_bias, d_ff},
        {"up_bias", g->up_bias, has && desc->up_bias, d_ff},
        {"down_bias", g->down_bias, has && desc->down_bias, desc->d_out},
    };
    return add_tensors(is_shared ? "backward.shared" : "backward.experts",
                       is_shared ? MOE_NO_INDEX : expert, tensors, EXPERT_TENSORS, next);
}

static enum vkmoe_status add_router(const vkmoe_layer_desc *desc, const vkmoe_router_grads *g,
                                    struct moe_range **next)
{
    const struct tensor tensors[ROUTER_TENSORS] = {
        {"weight", g->weight, true, (uint64_t) desc->n_experts * desc->d_model},
        {"bias", g->bias, desc->router_bias, desc->n_experts},
        {"shared_gate", g->shared_gate, desc->shared_gate == VKMOE_SHARED_SIGMOID, desc->d_model},
    };
    return add_tensors("backward.router", MOE_NO_INDEX, tensors, ROUTER_TENSORS, next);
}

static enum vkmoe_status add_rows(vkmoe_backward_io *out, const struct moe_program *program,
                                  uint32_t n_tokens, struct moe_range **next)
{
    enum vkmoe_status status;
    const vkmoe_layer_desc *layer = &program->graph.layer.desc;
    const enum vkmoe_dtype type = program->x_type;
    size_t element = moe_dtype_size(type, 1);
    struct moe_range *dy = (*next)++, *dx = (*next)++;
    *dy = (struct moe_range){"backward", "dy", MOE_NO_INDEX};
    *dx = (struct moe_range){"backward", "dx", MOE_NO_INDEX, .written = true};
    TRY(moe_api_stride("backward.dy", &out->dy_stride, layer->d_out, type, element));
    TRY(moe_api_stride("backward.dx", &out->dx_stride, layer->d_model, type, element));
    TRY(moe_range_set(dy, out->dy, n_tokens, out->dy_stride, moe_dtype_size(type, layer->d_out),
                      element));
    TRY(moe_range_set(dx, out->dx, n_tokens, out->dx_stride, moe_dtype_size(type, layer->d_model),
                      element));
fail:
    return status;
}

// All memory of the call; strides are filled in.
static enum vkmoe_status check_memory(const struct moe_program *program, uint32_t n_tokens,
                                      vkmoe_io *io, vkmoe_backward_io *out)
{
    enum vkmoe_status status;
    const struct moe_layer *layer = &program->graph.layer;
    const vkmoe_host *host = program->device->host;
    struct moe_range *ranges = NULL, *next;
    size_t most = MOE_IO_RANGES + IN_AND_OUT + ROUTER_TENSORS +
                  EXPERT_TENSORS * ((size_t) layer->desc.n_experts + 1);
    TRY(moe_try_alloc(host, most * sizeof *ranges, "list of gradients", &ranges));
    next = ranges + MOE_IO_RANGES;
    TRY(moe_api_io_ranges(ranges, io, program, n_tokens));
    TRY(add_rows(out, program, n_tokens, &next));
    if (out->router)
        TRY(add_router(&layer->desc, out->router, &next));
    for (uint32_t e = 0; out->experts && e < layer->desc.n_experts; e++)
        TRY(add_expert(layer, e, &out->experts[e], &next));
    if (out->shared)
        TRY(add_expert(layer, VKMOE_SHARED_EXPERT, out->shared, &next));
    status = moe_ranges_check(ranges, (uint32_t) (next - ranges));
fail:
    moe_free(host, ranges);
    return status;
}

enum vkmoe_status vkmoe_backward(vkmoe_bind *bind, uint32_t n_tokens, const vkmoe_io *io,
                                 const vkmoe_backward_io *out)
{
    enum vkmoe_status status;
    vkmoe_backward_io full_out = vkmoe_backward_io_init();
    vkmoe_io full;
    TRY(NOT_NULL(bind));
    TRY(NOT_NULL(io));
    TRY(NOT_NULL(out));
    const struct moe_device *device = bind->plan->context->device;
    const enum vkmoe_operation operation = bind->plan->program->graph.operation;
    if (operation != VKMOE_OPERATION_LAYER)
        return moe_fail(VKMOE_E_UNSUPPORTED, "the plan is of the operation %s: the gradient of a "
                        "layer alone is computed", vkmoe_operation_name(operation));
    TRY(moe_layer_check_gradients(&bind->plan->program->graph.layer.desc));
    TRY(moe_desc_copy(&full_out, sizeof full_out, out, "vkmoe_backward_io"));
    TRY(moe_api_io(&full, io, bind, n_tokens));
    if (n_tokens > 0) {
        TRY(moe_api_not_null(__func__, "io->x", full.x));
        TRY(moe_api_not_null(__func__, "out->dy", full_out.dy));
    }
    TRY(check_memory(bind->plan->program, n_tokens, &full, &full_out));

    moe_trace(device->host, "vkmoe backward", true);
    status = device->backend->backward
                 ? device->backend->backward(bind->bound, n_tokens, &full, &full_out)
                 : moe_layer_net_backward(bind, n_tokens, &full, &full_out);
    moe_trace(device->host, "vkmoe backward", false);
fail:
    return status;
}
