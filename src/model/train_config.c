// SPDX-License-Identifier: MIT
#include "model/train_config.h"

#include "base/host.h"
#include "base/status.h"
#include "model/config.h"

#include <math.h>

// ---- single values ----

static enum vkmoe_status fail_key(const struct moe_config *c, const char *key, const char *text)
{
    return moe_config_fail(c, VKMOE_E_DATA, key, "%s", text);
}

// An optional size; *out stays without the key.
static enum vkmoe_status read_size(const struct moe_config *c, const char *key, uint32_t *out)
{
    return moe_config_has(c, key) ? moe_config_size(c, key, out) : VKMOE_OK;
}

// An optional number from `low` up to, and not with, `high`.
static enum vkmoe_status read_real(const struct moe_config *c, const char *key, float low,
                                   float high, float *out)
{
    enum vkmoe_status status = moe_config_real(c, key, out);
    if (status != VKMOE_OK || (*out >= low && *out < high))
        return status;
    if (isinf(high))
        return moe_config_fail(c, VKMOE_E_DATA, key, "%g; must be at least %g", (double) *out,
                               (double) low);
    return moe_config_fail(c, VKMOE_E_DATA, key, "%g; must be at least %g and below %g",
                           (double) *out, (double) low, (double) high);
}

static enum vkmoe_status read_positive(const struct moe_config *c, const char *key, float *out)
{
    enum vkmoe_status status = moe_config_real(c, key, out);
    if (status == VKMOE_OK && !(*out > 0))
        return moe_config_fail(c, VKMOE_E_DATA, key, "%g; must be above 0", (double) *out);
    return status;
}

static enum vkmoe_status read_text(const struct moe_config *c, const char *key, const char **out)
{
    const json_t *value = json_object_get(c->object, key);
    if (value && !json_is_string(value))
        return fail_key(c, key, "not a text");
    if (value)
        *out = json_string_value(value);
    return VKMOE_OK;
}

static enum vkmoe_status read_seed(const struct moe_config *c, uint64_t *out)
{
    const json_t *value = json_object_get(c->object, "seed");
    if (value && (!json_is_integer(value) || json_integer_value(value) < 0))
        return fail_key(c, "seed", "not a whole number from 0");
    if (value)
        *out = (uint64_t) json_integer_value(value);
    return VKMOE_OK;
}

// Refuses a key that says nothing here.
static enum vkmoe_status refuse(const struct moe_config *c, const char *key, bool allowed,
                                const char *needs)
{
    if (allowed || !moe_config_has(c, key))
        return VKMOE_OK;
    return moe_config_fail(c, VKMOE_E_DATA, key, "needs %s", needs);
}

// ---- loss ----

static int default_loss(const vkmoe_model_info *info)
{
    if (info->head == VKMOE_HEAD_SOFTMAX)
        return VKMOE_LOSS_CROSS_ENTROPY;
    if (info->head == VKMOE_HEAD_SIGMOID)
        return VKMOE_LOSS_BCE_LOGITS;
    return info->task == VKMOE_TASK_CLASSIFY ? VKMOE_LOSS_BCE : VKMOE_LOSS_MSE;
}

// The head is applied behind the net, so each loss goes with one.
static enum vkmoe_status check_head(const struct moe_config *c, enum vkmoe_loss loss,
                                    const vkmoe_model_info *info)
{
    bool softmax = info->head == VKMOE_HEAD_SOFTMAX, sigmoid = info->head == VKMOE_HEAD_SIGMOID;
    switch (loss) {
    case VKMOE_LOSS_CROSS_ENTROPY:
        return softmax ? VKMOE_OK : fail_key(c, "loss", "cross_entropy needs head softmax");
    case VKMOE_LOSS_BCE_LOGITS:
        return sigmoid ? VKMOE_OK : fail_key(c, "loss", "bce_logits needs head sigmoid");
    case VKMOE_LOSS_MIXTURE:
        if (info->task == VKMOE_TASK_CLASSIFY)
            return softmax ? VKMOE_OK : fail_key(c, "loss", "mixture needs head softmax");
        return sigmoid ? fail_key(c, "loss", "mixture needs head identity") : VKMOE_OK;
    case VKMOE_LOSS_BCE:
    case VKMOE_LOSS_MSE:
    case VKMOE_LOSS_HUBER:
        break;
    }
    if (softmax || sigmoid)
        return fail_key(c, "loss", "bce, mse and huber need head identity");
    return VKMOE_OK;
}

