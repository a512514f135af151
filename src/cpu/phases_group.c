// SPDX-License-Identifier: MIT
// From each token's experts to each expert's rows.
#include "cpu/cpu.h"

#include "base/bits.h"
#include "cpu/route.h"

#include <string.h>

// ---- capacity: slots that an expert has no place for -----------------------------------------

uint32_t moe_cpu_capacity_prepare(struct cpu_bind *bind)
{
    const uint32_t n_rows = moe_cpu_bind_layer(bind)->capacity_rows;
    bind->block_tokens = n_rows > 0 ? n_rows : bind->n_tokens;
    return (uint32_t) moe_div_up(bind->n_tokens, bind->block_tokens);
}

static void drop(struct cpu_bind *bind, size_t slot)
{
    bind->ids[slot] = -1;
    bind->gates[slot] = 0.0f;
}

static void drop_by_position(struct cpu_bind *bind, struct cpu_range tokens, uint32_t n_places)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    uint32_t n_kept[MOE_MAX_EXPERTS] = {0};
    for (uint32_t k = 0; k < layer->top_k; k++) {
        for (uint32_t t = tokens.begin; t < tokens.end; t++) {
            const size_t slot = (size_t) t * layer->top_k + k;
            const uint32_t id = (uint32_t) bind->ids[slot]; // identity experts have no capacity
            if (id < layer->n_experts && ++n_kept[id] > n_places)
                drop(bind, slot);
        }
    }
}

// Sorts the slots of the block by expert, in token order, then keeps the best of each.
static void drop_by_gate(struct cpu_bind *bind, struct cpu_range tokens, uint32_t n_places)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const uint32_t first = tokens.begin * layer->top_k, end = tokens.end * layer->top_k;
    uint32_t *slots = bind->slots + first;
    uint64_t *keys = bind->keys + first;
    uint32_t next[MOE_MAX_EXPERTS + 1] = {0}, begin = 0;
    for (uint32_t slot = first; slot < end; slot++)
        if ((uint32_t) bind->ids[slot] < layer->n_experts)
            next[bind->ids[slot] + 1]++;
    for (uint32_t e = 0; e < layer->n_experts; e++)
        next[e + 1] += next[e];
    for (uint32_t slot = first; slot < end; slot++)
        if ((uint32_t) bind->ids[slot] < layer->n_experts)
            slots[next[bind->ids[slot]]++] = slot;
    for (uint32_t e = 0; e < layer->n_experts; begin = next[e++]) {
        const uint32_t n = next[e] - begin;
        if (n <= n_places)
            continue;
        for (uint32_t i = 0; i < n; i++)
            keys[i] = moe_cpu_sort_key(bind->gates[slots[begin + i]], slots[begin + i]);
        moe_cpu_keep_smallest(keys, n, n_places);
        for (uint32_t i = n_places; i < n; i++)
            drop(bind, (uint32_t) keys[i]);
    }
}

void moe_cpu_capacity_task(struct cpu_bind *bind, uint32_t i)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const struct cpu_range tokens = moe_cpu_block(bind, i);
    const uint32_t n_places = moe_layer_capacity(layer, tokens.end - tokens.begin);
    if (layer->capacity_mode == VKMOE_CAPACITY_BY_POSITION)
        drop_by_position(bind, tokens, n_places);
    else
        drop_by_gate(bind, tokens, n_places);
    for (uint32_t t = tokens.begin; layer->capacity_renorm && t < tokens.end; t++)
        moe_cpu_normalise(layer, moe_cpu_bind_weights(bind)->expert_scale,
                          bind->ids + (size_t) t * layer->top_k,
                          bind->gates + (size_t) t * layer->top_k);
    moe_cpu_store_choice(bind, tokens);
}

// ---- group: slots sorted by expert -----------------------------------------------------------

static struct cpu_row make_row(const struct cpu_bind *bind, uint32_t token, uint32_t slot)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const float gate = bind->gates[slot];
    // With a latent width the constants come behind latent_up.
    const float scale = layer->d_latent > 0 ? 1 : moe_cpu_routed_scale(bind, token);
    if (layer->weight_on_input && (uint32_t) bind->ids[slot] < layer->n_experts)
        return (struct cpu_row){token, gate, scale};
    return (struct cpu_row){token, 1, scale * gate};
}

