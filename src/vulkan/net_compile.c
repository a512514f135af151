// SPDX-License-Identifier: MIT
// Programs of networks -> dispatches. This file and net_matrix.c are the only ones of this back end
// that know the ops of a net; what those mean is told in core/net.h.
#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "core/ref_backward.h"
#include "vulkan/net.h"

_Static_assert(MOE_NET_SHARED_EXPERTS == MOE_MAX_EXPERTS, "net_select.comp has room for all");

// ---- elements ----------------------------------------------------------------------------------

// The first n_in operands, and results that the caller adds.
static struct moe_vk_net_dispatch *add_elements(struct moe_vk_net_compiler *c, uint32_t kind,
                                                uint32_t act, uint32_t n_in)
{
    const struct moe_net_op *op = c->op;
    uint64_t n = moe_vk_net_elements(c, op->out[0]);
    struct net_elements_params params = {
        .n = (uint32_t) n,
        .width = moe_vk_net_width(c, op->out[0]),
        .div0 = op->div[0],
        .div1 = op->div[1],
        .div2 = op->div[2],
        .top_k = op->top_k,
        .kind = op->n,
        .key0 = (uint32_t) c->args->seed,
        .key1 = (uint32_t) (c->args->seed >> 32),
        .stream = op->stream,
        .pass = c->args->pass,
        .alpha = op->alpha,
        .beta = op->beta,
    };
    if (op->kind == MOE_NET_FILL)
        params.kind = c->net->tensors[op->out[0]].type == MOE_NET_I32;
    if (op->kind == MOE_NET_POOL_BACKWARD)
        params.top_k = (uint32_t) moe_vk_net_rows(c, op->in[0]); // number of examples
    struct moe_vk_net_dispatch *d =
        moe_vk_net_add(c, MOE_SPV_NET_ELEMENTS, kind, &params, sizeof params);
    d->spec[1] = act;
    for (uint32_t i = 0; i < n_in; i++)
        moe_vk_net_read(c, d, i, op->in[i]);
    moe_vk_net_grid(c, d, moe_div_up(n, MOE_LOCAL_SIZE), 1);
    d->work = (double) n * 16;
    return d;
}

// An op whose one result is set.
static struct moe_vk_net_dispatch *set_elements(struct moe_vk_net_compiler *c, uint32_t kind,
                                                uint32_t act)
{
    struct moe_vk_net_dispatch *d = add_elements(c, kind, act, moe_net_n_in(c->op->kind));
    moe_vk_net_write(c, d, 0, c->op->out[0]);
    return d;
}

// An op whose one result is marked *.
static void put_elements(struct moe_vk_net_compiler *c, uint32_t kind, uint32_t act)
{
    struct moe_vk_net_dispatch *d = add_elements(c, kind, act, moe_net_n_in(c->op->kind));
    moe_vk_net_put(c, d, 0, c->op->out[0]);
}

// ---- rows --------------------------------------------------------------------------------------

// Lanes of a row, about four elements each; from the width alone, so that sums have the same order
// for any number of rows.
static uint32_t lanes_for(uint32_t width)
{
    uint32_t lanes = 1;
    while (lanes < MOE_LOCAL_SIZE && lanes * 4 < width)
        lanes *= 2;
    return lanes;
}

// `rows` rows or tokens of operand 0's width, with all operands of the op.
static struct moe_vk_net_dispatch *add_rows(struct moe_vk_net_compiler *c, enum moe_spv_id spv,
                                            uint32_t kind, uint64_t rows, uint32_t width,
                                            float scale)
{
    const struct moe_net_op *op = c->op;
    struct net_rows_params params = {
        .width = width,
        .lanes = lanes_for(width),
        .div0 = op->div[0],
        .div1 = op->div[1],
        .top_k = op->top_k,
        .alpha = op->alpha,
        .beta = op->beta,
        .eps = op->eps,
        .scale = scale,
    };
    if (op->kind == MOE_NET_MIXTURE_NLL) // slots of a workgroup's tokens have places there
        while (MOE_LOCAL_SIZE / params.lanes * op->top_k > MOE_NET_SHARED_EXPERTS)
            params.lanes *= 2;
    struct moe_vk_net_dispatch *d = moe_vk_net_add(c, spv, kind, &params, sizeof params);
    d->head.rows = (uint32_t) rows;
    for (uint32_t i = 0; i < moe_net_n_in(op->kind); i++)
        moe_vk_net_read(c, d, i, op->in[i]);
    moe_vk_net_grid(c, d, moe_div_up(rows, MOE_LOCAL_SIZE / params.lanes), 1);
    d->work = (double) rows * width * 32 * (op->top_k > 0 ? op->top_k : 1);
    return d;
}

