// SPDX-License-Identifier: MIT
// Weights of a case: a few distinct experts that all others are made of, so that neither the host's
// memory nor the oracle's work grows with the number of experts. Values are of order 1 / sqrt(fan
// in), so that rows stay of order 1 all through the layer.
#include "make.h"

#include "roofline.h"
#include "routing.h"

#include <math.h>
#include <stdlib.h>

// ---- rings of noise ----------------------------------------------------------------------------

// The noise times 1 / sqrt(width) as blocks of a type, encoded once whatever a layer's size: its
// matrices are cut from that ring. So weights are N(0, 1 / width), rounded to their type.
struct ring {
    uint32_t width;
    enum vkmoe_dtype type;
    uint32_t n_values, block_size;
    size_t n_blocks; // a prime, so that every row begins elsewhere
    unsigned char *blocks;
};

enum { MAX_RINGS = 4 }; // fan in and type of in and out, routed and shared

// Where the next matrix goes, and the block of its ring that it begins with.
struct writer {
    unsigned char *at;
    size_t first;
    const float *noise;
    struct ring rings[MAX_RINGS];
    uint32_t n_rings;
};

static bool is_prime(size_t n)
{
    for (size_t d = 2; d * d <= n; d++) {
        if (n % d == 0)
            return false;
    }
    return n > 1;
}

static enum vkmoe_status fill_ring(const float *noise, struct ring *ring)
{
    enum vkmoe_status status;
    float *scaled = NULL;
    const float scale = 1.0f / sqrtf((float) ring->width);
    const size_t n = ring->n_blocks * ring->n_values;
    CLI_TRY(cli_alloc(n, 1, sizeof *scaled, &scaled));
    CLI_TRY(cli_alloc(ring->n_blocks, 1, ring->block_size, &ring->blocks));
    for (size_t i = 0; i < n; i++)
        scaled[i] = scale * noise[i];
    status = vkmoe_dtype_convert(ring->type, scaled, n, ring->blocks);

fail:
    free(scaled);
    return status;
}

// The ring of such rows, made when it is first asked for.
static enum vkmoe_status find_ring(struct writer *writer, uint32_t width, enum vkmoe_dtype type,
                                   const struct ring **out)
{
    enum vkmoe_status status;
    struct ring *ring = writer->rings;
    struct ring *end = ring + writer->n_rings;
    while (ring < end && (ring->width != width || ring->type != type))
        ring++;
    *out = ring;
    if (ring < end)
        return VKMOE_OK;
    *ring = (struct ring){.width = width, .type = type};
    writer->n_rings++;
    CLI_TRY(vkmoe_dtype_block(type, &ring->n_values, &ring->block_size));
    ring->n_blocks = BENCH_N_NOISE / ring->n_values;
    while (!is_prime(ring->n_blocks))
        ring->n_blocks--;
    CLI_TRY(fill_ring(writer->noise, ring));

fail:
    return status;
}

static void finish_rings(struct writer *writer)
{
    for (uint32_t i = 0; i < writer->n_rings; i++)
        free(writer->rings[i].blocks);
}

// ---- experts -----------------------------------------------------------------------------------

// The next blocks of the ring; those of a row's last block beyond its width are 0.
static void write_row(struct writer *writer, const struct ring *ring)
{
    const uint32_t left = ring->width % ring->n_values;
    size_t n = ring->width / ring->n_values + (left != 0);
    while (n > 0) {
        const size_t at = writer->first % ring->n_blocks;
        const size_t part = ring->n_blocks - at < n ? ring->n_blocks - at : n;
        memcpy(writer->at, ring->blocks + at * ring->block_size, part * ring->block_size);
        writer->at += part * ring->block_size;
        writer->first = (writer->first + part) % BENCH_N_NOISE;
        n -= part;
    }
    if (left > 0) { // fp8: a byte a value, at the block's end
        const size_t n_none = ring->n_values - left;
        memset(writer->at - n_none, 0, n_none);
    }
}

static enum vkmoe_status write_matrix(struct writer *writer, uint32_t n_rows, uint32_t width,
                                      enum vkmoe_dtype type, vkmoe_tensor *out)
{
    enum vkmoe_status status;
    const struct ring *ring;
    CLI_TRY(find_ring(writer, width, type, &ring));
    *out = (vkmoe_tensor){.data = writer->at, .type = type};
    for (uint32_t i = 0; i < n_rows; i++)
        write_row(writer, ring);
    writer->first = (writer->first + 7919) % BENCH_N_NOISE;

fail:
    return status;
}

static enum vkmoe_status write_expert(const vkmoe_layer_desc *layer, uint32_t d_ff,
                                      struct writer *writer, const struct bench_material *material,
                                      vkmoe_expert_tensors *out)
{
    enum vkmoe_status status;
    const bool own = out == &material->shared && layer->own_shared_types;
    const enum vkmoe_dtype in_type = own ? layer->shared_in_type : layer->in_type;
    const enum vkmoe_dtype out_type = own ? layer->shared_out_type : layer->out_type;
    if (layer->gated)
        CLI_TRY(write_matrix(writer, d_ff, layer->d_model, in_type, &out->gate));
    CLI_TRY(write_matrix(writer, d_ff, layer->d_model, in_type, &out->up));
    CLI_TRY(write_matrix(writer, layer->d_out, d_ff, out_type, &out->down));
    // Biases are read from anywhere; the router's are the first.
    const size_t n = layer->n_experts + layer->n_zero;
    const float *biases = material->biases + 2 * n + writer->first % 64;
    out->gate_bias = layer->gate_bias ? biases : NULL;
    out->up_bias = layer->up_bias ? biases + 1 : NULL;
    out->down_bias = layer->down_bias ? biases + 2 : NULL;

fail:
    return status;
}

