// SPDX-License-Identifier: MIT
// A checkpoint in memory: its files, the rules of its family, and the layers that were asked for.
#ifndef MOE_MODEL_CHECKPOINT_H
#define MOE_MODEL_CHECKPOINT_H

#include <vkmoe/checkpoint.h>

#include "model/checkpoint_matrix.h"
#include "model/description.h"

// What is known of one layer.
struct moe_checkpoint_layer {
    bool has_experts;
    char reason[256];
    vkmoe_layer_desc desc;
    struct moe_bound parts[VKMOE_N_PARTS];
    vkmoe_checkpoint_tensor *tensors; // (n_tensors), each once
    uint32_t n_tensors;
};

struct vkmoe_checkpoint {
    vkmoe_host host;
    char *path;
    enum vkmoe_checkpoint_kind kind;
    struct moe_source source;
    json_t *config;                 // config.json
    struct moe_description model;   // of our own format
    struct moe_explicit explicit;
    const struct moe_family *family; // NULL: none
    const struct moe_layout *layout; // NULL: only explicit places
    struct moe_lookup lookup;
    const char *says;
    uint32_t n_layers, n_encoder_layers; // of models with a decoder, too; else 0
    uint32_t scale_block[2];
    struct moe_checkpoint_layer **layers; // (n_layers), NULL until asked for
};

// A GGUF that is at `path` for now; messages call it `name`.
enum vkmoe_status moe_checkpoint_open_gguf(const vkmoe_host *host, const char *path,
                                           const char *name, vkmoe_checkpoint **out);

// The layer, bound once.
enum vkmoe_status moe_checkpoint_layer(vkmoe_checkpoint *checkpoint, uint32_t layer,
                                       struct moe_checkpoint_layer **out);

// The same, only for layers with experts: VKMOE_E_ARGUMENT says why there are none.
enum vkmoe_status moe_checkpoint_moe_layer(vkmoe_checkpoint *checkpoint, uint32_t layer,
                                           struct moe_checkpoint_layer **out);

// What the configuration has of a layer; desc only.
enum vkmoe_status moe_checkpoint_facts(vkmoe_checkpoint *checkpoint, uint32_t layer,
                                       struct moe_facts *out, char reason[160]);

// checkpoint_bind.c: finds the tensors of a layer and checks their shapes.
enum vkmoe_status moe_checkpoint_bind(vkmoe_checkpoint *checkpoint, uint32_t layer,
                                      struct moe_checkpoint_layer *out);
void moe_checkpoint_unbind(const vkmoe_host *host, struct moe_checkpoint_layer *layer);

// checkpoint_check.c: shapes; and layer->tensors.
enum vkmoe_status moe_checkpoint_check(const vkmoe_checkpoint *checkpoint, uint32_t layer,
                                       const struct moe_facts *facts,
                                       struct moe_checkpoint_layer *l);
enum vkmoe_status moe_checkpoint_list(const vkmoe_checkpoint *checkpoint,
                                      struct moe_checkpoint_layer *l);

// checkpoint_types.c: the types of desc, and those of the parts.
void moe_checkpoint_types(struct moe_checkpoint_layer *layer);

// Rows of one matrix as f32, or the values of a vector.
enum vkmoe_status moe_bound_read(const vkmoe_checkpoint *checkpoint, const struct moe_bound *bound,
                                 uint32_t i, uint32_t first_row, uint32_t n_rows, float *dst);

// checkpoint_load.c: the types that `desc` asks for, or what fits their widths.
void moe_checkpoint_choose_types(const vkmoe_load_desc *desc, vkmoe_layer_desc *layer);

// The type of a part, as `desc` has it.
enum vkmoe_dtype moe_part_type(const vkmoe_layer_desc *desc, enum vkmoe_part part);

// The one of two that holds more.
enum vkmoe_dtype moe_better_type(enum vkmoe_dtype a, enum vkmoe_dtype b);

// `type`, or where rows of n are no whole blocks of it the next one of which they are.
enum vkmoe_dtype moe_fitting_type(enum vkmoe_dtype type, uint64_t n);

static inline bool moe_part_is_matrix(enum vkmoe_part part)
{
    int role = part < VKMOE_PART_GATE ? -1 : (int) (part - VKMOE_PART_GATE) % 6;
    return (role >= 0 && role < 3) || part == VKMOE_PART_LATENT_DOWN ||
           part == VKMOE_PART_LATENT_UP;
}

#endif
