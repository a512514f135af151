// SPDX-License-Identifier: MIT
// vkmoe explain as one page of HTML that needs nothing else: no script, no font, no picture from
// elsewhere. It is well-formed XML as well.
#include "explain.h"

#include <math.h>
#include <stdlib.h>

enum {
    LINE = 30, // height of an expert in the charts of load and of groups, which stand in line
    TOP = 28,  // of what is above the first
};

static bool is_classify(const struct explain_report *report)
{
    return report->info.task == VKMOE_TASK_CLASSIFY;
}

static const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

// ---- head ------------------------------------------------------------------------------------

static void put_tile(FILE *page, const char *name, const char *value, const char *note)
{
    fprintf(page,
            "<div class=\"card\"><dt>%s</dt><dd class=\"big\">%s</dd><dd class=\"note\">%s</dd>"
            "</div>\n", name, value, note);
}

static void put_tiles(FILE *page, const struct explain_report *report)
{
    const vkmoe_explain_summary *s = &report->summary;
    const char *what = report->by_token ? "token" : "row";
    char value[96], note[160];
    fputs("<dl class=\"tiles\">\n", page);
    snprintf(value, sizeof value, "%llu", (unsigned long long) s->n_rows);
    snprintf(note, sizeof note, "%llu without a decision (NaN)",
             (unsigned long long) s->n_undecided);
    put_tile(page, report->by_token ? "Tokens" : "Rows", value,
             s->n_undecided ? note : "all of them routed");
    snprintf(value, sizeof value, "%u of %u", (unsigned) report->desc.top_k,
             (unsigned) report->desc.n_experts);
    snprintf(note, sizeof note, "serve each %s; %u are in use", what, (unsigned) s->n_used);
    put_tile(page, "Experts", value, note);
    snprintf(value, sizeof value, "%.2f of %u", exp2(s->load_entropy),
             (unsigned) report->desc.n_experts);
    put_tile(page, "Even load", value, "experts with the same load would be as even");
    snprintf(value, sizeof value, "%.2f of %.2f bits", s->information_first, s->group_entropy);
    snprintf(note, sizeof note, "about the %s, from a %s\u2019s first expert; %.2f by chance",
             is_classify(report) ? "class" : "quarter of the target", what, s->chance_first);
    put_tile(page, "Information", value, note);
    fputs("</dl>\n", page);
}

static void put_head(FILE *page, const struct explain_report *report)
{
    fputs("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<title>",
          page);
    html_text(page, file_name(report->model_path));
    fputs(": which expert serves what</title>\n<style>\n", page);
    explain_html_style(page);
    fputs("</style>\n</head>\n<body>\n<main>\n<h1>Which expert serves what</h1>\n"
          "<p class=\"note\">", page);
    html_text(page, file_name(report->model_path));
    fprintf(page, ", layer %u, on ", (unsigned) report->layer);
    html_text(page, file_name(report->data_path));
    fputs(", computed on ", page);
    html_text(page, report->device.name);
    fputs("</p>\n", page);
    put_tiles(page, report);
}

// ---- load ------------------------------------------------------------------------------------

