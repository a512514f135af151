// SPDX-License-Identifier: MIT
// vkmoe predict: a model's answers for the rows of a file, as CSV.
#include "commands.h"
#include "predict_online.h"
#include "rows.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 1024 };

// Text on its way to the file.
struct buffer {
    char *text;
    size_t size, room;
};

struct job {
    struct cli_device device;
    const char *model_path, *data_path, *target, *out_path;
    int precision; // enum vkmoe_precision
    bool learn, json;
    struct predict_online_options options;

    vkmoe_context *context;
    vkmoe_device_info info;
    vkmoe_model *model;
    struct rows rows;
    vkmoe_session *session;
    struct predict_online *online; // NULL: without --online
    vkmoe_file_writer *file;
    float *y, *scores;
    struct buffer buffer;
    uint64_t n_nan;
};

// ---- text ------------------------------------------------------------------------------------

static enum vkmoe_status add_bytes(struct buffer *b, const char *text, size_t size)
{
    if (b->room - b->size < size) {
        size_t room = 2 * (b->size + size) + 4096;
        char *text_there = realloc(b->text, room);
        if (!text_there) {
            vkmoe_error_set("no memory for lines of CSV");
            return VKMOE_E_MEMORY;
        }
        b->text = text_there;
        b->room = room;
    }
    memcpy(b->text + b->size, text, size);
    b->size += size;
    return VKMOE_OK;
}

static enum vkmoe_status add_text(struct buffer *b, const char *text)
{
    return add_bytes(b, text, strlen(text));
}

static enum vkmoe_status add_number(struct buffer *b, float value)
{
    char text[32];
    // A NaN has a sign, which printf would show.
    snprintf(text, sizeof text, "%.9g", isnan(value) ? (double) NAN : (double) value);
    return add_text(b, text);
}

// A field, quoted where its text needs that; `prefix` is plain.
static enum vkmoe_status add_field(struct buffer *b, const char *prefix, const char *text)
{
    enum vkmoe_status status;
    const size_t size = strlen(text);
    const bool quoted = text[strcspn(text, ",\"\r\n#")] || (size > 0 && (text[0] == ' ' ||
                                                                        text[size - 1] == ' '));
    if (quoted)
        CLI_TRY(add_text(b, "\""));
    CLI_TRY(add_text(b, prefix));
    for (; *text; text++)
        CLI_TRY(add_bytes(b, *text == '"' ? "\"\"" : text, *text == '"' ? 2 : 1));
    if (quoted)
        CLI_TRY(add_text(b, "\""));

fail:
    return status;
}

// ---- rows ------------------------------------------------------------------------------------

static enum vkmoe_status add_header(struct job *job)
{
    enum vkmoe_status status;
    const vkmoe_model_info *info = &job->rows.info;
    char name[32];
    CLI_TRY(add_text(&job->buffer, "prediction"));
    for (uint32_t i = 0; i < info->n_classes; i++) {
        CLI_TRY(add_text(&job->buffer, ","));
        CLI_TRY(add_field(&job->buffer, "p_", vkmoe_model_class(job->model, i)));
    }
    for (uint32_t i = 1; info->task == VKMOE_TASK_REGRESS && i < info->n_outputs; i++) {
        snprintf(name, sizeof name, ",prediction%u", (unsigned) i + 1);
        CLI_TRY(add_text(&job->buffer, name));
    }
    CLI_TRY(add_text(&job->buffer, "\n"));

fail:
    return status;
}

static enum vkmoe_status add_class_row(struct job *job, const float *y, const float *scores)
{
    enum vkmoe_status status = VKMOE_OK;
    const vkmoe_model_info *info = &job->rows.info;
    int32_t class = vkmoe_predict_class(job->model, y);
    if (class >= 0)
        CLI_TRY(add_field(&job->buffer, "", vkmoe_model_class(job->model, (uint32_t) class)));
    else
        job->n_nan++;
    for (uint32_t i = 0; i < info->n_classes; i++) {
        float p = info->n_outputs == info->n_classes ? scores[i]
                  : i == 1                           ? scores[0]
                                                     : 1 - scores[0];
        CLI_TRY(add_text(&job->buffer, ","));
        CLI_TRY(add_number(&job->buffer, p));
    }

fail:
    return status;
}

