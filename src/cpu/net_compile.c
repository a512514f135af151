// SPDX-License-Identifier: MIT
// Ops of a network -> phases. This is the only place of the CPU's networks that lists ops; what
// has no phase of its own is computed as core/net_ops.h says.
#include "cpu/net.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"

#include <assert.h>

enum { MAX_PHASES = 2 }; // of one op

struct op_phases {
    cpu_net_prepare_fn *prepare[MAX_PHASES];
    cpu_net_task_fn *task[MAX_PHASES];
};

#define PHASE(cut, name) {{moe_cpu_net_##cut##_prepare}, {moe_cpu_net_##name##_task}}
#define PHASES(cut1, name1, cut2, name2)                                                           \
    {{moe_cpu_net_##cut1##_prepare, moe_cpu_net_##cut2##_prepare},                                 \
     {moe_cpu_net_##name1##_task, moe_cpu_net_##name2##_task}}

static const struct op_phases
    text_phases = PHASE(text, text),
    matmul_phases = PHASE(matmul, matmul),
    combine_phases = PHASES(matmul, matmul, sum_slots, sum_slots),
    sum_slots_phases = PHASE(sum_slots, sum_slots),
    dw_phases = PHASE(dw, dw),
    dw_bias_phases = PHASES(dw, dw, column_sums, column_sums),
    group_phases = PHASE(group, group),
    group_sum_phases = PHASE(column_sums, column_sums),
    act_phases = PHASE(elements, act),
    act_backward_phases = PHASE(elements, act_backward),
    glu_phases = PHASE(elements, glu),
    glu_backward_phases = PHASE(elements, glu_backward),
    scale_rows_phases = PHASE(rows, scale_rows),
    row_dot_phases = PHASE(rows, row_dot),
    reduce_phases = PHASES(sum, sum, total, total),
    sum_squares_phases = PHASES(sum, sum_squares, total, total),
    step_phases = PHASE(step, step),
    round_phases = PHASE(elements, round);

static const struct op_phases *phases_of(const struct moe_net_op *op)
{
    switch (op->kind) {
    case MOE_NET_MATMUL:
    case MOE_NET_MATMUL_DX:
        return &matmul_phases;
    case MOE_NET_MATMUL_COMBINE:
        return &combine_phases;
    case MOE_NET_MATMUL_DW:
        return op->out[1] == MOE_NET_NONE ? &dw_phases : &dw_bias_phases;
    case MOE_NET_GROUP:
        return &group_phases;
    case MOE_NET_GROUP_SUM:
        return &group_sum_phases;
    case MOE_NET_ACT:
        return &act_phases;
    case MOE_NET_ACT_BACKWARD:
        return &act_backward_phases;
    case MOE_NET_GLU:
        return &glu_phases;
    case MOE_NET_GLU_BACKWARD:
        return &glu_backward_phases;
    case MOE_NET_SCALE_ROWS:
        return &scale_rows_phases;
    case MOE_NET_ROW_DOT:
        return &row_dot_phases;
    case MOE_NET_SUM_SLOTS:
        return &sum_slots_phases;
    case MOE_NET_REDUCE:
        return &reduce_phases;
    case MOE_NET_SUM_SQUARES:
        return &sum_squares_phases;
    case MOE_NET_STEP:
        return &step_phases;
    case MOE_NET_ROUND:
        return &round_phases;
    case MOE_NET_IOTA:
    case MOE_NET_SELECT:
    case MOE_NET_SELECT_BACKWARD:
    case MOE_NET_NOISE:
    case MOE_NET_NOISE_BACKWARD:
    case MOE_NET_SOFTMAX:
    case MOE_NET_SOFTMAX_BACKWARD:
    case MOE_NET_SHARE:
    case MOE_NET_SHARE_BACKWARD:
    case MOE_NET_NORM:
    case MOE_NET_NORM_BACKWARD:
    case MOE_NET_NORM_DGAIN:
    case MOE_NET_DROPOUT:
    case MOE_NET_POOL:
    case MOE_NET_POOL_BACKWARD:
    case MOE_NET_CROSS_ENTROPY:
    case MOE_NET_POINT_LOSS:
    case MOE_NET_MIXTURE_NLL:
    case MOE_NET_BALANCE:
    case MOE_NET_Z_LOSS:
    case MOE_NET_FILL:
    case MOE_NET_CLIP:
    case MOE_NET_COUNT:
    case MOE_NET_BALANCE_BIAS:
        return &text_phases;
    }
    assert(!"not an op");
    return &text_phases;
}

// ---- what the phases need --------------------------------------------------------------------

static uint64_t most_rows(const struct moe_net *net, uint32_t tensor)
{
    return moe_net_rows(&net->tensors[tensor], net->max_tokens, net->max_examples);
}

// Adds the needs of an op. Sizes cannot overflow: each is at most that of tensors in the arena,
// but for what slots give, whose product is checked.
static bool add_needs(const struct moe_net *net, const struct moe_net_op *op,
                      const struct op_phases *phases, struct cpu_net_needs *needs)
{
    uint64_t size = 0;
    if (phases == &combine_phases &&
        !moe_mul(most_rows(net, op->in[0]), net->tensors[op->out[0]].width, &size))
        return false;
    if (phases == &reduce_phases || phases == &sum_squares_phases)
        size = moe_div_up(most_rows(net, op->in[0]) * net->tensors[op->in[0]].width,
                          CPU_SUM_BLOCK);
    if (phases == &matmul_phases || phases == &combine_phases)
        needs->n_groups = moe_max(needs->n_groups, moe_cpu_product_groups(net, op));
    needs->scratch_size = moe_max(needs->scratch_size, size);
    return true;
}

static uint32_t n_phases(const struct op_phases *phases)
{
    return phases->prepare[1] ? 2 : 1;
}

static enum vkmoe_status compile_program(struct cpu_net *net, enum moe_net_program which,
                                         struct cpu_net_needs *needs)
{
    const struct moe_net_ops *ops = &net->base.net->programs[which];
    struct cpu_net_phases *program = &net->programs[which];
    enum vkmoe_status status =
        moe_try_alloc(net->base.device->host, (size_t) ops->n * MAX_PHASES *
                      sizeof *program->phases, "a network's phases", &program->phases);
    if (status != VKMOE_OK)
        return status;
    for (uint32_t i = 0; i < ops->n; i++) {
        const struct op_phases *phases = phases_of(&ops->ops[i]);
        if (!add_needs(net->base.net, &ops->ops[i], phases, needs))
            return moe_fail(VKMOE_E_MEMORY, "%s: its work memory is beyond the address space",
                            moe_net_op_name(ops->ops[i].kind));
        for (uint32_t p = 0; p < n_phases(phases); p++)
            program->phases[program->n++] = (struct cpu_net_phase){
                &ops->ops[i], phases->prepare[p], phases->task[p]};
    }
    return VKMOE_OK;
}

enum vkmoe_status moe_cpu_net_compile(struct cpu_net *net, struct cpu_net_needs *needs)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t p = 0; p < MOE_NET_N_PROGRAMS && status == VKMOE_OK; p++)
        status = compile_program(net, (enum moe_net_program) p, needs);
    return status;
}
