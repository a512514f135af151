// SPDX-License-Identifier: MIT
// A case of the benchmark, and what it takes on a device: weights, rows, plan, binds or a network.
#ifndef BENCH_WORK_H
#define BENCH_WORK_H

#include "row.h"

enum bench_mode {
    BENCH_FORWARD,  // vkmoe_run of a layer
    BENCH_BACKWARD, // vkmoe_net_backward of a network of that layer
    BENCH_TRAIN,    // vkmoe_net_train of it: forward, backward, an AdamW step
};

// What is to be measured, before there is a device.
struct bench_case {
    struct bench_key key;
    vkmoe_layer_desc layer;
    enum vkmoe_dtype type, x_type; // of the weights that read x; of x and y
    enum vkmoe_precision precision;
    bool or_exact; // int8 by default: exact where the device does not have it
    enum bench_mode mode;
    const char *trace;   // path of a recorded routing; NULL: key.routing says it all
    const char *variant; // forced kernel, or NULL
    float budget_ms;     // 0: the library's
    char refusal[192];   // why nothing computes it; "": something may
};

// A case on a device. Made by work.c, read by measure.c.
struct bench_work {
    const struct bench_case *what;
    vkmoe_context *context; // borrowed
    vkmoe_device_info device;
    // Forward: a bind of each copy of the weights.
    vkmoe_plan *plan;
    vkmoe_weights **weights; // (n_copies), of which the first n_weights are distinct
    vkmoe_bind **binds;      // (n_copies), each with weights i % n_weights and rows of its own
    vkmoe_io *ios;           // (n_copies) rows and outputs in host memory, routing as the case says
    uint32_t n_copies, n_weights;
    // Backward, train.
    vkmoe_net *net;
    vkmoe_net_batch batch;
    // Of one run, for the floor: mean over the copies.
    double n_experts_hit;
    double device_bytes;
    struct bench_material *material; // work.c's own
};

#endif