// Stable counting sort, so that the rows of an expert keep the order of the tokens. Leaves in
// starts[e] where the rows of expert e begin, identity experts behind the others, and in starts[n]
// where all end.
static void sort_slots(struct cpu_bind *bind)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const uint32_t n = moe_layer_n_scored(layer), n_slots = bind->n_tokens * layer->top_k;
    uint32_t *next = bind->starts + 1; // next[e] is starts[e + 1] once all its rows are placed

    memset(bind->starts, 0, (n + 2) * sizeof *bind->starts);
    for (uint32_t slot = 0; slot < n_slots; slot++)
        if (bind->ids[slot] >= 0)
            next[bind->ids[slot] + 1]++;
    for (uint32_t e = 0; e < n; e++)
        next[e + 1] += next[e];
    for (uint32_t t = 0, slot = 0; t < bind->n_tokens; t++)
        for (uint32_t k = 0; k < layer->top_k; k++, slot++)
            if (bind->ids[slot] >= 0)
                bind->rows[next[bind->ids[slot]]++] = make_row(bind, t, slot);
}

// Hidden values of int8 are made 32 at a time: a task has pairs of panels then.
static struct cpu_grid in_grid(const struct cpu_expert_layout *l, uint32_t n,
                               enum cpu_operand h_operand)
{
    const uint64_t macs = (uint64_t) l->d_in * CPU_PANEL * (l->gated ? 2 : 1);
    if (h_operand != CPU_OPERAND_INT8)
        return moe_cpu_grid(n, CPU_TASK_ROWS, l->n_in_panels, macs);
    struct cpu_grid grid = moe_cpu_grid(n, CPU_TASK_ROWS, l->n_in_panels / 2, 2 * macs);
    grid.n_panels *= 2;
    grid.block_panels *= 2;
    return grid;
}

static struct cpu_group make_group(const struct cpu_bind *bind,
                                   const struct cpu_expert_layout *layout, const char *expert,
                                   uint32_t first, uint32_t n, enum cpu_operand x_operand,
                                   enum cpu_operand h_operand, char *h)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    return (struct cpu_group){
        .layout = layout,
        .expert = expert,
        .rows = bind->rows + first,
        .x_operand = x_operand,
        .h_operand = h_operand,
        .x = bind->x.as[x_operand],
        .h = h,
        .h_stride = moe_cpu_hidden_stride(layout, h_operand),
        .in = in_grid(layout, n, h_operand),
        .n_rows = n,
        .act = layer->act,
        .act_out = layer->act_out,
        .limit = layer->limit,
        .scale = 1,
    };
}

struct cpu_group moe_cpu_latent_group(const struct cpu_bind *bind, uint32_t first, char *h)
{
    const struct cpu_weights *w = moe_cpu_bind_weights(bind);
    return make_group(bind, &w->latent, w->latent_expert, first, bind->n_tokens, CPU_OPERAND_F32,
                      CPU_OPERAND_F32, h);
}

static struct cpu_group expert_group(const struct cpu_bind *bind,
                                     const struct cpu_expert_layout *layout, const char *expert,
                                     uint32_t first, uint32_t n, char *h)
{
    const enum cpu_operand *operands = moe_cpu_bind_program(bind)->operands;
    return make_group(bind, layout, expert, first, n, operands[layout->in_type],
                      operands[layout->out_type], h);
}

static void add_group(struct cpu_bind *bind, struct cpu_group group)
{
    group.first_task = bind->n_in_tasks;
    bind->n_in_tasks += group.in.n_tiles * group.in.n_blocks;
    bind->groups[bind->n_groups++] = group;
}

// What the routed experts read.
static struct cpu_values routed_x(const struct cpu_bind *bind, enum cpu_operand operand)
{
    return bind->x_latent ? bind->latent.as[operand] : bind->x.as[operand];
}

// The same by expert, where it is copied (moe_cpu_rows_task).
static bool gathers(const struct cpu_bind *bind)
{
    return bind->x_rows && bind->n_tokens >= CPU_GATHER_TOKENS;
}

static struct cpu_values gathered_x(const struct cpu_bind *bind, enum cpu_operand operand,
                                    uint32_t first)
{
    const uint32_t width = moe_layer_routed_in(moe_cpu_bind_layer(bind));
    const size_t stride = moe_cpu_operand_stride(operand, width);
    return (struct cpu_values){bind->x_rows + first * stride, stride};
}

