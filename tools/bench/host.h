// SPDX-License-Identifier: MIT
// The machine and the build that a result is of.
#ifndef BENCH_HOST_H
#define BENCH_HOST_H

#include "row.h"

// Fills in version, build, time_utc, cpu, os, kernel, n_cores and environment.
//   root  in front of /etc and /proc; "" is the machine's own
void bench_host_fill(const char *root, struct bench_file *file);

// The variables of `environment` ("NAME=value" each, ended by NULL) that choose or configure Vulkan
// drivers and vkmoe, in alphabetical order with spaces between. Not those that name folders of a
// person's own, such as caches. What does not fit is left out whole.
void bench_environment(const char *const *environment, char *out, size_t size);

#endif
