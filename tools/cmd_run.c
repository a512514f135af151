// SPDX-License-Identifier: MIT
// vkmoe run: one layer of a model on the rows of a file.
#include "commands.h"
#include "run.h"
#include "source.h"

#include <stdio.h>
#include <stdlib.h>

struct run {
    struct cli_device device;
    vkmoe_host host;
    struct run_source source;
    struct run_kernels kernels;
    const char *out_path, *ids_path, *gates_path, *grads_path;

    vkmoe_context *context;
    struct run_layer layer;
    struct run_rows rows;
    vkmoe_array_writer *out, *ids, *gates;
    vkmoe_gradients *grads; // NULL without --grads
    float *y, *gate_rows;
    int32_t *id_rows;
};

static enum vkmoe_status open_output(const struct run *run, const char *path,
                                     enum vkmoe_array_type type, uint32_t n_columns,
                                     vkmoe_array_writer **out)
{
    return path ? vkmoe_array_create(&run->host, path, type, n_columns, out) : VKMOE_OK;
}

// Everything that can fail early does so before the first row: inputs, outputs, then the device.
static enum vkmoe_status open_all(struct run *run)
{
    enum vkmoe_status status;
    vkmoe_device_info info;
    const vkmoe_layer_desc *d = &run->layer.desc;
    CLI_TRY(run_layer_open(&run->layer, &run->host, &run->source));
    CLI_TRY(run_rows_open(&run->rows, &run->layer));
    CLI_TRY(open_output(run, run->out_path, VKMOE_ARRAY_F32, d->d_out, &run->out));
    CLI_TRY(open_output(run, run->ids_path, VKMOE_ARRAY_I32, d->top_k, &run->ids));
    CLI_TRY(open_output(run, run->gates_path, VKMOE_ARRAY_F32, d->top_k, &run->gates));
    CLI_TRY(cli_alloc(run->rows.batch, d->d_out, sizeof *run->y, &run->y));
    CLI_TRY(cli_alloc(run->rows.batch, d->top_k, sizeof *run->gate_rows, &run->gate_rows));
    CLI_TRY(cli_alloc(run->rows.batch, d->top_k, sizeof *run->id_rows, &run->id_rows));
    CLI_TRY(cli_open(&run->device, &run->context, &info));
    CLI_TRY(run_layer_load(&run->layer, run->context, &run->source, run->rows.batch,
                           &run->kernels));
    if (run->grads_path)
        CLI_TRY(run_layer_gradients(&run->layer, run->grads_path, &run->grads));

fail:
    return status;
}

static enum vkmoe_status run_rows(struct run *run, uint32_t n)
{
    enum vkmoe_status status;
    vkmoe_io io = vkmoe_io_init();
    io.x = run->rows.x;
    io.y = run->y;
    io.ids = run->id_rows;
    io.gates = run->gate_rows;
    io.router_x = run->rows.router_x;
    io.token_ids = run->rows.token_ids;
    if (run->grads)
        CLI_TRY(vkmoe_gradients_add(run->grads, n, &io, run->rows.dy_rows));
    else
        CLI_TRY(run_layer_run(&run->layer, n, &io));
    if (run->out)
        CLI_TRY(vkmoe_array_append(run->out, n, run->y));
    if (run->ids)
        CLI_TRY(vkmoe_array_append(run->ids, n, run->id_rows));
    if (run->gates)
        CLI_TRY(vkmoe_array_append(run->gates, n, run->gate_rows));
    run->rows.n_done += n;

fail:
    return status;
}