static enum vkmoe_status make_router(const vkmoe_layer_desc *layer, struct bench_material *out)
{
    float *weight = NULL, *biases = NULL;
    const size_t n = layer->n_experts + layer->n_zero;
    size_t widest = layer->d_model;
    widest = layer->d_out > widest ? layer->d_out : widest;
    widest = layer->d_ff > widest ? layer->d_ff : widest;
    widest = layer->d_shared_ff > widest ? layer->d_shared_ff : widest;
    const size_t n_biases = 2 * n + widest + 128;
    enum vkmoe_status status;
    CLI_TRY(cli_alloc(n, layer->d_model, sizeof *weight, &weight));
    out->router.weight = (vkmoe_tensor){.data = weight, .type = VKMOE_F32};
    CLI_TRY(cli_alloc(n_biases, 1, sizeof *biases, &biases));
    out->biases = biases;
    for (size_t i = 0; i < n_biases; i++)
        biases[i] = 0.1f * out->noise[i % BENCH_N_NOISE];
    bench_router_fill(layer, out->noise, weight, biases, biases + n);
    out->router.bias = layer->router_bias ? biases : NULL;
    out->router.selection_bias = layer->selection_bias ? biases + n : NULL;

fail:
    return status;
}

// Hands out `n` numbers around `mean` where the layer has them.
static const float *take(float **next, const float *noise, bool wanted, size_t n, float mean)
{
    float *here = *next;
    if (!wanted)
        return NULL;
    for (size_t i = 0; i < n; i++)
        here[i] = mean + 0.1f * noise[(i + 15485) % BENCH_N_NOISE];
    *next += n;
    return here;
}

static enum vkmoe_status make_vectors(const vkmoe_layer_desc *layer, struct bench_material *out)
{
    enum vkmoe_status status;
    vkmoe_router_tensors *router = &out->router;
    const size_t n = layer->n_experts + layer->n_zero, d = layer->d_model;
    const size_t n_gates = layer->shared_gate == VKMOE_SHARED_SOFTMAX2 ? 2 : 1;
    const bool has_gate = layer->shared_gate != VKMOE_SHARED_PLAIN;
    // With a scale that undoes the constant the logits are of order 1.
    const float scale = layer->prenorm_const > 0 ? 1 / layer->prenorm_const : 1;
    CLI_TRY(cli_alloc(n + 3 * d + layer->d_out + 2, 1, sizeof *out->vectors, &out->vectors));
    float *next = out->vectors;
    router->shared_gate = take(&next, out->noise, has_gate, n_gates * d, 0);
    router->shared_gate_bias = take(&next, out->noise, layer->shared_gate_bias, n_gates, 0);
    router->expert_scale = take(&next, out->noise, layer->expert_scale, n, 1);
    out->out_bias = take(&next, out->noise, layer->out_bias, layer->d_out, 0);
    router->prenorm_scale = take(&next, out->noise, layer->router_prenorm, d, 1);
    for (size_t i = 0; router->prenorm_scale && i < d; i++)
        next[i - d] *= scale;

fail:
    return status;
}

// The first rows of the table are the rows' experts; no token has the ids of the others.
static enum vkmoe_status make_table(const vkmoe_layer_desc *layer, size_t n_rows,
                                    struct bench_material *out)
{
    enum vkmoe_status status;
    const size_t n = layer->n_token_ids, width = layer->top_k;
    if (layer->select != VKMOE_SELECT_TABLE)
        return VKMOE_OK;
    CLI_TRY(cli_alloc(n, width, sizeof *out->table, &out->table));
    for (size_t i = 0; i < n * width; i++)
        out->table[i] = i < n_rows * width ? out->wanted[i]
                                           : (int32_t) ((i / width + i % width) %
                                                        layer->n_experts);
    out->router.table = out->table;

fail:
    return status;
}

static enum vkmoe_status write_experts(const vkmoe_layer_desc *layer, struct writer *writer,
                                       struct bench_material *out)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t e = 0; e < out->n_tensors; e++)
        CLI_TRY(write_expert(layer, layer->d_ff, writer, out, &out->experts[e]));
    for (uint32_t e = out->n_tensors; e < layer->n_experts; e++)
        out->experts[e] = out->experts[e % out->n_tensors];
    if (layer->d_shared_ff > 0)
        CLI_TRY(write_expert(layer, layer->d_shared_ff, writer, out, &out->shared));

fail:
    return status;
}

enum vkmoe_status bench_weights_make(const struct bench_case *what, size_t n_rows,
                                     struct bench_material *out)
{
    enum vkmoe_status status;
    const vkmoe_layer_desc *layer = &what->layer;
    struct writer writer = {.noise = out->noise};
    double size = out->n_tensors * bench_expert_size(layer, layer->d_ff) +
                  bench_shared_size(layer);
    CLI_TRY(make_router(layer, out));
    CLI_TRY(make_vectors(layer, out));
    CLI_TRY(make_table(layer, n_rows, out));
    CLI_TRY(cli_alloc(1, (size_t) size, 1, &out->tensors));
    CLI_TRY(cli_alloc(layer->n_experts, 1, sizeof *out->experts, &out->experts));
    writer.at = out->tensors;
    CLI_TRY(write_experts(layer, &writer, out));

fail:
    finish_rings(&writer);
    return status;
}

void bench_weights_finish(struct bench_material *material)
{
    free(material->noise);
    free(material->tensors);
    free(material->experts);
    free((void *) material->router.weight.data);
    free(material->biases);
    free(material->vectors);
    free(material->table);
}
