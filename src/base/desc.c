// SPDX-License-Identifier: MIT
#include "base/desc.h"

#include "base/bits.h"
#include "base/status.h"

enum vkmoe_status moe_desc_copy(void *out, size_t size, const void *desc, const char *name)
{
    size_t given;
    memcpy(&given, desc, sizeof given);
    if (given < sizeof given)
        return moe_fail(VKMOE_E_ARGUMENT,
                        "%s.struct_size = %zu: at least %zu; start from %s_init()", name, given,
                        sizeof given, name);
    const unsigned char *bytes = desc;
    for (size_t i = size; i < given; i++) {
        if (bytes[i] != 0)
            return moe_fail(VKMOE_E_UNSUPPORTED,
                            "%s.struct_size = %zu: byte %zu is set, this version knows %zu bytes",
                            name, given, i, size);
    }
    memcpy(out, desc, moe_min(given, size));
    memcpy(out, &size, sizeof size);
    return VKMOE_OK;
}
