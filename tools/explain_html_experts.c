// SPDX-License-Identifier: MIT
// A card for each expert: what it serves, its gate weights, the inputs it is certain of, its
// features.
#include "explain.h"

#include <math.h>

enum { SERVED = 4, FEATURES = 6, IN_WORDS = 4, ROW = 22, HISTOGRAM = 58, NAME = 10,
       LONG_NAME = 15 };

static bool is_classify(const struct explain_report *report)
{
    return report->info.task == VKMOE_TASK_CLASSIFY;
}

// ---- what it serves --------------------------------------------------------------------------

static void put_served(FILE *page, const struct explain_report *report,
                       const vkmoe_explain_expert *e)
{
    uint32_t n = explain_served(report, e);
    n = n < SERVED ? n : SERVED;
    fprintf(page,
            "<h4>Share of its slots</h4>\n<svg role=\"img\" height=\"%u\" "
            "aria-label=\"What this expert serves\">\n", (unsigned) (ROW * n));
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t group = report->served[i];
        const double share = (double) e->slots[group] / (double) e->n_slots;
        const unsigned y = ROW * i + ROW / 2;
        char name[EXPLAIN_NAME];
        explain_group_name(report, group, name);
        fprintf(page, "<text x=\"0\" y=\"%u\">", y);
        html_short(page, name, NAME);
        fprintf(page,
                "</text><rect class=\"track\" x=\"30%%\" y=\"%u\" width=\"50%%\" height=\"10\" "
                "rx=\"2\"/><rect class=\"bar\" x=\"30%%\" y=\"%u\" width=\"%.2f%%\" height=\"10\" "
                "rx=\"2\"/><text x=\"100%%\" y=\"%u\" text-anchor=\"end\">%.1f %%</text>\n",
                y - 5, y - 5, 50 * share, y, 100 * share);
    }
    fputs("</svg>\n", page);
}

// Targets from the smallest to the largest of all, the middle half as a box.
static void put_range(FILE *page, const struct explain_report *report,
                      const vkmoe_explain_expert *e)
{
    double low = INFINITY, high = -INFINITY, at[5];
    for (uint32_t g = 0; g < report->summary.n_groups; g++) {
        vkmoe_explain_group group;
        memset(&group, 0, sizeof group);
        vkmoe_explain_get_group(report->explain, g, &group);
        low = fmin(low, group.low);
        high = fmax(high, group.high);
    }
    for (int q = 0; q < 5; q++)
        at[q] = high > low ? 1 + 98 * (e->quantiles[q] - low) / (high - low) : 50;
    fprintf(page,
            "<h4>Targets: median %.4g, half of them %.4g to %.4g</h4>\n<svg role=\"img\" "
            "height=\"40\" aria-label=\"Targets of this expert, from %.4g to %.4g\">\n"
            "<line class=\"axis\" x1=\"1%%\" x2=\"99%%\" y1=\"11\" y2=\"11\"/>"
            "<rect class=\"track\" x=\"%.2f%%\" y=\"7\" width=\"%.2f%%\" height=\"8\" rx=\"2\"/>"
            "<rect class=\"bar\" x=\"%.2f%%\" y=\"3\" width=\"%.2f%%\" height=\"16\" rx=\"2\"/>"
            "<rect class=\"pixel\" x=\"%.2f%%\" y=\"0\" width=\"2\" height=\"22\"/>"
            "<text class=\"dim\" x=\"0\" y=\"33\">%.4g</text>"
            "<text class=\"dim\" x=\"100%%\" y=\"33\" text-anchor=\"end\">%.4g</text></svg>\n",
            e->quantiles[2], e->quantiles[1], e->quantiles[3], e->quantiles[0], e->quantiles[4],
            at[0], at[4] - at[0], at[1], at[3] - at[1], at[2], low, high);
}

