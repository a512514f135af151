// SPDX-License-Identifier: MIT
#include "train/gradient.h"

#include "base/host.h"
#include "base/status.h"

// Which result of an op carries its gradient.
static uint32_t main_result(const struct moe_net_op *op)
{
    return op->out[op->kind == MOE_NET_SELECT ? 1 : 0];
}

// Parameters, and rounded copies of them: for the gradient rounding is the identity.
static bool is_param(const struct moe_net_tensor *tensor)
{
    return tensor->role == MOE_NET_PARAM || moe_net_type_is_half(tensor->type);
}

// A tensor needs a gradient when one that it is made of does.
static void find_needed(struct moe_gradient *g)
{
    const struct moe_net *net = g->train->net;
    const struct moe_net_ops *forward = &net->programs[MOE_NET_FORWARD];
    for (uint32_t i = 0; i < g->n; i++)
        g->places[i].needed = g->places[i].needed || is_param(&net->tensors[i]);
    for (uint32_t i = 0; i < forward->n; i++) {
        const struct moe_net_op *op = &forward->ops[i];
        uint32_t y = main_result(op);
        for (uint32_t j = 0; j < MOE_NET_OPERANDS; j++)
            if (y < g->n && op->in[j] < g->n && g->places[op->in[j]].needed)
                g->places[y].needed = net->tensors[y].type == MOE_NET_F32;
    }
}

enum vkmoe_status moe_gradient_create(struct moe_train *train, bool of_x,
                                      struct moe_gradient **out)
{
    enum vkmoe_status status;
    struct moe_gradient *g = NULL;
    *out = NULL;
    TRY(moe_try_alloc(train->host, sizeof *g, "gradients", &g));
    g->train = train;
    g->emit = (struct moe_emit){train->net, MOE_NET_BACKWARD};
    g->n = train->net->n_tensors;
    TRY(moe_try_alloc(train->host, g->n * sizeof *g->places, "gradients", &g->places));
    for (uint32_t i = 0; i < g->n; i++) {
        g->places[i].grad = g->places[i].slots = MOE_NET_NONE;
        g->places[i].again = i;
    }
    for (uint32_t i = 0; i < train->n_transient; i++)
        if (train->transient[i] < g->n)
            g->places[train->transient[i]].again = MOE_NET_NONE;
    if (of_x && train->x < g->n)
        g->places[train->x].needed = true;
    find_needed(g);
    *out = g;
    return VKMOE_OK;
fail:
    moe_gradient_destroy(g);
    return status;
}

void moe_gradient_destroy(struct moe_gradient *gradient)
{
    if (!gradient)
        return;
    const vkmoe_host *host = gradient->train->host;
    moe_free(host, gradient->places);
    moe_free(host, gradient);
}

bool moe_gradient_needs(const struct moe_gradient *gradient, uint32_t tensor)
{
    return tensor < gradient->n && gradient->places[tensor].needed;
}

struct moe_train_target moe_gradient_target(struct moe_gradient *gradient, uint32_t tensor)
{
    struct moe_train_target target = {MOE_NET_NONE, MOE_NET_SET};
    if (tensor >= gradient->n)
        return target; // out of memory
    struct moe_gradient_place *place = &gradient->places[tensor];
    const struct moe_net *net = gradient->train->net;
    bool of_param = is_param(&net->tensors[tensor]);
    if (place->grad == MOE_NET_NONE)
        place->grad = of_param ? moe_net_find(net, MOE_NET_GRAD, net->tensors[tensor].name)
                               : moe_emit_like(&gradient->emit, tensor, "gradient");
    if (of_param)
        target.write = MOE_NET_ADD_LATER;
    if (place->begun)
        target.write = MOE_NET_ADD;
    place->begun = true;
    target.tensor = place->grad;
    return target;
}

// Adds up the parts of slots.
static void flush(struct moe_gradient *g, uint32_t tensor)
{
    struct moe_gradient_place *place = &g->places[tensor];
    if (place->slots == MOE_NET_NONE)
        return;
    struct moe_train_target to = moe_gradient_target(g, tensor);
    struct moe_net_op *op = moe_emit_op(&g->emit, MOE_NET_SUM_SLOTS, to.tensor, place->slots,
                                        MOE_NET_NONE, MOE_NET_NONE);
    op->write = to.write;
    op->top_k = place->per_row;
    place->slots = MOE_NET_NONE;
}

struct moe_train_target moe_gradient_slots(struct moe_gradient *gradient, uint32_t tensor,
                                           uint32_t n)
{
    if (tensor >= gradient->n)
        return (struct moe_train_target){MOE_NET_NONE, MOE_NET_SET};
    struct moe_gradient_place *place = &gradient->places[tensor];
    const struct moe_emit *emit = &gradient->emit;
    if (place->per_row != n)
        flush(gradient, tensor);
    if (place->slots != MOE_NET_NONE)
        return (struct moe_train_target){place->slots, MOE_NET_ADD};
    place->per_row = n;
    place->slots = moe_emit_value(emit, moe_emit_times(moe_emit_rows(emit, tensor), n),
                                  moe_emit_width(emit, tensor), "gradient of slots");
    return (struct moe_train_target){place->slots, MOE_NET_SET};
}

uint32_t moe_gradient_of(struct moe_gradient *gradient, uint32_t tensor)
{
    if (tensor >= gradient->n)
        return MOE_NET_NONE;
    flush(gradient, tensor);
    return gradient->places[tensor].begun ? gradient->places[tensor].grad : MOE_NET_NONE;
}

// The op of FORWARD that makes a transient tensor: there is one.
static const struct moe_net_op *maker(const struct moe_gradient *g, uint32_t tensor)
{
    const struct moe_net_ops *forward = &g->train->net->programs[MOE_NET_FORWARD];
    uint32_t i = 0;
    while (i + 1 < forward->n && forward->ops[i].out[0] != tensor)
        i++;
    return &forward->ops[i];
}

uint32_t moe_gradient_saved(struct moe_gradient *gradient, uint32_t tensor)
{
    if (tensor >= gradient->n || gradient->places[tensor].again != MOE_NET_NONE)
        return tensor < gradient->n ? gradient->places[tensor].again : MOE_NET_NONE;
    struct moe_net_op again = *maker(gradient, tensor);
    for (uint32_t i = 0; i < MOE_NET_OPERANDS; i++)
        again.in[i] = moe_gradient_saved(gradient, again.in[i]);
    again.out[0] = moe_emit_like(&gradient->emit, tensor, "computed again");
    *moe_net_add_op(gradient->emit.net, gradient->emit.program, again.kind) = again;
    gradient->places[tensor].again = again.out[0];
    return again.out[0];
}

void moe_gradient_run(struct moe_gradient *gradient)
{
    const struct moe_net_ops *forward = &gradient->train->net->programs[MOE_NET_FORWARD];
    for (uint32_t i = forward->n; i > 0; i--) {
        const struct moe_net_op *op = &forward->ops[i - 1];
        uint32_t y = main_result(op);
        uint32_t dy = moe_gradient_needs(gradient, y) ? moe_gradient_of(gradient, y) : MOE_NET_NONE;
        if (dy != MOE_NET_NONE)
            moe_gradient_op(gradient, op, dy);
    }
}
