// SPDX-License-Identifier: MIT
#include "api/env.h"

#include <stdio.h>
#include <stdlib.h>

// An empty variable counts as not set, as the XDG rules have it.
static const char *read_variable(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static void read_cache_dir(char *out, size_t size)
{
    static const struct {
        const char *variable, *below;
    } places[] = {
        {"VKMOE_CACHE_DIR", ""},
        {"XDG_CACHE_HOME", "/vkmoe"},
        {"HOME", "/.cache/vkmoe"},
    };
    *out = '\0';
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const char *base = read_variable(places[i].variable, NULL);
        if (!base)
            continue;
        int n = snprintf(out, size, "%s%s", base, places[i].below);
        if (n < 0 || (size_t) n >= size)
            *out = '\0';
        return;
    }
}

void moe_env_read(struct moe_env *out)
{
    out->device = read_variable("VKMOE_DEVICE", "auto");
    out->cpu_isa = read_variable("VKMOE_CPU_ISA", "");
    out->disable = read_variable("VKMOE_DISABLE", "");
    read_cache_dir(out->cache_dir, sizeof out->cache_dir);
}
