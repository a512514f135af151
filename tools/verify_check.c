// SPDX-License-Identifier: MIT
#include "verify_check.h"

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define POISON UINT32_C(0x7fc0dead) // a NaN no arithmetic makes
#define POISON_HALF 0x7fad          // the same in f16 and bf16
#define POISON_ID INT32_C(0x7fffffff)

// ---- outputs -----------------------------------------------------------------------------------

bool verify_outputs_create(const vkmoe_layer_desc *desc, struct verify_kind kind,
                           uint32_t n_tokens, bool padded, struct verify_outputs *out)
{
    size_t rows = (size_t) n_tokens + 1;
    *out = (struct verify_outputs){
        .kind = kind,
        .n_tokens = n_tokens,
        .d_out = desc->d_out,
        .top_k = desc->top_k,
        .n_experts = desc->n_experts + desc->n_zero,
        .n_real = desc->n_experts,
        .y_stride = desc->d_out + (padded ? 3 : 0),
    };
    size_t n_slots = rows * desc->top_k, n_y = rows * out->y_stride + 1;
    bool halves = kind.y_type != VKMOE_F32;
    out->size = (n_y + 2 * n_slots + rows * out->n_experts + (halves ? n_y : 0)) * 4;
    float *at = out->memory = malloc(out->size);
    if (!at)
        return false;
    out->y = at + (padded ? 1 : 0);
    out->gates = at + n_y;
    out->scores = out->gates + n_slots;
    out->ids = (int32_t *) (void *) (out->scores + rows * out->n_experts);
    out->stored_y = halves ? (uint16_t *) (void *) (out->ids + n_slots) + (padded ? 1 : 0)
                           : (void *) out->y;
    verify_poison(out);
    return true;
}

void verify_outputs_finish(struct verify_outputs *outputs)
{
    free(outputs->memory);
    memset(outputs, 0, sizeof *outputs);
}

void verify_poison(struct verify_outputs *outputs)
{
    const int32_t id = POISON_ID;
    const size_t rows = (size_t) outputs->n_tokens + 1;
    unsigned char *ids = (unsigned char *) outputs->ids, *ids_end = ids + rows * outputs->top_k * 4;
    verify_poison_elements(VKMOE_F32, outputs->memory,
                           (size_t) (ids - (unsigned char *) outputs->memory) / 4);
    for (unsigned char *p = ids; p < ids_end; p += 4)
        memcpy(p, &id, 4);
    size_t rest = outputs->size - (size_t) (ids_end - (unsigned char *) outputs->memory);
    verify_poison_elements(VKMOE_F16, ids_end, rest / 2);
}

void verify_poison_elements(enum vkmoe_dtype type, void *at, size_t n)
{
    const uint32_t word = POISON;
    const uint16_t half = POISON_HALF;
    const size_t size = type == VKMOE_F32 ? sizeof word : sizeof half;
    unsigned char *p = at;
    for (size_t i = 0; i < n; i++)
        memcpy(p + i * size, type == VKMOE_F32 ? (const void *) &word : &half, size);
}

void verify_decode_poison(enum vkmoe_dtype type, const void *stored, size_t n, float *out)
{
    const uint16_t *halves = stored;
    verify_decode(type, stored, n, out);
    for (size_t i = 0; type != VKMOE_F32 && i < n; i++) {
        if (halves[i] == POISON_HALF)
            verify_poison_elements(VKMOE_F32, &out[i], 1);
    }
}

void verify_read_y(struct verify_outputs *outputs)
{
    const size_t n = ((size_t) outputs->n_tokens + 1) * outputs->y_stride;
    if (outputs->kind.y_type != VKMOE_F32)
        verify_decode_poison(outputs->kind.y_type, outputs->stored_y, n, outputs->y);
}

bool verify_is_poison(const float *value)
{
    const uint32_t word = POISON;
    return memcmp(value, &word, 4) == 0;
}

bool verify_all_poison(const float *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!verify_is_poison(&values[i]))
            return false;
    }
    return true;
}

bool verify_untouched(const struct verify_outputs *o, uint32_t n_tokens, const char **what)
{
    size_t rest = o->n_tokens + 1 - n_tokens;
    *what = "y between its rows";
    for (uint32_t t = 0; t < n_tokens; t++) {
        if (!verify_all_poison(o->y + t * o->y_stride + o->d_out, o->y_stride - o->d_out))
            return false;
    }
    *what = "y behind its last row";
    if (!verify_all_poison(o->y + n_tokens * o->y_stride, rest * o->y_stride))
        return false;
    *what = "gates behind their last row";
    if (!verify_all_poison(o->gates + (size_t) n_tokens * o->top_k, rest * o->top_k))
        return false;
    *what = "scores behind their last row";
    if (!verify_all_poison(o->scores + (size_t) n_tokens * o->n_experts, rest * o->n_experts))
        return false;
    *what = "ids behind their last row";
    for (size_t i = (size_t) n_tokens * o->top_k; i < (o->n_tokens + (size_t) 1) * o->top_k; i++) {
        if (o->ids[i] != POISON_ID)
            return false;
    }
    return true;
}

