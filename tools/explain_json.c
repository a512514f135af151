// SPDX-License-Identifier: MIT
// vkmoe explain as JSON.
#include "explain.h"

#include <math.h>

// JSON has no NaN.
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *counts(const uint64_t *values, uint32_t n)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(array, json_integer((json_int_t) values[i]));
    return array;
}

static json_t *numbers(const double *values, uint32_t n)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(array, number(values[i]));
    return array;
}

static json_t *floats(const float *values, uint32_t n)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < n; i++)
        json_array_append_new(array, number((double) values[i]));
    return array;
}

static bool is_classify(const struct explain_report *report)
{
    return report->info.task == VKMOE_TASK_CLASSIFY;
}

static json_t *class_name(const struct explain_report *report, int32_t class)
{
    const char *name = class < 0 ? NULL : vkmoe_model_class(report->model, (uint32_t) class);
    return name ? json_string(name) : json_null();
}

static json_t *groups_json(const struct explain_report *report)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < report->summary.n_groups; i++) {
        vkmoe_explain_group g;
        char name[EXPLAIN_NAME];
        vkmoe_explain_get_group(report->explain, i, &g);
        explain_group_name(report, i, name);
        json_t *group = json_pack("{s:s, s:I}", "name", name, "n", (json_int_t) g.n_rows);
        if (!is_classify(report)) {
            json_object_set_new(group, "low", number(g.low));
            json_object_set_new(group, "high", number(g.high));
        }
        json_array_append_new(array, group);
    }
    return array;
}

static json_t *certain_json(const struct explain_report *report, uint32_t expert)
{
    json_t *array = json_array();
    vkmoe_explain_certain c;
    for (uint32_t i = 0;
         vkmoe_explain_get_certain(report->explain, expert, i, NULL, &c) == VKMOE_OK; i++) {
        json_t *input = json_pack("{s:I, s:o}", "row", (json_int_t) c.row, "gate",
                                  number((double) c.gate));
        if (is_classify(report))
            json_object_set_new(input, "class", class_name(report, c.label));
        else
            json_object_set_new(input, "target", number((double) c.value));
        json_array_append_new(array, input);
    }
    return array;
}

static json_t *features_json(const struct explain_report *report, uint32_t expert)
{
    json_t *array = json_array();
    vkmoe_explain_feature f;
    for (uint32_t i = 0;
         vkmoe_explain_get_feature(report->explain, expert, i, &f) == VKMOE_OK; i++) {
        const char *name = explain_header_name(report, f.feature);
        json_array_append_new(array, json_pack("{s:i, s:o, s:o, s:o, s:o}", "feature",
                                               (int) f.feature, "name",
                                               name ? json_string(name) : json_null(), "weight",
                                               number(f.weight), "std", number(f.std), "effect",
                                               number(f.effect)));
    }
    return array;
}

static json_t *experts_json(const struct explain_report *report)
{
    json_t *array = json_array();
    const uint32_t n_groups = report->summary.n_groups;
    for (uint32_t i = 0; i < report->desc.n_experts; i++) {
        vkmoe_explain_expert e;
        vkmoe_explain_get_expert(report->explain, i, &e);
        json_t *expert = json_pack(
            "{s:i, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "expert", (int) i, "slots",
            (json_int_t) e.n_slots, "first", (json_int_t) e.n_first, "share", number(e.share),
            "gate_mean", number(e.gate_mean), "information", number(e.information),
            "group_slots", counts(e.slots, n_groups), "group_gates", numbers(e.gates, n_groups),
            "gate_histogram", counts(e.histogram, VKMOE_EXPLAIN_BINS), "certain",
            certain_json(report, i), "features", features_json(report, i));
        if (!is_classify(report))
            json_object_set_new(expert, "target_quantiles", numbers(e.quantiles, 5));
        json_array_append_new(array, expert);
    }
    return array;
}

static json_t *row_json(const struct explain_report *report, const struct explain_row *row)
{
    const struct explain_verdict v = explain_judge(report, row);
    const uint32_t n_outputs = report->info.n_outputs;
    json_t *json = json_pack("{s:I, s:o}", "row", (json_int_t) row->row, "outputs",
                             floats(row->y, n_outputs));
    if (is_classify(report)) {
        json_object_set_new(json, "class", class_name(report, row->label));
        json_object_set_new(json, "answer", class_name(report, v.answer));
        json_object_set_new(json, "score", number(v.score));
        json_object_set_new(json, "runner_up", class_name(report, v.second));
        json_object_set_new(json, "margin", number(v.margin));
    } else {
        json_object_set_new(json, "targets", floats(row->values, n_outputs));
        json_object_set_new(json, "answers", floats(row->scores, n_outputs));
    }
    json_object_set_new(json, "decided_by", json_integer(row->ids[v.decider]));
    json_t *experts = json_array();
    for (uint32_t k = 0; k < report->desc.top_k; k++) {
        json_t *expert = json_pack("{s:i, s:o}", "expert", (int) row->ids[k], "gate",
                                   number((double) row->gates[k]));
        if (report->has_parts) {
            json_object_set_new(expert, "adds", number(explain_part(report, row, &v, k)));
            if (is_classify(report))
                json_object_set_new(expert, "adds_to_margin",
                                    number(explain_margin_part(report, row, &v, k)));
        }
        json_array_append_new(experts, expert);
    }
    json_object_set_new(json, "experts", experts);
    return json;
}

json_t *explain_json(const struct explain_report *report)
{
    const vkmoe_explain_summary *s = &report->summary;
    json_t *rows = json_array();
    for (uint32_t i = 0; i < report->n_rows; i++)
        json_array_append_new(rows, row_json(report, &report->rows[i]));
    json_t *information = json_pack(
        "{s:o, s:o, s:o, s:o, s:o}", "slots", number(s->information), "gates",
        number(s->information_gates), "first", number(s->information_first), "chance_first",
        number(s->chance_first), "group_entropy", number(s->group_entropy));
    return json_pack("{s:s, s:s, s:i, s:b, s:i, s:i, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "device",
                     report->device.name, "task", is_classify(report) ? "classify" : "regress",
                     "layer", (int) report->layer, "tokens", report->by_token, "n_experts",
                     (int) report->desc.n_experts, "top_k", (int) report->desc.top_k, "n",
                     (json_int_t) s->n_rows, "undecided", (json_int_t) s->n_undecided, "groups",
                     groups_json(report), "information", information, "load_entropy",
                     number(s->load_entropy), "experts", experts_json(report), "rows", rows);
}
