// SPDX-License-Identifier: MIT
// The oracle as a back end, so that everything above can be tested against it.
#include "backend/reference_net.h"
#include "backend/reference_weights.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"
#include "core/dtype.h"
#include "core/ref_backward.h"

#include <stdio.h>

extern const struct moe_backend moe_backend_reference;

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
    if (params->precision == VKMOE_PRECISION_INT8)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "plan.precision = int8: the reference rounds no operands to blocks");
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

static void to_i32(const double *from, uint64_t n, int32_t *to)
{
    for (uint64_t i = 0; to && i < n; i++)
        to[i] = (int32_t) from[i];
}

static void to_u32(const double *from, uint64_t n, uint32_t *to)
{
    for (uint64_t i = 0; to && i < n; i++)
        to[i] = (uint32_t) from[i];
}

// Rows of x's type as f64, and back. to NULL: not wanted.
static void read_rows(const struct moe_bound *base, enum moe_value_id value, const void *from,
                      size_t stride, uint64_t n_rows)
{
    const struct moe_graph *graph = &base->program->graph;
    const uint32_t width = graph->values[value].width;
    for (uint64_t t = 0; moe_graph_has_input(graph, value) && t < n_rows; t++)
        to_f64(base->program->x_type, (const char *) from + t * stride, width,
               ((struct reference_bound *) base)->run->values[value] + t * width);
}

static void write_rows(const struct moe_bound *base, enum moe_value_id value, uint64_t n_rows,
                       void *to, size_t stride)
{
    const struct moe_graph *graph = &base->program->graph;
    const uint32_t width = graph->values[value].width;
    const double *from = ((const struct reference_bound *) base)->run->values[value];
    for (uint64_t t = 0; to && t < n_rows; t++)
        moe_dtype_encode_f64(base->program->x_type, from + t * width, width,
                             (char *) to + t * stride);
}

static void read_inputs(const struct moe_bound *base, uint32_t n_tokens, const vkmoe_io *io)
{
    const struct moe_graph *graph = &base->program->graph;
    double *const *values = ((const struct reference_bound *) base)->run->values;
    const uint64_t n_slots = (uint64_t) n_tokens * graph->layer.desc.top_k;
    const struct {
        enum moe_value_id value;
        const int32_t *from;
        uint64_t n;
    } whole[] = {{MOE_VALUE_TOKEN_IDS, io->token_ids, n_tokens},
                 {MOE_VALUE_IDS, io->ids, n_slots},
                 {MOE_VALUE_SLOTS, io->slots, n_slots}};
    read_rows(base, MOE_VALUE_X, io->x, io->x_stride, n_tokens);
    read_rows(base, MOE_VALUE_ROUTER_X, io->router_x, io->router_x_stride, n_tokens);
    read_rows(base, MOE_VALUE_ROWS, io->rows, io->rows_stride, n_slots);
    for (uint32_t v = 0; v < MOE_COUNT(whole); v++)
        for (uint64_t i = 0; moe_graph_has_input(graph, whole[v].value) && i < whole[v].n; i++)
            values[whole[v].value][i] = whole[v].from[i];
    for (uint64_t i = 0; moe_graph_has_input(graph, MOE_VALUE_GATES) && i < n_slots; i++)
        values[MOE_VALUE_GATES][i] = (double) io->gates[i];
}

static uint64_t n_gathered(const struct moe_graph *graph, double *const *values)
{
    return (uint64_t) values[MOE_VALUE_OFFSETS][graph->layer.desc.n_experts];
}

static void write_outputs(const struct moe_bound *base, uint32_t n_tokens, const vkmoe_io *io)
{
    const struct moe_graph *graph = &base->program->graph;
    double *const *values = ((const struct reference_bound *) base)->run->values;
    const vkmoe_layer_desc *desc = &graph->layer.desc;
    const uint64_t n_slots = (uint64_t) n_tokens * desc->top_k;
    if (moe_graph_has_output(graph, MOE_VALUE_Y))
        write_rows(base, MOE_VALUE_Y, n_tokens, io->y, io->y_stride);
    if (moe_graph_has_output(graph, MOE_VALUE_IDS)) {
        to_i32(values[MOE_VALUE_IDS], n_slots, io->ids);
        to_f32(values[MOE_VALUE_GATES], n_slots, io->gates);
        to_f32(values[MOE_VALUE_SCORES], (uint64_t) n_tokens * moe_layer_n_scored(desc),
               io->scores);
    }
    if (moe_graph_has_output(graph, MOE_VALUE_ROWS)) {
        write_rows(base, MOE_VALUE_ROWS, n_gathered(graph, values), io->rows, io->rows_stride);
        to_i32(values[MOE_VALUE_SLOTS], n_slots, io->slots);
        to_u32(values[MOE_VALUE_COUNTS], desc->n_experts, io->counts);
        to_u32(values[MOE_VALUE_OFFSETS], desc->n_experts + 1ull, io->offsets);
    }
}

// The forward run, from the inputs in io to those outputs that are not NULL.
static void run_forward(struct moe_bound *base, uint32_t n_tokens, const vkmoe_io *io)
{
    const struct moe_reference_weights *weights = (struct moe_reference_weights *) base->weights;
    read_inputs(base, n_tokens, io);
    moe_ref_run(((struct reference_bound *) base)->run, &base->program->graph,
                weights ? &weights->ref : NULL, n_tokens);
    write_outputs(base, n_tokens, io);
}

static void reference_kernels(const struct moe_program *program, vkmoe_plan_kernels *out)
{
    *out = (vkmoe_plan_kernels){"f64", VKMOE_ARITHMETIC_F32,
                                moe_reference_expert_size(&program->graph.layer, 0)};
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
                     &((struct moe_reference_weights *) base->weights)->ref, n_tokens, dy, grads);

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
    .weights_layout = moe_reference_layout,
    .pack_expert = moe_reference_pack,
    .weights_create = moe_reference_weights_create,
    .weights_destroy = moe_reference_weights_destroy,
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
