// SPDX-License-Identifier: MIT
// Levels as candidates: right, and worth having?
#ifndef MOE_CPU_TUNE_H
#define MOE_CPU_TUNE_H

#include "cpu/cpu.h"

// selftest.c: does a table compute what the scalar one does? Fills in *ok, and `reason` with the
// first kernel that does not.
enum vkmoe_status moe_cpu_selftest(const vkmoe_host *host, const struct cpu_kernels *kernels,
                                   bool *ok, char *reason, size_t size);

// tune.c: as vkmoe_tune. Nothing is kept: a context takes the highest level there is whatever it
// says here, as it is asked for one by name.
enum vkmoe_status moe_cpu_tune(struct moe_device *device, bool fresh, vkmoe_tune_verdict *out,
                               uint32_t *n);
// As vkmoe_context_kernels.
enum vkmoe_status moe_cpu_kernels(struct moe_device *device, vkmoe_kernel_info *out, uint32_t *n);

#endif
