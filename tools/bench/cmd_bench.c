// SPDX-License-Identifier: MIT
// vkmoe bench: how fast layers are on devices, with numbers that can be trusted.
#include "commands.h"
#include "host.h"
#include "presets.h"
#include "routing.h"
#include "run.h"
#include "source.h"

#include <stdio.h>
#include <stdlib.h>
#include <vkmoe/model.h>

#define NOT_GIVEN UINT32_MAX

struct bench {
    struct bench_run_options run;
    struct cli_list devices, models, shapes, routings;
    struct bench_axes axes;
    struct bench_common common;
    const char *suite, *filter, *out_path, *report_path;
    const char *assume, *desc_path; // of models on disk
    uint32_t layer;                 // of them
    double budget_ms, min_seconds; // 0: not given
    int format;                    // enum bench_format; -1: not given
    bool list, dry_run;
    struct bench_cases cases;
    struct bench_file file;
};

// ---- which cases -------------------------------------------------------------------------------

static bool is_file(const char *name)
{
    FILE *file = strchr(name, '.') || strchr(name, '/') ? fopen(name, "re") : NULL;
    if (file)
        fclose(file);
    return file != NULL;
}

static enum vkmoe_status add_layer(struct bench *bench, const char *name,
                                   const vkmoe_layer_desc *layer)
{
    return bench_cases_add(&bench->axes, &bench->common, name, layer, bench->routings.texts,
                           bench->routings.n, &bench->cases);
}

// "digits.safetensors:0" of "models/digits.safetensors", "OLMoE-1B-7B:3" of "OLMoE-1B-7B/".
static void name_layer(const char *path, uint32_t layer, char *out, size_t size)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/')
        begin--;
    size_t n = end - begin < 40 ? end - begin : 40;
    snprintf(out, size, "%.*s:%u", (int) n, path + begin, (unsigned) layer);
}

// Its layer as it is, never the plain one of its shape.
static enum vkmoe_status add_named_layer(struct bench *bench, const char *path,
                                         const vkmoe_layer_desc *layer)
{
    char name[sizeof bench->cases.cases->key.model];
    const bool plain = bench->common.plain;
    name_layer(path, bench->layer, name, sizeof name);
    bench->common.plain = false;
    enum vkmoe_status status = add_layer(bench, name, layer);
    bench->common.plain = plain;
    return status;
}

static enum vkmoe_status add_model_file(struct bench *bench, const char *path)
{
    enum vkmoe_status status;
    vkmoe_model *model = NULL;
    vkmoe_layer_desc layer;
    vkmoe_host host = cli_host(&bench->run.device);
    CLI_TRY(vkmoe_model_open(&host, path, &model));
    CLI_TRY(vkmoe_model_layer(model, bench->layer, &layer));
    CLI_TRY(add_named_layer(bench, path, &layer));

fail:
    vkmoe_model_destroy(model);
    return status;
}

static enum vkmoe_status add_checkpoint(struct bench *bench, const char *path)
{
    enum vkmoe_status status;
    vkmoe_checkpoint *checkpoint = NULL;
    vkmoe_checkpoint_layer layer;
    vkmoe_host host = cli_host(&bench->run.device);
    CLI_TRY(source_open(&host, path, bench->assume, bench->desc_path, &checkpoint));
    CLI_TRY(vkmoe_checkpoint_get_layer(checkpoint, bench->layer, &layer));
    if (!layer.has_experts) {
        char text[512];
        snprintf(text, sizeof text, "%.200s: layer %u has no experts: %.200s", path,
                 (unsigned) bench->layer, layer.reason);
        vkmoe_error_set(text);
        CLI_TRY(VKMOE_E_ARGUMENT);
    }
    CLI_TRY(add_named_layer(bench, path, &layer.desc));

fail:
    vkmoe_checkpoint_destroy(checkpoint);
    return status;
}

// Either way weights are made up for the layer, of its types: how fast it is does not depend on
// their values, and copies of them are made without reading them.
static enum vkmoe_status add_model(struct bench *bench, const char *path)
{
    bool published = bench->assume || bench->desc_path || source_is_published(path);
    return published ? add_checkpoint(bench, path) : add_model_file(bench, path);
}

