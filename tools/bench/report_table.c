// SPDX-License-Identifier: MIT
// All rows. Each cell of a number carries it in full as data-v, by which the script sorts.
#include "report.h"

#include <math.h>

struct column {
    const char *title, *hint;
    void (*put)(FILE *page, const struct report_row *row);
    bool is_number;
};

static void put_text(FILE *page, const char *text)
{
    fputs("<td>", page);
    html_text(page, *text ? text : "\u2013");
    fputs("</td>", page);
}

static void put_number(FILE *page, double value, const char *text)
{
    if (isfinite(value))
        fprintf(page, "<td class=\"num\" data-v=\"%.9g\">%s</td>", value, text);
    else
        fputs("<td class=\"num\">\u2013</td>", page);
}

// Rates of rows that were not timed are not known, whatever the file says.
static double timed(const struct report_row *row, double value)
{
    return report_is_timed(row) ? value : (double) NAN;
}

static void put_device(FILE *page, const struct report_row *row)
{
    fputs("<td>", page);
    report_device_name(page, row->on);
    fputs("</td>", page);
}

static void put_model(FILE *page, const struct report_row *row)
{
    fputs("<th scope=\"row\">", page);
    report_model_name(page, &row->row->key);
    fputs("</th>", page);
}

static void put_type(FILE *page, const struct report_row *row)
{
    put_text(page, row->row->key.type);
}

static void put_precision(FILE *page, const struct report_row *row)
{
    put_text(page, row->row->key.precision);
}

static void put_mode(FILE *page, const struct report_row *row)
{
    put_text(page, row->row->key.mode);
}

static void put_routing(FILE *page, const struct report_row *row)
{
    put_text(page, row->row->key.routing);
}

static void put_tokens(FILE *page, const struct report_row *row)
{
    char text[REPORT_TEXT];
    snprintf(text, sizeof text, "%u", (unsigned) row->row->key.n_tokens);
    put_number(page, row->row->key.n_tokens, text);
}

static void put_x_type(FILE *page, const struct report_row *row)
{
    put_text(page, row->row->key.x_type);
}

static void put_threads(FILE *page, const struct report_row *row)
{
    char text[REPORT_TEXT];
    const double n = row->row->key.n_threads ? row->row->key.n_threads : (double) NAN;
    put_number(page, n, report_count(n, text));
}

static void put_kernel(FILE *page, const struct report_row *row)
{
    put_text(page, row->row->kernel);
}

static void put_status(FILE *page, const struct report_row *row)
{
    const char *name = bench_status_name(row->row->status);
    const bool unsteady = report_is_unsteady(row);
    fprintf(page, "<td class=\"status\"><span class=\"key\"><i class=\"s-%s\"></i>%s</span>", name,
            name);
    if (row->row->reason[0] || unsteady) {
        fputs("<p>", page);
        html_text(page, row->row->reason);
        fputs(row->row->reason[0] && unsteady ? "; " : "", page);
        fputs(unsteady ? "no two measurements agreed</p>" : "</p>", page);
    }
    fputs("</td>", page);
}

static void put_error(FILE *page, const struct report_row *row)
{
    char text[REPORT_TEXT];
    const double error = strcmp(row->row->verify.state, "none") == 0 ? (double) NAN
                                                                     : row->row->verify.error;
    snprintf(text, sizeof text, "%.1e", error);
    put_number(page, error, text);
}

static void put_time(FILE *page, const struct report_row *row)
{
    char text[REPORT_TEXT];
    put_number(page, timed(row, row->time_us), report_time(row->time_us, text));
}

// Half of the distance between the 5th and the 95th percentile, as a part of the median.
static void put_spread(FILE *page, const struct report_row *row)
{
    char text[REPORT_TEXT];
    const struct bench_times *t = bench_row_times(row->row);
    const double spread = timed(row, (t->p95_us - t->p5_us) / 2 / t->median_us);
    put_number(page, spread, report_percent(spread, text));
}

static void put_wall(FILE *page, const struct report_row *row)
{
    char text[REPORT_TEXT];
    const double us = row->row->wall_times.n ? timed(row, row->row->wall_times.median_us)
                                             : (double) NAN;
    put_number(page, us, report_time(us, text));
}

static void put_rate(FILE *page, const struct report_row *row)
{
    char text[REPORT_TEXT];
    const double rate = timed(row, row->row->tokens_per_s);
    put_number(page, rate, report_count(rate, text));
}

static void put_bytes(FILE *page, const struct report_row *row)
{
    char text[REPORT_TEXT];
    const double rate = timed(row, row->row->bytes_per_s);
    put_number(page, rate, report_si(rate, "B/s", text));
}

static void put_flops(FILE *page, const struct report_row *row)
{
    char text[REPORT_TEXT];
    const double rate = timed(row, row->row->flops_per_s);
    put_number(page, rate, report_si(rate, "op/s", text));
}

