// SPDX-License-Identifier: MIT
// Inside a layer: where the time of a run goes, what the kernels counted, how rows were spread over
// the experts.
#include "report.h"

#include <math.h>

enum { MOST_BARS = 64, SPARK = 36, MOST_PANELS = 6 };

static void put_title(FILE *page, const struct report *report, const struct report_row *row)
{
    report_case_name(page, row);
    if (report->n_devices > 1) {
        fputs(" on ", page);
        report_device_name(page, row->on);
    }
}

// ---- dispatches --------------------------------------------------------------------------------

static double sum_dispatches(const struct bench_row *row)
{
    double sum = 0;
    for (uint32_t i = 0; i < row->n_timed_dispatches; i++)
        sum += row->dispatches[i].median_us > 0 ? row->dispatches[i].median_us : 0;
    return sum;
}

static void put_dispatches(FILE *page, const struct report *report,
                           const struct report_row *row)
{
    char time[REPORT_TEXT], percent[REPORT_TEXT];
    const struct bench_row *r = row->row;
    const double sum = sum_dispatches(r);
    fputs("<figure class=\"panel\"><figcaption>", page);
    put_title(page, report, row);
    fputs("</figcaption>\n<table class=\"bars\"><thead class=\"aside\"><tr><th scope=\"col\">"
          "Dispatch</th><th scope=\"col\" class=\"num\">Median</th><th scope=\"col\" "
          "class=\"num\">Part</th><td></td></tr></thead>"
          "<tbody>\n", page);
    for (uint32_t i = 0; i < r->n_timed_dispatches; i++) {
        const double us = r->dispatches[i].median_us;
        const double part = sum > 0 && us > 0 ? us / sum : 0;
        fputs("<tr><th scope=\"row\">", page);
        html_text(page, r->dispatches[i].label);
        fprintf(page,
                "</th><td class=\"num\">%s</td><td class=\"num\">%s</td><td class=\"d%u\">"
                "<i class=\"bar\" style=\"width:%.1f%%\"></i></td></tr>\n", report_time(us, time),
                report_percent(part, percent), (unsigned) (row->device % REPORT_N_COLOURS),
                100 * part);
    }
    fprintf(page, "</tbody></table>\n<p class=\"note\">%s with a wait after each",
            report_time(sum, time));
    if (report_is_timed(row))
        fprintf(page, "; a run takes %s", report_time(row->time_us, time));
    fputs("</p></figure>\n", page);
}

static void put_all_dispatches(FILE *page, const struct report *report)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < report->n_rows; i++) {
        if (report->rows[i].row->n_timed_dispatches == 0)
            continue;
        if (n == 0)
            fputs("<h3>Where the time goes</h3>\n<div class=\"panels\">\n", page);
        if (n == MOST_PANELS)
            fputs("</div>\n<details><summary>The other rows</summary>\n<div class=\"panels\">\n",
                  page);
        n++;
        put_dispatches(page, report, &report->rows[i]);
    }
    fputs(n > MOST_PANELS ? "</div></details>\n" : n > 0 ? "</div>\n" : "", page);
}

// ---- counters ----------------------------------------------------------------------------------

static void put_counted(FILE *page, const struct report *report,
                        const struct report_row *row)
{
    char text[REPORT_TEXT];
    const struct bench_row *r = row->row;
    const vkmoe_counters *c = &r->counters;
    fputs("<tr><th scope=\"row\">", page);
    put_title(page, report, row);
    fprintf(page, "</th><td class=\"num\">%s</td>", report_ratio(r->rereads, text));
    fprintf(page, "<td class=\"num\">%s</td>", report_si((double) c->weight_loads, "B", text));
    fprintf(page, "<td class=\"num\">%s</td>", report_percent(r->useful_fraction, text));
    fprintf(page, "<td class=\"num\">%u</td>", (unsigned) c->dispatches);
    fprintf(page, "<td class=\"num\">%s</td>", report_count((double) c->workgroups, text));
    fprintf(page, "<td class=\"num\">%s</td></tr>\n",
            report_count((double) c->idle_workgroups, text));
}

static void put_counters(FILE *page, const struct report *report)
{
    bool any = false;
    for (uint32_t i = 0; i < report->n_rows; i++) {
        if (!report->rows[i].row->counted)
            continue;
        if (!any)
            fputs("<h3>What the kernels counted</h3>\n<div class=\"scroll tall\" "
                  "tabindex=\"0\" role=\"region\" aria-label=\"Counters\"><table id=\"counters\">"
                  "<thead><tr>"
                  "<th scope=\"col\">Case</th><th scope=\"col\" title=\"bytes of weights that "
                  "were loaded, by those of the experts that were hit\">Each weight read</th>"
                  "<th scope=\"col\">Weights loaded</th><th scope=\"col\">Useful in tiles</th>"
                  "<th scope=\"col\">Dispatches</th><th scope=\"col\">Workgroups</th>"
                  "<th scope=\"col\">Idle ones</th></tr></thead>\n<tbody>\n", page);
        any = true;
        put_counted(page, report, &report->rows[i]);
    }
    fputs(any ? "</tbody></table></div>\n" : "", page);
}

