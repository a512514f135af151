// SPDX-License-Identifier: MIT
// What the files of `vkmoe run` share: the layer that runs, its rows, and what is written of them.
#ifndef RUN_H
#define RUN_H

#include "cli.h"

#include <vkmoe/checkpoint.h>
#include <vkmoe/model.h>

#define NOT_GIVEN UINT64_MAX

// ---- the layer -------------------------------------------------------------------------------

// A layer of a file: of a checkpoint, or of a vkmoe-model whose sessions run it.
struct run_layer {
    const vkmoe_host *host;
    const char *path; // as given; the layer's
    uint32_t index;
    vkmoe_layer_desc desc; // d_out is set
    uint32_t d_in;
    vkmoe_checkpoint *checkpoint;
    vkmoe_weights *weights;
    vkmoe_plan *plan;
    vkmoe_bind *bind;
    vkmoe_model *model;
    vkmoe_session *session;
};

struct run_source {
    const char *path, *assume, *desc_path, *type; // the last three may be NULL
    uint32_t layer;
};

// Reads what the files say of the layer, no weights.
enum vkmoe_status run_layer_open(struct run_layer *layer, const vkmoe_host *host,
                                 const struct run_source *source);

// How it is computed.
struct run_kernels {
    int precision;       // enum vkmoe_precision
    const char *variant; // of kernels, or NULL
};

// Brings it onto a device, for so many rows at a time.
enum vkmoe_status run_layer_load(struct run_layer *layer, vkmoe_context *context,
                                 const struct run_source *source, uint32_t batch,
                                 const struct run_kernels *kernels);

// Opens the file of its gradients.
enum vkmoe_status run_layer_gradients(const struct run_layer *layer, const char *path,
                                      vkmoe_gradients **out);

enum vkmoe_status run_layer_run(struct run_layer *layer, uint32_t n, const vkmoe_io *io);
void run_layer_close(struct run_layer *layer); // a zeroed one is fine

// ---- rows ------------------------------------------------------------------------------------

// Rows that go with those of -i, one for each.
struct run_beside {
    const char *path; // NULL: there are none
    vkmoe_dataset *data;          // floats
    vkmoe_number_reader *numbers; // or whole numbers
};

struct run_rows {
    const char *in_path; // NULL: random rows
    struct run_beside router, ids, dy;
    uint64_t n_random, seed;
    uint32_t batch; // rows at a time

    vkmoe_dataset *data;
    uint64_t n_total; // 0: not known yet, or none
    uint64_t n_done;
    float *x, *router_x, *dy_rows; // (batch, width); the last two NULL where there are none
    int32_t *token_ids;
};

// Opens what there is to read for a layer, and says what is missing or not needed.
enum vkmoe_status run_rows_open(struct run_rows *rows, const struct run_layer *layer);

// The next rows; *n is 0 at the end.
enum vkmoe_status run_rows_read(struct run_rows *rows, const struct run_layer *layer, uint32_t *n);
void run_rows_close(struct run_rows *rows); // a zeroed one is fine

#endif
