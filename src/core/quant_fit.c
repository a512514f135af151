// SPDX-License-Identifier: MIT
// First each part gets the scale and minimum that suit it alone. The largest of each gives the
// scales of the block; then the parts choose again among what can be stored, and the scales of the
// block are fitted to what they chose, for as long as that gains something.
#include "core/quant_fit.h"

#include "core/quant_bytes.h"

enum { N = 256, N_ROUNDS = 3 };

// What a part has: v is a q - b for q in least..most.
struct part {
    const float *values;
    uint32_t n;
    int least, most;
};

// 1 / a, and 0 for 0: all codes are the one next to 0 then.
static inline double inverse(double a)
{
    return a != 0 ? 1 / a : 0;
}

static inline double nearest_code(const struct part *part, double value, double inverse_a, double b)
{
    return nearest_in((value + b) * inverse_a, part->least, part->most);
}

// Squared error of a part with its nearest codes.
static double part_error(const struct part *part, double a, double b)
{
    const double inverse_a = inverse(a);
    double error = 0;
    for (uint32_t i = 0; i < part->n; i++) {
        const double value = (double) part->values[i];
        const double code = nearest_code(part, value, inverse_a, b);
        const double off = value - (a * code - b);
        error += off * off;
    }
    return error;
}

// The a and b of least squares for the nearest codes of some others; b stays 0 or more.
static void least_squares(const struct part *part, double *a, double *b)
{
    const double inverse_a = inverse(*a);
    double q1 = 0, q2 = 0, x1 = 0, xq = 0;
    for (uint32_t i = 0; i < part->n; i++) {
        const double value = (double) part->values[i];
        const double code = nearest_code(part, value, inverse_a, *b);
        q1 += code;
        q2 += code * code;
        x1 += value;
        xq += value * code;
    }
    const double determinant = part->n * q2 - q1 * q1;
    *b = determinant > 0 ? (q1 * xq - q2 * x1) / determinant : 0;
    if (*b > 0)
        *a = (part->n * xq - q1 * x1) / determinant;
    else if (q2 > 0)
        *a = xq / q2;
    *b = fmax(*b, 0);
}

static void keep_better(const struct part *part, double a, double b, double *error, double *best_a,
                        double *best_b)
{
    const double found = part_error(part, a, b);
    if (!(found < *error))
        return;
    *error = found;
    *best_a = a;
    *best_b = b;
}

// Spreads the codes over a range that is wider and narrower than the values, step by step.
static void fit_part_minimum(const struct part *part, double *a, double *b)
{
    double low = 0, high = -INFINITY, error = INFINITY;
    for (uint32_t i = 0; i < part->n; i++) {
        const double value = (double) part->values[i];
        low = value < low ? value : low;
        high = value > high ? value : high;
    }
    *a = 0;
    *b = -low;
    if (high <= low) // all the same, and not above 0
        return;
    for (int step = -8; step <= 8; step++) {
        double scale = (high - low) / (part->most + step * 0.125), minimum = -low;
        if (step == 0)
            keep_better(part, scale, minimum, &error, a, b);
        least_squares(part, &scale, &minimum);
        keep_better(part, scale, minimum, &error, a, b);
    }
}

static void fit_part_signed(const struct part *part, double *a)
{
    static const double codes[] = {-32, -32.5, -33, -31.5, -31, -30.5, 31, 31.5, 32, 30.5, 30};
    float largest;
    double error = INFINITY, b;
    find_most(part->values, part->n, &largest);
    *a = 0;
    for (uint32_t c = 0; c < sizeof codes / sizeof *codes && largest != 0; c++) {
        double scale = (double) largest / codes[c], xq = 0, q2 = 0;
        keep_better(part, scale, 0, &error, a, &b);
        for (uint32_t i = 0; i < part->n; i++) {
            const double value = (double) part->values[i];
            const double q = nearest_code(part, value, 1 / scale, 0);
            xq += value * q;
            q2 += q * q;
        }
        if (q2 > 0)
            keep_better(part, xq / q2, 0, &error, a, &b);
    }
}

// A block on its way: d and m as stored, the scales and minima of parts that go with them.
struct block {
    const float *values;
    uint32_t n_parts;
    int least_code, most_code, least_scale, most_scale;
    double a[16], b[16]; // what suits each part alone
    double d, m, error;
    int scales[16], minima[16];
};

static struct part part_of(const struct block *block, uint32_t p)
{
    const uint32_t n = N / block->n_parts;
    return (struct part){block->values + p * n, n, block->least_code, block->most_code};
}

static int clamp(double value, int least, int most)
{
    return (int) fmin(fmax(value, least), most);
}

