// SPDX-License-Identifier: MIT
// Any op of a network as its definition says, in f32.
#include "cpu/net.h"

#include "base/bits.h"

#define MOE_REAL float
#define MOE_INT int32_t
#define MOE_MATH(name) name##f
#include "core/net_ops.h"

// Work of an element where it is far from a multiply-add: libm is called, or numbers are drawn.
static const uint16_t element_work[] = {
    [MOE_NET_NOISE] = 256,
    [MOE_NET_NOISE_BACKWARD] = 256,
    [MOE_NET_DROPOUT] = 128,
    [MOE_NET_SELECT] = 64,
    [MOE_NET_SELECT_BACKWARD] = 64,
    [MOE_NET_SOFTMAX] = 32,
    [MOE_NET_CROSS_ENTROPY] = 64,
    [MOE_NET_POINT_LOSS] = 32,
    [MOE_NET_MIXTURE_NLL] = 64,
    [MOE_NET_BALANCE_BIAS] = 0,
};

// Elements of the largest operand or result.
static uint64_t most_elements(const struct moe_net_call *call)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < MOE_NET_OPERANDS; i++)
        most = moe_max(most, call->in[i].rows * call->in[i].width);
    for (uint32_t i = 0; i < MOE_NET_RESULTS; i++)
        most = moe_max(most, call->out[i].rows * call->out[i].width);
    return most;
}

void moe_cpu_net_text_prepare(struct cpu_net *net)
{
    enum { PLAIN_WORK = 8 };
    const uint64_t n_parts = moe_net_call_parts(&net->call);
    const uint64_t work = moe_max(element_work[net->call.op->kind], PLAIN_WORK);
    net->cut = moe_cpu_net_cut(n_parts,
                               most_elements(&net->call) * work / moe_max(n_parts, 1));
}

void moe_cpu_net_text_task(const struct cpu_net *net, uint32_t i)
{
    struct cpu_span parts = moe_cpu_net_span(net, i);
    net_op_compute(&net->call, parts.begin, parts.end);
}