static enum vkmoe_status run_all(struct run *run)
{
    enum vkmoe_status status;
    uint32_t n = 1;
    CLI_TRY(open_all(run));
    while (n > 0) {
        if (cli_interrupted())
            CLI_TRY(VKMOE_E_CANCELLED);
        CLI_TRY(run_rows_read(&run->rows, &run->layer, &n));
        CLI_TRY(run_rows(run, n));
        cli_progress("rows", run->rows.n_done, run->rows.n_total);
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
    fprintf(stderr, "%llu rows\n", (unsigned long long) run->rows.n_done);

fail:
    return status;
}

static void close_all(struct run *run)
{
    free(run->y);
    free(run->gate_rows);
    free(run->id_rows);
    vkmoe_array_destroy(run->out);
    vkmoe_array_destroy(run->ids);
    vkmoe_array_destroy(run->gates);
    vkmoe_gradients_destroy(run->grads);
    run_rows_close(&run->rows);
    run_layer_close(&run->layer);
}

// What the options ask for together.
static int check_usage(const struct run *run, const struct cli_spec *spec)
{
    const struct run_rows *rows = &run->rows;
    enum vkmoe_dtype type;
    if (!rows->in_path == (rows->n_random == NOT_GIVEN))
        return cli_usage(spec, "give either -i FILE or --random TOKENS");
    if (!rows->dy.path != !run->grads_path)
        return cli_usage(spec, "give both --dy and --grads, or neither");
    if (!run->out_path && !run->ids_path && !run->gates_path && !run->grads_path)
        return cli_usage(spec, "no output: give -o, --ids, --gates or --grads");
    if (run->source.type && vkmoe_dtype_from_name(run->source.type, &type) != VKMOE_OK)
        return cli_usage(spec, "--type %s: %s", run->source.type, CLI_TYPES);
    const char *inputs[] = {rows->in_path, rows->router.path, rows->ids.path, rows->dy.path,
                            run->source.path, run->source.desc_path};
    const char *outputs[] = {run->out_path, run->ids_path, run->gates_path, run->grads_path};
    for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++) {
        int code = cli_check_output(spec, outputs[i], inputs, sizeof inputs / sizeof *inputs);
        if (code != CLI_OK)
            return code;
    }
    return CLI_OK;
}

static const char help[] =
    "Runs one MoE layer of a model on rows as they are: neither the scaling of the\n"
    "model's input nor its head, no norm and no residual is applied. MODEL is a Hugging\n"
    "Face folder (config.json and *.safetensors), a .gguf file (of a split one any part)\n"
    "or a vkmoe-model file. Files appear when they are complete.";

int cmd_run(int argc, char **argv)
{
    struct run run = {.device = cli_device_init(), .rows.n_random = NOT_GIVEN};
    struct run_rows *rows = &run.rows;
    const struct cli_option options[] = {
        {"layer", 0, CLI_U32, &run.source.layer, "N", "which layer (0)"},
        {"input", 'i', CLI_TEXT, &rows->in_path, "FILE",
         "rows that enter the layer: .npy, .csv, or\n.safetensors with one tensor"},
        {"random", 'n', CLI_U64, &rows->n_random, "TOKENS",
         "random rows instead of a file; router input and\ntoken ids, too, where they are needed"},
        {"seed", 0, CLI_U64, &rows->seed, "N", "of the random rows (0)"},
        {"router-input", 0, CLI_TEXT, &rows->router.path, "FILE",
         "what the router reads, where that is a tensor of\nits own; rows as of -i"},
        {"token-ids", 0, CLI_TEXT, &rows->ids.path, "FILE",
         "token ids, where a table selects the experts:\n.npy of whole numbers, one a row"},
        SOURCE_OPTIONS(&run.source.assume, &run.source.desc_path),
        {"type", 0, CLI_TEXT, &run.source.type, "TYPE",
         "convert the experts' matrices to this type:\n" CLI_TYPES},
        {"precision", 0, CLI_CHOICE, &run.kernels.precision, CLI_PRECISIONS,
         "what experts may round operands to (exact: f32)"},
        {"variant", 0, CLI_TEXT, &run.kernels.variant, "NAME",
         "force a kernel variant of a Vulkan device, as\n`vkmoe info -v` names them"},
        {"output", 'o', CLI_OUTPUT, &run.out_path, "FILE", "what the layer gives, .npy f32"},
        {"ids", 0, CLI_OUTPUT, &run.ids_path, "FILE", "the selected experts, .npy i32, best first"},
        {"gates", 0, CLI_OUTPUT, &run.gates_path, "FILE", "their gate weights, .npy f32"},
        {"dy", 0, CLI_TEXT, &rows->dy.path, "FILE",
         "a gradient of the output: rows as of -i,\nas wide as the layer's output"},
        {"grads", 0, CLI_OUTPUT, &run.grads_path, "FILE",
         "gradients of sum(dy * output) by the input and\nevery parameter, .safetensors"},
        {0},
    };
    const struct cli_spec spec = {.name = "run", .synopsis = "MODEL", .text = help,
        .options = options, .min_args = 1, .max_args = 1, .device = &run.device};
    int code;
    if (!cli_parse(&spec, &argc, &argv, &code))
        return code;
    run.source.path = argv[0];
    run.host = cli_host(&run.device);
    if ((code = check_usage(&run, &spec)) != CLI_OK)
        return code;
    enum vkmoe_status status = run_all(&run);
    if (status != VKMOE_OK)
        code = cli_fail(status);
    close_all(&run);
    return cli_close(run.context, code);
}