// The scale and minimum near what suits the part that are best with d and m.
static double choose_part(struct block *block, uint32_t p)
{
    const struct part part = part_of(block, p);
    const double scale = block->d != 0 ? rint(block->a[p] / block->d) : 0;
    const double minimum = block->m != 0 ? rint(block->b[p] / block->m) : 0;
    double best = INFINITY;
    for (int i = -1; i <= 1; i++) {
        for (int j = -1; j <= 1; j++) {
            const int s = clamp(scale + i, block->least_scale, block->most_scale);
            const int t = clamp(minimum + j, 0, block->most_scale);
            if (block->m == 0 && j != 0)
                continue;
            const double error = part_error(&part, block->d * s, block->m * t);
            if (!(error < best))
                continue;
            best = error;
            block->scales[p] = s;
            block->minima[p] = t;
        }
    }
    return best;
}

// d and m of least squares for the scales, minima and codes that there are.
static void fit_block(struct block *block)
{
    double uu = 0, uv = 0, vv = 0, xu = 0, xv = 0;
    for (uint32_t p = 0; p < block->n_parts; p++) {
        const struct part part = part_of(block, p);
        const double inverse_a = inverse(block->d * block->scales[p]);
        const double b = block->m * block->minima[p];
        for (uint32_t i = 0; i < part.n; i++) {
            const double value = (double) part.values[i], v = block->minima[p];
            const double u = block->scales[p] * nearest_code(&part, value, inverse_a, b);
            uu += u * u;
            uv += u * v;
            vv += v * v;
            xu += value * u;
            xv += value * v;
        }
    }
    const double determinant = uu * vv - uv * uv;
    if (vv > 0 && determinant > 0) {
        block->d = (xu * vv - xv * uv) / determinant;
        block->m = (xu * uv - xv * uu) / determinant;
    } else if (uu > 0) {
        block->d = xu / uu;
    }
}

// From d and m on; keeps what is better than `best`.
static void search(struct block block, struct block *best)
{
    for (uint32_t round = 0; round < N_ROUNDS; round++) {
        block.d = (double) f16_scale((float) block.d);
        block.m = (double) f16_scale((float) block.m);
        block.error = 0;
        for (uint32_t p = 0; p < block.n_parts; p++)
            block.error += choose_part(&block, p);
        if (!(block.error < best->error))
            return;
        *best = block;
        if (block.error == 0)
            return;
        fit_block(&block);
    }
}

static void finish(const struct block *block, struct moe_k_block *out)
{
    const uint32_t n = N / block->n_parts;
    *out = (struct moe_k_block){.d = moe_f32_to_f16((float) block->d),
                                .m = moe_f32_to_f16((float) block->m)};
    for (uint32_t p = 0; p < block->n_parts; p++) {
        const struct part part = part_of(block, p);
        const double inverse_a = inverse(block->d * block->scales[p]);
        const double b = block->m * block->minima[p];
        out->scales[p] = (int16_t) block->scales[p];
        out->minima[p] = (uint8_t) block->minima[p];
        for (uint32_t i = 0; i < n; i++) {
            const double code = nearest_code(&part, (double) part.values[i], inverse_a, b);
            out->codes[p * n + i] = (uint8_t) ((int) code - block->least_code);
        }
    }
}

void moe_k_fit_minimum(const struct moe_k_shape *shape, const float *values,
                       struct moe_k_block *out)
{
    struct block block = {.values = values, .n_parts = shape->n_parts,
                          .most_code = shape->most_code, .most_scale = shape->most_scale};
    struct block best = {.error = INFINITY};
    float largest;
    *out = (struct moe_k_block){.d = F16_NAN};
    if (!find_most(values, N, &largest))
        return;
    for (uint32_t p = 0; p < block.n_parts; p++) {
        const struct part part = part_of(&block, p);
        fit_part_minimum(&part, &block.a[p], &block.b[p]);
        block.d = fmax(block.d, block.a[p] / shape->most_scale);
        block.m = fmax(block.m, block.b[p] / shape->most_scale);
    }
    search(block, &best);
    finish(&best, out);
}

void moe_k_fit_signed(const float *values, struct moe_k_block *out)
{
    struct block block = {.values = values, .n_parts = 16, .least_code = -32, .most_code = 31,
                          .least_scale = -128, .most_scale = 127};
    struct block best = {.error = INFINITY};
    float largest;
    double most = 0;
    *out = (struct moe_k_block){.d = F16_NAN};
    if (!find_most(values, N, &largest))
        return;
    for (uint32_t p = 0; p < 16; p++) {
        const struct part part = part_of(&block, p);
        fit_part_signed(&part, &block.a[p]);
        if (fabs(block.a[p]) > fabs(most))
            most = block.a[p];
    }
    block.d = most / -128;
    search(block, &best);
    block.d = most / 127;
    search(block, &best);
    finish(&best, out);
}
