// SPDX-License-Identifier: MIT
// Which experts each token of a case goes to, and the rows and router that make it so.
#ifndef BENCH_ROUTING_H
#define BENCH_ROUTING_H

#include <vkmoe/vkmoe.h>

#include "row.h"

enum bench_routing_kind {
    BENCH_UNIFORM, // every expert is as likely as any other
    BENCH_ZIPF,    // the i-th of them, in an order of each copy's own, by 1 / i^a
    BENCH_SINGLE,  // all tokens of a copy go to the same top_k experts
    BENCH_TRACE,   // as a file says
};

struct bench_routing {
    enum bench_routing_kind kind;
    double a;
    const char *path; // of a trace; borrowed
};

// "uniform", "zipf:A" with A from 0 to 8, "single", "trace:FILE". `text` is borrowed.
bool bench_routing_parse(const char *text, struct bench_routing *out);
// As a key has it: of a trace the file's name alone.
void bench_routing_text(const struct bench_routing *routing, char *out, size_t size);

// A recorded routing: ids (n_rows, top_k).
struct bench_trace {
    int32_t *ids; // free() it
    uint64_t n_rows;
};

// Reads the whole file. VKMOE_E_IO, VKMOE_E_DATA, VKMOE_E_SHAPE: the text names the file and, of a
// wrong id, its row and value. An id is a whole number below n_experts, and none twice in a row.
enum vkmoe_status bench_trace_read(const char *path, uint32_t n_experts, uint32_t top_k,
                                   uint32_t n_tokens, struct bench_trace *out);

// Which draw: copies of a case have tokens of their own.
struct bench_draw {
    uint64_t seed;
    uint32_t copy;
    uint32_t n_tokens, n_experts, top_k;
    uint32_t n_group, topk_group; // a token's experts are of so many groups; n_group 0: of any
};

// Chooses the experts: ids (n_tokens, top_k), distinct in a row. The same draw gives the same ids.
// `trace` is of kind BENCH_TRACE: copy c begins c * n_tokens rows behind the first, and behind the
// last row comes the first. VKMOE_E_MEMORY: nothing was chosen.
enum vkmoe_status bench_routing_choose(const struct bench_routing *routing,
                                       const struct bench_trace *trace,
                                       const struct bench_draw *draw, int32_t *ids);

// Fills in n_experts_hit, min_rows, max_rows, cv_rows and expert_rows of the row, of key.n_tokens.
enum vkmoe_status bench_routing_count(const int32_t *ids, struct bench_row *row);

// With a table of n_token_ids rows, row i of all rows that are numbered through has token id
// i % n_token_ids, and so the experts of the first row of that id.
void bench_routing_repeat(const vkmoe_layer_desc *layer, size_t n_rows, int32_t *ids);

// VKMOE_E_UNSUPPORTED: an expert of ids (n_tokens, top_k) has more slots than the layer's capacity.
enum vkmoe_status bench_routing_fits(const vkmoe_layer_desc *layer, uint32_t n_tokens,
                                     const int32_t *ids);

// ---- rows and router that do it ----------------------------------------------------------------
//
// The router's row e is 1 in column e, and a hundredth of noise elsewhere. The first n_experts
// columns of a token are thus its logits: about 2.5 for the wanted experts, -0.5 for all others,
// with noise so that no two tokens are alike. Router and selection bias are small beside that, and
// a group with a wanted expert is ahead of one without. Identity experts are never wanted.

// Why nothing is measured of a layer: no tensors are made for it, or its routing cannot be chosen;
// "" for one that can.
void bench_layer_refusal(const vkmoe_layer_desc *layer, char *out, size_t size);

// Random numbers, nearly N(0, 1), in a ring; whose length is prime, so that rows which follow each
// other never begin alike.
enum { BENCH_N_NOISE = 1048573 };
// (BENCH_N_NOISE); free() it. NULL: no memory.
float *bench_noise(uint64_t seed);

// n = n_experts + n_zero: weight (n, d_model), bias and selection_bias (n); each may be NULL.
void bench_router_fill(const vkmoe_layer_desc *layer, const float *noise, float *weight,
                       float *bias, float *selection_bias);
// x (n_tokens, d_model) that goes to ids (n_tokens, top_k); NULL: that no router reads.
void bench_rows_fill(const vkmoe_layer_desc *layer, const float *noise,
                     const struct bench_draw *draw, const int32_t *ids, float *x);

#endif