static void row_op(struct moe_vk_net_compiler *c, uint32_t kind, uint64_t rows, uint32_t width,
                   bool set)
{
    struct moe_vk_net_dispatch *d = add_rows(c, MOE_SPV_NET_ROWS, kind, rows, width, 0);
    d->spec[1] = (kind == MOE_NET_ROW_NORM || kind == MOE_NET_ROW_NORM_BACKWARD) && c->op->n == 1;
    if (set)
        moe_vk_net_write(c, d, 0, c->op->out[0]);
    else
        moe_vk_net_put(c, d, 0, c->op->out[0]);
    if (kind == MOE_NET_ROW_NORM)
        moe_vk_net_write(c, d, 1, c->op->out[1]);
}

// Rows of the op's first operand.
static void row_of_operand(struct moe_vk_net_compiler *c, uint32_t kind, bool set)
{
    row_op(c, kind, moe_vk_net_rows(c, c->op->in[0]), moe_vk_net_width(c, c->op->in[0]), set);
}

static void share(struct moe_vk_net_compiler *c, uint32_t kind, uint32_t responses, bool set)
{
    row_op(c, kind, moe_vk_net_rows(c, responses) / c->op->top_k, moe_vk_net_width(c, responses),
           set);
}

// ---- losses ------------------------------------------------------------------------------------

static void loss(struct moe_vk_net_compiler *c, uint32_t kind, uint32_t variant, uint64_t rows)
{
    const struct moe_net_op *op = c->op;
    struct moe_vk_net_dispatch *d =
        add_rows(c, MOE_SPV_NET_LOSS, kind, rows, moe_vk_net_width(c, op->in[0]),
                 c->args->loss_scale * op->alpha);
    d->spec[1] = variant;
    moe_vk_net_write(c, d, 0, op->out[0]);
    for (uint32_t i = 1; i < moe_net_n_out(op->kind); i++)
        moe_vk_net_put(c, d, i, op->out[i]);
}

static void z_loss(struct moe_vk_net_compiler *c)
{
    const struct moe_net_op *op = c->op;
    const struct moe_net_tensor *logits = &c->net->tensors[op->in[0]];
    uint64_t rows = moe_vk_net_rows(c, op->in[0]);
    uint64_t max_rows = moe_net_rows(logits, c->net->max_tokens, c->net->max_examples);
    float scale = c->args->aux_scale * op->alpha / (float) moe_max(rows, 1);
    struct moe_vk_net_dispatch *d =
        add_rows(c, MOE_SPV_NET_LOSS, MOE_NET_LOSS_Z, rows, logits->width, scale);
    moe_vk_net_write_scratch(c, d, 0, 0, rows);
    moe_vk_net_put(c, d, 1, op->out[1]);
    moe_vk_net_scratch_total(c, rows, max_rows, scale);
}

// ---- routing and steps -------------------------------------------------------------------------

static struct moe_vk_net_dispatch *add_select(struct moe_vk_net_compiler *c, enum moe_spv_id spv)
{
    const vkmoe_layer_desc *layer = c->op->layer;
    uint64_t rows = moe_vk_net_rows(c, c->op->in[0]);
    struct net_select_params params = {
        .n_experts = layer->n_experts,
        .top_k = layer->top_k,
        .lanes = 1,
        .constant_gates = moe_ref_gates_are_constant(layer),
        .norm_eps = layer->norm_eps,
        .routed_scale = layer->routed_scale,
    };
    while (params.lanes < MOE_LOCAL_SIZE && params.lanes < layer->n_experts)
        params.lanes *= 2;
    struct moe_vk_net_dispatch *d = moe_vk_net_add(c, spv, layer->score, &params, sizeof params);
    d->spec[1] = layer->rank;
    d->spec[2] = layer->gate_source == VKMOE_GATE_SOFTMAX_SELECTED;
    d->spec[3] = layer->norm;
    d->spec[4] = layer->n_experts <= MOE_LOCAL_SIZE ? MOE_LOCAL_SIZE : MOE_NET_SHARED_EXPERTS;
    d->head.rows = (uint32_t) rows;
    for (uint32_t i = 0; i < moe_net_n_in(c->op->kind); i++)
        moe_vk_net_read(c, d, i, c->op->in[i]);
    moe_vk_net_grid(c, d, moe_div_up(rows, MOE_LOCAL_SIZE / params.lanes), 1);
    d->work = (double) rows * layer->n_experts * (layer->n_experts + 64.0);
    return d;
}