static enum vkmoe_status read_class_weights(const struct moe_config *c,
                                            const struct moe_description *d,
                                            struct moe_train_config *out)
{
    enum vkmoe_status status = VKMOE_OK;
    const json_t *value = json_object_get(c->object, "class_weights");
    uint32_t n = d->info.n_classes;
    if (!value)
        return VKMOE_OK;
    if (json_is_string(value) && strcmp(json_string_value(value), "balanced") == 0) {
        out->balanced = true;
        return VKMOE_OK;
    }
    if (!json_is_array(value))
        return fail_key(c, "class_weights", "neither \"balanced\" nor a list of numbers");
    if (json_array_size(value) != n)
        return moe_config_fail(c, VKMOE_E_DATA, "class_weights", "%zu numbers for %u classes",
                               json_array_size(value), n);
    TRY(moe_try_alloc(out->host, n * sizeof *out->class_weights, "class weights",
                      &out->class_weights));
    for (uint32_t i = 0; i < n; i++) {
        float weight = (float) json_number_value(json_array_get(value, i));
        if (!(weight > 0) || isinf(weight))
            return moe_config_fail(c, VKMOE_E_DATA, "class_weights",
                                   "number %u is not above 0 and finite", i + 1);
        out->class_weights[i] = weight;
    }

fail:
    return status;
}

static enum vkmoe_status read_loss(const struct moe_config *c, const struct moe_description *d,
                                   struct moe_train_config *out)
{
    enum vkmoe_status status;
    const vkmoe_model_info *info = &d->info;
    bool regress = info->task == VKMOE_TASK_REGRESS;
    int loss = default_loss(info), targets = 0;
    TRY(moe_config_word(c, "loss", "cross_entropy|bce|bce_logits|mse|huber|mixture", NULL, &loss));
    out->loss = (enum vkmoe_loss) loss;
    TRY(check_head(c, out->loss, info));
    bool cross_entropy = loss == VKMOE_LOSS_CROSS_ENTROPY;
    TRY(refuse(c, "huber_delta", loss == VKMOE_LOSS_HUBER, "loss huber"));
    TRY(read_positive(c, "huber_delta", &out->huber_delta));
    TRY(refuse(c, "variance", loss == VKMOE_LOSS_MIXTURE && regress,
               "loss mixture and task regress"));
    TRY(read_positive(c, "variance", &out->variance));
    TRY(refuse(c, "label_smoothing", cross_entropy, "loss cross_entropy"));
    TRY(read_real(c, "label_smoothing", 0, 1, &out->label_smoothing));
    TRY(refuse(c, "class_weights", cross_entropy, "loss cross_entropy"));
    TRY(read_class_weights(c, d, out));
    TRY(refuse(c, "soft_targets", cross_entropy, "loss cross_entropy"));
    TRY(moe_config_bool(c, "soft_targets", &out->soft_targets));
    if (out->soft_targets && out->balanced)
        return fail_key(c, "class_weights", "\"balanced\" counts labels, not soft_targets");
    TRY(refuse(c, "targets", regress, "task regress"));
    TRY(moe_config_word(c, "targets", "as_is|standardize", NULL, &targets));
    out->standardize_targets = targets == 1;
    if (out->standardize_targets && (loss == VKMOE_LOSS_BCE || loss == VKMOE_LOSS_BCE_LOGITS))
        TRY(fail_key(c, "targets", "standardize with a loss of targets from 0 to 1"));

fail:
    return status;
}

// ---- optimiser ----

static enum vkmoe_status read_group(const struct moe_config *c, size_t i, float decay,
                                    vkmoe_net_group *out)
{
    static const char *const keys[] = {"match", "rate_scale", "decay", NULL};
    enum vkmoe_status status;
    struct moe_config group;
    *out = (vkmoe_net_group){.rate_scale = 1, .decay = decay};
    TRY(moe_config_item(c, "groups", i, &group));
    TRY(moe_config_keys(&group, keys));
    TRY(read_text(&group, "match", &out->match));
    if (!out->match || !*out->match)
        return fail_key(&group, "match", "missing");
    TRY(read_real(&group, "rate_scale", 0, INFINITY, &out->rate_scale));
    TRY(read_real(&group, "decay", 0, INFINITY, &out->decay));

fail:
    return status;
}

static enum vkmoe_status read_groups(const struct moe_config *c, struct moe_train_config *out)
{
    enum vkmoe_status status = VKMOE_OK;
    size_t n;
    if (!moe_config_has(c, "groups"))
        return VKMOE_OK;
    TRY(moe_config_array(c, "groups", &n));
    if (n > MOE_CONFIG_MAX)
        return fail_key(c, "groups", "too many");
    TRY(moe_try_alloc(out->host, n * sizeof *out->groups, "groups", &out->groups));
    out->n_groups = (uint32_t) n;
    for (size_t i = 0; i < n; i++)
        TRY(read_group(c, i, out->decay, &out->groups[i]));

fail:
    return status;
}