// ---- comparison --------------------------------------------------------------------------------

__attribute__((format(printf, 3, 4)))
static void fail(struct verify_verdict *verdict, enum verify_check check, const char *format, ...)
{
    if (!verdict->failed) {
        va_list args;
        va_start(args, format);
        vsnprintf(verdict->text, sizeof verdict->text, format, args);
        va_end(args);
    }
    verdict->failed |= 1u << check;
}

// Why a row's ids are wrong; NULL: they are right or, then *exempt is set, may differ.
// Where the device has expert b and the oracle expert a, the device ranked them the other way
// round, which it may when their scores are no further apart than both can be off.
static const char *row_ids(const struct verify_outputs *got, const struct verify_outputs *want,
                           uint32_t t, const double *bounds, bool *exempt, uint32_t *at)
{
    const int32_t *a = want->ids + (size_t) t * want->top_k;
    const int32_t *b = got->ids + (size_t) t * got->top_k;
    const float *q = want->scores + (size_t) t * want->n_experts;
    const double *bound = bounds + (size_t) t * want->n_experts;
    uint64_t seen[16] = {0}; // a bit for each of up to 1024 experts
    *exempt = false;
    for (uint32_t k = 0; k < want->top_k; k++) {
        *at = k;
        if (b[k] == POISON_ID)
            return "not written";
        if (a[k] < 0 || b[k] == -1) {
            if (a[k] != b[k])
                return "wrong";
            continue;
        }
        if (b[k] < 0 || (uint32_t) b[k] >= want->n_experts)
            return "out of range";
        if (seen[b[k] / 64] >> (b[k] % 64) & 1)
            return "twice";
        seen[b[k] / 64] |= UINT64_C(1) << (b[k] % 64);
        if (b[k] == a[k])
            continue;
        if (!(fabs((double) q[a[k]] - q[b[k]]) <= bound[a[k]] + bound[b[k]]))
            return "wrong";
        *exempt = true;
    }
    return NULL;
}

static void compare_ids(const struct verify_outputs *got, const struct verify_outputs *want,
                        uint32_t n_tokens, const double *bounds, bool *exempt,
                        struct verify_verdict *verdict)
{
    for (uint32_t t = 0; t < n_tokens; t++) {
        uint32_t k;
        const char *reason = row_ids(got, want, t, bounds, &exempt[t], &k);
        verdict->n_exempt += exempt[t];
        if (reason) {
            size_t i = (size_t) t * want->top_k + k;
            size_t score = (size_t) t * want->n_experts +
                           (want->ids[i] < 0 ? 0 : (uint32_t) want->ids[i]);
            fail(verdict, VERIFY_CHECK_IDS,
                 "ids: row %u place %u is %s: got %d, want %d (score %.9g, bound %.2g)",
                 (unsigned) t, (unsigned) k, reason, (int) got->ids[i], (int) want->ids[i],
                 want->scores[score], bounds[score]);
        }
    }
    if (memcmp(got->ids, want->ids, (size_t) n_tokens * want->top_k * sizeof *got->ids) != 0)
        verdict->changed |= 1u << VERIFY_CHECK_IDS;
}

double verify_difference(const float *got, float want)
{
    if (verify_is_poison(got))
        return NAN;
    if (isnan(want) || isinf(want))
        return (isnan(want) && isnan(*got)) || *got == want ? 0 : NAN;
    return isfinite(*got) ? (double) *got - want : NAN;
}

double verify_unit_roundoff(enum vkmoe_dtype type)
{
    return type == VKMOE_F16 ? 0x1p-11 : type == VKMOE_BF16 ? 0x1p-8 : 0;
}

double verify_rounding(enum vkmoe_dtype type, double v)
{
    double least = type == VKMOE_F16 ? 0x1p-25 : type == VKMOE_BF16 ? 0x1p-134 : 0;
    return fmax(verify_unit_roundoff(type) * fabs(v), least);
}

double verify_promise(enum vkmoe_precision precision, double n)
{
    switch (precision) {
    case VKMOE_PRECISION_EXACT:
        break;
    case VKMOE_PRECISION_HALF:
        return VERIFY_TOLERANCE_HALF;
    case VKMOE_PRECISION_INT8:
        return VERIFY_TOLERANCE_INT8 * (1 + 3 / sqrt(fmax(n, 1)));
    }
    return VERIFY_TOLERANCE;
}

// What the oracle's number is in a type that cannot hold it.
static float overflowed(enum vkmoe_dtype type, float v)
{
    uint32_t stored;
    float rounded = v;
    if (vkmoe_dtype_convert(type, &v, 1, &stored) == VKMOE_OK)
        verify_decode(type, &stored, 1, &rounded);
    return isinf(rounded) ? rounded : v;
}

