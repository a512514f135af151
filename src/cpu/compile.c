// SPDX-License-Identifier: MIT
// Graph -> program. Ops are fused here and nowhere else: all banks of experts share their phases,
// and the output side adds into the sum at once, so that a layer's experts are two phases and every
// weight is read once.
//
// Operands of matrices follow from the precision and their type (operand.c). A first phase widens
// 16-bit rows of x and makes the other operands of it that experts read; hidden rows are stored as
// operands at once. The task that has added up a part of y rounds it.
#include "cpu/cpu.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "cpu/route.h"

#include <assert.h>

static const struct cpu_phase widen_phase = {"widen", moe_cpu_x_prepare, moe_cpu_x_task};
static const struct cpu_phase operands_phase = {"operands", moe_cpu_x_prepare, moe_cpu_x_task};
static const struct cpu_phase logits_phase = {"logits", moe_cpu_logits_prepare,
                                              moe_cpu_logits_task};
static const struct cpu_phase select_phase = {"select", moe_cpu_select_prepare,
                                              moe_cpu_select_task};
static const struct cpu_phase group_phase = {"group", moe_cpu_one_prepare, moe_cpu_group_task};
static const struct cpu_phase rows_phase = {"rows", moe_cpu_rows_prepare, moe_cpu_rows_task};
static const struct cpu_phase router_rows_phase = {"router rows", moe_cpu_router_rows_prepare,
                                                   moe_cpu_router_rows_task};
static const struct cpu_phase capacity_phase = {"capacity", moe_cpu_capacity_prepare,
                                                moe_cpu_capacity_task};
static const struct cpu_phase latent_in_phase = {"latent in", moe_cpu_latent_in_prepare,
                                                 moe_cpu_latent_in_task};
static const struct cpu_phase latent_operands_phase = {
    "latent operands", moe_cpu_latent_x_prepare, moe_cpu_latent_x_task};
static const struct cpu_phase latent_norm_phase = {"latent norm", moe_cpu_latent_norm_prepare,
                                                   moe_cpu_latent_norm_task};
static const struct cpu_phase latent_out_phase = {"latent out", moe_cpu_latent_out_prepare,
                                                  moe_cpu_out_task};
static const struct cpu_phase in_phase = {"expert in", moe_cpu_in_prepare, moe_cpu_in_task};
static const struct cpu_phase sort_phase = {"group", moe_cpu_one_prepare, moe_cpu_sort_task};
static const struct cpu_phase gather_phase = {"gather", moe_cpu_gather_prepare,
                                              moe_cpu_gather_task};
static const struct cpu_phase place_phase = {"place", moe_cpu_one_prepare, moe_cpu_place_task};
static const struct cpu_phase combine_rows_phase = {"combine rows", moe_cpu_combine_rows_prepare,
                                                    moe_cpu_combine_rows_task};
static const struct cpu_phase out_phase = {"expert out", moe_cpu_out_prepare, moe_cpu_out_task};

static void add_phase(struct cpu_program *program, const struct cpu_phase *phase)
{
    assert(program->n_phases < CPU_MAX_PHASES);
    program->phases[program->n_phases++] = *phase;
}

static void compile_op(struct cpu_program *program, const struct moe_op *op)
{
    const vkmoe_layer_desc *layer = &program->base.graph.layer.desc;
    const bool widens = program->base.x_type != VKMOE_F32;
    switch (op->kind) {
    case MOE_OP_ROUTE:
        if (layer->router_prenorm || (layer->router_input && widens))
            add_phase(program, &router_rows_phase);
        add_phase(program, &logits_phase);
        add_phase(program, &select_phase);
        return;
    case MOE_OP_CAPACITY:
        add_phase(program, &capacity_phase);
        return;
    case MOE_OP_LATENT_IN:
        add_phase(program, &latent_in_phase);
        if (program->latent_operands)
            add_phase(program, &latent_operands_phase);
        return;
    case MOE_OP_GROUP: // those of all banks are made at once
        if (op->bank == MOE_BANK_ROUTED)
            add_phase(program, program->base.graph.operation == VKMOE_OPERATION_GATHER
                                   ? &sort_phase : &group_phase);
        if (op->bank == MOE_BANK_ROUTED && program->gathers)
            add_phase(program, &rows_phase);
        return;
    case MOE_OP_EXPERT_IN: // the routed bank's phase does the others too
        if (op->bank == MOE_BANK_ROUTED)
            add_phase(program, &in_phase);
        return;
    case MOE_OP_EXPERT_OUT: // part of COMBINE's phase
        return;
    case MOE_OP_COMBINE:
        add_phase(program, &out_phase);
        return;
    case MOE_OP_LATENT_OUT:
        if (layer->latent_norm)
            add_phase(program, &latent_norm_phase);
        add_phase(program, &latent_out_phase);
        return;
    case MOE_OP_GATHER:
        add_phase(program, &gather_phase);
        return;
    case MOE_OP_PLACE:
        add_phase(program, &place_phase);
        return;
    case MOE_OP_COMBINE_ROWS:
        add_phase(program, &combine_rows_phase);
        return;
    }
    assert(!"not an op");
}

