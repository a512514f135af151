// SPDX-License-Identifier: MIT
// Products of rows with matrices of groups: y[r] = W_g a[r] + b_g, and dy[r] W_g. Both are
//
//   y[r][c] = sum over i < k of a[r / q][i] * B_g[i][c],    B_g = W_g transposed, or W_g
//
// A task has some rows of a group and some panels of 16 columns. It packs blocks of B, panels that
// stay in the first-level cache, and uses them for all its rows: W needs no packed copy of its own,
// and reading it is what packing costs. Several panels at once, since a row of W^T's transpose is
// read from memory in pieces as wide as they; kernels that take two panels ask for the next block
// meanwhile. Each output is one chain in ascending i. A W of 16 bits is packed as f32, so there is
// one arithmetic: that of f32.
#include "cpu/net.h"

#include "base/bits.h"

#include <string.h>

enum {
    TILE_ROWS = 144,    // of a task; a multiple of the kernels' 6 and 24
    BLOCK_K = 192,      // rows of B packed at once: 12 KiB a panel
    BLOCK_PANELS = 4,
    AHEAD = 8,          // rows of 16 bits that are asked for before they are needed
    TASK_MACS = 524288, // at least, where there are as many
    TASK_PANELS = 16,   // at most: blocks but a task's first are asked for in time
    MANY_TASKS = 32,    // are worth more than TASK_PANELS
};

struct product {
    struct moe_net_view a;
    uint32_t div;
    struct moe_net_view w;
    const float *bias;
    bool transposed; // B is W transposed
    uint32_t k, n_columns;
    struct cpu_grouping groups;
    float *y; // (rows, n_columns)
    bool add;
};

// Which operand says where groups start.
static uint32_t starts_operand(enum moe_net_op_kind kind)
{
    return kind == MOE_NET_MATMUL_DX ? 2 : kind == MOE_NET_MATMUL_COMBINE ? 4 : 3;
}

uint64_t moe_cpu_product_groups(const struct moe_net *net, const struct moe_net_op *op)
{
    const uint32_t starts = op->in[starts_operand(op->kind)];
    return starts == MOE_NET_NONE ? 1 : net->tensors[starts].n - 1;
}

static struct product product_of(const struct cpu_net *net)
{
    const struct moe_net_call *call = &net->call;
    const enum moe_net_op_kind kind = call->op->kind;
    const bool dx = kind == MOE_NET_MATMUL_DX, combine = kind == MOE_NET_MATMUL_COMBINE;
    struct product p = {
        .a = call->in[0],
        .div = call->op->div[0],
        .w = call->in[1],
        .bias = dx ? NULL : call->in[2].data,
        .transposed = !dx,
        .k = call->in[0].width,
        .n_columns = call->out[0].width,
        .y = combine ? net->scratch : call->out[0].data,
        .add = call->add && !combine,
    };
    const uint64_t n_rows = combine ? call->in[0].rows : call->out[0].rows;
    p.groups = moe_cpu_net_grouping(net, starts_operand(kind), n_rows);
    return p;
}

// ---- cutting ---------------------------------------------------------------------------------

// n_blocks blocks of panels for each of n_tiles tiles of rows.
struct grid {
    uint64_t tile_rows, n_tiles, block_panels, n_blocks;
};

static struct grid grid_of(const struct product *p, uint64_t n_rows)
{
    const uint64_t n_panels = moe_div_up(p->n_columns, CPU_PANEL);
    struct grid grid = {0};
    if (n_rows == 0)
        return grid;
    grid.n_tiles = moe_div_up(n_rows, TILE_ROWS);
    grid.tile_rows = moe_min(moe_align_up(moe_div_up(n_rows, grid.n_tiles), 6), TILE_ROWS);
    grid.n_tiles = moe_div_up(n_rows, grid.tile_rows);
    grid.block_panels = moe_max(
        moe_div_up(TASK_MACS, grid.tile_rows * p->k * CPU_PANEL),
        moe_min(TASK_PANELS, p->groups.n_groups * grid.n_tiles * n_panels / MANY_TASKS));
    grid.block_panels = moe_min(grid.block_panels, n_panels);
    grid.n_blocks = moe_div_up(n_panels, grid.block_panels);
    return grid;
}

void moe_cpu_net_matmul_prepare(struct cpu_net *net)
{
    const struct product p = product_of(net);
    uint64_t n_tasks = 0;
    for (uint64_t g = 0; g < p.groups.n_groups; g++) {
        const struct cpu_span places = moe_cpu_group_places(&p.groups, g);
        const struct grid grid = grid_of(&p, places.end - places.begin);
        net->group_tasks[g] = (uint32_t) n_tasks;
        n_tasks += grid.n_tiles * grid.n_blocks;
    }
    net->group_tasks[p.groups.n_groups] = (uint32_t) n_tasks;
    net->cut = (struct cpu_cut){.n = n_tasks, .block = 1, .n_tasks = (uint32_t) n_tasks};
    net->cut.work = p.groups.n_rows * p.k * p.n_columns;
}

