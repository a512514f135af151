// SPDX-License-Identifier: MIT
#ifndef MOE_CORE_NET_CHECK_H
#define MOE_CORE_NET_CHECK_H

#include "core/net.h"

// Are an op's tensors there, and of the shapes and types that core/net.h says? NULL, or what is
// wrong, for an assert.
const char *moe_net_check_op(const struct moe_net *net, const struct moe_net_op *op);

#endif
