// SPDX-License-Identifier: MIT
// Sums over the rows of groups: gradients of matrices and biases, and how rows are grouped.
#include "cpu/net.h"

#include "base/bits.h"

#include <string.h>

// ---- dW_g = sum over r of s[r] dy[r]^T a[r] --------------------------------------------------

// A task has some rows and BLOCK_PANELS panels of columns of one dW_g, and goes through the
// group's rows in blocks: dy is transposed, so that the kernel of products finds its rows, and a is
// gathered into panels, times s. Each sum is one chain in ascending r that begins with 0, or with
// what dW is added to.
enum {
    FEW_OUT = 96,      // rows of dW, a multiple of the kernels' 6 and 12
    MAX_OUT = 192,     // those of a task where there are
    MANY_TASKS = 32,
    BLOCK_PANELS = 16,
    BLOCK_ROWS = 128,  // a multiple of 16
    PACKED_PANELS = 2, // of a, gathered at once: a row is read in pieces as wide as they
};

struct gradient {
    const float *dy, *a, *s;
    uint32_t dy_div, a_div, n_out, n_in;
    uint64_t block_out, out_blocks, panel_blocks;
    struct cpu_grouping groups;
};

// Rows of dW_g are cut into nearly equal blocks.
static void cut_rows(struct gradient *d, uint64_t most)
{
    d->out_blocks = moe_div_up(d->n_out, most);
    d->block_out = moe_align_up(moe_div_up(d->n_out, d->out_blocks), 12);
    d->out_blocks = moe_div_up(d->n_out, d->block_out);
}

static struct gradient gradient_of(const struct cpu_net *net)
{
    const struct moe_net_call *call = &net->call;
    struct gradient d = {
        .dy = call->in[0].data,
        .a = call->in[1].data,
        .s = call->in[2].data,
        .dy_div = call->op->div[0],
        .a_div = call->op->div[1],
        .n_out = call->in[0].width,
        .n_in = call->in[1].width,
    };
    d.panel_blocks = moe_div_up(d.n_in, BLOCK_PANELS * CPU_PANEL);
    d.groups = moe_cpu_net_grouping(net, 3, call->in[0].rows * d.dy_div);
    cut_rows(&d, MAX_OUT);
    if (d.groups.n_groups * d.out_blocks * d.panel_blocks < MANY_TASKS)
        cut_rows(&d, FEW_OUT);
    return d;
}

void moe_cpu_net_dw_prepare(struct cpu_net *net)
{
    const struct gradient d = gradient_of(net);
    const uint64_t n = d.groups.n_groups * d.out_blocks * d.panel_blocks;
    net->cut = (struct cpu_cut){.n = n, .block = 1, .n_tasks = (uint32_t) n};
    net->cut.work = (d.groups.n_rows + d.groups.n_groups) * d.n_out * d.n_in;
}

// One task's part of dW_g, and a block of its rows.
struct gradient_block {
    struct cpu_span outs;
    uint32_t n_rows;
    const float *dy[BLOCK_ROWS], *a[BLOCK_ROWS];
    float s[BLOCK_ROWS];
};

static void find_rows(const struct gradient *d, uint64_t place, struct gradient_block *block)
{
    for (uint32_t r = 0; r < block->n_rows; r++) {
        const uint64_t row = moe_cpu_group_row(&d->groups, place + r);
        block->dy[r] = d->dy + row / d->dy_div * d->n_out;
        block->a[r] = d->a + row / d->a_div * d->n_in;
        block->s[r] = d->s ? d->s[row] : 1.0f;
    }
}

// out[o][r] = dy[r][o] of the block, rows of out BLOCK_ROWS apart.
static void pack_dy(const struct cpu_net *net, const struct gradient_block *block, float *out)
{
    for (uint32_t r = 0; r < block->n_rows; r += CPU_PANEL)
        net->kernels->transpose(block->dy + r, (uint32_t) moe_min(CPU_PANEL, block->n_rows - r),
                                (uint32_t) block->outs.begin,
                                (uint32_t) (block->outs.end - block->outs.begin), out + r,
                                BLOCK_ROWS);
}

