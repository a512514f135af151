// SPDX-License-Identifier: MIT
// vkmoe explain: which expert serves what, and why.
#include "commands.h"
#include "explain.h"

#include <stdlib.h>

enum {
    BATCH = 1024,
    MIN_SIDE = 4, // an image smaller or larger than this is not drawn
    MAX_SIDE = 32,
    NO_LAYER = UINT32_MAX,
};

struct job {
    struct cli_device device;
    const char *target, *page_path, *rows_text;
    int precision; // enum vkmoe_precision
    uint32_t n_certain;
    bool json;
    struct explain_report report;

    vkmoe_context *context;
    vkmoe_model *model;
    struct rows rows;
    vkmoe_session_desc session_desc;
    vkmoe_session *session;
    vkmoe_explain *explain;
    vkmoe_file_writer *page;
    float *y, *scores;

    // Of the tokens at hand, where the layer serves tokens.
    int32_t *labels;
    float *values;
    uint64_t *numbers;
    uint64_t token_room;
};

// ---- running ---------------------------------------------------------------------------------

static bool has_router(const vkmoe_model *model, uint32_t i)
{
    vkmoe_net_layer layer = vkmoe_net_layer_init();
    return vkmoe_model_net_layer(model, i, &layer) == VKMOE_OK && layer.kind == VKMOE_NET_MOE &&
           layer.combine == VKMOE_COMBINE_WEIGHTED_SUM;
}

// The layer that was asked for, else the first one whose experts have gate weights.
static enum vkmoe_status choose_layer(struct job *job)
{
    struct explain_report *r = &job->report;
    for (uint32_t i = 0; i < r->info.n_layers && r->layer == NO_LAYER; i++)
        r->layer = has_router(job->model, i) ? i : NO_LAYER;
    if (r->layer != NO_LAYER)
        return vkmoe_model_layer(job->model, r->layer, &r->desc);
    char text[128];
    snprintf(text, sizeof text, "none of the model's %u layers has experts with gate weights",
             (unsigned) r->info.n_layers);
    vkmoe_error_set(text);
    return VKMOE_E_DATA;
}

// Everything that can fail early does so before the first row: model, data, page, device.
static enum vkmoe_status open_all(struct job *job)
{
    enum vkmoe_status status;
    struct explain_report *r = &job->report;
    vkmoe_host host = cli_host(&job->device);
    vkmoe_explain_desc explain = vkmoe_explain_desc_init();
    vkmoe_session_desc *session = &job->session_desc;
    CLI_TRY(vkmoe_model_open(&host, r->model_path, &job->model));
    r->model = job->model;
    CLI_TRY(vkmoe_model_get_info(job->model, &r->info));
    CLI_TRY(choose_layer(job));
    r->by_token = vkmoe_model_is_by_token(job->model, r->layer);
    explain.layer = r->layer;
    explain.n_certain = job->n_certain;
    CLI_TRY(vkmoe_explain_create(job->model, &explain, &job->explain));
    r->explain = job->explain;
    CLI_TRY(explain_rows_open(r));
    CLI_TRY(rows_open(&job->rows, &host, job->model, r->data_path, job->target, true, BATCH));
    r->data = job->rows.data;
    if (job->page_path)
        CLI_TRY(vkmoe_file_create(&host, job->page_path, &job->page));
    CLI_TRY(cli_open(&job->device, &job->context, &r->device));
    *session = vkmoe_session_desc_init();
    session->max_rows = BATCH;
    session->max_tokens = job->rows.max_tokens;
    session->precision = (enum vkmoe_precision) job->precision;
    CLI_TRY(vkmoe_session_create(job->context, job->model, session, &job->session));
    job->rows.layer = r->layer;
    job->rows.top_k = r->desc.top_k;
    if (vkmoe_session_gives_layer_x(job->session, r->layer))
        job->rows.d_layer = r->desc.d_model;
    CLI_TRY(cli_alloc(BATCH, r->info.n_outputs, sizeof *job->y, &job->y));
    CLI_TRY(cli_alloc(BATCH, r->info.n_outputs, sizeof *job->scores, &job->scores));

fail:
    return status;
}

