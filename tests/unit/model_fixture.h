// SPDX-License-Identifier: MIT
// Small model files.
#ifndef TESTS_UNIT_MODEL_FIXTURE_H
#define TESTS_UNIT_MODEL_FIXTURE_H

#include "model/safetensors.h"

enum { FULL_TENSORS = 18 };

// A classifier with every part a layer can have: 3 features, 2 gated experts 3-4-2 with biases, a
// shared expert of width 5, standardised input.
extern const char full_config[];

// Its tensors in F32 with small random values.
void full_tensors(struct moe_st_source out[FULL_TENSORS]);

// `text` with the one place that says `from` replaced; valid until the next call.
const char *edited(const char *text, const char *from, const char *to);

// Writes a model file into the scratch folder and returns its path.
const char *write_model(const char *config, const struct moe_st_source *tensors, size_t n_tensors);

#endif
