// SPDX-License-Identifier: MIT
// The gradients of one layer where the back end has no `backward` of its own.
#ifndef MOE_API_LAYER_NET_H
#define MOE_API_LAYER_NET_H

#include "api/api.h"

struct moe_layer_net;

// Checked arguments, as for `backward` in backend.h; fills bind->layer_net.
enum vkmoe_status moe_layer_net_backward(vkmoe_bind *bind, uint32_t n_tokens, const vkmoe_io *io,
                                         const vkmoe_backward_io *out);
void moe_layer_net_destroy(struct moe_layer_net *net);

#endif
