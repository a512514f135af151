// SPDX-License-Identifier: MIT
// Weights: the object that holds them all.
#include "cpu/cpu.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "core/dtype.h"

#include <string.h>

// ---- the router, and other vectors -----------------------------------------------------------

// Outputs of the router behind the experts.
static uint32_t n_gate_columns(const vkmoe_layer_desc *desc)
{
    switch (desc->shared_gate) {
    case VKMOE_SHARED_PLAIN:
        break;
    case VKMOE_SHARED_SIGMOID:
        return 1;
    case VKMOE_SHARED_SOFTMAX2:
        return 2;
    }
    return 0;
}

// Places of floats in one block, or in none, which only counts them.
struct cursor {
    float *block;
    uint64_t n;
};

static float *take(struct cursor *cursor, bool wanted, uint64_t n)
{
    float *here = wanted && cursor->block ? cursor->block + cursor->n : NULL;
    if (wanted)
        cursor->n += n;
    return here;
}

// Returns how many floats the router's block takes.
static uint64_t lay_out_router(struct cpu_weights *w, const vkmoe_layer_desc *desc, float *block)
{
    const uint32_t n = moe_layer_n_scored(desc);
    struct cursor next = {block, 0};
    w->n_router_panels = (uint32_t) moe_div_up((uint64_t) n + n_gate_columns(desc), CPU_PANEL);
    const uint64_t n_padded = (uint64_t) w->n_router_panels * CPU_PANEL;
    w->router = take(&next, true, n_padded * desc->d_model);
    w->router_bias = take(&next, true, n_padded);
    w->selection_bias = take(&next, true, n);
    w->expert_scale = take(&next, desc->expert_scale, n);
    w->prenorm_scale = take(&next, desc->router_prenorm, desc->d_model);
    w->latent_norm = take(&next, desc->latent_norm, desc->d_latent);
    w->out_bias = take(&next, desc->out_bias, desc->d_out);
    w->table = (int32_t *) take(&next, desc->select == VKMOE_SELECT_TABLE,
                                (uint64_t) desc->n_token_ids * desc->top_k);
    return next.n;
}

static uint64_t router_size(const vkmoe_layer_desc *desc)
{
    struct cpu_weights unused;
    return lay_out_router(&unused, desc, NULL) * sizeof(float);
}

// An output of the router: a row of d_model weights.
static void fill_column(struct cpu_weights *w, uint32_t output, const float *row)
{
    const size_t d_model = w->base.layer.desc.d_model;
    float *column = w->router + output / CPU_PANEL * (d_model * CPU_PANEL) + output % CPU_PANEL;
    for (size_t i = 0; i < d_model; i++)
        column[i * CPU_PANEL] = row[i];
}

static void fill_vectors(struct cpu_weights *w, const struct moe_weights_source *source)
{
    const vkmoe_layer_desc *desc = &w->base.layer.desc;
    const vkmoe_router_tensors *router = source->router;
    const size_t n = moe_layer_n_scored(desc);
    const struct {
        void *to;
        const void *from;
        size_t n;
    } vectors[] = {
        {w->router_bias, router->bias, n},
        {w->selection_bias, router->selection_bias, n},
        {w->expert_scale, router->expert_scale, n},
        {w->prenorm_scale, router->prenorm_scale, desc->d_model},
        {w->latent_norm, source->latent ? source->latent->norm : NULL, desc->d_latent},
        {w->out_bias, source->out_bias, desc->d_out},
        {w->table, router->table, (size_t) desc->n_token_ids * desc->top_k},
    };
    for (uint32_t i = 0; i < MOE_COUNT(vectors); i++)
        if (vectors[i].from)
            memcpy(vectors[i].to, vectors[i].from, vectors[i].n * sizeof(float));
}

static enum vkmoe_status create_router(struct cpu_weights *w,
                                       const struct moe_weights_source *source)
{
    const vkmoe_layer_desc *desc = &w->base.layer.desc;
    const vkmoe_host *host = w->base.device->host;
    const vkmoe_router_tensors *router = source->router;
    const uint32_t n = moe_layer_n_scored(desc), d_model = desc->d_model;
    float *row = NULL, *block;
    enum vkmoe_status status;
    TRY(moe_try_alloc(host, (size_t) router_size(desc), "router weights", &block));
    lay_out_router(w, desc, block);
    TRY(moe_try_alloc(host, d_model * sizeof *row, "a row to pack", &row));
    for (uint32_t e = 0; e < n; e++) {
        moe_tensor_row(&router->weight, e, d_model, row);
        fill_column(w, e, row);
    }
    for (uint32_t i = 0; i < n_gate_columns(desc); i++) {
        fill_column(w, n + i, router->shared_gate + (size_t) i * d_model);
        if (desc->shared_gate_bias)
            w->router_bias[n + i] = router->shared_gate_bias[i];
    }
    fill_vectors(w, source);

fail:
    moe_free(host, row);
    return status;
}