static void put_load(FILE *page, const struct explain_report *report)
{
    const uint32_t n = report->desc.n_experts;
    const double left = 19, width = 60, even = 1.0 / n;
    double largest = even;
    for (uint32_t i = 0; i < n; i++) {
        vkmoe_explain_expert e = {0};
        vkmoe_explain_get_expert(report->explain, i, &e);
        largest = fmax(largest, e.share);
    }
    fprintf(page,
            "<section class=\"card\"><h2>Load</h2>\n<p class=\"note\">Share of all slots; the "
            "dashed line is an even share.</p>\n<div class=\"scroll\"><svg role=\"img\" "
            "height=\"%u\" aria-label=\"Load of each expert: its share of all slots\">\n",
            (unsigned) (TOP + LINE * n));
    for (uint32_t i = 0; i < n; i++) {
        vkmoe_explain_expert e = {0};
        vkmoe_explain_get_expert(report->explain, i, &e);
        const unsigned y = TOP + LINE * i;
        fprintf(page,
                "<g><title>Expert %u: %llu slots, %.1f %%</title>"
                "<text x=\"0\" y=\"%u\">Expert %u</text>"
                "<rect class=\"track\" x=\"%g%%\" y=\"%u\" width=\"%g%%\" height=\"18\" rx=\"3\"/>"
                "<rect class=\"bar\" x=\"%g%%\" y=\"%u\" width=\"%.2f%%\" height=\"18\" rx=\"3\"/>"
                "<text x=\"100%%\" y=\"%u\" text-anchor=\"end\">%.1f %%</text></g>\n",
                (unsigned) i, (unsigned long long) e.n_slots, 100 * e.share, y + LINE / 2,
                (unsigned) i, left, y + 6, width, left, y + 6, width * e.share / largest,
                y + LINE / 2, 100 * e.share);
    }
    const double x = left + width * even / largest;
    fprintf(page,
            "<line class=\"even\" x1=\"%.2f%%\" x2=\"%.2f%%\" y1=\"%d\" y2=\"%u\"/>"
            "<text class=\"dim\" x=\"%.2f%%\" y=\"%d\" text-anchor=\"middle\">%.1f %%</text>\n"
            "</svg></div></section>\n",
            x, x, TOP - 4, (unsigned) (TOP + LINE * n), x, TOP / 2 - 2, 100 * even);
}

// ---- groups ----------------------------------------------------------------------------------

// Share of a group's gate weight that an expert has; NaN where there is none, or some is negative.
static double gate_share(const struct explain_report *report, uint32_t expert, uint32_t group)
{
    double sum = 0, own = (double) NAN;
    for (uint32_t i = 0; i < report->desc.n_experts; i++) {
        vkmoe_explain_expert e = {0};
        vkmoe_explain_get_expert(report->explain, i, &e);
        if (e.gates[group] < 0)
            return (double) NAN;
        sum += e.gates[group];
        own = i == expert ? e.gates[group] : own;
    }
    return sum > 0 ? own / sum : (double) NAN;
}

static double largest_gate_share(const struct explain_report *report)
{
    double largest = 0;
    for (uint32_t i = 0; i < report->desc.n_experts; i++) {
        for (uint32_t g = 0; g < report->summary.n_groups; g++)
            largest = fmax(largest, gate_share(report, i, g));
    }
    return largest;
}

static void put_cell(FILE *page, double x, double width, unsigned y, double share, double largest)
{
    double heat = isfinite(share) && largest > 0 ? share / largest : 0;
    fprintf(page,
            "<rect class=\"heat\" x=\"%.3f%%\" y=\"%u\" width=\"%.3f%%\" height=\"%d\" rx=\"2\" "
            "fill-opacity=\"%.3f\"/>", x, y + 1, width, LINE - 2, heat);
    fprintf(page, "<text class=\"t%d\" x=\"%.3f%%\" y=\"%u\" text-anchor=\"middle\">",
            (int) (10 * heat), x + width / 2, y + LINE / 2);
    if (isfinite(share))
        fprintf(page, "%.0f</text>", 100 * share);
    else
        fputs("\u2013</text>", page);
}

static void put_heat(FILE *page, const struct explain_report *report)
{
    const uint32_t n = report->desc.n_experts, n_groups = report->summary.n_groups;
    const double left = 8, step = (100 - left) / n_groups, largest = largest_gate_share(report);
    const char *what = is_classify(report) ? "class" : "quarter of the target";
    fprintf(page,
            "<section class=\"card\"><h2>Who serves which %s</h2>\n<p class=\"note\">Percent "
            "of a %s\u2019s gate weight that each expert has; columns add up to 100.</p>\n"
            "<div class=\"scroll\"><svg role=\"img\" height=\"%u\" style=\"min-width:%upx\" "
            "aria-label=\"Share of each expert in the gate weight of each %s\">\n",
            what, is_classify(report) ? "class" : "quarter", (unsigned) (TOP + LINE * n),
            (unsigned) (50 + 29 * n_groups), what);
    for (uint32_t g = 0; g < n_groups; g++) {
        char name[EXPLAIN_NAME];
        explain_group_name(report, g, name);
        fputs("<text class=\"dim\" text-anchor=\"middle\" ", page);
        fprintf(page, "x=\"%.3f%%\" y=\"%d\">", left + step * (g + 0.5), TOP / 2 - 2);
        if (is_classify(report))
            html_short(page, name, (uint32_t) (0.45 * step));
        else
            html_text(page, name);
        fputs("</text>\n", page);
    }
    for (uint32_t i = 0; i < n; i++) {
        const unsigned y = TOP + LINE * i;
        fprintf(page, "<g><text x=\"0\" y=\"%u\">%u</text>", y + LINE / 2, (unsigned) i);
        for (uint32_t g = 0; g < n_groups; g++)
            put_cell(page, left + step * g, step * 0.96, y, gate_share(report, i, g), largest);
        fputs("</g>\n", page);
    }
    fputs("</svg></div></section>\n", page);
}

