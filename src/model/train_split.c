// SPDX-License-Identifier: MIT
// Which rows train, in which order, and their statistics.
#include "model/train_data.h"

#include "base/host.h"
#include "base/status.h"
#include "philox.h"

#include <math.h>
#include <stdio.h>

// Streams of random numbers, as the last word of the counter.
enum { STREAM_EPOCH = 0x53485546, STREAM_SPLIT = 0x53504c54 };

// A number below n >= 1: the high word of a product, whose bias below 2^-32 n is of no matter here.
static uint32_t draw(uint64_t seed, uint32_t stream, uint32_t epoch, uint32_t i, uint32_t n)
{
    uint32_t words[4] = {i, 0, epoch, stream};
    moe_philox(words, (uint32_t) seed, (uint32_t) (seed >> 32));
    return (uint32_t) ((uint64_t) words[0] * n >> 32);
}

static void shuffle(uint64_t seed, uint32_t stream, uint32_t epoch, uint32_t *rows, uint32_t n)
{
    for (uint32_t i = n; i > 1; i--) { // Fisher and Yates
        uint32_t j = draw(seed, stream, epoch, i, i), row = rows[i - 1];
        rows[i - 1] = rows[j];
        rows[j] = row;
    }
}

void moe_train_shuffle(uint64_t seed, uint32_t epoch, uint32_t *rows, uint32_t n)
{
    shuffle(seed, STREAM_EPOCH, epoch, rows, n);
}

// ---- the split -------------------------------------------------------------------------------

// Marks the validation rows by 1.
static void mark(const struct moe_train_config *config, uint32_t n, uint32_t *order, uint32_t *mark)
{
    switch (config->validation) {
    case MOE_VALIDATION_NONE:
        return;
    case MOE_VALIDATION_SHARE:
        for (uint32_t i = 0; i < n; i++)
            order[i] = i;
        shuffle(config->seed, STREAM_SPLIT, 0, order, n);
        for (uint32_t i = 0; i < (uint32_t) ((double) config->share * n + 0.5); i++)
            mark[order[i]] = 1;
        return;
    case MOE_VALIDATION_FOLD:
        for (uint32_t i = 0; i < n; i++)
            mark[i] = i % config->fold_of == config->fold_index;
        return;
    }
}

static enum vkmoe_status check_split(const struct moe_train_split *split,
                                     const struct moe_train_config *config,
                                     const struct moe_train_data *data, const char *path,
                                     const vkmoe_model_info *info)
{
    if (split->n_train == 0 || (split->n_valid == 0 && config->validation != MOE_VALIDATION_NONE))
        return moe_fail(VKMOE_E_DATA, "%s: %u rows: %u to train, %u to validate", path, data->n,
                        split->n_train, split->n_valid);
    if (config->batch > split->n_train)
        return moe_fail(VKMOE_E_DATA, "%s: train.batch: %u, but there are %u rows to train", path,
                        config->batch, split->n_train);
    if (info->task != VKMOE_TASK_CLASSIFY || data->values)
        return VKMOE_OK;
    for (uint32_t i = 1; i < split->n_train; i++) {
        if (data->labels[split->train[i]] != data->labels[split->train[0]])
            return VKMOE_OK;
    }
    return moe_fail(VKMOE_E_DATA, "%s: all %u rows to train are of one class", path,
                    split->n_train);
}

enum vkmoe_status moe_train_split_make(const struct moe_train_config *config,
                                       const struct moe_train_data *data, const char *path,
                                       const vkmoe_model_info *info, struct moe_train_split *out)
{
    enum vkmoe_status status;
    uint32_t *marks = NULL;
    size_t size = data->n * sizeof *marks;
    *out = (struct moe_train_split){.host = data->host};
    TRY(moe_try_alloc(data->host, size, "rows", &out->train));
    TRY(moe_try_alloc(data->host, size, "rows", &out->valid));
    TRY(moe_try_alloc(data->host, size, "rows", &marks));
    mark(config, data->n, out->train, marks);
    for (uint32_t i = 0; i < data->n; i++) {
        if (marks[i])
            out->valid[out->n_valid++] = i;
        else
            out->train[out->n_train++] = i;
    }
    status = check_split(out, config, data, path, info);

fail:
    moe_free(data->host, marks);
    return status;
}

void moe_train_split_finish(struct moe_train_split *split)
{
    if (!split->host)
        return;
    moe_free(split->host, split->train);
    moe_free(split->host, split->valid);
}

// ---- statistics ------------------------------------------------------------------------------

// The rows of one column that train: all tokens of all training examples.
struct column {
    const struct moe_train_data *data;
    const struct moe_train_split *split;
    const float *values; // (rows, width)
    bool of_tokens;      // rows are tokens, else examples
    uint32_t width, i;
};

