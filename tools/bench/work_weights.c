// SPDX-License-Identifier: MIT
// Weights of a case: a few distinct experts that all others are made of, so that neither the host's
// memory nor the oracle's work grows with the number of experts. Values are of order 1 / sqrt(fan
// in), so that rows stay of order 1 all through the layer.
#include "make.h"

#include "routing.h"

#include <math.h>
#include <stdlib.h>

// The noise, times 1 / sqrt(width), in the stored type.
static enum vkmoe_status scale_noise(const float *noise, uint32_t width, enum vkmoe_dtype type,
                                     void **out)
{
    enum vkmoe_status status;
    float *scaled = NULL;
    const float scale = 1.0f / sqrtf((float) width);
    CLI_TRY(cli_alloc(BENCH_N_NOISE, 1, sizeof *scaled, &scaled));
    CLI_TRY(cli_alloc(BENCH_N_NOISE, 1, bench_type_size(type), out));
    for (uint32_t i = 0; i < BENCH_N_NOISE; i++)
        scaled[i] = scale * noise[i];
    status = vkmoe_dtype_convert(type, scaled, BENCH_N_NOISE, *out);

fail:
    free(scaled);
    return status;
}

// Where the next matrix goes, and which part of the noise it begins with.
struct writer {
    char *at;
    size_t first; // of the noise
    enum vkmoe_dtype type;
};

// The noise goes round and round; its length is prime, so every row begins elsewhere in it.
static vkmoe_tensor write_matrix(struct writer *writer, const void *noise, size_t n)
{
    const size_t width = bench_type_size(writer->type);
    const vkmoe_tensor tensor = {writer->at, writer->type};
    while (n > 0) {
        size_t part = BENCH_N_NOISE - writer->first;
        part = part < n ? part : n;
        memcpy(writer->at, (const char *) noise + writer->first * width, part * width);
        writer->at += part * width;
        writer->first = (writer->first + part) % BENCH_N_NOISE;
        n -= part;
    }
    writer->first = (writer->first + 7919) % BENCH_N_NOISE;
    return tensor;
}

static void write_expert(const vkmoe_layer_desc *layer, uint32_t d_ff, struct writer *writer,
                         const struct bench_material *material, const void *out_noise,
                         vkmoe_expert_tensors *out)
{
    const size_t n_in = (size_t) d_ff * layer->d_model, n_out = (size_t) layer->d_out * d_ff;
    if (layer->gated)
        out->gate = write_matrix(writer, material->in_noise, n_in);
    out->up = write_matrix(writer, material->in_noise, n_in);
    out->down = write_matrix(writer, out_noise, n_out);
    // Biases are read from anywhere; the router's are the first.
    const float *biases = material->biases + 2 * (size_t) layer->n_experts + writer->first % 64;
    out->gate_bias = layer->gate_bias ? biases : NULL;
    out->up_bias = layer->up_bias ? biases + 1 : NULL;
    out->down_bias = layer->down_bias ? biases + 2 : NULL;
}

static enum vkmoe_status make_router(const vkmoe_layer_desc *layer, struct bench_material *out)
{
    float *weight = NULL, *biases = NULL;
    const size_t n = layer->n_experts;
    size_t widest = layer->d_model;
    widest = layer->d_out > widest ? layer->d_out : widest;
    widest = layer->d_ff > widest ? layer->d_ff : widest;
    widest = layer->d_shared_ff > widest ? layer->d_shared_ff : widest;
    const size_t n_biases = 2 * n + widest + 128;
    enum vkmoe_status status;
    CLI_TRY(cli_alloc(n, layer->d_model, sizeof *weight, &weight));
    out->router.weight = (vkmoe_tensor){weight, VKMOE_F32};
    CLI_TRY(cli_alloc(n_biases, 1, sizeof *biases, &biases));
    out->biases = biases;
    for (size_t i = 0; i < n_biases; i++)
        biases[i] = 0.1f * out->noise[i % BENCH_N_NOISE];
    bench_router_fill(layer, out->noise, weight, biases, biases + n);
    out->router.bias = layer->router_bias ? biases : NULL;
    out->router.selection_bias = layer->selection_bias ? biases + n : NULL;
    out->router.shared_gate =
        layer->shared_gate == VKMOE_SHARED_SIGMOID ? biases + 2 * n + 64 : NULL;

fail:
    return status;
}

enum vkmoe_status bench_weights_make(const struct bench_case *what, struct bench_material *out)
{
    enum vkmoe_status status;
    const vkmoe_layer_desc *layer = &what->layer;
    const size_t n_expert = (size_t) bench_expert_elements(layer, layer->d_ff);
    const size_t n_shared = (size_t) bench_expert_elements(layer, layer->d_shared_ff);
    struct writer writer = {.type = what->type};
    CLI_TRY(make_router(layer, out));
    CLI_TRY(scale_noise(out->noise, layer->d_model, what->type, &out->in_noise));
    CLI_TRY(scale_noise(out->noise, layer->d_ff, what->type, &out->out_noise));
    if (n_shared > 0)
        CLI_TRY(scale_noise(out->noise, layer->d_shared_ff, what->type, &out->shared_noise));
    CLI_TRY(cli_alloc(1, out->n_tensors * n_expert + n_shared, bench_type_size(what->type),
                      &out->tensors));
    CLI_TRY(cli_alloc(layer->n_experts, 1, sizeof *out->experts, &out->experts));
    writer.at = out->tensors;
    for (uint32_t e = 0; e < layer->n_experts; e++) {
        if (e < out->n_tensors)
            write_expert(layer, layer->d_ff, &writer, out, out->out_noise, &out->experts[e]);
        else
            out->experts[e] = out->experts[e % out->n_tensors];
    }
    if (n_shared > 0)
        write_expert(layer, layer->d_shared_ff, &writer, out, out->shared_noise, &out->shared);

fail:
    free(out->in_noise);
    free(out->out_noise);
    free(out->shared_noise);
    out->in_noise = out->out_noise = out->shared_noise = NULL;
    return status;
}

void bench_weights_finish(struct bench_material *material)
{
    free(material->noise);
    free(material->in_noise);
    free(material->out_noise);
    free(material->shared_noise);
    free(material->tensors);
    free(material->experts);
    free((void *) material->router.weight.data);
    free(material->biases);
}
