// SPDX-License-Identifier: MIT
// x and weights are close to N(0, 1), weights times 1 / sqrt(fan in), so that values all through a
// layer are of order 1. Number i of tensor p is Philox4x32-10 of (i, p, layer code), key `seed`.
#include "verify_data.h"

#include "rng.h"

#include <math.h>
#include <stdlib.h>

// `part` of a number: which tensor.
enum part {
    PART_ROUTER,
    PART_ROUTER_BIAS,
    PART_SELECTION_BIAS,
    PART_SHARED_GATE,
    PART_EXPERT, // PARTS_PER_EXPERT for each expert, the shared one last
    PARTS_PER_EXPERT = 6,
    PART_DY_BIT = 1 << 29, // with the token count: every run has its own dy
    PART_X_BIT = 1 << 30,  // and its own x
};

#define BIAS_SCALE 0.5f
#define FAR 100.0f // a logit nobody else comes near; its exponential is more than f32 holds
#define TINY 0x1p-12f

struct source {
    uint64_t seed;
    uint32_t layer_code;
    bool positive; // all numbers, and not near zero
    bool whole;    // whole numbers, whose sums are exact in any order
    float expert_scale;
};

// Where one number makes up a row, terms can cancel to nothing or be nothing. No relative promise
// holds for that and no changed weight shows, so there all numbers are well above zero.
static struct source case_source(const struct verify_case *c, uint64_t seed)
{
    vkmoe_layer_desc desc = verify_layer(c);
    return (struct source){
        .seed = seed,
        .layer_code = verify_layer_code(c),
        .positive = desc.d_model == 1 || desc.d_out == 1,
        .whole = c->twist == VERIFY_TIES,
        .expert_scale = c->twist == VERIFY_TINY ? TINY : 1.0f,
    };
}

static float draw(const struct source *source, uint32_t part, uint64_t i)
{
    float value = rng_normal(source->seed, source->layer_code, part, i);
    return source->positive ? 0.25f + fabsf(value) : value;
}

// Weights are made in an arena. The first pass has no memory yet and only adds up the size.
struct arena {
    unsigned char *base; // NULL in the first pass
    size_t used;
};

static void *take(struct arena *arena, size_t size)
{
    void *at = arena->base ? arena->base + arena->used : NULL;
    arena->used += (size + 15) / 16 * 16;
    return at;
}

static float *make_array(struct arena *arena, const struct source *source, uint32_t part, size_t n,
                         float scale)
{
    float *out = take(arena, n * sizeof *out);
    for (size_t i = 0; out && i < n; i++)
        out[i] = scale * draw(source, part, i);
    return out;
}

static float *make_matrix(struct arena *arena, const struct source *source, uint32_t part,
                          uint32_t n_rows, uint32_t width, float scale)
{
    return make_array(arena, source, part, (size_t) n_rows * width, scale / sqrtf((float) width));
}

// An expert whose f32 numbers are all made; `up` becomes its stored type in place.
static void make_expert(struct arena *arena, const struct source *source,
                        const vkmoe_layer_desc *desc, uint32_t index, uint32_t d_ff,
                        vkmoe_expert_tensors *out)
{
    uint32_t part = PART_EXPERT + PARTS_PER_EXPERT * index;
    size_t n_in = (size_t) d_ff * desc->d_model;
    float scale = source->expert_scale;
    vkmoe_expert_tensors tensors = {{0}};
    if (desc->gated)
        tensors.gate.data = make_matrix(arena, source, part, d_ff, desc->d_model, scale);
    float *up = make_matrix(arena, source, part + 1, d_ff, desc->d_model, scale);
    tensors.down.data = make_matrix(arena, source, part + 2, desc->d_out, d_ff, scale);
    if (desc->gate_bias)
        tensors.gate_bias = make_array(arena, source, part + 3, d_ff, BIAS_SCALE);
    if (desc->up_bias)
        tensors.up_bias = make_array(arena, source, part + 4, d_ff, BIAS_SCALE);
    if (desc->down_bias)
        tensors.down_bias = make_array(arena, source, part + 5, desc->d_out, BIAS_SCALE);

    unsigned char *stored = take(arena, n_in * sizeof(float));
    tensors.up.type = desc->in_type;
    tensors.up.data = stored;
    if (!arena->base)
        return;
    vkmoe_dtype_convert(desc->in_type, up, n_in, stored);
    *out = tensors;
}

