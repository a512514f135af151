// SPDX-License-Identifier: MIT
// Rows as a run gets them, and changed weights.
#include "verify_data.h"

#include <math.h>
#include <stdlib.h>

// ---- rows --------------------------------------------------------------------------------------

bool verify_rows_create(enum vkmoe_dtype type, uint32_t n_rows, size_t stride,
                        struct verify_rows *out)
{
    const size_t n = ((size_t) n_rows + 1) * stride;
    *out = (struct verify_rows){.type = type, .stride = stride, .n = n};
    out->values = malloc(n * sizeof *out->values);
    out->stored = type == VKMOE_F32 ? out->values : malloc(n * sizeof(uint16_t));
    if (!out->values || !out->stored) {
        verify_rows_finish(out);
        return false;
    }
    for (size_t i = 0; i < n; i++)
        out->values[i] = NAN;
    return true;
}

void verify_rows_store(struct verify_rows *rows)
{
    if (rows->type == VKMOE_F32)
        return;
    vkmoe_dtype_convert(rows->type, rows->values, rows->n, rows->stored);
    verify_decode(rows->type, rows->stored, rows->n, rows->values);
}

void verify_rows_finish(struct verify_rows *rows)
{
    if (rows->stored != rows->values)
        free(rows->stored);
    free(rows->values);
    memset(rows, 0, sizeof *rows);
}

static float decode_f16(uint16_t bits)
{
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    float value = ldexpf((float) (exponent ? mantissa + 1024 : mantissa),
                         (exponent ? exponent : 1) - 25);
    if (exponent == 31)
        value = mantissa ? NAN : INFINITY;
    return bits & 0x8000 ? -value : value;
}

static float decode_bf16(uint16_t bits)
{
    uint32_t wide = (uint32_t) bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

void verify_decode(enum vkmoe_dtype type, const void *stored, size_t n, float *out)
{
    const uint16_t *halves = stored;
    if (type == VKMOE_F32) {
        memcpy(out, stored, n * sizeof *out);
        return;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = type == VKMOE_F16 ? decode_f16(halves[i]) : decode_bf16(halves[i]);
}

// ---- perturbations -----------------------------------------------------------------------------

size_t verify_row_size(enum vkmoe_dtype type, uint32_t width)
{
    uint32_t values = 1, size = 0;
    vkmoe_dtype_block(type, &values, &size);
    return (size_t) (width / values + (width % values != 0)) * size;
}

static void swap_rows(const vkmoe_tensor *tensor, uint32_t a, uint32_t b, uint32_t width)
{
    size_t size = verify_row_size(tensor->type, width);
    unsigned char *p = (unsigned char *) tensor->data + a * size;
    unsigned char *q = (unsigned char *) tensor->data + b * size;
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = p[i];
        p[i] = q[i];
        q[i] = byte;
    }
}

// The bytes of a block, or of an element, whose highest bits are its signs: the last ones of its
// scale and minimum, little-endian. Those of mxfp4 are in each of its codes.
static const struct {
    uint8_t first, last;
} sign_bytes[] = {
    [VKMOE_F32] = {3, 3},   [VKMOE_F16] = {1, 1},      [VKMOE_BF16] = {1, 1},
    [VKMOE_Q8_0] = {1, 1},  [VKMOE_Q4_0] = {1, 1},     [VKMOE_Q4_K] = {1, 3},
    [VKMOE_Q5_K] = {1, 3},  [VKMOE_Q6_K] = {209, 209}, [VKMOE_Q2_K] = {81, 83},
    [VKMOE_MXFP4] = {1, 0}, [VKMOE_FP8] = {3, 3},
};

static void negate_row(const vkmoe_tensor *tensor, uint32_t row, uint32_t width)
{
    const size_t size = verify_row_size(tensor->type, width);
    uint32_t block = 0;
    vkmoe_dtype_block(tensor->type, NULL, &block);
    unsigned char *p = (unsigned char *) tensor->data + row * size;
    const uint32_t first = sign_bytes[tensor->type].first, last = sign_bytes[tensor->type].last;
    for (const unsigned char *end = p + size; p < end; p += block) {
        for (uint32_t i = first; i <= last; i += 2)
            p[i] ^= 0x80;
        for (uint32_t i = 1; tensor->type == VKMOE_MXFP4 && i < block; i++)
            p[i] ^= 0x88;
    }
}

bool verify_perturb(struct verify_weights *weights, enum verify_perturbation perturbation,
                    uint32_t expert, uint32_t row)
{
    const vkmoe_layer_desc *desc = &weights->desc;
    const uint32_t d_in = desc->d_latent ? desc->d_latent : desc->d_model;
    const uint32_t d_out = desc->d_latent ? desc->d_latent : desc->d_out;
    uint32_t out = row % d_out, in = row % desc->d_ff;
    const vkmoe_expert_tensors *e = &weights->experts[expert];
    const vkmoe_tensor *router = &weights->router.weight;
    switch (perturbation) {
    case VERIFY_SWAP_DOWN:
        if (d_out < 2)
            return false;
        swap_rows(&e->down, out, (out + 1) % d_out, desc->d_ff);
        return true;
    case VERIFY_SWAP_UP:
        if (desc->d_ff < 2)
            return false;
        swap_rows(&e->up, in, (in + 1) % desc->d_ff, d_in);
        return true;
    case VERIFY_NEGATE_UP:
        negate_row(&e->up, in, d_in);
        return true;
    case VERIFY_NEGATE_DOWN:
        negate_row(&e->down, out, desc->d_ff);
        return true;
    case VERIFY_SWAP_ROUTER:
        if (desc->n_experts < 2)
            return false;
        swap_rows(router, expert, expert + 1 < desc->n_experts ? expert + 1 : expert - 1,
                  desc->d_model);
        return true;
    case VERIFY_NEGATE_ROUTER:
        negate_row(router, expert, desc->d_model);
        return true;
    case VERIFY_N_PERTURBATIONS:
        break;
    }
    return false;
}
