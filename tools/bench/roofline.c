// SPDX-License-Identifier: MIT
// Products count 2 for each multiply-add; T = n_tokens, K = top_k, E = n_experts, D = d_model,
// F = d_ff, O = d_out, S = d_shared_ff. Activations, biases, norms and selection are not counted:
// they are below a percent. A gated expert has three matrices, a plain one two, a linear one one:
//
//     expert(F)  = 2 F (2 D + O)      gated; 2 F (D + O) plain; 2 D O linear
//     forward    = T (K expert(F) + 2 D E + expert(S))
//     backward   = forward + 2 T O (K F + S)   dW = dy x^T of every product, and dx = W^T dy of the
//                  last one alone: a network of one layer needs no gradient of its input
//     train      = forward + backward
//
// Bytes, if nothing stays in a cache from one run to the next: W = weights of the experts that are
// hit and of the shared one, as stored, V = those of their down matrices among them; P = number of
// those weights; R = 4 E D, the router; N = number of all parameters, experts that are not hit
// included:
//
//     forward    = W + R + x + y          and as much as x again where the router reads its own
//     backward   = V + x + dy + 8 (P + E D)       gradients are read and added to
//     train      = W + V + R + x + targets        weights forward and backward
//                + 4 (P + E D)                    gradients, written
//                + 28 N [+ 2 N]                   AdamW (Loshchilov, Hutter 2019, algorithm 2):
//                  value, gradient and two moments are read, value and moments written, f32 each,
//                  and the rounded copy of 16-bit weights. Every parameter: a moment decays without
//                  a gradient too.
//
// Pre-activations that a backward pass needs may be kept or computed again, and are left out: this
// is what no implementation can do without.
#include "roofline.h"

#include <math.h>

double bench_matrix_size(enum vkmoe_dtype type, double n_rows, uint32_t width)
{
    uint32_t n_values = 1, size = 0;
    vkmoe_dtype_block(type, &n_values, &size);
    return n_rows * (width / n_values + (width % n_values != 0)) * size;
}

static double out_width(const vkmoe_layer_desc *layer)
{
    return layer->d_out ? layer->d_out : layer->d_model;
}

// Parameters of the matrices that read x.
static double in_count(const vkmoe_layer_desc *layer, uint32_t d_ff)
{
    if (layer->expert_kind == VKMOE_EXPERT_LINEAR)
        return layer->d_model * out_width(layer);
    return (layer->gated ? 2.0 : 1.0) * layer->d_model * d_ff;
}

static double out_count(const vkmoe_layer_desc *layer, uint32_t d_ff)
{
    return layer->expert_kind == VKMOE_EXPERT_LINEAR ? 0 : out_width(layer) * d_ff;
}

double bench_expert_count(const vkmoe_layer_desc *layer, uint32_t d_ff)
{
    return in_count(layer, d_ff) + out_count(layer, d_ff);
}

static double down_size(const vkmoe_layer_desc *layer, uint32_t d_ff, enum vkmoe_dtype type)
{
    bool linear = layer->expert_kind == VKMOE_EXPERT_LINEAR;
    return linear ? 0 : bench_matrix_size(type, out_width(layer), d_ff);
}

static double size_as(const vkmoe_layer_desc *layer, uint32_t d_ff, enum vkmoe_dtype in_type,
                      enum vkmoe_dtype out_type)
{
    double n_rows = in_count(layer, d_ff) / layer->d_model;
    return bench_matrix_size(in_type, n_rows, layer->d_model) + down_size(layer, d_ff, out_type);
}

double bench_expert_size(const vkmoe_layer_desc *layer, uint32_t d_ff)
{
    return size_as(layer, d_ff, layer->in_type, layer->out_type);
}

double bench_shared_size(const vkmoe_layer_desc *layer)
{
    bool own = layer->own_shared_types;
    return layer->d_shared_ff == 0
               ? 0
               : size_as(layer, layer->d_shared_ff, own ? layer->shared_in_type : layer->in_type,
                         own ? layer->shared_out_type : layer->out_type);
}

static double shared_count(const vkmoe_layer_desc *layer)
{
    return layer->d_shared_ff ? bench_expert_count(layer, layer->d_shared_ff) : 0;
}

static double router_count(const vkmoe_layer_desc *layer)
{
    return ((double) layer->n_experts + layer->n_zero) * layer->d_model;
}

