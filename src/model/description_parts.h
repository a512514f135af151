// SPDX-License-Identifier: MIT
// Between description.c and the files that read parts of a configuration.
#ifndef MOE_MODEL_DESCRIPTION_PARTS_H
#define MOE_MODEL_DESCRIPTION_PARTS_H

#include "model/config.h"
#include "model/description.h"

// `input` -> info.input, info.n_features, text, vocabulary, d_table.
enum vkmoe_status moe_description_read_input(struct moe_description *d,
                                             const struct moe_config *top);

// `layers` -> layers, moe, pool, info.n_layers, info.n_outputs. After the input.
enum vkmoe_status moe_description_read_layers(struct moe_description *d,
                                              const struct moe_config *top);

#endif
