// SPDX-License-Identifier: MIT
// vkmoe explain as a table.
#include "explain.h"

#include <math.h>

enum { BAR = 24, SERVED = 3, FEATURES = 5 };

static bool is_classify(const struct explain_report *report)
{
    return report->info.task == VKMOE_TASK_CLASSIFY;
}

// A NaN has a sign, which printf would show.
static double unsigned_nan(double value)
{
    return isnan(value) ? (double) NAN : value;
}

static void print_summary(const struct explain_report *report)
{
    const vkmoe_explain_summary *s = &report->summary;
    const char *what = is_classify(report) ? "class" : "quarter of the target";
    printf("device       %s (%s%s%s)\n", report->device.name,
           cli_device_type(report->device.type), *report->device.tier ? ", " : "",
           report->device.tier);
    printf("layer        %u: each %s goes to %u of %u experts\n", (unsigned) report->layer,
           report->by_token ? "token" : "row", (unsigned) report->desc.top_k,
           (unsigned) report->desc.n_experts);
    printf("%s       %llu", report->by_token ? "tokens" : "rows  ",
           (unsigned long long) s->n_rows);
    if (s->n_undecided)
        printf(", and %llu with gate weights of NaN", (unsigned long long) s->n_undecided);
    printf("\nload         as even as that of %.2f of %u experts\n", exp2(s->load_entropy),
           (unsigned) report->desc.n_experts);
    printf("information  a %s's first expert tells %.3f of %.3f bits about its %s\n",
           report->by_token ? "token" : "row", s->information_first, s->group_entropy, what);
    printf("             (%.3f would come by chance), any selected one %.3f, by gate weight %.3f\n",
           s->chance_first, s->information, unsigned_nan(s->information_gates));
}

static void print_served(const struct explain_report *report, const vkmoe_explain_expert *e)
{
    const uint32_t *groups = report->served;
    uint32_t n = explain_served(report, e);
    for (uint32_t i = 0; i < n && i < SERVED; i++) {
        char name[EXPLAIN_NAME];
        explain_group_name(report, groups[i], name);
        printf("%s%s %.0f%%", i ? ", " : "", name,
               100 * (double) e->slots[groups[i]] / (double) e->n_slots);
    }
    printf("\n");
}

static double largest_share(const struct explain_report *report)
{
    double largest = 0;
    for (uint32_t i = 0; i < report->desc.n_experts; i++) {
        vkmoe_explain_expert e = {0};
        vkmoe_explain_get_expert(report->explain, i, &e);
        largest = fmax(largest, e.share);
    }
    return largest;
}

static void print_experts(const struct explain_report *report)
{
    const double largest = largest_share(report);
    printf("\n%-7s %8s %7s %-*s %6s %6s   %s\n", "expert", "slots", "share", BAR, "", "gate",
           "bits", is_classify(report) ? "serves" : "serves targets");
    for (uint32_t i = 0; i < report->desc.n_experts; i++) {
        vkmoe_explain_expert e = {0};
        char bar[BAR + 1] = "";
        vkmoe_explain_get_expert(report->explain, i, &e);
        memset(bar, '#', (size_t) lround(e.share / largest * BAR));
        printf("%-7u %8llu %6.1f%% %-*s %6.3f %6.3f   ", (unsigned) i,
               (unsigned long long) e.n_slots, 100 * e.share, BAR, bar,
               unsigned_nan(e.gate_mean), unsigned_nan(e.information));
        print_served(report, &e);
    }
}

static void print_quantiles(const struct explain_report *report)
{
    printf("\n%-7s %10s %10s %10s %10s %10s   of the target of its rows\n", "expert", "min", "1/4",
           "median", "3/4", "max");
    for (uint32_t i = 0; i < report->desc.n_experts; i++) {
        vkmoe_explain_expert e = {0};
        vkmoe_explain_get_expert(report->explain, i, &e);
        printf("%-7u", (unsigned) i);
        for (int q = 0; q < 5; q++)
            printf(" %10.5g", unsigned_nan(e.quantiles[q]));
        printf("\n");
    }
}