// Columns 16 c .. of s[r] a[r], n panels of them; columns beyond a are 0.
static void pack_a(const struct cpu_net *net, const struct gradient *d,
                   const struct gradient_block *block, uint32_t c, uint32_t n,
                   float (*panels)[BLOCK_ROWS * CPU_PANEL])
{
    const uint32_t column = c * CPU_PANEL;
    net->kernels->arrays.to_panels(block->a, d->s ? block->s : NULL, block->n_rows, column,
                                   (uint32_t) moe_min(n * CPU_PANEL, d->n_in - column), panels[0],
                                   BLOCK_ROWS * CPU_PANEL);
}

// Goes on with the chains of a strip of n panels from c on of dW_g, or begins them.
static void add_panels(const struct cpu_net *net, const struct gradient *d, float *dw,
                       const struct gradient_block *block, const float *dy,
                       const float *panels, uint32_t c, uint32_t n_panels, uint32_t end,
                       bool more)
{
    const uint32_t width = n_panels * CPU_PANEL;
    const uint32_t n = (uint32_t) moe_min(width, d->n_in - c * CPU_PANEL);
    const uint32_t n_out = (uint32_t) (block->outs.end - block->outs.begin);
    float *to = dw + block->outs.begin * d->n_in + c * CPU_PANEL;
    const bool last = c + n_panels == end; // else sums of the next strip are asked for
    struct cpu_fetch behind = {
        .row = (const char *) (to + (last ? 0 : width)),
        .stride = d->n_in * sizeof *to,
        .n_rows = last ? 0 : n_out,
        .n_lines = (uint32_t) (width * sizeof *to / CPU_LINE),
        .each = 1,
    };
    const float *x[MAX_OUT];
    float *sums[MAX_OUT], edge[MAX_OUT * CPU_MAX_STRIP * CPU_PANEL];
    for (uint32_t o = 0; o < n_out; o++) {
        x[o] = dy + o * BLOCK_ROWS;
        sums[o] = to + (size_t) o * d->n_in;
        if (n < width) {
            sums[o] = edge + o * width;
            memset(sums[o], 0, width * sizeof *edge);
            memcpy(sums[o], to + (size_t) o * d->n_in, n * sizeof *edge);
        }
    }
    moe_cpu_net_chains(net, x, n_out, 0, panels, BLOCK_ROWS * CPU_PANEL, n_panels, block->n_rows,
                       more, sums, &behind);
    for (uint32_t o = 0; n < width && o < n_out; o++)
        memcpy(to + (size_t) o * d->n_in, sums[o], n * sizeof *edge);
}

// A group without rows.
static void clear(const struct gradient *d, float *dw, struct cpu_span outs,
                  struct cpu_span panels)
{
    const uint64_t column = panels.begin * CPU_PANEL;
    const uint64_t end = moe_min(panels.end * CPU_PANEL, d->n_in);
    for (uint64_t o = outs.begin; o < outs.end; o++)
        memset(dw + o * d->n_in + column, 0, (size_t) (end - column) * sizeof *dw);
}

void moe_cpu_net_dw_task(const struct cpu_net *net, uint32_t i)
{
    const struct gradient d = gradient_of(net);
    const uint64_t g = i / (d.out_blocks * d.panel_blocks);
    const struct cpu_span panels = moe_cpu_span(moe_div_up(d.n_in, CPU_PANEL), BLOCK_PANELS,
                                                i % d.panel_blocks);
    const struct cpu_span places = moe_cpu_group_places(&d.groups, g);
    float *dw = moe_cpu_net_out(net, 0) + g * d.n_out * d.n_in;
    struct gradient_block block = {
        .outs = moe_cpu_span(d.n_out, d.block_out, i / d.panel_blocks % d.out_blocks)};
    _Alignas(64) float dy[MAX_OUT * BLOCK_ROWS], a[PACKED_PANELS][BLOCK_ROWS * CPU_PANEL];

    const uint32_t strip = moe_cpu_net_strip(net);
    if (places.begin == places.end && !net->call.add)
        clear(&d, dw, block.outs, panels);
    for (uint64_t begin = places.begin; begin < places.end; begin += BLOCK_ROWS) {
        const bool more = net->call.add || begin > places.begin;
        block.n_rows = (uint32_t) moe_min(BLOCK_ROWS, places.end - begin);
        find_rows(&d, begin, &block);
        pack_dy(net, &block, dy);
        for (uint32_t c = (uint32_t) panels.begin; c < panels.end; c += PACKED_PANELS) {
            const uint32_t n = (uint32_t) moe_min(PACKED_PANELS, panels.end - c);
            pack_a(net, &d, &block, c, n, a);
            for (uint32_t j = 0; j < n; j += strip)
                add_panels(net, &d, dw, &block, dy, a[j], c + j,
                           (uint32_t) moe_min(strip, n - j), (uint32_t) panels.end, more);
        }
    }
}