static enum vkmoe_status add_models(struct bench *bench, const char *list)
{
    enum vkmoe_status status = VKMOE_OK;
    char name[64];
    vkmoe_layer_desc layer;
    if (is_file(list))
        return add_model(bench, list);
    while (bench_next_item(&list, name, sizeof name)) {
        CLI_TRY(bench_find_preset(name, bench->common.plain, &layer));
        CLI_TRY(add_layer(bench, name, &layer));
    }

fail:
    return status;
}

// Four numbers below 2^32 with commas between them.
static bool read_sizes(const char *text, uint32_t sizes[4])
{
    for (int i = 0; i < 4; i++) {
        char *end;
        unsigned long long size = strtoull(text, &end, 10);
        if (*text < '0' || *text > '9' || size > UINT32_MAX || *end != (i < 3 ? ',' : '\0'))
            return false;
        sizes[i] = (uint32_t) size;
        text = end + 1;
    }
    return true;
}

// "E,K,D,F"
static enum vkmoe_status add_shape(struct bench *bench, const char *text)
{
    uint32_t sizes[4];
    char message[128];
    if (read_sizes(text, sizes)) {
        vkmoe_layer_desc layer = bench_plain_layer(sizes[0], sizes[1], sizes[2], sizes[3], 0);
        return add_layer(bench, "", &layer);
    }
    snprintf(message, sizeof message, "--shape %.48s: needs E,K,D,F: n_experts,top_k,d_model,d_ff",
             text);
    vkmoe_error_set(message);
    return VKMOE_E_ARGUMENT;
}

static enum vkmoe_status collect(struct bench *bench)
{
    enum vkmoe_status status = VKMOE_OK;
    double suite_seconds = 0;
    if (bench->suite)
        CLI_TRY(bench_suite(bench->suite, &bench->common, &bench->cases, &suite_seconds));
    for (int i = 0; i < bench->models.n; i++)
        CLI_TRY(add_models(bench, bench->models.texts[i]));
    for (int i = 0; i < bench->shapes.n; i++)
        CLI_TRY(add_shape(bench, bench->shapes.texts[i]));
    if (bench->filter)
        CLI_TRY(bench_cases_filter(&bench->cases, bench->filter));
    if (bench->min_seconds > 0)
        bench->run.measure.min_seconds = bench->min_seconds;
    else if (suite_seconds > 0)
        bench->run.measure.min_seconds = suite_seconds;

fail:
    return status;
}

// ---- what is printed ---------------------------------------------------------------------------

static int list_presets(void)
{
    const char *name;
    for (uint32_t i = 0; (name = bench_preset_name(i)); i++) {
        vkmoe_layer_desc layer;
        char rule[64], expert[64], shape[64];
        bench_preset(name, &layer);
        bench_rule_text(&layer, rule, sizeof rule);
        bench_expert_text(&layer, expert, sizeof expert);
        int used = snprintf(shape, sizeof shape, "%u,%u,%u,%u", (unsigned) layer.n_experts,
                            (unsigned) layer.top_k, (unsigned) layer.d_model,
                            (unsigned) layer.d_ff);
        if (layer.d_shared_ff)
            snprintf(shape + used, sizeof shape - (size_t) used, "+%u",
                     (unsigned) layer.d_shared_ff);
        char refusal[192];
        bench_layer_refusal(&layer, refusal, sizeof refusal);
        printf("%-20s %-22s %s, %s%s%s\n", name, shape, rule, expert,
               *refusal ? "; only --plain: " : "", refusal);
    }
    return CLI_OK;
}

static int list_cases(const struct bench_cases *cases)
{
    for (uint32_t i = 0; i < cases->n; i++) {
        const struct bench_case *what = &cases->cases[i];
        char name[256];
        bench_key_text(&what->key, name, sizeof name);
        printf("%s%s%s\n", name, *what->refusal ? "  unsupported: " : "", what->refusal);
    }
    return CLI_OK;
}

static enum bench_format format_of(const struct bench *bench)
{
    const char *dot = bench->out_path ? strrchr(bench->out_path, '.') : NULL;
    if (bench->format >= 0)
        return (enum bench_format) bench->format;
    if (dot && strcmp(dot, ".json") == 0)
        return BENCH_JSON;
    return dot && strcmp(dot, ".csv") == 0 ? BENCH_CSV : BENCH_MD;
}

