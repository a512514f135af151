// SPDX-License-Identifier: MIT
// vkmoe explain: which expert serves what, and why.
#include "commands.h"
#include "explain.h"

#include <limits.h>
#include <stdlib.h>

enum {
    BATCH = 1024,
    MAX_ROWS = 1000, // that can be asked for
    MAX_SIDE = 32,   // an image larger than this is not drawn, nor one below MIN_SIDE
    MIN_SIDE = 4,
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
    vkmoe_dataset *data;
    vkmoe_session *session;
    vkmoe_explain *explain;
    vkmoe_file_writer *page;
    const char **classes;
    float *x, *y, *scores, *values, *gates, *layer_x, *row_floats;
    int32_t *labels, *ids, *row_ids;
    uint64_t n_rows, n_total;
};

// ---- the rows that are asked for -------------------------------------------------------------

// "I[,I]" -> report.rows. Numbers from 1.
static int parse_rows(const struct cli_spec *spec, struct job *job)
{
    const char *at = job->rows_text;
    uint32_t n = 0;
    if (!at)
        return CLI_OK;
    for (const char *c = at; *c; c++)
        n += *c == ',';
    if (n++ >= MAX_ROWS)
        return cli_usage(spec, "--row %.40s...: at most %d rows", at, MAX_ROWS);
    if (cli_alloc(n, 1, sizeof *job->report.rows, &job->report.rows) != VKMOE_OK)
        return cli_fail(VKMOE_E_MEMORY);
    for (uint32_t i = 0; i < n; i++) {
        char *end;
        unsigned long long row = *at >= '1' && *at <= '9' ? strtoull(at, &end, 10) : 0;
        if (row == 0 || row == ULLONG_MAX || (*end && *end != ','))
            return cli_usage(spec, "--row %.80s: row numbers from 1, with commas between them",
                             job->rows_text);
        job->report.rows[i].row = row;
        at = end + (*end == ',');
    }
    job->report.n_rows = n;
    return CLI_OK;
}

static enum vkmoe_status allocate_rows(struct job *job)
{
    enum vkmoe_status status;
    struct explain_report *r = &job->report;
    const size_t n_outputs = r->info.n_outputs, top_k = r->desc.top_k;
    const size_t width = 3 * n_outputs + top_k + r->desc.d_model + top_k * n_outputs;
    CLI_TRY(cli_alloc(r->n_rows, width, sizeof(float), &job->row_floats));
    CLI_TRY(cli_alloc(r->n_rows, top_k, sizeof(int32_t), &job->row_ids));
    for (uint32_t i = 0; i < r->n_rows; i++) {
        struct explain_row *row = &r->rows[i];
        row->values = job->row_floats + i * width;
        row->y = row->values + n_outputs;
        row->scores = row->y + n_outputs;
        row->gates = row->scores + n_outputs;
        row->layer_x = row->gates + top_k;
        row->parts = row->layer_x + r->desc.d_model;
        row->ids = job->row_ids + i * top_k;
    }

fail:
    return status;
}

// Keeps the rows among the batch of `n` behind the first job->n_rows.
static void keep_rows(struct job *job, uint32_t n)
{
    const struct explain_report *r = &job->report;
    const size_t n_outputs = r->info.n_outputs, top_k = r->desc.top_k, d = r->desc.d_model;
    for (uint32_t i = 0; i < r->n_rows; i++) {
        struct explain_row *row = &r->rows[i];
        if (row->row <= job->n_rows || row->row - job->n_rows > n)
            continue;
        const size_t at = (size_t) (row->row - job->n_rows - 1);
        row->found = true;
        row->label = job->labels ? job->labels[at] : -1;
        if (job->values)
            memcpy(row->values, job->values + at * n_outputs, n_outputs * sizeof(float));
        memcpy(row->y, job->y + at * n_outputs, n_outputs * sizeof(float));
        memcpy(row->scores, job->scores + at * n_outputs, n_outputs * sizeof(float));
        memcpy(row->gates, job->gates + at * top_k, top_k * sizeof(float));
        memcpy(row->ids, job->ids + at * top_k, top_k * sizeof(int32_t));
        memcpy(row->layer_x, job->layer_x + at * d, d * sizeof(float));
    }
}

static enum vkmoe_status check_rows(const struct job *job)
{
    for (uint32_t i = 0; i < job->report.n_rows; i++) {
        if (!job->report.rows[i].found) {
            char text[128];
            snprintf(text, sizeof text, "--row %llu: the data set has %llu rows",
                     (unsigned long long) job->report.rows[i].row,
                     (unsigned long long) job->n_rows);
            vkmoe_error_set(text);
            return VKMOE_E_DATA;
        }
    }
    return VKMOE_OK;
}

