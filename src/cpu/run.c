// SPDX-License-Identifier: MIT
// Binds and runs: the workspace, the cutting of work into tasks, and the walk over the phases.
#include "cpu/cpu.h"

#include "base/bits.h"
#include "base/clock.h"
#include "base/host.h"
#include "base/status.h"

#include <string.h>

struct cpu_grid moe_cpu_grid(uint32_t n_rows, uint32_t most_rows, uint32_t n_panels, uint64_t macs)
{
    struct cpu_grid grid = {.n_rows = n_rows, .n_panels = n_panels};
    grid.n_tiles = (uint32_t) moe_div_up(n_rows, most_rows);
    grid.tile_rows = (uint32_t) moe_div_up(n_rows, grid.n_tiles);
    grid.n_tiles = (uint32_t) moe_div_up(n_rows, grid.tile_rows);
    uint64_t panels = moe_min(moe_div_up(CPU_TASK_MACS, macs * grid.tile_rows), n_panels);
    grid.n_blocks = (uint32_t) moe_div_up(n_panels, panels);
    grid.block_panels = (uint32_t) moe_div_up(n_panels, grid.n_blocks);
    grid.n_blocks = (uint32_t) moe_div_up(n_panels, grid.block_panels);
    return grid;
}

// The parts of the workspace, one behind the other, each aligned for vectors.
struct layout {
    uint64_t size;
    bool overflow;
};

static uint64_t reserve(struct layout *layout, uint64_t n, uint64_t width, uint64_t element_size)
{
    uint64_t offset = layout->size, size;
    layout->overflow |= !moe_mul(n, width, &size) || !moe_mul(size, element_size, &size) ||
                        size > SIZE_MAX / 4 - offset;
    if (!layout->overflow)
        layout->size = moe_align_up(offset + size, MOE_HOST_ALIGN);
    return offset;
}

// One array of the workspace: n rows of `width` elements of `size` bytes, to be found at *to. None
// where n is 0: *to stays NULL.
struct array {
    void *to;
    uint64_t n, width;
    size_t size;
};

enum { MAX_ARRAYS = 24 };

// Those of the operations that go over all slots.
static uint32_t list_slot_arrays(struct cpu_bind *bind, struct array arrays[MAX_ARRAYS])
{
    const struct moe_program *program = bind->base.program;
    const vkmoe_layer_desc *layer = &program->graph.layer.desc;
    const uint64_t n_slots = (uint64_t) program->max_tokens * layer->top_k;
    const bool places = moe_graph_uses(&program->graph, MOE_VALUE_POSITIONS);
    arrays[0] = (struct array){&bind->positions, places ? n_slots : 0, 1, sizeof(uint32_t)};
    arrays[1] = (struct array){&bind->starts, layer->n_experts + 2ull, 1, sizeof(uint32_t)};
    return 2;
}

// Rows of an input in the operands of a mask.
static uint32_t list_operands(struct cpu_input *input, uint32_t operands, uint64_t n_tokens,
                              uint32_t width, struct array *arrays)
{
    uint32_t n = 0;
    for (uint32_t operand = 0; operand < CPU_N_OPERANDS; operand++)
        if (operands & 1u << operand)
            arrays[n++] = (struct array){
                &input->own[operand], n_tokens,
                moe_cpu_operand_stride((enum cpu_operand) operand, width), 1};
    return n;
}

// Bytes from row to row of what a bank's out-panels read.
static size_t hidden_stride(const struct cpu_bind *bind, const struct cpu_expert_layout *layout)
{
    return moe_cpu_hidden_stride(layout, moe_cpu_bind_program(bind)->operands[layout->out_type]);
}

