// SPDX-License-Identifier: MIT
// The oracle as a back end, so that everything above can be tested against it. Packed experts are
// decoded f32: gate, up, down, then their biases, each where the layer has it. Experts that are
// made of the very same memory share one block: a layer of large experts whose values do not matter
// then takes the memory of one.
#include "backend/reference_net.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "core/dtype.h"
#include "core/ref_backward.h"

#include <stdio.h>

extern const struct moe_backend moe_backend_reference;

struct reference_weights {
    struct moe_packed_weights base;
    struct moe_ref_weights ref; // everything in it points into `memory`
    float *memory;
};

struct reference_bound {
    struct moe_bound base;
    struct moe_ref_run *run;
};

static enum vkmoe_status reference_open(const vkmoe_host *host, const vkmoe_context_desc *desc,
                                        uint32_t i, struct moe_device **out)
{
    (void) desc, (void) i;
    enum vkmoe_status status;
    struct moe_device *device = NULL;
    TRY(moe_try_alloc(host, sizeof *device, "the reference device", &device));
    device->backend = &moe_backend_reference;
    device->host = host;
    device->info.type = VKMOE_DEVICE_REFERENCE;
    snprintf(device->info.name, sizeof device->info.name, "reference (f64 oracle)");
    snprintf(device->info.tier, sizeof device->info.tier, "f64");
    *out = device;
    return VKMOE_OK;
fail:
    return status;
}

static void reference_close(struct moe_device *device)
{
    moe_free(device->host, device);
}

// ---- weights ----------------------------------------------------------------------------------

static float *take(float **next, bool wanted, uint64_t n)
{
    float *here = wanted ? *next : NULL;
    if (wanted)
        *next += n;
    return here;
}

// Lays an expert out in its packed block, which begins at `block`; returns the block's end.
static float *lay_out_expert(const vkmoe_layer_desc *desc, uint64_t d_ff, float *block,
                             struct moe_ref_expert *out)
{
    float *next = block;
    out->gate = take(&next, desc->gated, d_ff * desc->d_model);
    out->up = take(&next, true, d_ff * desc->d_model);
    out->down = take(&next, true, desc->d_out * d_ff);
    out->gate_bias = take(&next, desc->gate_bias, d_ff);
    out->up_bias = take(&next, desc->up_bias, d_ff);
    out->down_bias = take(&next, desc->down_bias, desc->d_out);
    return next;
}

static uint64_t expert_size(const vkmoe_layer_desc *desc, uint64_t d_ff)
{
    uint64_t n_in = (desc->gated ? 2u : 1u) * d_ff * desc->d_model + desc->d_out * d_ff;
    uint64_t n_bias = ((desc->gate_bias ? 1u : 0u) + (desc->up_bias ? 1u : 0u)) * d_ff +
                      (desc->down_bias ? desc->d_out : 0);
    return moe_align_up((n_in + n_bias) * sizeof(float), 256);
}

static uint64_t router_size(const vkmoe_layer_desc *desc)
{
    uint64_t n_router = (uint64_t) desc->n_experts * desc->d_model;
    return (n_router + 2 * (uint64_t) desc->n_experts + desc->d_model) * sizeof(float);
}

static enum vkmoe_status reference_layout(const struct moe_device *device,
                                          const struct moe_layer *layer,
                                          vkmoe_weights_layout *out)
{
    (void) device;
    const vkmoe_layer_desc *desc = &layer->desc;
    out->expert_size = expert_size(desc, desc->d_ff);
    out->shared_size = moe_layer_has_shared(layer) ? expert_size(desc, desc->d_shared_ff) : 0;
    out->total_size = moe_align_up(desc->n_experts * out->expert_size + out->shared_size +
                                   router_size(desc), 256);
    return VKMOE_OK;
}

// Rounds `n` values to `type` in place.
static void round_to(enum vkmoe_dtype type, float *values, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        unsigned char stored[sizeof(float)];
        moe_dtype_encode(type, &values[i], 1, stored);
        moe_dtype_decode(type, stored, 1, &values[i]);
    }
}

