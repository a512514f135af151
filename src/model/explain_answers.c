// SPDX-License-Identifier: MIT
// Which expert serves what: the measures, after all rows are counted.
#include "model/explain.h"

#include "base/host.h"
#include "base/status.h"
#include "core/dtype.h"
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

// ---- information -----------------------------------------------------------------------------

double moe_entropy(const uint64_t *counts, uint32_t n)
{
    double total = 0, bits = 0;
    for (uint32_t i = 0; i < n; i++)
        total += (double) counts[i];
    for (uint32_t i = 0; i < n; i++) {
        if (counts[i] > 0)
            bits += (double) counts[i] / total * log2(total / (double) counts[i]);
    }
    return bits;
}

static double v_log_v(double v)
{
    return v > 0 ? v * log2(v) : 0;
}

// The entropy of rows and that of columns, less that of cells.
double moe_information(const double *weights, uint32_t n, uint32_t m)
{
    double total = 0, sums = 0;
    for (uint32_t i = 0; i < n; i++) {
        double row = 0;
        for (uint32_t j = 0; j < m; j++) {
            double cell = weights[(size_t) i * m + j];
            if (cell < 0)
                return (double) NAN;
            row += cell;
            sums += v_log_v(cell);
        }
        total += row;
        sums -= v_log_v(row);
    }
    for (uint32_t j = 0; j < m; j++) {
        double column = 0;
        for (uint32_t i = 0; i < n; i++)
            column += weights[(size_t) i * m + j];
        sums -= v_log_v(column);
    }
    return fmax(sums / total + log2(total), 0); // rounding may leave it just below
}

// ---- quarters of a regression ----------------------------------------------------------------

static int by_value(const void *a, const void *b)
{
    float x = *(const float *) a, y = *(const float *) b;
    return (x > y) - (x < y);
}

// The value below which a share q of the sorted values is, between two of them in proportion.
static double quantile(const float *sorted, size_t n, double q)
{
    double at = q * (double) (n - 1), low = floor(at);
    size_t i = (size_t) low, next = i + 1 < n ? i + 1 : i;
    return (double) sorted[i] + (at - low) * ((double) sorted[next] - (double) sorted[i]);
}

static uint32_t find_quarter(const double bounds[3], float value)
{
    uint32_t quarter = 0;
    while (quarter < 3 && (double) value > bounds[quarter])
        quarter++;
    return quarter;
}

// Quantiles of the targets of an expert's slots; `values` has room for those of all rows.
static void fill_quantiles(const vkmoe_explain *e, uint32_t expert, float *values, double *out)
{
    const struct moe_explain_rows *rows = &e->rows;
    size_t n = 0;
    for (size_t i = 0; i < rows->n; i++) {
        for (uint32_t k = 0; k < e->top_k; k++) {
            if (rows->ids[i * e->top_k + k] == (int32_t) expert)
                values[n++] = rows->values[i];
        }
    }
    qsort(values, n, sizeof *values, by_value);
    for (int q = 0; q < 5; q++)
        out[q] = n > 0 ? quantile(values, n, q / 4.0) : (double) NAN;
}

enum vkmoe_status moe_explain_quarters(vkmoe_explain *e)
{
    const struct moe_explain_rows *rows = &e->rows;
    float *values;
    double bounds[3];
    enum vkmoe_status status =
        moe_try_alloc(e->host, rows->n * sizeof *values, "targets", &values);
    if (status != VKMOE_OK)
        return status;
    memcpy(values, rows->values, rows->n * sizeof *values);
    qsort(values, rows->n, sizeof *values, by_value);
    for (int i = 0; i < 3; i++)
        bounds[i] = quantile(values, rows->n, (i + 1) / 4.0);
    for (int i = 0; i < VKMOE_EXPLAIN_QUARTERS; i++)
        e->low[i] = e->high[i] = (double) NAN;
    for (size_t i = 0; i < rows->n; i++) {
        uint32_t quarter = find_quarter(bounds, values[i]); // sorted: the last one is the highest
        if (isnan(e->low[quarter]))
            e->low[quarter] = (double) values[i];
        e->high[quarter] = (double) values[i];
        moe_explain_count(e, find_quarter(bounds, rows->values[i]), rows->ids + i * e->top_k,
                          rows->gates + i * e->top_k);
    }
    for (uint32_t expert = 0; expert < e->n_experts; expert++)
        fill_quantiles(e, expert, values, e->quantiles[expert]);
    moe_free(e->host, values);
    return VKMOE_OK;
}

