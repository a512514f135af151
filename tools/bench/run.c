// SPDX-License-Identifier: MIT
#include "run.h"

#include "check.h"
#include "routing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

struct run {
    const struct bench_run_options *options;
    const struct bench_cases *cases;
    struct bench_file *file;
    vkmoe_context *oracle;
    double began;
    uint32_t n_done, n_total;
    bool wrong, failed; // outputs; anything else
};

// A device in use.
struct place {
    vkmoe_context *context;
    struct bench_device *device; // in the file
    uint32_t index;
    struct bench_meter *meter;
    bool has_int8;
    bool lost;
};

// ---- rows --------------------------------------------------------------------------------------

static void row_init(struct bench_row *row, const struct place *place,
                     const struct bench_case *what)
{
    const struct bench_times no_times = {
        .median_us = NAN, .p5_us = NAN, .p95_us = NAN, .mad_us = NAN};
    *row = (struct bench_row){
        .device = place->index,
        .key = what->key,
        .verify = {.state = "none", .error = NAN, .limit = NAN},
        .device_times = no_times,
        .wall_times = no_times,
        .first_call_ms = NAN,
        .bytes = NAN,
        .flops = NAN,
        .bytes_per_s = NAN,
        .flops_per_s = NAN,
        .tokens_per_s = NAN,
        .read_rate = NAN,
        .peak = NAN,
        .dispatch_us = NAN,
        .floor_us = NAN,
        .floor_fraction = NAN,
        .cv_rows = NAN,
        .device_bytes = NAN,
        .clock_mhz = NAN,
        .clock_min_mhz = NAN,
        .power_w = NAN,
        .rereads = NAN,
        .useful_fraction = NAN,
    };
    if (place->device->info.type == VKMOE_DEVICE_CPU)
        row->key.n_threads = place->device->n_threads;
}

// The row of a case that was not measured, or not to the end.
static void end_row(struct bench_row *row, enum bench_status status, const char *reason)
{
    row->status = status;
    snprintf(row->reason, sizeof row->reason, "%s", reason);
}

// Who reads a file may not look at the status: a row that must not be used has no numbers.
static void drop_numbers(struct bench_row *row, const struct place *place,
                         const struct bench_case *what)
{
    struct bench_row measured = *row;
    row_init(row, place, what);
    row->status = measured.status;
    row->verify = measured.verify;
    memcpy(row->reason, measured.reason, sizeof row->reason);
    memcpy(row->kernel, measured.kernel, sizeof row->kernel);
    bench_row_finish(&measured);
}

static struct bench_row *new_row(struct run *run)
{
    struct bench_file *file = run->file;
    if (file->n_rows % 64 == 0) {
        struct bench_row *grown = realloc(file->rows, (file->n_rows + 64) * sizeof *grown);
        if (!grown)
            return NULL;
        file->rows = grown;
    }
    return &file->rows[file->n_rows];
}

// ---- one case ----------------------------------------------------------------------------------

static enum vkmoe_status count_runs(const struct bench_work *work, struct bench_row *row)
{
    enum vkmoe_status status;
    const struct bench_case *what = work->what;
    vkmoe_plan_desc desc = vkmoe_plan_desc_init();
    vkmoe_plan *plan = NULL;
    vkmoe_bind *bind = NULL;
    vkmoe_plan_kernels kernels;
    vkmoe_weights_layout layout;
    desc.layer = &what->layer;
    desc.max_tokens = what->key.n_tokens;
    desc.precision = what->precision;
    desc.x_type = what->x_type;
    desc.variant = what->variant;
    desc.counters = true;
    CLI_TRY(vkmoe_plan_create(work->context, &desc, &plan));
    CLI_TRY(vkmoe_bind_create(plan, work->weights[0], NULL, &bind));
    CLI_TRY(vkmoe_run(bind, what->key.n_tokens, &work->ios[0]));
    CLI_TRY(vkmoe_bind_get_counters(bind, &row->counters));
    CLI_TRY(vkmoe_plan_get_kernels(plan, &kernels));
    CLI_TRY(vkmoe_weights_get_layout(work->context, &what->layer, &layout));
    row->counted = true;
    double active = row->n_experts_hit * (double) kernels.weights_size +
                    (double) layout.shared_size;
    double live = (double) row->counters.live_columns;
    row->rereads = (double) row->counters.weight_loads / active;
    row->useful_fraction = live / (live + (double) row->counters.padded_columns);

fail:
    vkmoe_bind_destroy(bind);
    vkmoe_plan_destroy(plan);
    return status;
}

