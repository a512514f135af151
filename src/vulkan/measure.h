// SPDX-License-Identifier: MIT
// The measuring entries of the back end's table: see backend.h.
#ifndef MOE_VULKAN_MEASURE_H
#define MOE_VULKAN_MEASURE_H

#include "vulkan/vk.h"

// measure.c
void moe_vk_program_kernels(const struct moe_program *program, vkmoe_plan_kernels *out);
enum vkmoe_status moe_vk_time_runs(struct moe_bound *const *bounds, const vkmoe_io *ios,
                                   uint32_t n_bounds, uint32_t n_tokens, uint32_t n_runs,
                                   double *seconds);
enum vkmoe_status moe_vk_time_dispatches(struct moe_bound *bound, uint32_t n_tokens,
                                         const vkmoe_io *io, vkmoe_dispatch_time *times,
                                         uint32_t *n);

// measure_net.c
enum vkmoe_status moe_vk_net_time(struct moe_device_net *net, uint32_t programs,
                                  const struct moe_net_args *args, double *seconds,
                                  vkmoe_dispatch_time *times, uint32_t *n);

// probe.c
enum vkmoe_status moe_vk_probe_create(struct moe_device *device, uint64_t read_size,
                                      struct moe_device_probe **out);
void moe_vk_probe_destroy(struct moe_device_probe *probe);
enum vkmoe_status moe_vk_probe_run(struct moe_device_probe *probe, uint32_t what,
                                   vkmoe_limits *out);

#endif
