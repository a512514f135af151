// SPDX-License-Identifier: MIT
#include "rows.h"

#include <stdio.h>
#include <stdlib.h>

static enum vkmoe_status fail(const char *text)
{
    vkmoe_error_set(text);
    return VKMOE_E_DATA;
}

// Are the model's examples sequences of rows?
static bool wants_sequences(const struct rows *rows)
{
    bool found = false;
    for (uint32_t i = 0; i < rows->info.n_layers; i++) {
        vkmoe_net_layer layer;
        found = found || (vkmoe_model_net_layer(rows->model, i, &layer) == VKMOE_OK &&
                          layer.kind == VKMOE_NET_POOL);
    }
    return found;
}

static enum vkmoe_status open_data(struct rows *rows, const vkmoe_host *host, const char *path,
                                   const char *target, bool with_targets)
{
    enum vkmoe_status status;
    const vkmoe_model_info *info = &rows->info;
    const bool classify = info->task == VKMOE_TASK_CLASSIFY;
    const char **classes = NULL;
    vkmoe_dataset_desc desc = vkmoe_dataset_desc_init();
    CLI_TRY(cli_alloc(info->n_classes, 1, sizeof *classes, &classes));
    for (uint32_t i = 0; i < info->n_classes; i++)
        classes[i] = vkmoe_model_class(rows->model, i);
    desc.host = host;
    desc.targets = !with_targets ? VKMOE_TARGETS_IGNORE
                   : classify    ? VKMOE_TARGETS_LABELS
                                 : VKMOE_TARGETS_VALUES;
    desc.classes = classes;
    desc.n_classes = info->n_classes;
    desc.n_features = info->n_features;
    desc.n_targets = classify ? 1 : info->n_outputs;
    desc.target = target;
    desc.texts = info->n_features == 0;
    desc.sequences = true;
    CLI_TRY(vkmoe_dataset_open(path, &desc, &rows->data));
    CLI_TRY(vkmoe_dataset_get_info(rows->data, &rows->data_info));
    rows->n_total = rows->data_info.n_rows;
    if (!desc.texts && wants_sequences(rows) != (rows->data_info.n_steps > 0)) {
        char text[512];
        snprintf(text, sizeof text, "%s: rows are %s, the model needs %s", path,
                 rows->data_info.n_steps ? "sequences" : "single",
                 rows->data_info.n_steps ? "single ones" : "sequences (rows, steps, features)");
        CLI_TRY(fail(text));
    }

fail:
    free(classes);
    return status;
}

enum vkmoe_status rows_open(struct rows *rows, const vkmoe_host *host, const vkmoe_model *model,
                            const char *path, const char *target, bool with_targets, uint32_t batch)
{
    enum vkmoe_status status;
    rows->model = model;
    rows->batch = batch;
    CLI_TRY(vkmoe_model_get_info(model, &rows->info));
    CLI_TRY(open_data(rows, host, path, target, with_targets));
    const uint32_t n_steps = rows->data_info.n_steps;
    const bool classify = rows->info.task == VKMOE_TASK_CLASSIFY;
    if (rows->data_info.is_text)
        CLI_TRY(cli_alloc(batch, 1, sizeof *rows->texts, &rows->texts));
    else
        CLI_TRY(cli_alloc((size_t) batch * (n_steps ? n_steps : 1), rows->info.n_features,
                          sizeof *rows->x, &rows->x));
    if (rows->data_info.is_text || n_steps > 0)
        CLI_TRY(cli_alloc((size_t) batch + 1, 1, sizeof *rows->offsets, &rows->offsets));
    if (n_steps > 4096) // more than a session takes when it is not asked
        rows->max_tokens = n_steps;
    for (uint32_t i = 0; n_steps > 0 && i <= batch; i++)
        rows->offsets[i] = (int32_t) (i * n_steps);
    if (with_targets && classify)
        CLI_TRY(cli_alloc(batch, 1, sizeof *rows->labels, &rows->labels));
    if (with_targets && !classify)
        CLI_TRY(cli_alloc(batch, rows->info.n_outputs, sizeof *rows->values, &rows->values));

fail:
    return status;
}

