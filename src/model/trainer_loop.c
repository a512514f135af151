// SPDX-License-Identifier: MIT
// Steps, epochs, validation, early stopping.
#include "model/trainer.h"

#include "base/bits.h"
#include "base/host.h"
#include "base/status.h"

#include <math.h>
#include <time.h>

double moe_trainer_clock(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double) now.tv_sec + 1e-9 * (double) now.tv_nsec;
}

// ---- evaluation ------------------------------------------------------------------------------

// Back to the units of the targets, in which metrics are told.
static void unscale(const struct moe_train_stats *scale, uint32_t n, uint32_t width, float *y)
{
    for (size_t i = 0; scale->first && i < (size_t) n * width; i++)
        y[i] = y[i] * scale->second[i % width] + scale->first[i % width];
}

enum vkmoe_status moe_trainer_evaluate(vkmoe_trainer *t, const struct moe_train_data *data,
                                       const uint32_t *rows, uint32_t n, double *loss,
                                       vkmoe_metrics *metrics)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_train_batch *b = &t->batch;
    double sum = 0, part;
    for (uint32_t done = 0, take; done < n; done += take) {
        take = moe_train_batch_room(b, data, rows + done, n - done);
        if (take == 0)
            return moe_fail(VKMOE_E_SHAPE, "example %u has %u tokens, a batch has room for %u",
                            rows[done], moe_train_data_tokens(data, rows[done]), b->max_tokens);
        moe_train_batch_fill(b, data, &t->target, rows + done, take);
        TRY(vkmoe_net_eval(t->net, &b->net, b->y, &part));
        sum += part * take;
        unscale(&t->target, take, b->n_outputs, b->y);
        if (metrics)
            TRY(vkmoe_metrics_add(metrics, take, b->y, b->labels, b->values, NULL));
    }
    *loss = sum / n;

fail:
    return status;
}

static enum vkmoe_status validate(vkmoe_trainer *t)
{
    enum vkmoe_status status;
    vkmoe_metrics *metrics = NULL;
    vkmoe_metrics_summary summary;
    if (t->n_valid == 0)
        return VKMOE_OK;
    TRY(moe_trainer_new_metrics(t, &metrics));
    TRY(moe_trainer_evaluate(t, t->valid, t->valid_rows, t->n_valid, &t->at.valid_loss, metrics));
    TRY(vkmoe_metrics_get(metrics, &summary));
    bool classify = t->description.info.task == VKMOE_TASK_CLASSIFY;
    t->at.metric = classify ? summary.accuracy : summary.rmse;

fail:
    vkmoe_metrics_destroy(metrics);
    return status;
}

// ---- the best epoch --------------------------------------------------------------------------

enum vkmoe_status moe_trainer_keep_best(vkmoe_trainer *t)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t i = 0; i < t->n_params; i++)
        TRY(vkmoe_net_read(t->net, VKMOE_NET_VALUE, t->params[i].info.name, t->params[i].best,
                           t->params[i].n));

fail:
    return status;
}

enum vkmoe_status moe_trainer_restore_best(vkmoe_trainer *t)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t i = 0; i < t->n_params; i++)
        TRY(vkmoe_net_write(t->net, VKMOE_NET_VALUE, t->params[i].info.name, t->params[i].best,
                            t->params[i].n));

fail:
    return status;
}

static enum vkmoe_status judge(vkmoe_trainer *t)
{
    struct moe_trainer_position *at = &t->at;
    bool classify = t->description.info.task == VKMOE_TASK_CLASSIFY;
    double value = at->valid_loss;
    if (t->config.patience == 0)
        return VKMOE_OK;
    if (t->config.monitor_metric)
        value = classify ? -at->metric : at->metric;
    bool first = at->best_epoch == 0 || (isnan(at->best) && !isnan(value));
    if (first || value < at->best - (double) t->config.min_delta) {
        at->best = value;
        at->best_epoch = at->epoch;
        return moe_trainer_keep_best(t);
    }
    if (at->epoch - at->best_epoch >= t->config.patience)
        at->stopped_early = at->done = true;
    return VKMOE_OK;
}

// ---- steps -----------------------------------------------------------------------------------

