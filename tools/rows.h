// SPDX-License-Identifier: MIT
// The rows of a data set on their way into a model, a batch at a time: features, sequences or
// texts.
#ifndef ROWS_H
#define ROWS_H

#include "cli.h"

#include <vkmoe/model.h>

struct rows {
    const vkmoe_model *model;
    vkmoe_model_info info;
    vkmoe_dataset *data;
    vkmoe_dataset_info data_info;
    uint32_t batch;  // rows at a time, at most
    uint32_t max_tokens; // of an example, for the session; 0: it has none
    uint64_t n_total; // 0: not known

    uint64_t n_done; // rows_each: rows before those at hand

    // The rows at hand.
    uint32_t n;
    uint64_t n_tokens; // n, when an example is no sequence
    float *x;
    const char **texts;
    int32_t *offsets;  // NULL: examples are no sequences
    int32_t *token_ids;
    uint64_t token_room;
    int32_t *labels;   // classify; NULL: not read
    float *values;     // regress, (n, n_outputs); NULL: not read

    // Routing of a layer that rows_run asks for.
    uint32_t layer, top_k; // top_k 0: of none
    int32_t *ids;          // (n or n_tokens, top_k)
    float *gates;
    uint32_t d_layer;      // 0: what the layer is given is not wanted
    float *layer_x;        // (n or n_tokens, d_layer)
    uint64_t routing_room; // in rows
    uint64_t n_routed;     // rows of the routing at hand
};

// Opens the data of a model. `path`, `target` and `host` are borrowed for the call.
enum vkmoe_status rows_open(struct rows *rows, const vkmoe_host *host, const vkmoe_model *model,
                            const char *path, const char *target, bool with_targets,
                            uint32_t batch);
void rows_close(struct rows *rows); // a zeroed one is fine

// Reads the next rows; rows->n is 0 at the end.
enum vkmoe_status rows_read(struct rows *rows);

// Reads all rows and calls run(user) for each batch, with progress and until an interrupt, which is
// VKMOE_E_CANCELLED. No rows at all are VKMOE_E_DATA.
enum vkmoe_status rows_each(struct rows *rows, enum vkmoe_status (*run)(void *user), void *user);

// The rows at hand as input of a session, without outputs.
vkmoe_session_io rows_io(const struct rows *rows);

// Runs the rows at hand. y, scores: (n, n_outputs), or NULL.
enum vkmoe_status rows_run(struct rows *rows, vkmoe_session *session, float *y, float *scores);

#endif
