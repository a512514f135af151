// SPDX-License-Identifier: MIT
// Rows and devices of several files as one list, and what is asked of it.
#include "report.h"

#include <math.h>
#include <stdlib.h>

static bool is_same_device(const struct report_device *a, const struct report_device *b)
{
    const vkmoe_device_info *x = &a->device->info, *y = &b->device->info;
    return strcmp(x->name, y->name) == 0 && strcmp(x->driver, y->driver) == 0 &&
           strcmp(x->driver_version, y->driver_version) == 0;
}

// The name; the driver where another device has that name; the file where the driver is the same,
// and its number where the file's name is.
static void make_label(const struct report *report, uint32_t i)
{
    struct report_device *d = &report->devices[i];
    const vkmoe_device_info *info = &d->device->info;
    bool name = false, all = false, file = false;
    for (uint32_t k = 0; k < report->n_devices; k++) {
        const struct report_device *other = &report->devices[k];
        if (k == i || strcmp(other->device->info.name, info->name) != 0)
            continue;
        name = true;
        all |= is_same_device(d, other);
        file |= is_same_device(d, other) && strcmp(d->file->name, other->file->name) == 0;
    }
    const char *title = info->name[0] ? info->name : "unnamed device";
    if (file)
        snprintf(d->label, sizeof d->label, "%s (file %u: %s)", title,
                 (unsigned) (d->file - report->files + 1), d->file->name);
    else if (all)
        snprintf(d->label, sizeof d->label, "%s (%s)", title,
                 d->file->name[0] ? d->file->name : "this run");
    else if (name)
        snprintf(d->label, sizeof d->label, "%s (%s %s)", title, info->driver,
                 info->driver_version);
    else
        snprintf(d->label, sizeof d->label, "%s", title);
}

static void add_type(struct report *report, const char *type)
{
    for (uint32_t i = 0; i < report->n_types; i++) {
        if (strcmp(report->types[i], type) == 0)
            return;
    }
    report->types[report->n_types++] = type;
}

static bool is_same(const struct bench_key *a, const struct bench_key *b, bool any_tokens)
{
    struct bench_key x = *a, y = *b;
    x.n_threads = y.n_threads = 0;
    if (any_tokens)
        x.n_tokens = y.n_tokens = 0;
    return bench_key_difference(&x, &y) == NULL;
}

static uint32_t first_same(const struct report *report, uint32_t i, bool any_tokens)
{
    for (uint32_t k = 0; k < i; k++) {
        const struct report_row *row = &report->rows[k];
        // Only rows that are the first themselves need a look.
        if ((any_tokens ? row->panel_id : row->case_id) == k &&
            is_same(&row->row->key, &report->rows[i].row->key, any_tokens))
            return k;
    }
    return i;
}

static void add_row(struct report *report, const struct bench_row *row, uint32_t first_device)
{
    struct report_row *r = &report->rows[report->n_rows++];
    struct report_device *device = &report->devices[first_device + row->device];
    r->row = row;
    r->device = first_device + row->device;
    r->on = device;
    r->time_us = bench_row_times(row)->median_us;
    bench_key_text(&row->key, r->what, sizeof r->what);
    r->case_id = first_same(report, report->n_rows - 1, false);
    r->panel_id = first_same(report, report->n_rows - 1, true);
    device->n_rows++;
    device->n_status[row->status]++;
    add_type(report, row->key.type);
}

static void add_file(struct report *report, const struct bench_file *file)
{
    const uint32_t first = report->n_devices;
    for (uint32_t i = 0; i < file->n_devices; i++) {
        struct report_device *device = &report->devices[report->n_devices];
        device->file = file;
        device->device = &file->devices[i];
        device->index = report->n_devices++;
    }
    for (uint32_t i = 0; i < file->n_rows; i++)
        add_row(report, &file->rows[i], first);
}

