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
    PART_OTHER = 1 << 27, // of a few more tensors, one each
    PART_ROUTER_X_BIT = 1 << 28, // with the token count, as the next two
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

// Widths of an expert.
struct shape {
    uint32_t d_in, d_ff, d_out;
    enum vkmoe_dtype in_type;
};

// An expert whose f32 numbers are all made; `up` becomes its stored type in place.
static void make_expert(struct arena *arena, const struct source *source,
                        const vkmoe_layer_desc *desc, uint32_t index, struct shape shape,
                        vkmoe_expert_tensors *out)
{
    uint32_t part = PART_EXPERT + PARTS_PER_EXPERT * index;
    float scale = source->expert_scale;
    vkmoe_expert_tensors tensors = {{0}};
    if (desc->gated)
        tensors.gate.data = make_matrix(arena, source, part, shape.d_ff, shape.d_in, scale);
    float *up = make_matrix(arena, source, part + 1, shape.d_ff, shape.d_in, scale);
    tensors.down.data = make_matrix(arena, source, part + 2, shape.d_out, shape.d_ff, scale);
    if (desc->gate_bias)
        tensors.gate_bias = make_array(arena, source, part + 3, shape.d_ff, BIAS_SCALE);
    if (desc->up_bias)
        tensors.up_bias = make_array(arena, source, part + 4, shape.d_ff, BIAS_SCALE);
    if (desc->down_bias)
        tensors.down_bias = make_array(arena, source, part + 5, shape.d_out, BIAS_SCALE);

    const size_t row = verify_row_size(shape.in_type, shape.d_in);
    unsigned char *stored = take(arena, shape.d_ff * row);
    tensors.up.type = shape.in_type;
    tensors.up.data = stored;
    if (!arena->base)
        return;
    for (uint32_t i = 0; i < shape.d_ff; i++)
        vkmoe_dtype_convert(shape.in_type, up + (size_t) i * shape.d_in, shape.d_in,
                            stored + i * row);
    *out = tensors;
}

static uint32_t n_adjugates(const vkmoe_layer_desc *desc)
{
    uint32_t group = desc->adjugate_group;
    return group ? (desc->n_experts + group - 1) / group : 0;
}

static void make_experts(struct arena *arena, const struct source *source,
                         struct verify_weights *out)
{
    const vkmoe_layer_desc *desc = &out->desc;
    const uint32_t n = desc->n_experts, n_more = n_adjugates(desc);
    const uint32_t d_in = desc->d_latent ? desc->d_latent : desc->d_model;
    const uint32_t d_out = desc->d_latent ? desc->d_latent : desc->d_out;
    out->experts = take(arena, n * sizeof *out->experts);
    out->adjugates = n_more ? take(arena, n_more * sizeof *out->adjugates) : NULL;
    for (uint32_t e = 0; e < n; e++)
        make_expert(arena, source, desc, e,
                    (struct shape){d_in, desc->d_ff, d_out, desc->in_type},
                    arena->base ? &out->experts[e] : NULL);
    if (desc->d_shared_ff)
        make_expert(arena, source, desc, n,
                    (struct shape){desc->d_model, desc->d_shared_ff, desc->d_out,
                                   desc->own_shared_types ? desc->shared_in_type : desc->in_type},
                    &out->shared);
    for (uint32_t a = 0; a < n_more; a++)
        make_expert(arena, source, desc, n + 1 + a,
                    (struct shape){d_in, desc->d_adjugate, d_out, desc->in_type},
                    arena->base ? &out->adjugates[a] : NULL);
}

// Rows of experts in order, from one that is drawn, on odd rows backwards.
static int32_t *make_table(struct arena *arena, const struct source *source, uint32_t part,
                           const vkmoe_layer_desc *desc)
{
    const uint32_t n = desc->n_experts + desc->n_zero, top_k = desc->top_k;
    int32_t *table = take(arena, (size_t) desc->n_token_ids * top_k * sizeof *table);
    for (uint32_t t = 0; arena->base && t < desc->n_token_ids; t++) {
        uint32_t first = rng_word(source->seed, source->layer_code, part, t) % n;
        for (uint32_t k = 0; k < top_k; k++)
            table[t * top_k + k] = (int32_t) ((t % 2 ? first + n - k : first + k) % n);
    }
    return table;
}