static void decode_rounded(const vkmoe_tensor *tensor, enum vkmoe_dtype stored, uint64_t n_rows,
                           uint32_t width, float *out)
{
    for (uint64_t row = 0; row < n_rows; row++)
        moe_tensor_row(tensor, row, width, out + row * width);
    if (tensor->type != stored)
        round_to(stored, out, n_rows * width);
}

static void copy_vector(const float *from, uint64_t n, float *to)
{
    if (to)
        memcpy(to, from, n * sizeof *to);
}

static enum vkmoe_status reference_pack(const struct moe_device *device,
                                        const struct moe_layer *layer, uint32_t expert,
                                        const vkmoe_expert_tensors *tensors, void *dst)
{
    (void) device;
    const vkmoe_layer_desc *desc = &layer->desc;
    uint32_t d_ff = moe_layer_d_ff(layer, expert);
    struct moe_ref_expert place;
    float *end = lay_out_expert(desc, d_ff, dst, &place);
    if (place.gate)
        decode_rounded(&tensors->gate, desc->in_type, d_ff, desc->d_model, place.gate);
    decode_rounded(&tensors->up, desc->in_type, d_ff, desc->d_model, place.up);
    decode_rounded(&tensors->down, desc->out_type, desc->d_out, d_ff, place.down);
    copy_vector(tensors->gate_bias, d_ff, place.gate_bias);
    copy_vector(tensors->up_bias, d_ff, place.up_bias);
    copy_vector(tensors->down_bias, desc->d_out, place.down_bias);
    char *block_end = (char *) dst + expert_size(desc, d_ff);
    memset(end, 0, (size_t) (block_end - (char *) end));
    return VKMOE_OK;
}

static enum vkmoe_status fill_expert(struct reference_weights *weights,
                                     const struct moe_weights_source *source, uint32_t expert,
                                     float *block, struct moe_ref_expert *out)
{
    const struct moe_layer *layer = &weights->base.layer;
    uint32_t d_ff = moe_layer_d_ff(layer, expert);
    struct moe_source_expert from;
    enum vkmoe_status status = moe_source_get(source, layer, expert, &from);
    if (status != VKMOE_OK)
        return status;
    lay_out_expert(&layer->desc, d_ff, block, out);
    if (!from.packed)
        return reference_pack(weights->base.device, layer, expert, &from.tensors, block);
    memcpy(block, from.packed, expert_size(&layer->desc, d_ff));
    return VKMOE_OK;
}

static void fill_router(struct moe_ref_weights *ref, const vkmoe_router_tensors *router,
                        float *block)
{
    const vkmoe_layer_desc *desc = &ref->layer.desc;
    float *next = block;
    ref->router = take(&next, true, (uint64_t) desc->n_experts * desc->d_model);
    ref->router_bias = take(&next, desc->router_bias, desc->n_experts);
    ref->selection_bias = take(&next, desc->selection_bias, desc->n_experts);
    ref->shared_gate = take(&next, desc->shared_gate == VKMOE_SHARED_SIGMOID, desc->d_model);
    decode_rounded(&router->weight, VKMOE_F32, desc->n_experts, desc->d_model, ref->router);
    copy_vector(router->bias, desc->n_experts, ref->router_bias);
    copy_vector(router->selection_bias, desc->n_experts, ref->selection_bias);
    copy_vector(router->shared_gate, desc->d_model, ref->shared_gate);
}

static void reference_weights_destroy(struct moe_packed_weights *base)
{
    struct reference_weights *weights = (struct reference_weights *) base;
    if (!weights)
        return;
    const vkmoe_host *host = base->device->host;
    moe_free(host, weights->ref.experts);
    moe_free(host, weights->memory);
    moe_free(host, weights);
}

static bool same_tensor(const vkmoe_tensor *a, const vkmoe_tensor *b)
{
    return a->data == b->data && a->type == b->type;
}