// Products of dx through the down matrices.
static double back_flops(const vkmoe_layer_desc *layer, double n_tokens)
{
    double shared = layer->d_shared_ff ? out_count(layer, layer->d_shared_ff) : 0;
    return 2 * n_tokens * (layer->top_k * out_count(layer, layer->d_ff) + shared);
}

static double forward_flops(const vkmoe_layer_desc *layer, double n_tokens)
{
    double slots = layer->top_k * bench_expert_count(layer, layer->d_ff);
    return 2 * n_tokens * (slots + router_count(layer) + shared_count(layer));
}

// W: a shared expert is packed as the routed ones are, with as much padding.
static double weight_bytes(const vkmoe_layer_desc *layer, double n_hit, double expert_size)
{
    const double stored = bench_expert_size(layer, layer->d_ff);
    if (!(expert_size > 0))
        expert_size = stored;
    return n_hit * expert_size + bench_shared_size(layer) * (expert_size / stored);
}

// V.
static double down_bytes(const vkmoe_layer_desc *layer, double n_hit)
{
    double routed = down_size(layer, layer->d_ff, layer->out_type);
    double shared = down_size(layer, layer->d_shared_ff, layer->out_type);
    return n_hit * routed + shared;
}

static double optimiser_bytes(const struct bench_case *what)
{
    const vkmoe_layer_desc *layer = &what->layer;
    double matrices = layer->n_experts * bench_expert_count(layer, layer->d_ff) +
                      shared_count(layer);
    double rounded = what->type == VKMOE_F32 ? 0 : 2 * matrices;
    return 28 * (matrices + router_count(layer)) + rounded;
}

struct bench_cost bench_case_cost(const struct bench_case *what, double n_experts_hit,
                                  double expert_size)
{
    const vkmoe_layer_desc *layer = &what->layer;
    double n_tokens = what->key.n_tokens;
    bool network = what->mode != BENCH_FORWARD;
    double element = network ? 4 : bench_matrix_size(what->x_type, 1, 1);
    double n_in = (layer->router_input ? 2.0 : 1.0) * layer->d_model;
    double rows = n_tokens * (n_in + out_width(layer)) * element;
    double weights = weight_bytes(layer, n_experts_hit, network ? 0 : expert_size) +
                     4 * router_count(layer);
    double down = down_bytes(layer, n_experts_hit);
    double touched = n_experts_hit * bench_expert_count(layer, layer->d_ff) + shared_count(layer) +
                     router_count(layer);
    double flops = forward_flops(layer, n_tokens), back = flops + back_flops(layer, n_tokens);
    switch (what->mode) {
    case BENCH_FORWARD:
        return (struct bench_cost){weights + rows, flops};
    case BENCH_BACKWARD:
        return (struct bench_cost){down + rows + 8 * touched, back};
    case BENCH_TRAIN:
        return (struct bench_cost){weights + down + rows + 4 * touched + optimiser_bytes(what),
                                   flops + back};
    }
    return (struct bench_cost){NAN, NAN};
}

static enum bench_bound greatest(double memory, double compute, double launch)
{
    if (isnan(memory) || isnan(compute) || isnan(launch))
        return BENCH_BOUND_NONE;
    if (launch > memory && launch > compute)
        return BENCH_BOUND_LAUNCH;
    return memory >= compute ? BENCH_BOUND_MEMORY : BENCH_BOUND_COMPUTE;
}

// x / rate; a rate that is not known is 0 or NAN.
static double over(double x, double rate)
{
    return rate > 0 ? x / rate : NAN;
}

void bench_row_floor(struct bench_row *row)
{
    double memory = over(row->bytes, row->read_rate), compute = over(row->flops, row->peak);
    double launch = row->n_dispatches ? row->n_dispatches * row->dispatch_us * 1e-6 : 0;
    const struct bench_times *times =
        row->device_times.n ? &row->device_times : &row->wall_times;
    double median = times->n ? times->median_us * 1e-6 : NAN;
    row->bound = greatest(memory, compute, launch);
    // fmax would take the one that is known.
    double floor = row->bound == BENCH_BOUND_NONE ? NAN : fmax(memory, compute) + launch;
    row->floor_us = floor * 1e6;
    row->floor_fraction = over(floor, median);
    row->bytes_per_s = row->bytes > 0 ? over(row->bytes, median) : NAN;
    row->flops_per_s = over(row->flops, median);
    row->tokens_per_s = over(row->key.n_tokens, median);
}
