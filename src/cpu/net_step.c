// SPDX-License-Identifier: MIT
// Sums over all elements, and steps of the optimiser.
#include "cpu/net.h"

#include "base/bits.h"

#include <math.h>

// ---- sums: of blocks, then of the blocks' sums -----------------------------------------------

static uint64_t n_summed(const struct cpu_net *net)
{
    return net->call.in[0].rows * net->call.in[0].width;
}

void moe_cpu_net_sum_prepare(struct cpu_net *net)
{
    net->cut = moe_cpu_net_cut(moe_div_up(n_summed(net), CPU_SUM_BLOCK), CPU_SUM_BLOCK / 4);
}

void moe_cpu_net_sum_task(const struct cpu_net *net, uint32_t i)
{
    const struct cpu_span blocks = moe_cpu_net_span(net, i);
    for (uint64_t b = blocks.begin; b < blocks.end; b++) {
        const struct cpu_span span = moe_cpu_span(n_summed(net), CPU_SUM_BLOCK, b);
        net->scratch[b] = net->kernels->arrays.sum(moe_cpu_net_in(net, 0) + span.begin,
                                                   span.end - span.begin);
    }
}

void moe_cpu_net_sum_squares_task(const struct cpu_net *net, uint32_t i)
{
    const struct cpu_span blocks = moe_cpu_net_span(net, i);
    for (uint64_t b = blocks.begin; b < blocks.end; b++) {
        const struct cpu_span span = moe_cpu_span(n_summed(net), CPU_SUM_BLOCK, b);
        net->scratch[b] = net->kernels->arrays.sum_squares(moe_cpu_net_in(net, 0) + span.begin,
                                                           span.end - span.begin);
    }
}

void moe_cpu_net_total_prepare(struct cpu_net *net)
{
    net->cut = (struct cpu_cut){.n = 1, .block = 1, .n_tasks = 1};
}

void moe_cpu_net_total_task(const struct cpu_net *net, uint32_t i)
{
    (void) i;
    const float total = net->kernels->arrays.sum(
        net->scratch, moe_div_up(n_summed(net), CPU_SUM_BLOCK));
    float *sum = moe_cpu_net_out(net, 0);
    *sum = net->call.add ? *sum + total : total;
}

// ---- steps -----------------------------------------------------------------------------------

void moe_cpu_net_step_prepare(struct cpu_net *net)
{
    enum { WORK = 8 };
    const float *factor = moe_cpu_net_in(net, 1), *loss = moe_cpu_net_in(net, 2);
    const bool skipped = (factor && isnan(*factor)) || (loss && !isfinite(*loss));
    const uint64_t n = net->call.out[0].rows * net->call.out[0].width;
    net->cut = moe_cpu_net_cut(skipped ? 0 : n, WORK);
}

// 1 - beta^n, in f64: for a beta near 1 it is a small difference.
static float debias(float beta, uint32_t n)
{
    return (float) (1.0 - pow((double) beta, (double) n));
}

void moe_cpu_net_step_task(const struct cpu_net *net, uint32_t i)
{
    const struct moe_net_args *args = net->call.args;
    const struct moe_net_step *rule = net->call.op->step;
    const struct cpu_span span = moe_cpu_net_span(net, i);
    const float *factor = moe_cpu_net_in(net, 1);
    float *p = moe_cpu_net_out(net, 0), *m = moe_cpu_net_out(net, 1), *v = moe_cpu_net_out(net, 2);
    const struct cpu_step step = {
        .rule = rule,
        .rate = args->rate * rule->rate_scale,
        .factor = factor ? *factor : 1.0f,
        .first = args->step == 1,
        .debias1 = debias(rule->beta1, args->step),
        .debias2 = debias(rule->beta2, args->step),
    };
    net->kernels->arrays.step(&step, moe_cpu_net_in(net, 0) + span.begin, p + span.begin,
                              m ? m + span.begin : NULL, v ? v + span.begin : NULL,
                              span.end - span.begin);
}
