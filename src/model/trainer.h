// SPDX-License-Identifier: MIT
// A training under way: what its files share.
//
//   trainer.c            the object: configuration, data, network
//   trainer_loop.c       steps, epochs, validation, early stopping
//   trainer_checkpoint.c the checkpoint's file
//   trainer_log.c        the log
//   trainer_save.c       the model file, and undoing the scale of the targets
//   trainer_report.c     metrics
#ifndef MOE_MODEL_TRAINER_H
#define MOE_MODEL_TRAINER_H

#include <vkmoe/trainer.h>

#include "model/train_batch.h"

#include <stdio.h>

struct moe_trainer_param {
    vkmoe_net_param info;
    uint64_t n;
    float *best; // (n) its value after the best epoch; NULL without patience
};

// Where the training stands, besides the network's own state. A checkpoint keeps all of it.
struct moe_trainer_position {
    uint32_t epoch;     // epochs done
    uint32_t batch;     // of the epoch at hand, steps done
    uint64_t step;      // steps done
    double loss_sum;    // over the epoch's steps so far
    double loss;        // mean of the last whole epoch
    double valid_loss, metric;
    double best;        // of what is monitored; smaller is better
    uint32_t best_epoch; // from 1; 0: none yet
    bool stopped_early, done;
    uint64_t log_size;  // bytes of the log that belong to this position
};

struct vkmoe_trainer {
    vkmoe_host host;
    vkmoe_context *context; // borrowed
    char *name;             // of the configuration
    char *checkpoint;       // path; or NULL
    uint32_t checkpoint_epochs;
    double checkpoint_seconds, last_checkpoint;
    bool (*progress)(void *user, const vkmoe_trainer_progress *progress);
    void *user;

    json_t *whole_config; // as given
    struct moe_description description;
    struct moe_train_config config;
    struct moe_train_data data, valid_file; // x is scaled
    uint64_t data_hash, valid_hash;         // before that
    struct moe_train_split split;
    const struct moe_train_data *valid; // one of the two
    uint32_t *all_valid;                // rows 0.. of valid_file
    const uint32_t *valid_rows;
    uint32_t n_valid;
    struct moe_train_stats input, target;

    vkmoe_net *net;
    struct moe_trainer_param *params;
    uint32_t n_params;
    struct moe_train_batch batch;
    uint32_t micro_size; // examples of a micro-batch, at most
    uint32_t *order;     // (split.n_train), of the epoch order_epoch
    uint32_t order_epoch;
    uint32_t n_batches, n_epochs;
    uint64_t n_steps;
    struct moe_trainer_position at;
    float rate;     // of the last step
    double seconds; // in vkmoe_trainer_run
    double started;

    FILE *log;
    char *log_path;
    vkmoe_metrics *metrics; // of the last report
};

double moe_trainer_clock(void); // monotonic seconds

// Runs the net over rows. loss: mean of the rows, in the units that the net learns; metrics: or
// NULL.
enum vkmoe_status moe_trainer_evaluate(vkmoe_trainer *t, const struct moe_train_data *data,
                                       const uint32_t *rows, uint32_t n, double *loss,
                                       vkmoe_metrics *metrics);

enum vkmoe_status moe_trainer_new_metrics(const vkmoe_trainer *t, vkmoe_metrics **out);

// Keeps the parameters as they stand as the best ones, or brings those back.
enum vkmoe_status moe_trainer_keep_best(vkmoe_trainer *t);
enum vkmoe_status moe_trainer_restore_best(vkmoe_trainer *t);

enum vkmoe_status moe_trainer_write_checkpoint(vkmoe_trainer *t);
// VKMOE_E_DATA: of another model, configuration, data or version; the text names the difference.
enum vkmoe_status moe_trainer_read_checkpoint(vkmoe_trainer *t);

// Opens the log: anew, or behind the first at.log_size bytes.
enum vkmoe_status moe_trainer_open_log(vkmoe_trainer *t, const char *path, bool resume);
enum vkmoe_status moe_trainer_write_log(vkmoe_trainer *t); // the epoch just done
void moe_trainer_close_log(vkmoe_trainer *t);

// Can the saved model undo the scale of the targets? VKMOE_E_DATA.
enum vkmoe_status moe_trainer_check_fold(const vkmoe_trainer *t);

#endif
