// SPDX-License-Identifier: MIT
#include <vkmoe/model.h>

#include "base/host.h"
#include "base/status.h"
#include "model/metrics.h"
#include "model/model.h"

#include <math.h>

// Of one output of a regression: sums for the mean square error, and Welford's running mean and sum
// of squares of the targets, which do not cancel.
struct fit {
    double error2, mean, spread2;
};

struct vkmoe_metrics {
    const vkmoe_host *host; // borrowed
    vkmoe_model_info info;
    uint64_t n, n_right;
    double loss;
    uint64_t *rows, *predicted, *right; // (n_classes)
    struct fit *fits;                   // (n_outputs), regress
    uint64_t *load;                     // (n_experts)
    uint32_t n_experts, top_k;
};

enum vkmoe_status moe_metrics_create(const vkmoe_host *host, const vkmoe_model_info *info,
                                     uint32_t n_experts, uint32_t top_k, vkmoe_metrics **out)
{
    enum vkmoe_status status;
    vkmoe_metrics *m = NULL;
    const size_t n_classes = info->n_classes;
    *out = NULL;
    TRY(moe_try_alloc(host, sizeof *m, "metrics", &m));
    m->host = host;
    m->info = *info;
    m->n_experts = n_experts;
    m->top_k = top_k;
    TRY(moe_try_alloc(host, n_classes * sizeof *m->rows, "metrics", &m->rows));
    TRY(moe_try_alloc(host, n_classes * sizeof *m->rows, "metrics", &m->predicted));
    TRY(moe_try_alloc(host, n_classes * sizeof *m->rows, "metrics", &m->right));
    TRY(moe_try_alloc(host, info->n_outputs * sizeof *m->fits, "metrics", &m->fits));
    TRY(moe_try_alloc(host, m->n_experts * sizeof *m->load, "metrics", &m->load));
    *out = m;
    return VKMOE_OK;

fail:
    vkmoe_metrics_destroy(m);
    return status;
}

enum vkmoe_status vkmoe_metrics_create(const vkmoe_model *model, uint32_t layer,
                                       vkmoe_metrics **out)
{
    vkmoe_net_layer desc;
    if (!model || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_metrics_create: %s is NULL",
                        model ? "out" : "model");
    *out = NULL;
    enum vkmoe_status status = vkmoe_model_net_layer(model, layer, &desc);
    if (status != VKMOE_OK)
        return status;
    bool moe = desc.kind == VKMOE_NET_MOE;
    return moe_metrics_create(&model->host, &model->d.info, moe ? desc.layer->n_experts : 0,
                              moe ? desc.layer->top_k : 0, out);
}

void vkmoe_metrics_destroy(vkmoe_metrics *metrics)
{
    if (!metrics)
        return;
    const vkmoe_host *host = metrics->host;
    moe_free(host, metrics->rows);
    moe_free(host, metrics->predicted);
    moe_free(host, metrics->right);
    moe_free(host, metrics->fits);
    moe_free(host, metrics->load);
    moe_free(host, metrics);
}

int32_t vkmoe_predict_class(const vkmoe_model *model, const float *y)
{
    return model && y ? moe_head_class(&model->d.info, y) : -1;
}

// What the logarithm of a probability of 0, and of less, counts as, so that a sum stays finite.
#define LOG_ZERO (-100.0)

// -log sigmoid(v), without overflow
static double softplus_minus(double v)
{
    return fmax(-v, 0) + log1p(exp(-fabs(v)));
}

static double cross_entropy(const vkmoe_model_info *info, const float *y, int32_t label)
{
    uint32_t n = info->n_outputs;
    double sum = 0, max = -INFINITY;
    if (info->head == VKMOE_HEAD_SIGMOID) {
        for (uint32_t i = 0; i < n; i++) {
            bool on = n == 1 ? label == 1 : (uint32_t) label == i;
            sum += softplus_minus(on ? (double) y[i] : -(double) y[i]);
        }
        return sum / n;
    }
    if (info->head == VKMOE_HEAD_IDENTITY) { // y are probabilities
        double p = n > 1 ? (double) y[label] : label == 1 ? (double) y[0] : 1 - (double) y[0];
        return p > 0 ? -fmax(log(p), LOG_ZERO) : isnan(p) ? p : -LOG_ZERO;
    }
    for (uint32_t i = 0; i < n; i++)
        max = fmax(max, (double) y[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double) y[i] - max);
    return log(sum) + max - (double) y[label];
}