typedef void visit_fn(void *state, double value);

static void visit(const struct column *column, visit_fn *fn, void *state)
{
    for (uint32_t r = 0; r < column->split->n_train; r++) {
        uint32_t example = column->split->train[r];
        uint64_t first = example, n = 1;
        if (column->of_tokens && column->data->offsets) {
            first = column->data->offsets[example];
            n = moe_train_data_tokens(column->data, example);
        }
        for (uint64_t row = first; row < first + n; row++)
            fn(state, (double) column->values[row * column->width + column->i]);
    }
}

struct summary {
    double n, sum, mean, spread2, low, high;
};

static void add_sum(void *state, double value)
{
    struct summary *s = state;
    s->low = s->n > 0 ? fmin(s->low, value) : value;
    s->high = s->n > 0 ? fmax(s->high, value) : value;
    s->n++;
    s->sum += value;
}

static void add_spread(void *state, double value)
{
    struct summary *s = state;
    s->spread2 += (value - s->mean) * (value - s->mean);
}

static struct summary summarize(const struct column *column)
{
    struct summary s = {0};
    visit(column, add_sum, &s);
    s.mean = s.n > 0 ? s.sum / s.n : 0;
    visit(column, add_spread, &s);
    return s;
}

// Collects numbers of columns, from 1, for a message.
struct names {
    char text[120];
    size_t size;
    uint32_t n;
};

static void add_name(struct names *names, uint32_t column)
{
    enum { SHOWN = 8 };
    names->n++;
    if (names->n <= SHOWN)
        names->size += (size_t) snprintf(names->text + names->size,
                                         sizeof names->text - names->size, "%s%u",
                                         names->n > 1 ? ", " : "", column);
    else if (names->n == SHOWN + 1)
        snprintf(names->text + names->size, sizeof names->text - names->size, " ...");
}

static enum vkmoe_status alloc_stats(const vkmoe_host *host, uint32_t n,
                                     struct moe_train_stats *out)
{
    enum vkmoe_status status;
    *out = (struct moe_train_stats){.host = host};
    TRY(moe_try_alloc(host, n * sizeof *out->first, "statistics", &out->first));
    TRY(moe_try_alloc(host, n * sizeof *out->second, "statistics", &out->second));

fail:
    return status;
}

enum vkmoe_status moe_train_input_stats(const struct moe_train_data *data,
                                        const struct moe_train_split *split, enum vkmoe_input kind,
                                        struct moe_train_stats *out)
{
    enum vkmoe_status status;
    struct names constant = {0};
    struct column column = {data, split, data->x, true, data->n_features, 0};
    *out = (struct moe_train_stats){.host = data->host};
    if (kind != VKMOE_INPUT_STANDARDIZE && kind != VKMOE_INPUT_MINMAX)
        return VKMOE_OK;
    TRY(alloc_stats(data->host, data->n_features, out));
    for (column.i = 0; column.i < data->n_features; column.i++) {
        struct summary s = summarize(&column);
        bool standardize = kind == VKMOE_INPUT_STANDARDIZE, one_value = !(s.high > s.low);
        out->first[column.i] = (float) (standardize ? s.mean : s.low);
        out->second[column.i] =
            (float) (standardize ? (one_value ? 1 : sqrt(s.spread2 / s.n))
                                 : (one_value ? s.low + 1 : s.high));
        if (one_value)
            add_name(&constant, column.i + 1);
    }
    if (constant.n > 0)
        moe_log(data->host, VKMOE_LOG_WARN,
                "%u of %u features have one value in all rows to train (%s); their %s is taken as "
                "1",
                constant.n, data->n_features, constant.text,
                kind == VKMOE_INPUT_STANDARDIZE ? "std" : "range");

fail:
    return status;
}

enum vkmoe_status moe_train_target_stats(const struct moe_train_data *data,
                                         const struct moe_train_split *split,
                                         struct moe_train_stats *out)
{
    enum vkmoe_status status;
    struct column column = {data, split, data->values, false, data->n_targets, 0};
    TRY(alloc_stats(data->host, data->n_targets, out));
    for (column.i = 0; column.i < data->n_targets; column.i++) {
        struct summary s = summarize(&column);
        if (!(s.high > s.low))
            return moe_fail(VKMOE_E_DATA, "target %u has one value, %g, in all %u rows to train",
                            column.i + 1, s.low, split->n_train);
        out->first[column.i] = (float) s.mean;
        out->second[column.i] = (float) sqrt(s.spread2 / s.n);
    }

fail:
    return status;
}

void moe_train_stats_finish(struct moe_train_stats *stats)
{
    if (!stats->host)
        return;
    moe_free(stats->host, stats->first);
    moe_free(stats->host, stats->second);
}
