// SPDX-License-Identifier: MIT
// Weights: packing experts into panels, and the object that holds them all.
#include "cpu/cpu.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "core/dtype.h"

#include <string.h>

enum { BLOCK_ALIGN = 256 };

void moe_cpu_expert_layout(struct cpu_expert_layout *out, const struct moe_layer *layer,
                           uint32_t expert)
{
    const vkmoe_layer_desc *desc = &layer->desc;
    struct cpu_expert_layout l = {
        .in_type = desc->in_type,
        .out_type = desc->out_type,
        .gated = desc->gated,
        .d_model = desc->d_model,
        .d_ff = moe_layer_d_ff(layer, expert),
        .d_out = desc->d_out,
    };
    l.n_in_panels = (uint32_t) moe_div_up(l.d_ff, CPU_PANEL);
    l.n_out_panels = (uint32_t) moe_div_up(l.d_out, CPU_PANEL);
    l.in_panel_size = moe_dtype_size(l.in_type, (uint64_t) l.d_model * CPU_PANEL);
    l.out_panel_size = moe_dtype_size(l.out_type, (uint64_t) l.d_ff * CPU_PANEL);

    const uint64_t n_matrices = l.gated ? 2 : 1;
    const uint64_t in_bias_size = (uint64_t) l.n_in_panels * CPU_PANEL * sizeof(float);
    const uint64_t out_bias_size = (uint64_t) l.n_out_panels * CPU_PANEL * sizeof(float);
    l.gate_bias = moe_align_up(n_matrices * l.n_in_panels * l.in_panel_size, MOE_HOST_ALIGN);
    l.up_bias = l.gate_bias + (l.gated ? in_bias_size : 0);
    l.out_panels = l.up_bias + in_bias_size;
    l.out_bias = moe_align_up(l.out_panels + l.n_out_panels * l.out_panel_size, MOE_HOST_ALIGN);
    l.size = moe_align_up(l.out_bias + out_bias_size, BLOCK_ALIGN);
    *out = l;
}

// Room to convert the rows of one panel of k inputs: one row as f32, then 16 rows as stored.
static enum vkmoe_status alloc_rows(const vkmoe_host *host, uint32_t k, float **out)
{
    return moe_try_alloc(host, (size_t) k * (1 + CPU_PANEL) * sizeof(float), "rows to pack", out);
}

// The elements of n rows side by side: dst[i][c] = rows[c][i], of `size` bytes each.
static inline void interleave(const char *const *rows, uint32_t n, uint32_t k, size_t size,
                              char *dst)
{
    for (size_t i = 0; i < k; i++)
        for (uint32_t c = 0; c < n; c++)
            memcpy(dst + (i * CPU_PANEL + c) * size, rows[c] + i * size, size);
}

// Packs a matrix (n_out, k) into panels, `stride` bytes from one to the next. The padding of dst is
// zero already; dst and the tensor have any alignment. Rows of the stored type are read in place,
// others are converted in `scratch`.
static void pack_panels(enum vkmoe_dtype type, const vkmoe_tensor *tensor, uint32_t n_out,
                        uint32_t k, float *scratch, uint64_t stride, char *dst)
{
    const size_t row_size = (size_t) moe_dtype_size(type, k);
    const char *rows[CPU_PANEL];
    for (uint32_t first = 0; first < n_out; first += CPU_PANEL, dst += stride) {
        const uint32_t n = (uint32_t) moe_min(n_out - first, CPU_PANEL);
        for (uint32_t c = 0; c < n; c++) {
            char *converted = (char *) (scratch + k) + c * row_size;
            rows[c] = converted;
            if (tensor->type == type) {
                rows[c] = (const char *) tensor->data + (size_t) (first + c) * row_size;
                continue;
            }
            moe_tensor_row(tensor, first + c, k, scratch);
            moe_dtype_encode(type, scratch, k, converted);
        }
        if (moe_dtype_size(type, 1) == 4)
            interleave(rows, n, k, 4, dst);
        else
            interleave(rows, n, k, 2, dst);
    }
}

static void pack_bias(const float *bias, uint32_t n, char *dst)
{
    if (bias)
        memcpy(dst, bias, n * sizeof *bias);
}

enum vkmoe_status moe_cpu_pack_expert(const struct moe_device *device,
                                      const struct moe_layer *layer, uint32_t expert,
                                      const vkmoe_expert_tensors *tensors, void *dst)
{
    struct cpu_expert_layout l;
    moe_cpu_expert_layout(&l, layer, expert);
    const uint32_t k = (uint32_t) moe_max(l.d_model, l.d_ff);
    float *scratch;
    enum vkmoe_status status = alloc_rows(device->host, k, &scratch);
    if (status != VKMOE_OK)
        return status;

    char *block = dst;
    memset(block, 0, (size_t) l.size);
    if (l.gated) {
        pack_panels(l.in_type, &tensors->gate, l.d_ff, l.d_model, scratch, 2 * l.in_panel_size,
                    block);
        pack_bias(tensors->gate_bias, l.d_ff, block + l.gate_bias);
    }
    pack_panels(l.in_type, &tensors->up, l.d_ff, l.d_model, scratch,
                (l.gated ? 2 : 1) * l.in_panel_size, block + (l.gated ? l.in_panel_size : 0));
    pack_bias(tensors->up_bias, l.d_ff, block + l.up_bias);
    pack_panels(l.out_type, &tensors->down, l.d_out, l.d_ff, scratch, l.out_panel_size,
                block + l.out_panels);
    pack_bias(tensors->down_bias, l.d_out, block + l.out_bias);
    moe_free(device->host, scratch);
    return VKMOE_OK;
}

