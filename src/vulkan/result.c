// SPDX-License-Identifier: MIT
// VkResult as our status and as text.
#include "vulkan/vk.h"

#define RESULTS(X)                             \
    X(VK_NOT_READY)                            \
    X(VK_TIMEOUT)                              \
    X(VK_ERROR_OUT_OF_HOST_MEMORY)             \
    X(VK_ERROR_OUT_OF_DEVICE_MEMORY)           \
    X(VK_ERROR_INITIALIZATION_FAILED)          \
    X(VK_ERROR_DEVICE_LOST)                    \
    X(VK_ERROR_MEMORY_MAP_FAILED)              \
    X(VK_ERROR_LAYER_NOT_PRESENT)              \
    X(VK_ERROR_EXTENSION_NOT_PRESENT)          \
    X(VK_ERROR_FEATURE_NOT_PRESENT)            \
    X(VK_ERROR_INCOMPATIBLE_DRIVER)            \
    X(VK_ERROR_TOO_MANY_OBJECTS)               \
    X(VK_ERROR_OUT_OF_POOL_MEMORY)             \
    X(VK_ERROR_FRAGMENTED_POOL)                \
    X(VK_ERROR_FRAGMENTATION)                  \
    X(VK_ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS) \
    X(VK_ERROR_UNKNOWN)

const char *moe_vk_result_name(VkResult result)
{
    switch ((int) result) {
#define CASE(name) \
    case name:     \
        return #name;
        RESULTS(CASE)
#undef CASE
    default:
        return "VkResult";
    }
}

// Memory, room to map it, or a pool or count that is used up: tried later, the call may succeed.
static bool wants_device_memory(VkResult result)
{
    return result == VK_ERROR_OUT_OF_DEVICE_MEMORY || result == VK_ERROR_OUT_OF_POOL_MEMORY ||
           result == VK_ERROR_FRAGMENTED_POOL || result == VK_ERROR_FRAGMENTATION ||
           result == VK_ERROR_MEMORY_MAP_FAILED || result == VK_ERROR_TOO_MANY_OBJECTS;
}

enum vkmoe_status moe_vk_fail(struct moe_vk *vk, VkResult result, const char *what)
{
    enum vkmoe_status status = VKMOE_E_DEVICE;
    if (result == VK_ERROR_DEVICE_LOST) {
        atomic_store(&vk->lost, true);
        status = VKMOE_E_DEVICE_LOST;
    } else if (result == VK_ERROR_OUT_OF_HOST_MEMORY) {
        status = VKMOE_E_MEMORY;
    } else if (wants_device_memory(result)) {
        status = VKMOE_E_DEVICE_MEMORY;
    }
    moe_log(vk->base.host, VKMOE_LOG_ERROR, "%s: %s (%d)", what, moe_vk_result_name(result),
            result);
    return moe_fail(status, "%s: %s (%d)", what, moe_vk_result_name(result), result);
}
