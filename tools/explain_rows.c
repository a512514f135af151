// SPDX-License-Identifier: MIT
// The rows that --row asks for: their outputs, and the part of each expert in them.
#include "explain.h"

#include <limits.h>
#include <stdlib.h>

enum { MAX_ROWS = 1000 };

int explain_rows_parse(const struct cli_spec *spec, const char *text,
                       struct explain_report *report)
{
    const char *at = text;
    uint32_t n = 1;
    for (const char *c = at; *c; c++)
        n += *c == ',';
    if (n > MAX_ROWS)
        return cli_usage(spec, "--row %.40s...: at most %d rows", at, MAX_ROWS);
    if (cli_alloc(n, 1, sizeof *report->rows, &report->rows) != VKMOE_OK)
        return cli_fail(VKMOE_E_MEMORY);
    for (uint32_t i = 0; i < n; i++) {
        char *end;
        unsigned long long row = *at >= '1' && *at <= '9' ? strtoull(at, &end, 10) : 0;
        if (row == 0 || row == ULLONG_MAX || (*end && *end != ','))
            return cli_usage(spec, "--row %.80s: row numbers from 1, with commas between them",
                             text);
        report->rows[i].row = row;
        at = end + (*end == ',');
    }
    report->n_rows = n;
    return CLI_OK;
}

// Only of the last layer, and where nothing is added to what it gives, are the experts' outputs
// parts of the model's.
static bool has_parts(const struct explain_report *report)
{
    vkmoe_net_layer layer = vkmoe_net_layer_init();
    vkmoe_model_net_layer(report->model, report->layer, &layer);
    return report->layer + 1 == report->info.n_layers && !layer.residual;
}

enum vkmoe_status explain_rows_open(struct explain_report *report)
{
    enum vkmoe_status status = VKMOE_OK;
    const size_t n_outputs = report->info.n_outputs, top_k = report->desc.top_k;
    const size_t width = 3 * n_outputs + top_k + top_k * n_outputs;
    if (report->n_rows == 0)
        return VKMOE_OK;
    if (vkmoe_model_is_by_token(report->model, report->layer)) {
        char text[128];
        snprintf(text, sizeof text, "--row: layer %u serves the tokens of a row, not rows",
                 (unsigned) report->layer);
        vkmoe_error_set(text);
        return VKMOE_E_ARGUMENT;
    }
    report->has_parts = has_parts(report);
    CLI_TRY(cli_alloc(report->desc.n_experts, 1, sizeof *report->alone, &report->alone));
    CLI_TRY(cli_alloc(report->n_rows, width, sizeof(float), &report->row_floats));
    CLI_TRY(cli_alloc(report->n_rows, top_k, sizeof(int32_t), &report->row_ids));
    for (uint32_t i = 0; i < report->n_rows; i++) {
        struct explain_row *row = &report->rows[i];
        row->values = report->row_floats + i * width;
        row->y = row->values + n_outputs;
        row->scores = row->y + n_outputs;
        row->gates = row->scores + n_outputs;
        row->parts = row->gates + top_k;
        row->ids = report->row_ids + i * top_k;
    }

fail:
    return status;
}

void explain_rows_close(struct explain_report *report)
{
    for (uint32_t e = 0; report->alone && e < report->desc.n_experts; e++)
        vkmoe_session_destroy(report->alone[e]);
    free(report->alone);
    free(report->row_floats);
    free(report->row_ids);
    free(report->rows);
}

// ---- one batch -------------------------------------------------------------------------------

// Where a row is in a batch behind the first n_before rows; false: elsewhere.
static bool find_row(const struct explain_row *row, uint64_t n_before, const struct rows *rows,
                     size_t *at)
{
    *at = (size_t) (row->row - n_before - 1);
    return row->row > n_before && row->row - n_before <= rows->n;
}

static void keep_row(const struct explain_report *report, struct explain_row *row,
                     const struct rows *rows, const float *y, const float *scores, size_t at)
{
    const size_t n_outputs = report->info.n_outputs, top_k = report->desc.top_k;
    row->found = true;
    row->label = rows->labels ? rows->labels[at] : -1;
    if (rows->values)
        memcpy(row->values, rows->values + at * n_outputs, n_outputs * sizeof(float));
    memcpy(row->y, y + at * n_outputs, n_outputs * sizeof(float));
    memcpy(row->scores, scores + at * n_outputs, n_outputs * sizeof(float));
    memcpy(row->gates, rows->gates + at * top_k, top_k * sizeof(float));
    memcpy(row->ids, rows->ids + at * top_k, top_k * sizeof(int32_t));
}

static bool is_needed(const struct explain_report *report, uint32_t expert, uint64_t n_before,
                      const struct rows *rows)
{
    for (uint32_t i = 0; i < report->n_rows * report->desc.top_k; i++) {
        const struct explain_row *row = &report->rows[i / report->desc.top_k];
        size_t at;
        if (find_row(row, n_before, rows, &at) &&
            row->ids[i % report->desc.top_k] == (int32_t) expert)
            return true;
    }
    return false;
}

// Runs the batch with one expert alone, and takes what it gives for the rows that selected it.
static enum vkmoe_status add_parts(struct explain_report *report, uint32_t expert,
                                   const struct explain_run *run, float *y)
{
    enum vkmoe_status status = VKMOE_OK;
    const size_t n_outputs = report->info.n_outputs, top_k = report->desc.top_k;
    vkmoe_session_io io = rows_io(run->rows);
    vkmoe_session_desc desc = *run->desc;
    desc.layer = report->layer;
    desc.experts = VKMOE_EXPERTS_ALONE;
    desc.expert = expert;
    if (!report->alone[expert])
        CLI_TRY(vkmoe_session_create(run->context, report->model, &desc, &report->alone[expert]));
    io.y = y;
    CLI_TRY(vkmoe_session_run(report->alone[expert], run->rows->n, &io));
    for (uint32_t i = 0; i < report->n_rows; i++) {
        struct explain_row *row = &report->rows[i];
        size_t at;
        if (!find_row(row, run->n_before, run->rows, &at))
            continue;
        for (size_t k = 0; k < top_k; k++) {
            for (size_t o = 0; o < n_outputs && row->ids[k] == (int32_t) expert; o++)
                row->parts[k * n_outputs + o] = row->gates[k] * y[at * n_outputs + o];
        }
    }

fail:
    return status;
}

enum vkmoe_status explain_rows_add(struct explain_report *report, const struct explain_run *run,
                                   float *y, const float *scores)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t i = 0; i < report->n_rows; i++) {
        size_t at;
        if (find_row(&report->rows[i], run->n_before, run->rows, &at))
            keep_row(report, &report->rows[i], run->rows, y, scores, at);
    }
    for (uint32_t e = 0; e < report->desc.n_experts && report->has_parts; e++) {
        if (is_needed(report, e, run->n_before, run->rows))
            CLI_TRY(add_parts(report, e, run, y));
    }

fail:
    return status;
}

enum vkmoe_status explain_rows_check(const struct explain_report *report, uint64_t n_rows)
{
    for (uint32_t i = 0; i < report->n_rows; i++) {
        if (!report->rows[i].found) {
            char text[128];
            snprintf(text, sizeof text, "--row %llu: the data set has %llu rows",
                     (unsigned long long) report->rows[i].row, (unsigned long long) n_rows);
            vkmoe_error_set(text);
            return VKMOE_E_DATA;
        }
    }
    return VKMOE_OK;
}
