// SPDX-License-Identifier: MIT
// Adding ops and the values they make to a program of a net. A tensor that could not be made for
// want of memory is MOE_NET_NONE; the calls go on, and moe_net_plan reports it.
#ifndef MOE_TRAIN_EMIT_H
#define MOE_TRAIN_EMIT_H

#include "core/net.h"

struct moe_emit {
    struct moe_net *net;
    enum moe_net_program program;
};

// How many rows a tensor has.
struct moe_emit_rows {
    enum moe_net_rows_of of;
    uint32_t n;
};

// Who works on which rows.
struct moe_emit_groups {
    uint32_t ids, starts, members; // all MOE_NET_NONE: everybody is in the only group
};

#define MOE_EMIT_NO_GROUPS ((struct moe_emit_groups){MOE_NET_NONE, MOE_NET_NONE, MOE_NET_NONE})

static inline struct moe_emit_rows moe_emit_fixed(uint32_t n)
{
    return (struct moe_emit_rows){MOE_NET_FIXED, n};
}

static inline struct moe_emit_rows moe_emit_times(struct moe_emit_rows rows, uint32_t n)
{
    return (struct moe_emit_rows){rows.of, rows.n * n};
}

// The rows and the width of a tensor; 0 of one that is not there.
struct moe_emit_rows moe_emit_rows(const struct moe_emit *emit, uint32_t tensor);
uint32_t moe_emit_width(const struct moe_emit *emit, uint32_t tensor);

// A new value in f32.
uint32_t moe_emit_value(const struct moe_emit *emit, struct moe_emit_rows rows, uint32_t width,
                        const char *name);
// One of the shape of another tensor.
uint32_t moe_emit_like(const struct moe_emit *emit, uint32_t tensor, const char *name);
uint32_t moe_emit_ids(const struct moe_emit *emit, struct moe_emit_rows rows, const char *name);

// An op with its first result and its first operands; the pointer is good until the next one.
struct moe_net_op *moe_emit_op(const struct moe_emit *emit, enum moe_net_op_kind kind, uint32_t out,
                               uint32_t in0, uint32_t in1, uint32_t in2);

// y = a W^T + b by groups, a's row is r / div; b NONE: no bias. rows: of y, n_out its width.
uint32_t moe_emit_matmul(const struct moe_emit *emit, struct moe_emit_rows rows, uint32_t n_out,
                         uint32_t a, uint32_t div, uint32_t w, uint32_t b,
                         const struct moe_emit_groups *groups);

uint32_t moe_emit_act(const struct moe_emit *emit, uint32_t a, enum vkmoe_act act, float alpha);

// The same elements in another shape.
uint32_t moe_emit_reshape(const struct moe_emit *emit, uint32_t a, struct moe_emit_rows rows,
                          uint32_t width);

// y += alpha * a
void moe_emit_add(const struct moe_emit *emit, uint32_t y, uint32_t a, float alpha);

// Rows by their ids, 0 .. n_groups - 1.
struct moe_emit_groups moe_emit_group(const struct moe_emit *emit, uint32_t ids, uint32_t n_groups);

// Row numbers modulo n.
uint32_t moe_emit_iota(const struct moe_emit *emit, struct moe_emit_rows rows, uint32_t n);

#endif