// ---- features --------------------------------------------------------------------------------

// NaN is the weakest.
static int by_effect(const void *a, const void *b)
{
    const vkmoe_explain_feature *x = a, *y = b;
    double p = isnan(x->effect) ? -1 : fabs(x->effect), q = isnan(y->effect) ? -1 : fabs(y->effect);
    return p != q ? (p < q) - (p > q) : (x->feature > y->feature) - (x->feature < y->feature);
}

// The weights of a router with linear scores, (n_experts, d_model); NULL: they are not linear.
static const vkmoe_tensor *find_weight(const vkmoe_explain *e)
{
    char name[64];
    if (e->model->d.layers[e->layer].scorer != VKMOE_SCORER_LINEAR)
        return NULL;
    snprintf(name, sizeof name, "layers.%u.router.weight", e->layer);
    for (uint32_t i = 0; i < e->model->n_tensors; i++) {
        if (strcmp(e->model->specs[i].name, name) == 0)
            return &e->model->tensors[i];
    }
    return NULL;
}

enum vkmoe_status moe_explain_features(vkmoe_explain *e)
{
    const vkmoe_tensor *weight = find_weight(e);
    if (!weight)
        return VKMOE_OK;
    const size_t n = (size_t) e->n_experts * e->d_model;
    enum vkmoe_status status =
        moe_try_alloc(e->host, n * sizeof *e->features, "features", &e->features);
    if (status != VKMOE_OK)
        return status;
    for (size_t i = 0; i < n; i++) {
        vkmoe_explain_feature *f = &e->features[i];
        float value;
        const char *at = (const char *) weight->data + moe_dtype_size(weight->type, i);
        moe_dtype_decode(weight->type, at, 1, &value);
        f->feature = (uint32_t) (i % e->d_model);
        f->weight = (double) value;
        f->std = sqrt(e->spreads[f->feature].squares / (double) e->n_rows);
        f->effect = f->weight * f->std;
    }
    for (uint32_t expert = 0; expert < e->n_experts; expert++)
        qsort(e->features + (size_t) expert * e->d_model, e->d_model, sizeof *e->features,
              by_effect);
    return VKMOE_OK;
}

// ---- answers ---------------------------------------------------------------------------------

static enum vkmoe_status check_get(const vkmoe_explain *e, const void *out)
{
    if (!e || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_explain: %s is NULL", e ? "out" : "explain");
    if (!e->finished)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_explain: vkmoe_explain_finish comes first");
    return VKMOE_OK;
}

static enum vkmoe_status check_expert(const vkmoe_explain *e, uint32_t expert, const void *out)
{
    enum vkmoe_status status = check_get(e, out);
    if (status == VKMOE_OK && expert >= e->n_experts)
        return moe_fail(VKMOE_E_ARGUMENT, "expert %u of %u", expert, e->n_experts);
    return status;
}

static uint64_t sum(const uint64_t *counts, uint32_t n)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < n; i++)
        total += counts[i];
    return total;
}

static enum vkmoe_status count_information(const vkmoe_explain *e, const uint64_t *counts,
                                           double *out)
{
    const size_t n = (size_t) e->n_experts * e->n_groups;
    double *weights;
    enum vkmoe_status status = moe_try_alloc(e->host, n * sizeof *weights, "weights", &weights);
    if (status != VKMOE_OK)
        return status;
    for (size_t i = 0; i < n; i++)
        weights[i] = (double) counts[i];
    *out = moe_information(weights, e->n_experts, e->n_groups);
    moe_free(e->host, weights);
    return VKMOE_OK;
}

static uint32_t count_used(const vkmoe_explain *e, const uint64_t *counts)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < e->n_experts; i++)
        n += sum(counts + (size_t) i * e->n_groups, e->n_groups) > 0;
    return n;
}

static double load_entropy(const vkmoe_explain *e)
{
    const double total = (double) e->n_rows * e->top_k;
    double bits = 0;
    for (uint32_t i = 0; i < e->n_experts; i++) {
        double n = (double) sum(e->slots + (size_t) i * e->n_groups, e->n_groups);
        if (n > 0)
            bits += n / total * log2(total / n);
    }
    return bits;
}