static bool has_gate_column(const struct moe_layer *layer)
{
    return moe_layer_has_shared(layer) && layer->desc.shared_gate == VKMOE_SHARED_SIGMOID;
}

static uint32_t router_panels(const struct moe_layer *layer)
{
    return (uint32_t) moe_div_up((uint64_t) layer->desc.n_experts + has_gate_column(layer),
                                 CPU_PANEL);
}

// Floats of the router's part: panels, router bias, selection bias.
static uint64_t router_size(const struct moe_layer *layer)
{
    uint64_t n = (uint64_t) router_panels(layer) * CPU_PANEL;
    return (n * layer->desc.d_model + 2 * n) * sizeof(float);
}

enum vkmoe_status moe_cpu_weights_layout(const struct moe_device *device,
                                         const struct moe_layer *layer, vkmoe_weights_layout *out)
{
    (void) device;
    struct cpu_expert_layout l;
    moe_cpu_expert_layout(&l, layer, 0);
    *out = (vkmoe_weights_layout){.expert_size = l.size};
    if (moe_layer_has_shared(layer)) {
        moe_cpu_expert_layout(&l, layer, VKMOE_SHARED_EXPERT);
        out->shared_size = l.size;
    }
    out->total_size = moe_align_up(router_size(layer), BLOCK_ALIGN) +
                      layer->desc.n_experts * out->expert_size + out->shared_size;
    return VKMOE_OK;
}

static enum vkmoe_status create_router(struct cpu_weights *w, const vkmoe_router_tensors *source)
{
    const struct moe_layer *layer = &w->base.layer;
    const vkmoe_layer_desc *desc = &layer->desc;
    const vkmoe_host *host = w->base.device->host;
    const uint32_t n = desc->n_experts, d_model = desc->d_model;
    float *scratch = NULL;
    enum vkmoe_status status;
    TRY(moe_try_alloc(host, (size_t) router_size(layer), "router weights", &w->router));
    TRY(alloc_rows(host, d_model, &scratch));

    w->n_router_panels = router_panels(layer);
    w->router_bias = w->router + (size_t) w->n_router_panels * CPU_PANEL * d_model;
    w->selection_bias = w->router_bias + (size_t) w->n_router_panels * CPU_PANEL;
    const size_t panel_size = (size_t) d_model * CPU_PANEL * sizeof(float);
    pack_panels(VKMOE_F32, &source->weight, n, d_model, scratch, panel_size, (char *) w->router);
    if (has_gate_column(layer)) {
        float *column = w->router + n / CPU_PANEL * (panel_size / sizeof(float)) + n % CPU_PANEL;
        for (size_t i = 0; i < d_model; i++)
            column[i * CPU_PANEL] = source->shared_gate[i];
    }
    if (desc->router_bias)
        memcpy(w->router_bias, source->bias, n * sizeof(float));
    if (desc->selection_bias)
        memcpy(w->selection_bias, source->selection_bias, n * sizeof(float));

fail:
    moe_free(host, scratch);
    return status;
}

// One block of the weights: copied when it is packed already.
static enum vkmoe_status create_expert(struct cpu_weights *w,
                                       const struct moe_weights_source *source, uint32_t expert,
                                       uint64_t size, char *dst)
{
    struct moe_source_expert from;
    enum vkmoe_status status = moe_source_get(source, &w->base.layer, expert, &from);
    if (status != VKMOE_OK)
        return status;
    if (!from.packed)
        return moe_cpu_pack_expert(w->base.device, &w->base.layer, expert, &from.tensors, dst);
    memcpy(dst, from.packed, (size_t) size);
    return VKMOE_OK;
}

static enum vkmoe_status create_experts(struct cpu_weights *w,
                                        const struct moe_weights_source *source)
{
    const struct moe_layer *layer = &w->base.layer;
    const uint32_t n = layer->desc.n_experts;
    enum vkmoe_status status;
    moe_cpu_expert_layout(&w->routed, layer, 0);
    if (moe_layer_has_shared(layer))
        moe_cpu_expert_layout(&w->shared, layer, VKMOE_SHARED_EXPERT);
    TRY(moe_try_alloc(w->base.device->host, (size_t) (n * w->routed.size + w->shared.size),
                      "expert weights", &w->experts));
    w->shared_expert = w->experts + n * w->routed.size;
    for (uint32_t e = 0; e < n; e++)
        TRY(create_expert(w, source, e, w->routed.size, w->experts + e * w->routed.size));
    if (moe_layer_has_shared(layer))
        TRY(create_expert(w, source, VKMOE_SHARED_EXPERT, w->shared.size, w->shared_expert));
    return VKMOE_OK;

fail:
    return status;
}

enum vkmoe_status moe_cpu_weights_create(struct moe_device *device, const struct moe_layer *layer,
                                         const struct moe_weights_source *source,
                                         struct moe_packed_weights **out)
{
    *out = NULL;
    struct cpu_weights *w = NULL;
    enum vkmoe_status status;
    TRY(moe_try_alloc(device->host, sizeof *w, "weights object", &w));
    w->base.device = device;
    w->base.layer = *layer;
    TRY(create_router(w, source->router));
    TRY(create_experts(w, source));
    *out = &w->base;
    return VKMOE_OK;

fail:
    if (w)
        moe_cpu_weights_destroy(&w->base);
    return status;
}

void moe_cpu_weights_destroy(struct moe_packed_weights *weights)
{
    struct cpu_weights *w = (struct cpu_weights *) weights;
    if (!w)
        return;
    const vkmoe_host *host = w->base.device->host;
    moe_free(host, w->experts);
    moe_free(host, w->router);
    moe_free(host, w);
}