static enum vkmoe_status read_betas(const struct moe_config *c, struct moe_train_config *out)
{
    const json_t *value = json_object_get(c->object, "betas");
    if (!value)
        return VKMOE_OK;
    out->beta1 = (float) json_number_value(json_array_get(value, 0));
    out->beta2 = (float) json_number_value(json_array_get(value, 1));
    bool numbers = json_is_number(json_array_get(value, 0)) &&
                   json_is_number(json_array_get(value, 1)) && json_array_size(value) == 2;
    if (!numbers || !(out->beta1 >= 0 && out->beta1 < 1 && out->beta2 >= 0 && out->beta2 < 1))
        return fail_key(c, "betas", "not two numbers from 0 and below 1");
    return VKMOE_OK;
}

static enum vkmoe_status read_optimiser(const struct moe_config *train,
                                        struct moe_train_config *out)
{
    static const char *const keys[] = {"kind",  "rate", "decay",  "clip_norm", "momentum",
                                       "nesterov", "betas", "eps", "groups", NULL};
    enum vkmoe_status status;
    struct moe_config c;
    int kind = VKMOE_OPTIMISER_ADAMW;
    TRY(moe_config_object(train, "optimiser", &c));
    TRY(moe_config_keys(&c, keys));
    TRY(moe_config_word(&c, "kind", "sgd|adam|adamw", NULL, &kind));
    out->optimiser = (enum vkmoe_optimiser) kind;
    if (!moe_config_has(&c, "rate"))
        return fail_key(&c, "rate", "missing");
    TRY(read_positive(&c, "rate", &out->rate));
    TRY(read_real(&c, "decay", 0, INFINITY, &out->decay));
    TRY(read_real(&c, "clip_norm", 0, INFINITY, &out->clip_norm));
    bool sgd = kind == VKMOE_OPTIMISER_SGD;
    TRY(refuse(&c, "momentum", sgd, "kind sgd"));
    TRY(refuse(&c, "nesterov", sgd, "kind sgd"));
    TRY(refuse(&c, "betas", !sgd, "kind adam or adamw"));
    TRY(refuse(&c, "eps", !sgd, "kind adam or adamw"));
    TRY(read_real(&c, "momentum", 0, 1, &out->momentum));
    TRY(moe_config_bool(&c, "nesterov", &out->nesterov));
    if (out->nesterov && out->momentum == 0)
        return fail_key(&c, "nesterov", "needs momentum");
    TRY(read_betas(&c, out));
    TRY(read_positive(&c, "eps", &out->adam_eps));
    TRY(read_groups(&c, out));

fail:
    return status;
}

static enum vkmoe_status read_schedule(const struct moe_config *train,
                                       struct moe_train_config *out)
{
    static const char *const keys[] = {"kind", "warm_up", "floor", "every", "factor", NULL};
    enum vkmoe_status status;
    struct moe_schedule *s = &out->schedule;
    struct moe_config c;
    int kind = MOE_SCHEDULE_CONSTANT;
    if (!moe_config_has(train, "schedule"))
        return VKMOE_OK;
    TRY(moe_config_object(train, "schedule", &c));
    TRY(moe_config_keys(&c, keys));
    TRY(moe_config_word(&c, "kind", "constant|cosine|step", NULL, &kind));
    s->kind = (enum moe_schedule_kind) kind;
    TRY(refuse(&c, "floor", kind == MOE_SCHEDULE_COSINE, "kind cosine"));
    TRY(refuse(&c, "every", kind == MOE_SCHEDULE_STEP, "kind step"));
    TRY(refuse(&c, "factor", kind == MOE_SCHEDULE_STEP, "kind step"));
    TRY(read_size(&c, "warm_up", &s->warm_up));
    TRY(read_real(&c, "floor", 0, 1, &s->floor));
    if (kind == MOE_SCHEDULE_STEP) {
        TRY(moe_config_size(&c, "every", &s->every));
        if (!moe_config_has(&c, "factor"))
            return fail_key(&c, "factor", "missing");
        TRY(read_positive(&c, "factor", &s->factor));
    }

fail:
    return status;
}

// ---- the loop ----