// ---- table -----------------------------------------------------------------------------------

static void put_number(FILE *page, const char *format, double value)
{
    char text[64];
    snprintf(text, sizeof text, format, value);
    fprintf(page, "<td>%s</td>", isfinite(value) ? text : "\u2013");
}

static void put_table(FILE *page, const struct explain_report *report)
{
    fputs("<details class=\"card\"><summary>All numbers as a table</summary>\n"
          "<div class=\"scroll\"><table id=\"experts\"><thead><tr><th scope=\"col\">Expert</th>"
          "<th scope=\"col\">Slots</th><th scope=\"col\">Share</th><th scope=\"col\">First</th>"
          "<th scope=\"col\">Mean gate</th><th scope=\"col\">Bits</th>", page);
    for (uint32_t g = 0; g < report->summary.n_groups; g++) {
        char name[EXPLAIN_NAME];
        explain_group_name(report, g, name);
        fputs("<th scope=\"col\">", page);
        html_text(page, name);
        fputs("</th>", page);
    }
    fputs("</tr></thead>\n<tbody>\n", page);
    for (uint32_t i = 0; i < report->desc.n_experts; i++) {
        vkmoe_explain_expert e = {0};
        vkmoe_explain_get_expert(report->explain, i, &e);
        fprintf(page, "<tr><td>%u</td><td>%llu</td>", (unsigned) i,
                (unsigned long long) e.n_slots);
        put_number(page, "%.1f %%", 100 * e.share);
        fprintf(page, "<td>%llu</td>", (unsigned long long) e.n_first);
        put_number(page, "%.3f", e.gate_mean);
        put_number(page, "%.3f", e.information);
        for (uint32_t g = 0; g < report->summary.n_groups; g++)
            fprintf(page, "<td>%llu</td>", (unsigned long long) e.slots[g]);
        fputs("</tr>\n", page);
    }
    fputs("</tbody></table></div></details>\n", page);
}

static void put_words(FILE *page, const struct explain_report *report)
{
    fprintf(page,
            "<section><h2>How to read this</h2>\n<p class=\"note\">A slot is one %s at one expert "
            "that was selected for it; the gate weight is what multiplies that expert\u2019s "
            "output. The first expert of it is the one with the largest gate weight. Bits of an "
            "expert: how far the %s of its slots are from those of all slots "
            "(Kullback\u2013Leibler divergence); their mean over slots is the mutual information. "
            "A feature\u2019s effect is its weight in the router times its standard deviation in "
            "this data.</p></section>\n",
            report->by_token ? "token" : "row",
            is_classify(report) ? "classes" : "quarters of the target");
}

enum vkmoe_status explain_html(const struct explain_report *report, char **text, size_t *size)
{
    FILE *page = open_memstream(text, size);
    if (page) {
        put_head(page, report);
        if (report->n_rows > 0)
            explain_html_rows(page, report);
        fputs("<div class=\"pair\">\n", page);
        put_load(page, report);
        put_heat(page, report);
        fputs("</div>\n", page);
        explain_html_experts(page, report);
        put_table(page, report);
        put_words(page, report);
        fputs("</main>\n</body>\n</html>\n", page);
        bool failed = ferror(page) != 0;
        if (fclose(page) == 0 && !failed)
            return VKMOE_OK;
    }
    vkmoe_error_set("no memory for the page");
    return VKMOE_E_MEMORY;
}
