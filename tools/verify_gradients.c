// SPDX-License-Identifier: MIT
#include "verify_gradients.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

// ---- places ------------------------------------------------------------------------------------

static void set_tensor(struct verify_gradients *g, uint32_t i, bool has, uint32_t n_rows,
                       size_t width)
{
    if (!has)
        return;
    g->tensors[i] = (struct verify_grad){.n_rows = n_rows, .width = width, .stride = width};
    g->n_values += n_rows * width + 1;
}

static void set_expert(struct verify_gradients *g, const vkmoe_layer_desc *desc, uint32_t first,
                       uint32_t n, uint32_t d_ff)
{
    const struct {
        bool has;
        size_t width;
    } tensors[VERIFY_GRADS_PER_EXPERT] = {
        {desc->gated, (size_t) d_ff * desc->d_model},
        {true, (size_t) d_ff * desc->d_model},
        {true, (size_t) desc->d_out * d_ff},
        {desc->gate_bias, d_ff},
        {desc->up_bias, d_ff},
        {desc->down_bias, desc->d_out},
    };
    for (uint32_t i = 0; i < VERIFY_GRADS_PER_EXPERT; i++)
        set_tensor(g, first + i, n > 0 && tensors[i].has, n, tensors[i].width);
}

static void set_tensors(struct verify_gradients *g, const vkmoe_layer_desc *desc,
                        uint32_t n_tokens, bool padded)
{
    const uint32_t e = desc->n_experts, d = desc->d_model;
    const bool shared = desc->d_shared_ff > 0;
    const struct verify_grad dx = {.n_rows = n_tokens, .width = d, .stride = d + (padded ? 3 : 0)};
    g->tensors[VERIFY_GRAD_DX] = dx;
    g->n_values = (n_tokens + (size_t) 1) * dx.stride;
    set_tensor(g, VERIFY_GRAD_ROUTER, true, e, d);
    set_tensor(g, VERIFY_GRAD_ROUTER + 1, desc->router_bias, 1, e);
    set_tensor(g, VERIFY_GRAD_ROUTER + 2, shared && desc->shared_gate == VKMOE_SHARED_SIGMOID, 1,
               d);
    set_expert(g, desc, VERIFY_GRAD_EXPERTS, e, desc->d_ff);
    set_expert(g, desc, VERIFY_GRAD_SHARED, shared, desc->d_shared_ff);
}

static vkmoe_expert_grads expert_grads(const struct verify_grad *tensors, size_t e)
{
    float *at[VERIFY_GRADS_PER_EXPERT];
    for (uint32_t i = 0; i < VERIFY_GRADS_PER_EXPERT; i++)
        at[i] = tensors[i].data ? tensors[i].data + e * tensors[i].width : NULL;
    return (vkmoe_expert_grads){at[0], at[1], at[2], at[3], at[4], at[5]};
}

bool verify_gradients_create(const vkmoe_layer_desc *desc, enum vkmoe_dtype x_type,
                             uint32_t n_tokens, bool padded, struct verify_gradients *out)
{
    *out = (struct verify_gradients){.x_type = x_type, .n_experts = desc->n_experts};
    set_tensors(out, desc, n_tokens, padded);
    const size_t experts_size = desc->n_experts * sizeof *out->experts;
    const size_t dx_size = (n_tokens + (size_t) 1) * out->tensors[VERIFY_GRAD_DX].stride * 2;
    out->memory = malloc(experts_size + out->n_values * sizeof(float) + dx_size);
    if (!out->memory)
        return false;
    out->experts = out->memory;
    out->values = (float *) (void *) ((char *) out->memory + experts_size);
    float *next = out->values;
    for (uint32_t i = 0; i < VERIFY_N_GRADS; i++) {
        struct verify_grad *tensor = &out->tensors[i];
        if (!tensor->stride)
            continue;
        tensor->data = next;
        next += tensor->n_rows * tensor->stride + (i == VERIFY_GRAD_DX ? tensor->stride : 1);
    }
    out->stored_dx = x_type == VKMOE_F32 ? out->values : next;
    const struct verify_grad *router = &out->tensors[VERIFY_GRAD_ROUTER];
    out->router = (vkmoe_router_grads){router[0].data, router[1].data, router[2].data};
    for (uint32_t e = 0; e < desc->n_experts; e++)
        out->experts[e] = expert_grads(&out->tensors[VERIFY_GRAD_EXPERTS], e);
    out->shared = expert_grads(&out->tensors[VERIFY_GRAD_SHARED], 0);
    verify_gradients_poison(out);
    return true;
}

void verify_gradients_finish(struct verify_gradients *gradients)
{
    free(gradients->memory);
    memset(gradients, 0, sizeof *gradients);
}

static size_t dx_room(const struct verify_gradients *g)
{
    const struct verify_grad *dx = &g->tensors[VERIFY_GRAD_DX];
    return (dx->n_rows + (size_t) 1) * dx->stride;
}

void verify_gradients_poison_dx(struct verify_gradients *g)
{
    verify_poison_elements(g->x_type, g->stored_dx, dx_room(g));
}

void verify_gradients_poison(struct verify_gradients *g)
{
    verify_poison_elements(VKMOE_F32, g->values, g->n_values);
    verify_gradients_poison_dx(g);
}

void verify_gradients_read_dx(struct verify_gradients *g)
{
    if (g->x_type != VKMOE_F32)
        verify_decode_poison(g->x_type, g->stored_dx, dx_room(g), g->values);
}

