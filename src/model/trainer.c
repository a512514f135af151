// SPDX-License-Identifier: MIT
// A training: configuration, data, network.
#include "model/trainer.h"

#include "base/bits.h"
#include "base/desc.h"
#include "base/file.h"
#include "base/host.h"
#include "base/status.h"
#include "model/metrics.h"

#include <math.h>

enum { EVAL_EXAMPLES = 256 }; // of rows; so many are evaluated at once

// ---- configuration and data ------------------------------------------------------------------

static enum vkmoe_status copy_text(const vkmoe_host *host, const char *text, char **out)
{
    enum vkmoe_status status = VKMOE_OK;
    if (!text)
        return VKMOE_OK;
    TRY(moe_try_alloc(host, strlen(text) + 1, "text", out));
    strcpy(*out, text);

fail:
    return status;
}

static enum vkmoe_status read_config(vkmoe_trainer *t, const vkmoe_trainer_desc *desc)
{
    enum vkmoe_status status;
    json_error_t error;
    TRY(copy_text(&t->host, desc->config_name ? desc->config_name : "config", &t->name));
    t->whole_config = json_loads(desc->config, JSON_REJECT_DUPLICATES, &error);
    if (!t->whole_config)
        return moe_fail(VKMOE_E_DATA, "%s: line %d, column %d: %s", t->name, error.line,
                        error.column, error.text);
    if (!json_is_object(t->whole_config))
        return moe_fail(VKMOE_E_DATA, "%s: not a JSON object", t->name);
    TRY(moe_description_read(&t->host, t->name, t->whole_config, true, &t->description));
    TRY(moe_train_config_read(&t->description, t->name, &t->config));
    TRY(moe_trainer_check_fold(t));

fail:
    return status;
}

static enum vkmoe_status scale(const vkmoe_trainer *t, struct moe_train_data *data)
{
    const struct moe_input_stats stats = {t->input.first, t->input.second};
    if (t->input.first)
        moe_input_scale(t->description.info.input, &stats, data->n_features, data->n_tokens,
                        data->x, data->x);
    return VKMOE_OK;
}

// Validation rows of their own file, all of them.
static enum vkmoe_status load_valid(vkmoe_trainer *t, const char *path, const char *target)
{
    enum vkmoe_status status;
    if (t->config.validation != MOE_VALIDATION_NONE)
        return moe_fail(VKMOE_E_DATA,
                        "%s: config: train.validation: there are validation rows in %s already",
                        t->name, path);
    TRY(moe_train_data_load(path, target, t->config.soft_targets, &t->description,
                            &t->valid_file));
    uint32_t n = t->valid_file.n;
    t->valid_hash = moe_train_data_hash(&t->valid_file);
    TRY(moe_try_alloc(&t->host, n * sizeof *t->all_valid, "rows", &t->all_valid));
    for (uint32_t i = 0; i < n; i++)
        t->all_valid[i] = i;
    t->valid = &t->valid_file;
    t->valid_rows = t->all_valid;
    t->n_valid = n;

fail:
    return status;
}

// Targets of these losses are probabilities.
static enum vkmoe_status check_targets(const vkmoe_trainer *t, const struct moe_train_data *data)
{
    enum vkmoe_loss loss = t->config.loss;
    if (!data->values || (loss != VKMOE_LOSS_BCE && loss != VKMOE_LOSS_BCE_LOGITS))
        return VKMOE_OK;
    for (uint64_t i = 0; i < (uint64_t) data->n * data->n_targets; i++) {
        if (!(data->values[i] >= 0 && data->values[i] <= 1))
            return moe_fail(VKMOE_E_DATA, "row %llu: target %g; this loss needs 0..1",
                            (unsigned long long) (i / data->n_targets + 1),
                            (double) data->values[i]);
    }
    return VKMOE_OK;
}

