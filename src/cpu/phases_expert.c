// SPDX-License-Identifier: MIT
// The experts: hidden activations, then outputs added into y.
#include "cpu/cpu.h"

#include "base/bits.h"
#include "core/dtype.h"
#include "cpu/act.h"

#include <string.h>

// ---- expert in: h = act(W_gate x + b_gate) * (W_up x + b_up), or act(W_up x + b_up) ----------

uint32_t moe_cpu_in_prepare(struct cpu_bind *bind)
{
    return bind->n_in_tasks;
}

// The group that task i belongs to: the last whose first task is not behind i.
static const struct cpu_group *group_of_task(const struct cpu_bind *bind, uint32_t i)
{
    uint32_t low = 0, high = bind->n_groups;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (bind->groups[middle].first_task <= i)
            low = middle;
        else
            high = middle;
    }
    return &bind->groups[low];
}

// out (n, 16) = n rows times a panel of k steps, of an expert's weights.
static void times_panel(const struct cpu_bind *bind, enum vkmoe_dtype type, const float *const *x,
                        uint32_t n, const char *panel, uint32_t k, float *out)
{
    if (bind->counts) {
        moe_cpu_count(&bind->counts->weight_loads, moe_dtype_size(type, (uint64_t) k * CPU_PANEL));
        moe_cpu_count(&bind->counts->columns, n);
    }
    bind->kernels->panel[type](x, n, panel, k, out);
}

// v (n, 16): adds the bias of each output.
static void add_bias(float *v, uint32_t n, const float *bias)
{
    for (uint32_t r = 0; r < n; r++)
        for (uint32_t c = 0; c < CPU_PANEL; c++)
            v[r * CPU_PANEL + c] += bias[c];
}

// One panel of hidden outputs for a tile of rows, left in `h` (n, 16); `gate` is scratch.
static void hidden_panel(const struct cpu_bind *bind, const struct cpu_group *group, uint32_t panel,
                         const float *const *x, uint32_t n, float *gate, float *h)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const struct cpu_expert_layout *l = group->layout;
    const float *gate_bias = (const float *) (group->expert + l->gate_bias);
    const float *up_bias = (const float *) (group->expert + l->up_bias);
    const size_t n_values = (size_t) n * CPU_PANEL;
    const char *w = group->expert + (l->gated ? 2 : 1) * panel * l->in_panel_size;
    if (!l->gated) {
        times_panel(bind, l->in_type, x, n, w, l->d_model, h);
        add_bias(h, n, up_bias + (size_t) panel * CPU_PANEL);
        moe_cpu_act(layer->act, layer->act_alpha, h, n_values);
        return;
    }
    times_panel(bind, l->in_type, x, n, w, l->d_model, gate);
    times_panel(bind, l->in_type, x, n, w + l->in_panel_size, l->d_model, h);
    add_bias(gate, n, gate_bias + (size_t) panel * CPU_PANEL);
    add_bias(h, n, up_bias + (size_t) panel * CPU_PANEL);
    moe_cpu_act(layer->act, layer->act_alpha, gate, n_values);
    for (size_t i = 0; i < n_values; i++)
        h[i] *= gate[i];
}

void moe_cpu_in_task(struct cpu_bind *bind, uint32_t i)
{
    const struct cpu_group *group = group_of_task(bind, i);
    const struct cpu_range rows = moe_cpu_grid_rows(&group->in, i - group->first_task);
    const struct cpu_range panels = moe_cpu_grid_panels(&group->in, i - group->first_task);
    const uint32_t n = rows.end - rows.begin;
    const float *x[CPU_TILE_ROWS];
    _Alignas(64) float gate[CPU_TILE_ROWS * CPU_PANEL], h[CPU_TILE_ROWS * CPU_PANEL];

    for (uint32_t r = 0; r < n; r++)
        x[r] = moe_cpu_x_row(bind, group->rows[rows.begin + r].token);
    for (uint32_t p = panels.begin; p < panels.end; p++) {
        hidden_panel(bind, group, p, x, n, gate, h);
        for (uint32_t r = 0; r < n; r++)
            memcpy(group->h + (size_t) (rows.begin + r) * group->h_stride + p * CPU_PANEL,
                   h + r * CPU_PANEL, CPU_PANEL * sizeof *h);
    }
}

// ---- expert out and combine: y += factor * act_out(W_down h + b_down) ------------------------

