// SPDX-License-Identifier: MIT
// Tokens per second and time against the number of tokens: a panel for each model and type, a line
// for each device. All panels have the same axes.
#include "report.h"

#include <math.h>
#include <stdlib.h>

enum { HEIGHT = 132 };

enum quantity { RATE, TIME };

struct series {
    const struct report *report;
    struct chart charts[2]; // [quantity]
};

static bool is_same_line(const struct report_row *a, const struct report_row *b)
{
    return a->device == b->device && a->row->key.n_threads == b->row->key.n_threads;
}

// Gathers the timed rows of the panel of row `first` into report->order: by line, then by tokens.
static uint32_t gather(const struct report *report, uint32_t first)
{
    uint32_t n = 0;
    for (uint32_t i = first; i < report->n_rows; i++) {
        if (report_is_timed(&report->rows[i]) &&
            report->rows[i].panel_id == report->rows[first].panel_id)
            report->order[n++] = i;
    }
    for (uint32_t i = 1; i < n; i++) {
        const uint32_t moved = report->order[i];
        const struct report_row *row = &report->rows[moved];
        uint32_t at = i;
        for (; at > 0; at--) {
            const struct report_row *before = &report->rows[report->order[at - 1]];
            const uint32_t threads = row->row->key.n_threads;
            if (before->device != row->device ? before->device < row->device
                : before->row->key.n_threads != threads
                    ? before->row->key.n_threads < threads
                    : before->row->key.n_tokens <= row->row->key.n_tokens)
                break;
            report->order[at] = report->order[at - 1];
        }
        report->order[at] = moved;
    }
    return n;
}

static double value_of(const struct report_row *row, enum quantity what)
{
    return what == TIME ? row->time_us : row->row->tokens_per_s;
}

static double floor_of(const struct report_row *row, enum quantity what)
{
    const double us = row->row->floor_us;
    return what == TIME ? us : 1e6 * row->row->key.n_tokens / us;
}

static bool has_floor(const struct report_row *row)
{
    return isfinite(row->row->floor_us) && row->row->floor_us > 0;
}

static bool has_value(const struct report_row *row)
{
    return isfinite(row->row->tokens_per_s) && row->row->tokens_per_s > 0 &&
           row->row->key.n_tokens > 0;
}

static void put_lines(const struct chart *chart, const struct report *report, uint32_t n,
                      enum quantity what, bool floors)
{
    char style[64];
    for (uint32_t i = 1; i < n; i++) {
        const struct report_row *a = &report->rows[report->order[i - 1]];
        const struct report_row *b = &report->rows[report->order[i]];
        if (!is_same_line(a, b) || (floors && (!has_floor(a) || !has_floor(b))) ||
            !has_value(a) || !has_value(b))
            continue;
        const double from[] = {a->row->key.n_tokens,
                               floors ? floor_of(a, what) : value_of(a, what)};
        const double to[] = {b->row->key.n_tokens, floors ? floor_of(b, what) : value_of(b, what)};
        snprintf(style, sizeof style, "%s d%u%s", floors ? "floor" : "line",
                 (unsigned) (a->device % REPORT_N_COLOURS),
                 a->device >= REPORT_N_COLOURS && !floors ? " dashed" : "");
        chart_line(chart, style, from, to);
    }
}

static void put_marks(const struct chart *chart, const struct report *report, uint32_t n,
                      enum quantity what)
{
    char text[REPORT_TEXT];
    for (uint32_t i = 0; i < n; i++) {
        const struct report_row *row = &report->rows[report->order[i]];
        if (!has_value(row))
            continue;
        fprintf(chart->page, "<g class=\"mark d%u%s\"><title>",
                (unsigned) (row->device % REPORT_N_COLOURS),
                row->row->status == BENCH_OK ? "" : " hollow");
        html_text(chart->page, row->on->label);
        fprintf(chart->page, "\n%u token%s", (unsigned) row->row->key.n_tokens,
                row->row->key.n_tokens == 1 ? "" : "s");
        if (row->row->key.n_threads)
            fprintf(chart->page, ", %u threads", (unsigned) row->row->key.n_threads);
        fprintf(chart->page, "\n%s", report_time(row->time_us, text));
        fprintf(chart->page, ", %s tokens/s", report_count(row->row->tokens_per_s, text));
        fprintf(chart->page, "\n%s of floor%s</title>",
                report_percent(row->row->floor_fraction, text),
                report_is_unsteady(row) ? "\nnot steady" : "");
        chart_mark(chart, CHART_DOT, row->row->key.n_tokens, value_of(row, what));
        fputs("</g>\n", chart->page);
    }
}