static enum vkmoe_status read_fold(const struct moe_config *c, struct moe_train_config *out)
{
    static const char *const keys[] = {"of", "index", NULL};
    enum vkmoe_status status;
    struct moe_config fold;
    TRY(moe_config_object(c, "fold", &fold));
    TRY(moe_config_keys(&fold, keys));
    TRY(moe_config_size(&fold, "of", &out->fold_of));
    if (out->fold_of < 2)
        return fail_key(&fold, "of", "must be at least 2");
    const json_t *index = json_object_get(fold.object, "index");
    if (!json_is_integer(index) || json_integer_value(index) < 0 ||
        json_integer_value(index) >= out->fold_of)
        return moe_config_fail(&fold, VKMOE_E_DATA, "index", "not a whole number from 0 to %u",
                               out->fold_of - 1);
    out->fold_index = (uint32_t) json_integer_value(index);
    out->validation = MOE_VALIDATION_FOLD;

fail:
    return status;
}

static enum vkmoe_status read_validation(const struct moe_config *train,
                                         struct moe_train_config *out)
{
    static const char *const keys[] = {"share", "fold", NULL};
    enum vkmoe_status status;
    struct moe_config c;
    const json_t *value = json_object_get(train->object, "validation");
    if (!value || (json_is_string(value) && strcmp(json_string_value(value), "none") == 0))
        return VKMOE_OK;
    if (!json_is_object(value))
        return fail_key(train, "validation", "neither \"none\" nor an object");
    TRY(moe_config_object(train, "validation", &c));
    TRY(moe_config_keys(&c, keys));
    bool share = moe_config_has(&c, "share"), fold = moe_config_has(&c, "fold");
    if (share == fold)
        return fail_key(train, "validation", "needs one of share and fold");
    if (fold)
        return read_fold(&c, out);
    TRY(read_positive(&c, "share", &out->share));
    if (out->share >= 1)
        return fail_key(&c, "share", "must be below 1");
    out->validation = MOE_VALIDATION_SHARE;

fail:
    return status;
}

static enum vkmoe_status read_loop(const struct moe_config *c, struct moe_train_config *out)
{
    enum vkmoe_status status;
    int monitor = 0, weight_type = VKMOE_F32, precision = VKMOE_PRECISION_EXACT;
    TRY(moe_config_word(c, "weight_type", "f32|f16|bf16", NULL, &weight_type));
    out->weight_type = (enum vkmoe_dtype) weight_type;
    TRY(moe_config_word(c, "precision", "exact|half", NULL, &precision));
    out->precision = (enum vkmoe_precision) precision;
    TRY(read_size(c, "batch", &out->batch));
    TRY(read_size(c, "micro_batches", &out->micro_batches));
    if (out->micro_batches > out->batch)
        return moe_config_fail(c, VKMOE_E_DATA, "micro_batches", "%u of a batch of %u",
                               out->micro_batches, out->batch);
    bool epochs = moe_config_has(c, "epochs"), steps = moe_config_has(c, "steps");
    if (epochs == steps)
        return fail_key(c, epochs ? "steps" : "epochs", "needs one of epochs and steps");
    TRY(read_size(c, "epochs", &out->epochs));
    TRY(read_size(c, "steps", &out->steps));
    TRY(read_validation(c, out));
    TRY(read_size(c, "patience", &out->patience));
    TRY(refuse(c, "min_delta", out->patience > 0, "patience"));
    TRY(refuse(c, "monitor", out->patience > 0, "patience"));
    TRY(read_real(c, "min_delta", 0, INFINITY, &out->min_delta));
    TRY(moe_config_word(c, "monitor", "loss|metric", NULL, &monitor));
    out->monitor_metric = monitor == 1;
    TRY(read_seed(c, &out->seed));
    TRY(read_real(c, "input_noise", 0, INFINITY, &out->input_noise));
    TRY(read_text(c, "log", &out->log));

fail:
    return status;
}

static void set_defaults(const struct moe_description *d, struct moe_train_config *out)
{
    *out = (struct moe_train_config){
        .host = &d->host,
        .huber_delta = 1,
        .variance = 1,
        .beta1 = 0.9f,
        .beta2 = 0.999f,
        .adam_eps = 1e-8f,
        .batch = 32,
        .micro_batches = 1,
        .seed = 1,
    };
}

