// SPDX-License-Identifier: MIT
// One op of a net in one run: where its tensors are and how many rows they have this time.
#ifndef MOE_CORE_NET_CALL_H
#define MOE_CORE_NET_CALL_H

#include "core/net.h"

struct moe_net_view {
    void *data; // NULL: there is none
    uint64_t rows;
    uint32_t width;
    enum moe_net_type type;
};

struct moe_net_call {
    const struct moe_net_op *op;
    const struct moe_net_args *args;
    struct moe_net_view in[MOE_NET_OPERANDS], out[MOE_NET_RESULTS];
    bool add; // the results marked * are added to
};

// arena: memory of the planned net, word_size bytes for each word. All is borrowed.
void moe_net_call_init(struct moe_net_call *call, const struct moe_net *net,
                       const struct moe_net_op *op, const struct moe_net_args *args, void *arena,
                       size_t word_size);

// Into how many parts can the op be cut that do not depend on each other? Part i of most ops is
// row i of the first result; of
//   SELECT, SHARE, SHARE_BACKWARD, MIXTURE_NLL  token i
//   POOL_BACKWARD                               example i
//   NORM_DGAIN                                  column i
//   GROUP, REDUCE, SUM_SQUARES, BALANCE, Z_LOSS, CLIP, COUNT, BALANCE_BIAS  all of it
uint64_t moe_net_call_parts(const struct moe_net_call *call);

#endif
