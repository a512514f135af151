// SPDX-License-Identifier: MIT
// The part of a session that runs a network: models that plans do not compute.
#ifndef MOE_MODEL_SESSION_NET_H
#define MOE_MODEL_SESSION_NET_H

#include "model/model.h"

struct moe_session_net;

// VKMOE_E_UNSUPPORTED: a precision other than exact, too. desc is full.
enum vkmoe_status moe_session_net_create(vkmoe_context *context, const vkmoe_model *model,
                                         const vkmoe_session_desc *desc,
                                         struct moe_session_net **out);
void moe_session_net_destroy(struct moe_session_net *net); // NULL is fine

// n_rows: 1..max_rows. io is full, its layer is one that runs.
enum vkmoe_status moe_session_net_run(struct moe_session_net *net, uint32_t n_rows,
                                      const vkmoe_session_io *io);

#endif