static bool same_expert(const vkmoe_expert_tensors *a, const vkmoe_expert_tensors *b)
{
    return same_tensor(&a->gate, &b->gate) && same_tensor(&a->up, &b->up) &&
           same_tensor(&a->down, &b->down) && a->gate_bias == b->gate_bias &&
           a->up_bias == b->up_bias && a->down_bias == b->down_bias;
}

// The first expert that has the memory of expert `e`: itself, if no other before it does.
static uint32_t first_like(const struct moe_layer *layer, const struct moe_weights_source *source,
                           uint32_t e)
{
    uint32_t first = source->load_expert ? e : 0; // what is read is not compared
    for (; first < e; first++) {
        bool same = source->packed_experts
                        ? source->packed_experts[first] == source->packed_experts[e]
                        : same_expert(&source->experts[first], &source->experts[e]);
        if (same && moe_layer_d_ff(layer, first) == moe_layer_d_ff(layer, e))
            break;
    }
    return first;
}

static uint64_t memory_size(const struct moe_layer *layer, const struct moe_weights_source *source,
                            const vkmoe_weights_layout *layout)
{
    uint64_t size = layout->total_size;
    for (uint32_t e = 0; e < layer->desc.n_experts; e++)
        if (first_like(layer, source, e) < e)
            size -= layout->expert_size;
    return size;
}

static enum vkmoe_status fill_weights(struct reference_weights *weights,
                                      const struct moe_weights_source *source,
                                      const vkmoe_weights_layout *layout)
{
    enum vkmoe_status status;
    struct moe_ref_weights *ref = &weights->ref;
    float *block = weights->memory;
    for (uint32_t e = 0; e < ref->layer.desc.n_experts; e++) {
        uint32_t first = first_like(&ref->layer, source, e);
        if (first < e) {
            ref->experts[e] = ref->experts[first];
            continue;
        }
        TRY(fill_expert(weights, source, e, block, &ref->experts[e]));
        block += layout->expert_size / sizeof *block;
    }
    if (layout->shared_size > 0)
        TRY(fill_expert(weights, source, VKMOE_SHARED_EXPERT, block, &ref->shared));
    block += layout->shared_size / sizeof *block;
    fill_router(ref, source->router, block);
    return VKMOE_OK;
fail:
    return status;
}

static enum vkmoe_status reference_weights_create(struct moe_device *device,
                                                  const struct moe_layer *layer,
                                                  const struct moe_weights_source *source,
                                                  struct moe_packed_weights **out)
{
    enum vkmoe_status status;
    struct reference_weights *weights = NULL;
    vkmoe_weights_layout layout;
    TRY(reference_layout(device, layer, &layout));
    TRY(moe_try_alloc(device->host, sizeof *weights, "the oracle's weights", &weights));
    weights->base.device = device;
    weights->base.layer = weights->ref.layer = *layer;
    TRY(moe_try_alloc(device->host, layer->desc.n_experts * sizeof *weights->ref.experts,
                      "the oracle's expert table", &weights->ref.experts));
    TRY(moe_try_alloc(device->host, memory_size(layer, source, &layout), "the oracle's weights",
                      &weights->memory));
    TRY(fill_weights(weights, source, &layout));
    *out = &weights->base;
    return VKMOE_OK;
fail:
    reference_weights_destroy(weights ? &weights->base : NULL);
    return status;
}

// ---- program, bind, run -----------------------------------------------------------------------

static enum vkmoe_status reference_program_create(struct moe_device *device,
                                                  const struct moe_graph *graph,
                                                  const struct moe_program_params *params,
                                                  struct moe_program **out)
{
    enum vkmoe_status status;
    struct moe_program *program = NULL;
    if (params->variant)
        return moe_fail(VKMOE_E_UNSUPPORTED, "plan.variant = \"%s\": the reference has no variants",
                        params->variant);
    TRY(moe_layer_check_gradients(&graph->layer.desc)); // what is computed so far
    TRY(moe_try_alloc(device->host, sizeof *program, "the oracle's program", &program));
    program->device = device;
    program->graph = *graph;
    program->max_tokens = params->max_tokens;
    program->precision = params->precision;
    program->x_type = params->x_type;
    *out = program;
    return VKMOE_OK;
fail:
    return status;
}

