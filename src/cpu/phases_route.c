// SPDX-License-Identifier: MIT
// From x to each token's experts and to each expert's rows.
#include "cpu/cpu.h"

#include "base/bits.h"
#include "core/dtype.h"
#include "cpu/act.h"
#include "cpu/route.h"

#include <string.h>

// ---- widen: 16-bit rows of x to f32 ----------------------------------------------------------

uint32_t moe_cpu_widen_prepare(struct cpu_bind *bind)
{
    const uint32_t elements = 16384; // in one task: enough that it is worth handing out
    bind->block_tokens = (uint32_t) moe_div_up(elements, moe_cpu_bind_layer(bind)->d_model);
    return (uint32_t) moe_div_up(bind->n_tokens, bind->block_tokens);
}

void moe_cpu_widen_task(struct cpu_bind *bind, uint32_t i)
{
    const uint32_t d_model = moe_cpu_bind_layer(bind)->d_model, first = i * bind->block_tokens;
    uint32_t end = (uint32_t) moe_min(bind->n_tokens, (uint64_t) first + bind->block_tokens);
    for (uint32_t t = first; t < end; t++)
        moe_dtype_decode(bind->base.program->x_type,
                         (const char *) bind->io->x + (size_t) t * bind->io->x_stride, d_model,
                         bind->wide + (size_t) t * d_model);
}

// ---- logits: x times the router's panels -----------------------------------------------------

static uint32_t logits_stride(const struct cpu_bind *bind)
{
    return moe_cpu_bind_weights(bind)->n_router_panels * CPU_PANEL;
}

uint32_t moe_cpu_logits_prepare(struct cpu_bind *bind)
{
    const struct cpu_weights *w = moe_cpu_bind_weights(bind);
    uint64_t macs = (uint64_t) moe_cpu_bind_layer(bind)->d_model * CPU_PANEL;
    bind->grid = moe_cpu_grid(bind->n_tokens, w->n_router_panels, macs);
    return bind->grid.n_tiles * bind->grid.n_blocks;
}

void moe_cpu_logits_task(struct cpu_bind *bind, uint32_t i)
{
    const struct cpu_weights *w = moe_cpu_bind_weights(bind);
    const uint32_t d_model = moe_cpu_bind_layer(bind)->d_model, stride = logits_stride(bind);
    const struct cpu_range tokens = moe_cpu_grid_rows(&bind->grid, i);
    const struct cpu_range panels = moe_cpu_grid_panels(&bind->grid, i);
    const uint32_t n = tokens.end - tokens.begin;
    const float *x[CPU_TILE_ROWS];
    _Alignas(64) float out[CPU_TILE_ROWS * CPU_PANEL];

    for (uint32_t r = 0; r < n; r++)
        x[r] = moe_cpu_x_row(bind, tokens.begin + r);
    for (uint32_t p = panels.begin; p < panels.end; p++) {
        const float *bias = w->router_bias + (size_t) p * CPU_PANEL;
        if (bind->counts)
            moe_cpu_count(&bind->counts->router_loads, d_model * CPU_PANEL * sizeof *w->router);
        bind->kernels->panel[VKMOE_F32](x, n, w->router + (size_t) p * d_model * CPU_PANEL,
                                        d_model, out);
        for (uint32_t r = 0; r < n; r++) {
            float *logits = bind->logits + (size_t) (tokens.begin + r) * stride + p * CPU_PANEL;
            for (uint32_t c = 0; c < CPU_PANEL; c++)
                logits[c] = out[r * CPU_PANEL + c] + bias[c];
        }
    }
}

// ---- select: each token's experts and gate weights -------------------------------------------

uint32_t moe_cpu_select_prepare(struct cpu_bind *bind)
{
    // Scores in one task: enough that a task is worth handing out.
    const uint32_t scores = 2048;
    uint32_t n_experts = moe_cpu_bind_layer(bind)->n_experts;
    bind->block_tokens = (uint32_t) moe_div_up(scores, n_experts);
    return (uint32_t) moe_div_up(bind->n_tokens, bind->block_tokens);
}