static enum vkmoe_status make_token_room(struct job *job, uint64_t n)
{
    enum vkmoe_status status = VKMOE_OK;
    if (n <= job->token_room)
        return VKMOE_OK;
    free(job->labels);
    free(job->values);
    free(job->numbers);
    job->labels = NULL;
    job->values = NULL;
    job->numbers = NULL;
    job->token_room = 0;
    CLI_TRY(cli_alloc(n, 1, sizeof *job->labels, &job->labels));
    CLI_TRY(cli_alloc(n, job->report.info.n_outputs, sizeof *job->values, &job->values));
    CLI_TRY(cli_alloc(n, 1, sizeof *job->numbers, &job->numbers));
    job->token_room = n;

fail:
    return status;
}

// Each token has the number and the target of its row.
static enum vkmoe_status spread_to_tokens(struct job *job, vkmoe_explain_batch *batch)
{
    const struct rows *rows = &job->rows;
    const size_t n_outputs = job->report.info.n_outputs;
    enum vkmoe_status status = make_token_room(job, rows->n_routed);
    if (status != VKMOE_OK)
        return status;
    for (uint32_t row = 0; row < rows->n; row++) {
        for (int32_t i = rows->offsets[row]; i < rows->offsets[row + 1]; i++) {
            job->numbers[i] = job->rows.n_done + row + 1;
            if (rows->labels)
                job->labels[i] = rows->labels[row];
            if (rows->values)
                memcpy(job->values + (size_t) i * n_outputs, rows->values + row * n_outputs,
                       n_outputs * sizeof(float));
        }
    }
    batch->rows = job->numbers;
    batch->labels = job->labels;
    batch->values = job->values;
    return VKMOE_OK;
}

static enum vkmoe_status run_batch(void *user)
{
    struct job *job = user;
    enum vkmoe_status status;
    struct rows *rows = &job->rows;
    const struct explain_run run = {job->context, &job->session_desc, rows, job->rows.n_done};
    vkmoe_explain_batch batch = vkmoe_explain_batch_init();
    CLI_TRY(rows_run(rows, job->session, job->y, job->scores));
    batch.ids = rows->ids;
    batch.gates = rows->gates;
    batch.layer_x = rows->layer_x;
    batch.labels = rows->labels;
    batch.values = rows->values;
    if (job->report.by_token)
        CLI_TRY(spread_to_tokens(job, &batch));
    CLI_TRY(vkmoe_explain_add(job->explain, (uint32_t) rows->n_routed, &batch));
    CLI_TRY(explain_rows_add(&job->report, &run, job->y, job->scores));

fail:
    return status;
}

static enum vkmoe_status read_all(struct job *job)
{
    enum vkmoe_status status;
    CLI_TRY(rows_each(&job->rows, run_batch, job));

fail:
    cli_progress_end();
    return status;
}

// ---- pictures --------------------------------------------------------------------------------

static enum vkmoe_status allocate_pictures(struct job *job)
{
    struct explain_report *r = &job->report;
    uint32_t side = MIN_SIDE;
    while (side < MAX_SIDE && side * side < r->info.n_features)
        side++;
    if (side * side != r->info.n_features || job->rows.offsets)
        return VKMOE_OK;
    enum vkmoe_status status = cli_alloc((size_t) r->desc.n_experts * job->n_certain,
                                         r->info.n_features, sizeof(float), &r->pictures);
    if (status == VKMOE_OK)
        r->image_side = side;
    return status;
}

// Copies the features of a row to every expert that is certain of it.
static void keep_picture(struct explain_report *r, uint64_t row, const float *x)
{
    const size_t n = r->info.n_features;
    for (uint32_t e = 0; e < r->desc.n_experts; e++) {
        vkmoe_explain_certain c;
        for (uint32_t i = 0; vkmoe_explain_get_certain(r->explain, e, i, NULL, &c) == VKMOE_OK;
             i++) {
            if (c.row == row)
                memcpy(r->pictures + ((size_t) e * r->n_certain + i) * n, x, n * sizeof *x);
        }
    }
}

// The rows are known only now, so the data is read a second time.
static enum vkmoe_status read_pictures(struct job *job)
{
    enum vkmoe_status status;
    struct explain_report *r = &job->report;
    vkmoe_host host = cli_host(&job->device);
    struct rows rows = {0};
    uint64_t row = 0;
    CLI_TRY(allocate_pictures(job));
    if (!r->image_side)
        return VKMOE_OK;
    CLI_TRY(rows_open(&rows, &host, job->model, r->data_path, job->target, true, BATCH));
    do {
        CLI_TRY(rows_read(&rows));
        for (uint32_t i = 0; i < rows.n; i++)
            keep_picture(r, ++row, rows.x + (size_t) i * r->info.n_features);
    } while (rows.n > 0);

fail:
    rows_close(&rows);
    return status;
}

