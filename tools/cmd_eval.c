// SPDX-License-Identifier: MIT
// vkmoe eval: how good a model is on a data set.
#include "commands.h"
#include "eval.h"
#include "rows.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    BATCH = 1024,
    MIN_SIDE = 4, // an image smaller or larger than this is not drawn
    MAX_SIDE = 32,
};
#define NO_LAYER UINT32_MAX

struct job {
    struct cli_device device;
    const char *data_path, *target, *logits_path, *ids_path;
    int precision; // enum vkmoe_precision
    struct eval eval;

    vkmoe_context *context;
    vkmoe_model *model;
    struct rows rows;
    vkmoe_session *session;
    vkmoe_metrics *metrics;
    vkmoe_array_writer *logits_file, *ids_file;
    float *y, *scores, *example_floats;
    int32_t *example_ids;
};

// The layer whose experts are counted: the one asked for, else the first one that has any.
static enum vkmoe_status choose_layer(struct job *job)
{
    struct eval *eval = &job->eval;
    vkmoe_net_layer layer;
    if (eval->layer != NO_LAYER)
        return vkmoe_model_layer(job->model, eval->layer, &eval->desc);
    for (uint32_t i = 0; i < eval->info.n_layers; i++) {
        if (vkmoe_model_net_layer(job->model, i, &layer) == VKMOE_OK &&
            layer.kind == VKMOE_NET_MOE) {
            eval->layer = i;
            return vkmoe_model_layer(job->model, i, &eval->desc);
        }
    }
    eval->layer = 0;
    return VKMOE_OK;
}

static enum vkmoe_status make_examples(struct job *job)
{
    enum vkmoe_status status;
    struct eval *eval = &job->eval;
    uint32_t side = MIN_SIDE, top_k = eval->desc.top_k;
    while (side < MAX_SIDE && side * side < eval->info.n_features)
        side++;
    if (eval->info.task == VKMOE_TASK_CLASSIFY && side * side == eval->info.n_features &&
        top_k > 0 && !job->rows.offsets)
        eval->image_side = side;
    uint32_t width = eval->info.n_features + eval->info.n_outputs + top_k;
    CLI_TRY(cli_alloc(N_EXAMPLES, width, sizeof *job->example_floats, &job->example_floats));
    CLI_TRY(cli_alloc(N_EXAMPLES, top_k, sizeof *job->example_ids, &job->example_ids));
    for (uint32_t i = 0; i < N_EXAMPLES; i++) {
        struct example *example = &eval->examples[i];
        example->x = job->example_floats + (size_t) i * width;
        example->scores = example->x + eval->info.n_features;
        example->gates = example->scores + eval->info.n_outputs;
        example->ids = job->example_ids + (size_t) i * top_k;
    }

fail:
    return status;
}

// Everything that can fail early does so before the first row: model, data, outputs, device.
static enum vkmoe_status open_all(struct job *job)
{
    enum vkmoe_status status;
    struct eval *eval = &job->eval;
    const vkmoe_model_info *info = &eval->info;
    const vkmoe_layer_desc *d = &eval->desc;
    vkmoe_host host = cli_host(&job->device);
    vkmoe_session_desc session = vkmoe_session_desc_init();
    CLI_TRY(vkmoe_model_open(&host, eval->model_path, &job->model));
    eval->model = job->model;
    CLI_TRY(vkmoe_model_get_info(job->model, &eval->info));
    CLI_TRY(choose_layer(job));
    CLI_TRY(rows_open(&job->rows, &host, job->model, job->data_path, job->target, true, BATCH));
    job->rows.layer = eval->layer;
    job->rows.top_k = d->top_k;
    if (job->logits_path)
        CLI_TRY(vkmoe_array_create(&host, job->logits_path, VKMOE_ARRAY_F32, info->n_outputs,
                                   &job->logits_file));
    if (job->ids_path && d->top_k == 0) {
        vkmoe_error_set("--ids: no layer of this model has experts");
        CLI_TRY(VKMOE_E_ARGUMENT);
    }
    if (job->ids_path)
        CLI_TRY(vkmoe_array_create(&host, job->ids_path, VKMOE_ARRAY_I32, d->top_k,
                                   &job->ids_file));
    CLI_TRY(cli_open(&job->device, &job->context, &eval->device));
    session.max_rows = BATCH;
    session.max_tokens = job->rows.max_tokens;
    session.precision = (enum vkmoe_precision) job->precision;
    CLI_TRY(vkmoe_session_create(job->context, job->model, &session, &job->session));
    CLI_TRY(vkmoe_metrics_create(job->model, eval->layer, &job->metrics));
    eval->metrics = job->metrics;
    CLI_TRY(make_examples(job));
    CLI_TRY(cli_alloc(BATCH, info->n_outputs, sizeof *job->y, &job->y));
    CLI_TRY(cli_alloc(BATCH, info->n_outputs, sizeof *job->scores, &job->scores));

fail:
    return status;
}