static enum vkmoe_status load_data(vkmoe_trainer *t, const vkmoe_trainer_desc *desc)
{
    enum vkmoe_status status;
    struct moe_description *d = &t->description;
    const char *target = desc->target ? desc->target : t->config.target;
    TRY(moe_train_name_classes(desc->data, target, t->config.soft_targets, t->name, d));
    TRY(moe_train_data_load(desc->data, target, t->config.soft_targets, d, &t->data));
    t->data_hash = moe_train_data_hash(&t->data);
    TRY(moe_train_split_make(&t->config, &t->data, desc->data, &d->info, &t->split));
    t->valid = &t->data;
    t->valid_rows = t->split.valid;
    t->n_valid = t->split.n_valid;
    if (desc->valid)
        TRY(load_valid(t, desc->valid, target));
    if (t->n_valid == 0 && t->config.patience > 0)
        return moe_fail(VKMOE_E_DATA, "%s: config: train.patience: needs validation rows",
                        t->name);
    TRY(check_targets(t, &t->data));
    TRY(check_targets(t, &t->valid_file));
    TRY(moe_train_input_stats(&t->data, &t->split, d->info.input, &t->input));
    if (t->config.standardize_targets)
        TRY(moe_train_target_stats(&t->data, &t->split, &t->target));
    TRY(scale(t, &t->data));
    if (desc->valid)
        TRY(scale(t, &t->valid_file));

fail:
    return status;
}

// Weights of classes that make every class count alike: rows / (classes * rows of the class).
static enum vkmoe_status balance_classes(vkmoe_trainer *t)
{
    enum vkmoe_status status = VKMOE_OK;
    uint32_t n = t->description.info.n_classes, n_train = t->split.n_train;
    float *weights = NULL;
    if (!t->config.balanced)
        return VKMOE_OK;
    TRY(moe_try_alloc(&t->host, n * sizeof *weights, "class weights", &weights));
    t->config.class_weights = weights;
    for (uint32_t i = 0; i < n_train; i++)
        weights[t->data.labels[t->split.train[i]]]++;
    for (uint32_t i = 0; i < n; i++) {
        if (weights[i] == 0)
            return moe_fail(VKMOE_E_DATA,
                            "%s: config: train.class_weights: no row to train of class '%.40s'",
                            t->name, t->description.classes[i]);
        weights[i] = (float) n_train / ((float) n * weights[i]);
    }

fail:
    return status;
}

// ---- the network -----------------------------------------------------------------------------

// Tokens of the longest `n` examples together, of both files.
static uint64_t most_tokens(const vkmoe_trainer *t, uint32_t n)
{
    uint64_t longest = 1;
    const struct moe_train_data *all[] = {&t->data, &t->valid_file};
    for (size_t f = 0; f < MOE_COUNT(all); f++) {
        for (uint32_t i = 0; i < all[f]->n; i++)
            longest = moe_max(longest, moe_train_data_tokens(all[f], i));
    }
    return longest * n;
}

static enum vkmoe_status make_net(vkmoe_trainer *t)
{
    enum vkmoe_status status;
    const struct moe_description *d = &t->description;
    vkmoe_net_desc desc = vkmoe_net_desc_init();
    uint32_t parts = t->config.micro_batches, examples;
    t->micro_size = (uint32_t) moe_div_up(t->config.batch, parts);
    examples = t->micro_size;
    if (!t->data.offsets)
        examples = (uint32_t) moe_max(examples, moe_min(EVAL_EXAMPLES, t->data.n));
    uint64_t tokens = most_tokens(t, examples);
    if (tokens > INT32_MAX)
        return moe_fail(VKMOE_E_SHAPE, "a batch of %u examples has up to %llu tokens", examples,
                        (unsigned long long) tokens);
    moe_description_net(d, &desc);
    moe_train_config_net(&t->config, &d->info, &desc);
    desc.max_tokens = (uint32_t) tokens;
    desc.max_examples = examples;
    TRY(vkmoe_net_create(t->context, &desc, &t->net));
    TRY(vkmoe_net_init(t->net, t->config.seed));
    TRY(moe_train_batch_create(d, t->data.n_features, moe_train_uses_labels(&t->config),
                               desc.max_tokens, examples, &t->batch));

fail:
    return status;
}

static enum vkmoe_status list_params(vkmoe_trainer *t)
{
    enum vkmoe_status status;
    uint32_t n = vkmoe_net_param_count(t->net);
    TRY(moe_try_alloc(&t->host, n * sizeof *t->params, "parameters", &t->params));
    t->n_params = n;
    for (uint32_t i = 0; i < n; i++) {
        struct moe_trainer_param *param = &t->params[i];
        TRY(vkmoe_net_get_param(t->net, i, &param->info));
        param->n = (uint64_t) param->info.rows * param->info.width;
        if (t->config.patience > 0)
            TRY(moe_try_alloc(&t->host, param->n * sizeof *param->best, "best parameters",
                              &param->best));
    }

fail:
    return status;
}