static void select_token(struct cpu_bind *bind, uint32_t token)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const vkmoe_io *io = bind->io;
    const size_t first_slot = (size_t) token * layer->top_k;
    const float *logits = bind->logits + (size_t) token * logits_stride(bind);
    int32_t *ids = bind->ids + first_slot;
    float *gates = bind->gates + first_slot;
    float ranking[MOE_MAX_EXPERTS];

    moe_cpu_route(layer, logits, moe_cpu_bind_weights(bind)->selection_bias, ids, gates, ranking);
    bind->shared_gate[token] = layer->shared_gate == VKMOE_SHARED_SIGMOID
                                   ? moe_cpu_sigmoid(logits[layer->n_experts])
                                   : 1.0f;
    if (io->ids)
        memcpy(io->ids + first_slot, ids, layer->top_k * sizeof *ids);
    if (io->gates)
        memcpy(io->gates + first_slot, gates, layer->top_k * sizeof *gates);
    if (io->scores)
        memcpy(io->scores + (size_t) token * layer->n_experts, ranking,
               layer->n_experts * sizeof *ranking);
}

void moe_cpu_select_task(struct cpu_bind *bind, uint32_t i)
{
    uint32_t first = i * bind->block_tokens;
    uint32_t end = (uint32_t) moe_min(bind->n_tokens, (uint64_t) first + bind->block_tokens);
    for (uint32_t token = first; token < end; token++)
        select_token(bind, token);
}

// ---- group: slots sorted by expert -----------------------------------------------------------

// Stable counting sort, so that the rows of an expert keep the order of the tokens. Leaves in
// starts[e] where the rows of expert e begin, and in starts[n_experts] where all end.
static void sort_slots(struct cpu_bind *bind)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const uint32_t n = layer->n_experts, n_slots = bind->n_tokens * layer->top_k;
    const float scale = layer->out_scale * layer->c_routed;
    uint32_t *next = bind->starts + 1; // next[e] is starts[e + 1] once all its rows are placed

    memset(bind->starts, 0, (n + 2) * sizeof *bind->starts);
    for (uint32_t slot = 0; slot < n_slots; slot++)
        next[bind->ids[slot] + 1]++;
    for (uint32_t e = 0; e < n; e++)
        next[e + 1] += next[e];
    for (uint32_t slot = 0; slot < n_slots; slot++)
        bind->rows[next[bind->ids[slot]]++] =
            (struct cpu_row){slot / layer->top_k, scale * bind->gates[slot]};
}

static void add_group(struct cpu_bind *bind, const struct cpu_expert_layout *layout,
                      const char *expert, uint32_t first_row, uint32_t n_rows, float *h,
                      uint32_t *n_tasks)
{
    struct cpu_group *group = &bind->groups[bind->n_groups++];
    uint64_t macs = (uint64_t) layout->d_model * CPU_PANEL * (layout->gated ? 2 : 1);
    *group = (struct cpu_group){
        .layout = layout,
        .expert = expert,
        .rows = bind->rows + first_row,
        .h = h,
        .in = moe_cpu_grid(n_rows, layout->n_in_panels, macs),
        .n_rows = n_rows,
        .h_stride = layout->n_in_panels * CPU_PANEL,
        .first_task = *n_tasks,
    };
    *n_tasks += group->in.n_tiles * group->in.n_blocks;
}

uint32_t moe_cpu_group_prepare(struct cpu_bind *bind)
{
    (void) bind;
    return 1;
}

void moe_cpu_group_task(struct cpu_bind *bind, uint32_t i)
{
    (void) i;
    const struct cpu_weights *w = moe_cpu_bind_weights(bind);
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const uint32_t h_stride = w->routed.n_in_panels * CPU_PANEL;
    uint32_t n_tasks = 0;
    sort_slots(bind);
    bind->n_groups = 0;
    for (uint32_t e = 0; e < layer->n_experts; e++) {
        uint32_t first = bind->starts[e], n = bind->starts[e + 1] - first;
        if (n > 0)
            add_group(bind, &w->routed, w->experts + e * w->routed.size, first, n,
                      bind->h + (size_t) first * h_stride, &n_tasks);
    }
    if (moe_layer_has_shared(&w->base.layer)) {
        const uint32_t n_slots = bind->starts[layer->n_experts];
        const float scale = layer->out_scale * layer->c_shared;
        for (uint32_t t = 0; t < bind->n_tokens; t++)
            bind->rows[n_slots + t] = (struct cpu_row){t, scale * bind->shared_gate[t]};
        add_group(bind, &w->shared, w->shared_expert, n_slots, bind->n_tokens,
                  bind->h + (size_t) n_slots * h_stride, &n_tasks);
    }
    bind->n_in_tasks = n_tasks;
}