static void add_class(vkmoe_metrics *m, const float *y, int32_t label)
{
    int32_t predicted = moe_head_class(&m->info, y);
    m->loss += cross_entropy(&m->info, y, label);
    m->rows[label]++;
    if (predicted >= 0)
        m->predicted[predicted]++;
    if (predicted == label) {
        m->right[label]++;
        m->n_right++;
    }
}

// Predictions are after the head, as targets are.
static void add_values(vkmoe_metrics *m, const float *y, const float *values)
{
    for (uint32_t i = 0; i < m->info.n_outputs; i++) {
        struct fit *fit = &m->fits[i];
        double v = (double) values[i], p = (double) y[i];
        if (m->info.head == VKMOE_HEAD_SIGMOID)
            p = 1 / (1 + exp(-p));
        double before = v - fit->mean;
        fit->error2 += (p - v) * (p - v);
        fit->mean += before / (double) (m->n + 1);
        fit->spread2 += before * (v - fit->mean);
    }
}

enum vkmoe_status vkmoe_metrics_add_routing(vkmoe_metrics *metrics, uint64_t n_rows,
                                            const int32_t *ids)
{
    if (!metrics || !ids)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_metrics_add_routing: %s is NULL",
                        metrics ? "ids" : "metrics");
    for (uint64_t i = 0; i < n_rows * metrics->top_k; i++) {
        if (ids[i] >= 0 && (uint32_t) ids[i] < metrics->n_experts)
            metrics->load[ids[i]]++;
    }
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_metrics_add(vkmoe_metrics *metrics, uint32_t n_rows, const float *y,
                                    const int32_t *labels, const float *values, const int32_t *ids)
{
    bool classify = metrics && metrics->info.task == VKMOE_TASK_CLASSIFY;
    if (!metrics || !y || (classify ? !labels : !values))
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_metrics_add: %s is NULL",
                        !metrics ? "metrics" : !y ? "y" : classify ? "labels" : "values");
    const vkmoe_model_info *info = &metrics->info;
    for (uint32_t row = 0; row < n_rows; row++) {
        const float *out = y + (size_t) row * info->n_outputs;
        if (!classify)
            add_values(metrics, out, values + (size_t) row * info->n_outputs);
        else if (labels[row] < 0 || (uint32_t) labels[row] >= info->n_classes)
            return moe_fail(VKMOE_E_ARGUMENT, "label %d of %u classes", (int) labels[row],
                            info->n_classes);
        else
            add_class(metrics, out, labels[row]);
        metrics->n++;
    }
    return ids ? vkmoe_metrics_add_routing(metrics, n_rows, ids) : VKMOE_OK;
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

enum vkmoe_status vkmoe_metrics_get(const vkmoe_metrics *metrics, vkmoe_metrics_summary *out)
{
    if (!metrics || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_metrics_get: %s is NULL",
                        metrics ? "out" : "metrics");
    double n = (double) metrics->n;
    *out = (vkmoe_metrics_summary){metrics->n, NAN, NAN, NAN, NAN};
    if (metrics->info.task == VKMOE_TASK_CLASSIFY) {
        out->loss = metrics->loss / n;
        out->accuracy = (double) metrics->n_right / n;
        return VKMOE_OK;
    }
    uint32_t n_outputs = metrics->info.n_outputs;
    double error2 = 0, r2 = 0;
    for (uint32_t i = 0; i < n_outputs; i++) {
        const struct fit *fit = &metrics->fits[i];
        error2 += fit->error2;
        r2 += fit->spread2 > 0 ? 1 - fit->error2 / fit->spread2 : (double) NAN;
    }
    out->loss = error2 / (n * n_outputs);
    out->rmse = sqrt(out->loss);
    out->r2 = r2 / n_outputs;
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_metrics_class(const vkmoe_metrics *metrics, uint32_t i,
                                      vkmoe_class_metrics *out)
{
    if (!metrics || !out || i >= metrics->info.n_classes)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_metrics_class: %s",
                        !metrics ? "metrics is NULL" : !out ? "out is NULL" : "no such class");
    double right = (double) metrics->right[i];
    out->n = metrics->rows[i];
    out->precision = ratio(right, (double) metrics->predicted[i]);
    out->recall = ratio(right, (double) metrics->rows[i]);
    out->f1 = ratio(2 * right, (double) (metrics->predicted[i] + metrics->rows[i]));
    return VKMOE_OK;
}

const uint64_t *vkmoe_metrics_load(const vkmoe_metrics *metrics)
{
    return metrics && metrics->n_experts > 0 ? metrics->load : NULL;
}