// All of them, then the adjugate experts' rows again, then identity experts. The hidden rows of
// adjugate experts are behind those of the routed ones.
static void add_routed(struct cpu_bind *bind)
{
    const struct cpu_weights *w = moe_cpu_bind_weights(bind);
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const uint32_t n = layer->n_experts, *starts = bind->starts;
    for (uint32_t pass = 0; pass < (layer->adjugate_group > 0 ? 2 : 1); pass++) {
        const struct cpu_expert_layout *l = pass == 0 ? &w->routed : &w->adjugate;
        for (uint32_t e = 0; e < n; e++) {
            const uint32_t n_rows = starts[e + 1] - starts[e];
            if (n_rows == 0)
                continue;
            const char *expert = pass == 0 ? w->experts + e * l->size
                                           : w->adjugates + e / layer->adjugate_group * l->size;
            struct cpu_group group = expert_group(bind, l, expert, starts[e], n_rows,
                                                  pass == 0 ? bind->h : bind->h_adjugate);
            group.h += starts[e] * group.h_stride;
            group.gathered = gathers(bind);
            group.x = group.gathered ? gathered_x(bind, group.x_operand, starts[e])
                                     : routed_x(bind, group.x_operand);
            group.scale = pass == 0 ? 1 : layer->adjugate_scale;
            group.weighted = layer->weight_on_input;
            add_group(bind, group);
        }
    }
    for (uint32_t e = n; e < moe_layer_n_scored(layer); e++) {
        struct cpu_group group = {.rows = bind->rows + starts[e],
                                  .n_rows = starts[e + 1] - starts[e], .scale = 1,
                                  .x = routed_x(bind, CPU_OPERAND_F32)};
        if (group.n_rows > 0)
            add_group(bind, group);
    }
}

static void add_latent_up(struct cpu_bind *bind, uint32_t first_row)
{
    for (uint32_t t = 0; t < bind->n_tokens; t++)
        bind->rows[first_row + t] = (struct cpu_row){t, 1, moe_cpu_routed_scale(bind, t)};
    struct cpu_group group = moe_cpu_latent_group(bind, first_row, bind->r_latent);
    group.in.n_tiles = 0; // its rows are the sums of others
    group.act_out = VKMOE_ACT_NONE;
    add_group(bind, group);
}

static void add_shared(struct cpu_bind *bind, uint32_t first_row)
{
    const struct cpu_weights *w = moe_cpu_bind_weights(bind);
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const float scale = layer->out_scale * layer->c_shared;
    for (uint32_t t = 0; t < bind->n_tokens; t++)
        bind->rows[first_row + t] =
            (struct cpu_row){t, 1, scale * bind->factors[2 * (size_t) t + 1]};
    struct cpu_group group = expert_group(bind, &w->shared, w->shared_expert, first_row,
                                          bind->n_tokens, bind->h_shared);
    group.limit = layer->limit_shared;
    add_group(bind, group);
}

void moe_cpu_group_task(struct cpu_bind *bind, uint32_t i)
{
    (void) i;
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    uint32_t n_rows = bind->n_tokens * layer->top_k;
    sort_slots(bind);
    bind->n_groups = bind->n_in_tasks = 0;
    add_routed(bind);
    bind->n_routed = bind->n_groups;
    if (layer->d_latent > 0) {
        add_latent_up(bind, n_rows);
        n_rows += bind->n_tokens;
    }
    if (layer->d_shared_ff > 0)
        add_shared(bind, n_rows);
}

// ---- rows: what routed experts read, in the order of their rows ------------------------------

uint32_t moe_cpu_rows_prepare(struct cpu_bind *bind)
{
    enum { TASK_BYTES = 131072, ALONE_BYTES = 16384 };
    if (!gathers(bind))
        return 0;
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const uint32_t n_rows = bind->starts[layer->n_experts];
    const size_t size = moe_cpu_operand_size(moe_cpu_bind_program(bind)->operands[layer->in_type],
                                             moe_layer_routed_in(layer));
    bind->alone = n_rows * size <= ALONE_BYTES;
    bind->grid = (struct cpu_grid){.n_rows = n_rows};
    bind->grid.tile_rows = (uint32_t) moe_max(TASK_BYTES / size, 1);
    bind->grid.n_tiles = (uint32_t) moe_div_up(n_rows, bind->grid.tile_rows);
    return bind->grid.n_tiles;
}

void moe_cpu_rows_task(struct cpu_bind *bind, uint32_t i)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const enum cpu_operand operand = moe_cpu_bind_program(bind)->operands[layer->in_type];
    const struct cpu_values from = routed_x(bind, operand);
    const struct cpu_range rows = moe_cpu_grid_rows(&bind->grid, i);
    const struct cpu_values to = gathered_x(bind, operand, 0);
    const size_t size = moe_cpu_operand_size(operand, moe_layer_routed_in(layer));
    for (uint32_t r = rows.begin; r < rows.end; r++)
        memcpy((char *) to.rows + r * to.stride, from.rows + bind->rows[r].token * from.stride,
               size);
}