static enum vkmoe_status check_params(const struct moe_graph *graph,
                                      const struct moe_program_params *params)
{
    if (params->variant)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "plan.variant = \"%s\": the CPU has no variants to choose from",
                        params->variant);
    uint64_t n_rows = (uint64_t) params->max_tokens * (graph->layer.desc.top_k + 2ull);
    if (n_rows > UINT32_MAX)
        return moe_fail(VKMOE_E_SHAPE, "%u tokens with top_k %u are more than %u rows of experts",
                        params->max_tokens, graph->layer.desc.top_k, UINT32_MAX);
    return VKMOE_OK;
}

// What experts are multiplied with, and what that asks of their inputs.
static void choose_operands(struct cpu_program *program)
{
    const struct cpu_kernels *kernels =
        &((const struct cpu_device *) program->base.device)->kernels;
    const struct moe_graph *graph = &program->base.graph;
    const vkmoe_layer_desc *layer = &graph->layer.desc;
    for (uint32_t type = 0; type < CPU_N_WEIGHTS; type++)
        program->operands[type] =
            moe_cpu_operand(kernels, program->base.precision, (enum vkmoe_dtype) type);
    if (!moe_graph_uses(graph, MOE_VALUE_H))
        return;
    const uint32_t f32 = 1u << CPU_OPERAND_F32;
    const uint32_t routed = 1u << program->operands[layer->in_type]; // adjugate experts, too
    const uint32_t shared =
        layer->d_shared_ff > 0 ? 1u << program->operands[layer->shared_in_type] : 0;
    const bool is_latent = layer->d_latent > 0;
    const size_t stride = layer->d_model * sizeof(float);
    program->x_operands = (is_latent ? shared : routed | shared) & ~f32;
    program->latent_operands = is_latent ? routed & ~f32 : 0;
    program->gathers = kernels->even_rows[program->operands[layer->in_type]] &&
                       program->base.max_tokens >= CPU_GATHER_TOKENS;
    if (program->base.x_type == VKMOE_F32 && moe_cpu_copies_x(program->base.max_tokens, stride))
        program->x_operands |= f32;
}

// A phase of x before all ops.
static void add_x_phase(struct cpu_program *program)
{
    const struct moe_graph *graph = &program->base.graph;
    if (program->x_operands)
        add_phase(program, &operands_phase);
    else if (program->base.x_type != VKMOE_F32 && moe_graph_has_input(graph, MOE_VALUE_X) &&
             !moe_operation_is_whole(graph->operation))
        add_phase(program, &widen_phase);
}

enum vkmoe_status moe_cpu_program_create(struct moe_device *device, const struct moe_graph *graph,
                                         const struct moe_program_params *params,
                                         struct moe_program **out)
{
    *out = NULL;
    assert(graph->layer.desc.n_experts <= MOE_MAX_EXPERTS);
    struct cpu_program *program;
    enum vkmoe_status status;
    TRY(check_params(graph, params));
    TRY(moe_try_alloc(device->host, sizeof *program, "program", &program));
    program->base.device = device;
    program->base.graph = *graph;
    program->base.max_tokens = params->max_tokens;
    program->base.precision = params->precision;
    program->base.x_type = params->x_type;
    program->counters = params->counters;
    choose_operands(program);
    add_x_phase(program);
    for (uint32_t i = 0; i < graph->n_ops; i++)
        compile_op(program, &graph->ops[i]);
    *out = &program->base;
    return VKMOE_OK;

fail:
    return status;
}

void moe_cpu_program_kernels(const struct moe_program *program, vkmoe_plan_kernels *out)
{
    static const enum vkmoe_arithmetic arithmetics[CPU_N_OPERANDS] = {
        VKMOE_ARITHMETIC_F32, VKMOE_ARITHMETIC_BF16, VKMOE_ARITHMETIC_INT8};
    const struct cpu_device *device = (const struct cpu_device *) program->device;
    const enum cpu_operand *operands = ((const struct cpu_program *) program)->operands;
    struct cpu_expert_layout l;
    moe_cpu_expert_layout(&l, &program->graph.layer, 0);
    const uint64_t operand = moe_max(operands[l.in_type], operands[l.out_type]);
    *out = (vkmoe_plan_kernels){
        .name = moe_cpu_isa_name(device->isa),
        .arithmetic = device->kernels.peak[operand] ? arithmetics[operand] : VKMOE_ARITHMETIC_F32,
        .weights_size = (l.gated ? 2 : 1) * l.n_in_panels * l.in_panel_size +
                        l.n_out_panels * l.out_panel_size,
    };
}

void moe_cpu_program_destroy(struct moe_program *program)
{
    if (program)
        moe_free(program->device->host, program);
}
