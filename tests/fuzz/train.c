// SPDX-License-Identifier: MIT
// Bytes: the configuration of a training, JSON text. What is accepted is within its bounds, and
// gives every step a rate.
#include "fuzz.h"

#include "model/train_config.h"

#include <math.h>

static void check_rates(const struct moe_train_config *c)
{
    enum { N_STEPS = 12, BATCHES = 3 }; // of an epoch
    for (uint64_t step = 0; step < N_STEPS; step++) {
        float rate = moe_train_rate(c, step, N_STEPS, (uint32_t) step / BATCHES);
        FUZZ_CHECK(rate >= 0); // a factor of `step` may make it infinite; a NaN is never right
    }
}

static void check_optimiser(const struct moe_train_config *c)
{
    FUZZ_CHECK(c->rate > 0 && isfinite(c->rate));
    FUZZ_CHECK(c->decay >= 0 && c->clip_norm >= 0 && c->adam_eps > 0);
    FUZZ_CHECK(c->beta1 >= 0 && c->beta1 < 1 && c->beta2 >= 0 && c->beta2 < 1);
    FUZZ_CHECK(c->momentum >= 0 && c->momentum < 1 && (!c->nesterov || c->momentum > 0));
    for (uint32_t i = 0; i < c->n_groups; i++)
        FUZZ_CHECK(*c->groups[i].match && c->groups[i].rate_scale >= 0 && c->groups[i].decay >= 0);
}

static void check_loop(const struct moe_train_config *c)
{
    FUZZ_CHECK(c->batch > 0 && c->micro_batches > 0 && c->micro_batches <= c->batch);
    FUZZ_CHECK((c->epochs > 0) != (c->steps > 0));
    FUZZ_CHECK((c->share > 0) == (c->validation == MOE_VALIDATION_SHARE) && c->share < 1);
    FUZZ_CHECK((c->fold_of > 0) == (c->validation == MOE_VALIDATION_FOLD));
    FUZZ_CHECK(c->fold_of == 0 || (c->fold_of >= 2 && c->fold_index < c->fold_of));
    FUZZ_CHECK(c->min_delta >= 0 && (c->patience > 0 || (c->min_delta == 0 && !c->monitor_metric)));
    FUZZ_CHECK(c->input_noise >= 0);
}

static void check_loss(const struct moe_train_config *c, const vkmoe_model_info *info)
{
    FUZZ_CHECK(c->huber_delta > 0 && c->variance > 0);
    FUZZ_CHECK(c->label_smoothing >= 0 && c->label_smoothing < 1);
    FUZZ_CHECK(!c->class_weights || (!c->balanced && c->loss == VKMOE_LOSS_CROSS_ENTROPY));
    for (uint32_t i = 0; c->class_weights && i < info->n_classes; i++)
        FUZZ_CHECK(c->class_weights[i] > 0 && isfinite(c->class_weights[i]));
    FUZZ_CHECK(!c->soft_targets || (c->loss == VKMOE_LOSS_CROSS_ENTROPY && !c->balanced));
    FUZZ_CHECK(!c->standardize_targets || info->task == VKMOE_TASK_REGRESS);
}

static void check_net(const struct moe_train_config *c, const struct moe_description *d)
{
    vkmoe_net_desc net;
    moe_description_net(d, &net);
    moe_train_config_net(c, &d->info, &net);
    FUZZ_CHECK(net.loss == c->loss && net.groups == c->groups && net.n_groups == c->n_groups);
    FUZZ_CHECK(!net.labels || net.loss == VKMOE_LOSS_MIXTURE);
}

bool fuzz_target(const uint8_t *data, size_t size)
{
    struct moe_description d;
    struct moe_train_config c = {0};
    bool accepted = fuzz_accepted(moe_description_parse(fuzz_host(), "config", (const char *) data,
                                                        size, true, &d)) &&
                    fuzz_accepted(moe_train_config_read(&d, "config", &c));
    if (accepted) {
        check_rates(&c);
        check_optimiser(&c);
        check_loop(&c);
        check_loss(&c, &d.info);
        check_net(&c, &d);
    }
    moe_train_config_finish(&c);
    moe_description_finish(&d);
    return accepted;
}