// ---- routing -----------------------------------------------------------------------------------

static bool is_routed(const struct bench_row *row)
{
    return row->expert_rows && row->key.n_experts > 0 && row->max_rows > 0;
}

static bool is_same_routing(const struct bench_row *a, const struct bench_row *b)
{
    return is_routed(a) && is_routed(b) && a->key.n_experts == b->key.n_experts &&
           a->key.n_tokens == b->key.n_tokens && strcmp(a->key.routing, b->key.routing) == 0 &&
           memcmp(a->expert_rows, b->expert_rows, a->key.n_experts * sizeof *a->expert_rows) == 0;
}

static bool begins_routing(const struct report *report, uint32_t i)
{
    if (!is_routed(report->rows[i].row))
        return false;
    for (uint32_t k = 0; k < i; k++) {
        if (is_same_routing(report->rows[k].row, report->rows[i].row))
            return false;
    }
    return true;
}

// A bar for each expert; for several neighbours, the mean of them where there are many.
static void put_spark(FILE *page, const struct bench_row *row)
{
    const uint32_t n = row->key.n_experts, n_bars = n < MOST_BARS ? n : MOST_BARS;
    fprintf(page,
            "<svg class=\"spark\" role=\"img\" width=\"%u\" height=\"%d\" aria-label=\"Rows of "
            "each expert\">", (unsigned) (n_bars * 4), SPARK);
    for (uint32_t b = 0; b < n_bars; b++) {
        const uint32_t from = (uint32_t) ((uint64_t) b * n / n_bars);
        const uint32_t to = (uint32_t) ((uint64_t) (b + 1) * n / n_bars);
        double rows = 0;
        for (uint32_t e = from; e < to; e++)
            rows += row->expert_rows[e];
        const double height = SPARK * rows / (to - from) / row->max_rows;
        if (height > 0)
            fprintf(page, "<rect x=\"%u\" y=\"%.1f\" width=\"3\" height=\"%.1f\"/>",
                    (unsigned) (4 * b), SPARK - height, height);
    }
    fputs("</svg>", page);
}

static void put_routing(FILE *page, const struct bench_row *row)
{
    char text[REPORT_TEXT];
    fputs("<tr><th scope=\"row\">", page);
    report_model_name(page, &row->key);
    fputs("</th><td>", page);
    html_text(page, row->key.routing);
    fprintf(page, "</td><td class=\"num\">%u</td><td class=\"num\">%u of %u</td>",
            (unsigned) row->key.n_tokens, (unsigned) row->n_experts_hit,
            (unsigned) row->key.n_experts);
    fprintf(page, "<td class=\"num\">%u to %u</td><td class=\"num\">%s</td><td>",
            (unsigned) row->min_rows, (unsigned) row->max_rows, report_percent(row->cv_rows, text));
    put_spark(page, row);
    fputs("</td></tr>\n", page);
}

static void put_routings(FILE *page, const struct report *report)
{
    bool any = false;
    for (uint32_t i = 0; i < report->n_rows; i++) {
        if (!begins_routing(report, i))
            continue;
        if (!any)
            fputs("<h3>How rows were spread over experts</h3>\n<div class=\"scroll tall\" "
                  "tabindex=\"0\" role=\"region\" aria-label=\"Routing\"><table id=\"routing\">"
                  "<thead><tr><th scope=\"col\">Model</th><th scope=\"col\">Routing</th>"
                  "<th scope=\"col\" class=\"num\">Tokens</th><th scope=\"col\" class=\"num\">"
                  "Experts hit</th><th scope=\"col\" class=\"num\">Rows of one</th>"
                  "<th scope=\"col\" class=\"num\" title=\"standard deviation by mean, over all "
                  "experts\">"
                  "Spread</th><th scope=\"col\">Rows of each expert</th></tr></thead>\n<tbody>\n",
                  page);
        any = true;
        put_routing(page, report->rows[i].row);
    }
    fputs(any ? "</tbody></table></div>\n" : "", page);
}

bool report_has_detail(const struct report *report)
{
    for (uint32_t i = 0; i < report->n_rows; i++) {
        const struct bench_row *row = report->rows[i].row;
        if (row->n_timed_dispatches > 0 || row->counted || is_routed(row))
            return true;
    }
    return false;
}

void report_detail(FILE *page, const struct report *report)
{
    if (!report_has_detail(report))
        return;
    report_section(page, "inside", "Inside a layer");
    put_all_dispatches(page, report);
    put_counters(page, report);
    put_routings(page, report);
    fputs("</section>\n", page);
}