static void count_steps(vkmoe_trainer *t)
{
    t->n_batches = (uint32_t) moe_div_up(t->split.n_train, t->config.batch);
    t->n_epochs = t->config.epochs;
    if (t->n_epochs == 0)
        t->n_epochs = (uint32_t) moe_div_up(t->config.steps, t->n_batches);
    t->n_steps = t->config.steps;
    if (t->n_steps == 0)
        t->n_steps = (uint64_t) t->n_epochs * t->n_batches;
    t->order_epoch = UINT32_MAX;
    t->at.valid_loss = t->at.metric = t->at.loss = NAN;
}

// ---- the object ------------------------------------------------------------------------------

// Fails now, not after the work, when a file could not be written.
static enum vkmoe_status check_output(const vkmoe_trainer *t, const char *path)
{
    struct moe_file_writer *writer = NULL;
    enum vkmoe_status status = path ? moe_file_create(&t->host, path, &writer) : VKMOE_OK;
    moe_file_discard(writer);
    return status;
}

static enum vkmoe_status create(vkmoe_trainer *t, const vkmoe_trainer_desc *desc)
{
    enum vkmoe_status status;
    t->checkpoint_epochs = desc->checkpoint_epochs;
    t->checkpoint_seconds = desc->checkpoint_seconds;
    t->progress = desc->progress;
    t->user = desc->user;
    TRY(copy_text(&t->host, desc->checkpoint, &t->checkpoint));
    TRY(read_config(t, desc));
    TRY(check_output(t, desc->output));
    TRY(check_output(t, desc->checkpoint));
    TRY(load_data(t, desc));
    TRY(balance_classes(t));
    count_steps(t);
    TRY(moe_try_alloc(&t->host, t->split.n_train * sizeof *t->order, "order", &t->order));
    TRY(make_net(t));
    TRY(list_params(t));
    if (desc->resume)
        TRY(moe_trainer_read_checkpoint(t));
    TRY(moe_trainer_open_log(t, desc->log ? desc->log : t->config.log, desc->resume));

fail:
    return status;
}

enum vkmoe_status vkmoe_trainer_create(vkmoe_context *context, const vkmoe_trainer_desc *desc,
                                       vkmoe_trainer **out)
{
    enum vkmoe_status status;
    vkmoe_trainer *t = NULL;
    vkmoe_trainer_desc given = vkmoe_trainer_desc_init();
    vkmoe_host host;
    if (!context || !desc || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_trainer_create: %s is NULL",
                        !context ? "context" : !desc ? "desc" : "out");
    *out = NULL;
    TRY(moe_desc_copy(&given, sizeof given, desc, "vkmoe_trainer_desc"));
    if (!given.config || !given.data || (given.resume && !given.checkpoint))
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_trainer_desc: %s is NULL",
                        !given.config ? "config" : !given.data ? "data" : "checkpoint");
    TRY(moe_host_init(&host, given.host));
    TRY(moe_try_alloc(&host, sizeof *t, "trainer", &t));
    t->host = host;
    t->context = context;
    TRY(create(t, &given));
    *out = t;
    return VKMOE_OK;

fail:
    vkmoe_trainer_destroy(t);
    return status;
}

void vkmoe_trainer_destroy(vkmoe_trainer *trainer)
{
    vkmoe_trainer *t = trainer;
    if (!t)
        return;
    const vkmoe_host host = t->host;
    vkmoe_metrics_destroy(t->metrics);
    moe_trainer_close_log(t);
    vkmoe_net_destroy(t->net);
    for (uint32_t i = 0; i < t->n_params; i++)
        moe_free(&host, t->params[i].best);
    moe_free(&host, t->params);
    moe_train_batch_destroy(&t->batch);
    moe_free(&host, t->order);
    moe_free(&host, t->all_valid);
    moe_train_stats_finish(&t->input);
    moe_train_stats_finish(&t->target);
    moe_train_split_finish(&t->split);
    moe_train_data_finish(&t->data);
    moe_train_data_finish(&t->valid_file);
    moe_train_config_finish(&t->config);
    moe_description_finish(&t->description);
    json_decref(t->whole_config);
    moe_free(&host, t->checkpoint);
    moe_free(&host, t->name);
    moe_free(&host, t);
}

enum vkmoe_status moe_trainer_new_metrics(const vkmoe_trainer *t, vkmoe_metrics **out)
{
    return moe_metrics_create(&t->host, &t->description.info, 0, 0, out);
}