enum vkmoe_status report_open(const struct bench_file *files, uint32_t n_files, struct report *out)
{
    enum vkmoe_status status;
    size_t n_rows = 0, n_devices = 0;
    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < n_files; i++) {
        n_rows += files[i].n_rows;
        n_devices += files[i].n_devices;
    }
    if (n_rows == 0 || n_rows > UINT32_MAX) {
        vkmoe_error_set(n_rows ? "there are too many rows" : "there are no rows to report");
        return VKMOE_E_DATA;
    }
    CLI_TRY(cli_alloc(n_devices, 1, sizeof *out->devices, &out->devices));
    CLI_TRY(cli_alloc(n_rows, 1, sizeof *out->rows, &out->rows));
    CLI_TRY(cli_alloc(n_rows, 1, sizeof *out->types, &out->types));
    CLI_TRY(cli_alloc(n_rows, 1, sizeof *out->order, &out->order));
    out->files = files;
    out->n_files = n_files;
    for (uint32_t i = 0; i < n_files; i++)
        add_file(out, &files[i]);
    for (uint32_t i = 0; i < out->n_devices; i++)
        make_label(out, i);
    return VKMOE_OK;

fail:
    report_close(out);
    return status;
}

void report_close(struct report *report)
{
    free(report->devices);
    free(report->rows);
    free(report->types);
    free(report->order);
    memset(report, 0, sizeof *report);
}

// ---- questions ---------------------------------------------------------------------------------

bool report_is_timed(const struct report_row *row)
{
    return bench_row_is_timed(row->row) && isfinite(row->time_us) && row->time_us > 0;
}

bool report_is_unsteady(const struct report_row *row)
{
    return report_is_timed(row) && !row->row->plateau;
}

uint32_t report_type(const struct report *report, const struct report_row *row)
{
    uint32_t i = 0;
    while (strcmp(report->types[i], row->row->key.type) != 0)
        i++;
    return i;
}

static bool is_forward_on(const struct report_row *row, uint32_t device)
{
    return row->device == device && report_is_timed(row) &&
           strcmp(row->row->key.mode, "forward") == 0;
}

static bool is_better(const struct report_row *a, const struct report_row *b)
{
    if (a->row->status != b->row->status)
        return a->row->status == BENCH_OK;
    if (a->row->plateau != b->row->plateau)
        return a->row->plateau;
    return isfinite(a->row->tokens_per_s) && !(b->row->tokens_per_s >= a->row->tokens_per_s);
}

const struct report_row *report_best(const struct report *report, uint32_t device,
                                     uint32_t n_tokens)
{
    const struct report_row *best = NULL;
    for (uint32_t i = 0; i < report->n_rows; i++) {
        const struct report_row *row = &report->rows[i];
        if (is_forward_on(row, device) && row->row->key.n_tokens == n_tokens &&
            (!best || is_better(row, best)))
            best = row;
    }
    return best;
}

uint32_t report_tokens(const struct report *report, uint32_t device, uint32_t want)
{
    uint32_t nearest = 0;
    for (uint32_t i = 0; i < report->n_rows; i++) {
        const struct report_row *row = &report->rows[i];
        const double n = row->row->key.n_tokens;
        if (is_forward_on(row, device) &&
            (nearest == 0 || fabs(log(n / want)) < fabs(log((double) nearest / want))))
            nearest = row->row->key.n_tokens;
    }
    return nearest;
}

static int compare_reals(const void *a, const void *b)
{
    const double x = *(const double *) a, y = *(const double *) b;
    return (x > y) - (x < y);
}

double report_median_fraction(const struct report *report, uint32_t device)
{
    double *fractions, median = (double) NAN;
    uint32_t n = 0;
    if (cli_alloc(report->n_rows, 1, sizeof *fractions, &fractions) != VKMOE_OK)
        return median;
    for (uint32_t i = 0; i < report->n_rows; i++) {
        const struct report_row *row = &report->rows[i];
        if (row->device == device && report_is_timed(row) && row->row->floor_fraction > 0)
            fractions[n++] = row->row->floor_fraction;
    }
    qsort(fractions, n, sizeof *fractions, compare_reals);
    if (n > 0)
        median = (fractions[(n - 1) / 2] + fractions[n / 2]) / 2;
    free(fractions);
    return median;
}

const struct report_row *report_find(const struct report *report, uint32_t device,
                                     uint32_t case_id)
{
    for (uint32_t i = case_id; i < report->n_rows; i++) {
        const struct report_row *row = &report->rows[i];
        if (row->device == device && row->case_id == case_id && report_is_timed(row))
            return row;
    }
    return NULL;
}