// All arrays that the bind's layer needs; returns how many.
static uint32_t list_arrays(struct cpu_bind *bind, struct array arrays[MAX_ARRAYS])
{
    const struct moe_program *program = bind->base.program;
    const struct moe_graph *graph = &program->graph;
    const struct cpu_weights *w = moe_cpu_bind_weights(bind);
    const vkmoe_layer_desc *layer = &graph->layer.desc;
    const uint64_t n_tokens = program->max_tokens, n_slots = n_tokens * layer->top_k;
    const uint64_t n_rows = moe_graph_uses(graph, MOE_VALUE_H) ? n_slots : 0;
    const uint64_t n_shared = moe_graph_uses(graph, MOE_VALUE_H_SHARED) ? n_tokens : 0;
    const uint64_t n_latent = moe_graph_uses(graph, MOE_VALUE_X_LATENT) ? n_tokens : 0;
    const uint64_t n_adjugate = moe_graph_uses(graph, MOE_VALUE_H_ADJUGATE) ? n_slots : 0;
    const uint64_t n_sorted = layer->capacity_mode == VKMOE_CAPACITY_BY_GATE ? n_slots : 0;
    const uint64_t n_wide =
        program->x_type != VKMOE_F32 && moe_graph_uses(graph, MOE_VALUE_X) ? n_tokens : 0;
    const size_t x_stride = moe_cpu_operand_stride(CPU_OPERAND_F32, layer->d_model);
    const size_t y_stride = moe_cpu_operand_stride(CPU_OPERAND_F32, layer->d_out);
    const uint64_t n_scored = moe_layer_n_scored(layer);
    const struct cpu_program *p = moe_cpu_bind_program(bind);
    const bool has_rows = layer->router_prenorm ||
                          (layer->router_input && program->x_type != VKMOE_F32);
    // Identity experts of x read it while y is added up.
    const bool apart = layer->n_zero > 0 && layer->d_latent == 0;
    const struct array all[] = {
        {&bind->logits, n_tokens, w->n_router_panels * CPU_PANEL, sizeof(float)},
        {&bind->ids, n_slots, 1, sizeof(int32_t)},
        {&bind->gates, n_slots, 1, sizeof(float)},
        {&bind->factors, n_tokens, 2, sizeof(float)},
        {&bind->keys, n_sorted, 1, sizeof(uint64_t)},
        {&bind->slots, n_sorted, 1, sizeof(uint32_t)},
        {&bind->rows, n_rows + n_shared + n_latent, 1, sizeof(struct cpu_row)},
        {&bind->starts, n_scored + 2, 1, sizeof(uint32_t)},
        {&bind->groups, n_scored + layer->n_experts + 2, 1, sizeof(struct cpu_group)},
        {&bind->h, n_rows, hidden_stride(bind, &w->routed), 1},
        {&bind->h_adjugate, n_adjugate, hidden_stride(bind, &w->adjugate), 1},
        {&bind->h_shared, n_shared, hidden_stride(bind, &w->shared), 1},
        {&bind->x_rows, p->gathers ? n_slots : 0,
         moe_cpu_operand_stride(p->operands[layer->in_type], moe_layer_routed_in(layer)), 1},
        {&bind->router_rows, has_rows ? n_tokens : 0, x_stride, 1},
        {&bind->x_latent, n_latent, moe_cpu_hidden_stride(&w->latent, CPU_OPERAND_F32), 1},
        {&bind->r_latent, n_latent, moe_cpu_hidden_stride(&w->latent, CPU_OPERAND_F32), 1},
        {&bind->wide, n_wide, apart ? x_stride : moe_max(x_stride, y_stride), 1},
        {&bind->wide_y, apart ? n_wide : 0, y_stride, 1},
    };
    memcpy(arrays, all, sizeof all);
    uint32_t n = MOE_COUNT(all);
    n += list_operands(&bind->x, p->x_operands, n_tokens, layer->d_model, arrays + n);
    n += list_operands(&bind->latent, p->latent_operands, n_tokens, layer->d_latent, arrays + n);
    return n;
}