static enum vkmoe_status add_value_row(struct job *job, const float *scores)
{
    enum vkmoe_status status = VKMOE_OK;
    bool nan = false;
    for (uint32_t i = 0; i < job->rows.info.n_outputs; i++) {
        if (i > 0)
            CLI_TRY(add_text(&job->buffer, ","));
        CLI_TRY(add_number(&job->buffer, scores[i]));
        nan = nan || isnan(scores[i]);
    }
    job->n_nan += nan;

fail:
    return status;
}

static enum vkmoe_status write_batch(struct job *job)
{
    enum vkmoe_status status = VKMOE_OK;
    const vkmoe_model_info *info = &job->rows.info;
    for (size_t row = 0; row < job->rows.n; row++) {
        const float *y = job->y + row * info->n_outputs, *s = job->scores + row * info->n_outputs;
        if (info->task == VKMOE_TASK_CLASSIFY)
            CLI_TRY(add_class_row(job, y, s));
        else
            CLI_TRY(add_value_row(job, s));
        CLI_TRY(add_text(&job->buffer, "\n"));
    }
    CLI_TRY(vkmoe_file_write(job->file, job->buffer.text, job->buffer.size));
    job->buffer.size = 0;

fail:
    return status;
}

// ---- the whole -------------------------------------------------------------------------------

static enum vkmoe_status open_all(struct job *job)
{
    enum vkmoe_status status;
    vkmoe_host host = cli_host(&job->device);
    vkmoe_session_desc session = vkmoe_session_desc_init();
    CLI_TRY(vkmoe_model_open(&host, job->model_path, &job->model));
    CLI_TRY(rows_open(&job->rows, &host, job->model, job->data_path, job->target, job->learn,
                      BATCH));
    CLI_TRY(vkmoe_file_create(&host, job->out_path, &job->file));
    CLI_TRY(cli_open(&job->device, &job->context, &job->info));
    session.max_rows = BATCH;
    session.max_tokens = job->rows.max_tokens;
    session.precision = (enum vkmoe_precision) job->precision;
    CLI_TRY(vkmoe_session_create(job->context, job->model, &session, &job->session));
    CLI_TRY(cli_alloc(BATCH, job->rows.info.n_outputs, sizeof *job->y, &job->y));
    CLI_TRY(cli_alloc(BATCH, job->rows.info.n_outputs, sizeof *job->scores, &job->scores));
    job->options.precision = job->precision;
    job->options.max_rows = session.max_rows;
    job->options.max_tokens = session.max_tokens;
    if (job->learn)
        CLI_TRY(predict_online_create(job->context, job->model, &job->options, &job->online));
    CLI_TRY(add_header(job));

fail:
    return status;
}

static enum vkmoe_status run_batch(void *user)
{
    struct job *job = user;
    enum vkmoe_status status;
    struct rows *rows = &job->rows;
    const vkmoe_session_io io = rows_io(rows);
    CLI_TRY(rows_run(rows, job->session, job->y, job->scores));
    if (job->online)
        CLI_TRY(predict_online_add(job->online, rows->n, &io, job->scores, job->y, rows->labels,
                                   rows->values));
    CLI_TRY(write_batch(job));

fail:
    return status;
}

static enum vkmoe_status run_all(struct job *job)
{
    enum vkmoe_status status;
    CLI_TRY(open_all(job));
    CLI_TRY(rows_each(&job->rows, run_batch, job));
    CLI_TRY(vkmoe_file_finish(job->file));

fail:
    cli_progress_end();
    return status;
}

static void close_all(struct job *job)
{
    free(job->y);
    free(job->scores);
    free(job->buffer.text);
    predict_online_destroy(job->online);
    vkmoe_file_destroy(job->file);
    rows_close(&job->rows);
    vkmoe_session_destroy(job->session);
    vkmoe_model_destroy(job->model);
}

