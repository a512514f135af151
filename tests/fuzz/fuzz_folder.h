// SPDX-License-Identifier: MIT
// A made-up checkpoint for the targets whose bytes are its configuration or its description.
#ifndef TESTS_FUZZ_FUZZ_FOLDER_H
#define TESTS_FUZZ_FUZZ_FOLDER_H

#include "fuzz.h"

#include <vkmoe/checkpoint.h>

// Writes model.safetensors, once: layer 1 has 4 experts with d_model 8 and d_ff 6, under the names
// of Mixtral and of DeepSeek-V3.
void fuzz_folder_write(void);

// Asks for all that there is to know of each layer and reads all weights. Is a layer with experts
// among them?
bool fuzz_folder_walk(vkmoe_checkpoint *checkpoint);

#endif