static void reference_program_destroy(struct moe_program *program)
{
    if (program)
        moe_free(program->device->host, program);
}

static void reference_bind_destroy(struct moe_bound *base)
{
    struct reference_bound *bound = (struct reference_bound *) base;
    if (!bound)
        return;
    moe_ref_run_destroy(bound->run);
    moe_free(base->program->device->host, bound);
}

static enum vkmoe_status reference_bind_create(struct moe_program *program,
                                               struct moe_packed_weights *weights,
                                               const vkmoe_vk_io *vk_io, struct moe_bound **out)
{
    (void) vk_io;
    enum vkmoe_status status;
    const vkmoe_host *host = program->device->host;
    struct reference_bound *bound = NULL;
    TRY(moe_try_alloc(host, sizeof *bound, "the oracle's bind", &bound));
    bound->base = (struct moe_bound){program, weights};
    TRY(moe_ref_run_create(host, &program->graph, program->max_tokens, &bound->run));
    *out = &bound->base;
    return VKMOE_OK;
fail:
    reference_bind_destroy(bound ? &bound->base : NULL);
    return status;
}

// A stored row as f64, which is exact: f32 holds every type.
static void to_f64(enum vkmoe_dtype type, const char *from, uint32_t n, double *to)
{
    const size_t size = (size_t) moe_dtype_size(type, 1);
    for (uint32_t i = 0; i < n; i++) {
        float value;
        moe_dtype_decode(type, from + i * size, 1, &value);
        to[i] = (double) value;
    }
}

static void to_f32(const double *from, uint64_t n, float *to)
{
    for (uint64_t i = 0; to && i < n; i++)
        to[i] = (float) from[i];
}

// The forward run, from io->x to those outputs that are not NULL.
static void run_forward(struct moe_bound *base, uint32_t n_tokens, const vkmoe_io *io)
{
    struct moe_ref_run *run = ((struct reference_bound *) base)->run;
    const struct moe_graph *graph = &base->program->graph;
    const vkmoe_layer_desc *desc = &graph->layer.desc;
    const enum vkmoe_dtype type = base->program->x_type;
    for (uint64_t t = 0; t < n_tokens; t++)
        to_f64(type, (const char *) io->x + t * io->x_stride, desc->d_model,
               run->values[MOE_VALUE_X] + t * desc->d_model);

    moe_ref_run(run, graph, &((struct reference_weights *) base->weights)->ref, n_tokens);

    for (uint64_t t = 0; io->y && t < n_tokens; t++)
        moe_dtype_encode_f64(type, run->values[MOE_VALUE_Y] + t * desc->d_out, desc->d_out,
                             (char *) io->y + t * io->y_stride);
    uint64_t n_slots = (uint64_t) n_tokens * desc->top_k;
    for (uint64_t i = 0; io->ids && i < n_slots; i++)
        io->ids[i] = (int32_t) run->values[MOE_VALUE_IDS][i];
    to_f32(run->values[MOE_VALUE_GATES], n_slots, io->gates);
    to_f32(run->values[MOE_VALUE_SCORES], (uint64_t) n_tokens * desc->n_experts, io->scores);
}

static void reference_kernels(const struct moe_program *program, vkmoe_plan_kernels *out)
{
    const vkmoe_layer_desc *desc = &program->graph.layer.desc;
    *out = (vkmoe_plan_kernels){"f64", VKMOE_ARITHMETIC_F32, expert_size(desc, desc->d_ff)};
}

static enum vkmoe_status reference_run(struct moe_bound *base, uint32_t n_tokens,
                                       const vkmoe_io *io)
{
    run_forward(base, n_tokens, io);
    return VKMOE_OK;
}

// ---- gradients --------------------------------------------------------------------------------

