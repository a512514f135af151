// SPDX-License-Identifier: MIT
// The `train` object of a configuration; include/vkmoe/trainer.h describes it.
#ifndef MOE_MODEL_TRAIN_CONFIG_H
#define MOE_MODEL_TRAIN_CONFIG_H

#include "model/description.h"

enum moe_schedule_kind { MOE_SCHEDULE_CONSTANT, MOE_SCHEDULE_COSINE, MOE_SCHEDULE_STEP };

struct moe_schedule {
    enum moe_schedule_kind kind;
    uint32_t warm_up; // steps
    float floor;
    uint32_t every; // epochs
    float factor;
};

enum moe_validation { MOE_VALIDATION_NONE, MOE_VALIDATION_SHARE, MOE_VALIDATION_FOLD };

struct moe_train_config {
    const vkmoe_host *host;
    enum vkmoe_loss loss;
    float huber_delta, variance, label_smoothing;
    bool balanced;          // class weights come from the data
    float *class_weights;   // (n_classes), owned; or NULL
    bool standardize_targets;
    bool soft_targets; // shares of the classes instead of labels

    enum vkmoe_optimiser optimiser;
    float rate, decay, clip_norm, momentum, beta1, beta2, adam_eps;
    bool nesterov;
    vkmoe_net_group *groups; // (n_groups), owned; texts of the description
    uint32_t n_groups;
    struct moe_schedule schedule;
    enum vkmoe_dtype weight_type;
    enum vkmoe_precision precision;

    uint32_t batch, micro_batches;
    uint32_t epochs, steps; // one of them, the other is 0
    enum moe_validation validation;
    float share;
    uint32_t fold_of, fold_index;
    uint32_t patience; // 0: none
    float min_delta;
    bool monitor_metric;
    uint64_t seed;
    float input_noise;
    const char *log;    // of the description; or NULL
    const char *target; // of `data`, likewise
};

// Reads d->train and d->data. VKMOE_E_DATA names the key. `d` and its host are borrowed.
enum vkmoe_status moe_train_config_read(const struct moe_description *d, const char *file,
                                        struct moe_train_config *out);
void moe_train_config_finish(struct moe_train_config *config); // a zeroed one is fine

// Is a class given to the loss as its number, not as 1 among 0 or as shares?
static inline bool moe_train_uses_labels(const struct moe_train_config *config)
{
    return (config->loss == VKMOE_LOSS_CROSS_ENTROPY && !config->soft_targets) ||
           config->loss == VKMOE_LOSS_MIXTURE;
}

// Rate of a step (from 0) in an epoch (from 0).
float moe_train_rate(const struct moe_train_config *config, uint64_t step, uint64_t n_steps,
                     uint32_t epoch);

// Loss, optimiser and noise of the network.
void moe_train_config_net(const struct moe_train_config *config, const vkmoe_model_info *info,
                          vkmoe_net_desc *out);

#endif
