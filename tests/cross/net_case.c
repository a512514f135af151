// SPDX-License-Identifier: MIT
#include "net_case.h"

#include "check.h"

#include "base/host.h"
#include "core/dtype.h"

#include <stdio.h>
#include <stdlib.h>

void case_begin(struct net_case *c, uint32_t n_tokens, uint32_t n_examples, const char *name, ...)
{
    memset(c, 0, sizeof *c);
    va_list args;
    va_start(args, name);
    vsnprintf(c->name, sizeof c->name, name, args);
    va_end(args);
    for (const char *p = c->name; *p; p++)
        c->seed = c->seed * 31 + (unsigned char) *p;
    c->args = (struct moe_net_args){.n_tokens = n_tokens,
                                    .n_examples = n_examples,
                                    .seed = 0x123456789abcdef,
                                    .pass = 3,
                                    .loss_scale = 0.25f,
                                    .aux_scale = 0.5f,
                                    .rate = 0.01f,
                                    .step = 3};
    c->terms = 1;
    check_ok(moe_net_create(moe_host_default(), n_tokens + 2, n_examples + 1, &c->net));
}

void case_finish(struct net_case *c)
{
    for (uint32_t i = 0; i < CASE_TENSORS; i++)
        free(c->data[i].any);
    moe_net_destroy(c->net);
}

void case_done(struct case_sink *sink, struct net_case *c)
{
    const struct moe_net_op *op = &c->net->programs[MOE_NET_FORWARD].ops[0];
    for (uint32_t i = 0; i < MOE_NET_RESULTS; i++) {
        if (op->out[i] != MOE_NET_NONE && moe_net_op_updates(op, i) &&
            isnan(c->data[op->out[i]].f32[0]))
            case_random(c, op->out[i], -1, 1);
    }
    check_ok(moe_net_plan(c->net));
    sink->take(sink, c);
    case_finish(c);
}

// A linear congruential generator; the high bits.
static uint32_t next_bits(struct net_case *c)
{
    c->seed = c->seed * 1664525u + 1013904223u;
    return c->seed >> 8;
}

uint32_t case_next(struct net_case *c, uint32_t below)
{
    return (uint32_t) ((uint64_t) next_bits(c) * below >> 24);
}

uint64_t case_size(const struct net_case *c, uint32_t tensor)
{
    const struct moe_net_tensor *t = &c->net->tensors[tensor];
    return moe_net_rows(t, c->net->max_tokens, c->net->max_examples) * t->width;
}

void case_random(struct net_case *c, uint32_t tensor, float low, float high)
{
    for (uint64_t i = 0; i < case_size(c, tensor); i++)
        c->data[tensor].f32[i] = low + (high - low) * (float) next_bits(c) * 0x1p-24f;
}

static uint32_t add(struct net_case *c, enum moe_net_role role, enum moe_net_type type,
                    enum moe_net_rows_of rows, uint32_t n, uint32_t width)
{
    uint32_t tensor = moe_net_add_tensor(c->net, role, type, rows, n, width, "t");
    assert_true(tensor < CASE_TENSORS);
    c->data[tensor].any = calloc(case_size(c, tensor) + 1, 4);
    assert_non_null(c->data[tensor].any);
    return tensor;
}

uint32_t case_f32(struct net_case *c, enum moe_net_rows_of rows, uint32_t n, uint32_t width)
{
    uint32_t tensor = add(c, MOE_NET_INPUT, MOE_NET_F32, rows, n, width);
    case_random(c, tensor, -1, 1);
    return tensor;
}

double case_value(enum moe_net_type type, union case_data data, uint64_t j)
{
    float value;
    if (type == MOE_NET_I32)
        return (double) data.i32[j];
    moe_dtype_decode(moe_net_type_dtype(type),
                     (const char *) data.any + j * moe_net_type_size(type), 1, &value);
    return (double) value;
}

uint32_t case_weight(struct net_case *c, enum moe_net_type type, uint32_t n, uint32_t width)
{
    uint32_t tensor = add(c, MOE_NET_INPUT, type, MOE_NET_FIXED, n, width);
    case_random(c, tensor, -1, 1);
    if (moe_net_type_is_half(type)) // in place, from the first element on
        moe_dtype_encode(moe_net_type_dtype(type), c->data[tensor].f32, case_size(c, tensor),
                         c->data[tensor].any);
    return tensor;
}

uint32_t case_i32(struct net_case *c, enum moe_net_rows_of rows, uint32_t n, uint32_t width)
{
    return add(c, MOE_NET_INPUT, MOE_NET_I32, rows, n, width);
}

uint32_t case_out(struct net_case *c, enum moe_net_type type, enum moe_net_rows_of rows, uint32_t n,
                  uint32_t width)
{
    uint32_t tensor = add(c, MOE_NET_GRAD, type, rows, n, width);
    for (uint64_t i = 0; i < case_size(c, tensor); i++) {
        if (type == MOE_NET_F32)
            c->data[tensor].f32[i] = NAN;
        else if (type == MOE_NET_I32)
            c->data[tensor].i32[i] = INT32_MIN;
        else
            c->data[tensor].half[i] = UINT16_MAX;
    }
    return tensor;
}

struct moe_net_op *case_op(struct net_case *c, enum moe_net_op_kind kind, enum moe_net_write write)
{
    struct moe_net_op *op = moe_net_add_op(c->net, MOE_NET_FORWARD, kind);
    op->write = write;
    c->args.accumulate = write == MOE_NET_ADD_LATER;
    return op;
}

struct case_grouping case_group(struct net_case *c, enum case_groups kind, uint32_t n,
                                uint32_t n_groups)
{
    struct case_grouping out = {0};
    uint32_t n_rows = n * c->args.n_tokens, at = 0;
    out.n_groups = kind == GROUPS_ONE ? 1 : n_groups;
    out.starts = case_i32(c, MOE_NET_FIXED, out.n_groups + 1, 1);
    out.members = case_i32(c, MOE_NET_TOKENS, n, 1);
    uint32_t *group = calloc(n_rows + 1, sizeof *group);
    assert_non_null(group);
    for (uint32_t r = 0; r < n_rows; r++) // spread: only over groups 0, 2, 3, 5, 6, 8, ...
        group[r] = kind == GROUPS_ALL_IN_ONE ? out.n_groups / 2
                   : kind == GROUPS_ONE      ? 0
                                        : case_next(c, out.n_groups) / 2 * 3 / 2 % out.n_groups;
    for (uint32_t g = 0; g < out.n_groups; g++) {
        for (uint32_t r = 0; r < n_rows; r++) {
            if (group[r] == g)
                c->data[out.members].i32[at++] = (int32_t) r;
        }
        c->data[out.starts].i32[g + 1] = (int32_t) at;
    }
    free(group);
    return out;
}
