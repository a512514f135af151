// SPDX-License-Identifier: MIT
// A small layer on a few tokens as the oracle takes it, with a gradient dy of its output.
#ifndef TESTS_UNIT_REF_PROBLEM_H
#define TESTS_UNIT_REF_PROBLEM_H

#include "fixture.h"

#include "core/ref_backward.h"

enum { N_TOKENS = 3, MAX_PLACES = 64, MAX_GRADS = 1024 };

// A run of parameters of the problem, or x.
struct place {
    const char *name;
    float *weights; // NULL: x
    uint32_t n;
};

struct problem {
    struct layer_data data;
    struct moe_graph graph;
    struct moe_ref_weights weights; // in data.memory
    struct moe_ref_run *run;
    struct moe_ref_grads *grads;
    struct place places[MAX_PLACES]; // in the order of moe_ref_grads.memory
    uint32_t n_places, n_grads;
    double dy[N_TOKENS * 8];
};

// Random weights, x and dy; the same for the same seed. The run is not done yet.
void problem_init(struct problem *p, const vkmoe_layer_desc *desc, uint32_t seed);
void problem_finish(struct problem *p);

void problem_run(struct problem *p);
void problem_backward(struct problem *p); // over poisoned gradients

// 4 experts of which 2, widths of 2 to 4; the other fields vary with i.
vkmoe_layer_desc small_layer(uint32_t i);

#endif
