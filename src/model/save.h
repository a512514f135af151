// SPDX-License-Identifier: MIT
// A checkpoint's layers on their way to a file of another type: what is written, whatever the
// format, and where the bytes come from.
#ifndef MOE_MODEL_SAVE_H
#define MOE_MODEL_SAVE_H

#include "model/checkpoint.h"

// One part of one layer, which becomes one tensor: its n matrices follow each other. Its bytes are
// made row by row, in order.
struct moe_save_item {
    struct moe_save *save;
    const struct moe_checkpoint_layer *layer;
    uint32_t index, index_out; // the layer's number, here and there
    enum vkmoe_part part;
    enum vkmoe_dtype type;
    uint32_t n, n_rows, n_columns;
    uint64_t row_size, size;
    bool fallback;

    // The row at hand.
    struct moe_reader reader;
    bool is_open;
    uint32_t i, row;
    unsigned char *bytes; // (row_size)
    uint64_t used;        // of them
    struct moe_error error;
};

struct moe_save {
    vkmoe_checkpoint *checkpoint;
    const char *path;
    vkmoe_save_desc desc;
    vkmoe_layer_desc *layers; // (n_layers) with their new types
    uint32_t *numbers;        // (n_layers) in the checkpoint
    uint32_t n_layers;
    struct moe_save_item *items; // layer by layer, in the order of their parts
    size_t n_items;
    uint64_t done, total; // bytes
};

// Are there several of the part, one for each (adjugate) expert?
static inline bool moe_part_is_stacked(enum vkmoe_part part)
{
    return (part >= VKMOE_PART_GATE && part < VKMOE_PART_SHARED) || part >= VKMOE_PART_ADJUGATE;
}

// Copies the next bytes of an item. `user` is the item.
enum vkmoe_status moe_save_fill(void *user, uint64_t offset, size_t size, void *dst);

// save_gguf.c, save_model.c: the file.
enum vkmoe_status moe_save_gguf(struct moe_save *save);
enum vkmoe_status moe_save_model(struct moe_save *save);

#endif