static void put_bound(FILE *page, const struct report_row *row)
{
    put_text(page, report_is_timed(row) && row->row->bound != BENCH_BOUND_NONE
                       ? bench_bound_name(row->row->bound) : "");
}

static void put_floor(FILE *page, const struct report_row *row)
{
    char text[REPORT_TEXT];
    const double fraction = timed(row, row->row->floor_fraction);
    put_number(page, fraction, report_percent(fraction, text));
}

static void put_clock(FILE *page, const struct report_row *row)
{
    char text[REPORT_TEXT];
    const double mhz = row->row->clock_mhz > 0 ? row->row->clock_mhz : (double) NAN;
    put_number(page, mhz, report_count(mhz, text));
}

static void put_power(FILE *page, const struct report_row *row)
{
    char text[REPORT_TEXT];
    const double watts = row->row->power_w > 0 ? row->row->power_w : (double) NAN;
    put_number(page, watts, report_count(watts, text));
}

static const struct column columns[] = {
    {"Model", "or experts, top k, width and expert width", put_model, false},
    {"Type", "of the weights", put_type, false},
    {"Tokens", "rows of one call", put_tokens, true},
    {"Device", NULL, put_device, false},
    {"Status", NULL, put_status, false},
    {"Tokens/s", NULL, put_rate, true},
    {"Time", "median", put_time, true},
    {"\u00b1", "half of the distance from the 5th to the 95th percentile", put_spread, true},
    {"Of floor", "floor divided by time", put_floor, true},
    {"Bound", "what the floor is made of most", put_bound, false},
    {"Read", "bytes that must be moved, by time", put_bytes, true},
    {"Computed", "operations that must be done, by time", put_flops, true},
    {"Wall", "median of whole calls on host memory", put_wall, true},
    {"Error", "relative L2, of the outputs that were timed", put_error, true},
    {"Kernel", NULL, put_kernel, false},
    {"Routing", NULL, put_routing, false},
    {"Mode", NULL, put_mode, false},
    {"Precision", "what experts may round operands to", put_precision, false},
    {"x", "type of x and y", put_x_type, false},
    {"Threads", NULL, put_threads, true},
    {"MHz", "median clock while it ran", put_clock, true},
    {"W", "mean power while it ran", put_power, true},
};
enum { N_COLUMNS = sizeof columns / sizeof *columns };

static void put_head(FILE *page)
{
    fputs("<div class=\"scroll tall\" tabindex=\"0\" role=\"region\" aria-label=\"All rows\">"
          "<table id=\"rows\"><thead><tr>", page);
    for (int i = 0; i < N_COLUMNS; i++) {
        fprintf(page, "<th scope=\"col\"%s", columns[i].is_number ? " class=\"num\"" : "");
        if (columns[i].hint)
            fprintf(page, " title=\"%s\"", columns[i].hint);
        fprintf(page, ">%s</th>", columns[i].title);
    }
    fputs("</tr></thead>\n<tbody>\n", page);
}

// The script shows it; without one there is nothing to filter with.
static void put_filter(FILE *page, const struct report *report)
{
    fputs("<form class=\"filter\" hidden=\"hidden\"><label>Filter <input type=\"search\" "
          "placeholder=\"model, type, kernel \u2026\"/></label>\n<label>Device <select "
          "name=\"device\"><option value=\"\">all</option>", page);
    for (uint32_t i = 0; i < report->n_devices; i++) {
        fprintf(page, "<option value=\"%u\">", (unsigned) i);
        html_text(page, report->devices[i].label);
        fputs("</option>", page);
    }
    fputs("</select></label>\n<label>Status <select name=\"status\"><option value=\"\">all"
          "</option>", page);
    for (int s = 0; s <= BENCH_ERROR; s++)
        fprintf(page, "<option>%s</option>", bench_status_name((enum bench_status) s));
    fputs("</select></label>\n<output aria-live=\"polite\"></output></form>\n", page);
}

void report_table(FILE *page, const struct report *report)
{
    report_section(page, "all", "All rows");
    fputs("<p class=\"about\">Every measurement, also those that were not possible, with the "
          "reason.<span class=\"with-script\" hidden=\"hidden\"> A click on a title sorts."
          "</span></p>\n", page);
    put_filter(page, report);
    put_head(page);
    for (uint32_t i = 0; i < report->n_rows; i++) {
        const struct report_row *row = &report->rows[i];
        fprintf(page, "<tr data-device=\"%u\" data-status=\"%s\">", (unsigned) row->device,
                bench_status_name(row->row->status));
        for (int c = 0; c < N_COLUMNS; c++)
            columns[c].put(page, row);
        fputs("</tr>\n", page);
    }
    fputs("</tbody></table></div>\n</section>\n", page);
}
