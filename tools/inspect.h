// SPDX-License-Identifier: MIT
// What `vkmoe inspect` knows of a layer, and how it is told.
#ifndef INSPECT_H
#define INSPECT_H

#include "cli.h"

#include <stdio.h>
#include <vkmoe/checkpoint.h>

struct inspect {
    vkmoe_checkpoint *checkpoint;
    vkmoe_checkpoint_info info;
    const char *path;
    vkmoe_context *context; // NULL: no device was asked for
    vkmoe_device_info device;
    bool tensors; // list those of the file
};

// How a layer fits the device. Without a device only the reason why none computes such a layer.
struct inspect_fit {
    bool computed;       // the device computes such a layer
    char reason[256];    // why not; or ""
    uint64_t size;       // of its weights as packed there
};

// Of a layer with experts.
struct inspect_fit inspect_fit(const struct inspect *in, const vkmoe_checkpoint_layer *layer);

// "hf", "gguf", "vkmoe-model". Static text.
const char *inspect_kind(enum vkmoe_checkpoint_kind kind);

// The layer's text without its number, as several layers may have the same.
enum vkmoe_status inspect_text(const struct inspect *in, uint32_t index,
                               const vkmoe_checkpoint_layer *layer, FILE *out);

// The layer as JSON, a new reference.
enum vkmoe_status inspect_json(const struct inspect *in, uint32_t index,
                               const vkmoe_checkpoint_layer *layer, json_t **out);

#endif
