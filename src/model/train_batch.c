// SPDX-License-Identifier: MIT
#include "model/train_batch.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"

static enum vkmoe_status alloc(const vkmoe_host *host, uint64_t n, uint64_t width, void *out)
{
    uint64_t size;
    if (!moe_mul(n, width, &size) || !moe_mul(size, sizeof(float), &size))
        return moe_fail(VKMOE_E_MEMORY, "batch: %llu rows of %llu numbers", (unsigned long long) n,
                        (unsigned long long) width);
    return moe_try_alloc(host, size, "batch", out);
}

enum vkmoe_status moe_train_batch_create(const struct moe_description *d, uint32_t n_features,
                                         bool loss_takes_labels, uint32_t max_tokens,
                                         uint32_t max_examples, struct moe_train_batch *out)
{
    enum vkmoe_status status;
    const vkmoe_host *host = &d->host;
    uint32_t width = d->info.n_outputs;
    bool classify = d->info.task == VKMOE_TASK_CLASSIFY;
    *out = (struct moe_train_batch){
        .host = host,
        .max_tokens = max_tokens,
        .max_examples = max_examples,
        .n_outputs = width,
        .net = vkmoe_net_batch_init(),
    };
    if (n_features > 0)
        TRY(alloc(host, max_tokens, n_features, &out->x));
    else
        TRY(alloc(host, max_tokens, 1, &out->token_ids));
    TRY(alloc(host, (uint64_t) max_examples + 1, 1, &out->offsets));
    if (classify)
        TRY(alloc(host, max_examples, 1, &out->labels));
    else
        TRY(alloc(host, max_examples, width, &out->values));
    if (!classify || !loss_takes_labels)
        TRY(alloc(host, max_examples, width, &out->targets));
    TRY(alloc(host, max_examples, width, &out->y));

fail:
    return status;
}

void moe_train_batch_destroy(struct moe_train_batch *batch)
{
    if (!batch->host)
        return;
    moe_free(batch->host, batch->x);
    moe_free(batch->host, batch->token_ids);
    moe_free(batch->host, batch->offsets);
    moe_free(batch->host, batch->labels);
    moe_free(batch->host, batch->values);
    moe_free(batch->host, batch->targets);
    moe_free(batch->host, batch->y);
}

uint32_t moe_train_batch_room(const struct moe_train_batch *batch,
                              const struct moe_train_data *data, const uint32_t *rows, uint32_t n)
{
    uint32_t fit = 0;
    uint64_t n_tokens = 0;
    while (fit < n && fit < batch->max_examples) {
        n_tokens += moe_train_data_tokens(data, rows[fit]);
        if (n_tokens > batch->max_tokens)
            break;
        fit++;
    }
    return fit;
}

// A class as 1 among 0; with a single output, the second class is 1.
static void spread_label(int32_t label, uint32_t n_outputs, float *target)
{
    for (uint32_t i = 0; i < n_outputs; i++)
        target[i] = n_outputs == 1 ? (float) label : (float) ((uint32_t) label == i);
}

static void fill_target(struct moe_train_batch *batch, const struct moe_train_data *data,
                        const struct moe_train_stats *scale, uint32_t row, uint32_t i)
{
    uint32_t width = batch->n_outputs;
    if (data->labels)
        batch->labels[i] = data->labels[row];
    if (!data->values) {
        if (batch->targets)
            spread_label(data->labels[row], width, batch->targets + (size_t) i * width);
        return;
    }
    for (uint32_t j = 0; j < width; j++) {
        float value = data->values[(size_t) row * width + j];
        if (batch->values)
            batch->values[(size_t) i * width + j] = value;
        batch->targets[(size_t) i * width + j] =
            scale->first ? (value - scale->first[j]) / scale->second[j] : value;
    }
}

void moe_train_batch_fill(struct moe_train_batch *batch, const struct moe_train_data *data,
                          const struct moe_train_stats *scale, const uint32_t *rows, uint32_t n)
{
    uint32_t n_tokens = 0, width = data->n_features;
    batch->offsets[0] = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint64_t from = data->offsets ? data->offsets[rows[i]] : rows[i];
        uint32_t tokens = moe_train_data_tokens(data, rows[i]);
        if (width > 0)
            memcpy(batch->x + (size_t) n_tokens * width, data->x + from * width,
                   (size_t) tokens * width * sizeof *batch->x);
        else
            memcpy(batch->token_ids + n_tokens, data->token_ids + from,
                   tokens * sizeof *batch->token_ids);
        n_tokens += tokens;
        batch->offsets[i + 1] = (int32_t) n_tokens;
        fill_target(batch, data, scale, rows[i], i);
    }
    batch->net.n_tokens = n_tokens;
    batch->net.n_examples = n;
    batch->net.x = batch->x;
    batch->net.token_ids = batch->token_ids;
    batch->net.offsets = data->offsets ? batch->offsets : NULL;
    batch->net.labels = batch->targets ? NULL : batch->labels;
    batch->net.targets = batch->targets;
}
