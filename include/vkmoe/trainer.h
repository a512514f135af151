// SPDX-License-Identifier: MIT
// vkmoe training from one JSON configuration: data, loop, checkpoints, the finished model file.
// The rules of vkmoe.h hold here too; part of libvkmoe-model.
//
//     vkmoe_trainer_desc desc = vkmoe_trainer_desc_init();
//     desc.config = text;                       // JSON
//     desc.data = "digits-train.csv";
//     vkmoe_trainer_create(context, &desc, &trainer);
//     vkmoe_trainer_run(trainer);
//     vkmoe_trainer_save(trainer, "model.safetensors");
//
// The configuration has the keys of a model file (see vkmoe/model.h) and two more. `classes` may be
// left out, then the data names them: numbers in their order, else in the order of their bytes.
//
//     data   target           target columns of a .csv, "COL[,COL]" (the last column)
//     train  loss             "cross_entropy": head softmax | "bce": of probabilities, head
//                             identity | "bce_logits": head sigmoid | "mse", "huber": head identity
//                             | "mixture": of the last layer's experts (Jacobs et al. 1991), head
//                             softmax or, for regress, identity. Left out: what the head makes it,
//                             with identity bce for classify, mse for regress. Losses other than
//                             cross_entropy and mixture see a class as 1 among 0
//            huber_delta      (1) huber        variance  (1) mixture, regress
//            label_smoothing  (0) cross_entropy
//            class_weights    cross_entropy: a number for each class, or "balanced": rows /
//                             (classes * rows of the class)
//            soft_targets     (false) cross_entropy: the data have a target column for each class,
//                             its share: at least 0, and 1 in all. The label that metrics count is
//                             the largest. Classes that are not named are numbers
//            targets          ("as_is") | "standardize": regress; the net learns (t - mean) / std,
//                             and the last layer of the saved model undoes it
//            optimiser        kind ("adamw") | "adam" | "sgd", rate, decay (0), clip_norm (0:
//                             none), momentum (0) and nesterov (false) of sgd, betas ([0.9, 0.999])
//                             and eps (1e-8) of the others, groups[]: match, rate_scale (1), decay
//                             (the optimiser's). See struct vkmoe_net_desc
//            schedule         kind ("constant") | "cosine" | "step", warm_up (0) steps in which the
//                             rate rises from 0, floor (0) of cosine: share of the rate it ends at,
//                             every and factor of step: times `factor` after so many epochs
//            weight_type      ("f32") | "f16" | "bf16": what weights are rounded to where they are
//                             multiplied by, see struct vkmoe_net_desc. The model file has the f32
//                             masters, and whoever runs it computes with those
//            precision        ("exact") | "half": products with weights may round both operands to
//                             f16, where the device is faster by it; see struct vkmoe_net_desc
//            batch            examples of a step (32)
//            micro_batches    (1) parts in which a step's batch is computed; gradients add up
//            epochs | steps   how long
//            validation       "none" | share: 0..1 of the rows, drawn by the seed | fold: {of,
//                             index}: rows whose number, from 0, is `index` modulo `of`
//            patience         epochs without improvement after which training ends; the best
//                             parameters are restored. Left out: all epochs, the last parameters
//            min_delta        (0) what counts as improvement
//            monitor          ("loss") | "metric": of the validation rows; accuracy or RMSE
//            seed             (1) of parameters, order of rows, noise and dropout
//            input_noise      (0) times N(0, 1), on the scaled input
//            log              path of a log file; see struct vkmoe_trainer_desc
//
// Statistics of input and targets are those of the training rows. A column with one value only is
// a warning; its std (or range) is taken as 1. Equal seeds give equal bits on the same device,
// driver and version, also after an interruption.
#ifndef VKMOE_TRAINER_H
#define VKMOE_TRAINER_H

#include <vkmoe/model.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct vkmoe_trainer vkmoe_trainer;

// Where a training stands. Losses and metrics that are not known are NaN.
typedef struct vkmoe_trainer_progress {
    uint32_t epoch;      // epochs done; the one at hand is the next
    uint32_t n_epochs;   // in all
    uint64_t step, n_steps; // done, in all
    bool end_of_epoch;
    double loss;         // training: mean of the epoch's steps so far
    double valid_loss;   // of the last validation
    double metric;       // likewise; accuracy, or RMSE
    double rate;         // of the last step
    double seconds;      // of this run
} vkmoe_trainer_progress;

