// SPDX-License-Identifier: MIT
// Part of core/net_ops.h: products with matrices of groups, groupings, sums over everything.
#ifndef MOE_CORE_NET_OPS_MATRIX_H
#define MOE_CORE_NET_OPS_MATRIX_H

// The rows of each group. Without members all of n_rows are in the only group.
struct grouping {
    const MOE_INT *starts, *members;
    uint64_t n_groups, n_rows;
};

// in[i] and in[i + 1]: starts, members.
static struct grouping grouping_at(const struct moe_net_call *call, uint32_t i, uint64_t n_rows)
{
    if (!call->in[i].data)
        return (struct grouping){NULL, NULL, 1, n_rows};
    return (struct grouping){in_int(call, i), in_int(call, i + 1), call->in[i].rows - 1, n_rows};
}

static uint64_t group_begin(const struct grouping *of, uint64_t g)
{
    return of->starts ? (uint64_t) of->starts[g] : g * of->n_rows;
}

static uint64_t group_member(const struct grouping *of, uint64_t i)
{
    return of->members ? (uint64_t) of->members[i] : i;
}

// bias[o] + <row o of the group's w, a>; bias NULL: none.
static MOE_REAL affine(const struct moe_net_view *w, const struct moe_net_view *bias, uint64_t g,
                       uint64_t n_out, uint64_t o, const MOE_REAL *a)
{
    const uint64_t row = (g * n_out + o) * w->width;
    MOE_REAL sum = bias->data ? row_of(bias, g)[o] : 0;
    for (uint32_t i = 0; i < w->width; i++)
        sum += weight_at(w, row + i) * a[i];
    return sum;
}

static void matmul(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    struct grouping groups = grouping_at(call, 3, call->out[0].rows);
    uint32_t n_out = call->out[0].width;
    for (uint64_t g = 0; g < groups.n_groups; g++) {
        for (uint64_t i = group_begin(&groups, g); i < group_begin(&groups, g + 1); i++) {
            uint64_t r = group_member(&groups, i);
            for (uint32_t o = 0; o < n_out && r >= begin && r < end; o++)
                put(call,
                    affine(&call->in[1], &call->in[2], g, n_out, o,
                           in_row(call, 0, r / call->op->div[0])),
                    out_row(call, 0, r) + o);
        }
    }
}

static void matmul_dx(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    struct grouping groups = grouping_at(call, 2, call->out[0].rows);
    uint32_t n_out = call->in[0].width, n_in = call->out[0].width;
    for (uint64_t g = 0; g < groups.n_groups; g++) {
        for (uint64_t i = group_begin(&groups, g); i < group_begin(&groups, g + 1); i++) {
            uint64_t r = group_member(&groups, i);
            const MOE_REAL *dy = in_row(call, 0, r / call->op->div[0]);
            for (uint32_t c = 0; c < n_in && r >= begin && r < end; c++) {
                MOE_REAL sum = 0;
                for (uint32_t o = 0; o < n_out; o++)
                    sum += dy[o] * weight_at(&call->in[1], (g * n_out + o) * n_in + c);
                put(call, sum, out_row(call, 0, r) + c);
            }
        }
    }
}

// s_r dy[r, o] of a row.
static MOE_REAL weighed(const struct moe_net_call *call, uint64_t r, uint64_t o)
{
    MOE_REAL dy = in_row(call, 0, r / call->op->div[0])[o];
    return call->in[2].data ? *in_row(call, 2, r) * dy : dy;
}

// Part: row g * n_out + o of dw.
static void matmul_dw(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    struct grouping groups = grouping_at(call, 3, call->in[0].rows * call->op->div[0]);
    uint32_t n_out = call->in[0].width;
    for (uint64_t part = begin; part < end; part++) {
        uint64_t g = part / n_out, o = part % n_out;
        uint64_t first = group_begin(&groups, g), last = group_begin(&groups, g + 1);
        for (uint32_t c = 0; c < call->out[0].width; c++) {
            MOE_REAL sum = 0;
            for (uint64_t i = first; i < last; i++) {
                uint64_t r = group_member(&groups, i);
                sum += weighed(call, r, o) * in_row(call, 1, r / call->op->div[1])[c];
            }
            put(call, sum, out_row(call, 0, part) + c);
        }
        if (!call->out[1].data)
            continue;
        MOE_REAL sum = 0;
        for (uint64_t i = first; i < last; i++)
            sum += weighed(call, group_member(&groups, i), o);
        put(call, sum, out_row(call, 1, g) + o);
    }
}

// The group that a row is in.
static uint64_t group_of(const struct grouping *of, uint64_t r)
{
    for (uint64_t g = 0; g < of->n_groups; g++) {
        for (uint64_t i = group_begin(of, g); i < group_begin(of, g + 1); i++) {
            if (group_member(of, i) == r)
                return g;
        }
    }
    return 0;
}

static void matmul_combine(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    const struct grouping groups = grouping_at(call, 4, call->in[0].rows);
    const uint32_t top_k = call->op->top_k, n_out = call->out[0].width;
    for (uint64_t t = begin; t < end; t++) {
        MOE_REAL *y = out_row(call, 0, t);
        for (uint32_t o = 0; o < n_out && !call->add; o++)
            y[o] = 0;
        for (uint64_t slot = t * top_k; slot < (t + 1) * top_k; slot++) {
            uint64_t g = group_of(&groups, slot);
            MOE_REAL s = R(call->op->alpha) * (call->in[3].data ? *in_row(call, 3, slot) : 1);
            for (uint32_t o = 0; o < n_out; o++)
                y[o] += s * affine(&call->in[1], &call->in[2], g, n_out, o, in_row(call, 0, slot));
        }
    }
}

static void group(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    (void) begin, (void) end;
    const MOE_INT *ids = in_int(call, 0);
    MOE_INT *starts = out_int(call, 0), *members = out_int(call, 1);
    uint64_t n = 0;
    for (uint64_t g = 0; g + 1 < call->out[0].rows; g++) {
        starts[g] = (MOE_INT) n;
        for (uint64_t r = 0; r < call->in[0].rows; r++) {
            if ((uint64_t) ids[r] == g)
                members[n++] = (MOE_INT) r;
        }
    }
    starts[call->out[0].rows - 1] = (MOE_INT) n;
}

static void group_sum(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    struct grouping groups = grouping_at(call, 1, call->in[0].rows);
    for (uint64_t g = begin; g < end; g++) {
        for (uint32_t c = 0; c < call->out[0].width; c++) {
            MOE_REAL sum = 0;
            for (uint64_t i = group_begin(&groups, g); i < group_begin(&groups, g + 1); i++)
                sum += in_row(call, 0, group_member(&groups, i))[c];
            put(call, R(call->op->alpha) * sum, out_row(call, 0, g) + c);
        }
    }
}

static void iota(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    for (uint64_t r = begin; r < end; r++)
        out_int(call, 0)[r] = (MOE_INT) (r % call->op->n);
}

static void reduce(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    (void) begin, (void) end;
    MOE_REAL sum = 0;
    for (uint64_t i = 0; i < call->in[0].rows * call->in[0].width; i++)
        sum += in_row(call, 0, 0)[i];
    put(call, sum, out_row(call, 0, 0));
}

static void sum_squares(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    (void) begin, (void) end;
    const MOE_REAL *g = in_row(call, 0, 0);
    MOE_REAL sum = 0;
    for (uint64_t i = 0; i < call->in[0].rows * call->in[0].width; i++)
        sum += g[i] * g[i];
    put(call, sum, out_row(call, 0, 0));
}

#endif
