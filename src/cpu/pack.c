// SPDX-License-Identifier: MIT
// Packing experts into panels.
#include "cpu/cpu.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "core/dtype.h"

#include <string.h>

static void lay_out(struct cpu_expert_layout *out, struct moe_expert_shape shape, bool gated)
{
    struct cpu_expert_layout l = {
        .in_type = shape.in_type,
        .out_type = shape.out_type,
        .gated = gated,
        .d_in = shape.d_in,
        .d_ff = shape.d_ff,
        .d_out = shape.d_out,
    };
    l.n_in_panels = (uint32_t) moe_div_up(l.d_ff, CPU_PANEL);
    l.n_out_panels = (uint32_t) moe_div_up(l.d_out, CPU_PANEL);
    l.in_panel_size = moe_cpu_panel_size(l.in_type, l.d_in);
    l.out_panel_size = moe_cpu_panel_size(l.out_type, l.d_ff);

    const uint64_t n_matrices = l.gated ? 2 : 1;
    const uint64_t in_bias_size = (uint64_t) l.n_in_panels * CPU_PANEL * sizeof(float);
    const uint64_t out_bias_size = (uint64_t) l.n_out_panels * CPU_PANEL * sizeof(float);
    l.gate_bias = moe_align_up(n_matrices * l.n_in_panels * l.in_panel_size, MOE_HOST_ALIGN);
    l.up_bias = l.gate_bias + (l.gated ? in_bias_size : 0);
    l.out_panels = l.up_bias + in_bias_size;
    l.out_bias = moe_align_up(l.out_panels + l.n_out_panels * l.out_panel_size, MOE_HOST_ALIGN);
    l.size = moe_align_up(l.out_bias + out_bias_size, CPU_BLOCK_ALIGN);
    *out = l;
}

void moe_cpu_expert_layout(struct cpu_expert_layout *out, const struct moe_layer *layer,
                           uint32_t expert)
{
    lay_out(out, moe_layer_expert_shape(layer, expert), layer->desc.gated);
}

void moe_cpu_latent_layout(struct cpu_expert_layout *out, const vkmoe_layer_desc *desc)
{
    const struct moe_expert_shape shape = {desc->d_model, desc->d_latent, desc->d_out,
                                           desc->latent_type, desc->latent_type};
    lay_out(out, shape, false);
}

// The units of n rows side by side, n_units of `size` bytes each.
static inline void interleave(const char *const *rows, uint32_t n, size_t n_units, size_t size,
                              char *dst)
{
    for (size_t i = 0; i < n_units; i++)
        for (uint32_t c = 0; c < n; c++)
            memcpy(dst + (i * CPU_PANEL + c) * size, rows[c] + i * size, size);
}

void moe_cpu_pack_panel(enum vkmoe_dtype type, const char *const *rows, uint32_t n, uint32_t k,
                        char *dst)
{
    const struct cpu_panel_block block = moe_cpu_panel_block(type);
    const size_t n_whole = k / block.n_values;
    if (type == VKMOE_F16) {
        interleave(rows, n, k, 2, dst);
    } else if (moe_dtype_is_float(type)) {
        interleave(rows, n, n_whole, 4, dst);
        for (uint32_t c = 0; c < n && k % block.n_values > 0; c++) // half a pair
            memcpy(dst + (n_whole * CPU_PANEL + c) * 4, rows[c] + n_whole * 4, 2);
    } else {
        for (size_t i = 0; i < moe_div_up(k, block.n_values); i++)
            for (uint32_t c = 0; c < n; c++)
                moe_cpu_put_block(type, rows[c] + i * block.size, c,
                                  dst + i * block.size * CPU_PANEL);
    }
}

// ---- blocks ------------------------------------------------------------------------------------

// A matrix (n_out, k) to pack into panels, `stride` bytes from one to the next.
struct matrix {
    const vkmoe_tensor *tensor;
    enum vkmoe_dtype type;
    uint32_t n_out, k, n_panels;
    uint64_t panel_size, stride;
    char *dst;
};

// Packs rows of k values at most in n_tasks tasks. Each has room for what the tensors need of it:
// the rows of a panel as they are read; a row as f32, and a panel's rows converted.
struct packing {
    struct matrix matrices[3];
    uint32_t n_matrices, n_panels, n_tasks, k;
    bool reads, converts;
    uint64_t rows_size, room_size;
    char *room;
    enum vkmoe_status status; // of tensors that are read, which only a single task meets
};

static void add_matrix(struct packing *p, const struct cpu_expert_layout *l, bool in,
                       const vkmoe_tensor *tensor, char *dst)
{
    const uint64_t size = in ? l->in_panel_size : l->out_panel_size;
    p->matrices[p->n_matrices++] = (struct matrix){
        .tensor = tensor,
        .type = in ? l->in_type : l->out_type,
        .n_out = in ? l->d_ff : l->d_out,
        .k = in ? l->d_in : l->d_ff,
        .n_panels = in ? l->n_in_panels : l->n_out_panels,
        .panel_size = size,
        .stride = in && l->gated ? 2 * size : size,
        .dst = dst,
    };
    p->n_panels += p->matrices[p->n_matrices - 1].n_panels;
    p->reads |= !tensor->data;
    p->converts |= tensor->type != p->matrices[p->n_matrices - 1].type;
}