// ---- all weights -----------------------------------------------------------------------------

// Layouts of all banks that the layer has; returns the bytes of all blocks.
static uint64_t lay_out_experts(struct cpu_weights *w, const struct moe_layer *layer)
{
    const vkmoe_layer_desc *desc = &layer->desc;
    w->adjugate = w->shared = w->latent = (struct cpu_expert_layout){0};
    moe_cpu_expert_layout(&w->routed, layer, 0);
    if (desc->adjugate_group > 0)
        moe_cpu_expert_layout(&w->adjugate, layer, VKMOE_ADJUGATE_EXPERT);
    if (moe_layer_has_shared(layer))
        moe_cpu_expert_layout(&w->shared, layer, VKMOE_SHARED_EXPERT);
    if (desc->d_latent > 0)
        moe_cpu_latent_layout(&w->latent, desc);
    return moe_layer_n_packed(desc) * w->routed.size +
           moe_layer_n_adjugates(desc) * w->adjugate.size + w->shared.size + w->latent.size;
}

enum vkmoe_status moe_cpu_weights_layout(const struct moe_device *device,
                                         const struct moe_layer *layer, vkmoe_weights_layout *out)
{
    (void) device;
    struct cpu_weights w;
    const uint64_t experts_size = lay_out_experts(&w, layer);
    *out = (vkmoe_weights_layout){
        .expert_size = moe_layer_n_packed(&layer->desc) > 0 ? w.routed.size : 0,
        .shared_size = w.shared.size,
        .adjugate_size = w.adjugate.size,
        .total_size = moe_align_up(router_size(&layer->desc), CPU_BLOCK_ALIGN) + experts_size,
    };
    return VKMOE_OK;
}

struct copy {
    const char *src;
    char *dst;
    uint64_t size;
    uint32_t n_tasks;
};

static void copy_part(void *arg, uint32_t t)
{
    const struct copy *c = arg;
    const uint64_t start = c->size * t / c->n_tasks, end = c->size * (t + 1) / c->n_tasks;
    memcpy(c->dst + start, c->src + start, (size_t) (end - start));
}

// By all threads, for the sake of what moe_cpu_pack_block says of pages.
static void copy_block(const struct cpu_device *device, const char *src, uint64_t size, char *dst)
{
    enum { PART = 256 << 10 }; // less is not worth a task
    struct copy c = {src, dst, size,
                     (uint32_t) moe_min(device->n_threads, moe_div_up(size, PART))};
    moe_cpu_parallel(device, c.n_tasks, copy_part, &c);
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
    copy_block((const struct cpu_device *) w->base.device, from.packed, size, dst);
    return VKMOE_OK;
}

static enum vkmoe_status create_experts(struct cpu_weights *w,
                                        const struct moe_weights_source *source)
{
    const struct moe_layer *layer = &w->base.layer;
    const uint32_t n = moe_layer_n_packed(&layer->desc);
    const uint32_t n_adjugates = moe_layer_n_adjugates(&layer->desc);
    enum vkmoe_status status;
    const uint64_t size = lay_out_experts(w, layer);
    if (size == 0)
        return VKMOE_OK;
    TRY(moe_try_alloc_unset(w->base.device->host, (size_t) size, "expert weights", &w->experts));
    w->adjugates = w->experts + n * w->routed.size;
    w->shared_expert = w->adjugates + n_adjugates * w->adjugate.size;
    w->latent_expert = w->shared_expert + w->shared.size;
    for (uint32_t e = 0; e < n; e++)
        TRY(create_expert(w, source, e, w->routed.size, w->experts + e * w->routed.size));
    for (uint32_t a = 0; a < n_adjugates; a++)
        TRY(create_expert(w, source, VKMOE_ADJUGATE_EXPERT + a, w->adjugate.size,
                          w->adjugates + a * w->adjugate.size));
    if (moe_layer_has_shared(layer))
        TRY(create_expert(w, source, VKMOE_SHARED_EXPERT, w->shared.size, w->shared_expert));
    if (source->latent) {
        const vkmoe_expert_tensors latent = {.up = source->latent->down,
                                             .down = source->latent->up};
        TRY(moe_cpu_pack_block((const struct cpu_device *) w->base.device, &w->latent, &latent,
                               w->latent_expert));
    }
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
    TRY(create_router(w, source));
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
