// SPDX-License-Identifier: MIT
// Made-up checkpoints in the scratch folder.
#ifndef TESTS_UNIT_CHECKPOINT_FOLDER_H
#define TESTS_UNIT_CHECKPOINT_FOLDER_H

#include "check.h"

#include "model/safetensors.h"

enum { FOLDER_MAX_TENSORS = 256 };

// Tensors to write; owned.
struct folder {
    struct moe_st_source tensors[FOLDER_MAX_TENSORS];
    size_t n_tensors;
};

// Adds zeroed bytes and returns them. A dimension of 0 ends the shape.
void *folder_add(struct folder *folder, const char *name, const char *dtype, uint64_t d0,
                 uint64_t d1, uint64_t d2);

// NULL: there is none.
struct moe_st_source *folder_find(struct folder *folder, const char *name);
void folder_remove(struct folder *folder, const char *name);

// The same small value for the same name and index; exact in f16 and bf16.
float folder_value(const char *name, size_t i);

// Fills an F32 tensor with folder_value.
void folder_fill(struct folder *folder, const char *name);

// Writes model.safetensors and config.json into the scratch folder; without an index.
void folder_write(const struct folder *folder, const char *config);
void folder_finish(struct folder *folder);

// A Mixtral of 2 layers: 4 experts of which 2, d_model 8, d_ff 6; only layer 1 has tensors.
#define MIXTRAL_CONFIG(more)                                                                       \
    "{\"model_type\": \"mixtral\", \"hidden_size\": 8, \"intermediate_size\": 6, "                 \
    "\"num_hidden_layers\": 2, \"num_local_experts\": 4, \"num_experts_per_tok\": 2" more "}"
void folder_mixtral(struct folder *folder);

#endif
