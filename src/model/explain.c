// SPDX-License-Identifier: MIT
// Which expert serves what: counting rows as they come.
#include "model/explain.h"

#include "base/bits.h"
#include "base/desc.h"
#include "base/host.h"
#include "base/status.h"
#include "model/model.h"

#include <math.h>

// ---- the object ------------------------------------------------------------------------------

static enum vkmoe_status allocate(vkmoe_explain *e)
{
    enum vkmoe_status status;
    const vkmoe_host *host = e->host;
    const size_t n = e->n_experts, cells = n * e->n_groups;
    TRY(moe_try_alloc(host, e->n_groups * sizeof(uint64_t), "groups", &e->group_rows));
    TRY(moe_try_alloc(host, cells * sizeof(uint64_t), "slots", &e->slots));
    TRY(moe_try_alloc(host, cells * sizeof(double), "gate weights", &e->gate_sums));
    TRY(moe_try_alloc(host, cells * sizeof(uint64_t), "first experts", &e->first));
    TRY(moe_try_alloc(host, n * VKMOE_EXPLAIN_BINS * sizeof(uint64_t), "histograms",
                      &e->histograms));
    TRY(moe_try_alloc(host, n * e->n_certain * sizeof *e->certain, "certain inputs", &e->certain));
    TRY(moe_try_alloc(host, n * sizeof *e->n_kept, "certain inputs", &e->n_kept));
    TRY(moe_try_alloc(host, e->d_model * sizeof *e->spreads, "features", &e->spreads));
    TRY(moe_try_alloc(host, n * sizeof *e->quantiles, "quantiles", &e->quantiles));

fail:
    return status;
}

enum vkmoe_status vkmoe_explain_create(const vkmoe_model *model, const vkmoe_explain_desc *desc,
                                       vkmoe_explain **out)
{
    enum vkmoe_status status;
    vkmoe_explain *e = NULL;
    vkmoe_explain_desc d = vkmoe_explain_desc_init();
    vkmoe_layer_desc layer;
    vkmoe_net_layer net;
    vkmoe_model_info info;
    if (!model || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_explain_create: %s is NULL",
                        model ? "out" : "model");
    *out = NULL;
    if (desc)
        TRY(moe_desc_copy(&d, sizeof d, desc, "vkmoe_explain_desc"));
    TRY(vkmoe_model_layer(model, d.layer, &layer));
    TRY(vkmoe_model_get_info(model, &info));
    TRY(vkmoe_model_net_layer(model, d.layer, &net));
    if (net.combine != VKMOE_COMBINE_WEIGHTED_SUM)
        return moe_fail(VKMOE_E_UNSUPPORTED, "layer %u has no gate weights: all experts serve "
                        "every row", d.layer);
    TRY(moe_try_alloc(&model->host, sizeof *e, "explanation", &e));
    e->model = model;
    e->host = &model->host;
    e->layer = d.layer;
    e->n_experts = layer.n_experts;
    e->top_k = layer.top_k;
    e->d_model = layer.d_model;
    e->n_certain = d.n_certain;
    e->n_outputs = info.n_outputs;
    e->classify = info.task == VKMOE_TASK_CLASSIFY;
    e->n_groups = e->classify ? info.n_classes : VKMOE_EXPLAIN_QUARTERS;
    e->gate_limit = (double) layer.routed_scale;
    TRY(allocate(e));
    *out = e;
    return VKMOE_OK;

fail:
    vkmoe_explain_destroy(e);
    return status;
}

void vkmoe_explain_destroy(vkmoe_explain *explain)
{
    if (!explain)
        return;
    const vkmoe_host *host = explain->host;
    moe_free(host, explain->group_rows);
    moe_free(host, explain->slots);
    moe_free(host, explain->gate_sums);
    moe_free(host, explain->first);
    moe_free(host, explain->histograms);
    moe_free(host, explain->certain);
    moe_free(host, explain->n_kept);
    moe_free(host, explain->spreads);
    moe_free(host, explain->rows.values);
    moe_free(host, explain->rows.ids);
    moe_free(host, explain->rows.gates);
    moe_free(host, explain->quantiles);
    moe_free(host, explain->features);
    moe_free(host, explain);
}

