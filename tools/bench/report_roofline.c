// SPDX-License-Identifier: MIT
// The roofline: operations for each byte that a case needs, against operations per second that were
// reached. Under a roof, the slope is what the memory allows and the top what the arithmetic does.
#include "report.h"

#include <math.h>
#include <stdlib.h>

enum { HEIGHT = 460, MOST_LABELS = 5, MOST_NAME = 28 };

// What is written on a roof, at a height in percent; moved up where it would lie on another.
struct label {
    double y;
    const char *device, *arithmetic;
    double peak;
};

struct labels { // none is written where there would be more than MOST_LABELS
    struct label items[MOST_LABELS];
    int n;
};

static bool is_point(const struct report_row *row)
{
    return report_is_timed(row) && row->row->bytes > 0 && row->row->flops > 0 &&
           row->row->flops_per_s > 0 && isfinite(row->row->flops / row->row->bytes) &&
           isfinite(row->row->flops_per_s);
}

// Is it the arithmetic of a row of the device?
static bool is_used(const struct report *report, uint32_t device, const char *arithmetic)
{
    for (uint32_t i = 0; i < report->n_rows; i++) {
        const struct report_row *row = &report->rows[i];
        if (row->device == device && is_point(row) &&
            strcmp(row->row->arithmetic, arithmetic) == 0)
            return true;
    }
    return false;
}

static bool has_roof(const struct report *report, uint32_t device, int arithmetic)
{
    const struct bench_device *d = report->devices[device].device;
    return d->read_rate > 0 && d->peak[arithmetic] > 0 &&
           is_used(report, device, vkmoe_arithmetic_name((enum vkmoe_arithmetic) arithmetic));
}

static void fit(struct chart *chart, const struct report *report)
{
    uint32_t n_roofs = 0;
    for (uint32_t i = 0; i < report->n_rows; i++) {
        const struct bench_row *row = report->rows[i].row;
        if (!is_point(&report->rows[i]))
            continue;
        chart_add(&chart->x, row->flops / row->bytes);
        chart_add(&chart->y, row->flops_per_s);
    }
    for (uint32_t d = 0; d < report->n_devices; d++) {
        for (int a = 0; a < VKMOE_N_ARITHMETICS; a++) {
            const struct bench_device *device = report->devices[d].device;
            if (!has_roof(report, d, a))
                continue;
            chart_add(&chart->x, device->peak[a] / device->read_rate);
            chart_add(&chart->y, device->peak[a]);
            n_roofs++;
        }
    }
    chart_widen(&chart->x);
    chart_widen(&chart->y);
    // Room for what is written on the roofs.
    if (n_roofs <= MOST_LABELS)
        chart->y.high *= pow(chart->y.high / chart->y.low, 0.03 * n_roofs);
}

static void put_roof(const struct chart *chart, const struct report *report, uint32_t device,
                     int arithmetic, bool highest, struct labels *labels)
{
    char style[64], rate[REPORT_TEXT];
    const struct bench_device *d = report->devices[device].device;
    const double peak = d->peak[arithmetic], ridge = peak / d->read_rate;
    const double left = fmax(chart->x.low, chart->y.low / d->read_rate);
    const double foot[] = {left, left * d->read_rate}, top[] = {ridge, peak};
    const double end[] = {chart->x.high, peak};
    snprintf(style, sizeof style, "roof d%u%s%s", (unsigned) (device % REPORT_N_COLOURS),
             highest ? "" : " lower", device >= REPORT_N_COLOURS ? " dashed" : "");
    const struct label label = {chart_y(chart, peak), report->devices[device].label,
                                vkmoe_arithmetic_name((enum vkmoe_arithmetic) arithmetic), peak};
    fputs("<g><title>", chart->page);
    html_text(chart->page, label.device);
    fprintf(chart->page, "\nreads %s", report_si(d->read_rate, "B/s", rate));
    fprintf(chart->page, ", %s %s</title>\n", label.arithmetic, report_si(peak, "op/s", rate));
    if (highest && left < ridge)
        chart_line(chart, style, foot, top);
    chart_line(chart, style, top, end);
    fputs("</g>\n", chart->page);
    if (labels->n++ < MOST_LABELS)
        labels->items[labels->n - 1] = label;
}

