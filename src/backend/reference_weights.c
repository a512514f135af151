// SPDX-License-Identifier: MIT
// Packed experts are decoded f32: gate, up, down, then their biases, each where the layer has it.
// Experts that are made of the very same memory share one block: a layer of large experts whose
// values do not matter then takes the memory of one.
#include "backend/reference_weights.h"

#include "backend/source.h"
#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "core/dtype.h"

// Hands out floats one behind the other: of a block, or of none, which only counts them.
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

// ---- one expert -------------------------------------------------------------------------------

// Lays an expert out in its packed block; returns how many floats it takes.
static uint64_t lay_out_expert(const struct moe_layer *layer, uint32_t expert, float *block,
                               struct moe_ref_expert *out)
{
    const vkmoe_layer_desc *desc = &layer->desc;
    const struct moe_expert_shape shape = moe_layer_expert_shape(layer, expert);
    const uint64_t n_in = (uint64_t) shape.d_ff * shape.d_in;
    struct cursor next = {block, 0};
    out->gate = take(&next, desc->gated, n_in);
    out->up = take(&next, true, n_in);
    out->down = take(&next, true, (uint64_t) shape.d_out * shape.d_ff);
    out->gate_bias = take(&next, desc->gate_bias, shape.d_ff);
    out->up_bias = take(&next, desc->up_bias, shape.d_ff);
    out->down_bias = take(&next, desc->down_bias, shape.d_out);
    return next.n;
}

uint64_t moe_reference_expert_size(const struct moe_layer *layer, uint32_t expert)
{
    struct moe_ref_expert unused;
    return moe_align_up(lay_out_expert(layer, expert, NULL, &unused) * sizeof(float), 256);
}

// Rounds a row to what it is as `type`, in place, some blocks at a time.
static void round_to(enum vkmoe_dtype type, float *row, uint32_t width)
{
    enum { SOME = 256 }; // whole blocks of every type
    float stored[SOME + 1]; // no type takes more than f32 and a scale
    for (uint32_t begin = 0; begin < width; begin += SOME) {
        const size_t n = (size_t) moe_min(SOME, width - begin);
        moe_dtype_encode(type, row + begin, n, stored);
        moe_dtype_decode(type, stored, n, row + begin);
    }
}

// A matrix; one that is read goes through `host`'s memory, some rows at a time.
static enum vkmoe_status decode_rounded(const vkmoe_host *host, const vkmoe_tensor *tensor,
                                        enum vkmoe_dtype stored, uint64_t n_rows, uint32_t width,
                                        float *out)
{
    enum { SOME = 16 };
    enum vkmoe_status status = VKMOE_OK;
    const uint64_t size = moe_dtype_size(tensor->type, width);
    const char *given = NULL;
    void *room = NULL;
    if (!tensor->data)
        TRY(moe_try_alloc(host, SOME * size, "rows to read", &room));
    for (uint64_t row = 0; row < n_rows; row++, out += width) {
        if (row % SOME == 0)
            TRY(moe_tensor_rows(tensor, row, moe_min(SOME, n_rows - row), width, room, &given));
        moe_dtype_decode(tensor->type, given + row % SOME * size, width, out);
        if (tensor->type != stored)
            round_to(stored, out, width);
    }

fail:
    moe_free(host, room);
    return status;
}

static void copy_vector(const float *from, uint64_t n, float *to)
{
    if (to)
        memcpy(to, from, n * sizeof *to);
}

enum vkmoe_status moe_reference_pack(const struct moe_device *device, const struct moe_layer *layer,
                                     uint32_t expert, const vkmoe_expert_tensors *tensors,
                                     void *dst)
{
    const struct moe_expert_shape shape = moe_layer_expert_shape(layer, expert);
    const vkmoe_host *host = device->host;
    enum vkmoe_status status;
    struct moe_ref_expert place;
    const uint64_t n = lay_out_expert(layer, expert, dst, &place);
    if (place.gate)
        TRY(decode_rounded(host, &tensors->gate, shape.in_type, shape.d_ff, shape.d_in,
                           place.gate));
    TRY(decode_rounded(host, &tensors->up, shape.in_type, shape.d_ff, shape.d_in, place.up));
    TRY(decode_rounded(host, &tensors->down, shape.out_type, shape.d_out, shape.d_ff, place.down));
    copy_vector(tensors->gate_bias, shape.d_ff, place.gate_bias);
    copy_vector(tensors->up_bias, shape.d_ff, place.up_bias);
    copy_vector(tensors->down_bias, shape.d_out, place.down_bias);
    memset((float *) dst + n, 0, moe_reference_expert_size(layer, expert) - n * sizeof(float));

fail:
    return status;
}

