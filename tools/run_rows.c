// SPDX-License-Identifier: MIT
// The rows of `vkmoe run`: of files that go side by side, or made up.
#include "rng.h"
#include "run.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    BATCH = 1024,
    MAX_WHOLE = 1 << 20, // rows of a run that cannot be cut
};

// Streams of random numbers.
enum { STREAM_X = 0, STREAM_ROUTER = 1, STREAM_IDS = 2 };

__attribute__((format(printf, 2, 3)))
static enum vkmoe_status fail_with(enum vkmoe_status status, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    vkmoe_error_set(text);
    return status;
}

static enum vkmoe_status fail_count(const char *path, const char *more, uint64_t n,
                                    const char *than)
{
    return fail_with(VKMOE_E_SHAPE, "%.200s: %s %llu rows%s; one row for each row of the input",
                     path, more, (unsigned long long) n, than);
}

// ---- opening ---------------------------------------------------------------------------------

static enum vkmoe_status open_data(const struct run_layer *layer, const char *path, uint32_t width,
                                   vkmoe_dataset **out, uint64_t *n)
{
    enum vkmoe_status status;
    vkmoe_dataset_desc data = vkmoe_dataset_desc_init();
    vkmoe_dataset_info info;
    data.host = layer->host;
    data.n_features = width;
    CLI_TRY(vkmoe_dataset_open(path, &data, out));
    CLI_TRY(vkmoe_dataset_get_info(*out, &info));
    *n = info.n_rows;

fail:
    return status;
}

// Rows beside those of the input; width 0: whole numbers. Either count may not be known yet.
static enum vkmoe_status open_beside(const struct run_rows *rows, const struct run_layer *layer,
                                     struct run_beside *beside, uint32_t width)
{
    enum vkmoe_status status = VKMOE_OK;
    char than[64];
    uint64_t n = 0;
    if (!beside->path)
        return VKMOE_OK;
    if (width > 0)
        CLI_TRY(open_data(layer, beside->path, width, &beside->data, &n));
    else
        CLI_TRY(vkmoe_numbers_open(layer->host, beside->path, &beside->numbers, &n));
    snprintf(than, sizeof than, ", the input has %llu", (unsigned long long) rows->n_total);
    if (n > 0 && rows->n_total > 0 && n != rows->n_total)
        CLI_TRY(fail_count(beside->path, "has", n, than));

fail:
    return status;
}

// An option that the layer needs, or has no use for.
static enum vkmoe_status check_option(const struct run_rows *rows, const struct run_layer *layer,
                                      bool needed, const char *option, const char *path,
                                      const char *why)
{
    if (needed && !path && rows->in_path)
        return fail_with(VKMOE_E_ARGUMENT, "%.200s: layer %u needs %s FILE: %s", layer->path,
                         (unsigned) layer->index, option, why);
    if (!needed && path)
        return fail_with(VKMOE_E_ARGUMENT, "%.200s: layer %u has no use for %s: it is for layers "
                         "of which %s", layer->path, (unsigned) layer->index, option, why);
    return VKMOE_OK;
}

// Rows at a time. What a capacity counts must not be cut.
static enum vkmoe_status choose_batch(struct run_rows *rows, const struct run_layer *layer)
{
    const vkmoe_layer_desc *d = &layer->desc;
    rows->batch = BATCH;
    if (d->capacity_mode == VKMOE_CAPACITY_NONE)
        return VKMOE_OK;
    if (d->capacity_rows > 0 && d->capacity_rows <= MAX_WHOLE) {
        uint32_t n = d->capacity_rows < BATCH ? BATCH / d->capacity_rows : 1;
        rows->batch = n * d->capacity_rows;
        return VKMOE_OK;
    }
    if (rows->n_total == 0 && rows->in_path && !strstr(rows->in_path, ".npy"))
        return fail_with(VKMOE_E_UNSUPPORTED, "%.200s: layer %u has a capacity that counts all "
                         "rows, so their number must be known: give a .npy file", layer->path,
                         (unsigned) layer->index);
    if (rows->n_total > MAX_WHOLE || d->capacity_rows > MAX_WHOLE)
        return fail_with(VKMOE_E_UNSUPPORTED, "%.200s: layer %u has a capacity that counts %llu "
                         "rows together: at most %d run at once", layer->path,
                         (unsigned) layer->index,
                         (unsigned long long) (d->capacity_rows ? d->capacity_rows
                                                                : rows->n_total), MAX_WHOLE);
    rows->batch = rows->n_total > 0 ? (uint32_t) rows->n_total : 1;
    return VKMOE_OK;
}