// ---- sums of rows: db_g = sum over r of s[r] dy[r]; e[g] = alpha sum over r of d[r] -----------

enum { SUM_COLUMNS = 128 };

struct column_sums {
    const float *d, *s;
    uint32_t div, width;
    struct cpu_grouping groups;
    float alpha, *out; // (groups, width)
};

static struct column_sums column_sums_of(const struct cpu_net *net)
{
    const struct moe_net_call *call = &net->call;
    const bool bias = call->op->kind == MOE_NET_MATMUL_DW;
    struct column_sums sums = {
        .d = call->in[0].data,
        .s = bias ? call->in[2].data : NULL,
        .div = call->op->div[0],
        .width = call->in[0].width,
        .alpha = bias ? 1.0f : call->op->alpha,
        .out = call->out[bias ? 1 : 0].data,
    };
    sums.groups = moe_cpu_net_grouping(net, bias ? 3 : 1, call->in[0].rows * sums.div);
    return sums;
}

// Things to cut: blocks of columns of groups.
void moe_cpu_net_column_sums_prepare(struct cpu_net *net)
{
    const struct column_sums sums = column_sums_of(net);
    const uint64_t n_groups = sums.groups.n_groups;
    net->cut = moe_cpu_net_cut(n_groups * moe_div_up(sums.width, SUM_COLUMNS),
                               moe_div_up(sums.groups.n_rows, n_groups) * SUM_COLUMNS);
}

void moe_cpu_net_column_sums_task(const struct cpu_net *net, uint32_t i)
{
    const struct column_sums sums = column_sums_of(net);
    const struct cpu_span blocks = moe_cpu_net_span(net, i);
    const uint64_t n_blocks = moe_div_up(sums.width, SUM_COLUMNS);
    for (uint64_t b = blocks.begin; b < blocks.end; b++) {
        const uint64_t g = b / n_blocks;
        const struct cpu_span columns = moe_cpu_span(sums.width, SUM_COLUMNS, b % n_blocks);
        const struct cpu_span places = moe_cpu_group_places(&sums.groups, g);
        const uint32_t n = (uint32_t) (columns.end - columns.begin);
        float sum[SUM_COLUMNS] = {0};
        for (uint64_t p = places.begin; p < places.end; p++) {
            const uint64_t row = moe_cpu_group_row(&sums.groups, p);
            net->kernels->arrays.scale(sums.s ? sums.s[row] : 1.0f,
                                       sums.d + row / sums.div * sums.width + columns.begin, sum,
                                       n, true);
        }
        net->kernels->arrays.scale(sums.alpha, sum, sums.out + g * sums.width + columns.begin, n,
                                   net->call.add);
    }
}

// ---- grouping: a stable counting sort --------------------------------------------------------

void moe_cpu_net_group_prepare(struct cpu_net *net)
{
    net->cut = (struct cpu_cut){.n = 1, .block = 1, .n_tasks = 1};
}

void moe_cpu_net_group_task(const struct cpu_net *net, uint32_t i)
{
    (void) i;
    const struct moe_net_call *call = &net->call;
    const uint64_t n_rows = call->in[0].rows, n_groups = call->out[0].rows - 1;
    const int32_t *ids = call->in[0].data;
    int32_t *starts = call->out[0].data, *members = call->out[1].data;
    memset(starts, 0, (size_t) (n_groups + 1) * sizeof *starts);
    for (uint64_t r = 0; r < n_rows; r++)
        starts[ids[r] + 1]++;
    for (uint64_t g = 0; g < n_groups; g++)
        starts[g + 1] += starts[g];
    // While rows are placed starts[g] is where the next of group g goes; then it is g's end.
    for (uint64_t r = 0; r < n_rows; r++)
        members[starts[ids[r]]++] = (int32_t) r;
    memmove(starts + 1, starts, (size_t) n_groups * sizeof *starts);
    starts[0] = 0;
}
