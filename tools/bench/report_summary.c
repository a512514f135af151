// SPDX-License-Identifier: MIT
// What a person reads in ten seconds: a sentence of all, a card of each device.
#include "report.h"

#include <math.h>
#include <stdlib.h>

enum { DECODE = 1, PREFILL = 512 };

// ---- one against another -----------------------------------------------------------------------

// Geometric mean over the cases that both have timed of how much faster `device` is than the first.
struct versus {
    double log_sum, low, high;
    uint32_t n;
};

static struct versus compare(const struct report *report, uint32_t device, uint32_t base)
{
    struct versus v = {0};
    for (uint32_t i = 0; i < report->n_rows; i++) {
        const struct report_row *row = &report->rows[i];
        if (row->device != base || !report_is_timed(row))
            continue;
        const struct report_row *other = report_find(report, device, row->case_id);
        if (!other)
            continue;
        const double ratio = row->time_us / other->time_us;
        v.low = v.n ? fmin(v.low, ratio) : ratio;
        v.high = v.n ? fmax(v.high, ratio) : ratio;
        v.log_sum += log(ratio);
        v.n++;
    }
    return v;
}

static void put_versus(FILE *page, const struct report *report, uint32_t device)
{
    char text[REPORT_TEXT];
    const struct versus v = compare(report, device, 0);
    if (v.n == 0)
        return;
    const double mean = exp(v.log_sum / v.n);
    const bool faster = mean >= 1;
    fputs("<p class=\"versus\"><b>", page);
    html_text(page, report->devices[faster ? device : 0].label);
    fprintf(page, " is %s as fast</b>", report_ratio(faster ? mean : 1 / mean, text));
    fputs(" as ", page);
    html_text(page, report->devices[faster ? 0 : device].label);
    fprintf(page, " over the %u case%s that both ran", (unsigned) v.n, v.n == 1 ? "" : "s");
    if (v.n > 1) {
        fprintf(page, " (geometric mean; %s", report_ratio(faster ? v.low : 1 / v.high, text));
        fprintf(page, " to %s)", report_ratio(faster ? v.high : 1 / v.low, text));
    }
    fputs(".</p>\n", page);
}

// ---- a device ----------------------------------------------------------------------------------

static void put_short(FILE *page, const struct report_row *row)
{
    const struct bench_key *key = &row->row->key;
    report_model_name(page, key);
    fputs(", ", page);
    html_text(page, key->type);
    if (strcmp(key->routing, "uniform") != 0) {
        fputs(", ", page);
        html_text(page, key->routing);
    }
}

static void put_headline(FILE *page, const struct report *report, uint32_t device, uint32_t want)
{
    char text[REPORT_TEXT];
    const uint32_t n_tokens = report_tokens(report, device, want);
    const struct report_row *best = n_tokens ? report_best(report, device, n_tokens) : NULL;
    if (!best) {
        fputs("<div><dt>Tokens/s</dt><dd class=\"big\">\u2013</dd><dd class=\"note\">no forward "
              "pass was timed</dd></div>\n", page);
        return;
    }
    fprintf(page, "<div><dt>Tokens/s, %s</dt><dd class=\"big\">%s</dd><dd class=\"note\">",
            n_tokens == 1 ? "decode" : "batch",
            report_count(best->row->tokens_per_s, text));
    if (n_tokens > 1)
        fprintf(page, "%u at once, ", (unsigned) n_tokens);
    put_short(page, best);
    fprintf(page, "; <b>%s of floor</b>", report_percent(best->row->floor_fraction, text));
    fprintf(page, "%s%s</dd></div>\n", best->row->status == BENCH_OK ? "" : "; not verified",
            report_is_unsteady(best) ? "; not steady" : "");
}