// Runs one expert alone on the rows that selected it.
static enum vkmoe_status add_parts(struct job *job, uint32_t expert)
{
    enum vkmoe_status status = VKMOE_OK;
    struct explain_report *r = &job->report;
    const size_t n_outputs = r->info.n_outputs;
    vkmoe_session *session = NULL;
    vkmoe_session_desc desc = vkmoe_session_desc_init();
    desc.max_rows = 1;
    desc.precision = (enum vkmoe_precision) job->precision;
    desc.one_layer = true;
    desc.layer = r->layer;
    desc.experts = VKMOE_EXPERTS_ALONE;
    desc.expert = expert;
    for (uint32_t i = 0; i < r->n_rows * r->desc.top_k; i++) {
        struct explain_row *row = &r->rows[i / r->desc.top_k];
        const uint32_t k = i % r->desc.top_k;
        if (row->ids[k] != (int32_t) expert)
            continue;
        if (!session)
            CLI_TRY(vkmoe_session_create(job->context, job->model, &desc, &session));
        vkmoe_session_io io = vkmoe_session_io_init();
        io.layer = r->layer;
        io.x = row->layer_x;
        io.y = row->parts + k * n_outputs;
        CLI_TRY(vkmoe_session_run(session, 1, &io));
        for (size_t o = 0; o < n_outputs; o++)
            io.y[o] *= row->gates[k];
    }

fail:
    vkmoe_session_destroy(session);
    return status;
}

// ---- running ---------------------------------------------------------------------------------

static enum vkmoe_status open_data(struct job *job, vkmoe_dataset **out)
{
    enum vkmoe_status status = VKMOE_OK;
    const vkmoe_model_info *info = &job->report.info;
    vkmoe_host host = cli_host(&job->device);
    vkmoe_dataset_desc desc = vkmoe_dataset_desc_init();
    if (!job->classes)
        CLI_TRY(cli_alloc(info->n_classes, 1, sizeof *job->classes, &job->classes));
    for (uint32_t i = 0; i < info->n_classes; i++)
        job->classes[i] = vkmoe_model_class(job->model, i);
    desc.host = &host;
    desc.targets = info->task == VKMOE_TASK_CLASSIFY ? VKMOE_TARGETS_LABELS : VKMOE_TARGETS_VALUES;
    desc.classes = job->classes;
    desc.n_classes = info->n_classes;
    desc.n_features = info->n_features;
    desc.n_targets = info->n_outputs;
    desc.target = job->target;
    CLI_TRY(vkmoe_dataset_open(job->report.data_path, &desc, out));

fail:
    return status;
}

// The layer that was asked for, else the first one with experts.
static enum vkmoe_status choose_layer(struct job *job)
{
    struct explain_report *r = &job->report;
    if (r->layer != NO_LAYER)
        return vkmoe_model_layer(job->model, r->layer, &r->desc);
    for (r->layer = 0; r->layer < r->info.n_layers; r->layer++) {
        if (vkmoe_model_layer(job->model, r->layer, &r->desc) == VKMOE_OK)
            return VKMOE_OK;
    }
    char text[128];
    snprintf(text, sizeof text, "none of the model's %u layers is a mixture of experts",
             (unsigned) r->info.n_layers);
    vkmoe_error_set(text);
    return VKMOE_E_DATA;
}

static enum vkmoe_status allocate(struct job *job)
{
    enum vkmoe_status status;
    const vkmoe_model_info *info = &job->report.info;
    const vkmoe_layer_desc *d = &job->report.desc;
    CLI_TRY(cli_alloc(BATCH, info->n_features, sizeof *job->x, &job->x));
    CLI_TRY(cli_alloc(BATCH, info->n_outputs, sizeof *job->y, &job->y));
    CLI_TRY(cli_alloc(BATCH, info->n_outputs, sizeof *job->scores, &job->scores));
    CLI_TRY(cli_alloc(BATCH, d->top_k, sizeof *job->gates, &job->gates));
    CLI_TRY(cli_alloc(BATCH, d->top_k, sizeof *job->ids, &job->ids));
    CLI_TRY(cli_alloc(BATCH, d->d_model, sizeof *job->layer_x, &job->layer_x));
    if (info->task == VKMOE_TASK_CLASSIFY)
        CLI_TRY(cli_alloc(BATCH, 1, sizeof *job->labels, &job->labels));
    else
        CLI_TRY(cli_alloc(BATCH, info->n_outputs, sizeof *job->values, &job->values));
    CLI_TRY(allocate_rows(job));

fail:
    return status;
}

