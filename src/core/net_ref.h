// SPDX-License-Identifier: MIT
// The oracle of networks: interprets a planned net in f64. Every tensor is stored as f64, ids too,
// but those of 16 bits: as they are.
#ifndef MOE_CORE_NET_REF_H
#define MOE_CORE_NET_REF_H

#include "core/net.h"

struct moe_ref_net {
    const vkmoe_host *host;
    const struct moe_net *net; // borrowed
    double *arena;             // begins as zero
};

// VKMOE_E_MEMORY: 8 bytes for each word of the arena.
enum vkmoe_status moe_ref_net_create(const vkmoe_host *host, const struct moe_net *net,
                                     struct moe_ref_net **out);
void moe_ref_net_destroy(struct moe_ref_net *ref);

// As net_run of backend.h.
void moe_ref_net_run(struct moe_ref_net *ref, uint32_t programs, const struct moe_net_args *args);

// The elements of a tensor, to read or to write. Of 16 bits: another pointer to them.
double *moe_ref_net_values(struct moe_ref_net *ref, uint32_t tensor);

#endif