// The group of task i: the last whose first task is not behind i.
static uint64_t group_of_task(const struct cpu_net *net, uint64_t n_groups, uint32_t i)
{
    uint64_t low = 0, high = n_groups;
    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        if (net->group_tasks[middle] <= i)
            low = middle;
        else
            high = middle;
    }
    return low;
}

// ---- tasks -----------------------------------------------------------------------------------

// Columns of y that n panels from c on have.
static uint32_t columns_of(const struct product *p, uint32_t c, uint32_t n_panels)
{
    return (uint32_t) moe_min(n_panels * CPU_PANEL, p->n_columns - c * CPU_PANEL);
}

// Columns 16 c .. of W_g transposed: rows of W_g.
static void pack_transposed(const struct cpu_net *net, const struct product *p, const float *w,
                            uint32_t c, uint32_t first, uint32_t n_k, float *panel)
{
    const uint32_t column = c * CPU_PANEL;
    const uint32_t n = (uint32_t) moe_min(CPU_PANEL, p->n_columns - column);
    const float *rows[CPU_PANEL];
    for (uint32_t o = 0; o < n; o++)
        rows[o] = w + (uint64_t) (column + o) * p->k;
    net->kernels->transpose(rows, n, first, n_k, panel, CPU_PANEL);
}

// The same of a W_g of 16 bits; some rows of it at a time, in the first-level cache, in f32.
static void pack_half_transposed(const struct cpu_net *net, const struct product *p,
                                 const uint16_t *w, uint32_t c, uint32_t first, uint32_t n_k,
                                 float *panel)
{
    enum { BLOCK = 64 };
    cpu_decode_fn *decode = net->kernels->decode[moe_net_type_dtype(p->w.type)];
    const uint32_t n = (uint32_t) moe_min(CPU_PANEL, p->n_columns - c * CPU_PANEL);
    _Alignas(64) float block[CPU_PANEL][BLOCK];
    const float *rows[CPU_PANEL];
    w += (uint64_t) c * CPU_PANEL * p->k + first;
    for (uint32_t i = 0; i < n_k; i += BLOCK) {
        const uint32_t n_i = (uint32_t) moe_min(BLOCK, n_k - i);
        for (uint32_t o = 0; o < n; o++) {
            rows[o] = block[o];
            decode(w + (uint64_t) o * p->k + i, block[o], n_i);
        }
        net->kernels->transpose(rows, n, 0, n_i, panel + i * CPU_PANEL, CPU_PANEL);
    }
}

// What `pack` does, of a W of 16 bits.
static void pack_half(const struct cpu_net *net, const struct product *p, uint64_t g, uint32_t c,
                      uint32_t n, uint32_t first, uint32_t n_k,
                      float (*panels)[BLOCK_K * CPU_PANEL])
{
    cpu_decode_fn *decode = net->kernels->decode[moe_net_type_dtype(p->w.type)];
    const uint16_t *w = (const uint16_t *) p->w.data + g * p->k * p->n_columns;
    for (uint32_t j = 0; p->transposed && j < n; j++)
        pack_half_transposed(net, p, w, c + j, first, n_k, panels[j]);
    for (uint32_t i = 0; !p->transposed && i < n_k; i++) {
        const uint16_t *row = w + (uint64_t) (first + i) * p->n_columns;
        for (uint32_t j = 0; j < n; j++) {
            const uint32_t column = (c + j) * CPU_PANEL, left = p->n_columns - column;
            float *to = panels[j] + i * CPU_PANEL;
            __builtin_prefetch(row + moe_min(AHEAD, n_k - 1 - i) * p->n_columns + column);
            if (left < CPU_PANEL)
                memset(to, 0, CPU_PANEL * sizeof *to);
            decode(row + column, to, moe_min(CPU_PANEL, left));
        }
    }
}

// Rows first .. first + n_k - 1 of n panels of B_g from c on; columns beyond B are 0.
static void pack(const struct cpu_net *net, const struct product *p, uint64_t g, uint32_t c,
                 uint32_t n, uint32_t first, uint32_t n_k, float (*panels)[BLOCK_K * CPU_PANEL])
{
    const float *w = (const float *) p->w.data + g * p->k * p->n_columns;
    const float *rows[BLOCK_K];
    for (uint32_t j = 0; p->transposed && j < n; j++)
        pack_transposed(net, p, w, c + j, first, n_k, panels[j]);
    if (p->transposed)
        return;
    for (uint32_t i = 0; i < n_k; i++)
        rows[i] = w + (uint64_t) (first + i) * p->n_columns;
    net->kernels->arrays.to_panels(rows, NULL, n_k, c * CPU_PANEL, columns_of(p, c, n),
                                   panels[0], BLOCK_K * CPU_PANEL);
}