// Everything that can fail early does so before the first row: model, data, page, device.
static enum vkmoe_status open_all(struct job *job)
{
    enum vkmoe_status status;
    struct explain_report *r = &job->report;
    vkmoe_host host = cli_host(&job->device);
    vkmoe_dataset_info rows;
    CLI_TRY(vkmoe_model_open(&host, r->model_path, &job->model));
    r->model = job->model;
    CLI_TRY(vkmoe_model_get_info(job->model, &r->info));
    CLI_TRY(choose_layer(job));
    r->has_parts = r->layer + 1 == r->info.n_layers;
    CLI_TRY(open_data(job, &job->data));
    r->data = job->data;
    CLI_TRY(vkmoe_dataset_get_info(job->data, &rows));
    job->n_total = rows.n_rows;
    if (job->page_path)
        CLI_TRY(vkmoe_file_create(&host, job->page_path, &job->page));
    vkmoe_explain_desc explain = vkmoe_explain_desc_init();
    explain.layer = r->layer;
    explain.n_certain = job->n_certain;
    CLI_TRY(vkmoe_explain_create(job->model, &explain, &job->explain));
    r->explain = job->explain;
    CLI_TRY(cli_open(&job->device, &job->context, &r->device));
    vkmoe_session_desc session = vkmoe_session_desc_init();
    session.max_rows = BATCH;
    session.precision = (enum vkmoe_precision) job->precision;
    CLI_TRY(vkmoe_session_create(job->context, job->model, &session, &job->session));
    CLI_TRY(allocate(job));

fail:
    return status;
}

static enum vkmoe_status run_batch(struct job *job, uint32_t n)
{
    enum vkmoe_status status;
    vkmoe_session_io io = vkmoe_session_io_init();
    vkmoe_explain_batch batch = vkmoe_explain_batch_init();
    io.x = job->x;
    io.y = job->y;
    io.scores = job->scores;
    io.layer = job->report.layer;
    batch.ids = io.ids = job->ids;
    batch.gates = io.gates = job->gates;
    batch.layer_x = io.layer_x = job->layer_x;
    batch.labels = job->labels;
    batch.values = job->values;
    CLI_TRY(vkmoe_session_run(job->session, n, &io));
    CLI_TRY(vkmoe_explain_add(job->explain, n, &batch));
    keep_rows(job, n);
    job->n_rows += n;

fail:
    return status;
}

static enum vkmoe_status read_all(struct job *job)
{
    enum vkmoe_status status;
    while (true) {
        uint32_t n = BATCH;
        if (cli_interrupted())
            CLI_TRY(VKMOE_E_CANCELLED);
        CLI_TRY(vkmoe_dataset_read(job->data, &n, job->x, job->labels, job->values));
        if (n == 0)
            break;
        CLI_TRY(run_batch(job, n));
        cli_progress("rows", job->n_rows, job->n_total);
    }
    if (job->n_rows == 0) {
        vkmoe_error_set("the data set has no rows");
        CLI_TRY(VKMOE_E_DATA);
    }

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
    if (side * side != r->info.n_features)
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
    vkmoe_dataset *data = NULL;
    uint64_t row = 0;
    uint32_t n;
    CLI_TRY(allocate_pictures(job));
    if (!job->report.image_side)
        return VKMOE_OK;
    CLI_TRY(open_data(job, &data));
    do {
        n = BATCH;
        CLI_TRY(vkmoe_dataset_read(data, &n, job->x, job->labels, job->values));
        for (uint32_t i = 0; i < n; i++)
            keep_picture(&job->report, ++row, job->x + (size_t) i * job->report.info.n_features);
    } while (n > 0);

fail:
    vkmoe_dataset_destroy(data);
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
    CLI_TRY(check_rows(job));
    CLI_TRY(vkmoe_explain_finish(job->explain));
    CLI_TRY(vkmoe_explain_get(job->explain, &r->summary));
    CLI_TRY(cli_alloc(r->summary.n_groups, 1, sizeof *r->served, &r->served));
    r->n_certain = job->n_certain;
    for (uint32_t e = 0; e < r->desc.n_experts && r->has_parts; e++)
        CLI_TRY(add_parts(job, e));
    if (job->page) {
        CLI_TRY(read_pictures(job));
        CLI_TRY(write_page(job));
    }

fail:
    return status;
}

static void close_all(struct job *job)
{
    free(job->x);
    free(job->y);
    free(job->scores);
    free(job->values);
    free(job->gates);
    free(job->layer_x);
    free(job->labels);
    free(job->ids);
    free(job->row_floats);
    free(job->row_ids);
    free(job->classes);
    free(job->report.rows);
    free(job->report.served);
    free(job->report.pictures);
    vkmoe_file_destroy(job->page);
    vkmoe_explain_destroy(job->explain);
    vkmoe_dataset_destroy(job->data);
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
    code = parse_rows(&spec, &job);
    if (code == CLI_OK) {
        enum vkmoe_status status = run_all(&job);
        code = status == VKMOE_OK ? report(&job) : cli_fail(status);
    }
    close_all(&job);
    return cli_close(job.context, code);
}