// A task owns a block of tokens and of columns of y and goes through the experts in ascending
// order, the shared one last: no two tasks write the same place, and the order of the sum is fixed.
// Blocks of tokens make each of them read the weights again, so they are cut only as far as there
// are too few columns for the threads of a machine.
uint32_t moe_cpu_out_prepare(struct cpu_bind *bind)
{
    enum { MANY_TASKS = 64, REUSE_PANELS = 4, MIN_TOKENS = 16 };
    const uint32_t n_panels = moe_cpu_bind_weights(bind)->routed.n_out_panels;
    uint64_t macs = 0; // of one panel of columns
    for (uint32_t g = 0; g < bind->n_groups; g++)
        macs += (uint64_t) bind->groups[g].n_rows * bind->groups[g].layout->d_ff * CPU_PANEL;

    uint64_t panels = moe_min(moe_div_up(CPU_TASK_MACS, macs), n_panels);
    // Rows of h are read from memory for every block: several panels should use them.
    if (bind->n_tokens > CPU_TILE_ROWS)
        panels = moe_max(panels, moe_min(REUSE_PANELS, n_panels));
    const uint64_t n_blocks = moe_div_up(n_panels, panels);
    const uint64_t n_tiles = moe_min(moe_min(moe_div_up(MANY_TASKS, n_blocks),
                                             moe_div_up(macs * panels, CPU_TASK_MACS)),
                                     moe_div_up(bind->n_tokens, MIN_TOKENS));
    bind->grid = (struct cpu_grid){
        .n_rows = bind->n_tokens,
        .tile_rows = (uint32_t) moe_div_up(bind->n_tokens, n_tiles),
        .n_panels = n_panels,
        .block_panels = (uint32_t) panels,
        .n_blocks = (uint32_t) n_blocks,
    };
    bind->grid.n_tiles = (uint32_t) moe_div_up(bind->n_tokens, bind->grid.tile_rows);
    return bind->grid.n_tiles * bind->grid.n_blocks;
}

// Index of the group's first row whose token is not below `token`.
static uint32_t first_row(const struct cpu_group *group, uint32_t token)
{
    uint32_t low = 0, high = group->n_rows;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (group->rows[middle].token < token)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static float *y_row(const struct cpu_bind *bind, uint32_t token)
{
    return (float *) (bind->y + (size_t) token * bind->y_stride);
}

// Rounds columns [first, end) of a token's sums to where the caller wants them.
static void store_y(const struct cpu_bind *bind, uint32_t token, uint32_t first, uint32_t end)
{
    const enum vkmoe_dtype type = bind->base.program->x_type;
    char *y = (char *) bind->io->y + (size_t) token * bind->io->y_stride;
    moe_dtype_encode(type, y_row(bind, token) + first, end - first,
                     y + moe_dtype_size(type, first));
}

// Adds one panel of one expert's outputs for rows [first, first + n) of its group, n <= a tile.
static void add_panel(const struct cpu_bind *bind, const struct cpu_group *group, uint32_t panel,
                      const float *const *h, uint32_t first, uint32_t n)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const struct cpu_expert_layout *l = group->layout;
    const uint32_t column = panel * CPU_PANEL;
    const uint32_t n_columns = (uint32_t) moe_min(CPU_PANEL, l->d_out - column);
    _Alignas(64) float f[CPU_TILE_ROWS * CPU_PANEL];

    times_panel(bind, l->out_type, h, n, group->expert + l->out_panels + panel * l->out_panel_size,
                l->d_ff, f);
    add_bias(f, n, (const float *) (group->expert + l->out_bias) + column);
    moe_cpu_act(layer->act_out, layer->act_alpha, f, (size_t) n * CPU_PANEL);
    for (uint32_t r = 0; r < n; r++) {
        const struct cpu_row row = group->rows[first + r];
        float *y = y_row(bind, row.token) + column;
        for (uint32_t c = 0; c < n_columns; c++)
            y[c] += row.factor * f[r * CPU_PANEL + c];
    }
}

void moe_cpu_out_task(struct cpu_bind *bind, uint32_t i)
{
    const struct cpu_range tokens = moe_cpu_grid_rows(&bind->grid, i);
    const struct cpu_range panels = moe_cpu_grid_panels(&bind->grid, i);
    const uint32_t column = panels.begin * CPU_PANEL;
    const uint32_t end = (uint32_t) moe_min((uint64_t) panels.end * CPU_PANEL,
                                            moe_cpu_bind_layer(bind)->d_out);
    const float *h[CPU_TILE_ROWS];

    for (uint32_t t = tokens.begin; t < tokens.end; t++)
        memset(y_row(bind, t) + column, 0, (end - column) * sizeof(float));
    for (uint32_t g = 0; g < bind->n_groups; g++) {
        const struct cpu_group *group = &bind->groups[g];
        const uint32_t last = first_row(group, tokens.end);
        for (uint32_t first = first_row(group, tokens.begin); first < last;) {
            uint32_t n = (uint32_t) moe_min(last - first, CPU_TILE_ROWS);
            for (uint32_t r = 0; r < n; r++)
                h[r] = group->h + (size_t) (first + r) * group->h_stride;
            for (uint32_t p = panels.begin; p < panels.end; p++)
                add_panel(bind, group, p, h, first, n);
            first += n;
        }
    }
    for (uint32_t t = tokens.begin; bind->wide && t < tokens.end; t++)
        store_y(bind, t, column, end);
}