static void select_experts(struct moe_vk_net_compiler *c)
{
    struct moe_vk_net_dispatch *d = add_select(c, MOE_SPV_NET_SELECT);
    moe_vk_net_write(c, d, 0, c->op->out[0]);
    moe_vk_net_write(c, d, 1, c->op->out[1]);
}

static void select_backward(struct moe_vk_net_compiler *c)
{
    struct moe_vk_net_dispatch *d = add_select(c, MOE_SPV_NET_SELECT_BACKWARD);
    moe_vk_net_put(c, d, 0, c->op->out[0]);
}

static void step(struct moe_vk_net_compiler *c)
{
    const struct moe_net_op *op = c->op;
    const struct moe_net_step *rule = op->step;
    uint64_t n = moe_vk_net_elements(c, op->out[0]);
    bool sgd = rule->kind == MOE_NET_SGD;
    struct net_step_params params = {
        .n = (uint32_t) n,
        .flags = (c->args->step == 1 ? MOE_NET_STEP_FIRST : 0) |
                 (rule->nesterov ? MOE_NET_STEP_NESTEROV : 0),
        .rate = c->args->rate * rule->rate_scale,
        .decay = rule->decay,
        .beta1 = sgd ? rule->momentum : rule->beta1,
        .beta2 = rule->beta2,
        .eps = rule->eps,
        .correction1 = (float) (1 - pow((double) rule->beta1, c->args->step)),
        .correction2 = (float) (1 - pow((double) rule->beta2, c->args->step)),
    };
    struct moe_vk_net_dispatch *d =
        moe_vk_net_add(c, MOE_SPV_NET_STEP, rule->kind, &params, sizeof params);
    for (uint32_t i = 0; i < 3; i++)
        moe_vk_net_read(c, d, i, op->in[i]);
    for (uint32_t i = 0; i < 3; i++)
        moe_vk_net_write(c, d, i, op->out[i]);
    moe_vk_net_grid(c, d, moe_div_up(n, MOE_LOCAL_SIZE), 1);
    d->work = (double) n * 32;
}

static void glu_backward(struct moe_vk_net_compiler *c)
{
    struct moe_vk_net_dispatch *d = set_elements(c, MOE_NET_EL_GLU_BACKWARD, c->op->act);
    moe_vk_net_write(c, d, 1, c->op->out[1]);
}

static void round_to_half(struct moe_vk_net_compiler *c)
{
    uint64_t n = moe_vk_net_elements(c, c->op->out[0]);
    enum moe_net_type type = c->net->tensors[c->op->out[0]].type;
    struct net_elements_params params = {.n = (uint32_t) moe_net_words(type, n),
                                         .width = (uint32_t) n,
                                         .kind = moe_net_type_dtype(type)};
    struct moe_vk_net_dispatch *d =
        moe_vk_net_add(c, MOE_SPV_NET_ELEMENTS, MOE_NET_EL_ROUND, &params, sizeof params);
    moe_vk_net_read(c, d, 0, c->op->in[0]);
    moe_vk_net_write(c, d, 0, c->op->out[0]);
    moe_vk_net_grid(c, d, moe_div_up(params.n, MOE_LOCAL_SIZE), 1);
    d->work = (double) n * 8;
}

static void pool(struct moe_vk_net_compiler *c)
{
    struct moe_vk_net_dispatch *d = set_elements(c, MOE_NET_EL_POOL, 0);
    moe_vk_net_write(c, d, 1, c->op->out[1]);
    d->work = (double) moe_vk_net_elements(c, c->op->in[0]) * 4;
}

// ---- ops ---------------------------------------------------------------------------------------