static enum vkmoe_status fill_expert(struct moe_reference_weights *weights,
                                     const struct moe_weights_source *source, uint32_t expert,
                                     float *block, struct moe_ref_expert *out)
{
    const struct moe_layer *layer = &weights->base.layer;
    struct moe_source_expert from;
    enum vkmoe_status status = moe_source_get(source, layer, expert, &from);
    if (status != VKMOE_OK)
        return status;
    lay_out_expert(layer, expert, block, out);
    if (!from.packed)
        return moe_reference_pack(weights->base.device, layer, expert, &from.tensors, block);
    memcpy(block, from.packed, moe_reference_expert_size(layer, expert));
    return VKMOE_OK;
}

// ---- router, and what lies around the routed experts ------------------------------------------

// The places of all that is no expert; returns how many floats they take.
static uint64_t lay_out_others(struct moe_ref_weights *ref, float *block)
{
    const vkmoe_layer_desc *desc = &ref->layer.desc;
    const uint64_t n = moe_layer_n_scored(desc), d_latent = desc->d_latent;
    const uint32_t n_gates = desc->shared_gate == VKMOE_SHARED_SOFTMAX2 ? 2 : 1;
    struct cursor next = {block, 0};
    ref->router = take(&next, true, n * desc->d_model);
    ref->router_bias = take(&next, desc->router_bias, n);
    ref->selection_bias = take(&next, desc->selection_bias, n);
    ref->shared_gate = take(&next, desc->shared_gate != VKMOE_SHARED_PLAIN,
                            (uint64_t) n_gates * desc->d_model);
    ref->shared_gate_bias = take(&next, desc->shared_gate_bias, n_gates);
    ref->expert_scale = take(&next, desc->expert_scale, n);
    ref->prenorm_scale = take(&next, desc->router_prenorm, desc->d_model);
    ref->latent_down = take(&next, d_latent > 0, d_latent * desc->d_model);
    ref->latent_up = take(&next, d_latent > 0, d_latent * desc->d_out);
    ref->latent_norm = take(&next, desc->latent_norm, d_latent);
    ref->out_bias = take(&next, desc->out_bias, desc->d_out);
    ref->table = (int32_t *) take(&next, desc->select == VKMOE_SELECT_TABLE,
                                  (uint64_t) desc->n_token_ids * desc->top_k);
    return next.n;
}

static uint64_t others_size(const struct moe_layer *layer)
{
    struct moe_ref_weights unused = {.layer = *layer};
    return lay_out_others(&unused, NULL) * sizeof(float);
}

static enum vkmoe_status fill_others(const vkmoe_host *host, struct moe_ref_weights *ref,
                                     const struct moe_weights_source *source)
{
    enum vkmoe_status status;
    const vkmoe_layer_desc *desc = &ref->layer.desc;
    const vkmoe_router_tensors *router = source->router;
    const vkmoe_latent_tensors *latent = source->latent;
    const uint32_t n = moe_layer_n_scored(desc);
    const uint32_t n_gates = desc->shared_gate == VKMOE_SHARED_SOFTMAX2 ? 2 : 1;
    TRY(decode_rounded(host, &router->weight, router->weight.type, n, desc->d_model, ref->router));
    copy_vector(router->bias, n, ref->router_bias);
    copy_vector(router->selection_bias, n, ref->selection_bias);
    copy_vector(router->shared_gate, (uint64_t) n_gates * desc->d_model, ref->shared_gate);
    copy_vector(router->shared_gate_bias, n_gates, ref->shared_gate_bias);
    copy_vector(router->expert_scale, n, ref->expert_scale);
    copy_vector(router->prenorm_scale, desc->d_model, ref->prenorm_scale);
    copy_vector(source->out_bias, desc->d_out, ref->out_bias);
    if (ref->table)
        memcpy(ref->table, router->table,
               (uint64_t) desc->n_token_ids * desc->top_k * sizeof *ref->table);
    if (!latent)
        return VKMOE_OK;
    TRY(decode_rounded(host, &latent->down, desc->latent_type, desc->d_latent, desc->d_model,
                       ref->latent_down));
    TRY(decode_rounded(host, &latent->up, desc->latent_type, desc->d_out, desc->d_latent,
                       ref->latent_up));
    copy_vector(latent->norm, desc->d_latent, ref->latent_norm);

fail:
    return status;
}

// ---- all of them ------------------------------------------------------------------------------

enum vkmoe_status moe_reference_layout(const struct moe_device *device,
                                       const struct moe_layer *layer, vkmoe_weights_layout *out)
{
    (void) device;
    const uint64_t n_adjugates = moe_layer_n_adjugates(&layer->desc);
    if (moe_layer_n_packed(&layer->desc) > 0)
        out->expert_size = moe_reference_expert_size(layer, 0);
    if (moe_layer_has_shared(layer))
        out->shared_size = moe_reference_expert_size(layer, VKMOE_SHARED_EXPERT);
    if (n_adjugates > 0)
        out->adjugate_size = moe_reference_expert_size(layer, VKMOE_ADJUGATE_EXPERT);
    out->total_size =
        moe_align_up(moe_layer_n_packed(&layer->desc) * out->expert_size +
                         n_adjugates * out->adjugate_size + out->shared_size + others_size(layer),
                     256);
    return VKMOE_OK;
}