typedef struct vkmoe_trainer_desc {
    size_t struct_size;
    const vkmoe_host *host;  // copied; NULL: the library's own
    const char *config_name; // for messages; NULL: "config"
    const char *config;      // JSON text
    const char *data;        // path: .csv, .tsv, .npy, as in vkmoe_dataset_open
    const char *valid;       // path of validation rows; or NULL
    const char *target;      // target columns, before those of the configuration; or NULL
    const char *output;      // path for vkmoe_trainer_save later, looked at now; or NULL
    // Path of the checkpoint, or NULL. It is written, whole or not at all, when the training is
    // cancelled, and at the end of every checkpoint_epochs-th epoch and of the last one; 0: of an
    // epoch that ends more than checkpoint_seconds after the last checkpoint or the start.
    const char *checkpoint;
    uint32_t checkpoint_epochs;
    double checkpoint_seconds; // init sets 60
    bool resume;             // go on from the checkpoint
    // One line an epoch, appended when resuming: epoch, step, loss, valid_loss, metric, rate,
    // seconds. By suffix .csv with a header, else a JSON object each. Before the configuration's
    // own; or NULL
    const char *log;
    // After every step, and again with end_of_epoch. false: vkmoe_trainer_run ends with
    // VKMOE_E_CANCELLED. NULL: never asked
    bool (*progress)(void *user, const vkmoe_trainer_progress *progress);
    void *user;
} vkmoe_trainer_desc;

static inline vkmoe_trainer_desc vkmoe_trainer_desc_init(void)
{
    vkmoe_trainer_desc desc;
    memset(&desc, 0, sizeof desc);
    desc.struct_size = sizeof desc;
    desc.checkpoint_seconds = 60;
    return desc;
}

// Reads configuration and data and makes the network on the context's device, or goes on from a
// checkpoint. The context is borrowed until the trainer is destroyed; all else for the call, but
// that `user` is handed to `progress`.
// VKMOE_E_DATA: the text names the key of the configuration, the line or column of the data, or
// what makes the checkpoint one of another training.  VKMOE_E_IO: a file cannot be read, or a
// checkpoint or log not be written.
// Threads: a trainer is used by one thread at a time.
VKMOE_API enum vkmoe_status vkmoe_trainer_create(vkmoe_context *context,
                                                 const vkmoe_trainer_desc *desc,
                                                 vkmoe_trainer **out);
VKMOE_API void vkmoe_trainer_destroy(vkmoe_trainer *trainer);

// Trains to the end. VKMOE_E_CANCELLED: a checkpoint is written where there is a path for one; a
// further call goes on.  VKMOE_E_DATA: a loss or gradient is not finite; the text names step and
// tensor.
VKMOE_API enum vkmoe_status vkmoe_trainer_run(vkmoe_trainer *trainer);

// Writes the model with the parameters as they stand, whole or not at all. VKMOE_E_IO.
VKMOE_API enum vkmoe_status vkmoe_trainer_save(vkmoe_trainer *trainer, const char *path);

typedef struct vkmoe_trainer_report {
    vkmoe_model_info info;
    uint64_t n_train, n_valid; // examples
    uint64_t n_params;         // numbers that are trained
    uint32_t epochs;           // done
    uint64_t steps;
    uint32_t best_epoch;       // from 1; 0: without patience
    bool stopped_early;
    double seconds;            // in vkmoe_trainer_run
    vkmoe_metrics_summary train, valid; // at the parameters as they stand; valid.n 0: none
} vkmoe_trainer_report;

// Measures the net on its training and validation rows.
VKMOE_API enum vkmoe_status vkmoe_trainer_get_report(vkmoe_trainer *trainer,
                                                     vkmoe_trainer_report *out);

// Of the last report, by class: of the validation rows, or the training rows where there are none.
VKMOE_API enum vkmoe_status vkmoe_trainer_class(const vkmoe_trainer *trainer, uint32_t i,
                                                vkmoe_class_metrics *out);

// Name of a class, borrowed until the trainer is destroyed; NULL when there is no such class.
VKMOE_API const char *vkmoe_trainer_class_name(const vkmoe_trainer *trainer, uint32_t i);

#ifdef __cplusplus
}
#endif
#endif