// Puts the bias where chains of a panel's n columns begin. Returns whether something is there.
static bool begin_chains(const struct product *p, uint64_t g, uint32_t column, uint32_t n,
                         float *const *y, uint32_t n_rows)
{
    const float *bias = p->bias ? p->bias + g * p->n_columns + column : NULL;
    for (uint32_t r = 0; bias && r < n_rows; r++)
        for (uint32_t i = 0; i < n; i++)
            y[r][i] = p->add ? y[r][i] + bias[i] : bias[i];
    return p->add || bias;
}

// Some strips of a task: where the tile's rows of them go. The last one may be wider than what is
// left of y.
struct tile {
    const float *x[TILE_ROWS];
    uint64_t rows[TILE_ROWS];
    uint32_t n_rows;
    float *to[BLOCK_PANELS][TILE_ROWS];
    bool more[BLOCK_PANELS];
    float edge[TILE_ROWS * CPU_MAX_STRIP * CPU_PANEL];
};

static void open_strip(const struct product *p, uint64_t g, uint32_t c, uint32_t n_panels,
                       struct tile *tile, uint32_t slot)
{
    const uint32_t column = c * CPU_PANEL, width = n_panels * CPU_PANEL;
    const uint32_t n = columns_of(p, c, n_panels);
    float **to = tile->to[slot];
    for (uint32_t r = 0; r < tile->n_rows; r++)
        to[r] = p->y + tile->rows[r] * p->n_columns + column;
    tile->more[slot] = begin_chains(p, g, column, n, to, tile->n_rows);
    for (uint32_t r = 0; n < width && r < tile->n_rows; r++) {
        const float *y = to[r];
        to[r] = tile->edge + r * width;
        memset(to[r], 0, width * sizeof *y);
        memcpy(to[r], y, tile->more[slot] ? n * sizeof *y : 0);
    }
}

static void close_strip(const struct product *p, uint32_t c, uint32_t n_panels,
                        const struct tile *tile)
{
    const uint32_t column = c * CPU_PANEL, width = n_panels * CPU_PANEL;
    const uint32_t n = columns_of(p, c, n_panels);
    for (uint32_t r = 0; n < width && r < tile->n_rows; r++)
        memcpy(p->y + tile->rows[r] * p->n_columns + column, tile->edge + r * width,
               n * sizeof *p->y);
}

// Where a block of B is in memory: n_k rows from `first` on of n panels from c on; for n_rows of a.
static struct cpu_fetch fetch_of(const struct product *p, uint64_t g, uint32_t c, uint32_t n,
                                 uint32_t first, uint32_t n_k, uint32_t n_rows)
{
    const size_t size = moe_net_type_is_half(p->w.type) ? sizeof(uint16_t) : sizeof(float);
    const uint32_t n_columns = columns_of(p, c, n);
    const uint64_t column = (uint64_t) c * CPU_PANEL;
    const uint64_t at = p->transposed ? column * p->k + first
                                      : (uint64_t) first * p->n_columns + column;
    struct cpu_fetch fetch = {
        .row = (const char *) p->w.data + (g * p->k * p->n_columns + at) * size,
        .stride = (p->transposed ? p->k : p->n_columns) * size,
        .n_rows = p->transposed ? n_columns : n_k,
        .n_lines = (uint32_t) moe_div_up((p->transposed ? n_k : n_columns) * size, CPU_LINE),
    };
    const uint64_t n_times = moe_div_up(n_rows, CPU_FETCH_ROWS) * moe_div_up(n, CPU_MAX_STRIP) *
                             (BLOCK_K / CPU_FETCH_STEPS);
    fetch.each = (uint32_t) moe_div_up((uint64_t) fetch.n_rows * fetch.n_lines, n_times);
    return fetch;
}

// What is packed behind rows first .. of n panels from c on: further rows of them, or the first
// ones of the panels behind them, up to `end`.
static struct cpu_fetch fetch_behind(const struct product *p, uint64_t g, uint32_t c, uint32_t n,
                                     uint32_t end, uint32_t first, uint32_t n_rows)
{
    first += BLOCK_K;
    if (first >= p->k) {
        first = 0;
        c += n;
        n = (uint32_t) moe_min(BLOCK_PANELS, end - c);
    }
    if (n == 0)
        return (struct cpu_fetch){0};
    return fetch_of(p, g, c, n, first, (uint32_t) moe_min(BLOCK_K, p->k - first), n_rows);
}