// A path that cannot be written to is found out before the work.
static enum vkmoe_status try_path(const char *path)
{
    vkmoe_file_writer *writer = NULL;
    enum vkmoe_status status = path ? vkmoe_file_create(NULL, path, &writer) : VKMOE_OK;
    vkmoe_file_destroy(writer);
    return status;
}

// One file that cannot be written does not cost the other. The rows may have taken an hour: those
// that a file has no room for are printed.
static int write_results(const struct bench *bench)
{
    int code = CLI_OK;
    enum vkmoe_status status = bench_file_write(&bench->file, format_of(bench), bench->out_path);
    if (status != VKMOE_OK) {
        code = cli_fail(status);
        if (bench->out_path)
            bench_file_write(&bench->file, format_of(bench), NULL);
    }
    status = bench->report_path ? bench_report_html(&bench->file, 1, bench->report_path) : VKMOE_OK;
    return status != VKMOE_OK ? cli_fail(status) : code;
}

static int measure(struct bench *bench)
{
    enum vkmoe_status status;
    int code;
    CLI_TRY(bench_cases_check_traces(&bench->cases));
    CLI_TRY(try_path(bench->out_path));
    CLI_TRY(try_path(bench->report_path));
    bench_host_fill("", &bench->file);
    if (bench->suite && !bench->filter)
        snprintf(bench->file.suite, sizeof bench->file.suite, "%s", bench->suite);
    code = bench_run(&bench->run, &bench->cases, &bench->file);
    // Without a device there is nothing to tell.
    int written = bench->file.n_devices > 0 ? write_results(bench) : CLI_OK;
    return code == CLI_OK ? written : code;

fail:
    return cli_fail(status);
}

// ---- the command -------------------------------------------------------------------------------

static int check_outputs(const struct cli_spec *spec, const struct bench *bench)
{
    int code = CLI_OK;
    for (int i = 0; i < bench->models.n + bench->routings.n && code == CLI_OK; i++) {
        bool model = i < bench->models.n;
        const char *text = model ? bench->models.texts[i]
                                 : bench->routings.texts[i - bench->models.n];
        const char *path = model ? text : strncmp(text, "trace:", 6) == 0 ? text + 6 : NULL;
        code = cli_check_output(spec, bench->out_path, &path, 1);
        if (code == CLI_OK)
            code = cli_check_output(spec, bench->report_path, &path, 1);
    }
    if (code == CLI_OK)
        code = cli_check_output(spec, bench->out_path, &bench->desc_path, 1);
    return code == CLI_OK ? cli_check_output(spec, bench->report_path, &bench->desc_path, 1) : code;
}

static int check_options(const struct cli_spec *spec, struct bench *bench)
{
    const struct bench_axes *axes = &bench->axes;
    bool chosen = bench->models.n || bench->shapes.n;
    bool any = chosen || axes->types || axes->precisions || axes->x_type || axes->modes ||
               axes->tokens || bench->routings.n || bench->common.plain;
    if (bench->suite && any)
        return cli_usage(spec, "--suite says what is measured: only --case chooses among it");
    if (!bench->suite && !chosen && any)
        return cli_usage(spec, "no layer: give -m or --shape; --list shows the presets");
    if (bench->layer != NOT_GIVEN && !bench->models.n)
        return cli_usage(spec, "--layer is of a model file, -m");
    if ((bench->assume || bench->desc_path) && !bench->models.n)
        return cli_usage(spec, "--assume and --desc are of a model, -m");
    if (bench->budget_ms < 0 || bench->min_seconds < 0)
        return cli_usage(spec, "%s: must not be negative",
                         bench->budget_ms < 0 ? "--budget-ms" : "--min-time");
    if (!bench->suite && !chosen)
        bench->suite = "quick";
    if (bench->layer == NOT_GIVEN)
        bench->layer = 0;
    bench->common.budget_ms = (float) bench->budget_ms;
    return check_outputs(spec, bench);
}

