// SPDX-License-Identifier: MIT
// Small networks, one for each option of a layer, loss and optimiser, and batches for them.
#ifndef TESTS_UNIT_NET_CASES_H
#define TESTS_UNIT_NET_CASES_H

#include <vkmoe/train.h>

enum {
    NET_TOKENS = 6,
    NET_EXAMPLES = 3,
    NET_D_IN = 4,
    NET_MAX_WIDTH = 8,
    NET_LAYERS = 3,
};

// A network's description with all that it points to.
struct net_case {
    char name[64];
    vkmoe_net_desc desc;
    vkmoe_net_layer layers[NET_LAYERS];
    vkmoe_layer_desc moe[NET_LAYERS];
    const vkmoe_net_layer *list[NET_LAYERS];
    float class_weights[NET_MAX_WIDTH];
};

// Case i of net_case_count(); pointers go into *out, which must stay where it is.
uint32_t net_case_count(void);
void net_case_init(struct net_case *out, uint32_t i);
uint32_t net_case_find(const char *name); // of which this is the name

// A batch that fits the case: x, token numbers, labels and targets from a seed.
struct net_data {
    float x[NET_TOKENS * NET_D_IN];
    int32_t token_ids[NET_TOKENS], offsets[NET_EXAMPLES + 1], labels[NET_TOKENS];
    float targets[NET_TOKENS * NET_MAX_WIDTH];
    vkmoe_net_batch batch;
};

void net_data_init(struct net_data *out, const struct net_case *of, uint32_t seed);

#endif
