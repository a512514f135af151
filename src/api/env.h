// SPDX-License-Identifier: MIT
// The one place that reads the environment: VKMOE_DEVICE, VKMOE_CPU_ISA, VKMOE_DISABLE,
// VKMOE_CACHE_DIR, XDG_CACHE_HOME, HOME.
#ifndef MOE_API_ENV_H
#define MOE_API_ENV_H

#include <vkmoe/vkmoe.h>

struct moe_env {
    const char *device;   // "auto" when not set
    const char *cpu_isa;  // "" when not set
    const char *disable;  // "" when not set
    char cache_dir[4096]; // "" when nothing is set, or the path is longer
};

// The pointers are valid until the program changes its environment.
void moe_env_read(struct moe_env *out);

#endif