static bool same_tensor(const vkmoe_tensor *a, const vkmoe_tensor *b)
{
    return a->data == b->data && a->type == b->type && a->read == b->read &&
           a->read_user == b->read_user;
}

static bool same_expert(const vkmoe_expert_tensors *a, const vkmoe_expert_tensors *b)
{
    return same_tensor(&a->gate, &b->gate) && same_tensor(&a->up, &b->up) &&
           same_tensor(&a->down, &b->down) && a->gate_bias == b->gate_bias &&
           a->up_bias == b->up_bias && a->down_bias == b->down_bias;
}

// The first routed expert that has the memory of expert `e`: itself, if no other before it does.
static uint32_t first_like(const struct moe_weights_source *source, uint32_t e)
{
    uint32_t first = source->load_expert ? e : 0; // what is read is not compared
    for (; first < e; first++) {
        bool same = source->packed_experts
                        ? source->packed_experts[first] == source->packed_experts[e]
                        : same_expert(&source->experts[first], &source->experts[e]);
        if (same)
            break;
    }
    return first;
}

static uint64_t memory_size(const struct moe_layer *layer, const struct moe_weights_source *source,
                            const vkmoe_weights_layout *layout)
{
    uint64_t size = layout->total_size;
    for (uint32_t e = 0; e < moe_layer_n_packed(&layer->desc); e++)
        if (first_like(source, e) < e)
            size -= layout->expert_size;
    return size;
}

static enum vkmoe_status fill_weights(struct moe_reference_weights *weights,
                                      const struct moe_weights_source *source,
                                      const vkmoe_weights_layout *layout)
{
    enum vkmoe_status status;
    struct moe_ref_weights *ref = &weights->ref;
    float *block = weights->memory;
    for (uint32_t e = 0; e < moe_layer_n_packed(&ref->layer.desc); e++) {
        uint32_t first = first_like(source, e);
        if (first < e) {
            ref->experts[e] = ref->experts[first];
            continue;
        }
        TRY(fill_expert(weights, source, e, block, &ref->experts[e]));
        block += layout->expert_size / sizeof *block;
    }
    for (uint32_t a = 0; a < moe_layer_n_adjugates(&ref->layer.desc); a++) {
        TRY(fill_expert(weights, source, VKMOE_ADJUGATE_EXPERT + a, block, &ref->adjugates[a]));
        block += layout->adjugate_size / sizeof *block;
    }
    if (layout->shared_size > 0)
        TRY(fill_expert(weights, source, VKMOE_SHARED_EXPERT, block, &ref->shared));
    block += layout->shared_size / sizeof *block;
    lay_out_others(ref, block);
    TRY(fill_others(weights->base.device->host, ref, source));
    return VKMOE_OK;
fail:
    return status;
}

enum vkmoe_status moe_reference_weights_create(struct moe_device *device,
                                               const struct moe_layer *layer,
                                               const struct moe_weights_source *source,
                                               struct moe_packed_weights **out)
{
    enum vkmoe_status status;
    struct moe_reference_weights *weights = NULL;
    vkmoe_weights_layout layout = {0};
    const uint32_t n_adjugates = moe_layer_n_adjugates(&layer->desc);
    TRY(moe_reference_layout(device, layer, &layout));
    TRY(moe_try_alloc(device->host, sizeof *weights, "the oracle's weights", &weights));
    weights->base.device = device;
    weights->base.layer = weights->ref.layer = *layer;
    TRY(moe_try_alloc(device->host,
                      (layer->desc.n_experts + n_adjugates) * sizeof *weights->tables,
                      "the oracle's expert table", &weights->tables));
    weights->ref.experts = weights->tables;
    weights->ref.adjugates = weights->tables + layer->desc.n_experts;
    TRY(moe_try_alloc(device->host, memory_size(layer, source, &layout), "the oracle's weights",
                      &weights->memory));
    TRY(fill_weights(weights, source, &layout));
    *out = &weights->base;
    return VKMOE_OK;
fail:
    moe_reference_weights_destroy(weights ? &weights->base : NULL);
    return status;
}

void moe_reference_weights_destroy(struct moe_packed_weights *base)
{
    struct moe_reference_weights *weights = (struct moe_reference_weights *) base;
    if (!weights)
        return;
    const vkmoe_host *host = base->device->host;
    moe_free(host, weights->tables);
    moe_free(host, weights->memory);
    moe_free(host, weights);
}
