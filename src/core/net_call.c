// SPDX-License-Identifier: MIT
#include "core/net_call.h"

static struct moe_net_view view(const struct moe_net *net, uint32_t i,
                                const struct moe_net_args *args, char *arena, size_t word_size)
{
    if (i == MOE_NET_NONE)
        return (struct moe_net_view){0};
    const struct moe_net_tensor *tensor = &net->tensors[i];
    return (struct moe_net_view){arena + tensor->offset * word_size,
                                 moe_net_rows(tensor, args->n_tokens, args->n_examples),
                                 tensor->width, tensor->type};
}

void moe_net_call_init(struct moe_net_call *call, const struct moe_net *net,
                       const struct moe_net_op *op, const struct moe_net_args *args, void *arena,
                       size_t word_size)
{
    call->op = op;
    call->args = args;
    call->add = op->write == MOE_NET_ADD || (op->write == MOE_NET_ADD_LATER && args->accumulate);
    for (uint32_t i = 0; i < MOE_NET_OPERANDS; i++)
        call->in[i] = view(net, op->in[i], args, arena, word_size);
    for (uint32_t i = 0; i < MOE_NET_RESULTS; i++)
        call->out[i] = view(net, op->out[i], args, arena, word_size);
}

uint64_t moe_net_call_parts(const struct moe_net_call *call)
{
    switch (call->op->kind) {
    case MOE_NET_MATMUL:
    case MOE_NET_MATMUL_DX:
    case MOE_NET_MATMUL_DW:
    case MOE_NET_MATMUL_COMBINE:
    case MOE_NET_GROUP_SUM:
    case MOE_NET_IOTA:
    case MOE_NET_SELECT_BACKWARD:
    case MOE_NET_NOISE:
    case MOE_NET_NOISE_BACKWARD:
    case MOE_NET_ACT:
    case MOE_NET_ACT_BACKWARD:
    case MOE_NET_GLU:
    case MOE_NET_GLU_BACKWARD:
    case MOE_NET_SCALE_ROWS:
    case MOE_NET_ROW_DOT:
    case MOE_NET_SUM_SLOTS:
    case MOE_NET_SOFTMAX:
    case MOE_NET_SOFTMAX_BACKWARD:
    case MOE_NET_NORM:
    case MOE_NET_NORM_BACKWARD:
    case MOE_NET_DROPOUT:
    case MOE_NET_POOL:
    case MOE_NET_FILL:
    case MOE_NET_STEP:
    case MOE_NET_ROUND:
        return call->out[0].rows;
    case MOE_NET_SELECT:
    case MOE_NET_CROSS_ENTROPY:
    case MOE_NET_POINT_LOSS:
    case MOE_NET_POOL_BACKWARD:
        return call->in[0].rows;
    case MOE_NET_SHARE:
    case MOE_NET_SHARE_BACKWARD:
    case MOE_NET_MIXTURE_NLL:
        return call->in[0].rows / call->op->top_k;
    case MOE_NET_NORM_DGAIN:
        return call->in[0].width;
    case MOE_NET_GROUP:
    case MOE_NET_REDUCE:
    case MOE_NET_SUM_SQUARES:
    case MOE_NET_BALANCE:
    case MOE_NET_Z_LOSS:
    case MOE_NET_CLIP:
    case MOE_NET_COUNT:
    case MOE_NET_BALANCE_BIAS:
        return 1;
    }
    return 0;
}
