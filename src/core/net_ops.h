// SPDX-License-Identifier: MIT
// What each op of core/net.h means, as text over a type of numbers: core/net_ref.c compiles it in
// f64, where it is the oracle, and a CPU may compile it in f32. Before including it once:
//
//   MOE_REAL       double or float
//   MOE_INT        how elements of MOE_NET_I32 are stored: double or int32_t
//   MOE_MATH(name) the function of <math.h> for MOE_REAL: name or name##f
//
// Then net_op_compute(call, begin, end) computes the parts begin .. end - 1 of a call, of
// moe_net_call_parts. Sums over a row and over rows ascend. NaN and infinity are numbers like
// others; where an op looks at them, its comment says so.
#ifndef MOE_CORE_NET_OPS_H
#define MOE_CORE_NET_OPS_H

#include "core/dtype.h"
#include "core/net_call.h"

#include <math.h>

#define R(number) ((MOE_REAL) (number))

// Row r of an operand or result; NULL where there is none.
static inline MOE_REAL *row_of(const struct moe_net_view *view, uint64_t r)
{
    return view->data ? (MOE_REAL *) view->data + r * view->width : NULL;
}

static inline const MOE_REAL *in_row(const struct moe_net_call *call, uint32_t i, uint64_t r)
{
    return row_of(&call->in[i], r);
}

static inline MOE_REAL *out_row(const struct moe_net_call *call, uint32_t i, uint64_t r)
{
    return row_of(&call->out[i], r);
}

static inline const MOE_INT *in_int(const struct moe_net_call *call, uint32_t i)
{
    return call->in[i].data;
}

static inline MOE_INT *out_int(const struct moe_net_call *call, uint32_t i)
{
    return call->out[i].data;
}

// Element i of a matrix that rows are multiplied by.
static inline MOE_REAL weight_at(const struct moe_net_view *w, uint64_t i)
{
    if (w->type == MOE_NET_F16)
        return R(moe_f16_to_f32(((const uint16_t *) w->data)[i]));
    if (w->type == MOE_NET_BF16)
        return R(moe_bf16_to_f32(((const uint16_t *) w->data)[i]));
    return ((const MOE_REAL *) w->data)[i];
}

// *to = value, or += where the op adds.
static inline void put(const struct moe_net_call *call, MOE_REAL value, MOE_REAL *to)
{
    *to = call->add ? *to + value : value;
}

// log(1 + exp(v)); NaN stays NaN.
static MOE_REAL softplus(MOE_REAL v)
{
    return (v < 0 ? 0 : v) + MOE_MATH(log1p)(MOE_MATH(exp)(-MOE_MATH(fabs)(v)));
}

static MOE_REAL sigmoid(MOE_REAL v)
{
    return 1 / (1 + MOE_MATH(exp)(-v));
}

#include "core/net_ops_loss.h"
#include "core/net_ops_matrix.h"
#include "core/net_ops_route.h"
#include "core/net_ops_rows.h"
#include "core/net_ops_step.h"

static void net_op_compute(const struct moe_net_call *call, uint64_t begin, uint64_t end)
{
    switch (call->op->kind) {
#define OP_CASE(kind, function)     \
    case MOE_NET_##kind:            \
        function(call, begin, end); \
        break
        OP_CASE(MATMUL, matmul);
        OP_CASE(MATMUL_DX, matmul_dx);
        OP_CASE(MATMUL_DW, matmul_dw);
        OP_CASE(MATMUL_COMBINE, matmul_combine);
        OP_CASE(GROUP, group);
        OP_CASE(GROUP_SUM, group_sum);
        OP_CASE(IOTA, iota);
        OP_CASE(SELECT, select_experts);
        OP_CASE(SELECT_BACKWARD, select_backward);
        OP_CASE(NOISE, noise);
        OP_CASE(NOISE_BACKWARD, noise_backward);
        OP_CASE(ACT, act);
        OP_CASE(ACT_BACKWARD, act_backward);
        OP_CASE(GLU, glu);
        OP_CASE(GLU_BACKWARD, glu_backward);
        OP_CASE(SCALE_ROWS, scale_rows);
        OP_CASE(ROW_DOT, row_dot);
        OP_CASE(SUM_SLOTS, sum_slots);
        OP_CASE(SOFTMAX, softmax);
        OP_CASE(SOFTMAX_BACKWARD, softmax_backward);
        OP_CASE(SHARE, share);
        OP_CASE(SHARE_BACKWARD, share_backward);
        OP_CASE(NORM, norm);
        OP_CASE(NORM_BACKWARD, norm_backward);
        OP_CASE(NORM_DGAIN, norm_dgain);
        OP_CASE(DROPOUT, dropout);
        OP_CASE(POOL, pool);
        OP_CASE(POOL_BACKWARD, pool_backward);
        OP_CASE(CROSS_ENTROPY, cross_entropy);
        OP_CASE(POINT_LOSS, point_loss);
        OP_CASE(MIXTURE_NLL, mixture_nll);
        OP_CASE(BALANCE, balance);
        OP_CASE(Z_LOSS, z_loss);
        OP_CASE(REDUCE, reduce);
        OP_CASE(FILL, fill);
        OP_CASE(SUM_SQUARES, sum_squares);
        OP_CASE(CLIP, clip);
        OP_CASE(STEP, step);
        OP_CASE(ROUND, round_to_half);
        OP_CASE(COUNT, count);
        OP_CASE(BALANCE_BIAS, balance_bias);
#undef OP_CASE
    }
}

#undef R

#endif