// ---- the command -----------------------------------------------------------------------------

static enum vkmoe_status write_page(struct job *job)
{
    enum vkmoe_status status;
    char *text = NULL;
    size_t size;
    CLI_TRY(explain_html(&job->report, &text, &size));
    CLI_TRY(vkmoe_file_write(job->page, text, size));
    CLI_TRY(vkmoe_file_finish(job->page));

fail:
    free(text);
    return status;
}

static enum vkmoe_status run_all(struct job *job)
{
    enum vkmoe_status status;
    struct explain_report *r = &job->report;
    CLI_TRY(open_all(job));
    CLI_TRY(read_all(job));
    CLI_TRY(explain_rows_check(r, job->rows.n_done));
    CLI_TRY(vkmoe_explain_finish(job->explain));
    CLI_TRY(vkmoe_explain_get(job->explain, &r->summary));
    CLI_TRY(cli_alloc(r->summary.n_groups, 1, sizeof *r->served, &r->served));
    r->n_certain = job->n_certain;
    if (job->page) {
        CLI_TRY(read_pictures(job));
        CLI_TRY(write_page(job));
    }

fail:
    return status;
}

static void close_all(struct job *job)
{
    free(job->y);
    free(job->scores);
    free(job->labels);
    free(job->values);
    free(job->numbers);
    free(job->report.served);
    free(job->report.pictures);
    explain_rows_close(&job->report);
    rows_close(&job->rows);
    vkmoe_file_destroy(job->page);
    vkmoe_explain_destroy(job->explain);
    vkmoe_session_destroy(job->session);
    vkmoe_model_destroy(job->model);
}

static int report(const struct job *job)
{
    if (job->json)
        return cli_print_json(explain_json(&job->report));
    explain_print(&job->report);
    return CLI_OK;
}

int cmd_explain(int argc, char **argv)
{
    struct job job = {.device = cli_device_init(), .n_certain = 5, .report.layer = NO_LAYER};
    const struct cli_option options[] = {
        {"output", 'o', CLI_OUTPUT, &job.page_path, "FILE.html",
         "write a page with charts as well"},
        {"json", 0, CLI_FLAG, &job.json, NULL, "print JSON"},
        {"layer", 0, CLI_U32, &job.report.layer, "N", "which layer (the first one with experts)"},
        {"row", 0, CLI_TEXT, &job.rows_text, "I[,I]",
         "tell which experts decided these rows, numbered\nfrom 1, and by how much"},
        {"certain", 0, CLI_U32, &job.n_certain, "N",
         "inputs to name that each expert is most\ncertain of (5)"},
        {"target", 0, CLI_TEXT, &job.target, "COL[,COL]",
         "target columns of a .csv by name, or by number\nfrom 1 (the last column)"},
        {"precision", 0, CLI_CHOICE, &job.precision, CLI_PRECISIONS,
         "what experts may round operands to (exact: f32)"},
        {0},
    };
    const struct cli_spec spec = {
        .name = "explain",
        .synopsis = "MODEL DATA",
        .text = "Runs a vkmoe-model file on a data set with targets and tells which expert serves\n"
                "what: its load and gate weights, the classes or targets of its rows, what it\n"
                "tells about the class in bits, the inputs it is most certain of, and the\n"
                "features that drive its score. DATA is as for eval.",
        .options = options,
        .min_args = 2,
        .max_args = 2,
        .device = &job.device,
    };
    int code;
    if (!cli_parse(&spec, &argc, &argv, &code))
        return code;
    job.report.model_path = argv[0];
    job.report.data_path = argv[1];
    const char *const inputs[] = {argv[0], argv[1]};
    code = cli_check_output(&spec, job.page_path, inputs, 2);
    if (code == CLI_OK && job.rows_text)
        code = explain_rows_parse(&spec, job.rows_text, &job.report);
    if (code == CLI_OK) {
        enum vkmoe_status status = run_all(&job);
        code = status == VKMOE_OK ? report(&job) : cli_fail(status);
    }
    close_all(&job);
    return cli_close(job.context, code);
}