static void make_all(struct arena *arena, const struct source *source, struct verify_weights *out)
{
    const vkmoe_layer_desc *desc = &out->desc;
    uint32_t n = desc->n_experts;
    out->experts = take(arena, n * sizeof *out->experts);
    vkmoe_router_tensors router = {{0}};
    router.weight.data = make_matrix(arena, source, PART_ROUTER, n, desc->d_model, 1);
    if (desc->router_bias)
        router.bias = make_array(arena, source, PART_ROUTER_BIAS, n, BIAS_SCALE);
    // About as large as the scores, so that both decide.
    float selection_scale = desc->score == VKMOE_SCORE_SOFTMAX ? 1.0f / (float) n : 0.25f;
    if (desc->selection_bias)
        router.selection_bias = make_array(arena, source, PART_SELECTION_BIAS, n, selection_scale);
    if (desc->d_shared_ff && desc->shared_gate == VKMOE_SHARED_SIGMOID)
        router.shared_gate = make_matrix(arena, source, PART_SHARED_GATE, 1, desc->d_model, 1);
    out->router = router;
    for (uint32_t e = 0; e < n; e++)
        make_expert(arena, source, desc, e, desc->d_ff, out->experts ? &out->experts[e] : NULL);
    if (desc->d_shared_ff)
        make_expert(arena, source, desc, n, desc->d_shared_ff, &out->shared);
}

static void fill(const void *array, size_t n, float value)
{
    float *out = (float *) array;
    for (size_t i = 0; out && i < n; i++)
        out[i] = value;
}

static void twist_weights(enum verify_twist twist, struct verify_weights *weights)
{
    const vkmoe_layer_desc *desc = &weights->desc;
    uint32_t n = desc->n_experts, d = desc->d_model;
    float *router = (float *) weights->router.weight.data;
    switch (twist) {
    case VERIFY_PLAIN:
    case VERIFY_NAN_ROW:
    case VERIFY_INF_ROW:
    case VERIFY_TINY:
        return;
    case VERIFY_NAN_EXPERT:
        fill(weights->experts[0].gate.data, desc->gated ? (size_t) desc->d_ff * d : 0, NAN);
        fill(weights->experts[0].down.data, (size_t) desc->d_out * desc->d_ff, NAN);
        return;
    case VERIFY_NAN_ROUTER:
        fill(router, d, NAN);
        fill(router + (size_t) (n - 1) * d, d, NAN);
        return;
    case VERIFY_TIES:
        for (uint32_t i = 0; i < d; i++)
            router[i] = rintf(3.0f * sqrtf((float) d) * router[i]) / 16.0f;
        for (uint32_t e = 1; e < n; e++)
            memcpy(router + (size_t) e * d, router, d * sizeof *router);
        fill(weights->router.bias, n, 0.25f);
        fill(weights->router.selection_bias, n, 0.25f);
        return;
    case VERIFY_ONE_EXPERT:
        router[(size_t) (n / 2) * d] = FAR;
        return;
    case VERIFY_FEW_EXPERTS:
        for (uint32_t e = desc->top_k; e < n; e++)
            router[(size_t) e * d] = -FAR;
        return;
    }
}

bool verify_weights_create(const struct verify_case *c, uint64_t seed, struct verify_weights *out)
{
    struct source source = case_source(c, seed);
    memset(out, 0, sizeof *out);
    out->desc = verify_layer(c);
    struct arena arena = {NULL, 0};
    make_all(&arena, &source, out);
    out->memory = arena.base = aligned_alloc(64, (arena.used + 63) / 64 * 64);
    if (!arena.base)
        return false;
    arena.used = 0;
    make_all(&arena, &source, out);
    twist_weights(c->twist, out);
    return true;
}

