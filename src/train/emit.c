// SPDX-License-Identifier: MIT
#include "train/emit.h"

static struct moe_net_tensor tensor_of(const struct moe_emit *emit, uint32_t tensor)
{
    return tensor < emit->net->n_tensors ? emit->net->tensors[tensor] : (struct moe_net_tensor){0};
}

struct moe_emit_rows moe_emit_rows(const struct moe_emit *emit, uint32_t tensor)
{
    struct moe_net_tensor of = tensor_of(emit, tensor);
    return (struct moe_emit_rows){of.rows, of.n};
}

uint32_t moe_emit_width(const struct moe_emit *emit, uint32_t tensor)
{
    return tensor_of(emit, tensor).width;
}

uint32_t moe_emit_value(const struct moe_emit *emit, struct moe_emit_rows rows, uint32_t width,
                        const char *name)
{
    return moe_net_add_tensor(emit->net, MOE_NET_VALUE, MOE_NET_F32, rows.of, rows.n, width, "%s",
                              name);
}

uint32_t moe_emit_like(const struct moe_emit *emit, uint32_t tensor, const char *name)
{
    return moe_emit_value(emit, moe_emit_rows(emit, tensor), moe_emit_width(emit, tensor), name);
}

uint32_t moe_emit_ids(const struct moe_emit *emit, struct moe_emit_rows rows, const char *name)
{
    return moe_net_add_tensor(emit->net, MOE_NET_VALUE, MOE_NET_I32, rows.of, rows.n, 1, "%s",
                              name);
}

struct moe_net_op *moe_emit_op(const struct moe_emit *emit, enum moe_net_op_kind kind, uint32_t out,
                               uint32_t in0, uint32_t in1, uint32_t in2)
{
    struct moe_net_op *op = moe_net_add_op(emit->net, emit->program, kind);
    op->out[0] = out;
    op->in[0] = in0;
    op->in[1] = in1;
    op->in[2] = in2;
    return op;
}

uint32_t moe_emit_matmul(const struct moe_emit *emit, struct moe_emit_rows rows, uint32_t n_out,
                         uint32_t a, uint32_t div, uint32_t w, uint32_t b,
                         const struct moe_emit_groups *groups)
{
    uint32_t y = moe_emit_value(emit, rows, n_out, "product");
    struct moe_net_op *op = moe_emit_op(emit, MOE_NET_MATMUL, y, a, w, b);
    op->div[0] = div;
    if (groups) {
        op->in[3] = groups->starts;
        op->in[4] = groups->members;
    }
    return y;
}

uint32_t moe_emit_act(const struct moe_emit *emit, uint32_t a, enum vkmoe_act act, float alpha)
{
    uint32_t y = moe_emit_like(emit, a, "activation");
    struct moe_net_op *op = moe_emit_op(emit, MOE_NET_ACT, y, a, MOE_NET_NONE, MOE_NET_NONE);
    op->act = act;
    op->beta = alpha;
    return y;
}

uint32_t moe_emit_reshape(const struct moe_emit *emit, uint32_t a, struct moe_emit_rows rows,
                          uint32_t width)
{
    uint32_t y = moe_emit_value(emit, rows, width, "reshaped");
    moe_emit_op(emit, MOE_NET_ACT, y, a, MOE_NET_NONE, MOE_NET_NONE)->act = VKMOE_ACT_NONE;
    return y;
}

void moe_emit_add(const struct moe_emit *emit, uint32_t y, uint32_t a, float alpha)
{
    struct moe_net_op *op = moe_emit_op(emit, MOE_NET_SCALE_ROWS, y, a, MOE_NET_NONE, MOE_NET_NONE);
    op->write = MOE_NET_ADD;
    op->alpha = alpha;
}

struct moe_emit_groups moe_emit_group(const struct moe_emit *emit, uint32_t ids, uint32_t n_groups)
{
    struct moe_emit_groups groups = {
        .ids = ids,
        .starts = moe_emit_ids(emit, moe_emit_fixed(n_groups + 1), "starts"),
        .members = moe_emit_ids(emit, moe_emit_rows(emit, ids), "members"),
    };
    moe_emit_op(emit, MOE_NET_GROUP, groups.starts, ids, MOE_NET_NONE, MOE_NET_NONE)->out[1] =
        groups.members;
    return groups;
}

uint32_t moe_emit_iota(const struct moe_emit *emit, struct moe_emit_rows rows, uint32_t n)
{
    uint32_t ids = moe_emit_ids(emit, rows, "numbers");
    moe_emit_op(emit, MOE_NET_IOTA, ids, MOE_NET_NONE, MOE_NET_NONE, MOE_NET_NONE)->n = n;
    return ids;
}