// Relative L2 of an output with `width` numbers a row, exempt rows left out. The worst number is
// the one with the largest error, or the first that is no number at all.
//
// With e = what the device computed - want, of norm at most p |want|, and r(v) as rounding():
// |round(want + e) - want| <= |e| + |r(want + e)| <= (1 + u) |e| + |r(want)|.
static void compare_l2(const struct verify_outputs *got, const struct verify_outputs *want,
                       enum verify_check check, uint32_t n_tokens, const bool *exempt,
                       struct verify_verdict *verdict)
{
    bool is_y = check == VERIFY_CHECK_Y;
    uint32_t width = is_y ? want->d_out : want->top_k;
    size_t got_stride = is_y ? got->y_stride : width, want_stride = is_y ? want->y_stride : width;
    const float *got_at = is_y ? got->y : got->gates, *want_at = is_y ? want->y : want->gates;
    const enum vkmoe_dtype type = is_y ? got->kind.y_type : VKMOE_F32;
    double error2 = 0, norm2 = 0, rounding2 = 0, worst = -1, n = 0;
    size_t worst_row = 0, worst_column = 0;
    for (uint32_t t = 0; t < n_tokens; t++) {
        for (uint32_t i = 0; i < width; i++) {
            const float *g = &got_at[t * got_stride + i];
            const float w = overflowed(type, want_at[t * want_stride + i]);
            double d = verify_difference(g, w), r = verify_rounding(type, (double) w);
            if (memcmp(g, &w, sizeof w) != 0)
                verdict->changed |= 1u << check;
            if (exempt[t] && !verify_is_poison(g))
                continue;
            error2 += d * d;
            n += isfinite(w);
            norm2 += isfinite(w) ? (double) w * w : 0;
            rounding2 += isfinite(w) ? r * r : 0;
            if (fabs(d) > worst || (isnan(d) && !isnan(worst))) {
                worst = fabs(d);
                worst_row = t;
                worst_column = i;
            }
        }
    }
    const double promise = is_y ? verify_promise(got->kind.precision, n)
                                : VERIFY_TOLERANCE;
    double bound = (1 + verify_unit_roundoff(type)) * promise * sqrt(norm2) + sqrt(rounding2);
    if (sqrt(error2) <= bound)
        return;
    const float *g = &got_at[worst_row * got_stride + worst_column];
    fail(verdict, check, "%s: relative L2 %.3g > %.3g; row %zu column %zu: got %.9g%s, want %.9g",
         is_y ? "y" : "gates", sqrt(error2 / norm2), bound / sqrt(norm2), worst_row, worst_column,
         *g,
         verify_is_poison(g) ? " (not written)" : "",
         want_at[worst_row * want_stride + worst_column]);
}

static void compare_scores(const struct verify_outputs *got, const struct verify_outputs *want,
                           uint32_t n_tokens, const double *bounds,
                           struct verify_verdict *verdict)
{
    size_t n = (size_t) n_tokens * want->n_experts;
    if (memcmp(got->scores, want->scores, n * sizeof *got->scores) != 0)
        verdict->changed |= 1u << VERIFY_CHECK_SCORES;
    for (size_t i = 0; i < n; i++) {
        double d = verify_difference(&got->scores[i], want->scores[i]);
        if (d == 0 || fabs(d) <= bounds[i])
            continue;
        fail(verdict, VERIFY_CHECK_SCORES,
             "scores: row %zu expert %zu: got %.9g%s, want %.9g, bound %.2g", i / want->n_experts,
             i % want->n_experts, got->scores[i],
             verify_is_poison(&got->scores[i]) ? " (not written)" : "", want->scores[i], bounds[i]);
        return;
    }
}

// A gate weight of an unused slot is exactly 0.
static void compare_unused(const struct verify_outputs *got, const struct verify_outputs *want,
                           uint32_t n_tokens, struct verify_verdict *verdict)
{
    for (size_t i = 0; i < (size_t) n_tokens * want->top_k; i++) {
        if (want->ids[i] < 0 && got->ids[i] < 0 && got->gates[i] != 0)
            fail(verdict, VERIFY_CHECK_GATES,
                 "gates: row %zu place %zu is unused: got %.9g, want 0", i / want->top_k,
                 i % want->top_k, got->gates[i]);
    }
}

void verify_compare(const struct verify_outputs *got, const struct verify_outputs *want,
                    uint32_t n_tokens, const double *bounds, bool with_scores, bool *exempt,
                    struct verify_verdict *verdict)
{
    memset(verdict, 0, sizeof *verdict);
    compare_ids(got, want, n_tokens, bounds, exempt, verdict);
    if (!verify_all_poison(got->gates, 1)) // the run was asked for them
        compare_unused(got, want, n_tokens, verdict);
    compare_l2(got, want, VERIFY_CHECK_GATES, n_tokens, exempt, verdict);
    compare_l2(got, want, VERIFY_CHECK_Y, n_tokens, exempt, verdict);
    if (with_scores)
        compare_scores(got, want, n_tokens, bounds, verdict);
}