// dst and the tensor have any alignment. Rows of another type than the stored one are f32 and are
// converted.
static enum vkmoe_status pack_rows(const struct packing *p, const struct matrix *m, uint32_t panel,
                                   char *room)
{
    char *given_room = room, *converted = room + (p->reads ? p->rows_size : 0);
    float *values = (float *) (converted + p->rows_size);
    const uint32_t first = panel * CPU_PANEL, n = (uint32_t) moe_min(m->n_out - first, CPU_PANEL);
    const size_t row_size = (size_t) moe_dtype_size(m->type, m->k);
    const char *given, *rows[CPU_PANEL];
    char *dst = m->dst + panel * m->stride;
    enum vkmoe_status status = moe_tensor_rows(m->tensor, first, n, m->k, given_room, &given);
    if (status != VKMOE_OK)
        return status;
    for (uint32_t c = 0; c < n; c++, converted += row_size) {
        rows[c] = given + c * row_size;
        if (m->tensor->type == m->type)
            continue;
        moe_dtype_decode(VKMOE_F32, given + c * m->k * sizeof(float), m->k, values);
        moe_dtype_encode(m->type, values, m->k, converted);
        rows[c] = converted;
    }
    memset(dst, 0, (size_t) m->panel_size); // what is padded
    moe_cpu_pack_panel(m->type, rows, n, m->k, dst);
    return VKMOE_OK;
}

// The t-th part of all panels, in ascending order.
static void pack_part(void *arg, uint32_t t)
{
    struct packing *p = arg;
    uint32_t at = (uint32_t) ((uint64_t) p->n_panels * t / p->n_tasks);
    const uint32_t end = (uint32_t) ((uint64_t) p->n_panels * (t + 1) / p->n_tasks);
    for (uint32_t i = 0, first = 0; i < p->n_matrices; first += p->matrices[i++].n_panels)
        for (; at < end && at - first < p->matrices[i].n_panels; at++) {
            enum vkmoe_status status = pack_rows(p, &p->matrices[i], at - first,
                                                 p->room + t * p->room_size);
            if (status != VKMOE_OK) {
                p->status = status;
                return;
            }
        }
}

// As many tasks as threads; tensors that are read are so by the caller's, in order.
static void set_tasks(struct packing *p, const struct cpu_device *device)
{
    // Rows are never more than f32, but for fp8 where one block of it is more.
    p->rows_size = moe_align_up(moe_rows_room(VKMOE_FP8, CPU_PANEL, p->k), sizeof(float));
    p->room_size = moe_align_up((p->reads ? p->rows_size : 0) +
                                (p->converts ? p->rows_size + p->k * sizeof(float) : 0),
                                MOE_HOST_ALIGN);
    p->n_tasks = p->reads ? 1 : (uint32_t) moe_max(1, moe_min(device->n_threads, p->n_panels));
}

static void pack_bias(const float *bias, uint32_t n, char *dst)
{
    if (bias)
        memcpy(dst, bias, n * sizeof *bias);
}

static void pack_vectors(const struct cpu_expert_layout *l, const vkmoe_expert_tensors *tensors,
                         char *block)
{
    const uint64_t in_end = (l->gated ? 2 : 1) * l->n_in_panels * l->in_panel_size;
    const uint64_t out_end = l->out_panels + l->n_out_panels * l->out_panel_size;
    memset(block + in_end, 0, (size_t) (l->out_panels - in_end));
    memset(block + out_end, 0, (size_t) (l->size - out_end));
    pack_bias(tensors->gate_bias, l->d_ff, block + l->gate_bias);
    pack_bias(tensors->up_bias, l->d_ff, block + l->up_bias);
    pack_bias(tensors->down_bias, l->d_out, block + l->out_bias);
}

enum vkmoe_status moe_cpu_pack_block(const struct cpu_device *device,
                                     const struct cpu_expert_layout *l,
                                     const vkmoe_expert_tensors *tensors, char *block)
{
    const vkmoe_host *host = device->base.host;
    struct packing p = {.k = (uint32_t) moe_max(l->d_in, l->d_ff)};
    if (l->gated)
        add_matrix(&p, l, true, &tensors->gate, block);
    add_matrix(&p, l, true, &tensors->up, block + (l->gated ? l->in_panel_size : 0));
    add_matrix(&p, l, false, &tensors->down, block + l->out_panels);
    set_tasks(&p, device);
    enum vkmoe_status status = moe_try_alloc_unset(host, (size_t) (p.n_tasks * p.room_size),
                                                   "rows to pack", &p.room);
    if (status != VKMOE_OK)
        return status;
    moe_cpu_parallel(device, p.n_tasks, pack_part, &p);
    pack_vectors(l, tensors, block);
    moe_free(host, p.room);
    return p.status;
}

enum vkmoe_status moe_cpu_pack_expert(const struct moe_device *device,
                                      const struct moe_layer *layer, uint32_t expert,
                                      const vkmoe_expert_tensors *tensors, void *dst)
{
    struct cpu_expert_layout l;
    moe_cpu_expert_layout(&l, layer, expert);
    return moe_cpu_pack_block((const struct cpu_device *) device, &l, tensors, dst);
}