static void put_plot(const struct series *series, uint32_t n, enum quantity what)
{
    const struct chart *chart = &series->charts[what];
    fprintf(chart->page, "<p class=\"axis\">%s</p>\n",
            what == TIME ? "Time of a run" : "Tokens per second");
    chart_begin(chart, HEIGHT, what == TIME ? "Time against tokens" : "Tokens/s against tokens");
    put_lines(chart, series->report, n, what, true);
    put_lines(chart, series->report, n, what, false);
    put_marks(chart, series->report, n, what);
    chart_end(chart);
}

static void put_part(FILE *page, const char *text, const char *usual)
{
    if (!*text || strcmp(text, usual) == 0)
        return;
    fputs(" \u00b7 ", page);
    html_text(page, text);
}

static void put_caption(FILE *page, const struct bench_key *key)
{
    fputs("<figcaption><b>", page);
    report_model_name(page, key);
    fputs("</b> ", page);
    html_text(page, key->type);
    put_part(page, key->mode, "forward");
    put_part(page, key->precision, "");
    put_part(page, key->routing, "uniform");
    put_part(page, key->x_type, strcmp(key->precision, "half") == 0 ? key->type : "f32");
    if (key->seed > 1)
        fprintf(page, " \u00b7 seed %llu", (unsigned long long) key->seed);
    fputs("</figcaption>\n", page);
}

static void put_panel(const struct series *series, uint32_t first)
{
    FILE *page = series->charts[RATE].page;
    const uint32_t n = gather(series->report, first);
    fputs("<figure class=\"panel\">", page);
    put_caption(page, &series->report->rows[first].row->key);
    put_plot(series, n, RATE);
    put_plot(series, n, TIME);
    fputs("<p class=\"axis x\">Tokens at once</p></figure>\n", page);
}

// Is it the first of its panel?
static bool begins_panel(const struct report *report, uint32_t i)
{
    if (!report_is_timed(&report->rows[i]) || !has_value(&report->rows[i]))
        return false;
    for (uint32_t k = 0; k < i; k++) {
        if (report_is_timed(&report->rows[k]) && has_value(&report->rows[k]) &&
            report->rows[k].panel_id == report->rows[i].panel_id)
            return false;
    }
    return true;
}

static void fit(struct series *series)
{
    for (uint32_t i = 0; i < series->report->n_rows; i++) {
        const struct report_row *row = &series->report->rows[i];
        if (!report_is_timed(row) || !has_value(row))
            continue;
        for (int what = RATE; what <= TIME; what++) {
            chart_add(&series->charts[what].x, row->row->key.n_tokens);
            chart_add(&series->charts[what].y, value_of(row, (enum quantity) what));
            if (has_floor(row))
                chart_add(&series->charts[what].y, floor_of(row, (enum quantity) what));
        }
    }
    for (int what = RATE; what <= TIME; what++) {
        series->charts[what].x.unit = CHART_TOKENS;
        chart_widen(&series->charts[what].x);
        chart_widen(&series->charts[what].y);
    }
}

void report_series(FILE *page, const struct report *report)
{
    struct series series = {.report = report, .charts = {{.page = page}, {.page = page}}};
    report_section(page, "tokens", "More tokens at once");
    series.charts[TIME].y.unit = CHART_TIME;
    fit(&series);
    fputs("<p class=\"about\">Experts that many tokens share are read once for all of them, so the "
          "rate climbs until arithmetic is the limit. Dotted lines are the floor. Every panel has "
          "the same scales.</p>\n", page);
    report_legend(page, report, false);
    fputs("<div class=\"panels\">\n", page);
    for (uint32_t i = 0; i < report->n_rows; i++) {
        if (begins_panel(report, i))
            put_panel(&series, i);
    }
    fputs("</div>\n</section>\n", page);
}