static enum vkmoe_status alloc_workspace(struct cpu_bind *bind)
{
    const struct moe_program *program = bind->base.program;
    struct array arrays[MAX_ARRAYS];
    uint64_t offsets[MAX_ARRAYS];
    struct layout l = {0};
    const uint32_t n = moe_operation_is_whole(program->graph.operation)
                           ? list_slot_arrays(bind, arrays) : list_arrays(bind, arrays);
    for (uint32_t i = 0; i < n; i++)
        offsets[i] = reserve(&l, arrays[i].n, arrays[i].width, arrays[i].size);
    if (l.overflow)
        return moe_fail(VKMOE_E_MEMORY, "workspace for %u tokens is beyond the address space",
                        program->max_tokens);

    enum vkmoe_status status =
        moe_try_alloc(program->device->host, (size_t) l.size, "workspace", &bind->memory);
    if (status != VKMOE_OK)
        return status;
    for (uint32_t i = 0; i < n; i++) {
        char *here = arrays[i].n > 0 ? (char *) bind->memory + offsets[i] : NULL;
        memcpy(arrays[i].to, &here, sizeof here);
    }
    return VKMOE_OK;
}

enum vkmoe_status moe_cpu_bind_create(struct moe_program *program,
                                      struct moe_packed_weights *weights,
                                      const vkmoe_vk_io *vk_io, struct moe_bound **out)
{
    (void) vk_io;
    *out = NULL;
    struct cpu_bind *bind = NULL;
    enum vkmoe_status status;
    TRY(moe_try_alloc(program->device->host, sizeof *bind, "bind", &bind));
    bind->base.program = program;
    bind->base.weights = weights;
    bind->kernels = &((const struct cpu_device *) program->device)->kernels;
    if (moe_cpu_bind_program(bind)->counters)
        TRY(moe_try_alloc(program->device->host, sizeof *bind->counts, "counters", &bind->counts));
    TRY(alloc_workspace(bind));
    *out = &bind->base;
    return VKMOE_OK;

fail:
    if (bind)
        moe_cpu_bind_destroy(&bind->base);
    return status;
}

void moe_cpu_bind_destroy(struct moe_bound *bound)
{
    struct cpu_bind *bind = (struct cpu_bind *) bound;
    if (!bind)
        return;
    const vkmoe_host *host = bind->base.program->device->host;
    moe_free(host, bind->memory);
    moe_free(host, bind->counts);
    moe_free(host, bind);
}

// Where experts find x.
static void set_inputs(struct cpu_bind *bind, const vkmoe_io *io)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    struct cpu_values *f32 = &bind->x.as[CPU_OPERAND_F32], *half = &bind->x.as[CPU_OPERAND_BF16];
    moe_cpu_set_input(&bind->x, layer->d_model);
    if (bind->wide)
        f32->rows = bind->wide;
    else if (!f32->rows || !moe_cpu_copies_x(bind->n_tokens, io->x_stride))
        *f32 = (struct cpu_values){io->x, io->x_stride};
    if (half->rows && bind->base.program->x_type == VKMOE_BF16 && layer->d_model % 2 == 0 &&
        ((uintptr_t) io->x | io->x_stride) % 4 == 0)
        *half = (struct cpu_values){io->x, io->x_stride}; // just what kernels read
    moe_cpu_set_input(&bind->latent, layer->d_latent);
    if (bind->x_latent)
        bind->latent.as[CPU_OPERAND_F32] = (struct cpu_values){
            bind->x_latent, moe_cpu_hidden_stride(&moe_cpu_bind_weights(bind)->latent,
                                                  CPU_OPERAND_F32)};
}

// Where the phases find x and leave the sums of y.
static void set_rows(struct cpu_bind *bind, const vkmoe_io *io)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    char *sums = bind->wide_y ? bind->wide_y : bind->wide;
    bind->io = io;
    set_inputs(bind, io);
    bind->y = bind->wide ? sums : io->y;
    bind->y_stride = bind->wide ? moe_cpu_operand_stride(CPU_OPERAND_F32, layer->d_out)
                                : io->y_stride;
    bind->router_x = bind->x.as[CPU_OPERAND_F32].rows;
    bind->router_x_stride = bind->x.as[CPU_OPERAND_F32].stride;
    if (bind->router_rows) {
        bind->router_x = bind->router_rows;
        bind->router_x_stride = moe_cpu_operand_stride(CPU_OPERAND_F32, layer->d_model);
    } else if (layer->router_input) {
        bind->router_x = io->router_x;
        bind->router_x_stride = io->router_x_stride;
    }
}

