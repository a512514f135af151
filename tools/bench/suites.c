// SPDX-License-Identifier: MIT
// Suites of cases with a name, so that results can be compared for years.
//
// A suite is frozen: neither its lines nor what they mean ever change. What should be measured
// otherwise gets a new suite with a new name.
#include "cases.h"

#include <stdio.h>

enum { MAX_LINES = 8 };

static const struct suite {
    const char *name;
    double min_seconds; // of timed runs of a case
    struct bench_axes lines[MAX_LINES];
} suites[] = {
    // A minute on two CPU cores.
    {
        .name = "quick",
        .min_seconds = 0.1,
        .lines = {
            {.models = "granite-1b-a400m", .types = "f32,bf16", .tokens = "1,8,64"},
            {.models = "granite-1b-a400m", .types = "bf16", .routings = "zipf:1.2", .tokens = "64"},
            {.models = "olmoe-1b-7b", .types = "bf16", .tokens = "1,64"},
            {.models = "granite-1b-a400m", .types = "f32", .modes = "train", .tokens = "16"},
        },
    },
    // Fits a machine with 8 GB of memory.
    {
        .name = "standard-1",
        .min_seconds = 0.5,
        .lines = {
            {.models = "granite-1b-a400m,olmoe-1b-7b,qwen3-30b-a3b",
             .types = "f32,bf16,f16",
             .tokens = "1,8,64,512"},
            {.models = "olmoe-1b-7b",
             .types = "bf16",
             .routings = "zipf:1.2,single",
             .tokens = "64,512"},
            {.models = "granite-1b-a400m",
             .types = "f32",
             .modes = "backward,train",
             .tokens = "64"},
        },
    },
};

enum { N_SUITES = sizeof suites / sizeof *suites };

static enum vkmoe_status add_line(const struct bench_axes *axes, const struct bench_common *common,
                                  struct bench_cases *out)
{
    enum vkmoe_status status = VKMOE_OK;
    const char *models = axes->models;
    char name[64];
    vkmoe_layer_desc layer;
    while (bench_next_item(&models, name, sizeof name)) {
        CLI_TRY(bench_find_preset(name, false, &layer));
        CLI_TRY(bench_cases_add(axes, common, name, &layer, NULL, 0, out));
    }

fail:
    return status;
}

enum vkmoe_status bench_suite(const char *name, const struct bench_common *common,
                              struct bench_cases *out, double *min_seconds)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct suite *suite = suites;
    while (suite < suites + N_SUITES && strcmp(name, suite->name) != 0)
        suite++;
    if (suite == suites + N_SUITES) {
        char text[160];
        snprintf(text, sizeof text, "--suite %.60s: known are quick and standard-1", name);
        vkmoe_error_set(text);
        return VKMOE_E_ARGUMENT;
    }
    *min_seconds = suite->min_seconds;
    for (int i = 0; i < MAX_LINES && suite->lines[i].models; i++)
        CLI_TRY(add_line(&suite->lines[i], common, out));

fail:
    return status;
}
