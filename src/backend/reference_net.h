// SPDX-License-Identifier: MIT
// The oracle's networks as the functions of a back end; contracts as in backend.h.
#ifndef MOE_BACKEND_REFERENCE_NET_H
#define MOE_BACKEND_REFERENCE_NET_H

#include "backend/backend.h"

enum vkmoe_status moe_reference_net_create(struct moe_device *device, const struct moe_net *net,
                                           struct moe_device_net **out);
void moe_reference_net_destroy(struct moe_device_net *net);
enum vkmoe_status moe_reference_net_write(struct moe_device_net *net, uint32_t tensor, uint64_t n,
                                          const void *data);
enum vkmoe_status moe_reference_net_read(struct moe_device_net *net, uint32_t tensor, uint64_t n,
                                         void *data);
enum vkmoe_status moe_reference_net_run(struct moe_device_net *net, uint32_t programs,
                                        const struct moe_net_args *args);

#endif
