// SPDX-License-Identifier: MIT
// vkmoe run: one layer of a model on the rows of a file.
#include "cli.h"
#include "commands.h"
#include "rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <vkmoe/model.h>

enum { BATCH = 1024 };

#define NOT_GIVEN UINT64_MAX

struct run {
    struct cli_device device;
    const char *model_path, *in_path, *out_path, *ids_path, *gates_path, *dy_path, *grads_path;
    uint32_t layer;
    int precision; // enum vkmoe_precision
    uint64_t n_random, seed; // n_random: NOT_GIVEN without --random

    vkmoe_context *context;
    vkmoe_model *model;
    vkmoe_layer_desc desc;
    uint32_t d_in;
    vkmoe_session *session;
    vkmoe_dataset *data; // NULL with --random
    vkmoe_dataset *dy_data; // NULL without --dy
    vkmoe_array_writer *out, *ids, *gates;
    vkmoe_gradients *grads; // NULL without --grads
    float *x, *y, *dy, *gate_rows;
    int32_t *id_rows;
    uint64_t n_rows, n_total;
};

static enum vkmoe_status open_output(const struct run *run, const char *path,
                                     enum vkmoe_array_type type, uint32_t n_columns,
                                     vkmoe_array_writer **out)
{
    vkmoe_host host = cli_host(&run->device);
    return path ? vkmoe_array_create(&host, path, type, n_columns, out) : VKMOE_OK;
}

static enum vkmoe_status fail_dy(const struct run *run, const char *more, uint64_t n,
                                 const char *than)
{
    char text[512];
    snprintf(text, sizeof text, "%.200s: %s %llu rows%s; one row for each row of the input",
             run->dy_path, more, (unsigned long long) n, than);
    vkmoe_error_set(text);
    return VKMOE_E_SHAPE;
}

// The rows of --dy, if it is given; both counts may not be known yet.
static enum vkmoe_status open_dy(struct run *run)
{
    enum vkmoe_status status = VKMOE_OK;
    vkmoe_host host = cli_host(&run->device);
    vkmoe_dataset_desc data = vkmoe_dataset_desc_init();
    vkmoe_dataset_info rows;
    char than[64];
    if (!run->dy_path)
        return VKMOE_OK;
    data.host = &host;
    data.n_features = run->desc.d_out;
    CLI_TRY(vkmoe_dataset_open(run->dy_path, &data, &run->dy_data));
    CLI_TRY(vkmoe_dataset_get_info(run->dy_data, &rows));
    snprintf(than, sizeof than, ", the input has %llu", (unsigned long long) run->n_total);
    if (rows.n_rows > 0 && run->n_total > 0 && rows.n_rows != run->n_total)
        CLI_TRY(fail_dy(run, "has", rows.n_rows, than));

fail:
    return status;
}