// A gate weight that is 1 whatever the router says gives the router no gradient at all.
static enum vkmoe_status check_routers(const struct moe_description *d, const char *file)
{
    const struct moe_config top = {.file = file, .object = d->config};
    for (uint32_t i = 0; i < d->info.n_layers; i++) {
        const vkmoe_net_layer *layer = &d->layers[i];
        const vkmoe_layer_desc *moe = layer->layer;
        if (layer->kind != VKMOE_NET_MOE || layer->combine != VKMOE_COMBINE_WEIGHTED_SUM ||
            moe->top_k != 1 || moe->n_experts == 1)
            continue;
        bool one = (moe->norm != VKMOE_NORM_NONE && moe->norm_eps == 0) ||
                   moe->gate_source == VKMOE_GATE_SOFTMAX_SELECTED;
        char key[64];
        snprintf(key, sizeof key, "layers[%u].router.%s", i,
                 moe->gate_source == VKMOE_GATE_SOFTMAX_SELECTED ? "order" : "renormalize");
        if (one && layer->load_balance == 0 && layer->z_loss == 0)
            return moe_config_fail(&top, VKMOE_E_DATA, key,
                                   "with top_k 1 every gate weight is 1 and the router learns "
                                   "nothing; needs load_balance or z_loss");
    }
    return VKMOE_OK;
}

enum vkmoe_status moe_train_config_read(const struct moe_description *d, const char *file,
                                        struct moe_train_config *out)
{
    static const char *const keys[] = {
        "loss",      "huber_delta", "variance",  "label_smoothing", "class_weights", "targets",
        "optimiser", "schedule",    "batch",     "micro_batches",   "epochs",        "steps",
        "validation", "patience",   "min_delta", "monitor",         "seed",          "input_noise",
        "log",       "weight_type", "precision", "soft_targets", NULL};
    static const char *const data_keys[] = {"target", NULL};
    enum vkmoe_status status;
    const struct moe_config c = {.file = file, .path = "train", .object = d->train};
    const struct moe_config data = {.file = file, .path = "data", .object = d->data};
    set_defaults(d, out);
    if (!json_is_object(d->train))
        return moe_fail(VKMOE_E_DATA, "%s: config: train: %s", file,
                        d->train ? "not an object" : "missing");
    if (d->data && !json_is_object(d->data))
        return moe_fail(VKMOE_E_DATA, "%s: config: data: not an object", file);
    TRY(moe_config_keys(&c, keys));
    TRY(read_loss(&c, d, out));
    TRY(read_optimiser(&c, out));
    TRY(read_schedule(&c, out));
    TRY(read_loop(&c, out));
    if (d->data) {
        TRY(moe_config_keys(&data, data_keys));
        TRY(read_text(&data, "target", &out->target));
    }
    TRY(check_routers(d, file));

fail:
    return status;
}

void moe_train_config_finish(struct moe_train_config *config)
{
    if (!config->host)
        return;
    moe_free(config->host, config->class_weights);
    moe_free(config->host, config->groups);
}

// ---- use ----

float moe_train_rate(const struct moe_train_config *config, uint64_t step, uint64_t n_steps,
                     uint32_t epoch)
{
    const struct moe_schedule *s = &config->schedule;
    double rate = (double) config->rate;
    if (step < s->warm_up)
        return (float) (rate * (double) (step + 1) / s->warm_up);
    switch (s->kind) {
    case MOE_SCHEDULE_CONSTANT:
        break;
    case MOE_SCHEDULE_COSINE: {
        double part = (double) (step - s->warm_up) / (double) (n_steps - s->warm_up);
        double floor = (double) s->floor;
        rate *= floor + (1 - floor) * 0.5 * (1 + cos(3.14159265358979323846 * part));
        break;
    }
    case MOE_SCHEDULE_STEP:
        rate *= pow((double) s->factor, (double) (epoch / s->every));
        break;
    }
    return (float) rate;
}

void moe_train_config_net(const struct moe_train_config *config, const vkmoe_model_info *info,
                          vkmoe_net_desc *out)
{
    out->input_noise = config->input_noise;
    out->loss = config->loss;
    out->label_smoothing = config->label_smoothing;
    out->class_weights = config->class_weights;
    out->soft_targets = config->soft_targets;
    out->labels = config->loss == VKMOE_LOSS_MIXTURE && info->task == VKMOE_TASK_CLASSIFY;
    out->huber_delta = config->huber_delta;
    out->variance = config->variance;
    out->optimiser = config->optimiser;
    out->momentum = config->momentum;
    out->nesterov = config->nesterov;
    out->beta1 = config->beta1;
    out->beta2 = config->beta2;
    out->adam_eps = config->adam_eps;
    out->decay = config->decay;
    out->clip_norm = config->clip_norm;
    out->groups = config->groups;
    out->n_groups = config->n_groups;
    out->weight_type = config->weight_type;
    out->precision = config->precision;
}