// ---- rows ------------------------------------------------------------------------------------

static bool is_decided(const vkmoe_explain *e, const float *gates)
{
    for (uint32_t k = 0; k < e->top_k; k++) {
        if (isnan(gates[k]))
            return false;
    }
    return true;
}

void moe_explain_count(vkmoe_explain *e, uint32_t group, const int32_t *ids, const float *gates)
{
    e->group_rows[group]++;
    for (uint32_t k = 0; k < e->top_k; k++) {
        size_t cell = (size_t) ids[k] * e->n_groups + group;
        e->slots[cell]++;
        e->gate_sums[cell] += (double) gates[k];
        e->first[cell] += k == 0;
    }
}

static void add_to_histogram(vkmoe_explain *e, int32_t expert, float gate)
{
    double bin = floor((double) gate / e->gate_limit * VKMOE_EXPLAIN_BINS);
    bin = fmin(fmax(bin, 0), VKMOE_EXPLAIN_BINS - 1);
    e->histograms[(size_t) expert * VKMOE_EXPLAIN_BINS + (size_t) bin]++;
}

// Inserts behind all that are at least as large; what is pushed off the end is forgotten.
static void keep_certain(vkmoe_explain *e, int32_t expert, const vkmoe_explain_certain *input)
{
    vkmoe_explain_certain *list = e->certain + (size_t) expert * e->n_certain;
    uint32_t *n = &e->n_kept[expert], at = *n;
    while (at > 0 && list[at - 1].gate < input->gate)
        at--;
    if (at == e->n_certain)
        return;
    *n += *n < e->n_certain;
    for (uint32_t i = *n - 1; i > at; i--)
        list[i] = list[i - 1];
    list[at] = *input;
}

static void add_features(vkmoe_explain *e, const float *x)
{
    for (uint32_t i = 0; i < e->d_model; i++) {
        struct moe_spread *spread = &e->spreads[i];
        double before = (double) x[i] - spread->mean;
        spread->mean += before / (double) e->n_rows;
        spread->squares += before * ((double) x[i] - spread->mean);
    }
}

static enum vkmoe_status grow(const vkmoe_host *host, size_t n, size_t room, size_t element_size,
                              void *array)
{
    void *old, *new;
    memcpy(&old, array, sizeof old);
    enum vkmoe_status status = moe_try_alloc(host, room * element_size, "rows", &new);
    if (status != VKMOE_OK)
        return status;
    if (n > 0)
        memcpy(new, old, n * element_size);
    moe_free(host, old);
    memcpy(array, &new, sizeof new);
    return VKMOE_OK;
}

static enum vkmoe_status keep_row(vkmoe_explain *e, float value, const int32_t *ids,
                                  const float *gates)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_explain_rows *rows = &e->rows;
    const size_t k = e->top_k;
    if (rows->n == rows->room) {
        size_t room = rows->room ? 2 * rows->room : 1024;
        TRY(grow(e->host, rows->n, room, sizeof *rows->values, &rows->values));
        TRY(grow(e->host, rows->n * k, room * k, sizeof *rows->ids, &rows->ids));
        TRY(grow(e->host, rows->n * k, room * k, sizeof *rows->gates, &rows->gates));
        rows->room = room;
    }
    rows->values[rows->n] = value;
    memcpy(rows->ids + rows->n * k, ids, k * sizeof *ids);
    memcpy(rows->gates + rows->n * k, gates, k * sizeof *gates);
    rows->n++;

fail:
    return status;
}