static enum vkmoe_status open_inputs(struct run_rows *rows, const struct run_layer *layer)
{
    enum vkmoe_status status;
    const vkmoe_layer_desc *d = &layer->desc;
    rows->n_total = rows->n_random;
    if (rows->in_path)
        CLI_TRY(open_data(layer, rows->in_path, layer->d_in, &rows->data, &rows->n_total));
    CLI_TRY(check_option(rows, layer, d->router_input, "--router-input", rows->router.path,
                         "the router reads a tensor of its own"));
    CLI_TRY(check_option(rows, layer, d->select == VKMOE_SELECT_TABLE, "--token-ids",
                         rows->ids.path, "a table by token id selects the experts"));
    CLI_TRY(open_beside(rows, layer, &rows->router, layer->d_in));
    CLI_TRY(open_beside(rows, layer, &rows->ids, 0));
    CLI_TRY(open_beside(rows, layer, &rows->dy, d->d_out));

fail:
    return status;
}

enum vkmoe_status run_rows_open(struct run_rows *rows, const struct run_layer *layer)
{
    enum vkmoe_status status;
    const vkmoe_layer_desc *d = &layer->desc;
    CLI_TRY(open_inputs(rows, layer));
    CLI_TRY(choose_batch(rows, layer));
    CLI_TRY(cli_alloc(rows->batch, layer->d_in, sizeof *rows->x, &rows->x));
    if (rows->dy.path)
        CLI_TRY(cli_alloc(rows->batch, d->d_out, sizeof *rows->dy_rows, &rows->dy_rows));
    if (d->router_input)
        CLI_TRY(cli_alloc(rows->batch, layer->d_in, sizeof *rows->router_x, &rows->router_x));
    if (d->select == VKMOE_SELECT_TABLE)
        CLI_TRY(cli_alloc(rows->batch, 1, sizeof *rows->token_ids, &rows->token_ids));

fail:
    return status;
}

// ---- reading ---------------------------------------------------------------------------------

// n rows beside those of the input; n 0: there must be none left.
static enum vkmoe_status read_beside(const struct run_rows *rows, struct run_beside *beside,
                                     uint32_t n, void *out)
{
    enum vkmoe_status status = VKMOE_OK;
    uint32_t got = n > 0 ? n : 1;
    if (!beside->path)
        return VKMOE_OK;
    if (beside->data)
        CLI_TRY(vkmoe_dataset_read(beside->data, &got, out, NULL, NULL));
    else
        CLI_TRY(vkmoe_numbers_read(beside->numbers, &got, out));
    if (got < n)
        CLI_TRY(fail_count(beside->path, "has only", rows->n_done + got, ""));
    if (got > n)
        CLI_TRY(fail_count(beside->path, "has more than", rows->n_done, ""));

fail:
    return status;
}

// Rows ~ N(0, 1), a function of seed, stream, row and column.
static void make_rows(const struct run_rows *rows, uint32_t stream, uint64_t width, uint32_t n,
                      float *out)
{
    for (uint64_t i = 0; i < n * width; i++)
        out[i] = rng_normal(rows->seed, stream, 0, rows->n_done * width + i);
}

static void make_ids(const struct run_rows *rows, uint32_t n_ids, uint32_t n, int32_t *out)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t at = rows->n_done + i;
        struct rng_block block = rng_philox(
            (struct rng_block){{(uint32_t) at, (uint32_t) (at >> 32), 0, STREAM_IDS}}, rows->seed);
        out[i] = (int32_t) ((uint64_t) block.v[0] * n_ids >> 32);
    }
}

enum vkmoe_status run_rows_read(struct run_rows *rows, const struct run_layer *layer, uint32_t *n)
{
    enum vkmoe_status status = VKMOE_OK;
    const uint64_t left = rows->n_total - rows->n_done;
    *n = rows->batch;
    if (rows->data) {
        CLI_TRY(vkmoe_dataset_read(rows->data, n, rows->x, NULL, NULL));
    } else {
        *n = left < *n ? (uint32_t) left : *n;
        make_rows(rows, STREAM_X, layer->d_in, *n, rows->x);
        if (rows->router_x)
            make_rows(rows, STREAM_ROUTER, layer->d_in, *n, rows->router_x);
        if (rows->token_ids)
            make_ids(rows, layer->desc.n_token_ids, *n, rows->token_ids);
    }
    CLI_TRY(read_beside(rows, &rows->router, *n, rows->router_x));
    CLI_TRY(read_beside(rows, &rows->ids, *n, rows->token_ids));
    CLI_TRY(read_beside(rows, &rows->dy, *n, rows->dy_rows));

fail:
    return status;
}

static void close_beside(struct run_beside *beside)
{
    vkmoe_dataset_destroy(beside->data);
    vkmoe_numbers_destroy(beside->numbers);
}

void run_rows_close(struct run_rows *rows)
{
    free(rows->x);
    free(rows->router_x);
    free(rows->dy_rows);
    free(rows->token_ids);
    vkmoe_dataset_destroy(rows->data);
    close_beside(&rows->router);
    close_beside(&rows->ids);
    close_beside(&rows->dy);
}
