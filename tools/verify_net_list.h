// SPDX-License-Identifier: MIT
// The networks of `vkmoe verify`: few, so that together they have most of what a layer can be, and
// each loss and optimiser.
#ifndef VERIFY_NET_LIST_H
#define VERIFY_NET_LIST_H

#include <vkmoe/train.h>

enum { VERIFY_NET_LAYERS = 4, VERIFY_NET_TOKENS = 24, VERIFY_NET_EXAMPLES = 5 };
enum { VERIFY_NET_D_IN = 6, VERIFY_NET_CLASSES = 3, VERIFY_NET_ROWS = 9 };

// A description with all that it points to, which must stay where it is.
struct verify_net_case {
    vkmoe_net_desc desc;
    float rate;
    vkmoe_net_layer layers[VERIFY_NET_LAYERS];
    vkmoe_layer_desc moe[VERIFY_NET_LAYERS];
    const vkmoe_net_layer *list[VERIFY_NET_LAYERS];
    float class_weights[VERIFY_NET_CLASSES];
};

uint32_t verify_net_count(void);
const char *verify_net_name(uint32_t i); // "net/noisy-top-2"
void verify_net_case_init(struct verify_net_case *out, uint32_t i);

#endif