static enum vkmoe_status check_row(const vkmoe_explain *e, uint64_t row, const int32_t *ids,
                                   int32_t label, float value)
{
    for (uint32_t k = 0; k < e->top_k; k++) {
        if (ids[k] < 0 || (uint32_t) ids[k] >= e->n_experts)
            return moe_fail(VKMOE_E_ARGUMENT, "row %llu: expert %d of %u",
                            (unsigned long long) row, (int) ids[k], e->n_experts);
    }
    if (e->classify && (label < 0 || (uint32_t) label >= e->n_groups))
        return moe_fail(VKMOE_E_ARGUMENT, "row %llu: label %d of %u classes",
                        (unsigned long long) row, (int) label, e->n_groups);
    if (!e->classify && !isfinite(value))
        return moe_fail(VKMOE_E_DATA, "row %llu: the target is %g", (unsigned long long) row,
                        (double) value);
    return VKMOE_OK;
}

static enum vkmoe_status add_row(vkmoe_explain *e, const vkmoe_explain_batch *b, size_t i)
{
    enum vkmoe_status status;
    const int32_t *ids = b->ids + i * e->top_k;
    const float *gates = b->gates + i * e->top_k;
    const vkmoe_explain_certain input = {
        .row = b->rows ? b->rows[i] : e->n_rows + e->n_undecided + 1,
        .label = e->classify ? b->labels[i] : -1,
        .value = e->classify ? NAN : b->values[i * e->n_outputs],
    };
    if (!is_decided(e, gates)) {
        e->n_undecided++;
        return VKMOE_OK;
    }
    TRY(check_row(e, input.row, ids, input.label, input.value));
    if (e->classify)
        moe_explain_count(e, (uint32_t) input.label, ids, gates);
    else
        TRY(keep_row(e, input.value, ids, gates));
    e->n_rows++;
    for (uint32_t k = 0; k < e->top_k; k++) {
        vkmoe_explain_certain slot = input;
        slot.gate = gates[k];
        add_to_histogram(e, ids[k], gates[k]);
        keep_certain(e, ids[k], &slot);
    }
    if (b->layer_x)
        add_features(e, b->layer_x + i * e->d_model);

fail:
    return status;
}

static enum vkmoe_status check_batch(const vkmoe_explain *e, const vkmoe_explain_batch *b)
{
    if (e->finished)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_explain_add: finished already");
    if (!b->ids || !b->gates || (e->classify ? !b->labels : !b->values))
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_explain_batch: %s is NULL",
                        !b->ids        ? "ids"
                        : !b->gates    ? "gates"
                        : e->classify  ? "labels"
                                       : "values");
    if (e->n_rows + e->n_undecided > 0 && e->has_x != (b->layer_x != NULL))
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_explain_batch.layer_x: for all rows or for none");
    return VKMOE_OK;
}

enum vkmoe_status vkmoe_explain_add(vkmoe_explain *explain, uint32_t n_rows,
                                    const vkmoe_explain_batch *batch)
{
    enum vkmoe_status status;
    vkmoe_explain_batch b = vkmoe_explain_batch_init();
    if (!explain || !batch)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_explain_add: %s is NULL",
                        explain ? "batch" : "explain");
    TRY(moe_desc_copy(&b, sizeof b, batch, "vkmoe_explain_batch"));
    if (n_rows == 0)
        return VKMOE_OK;
    TRY(check_batch(explain, &b));
    explain->has_x = b.layer_x != NULL;
    for (size_t i = 0; i < n_rows; i++)
        TRY(add_row(explain, &b, i));

fail:
    return status;
}

enum vkmoe_status vkmoe_explain_finish(vkmoe_explain *explain)
{
    enum vkmoe_status status = VKMOE_OK;
    if (!explain)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_explain_finish: explain is NULL");
    if (explain->finished)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_explain_finish: finished already");
    if (explain->n_rows == 0)
        return moe_fail(VKMOE_E_DATA, "no row to explain: %llu rows, all with gate weights of NaN",
                        (unsigned long long) explain->n_undecided);
    if (!explain->classify)
        TRY(moe_explain_quarters(explain));
    if (explain->has_x)
        TRY(moe_explain_features(explain));
    explain->finished = true;

fail:
    return status;
}