static void put_typical(FILE *page, const struct report *report, uint32_t device)
{
    char text[REPORT_TEXT];
    const struct bench_device *d = report->devices[device].device;
    fprintf(page,
            "<div><dt>Of floor, typical</dt><dd class=\"big\">%s</dd>"
            "<dd class=\"note\">median of its timed rows; ",
            report_percent(report_median_fraction(report, device), text));
    fprintf(page, "reads %s", report_si(d->read_rate, "B/s", text));
    double peak = 0;
    int of = 0;
    for (int i = 0; i < VKMOE_N_ARITHMETICS; i++) {
        if (d->peak[i] > peak) {
            peak = d->peak[i];
            of = i;
        }
    }
    if (peak > 0)
        fprintf(page, ", %s %s", report_si(peak, "op/s", text),
                vkmoe_arithmetic_name((enum vkmoe_arithmetic) of));
    fputs("</dd></div>\n", page);
}

// What became of the rows, as a bar and in words.
static void put_status(FILE *page, const struct report_device *device)
{
    static const char *const words[] = {"verified", "not verified", "unsupported", "skipped",
                                        "failed"};
    fputs("<div class=\"states\" aria-hidden=\"true\">", page);
    for (int s = 0; s <= BENCH_ERROR; s++) {
        if (device->n_status[s])
            fprintf(page, "<i class=\"s-%s\" style=\"flex-grow:%u\"></i>",
                    bench_status_name((enum bench_status) s), (unsigned) device->n_status[s]);
    }
    fprintf(page, "</div>\n<p class=\"note\">%u row%s: ", (unsigned) device->n_rows,
            device->n_rows == 1 ? "" : "s");
    bool first = true;
    for (int s = 0; s <= BENCH_ERROR; s++) {
        if (!device->n_status[s])
            continue;
        fprintf(page, "%s<span class=\"key\"><i class=\"s-%s\"></i>%u %s</span>", first ? "" : ", ",
                bench_status_name((enum bench_status) s), (unsigned) device->n_status[s],
                words[s]);
        first = false;
    }
    fputs(first ? "none</p>\n" : "</p>\n", page);
}

static void put_device(FILE *page, const struct report *report, uint32_t i)
{
    const struct report_device *d = &report->devices[i];
    const vkmoe_device_info *info = &d->device->info;
    fprintf(page, "<article class=\"card d%u\"><h3>", (unsigned) (i % REPORT_N_COLOURS));
    report_device_name(page, d);
    fputs("</h3>\n<p class=\"note\">", page);
    html_text(page, cli_device_type(info->type));
    if (info->tier[0]) {
        fputs(", ", page);
        html_text(page, info->tier);
    }
    if (d->device->n_threads)
        fprintf(page, ", %u thread%s", (unsigned) d->device->n_threads,
                d->device->n_threads == 1 ? "" : "s");
    if (info->driver[0]) {
        fputs(" \u00b7 ", page);
        html_text(page, info->driver);
        fputs(" ", page);
        html_text(page, info->driver_version);
    }
    fputs("</p>\n<dl class=\"tiles\">\n", page);
    put_headline(page, report, i, DECODE);
    if (report_tokens(report, i, PREFILL) != report_tokens(report, i, DECODE))
        put_headline(page, report, i, PREFILL);
    put_typical(page, report, i);
    fputs("</dl>\n", page);
    put_status(page, d);
    if (i > 0)
        put_versus(page, report, i);
    fputs("</article>\n", page);
}

// ---- all ---------------------------------------------------------------------------------------