// The tile's rows times n panels from c on, n <= BLOCK_PANELS.
static void multiply(const struct cpu_net *net, const struct product *p, uint64_t g, uint32_t c,
                     uint32_t n, uint32_t end, struct tile *tile)
{
    const uint32_t strip = moe_cpu_net_strip(net);
    _Alignas(64) float panels[BLOCK_PANELS][BLOCK_K * CPU_PANEL];
    for (uint32_t j = 0; j < n; j += strip)
        open_strip(p, g, c + j, (uint32_t) moe_min(strip, n - j), tile, j);
    for (uint32_t first = 0; first < p->k; first += BLOCK_K) {
        const uint32_t n_k = (uint32_t) moe_min(BLOCK_K, p->k - first);
        if (moe_net_type_is_half(p->w.type))
            pack_half(net, p, g, c, n, first, n_k, panels);
        else
            pack(net, p, g, c, n, first, n_k, panels);
        struct cpu_fetch fetch = {0}; // what one panel's kernel does not ask for
        if (strip > 1)
            fetch = fetch_behind(p, g, c, n, end, first, tile->n_rows);
        for (uint32_t j = 0; j < n; j += strip) {
            const bool more = tile->more[j] || first > 0;
            moe_cpu_net_chains(net, tile->x, tile->n_rows, first, panels[j],
                               BLOCK_K * CPU_PANEL, (uint32_t) moe_min(strip, n - j), n_k, more,
                               tile->to[j], &fetch);
        }
    }
    for (uint32_t j = 0; j < n; j += strip)
        close_strip(p, c + j, (uint32_t) moe_min(strip, n - j), tile);
}

void moe_cpu_net_matmul_task(const struct cpu_net *net, uint32_t i)
{
    const struct product p = product_of(net);
    const uint64_t g = group_of_task(net, p.groups.n_groups, i);
    const struct cpu_span places = moe_cpu_group_places(&p.groups, g);
    const struct grid grid = grid_of(&p, places.end - places.begin);
    const uint32_t local = i - net->group_tasks[g];
    const struct cpu_span span = moe_cpu_span(places.end - places.begin, grid.tile_rows,
                                              local / grid.n_blocks);
    const struct cpu_span panels = moe_cpu_span(moe_div_up(p.n_columns, CPU_PANEL),
                                                grid.block_panels, local % grid.n_blocks);
    struct tile tile;
    tile.n_rows = (uint32_t) (span.end - span.begin);
    for (uint32_t r = 0; r < tile.n_rows; r++) {
        tile.rows[r] = moe_cpu_group_row(&p.groups, places.begin + span.begin + r);
        tile.x[r] = (const float *) p.a.data + tile.rows[r] / p.div * p.k;
    }
    for (uint64_t c = panels.begin; c < panels.end; c += BLOCK_PANELS)
        multiply(net, &p, g, (uint32_t) c, (uint32_t) moe_min(BLOCK_PANELS, panels.end - c),
                 (uint32_t) panels.end, &tile);
}

// ---- sums over the slots of a token ----------------------------------------------------------

// y[t] = alpha sum over k of s[tK + k] f[tK + k], f being what COMBINE left in scratch, or given.
void moe_cpu_net_sum_slots_prepare(struct cpu_net *net)
{
    const struct moe_net_view *y = &net->call.out[0];
    net->cut = moe_cpu_net_cut(y->rows, (uint64_t) y->width * net->call.op->top_k);
}

void moe_cpu_net_sum_slots_task(const struct cpu_net *net, uint32_t i)
{
    enum { BLOCK = 512 }; // columns whose sums are kept at once
    const struct moe_net_call *call = &net->call;
    const struct cpu_span tokens = moe_cpu_net_span(net, i);
    const bool combine = call->op->kind == MOE_NET_MATMUL_COMBINE;
    const uint32_t width = call->out[0].width, top_k = call->op->top_k;
    const uint32_t div = combine ? 1 : call->op->div[1];
    const float *f = combine ? net->scratch : moe_cpu_net_in(net, 0);
    const float *s = moe_cpu_net_in(net, combine ? 3 : 1);
    float sum[BLOCK];
    for (uint64_t t = tokens.begin; t < tokens.end; t++) {
        float *y = moe_cpu_net_out(net, 0) + t * width;
        for (uint32_t first = 0; first < width; first += BLOCK) {
            const uint32_t n = (uint32_t) moe_min(BLOCK, width - first);
            for (uint64_t slot = t * top_k; slot < (t + 1) * top_k; slot++)
                net->kernels->arrays.scale(s ? s[slot / div] : 1.0f, f + slot * width + first, sum,
                                           n, slot > t * top_k);
            net->kernels->arrays.scale(call->op->alpha, sum, y + first, n, call->add);
        }
    }
}
