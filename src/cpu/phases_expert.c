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
    uint64_t macs = 0;
    for (uint32_t g = 0; g < bind->n_groups && macs <= CPU_ALONE_MACS; g++) {
        const struct cpu_group *group = &bind->groups[g];
        const struct cpu_expert_layout *l = group->layout;
        if (l)
            macs += (uint64_t) group->n_rows * group->in.n_panels * CPU_PANEL * l->d_in *
                    (l->gated ? 2 : 1);
    }
    bind->alone = macs <= CPU_ALONE_MACS;
    return (uint32_t) moe_max(bind->n_in_tasks, 1); // no row at all: one task of nothing
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

// out (n, 16) = n rows of an operand times a panel of k steps, of an expert's weights.
static void times_panel(const struct cpu_bind *bind, enum cpu_operand operand,
                        enum vkmoe_dtype type, const void *const *x, uint32_t n, const char *panel,
                        uint32_t k, float *out)
{
    if (bind->counts) {
        moe_cpu_count(&bind->counts->weight_loads, moe_cpu_panel_size(type, k));
        moe_cpu_count(&bind->counts->columns, n);
    }
    bind->kernels->panel[operand][type](x, n, panel, k, out);
}

// The same of two panels, beside each other where there is a kernel for it.
static void times_two(const struct cpu_bind *bind, enum cpu_operand operand, enum vkmoe_dtype type,
                      const void *const *x, uint32_t n, const char *const *panels, uint32_t k,
                      float *const *out)
{
    cpu_pair_fn *const pair = bind->kernels->pair[operand][type];
    if (!pair) {
        times_panel(bind, operand, type, x, n, panels[0], k, out[0]);
        times_panel(bind, operand, type, x, n, panels[1], k, out[1]);
        return;
    }
    if (bind->counts) {
        moe_cpu_count(&bind->counts->weight_loads, 2 * moe_cpu_panel_size(type, k));
        moe_cpu_count(&bind->counts->columns, 2 * n);
    }
    pair(x, n, panels, k, out);
}

// An expert's bias from a panel on; NULL: the layer has none. The zeros that are packed then would
// be waited for.
static const float *bias_at(const struct cpu_group *group, bool has, uint64_t at, uint32_t panel)
{
    return has ? (const float *) (group->expert + at) + (size_t) panel * CPU_PANEL : NULL;
}

// Panels of hidden outputs for a tile of rows, left in `h` (panels, n, 16); `gate` is scratch. A
// weight of each row's input, if there are any, is as well one of W x.
static void hidden_panels(const struct cpu_bind *bind, const struct cpu_group *group,
                          struct cpu_range panels, const float *weights, const void *const *x,
                          uint32_t n, float *gate, float *h)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const struct cpu_arrays *arrays = &bind->kernels->arrays;
    const struct cpu_expert_layout *l = group->layout;
    const size_t n_values = (size_t) n * CPU_PANEL;
    const char *w = group->expert + (l->gated ? 2 : 1) * panels.begin * l->in_panel_size;
    float *g = gate, *u = h;
    for (uint32_t p = panels.begin; p < panels.end; p++, g += n_values, u += n_values) {
        const char *const two[] = {w, w + l->in_panel_size};
        if (l->gated)
            times_two(bind, group->x_operand, l->in_type, x, n, two, l->d_in, (float *[]){g, u});
        else
            times_panel(bind, group->x_operand, l->in_type, x, n, w, l->d_in, u);
        w += (l->gated ? 2 : 1) * l->in_panel_size;
    }
    g = gate, u = h;
    for (uint32_t p = panels.begin; p < panels.end; p++, g += n_values, u += n_values) {
        if (l->gated)
            arrays->finish_rows(bias_at(group, layer->gate_bias, l->gate_bias, p), weights, g, n);
        arrays->finish_rows(bias_at(group, layer->up_bias, l->up_bias, p), weights, u, n);
    }
    const size_t n_all = (panels.end - panels.begin) * n_values;
    if (l->gated)
        moe_cpu_gated(arrays, layer, group->limit, gate, h, n_all);
    else
        moe_cpu_act(arrays, layer, group->act, h, n_all);
}