static void compile_op(struct moe_vk_net_compiler *c)
{
    const struct moe_net_op *op = c->op;
    switch (op->kind) {
#define CASE(kind, call)                                                                           \
    case MOE_NET_##kind:                                                                           \
        call;                                                                                      \
        break
        CASE(MATMUL, moe_vk_net_matmul(c));
        CASE(MATMUL_DX, moe_vk_net_matmul_dx(c));
        CASE(MATMUL_DW, moe_vk_net_matmul_dw(c));
        CASE(MATMUL_COMBINE, moe_vk_net_matmul_combine(c));
        CASE(GROUP, moe_vk_net_group(c));
        CASE(GROUP_SUM, moe_vk_net_group_sum(c));
        CASE(IOTA, set_elements(c, MOE_NET_EL_IOTA, 0));
        CASE(SELECT, select_experts(c));
        CASE(SELECT_BACKWARD, select_backward(c));
        CASE(NOISE, set_elements(c, MOE_NET_EL_NOISE, 0));
        CASE(NOISE_BACKWARD, put_elements(c, MOE_NET_EL_NOISE_BACKWARD, 0));
        CASE(ACT, set_elements(c, MOE_NET_EL_ACT, op->act));
        CASE(ACT_BACKWARD, put_elements(c, MOE_NET_EL_ACT_BACKWARD, op->act));
        CASE(GLU, set_elements(c, MOE_NET_EL_GLU, op->act));
        CASE(GLU_BACKWARD, glu_backward(c));
        CASE(SCALE_ROWS, put_elements(c, MOE_NET_EL_SCALE_ROWS, 0));
        CASE(ROW_DOT, row_op(c, MOE_NET_ROW_DOT_OP, moe_vk_net_rows(c, op->out[0]),
             moe_vk_net_width(c, op->in[0]), false));
        CASE(SUM_SLOTS, put_elements(c, MOE_NET_EL_SUM_SLOTS, 0));
        CASE(SOFTMAX, row_of_operand(c, MOE_NET_ROW_SOFTMAX, true));
        CASE(SOFTMAX_BACKWARD, row_of_operand(c, MOE_NET_ROW_SOFTMAX_BACKWARD, false));
        CASE(SHARE, share(c, MOE_NET_ROW_SHARE, op->in[0], true));
        CASE(SHARE_BACKWARD, share(c, MOE_NET_ROW_SHARE_BACKWARD, op->in[1], false));
        CASE(NORM, row_of_operand(c, MOE_NET_ROW_NORM, true));
        CASE(NORM_BACKWARD, row_of_operand(c, MOE_NET_ROW_NORM_BACKWARD, false));
        CASE(NORM_DGAIN, moe_vk_net_norm_dgain(c));
        CASE(DROPOUT, put_elements(c, MOE_NET_EL_DROPOUT, 0));
        CASE(POOL, pool(c));
        CASE(POOL_BACKWARD, set_elements(c, MOE_NET_EL_POOL_BACKWARD, 0));
        CASE(CROSS_ENTROPY, loss(c, MOE_NET_LOSS_CROSS_ENTROPY,
             c->net->tensors[op->in[1]].type != MOE_NET_I32, moe_vk_net_rows(c, op->in[0])));
        CASE(POINT_LOSS, loss(c, MOE_NET_LOSS_POINT, op->n, moe_vk_net_rows(c, op->in[0])));
        CASE(MIXTURE_NLL, loss(c, MOE_NET_LOSS_MIXTURE, op->n,
             moe_vk_net_rows(c, op->in[0]) / op->top_k));
        CASE(BALANCE, moe_vk_net_balance(c));
        CASE(Z_LOSS, z_loss(c));
        CASE(REDUCE, moe_vk_net_total(c, MOE_NET_TOTAL_SUM));
        CASE(FILL, set_elements(c, MOE_NET_EL_FILL, 0));
        CASE(SUM_SQUARES, moe_vk_net_total(c, MOE_NET_TOTAL_SQUARES));
        CASE(CLIP, set_elements(c, MOE_NET_EL_CLIP, 0));
        CASE(STEP, step(c));
        CASE(ROUND, round_to_half(c));
        CASE(COUNT, put_elements(c, MOE_NET_EL_COUNT, 0));
        CASE(BALANCE_BIAS, set_elements(c, MOE_NET_EL_BALANCE_BIAS, 0));
#undef CASE
    }
}

void moe_vk_net_compile(struct moe_vk_net_compiler *c, enum moe_net_program program)
{
    const struct moe_net_ops *ops = &c->net->programs[program];
    for (uint32_t i = 0; i < ops->n; i++) {
        c->op = &ops->ops[i];
        compile_op(c);
    }
}