// to = from, or to += from with `add`, rounded once; to NULL: not wanted.
static void put(const double *from, uint64_t n, bool add, float *to)
{
    for (uint64_t i = 0; to && i < n; i++)
        to[i] = (float) (add ? (double) to[i] + from[i] : from[i]);
}

static void put_expert(const vkmoe_layer_desc *desc, uint64_t d_ff,
                       const struct moe_ref_expert_grads *from, bool add,
                       const vkmoe_expert_grads *to)
{
    put(from->gate, d_ff * desc->d_model, add, to->gate);
    put(from->up, d_ff * desc->d_model, add, to->up);
    put(from->down, d_ff * desc->d_out, add, to->down);
    put(from->gate_bias, d_ff, add, to->gate_bias);
    put(from->up_bias, d_ff, add, to->up_bias);
    put(from->down_bias, desc->d_out, add, to->down_bias);
}

static void put_params(const struct moe_layer *layer, const struct moe_ref_grads *from,
                       const vkmoe_backward_io *to)
{
    const vkmoe_layer_desc *desc = &layer->desc;
    bool add = to->accumulate;
    if (to->router) {
        put(from->router, (uint64_t) desc->n_experts * desc->d_model, add, to->router->weight);
        put(from->router_bias, desc->n_experts, add, to->router->bias);
        put(from->shared_gate, desc->d_model, add, to->router->shared_gate);
    }
    for (uint32_t e = 0; to->experts && e < desc->n_experts; e++)
        put_expert(desc, desc->d_ff, &from->experts[e], add, &to->experts[e]);
    if (to->shared)
        put_expert(desc, desc->d_shared_ff, &from->shared, add, to->shared);
}

static enum vkmoe_status reference_backward(struct moe_bound *base, uint32_t n_tokens,
                                            const vkmoe_io *io, const vkmoe_backward_io *out)
{
    enum vkmoe_status status;
    const struct moe_program *program = base->program;
    const vkmoe_host *host = program->device->host;
    const vkmoe_layer_desc *desc = &program->graph.layer.desc;
    struct moe_ref_grads *grads = NULL;
    double *dy = NULL;
    size_t dy_size = (size_t) moe_max(n_tokens, 1) * desc->d_out * sizeof *dy; // 32 + 25 + 3 bits
    TRY(moe_ref_grads_create(host, &program->graph.layer, n_tokens, &grads));
    TRY(moe_try_alloc(host, dy_size, "the oracle's dy", &dy));
    for (uint64_t t = 0; t < n_tokens; t++)
        to_f64(program->x_type, (const char *) out->dy + t * out->dy_stride, desc->d_out,
               dy + t * desc->d_out);

    run_forward(base, n_tokens, io);
    moe_ref_backward(((struct reference_bound *) base)->run, &program->graph,
                     &((struct reference_weights *) base->weights)->ref, n_tokens, dy, grads);

    for (uint64_t t = 0; out->dx && t < n_tokens; t++)
        moe_dtype_encode_f64(program->x_type, grads->x + t * desc->d_model, desc->d_model,
                             (char *) out->dx + t * out->dx_stride);
    put_params(&program->graph.layer, grads, out);
fail:
    moe_free(host, dy);
    moe_ref_grads_destroy(grads);
    return status;
}

const struct moe_backend moe_backend_reference = {
    .name = "reference",
    .open = reference_open,
    .close = reference_close,
    .weights_layout = reference_layout,
    .pack_expert = reference_pack,
    .weights_create = reference_weights_create,
    .weights_destroy = reference_weights_destroy,
    .program_create = reference_program_create,
    .program_destroy = reference_program_destroy,
    .bind_create = reference_bind_create,
    .bind_destroy = reference_bind_destroy,
    .run = reference_run,
    .backward = reference_backward,
    .net_create = moe_reference_net_create,
    .net_destroy = moe_reference_net_destroy,
    .net_write = moe_reference_net_write,
    .net_read = moe_reference_net_read,
    .net_run = moe_reference_net_run,
    .program_kernels = reference_kernels,
};