// Stores a panel's hidden values (n, 16) of rows from `first` on as the out-panels read them. Those
// of int8 wait in `pairs` (n, 32) until the second panel of a pair.
static void store_hidden(const struct cpu_bind *bind, const struct cpu_group *group, uint32_t panel,
                         uint32_t first, const float *h, uint32_t n, float *pairs)
{
    enum { PAIR = 2 * CPU_PANEL };
    const bool paired = group->h_operand == CPU_OPERAND_INT8;
    const uint32_t column = panel * CPU_PANEL, begin = paired ? panel / 2 * PAIR : column;
    const uint32_t n_columns = (uint32_t) moe_min(CPU_PANEL, group->layout->d_ff - column);
    char *row = group->h + first * group->h_stride + moe_cpu_operand_size(group->h_operand, begin);
    for (uint32_t r = 0; paired && r < n; r++)
        memcpy(pairs + r * PAIR + column % PAIR, h + r * CPU_PANEL, CPU_PANEL * sizeof *h);
    if (paired && panel % 2 == 0)
        return;
    for (uint32_t r = 0; r < n; r++, row += group->h_stride)
        moe_cpu_store_operand(bind->kernels, group->h_operand,
                              paired ? pairs + r * PAIR : h + r * CPU_PANEL,
                              paired ? PAIR : n_columns, row);
}

// Panels of hidden values for at most CPU_TILE_ROWS rows.
static void in_tile(const struct cpu_bind *bind, const struct cpu_group *group,
                    struct cpu_range range, struct cpu_range panels)
{
    const uint32_t n = range.end - range.begin;
    const struct cpu_row *rows = group->rows + range.begin;
    const void *x[CPU_TILE_ROWS];
    _Alignas(64) float gate[CPU_TILE_ROWS * CPU_PANEL], h[CPU_TILE_ROWS * CPU_PANEL];
    float pairs[2 * CPU_TILE_ROWS * CPU_PANEL], weights[CPU_TILE_ROWS];

    for (uint32_t r = 0; r < n; r++) {
        const uint32_t row = group->gathered ? range.begin + r : rows[r].token;
        x[r] = group->x.rows + row * group->x.stride;
        weights[r] = rows[r].weight;
    }
    // Few rows: several panels, so that weights are read without a pause between them.
    const uint32_t most = CPU_TILE_ROWS / n;
    for (struct cpu_range part = panels; part.begin < panels.end; part.begin = part.end) {
        part.end = part.begin + (uint32_t) moe_min(most, panels.end - part.begin);
        hidden_panels(bind, group, part, group->weighted ? weights : NULL, x, n, gate, h);
        for (uint32_t p = part.begin; p < part.end; p++)
            store_hidden(bind, group, p, range.begin,
                         h + (size_t) (p - part.begin) * n * CPU_PANEL, n, pairs);
    }
}

// Task i of a group's EXPERT_IN. Several tiles of rows go through the panels that are stored at
// once, and find them in a cache but for the first.
static void run_in_task(const struct cpu_bind *bind, const struct cpu_group *group, uint32_t i)
{
    const struct cpu_range rows = moe_cpu_grid_rows(&group->in, i);
    const struct cpu_range panels = moe_cpu_grid_panels(&group->in, i);
    const uint32_t n_rows = rows.end - rows.begin;
    uint32_t n_panels = panels.end - panels.begin; // at once
    if (n_rows > CPU_TILE_ROWS)
        n_panels = group->h_operand == CPU_OPERAND_INT8 ? 2 : 1;
    for (uint32_t p = panels.begin; p < panels.end; p += n_panels)
        for (uint32_t r = rows.begin, n; r < rows.end; r += n) {
            n = (uint32_t) moe_min(rows.end - r, CPU_TILE_ROWS);
            in_tile(bind, group, (struct cpu_range){r, r + n}, (struct cpu_range){p, p + n_panels});
        }
}

void moe_cpu_in_task(struct cpu_bind *bind, uint32_t i)
{
    const struct cpu_group *group = group_of_task(bind, i);
    if (i < bind->n_in_tasks)
        run_in_task(bind, group, i - group->first_task);
}

// ---- latent in: W_down x, the in side of an expert of all tokens -----------------------------

uint32_t moe_cpu_latent_in_prepare(struct cpu_bind *bind)
{
    for (uint32_t t = 0; t < bind->n_tokens; t++) // until the group phase needs them
        bind->rows[t] = (struct cpu_row){t, 1, 1};
    bind->latent_in = moe_cpu_latent_group(bind, 0, bind->x_latent);
    bind->latent_in.act = VKMOE_ACT_NONE;
    return bind->latent_in.in.n_tiles * bind->latent_in.in.n_blocks;
}

void moe_cpu_latent_in_task(struct cpu_bind *bind, uint32_t i)
{
    run_in_task(bind, &bind->latent_in, i);
}

// ---- latent norm: of the combined latent -----------------------------------------------------

uint32_t moe_cpu_latent_norm_prepare(struct cpu_bind *bind)
{
    enum { ELEMENTS = 16384 }; // in one task
    return moe_cpu_cut_tokens(bind, ELEMENTS, moe_cpu_bind_layer(bind)->d_latent);
}

