// SPDX-License-Identifier: MIT
// Names and verdicts that all reports of vkmoe explain share.
#include "explain.h"

#include <math.h>

void explain_group_name(const struct explain_report *report, uint32_t group, char *out)
{
    vkmoe_explain_group g;
    memset(&g, 0, sizeof g);
    vkmoe_explain_get_group(report->explain, group, &g);
    if (g.name)
        snprintf(out, EXPLAIN_NAME, "%s", g.name);
    else if (g.n_rows == 0)
        snprintf(out, EXPLAIN_NAME, "(none)");
    else
        snprintf(out, EXPLAIN_NAME, "%.4g to %.4g", g.low, g.high);
}

const char *explain_header_name(const struct explain_report *report, uint32_t feature)
{
    const char *name = report->layer == 0 ? vkmoe_dataset_feature(report->data, feature) : NULL;
    json_t *valid = name ? json_string(name) : NULL; // NULL: bytes that are no UTF-8
    json_decref(valid);
    return valid ? name : NULL;
}

void explain_feature_name(const struct explain_report *report, uint32_t feature, char *out)
{
    const char *name = explain_header_name(report, feature);
    if (name)
        snprintf(out, EXPLAIN_NAME, "%s", name);
    else
        snprintf(out, EXPLAIN_NAME, "x[%u]", (unsigned) feature);
}

uint32_t explain_served(const struct explain_report *report, const vkmoe_explain_expert *expert)
{
    uint32_t n = 0, *out = report->served;
    for (uint32_t g = 0; g < report->summary.n_groups; g++) {
        uint32_t at = n;
        if (expert->slots[g] == 0)
            continue;
        for (; at > 0 && expert->slots[out[at - 1]] < expert->slots[g]; at--)
            out[at] = out[at - 1];
        out[at] = g;
        n++;
    }
    return n;
}

// ---- verdicts --------------------------------------------------------------------------------

// One output speaks for two classes: above 0, or above one half where it is a probability already,
// for the second one.
static bool is_binary(const struct explain_report *report)
{
    return report->info.n_outputs == 1 && report->info.n_classes == 2;
}

static int32_t find_second(const struct explain_report *report, const float *y, int32_t answer)
{
    int32_t second = -1;
    for (uint32_t i = 0; i < report->info.n_outputs; i++) {
        if ((int32_t) i != answer && !isnan(y[i]) && (second < 0 || y[i] > y[second]))
            second = (int32_t) i;
    }
    return second;
}

// The margin that outputs like these, or an expert's part of them, make.
static double margin_of(const struct explain_report *report, const struct explain_verdict *v,
                        const float *y)
{
    if (report->info.task == VKMOE_TASK_REGRESS)
        return (double) y[0];
    if (v->answer < 0 || v->second < 0)
        return (double) NAN;
    if (is_binary(report))
        return v->answer == 1 ? (double) y[0] : -(double) y[0];
    return (double) y[v->answer] - (double) y[v->second];
}

double explain_margin_part(const struct explain_report *report, const struct explain_row *row,
                           const struct explain_verdict *verdict, uint32_t k)
{
    return margin_of(report, verdict, row->parts + (size_t) k * report->info.n_outputs);
}

double explain_part(const struct explain_report *report, const struct explain_row *row,
                    const struct explain_verdict *verdict, uint32_t k)
{
    const float *part = row->parts + (size_t) k * report->info.n_outputs;
    if (report->info.task == VKMOE_TASK_REGRESS)
        return (double) part[0];
    if (verdict->answer < 0)
        return (double) NAN;
    return (double) (is_binary(report) ? part[0] : part[verdict->answer]);
}

// For a class the largest part of the margin, for a number the part furthest from 0; the largest
// gate weight where parts are not known.
static uint32_t find_decider(const struct explain_report *report, const struct explain_row *row,
                             const struct explain_verdict *v)
{
    const bool classify = report->info.task == VKMOE_TASK_CLASSIFY;
    uint32_t best = 0;
    double largest = -INFINITY;
    for (uint32_t k = 0; k < report->desc.top_k; k++) {
        double part = (double) row->gates[k];
        if (report->has_parts) {
            part = explain_margin_part(report, row, v, k);
            part = classify ? part : fabs(part);
        }
        if (part > largest) {
            largest = part;
            best = k;
        }
    }
    return best;
}

struct explain_verdict explain_judge(const struct explain_report *report,
                                     const struct explain_row *row)
{
    struct explain_verdict v = {-1, -1, (double) NAN, (double) NAN, 0};
    if (report->info.task == VKMOE_TASK_CLASSIFY) {
        v.answer = vkmoe_predict_class(report->model, row->y);
        if (v.answer >= 0 && is_binary(report)) {
            double yes = (double) row->scores[0];
            v.second = 1 - v.answer;
            v.score = v.answer == 1 ? yes : 1 - yes;
        } else if (v.answer >= 0) {
            v.second = find_second(report, row->y, v.answer);
            v.score = (double) row->scores[v.answer];
        }
        float first = row->y[0];
        if (is_binary(report) && report->info.head == VKMOE_HEAD_IDENTITY)
            first -= 0.5f;
        v.margin = margin_of(report, &v, is_binary(report) ? &first : row->y);
    }
    v.decider = find_decider(report, row, &v);
    return v;
}