// A device that cannot count keeps its times.
static enum vkmoe_status count(const struct bench_work *work, struct bench_row *row)
{
    enum vkmoe_status status = count_runs(work, row);
    if (status != VKMOE_E_UNSUPPORTED)
        return status;
    snprintf(row->reason, sizeof row->reason, "not counted: %.200s", vkmoe_error_text());
    return VKMOE_OK;
}

static enum vkmoe_status open_oracle(struct run *run)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    vkmoe_host host = cli_host(&run->options->device);
    desc.host = &host;
    desc.device = "reference";
    return run->oracle ? VKMOE_OK : vkmoe_context_create(&desc, &run->oracle);
}

static void verify(struct run *run, const struct bench_work *work, struct bench_row *row)
{
    if (run->options->no_verify)
        bench_check_impossible(row, "--no-verify");
    else if (open_oracle(run) != VKMOE_OK)
        bench_check_impossible(row, "reference: %s", vkmoe_error_text());
    else if (work->net)
        bench_check_net(work, run->oracle, row);
    else
        bench_check(work, run->oracle, row);
    run->wrong |= row->status == BENCH_ERROR;
}

static enum vkmoe_status measure(struct run *run, const struct place *place,
                                 const struct bench_case *what, struct bench_row *row)
{
    enum vkmoe_status status;
    struct bench_work work;
    vkmoe_plan_kernels kernels;
    CLI_TRY(bench_work_create(what, place->context, &place->device->info, &work,
                              &row->first_call_ms));
    row->n_copies = work.n_weights;
    row->device_bytes = work.device_bytes;
    if (work.plan && vkmoe_plan_get_kernels(work.plan, &kernels) == VKMOE_OK)
        snprintf(row->kernel, sizeof row->kernel, "%s", kernels.name);
    CLI_TRY(bench_routing_count(work.material->wanted, row));
    CLI_TRY(bench_measure(place->meter, &work, &run->options->measure, row));
    verify(run, &work, row);
    if (run->options->count && work.plan && row->status != BENCH_ERROR)
        CLI_TRY(count(&work, row));

fail:
    bench_work_destroy(&work);
    return status;
}

// What becomes of a failure. An interrupt leaves no row.
static void fail_row(struct run *run, struct place *place, enum vkmoe_status status,
                     struct bench_row *row)
{
    switch (status) {
    case VKMOE_E_UNSUPPORTED:
        end_row(row, BENCH_UNSUPPORTED, vkmoe_error_text());
        return;
    case VKMOE_E_MEMORY:
    case VKMOE_E_DEVICE_MEMORY:
        end_row(row, BENCH_SKIPPED, vkmoe_error_text());
        return;
    default:
        end_row(row, BENCH_ERROR, vkmoe_error_text());
        place->lost |= status == VKMOE_E_DEVICE_LOST;
        run->failed = true;
        return;
    }
}

static void show_progress(const struct run *run, const struct bench_case *what)
{
    char name[256], left[32] = "";
    double seconds = cli_clock() - run->began;
    bench_key_text(&what->key, name, sizeof name);
    if (run->n_done > 0) {
        double rest = seconds / run->n_done * (run->n_total - run->n_done);
        if (rest < 100)
            snprintf(left, sizeof left, ", %.0f s left", rest);
        else
            snprintf(left, sizeof left, ", %.0f min left", ceil(rest / 60));
    }
    cli_progress_text("bench %u/%u%s: %s", (unsigned) run->n_done + 1, (unsigned) run->n_total,
                      left, name);
}

// VKMOE_E_CANCELLED: interrupted, and there is no row of this case.
static enum vkmoe_status run_case(struct run *run, struct place *place,
                                  const struct bench_case *what)
{
    enum vkmoe_status status = VKMOE_OK;
    struct bench_row *row = new_row(run);
    if (!row) {
        vkmoe_error_set("no memory for the results");
        return VKMOE_E_MEMORY;
    }
    row_init(row, place, what);
    if (place->lost)
        end_row(row, BENCH_SKIPPED, "the device was lost");
    else if (*what->refusal)
        end_row(row, BENCH_UNSUPPORTED, what->refusal);
    else
        status = measure(run, place, what, row);
    if (status == VKMOE_E_CANCELLED) {
        bench_row_finish(row);
        return status;
    }
    if (status != VKMOE_OK)
        fail_row(run, place, status, row);
    if (!bench_row_is_timed(row))
        drop_numbers(row, place, what);
    run->file->n_rows++;
    run->n_done++;
    return VKMOE_OK;
}

// ---- one device --------------------------------------------------------------------------------

