// SPDX-License-Identifier: MIT
// What a configuration says: of a model file, and of the configuration of a training, which holds
// the same keys. From it come the network, the list of the model's tensors, and the file.
#ifndef MOE_MODEL_DESCRIPTION_H
#define MOE_MODEL_DESCRIPTION_H

#include <vkmoe/model.h>
#include <vkmoe/train.h>

#include <jansson.h>

#include "model/text.h"

#define MOE_MODEL_FORMAT "vkmoe-model/1"

enum { MOE_NO_LAYER = -1 };

// A whole description. Everything in it lives until moe_description_finish; it may be moved.
struct moe_description {
    vkmoe_host host;
    json_t *config;        // the model's own keys
    json_t *train, *data;  // what a training's configuration says besides; NULL: nothing
    vkmoe_model_info info; // n_features 0 for texts
    const char **classes;  // (info.n_classes), texts of `config`; NULL: regress, or not told yet
    uint32_t d_table;      // embed and embed_bag: width of a row of the table
    struct moe_text text;  // likewise
    struct moe_text_entry *vocabulary; // what `text` points at

    vkmoe_net_layer *layers;   // (info.n_layers), as configured
    vkmoe_layer_desc *moe;     // (info.n_layers), of the moe layers
    uint32_t *widths;          // (info.n_layers), of their inputs
    int pool;                  // the pool layer's index, or MOE_NO_LAYER: each row is an example

    // The network: the input's own layers (embed: a table; embed_bag: a table and a mean), then
    // `layers`.
    vkmoe_net_layer *input_layers; // (n_input_layers)
    uint32_t n_input_layers;
    const vkmoe_net_layer **net_layers; // (n_input_layers + info.n_layers)
};

static inline bool moe_input_is_text(enum vkmoe_input input)
{
    return input == VKMOE_INPUT_EMBED || input == VKMOE_INPUT_EMBED_BAG;
}

// Reads a configuration. Unknown and contradictory keys are VKMOE_E_DATA, the text names file and
// key. `train` and `data` are kept as they are where `training` says so, else they are unknown.
// Without `classes` (training only) info.n_classes is what the last layer makes it.
//   file    for messages
//   config  a JSON object, copied
enum vkmoe_status moe_description_read(const vkmoe_host *host, const char *file,
                                       const json_t *config, bool training,
                                       struct moe_description *out);

// The same from JSON text.
enum vkmoe_status moe_description_parse(const vkmoe_host *host, const char *file, const char *text,
                                        size_t size, bool training, struct moe_description *out);

void moe_description_finish(struct moe_description *d); // a zeroed one is fine

// Names the classes, when the configuration left that to the data. VKMOE_E_DATA: not
// info.n_classes, empty, or twice the same.
enum vkmoe_status moe_description_set_classes(struct moe_description *d, const char *file,
                                              const char *const *names, uint32_t n);

// Layers, d_in and evaluation-independent fields of the network. Sizes of a batch, loss and
// optimiser are the caller's. Pointers go into the description.
void moe_description_net(const struct moe_description *d, vkmoe_net_desc *out);

// One tensor of a model.
struct moe_tensor_spec {
    char name[96];     // in a model file: "layers.0.router.weight", "input.table"
    char net_name[96]; // parameter of the network; "" for input.mean and its like
    int layer;         // whose it is; MOE_NO_LAYER: the input's
    uint32_t n_dims;
    uint64_t dims[3];
    uint64_t n_elements;
};

// All tensors of the model, those of the input first. *out is moe_free'd by the caller.
enum vkmoe_status moe_description_tensors(const struct moe_description *d,
                                          struct moe_tensor_spec **out, uint32_t *n);

// Statistics of the input: (n_features) mean and std, or min and max; NULL for other inputs.
struct moe_input_stats {
    const float *first, *second;
};

// Fills a parameter's (n) values.
typedef enum vkmoe_status moe_tensor_read(void *user, const char *net_name, float *data,
                                          uint64_t n);

// Writes a model file, whole and atomically, tensors in F32. Classes must be named by now.
enum vkmoe_status moe_model_save(const char *path, const struct moe_description *d,
                                 const struct moe_input_stats *stats, moe_tensor_read *read,
                                 void *user);

// The same with the values of a network's parameters.
enum vkmoe_status moe_model_save_net(const char *path, const struct moe_description *d,
                                     const struct moe_input_stats *stats, vkmoe_net *net);

// Writes a model's tensors into a network made of moe_description_net, all of whose parameters
// they are.
enum vkmoe_status moe_model_load_net(const vkmoe_model *model, vkmoe_net *net);

// The model's own description, borrowed.
const struct moe_description *moe_model_description(const vkmoe_model *model);

// ---- the head ----

// (x - first) / second, or (x - first) / (second - first), of every row; out may be x.
void moe_input_scale(enum vkmoe_input kind, const struct moe_input_stats *stats,
                     uint32_t n_features, uint64_t n_rows, const float *x, float *out);

// y (n_rows, width), before the head -> out, after it; out may be y.
void moe_head_apply(enum vkmoe_head head, uint32_t n_rows, uint32_t width, const float *y,
                    float *out);

// The class that a row's outputs speak for; -1 when they are all NaN.
int32_t moe_head_class(const vkmoe_model_info *info, const float *y);

#endif