static void put_roofs(const struct chart *chart, const struct report *report, uint32_t device,
                      struct labels *labels)
{
    const double *peak = report->devices[device].device->peak;
    int highest = -1;
    for (int a = 0; a < VKMOE_N_ARITHMETICS; a++) {
        if (has_roof(report, device, a) && (highest < 0 || peak[a] > peak[highest]))
            highest = a;
    }
    for (int a = 0; a < VKMOE_N_ARITHMETICS; a++) {
        if (has_roof(report, device, a))
            put_roof(chart, report, device, a, a == highest, labels);
    }
}

static int compare_labels(const void *a, const void *b)
{
    const double x = ((const struct label *) a)->y, y = ((const struct label *) b)->y;
    return (x < y) - (x > y);
}

static void put_labels(FILE *page, struct labels *labels)
{
    const double line = 100.0 * 15 / HEIGHT;
    char rate[REPORT_TEXT];
    double next = 100;
    if (labels->n > MOST_LABELS)
        return;
    qsort(labels->items, (size_t) labels->n, sizeof *labels->items, compare_labels);
    for (int i = 0; i < labels->n; i++) {
        const struct label *label = &labels->items[i];
        const double y = fmin(label->y - 0.4 * line, next);
        next = y - line;
        fprintf(page, "<text class=\"tag\" x=\"100%%\" dx=\"-6\" y=\"%.2f%%\" "
                      "text-anchor=\"end\">", y);
        html_short(page, label->device, MOST_NAME);
        fprintf(page, ", %s %s</text>\n", label->arithmetic, report_si(label->peak, "op/s", rate));
    }
}

static void put_point(const struct chart *chart, const struct report *report,
                      const struct report_row *row)
{
    FILE *page = chart->page;
    char text[REPORT_TEXT];
    const struct bench_row *r = row->row;
    fprintf(page, "<g class=\"mark d%u%s\"><title>", (unsigned) (row->device % REPORT_N_COLOURS),
            r->status == BENCH_OK ? "" : " hollow");
    html_text(page, row->on->label);
    fputs("\n", page);
    html_text(page, row->what);
    fprintf(page, "\n%s", report_si(r->flops_per_s, "op/s", text));
    fprintf(page, " at %s operations a byte", report_si(r->flops / r->bytes, "", text));
    fprintf(page, "\n%s", report_time(row->time_us, text));
    fprintf(page, ", %s of floor, bound by %s", report_percent(r->floor_fraction, text),
            bench_bound_name(r->bound));
    fprintf(page, "%s</title>", report_is_unsteady(row) ? "\nnot steady" : "");
    chart_mark(chart, report_type(report, row), r->flops / r->bytes, r->flops_per_s);
    fputs("</g>\n", page);
}

void report_roofline(FILE *page, const struct report *report)
{
    struct chart chart = {.page = page};
    struct labels labels = {.n = 0};
    report_section(page, "roofline", "How close to what the device can do");
    fit(&chart, report);
    fputs("<p class=\"about\">Each mark is a case. Its place from left to right is the work that a "
          "byte is good for, its height the operations per second that were reached. The lines are "
          "the limits that were measured on the same device in the same run: a mark lies below the "
          "line of its device, the nearer the better. Under the slope the memory sets the pace, "
          "under the flat top the arithmetic.</p>\n", page);
    report_legend(page, report, true);
    fputs("<p class=\"axis\">Operations per second</p>\n", page);
    chart_begin(&chart, HEIGHT, "Roofline: operations per byte against operations per second");
    for (uint32_t i = 0; i < report->n_devices; i++)
        put_roofs(&chart, report, i, &labels);
    for (uint32_t i = 0; i < report->n_rows; i++) {
        if (is_point(&report->rows[i]))
            put_point(&chart, report, &report->rows[i]);
    }
    put_labels(page, &labels);
    chart_end(&chart);
    fputs("<p class=\"axis x\">Operations per byte that must be moved</p>\n</section>\n", page);
}