static enum vkmoe_status run_batch(void *user)
{
    struct job *job = user;
    enum vkmoe_status status;
    struct eval *eval = &job->eval;
    struct rows *rows = &job->rows;
    const uint32_t n = rows->n;
    double start = cli_clock();
    CLI_TRY(rows_run(rows, job->session, job->y, job->scores));
    eval->compute_seconds += cli_clock() - start;
    CLI_TRY(vkmoe_metrics_add(job->metrics, n, job->y, rows->labels, rows->values, NULL));
    if (rows->top_k > 0)
        CLI_TRY(vkmoe_metrics_add_routing(job->metrics, rows->n_routed, rows->ids));
    if (eval->image_side)
        eval_keep_examples(eval, &(struct eval_batch){rows->n_done, n, rows->x, job->y,
                                                      job->scores, rows->labels, rows->ids,
                                                      rows->gates});
    if (job->logits_file)
        CLI_TRY(vkmoe_array_append(job->logits_file, n, job->y));
    if (job->ids_file)
        CLI_TRY(vkmoe_array_append(job->ids_file, (uint32_t) rows->n_routed, rows->ids));

fail:
    return status;
}

static enum vkmoe_status run_all(struct job *job)
{
    enum vkmoe_status status;
    CLI_TRY(open_all(job));
    CLI_TRY(rows_each(&job->rows, run_batch, job));
    if (job->logits_file)
        CLI_TRY(vkmoe_array_finish(job->logits_file));
    if (job->ids_file)
        CLI_TRY(vkmoe_array_finish(job->ids_file));

fail:
    cli_progress_end();
    return status;
}

static void close_all(struct job *job)
{
    free(job->y);
    free(job->scores);
    free(job->example_floats);
    free(job->example_ids);
    vkmoe_array_destroy(job->logits_file);
    vkmoe_array_destroy(job->ids_file);
    vkmoe_metrics_destroy(job->metrics);
    rows_close(&job->rows);
    vkmoe_session_destroy(job->session);
    vkmoe_model_destroy(job->model);
}

int cmd_eval(int argc, char **argv)
{
    struct job job = {.device = cli_device_init(), .eval.layer = NO_LAYER};
    bool json = false;
    const struct cli_option options[] = {
        {"json", 0, CLI_FLAG, &json, NULL, "print JSON"},
        {"target", 0, CLI_TEXT, &job.target, "COL[,COL]",
         "target columns of a .csv by name, or by number\nfrom 1 (the last column)"},
        {"precision", 0, CLI_CHOICE, &job.precision, CLI_PRECISIONS,
         "what experts may round operands to (exact: f32)"},
        {"layer", 0, CLI_U32, &job.eval.layer, "N",
         "layer whose experts are counted (the first\nthat has any)"},
        {"logits", 0, CLI_OUTPUT, &job.logits_path, "FILE",
         "the last layer's outputs before the head, .npy"},
        {"ids", 0, CLI_OUTPUT, &job.ids_path, "FILE", "the selected experts of every row, .npy"},
        {0},
    };
    const struct cli_spec spec = {
        .name = "eval",
        .synopsis = "MODEL DATA",
        .text = "Runs a vkmoe-model file on a data set with targets and tells how good it is,\n"
                "and how much each expert had to do. DATA is a .csv file, a .tsv file with\n"
                "label<TAB>text, or X.npy with Y.npy beside it.",
        .options = options,
        .min_args = 2,
        .max_args = 2,
        .device = &job.device,
    };
    double start = cli_clock();
    int code;
    if (!cli_parse(&spec, &argc, &argv, &code))
        return code;
    job.eval.model_path = argv[0];
    job.data_path = argv[1];

    enum vkmoe_status status = run_all(&job);
    job.eval.whole_seconds = cli_clock() - start;
    // After an interrupt the rows that are done are still reported; the files are not written.
    if (status == VKMOE_OK || (status == VKMOE_E_CANCELLED && job.rows.n_done > 0))
        code = json ? eval_print_json(&job.eval) : eval_print_text(&job.eval);
    if (status != VKMOE_OK)
        code = cli_fail(status);
    close_all(&job);
    return cli_close(job.context, code);
}
