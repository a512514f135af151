// SPDX-License-Identifier: MIT
// What vkmoe eval measured, for its reports.
#ifndef EVAL_H
#define EVAL_H

#include "cli.h"

#include <vkmoe/model.h>

// Rows worth a look.
enum example_kind {
    EXAMPLE_SURE,   // right, with the highest score
    EXAMPLE_UNSURE, // right, with the lowest
    EXAMPLE_WRONG,  // wrong, with the highest
    N_EXAMPLES,
};

struct example {
    uint64_t row; // from 1; 0: there is none
    int32_t label, answer;
    float *x;      // (n_features)
    float *scores; // (n_outputs)
    float *gates;  // (top_k)
    int32_t *ids;  // (top_k)
};

struct eval {
    const char *model_path;
    vkmoe_device_info device;
    const vkmoe_model *model;
    vkmoe_model_info info;
    uint32_t layer; // whose experts are counted
    vkmoe_layer_desc desc; // n_experts 0: no layer has any
    const vkmoe_metrics *metrics;
    double compute_seconds, whole_seconds;
    uint32_t image_side; // 0: rows are no square images
    struct example examples[N_EXAMPLES];
};

// Consecutive rows with what came out of them.
struct eval_batch {
    uint64_t first; // rows before these
    uint32_t n;
    const float *x, *y, *scores;
    const int32_t *labels, *ids;
    const float *gates;
};

// Keeps the rows among these that make the best examples so far.
void eval_keep_examples(struct eval *eval, const struct eval_batch *batch);

int eval_print_json(const struct eval *eval);
int eval_print_text(const struct eval *eval);

// The three examples as pictures, with the experts that decided.
void eval_print_examples(const struct eval *eval);

#endif
