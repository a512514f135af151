// SPDX-License-Identifier: MIT
// Status names, the thread's error text, the version.
#include "base/bits.h"

#include <vkmoe/vkmoe.h>

// The library's only mutable state outside objects: each thread has its own.
static _Thread_local char error_text[1024];

const char *vkmoe_status_name(enum vkmoe_status status)
{
    switch (status) {
#define NAME(name, value, meaning)                                                                 \
    case name:                                                                                     \
        return #name;
        VKMOE_STATUS_LIST(NAME)
#undef NAME
    }
    return "unknown status";
}

const char *vkmoe_error_text(void)
{
    return error_text;
}

void vkmoe_error_set(const char *text)
{
    size_t n = text ? moe_min(strlen(text), sizeof error_text - 1) : 0;
    if (n > 0)
        memmove(error_text, text, n); // `text` may be a part of the present one
    error_text[n] = '\0';
}

uint32_t vkmoe_version(void)
{
    return VKMOE_VERSION_MAJOR << 22 | VKMOE_VERSION_MINOR << 12 | VKMOE_VERSION_PATCH;
}