enum vkmoe_status vkmoe_explain_get(const vkmoe_explain *explain, vkmoe_explain_summary *out)
{
    enum vkmoe_status status;
    const vkmoe_explain *e = explain;
    TRY(check_get(e, out));
    *out = (vkmoe_explain_summary){
        .n_rows = e->n_rows,
        .n_undecided = e->n_undecided,
        .n_groups = e->n_groups,
        .n_used = count_used(e, e->slots),
        .group_entropy = moe_entropy(e->group_rows, e->n_groups),
        .load_entropy = load_entropy(e),
        .information_gates = moe_information(e->gate_sums, e->n_experts, e->n_groups),
        .gate_limit = e->gate_limit,
    };
    TRY(count_information(e, e->slots, &out->information));
    TRY(count_information(e, e->first, &out->information_first));
    uint32_t n_groups = 0;
    for (uint32_t i = 0; i < e->n_groups; i++)
        n_groups += e->group_rows[i] > 0;
    out->chance_first = (count_used(e, e->first) - 1.0) * (n_groups - 1.0) /
                        (2 * (double) e->n_rows * log(2));

fail:
    return status;
}

enum vkmoe_status vkmoe_explain_get_group(const vkmoe_explain *explain, uint32_t i,
                                          vkmoe_explain_group *out)
{
    enum vkmoe_status status = check_get(explain, out);
    if (status != VKMOE_OK)
        return status;
    if (i >= explain->n_groups)
        return moe_fail(VKMOE_E_ARGUMENT, "group %u of %u", i, explain->n_groups);
    *out = (vkmoe_explain_group){NULL, explain->group_rows[i], (double) NAN, (double) NAN};
    if (explain->classify) {
        out->name = vkmoe_model_class(explain->model, i);
    } else {
        out->low = explain->low[i];
        out->high = explain->high[i];
    }
    return VKMOE_OK;
}

// sum_g p(g | expert) log2(p(g | expert) / p(g)), with p(g) over all slots: each row has top_k.
static double divergence(const vkmoe_explain *e, const uint64_t *slots, double n_slots)
{
    double bits = 0;
    for (uint32_t g = 0; g < e->n_groups; g++) {
        double p = (double) slots[g] / n_slots;
        if (slots[g] > 0)
            bits += p * log2(p * (double) e->n_rows / (double) e->group_rows[g]);
    }
    return fmax(bits, 0);
}

enum vkmoe_status vkmoe_explain_get_expert(const vkmoe_explain *explain, uint32_t expert,
                                           vkmoe_explain_expert *out)
{
    const vkmoe_explain *e = explain;
    enum vkmoe_status status = check_expert(e, expert, out);
    if (status != VKMOE_OK)
        return status;
    const size_t row = (size_t) expert * e->n_groups;
    *out = (vkmoe_explain_expert){
        .n_slots = sum(e->slots + row, e->n_groups),
        .n_first = sum(e->first + row, e->n_groups),
        .gate_mean = (double) NAN,
        .information = (double) NAN,
        .slots = e->slots + row,
        .gates = e->gate_sums + row,
        .histogram = e->histograms + (size_t) expert * VKMOE_EXPLAIN_BINS,
    };
    const double n = (double) out->n_slots;
    out->share = n / ((double) e->n_rows * e->top_k);
    if (n > 0) {
        double gates = 0;
        for (uint32_t g = 0; g < e->n_groups; g++)
            gates += out->gates[g];
        out->gate_mean = gates / n;
        out->information = divergence(e, out->slots, n);
    }
    for (int q = 0; q < 5; q++)
        out->quantiles[q] = e->classify ? (double) NAN : e->quantiles[expert][q];
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_explain_get_certain(const vkmoe_explain *explain, uint32_t expert,
                                            uint32_t i, uint32_t *n, vkmoe_explain_certain *out)
{
    enum vkmoe_status status = check_expert(explain, expert, out);
    if (status != VKMOE_OK)
        return status;
    if (n)
        *n = explain->n_kept[expert];
    if (i >= explain->n_kept[expert])
        return moe_fail(VKMOE_E_ARGUMENT, "input %u of %u that are kept for expert %u", i,
                        explain->n_kept[expert], expert);
    *out = explain->certain[(size_t) expert * explain->n_certain + i];
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_explain_get_feature(const vkmoe_explain *explain, uint32_t expert,
                                            uint32_t i, vkmoe_explain_feature *out)
{
    enum vkmoe_status status = check_expert(explain, expert, out);
    if (status != VKMOE_OK)
        return status;
    uint32_t n = explain->features ? explain->d_model : 0;
    if (i >= n)
        return moe_fail(VKMOE_E_ARGUMENT, "feature %u of %u", i, n);
    *out = explain->features[(size_t) expert * explain->d_model + i];
    return VKMOE_OK;
}
