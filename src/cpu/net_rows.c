// SPDX-License-Identifier: MIT
// Rows and elements.
#include "cpu/net.h"

#include "base/bits.h"

// ---- elements: flat arrays -------------------------------------------------------------------

void moe_cpu_net_elements_prepare(struct cpu_net *net)
{
    enum { WORK = 8 }; // of an activation
    net->cut = moe_cpu_net_cut(net->call.out[0].rows * net->call.out[0].width, WORK);
}

void moe_cpu_net_act_task(const struct cpu_net *net, uint32_t i)
{
    const struct moe_net_op *op = net->call.op;
    const struct cpu_span span = moe_cpu_net_span(net, i);
    net->kernels->arrays.act(op->act, op->beta, moe_cpu_net_in(net, 0) + span.begin,
                             moe_cpu_net_out(net, 0) + span.begin, span.end - span.begin);
}

void moe_cpu_net_act_backward_task(const struct cpu_net *net, uint32_t i)
{
    const struct moe_net_op *op = net->call.op;
    const struct cpu_span span = moe_cpu_net_span(net, i);
    net->kernels->arrays.act_backward(
        op->act, op->beta, moe_cpu_net_in(net, 0) + span.begin,
        moe_cpu_net_in(net, 1) + span.begin, moe_cpu_net_out(net, 0) + span.begin,
        span.end - span.begin, net->call.add);
}

void moe_cpu_net_glu_task(const struct cpu_net *net, uint32_t i)
{
    const struct moe_net_op *op = net->call.op;
    const struct cpu_span span = moe_cpu_net_span(net, i);
    net->kernels->arrays.glu(op->act, op->beta, moe_cpu_net_in(net, 0) + span.begin,
                             moe_cpu_net_in(net, 1) + span.begin,
                             moe_cpu_net_out(net, 0) + span.begin, span.end - span.begin);
}

void moe_cpu_net_glu_backward_task(const struct cpu_net *net, uint32_t i)
{
    const struct moe_net_op *op = net->call.op;
    const struct cpu_span span = moe_cpu_net_span(net, i);
    net->kernels->arrays.glu_backward(
        op->act, op->beta, moe_cpu_net_in(net, 0) + span.begin,
        moe_cpu_net_in(net, 1) + span.begin, moe_cpu_net_in(net, 2) + span.begin,
        moe_cpu_net_out(net, 0) + span.begin, moe_cpu_net_out(net, 1) + span.begin,
        span.end - span.begin);
}

void moe_cpu_net_round_task(const struct cpu_net *net, uint32_t i)
{
    const struct moe_net_view *q = &net->call.out[0];
    const struct cpu_span span = moe_cpu_net_span(net, i);
    net->kernels->encode[moe_net_type_dtype(q->type)](moe_cpu_net_in(net, 0) + span.begin,
                                                      (uint16_t *) q->data + span.begin,
                                                      span.end - span.begin);
}

// ---- rows ------------------------------------------------------------------------------------

void moe_cpu_net_rows_prepare(struct cpu_net *net)
{
    net->cut = moe_cpu_net_cut(net->call.out[0].rows, net->call.in[0].width);
}

void moe_cpu_net_scale_rows_task(const struct cpu_net *net, uint32_t i)
{
    const struct moe_net_op *op = net->call.op;
    const struct cpu_span rows = moe_cpu_net_span(net, i);
    const uint32_t width = net->call.out[0].width;
    const float *a = moe_cpu_net_in(net, 0), *s = moe_cpu_net_in(net, 1);
    const int32_t *index = net->call.in[2].data;
    float *y = moe_cpu_net_out(net, 0);
    for (uint64_t r = rows.begin; r < rows.end; r++) {
        const uint64_t from = index ? (uint64_t) index[r / op->div[2]] : r / op->div[0];
        net->kernels->arrays.scale(s ? op->alpha * s[r / op->div[1]] : op->alpha, a + from * width,
                                   y + r * width, width, net->call.add);
    }
}

void moe_cpu_net_row_dot_task(const struct cpu_net *net, uint32_t i)
{
    const struct moe_net_op *op = net->call.op;
    const struct cpu_span rows = moe_cpu_net_span(net, i);
    const uint32_t width = net->call.in[0].width;
    const float *a = moe_cpu_net_in(net, 0), *b = moe_cpu_net_in(net, 1);
    const int32_t *index = net->call.in[2].data;
    float *d = moe_cpu_net_out(net, 0);
    for (uint64_t r = rows.begin; r < rows.end; r++) {
        const uint64_t other = index ? (uint64_t) index[r] : r / op->div[1];
        const float value = op->alpha * net->kernels->arrays.dot(a + r / op->div[0] * width,
                                                                 b + other * width, width);
        d[r] = net->call.add ? d[r] + value : value;
    }
}
