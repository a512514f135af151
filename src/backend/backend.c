// SPDX-License-Identifier: MIT
#include "backend/backend.h"

extern const struct moe_backend moe_backend_cpu;
extern const struct moe_backend moe_backend_reference;
#ifdef MOE_HAVE_VULKAN
extern const struct moe_backend moe_backend_vulkan;
#endif

const struct moe_backend *const moe_backends[] = {
#ifdef MOE_HAVE_VULKAN
    &moe_backend_vulkan,
#endif
    &moe_backend_cpu,
    &moe_backend_reference,
    NULL,
};
