// SPDX-License-Identifier: MIT
// Host memory of one batch, filled from the examples.
#ifndef MOE_MODEL_TRAIN_BATCH_H
#define MOE_MODEL_TRAIN_BATCH_H

#include "model/train_data.h"

struct moe_train_batch {
    const vkmoe_host *host;
    uint32_t max_tokens, max_examples, n_outputs;
    float *x;            // (max_tokens, n_features)
    int32_t *token_ids;  // (max_tokens)
    int32_t *offsets;    // (max_examples + 1)
    int32_t *labels;     // (max_examples)
    float *targets;      // (max_examples, n_outputs); NULL: the loss takes labels
    float *values;       // (max_examples, n_outputs), regress: targets as they are
    float *y;            // (max_examples, n_outputs), for the caller
    vkmoe_net_batch net; // points at the arrays above
};

enum vkmoe_status moe_train_batch_create(const struct moe_description *d, uint32_t n_features,
                                         bool loss_takes_labels, uint32_t max_tokens,
                                         uint32_t max_examples, struct moe_train_batch *out);
void moe_train_batch_destroy(struct moe_train_batch *batch); // a zeroed one is fine

// How many of rows[0..n) fit.
uint32_t moe_train_batch_room(const struct moe_train_batch *batch,
                              const struct moe_train_data *data, const uint32_t *rows, uint32_t n);

// Puts examples rows[0..n) into it; they fit.
//   scale  of the targets, (t - first) / second; or without arrays
void moe_train_batch_fill(struct moe_train_batch *batch, const struct moe_train_data *data,
                          const struct moe_train_stats *scale, const uint32_t *rows, uint32_t n);

#endif