void moe_cpu_latent_norm_task(struct cpu_bind *bind, uint32_t i)
{
    const struct cpu_weights *w = moe_cpu_bind_weights(bind);
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const size_t stride = moe_cpu_hidden_stride(&w->latent, CPU_OPERAND_F32);
    const struct cpu_range tokens = moe_cpu_block(bind, i);
    for (uint32_t t = tokens.begin; t < tokens.end; t++)
        moe_cpu_rms_norm(layer->latent_norm_eps, w->latent_norm, 1,
                         (float *) (bind->r_latent + t * stride), layer->d_latent);
}

// ---- expert out and combine: sum += factor * act_out(W_down h + b_down) ----------------------

// A task owns a block of tokens and of columns of the sum and goes through the groups in their
// order, experts ascending and the shared one last: no two tasks write the same place, and the
// order of the sum is fixed. Blocks of tokens make each of them read the weights again, so they are
// cut only as far as there are too few columns for the threads of the device.
static uint32_t cut_sum(struct cpu_bind *bind)
{
    enum { TASKS_PER_THREAD = 8, REUSE_PANELS = 4, MIN_TOKENS = 16 };
    const uint64_t many_tasks =
        (uint64_t) TASKS_PER_THREAD *
        ((const struct cpu_device *) bind->base.program->device)->n_threads;
    const uint32_t n_panels = (uint32_t) moe_div_up(bind->sum_width, CPU_PANEL);
    uint64_t macs = 1; // of one panel of columns
    for (uint32_t g = bind->first_group; g < bind->end_group; g++) {
        const struct cpu_group *group = &bind->groups[g];
        macs += (uint64_t) group->n_rows * CPU_PANEL * (group->layout ? group->layout->d_ff : 1);
    }

    // Few tasks: an expert's panels of one task are a stretch of memory, and the longer it is, the
    // less is lost where the next one begins.
    uint64_t panels = moe_min(moe_div_up(CPU_TASK_MACS, macs), n_panels);
    panels = moe_max(panels, n_panels / many_tasks);
    // Rows of h are read from memory for every block: several panels should use them.
    if (bind->n_tokens > CPU_TILE_ROWS)
        panels = moe_max(panels, moe_min(REUSE_PANELS, n_panels));
    const uint64_t n_blocks = moe_div_up(n_panels, panels);
    const uint64_t n_tiles = moe_min(moe_min(moe_div_up(many_tasks, n_blocks),
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

uint32_t moe_cpu_out_prepare(struct cpu_bind *bind)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const bool is_latent = layer->d_latent > 0;
    bind->first_group = 0;
    bind->end_group = is_latent ? bind->n_routed : bind->n_groups;
    bind->sum = is_latent ? bind->r_latent : bind->y;
    bind->sum_stride = is_latent ? moe_cpu_hidden_stride(&moe_cpu_bind_weights(bind)->latent,
                                                         CPU_OPERAND_F32)
                                 : bind->y_stride;
    bind->sum_width = moe_layer_routed_out(layer);
    return cut_sum(bind);
}

uint32_t moe_cpu_latent_out_prepare(struct cpu_bind *bind)
{
    bind->first_group = bind->n_routed;
    bind->end_group = bind->n_groups;
    bind->sum = bind->y;
    bind->sum_stride = bind->y_stride;
    bind->sum_width = moe_cpu_bind_layer(bind)->d_out;
    return cut_sum(bind);
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

static float *sum_row(const struct cpu_bind *bind, uint32_t token)
{
    return (float *) (bind->sum + (size_t) token * bind->sum_stride);
}

// Columns [first, end) of a token's sum, before any expert.
static void begin_sum(const struct cpu_bind *bind, uint32_t token, uint32_t first, uint32_t end)
{
    const float *bias = moe_cpu_bind_weights(bind)->out_bias;
    float *sum = sum_row(bind, token);
    memset(sum + first, 0, (end - first) * sizeof *sum);
    if (!bias || bind->sum != bind->y)
        return;
    const float scale = moe_cpu_routed_scale(bind, token);
    for (uint32_t c = first; c < end; c++)
        sum[c] = scale * bias[c];
}

// Rounds columns [first, end) of a token's sums to where the caller wants them.
static void store_y(const struct cpu_bind *bind, uint32_t token, uint32_t first, uint32_t end)
{
    const enum vkmoe_dtype type = bind->base.program->x_type;
    char *y = (char *) bind->io->y + (size_t) token * bind->io->y_stride;
    moe_dtype_encode(type, sum_row(bind, token) + first, end - first,
                     y + moe_dtype_size(type, first));
}

// Rows of an expert's group that are added up together.
struct sum_tile {
    const void *h[CPU_TILE_ROWS];
    float factors[CPU_TILE_ROWS];
    float *sums[CPU_TILE_ROWS];
    uint32_t n;
};

// Adds one panel of one expert's outputs, W_down h.
static void add_panel(const struct cpu_bind *bind, const struct cpu_group *group, uint32_t panel,
                      const struct sum_tile *tile, float *f)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const struct cpu_arrays *arrays = &bind->kernels->arrays;
    const struct cpu_expert_layout *l = group->layout;
    const uint32_t column = panel * CPU_PANEL;
    const uint32_t n_columns = (uint32_t) moe_min(CPU_PANEL, l->d_out - column);
    arrays->finish_rows(bias_at(group, layer->down_bias, l->out_bias, panel), NULL, f, tile->n);
    moe_cpu_act(arrays, layer, group->act_out, f, (size_t) tile->n * CPU_PANEL);
    arrays->add_rows(f, tile->factors, tile->sums, tile->n, column, n_columns);
}

static void add_panels(const struct cpu_bind *bind, const struct cpu_group *group,
                       struct cpu_range panels, const struct sum_tile *tile)
{
    const struct cpu_expert_layout *l = group->layout;
    const char *w = group->expert + l->out_panels + panels.begin * l->out_panel_size;
    _Alignas(64) float f[2][CPU_TILE_ROWS * CPU_PANEL];
    uint32_t p = panels.begin;
    for (; p + 2 <= panels.end; p += 2, w += 2 * l->out_panel_size) {
        const char *const two[] = {w, w + l->out_panel_size};
        times_two(bind, group->h_operand, l->out_type, tile->h, tile->n, two, l->d_ff,
                  (float *[]){f[0], f[1]});
        add_panel(bind, group, p, tile, f[0]);
        add_panel(bind, group, p + 1, tile, f[1]);
    }
    if (p == panels.end)
        return;
    times_panel(bind, group->h_operand, l->out_type, tile->h, tile->n, w, l->d_ff, f[0]);
    add_panel(bind, group, p, tile, f[0]);
}

// Rows [first, last) of an expert's group.
static void add_expert(const struct cpu_bind *bind, const struct cpu_group *group, uint32_t first,
                       uint32_t last, struct cpu_range panels)
{
    struct sum_tile tile;
    for (; first < last; first += tile.n) {
        tile.n = (uint32_t) moe_min(last - first, CPU_TILE_ROWS);
        for (uint32_t r = 0; r < tile.n; r++) {
            const struct cpu_row row = group->rows[first + r];
            tile.h[r] = group->h + (first + r) * group->h_stride;
            tile.factors[r] = row.factor * group->scale;
            tile.sums[r] = sum_row(bind, row.token);
        }
        add_panels(bind, group, panels, &tile);
    }
}

// Asks for the beginning of what a task reads next of an expert's weights: kernels read ahead, but
// not from one expert to the next.
static void read_ahead(const struct cpu_group *group, uint32_t panel)
{
    enum { LINE = 64, N_LINES = 32 };
    const struct cpu_expert_layout *l = group->layout;
    if (!l)
        return;
    const char *next = group->expert + l->out_panels + panel * l->out_panel_size;
    for (uint32_t i = 0; i < N_LINES; i++)
        __builtin_prefetch(next + (size_t) i * LINE);
}

// Columns [begin, end) of what the rows read.
static void add_identity(const struct cpu_bind *bind, const struct cpu_group *group, uint32_t first,
                         uint32_t last, uint32_t begin, uint32_t end)
{
    for (uint32_t r = first; r < last; r++) {
        const struct cpu_row row = group->rows[r];
        const float *x = (const float *) (group->x.rows + row.token * group->x.stride);
        float *sum = sum_row(bind, row.token);
        for (uint32_t c = begin; c < end; c++)
            sum[c] += row.factor * x[c];
    }
}

void moe_cpu_out_task(struct cpu_bind *bind, uint32_t i)
{
    const struct cpu_range tokens = moe_cpu_grid_rows(&bind->grid, i);
    const struct cpu_range panels = moe_cpu_grid_panels(&bind->grid, i);
    const uint32_t column = panels.begin * CPU_PANEL;
    const uint32_t end = (uint32_t) moe_min((uint64_t) panels.end * CPU_PANEL, bind->sum_width);

    for (uint32_t t = tokens.begin; t < tokens.end; t++)
        begin_sum(bind, t, column, end);
    for (uint32_t g = bind->first_group; g < bind->end_group; g++) {
        const struct cpu_group *group = &bind->groups[g];
        const uint32_t first = first_row(group, tokens.begin), last = first_row(group, tokens.end);
        if (g + 1 < bind->end_group)
            read_ahead(group + 1, panels.begin);
        if (group->layout)
            add_expert(bind, group, first, last, panels);
        else
            add_identity(bind, group, first, last, column, end);
    }
    for (uint32_t t = tokens.begin; bind->wide && bind->sum == bind->y && t < tokens.end; t++)
        store_y(bind, t, column, end);
}
