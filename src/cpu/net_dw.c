// SPDX-License-Identifier: MIT
// Sums over the rows of groups: gradients of matrices and biases, and how rows are grouped.
#include "cpu/net.h"

#include "base/bits.h"

#include <string.h>

// ---- dW_g = sum over r of s[r] dy[r]^T a[r] --------------------------------------------------

// A task has BLOCK_OUT rows and BLOCK_PANELS panels of columns of one dW_g, whose sums it keeps,
// and goes through the group's rows in blocks: dy is transposed, so that the kernel of products
// finds its rows, and a is gathered into panels, times s. Rows ascend in each sum.
enum {
    BLOCK_OUT = 96,   // a multiple of the kernel's 6
    BLOCK_PANELS = 6,
    BLOCK_ROWS = 128, // a multiple of 16
};

struct gradient {
    const float *dy, *a, *s;
    uint32_t dy_div, a_div, n_out, n_in;
    uint64_t out_blocks, panel_blocks;
    struct cpu_grouping groups;
};

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
    d.out_blocks = moe_div_up(d.n_out, BLOCK_OUT);
    d.panel_blocks = moe_div_up(d.n_in, BLOCK_PANELS * CPU_PANEL);
    d.groups = moe_cpu_net_grouping(net, 3, call->in[0].rows * d.dy_div);
    return d;
}

void moe_cpu_net_dw_prepare(struct cpu_net *net)
{
    const struct gradient d = gradient_of(net);
    const uint64_t n = d.groups.n_groups * d.out_blocks * d.panel_blocks;
    net->cut = (struct cpu_cut){.n = n, .block = 1, .n_tasks = (uint32_t) n};
    net->cut.work = (d.groups.n_rows + d.groups.n_groups) * d.n_out * d.n_in;
}

// dy of rows at `places`, transposed: out[o][r], BLOCK_ROWS apart, of outputs first .. first + n.
static void pack_dy(const struct cpu_net *net, const struct gradient *d, struct cpu_span places,
                    uint32_t first, uint32_t n, float *out)
{
    for (uint64_t begin = places.begin; begin < places.end; begin += CPU_PANEL) {
        const uint32_t n_rows = (uint32_t) moe_min(CPU_PANEL, places.end - begin);
        const float *rows[CPU_PANEL];
        for (uint32_t r = 0; r < n_rows; r++)
            rows[r] = d->dy + moe_cpu_group_row(&d->groups, begin + r) / d->dy_div * d->n_out;
        net->kernels->transpose(rows, n_rows, first, n, out + (begin - places.begin), BLOCK_ROWS);
    }
}

// Columns of panel c of s[r] a[r] for rows at `places`: (rows, 16).
static void pack_a(const struct gradient *d, struct cpu_span places, uint32_t c, float *panel)
{
    const uint32_t column = c * CPU_PANEL;
    const uint32_t n = (uint32_t) moe_min(CPU_PANEL, d->n_in - column);
    for (uint64_t i = places.begin; i < places.end; i++, panel += CPU_PANEL) {
        const uint64_t row = moe_cpu_group_row(&d->groups, i);
        const float *from = d->a + row / d->a_div * d->n_in + column;
        if (n == CPU_PANEL) {
            memcpy(panel, from, CPU_PANEL * sizeof *panel);
        } else {
            memset(panel, 0, CPU_PANEL * sizeof *panel);
            memcpy(panel, from, n * sizeof *panel);
        }
        for (uint32_t k = 0; d->s && k < CPU_PANEL; k++)
            panel[k] *= d->s[row];
    }
}

// sums (panels, n_out, 16) of outputs from `first` and panels from `first_panel` to dW_g.
static void store(const struct cpu_net *net, const struct gradient *d, uint64_t g,
                  struct cpu_span outs, struct cpu_span panels, const float *sums)
{
    float *dw = moe_cpu_net_out(net, 0) + g * d->n_out * d->n_in;
    for (uint64_t c = panels.begin; c < panels.end; c++) {
        const uint32_t n = (uint32_t) moe_min(CPU_PANEL, d->n_in - c * CPU_PANEL);
        for (uint64_t o = outs.begin; o < outs.end; o++, sums += CPU_PANEL) {
            float *to = dw + o * d->n_in + c * CPU_PANEL;
            if (net->call.add)
                for (uint32_t i = 0; i < n; i++)
                    to[i] += sums[i];
            else if (n == CPU_PANEL)
                memcpy(to, sums, CPU_PANEL * sizeof *to);
            else
                memcpy(to, sums, n * sizeof *to);
        }
    }
}

void moe_cpu_net_dw_task(const struct cpu_net *net, uint32_t i)
{
    const struct gradient d = gradient_of(net);
    const uint64_t g = i / (d.out_blocks * d.panel_blocks);
    const struct cpu_span outs =
        moe_cpu_span(d.n_out, BLOCK_OUT, i / d.panel_blocks % d.out_blocks);
    const struct cpu_span panels = moe_cpu_span(moe_div_up(d.n_in, CPU_PANEL), BLOCK_PANELS,
                                                i % d.panel_blocks);
    const struct cpu_span places = moe_cpu_group_places(&d.groups, g);
    const uint32_t n_out = (uint32_t) (outs.end - outs.begin);
    const float *x[BLOCK_OUT];
    _Alignas(64) float dy[BLOCK_OUT * BLOCK_ROWS], a[BLOCK_ROWS * CPU_PANEL];
    _Alignas(64) float sums[BLOCK_PANELS * BLOCK_OUT * CPU_PANEL];

    for (uint32_t o = 0; o < n_out; o++)
        x[o] = dy + o * BLOCK_ROWS;
    if (places.begin == places.end)
        memset(sums, 0, sizeof sums);
    for (uint64_t begin = places.begin; begin < places.end; begin += BLOCK_ROWS) {
        const struct cpu_span block = {begin, moe_min(begin + BLOCK_ROWS, places.end)};
        pack_dy(net, &d, block, (uint32_t) outs.begin, n_out, dy);
        for (uint64_t c = panels.begin; c < panels.end; c++) {
            pack_a(&d, block, (uint32_t) c, a);
            net->kernels->chain(x, n_out, 0, a, (uint32_t) (block.end - block.begin),
                                begin > places.begin,
                                sums + (c - panels.begin) * n_out * CPU_PANEL);
        }
    }
    store(net, &d, g, outs, panels, sums);
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