void rows_close(struct rows *rows)
{
    vkmoe_dataset_destroy(rows->data);
    free(rows->x);
    free(rows->texts);
    free(rows->offsets);
    free(rows->token_ids);
    free(rows->labels);
    free(rows->values);
    free(rows->ids);
    free(rows->gates);
    free(rows->layer_x);
}

// Cuts the texts at hand into tokens.
static enum vkmoe_status cut_texts(struct rows *rows)
{
    enum vkmoe_status status;
    CLI_TRY(vkmoe_model_tokens(rows->model, rows->n, rows->texts, rows->offsets, NULL));
    rows->n_tokens = (uint64_t) rows->offsets[rows->n];
    if (rows->n_tokens > rows->token_room) {
        free(rows->token_ids);
        rows->token_ids = NULL;
        rows->token_room = 0;
        CLI_TRY(cli_alloc(rows->n_tokens, 1, sizeof *rows->token_ids, &rows->token_ids));
        rows->token_room = rows->n_tokens;
    }
    CLI_TRY(vkmoe_model_tokens(rows->model, rows->n, rows->texts, rows->offsets, rows->token_ids));

fail:
    return status;
}

enum vkmoe_status rows_read(struct rows *rows)
{
    enum vkmoe_status status;
    const uint32_t n_steps = rows->data_info.n_steps;
    rows->n = rows->batch;
    if (rows->data_info.is_text) {
        CLI_TRY(vkmoe_dataset_read_texts(rows->data, &rows->n, rows->texts, rows->labels,
                                         rows->values));
        CLI_TRY(cut_texts(rows));
    } else {
        CLI_TRY(vkmoe_dataset_read(rows->data, &rows->n, rows->x, rows->labels, rows->values));
        rows->n_tokens = (uint64_t) rows->n * (n_steps ? n_steps : 1);
    }

fail:
    return status;
}

static enum vkmoe_status make_room(struct rows *rows)
{
    enum vkmoe_status status = VKMOE_OK;
    rows->n_routed = vkmoe_model_is_by_token(rows->model, rows->layer) ? rows->n_tokens : rows->n;
    if (rows->n_routed <= rows->routing_room)
        return VKMOE_OK;
    free(rows->ids);
    free(rows->gates);
    free(rows->layer_x);
    rows->ids = NULL;
    rows->gates = rows->layer_x = NULL;
    rows->routing_room = 0;
    CLI_TRY(cli_alloc(rows->n_routed, rows->top_k, sizeof *rows->ids, &rows->ids));
    CLI_TRY(cli_alloc(rows->n_routed, rows->top_k, sizeof *rows->gates, &rows->gates));
    if (rows->d_layer > 0)
        CLI_TRY(cli_alloc(rows->n_routed, rows->d_layer, sizeof(float), &rows->layer_x));
    rows->routing_room = rows->n_routed;

fail:
    return status;
}

enum vkmoe_status rows_each(struct rows *rows, enum vkmoe_status (*run)(void *user), void *user)
{
    enum vkmoe_status status;
    while (true) {
        if (cli_interrupted())
            CLI_TRY(VKMOE_E_CANCELLED);
        CLI_TRY(rows_read(rows));
        if (rows->n == 0)
            break;
        CLI_TRY(run(user));
        rows->n_done += rows->n;
        cli_progress("rows", rows->n_done, rows->n_total);
    }
    if (rows->n_done == 0) {
        vkmoe_error_set("the data set has no rows");
        CLI_TRY(VKMOE_E_DATA);
    }

fail:
    return status;
}

vkmoe_session_io rows_io(const struct rows *rows)
{
    vkmoe_session_io io = vkmoe_session_io_init();
    io.x = rows->x;
    io.offsets = rows->offsets;
    io.token_ids = rows->token_ids;
    return io;
}

enum vkmoe_status rows_run(struct rows *rows, vkmoe_session *session, float *y, float *scores)
{
    enum vkmoe_status status;
    vkmoe_session_io io = rows_io(rows);
    io.y = y;
    io.scores = scores;
    if (rows->top_k > 0) {
        CLI_TRY(make_room(rows));
        io.layer = rows->layer;
        io.ids = rows->ids;
        io.gates = rows->gates;
        io.layer_x = rows->layer_x;
    }
    CLI_TRY(vkmoe_session_run(session, rows->n, &io));

fail:
    return status;
}
