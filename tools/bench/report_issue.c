// SPDX-License-Identifier: MIT
// `vkmoe report --issue`: a block of markdown to post where people compare. What comes from files
// stands in code spans, where it is no link, no mention and no markup.
#include "report.h"

#include <math.h>

enum { MOST_DEVICES = 8, MOST_ROWS = 30 };

static void put_code(const char *text)
{
    putchar('`');
    if (!*text)
        putchar(' ');
    for (const char *c = text; *c; c++) {
        if (*c == '|')
            fputs("\\|", stdout);
        else
            putchar(*c == '`' ? '\'' : (unsigned char) *c < ' ' ? ' ' : *c);
    }
    putchar('`');
}

static void put_file(const struct bench_file *file)
{
    fputs("vkmoe ", stdout);
    put_code(file->version);
    fputs(", suite ", stdout);
    put_code(file->suite[0] ? file->suite : "none");
    fputs(", ", stdout);
    put_code(file->time_utc);
    fputs(", ", stdout);
    put_code(file->os);
    fputs(", ", stdout);
    put_code(file->build);
    printf("%s\n", file->complete ? "" : " (not complete)");
}

static void put_device(const struct report *report, uint32_t i)
{
    char text[REPORT_TEXT];
    const struct report_device *d = &report->devices[i];
    const vkmoe_device_info *info = &d->device->info;
    double peak = 0;
    for (int a = 0; a < VKMOE_N_ARITHMETICS; a++)
        peak = fmax(peak, d->device->peak[a]);
    fputs("| ", stdout);
    put_code(d->label);
    fputs(" | ", stdout);
    char driver[160];
    snprintf(driver, sizeof driver, "%s %s", info->driver, info->driver_version);
    put_code(driver);
    printf(" | %s", report_si(d->device->read_rate, "B/s", text));
    printf(" | %s", report_si(peak, "op/s", text));
    printf(" | %s", report_percent(report_median_fraction(report, i), text));
    printf(" | %u of %u |\n", (unsigned) d->n_status[BENCH_OK], (unsigned) d->n_rows);
}

static void put_row(const struct report_row *row)
{
    char text[REPORT_TEXT];
    fputs("| ", stdout);
    put_code(row->on->label);
    fputs(" | ", stdout);
    put_code(row->what);
    printf(" | %s", report_count(row->row->tokens_per_s, text));
    printf(" | %s", report_time(row->time_us, text));
    printf(" | %s", report_percent(row->row->floor_fraction, text));
    printf(" | %s | %s |\n", bench_bound_name(row->row->bound),
           bench_status_name(row->row->status));
}

// The headline rows: of each device, model and type the ones at one token and at 512, or nearest.
static bool is_headline(const struct report *report, const struct report_row *row)
{
    const uint32_t n = row->row->key.n_tokens;
    return report_is_timed(row) && (n == report_tokens(report, row->device, 1) ||
                                    n == report_tokens(report, row->device, 512));
}

static void put_rows(const struct report *report)
{
    uint32_t n = 0;
    fputs("| device | case | tokens/s | time | of floor | bound | status |\n"
          "|---|---|---:|---:|---:|---|---|\n", stdout);
    for (uint32_t i = 0; i < report->n_rows; i++) {
        if (is_headline(report, &report->rows[i]) && n++ < MOST_ROWS)
            put_row(&report->rows[i]);
    }
    if (n > MOST_ROWS)
        printf("\n%u more such rows are in the file.\n", (unsigned) (n - MOST_ROWS));
}

enum vkmoe_status bench_report_issue(const struct bench_file *files, uint32_t n_files)
{
    struct report report;
    enum vkmoe_status status = report_open(files, n_files, &report);
    if (status != VKMOE_OK)
        return status;
    for (uint32_t i = 0; i < n_files && i < MOST_DEVICES; i++)
        put_file(&files[i]);
    fputs("\n| device | driver | read | peak | typical, of floor | verified |\n"
          "|---|---|---:|---:|---:|---:|\n", stdout);
    for (uint32_t i = 0; i < report.n_devices && i < MOST_DEVICES; i++)
        put_device(&report, i);
    fputs("\n<details><summary>One token, and 512 at once</summary>\n\n", stdout);
    put_rows(&report);
    fputs("\n</details>\n", stdout);
    report_close(&report);
    return VKMOE_OK;
}