uint32_t moe_cpu_cut_tokens(struct cpu_bind *bind, uint32_t n_elements, uint32_t width)
{
    bind->block_tokens = (uint32_t) moe_div_up(n_elements, width);
    return (uint32_t) moe_div_up(bind->n_tokens, bind->block_tokens);
}

void moe_cpu_parallel(const struct cpu_device *device, uint32_t n, moe_task_fn *task, void *arg)
{
    const vkmoe_host *host = device->base.host;
    if (n == 1)
        task(arg, 0);
    else if (host->parallel_for)
        host->parallel_for(host->user, n, task, arg);
    else
        moe_pool_run(device->pool, n, task, arg);
}

static void run_task(void *arg, uint32_t i)
{
    struct cpu_bind *bind = arg;
    bind->phase->task(bind, i);
}

static void run_counted_task(void *arg, uint32_t i)
{
    struct cpu_bind *bind = arg;
    moe_cpu_count(&bind->counts->tasks, 1);
    bind->phase->task(bind, i);
}

static void begin_run(struct cpu_bind *bind, uint32_t n_tokens, const vkmoe_io *io)
{
    bind->n_tokens = n_tokens;
    set_rows(bind, io);
    if (bind->counts)
        memset(bind->counts, 0, sizeof *bind->counts);
}

static void run_phase(struct cpu_bind *bind, const struct cpu_phase *phase)
{
    moe_task_fn *const task = bind->counts ? run_counted_task : run_task;
    bind->phase = phase;
    bind->alone = false;
    const uint32_t n = phase->prepare(bind);
    if (bind->counts && n > 0)
        bind->counts->phases++;
    if (!bind->alone && n > 0) {
        moe_cpu_parallel((const struct cpu_device *) bind->base.program->device, n, task, bind);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        task(bind, i);
}

enum vkmoe_status moe_cpu_run(struct moe_bound *bound, uint32_t n_tokens, const vkmoe_io *io)
{
    struct cpu_bind *bind = (struct cpu_bind *) bound;
    const struct cpu_program *program = moe_cpu_bind_program(bind);
    begin_run(bind, n_tokens, io);
    for (uint32_t p = 0; p < program->n_phases; p++)
        run_phase(bind, &program->phases[p]);
    return VKMOE_OK;
}

void moe_cpu_counters(const struct moe_bound *bound, vkmoe_counters *out)
{
    const struct cpu_counts *counts = ((const struct cpu_bind *) bound)->counts;
    *out = (vkmoe_counters){
        .weight_loads = atomic_load_explicit(&counts->weight_loads, memory_order_relaxed),
        .router_loads = atomic_load_explicit(&counts->router_loads, memory_order_relaxed),
        .live_columns = atomic_load_explicit(&counts->columns, memory_order_relaxed),
        .workgroups = atomic_load_explicit(&counts->tasks, memory_order_relaxed),
        .dispatches = counts->phases,
    };
}

enum vkmoe_status moe_cpu_time_phases(struct moe_bound *bound, uint32_t n_tokens,
                                      const vkmoe_io *io, vkmoe_dispatch_time *times, uint32_t *n)
{
    struct cpu_bind *bind = (struct cpu_bind *) bound;
    const struct cpu_program *program = moe_cpu_bind_program(bind);
    const uint32_t room = *n;
    *n = program->n_phases;
    if (!times)
        return VKMOE_OK;
    begin_run(bind, n_tokens, io);
    for (uint32_t p = 0; p < program->n_phases; p++) {
        const struct cpu_phase *phase = &program->phases[p];
        double begin = moe_seconds();
        run_phase(bind, phase);
        if (p < room)
            times[p] = (vkmoe_dispatch_time){phase->name, moe_seconds() - begin};
    }
    return VKMOE_OK;
}