// A step in parts of nearly equal size, whose gradients add up.
static enum vkmoe_status run_parts(vkmoe_trainer *t, const uint32_t *rows, uint32_t n, double *loss)
{
    enum vkmoe_status status = VKMOE_OK;
    uint32_t n_parts = (uint32_t) moe_min(t->config.micro_batches, n);
    *loss = 0;
    for (uint32_t i = 0; i < n_parts; i++) {
        uint32_t from = (uint32_t) ((uint64_t) n * i / n_parts);
        uint32_t to = (uint32_t) ((uint64_t) n * (i + 1) / n_parts);
        double part;
        moe_train_batch_fill(&t->batch, &t->data, &t->target, rows + from, to - from);
        TRY(vkmoe_net_forward(t->net, &t->batch.net));
        TRY(vkmoe_net_backward(t->net, n_parts, &part));
        *loss += part;
    }
    TRY(vkmoe_net_step(t->net, t->rate));

fail:
    return status;
}

static enum vkmoe_status run_step(vkmoe_trainer *t)
{
    enum vkmoe_status status;
    struct moe_trainer_position *at = &t->at;
    uint32_t from = at->batch * t->config.batch;
    uint32_t n = (uint32_t) moe_min(t->config.batch, t->split.n_train - from);
    double loss;
    if (t->order_epoch != at->epoch) {
        memcpy(t->order, t->split.train, t->split.n_train * sizeof *t->order);
        moe_train_shuffle(t->config.seed, at->epoch, t->order, t->split.n_train);
        t->order_epoch = at->epoch;
    }
    t->rate = moe_train_rate(&t->config, at->step, t->n_steps, at->epoch);
    if (t->config.micro_batches > 1)
        TRY(run_parts(t, t->order + from, n, &loss));
    else {
        moe_train_batch_fill(&t->batch, &t->data, &t->target, t->order + from, n);
        TRY(vkmoe_net_train(t->net, &t->batch.net, t->rate, &loss));
    }
    at->loss_sum += loss;
    at->batch++;
    at->step++;

fail:
    return status;
}

// ---- epochs ----------------------------------------------------------------------------------

static bool tell(vkmoe_trainer *t, bool end_of_epoch)
{
    const struct moe_trainer_position *at = &t->at;
    const vkmoe_trainer_progress progress = {
        .epoch = at->epoch,
        .n_epochs = t->n_epochs,
        .step = at->step,
        .n_steps = t->n_steps,
        .end_of_epoch = end_of_epoch,
        .loss = end_of_epoch ? at->loss : at->loss_sum / at->batch,
        .valid_loss = at->valid_loss,
        .metric = at->metric,
        .rate = (double) t->rate,
        .seconds = t->seconds + moe_trainer_clock() - t->started,
    };
    return !t->progress || t->progress(t->user, &progress);
}

static bool checkpoint_is_due(const vkmoe_trainer *t)
{
    if (!t->checkpoint)
        return false;
    if (t->checkpoint_epochs == 0)
        return moe_trainer_clock() - t->last_checkpoint > t->checkpoint_seconds;
    return t->at.done || t->at.epoch % t->checkpoint_epochs == 0;
}

static enum vkmoe_status end_epoch(vkmoe_trainer *t)
{
    enum vkmoe_status status;
    struct moe_trainer_position *at = &t->at;
    at->loss = at->loss_sum / at->batch;
    at->epoch++;
    at->batch = 0;
    at->loss_sum = 0;
    TRY(validate(t));
    TRY(judge(t));
    at->done = at->done || at->step == t->n_steps;
    if (at->done && t->config.patience > 0)
        TRY(moe_trainer_restore_best(t));
    TRY(moe_trainer_write_log(t));
    if (checkpoint_is_due(t))
        TRY(moe_trainer_write_checkpoint(t));

fail:
    return status;
}

static enum vkmoe_status cancel(vkmoe_trainer *t)
{
    enum vkmoe_status status = VKMOE_OK;
    if (t->checkpoint)
        TRY(moe_trainer_write_checkpoint(t));
    return moe_fail(VKMOE_E_CANCELLED, "cancelled after %llu of %llu steps",
                    (unsigned long long) t->at.step, (unsigned long long) t->n_steps);

fail:
    return status;
}

// Every point at which it may stop lies between two steps, so that it goes on with the same bits.
enum vkmoe_status vkmoe_trainer_run(vkmoe_trainer *trainer)
{
    enum vkmoe_status status = VKMOE_OK;
    vkmoe_trainer *t = trainer;
    if (!t)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_trainer_run: trainer is NULL");
    t->started = t->last_checkpoint = moe_trainer_clock();
    while (!t->at.done) {
        bool end = t->at.batch == t->n_batches || t->at.step == t->n_steps;
        TRY(end ? end_epoch(t) : run_step(t));
        if (!tell(t, end) && !t->at.done)
            TRY(cancel(t));
    }

fail:
    t->seconds += moe_trainer_clock() - t->started;
    return status;
}