void verify_weights_finish(struct verify_weights *weights)
{
    free(weights->memory);
    memset(weights, 0, sizeof *weights);
}

void verify_fill_x(const struct verify_case *c, uint64_t seed, float *x, size_t stride)
{
    struct source source = case_source(c, seed);
    uint32_t n_tokens = verify_tokens(c), d = verify_layer(c).d_model, odd_row = n_tokens / 2;
    for (uint32_t t = 0; t < n_tokens; t++) {
        float *row = x + t * stride;
        for (uint32_t i = 0; i < d; i++) {
            float value = draw(&source, PART_X_BIT | n_tokens, (uint64_t) t * d + i);
            row[i] = source.whole ? rintf(4.0f * value) / 4.0f : value;
        }
        if (c->twist == VERIFY_ONE_EXPERT || c->twist == VERIFY_FEW_EXPERTS)
            row[0] = 1.0f; // the column of FAR
        else if (c->twist == VERIFY_INF_ROW && t == odd_row)
            row[0] = INFINITY;
        else if (c->twist == VERIFY_NAN_ROW && t == odd_row)
            fill(row, d, NAN);
    }
}

void verify_fill_dy(const struct verify_case *c, uint64_t seed, float *dy, size_t stride)
{
    struct source source = case_source(c, seed);
    uint32_t n_tokens = verify_tokens(c), width = verify_layer(c).d_out;
    for (uint32_t t = 0; t < n_tokens; t++) {
        for (uint32_t i = 0; i < width; i++)
            dy[t * stride + i] = draw(&source, PART_DY_BIT | n_tokens, (uint64_t) t * width + i);
    }
}

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
    fill(out->values, n, NAN);
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

static size_t row_size(const vkmoe_tensor *tensor, uint32_t width)
{
    return (size_t) width * (tensor->type == VKMOE_F32 ? 4 : 2);
}

static void swap_rows(const vkmoe_tensor *tensor, uint32_t a, uint32_t b, uint32_t width)
{
    size_t size = row_size(tensor, width);
    unsigned char *p = (unsigned char *) tensor->data + a * size;
    unsigned char *q = (unsigned char *) tensor->data + b * size;
    for (size_t i = 0; i < size; i++) {
        unsigned char byte = p[i];
        p[i] = q[i];
        q[i] = byte;
    }
}

// Flips sign bits: the highest of each element's last byte, little-endian.
static void negate_row(const vkmoe_tensor *tensor, uint32_t row, uint32_t width)
{
    size_t size = row_size(tensor, width), element = size / width;
    unsigned char *p = (unsigned char *) tensor->data + row * size;
    for (uint32_t i = 0; i < width; i++)
        p[(i + 1) * element - 1] ^= 0x80;
}

bool verify_perturb(struct verify_weights *weights, enum verify_perturbation perturbation,
                    uint32_t expert, uint32_t row)
{
    const vkmoe_layer_desc *desc = &weights->desc;
    uint32_t out = row % desc->d_out, in = row % desc->d_ff;
    const vkmoe_expert_tensors *e = &weights->experts[expert];
    const vkmoe_tensor *router = &weights->router.weight;
    switch (perturbation) {
    case VERIFY_SWAP_DOWN:
        if (desc->d_out < 2)
            return false;
        swap_rows(&e->down, out, (out + 1) % desc->d_out, desc->d_ff);
        return true;
    case VERIFY_SWAP_UP:
        if (desc->d_ff < 2)
            return false;
        swap_rows(&e->up, in, (in + 1) % desc->d_ff, desc->d_model);
        return true;
    case VERIFY_NEGATE_UP:
        negate_row(&e->up, in, desc->d_model);
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
