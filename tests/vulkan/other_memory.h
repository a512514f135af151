// SPDX-License-Identifier: MIT
// Below interpose.c: gives a device the memory types of another one, and behaves like those. What
// the host may not see cannot be mapped. What is not coherent passes only by flushes and
// invalidations. What is not cached arrives with a submission, and nothing comes back: reading it
// is what the library is not to do. A heap has no room for more than its size. Work begins when
// somebody waits for it, so that memory in use must be left alone until then. One thread at a time.
#ifndef TESTS_VULKAN_OTHER_MEMORY_H
#define TESTS_VULKAN_OTHER_MEMORY_H

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan_core.h>

#include <stdbool.h>

struct other_memory {
    const VkPhysicalDeviceMemoryProperties *memory; // NULL: the device's own
    VkPhysicalDeviceType type;
    VkDeviceSize atom_size;

    VkDeviceSize copied; // bytes, by vkCmdCopyBuffer
    VkDeviceSize allocated[VK_MAX_MEMORY_TYPES]; // bytes by type, freed ones too
    uint32_t mapped;                             // bits of the types that were mapped
    long n_flushes, n_invalidations;
    uint32_t most_waiting; // submissions at once
    const char *error;     // the first use that no device would allow; NULL: there was none
};
extern struct other_memory other_memory;

// What a call by this name is to be: `real`, or what is above.
PFN_vkVoidFunction other_memory_call(const char *name, PFN_vkVoidFunction real);

#endif