// Everything that can fail early does so before the first row: inputs, outputs, then the device.
static enum vkmoe_status open_all(struct run *run)
{
    enum vkmoe_status status;
    vkmoe_device_info info;
    vkmoe_host host = cli_host(&run->device);
    vkmoe_dataset_desc data = vkmoe_dataset_desc_init();
    vkmoe_dataset_info rows = {.n_rows = run->n_random};
    vkmoe_session_desc session = vkmoe_session_desc_init();
    const vkmoe_layer_desc *d = &run->desc;
    CLI_TRY(vkmoe_model_open(&host, run->model_path, &run->model));
    CLI_TRY(vkmoe_model_layer(run->model, run->layer, &run->desc));
    run->d_in = vkmoe_model_layer_d_in(run->model, run->layer);
    if (run->in_path) {
        data.host = &host;
        data.n_features = run->d_in;
        CLI_TRY(vkmoe_dataset_open(run->in_path, &data, &run->data));
        CLI_TRY(vkmoe_dataset_get_info(run->data, &rows));
    }
    run->n_total = rows.n_rows;
    CLI_TRY(open_dy(run));
    CLI_TRY(open_output(run, run->out_path, VKMOE_ARRAY_F32, d->d_out, &run->out));
    CLI_TRY(open_output(run, run->ids_path, VKMOE_ARRAY_I32, d->top_k, &run->ids));
    CLI_TRY(open_output(run, run->gates_path, VKMOE_ARRAY_F32, d->top_k, &run->gates));
    CLI_TRY(cli_open(&run->device, &run->context, &info));
    session.max_rows = BATCH;
    session.one_layer = true;
    session.layer = run->layer;
    session.precision = (enum vkmoe_precision) run->precision;
    CLI_TRY(vkmoe_session_create(run->context, run->model, &session, &run->session));
    if (run->grads_path)
        CLI_TRY(vkmoe_gradients_create(run->session, run->grads_path, &run->grads));
    CLI_TRY(cli_alloc(BATCH, run->d_in, sizeof *run->x, &run->x));
    CLI_TRY(cli_alloc(BATCH, d->d_out, sizeof *run->dy, &run->dy));
    CLI_TRY(cli_alloc(BATCH, d->d_out, sizeof *run->y, &run->y));
    CLI_TRY(cli_alloc(BATCH, d->top_k, sizeof *run->gate_rows, &run->gate_rows));
    CLI_TRY(cli_alloc(BATCH, d->top_k, sizeof *run->id_rows, &run->id_rows));

fail:
    return status;
}

// The next rows of the file, or random ones: x ~ N(0, 1), a function of seed, row and column.
static enum vkmoe_status read_rows(struct run *run, uint32_t *n)
{
    if (run->data)
        return vkmoe_dataset_read(run->data, n, run->x, NULL, NULL);
    uint64_t left = run->n_total - run->n_rows, width = run->d_in;
    *n = left < *n ? (uint32_t) left : *n;
    for (uint64_t i = 0; i < *n * width; i++)
        run->x[i] = rng_normal(run->seed, 0, 0, run->n_rows * width + i);
    return VKMOE_OK;
}

// Reads n rows of --dy; n 0: there must be none left.
static enum vkmoe_status read_dy(struct run *run, uint32_t n)
{
    enum vkmoe_status status;
    uint32_t got = n > 0 ? n : 1;
    CLI_TRY(vkmoe_dataset_read(run->dy_data, &got, run->dy, NULL, NULL));
    if (got < n)
        CLI_TRY(fail_dy(run, "has only", run->n_rows + got, ""));
    if (got > n)
        CLI_TRY(fail_dy(run, "has more than", run->n_rows, ""));

fail:
    return status;
}

// The layer on n rows, forward and backward.
static enum vkmoe_status add_gradients(struct run *run, uint32_t n)
{
    enum vkmoe_status status;
    vkmoe_io io = vkmoe_io_init();
    io.x = run->x;
    io.y = run->y;
    io.ids = run->id_rows;
    io.gates = run->gate_rows;
    CLI_TRY(read_dy(run, n));
    CLI_TRY(vkmoe_gradients_add(run->grads, n, &io, run->dy));

fail:
    return status;
}

static enum vkmoe_status run_rows(struct run *run, uint32_t n)
{
    enum vkmoe_status status;
    vkmoe_session_io io = vkmoe_session_io_init();
    io.x = run->x;
    io.y = run->y;
    io.layer = run->layer;
    io.ids = run->id_rows;
    io.gates = run->gate_rows;
    if (run->grads)
        CLI_TRY(add_gradients(run, n));
    else
        CLI_TRY(vkmoe_session_run(run->session, n, &io));
    if (run->out)
        CLI_TRY(vkmoe_array_append(run->out, n, run->y));
    if (run->ids)
        CLI_TRY(vkmoe_array_append(run->ids, n, run->id_rows));
    if (run->gates)
        CLI_TRY(vkmoe_array_append(run->gates, n, run->gate_rows));
    run->n_rows += n;

fail:
    return status;
}