static void put_histogram(FILE *page, const struct explain_report *report,
                          const vkmoe_explain_expert *e)
{
    const double step = 100.0 / VKMOE_EXPLAIN_BINS, limit = report->summary.gate_limit;
    uint64_t largest = 1;
    for (int i = 0; i < VKMOE_EXPLAIN_BINS; i++)
        largest = e->histogram[i] > largest ? e->histogram[i] : largest;
    fprintf(page,
            "<h4>Gate weights</h4>\n<svg role=\"img\" height=\"%d\" aria-label=\"Histogram of the "
            "gate weights of this expert\">\n", HISTOGRAM + 18);
    for (int i = 0; i < VKMOE_EXPLAIN_BINS; i++) {
        double height = (HISTOGRAM - 2) * (double) e->histogram[i] / (double) largest;
        fprintf(page,
                "<rect class=\"bar\" x=\"%.2f%%\" y=\"%.2f\" width=\"%.2f%%\" height=\"%.2f\">"
                "<title>%.3g to %.3g: %llu slots</title></rect>\n",
                step * i + 0.4, HISTOGRAM - height, step - 0.8, height,
                limit * i / VKMOE_EXPLAIN_BINS, limit * (i + 1) / VKMOE_EXPLAIN_BINS,
                (unsigned long long) e->histogram[i]);
    }
    fprintf(page,
            "<line class=\"axis\" x1=\"0\" x2=\"100%%\" y1=\"%d.5\" y2=\"%d.5\"/>"
            "<text class=\"dim\" x=\"0\" y=\"%d\">0</text>"
            "<text class=\"dim\" x=\"50%%\" y=\"%d\" text-anchor=\"middle\">%g</text>"
            "<text class=\"dim\" x=\"100%%\" y=\"%d\" text-anchor=\"end\">%g</text></svg>\n",
            HISTOGRAM, HISTOGRAM, HISTOGRAM + 10, HISTOGRAM + 10, limit / 2, HISTOGRAM + 10, limit);
}

// ---- certain inputs --------------------------------------------------------------------------

// Dark to bright from the smallest to the largest pixel; what is no number is dark.
static void put_picture(FILE *page, const struct explain_report *report, const float *x)
{
    const uint32_t side = report->image_side;
    float low = INFINITY, high = -INFINITY;
    for (uint32_t i = 0; i < side * side; i++) {
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
    }
    fprintf(page, "<svg viewBox=\"0 0 %u %u\" aria-hidden=\"true\">", (unsigned) side,
            (unsigned) side);
    for (uint32_t i = 0; i < side * side; i++) {
        float grey = (x[i] - low) / (high - low);
        if (grey > 0 && grey <= 1)
            fprintf(page,
                    "<rect class=\"pixel\" x=\"%u\" y=\"%u\" width=\"1\" height=\"1\" "
                    "fill-opacity=\"%.2f\"/>", (unsigned) (i % side), (unsigned) (i / side),
                    (double) grey);
    }
    fputs("</svg>", page);
}

static void put_input(FILE *page, const struct explain_report *report, const float *picture,
                      const vkmoe_explain_certain *c)
{
    fputs("<li>", page);
    if (picture)
        put_picture(page, report, picture);
    fprintf(page, "row %llu<br/>", (unsigned long long) c->row);
    if (is_classify(report))
        html_text(page, vkmoe_model_class(report->model, (uint32_t) c->label));
    else
        fprintf(page, "%.4g", (double) c->value);
    fprintf(page, ": %.3f</li>", (double) c->gate);
}

static void put_certain(FILE *page, const struct explain_report *report, uint32_t expert)
{
    vkmoe_explain_certain c;
    uint32_t n = 0;
    if (vkmoe_explain_get_certain(report->explain, expert, 0, &n, &c) != VKMOE_OK)
        return;
    fprintf(page, "<h4>Most certain inputs (%s: gate weight)</h4>\n<ul class=\"images%s\">",
            is_classify(report) ? "class" : "target", report->image_side ? "" : " plain");
    for (uint32_t i = 0; i < n; i++) {
        const size_t at = ((size_t) expert * report->n_certain + i) * report->info.n_features;
        vkmoe_explain_get_certain(report->explain, expert, i, NULL, &c);
        put_input(page, report, report->image_side ? report->pictures + at : NULL, &c);
    }
    fputs("</ul>\n", page);
}

// ---- features --------------------------------------------------------------------------------

static double largest_effect(const struct explain_report *report)
{
    double largest = 0;
    for (uint32_t e = 0; e < report->desc.n_experts; e++) {
        vkmoe_explain_feature f = {0};
        vkmoe_explain_get_feature(report->explain, e, 0, &f);
        largest = fmax(largest, fabs(f.effect));
    }
    return largest;
}

static void put_effect(FILE *page, const struct explain_report *report,
                       const vkmoe_explain_feature *f)
{
    char name[EXPLAIN_NAME];
    explain_feature_name(report, f->feature, name);
    html_text(page, name);
    fprintf(page, " %+.3f", isnan(f->effect) ? (double) NAN : f->effect);
}

