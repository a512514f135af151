// SPDX-License-Identifier: MIT
// The reports of vkmoe train.
#include "train.h"

#include <math.h>
#include <stdio.h>

static bool classifies(const struct train *train)
{
    return train->report.info.task == VKMOE_TASK_CLASSIFY;
}

// ---- JSON ------------------------------------------------------------------------------------

// JSON has no NaN.
static json_t *number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *summary_json(const struct train *train, const vkmoe_metrics_summary *s)
{
    if (s->n == 0)
        return json_null();
    json_t *json = json_pack("{s:I, s:o}", "n", (json_int_t) s->n, "loss", number(s->loss));
    if (classifies(train)) {
        json_object_set_new(json, "accuracy", number(s->accuracy));
    } else {
        json_object_set_new(json, "rmse", number(s->rmse));
        json_object_set_new(json, "r2", number(s->r2));
    }
    return json;
}

static json_t *classes_json(const struct train *train)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < train->report.info.n_classes; i++) {
        vkmoe_class_metrics c = {0};
        vkmoe_trainer_class(train->trainer, i, &c);
        json_array_append_new(array, json_pack("{s:s, s:f, s:f, s:f, s:I}", "name",
                                               vkmoe_trainer_class_name(train->trainer, i),
                                               "precision", c.precision, "recall", c.recall, "f1",
                                               c.f1, "n", (json_int_t) c.n));
    }
    return array;
}

static json_t *compare_json(const struct train *train)
{
    const struct train_compare *c = &train->compare;
    json_t *json = json_pack("{s:I, s:{s:I, s:I, s:o, s:f}}", "active_params",
                             (json_int_t) c->moe_params, "dense", "d_hidden",
                             (json_int_t) c->d_hidden, "n_params", (json_int_t) c->dense_params,
                             "valid", summary_json(train, &c->dense), "seconds", c->dense_seconds);
    if (classifies(train))
        json_object_set_new(json, "nearest_neighbour", number(c->nearest));
    return json;
}

int train_print_json(const struct train *train)
{
    const vkmoe_trainer_report *r = &train->report;
    json_t *json = json_pack(
        "{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:b, s:f, s:o, s:o}", "device", train->info.name,
        "model", train->output, "n_features", (json_int_t) r->info.n_features, "n_params",
        (json_int_t) r->n_params, "epochs", (json_int_t) r->epochs, "steps",
        (json_int_t) r->steps, "best_epoch", (json_int_t) r->best_epoch, "stopped_early",
        (int) r->stopped_early, "seconds", r->seconds, "train", summary_json(train, &r->train),
        "valid", summary_json(train, &r->valid));
    if (classifies(train))
        json_object_set_new(json, "classes", classes_json(train));
    if (train->compare.wanted)
        json_object_set_new(json, "compare", compare_json(train));
    return cli_print_json(json);
}

// ---- text ------------------------------------------------------------------------------------

static void print_summary(const struct train *train, const char *name,
                          const vkmoe_metrics_summary *s)
{
    if (s->n == 0)
        return;
    printf("%-12s loss %.5g, ", name, s->loss);
    if (classifies(train))
        printf("accuracy %.2f%% (%.0f of %llu)\n", 100 * s->accuracy,
               s->accuracy * (double) s->n, (unsigned long long) s->n);
    else
        printf("RMSE %.5g, R2 %.4f (%llu rows)\n", s->rmse, s->r2, (unsigned long long) s->n);
}

static void print_classes(const struct train *train)
{
    if (!classifies(train))
        return;
    printf("\n%-12s %9s %9s %9s %9s\n", "class", "precision", "recall", "f1", "rows");
    for (uint32_t i = 0; i < train->report.info.n_classes; i++) {
        vkmoe_class_metrics c = {0};
        vkmoe_trainer_class(train->trainer, i, &c);
        printf("%-12s %9.4f %9.4f %9.4f %9llu\n", vkmoe_trainer_class_name(train->trainer, i),
               c.precision, c.recall, c.f1, (unsigned long long) c.n);
    }
}

static void print_compare(const struct train *train)
{
    const struct train_compare *c = &train->compare;
    if (!c->wanted)
        return;
    printf("\nBeside it, on the same rows:\n");
    printf("dense network of %u hidden units, %llu parameters (a row meets %llu of the mixture's), "
           "trained alike in %.2f s:\n",
           c->d_hidden, (unsigned long long) c->dense_params, (unsigned long long) c->moe_params,
           c->dense_seconds);
    print_summary(train, "  valid", &c->dense);
    if (classifies(train))
        printf("one nearest neighbour: accuracy %.2f%%\n", 100 * c->nearest);
}

int train_print_text(const struct train *train)
{
    const vkmoe_trainer_report *r = &train->report;
    printf("device       %s\n", train->info.name);
    printf("trained      %llu parameters, %u epochs, %llu steps, %.2f s\n",
           (unsigned long long) r->n_params, r->epochs, (unsigned long long) r->steps, r->seconds);
    if (r->best_epoch > 0)
        printf("best epoch   %u%s\n", r->best_epoch, r->stopped_early ? ", stopped early" : "");
    print_summary(train, "train", &r->train);
    print_summary(train, "valid", &r->valid);
    print_classes(train);
    print_compare(train);
    printf("\nmodel        %s\n", train->output);
    return CLI_OK;
}