// A case as this device computes it.
static struct bench_case case_for(const struct place *place, const struct bench_case *what)
{
    struct bench_case out = *what;
    if (what->or_exact && !place->has_int8) {
        out.precision = VKMOE_PRECISION_EXACT;
        snprintf(out.key.precision, sizeof out.key.precision, "exact");
    }
    return out;
}

static enum vkmoe_status run_cases(struct run *run, struct place *place)
{
    for (uint32_t i = 0; i < run->cases->n; i++) {
        const struct bench_case what = case_for(place, &run->cases->cases[i]);
        if (cli_interrupted())
            return VKMOE_E_CANCELLED;
        show_progress(run, &what);
        enum vkmoe_status status = run_case(run, place, &what);
        if (status != VKMOE_OK)
            return status;
    }
    return VKMOE_OK;
}

// The device's exit code is *code: of validation messages, or what it was.
static enum vkmoe_status run_device(struct run *run, const char *spec, int *code)
{
    enum vkmoe_status status;
    struct bench_file *file = run->file;
    struct place place = {.device = &file->devices[file->n_devices], .index = file->n_devices};
    struct cli_device options = run->options->device;
    options.spec = spec;
    CLI_TRY(cli_open(&options, &place.context, &place.device->info));
    file->n_devices++;
    place.has_int8 = cli_has_int8(place.context);
    CLI_TRY(bench_meter_open(place.context, &options, place.device, &place.meter));
    CLI_TRY(run_cases(run, &place));
    if (place.lost)
        file->complete = false;

fail:
    bench_meter_close(place.meter);
    *code = cli_close(place.context, *code);
    return status;
}

// ---- all of them -------------------------------------------------------------------------------

struct specs {
    const char **texts; // (n)
    char (*numbers)[8]; // indices of devices, as texts
    uint32_t n;
};

static bool is_all(const char *text)
{
    return text && strcmp(text, "all") == 0;
}

// The indices of all devices, if "all" is asked for: to list them every driver is loaded.
static enum vkmoe_status number_devices(const struct cli_list *given, struct specs *out,
                                        uint32_t *n_all)
{
    enum vkmoe_status status = VKMOE_OK;
    bool wanted = false;
    *n_all = 0;
    for (int i = 0; i < given->n; i++)
        wanted |= is_all(given->texts[i]);
    if (!wanted)
        return VKMOE_OK;
    CLI_TRY(vkmoe_device_list(NULL, n_all));
    CLI_TRY(cli_alloc(*n_all, 1, sizeof *out->numbers, &out->numbers));
    for (uint32_t i = 0; i < *n_all; i++)
        snprintf(out->numbers[i], sizeof out->numbers[i], "%u", (unsigned) i % 1000);

fail:
    return status;
}

// "all" stands for the index of each device there is.
static enum vkmoe_status list_specs(const struct cli_list *given, struct specs *out)
{
    enum vkmoe_status status;
    uint32_t n_all, n_given = given->n > 0 ? (uint32_t) given->n : 1;
    CLI_TRY(number_devices(given, out, &n_all));
    CLI_TRY(cli_alloc(n_given, n_all + 1, sizeof *out->texts, &out->texts));
    for (uint32_t i = 0; i < n_given; i++) {
        const char *text = given->n > 0 ? given->texts[i] : NULL;
        if (!is_all(text))
            out->texts[out->n++] = text;
        for (uint32_t j = 0; is_all(text) && j < n_all; j++)
            out->texts[out->n++] = out->numbers[j];
    }

fail:
    return status;
}

int bench_run(const struct bench_run_options *options, const struct bench_cases *cases,
              struct bench_file *file)
{
    enum vkmoe_status status;
    struct run run = {.options = options, .cases = cases, .file = file, .began = cli_clock()};
    struct specs specs = {0};
    int code = CLI_OK;
    CLI_TRY(list_specs(options->specs, &specs));
    CLI_TRY(cli_alloc(specs.n, 1, sizeof *file->devices, &file->devices));
    run.n_total = specs.n * cases->n;
    file->complete = true;
    for (uint32_t i = 0; i < specs.n; i++)
        CLI_TRY(run_device(&run, specs.texts[i], &code));

fail:
    cli_progress_end();
    free(specs.texts);
    free(specs.numbers);
    vkmoe_context_destroy(run.oracle);
    if (status != VKMOE_OK) {
        file->complete = false;
        return cli_fail(status);
    }
    return run.wrong ? CLI_VERIFY_FAILED : run.failed ? CLI_FAILED : code;
}
