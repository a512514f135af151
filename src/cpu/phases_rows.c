// SPDX-License-Identifier: MIT
// The operations on rows in the order of experts: what a layer does between the router and y, when
// its experts are the caller's. Rows stay in the type that they have.
#include "cpu/cpu.h"

#include "base/bits.h"

#include <string.h>

enum { ELEMENTS = 16384 }; // of rows, in one task

static uint32_t n_slots_of(const struct cpu_bind *bind)
{
    return bind->n_tokens * moe_cpu_bind_layer(bind)->top_k;
}

uint32_t moe_cpu_one_prepare(struct cpu_bind *bind)
{
    (void) bind;
    return 1;
}

// ---- group: slots sorted by expert, stable ---------------------------------------------------

void moe_cpu_sort_task(struct cpu_bind *bind, uint32_t i)
{
    (void) i;
    const uint32_t n = moe_cpu_bind_layer(bind)->n_experts, n_slots = n_slots_of(bind);
    const vkmoe_io *io = bind->io;
    uint32_t *next = bind->starts + 1; // next[e] is starts[e + 1] once all its rows are placed
    memset(bind->starts, 0, (n + 2) * sizeof *bind->starts);
    for (uint32_t slot = 0; slot < n_slots; slot++)
        if ((uint32_t) io->ids[slot] < n)
            next[io->ids[slot] + 1]++;
    for (uint32_t e = 0; e < n; e++)
        next[e + 1] += next[e];
    for (uint32_t slot = 0; slot < n_slots; slot++)
        if ((uint32_t) io->ids[slot] < n)
            io->slots[next[io->ids[slot]]++] = (int32_t) slot;
    for (uint32_t slot = bind->starts[n]; slot < n_slots; slot++)
        io->slots[slot] = -1;
    memcpy(io->offsets, bind->starts, (n + 1) * sizeof *io->offsets);
    for (uint32_t e = 0; e < n; e++)
        io->counts[e] = bind->starts[e + 1] - bind->starts[e];
}

// ---- gather: rows[i] = x[the token of slots[i]] ----------------------------------------------

// Tasks go by as many rows as tokens have slots.
uint32_t moe_cpu_gather_prepare(struct cpu_bind *bind)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    return moe_cpu_cut_tokens(bind, (uint32_t) moe_div_up(ELEMENTS, layer->top_k), layer->d_model);
}

void moe_cpu_gather_task(struct cpu_bind *bind, uint32_t i)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const vkmoe_io *io = bind->io;
    const struct cpu_range tokens = moe_cpu_block(bind, i);
    const size_t row_size = moe_dtype_size(bind->base.program->x_type, layer->d_model);
    for (uint32_t r = tokens.begin * layer->top_k; r < tokens.end * layer->top_k; r++)
        if (io->slots[r] >= 0)
            memcpy((char *) io->rows + r * io->rows_stride,
                   (const char *) io->x + (uint32_t) io->slots[r] / layer->top_k * io->x_stride,
                   row_size);
}

// ---- combine rows: y = out_scale c_routed sum_k w_k row_k ------------------------------------

// positions[slot]: its row, or UINT32_MAX.
void moe_cpu_place_task(struct cpu_bind *bind, uint32_t i)
{
    (void) i;
    const uint32_t n_slots = n_slots_of(bind);
    memset(bind->positions, 0xff, n_slots * sizeof *bind->positions);
    for (uint32_t r = 0; r < n_slots; r++)
        if (bind->io->slots[r] >= 0)
            bind->positions[bind->io->slots[r]] = r;
}

uint32_t moe_cpu_combine_rows_prepare(struct cpu_bind *bind)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    return moe_cpu_cut_tokens(bind, (uint32_t) moe_div_up(ELEMENTS, layer->top_k), layer->d_out);
}

// The row of a slot; NULL: it has none.
static const char *slot_row(const struct cpu_bind *bind, uint32_t slot)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const vkmoe_io *io = bind->io;
    const uint32_t position = bind->positions[slot];
    if (layer->n_zero > 0 && io->ids[slot] >= (int32_t) layer->n_experts)
        return (const char *) io->x + slot / layer->top_k * io->x_stride;
    return position == UINT32_MAX ? NULL : (const char *) io->rows + position * io->rows_stride;
}

// Elements [first, first + n) of a token.
static void combine_part(const struct cpu_bind *bind, uint32_t token, uint32_t first, uint32_t n,
                         float *sum, float *row)
{
    const vkmoe_layer_desc *layer = moe_cpu_bind_layer(bind);
    const enum vkmoe_dtype type = bind->base.program->x_type;
    const size_t at = moe_dtype_size(type, first);
    const float scale = layer->out_scale * layer->c_routed;
    memset(sum, 0, n * sizeof *sum);
    for (uint32_t k = 0; k < layer->top_k; k++) {
        const uint32_t slot = token * layer->top_k + k;
        const char *from = slot_row(bind, slot);
        if (!from)
            continue;
        const float factor = scale * bind->io->gates[slot];
        moe_dtype_decode(type, from + at, n, row);
        for (uint32_t c = 0; c < n; c++)
            sum[c] += factor * row[c];
    }
    moe_dtype_encode(type, sum, n,
                     (char *) bind->io->y + (size_t) token * bind->io->y_stride + at);
}

void moe_cpu_combine_rows_task(struct cpu_bind *bind, uint32_t i)
{
    enum { PART = 512 };
    float sum[PART], row[PART];
    const uint32_t d_out = moe_cpu_bind_layer(bind)->d_out;
    const struct cpu_range tokens = moe_cpu_block(bind, i);
    for (uint32_t t = tokens.begin; t < tokens.end; t++)
        for (uint32_t first = 0; first < d_out; first += PART)
            combine_part(bind, t, first, (uint32_t) moe_min(PART, d_out - first), sum, row);
}
