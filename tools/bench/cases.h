// SPDX-License-Identifier: MIT
// The cases of a run of the benchmark: every combination of what was asked for, or a suite.
#ifndef BENCH_CASES_H
#define BENCH_CASES_H

#include "work.h"

// What is combined. Texts are lists with commas; NULL: the default.
struct bench_axes {
    const char *models;     // presets
    const char *types;      // of weights; the layer's own, f32 of a preset
    const char *precisions; // half for types of 16 bits, int8 for blocks, else exact
    const char *x_type;     // with half and weights of 16 bits theirs, else f32
    const char *modes;      // "forward"
    const char *routings;   // "uniform"
    const char *tokens;     // "1,64"
};

// What is the same in all cases.
struct bench_common {
    uint64_t seed;
    const char *variant;
    float budget_ms;
    bool plain; // presets' shapes with the plain layer
};

struct bench_cases {
    struct bench_case *cases; // (n)
    uint32_t n, room;
};

// The next item of a list, without its comma, into `out`; false: there is none left. An item that
// does not fit is cut.
bool bench_next_item(const char **list, char *out, size_t size);

// Appends each combination with the layer, called `model` in keys ("": by its shape). A layer that
// this version does not compute gives cases with a refusal. VKMOE_E_ARGUMENT: an axis or the layer
// is wrong, and the text says what is known.
enum vkmoe_status bench_cases_add(const struct bench_axes *axes, const struct bench_common *common,
                                  const char *model, const vkmoe_layer_desc *layer,
                                  const char *const *routings, int n_routings,
                                  struct bench_cases *out);

// A preset's layer, or the plain one of its shape. VKMOE_E_ARGUMENT: no such preset; the text lists
// them.
enum vkmoe_status bench_find_preset(const char *name, bool plain, vkmoe_layer_desc *out);

// A suite. VKMOE_E_ARGUMENT: no such suite; the text lists them.
enum vkmoe_status bench_suite(const char *name, const struct bench_common *common,
                              struct bench_cases *out, double *min_seconds);

// Keeps what the extended regular expression finds in bench_key_text, in order. VKMOE_E_ARGUMENT:
// it is none, or finds nothing.
enum vkmoe_status bench_cases_filter(struct bench_cases *cases, const char *expression);

// Reads the trace of each case that has one, to find a bad one before anything is measured.
enum vkmoe_status bench_cases_check_traces(const struct bench_cases *cases);

void bench_cases_finish(struct bench_cases *cases); // zeroed is fine

// "forward", "backward", "train"
const char *bench_mode_name(enum bench_mode mode);

#endif
