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

// Scratch of packing matrices with rows of k values at most.
struct room {
    float *values;          // a row
    char *given, *converted; // the rows of one panel, from the tensor and as they are stored
};

// Rows are never more than f32, but for fp8 where one block of it is more.
static enum vkmoe_status alloc_room(const vkmoe_host *host, uint32_t k, struct room *out)
{
    const uint64_t rows = moe_rows_room(VKMOE_FP8, CPU_PANEL, k);
    enum vkmoe_status status = moe_try_alloc(host, (size_t) (k * sizeof(float) + 2 * rows),
                                             "rows to pack", &out->values);
    if (status != VKMOE_OK)
        return status;
    out->given = (char *) (out->values + k);
    out->converted = out->given + rows;
    return VKMOE_OK;
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

// Packs a matrix (n_out, k) into panels, `stride` bytes from one to the next. The padding of dst is
// zero already; dst and the tensor have any alignment. Rows of another type than the stored one are
// f32 and are converted.
static enum vkmoe_status pack_panels(enum vkmoe_dtype type, const vkmoe_tensor *tensor,
                                     uint32_t n_out, uint32_t k, const struct room *room,
                                     uint64_t stride, char *dst)
{
    enum vkmoe_status status = VKMOE_OK;
    const size_t row_size = (size_t) moe_dtype_size(type, k);
    for (uint32_t first = 0; first < n_out; first += CPU_PANEL, dst += stride) {
        const uint32_t n = (uint32_t) moe_min(n_out - first, CPU_PANEL);
        const char *given, *rows[CPU_PANEL];
        TRY(moe_tensor_rows(tensor, first, n, k, room->given, &given));
        for (uint32_t c = 0; c < n; c++) {
            rows[c] = given + c * row_size;
            if (tensor->type == type)
                continue;
            char *converted = room->converted + c * row_size;
            moe_dtype_decode(VKMOE_F32, given + c * k * sizeof(float), k, room->values);
            moe_dtype_encode(type, room->values, k, converted);
            rows[c] = converted;
        }
        moe_cpu_pack_panel(type, rows, n, k, dst);
    }

fail:
    return status;
}

static void pack_bias(const float *bias, uint32_t n, char *dst)
{
    if (bias)
        memcpy(dst, bias, n * sizeof *bias);
}

enum vkmoe_status moe_cpu_pack_block(const vkmoe_host *host, const struct cpu_expert_layout *l,
                                     const vkmoe_expert_tensors *tensors, char *block)
{
    struct room room;
    enum vkmoe_status status = alloc_room(host, (uint32_t) moe_max(l->d_in, l->d_ff), &room);
    if (status != VKMOE_OK)
        return status;

    memset(block, 0, (size_t) l->size);
    if (l->gated)
        TRY(pack_panels(l->in_type, &tensors->gate, l->d_ff, l->d_in, &room, 2 * l->in_panel_size,
                        block));
    TRY(pack_panels(l->in_type, &tensors->up, l->d_ff, l->d_in, &room,
                    (l->gated ? 2 : 1) * l->in_panel_size,
                    block + (l->gated ? l->in_panel_size : 0)));
    TRY(pack_panels(l->out_type, &tensors->down, l->d_out, l->d_ff, &room, l->out_panel_size,
                    block + l->out_panels));
    pack_bias(tensors->gate_bias, l->d_ff, block + l->gate_bias);
    pack_bias(tensors->up_bias, l->d_ff, block + l->up_bias);
    pack_bias(tensors->down_bias, l->d_out, block + l->out_bias);

fail:
    moe_free(host, room.values);
    return status;
}

enum vkmoe_status moe_cpu_pack_expert(const struct moe_device *device,
                                      const struct moe_layer *layer, uint32_t expert,
                                      const vkmoe_expert_tensors *tensors, void *dst)
{
    struct cpu_expert_layout l;
    moe_cpu_expert_layout(&l, layer, expert);
    return moe_cpu_pack_block(device->host, &l, tensors, dst);
}
