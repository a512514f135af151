// SPDX-License-Identifier: MIT
// Devices side by side, over the cases that more than one of them has timed.
#include "report.h"

#include <math.h>

// A case is told at its first timed row, if two devices have it.
static bool begins_case(const struct report *report, uint32_t i)
{
    const struct report_row *row = &report->rows[i];
    uint32_t n = 0;
    if (!report_is_timed(row) || report_find(report, row->device, row->case_id) != row)
        return false;
    for (uint32_t d = 0; d < report->n_devices; d++) {
        const struct report_row *other = report_find(report, d, row->case_id);
        if (other && other < row)
            return false;
        n += other != NULL;
    }
    return n > 1;
}

// "2.40×", or "1/2.40" of a slower one.
static void put_ratio(FILE *page, double ratio)
{
    char text[REPORT_TEXT];
    if (ratio >= 1) {
        fprintf(page, " <small>%s</small>", report_ratio(ratio, text));
        return;
    }
    report_si(1 / ratio, "", text);
    fprintf(page, " <small>1/%s</small>", text);
}

static void put_cell(FILE *page, const struct report_row *row, double best, double base)
{
    char text[REPORT_TEXT];
    if (!row) {
        fputs("<td>\u2013</td>", page);
        return;
    }
    fprintf(page, "<td class=\"d%u\">%s", (unsigned) (row->device % REPORT_N_COLOURS),
            report_count(row->row->tokens_per_s, text));
    if (isfinite(base) && row->device > 0)
        put_ratio(page, base / row->time_us);
    fprintf(page, "<i class=\"bar\" style=\"width:%.1f%%\"></i></td>", 100 * best / row->time_us);
}

static void put_case(FILE *page, const struct report *report, const struct report_row *first)
{
    const struct report_row *base = report_find(report, 0, first->case_id);
    double best = INFINITY;
    for (uint32_t d = 0; d < report->n_devices; d++) {
        const struct report_row *row = report_find(report, d, first->case_id);
        best = row ? fmin(best, row->time_us) : best;
    }
    fputs("<tr><th scope=\"row\">", page);
    report_case_name(page, first);
    fputs("</th>", page);
    for (uint32_t d = 0; d < report->n_devices; d++)
        put_cell(page, report_find(report, d, first->case_id), best,
                 base ? base->time_us : (double) NAN);
    fputs("</tr>\n", page);
}

static void put_head(FILE *page, const struct report *report)
{
    fputs("<p class=\"about\">Cases that more than one device has timed, in tokens per second. A "
          "bar\u2019s length is the rate beside the fastest of its line", page);
    fputs("; the small number is how many times as fast as ", page);
    html_text(page, report->devices[0].label);
    fputs(".</p>\n<div class=\"scroll tall\" tabindex=\"0\" role=\"region\" aria-label=\"Devices "
          "side by side\"><table id=\"beside\" ", page);
    fprintf(page, "style=\"--n:%u\">", (unsigned) report->n_devices);
    fputs("<thead><tr><th scope=\"col\">Case</th>", page);
    for (uint32_t d = 0; d < report->n_devices; d++) {
        fputs("<th scope=\"col\">", page);
        report_device_name(page, &report->devices[d]);
        fputs("</th>", page);
    }
    fputs("</tr></thead>\n<tbody>\n", page);
}

void report_beside(FILE *page, const struct report *report)
{
    uint32_t n = 0;
    if (report->n_devices < 2)
        return;
    report_section(page, "beside", "Side by side");
    for (uint32_t i = 0; i < report->n_rows; i++) {
        if (!begins_case(report, i))
            continue;
        if (n++ == 0)
            put_head(page, report);
        put_case(page, report, &report->rows[i]);
    }
    fputs(n ? "</tbody></table></div>\n</section>\n"
            : "<p class=\"about\">No two of these devices have timed the same case.</p>\n"
              "</section>\n", page);
}