static void put_lede(FILE *page, const struct report *report)
{
    uint32_t n[BENCH_ERROR + 1] = {0};
    for (uint32_t i = 0; i < report->n_rows; i++)
        n[report->rows[i].row->status]++;
    fprintf(page, "<p class=\"lede\">Of %u measurement%s, <b>%u %s timed and verified</b>",
            (unsigned) report->n_rows, report->n_rows == 1 ? "" : "s", (unsigned) n[BENCH_OK],
            n[BENCH_OK] == 1 ? "was" : "were");
    if (n[BENCH_UNVERIFIED])
        fprintf(page, ", %u timed but not verified", (unsigned) n[BENCH_UNVERIFIED]);
    if (n[BENCH_UNSUPPORTED])
        fprintf(page, ", %u not supported", (unsigned) n[BENCH_UNSUPPORTED]);
    if (n[BENCH_SKIPPED])
        fprintf(page, ", %u skipped", (unsigned) n[BENCH_SKIPPED]);
    if (n[BENCH_ERROR])
        fprintf(page, ", <b>%u failed</b>", (unsigned) n[BENCH_ERROR]);
    fputs(". Rates are of one layer; a model has many. The <i>floor</i> is the least time that a "
          "device\u2019s own limits, measured in the same run, allow; 100\u202f% of floor is as "
          "fast as it can be.</p>\n", page);
}

static void put_unsteady(FILE *page, const struct report *report)
{
    uint32_t n = 0, n_timed = 0;
    for (uint32_t i = 0; i < report->n_rows; i++) {
        n += report_is_unsteady(&report->rows[i]);
        n_timed += report_is_timed(&report->rows[i]);
    }
    if (n)
        fprintf(page,
                "<p class=\"warn\">%u of %u timed rows %s not steady: no two measurements from "
                "cold agreed within 5\u202f%%. The machine was busy, or its clocks changed.</p>\n",
                (unsigned) n, (unsigned) n_timed, n == 1 ? "is" : "are");
}

// Files that should not be read as one, and rows that should not be trusted.
static void put_warnings(FILE *page, const struct report *report)
{
    const struct bench_file *first = &report->files[0];
    bool suites = false, schemas = false, versions = false, partly = false;
    for (uint32_t i = 0; i < report->n_files; i++) {
        const struct bench_file *file = &report->files[i];
        suites |= strcmp(file->suite, first->suite) != 0;
        schemas |= strcmp(file->schema, first->schema) != 0;
        versions |= strcmp(file->version, first->version) != 0;
        partly |= !file->complete;
    }
    if (suites)
        fputs("<p class=\"warn\">The files are of different suites: only rows with the same case "
              "compare.</p>\n", page);
    if (schemas)
        fputs("<p class=\"warn\">The files have different schemas.</p>\n", page);
    if (versions)
        fputs("<p class=\"warn\">The files are from different versions of vkmoe.</p>\n", page);
    if (partly)
        fputs("<p class=\"warn\">Not every file is complete: a run was interrupted or lost its "
              "device. The rows until then are here.</p>\n", page);
    put_unsteady(page, report);
}

static void put_title(FILE *page, const struct report *report)
{
    if (report->n_devices > 2) {
        fprintf(page, "%u devices", (unsigned) report->n_devices);
        return;
    }
    for (uint32_t i = 0; i < report->n_devices; i++) {
        fputs(i > 0 ? " and " : "", page);
        html_text(page, report->devices[i].label);
    }
}

void report_summary(FILE *page, const struct report *report)
{
    const struct bench_file *file = &report->files[0];
    fputs("<header>\n<p class=\"kicker\">vkmoe benchmark", page);
    if (file->suite[0]) {
        fputs(" \u00b7 suite ", page);
        html_text(page, file->suite);
    }
    fputs(" \u00b7 ", page);
    html_text(page, file->time_utc);
    if (report->n_files > 1)
        fprintf(page, " and %u more file%s", (unsigned) (report->n_files - 1),
                report->n_files == 2 ? "" : "s");
    fputs("</p>\n<h1>Mixture-of-Experts layers on ", page);
    put_title(page, report);
    fputs("</h1>\n", page);
    put_lede(page, report);
    put_warnings(page, report);
    fputs("</header>\n<div class=\"cards\">\n", page);
    for (uint32_t i = 0; i < report->n_devices; i++)
        put_device(page, report, i);
    fputs("</div>\n", page);
}
