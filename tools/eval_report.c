// SPDX-License-Identifier: MIT
// The reports of vkmoe eval.
#include "eval.h"

#include <math.h>
#include <stdio.h>

enum { BAR = 40 };

// ---- JSON ------------------------------------------------------------------------------------

// JSON has no NaN.
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static double total_load(const struct eval *eval)
{
    const uint64_t *load = vkmoe_metrics_load(eval->metrics);
    double total = 0;
    for (uint32_t e = 0; e < eval->desc.n_experts; e++)
        total += (double) load[e];
    return total;
}

static json_t *load_json(const struct eval *eval)
{
    const uint64_t *load = vkmoe_metrics_load(eval->metrics);
    double total = total_load(eval);
    json_t *array = json_array();
    for (uint32_t e = 0; e < eval->desc.n_experts; e++)
        json_array_append_new(array, number((double) load[e] / total));
    return array;
}

static json_t *classes_json(const struct eval *eval)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < eval->info.n_classes; i++) {
        vkmoe_class_metrics c = {0};
        vkmoe_metrics_class(eval->metrics, i, &c);
        json_array_append_new(array, json_pack("{s:s, s:f, s:f, s:f, s:I}", "name",
                                               vkmoe_model_class(eval->model, i), "precision",
                                               c.precision, "recall", c.recall, "f1", c.f1, "n",
                                               (json_int_t) c.n));
    }
    return array;
}

int eval_print_json(const struct eval *eval)
{
    vkmoe_metrics_summary s = {0};
    vkmoe_metrics_get(eval->metrics, &s);
    json_t *json = json_pack("{s:s, s:I, s:o}", "device", eval->device.name, "n", (json_int_t) s.n,
                             "loss", number(s.loss));
    if (eval->info.task == VKMOE_TASK_CLASSIFY) {
        json_object_set_new(json, "accuracy", number(s.accuracy));
        json_object_set_new(json, "classes", classes_json(eval));
    } else {
        json_object_set_new(json, "rmse", number(s.rmse));
        json_object_set_new(json, "r2", number(s.r2));
    }
    json_object_set_new(json, "expert_load", load_json(eval));
    json_object_set_new(json, "rows_per_s", number((double) s.n / eval->compute_seconds));
    return cli_print_json(json);
}

// ---- text ------------------------------------------------------------------------------------

static void print_bar(double fraction)
{
    for (int i = 0; i < (int) lround(fraction * BAR); i++)
        putchar('#');
    putchar('\n');
}

static void print_classes(const struct eval *eval)
{
    printf("\n%-12s %9s %9s %9s %9s\n", "class", "precision", "recall", "f1", "rows");
    for (uint32_t i = 0; i < eval->info.n_classes; i++) {
        vkmoe_class_metrics c = {0};
        vkmoe_metrics_class(eval->metrics, i, &c);
        printf("%-12s %8.1f%% %8.1f%% %8.1f%% %9llu\n", vkmoe_model_class(eval->model, i),
               100 * c.precision, 100 * c.recall, 100 * c.f1, (unsigned long long) c.n);
    }
}

static void print_load(const struct eval *eval)
{
    const uint64_t *load = vkmoe_metrics_load(eval->metrics);
    double total = total_load(eval), largest = 0;
    for (uint32_t e = 0; e < eval->desc.n_experts; e++)
        largest = fmax(largest, (double) load[e]);
    printf("\n%-12s %9s %9s   (layer %u; each %s goes to %u of %u experts)\n", "expert",
           vkmoe_model_is_by_token(eval->model, eval->layer) ? "tokens" : "rows",
           "share", (unsigned) eval->layer,
           vkmoe_model_is_by_token(eval->model, eval->layer) ? "token" : "row",
           (unsigned) eval->desc.top_k,
           (unsigned) eval->desc.n_experts);
    for (uint32_t e = 0; e < eval->desc.n_experts; e++) {
        printf("%-12u %9llu %8.1f%%   ", (unsigned) e, (unsigned long long) load[e],
               100 * (double) load[e] / total);
        print_bar((double) load[e] / largest);
    }
}

// A NaN has a sign, which printf would show.
static double unsigned_nan(double value)
{
    return isnan(value) ? (double) NAN : value;
}

int eval_print_text(const struct eval *eval)
{
    vkmoe_metrics_summary s = {0};
    vkmoe_metrics_get(eval->metrics, &s);
    printf("device       %s (%s%s%s)\n", eval->device.name, cli_device_type(eval->device.type),
           *eval->device.tier ? ", " : "", eval->device.tier);
    printf("rows         %llu\n", (unsigned long long) s.n);
    if (eval->info.task == VKMOE_TASK_CLASSIFY)
        printf("accuracy     %.2f%% (%.0f of %llu)\n", 100 * s.accuracy,
               s.accuracy * (double) s.n, (unsigned long long) s.n);
    else
        printf("rmse         %.6g\nr2           %.6g\n", unsigned_nan(s.rmse),
               unsigned_nan(s.r2));
    printf("loss         %.6g\n", unsigned_nan(s.loss));
    printf("compute      %.3f ms, %.0f rows/s\n", 1e3 * eval->compute_seconds,
           (double) s.n / eval->compute_seconds);
    printf("in all       %.1f ms\n", 1e3 * eval->whole_seconds);
    if (eval->info.task == VKMOE_TASK_CLASSIFY)
        print_classes(eval);
    if (eval->desc.n_experts > 0)
        print_load(eval);
    if (eval->image_side)
        eval_print_examples(eval);
    return CLI_OK;
}