// Every pixel's effect on the score, in its place, and the strongest ones in words.
static void put_effect_map(FILE *page, const struct explain_report *report, uint32_t expert,
                           double largest)
{
    const uint32_t side = report->image_side;
    vkmoe_explain_feature f;
    if (vkmoe_explain_get_feature(report->explain, expert, 0, &f) != VKMOE_OK)
        return; // its scores are not linear
    fprintf(page,
            "<h4>Effect of each pixel on its score</h4>\n<div class=\"map\"><svg role=\"img\" "
            "viewBox=\"0 0 %u %u\" aria-label=\"Effect of each pixel on the score of this "
            "expert\">", (unsigned) side, (unsigned) side);
    for (uint32_t i = 0;
         vkmoe_explain_get_feature(report->explain, expert, i, &f) == VKMOE_OK; i++) {
        if (fabs(f.effect) > 0)
            fprintf(page,
                    "<rect class=\"%s\" x=\"%u\" y=\"%u\" width=\"1\" height=\"1\" "
                    "fill-opacity=\"%.3f\"/>", f.effect > 0 ? "bar" : "minus",
                    (unsigned) (f.feature % side), (unsigned) (f.feature / side),
                    fabs(f.effect) / largest);
    }
    fputs("</svg><p class=\"note\">Blue raises it, orange lowers it. Strongest:", page);
    for (uint32_t i = 0; i < IN_WORDS && vkmoe_explain_get_feature(report->explain, expert, i,
                                                                   &f) == VKMOE_OK; i++) {
        fputs("<br/>", page);
        put_effect(page, report, &f);
    }
    fputs("</p></div>\n", page);
}

static void put_features(FILE *page, const struct explain_report *report, uint32_t expert,
                         double largest)
{
    vkmoe_explain_feature f;
    if (vkmoe_explain_get_feature(report->explain, expert, 0, &f) != VKMOE_OK)
        return; // its scores are not linear
    uint32_t n = report->desc.d_model < FEATURES ? report->desc.d_model : FEATURES;
    fprintf(page,
            "<h4>Strongest features of its score (effect)</h4>\n<svg role=\"img\" height=\"%u\" "
            "aria-label=\"Strongest features of the score of this expert\">\n",
            (unsigned) (ROW * n));
    for (uint32_t i = 0; i < n; i++) {
        const unsigned y = ROW * i + ROW / 2;
        char name[EXPLAIN_NAME];
        if (vkmoe_explain_get_feature(report->explain, expert, i, &f) != VKMOE_OK)
            break;
        explain_feature_name(report, f.feature, name);
        const double width = largest > 0 && isfinite(f.effect) ? 20 * fabs(f.effect) / largest : 0;
        fprintf(page, "<text x=\"0\" y=\"%u\">", y);
        html_short(page, name, LONG_NAME);
        fprintf(page,
                "</text><rect class=\"%s\" x=\"%.2f%%\" y=\"%u\" width=\"%.2f%%\" height=\"10\" "
                "rx=\"2\"/><text x=\"100%%\" y=\"%u\" text-anchor=\"end\">%+.3f</text>\n",
                f.effect > 0 ? "bar" : "minus", f.effect > 0 ? 64 : 64 - width, y - 5, width, y,
                isnan(f.effect) ? (double) NAN : f.effect);
    }
    fprintf(page,
            "<line class=\"axis\" x1=\"64%%\" x2=\"64%%\" y1=\"0\" y2=\"%u\"/></svg>\n",
            (unsigned) (ROW * n));
}

// ---- cards -----------------------------------------------------------------------------------

static void put_expert(FILE *page, const struct explain_report *report, uint32_t expert,
                       double largest)
{
    vkmoe_explain_expert e = {0};
    vkmoe_explain_get_expert(report->explain, expert, &e);
    fprintf(page,
            "<article class=\"card\"><div class=\"head\"><h3>Expert %u</h3><span class=\"note\">"
            "%.1f %% of slots</span></div>\n", (unsigned) expert, 100 * e.share);
    if (e.n_slots == 0) {
        fputs("<p class=\"note\">No row selected it.</p></article>\n", page);
        return;
    }
    fprintf(page,
            "<p class=\"note\">%llu slots, first in %llu; mean gate weight %.3f; tells %.3f bits"
            "</p>\n", (unsigned long long) e.n_slots, (unsigned long long) e.n_first, e.gate_mean,
            e.information);
    if (is_classify(report))
        put_served(page, report, &e);
    else
        put_range(page, report, &e);
    put_histogram(page, report, &e);
    put_certain(page, report, expert);
    if (report->image_side && report->layer == 0)
        put_effect_map(page, report, expert, largest);
    else
        put_features(page, report, expert, largest);
    fputs("</article>\n", page);
}

void explain_html_experts(FILE *page, const struct explain_report *report)
{
    const double largest = largest_effect(report);
    fputs("<h2>Expert by expert</h2>\n<div class=\"grid\">\n", page);
    for (uint32_t e = 0; e < report->desc.n_experts; e++)
        put_expert(page, report, e, largest);
    fputs("</div>\n", page);
}