const char *verify_gradient_name(uint32_t i)
{
    static const char *const names[VERIFY_N_GRADS] = {
        "dx", "router.weight", "router.bias", "router.shared_gate",
        "experts.gate", "experts.up", "experts.down",
        "experts.gate_bias", "experts.up_bias", "experts.down_bias",
        "shared.gate", "shared.up", "shared.down",
        "shared.gate_bias", "shared.up_bias", "shared.down_bias",
    };
    return names[i];
}

// ---- comparison --------------------------------------------------------------------------------

bool verify_gradients_untouched(const struct verify_gradients *g, uint32_t *what)
{
    for (uint32_t i = 0; i < VERIFY_N_GRADS; i++) {
        const struct verify_grad *t = &g->tensors[i];
        const float *end = t->data + t->n_rows * t->stride;
        *what = i;
        if (!t->data)
            continue;
        for (uint32_t row = 0; row < t->n_rows; row++) {
            if (!verify_all_poison(t->data + row * t->stride + t->width, t->stride - t->width))
                return false;
        }
        if (!verify_all_poison(end, i == VERIFY_GRAD_DX ? t->stride : 1))
            return false;
    }
    return true;
}

bool verify_gradients_none(const struct verify_gradients *g, uint32_t expert)
{
    for (uint32_t i = 0; i < VERIFY_GRADS_PER_EXPERT; i++) {
        const struct verify_grad *t = &g->tensors[VERIFY_GRAD_EXPERTS + i];
        for (size_t k = 0; t->data && k < t->width; k++) {
            if (t->data[expert * t->stride + k] != 0)
                return false;
        }
    }
    return true;
}

static double norm_of(const struct verify_grad *t)
{
    double sum = 0;
    for (uint32_t row = 0; t->data && row < t->n_rows; row++) {
        for (size_t i = 0; i < t->width; i++) {
            double v = (double) t->data[row * t->stride + i];
            sum += isfinite(v) ? v * v : 0;
        }
    }
    return sqrt(sum);
}

// How far a tensor is off.
struct errors {
    double error2, norm2, rounding2, worst; // worst: the largest, or NaN
    size_t row, column;                     // of the worst
    bool changed;
};

static struct errors measure(const struct verify_grad *got, const struct verify_grad *want,
                             enum vkmoe_dtype type)
{
    struct errors e = {.worst = -1};
    for (uint32_t row = 0; row < want->n_rows; row++) {
        for (size_t i = 0; i < want->width; i++) {
            const float *g = &got->data[row * got->stride + i];
            const float w = want->data[row * want->stride + i];
            double d = verify_difference(g, w), r = verify_rounding(type, (double) w);
            e.changed |= memcmp(g, &w, sizeof w) != 0;
            e.error2 += d * d;
            e.norm2 += isfinite(w) ? (double) w * w : 0;
            e.rounding2 += isfinite(w) ? r * r : 0;
            if (fabs(d) > e.worst || (isnan(d) && !isnan(e.worst))) {
                e.worst = isnan(d) ? NAN : fabs(d);
                e.row = row;
                e.column = i;
            }
        }
    }
    return e;
}

static double eight_roundings(const struct verify_gradients *want)
{
    double largest = 0;
    for (uint32_t i = VERIFY_GRAD_ROUTER; i < VERIFY_N_GRADS; i++)
        largest = fmax(largest, norm_of(&want->tensors[i]));
    return 8 * (FLT_EPSILON / 2) * largest;
}

uint32_t verify_gradients_nothing(const struct verify_gradients *want)
{
    const double floor = eight_roundings(want);
    uint32_t mask = 0;
    for (uint32_t i = 0; i < VERIFY_N_GRADS; i++)
        mask |= norm_of(&want->tensors[i]) <= floor ? 1u << i : 0;
    return mask;
}

// A gradient is a sum of products as y is, with sums of products in them, and has y's promise:
// 1e-5 of its norm, in f32; dx is then rounded to the type of x.
//
// But some are small differences of what is not small: of a router, dl = w (dw - sum w dw), where
// an expert has nearly all the weight; of what goes through an activation, 1 - tanh^2, where it
// saturates. What is subtracted is as large as the layer's other gradients: dw is dy f, whose sum
// over the tokens, times w, is <W_down, dW_down>. In f32 it is not known better than to a few
// roundings: a dot product, its factors, the sum that it is subtracted from. So eight roundings of
// the largest gradient of a parameter are allowed besides.
void verify_gradients_compare(const struct verify_gradients *got,
                              const struct verify_gradients *want, struct verify_verdict *verdict)
{
    const double floor = eight_roundings(want);
    memset(verdict, 0, sizeof *verdict);
    for (uint32_t i = 0; i < VERIFY_N_GRADS; i++) {
        const enum vkmoe_dtype type = i == VERIFY_GRAD_DX ? got->x_type : VKMOE_F32;
        const struct verify_grad *g = &got->tensors[i], *w = &want->tensors[i];
        if (!w->data)
            continue;
        struct errors e = measure(g, w, type);
        double exact = VERIFY_TOLERANCE * sqrt(e.norm2) + floor;
        double bound = (1 + verify_unit_roundoff(type)) * exact + sqrt(e.rounding2);
        verdict->changed |= (uint32_t) e.changed << i;
        if (sqrt(e.error2) <= bound)
            continue;
        const float *at = &g->data[e.row * g->stride + e.column];
        if (!verdict->failed)
            snprintf(verdict->text, sizeof verdict->text,
                     "gradient of %s: relative L2 %.3g > %.3g; row %zu column %zu: got %.9g%s, "
                     "want %.9g", verify_gradient_name(i), sqrt(e.error2 / e.norm2),
                     bound / sqrt(e.norm2), e.row, e.column, (double) *at,
                     verify_is_poison(at) ? " (not written)" : "",
                     (double) w->data[e.row * w->stride + e.column]);
        verdict->failed |= 1u << i;
    }
}