int cmd_bench(int argc, char **argv)
{
    struct bench bench = {
        .run = {.device = cli_device_init(),
                .measure = {.min_seconds = 0.3, .min_samples = 10, .max_samples = 2000}},
        .common = {.seed = 1},
        .layer = NOT_GIVEN,
        .format = -1,
    };
    const struct cli_option options[] = {
        {"model", 'm', CLI_LIST, &bench.models, "NAME",
         "presets (see --list) with commas, or a model\n"
         "on disk, as of `run`, by a path with / or .:\n"
         "its layer, with weights made up; may be given\nagain"},
        {"shape", 0, CLI_LIST, &bench.shapes, "E,K,D,F",
         "n_experts, top_k, d_model, d_ff of a softmax\nlayer with gated SiLU; may be given again"},
        {"layer", 0, CLI_U32, &bench.layer, "N", "which layer of a model on disk (0)"},
        SOURCE_OPTIONS(&bench.assume, &bench.desc_path),
        {"plain", 0, CLI_FLAG, &bench.common.plain, NULL,
         "of presets only the shape, as --shape has it"},
        {"suite", 0, CLI_TEXT, &bench.suite, "NAME",
         "quick (a minute; the default) or standard-1\n(frozen, to be compared for years)"},
        {"type", 0, CLI_TEXT, &bench.axes.types, "LIST",
         "of the experts' matrices:\n" CLI_TYPES
         "\n(f32; a file's own); in and down: q4_K-q6_K"},
        {"precision", 0, CLI_TEXT, &bench.axes.precisions, "LIST",
         "exact, half, int8 (half for f16 and bf16, int8\n"
         "for blocks where the device has it, else exact)"},
        {"x-type", 0, CLI_TEXT, &bench.axes.x_type, "TYPE",
         "of x and y (with half the weights', else f32)"},
        {"tokens", 'n', CLI_TEXT, &bench.axes.tokens, "LIST",
         "rows of a run: 1,8,64-512*2,10-30+5 (1,64)"},
        {"routing", 0, CLI_LIST, &bench.routings, "LIST",
         "uniform, zipf:A, single, trace:I.npy as `run\n--ids` writes it (uniform)"},
        {"mode", 0, CLI_TEXT, &bench.axes.modes, "LIST", "forward, backward, train (forward)"},
        {"seed", 0, CLI_U64, &bench.common.seed, "N", "of routing, rows and weights (1)"},
        {"variant", 0, CLI_TEXT, &bench.common.variant, "NAME", "force a kernel"},
        {"budget-ms", 0, CLI_REAL, &bench.budget_ms, "B",
         "longest submission on a GPU (50); 2 leaves\nroom in a frame of graphics"},
        {"case", 0, CLI_TEXT, &bench.filter, "REGEX", "only cases whose name matches"},
        {"dry-run", 0, CLI_FLAG, &bench.dry_run, NULL, "name the cases, measure nothing"},
        {"list", 0, CLI_FLAG, &bench.list, NULL, "list the presets"},
        {"min-time", 0, CLI_REAL, &bench.min_seconds, "S", "least time of a case's runs (0.3)"},
        {"dispatches", 0, CLI_FLAG, &bench.run.measure.dispatches, NULL,
         "the time of each dispatch, too"},
        {"count", 0, CLI_FLAG, &bench.run.count, NULL,
         "what kernels count: re-reads, useful tiles"},
        {"no-verify", 0, CLI_FLAG, &bench.run.no_verify, NULL,
         "do not check results: rows are unverified"},
        {"format", 0, CLI_CHOICE, &bench.format, "md|csv|json",
         "of the results (by the name of -o, else md)"},
        {"output", 'o', CLI_OUTPUT, &bench.out_path, "FILE", "results to a file"},
        {"report", 0, CLI_OUTPUT, &bench.report_path, "FILE", "a page with plots, .html"},
        {0},
    };
    const struct cli_spec spec = {
        .name = "bench",
        .synopsis = "",
        .text = "Measures MoE layers on devices, every combination of what is given. Results are\n"
                "checked against the f64 reference. The device may be given again, or be 'all'.",
        .options = options,
        .device = &bench.run.device,
    };
    int code;
    bench.run.specs = bench.run.device.list = &bench.devices;
    if (!cli_parse(&spec, &argc, &argv, &code))
        return code;
    if (bench.list)
        return list_presets();
    if ((code = check_options(&spec, &bench)) != CLI_OK)
        return code;
    enum vkmoe_status status = collect(&bench);
    if (status == VKMOE_E_ARGUMENT || status == VKMOE_E_SHAPE)
        code = cli_usage(&spec, "%s", vkmoe_error_text());
    else if (status != VKMOE_OK)
        code = cli_fail(status);
    else
        code = bench.dry_run ? list_cases(&bench.cases) : measure(&bench);
    bench_cases_finish(&bench.cases);
    bench_file_finish(&bench.file);
    return code;
}
