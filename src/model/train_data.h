// SPDX-License-Identifier: MIT
// The examples of a training in memory, and which of them train and which validate.
#ifndef MOE_MODEL_TRAIN_DATA_H
#define MOE_MODEL_TRAIN_DATA_H

#include "model/train_config.h"

// An example is a row of x, or the tokens offsets[i] .. offsets[i + 1] - 1.
struct moe_train_data {
    const vkmoe_host *host;
    uint32_t n;          // examples
    uint32_t n_features; // 0: token numbers
    uint64_t n_tokens;
    float *x;            // (n_tokens, n_features); or NULL
    int32_t *token_ids;  // (n_tokens); or NULL
    uint64_t *offsets;   // (n + 1); NULL: each row is an example
    int32_t *labels;     // (n), classify; of shares: the largest
    float *values;       // (n, n_targets), regress, or shares of the classes
    uint32_t n_targets;
};

// Reads a whole file. classify: classes must be named by now.
//   target  columns of a .csv; or NULL
//   shares  a target for each class instead of a label
// VKMOE_E_DATA: a number is missing or not finite, a label is none of the classes, shares do not
// sum to 1, no rows.
enum vkmoe_status moe_train_data_load(const char *path, const char *target, bool shares,
                                      const struct moe_description *d, struct moe_train_data *out);
void moe_train_data_finish(struct moe_train_data *data); // a zeroed one is fine

// Names the classes of `d` by the labels of a file, or by their numbers where it has shares, when
// the configuration has not.
enum vkmoe_status moe_train_name_classes(const char *path, const char *target, bool shares,
                                         const char *file, struct moe_description *d);

static inline uint32_t moe_train_data_tokens(const struct moe_train_data *data, uint32_t example)
{
    return data->offsets ? (uint32_t) (data->offsets[example + 1] - data->offsets[example]) : 1;
}

// Which examples of the data train and which validate, ascending.
struct moe_train_split {
    const vkmoe_host *host;
    uint32_t *train, *valid;
    uint32_t n_train, n_valid;
};

// VKMOE_E_DATA: one side is empty, or (classify) all training rows are of one class.
enum vkmoe_status moe_train_split_make(const struct moe_train_config *config,
                                       const struct moe_train_data *data, const char *path,
                                       const vkmoe_model_info *info, struct moe_train_split *out);
void moe_train_split_finish(struct moe_train_split *split);

// Puts rows[0..n) into the order of an epoch: a function of the seed and the epoch.
void moe_train_shuffle(uint64_t seed, uint32_t epoch, uint32_t *rows, uint32_t n);

// ---- statistics of the training rows ----

// Of each column: mean and std, or minimum and maximum. With one value only: std 1, or maximum =
// minimum + 1, and a warning names the columns.
struct moe_train_stats {
    const vkmoe_host *host;
    float *first, *second; // (n); NULL: none
};

// Statistics for the input of `info`; none for its other kinds.
enum vkmoe_status moe_train_input_stats(const struct moe_train_data *data,
                                        const struct moe_train_split *split, enum vkmoe_input kind,
                                        struct moe_train_stats *out);

// Mean and std of the targets of the training rows. VKMOE_E_DATA: all targets are equal.
enum vkmoe_status moe_train_target_stats(const struct moe_train_data *data,
                                         const struct moe_train_split *split,
                                         struct moe_train_stats *out);
void moe_train_stats_finish(struct moe_train_stats *stats);

// A number that tells other data from this one.
uint64_t moe_train_data_hash(const struct moe_train_data *data);

#endif
