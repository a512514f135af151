// SPDX-License-Identifier: MIT
// The rows that were asked for: who decided, and by how much.
#include "explain.h"

#include <math.h>

enum { ROW = 22 };

static bool is_classify(const struct explain_report *report)
{
    return report->info.task == VKMOE_TASK_CLASSIFY;
}

static void put_class(FILE *page, const struct explain_report *report, int32_t class)
{
    html_text(page, vkmoe_model_class(report->model, (uint32_t) class));
}

static void put_verdict(FILE *page, const struct explain_report *report,
                        const struct explain_row *row, const struct explain_verdict *v)
{
    fprintf(page, "<div class=\"head\"><h3>Row %llu</h3><span class=\"note\">",
            (unsigned long long) row->row);
    if (v->answer >= 0 || !is_classify(report))
        fprintf(page, "expert %d decided", (int) row->ids[v->decider]);
    fputs("</span></div>\n<p class=\"note\">", page);
    if (!is_classify(report)) {
        fprintf(page, "Target %.6g, the model says %.6g.", (double) row->values[0],
                (double) row->scores[0]);
    } else {
        fputs("Class ", page);
        put_class(page, report, row->label);
        fputs("; the model says ", page);
        if (v->answer < 0) {
            fputs("nothing: its outputs are NaN", page);
        } else {
            put_class(page, report, v->answer);
            fprintf(page, " with %.1f %%", 100 * v->score);
        }
        if (v->second >= 0) {
            fputs("; next is ", page);
            put_class(page, report, v->second);
            fprintf(page, ", %.4g behind", v->margin);
        }
        fputs(".", page);
    }
    fputs("</p>\n", page);
}

static void put_cell(FILE *page, const char *format, double value)
{
    char text[64];
    snprintf(text, sizeof text, format, value);
    fprintf(page, "<td>%s</td>", isfinite(value) ? text : "\u2013");
}

static void put_table(FILE *page, const struct explain_report *report,
                      const struct explain_row *row, const struct explain_verdict *v)
{
    fputs("<div class=\"scroll\"><table><thead><tr><th scope=\"col\">Expert</th><th scope=\"col\">"
          "Gate</th>", page);
    if (report->has_parts)
        fputs("<th scope=\"col\">Adds</th>", page);
    if (report->has_parts && is_classify(report))
        fputs("<th scope=\"col\">To the margin</th>", page);
    fputs("</tr></thead>\n<tbody>\n", page);
    for (uint32_t k = 0; k < report->desc.top_k; k++) {
        fprintf(page, "<tr><td>%d</td>", (int) row->ids[k]);
        put_cell(page, "%.4f", (double) row->gates[k]);
        if (report->has_parts)
            put_cell(page, "%+.4g", explain_part(report, row, v, k));
        if (report->has_parts && is_classify(report))
            put_cell(page, "%+.4g", explain_margin_part(report, row, v, k));
        fputs("</tr>\n", page);
    }
    fputs("</tbody></table></div>\n", page);
}

// Bars to the right and to the left of the middle.
static void put_bars(FILE *page, const struct explain_report *report,
                     const struct explain_row *row, const struct explain_verdict *v)
{
    double largest = 0;
    for (uint32_t k = 0; k < report->desc.top_k; k++)
        largest = fmax(largest, fabs(explain_margin_part(report, row, v, k)));
    if (!(largest > 0 && isfinite(largest)))
        return;
    fprintf(page,
            "<h4>Part in %s</h4>\n<svg role=\"img\" height=\"%u\" aria-label=\"Part of each expert "
            "in the decision\">\n", is_classify(report) ? "the margin" : "the output",
            (unsigned) (ROW * report->desc.top_k));
    for (uint32_t k = 0; k < report->desc.top_k; k++) {
        const double part = explain_margin_part(report, row, v, k);
        const double width = isfinite(part) ? 40 * fabs(part) / largest : 0;
        const unsigned y = ROW * k + ROW / 2;
        fprintf(page,
                "<text x=\"0\" y=\"%u\">%d</text><rect class=\"%s\" x=\"%.2f%%\" y=\"%u\" "
                "width=\"%.2f%%\" height=\"12\" rx=\"2\"/>\n",
                y, (int) row->ids[k], part > 0 ? "bar" : "minus", part > 0 ? 55 : 55 - width,
                y - 6, width);
    }
    fprintf(page, "<line class=\"axis\" x1=\"55%%\" x2=\"55%%\" y1=\"0\" y2=\"%u\"/></svg>\n",
            (unsigned) (ROW * report->desc.top_k));
}

void explain_html_rows(FILE *page, const struct explain_report *report)
{
    fputs("<h2>Rows</h2>\n<div class=\"grid\">\n", page);
    for (uint32_t i = 0; i < report->n_rows; i++) {
        const struct explain_row *row = &report->rows[i];
        const struct explain_verdict v = explain_judge(report, row);
        fputs("<article class=\"card\">", page);
        put_verdict(page, report, row, &v);
        put_table(page, report, row, &v);
        if (report->has_parts)
            put_bars(page, report, row, &v);
        else
            fputs("<p class=\"note\">What an expert adds to the output is known of the last "
                  "layer only.</p>\n", page);
        fputs("</article>\n", page);
    }
    fputs("</div>\n", page);
}
