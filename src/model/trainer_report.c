// SPDX-License-Identifier: MIT
#include "model/trainer.h"

#include "base/status.h"

static enum vkmoe_status measure(vkmoe_trainer *t, const struct moe_train_data *data,
                                 const uint32_t *rows, uint32_t n, vkmoe_metrics_summary *out)
{
    enum vkmoe_status status;
    double loss;
    vkmoe_metrics_destroy(t->metrics);
    t->metrics = NULL;
    TRY(moe_trainer_new_metrics(t, &t->metrics));
    TRY(moe_trainer_evaluate(t, data, rows, n, &loss, t->metrics));
    TRY(vkmoe_metrics_get(t->metrics, out));

fail:
    return status;
}

enum vkmoe_status vkmoe_trainer_get_report(vkmoe_trainer *trainer, vkmoe_trainer_report *out)
{
    enum vkmoe_status status;
    vkmoe_trainer *t = trainer;
    if (!t || !out)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_trainer_get_report: %s is NULL",
                        t ? "out" : "trainer");
    *out = (vkmoe_trainer_report){
        .info = t->description.info,
        .n_train = t->split.n_train,
        .n_valid = t->n_valid,
        .epochs = t->at.epoch,
        .steps = t->at.step,
        .best_epoch = t->at.best_epoch,
        .stopped_early = t->at.stopped_early,
        .seconds = t->seconds,
    };
    out->info.n_features = t->data.n_features;
    for (uint32_t i = 0; i < t->n_params; i++)
        out->n_params += t->params[i].info.has_gradient ? t->params[i].n : 0;
    TRY(measure(t, &t->data, t->split.train, t->split.n_train, &out->train));
    if (t->n_valid > 0)
        TRY(measure(t, t->valid, t->valid_rows, t->n_valid, &out->valid));

fail:
    return status;
}

enum vkmoe_status vkmoe_trainer_class(const vkmoe_trainer *trainer, uint32_t i,
                                      vkmoe_class_metrics *out)
{
    if (!trainer || !trainer->metrics)
        return moe_fail(VKMOE_E_ARGUMENT, "vkmoe_trainer_class: %s",
                        trainer ? "needs vkmoe_trainer_get_report before" : "trainer is NULL");
    return vkmoe_metrics_class(trainer->metrics, i, out);
}

const char *vkmoe_trainer_class_name(const vkmoe_trainer *trainer, uint32_t i)
{
    if (!trainer || !trainer->description.classes || i >= trainer->description.info.n_classes)
        return NULL;
    return trainer->description.classes[i];
}