static enum vkmoe_status run_all(struct run *run)
{
    enum vkmoe_status status;
    CLI_TRY(open_all(run));
    for (uint32_t n = BATCH; n > 0;) {
        if (cli_interrupted())
            CLI_TRY(VKMOE_E_CANCELLED);
        n = BATCH;
        CLI_TRY(read_rows(run, &n));
        CLI_TRY(run_rows(run, n));
        cli_progress("rows", run->n_rows, run->n_total);
    }
    cli_progress_end();
    if (run->out)
        CLI_TRY(vkmoe_array_finish(run->out));
    if (run->ids)
        CLI_TRY(vkmoe_array_finish(run->ids));
    if (run->gates)
        CLI_TRY(vkmoe_array_finish(run->gates));
    if (run->grads)
        CLI_TRY(vkmoe_gradients_finish(run->grads));
    fprintf(stderr, "%llu rows\n", (unsigned long long) run->n_rows);

fail:
    return status;
}

static void close_all(struct run *run)
{
    free(run->x);
    free(run->y);
    free(run->dy);
    free(run->gate_rows);
    free(run->id_rows);
    vkmoe_array_destroy(run->out);
    vkmoe_array_destroy(run->ids);
    vkmoe_array_destroy(run->gates);
    vkmoe_gradients_destroy(run->grads);
    vkmoe_dataset_destroy(run->data);
    vkmoe_dataset_destroy(run->dy_data);
    vkmoe_session_destroy(run->session);
    vkmoe_model_destroy(run->model);
}

int cmd_run(int argc, char **argv)
{
    struct run run = {.device = cli_device_init(), .n_random = NOT_GIVEN};
    const struct cli_option options[] = {
        {"layer", 0, CLI_U32, &run.layer, "N", "which layer (0)"},
        {"input", 'i', CLI_TEXT, &run.in_path, "FILE",
         "rows that enter the layer: .npy, .csv, or\n.safetensors with one tensor"},
        {"random", 0, CLI_U64, &run.n_random, "TOKENS", "random rows instead of a file"},
        {"seed", 0, CLI_U64, &run.seed, "N", "of the random rows (0)"},
        {"precision", 0, CLI_CHOICE, &run.precision, CLI_PRECISIONS,
         "what experts may round operands to (exact: f32)"},
        {"output", 'o', CLI_OUTPUT, &run.out_path, "FILE", "what the layer gives, .npy f32"},
        {"ids", 0, CLI_OUTPUT, &run.ids_path, "FILE", "the selected experts, .npy i32, best first"},
        {"gates", 0, CLI_OUTPUT, &run.gates_path, "FILE", "their gate weights, .npy f32"},
        {"dy", 0, CLI_TEXT, &run.dy_path, "FILE",
         "a gradient of the output: rows as of -i,\nas wide as the layer's output"},
        {"grads", 0, CLI_OUTPUT, &run.grads_path, "FILE",
         "gradients of sum(dy * output) by the input and\nevery parameter, .safetensors"},
        {0},
    };
    const struct cli_spec spec = {
        .name = "run",
        .synopsis = "MODEL",
        .text = "Runs one MoE layer of a vkmoe-model file on rows as they are: neither the\n"
                "scaling of the model's input nor its head is applied. Files appear when they\n"
                "are complete.",
        .options = options,
        .min_args = 1,
        .max_args = 1,
        .device = &run.device,
    };
    int code;
    if (!cli_parse(&spec, &argc, &argv, &code))
        return code;
    run.model_path = argv[0];
    if (!run.in_path == (run.n_random == NOT_GIVEN))
        return cli_usage(&spec, "give either -i FILE or --random TOKENS");
    if (!run.dy_path != !run.grads_path)
        return cli_usage(&spec, "give both --dy and --grads, or neither");
    if (!run.out_path && !run.ids_path && !run.gates_path && !run.grads_path)
        return cli_usage(&spec, "no output: give -o, --ids, --gates or --grads");

    enum vkmoe_status status = run_all(&run);
    if (status != VKMOE_OK)
        code = cli_fail(status);
    close_all(&run);
    return cli_close(run.context, code);
}
