// SPDX-License-Identifier: MIT
// Predictions that learn from each row's target before the next row: a mixture of the experts of a
// model's first layer with experts, each of which is taken alone through the rest of the model. See
// vkmoe/online.h for the formulas, VKMOE_EXPERTS_ONE for what one expert gives.
#ifndef PREDICT_ONLINE_H
#define PREDICT_ONLINE_H

#include "cli.h"

#include <vkmoe/model.h>
#include <vkmoe/online.h>

struct predict_online;

struct predict_online_options {
    double lambda, alpha, variance; // as in vkmoe_online_desc
    int precision;                  // enum vkmoe_precision
    uint32_t max_rows, max_tokens;  // as in vkmoe_session_desc
};

// NULL, or what is wrong with lambda, alpha or variance.
const char *predict_online_check(const struct predict_online_options *options);

// A session for each expert. Context and model are borrowed.
enum vkmoe_status predict_online_create(vkmoe_context *context, const vkmoe_model *model,
                                        const struct predict_online_options *options,
                                        struct predict_online **out);
void predict_online_destroy(struct predict_online *online);

// The next rows, in order: each is predicted with the weights so far, then its target is seen.
//   input   what vkmoe_session_run was given; its outputs are not written
//   scores  (n_rows, n_outputs) of the model itself in, of the mixture out; the probabilities of a
//           sigmoid head with several outputs are divided by their sum
//   y       (n_rows, n_outputs) out: what vkmoe_predict_class takes for the mixture's answer
//   labels  (n_rows), classify      values  (n_rows, n_outputs), regress
// VKMOE_E_DATA names the row, from 1: an output or target that is not finite.
enum vkmoe_status predict_online_add(struct predict_online *online, uint32_t n_rows,
                                     const vkmoe_session_io *input, float *scores, float *y,
                                     const int32_t *labels, const float *values);

// Summed losses of the mixture, the best expert and the model; the weights. CLI_OK or CLI_FAILED.
int predict_online_report(const struct predict_online *online, bool json);

#endif
