// SPDX-License-Identifier: MIT
// What a run must move and compute at least, and how long a device needs for that at least.
#ifndef BENCH_ROOFLINE_H
#define BENCH_ROOFLINE_H

#include "work.h"

struct bench_cost {
    double bytes, flops; // of one run
};

// By the layer's shape, its types and how many experts are hit; formulas in roofline.c.
//   expert_size  bytes of one routed expert as kernels read it; 0: by the stored types
struct bench_cost bench_case_cost(const struct bench_case *what, double n_experts_hit,
                                  double expert_size);

// Bytes of rows of stored weights, each whole blocks of its type.
double bench_matrix_size(enum vkmoe_dtype type, double n_rows, uint32_t width);

// Bytes of all parameters of one routed expert, by the layer's stored types, and their number.
double bench_expert_size(const vkmoe_layer_desc *layer, uint32_t d_ff);
double bench_expert_count(const vkmoe_layer_desc *layer, uint32_t d_ff);
// Bytes of the shared expert's, by its own types where it has some; 0: there is none.
double bench_shared_size(const vkmoe_layer_desc *layer);

// Fills in floor_us, floor_fraction, bound and the rates, from the row's bytes, flops, read_rate,
// peak, dispatch_us, n_dispatches and times: the device's, or wall where there are none. What is
// not known makes NAN of what it is a part of.
void bench_row_floor(struct bench_row *row);

#endif