// The options of --online, which are NaN where they were not given.
static int check_options(const struct cli_spec *spec, struct job *job)
{
    struct predict_online_options *o = &job->options;
    const bool given = !isnan(o->lambda) || !isnan(o->alpha) || !isnan(o->variance) || job->json;
    if (!job->out_path)
        return cli_usage(spec, "-o is needed");
    if (given && !job->learn)
        return cli_usage(spec, "--lambda, --alpha, --variance and --json need --online");
    o->lambda = isnan(o->lambda) ? 1 : o->lambda;
    o->alpha = isnan(o->alpha) ? 0 : o->alpha;
    o->variance = isnan(o->variance) ? 1 : o->variance;
    const char *wrong = predict_online_check(o);
    return wrong ? cli_usage(spec, "%s", wrong) : CLI_OK;
}

static int report(const struct job *job)
{
    if (job->n_nan > 0)
        cli_error("%llu of %llu rows have no answer: NaN", (unsigned long long) job->n_nan,
                  (unsigned long long) job->rows.n_done);
    return job->online ? predict_online_report(job->online, job->json) : CLI_OK;
}

int cmd_predict(int argc, char **argv)
{
    struct job job = {.device = cli_device_init(), .options = {NAN, NAN, NAN, 0, 0, 0}};
    const struct cli_option options[] = {
        {"output", 'o', CLI_OUTPUT, &job.out_path, "FILE", "the predictions, .csv"},
        {"target", 0, CLI_TEXT, &job.target, "COL[,COL]",
         "columns of a .csv with targets that are left\nout, by name or number from 1 (the last)"},
        {"precision", 0, CLI_CHOICE, &job.precision, CLI_PRECISIONS,
         "what experts may round operands to (exact: f32)"},
        {"online", 0, CLI_FLAG, &job.learn, NULL,
         "mix the experts of the first layer with experts\nby weights that learn from each row's\n"
         "target before the next row is predicted"},
        {"lambda", 0, CLI_REAL, &job.options.lambda, "X", "below 1 the past is forgotten (1)"},
        {"alpha", 0, CLI_REAL, &job.options.alpha, "X",
         "share of the weights that is dealt out evenly\nafter each row (0)"},
        {"variance", 0, CLI_REAL, &job.options.variance, "X",
         "regression: of the errors that are expected\nbefore the first row (1)"},
        {"json", 0, CLI_FLAG, &job.json, NULL, "print the losses of --online as JSON"},
        {0},
    };
    const struct cli_spec spec = {
        .name = "predict",
        .synopsis = "MODEL DATA -o OUT.csv",
        .text = "Runs a vkmoe-model file on a data set and writes a row for each row: the\n"
                "predicted class and the probability of each class, or the predicted values.\n"
                "DATA is a .csv file, a .tsv file with a text in each line, or a .npy file; it\n"
                "may have targets, which are left out: a .csv has them when it has that many more\n"
                "columns than the model has features, a .tsv when its first line has a tab.\n"
                "With --online it must have targets, and the summed losses of the mixture, of the\n"
                "best expert and of the model are printed: -ln of what was given to the targets.",
        .options = options,
        .min_args = 2,
        .max_args = 2,
        .device = &job.device,
    };
    int code;
    if (!cli_parse(&spec, &argc, &argv, &code))
        return code;
    code = check_options(&spec, &job);
    if (code != CLI_OK)
        return code;
    job.model_path = argv[0];
    job.data_path = argv[1];
    const char *const inputs[] = {job.model_path, job.data_path};
    code = cli_check_output(&spec, job.out_path, inputs, 2);
    if (code != CLI_OK)
        return code;
    enum vkmoe_status status = run_all(&job);
    code = status == VKMOE_OK ? report(&job) : cli_fail(status);
    close_all(&job);
    return cli_close(job.context, code);
}
