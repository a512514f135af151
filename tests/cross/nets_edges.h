// SPDX-License-Identifier: MIT
// Whole networks to run on a device: those of tests/unit/net_cases.c, and others of sizes where
// something ends: one of a kind, none, more than a tile.
#ifndef TESTS_CROSS_NETS_EDGES_H
#define TESTS_CROSS_NETS_EDGES_H

#include "net_cases.h"

enum { NO_FAVOURITE = -1 };

struct whole {
    struct net_case of; // desc, with all that it points to
    vkmoe_net_group group;
    uint32_t n_tokens, n_examples; // of the first batch; the second one may be smaller
    bool other_offsets;            // examples of all sizes; else as net_data_init
    int favourite;                 // expert that the selection bias gives every row to
};

uint32_t whole_count(void);
void whole_init(struct whole *out, uint32_t i);
void whole_random(struct whole *out, uint32_t number); // of net_random_init

// A batch that fits. Owned memory.
struct whole_data {
    float *x, *targets;
    int32_t *token_ids, *offsets, *labels;
    vkmoe_net_batch batch;
};

void whole_data_init(struct whole_data *out, const struct whole *of, uint32_t n_tokens,
                     uint32_t seed);
void whole_data_finish(struct whole_data *data);
uint32_t whole_d_out(const struct whole *of);

#endif