// What only some forms have, each of a part of its own.
static void make_others(struct arena *arena, const struct source *source,
                        struct verify_weights *out)
{
    const vkmoe_layer_desc *desc = &out->desc;
    const uint32_t n = desc->n_experts + desc->n_zero, d = desc->d_model, r = desc->d_latent;
    const uint32_t n_gates = desc->shared_gate == VKMOE_SHARED_SOFTMAX2 ? 2 : 1;
    vkmoe_router_tensors *router = &out->router;
    uint32_t part = PART_OTHER;
    if (desc->expert_scale)
        router->expert_scale = make_array(arena, source, part, n, 1);
    if (desc->router_prenorm)
        router->prenorm_scale = make_array(arena, source, part + 1, d, 1);
    if (desc->shared_gate_bias)
        router->shared_gate_bias = make_array(arena, source, part + 2, n_gates, 1);
    if (desc->out_bias)
        out->out_bias = make_array(arena, source, part + 3, desc->d_out, BIAS_SCALE);
    if (desc->select == VKMOE_SELECT_TABLE)
        router->table = make_table(arena, source, part + 4, desc);
    if (r == 0)
        return;
    out->latent.down.data = make_matrix(arena, source, part + 5, r, d, 1);
    out->latent.up.data = make_matrix(arena, source, part + 6, desc->d_out, r, 1);
    if (desc->latent_norm)
        out->latent.norm = make_array(arena, source, part + 7, r, 1);
}

static void make_all(struct arena *arena, const struct source *source, struct verify_weights *out)
{
    const vkmoe_layer_desc *desc = &out->desc;
    const uint32_t n = desc->n_experts + desc->n_zero;
    const uint32_t n_gates = desc->shared_gate == VKMOE_SHARED_SOFTMAX2 ? 2 : 1;
    vkmoe_router_tensors router = {{0}};
    router.weight.data = make_matrix(arena, source, PART_ROUTER, n, desc->d_model, 1);
    if (desc->router_bias)
        router.bias = make_array(arena, source, PART_ROUTER_BIAS, n, BIAS_SCALE);
    // About as large as the scores, so that both decide.
    float selection_scale = desc->score == VKMOE_SCORE_SOFTMAX ? 1.0f / (float) n : 0.25f;
    if (desc->selection_bias)
        router.selection_bias = make_array(arena, source, PART_SELECTION_BIAS, n, selection_scale);
    if (desc->d_shared_ff && desc->shared_gate != VKMOE_SHARED_PLAIN)
        router.shared_gate = make_matrix(arena, source, PART_SHARED_GATE, n_gates, desc->d_model,
                                         1);
    out->router = router;
    make_experts(arena, source, out);
    make_others(arena, source, out);
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

void verify_fill_router_x(const struct verify_case *c, uint64_t seed, float *x, size_t stride)
{
    struct source source = case_source(c, seed);
    uint32_t n_tokens = verify_tokens(c), d = verify_layer(c).d_model;
    for (uint32_t t = 0; t < n_tokens; t++)
        for (uint32_t i = 0; i < d; i++)
            x[t * stride + i] = draw(&source, PART_ROUTER_X_BIT | n_tokens, (uint64_t) t * d + i);
}

void verify_fill_token_ids(const struct verify_case *c, uint64_t seed, int32_t *ids)
{
    uint32_t n_tokens = verify_tokens(c), n_ids = verify_layer(c).n_token_ids;
    for (uint32_t t = 0; n_ids && t < n_tokens; t++)
        ids[t] = (int32_t) (rng_word(seed, verify_layer_code(c), PART_ROUTER_X_BIT, t) % n_ids);
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