static void print_certain(const struct explain_report *report)
{
    printf("\n%-7s most certain inputs: row (%s) gate weight\n", "expert",
           is_classify(report) ? "class" : "target");
    for (uint32_t e = 0; e < report->desc.n_experts; e++) {
        vkmoe_explain_certain c;
        printf("%-7u", (unsigned) e);
        for (uint32_t i = 0;
             vkmoe_explain_get_certain(report->explain, e, i, NULL, &c) == VKMOE_OK; i++) {
            printf("%s %llu (", i ? "," : "", (unsigned long long) c.row);
            if (is_classify(report))
                printf("%s", vkmoe_model_class(report->model, (uint32_t) c.label));
            else
                printf("%.5g", (double) c.value);
            printf(") %.3f", (double) c.gate);
        }
        printf("\n");
    }
}

static void print_features(const struct explain_report *report)
{
    printf("\n%-7s strongest features of its score: weight times standard deviation\n", "expert");
    for (uint32_t e = 0; e < report->desc.n_experts; e++) {
        vkmoe_explain_feature f;
        printf("%-7u", (unsigned) e);
        for (uint32_t i = 0; i < FEATURES && vkmoe_explain_get_feature(report->explain, e, i, &f) ==
                                                 VKMOE_OK; i++) {
            char name[EXPLAIN_NAME];
            explain_feature_name(report, f.feature, name);
            printf("%s %s %+.3f", i ? "," : "", name, unsigned_nan(f.effect));
        }
        printf("\n");
    }
}

// ---- rows ------------------------------------------------------------------------------------

static void print_verdict(const struct explain_report *report, const struct explain_row *row,
                          const struct explain_verdict *v)
{
    printf("\nrow %llu", (unsigned long long) row->row);
    if (!is_classify(report)) {
        for (uint32_t i = 0; i < report->info.n_outputs; i++)
            printf("%s %.6g, the model says %.6g", i ? ";" : " is",
                   (double) row->values[i], unsigned_nan((double) row->scores[i]));
        printf("\n");
        return;
    }
    printf(" is %s, ", vkmoe_model_class(report->model, (uint32_t) row->label));
    if (v->answer < 0) {
        printf("the model says nothing: its outputs are NaN\n");
        return;
    }
    printf("the model says %s (%.1f%%)", vkmoe_model_class(report->model, (uint32_t) v->answer),
           100 * v->score);
    if (v->second >= 0)
        printf("; %s is next, %.4g behind", vkmoe_model_class(report->model, (uint32_t) v->second),
               v->margin);
    printf("; expert %d decided\n", (int) row->ids[v->decider]);
}

static void print_row(const struct explain_report *report, const struct explain_row *row)
{
    const struct explain_verdict v = explain_judge(report, row);
    print_verdict(report, row, &v);
    for (uint32_t k = 0; k < report->desc.top_k; k++) {
        printf("  expert %-4d gate %.4f", (int) row->ids[k],
               unsigned_nan((double) row->gates[k]));
        if (report->has_parts)
            printf("   adds %+.4g", unsigned_nan(explain_part(report, row, &v, k)));
        if (report->has_parts && is_classify(report))
            printf(" to the answer's output, %+.4g to the margin",
                   unsigned_nan(explain_margin_part(report, row, &v, k)));
        printf("\n");
    }
    if (!report->has_parts)
        printf("  (what an expert adds to the output is known of the last layer only)\n");
}

void explain_print(const struct explain_report *report)
{
    print_summary(report);
    print_experts(report);
    if (!is_classify(report))
        print_quantiles(report);
    if (report->n_certain > 0)
        print_certain(report);
    if (vkmoe_explain_get_feature(report->explain, 0, 0, &(vkmoe_explain_feature){0}) == VKMOE_OK)
        print_features(report);
    for (uint32_t i = 0; i < report->n_rows; i++)
        print_row(report, &report->rows[i]);
}
